"""Frames of native (not encapsulated) Pixel Data, read one at a time (PS3.5 A.1 to A.3, A.5)."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian

from models._colour import expand_422
from models._header import ClipError, Opened, PixelElement
from models._layout import Layout


class NativeFrames:
    """The samples of native frames as they stand in the file."""

    def __init__(self, opened: Opened, pixels: PixelElement, layout: Layout) -> None:
        """Check that the pixel data can hold what the header states.

        Raises:
            ClipError: they cannot.
        """
        self._layout: Final = layout
        self._offset: Final = pixels.offset
        self._big: Final = opened.transfer_syntax == ExplicitVRBigEndian
        # PS3.5 A.3: bytes that travel as big-endian words stand in pairs, swapped.
        self._swapped: Final = self._big and layout.bits_allocated == 8 and pixels.vr == "OW"
        if pixels.length is None:
            raise ClipError("the native pixel data have no length: the file is broken")
        held = min(pixels.length, opened.size - pixels.offset)
        whole = layout.rows * layout.columns * layout.samples * layout.bits_allocated // 8
        # Some files say YBR_FULL_422 and hold all three samples of each pixel.
        self._subsampled: Final = (
            layout.photometric == "YBR_FULL_422" and held < whole * layout.frame_count
        )
        self._frame_bytes: Final = whole * 2 // 3 if self._subsampled else whole
        if self._subsampled and layout.columns % 2:
            raise ClipError("YBR_FULL_422 needs an even number of columns")
        need = self._frame_bytes * layout.frame_count
        if held < need:
            raise ClipError(
                f"the header states {layout.frame_count} frames of {layout.rows} x "
                f"{layout.columns} pixels, {need} bytes; the pixel data hold {held}"
            )

    def samples(self, stream: BinaryIO, index: int) -> NDArray[Any]:
        """Frame ``index``: ``(rows, columns)``, or ``(rows, columns, 3)`` for three samples."""
        layout = self._layout
        data = self._read(stream, index * self._frame_bytes, self._frame_bytes)
        if len(data) < self._frame_bytes:
            raise ClipError(f"frame {index} is cut off: the file changed since it was opened")
        order = ">" if self._big else "<"
        flat = np.frombuffer(data, "u1" if layout.bits_allocated == 8 else f"{order}u2")
        if layout.samples == 1:
            return flat.reshape(layout.rows, layout.columns)
        if self._subsampled:
            return expand_422(flat, layout.rows, layout.columns)
        if layout.planar:
            return flat.reshape(3, layout.rows, layout.columns).transpose(1, 2, 0)
        return flat.reshape(layout.rows, layout.columns, 3)

    def _read(self, stream: BinaryIO, start: int, length: int) -> bytes:
        lead = start % 2 if self._swapped else 0
        tail = (lead + length) % 2 if self._swapped else 0
        stream.seek(self._offset + start - lead)
        data = stream.read(lead + length + tail)
        if not self._swapped:
            return data
        pairs = np.frombuffer(data[: len(data) // 2 * 2], "u2").byteswap()
        return pairs.tobytes()[lead : lead + length]
