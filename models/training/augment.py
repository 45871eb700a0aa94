"""What training does to frames so that other machines' frames are no news to the network.

Geometry (rotation, scale, stretch, shift, mirror) moves a frame and its tracing together;
appearance (gain, compression, blur, sharpening, speckle, haze, a narrower sector) changes the
frame alone. All random numbers come from the generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """How far a frame may be moved."""

    rotation_degrees: float = 20.0
    smallest: float = 0.8  #: scale: below 1 the frame shrinks
    largest: float = 1.2
    stretch: float = 0.12  #: of the aspect ratio, either way
    shift: float = 0.08  #: of the side
    mirror: float = 0.3  #: share of frames; labs differ in which side the left ventricle is on


def move(
    images: NDArray[np.float32], geometry: Geometry, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Move each of (n, rows, columns, channels) at random, bilinear, zero from outside."""
    from keras import ops

    transforms = np.stack(
        [_transform(images.shape[1], images.shape[2], geometry, rng) for _ in images]
    )
    moved = ops.image.affine_transform(images, transforms.astype(np.float32))
    return np.asarray(ops.convert_to_numpy(moved), np.float32)


def _transform(
    rows: int, columns: int, geometry: Geometry, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Eight numbers that take an output (x, y) to the input's."""
    angle = np.deg2rad(rng.uniform(-geometry.rotation_degrees, geometry.rotation_degrees))
    scale = np.exp(rng.uniform(np.log(geometry.smallest), np.log(geometry.largest)))
    stretch = np.exp(rng.uniform(-geometry.stretch, geometry.stretch) / 2)
    side = -1.0 if rng.random() < geometry.mirror else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag([side / stretch, stretch]) @ turn / scale
    centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
    shift = rng.uniform(-geometry.shift, geometry.shift, 2) * (columns, rows)
    offset = centre - matrix @ (centre + shift)
    return np.array([*matrix[0], offset[0], *matrix[1], offset[1], 0.0, 0.0])


def restyle(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Change the look of one (rows, columns) frame in 0..1; black outside the sector stays."""
    inside = grey > 0
    out = grey
    if rng.random() < 0.5:
        out = _texture(out, rng)
    out = np.clip(out, 0.0, 1.0) ** np.exp(rng.uniform(-0.5, 0.5))
    out = out * np.exp(rng.uniform(-0.3, 0.3)) + rng.uniform(-0.08, 0.08)
    if rng.random() < 0.5:
        out = out * _field(grey.shape, rng)
    if rng.random() < 0.4:
        out = out * (1.0 + rng.normal(0.0, rng.uniform(0.02, 0.25), grey.shape))
    if rng.random() < 0.2:
        out = out + _haze(grey.shape, rng)
    if rng.random() < 0.25:
        inside = inside & _wedge(grey.shape, rng)
    return np.where(inside, np.clip(out, 0.0, 1.0), 0.0).astype(np.float32)


def _texture(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smoother, or sharper than it was."""
    smooth = ndimage.gaussian_filter(grey, rng.uniform(0.4, 1.3))
    if rng.random() < 0.65:
        return np.asarray(smooth, np.float32)
    return np.asarray(grey + rng.uniform(0.3, 1.0) * (grey - smooth), np.float32)


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """A slow gain over depth and width: time-gain sliders, shadow, a weak probe contact."""
    coarse = np.exp(rng.normal(0.0, rng.uniform(0.1, 0.45), (4, 4)))
    zoom = (shape[0] / 4, shape[1] / 4)
    return np.asarray(ndimage.zoom(coarse, zoom, order=1, mode="nearest", grid_mode=True))


def _haze(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """A bright cloud, as from clutter near the probe."""
    rows, columns = np.ogrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    row, column = rng.uniform(0.0, 0.8), rng.uniform(0.2, 0.8)
    radius = rng.uniform(0.08, 0.25)
    cloud = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))
    return np.asarray(rng.uniform(0.1, 0.4) * cloud)


def _wedge(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A narrower or shallower sector than the frame's."""
    rows, columns = np.ogrid[0 : 1 : shape[0] * 1j, -0.5 : 0.5 : shape[1] * 1j]
    apex = rng.uniform(-0.05, 0.15)
    angle = np.arctan2(columns - rng.uniform(-0.05, 0.05), rows - apex + 1e-6)
    depth = np.hypot(columns, rows - apex)
    half = np.deg2rad(rng.uniform(29.0, 45.0))
    return np.asarray(
        (np.abs(angle - rng.uniform(-0.1, 0.1)) < half) & (depth < rng.uniform(0.8, 1.2))
    )
