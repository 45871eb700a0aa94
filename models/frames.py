"""The frames of a DICOM object one at a time, as they are stored and as pictures in colour.

For what passes objects on. What a model may look at comes from :mod:`models.clip` alone: here
nothing is blanked.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from models._encoded import EncodedFrames
from models._fragments import read_frame
from models._header import UNREADABLE, ClipError, open_object, quietly
from models._limits import MIB, MOST_GROWTH
from models._pixels import FrameReader

__all__ = ["Frames", "header_and_pixels"]


def header_and_pixels(source: Path | BinaryIO) -> tuple[Dataset, str | None]:
    """What :func:`models.clip.read_header` gives, and the value representation of Pixel Data.

    Raises
    ------
    ClipError
        If it is not a DICOM object, or broken beyond reading.
    """
    opened = open_object(source, with_pixels=False)
    if opened.pixels is None:
        return opened.header, None
    compressed = opened.transfer_syntax.is_encapsulated
    return opened.header, opened.pixels.vr or ("OB" if compressed else "OW")


class Frames:
    """Single frames of one object. Holds no open file between calls.

    Raises
    ------
    ClipError
        If the object cannot be read, or holds no pixels of a kind that is read here.
    """

    def __init__(self, path: Path, *, inflating: bool = False) -> None:
        """Look at an object; a deflated one is held inflated, and only where that is wished."""
        header = open_object(path, with_pixels=False)
        if header.transfer_syntax == DeflatedExplicitVRLittleEndian:
            if not inflating:
                raise ClipError("the data set is deflated: it is inflated on request only")
            header = open_object(path)
        self._opened: Final = header
        self._reader: Final = FrameReader(header)
        self.header: Final[Dataset] = header.header
        self.transfer_syntax_uid: Final = str(header.transfer_syntax)
        self.layout: Final = self._reader.layout
        self.count: Final = self._reader.layout.frame_count

    @property
    def frame_bytes(self) -> int:
        """How many bytes a frame has where it is not compressed."""
        layout = self.layout
        return layout.rows * layout.columns * layout.samples * layout.bits_allocated // 8

    def stored(self, index: int) -> bytes:
        """Frame ``index`` (from 0) as it is stored; uncompressed ones in little endian.

        Raises
        ------
        ClipError
            If it cannot be read.
        """
        source = self._reader._source
        with self._opened.source.open() as stream:
            if isinstance(source, EncodedFrames):
                most = MOST_GROWTH * self.frame_bytes + MIB
                return read_frame(stream, source._frames[index], most=most)
            size = source._frame_bytes
            data = source._read(stream, index * size, size)
        if len(data) < size:
            raise ClipError(f"frame {index} is cut off: the file changed since it was opened")
        if self._opened.transfer_syntax == ExplicitVRBigEndian and self.layout.bits_allocated == 16:
            return np.frombuffer(data, ">u2").astype("<u2").tobytes()
        return data

    def plain(self, index: int) -> bytes:
        """Frame ``index`` as it was before it was compressed without loss.

        Raises
        ------
        ClipError
            If it cannot be decoded, or its colours would not be those that the header names.
        """
        source = self._reader._source
        if not isinstance(source, EncodedFrames):
            return self.stored(index)
        layout = self.layout
        if layout.samples > 1 and layout.photometric not in ("RGB", "YBR_FULL"):
            raise ClipError("its colours change when it is decoded")
        with self._opened.source.open() as stream:
            data, _ = source._frame(stream, index)
        try:
            with quietly():
                frame, _ = get_decoder(self._opened.transfer_syntax).as_buffer(
                    encapsulate([data]),
                    raw=True,
                    rows=layout.rows,
                    columns=layout.columns,
                    samples_per_pixel=layout.samples,
                    photometric_interpretation=layout.photometric,
                    bits_allocated=layout.bits_allocated,
                    bits_stored=layout.bits_stored,
                    pixel_representation=int(layout.signed),
                    planar_configuration=int(layout.planar),
                    number_of_frames=1,
                    pixel_keyword="PixelData",
                )
        except (*UNREADABLE, RuntimeError) as error:
            raise ClipError(f"frame {index} cannot be decoded") from error
        if len(frame) < self.frame_bytes:
            raise ClipError(f"frame {index} cannot be decoded")
        return bytes(frame[: self.frame_bytes])

    def colour(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as RGB, shape ``(rows, columns, 3)``.

        Raises
        ------
        ClipError
            If it cannot be decoded.
        """
        return self._reader.colour(index)
