"""A picture of several frames that was made before, read again: its frames, marks and curve."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from models.explain.shown import Curve, MarkKind
from node.results.objects import PRIVATE_CREATOR, PRIVATE_GROUP, ResultError

# Elements of our private block, beside the mark of :mod:`node.results.objects`.
CURVE_TIMES, CURVE_VALUES, CURVE_UNIT, TRACING_BOX = 0x02, 0x03, 0x04, 0x05


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A frame worth looking at alone; ``number`` counts from 1."""

    number: int
    kind: MarkKind


@dataclass(frozen=True)
class Cine:
    """A multi-frame capture that :func:`node.results.capture.build_capture` made."""

    dataset: Dataset

    @property
    def count(self) -> int:
        """How many frames it has."""
        return int(self.dataset.NumberOfFrames)

    @property
    def of_pages(self) -> bool:
        """Whether its frames are pages to turn, and no pictures of a movement."""
        return bool(self.dataset.get("FrameIncrementPointer") == Tag("PageNumberVector"))

    @property
    def poster(self) -> int:
        """The number, from 1, of the frame that tells most."""
        return int(self.dataset.get("RepresentativeFrameNumber") or 1)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Its frames that are worth looking at alone, in their order."""
        numbers = values_of(self.dataset, "FrameNumbersOfInterest")
        kinds = values_of(self.dataset, "FrameOfInterestType")
        return tuple(
            Mark(number=int(str(number)), kind=MarkKind(str(kind)))
            for number, kind in zip(numbers, kinds, strict=True)
        )

    def nearest(self, kind: MarkKind) -> list[int]:
        """The numbers of the frames of a kind, the one nearest to the poster first."""
        numbers = [mark.number for mark in self.marks if mark.kind is kind]
        # Of two as near the later one: the systole that follows the diastole.
        return sorted(numbers, key=lambda number: (abs(number - self.poster), number < self.poster))

    @property
    def source_frames(self) -> tuple[int, ...]:
        """The numbers, from 1, of the source's frames that are shown; empty for a still."""
        sources = self.dataset.get("SourceImageSequence")
        if not sources:
            return ()
        shown = tuple(int(str(each)) for each in values_of(sources[0], "ReferencedFrameNumber"))
        return shown if len(shown) == self.count else ()

    def frame(self, number: int) -> bytes:
        """A frame, counted from 1, as JPEG."""
        return get_frame(self.dataset.PixelData, number - 1, number_of_frames=self.count)

    def time_ms(self, number: int) -> float:
        """When a frame is shown, from the first one on."""
        vector = values_of(self.dataset, "FrameTimeVector")
        if vector:
            return list(accumulate(float(str(each)) for each in vector))[number - 1]
        return float(self.dataset.get("FrameTime") or 0.0) * (number - 1)

    @property
    def curve(self) -> Curve | None:
        """The cavity over time; None where nothing was traced."""
        times, values, unit = (self._own(at) for at in (CURVE_TIMES, CURVE_VALUES, CURVE_UNIT))
        if times is None or values is None or unit is None:
            return None
        return Curve(
            times_ms=tuple(np.atleast_1d(times).tolist()),
            values=tuple(np.atleast_1d(values).tolist()),
            unit=str(unit),
        )

    def tracing(self, number: int) -> NDArray[np.uint8] | None:
        """A frame's panel with the tracing, (rows, columns, 3) RGB; None where there is none."""
        box = self._own(TRACING_BOX)
        if box is None:
            return None
        left, top, width, height = (int(each) for each in box)
        image = Image.open(BytesIO(self.frame(number))).convert("RGB")
        return np.asarray(image.crop((left, top, left + width, top + height)))

    def _own(self, element: int) -> list[float] | None:
        try:
            block = self.dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
        except KeyError:
            return None
        found: list[float] | None = block[element].value if element in block else None
        return found


def read_cine(capture: bytes) -> Cine:
    """A cine from its Part-10 file.

    Raises
    ------
    ResultError
        If the bytes are no multi-frame capture.
    """
    try:
        dataset = dcmread(BytesIO(capture))
    except (InvalidDicomError, EOFError, ValueError) as error:
        raise ResultError(f"a capture cannot be read back: {error}") from error
    if dataset.get("SOPClassUID") != MultiFrameTrueColorSecondaryCaptureImageStorage:
        raise ResultError(f"{dataset.get('SOPClassUID')} is no multi-frame true-colour capture")
    return Cine(dataset)


def values_of(header: Dataset, keyword: str) -> list[object]:
    """An attribute's values as a list, empty where it is absent or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    if isinstance(value, str | float | int):
        return [value]
    return list(value)
