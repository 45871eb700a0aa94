"""Frames of encapsulated Pixel Data, decoded one at a time.

Most echo cines are 8-bit JPEG, and their grey is one plane: libjpeg-turbo decodes that alone, in
a fraction of the time. All else goes through pydicom's decoders.
"""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEG2000TransferSyntaxes, RLELossless

from models._colour import Planes, tell_planes
from models._fragments import index_frames, read_frame
from models._header import UNREADABLE, ClipError, Opened, PixelElement, quietly
from models._jpeg import JpegHead, absurd_jpeg, jpeg_2000_head, jpeg_2000_stream, jpeg_head
from models._layout import Layout
from models._limits import MIB, MOST_GROWTH


class EncodedFrames:
    """The samples of encoded frames, and what they mean."""

    def __init__(self, opened: Opened, pixels: PixelElement, layout: Layout) -> None:
        """Find the bytes of each frame.

        Raises:
            ClipError: they are not all there, or their transfer syntax is not decoded here.
        """
        self._opened: Final = opened
        self._layout: Final = layout
        self._syntax: Final = opened.transfer_syntax
        self._check_decoder()
        with opened.source.open() as stream:
            self._frames: Final = index_frames(
                stream,
                pixels,
                size=opened.size,
                frame_count=layout.frame_count,
                syntax=self._syntax,
            )

    def grey(self, stream: BinaryIO, index: int) -> NDArray[np.uint8] | None:
        """Frame ``index`` as 8-bit grey by the short way; None where there is none."""
        data, head = self._frame(stream, index)
        if head is None or not head.by_libjpeg or not self._libjpeg_is_right(head):
            return None
        try:
            grey: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
        except ValueError:
            return None  # a small fault in the stream: the slower decoders may forgive it
        return grey

    def samples(self, stream: BinaryIO, index: int) -> tuple[NDArray[Any], Planes]:
        """Frame ``index``: samples of shape ``(rows, columns[, 3])``, and what they mean."""
        data, head = self._frame(stream, index)
        samples = self._decode(data, head, index)
        if index == 0 and samples.ndim == 3 and "_first_seen" not in self.__dict__:
            self.__dict__["_first_seen"] = tell_planes(samples)  # it need not be decoded again
        if samples.ndim == 2:
            return samples, Planes.GREY if self._layout.samples == 3 else self._layout.planes
        return samples, tell_planes(samples) or self._planes(head)

    @cached_property
    def _first_seen(self) -> Planes | None:
        """RGB or YBR as the pixels of the first frame show it; None where they do not tell."""
        with self._opened.source.open() as stream:
            samples = self._decode(*self._frame(stream, 0), 0)
        return tell_planes(samples) if samples.ndim == 3 else None

    def _planes(self, head: JpegHead | None) -> Planes:
        """What three planes are: by the pixels, the JPEG's own marks, the header."""
        if self._first_seen is not None:
            return self._first_seen
        if head is not None and head.marked is not None:
            return Planes.YBR if head.marked == "ybr" else Planes.RGB
        if head is not None and head.subsampled:
            return Planes.YBR  # nobody halves green and blue
        return self._layout.planes

    def _libjpeg_is_right(self, head: JpegHead) -> bool:
        """Whether the grey that libjpeg gives is ours."""
        if head.components == 1:
            return self._layout.planes in (Planes.GREY, Planes.RGB, Planes.YBR)
        if head.components != 3 or self._layout.samples != 3:
            return False
        return self._planes(head) is (Planes.YBR if head.libjpeg_view == "ybr" else Planes.RGB)

    def _frame(self, stream: BinaryIO, index: int) -> tuple[bytes, JpegHead | None]:
        """A frame's bytes and head; refuses a stream that would decode to what is not stated."""
        layout = self._layout
        raw = layout.rows * layout.columns * layout.samples * layout.bits_allocated // 8
        data = read_frame(stream, self._frames[index], most=MOST_GROWTH * raw + MIB)
        if self._syntax == RLELossless:
            return data, None
        if self._syntax in JPEG2000TransferSyntaxes:
            data = jpeg_2000_stream(data)
            found = jpeg_2000_head(data)
            if found is None:
                raise ClipError(
                    f"frame {index} cannot be decoded: it has no readable JPEG 2000 head"
                )
            head, size, absurd = None, (found.rows, found.columns), found.absurd
        else:
            head = jpeg_head(data)
            if head is None:
                raise ClipError(f"frame {index} cannot be decoded: it has no readable JPEG head")
            size, absurd = (head.rows, head.columns), absurd_jpeg(head, data)
        if size != (layout.rows, layout.columns):
            raise ClipError(
                f"frame {index} is encoded as {size[0]} x {size[1]} pixels, but the header "
                f"states {layout.rows} x {layout.columns}"
            )
        if absurd:
            raise ClipError(f"frame {index} is encoded with {absurd}: it is not decoded")
        return data, head

    def _decode(self, data: bytes, head: JpegHead | None, index: int) -> NDArray[Any]:
        """A frame's samples as they are in the stream, with no colour transform."""
        if head is not None and head.by_libjpeg and head.components in (1, self._layout.samples):
            try:
                return _by_pillow(data, head)
            except (OSError, ValueError, SyntaxError):
                pass  # pydicom's decoders get their turn
        return self._by_pydicom(data, index)

    def _by_pydicom(self, data: bytes, index: int) -> NDArray[Any]:
        layout = self._layout
        options: dict[str, Any] = {
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": layout.samples,
            "photometric_interpretation": layout.photometric,
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_stored,
            "pixel_representation": int(layout.signed),
            # PS3.5 G.2: the planes of RLE follow each other, whatever the header says.
            "planar_configuration": int(layout.planar or self._syntax == RLELossless),
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        }
        try:
            with quietly():
                samples, _ = get_decoder(self._syntax).as_array(
                    encapsulate([data], has_bot=False), index=0, raw=True, **options
                )
        except BaseException as error:
            # The decoder of RLE is written in Rust: what it raises in a panic is no Exception.
            panic = type(error).__name__ == "PanicException"
            if not panic and not isinstance(error, (RuntimeError, MemoryError, *UNREADABLE)):
                raise
            raise ClipError(
                f"frame {index} cannot be decoded as {self._syntax.name}: it is broken"
            ) from error
        # As the bits stand: a sign is undone later, with that of native samples.
        return samples.view(f"u{samples.dtype.itemsize}")

    def _check_decoder(self) -> None:
        try:
            decoder = get_decoder(self._syntax)
        except NotImplementedError as error:
            raise ClipError(
                f"the transfer syntax {self._syntax.name} is not decoded here: "
                "send native, RLE, JPEG, JPEG-LS or JPEG 2000"
            ) from error
        if not decoder.is_available:
            raise ClipError(f"no decoder for {self._syntax.name} is installed")


def _by_pillow(data: bytes, head: JpegHead) -> NDArray[np.uint8]:
    """The planes of a JPEG that libjpeg reads, as they are in the stream."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        if head.components == 3 and head.libjpeg_view == "ybr":
            image.draft("YCbCr", image.size)  # ask for no transform
        return np.asarray(image)
