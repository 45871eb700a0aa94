"""Patients' pixels for the view classifier: as they are, lent to other views, and taken apart.

Every patient's frame here is an apical four-chamber view. A network that sees real pixels in that
view alone learns that real pixels mean that view. So the same pixels are also bent into others:

- mirrored about the ventricle's axis, the right heart is gone: two chambers are left (a2c);
- turned about the axis at mid height, septum and lateral wall make a ring (saxmid);
- turned apex right, under a painted liver: the four chambers from below the ribs (sub4c);
- mirrored and turned apex left, the ventricle lies under the right one (psla, without its aorta);
- cut into pieces and shuffled, or with everything but its grain smoothed away: none (other).

These are stand-ins. They carry real grain, haze, shadows and grey levels, and a layout of dark and
bright that is near enough to the view's; they are no pictures of those views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from models.data.camus import Patient, TracedFrame
from models.simulator.anatomy import BLOOD, LIVER, Anatomy, Layer, Placement
from models.simulator.beams import BeamPainter
from models.simulator.clip import SimulatedClip, Truth
from models.simulator.heart import random_heart
from models.simulator.look import Borrowed, borrow_look, random_look, slow_field, stretch
from models.simulator.regions import box_of, two_d_region
from models.simulator.screen import Screen, place_sector, random_layout
from models.simulator.sector import BEAMS, DEPTHS, Probe, Sector
from models.simulator.shapes import HalfPlane, Tube
from models.simulator.simulate import FlowBox
from models.views import View

_CAVITY, _ATRIUM = 1, 3

Beams = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Donor:
    """One frame of a patient, ready to lend its pixels and its look."""

    frame: TracedFrame

    @cached_property
    def sector(self) -> Sector:
        """CAMUS frames are cropped to a sector whose apex is the middle of the first row."""
        rows, columns = self.frame.grey.shape
        middle = (columns - 1) / 2
        lit = np.flatnonzero(self.frame.grey[:, 0:2].max(axis=1) > 2)
        corner = float(lit.mean()) if len(lit) else rows * 0.75
        cm = self.frame.row_mm / 10
        return Sector(
            probe=Probe.PHASED,
            rows=rows,
            columns=columns,
            centre_row=0.0,
            centre_column=middle,
            cm_per_pixel=cm,
            depth_cm=math.hypot(middle, corner) * cm,
            half_width=math.degrees(math.atan2(middle, corner)),
        )

    @cached_property
    def beams(self) -> Beams:
        """The frame as a beam picture, 0 to 1."""
        return self.sector.beams_of(self.frame.grey.astype(np.float32) / np.float32(255))

    @cached_property
    def look(self) -> Borrowed:
        """What the frame lends to simulated clips."""
        return borrow_look(self.beams)

    @cached_property
    def axis(self) -> tuple[float, float, float, float]:
        """(row, column) of the ventricle's middle and its direction from apex to base."""
        cavity = np.argwhere(self.frame.labels == _CAVITY).astype(float)
        atrium = np.argwhere(self.frame.labels == _ATRIUM).astype(float)
        middle = cavity.mean(axis=0)
        spread = np.linalg.svd(cavity - middle, full_matrices=False)[2][0]
        towards = atrium.mean(axis=0) - middle if len(atrium) else np.array([1.0, 0.0])
        if float(spread @ towards) < 0:
            spread = -spread
        return float(middle[0]), float(middle[1]), float(spread[0]), float(spread[1])

    @cached_property
    def length(self) -> float:
        """The cavity's extent along its axis, in pixels."""
        row, column, down, across = self.axis
        cavity = np.argwhere(self.frame.labels == _CAVITY).astype(float)
        along = (cavity - (row, column)) @ np.array([down, across])
        return float(np.ptp(along))


def donors_of(patients: Sequence[Patient]) -> tuple[Donor, ...]:
    """Two donors a patient: the end-diastolic and the end-systolic frame."""
    return tuple(Donor(frame=frame) for patient in patients for frame in (patient.ed, patient.es))


def patient_clip(
    donor: Donor,
    view: View,
    *,
    rng: np.random.Generator,
    size: tuple[int, int],
    disguise: bool = True,
) -> SimulatedClip:
    """A still of a donor's pixels as a view shows them, on a maker's screen.

    Parameters
    ----------
    view
        One of :data:`LENT_VIEWS`.
    disguise
        Whether gain, blur, speckle and the sector's shape are changed as well.

    Raises
    ------
    ValueError
        If no pixels can be lent to the view.
    """
    if view not in _WAYS:
        raise ValueError(f"a four-chamber frame cannot stand in for {view.value!r}")
    beams, depth_cm = _WAYS[view](donor, rng)
    if disguise:
        beams = _disguise(beams, rng)
    flow = bool(rng.random() < 0.1) and disguise
    layout = random_layout(rng, rows=size[0], columns=size[1], colour=flow)
    sector = place_sector(layout, rng, depth_cm=depth_cm)
    screen = Screen(layout, (sector,), rng)
    speed = FlowBox(rng, sector).at(float(rng.random()), beams) if flow else None
    frame = screen.frame(
        sector.draw(beams), progress=float(rng.random()), phase=0.0, beats=3.0, flow=speed
    )
    box = box_of(screen.mask)
    return SimulatedClip(
        view=view,
        seed=0,
        frames=frame[None],
        frame_time_ms=33.3,
        truth=Truth(kind=f"patient as {view.value}", cm_per_pixel=sector.cm_per_pixel),
        regions=(two_d_region(sector, box, flow=flow),),
        sector_box=box,
        colour_flow=flow,
    )


# --- The ways to lend ------------------------------------------------------------------------


def _as_it_is(donor: Donor, rng: np.random.Generator) -> tuple[Beams, float]:
    beams = donor.beams
    keep = float(rng.uniform(0.82, 1.0))  # a shallower setting cuts the atria
    rows = np.linspace(0, keep * (DEPTHS - 1), DEPTHS)
    lean = float(rng.uniform(-0.08, 0.08)) * BEAMS  # the heart a little to one side
    columns = np.linspace(0, BEAMS - 1, BEAMS) * float(rng.uniform(0.88, 1.0)) + lean
    columns = np.clip(columns, 0, BEAMS - 1)
    if rng.random() < 0.15:
        columns = columns[::-1]
    grid = np.meshgrid(rows, columns, indexing="ij")
    taken = map_coordinates(beams, grid, order=1, mode="nearest")
    return np.asarray(taken, np.float32), donor.sector.depth_cm * keep


def _two_chambers(donor: Donor, rng: np.random.Generator) -> tuple[Beams, float]:
    row, column, down, across = donor.axis
    rows, columns = _target(donor, rng, turn_deg=float(rng.uniform(-8, 8)))
    # v is the distance from the axis, positive on the lateral side (the right of the screen).
    along = (rows - row) * down + (columns - column) * across
    side = (columns - column) * down - (rows - row) * across
    side = np.abs(side) if rng.random() < 0.85 else -np.abs(side) * 0.9
    source = (row + along * down - side * across, column + along * across + side * down)
    return _fill(donor, rng, source), donor.sector.depth_cm


def _short_axis(donor: Donor, rng: np.random.Generator) -> tuple[Beams, float]:
    row, column, down, across = donor.axis
    level = float(rng.uniform(-0.05, 0.25)) * donor.length
    sway = float(rng.uniform(0.04, 0.12)) * donor.length
    turn = float(rng.uniform(0, 2 * math.pi))
    x, z = donor.sector.grid_cm
    depth = donor.sector.depth_cm
    centre = (float(rng.normal(0, 0.6)), depth * float(rng.uniform(0.42, 0.55)))
    scale = float(rng.uniform(0.85, 1.2)) / donor.sector.cm_per_pixel
    dx, dz = (x - centre[0]) * scale, (z - centre[1]) * scale
    radius, angle = np.hypot(dx, dz), np.arctan2(dz, dx)
    # Lateral wall on the right, septum (with the right ventricle behind it) on the left.
    share = 0.5 + 0.5 * np.tanh(3 * np.cos(angle - float(rng.uniform(-0.5, 0.5))))
    along = level + sway * np.sin(2 * angle + turn) + 0.25 * sway * np.sin(5 * angle)
    out = np.zeros((DEPTHS, BEAMS), np.float32)
    for sign, weight in ((1.0, share), (-1.0, 1 - share)):
        source = (
            row + along * down - sign * radius * across,
            column + along * across + sign * radius * down,
        )
        out += weight.astype(np.float32) * _fill(donor, rng, source)
    return out, depth


def _from_below(donor: Donor, rng: np.random.Generator) -> tuple[Beams, float]:
    source = _target(
        donor, rng, turn_deg=-float(rng.uniform(62, 112)), deeper=0.12, zoom=rng.uniform(0.8, 1.0)
    )
    z = donor.sector.depth_cm * float(rng.uniform(0.2, 0.32))
    slope = float(rng.uniform(-0.15, 0.2))
    line = ((-9.0, z - 9 * slope), (9.0, z + 9 * slope))
    layers = [
        Layer(shape=HalfPlane(u=0, v=z, normal_deg=90 - math.degrees(slope)), echo=LIVER,
              in_probe=True, soft_cm=0.4),
        Layer(shape=Tube(points=line, radius=0.15), echo=0.8, in_probe=True),
    ]  # fmt: skip
    _, probe_z = donor.sector.grid_cm
    x = donor.sector.grid_cm[0]
    above = 1 / (1 + np.exp(np.clip((probe_z - z - slope * x) / 0.15, -30, 30)))
    painted = _painted(donor, rng, layers)
    heart = _fill(donor, rng, source)
    return np.asarray(above * painted + (1 - above) * heart, np.float32), donor.sector.depth_cm


def _from_beside(donor: Donor, rng: np.random.Generator) -> tuple[Beams, float]:
    source = _target(
        donor, rng, turn_deg=float(rng.uniform(75, 105)), mirrored=True, zoom=rng.uniform(0.9, 1.2)
    )
    return _fill(donor, rng, source), donor.sector.depth_cm


def _taken_apart(donor: Donor, rng: np.random.Generator) -> tuple[Beams, float]:
    beams = donor.beams
    if rng.random() < 0.35:  # grain and shading only
        slow = gaussian_filter(beams, (50.0, 30.0), mode="nearest")
        fine = beams - gaussian_filter(beams, (4.0, 3.0), mode="nearest")
        out = slow * np.exp(0.3 * slow_field(rng)) + fine
        return np.clip(out, 0, 1).astype(np.float32), donor.sector.depth_cm
    high, wide = int(rng.integers(3, 7)), int(rng.integers(2, 5))
    rows = np.array_split(np.arange(DEPTHS), high)
    columns = np.array_split(np.arange(BEAMS), wide)
    pieces = [(a, b) for a in range(high) for b in range(wide)]
    order = rng.permutation(len(pieces))
    out = np.empty_like(beams)
    for target, source in enumerate(order.tolist()):
        (a, b), (c, d) = pieces[target], pieces[source]
        piece = beams[np.ix_(rows[c], columns[d])]
        if rng.random() < 0.5:
            piece = piece[::-1]
        shape = (len(rows[a]), len(columns[b]))
        out[np.ix_(rows[a], columns[b])] = np.resize(piece, piece.shape)[
            np.ix_(
                np.minimum(np.arange(shape[0]), piece.shape[0] - 1),
                np.minimum(np.arange(shape[1]), piece.shape[1] - 1),
            )
        ]
    return gaussian_filter(out, (0.8, 0.8)).astype(np.float32), donor.sector.depth_cm


_WAYS: Mapping[View, Callable[[Donor, np.random.Generator], tuple[Beams, float]]] = {
    View.A4C: _as_it_is,
    View.A2C: _two_chambers,
    View.SAX_MID: _short_axis,
    View.SUB4C: _from_below,
    View.PSLA: _from_beside,
    View.OTHER: _taken_apart,
}

LENT_VIEWS = tuple(_WAYS)
"""The views that patients' pixels stand in for."""


# --- Helpers ---------------------------------------------------------------------------------


def _target(
    donor: Donor,
    rng: np.random.Generator,
    *,
    turn_deg: float,
    mirrored: bool = False,
    deeper: float = 0.0,
    zoom: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For every depth and beam the donor's (row, column), after a turn about its heart.

    Positive turns take what points up to the left.
    """
    sector = donor.sector
    row, column, down, across = donor.axis
    # The heart's middle: the annulus, a little beyond the middle of the ventricle.
    heart = (row + 0.35 * donor.length * down, column + 0.35 * donor.length * across)
    x, z = sector.grid_cm
    middle_z = sector.depth_cm * (0.55 + deeper) + float(rng.normal(0, 0.5))
    dx = (x - float(rng.normal(0, 0.7))) / sector.cm_per_pixel / zoom
    dz = (z - middle_z) / sector.cm_per_pixel / zoom
    turn = math.radians(turn_deg)
    # An ordinary rotation of the target back onto the source.
    source_dx = dx * math.cos(turn) - dz * math.sin(turn)
    source_dz = dx * math.sin(turn) + dz * math.cos(turn)
    if mirrored:
        source_dx = -source_dx
    return heart[0] + source_dz.astype(float), heart[1] + source_dx.astype(float)


def _fill(
    donor: Donor,
    rng: np.random.Generator,
    source: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Beams:
    """The donor's pixels at (row, column); what lies beyond its sector is painted like it."""
    grey = donor.frame.grey.astype(np.float32) / 255
    taken = map_coordinates(grey, source, order=1, mode="constant")
    inside = donor.sector.mask.astype(np.float32)
    cover = map_coordinates(inside, source, order=1, mode="constant")
    cover = gaussian_filter(np.clip(cover * 1.2 - 0.2, 0, 1), (3.0, 2.0))
    cover *= map_coordinates(inside, source, order=0, mode="constant")
    return np.asarray(cover * taken + (1 - cover) * _painted(donor, rng, []), np.float32)


def _painted(donor: Donor, rng: np.random.Generator, layers: list[Layer]) -> Beams:
    """Tissue of no shape (or ``layers``) with the donor's grain and grey levels."""
    anatomy = Anatomy(
        placement=Placement(x=0.0, z=0.0, angle_deg=0.0),
        layers=lambda _beat: layers,
        background=float(rng.uniform(BLOOD, LIVER)),
        depth_cm=donor.sector.depth_cm,
    )
    heart = random_heart(rng)
    painter = BeamPainter(anatomy, donor.sector, random_look(rng, donor.look), rng)
    return painter.paint(heart.at(0.0), heart)[0]


def _disguise(beams: Beams, rng: np.random.Generator) -> Beams:
    """Another machine's gain, filter and grain over the same picture."""
    out: NDArray[np.floating] = beams
    if rng.random() < 0.5:
        out = gaussian_filter(out, (float(rng.uniform(0.3, 3.0)), float(rng.uniform(0.3, 2.5))))
    if rng.random() < 0.45:  # speckle like the simulator's
        noise = gaussian_filter(
            rng.standard_normal((2, DEPTHS, BEAMS), np.float32),
            (0, float(rng.uniform(0.8, 1.9)), float(rng.uniform(1.0, 3.0))),
        )
        rayleigh = np.hypot(noise[0], noise[1])
        decibel = 20 * np.log10(rayleigh / rayleigh.mean() + 1e-2)
        out = out + decibel / float(rng.uniform(60, 160))
    out = out + float(rng.uniform(0, 0.12)) * slow_field(rng, depth_scale=60, beam_scale=30)
    if rng.random() < 0.3:
        levels = np.sort(rng.uniform(0, 1, 5)).astype(np.float32)
        curve = 0.5 * np.linspace(0, 1, 5) + 0.5 * levels
        out = np.interp(np.clip(out, 0, 1), np.linspace(0, 1, 5), curve)
    if rng.random() < 0.3:
        dark = stretch(rng.uniform(0.3, 1.0, (2, 5)).astype(np.float32))
        out = out * dark
    gain, gamma = float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.65, 1.6))
    return np.asarray(np.clip(out * gain, 0, 1) ** gamma, np.float32)
