"""Frames of a DICOM object, one at a time, as 8-bit grey or as RGB.

Grey is what echo is about: of YBR the Y plane, of RGB the luma of ITU-R BT.601, of palette
colour the luma of the table's entry; MONOCHROME1 turned about; more than 8 bits stored cut to
the upper 8, fewer stretched to 255; signed samples lifted by half the range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.uid import UID, ExplicitVRBigEndian

from models._colour import Planes, luma, read_palette, tell_planes, ybr_to_rgb
from models._encoded import EncodedFrames
from models._header import ClipError, Opened, shown, text
from models._layout import read_layout
from models._native import NativeFrames

THIN: Final = 2
"""Of a probe's colour, one row and column in so many are kept."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Probe:
    """One frame, ``grey`` whole, and with every ``THIN``-th row and column its colour."""

    grey: NDArray[np.uint8]
    _thin: NDArray[Any]
    _painted: Callable[[NDArray[Any]], NDArray[np.uint8]]

    def colour(self, box: tuple[slice, slice], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The colour, RGB, shape ``(n, 3)``, of what ``mask`` shows of a box of the thin frame."""
        painted: NDArray[np.uint8] = self._painted(self._thin[box][mask][np.newaxis])[0]
        return painted


class FrameReader:
    """Decodes single frames of one object. Holds no open file between calls."""

    def __init__(self, opened: Opened) -> None:
        """Check that the pixel data are there and can hold what the header states.

        Raises:
            ClipError: they are not, cannot, or their transfer syntax is not decoded here.
        """
        if opened.pixels is None:
            stated = UID(text(opened.header, "SOPClassUID"), config.IGNORE)
            name = stated.name if stated.name != stated else "the object"
            raise ClipError(f"{name} holds no pixel data: it is no clip")
        self.layout: Final = read_layout(opened.header)
        self._opened: Final = opened
        syntax = opened.transfer_syntax
        if not syntax.is_transfer_syntax:
            raise ClipError(f"the transfer syntax {shown(syntax)} is not known")
        kind = EncodedFrames if syntax.is_encapsulated else NativeFrames
        self._source: Final = kind(opened, opened.pixels, self.layout)

    def greys(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Frames as grey, each of shape ``(rows, columns)``, decoded as they are asked for."""
        with self._opened.source.open() as stream:
            for index in indices:
                grey = None
                if isinstance(self._source, EncodedFrames):
                    grey = self._source.grey(stream, index)
                yield self._to_grey(*self._samples(stream, index)) if grey is None else grey

    def colour(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as RGB, shape ``(rows, columns, 3)``."""
        with self._opened.source.open() as stream:
            return self._to_rgb(*self._samples(stream, index))

    def probe(self, index: int) -> Probe:
        """Frame ``index``, decoded once, as grey and as colour."""
        with self._opened.source.open() as stream:
            samples, planes = self._samples(stream, index)
        return Probe(
            grey=self._to_grey(samples, planes),
            _thin=samples[::THIN, ::THIN],
            _painted=partial(self._to_rgb, planes=planes),
        )

    def stored(self, indices: Sequence[int]) -> Iterator[tuple[NDArray[Any], Planes]]:
        """Frames as they are stored, with what their samples mean, decoded as they are asked for.

        Shape ``(rows, columns[, 3])``; bits above the stored ones mean nothing.
        """
        with self._opened.source.open() as stream:
            for index in indices:
                yield self._samples(stream, index)

    def painted(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """The colours, as RGB, that the object's palette gives to stored values."""
        return self._to_rgb(samples, Planes.PALETTE)

    def _samples(self, stream: BinaryIO, index: int) -> tuple[NDArray[Any], Planes]:
        if isinstance(self._source, EncodedFrames):
            return self._source.samples(stream, index)
        samples = self._source.samples(stream, index)
        seen = tell_planes(samples) if samples.ndim == 3 else None
        return samples, seen or self.layout.planes

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
        values = samples.astype(np.uint16) & np.uint16((1 << stored) - 1)
        if self.layout.signed:
            values ^= np.uint16(1 << (stored - 1))
        if stored >= 8:
            return (values >> np.uint16(stored - 8)).astype(np.uint8)
        return (values * 255 // ((1 << stored) - 1)).astype(np.uint8)

    def _indices(self, samples: NDArray[Any]) -> NDArray[Any]:
        indices: NDArray[Any] = samples & samples.dtype.type((1 << self.layout.bits_stored) - 1)
        return indices

    @cached_property
    def _palette(self) -> NDArray[np.uint8]:
        """The colour of every stored value, shape ``(2 ** bits allocated, 3)``."""
        little = self._opened.transfer_syntax != ExplicitVRBigEndian
        size = 1 << self.layout.bits_allocated
        return read_palette(self._opened.header, size=size, little=little)

    @cached_property
    def _grey_palette(self) -> NDArray[np.uint8]:
        return luma(self._palette)
