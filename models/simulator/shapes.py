"""Shapes that anatomy is painted with: each gives its signed distance at points of a plane.

All lengths are centimetres. A distance is negative inside, positive outside, and true near the
border, which is where the painter needs it; far away it may only have the right sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""One number for each point of the plane."""

Bounds = tuple[float, float, float, float]
"""A box (lowest u, highest u, lowest v, highest v)."""


class Shape(Protocol):
    """Whatever can say how far points lie from its border."""

    def distance(self, u: Field, v: Field) -> Field:
        """Signed distance in cm at the points (u, v)."""

    def bounds(self, margin: float) -> Bounds:
        """A box outside which every distance is more than ``margin`` cm (0 or more)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ellipse:
    """An ellipse about (u, v), turned by ``angle_deg``."""

    u: float
    v: float
    half_u: float
    half_v: float
    angle_deg: float = 0.0

    def distance(self, u: Field, v: Field) -> Field:
        """Signed distance in cm at the points (u, v)."""
        du, dv = u - np.float32(self.u), v - np.float32(self.v)
        if self.angle_deg:
            cos, sin = _cos_sin(self.angle_deg)
            du, dv = cos * du + sin * dv, cos * dv - sin * du
        du /= np.float32(self.half_u)
        dv /= np.float32(self.half_v)
        radius = np.sqrt(du * du + dv * dv)
        return np.asarray((radius - 1) * np.float32(min(self.half_u, self.half_v)))

    def bounds(self, margin: float) -> Bounds:
        """A box outside which every distance is more than ``margin`` cm."""
        stretch = 1 + margin / min(self.half_u, self.half_v)
        angle = math.radians(self.angle_deg)
        cos, sin = math.cos(angle), math.sin(angle)
        reach_u = stretch * math.hypot(self.half_u * cos, self.half_v * sin)
        reach_v = stretch * math.hypot(self.half_u * sin, self.half_v * cos)
        return self.u - reach_u, self.u + reach_u, self.v - reach_v, self.v + reach_v


@dataclass(frozen=True, kw_only=True, slots=True)
class Bullet:
    """Half an ellipse: the long section of a half prolate ellipsoid.

    Its flat base lies at ``base_u``, its tip ``length`` before it. Turned about the middle of the
    base, such an ellipsoid holds V = 2/3 pi half_width^2 length.
    """

    base_u: float
    v: float
    length: float
    half_width: float
    angle_deg: float = 0.0

    def distance(self, u: Field, v: Field) -> Field:
        """Signed distance in cm at the points (u, v)."""
        du, dv = u - np.float32(self.base_u), v - np.float32(self.v)
        if self.angle_deg:
            cos, sin = _cos_sin(self.angle_deg)
            du, dv = cos * du + sin * dv, cos * dv - sin * du
        along = du / np.float32(self.length)
        across = dv / np.float32(self.half_width)
        radius = np.sqrt(along * along + across * across)
        round_part = (radius - 1) * np.float32(min(self.length, self.half_width))
        return np.asarray(np.maximum(round_part, du))

    def bounds(self, margin: float) -> Bounds:
        """A box outside which every distance is more than ``margin`` cm."""
        stretch = 1 + margin / min(self.length, self.half_width)
        angle = math.radians(self.angle_deg)
        cos, sin = math.cos(angle), math.sin(angle)
        corners = [
            (cos * along - sin * across, sin * along + cos * across)
            for along in (-self.length * stretch, margin)
            for across in (-self.half_width * stretch, self.half_width * stretch)
        ]
        us, vs = zip(*corners, strict=True)
        return self.base_u + min(us), self.base_u + max(us), self.v + min(vs), self.v + max(vs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tube:
    """A line through ``points`` (u, v), thick by a radius that runs evenly from start to end."""

    points: tuple[tuple[float, float], ...]
    radius: float
    end_radius: float | None = None

    def distance(self, u: Field, v: Field) -> Field:
        """Signed distance in cm at the points (u, v)."""
        end = self.radius if self.end_radius is None else self.end_radius
        radii = np.linspace(self.radius, end, len(self.points))
        nearest: Field | None = None
        for index in range(len(self.points) - 1):
            piece = _from_segment(
                u, v, self.points[index], self.points[index + 1], radii[index], radii[index + 1]
            )
            nearest = piece if nearest is None else np.minimum(nearest, piece)
        if nearest is None:
            raise ValueError(f"a tube needs two points, not {len(self.points)}")
        return nearest

    def bounds(self, margin: float) -> Bounds:
        """A box outside which every distance is more than ``margin`` cm."""
        reach = margin + max(
            self.radius, self.radius if self.end_radius is None else self.end_radius
        )
        us, vs = zip(*self.points, strict=True)
        return min(us) - reach, max(us) + reach, min(vs) - reach, max(vs) + reach


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfPlane:
    """All that lies beyond a line through (u, v) whose outward normal points along the angle."""

    u: float
    v: float
    normal_deg: float

    def distance(self, u: Field, v: Field) -> Field:
        """Signed distance in cm at the points (u, v)."""
        cos, sin = _cos_sin(self.normal_deg)
        return np.asarray(cos * (u - np.float32(self.u)) + sin * (v - np.float32(self.v)))

    def bounds(self, margin: float) -> Bounds:  # noqa: ARG002 - half the plane has no box
        """A box outside which every distance is more than ``margin`` cm: the whole plane."""
        return -math.inf, math.inf, -math.inf, math.inf


def _cos_sin(angle_deg: float) -> tuple[np.float32, np.float32]:
    angle = np.deg2rad(angle_deg)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))


def _from_segment(
    u: Field,
    v: Field,
    start: tuple[float, float],
    end: tuple[float, float],
    start_radius: float,
    end_radius: float,
) -> Field:
    along_u, along_v = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    squared = max(float(along_u) ** 2 + float(along_v) ** 2, 1e-6)
    du, dv = u - np.float32(start[0]), v - np.float32(start[1])
    share = np.clip((du * along_u + dv * along_v) / np.float32(squared), 0, 1)
    du -= share * along_u
    dv -= share * along_v
    radius = np.float32(start_radius) + share * np.float32(end_radius - start_radius)
    return np.asarray(np.sqrt(du * du + dv * dv) - radius)
