"""From anatomy to a beam picture: paint, speckle, point spread, compression.

Speckle is a complex Gaussian texture that is fixed to the material: it moves with the wall, and
decorrelates a little over the beat. The point spread is separable; its lateral part is constant in
beams, so it widens with depth on the screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.simulator.anatomy import Anatomy, Layer, Structure
from models.simulator.heart import Beat, Heart
from models.simulator.look import Look, slow_field
from models.simulator.sector import BEAMS, DEPTHS, Sector
from models.simulator.shapes import Bounds

_SPECKLE_TURN = 0.35  #: radians that the texture turns between end diastole and end systole
_REFERENCE_ECHO = 0.35  #: an echo of this strength comes out grey at a gain of 0 dB
_BLOCK = 8  #: depths and beams of the blocks in which a layer is looked for
_NOISE_MARGIN = (96, 48)  #: how far the sheet of noise reaches beyond a picture

Field = NDArray[np.float32]
Window = tuple[slice, slice]


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
        self._blocks_uv = _Blocks(self._u, self._v)
        self._blocks_xz = _Blocks(self._x, self._z)
        self._painted: dict[Layer, _Coat] = {}
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
        self._moves: tuple[Field, Field, Field, Field] | None = None
        self._noise_rng = np.random.default_rng(rng.integers(2**63))
        self._noise: Field | None = None
        self._levels: NDArray[np.float32] | None = None

    def paint(self, beat: Beat, heart: Heart) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Grey (0 to 1) and structure of every depth and beam at one moment."""
        echo, structure = self._echo(self._anatomy.layers(beat))
        power = np.zeros_like(echo)
        shift = self._material_index(beat, heart)
        turn = _SPECKLE_TURN * beat.emptied
        cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
        for first, second in self._textures:
            moved = _take(cos * first + sin * second, shift)
            moved *= echo
            moved += self._receiver_noise()
            spread = _blur(moved, self._look.axial_blur, axis=1)
            spread = _blur(spread, self._look.lateral_blur, axis=2)
            spread *= spread
            power += spread[0]
            power += spread[1]
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
        painted: dict[Layer, _Coat] = {}
        for layer in layers:
            # What stands still from frame to frame is worked out once.
            coat = self._painted.get(layer) or self._coat(layer)
            painted[layer] = coat
            if coat.window is None:
                continue
            part = echo[coat.window]
            part += coat.cover * (np.float32(layer.echo) - part)
            if layer.structure is not None:
                structure[coat.window][coat.inside] = layer.structure
            elif layer.echo > 0.05:
                # Solid paint without a name covers what was there; blood without one does not.
                structure[coat.window][coat.inside] = Structure.BACKGROUND
        self._painted = painted
        if self._look.edge_echo:
            edge = np.zeros_like(echo)
            np.abs(echo[1:] - echo[:-1], out=edge[:-1])
            echo += np.float32(self._look.edge_echo) * _blur(edge, 1.5, axis=0)
        echo *= echo
        echo += self._veil * self._veil
        return np.sqrt(echo, out=echo), structure

    def _coat(self, layer: Layer) -> _Coat:
        blocks = self._blocks_xz if layer.in_probe else self._blocks_uv
        window = blocks.window(layer.shape.bounds(layer.soft_cm))
        if window is None:
            return _Coat(None, _NOTHING, _NOWHERE)
        u, v = (self._x, self._z) if layer.in_probe else (self._u, self._v)
        distance = layer.shape.distance(u[window], v[window])
        inside = distance < 0
        cover = distance * np.float32(-0.5 / layer.soft_cm)
        cover += np.float32(0.5)
        return _Coat(window, np.clip(cover, 0, 1, out=cover), inside)

    def _receiver_noise(self) -> Field:
        """A piece, anywhere, of a sheet of noise that the clip shares."""
        if self._noise is None:
            shape = (2, DEPTHS + _NOISE_MARGIN[0], BEAMS + _NOISE_MARGIN[1])
            self._noise = self._noise_rng.standard_normal(shape, np.float32)
            self._noise *= np.float32(self._look.noise)
        row, column = (int(self._noise_rng.integers(margin + 1)) for margin in _NOISE_MARGIN)
        return self._noise[:, row : row + DEPTHS, column : column + BEAMS]

    def _material_index(self, beat: Beat, heart: Heart) -> NDArray[np.intp]:
        """Flat index into the texture: where each point of the picture was at end diastole.

        It may lie beyond the texture's end: it is to be wrapped.
        """
        if self._anatomy.centre_uv is None:
            return _EVERY_INDEX
        if self._moves is None:
            self._moves = self._unit_moves(self._anatomy.centre_uv, heart)
        depth_u, depth_v, beam_u, beam_v = self._moves
        stretch_v = np.float32(heart.lv_radius_cm / beat.lv_radius_cm - 1)
        stretch_u = np.float32(heart.lv_length_cm / beat.lv_length_cm - 1)
        index = np.rint(depth_u * stretch_u + depth_v * stretch_v)
        index *= np.float32(BEAMS)
        index += np.rint(beam_u * stretch_u + beam_v * stretch_v)
        return np.asarray(index.astype(np.intp) + _EVERY_INDEX)

    def _unit_moves(
        self, centre: tuple[float, float], heart: Heart
    ) -> tuple[Field, Field, Field, Field]:
        """Depths, then beams, that a point moves if the ventricle doubles along u, along v."""
        du, dv = self._u - np.float32(centre[0]), self._v - np.float32(centre[1])
        wall = max(heart.lv_radius_cm + heart.wall_cm, 1.0)
        near = np.exp(-0.5 * ((du / (1.7 * wall)) ** 2 + (dv / (1.3 * wall)) ** 2))
        turn = math.radians(self._anatomy.placement.angle_deg)
        sin, cos = np.float32(math.sin(turn)), np.float32(math.cos(turn))
        # Displacement in probe coordinates; across and along the beam in the middle of the
        # sector, which is near enough for a texture.
        along, across = np.float32(1 / self._cells[0]), np.float32(1) / self._cells[1]
        move_u, move_v = np.asarray(du * near, np.float32), np.asarray(dv * near, np.float32)
        return (
            cos * along * move_u,
            -sin * along * move_v,
            sin * across * move_u,
            cos * across * move_v,
        )

    def _compress(self, power: NDArray[np.float32]) -> NDArray[np.float32]:
        look = self._look
        # The blur of white noise leaves 1 / (4 pi s1 s2) of its power.
        kept = 1 / (4 * math.pi * look.axial_blur * look.lateral_blur)
        reference = 2 * kept * _REFERENCE_ECHO**2
        mean = power / np.float32(len(self._textures))
        decibel = 10 * np.log10(mean / reference + 1e-9) + self._gain + look.gain_db
        grey = np.clip(0.62 + decibel / look.dynamic_range_db, 0, 1) ** look.gamma
        if look.smooth:
            grey = _blur(grey, look.smooth, axis=0, truncate=2.0)
            grey = _blur(grey, look.smooth, axis=1, truncate=2.0)
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


_EVERY_INDEX = np.arange(DEPTHS * BEAMS).reshape(DEPTHS, BEAMS)
_NOTHING = np.zeros((0, 0), np.float32)
_NOWHERE = np.zeros((0, 0), bool)


@dataclass(frozen=True, slots=True)
class _Coat:
    """A layer on the beams: the window that it reaches, how it covers it, what lies inside."""

    window: Window | None
    cover: Field
    inside: NDArray[np.bool_]


class _Blocks:
    """Lowest and highest coordinates of blocks of the picture, to find what a layer reaches."""

    def __init__(self, u: Field, v: Field) -> None:
        rows, columns = DEPTHS // _BLOCK, BEAMS // _BLOCK
        u = u.reshape(rows, _BLOCK, columns, _BLOCK)
        v = v.reshape(rows, _BLOCK, columns, _BLOCK)
        self._low_u, self._high_u = u.min(axis=(1, 3)), u.max(axis=(1, 3))
        self._low_v, self._high_v = v.min(axis=(1, 3)), v.max(axis=(1, 3))

    def window(self, bounds: Bounds) -> Window | None:
        """The smallest window of blocks with all points in the bounds; None without one."""
        low_u, high_u, low_v, high_v = bounds
        hit = (self._high_u >= low_u) & (self._low_u <= high_u)
        hit &= (self._high_v >= low_v) & (self._low_v <= high_v)
        rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
        if not len(rows):
            return None
        return (
            slice(int(rows[0]) * _BLOCK, (int(rows[-1]) + 1) * _BLOCK),
            slice(int(columns[0]) * _BLOCK, (int(columns[-1]) + 1) * _BLOCK),
        )


def _take(texture: Field, index: NDArray[np.intp]) -> Field:
    return texture.reshape(2, -1).take(index, axis=1, mode="wrap")


def _blur(field: Field, sigma: float, *, axis: int, truncate: float = 2.5) -> Field:
    """A Gaussian blur along one axis, mirrored at the ends, as scipy's but in single precision."""
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return field
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    shape = list(field.shape)
    count = shape[axis]
    shape[axis] += 2 * reach
    moved = np.moveaxis(field, axis, 0)
    view = np.moveaxis(np.empty(shape, np.float32), axis, 0)
    view[reach : reach + count] = moved
    view[:reach] = moved[:reach][::-1]
    view[reach + count :] = moved[count - reach :][::-1]
    out = view[reach : reach + count] * np.float32(weights[0])
    for step in range(1, reach + 1):
        pair = view[reach - step : reach - step + count] + view[reach + step : reach + step + count]
        pair *= np.float32(weights[step])
        out += pair
    return np.moveaxis(out, 0, axis)
