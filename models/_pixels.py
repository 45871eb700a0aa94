"""Frames of a DICOM object, one at a time, as 8-bit grey or as RGB.

Grey is what echo is about: of YBR the Y plane, of RGB the luma of ITU-R BT.601, of palette
colour the luma of the table's entry. What the three planes of a frame are is asked of the
pixels first: labels and JPEG markers lie in both directions, but on an ultrasound screen most
pixels are black or grey, so either two planes sit at 128 or all three are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from models._colour import Planes, expand_422, luma, read_palette, tell_planes, ybr_to_rgb
from models._fragments import Frame, index_frames, read_frame
from models._header import UNREADABLE, ClipError, Opened, number, quietly, text
from models._jpeg import JpegHead, jpeg_head, stated_size

MOST_FRAMES: Final = 100_000
THIN: Final = 2
MOST_PIXELS: Final = 64 * 1024**2
"""No ultrasound frame has more; a header that says so lies."""


_PLANES: Final = {
    "MONOCHROME1": Planes.INVERTED,
    "MONOCHROME2": Planes.GREY,
    "PALETTE COLOR": Planes.PALETTE,
    "RGB": Planes.RGB,
    "YBR_FULL": Planes.YBR,
    "YBR_FULL_422": Planes.YBR,
    "YBR_PARTIAL_422": Planes.YBR,
    "YBR_PARTIAL_420": Planes.YBR,
    # A JPEG 2000 decoder undoes these two itself.
    "YBR_ICT": Planes.RGB,
    "YBR_RCT": Planes.RGB,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The Image Pixel module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    frame_count: int
    samples: int
    photometric: str
    planes: Planes
    bits_allocated: int
    bits_stored: int
    signed: bool
    planar: bool

    @property
    def subsampled(self) -> bool:
        """Whether native frames hold two Y for each pair of chroma (PS3.3 C.7.6.3.1.2)."""
        return self.photometric == "YBR_FULL_422"

    @property
    def native_bytes(self) -> int:
        """The bytes of one native frame."""
        samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8


def read_layout(header: Dataset) -> Layout:
    """The Image Pixel module of a header.

    Raises:
        ClipError: a size is missing, zero or absurd, or the pixels are of a kind not read here.
    """
    rows, columns = _whole(header, "Rows", 0), _whole(header, "Columns", 0)
    if rows < 1 or columns < 1:
        raise ClipError(f"the image size is {rows} rows by {columns} columns: there is no image")
    if rows * columns > MOST_PIXELS:
        raise ClipError(
            f"the header states {rows} x {columns} pixels: no ultrasound frame is so large"
        )
    frame_count = _whole(header, "NumberOfFrames", 1) or 1
    if not 1 <= frame_count <= MOST_FRAMES:
        raise ClipError(f"the header states {frame_count} frames: 1 to {MOST_FRAMES} are read")
    photometric = text(header, "PhotometricInterpretation").upper()
    samples = _whole(header, "SamplesPerPixel", 1)
    if not photometric:
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
    planes = _PLANES.get(photometric)
    if planes is None:
        raise ClipError(f"the photometric interpretation {photometric!r} is not read")
    wanted = 3 if planes in (Planes.RGB, Planes.YBR) else 1
    if samples != wanted:
        raise ClipError(f"{photometric} has {wanted} samples a pixel; the header states {samples}")
    allocated = _whole(header, "BitsAllocated", 8)
    stored = _whole(header, "BitsStored", allocated) or allocated
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise ClipError(f"{stored} bits stored in {allocated} allocated are not read: 8 or 16 are")
    return Layout(
        rows=rows,
        columns=columns,
        frame_count=frame_count,
        samples=samples,
        photometric=photometric,
        planes=planes,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=_whole(header, "PixelRepresentation", 0) == 1,
        planar=_whole(header, "PlanarConfiguration", 0) == 1,
    )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Probe:
    """One frame twice: ``grey`` whole, ``colour`` (RGB) with every ``THIN``-th row and column."""

    grey: NDArray[np.uint8]
    colour: NDArray[np.uint8]


class FrameReader:
    """Decodes single frames of one object. Holds no open file between calls."""

    def __init__(self, opened: Opened) -> None:
        """Check that the pixel data are there and can hold what the header states.

        Raises:
            ClipError: they are not, cannot, or their transfer syntax is not decoded here.
        """
        if opened.pixels is None:
            name = UID(text(opened.header, "SOPClassUID")).name or "the object"
            raise ClipError(f"{name} holds no pixel data: it is no clip")
        self.layout: Final = read_layout(opened.header)
        self._opened: Final = opened
        self._pixels: Final = opened.pixels
        self._syntax: Final = opened.transfer_syntax
        self._frames: tuple[Frame, ...] = ()
        if self._syntax.is_encapsulated:
            self._check_decoder()
            with opened.source.open() as stream:
                self._frames = index_frames(
                    stream,
                    self._pixels,
                    size=opened.size,
                    frame_count=self.layout.frame_count,
                    syntax=self._syntax,
                )
        else:
            self._check_native()

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """The object's bytes, for one or more calls of :meth:`grey` and :meth:`colour`."""
        with self._opened.source.open() as stream:
            yield stream

    def grey(self, stream: BinaryIO, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as grey, shape ``(rows, columns)``."""
        if not self._frames:
            return self._to_grey(self._native(stream, index), self.layout.planes)
        data = read_frame(stream, self._frames[index])
        head = self._check_size(data, index)
        if head is not None and head.by_libjpeg and self._agrees(head):
            try:
                return self._shaped(simplejpeg.decode_jpeg(data, "GRAY")[..., 0], index)
            except ValueError:
                pass  # a small fault in the stream: the slower decoders may forgive it
        return self._to_grey(self._samples(data, head, index), self._planes(head))

    def colour(self, stream: BinaryIO, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as RGB, shape ``(rows, columns, 3)``."""
        return self._to_rgb(*self._decode(stream, index))

    def greys(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Frames as grey, one at a time."""
        with self.stream() as stream:
            for index in indices:
                yield self.grey(stream, index)

    def probe(self, index: int) -> Probe:
        """Frame ``index``, decoded once, as grey and as colour."""
        with self.stream() as stream:
            samples, planes = self._decode(stream, index)
        thin = samples[::THIN, ::THIN]
        return Probe(grey=self._to_grey(samples, planes), colour=self._to_rgb(thin, planes))

    # --- what the samples mean ---

    @cached_property
    def _seen_planes(self) -> Planes | None:
        """RGB or YBR as the pixels of the first frame show it; None where they do not tell."""
        if self.layout.samples != 3:
            return self.layout.planes
        with self.stream() as stream:
            data = read_frame(stream, self._frames[0])
        return tell_planes(self._samples(data, self._check_size(data, 0), 0))

    def _planes(self, head: JpegHead | None) -> Planes:
        """What the decoded samples are: by the pixels, the JPEG's own marks, the header."""
        seen = self._seen_planes
        if seen is not None:
            return seen
        if head is not None and head.marked is not None:
            return Planes.YBR if head.marked == "ybr" else Planes.RGB
        if head is not None and head.subsampled:
            return Planes.YBR  # nobody halves red and blue
        return self.layout.planes

    def _agrees(self, head: JpegHead) -> bool:
        """Whether libjpeg will take the planes for what they are."""
        if head.components == 1:
            return self.layout.planes is Planes.GREY
        return self._planes(head) is (Planes.YBR if head.libjpeg_view == "ybr" else Planes.RGB)

    # --- bytes to samples ---

    def _decode(self, stream: BinaryIO, index: int) -> tuple[NDArray[Any], Planes]:
        """A frame's samples and what they mean."""
        if not self._frames:
            return self._native(stream, index), self.layout.planes
        data = read_frame(stream, self._frames[index])
        head = self._check_size(data, index)
        return self._samples(data, head, index), self._planes(head)

    def _check_decoder(self) -> None:
        try:
            decoder = get_decoder(self._syntax)
        except NotImplementedError as error:
            raise ClipError(
                f"the transfer syntax {self._syntax.name} is not decoded here: "
                "send native, RLE, JPEG, JPEG-LS or JPEG 2000"
            ) from error
        if not decoder.is_available:
            raise ClipError(
                f"no decoder for {self._syntax.name} is installed: "
                f"{'; '.join(decoder.missing_dependencies)}"
            )

    def _check_native(self) -> None:
        layout = self.layout
        if layout.subsampled and layout.columns % 2:
            raise ClipError("YBR_FULL_422 needs an even number of columns")
        stated = self._pixels.length
        there = self._opened.size - self._pixels.offset
        if stated is None:
            raise ClipError("the pixel data have no length: the file is broken")
        need = layout.native_bytes * layout.frame_count
        if min(stated, there) < need:
            raise ClipError(
                f"the header states {layout.frame_count} frames of {layout.rows} x "
                f"{layout.columns} pixels, {need} bytes; the pixel data hold {min(stated, there)}"
            )

    def _native(self, stream: BinaryIO, index: int) -> NDArray[Any]:
        """A native frame's samples: (rows, columns) or (rows, columns, 3)."""
        layout = self.layout
        length = layout.native_bytes
        start = index * length
        swapped = (
            self._syntax == ExplicitVRBigEndian
            and layout.bits_allocated == 8
            and self._pixels.vr == "OW"
        )
        lead = start % 2 if swapped else 0  # words are swapped whole
        stream.seek(self._pixels.offset + start - lead)
        data = stream.read(lead + length + ((lead + length) % 2 if swapped else 0))
        if swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], "u2").byteswap().tobytes()
            data = data[lead : lead + length]
        if len(data) < length:
            raise ClipError(f"frame {index} is cut off: the file changed since it was opened")
        order = ">" if self._syntax == ExplicitVRBigEndian else "<"
        kind = np.dtype("u1") if layout.bits_allocated == 8 else np.dtype(f"{order}u2")
        flat = np.frombuffer(data, kind)
        if layout.samples == 1:
            return flat.reshape(layout.rows, layout.columns)
        if layout.subsampled:
            return expand_422(flat, layout.rows, layout.columns)
        if layout.planar:
            return flat.reshape(3, layout.rows, layout.columns).transpose(1, 2, 0)
        return flat.reshape(layout.rows, layout.columns, 3)

    def _check_size(self, data: bytes, index: int) -> JpegHead | None:
        """The head of a JPEG frame; refuses a stream that is larger or smaller than stated."""
        size = stated_size(data)
        if size is not None and size != (self.layout.rows, self.layout.columns):
            raise ClipError(
                f"frame {index} is encoded as {size[0]} x {size[1]} pixels, but the header "
                f"states {self.layout.rows} x {self.layout.columns}"
            )
        return jpeg_head(data)

    def _samples(self, data: bytes, head: JpegHead | None, index: int) -> NDArray[Any]:
        """An encoded frame's samples as they are in the stream, with no colour transform."""
        if head is not None and head.by_libjpeg and head.components == self.layout.samples:
            try:
                return self._shaped(_by_pillow(data, head), index)
            except (OSError, ValueError, SyntaxError):
                pass  # pydicom's decoders get their turn
        return self._by_pydicom(data, index)

    def _by_pydicom(self, data: bytes, index: int) -> NDArray[Any]:
        layout = self.layout
        options: dict[str, Any] = {
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": layout.samples,
            "photometric_interpretation": layout.photometric,
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_stored,
            "pixel_representation": int(layout.signed),
            "planar_configuration": int(layout.planar),
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        }
        if self._syntax == RLELossless:
            options["planar_configuration"] = 1  # PS3.5 G.2: the planes follow each other
        try:
            with quietly():
                samples, _ = get_decoder(self._syntax).as_array(
                    encapsulate([data], has_bot=False), index=0, raw=True, **options
                )
        except (RuntimeError, *UNREADABLE) as error:
            raise ClipError(
                f"frame {index} cannot be decoded as {self._syntax.name}: it is broken"
            ) from error
        if layout.signed:  # as its bits stand; the sign is undone once, in _to_grey
            samples = samples.view(samples.dtype.str.replace("i", "u"))
        return self._shaped(samples, index)

    def _shaped(self, samples: NDArray[Any], index: int) -> NDArray[Any]:
        size = (self.layout.rows, self.layout.columns)
        if samples.shape[:2] != size:
            raise ClipError(f"frame {index} is {samples.shape[:2]} pixels, not {size} as stated")
        return samples

    # --- samples to grey and colour ---

    def _to_grey(self, samples: NDArray[Any], planes: Planes) -> NDArray[np.uint8]:
        if planes is Planes.PALETTE:
            found: NDArray[np.uint8] = self._grey_palette[self._indices(samples)]
            return found
        if planes is Planes.YBR:
            return self._eight_bits(samples[..., 0])
        if planes is Planes.RGB:
            return luma(self._eight_bits(samples))
        grey = self._eight_bits(samples)
        return 255 - grey if planes is Planes.INVERTED else grey

    def _to_rgb(self, samples: NDArray[Any], planes: Planes) -> NDArray[np.uint8]:
        if planes is Planes.PALETTE:
            found: NDArray[np.uint8] = self._palette[self._indices(samples)]
            return found
        if planes is Planes.RGB:
            return self._eight_bits(samples)
        if planes is Planes.YBR:
            return ybr_to_rgb(self._eight_bits(samples))
        return np.repeat(self._to_grey(samples, planes)[..., np.newaxis], 3, axis=-1)

    def _eight_bits(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """The stored bits, as unsigned, brought to 8; the bits above them mean nothing."""
        stored = self.layout.bits_stored
        if stored == 8 and not self.layout.signed and samples.dtype == np.uint8:
            return samples
        values = samples.astype(np.uint16) & ((1 << stored) - 1)
        if self.layout.signed:
            values ^= 1 << (stored - 1)
        scaled = values >> (stored - 8) if stored >= 8 else values * 255 // ((1 << stored) - 1)
        return scaled.astype(np.uint8)

    def _indices(self, samples: NDArray[Any]) -> NDArray[Any]:
        if samples.dtype.itemsize == 1:
            return samples
        return samples & ((1 << self.layout.bits_stored) - 1)

    @cached_property
    def _palette(self) -> NDArray[np.uint8]:
        """The colour of every stored value, shape ``(2 ** bits allocated, 3)``."""
        little = self._syntax != ExplicitVRBigEndian
        return read_palette(
            self._opened.header, size=1 << self.layout.bits_allocated, little=little
        )

    @cached_property
    def _grey_palette(self) -> NDArray[np.uint8]:
        return luma(self._palette)


def _by_pillow(data: bytes, head: JpegHead) -> NDArray[np.uint8]:
    """The planes of a JPEG that libjpeg reads, as they are in the stream."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        if head.components == 3 and head.libjpeg_view == "ybr":
            image.draft("YCbCr", image.size)
        return np.asarray(image)


def _whole(header: Dataset, keyword: str, default: int) -> int:
    value = number(header, keyword)
    return default if value is None else int(value)
