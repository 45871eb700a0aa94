"""A simulated clip: its frames, how its screen is divided, and the truth of what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from models.views import View


class RegionFormat(IntEnum):
    """Region Spatial Format, PS3.3 C.8.5.5.1.1."""

    TWO_D = 1
    M_MODE = 2
    SPECTRAL = 3
    WAVEFORM = 4


class RegionType(IntEnum):
    """Region Data Type, PS3.3 C.8.5.5.1.2."""

    TISSUE = 1
    COLOUR_FLOW = 2
    PW_SPECTRAL = 3
    CW_SPECTRAL = 4
    ECG_TRACE = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of the screen and its scale. The box is half open, in pixels.

    ``delta_x`` and ``delta_y`` are per pixel: cm in two dimensions; seconds and cm in M-mode;
    seconds and cm/s in spectral Doppler.
    """

    format: RegionFormat
    type: RegionType
    top: int
    left: int
    bottom: int
    right: int
    delta_x: float
    delta_y: float
    reference_row: int | None = None  #: baseline of a spectrum, apex of a sector; from the top


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the simulator put into the clip. None: the view does not show it.

    ``masks`` holds for each frame and pixel a :class:`models.simulator.anatomy.Structure`.
    ``phases`` is each frame's place in the beat, 0 at the R wave.
    """

    kind: str  #: the view's label, or what sort of "other" it is
    heart_rate_bpm: float | None = None
    edv_ml: float | None = None
    esv_ml: float | None = None
    ef_percent: float | None = None
    volumes_ml: tuple[float, ...] = ()
    wall_cm: float | None = None
    la_area_cm2: float | None = None
    la_volume_ml: float | None = None
    ra_length_cm: float | None = None
    lead: bool | None = None
    cm_per_pixel: float | None = None
    phases: tuple[float, ...] = ()
    masks: NDArray[np.uint8] | None = None

    def mask(self, structure: int) -> NDArray[np.bool_]:
        """(frames, rows, columns): where a structure lies.

        Raises
        ------
        ValueError
            If the clip carries no masks.
        """
        if self.masks is None:
            raise ValueError(f"a simulated clip of kind {self.kind!r} has no masks")
        return np.asarray(self.masks == structure)


@dataclass(frozen=True, kw_only=True)
class SimulatedClip:
    """A clip as a machine would show it.

    ``frames`` is (n, rows, columns) grey or (n, rows, columns, 3) RGB, 8 bits. ``sector_box`` is
    the half-open box (top, left, bottom, right) of the two-dimensional picture, None without one.
    """

    view: View
    seed: int
    frames: NDArray[np.uint8]
    frame_time_ms: float
    truth: Truth
    regions: tuple[Region, ...]
    sector_box: tuple[int, int, int, int] | None
    colour_flow: bool = False

    @property
    def grey(self) -> NDArray[np.uint8]:
        """(n, rows, columns): the frames without colour, as the Y plane of a JPEG has them."""
        if self.frames.ndim == 3:
            return self.frames
        from models.simulator.screen import luma

        return luma(self.frames)
