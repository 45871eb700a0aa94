"""The probe's field: beams by depths, and the table that draws them on the screen.

A *beam picture* has one row for each depth and one column for each beam. Scan conversion reads it
with bilinear weights that are worked out once for a clip; the way back (:meth:`Sector.beams_of`)
brings a picture that was scan-converted by a machine into the same form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

DEPTHS = 256
BEAMS = 144


class Probe(StrEnum):
    """How the beams leave the probe."""

    PHASED = "phased"  #: from one point: the cardiac sector
    CONVEX = "convex"  #: from an arc: abdominal probes
    LINEAR = "linear"  #: side by side: vessels, muscles, joints


@dataclass(frozen=True, kw_only=True)
class Sector:
    """Where the beams lie, in cm before the probe and in pixels of the picture.

    ``centre_row`` and ``centre_column`` are the picture's place of x = z = 0. ``half_width`` is
    half the angle in degrees, for a linear probe half its length in cm. ``first_cm`` is the radius
    of a convex probe. Rows and columns are the picture's.
    """

    probe: Probe
    rows: int
    columns: int
    centre_row: float
    centre_column: float
    cm_per_pixel: float
    depth_cm: float
    half_width: float
    first_cm: float = 0.0
    steer_deg: float = 0.0
    near_cm: float = 0.0  #: what lies closer to the probe is not shown

    @cached_property
    def grid_cm(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(x, z) of every depth and beam, each (DEPTHS, BEAMS)."""
        depth = np.linspace(0, self.depth_cm, DEPTHS, dtype=np.float32)[:, None]
        across = np.linspace(-self.half_width, self.half_width, BEAMS, dtype=np.float32)[None, :]
        if self.probe is Probe.LINEAR:
            lean = math.tan(math.radians(self.steer_deg))
            return across + depth * np.float32(lean), np.broadcast_to(depth, (DEPTHS, BEAMS))
        angle = np.deg2rad(across + np.float32(self.steer_deg))
        reach = depth + np.float32(self.first_cm)
        return reach * np.sin(angle), reach * np.cos(angle) - np.float32(self.first_cm)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(rows, columns): which pixels the beams reach."""
        return self._inside

    @cached_property
    def _beam_place(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For every pixel its depth index and beam index, fractional, perhaps outside."""
        z = (np.arange(self.rows, dtype=np.float32)[:, None] - self.centre_row) * self.cm_per_pixel
        x = (
            np.arange(self.columns, dtype=np.float32)[None, :] - self.centre_column
        ) * self.cm_per_pixel
        if self.probe is Probe.LINEAR:
            depth = np.broadcast_to(z, (self.rows, self.columns))
            across = x - z * math.tan(math.radians(self.steer_deg))
        else:
            z = z + self.first_cm
            depth = np.hypot(x, z) - self.first_cm
            across = np.rad2deg(np.arctan2(x, z)) - self.steer_deg
        depth_index = depth * ((DEPTHS - 1) / self.depth_cm)
        beam_index = (across / self.half_width + 1) * ((BEAMS - 1) / 2)
        return depth_index.astype(np.float32), beam_index.astype(np.float32)

    @cached_property
    def _inside(self) -> NDArray[np.bool_]:
        depth_index, beam_index = self._beam_place
        first = self.near_cm / self.depth_cm * (DEPTHS - 1)
        return np.asarray(
            (depth_index >= first)
            & (depth_index <= DEPTHS - 1)
            & (beam_index >= 0)
            & (beam_index <= BEAMS - 1)
        )

    @cached_property
    def _table(self) -> csr_array:
        """Bilinear weights: a row for each pixel, a column for each depth and beam."""
        inside = self._inside
        depth_index = self._beam_place[0][inside]
        beam_index = self._beam_place[1][inside]
        top = np.minimum(depth_index.astype(np.int32), DEPTHS - 2)
        left = np.minimum(beam_index.astype(np.int32), BEAMS - 2)
        down, right = depth_index - top, beam_index - left
        weights = np.empty((len(top), 4), np.float32)
        weights[:, 3] = down * right
        weights[:, 1] = right - weights[:, 3]
        weights[:, 2] = down - weights[:, 3]
        weights[:, 0] = 1 - down - weights[:, 1]
        first = top * np.int32(BEAMS) + left
        places = first[:, None] + np.array([0, 1, BEAMS, BEAMS + 1], np.int32)
        ends = np.zeros(inside.size + 1, np.int32)
        np.cumsum(inside.ravel(), out=ends[1:])
        return csr_array(
            (weights.ravel(), places.ravel(), ends * 4), shape=(inside.size, DEPTHS * BEAMS)
        )

    @cached_property
    def _nearest(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The pixels that beams reach, and the nearest sample of each; both flat."""
        inside = self._inside
        row = np.rint(self._beam_place[0][inside]).astype(np.intp)
        column = np.rint(self._beam_place[1][inside]).astype(np.intp)
        return np.flatnonzero(inside), row * BEAMS + column

    def draw(self, beams: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scan conversion: (DEPTHS, BEAMS) to (rows, columns), 0 outside the sector."""
        flat = np.ascontiguousarray(beams, np.float32).ravel()
        return np.asarray(self._table @ flat, np.float32).reshape(self.rows, self.columns)

    def draw_labels(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scan conversion of whole numbers, by the nearest depth and beam."""
        where, nearest = self._nearest
        picture = np.zeros(self.rows * self.columns, np.uint8)
        picture[where] = labels.ravel().take(nearest)
        return picture.reshape(self.rows, self.columns)

    def beams_of(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """The way back: a (rows, columns) picture as (DEPTHS, BEAMS), 0 beyond the picture."""
        from scipy.ndimage import map_coordinates

        x, z = self.grid_cm
        rows = z / self.cm_per_pixel + self.centre_row
        columns = x / self.cm_per_pixel + self.centre_column
        return np.asarray(
            map_coordinates(picture.astype(np.float32), [rows, columns], order=1, mode="constant"),
            dtype=np.float32,
        )
