"""What the picture of a clip shows: findings, tracings, maps, and the frames worth a look alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.finding import Finding, Refusal


class MarkKind(StrEnum):
    """Why a frame of the picture is worth looking at alone (terms as in PS3.3 C.7.6.9)."""

    END_DIASTOLE = "ENDDIASTOLE"  #: the cavity is largest
    END_SYSTOLE = "ENDSYSTOLE"  #: the cavity is smallest
    STRONGEST = "STRONGEST"  #: its own map is the strongest one


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameMark:
    """A frame worth looking at alone: its position in the picture, from 0."""

    position: int
    kind: MarkKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The cavity over the clip: ``values`` in ``unit`` at ``times_ms`` from the first frame.

    ``unit`` is "mL", or "%" of the largest area where no scale can be trusted.
    """

    times_ms: tuple[float, ...]
    values: tuple[float, ...]
    unit: str


@dataclass(frozen=True, kw_only=True)
class ShownTracing:
    """Tracings over the clip.

    ``masks`` is (m, rows, columns), an index into ``classes`` for each pixel, for the source
    frames ``frames``. ``volumes_ml`` is (m,), or None where no scale can be trusted.
    """

    masks: NDArray[np.uint8]
    frames: tuple[int, ...]
    classes: tuple[str, ...]
    ed_frames: tuple[int, ...] = ()
    es_frames: tuple[int, ...] = ()
    volumes_ml: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class ShownMap:
    """An output's maps over the clip: (m, rows, columns) for the source frames ``frames``.

    They are over the sector frame (:meth:`models.preprocess.Fit.map_to_source`), not over the
    network's input.
    """

    finding: Finding
    maps: NDArray[np.float32]
    frames: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that is drawn over and beside the frames.

    ``clip_frames`` is how many frames the clip has, which may be more than are shown; ``method``
    says how the maps were made; ``cautions`` are lines that stand below the findings.
    """

    frame_times_ms: tuple[float, ...]
    source_frames: tuple[int, ...]
    clip_frames: int
    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...] = ()
    cautions: tuple[str, ...] = ()
    tracing: ShownTracing | None = None
    maps: tuple[ShownMap, ...] = ()
    method: str = "SmoothGrad"
