"""Single functions of the reader, with whatever a file may hand to them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from models._colour import read_palette
from models._fragments import index_frames, read_frame
from models._header import ClipError, PixelElement, number, numbers, open_object
from models._jpeg import jpeg_2000_head, jpeg_2000_stream, jpeg_head
from models._layout import read_layout
from models._limits import MOST_PALETTE
from models._regions import judge_spacing, main_region, pictures, read_regions, stated_mode
from models._timing import time_axis
from tests.ultrasound_files import ROWS, as_file, region, speckle, ultrasound, with_regions

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WHOLE = as_file(with_regions(ultrasound(speckle((2, 12, 16))), region()))

_KINDS = ("RegionSpatialFormat", "RegionDataType", "PhysicalUnitsXDirection")
_KINDS += ("PhysicalUnitsYDirection",)
_kinds = st.one_of(st.integers(0, 5), st.integers(0, 70000))
_words = st.binary(max_size=40)
_numbers = st.one_of(
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.lists(st.floats(), max_size=8),
    st.text(max_size=8),
    st.none(),
)


@contextmanager
def refused_in_words() -> Iterator[None]:
    """What is in the block may be refused, with a reason, and end in no other way."""
    try:
        yield
    except ClipError as error:
        refusal = error
    else:
        return
    assert len(str(refusal)) > 10


@QUICK
@given(at=st.integers(132, len(WHOLE)), new=_words, gone=st.integers(0, 20))
def test_a_header_is_read_or_refused_in_words(at: int, new: bytes, gone: int) -> None:
    with refused_in_words():
        opened = open_object(WHOLE[:at] + new + WHOLE[at + gone :])
        read_layout(opened.header)
        for element in opened.header.iterall():
            str(element.value)


@QUICK
@given(tail=st.binary(max_size=300), syntax=st.sampled_from([b"1.2.840.10008.1.2", b""]))
def test_what_follows_the_preamble_may_be_anything(tail: bytes, syntax: bytes) -> None:
    meta = struct.pack("<HH2sH", 2, 16, b"UI", len(syntax)) + syntax
    for data in (bytes(128) + b"DICM" + meta + tail, b"\x08\x00" + tail):
        with refused_in_words():
            open_object(data)


@QUICK
@given(stream=st.binary(max_size=400), cut=st.integers(0, 400))
def test_a_deflated_dataset_is_inflated_or_refused(stream: bytes, cut: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = (packer.compress(WHOLE[WHOLE.index(b"\x08\x00\x16\x00", 132) :]) + packer.flush())[
        :cut
    ]
    syntax = b"1.2.840.10008.1.2.1.99"
    meta = struct.pack("<HH2sH", 2, 16, b"UI", len(syntax)) + syntax
    with refused_in_words():
        open_object(bytes(128) + b"DICM" + meta + packed + stream)


@QUICK
@given(
    corners=st.lists(_numbers, min_size=4, max_size=4),
    deltas=st.tuples(st.floats(), st.floats()),
    kinds=st.tuples(_kinds, _kinds, _kinds, _kinds),
)
def test_any_region_gives_a_verdict_in_words(
    corners: list[object], deltas: tuple[float, float], kinds: tuple[int, int, int, int]
) -> None:
    item, keywords = Dataset(), ("MinX0", "MinY0", "MaxX1", "MaxY1")
    for keyword, corner in zip(keywords, corners, strict=True):
        _put(item, f"RegionLocation{keyword}", corner)
    item.PhysicalDeltaX, item.PhysicalDeltaY = deltas
    for keyword, kind in zip(_KINDS, kinds, strict=True):
        _put(item, keyword, kind)
    header = Dataset()
    header.SequenceOfUltrasoundRegions = [item, region()]
    regions = read_regions(header)
    mode = stated_mode(header, regions)
    pictures(regions)
    if mode is not None:
        chosen = main_region(regions, mode)
        said = judge_spacing(header, chosen, mode=mode, rows=ROWS, columns=160, sector_rows=100)
        assert said.reason
        assert not said.trusted or (said.row_mm and np.isfinite(said.row_mm))


@QUICK
@given(
    values=st.dictionaries(
        st.sampled_from(
            ["FrameTime", "FrameTimeVector", "CineRate", "EffectiveDuration", "HeartRate"]
        ),
        _numbers,
    ),
    count=st.integers(1, 50),
)
def test_time_never_runs_back(values: dict[str, object], count: int) -> None:
    header = Dataset()
    for keyword, value in values.items():
        _put(header, keyword, value)
    axis = time_axis(header, count)
    assert len(axis.times_ms) == count
    assert np.isfinite(axis.times_ms).all()
    assert (np.diff(axis.times_ms) >= 0).all()
    assert all(0 <= frame < count for frame in axis.sample(100.0, 20))
    assert number(header, "FrameTime") is None or numbers(header, "FrameTime")


_items = st.lists(
    st.tuples(
        st.sampled_from([0xE000FFFE, 0xE0DDFFFE, 0xE00DFFFE, 0x00100008]),
        st.one_of(st.none(), st.sampled_from([0, 1, 0xFFFFFFFF, 0x7FFFFFFF])),
        st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\xff\x4f\xff\x51", bytes(12), b"\x08\0\0\0"]),
    ),
    max_size=8,
)


@QUICK
@given(
    items=_items,
    count=st.integers(1, 6),
    syntax=st.sampled_from([JPEGBaseline8Bit, JPEG2000Lossless, RLELossless]),
    offsets=st.lists(st.integers(0, 2**64 - 1), max_size=6),
    length=st.one_of(st.none(), st.integers(0, 300)),
)
def test_fragments_are_within_the_file(
    items: list[tuple[int, int | None, bytes]],
    count: int,
    syntax: object,
    offsets: list[int],
    length: int | None,
) -> None:
    data = b"".join(
        struct.pack("<LL", tag, len(value) if lie is None else lie) + value
        for tag, lie, value in items
    )
    pixels = PixelElement(offset=0, length=length, vr="OB", offsets=tuple(offsets))
    stream = io.BytesIO(data)
    with refused_in_words():
        frames = index_frames(
            stream,
            pixels,
            size=len(data),
            frame_count=count,
            syntax=syntax,  # type: ignore[arg-type]
        )
        assert len(frames) == count
        for frame in frames:
            assert len(read_frame(stream, frame, most=10)) <= 10
            assert all(part.start + part.length <= len(data) for part in frame)


@QUICK
@given(stream=st.binary(max_size=120))
def test_any_head_of_a_code_stream_is_looked_at(stream: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff\xc0\x00\x11", b"\xff\xd8\xff", b"\xff\xd8\x00\xff\xf7"):
        jpeg_head(start + stream)
    for start in (b"", b"\xff\x4f\xff\x51\x00\x29", b"\x00\x00\x00\x0cjP  \r\n\x87\n"):
        jpeg_2000_head(jpeg_2000_stream(start + stream))


@QUICK
@given(
    words=st.lists(st.sampled_from([0, 1, 2, 3, 5, 256, 65535]), max_size=60),
    descriptor=st.lists(st.sampled_from([0, 1, 8, 16, 256, 65535]), min_size=3, max_size=3),
    segmented=st.booleans(),
)
def test_a_palette_is_as_long_as_was_asked(
    words: list[int], descriptor: list[int], segmented: bool
) -> None:
    header = Dataset()
    for colour in ("Red", "Green", "Blue"):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
        name = f"{colour}PaletteColorLookupTableData"
        setattr(
            header,
            f"Segmented{name}" if segmented else name,
            struct.pack(f"<{len(words)}H", *words),
        )
    with refused_in_words():
        assert read_palette(header, size=256, little=True).shape == (256, 3)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_segmented_palette_that_would_never_end_is_refused(bits: int) -> None:
    kind = "B" if bits == 8 else "H"
    most = 2**bits - 1
    lines = [0, 1, 7, *(1, most, 9) * (1 + 2 * MOST_PALETTE // most)]
    header = Dataset()
    for colour in ("Red", "Green", "Blue"):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [0, 0, bits])
        data = struct.pack(f"<{len(lines)}{kind}", *lines)
        setattr(header, f"Segmented{colour}PaletteColorLookupTableData", data)
    with pytest.raises(ClipError, match="palette is missing or broken"):
        read_palette(header, size=256, little=True)


def _put(dataset: Dataset, keyword: str, value: object) -> None:
    """Give an attribute a value as far as it takes it; what it refuses stays away."""
    try:
        setattr(dataset, keyword, value)
    except (ValueError, TypeError, OverflowError, UserWarning):
        return
