"""Small objects that would take gigabytes or hours are refused before anything is taken."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from models.clip import ClipError, bytes_beside_pixels, read_clip, read_header
from node.memory import leave_no_holes
from tests.fuzz.draft import PIXEL_DATA, UNDEFINED, Draft, Part, fragments_value, take_apart
from tests.ultrasound_files import (
    as_file,
    jpeg_object,
    region,
    speckle,
    ultrasound,
    with_regions,
    ybr_jpeg,
)

MIB = 1024**2
MOST_MIB = 80
"""What refusing may take for a moment, and what an honest small object takes."""
MOST_CPU_S = 20.0

leave_no_holes()  # as in the process that takes objects in

GREY = speckle((2, 40, 60))
SMALL = as_file(with_regions(ultrasound(GREY), region()))


def peak_mib(call: Callable[[], object]) -> float:
    """How much the process grows at most while it calls."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def refusal(source: Path | bytes) -> str:
    """Why an object is not read: "" where it is."""
    try:
        clip = read_clip(source)
        clip.frames([clip.frame_count - 1])
    except ClipError as error:
        return str(error)
    return ""


def draft(data: bytes = SMALL, *, syntax: str | None = None) -> Draft:
    """An object taken apart, under another transfer syntax."""
    made = take_apart(data)
    for part in made.meta:
        if part.tag == 0x00020010 and syntax is not None:
            part.value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return made


def encapsulated(frames: list[bytes], syntax: str, **sizes: int) -> bytes:
    """An object of these encoded frames that states these sizes."""
    made = draft(syntax=syntax)
    made.put(PIXEL_DATA, b"OB", fragments_value([b"", *frames]), UNDEFINED)
    made.put(0x00280008, b"IS", b"%d " % min(len(frames), 2))
    for tag, name in ((0x00280010, "rows"), (0x00280011, "columns")):
        if name in sizes:
            made.put(tag, b"US", struct.pack("<H", sizes[name]))
    return made.encode()


def jpeg_2000(
    *,
    size: int = 40,
    columns: int = 60,
    tile: int | None = None,
    components: int = 1,
    block: int = 4,
    precinct: int | None = None,
    layers: int = 1,
) -> bytes:
    """The head of a JPEG 2000 stream, and an empty tile."""
    tiles = (tile or columns, tile or size)
    siz = struct.pack(">HLLLLLLLLH", 0, columns, size, 0, 0, *tiles, 0, 0, components)
    siz += b"\x07\x01\x01" * components
    cod = struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, 5, block, block, 0, 1)
    if precinct is not None:
        cod += bytes([precinct * 17]) * 6
    qcd = b"\x40" + bytes([0x40] * 16)
    segments = b"".join(
        struct.pack(">HH", marker, len(body) + 2) + body
        for marker, body in ((0xFF51, siz), (0xFF52, cod), (0xFF5C, qcd))
    )
    part = b"\xff\x90\x00\x0a\x00\x00" + struct.pack(">LBB", 14, 0, 1) + b"\xff\x93"
    return b"\xff\x4f" + segments + part + b"\xff\xd9"


def _deflated(parts: Callable[[Draft], None]) -> bytes:
    made = draft(syntax=DeflatedExplicitVRLittleEndian)
    made.deflated = True
    parts(made)
    body = b"".join(part.encode("<") for part in made.parts)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(body) + packer.flush()
    made.parts, made.deflated, made.tail = [], False, packed
    return made.encode()


def deflated_header() -> bytes:
    """100 MiB of nothing in front of the pixels, in 100 KiB."""
    return _deflated(lambda d: d.parts.insert(9, Part(0x00091010, b"OB", bytes(100 * MIB))))


def deflated_pixels() -> bytes:
    """Pixels that say that they are 900 MiB: there are 90 bytes of them for each one here."""

    def change(made: Draft) -> None:
        made.put(0x00280010, b"US", struct.pack("<H", 4096))
        made.put(0x00280011, b"US", struct.pack("<H", 4096))
        made.put(0x00280008, b"IS", b"56")
        made.put(PIXEL_DATA, b"OB", bytes(80 * MIB), 56 * 4096 * 4096)

    return _deflated(change)


def jpeg_of_another_size() -> bytes:
    """65500 x 65500 pixels in a kilobyte, where the header states 40 x 60."""
    stream = bytearray(ybr_jpeg(np.zeros((40, 60, 3), np.uint8)))
    at = stream.index(b"\xff\xc0")
    stream[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return encapsulated([bytes(stream)], JPEGBaseline8Bit, rows=40, columns=60)


def progressive() -> bytes:
    """A JPEG that goes over the same picture thousands of times."""
    buffer = BytesIO()
    Image.fromarray(np.zeros((2048, 2048), np.uint8)).save(buffer, "JPEG", progressive=True)
    stream = buffer.getvalue()
    last = stream.rindex(b"\xff\xda")
    scan = stream[last:-2]
    stream = stream[:last] + scan * 3000 + b"\xff\xd9"
    return encapsulated([stream], JPEGBaseline8Bit, rows=2048, columns=2048)


def rle() -> bytes:
    """A frame of 2400 bytes whose runs are 60 MiB."""
    runs = b"\x81\xff" * (60 * MIB // 128)
    head = struct.pack("<16L", 1, 64, *[0] * 14)
    return encapsulated([head + runs], RLELossless)


def many_items() -> bytes:
    """A million empty items."""
    made = draft()
    made.put(0x00081140, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_000_000)
    return made.encode()


def many_open_items() -> bytes:
    """Many in a sequence without a length."""
    made = draft()
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 200_000
    made.put(0x00081140, b"SQ", items + end, UNDEFINED)
    return made.encode()


def deep() -> bytes:
    """A hundred thousand sequences in each other."""
    made = draft()
    head = Part(0x00081140, b"SQ", b"", UNDEFINED).encode("<")
    made.put(
        0x00081140,
        b"SQ",
        (struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED) + head) * 100_000,
        UNDEFINED,
    )
    return made.encode()


def many_elements() -> bytes:
    """Two million elements without a value."""
    made = draft()
    more = b"".join(struct.pack("<HH2sH", 0x0029, n, b"LO", 0) for n in range(0x1000, 0x9000))
    made.parts[9:9] = [Part(0x00290010, b"LO", b"")] * 0
    at = next(n for n, part in enumerate(made.parts) if part.tag > 0x00290000)
    made.tail = more * 60 + b"".join(part.encode("<") for part in made.parts[at:])
    del made.parts[at:]
    return made.encode()


def many_numbers() -> bytes:
    """A frame time vector of four million numbers, in Implicit VR."""
    made = as_file(ultrasound(GREY))
    whole = draft(made, syntax=ImplicitVRLittleEndian)
    for part in whole.parts:
        part.vr = None
    whole.implicit = True
    whole.put(0x00181065, b"DS", b"1\\" * 4_000_000)
    return whole.encode()


def many_fragments() -> bytes:
    """A million fragments of nothing."""
    return encapsulated([b""] * 1_000_000, JPEGBaseline8Bit)


def long_table() -> bytes:
    """An offset table of 40 MiB."""
    made = draft(as_file(jpeg_object(np.repeat(GREY[..., None], 3, -1), ybr_jpeg)))
    frames = [ybr_jpeg(np.repeat(frame[..., None], 3, -1)) for frame in GREY]
    made.put(PIXEL_DATA, b"OB", fragments_value([bytes(40 * MIB), *frames]), UNDEFINED)
    return made.encode()


def endless_frame() -> bytes:
    """A frame of 40 x 60 pixels in 60 MiB."""
    frame = ybr_jpeg(np.zeros((40, 60, 3), np.uint8))
    return encapsulated([frame + bytes(60 * MIB)], JPEGBaseline8Bit)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (deflated_header, "grows beyond 64 MiB"),
        (deflated_pixels, "grows beyond 512 MiB"),
        (jpeg_of_another_size, "encoded as 65500 x 65500"),
        (progressive, "passes over the picture"),
        (rle, ""),
        (many_items, ""),
        (many_open_items, ""),
        (deep, "the header cannot be read"),
        (many_elements, "more than 50000 elements"),
        (many_numbers, ""),
        (many_fragments, "more than 250000 fragments"),
        (long_table, ""),
    ],
)
def test_a_bomb_is_refused_or_its_absurd_part_left_out(
    make: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.dcm"
    path.write_bytes(make())
    refusal(SMALL)  # what is loaded late is loaded now
    said: list[str] = []
    start = time.process_time()
    assert peak_mib(lambda: said.append(refusal(path))) < MOST_MIB
    assert time.process_time() - start < MOST_CPU_S
    assert reason in said[0]
    assert reason or not said[0]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"size": 65500, "columns": 65500}, "encoded as 65500 x 65500"),
        ({"components": 16000}, "16000 planes"),
        ({"tile": 1}, "2400 tiles"),
        ({"precinct": 0, "block": 0, "size": 3000, "columns": 3000}, "too many pieces"),
        ({"block": 0, "size": 4000, "columns": 4000}, "too many pieces"),
        ({"layers": 65535, "precinct": 5, "size": 4000, "columns": 4000}, "too many pieces"),
    ],
)
def test_a_jpeg_2000_head_that_asks_for_too_much_is_refused(
    wrong: dict[str, int], reason: str
) -> None:
    rows, columns = (
        min(wrong.get(name, size), 4000) for name, size in (("size", 40), ("columns", 60))
    )
    data = encapsulated([jpeg_2000(**wrong)], JPEG2000Lossless, rows=rows, columns=columns)
    said: list[str] = []
    assert peak_mib(lambda: said.append(refusal(data))) < MOST_MIB
    assert reason in said[0]


def test_an_honest_jpeg_2000_head_is_let_through() -> None:
    said = refusal(encapsulated([jpeg_2000()], JPEG2000Lossless, rows=40, columns=60))
    assert said == "" or "it is broken" in said


@pytest.mark.parametrize("form", ["a value", "a sequence", "an open sequence"])
def test_a_gigabyte_of_private_data_in_front_of_the_pixels_is_passed_over(
    form: str, tmp_path: Path
) -> None:
    """The file is sparse: it takes no place on the disk."""
    made = take_apart(SMALL)
    at = next(n for n, part in enumerate(made.parts) if part.tag > 0x00200000)
    before, behind = made.parts[:at], made.parts[at:]
    gigabyte = 1024 * MIB
    item = struct.pack("<HHL", 0xFFFE, 0xE000, gigabyte)
    head = {
        "a value": Part(0x001F1010, b"OB", b"", gigabyte).encode("<"),
        "a sequence": Part(0x001F1010, b"SQ", b"", gigabyte + 8).encode("<") + item,
        "an open sequence": Part(0x001F1010, b"SQ", b"", UNDEFINED).encode("<")
        + struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
        + Part(0x001F1011, b"OB", b"", gigabyte).encode("<"),
    }[form]
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        made.parts = before
        file.write(made.encode() + head)
        file.seek(gigabyte, 1)
        file.write(ends if form == "an open sequence" else b"")
        file.write(b"".join(part.encode("<") for part in behind))
    frames: list[np.ndarray] = []
    assert peak_mib(lambda: read_header(path)) < 8
    assert peak_mib(lambda: frames.append(read_clip(path).frames())) < MOST_MIB
    assert np.array_equal(frames[0], read_clip(SMALL).frames())
    assert bytes_beside_pixels(path) > gigabyte


def test_the_header_of_a_large_cine_is_read_without_its_pixels(tmp_path: Path) -> None:
    made = take_apart(SMALL)
    pixels = made.parts.pop()
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.write(made.encode() + Part(pixels.tag, b"OB", b"", 2048 * MIB).encode("<"))
        file.truncate(2050 * MIB)
    assert peak_mib(lambda: read_header(path)) < 8
    assert read_header(path) == read_header(SMALL)
    assert bytes_beside_pixels(path) < 4 * MIB


def test_a_panic_of_the_decoder_of_rle_is_a_refusal() -> None:
    """It is no Exception in Python, and would end the worker."""
    made = take_apart(as_file(ultrasound(GREY[:1].astype(np.uint16))))
    for part in made.meta:
        if part.tag == 0x00020010:
            part.value = RLELossless.encode() + b"\0"
    runs = b"\x81\xff" * 40  # longer than the 2400 pixels
    stream = struct.pack("<16L", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs
    made.put(PIXEL_DATA, b"OB", fragments_value([b"", stream]), UNDEFINED)
    assert "cannot be decoded" in refusal(made.encode())


def test_a_frame_is_read_no_further_than_its_pixels_can_reach() -> None:
    said: list[str] = []
    data = endless_frame()
    assert peak_mib(lambda: said.append(refusal(data))) < 24
