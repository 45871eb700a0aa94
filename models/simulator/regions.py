"""Where a picture lies on a simulated screen, and the region that a machine declares for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.simulator.clip import Region, RegionFormat, RegionType
from models.simulator.sector import Sector


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The half-open box (top, left, bottom, right) around a mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def two_d_region(sector: Sector, box: tuple[int, int, int, int], *, flow: bool) -> Region:
    """The region that a machine would declare for the sector."""
    return Region(
        format=RegionFormat.TWO_D,
        type=RegionType.COLOUR_FLOW if flow else RegionType.TISSUE,
        top=box[0],
        left=box[1],
        bottom=box[2],
        right=box[3],
        delta_x=sector.cm_per_pixel,
        delta_y=sector.cm_per_pixel,
        reference_row=round(sector.centre_row),
    )
