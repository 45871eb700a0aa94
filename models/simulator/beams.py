"""From anatomy to a beam picture: paint, speckle, point spread, compression.

Speckle is a complex Gaussian texture that is fixed to the material: it moves with the wall, and
decorrelates a little over the beat. The point spread is separable; its lateral part is constant in
beams, so it widens with depth on the screen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from models.simulator.anatomy import Anatomy, Layer, Structure
from models.simulator.heart import Beat, Heart
from models.simulator.look import Look, slow_field
from models.simulator.sector import BEAMS, DEPTHS, Sector

_SPECKLE_TURN = 0.35  #: radians that the texture turns between end diastole and end systole
_REFERENCE_ECHO = 0.35  #: an echo of this strength comes out grey at a gain of 0 dB


class BeamPainter:
    """Draws the beam pictures of one clip. Everything that does not move is worked out once."""

    def __init__(
        self, anatomy: Anatomy, sector: Sector, look: Look, rng: np.random.Generator
    ) -> None:
        self._anatomy = anatomy
        self._look = look
        x, z = sector.grid_cm
        self._x = np.ascontiguousarray(-x if anatomy.placement.mirrored else x)
        self._z = np.ascontiguousarray(z)
        self._depth = np.linspace(0, sector.depth_cm, DEPTHS, dtype=np.float32)[:, None]
        self._u, self._v = self._heart_coordinates(rng)
        shape = (2, DEPTHS, BEAMS)
        self._textures = [
            (rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32))
            for _ in range(look.looks)
        ]
        strength = anatomy.background * float(rng.uniform(0.35, 1.15))
        self._background = np.asarray(
            strength * np.exp(0.5 * slow_field(rng, depth_scale=22, beam_scale=12)), np.float32
        )
        self._gain = self._static_gain(rng, sector)
        self._veil = self._static_veil(rng)
        self._cells = self._cell_sizes(sector)
        self._noise_rng = np.random.default_rng(rng.integers(2**63))
        self._levels: NDArray[np.float32] | None = None

    def paint(self, beat: Beat, heart: Heart) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Grey (0 to 1) and structure of every depth and beam at one moment."""
        echo, structure = self._echo(self._anatomy.layers(beat))
        power = np.zeros_like(echo)
        shift = self._material_index(beat, heart)
        turn = _SPECKLE_TURN * beat.emptied
        cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
        for first, second in self._textures:
            moved = cos * _take(first, shift) + sin * _take(second, shift)
            moved *= echo
            moved += np.float32(self._look.noise) * self._noise_rng.standard_normal(
                moved.shape, np.float32
            )
            spread = gaussian_filter1d(moved, self._look.axial_blur, axis=1, truncate=2.5)
            spread = gaussian_filter1d(spread, self._look.lateral_blur, axis=2, truncate=2.5)
            power += spread[0] ** 2 + spread[1] ** 2
        return self._compress(power), structure

    # -- worked out once --

    def _heart_coordinates(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        place = self._anatomy.placement
        turn = math.radians(place.angle_deg)
        cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
        dx, dz = self._x - np.float32(place.x), self._z - np.float32(place.z)
        u, v = sin * dx + cos * dz, cos * dx - sin * dz
        # No two hearts have the same outline. Near the ventricle the plane stays true, so that
        # its area and volume do.
        strength: float | NDArray[np.floating] = 0.22
        if self._anatomy.centre_uv is not None:
            away = np.hypot(u - self._anatomy.centre_uv[0], v - self._anatomy.centre_uv[1])
            strength = 0.32 * np.clip((away - 3.5) / 3.0, 0, 1)
        u = u + strength * slow_field(rng)
        v = v + strength * slow_field(rng)
        return np.asarray(u, np.float32), np.asarray(v, np.float32)

    def _static_gain(self, rng: np.random.Generator, sector: Sector) -> NDArray[np.float32]:
        look = self._look
        decibel = look.uneven_db * slow_field(rng, depth_scale=60, beam_scale=30)
        decibel += 0.4 * look.uneven_db * slow_field(rng, depth_scale=20, beam_scale=9)
        decibel -= look.attenuation_db_per_cm * (self._depth - sector.depth_cm * 0.4)
        beams = np.arange(BEAMS, dtype=np.float32)
        for _ in range(look.shadows):
            centre, width = rng.uniform(0, BEAMS), rng.uniform(2, 12)
            start = rng.uniform(0, sector.depth_cm * 0.6)
            dark = np.exp(-0.5 * ((beams - centre) / width) ** 2)[None, :]
            decibel -= (
                rng.uniform(4, 22) * dark * np.clip((self._depth - start) / 1.5, 0, 1)
            ).astype(np.float32)
        return np.asarray(decibel, np.float32)

    def _static_veil(self, rng: np.random.Generator) -> NDArray[np.float32]:
        look = self._look
        near = look.near_clutter * np.exp(-self._depth / rng.uniform(0.5, 1.4))
        ringing = 1 + 0.7 * np.sin(self._depth * rng.uniform(8, 20))
        veil = look.haze * np.exp(0.7 * slow_field(rng, depth_scale=50, beam_scale=25))
        return np.asarray(veil + near * ringing, np.float32)

    def _cell_sizes(self, sector: Sector) -> tuple[float, NDArray[np.float32]]:
        """cm of one depth sample, and of one beam at every depth."""
        x, _ = sector.grid_cm
        beam = np.abs(np.gradient(x, axis=1)).mean(axis=1, keepdims=True)
        return sector.depth_cm / (DEPTHS - 1), np.maximum(beam, 0.02).astype(np.float32)

    # -- for every frame --

    def _echo(self, layers: list[Layer]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        echo = self._background.copy()
        structure = np.zeros(echo.shape, np.uint8)
        for layer in layers:
            u, v = (self._x, self._z) if layer.in_probe else (self._u, self._v)
            distance = layer.shape.distance(u, v)
            cover = np.clip(0.5 - distance / np.float32(2 * layer.soft_cm), 0, 1)
            echo += cover * (np.float32(layer.echo) - echo)
            if layer.structure is not None:
                structure[distance < 0] = layer.structure
            elif layer.echo > 0.05:
                # Solid paint without a name covers what was there; blood without one does not.
                structure[distance < 0] = Structure.BACKGROUND
        if self._look.edge_echo:
            edge = np.abs(np.diff(echo, axis=0, append=echo[-1:]))
            echo += np.float32(self._look.edge_echo) * gaussian_filter1d(edge, 1.5, axis=0)
        return np.sqrt(echo * echo + self._veil * self._veil), structure

    def _material_index(self, beat: Beat, heart: Heart) -> NDArray[np.intp]:
        """Flat index into the texture: where each point of the picture was at end diastole."""
        depth, beam = np.indices((DEPTHS, BEAMS), dtype=np.float32)
        centre = self._anatomy.centre_uv
        if centre is not None:
            du, dv = self._u - centre[0], self._v - centre[1]
            wall = max(heart.lv_radius_cm + heart.wall_cm, 1.0)
            near = np.exp(-0.5 * ((du / (1.7 * wall)) ** 2 + (dv / (1.3 * wall)) ** 2))
            stretch_v = heart.lv_radius_cm / beat.lv_radius_cm - 1
            stretch_u = heart.lv_length_cm / beat.lv_length_cm - 1
            move_u, move_v = du * near * stretch_u, dv * near * stretch_v
            turn = math.radians(self._anatomy.placement.angle_deg)
            # Displacement in probe coordinates; across and along the beam in the middle of the
            # sector, which is near enough for a texture.
            dx = math.sin(turn) * move_u + math.cos(turn) * move_v
            dz = math.cos(turn) * move_u - math.sin(turn) * move_v
            depth += dz / np.float32(self._cells[0])
            beam += dx / self._cells[1]
        rows = np.rint(depth).astype(np.intp) % DEPTHS
        columns = np.rint(beam).astype(np.intp) % BEAMS
        return rows * BEAMS + columns

    def _compress(self, power: NDArray[np.float32]) -> NDArray[np.float32]:
        look = self._look
        # The blur of white noise leaves 1 / (4 pi s1 s2) of its power.
        kept = 1 / (4 * math.pi * look.axial_blur * look.lateral_blur)
        reference = 2 * kept * _REFERENCE_ECHO**2
        mean = power / np.float32(len(self._textures))
        decibel = 10 * np.log10(mean / reference + 1e-9) + self._gain + look.gain_db
        grey = np.clip(0.62 + decibel / look.dynamic_range_db, 0, 1) ** look.gamma
        if look.smooth:
            grey = gaussian_filter(grey, look.smooth, truncate=2.0)
        return self._lend(np.asarray(grey, np.float32))

    def _lend(self, grey: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lay a real frame's shading, grain and grey levels over the picture."""
        look, lent = self._look, self._look.borrowed
        if lent is None:
            return grey
        if look.borrow_shade:
            grey = grey * (1 + look.borrow_shade * (lent.shade - 1))
        if look.borrow_grain:
            slow = gaussian_filter(grey, (2.0, 2.0), truncate=2.0)
            bins = np.clip(slow * 16, 0, 15)
            spread = np.interp(bins.ravel(), np.arange(16), lent.grain_spread).reshape(bins.shape)
            grained = slow + lent.grain * spread
            grey = np.asarray(grey + look.borrow_grain * (grained - grey), np.float32)
        if look.borrow_levels:
            if self._levels is None:  # one curve for the clip, or the picture would flicker
                self._levels = np.quantile(grey, np.linspace(0, 1, 256)).astype(np.float32)
            matched = np.interp(grey.ravel(), self._levels, lent.levels).reshape(grey.shape)
            grey = np.asarray(grey + look.borrow_levels * (matched - grey), np.float32)
        return np.clip(grey, 0, 1)


def _take(texture: NDArray[np.float32], index: NDArray[np.intp]) -> NDArray[np.float32]:
    return texture.reshape(2, -1).take(index, axis=1)
