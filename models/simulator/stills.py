"""Stills that have time on the screen: pulsed and continuous Doppler, and M-mode.

A strip (spectrum or M-mode) with a time axis, usually below a small two-dimensional picture.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.simulator.anatomy import build_anatomy
from models.simulator.beams import BeamPainter
from models.simulator.clip import Region, RegionFormat, RegionType, SimulatedClip, Truth
from models.simulator.heart import Heart, random_heart
from models.simulator.look import random_look
from models.simulator.regions import box_of, two_d_region
from models.simulator.screen import Layout, Screen, ecg_curve, place_sector, random_layout
from models.views import View

Curve = NDArray[np.float64]

_GUIDES = (View.A4C, View.A5C, View.A3C, View.PSLA, View.SAX_BASAL, View.A2C)


def simulate_still(
    view: View, *, rng: np.random.Generator, seed: int, frames: int, size: tuple[int, int] | None
) -> SimulatedClip:
    """A PW, CW or M-mode still; ``frames`` repeats it, as some machines send them."""
    heart = random_heart(rng)
    drawn = random_layout(
        rng, rows=size[0] if size else None, columns=size[1] if size else None, colour=False
    )
    layout = replace(drawn, plain=False, calipers=False, ecg=False, ticks=bool(rng.random() < 0.5))
    top, left, bottom, right = layout.sector_box
    guided = bool(rng.random() < 0.75)
    share = float(rng.uniform(0.28, 0.5)) if guided else 0.0
    cut = round(top + (bottom - top) * share)
    frame, regions, box = (
        _guide(rng, heart, layout, (top, left, cut, right))
        if guided
        else (
            Screen(layout, (), rng).frame(
                np.zeros((layout.rows, layout.columns), np.float32), progress=1, phase=0, beats=1
            ),
            [],
            None,
        )
    )
    gap = 2 + round(0.02 * layout.rows)
    strip_box = (cut + gap, left + round(0.02 * layout.columns), bottom, right)
    height, width = strip_box[2] - strip_box[0], strip_box[3] - strip_box[1]
    seconds = float(rng.uniform(1.5, 6.0))
    beats = seconds * heart.heart_rate_bpm / 60 * np.linspace(0, 1, width) + rng.random()
    if view is View.M_MODE:
        strip, region = _m_mode(rng, beats, height), None
    else:
        strip, region = _spectrum(view, rng, beats, height)
    _put_strip(frame, strip, strip_box, layout, rng, beats)
    regions.append(_strip_region(view, strip_box, seconds / width, region))
    return SimulatedClip(
        view=view,
        seed=seed,
        frames=np.repeat(frame[None], frames, axis=0),
        frame_time_ms=33.3,
        truth=Truth(kind=view.value, heart_rate_bpm=heart.heart_rate_bpm),
        regions=tuple(regions),
        sector_box=box,
    )


def _guide(
    rng: np.random.Generator, heart: Heart, layout: Layout, box: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint8], list[Region], tuple[int, int, int, int]]:
    """The small picture above the strip, with the cursor line through it."""
    anatomy = build_anatomy(_GUIDES[int(rng.integers(len(_GUIDES)))], heart, rng)
    sector = place_sector(layout, rng, depth_cm=anatomy.depth_cm, box=box)
    painter = BeamPainter(anatomy, sector, random_look(rng), rng)
    beams, _ = painter.paint(heart.at(float(rng.uniform(0, heart.rr_ms))), heart)
    screen = Screen(layout, (sector,), rng, box=box)
    frame = screen.frame(sector.draw(beams), progress=1, phase=0, beats=1)
    angle = math.radians(rng.uniform(-0.5, 0.5) * sector.half_width)
    steps = np.linspace(0, sector.depth_cm / sector.cm_per_pixel, 200)
    rows = np.rint(sector.centre_row + steps * math.cos(angle)).astype(int)
    columns = np.rint(sector.centre_column + steps * math.sin(angle)).astype(int)
    keep = (rows >= box[0]) & (rows < box[2]) & (columns >= box[1]) & (columns < box[3])
    frame[rows[keep][::2], columns[keep][::2]] = 210
    place = box_of(screen.mask)
    return frame, [two_d_region(sector, place, flow=False)], place


def _strip_region(
    view: View, box: tuple[int, int, int, int], seconds: float, scale: tuple[int, float] | None
) -> Region:
    kinds = {
        View.PW: (RegionFormat.SPECTRAL, RegionType.PW_SPECTRAL),
        View.CW: (RegionFormat.SPECTRAL, RegionType.CW_SPECTRAL),
        View.M_MODE: (RegionFormat.M_MODE, RegionType.TISSUE),
    }
    form, kind = kinds[view]
    top, left, bottom, right = box
    return Region(
        format=form,
        type=kind,
        top=top,
        left=left,
        bottom=bottom,
        right=right,
        delta_x=seconds,
        delta_y=scale[1] if scale else 16.0 / (bottom - top),
        reference_row=top + scale[0] if scale else None,
    )


def _put_strip(
    frame: NDArray[np.uint8],
    strip: NDArray[np.float32],
    box: tuple[int, int, int, int],
    layout: Layout,
    rng: np.random.Generator,
    beats: Curve,
) -> None:
    top, left, bottom, right = box
    grey = np.rint(np.clip(strip, 0, 1) * 255)
    if layout.colour:
        tint = np.array(layout.tint, np.float32)
        frame[top:bottom, left:right] = (grey[:, :, None] * tint).astype(np.uint8)
    else:
        frame[top:bottom, left:right] = grey.astype(np.uint8)
    ink = layout.ink if layout.colour else 200
    for row in np.linspace(top, bottom - 1, int(rng.integers(4, 9))).astype(int).tolist():
        frame[row, right : min(right + 5, layout.columns)] = ink
    for column in np.linspace(left, right - 1, int(rng.integers(8, 25))).astype(int).tolist():
        frame[bottom - 3 : bottom, column] = ink
    if rng.random() < 0.6:
        height = (bottom - top) * 0.12
        place = bottom - 6 if rng.random() < 0.7 else top + height
        rows = np.clip(place - ecg_curve(beats) * height, 0, layout.rows - 1).astype(int)
        ecg = layout.ecg_ink if layout.colour else 220
        before = np.roll(rows, 1)
        before[0] = rows[0]
        for column, low, high in zip(
            range(left, right),
            np.minimum(rows, before).tolist(),
            np.maximum(rows, before).tolist(),
            strict=True,
        ):
            frame[low : high + 2, column] = ecg


# --- Doppler ---------------------------------------------------------------------------------


def _spectrum(
    view: View, rng: np.random.Generator, beats: Curve, height: int
) -> tuple[NDArray[np.float32], tuple[int, float]]:
    """Power by velocity and time; its baseline's row and the velocity of one row in cm/s."""
    up, down = _flow_curves(view, rng, beats)
    jitter = 1 + 0.05 * np.repeat(rng.standard_normal(len(beats) // 40 + 2), 40)[: len(beats)]
    up, down = up * jitter, down * jitter
    room_up, room_down = max(0.25, float(up.max())), max(0.25, float(down.max()))
    span = (room_up + room_down) * float(rng.uniform(1.05, 1.5))
    baseline = round(height * room_up / (room_up + room_down))
    per_row = span / height
    velocity: NDArray[np.floating] = (baseline - np.arange(height))[:, None] * per_row
    power = np.zeros((height, len(beats)), np.float32)
    hollow = view is View.PW and rng.random() < 0.8
    for curve, sign in ((up, 1.0), (down, -1.0)):
        power = np.maximum(power, _envelope(velocity * sign, curve[None, :], rng, hollow=hollow))
    # Wall motion close to the baseline, and the wall filter's gap on it.
    wall = np.exp(-np.abs(velocity) / (0.04 * span)) * rng.uniform(0.1, 0.6)
    power = np.maximum(power, wall.astype(np.float32))
    power[np.abs(velocity[:, 0]) < rng.uniform(0.004, 0.02) * span] = 0
    grain = rng.exponential(1.0, power.shape).astype(np.float32)
    grain = gaussian_filter(grain, (0.6, rng.uniform(0.4, 1.6)))
    noise = float(10 ** rng.uniform(-2.5, -0.8)) * (2.5 if view is View.CW else 1.0)
    picture = np.clip((power * grain + noise * grain**2 * 0.6) * rng.uniform(0.5, 1.1), 0, 1)
    picture = picture ** rng.uniform(0.55, 1.0)
    row = int(np.clip(baseline, 0, height - 1))
    picture[row] = rng.uniform(0.4, 1.0)
    # One unit of these curves is a metre a second for PW, and some metres for CW.
    unit = 100.0 if view is View.PW else 350.0
    return np.asarray(picture, np.float32), (row, per_row * unit)


def _envelope(
    velocity: NDArray[np.floating],
    edge: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    hollow: bool,
) -> NDArray[np.float32]:
    soft = 0.03
    below = 1 / (1 + np.exp(np.clip((velocity - edge) / soft, -30, 30)))
    shape = below * (velocity > 0) * (edge > 0.03)
    if hollow:  # laminar flow: all cells near one velocity, a dark window beneath
        window = 1 / (
            1 + np.exp(np.clip((velocity - edge * rng.uniform(0.6, 0.85)) / soft, -30, 30))
        )
        shape = shape * (1 - rng.uniform(0.6, 1.0) * window)
    else:
        shape = shape * (0.45 + 0.55 * np.clip(velocity / np.maximum(edge, 0.05), 0, 1) ** 2)
    return np.asarray(shape * rng.uniform(0.6, 1.0), np.float32)


def _flow_curves(view: View, rng: np.random.Generator, beats: Curve) -> tuple[Curve, Curve]:
    """Velocities towards and away from the probe, 0 or more, in units of about a metre a second."""
    phase = beats % 1.0
    none = np.zeros_like(phase)

    def wave(centre: float, width: float, height: float) -> Curve:
        return np.asarray(height * np.exp(-0.5 * ((phase - centre) / width) ** 2))

    def dome(start: float, end: float, height: float, power: float = 1.0) -> Curve:
        inside = (phase > start) & (phase < end)
        rise = np.sin(np.pi * np.clip((phase - start) / (end - start), 0, 1)) ** power
        return np.asarray(np.where(inside, height * rise, 0.0))

    e, a = rng.uniform(0.5, 1.1), rng.uniform(0.2, 0.9)
    if view is View.PW:
        kind = int(rng.integers(5))
        if kind == 0:  # mitral inflow
            return wave(0.50, 0.055, e) + wave(0.88, 0.04, a), none + 0.05
        if kind == 1:  # outflow tract
            return none + 0.08, dome(0.06, 0.36, rng.uniform(0.6, 1.2), 0.8)
        if kind == 2:  # pulmonary vein
            return wave(0.25, 0.09, 0.5) + wave(0.52, 0.08, 0.5), wave(0.92, 0.035, 0.25)
        if kind == 3:  # tissue Doppler of the annulus
            return wave(0.20, 0.07, 0.5), wave(0.50, 0.045, 0.6) + wave(0.90, 0.035, 0.5)
        return none + 0.05, dome(0.05, 0.38, rng.uniform(0.6, 1.0), 0.7)  # pulmonary artery
    kind = int(rng.integers(5))
    if kind == 0:  # aortic valve, narrow or not
        return none + 0.05, dome(0.05, 0.38, rng.uniform(0.5, 1.3), 0.75)
    if kind == 1:  # mitral regurgitation
        return wave(0.52, 0.05, 0.25), dome(0.0, 0.44, 1.3, 0.45)
    if kind == 2:  # tricuspid regurgitation
        return wave(0.52, 0.06, 0.15), dome(0.0, 0.44, rng.uniform(0.7, 1.0), 0.55)
    if kind == 3:  # aortic regurgitation
        ramp = np.where(phase > 0.4, 1.2 - rng.uniform(0.3, 0.9) * (phase - 0.4), 0.0)
        return np.asarray(ramp), dome(0.05, 0.38, 0.5)
    narrow = np.where(phase > 0.42, rng.uniform(0.6, 0.9) * (1 - 0.5 * (phase - 0.42)), 0.0)
    return np.asarray(narrow) + wave(0.90, 0.03, 0.3), none + 0.05  # mitral stenosis


# --- M-mode ----------------------------------------------------------------------------------


def _m_mode(rng: np.random.Generator, beats: Curve, height: int) -> NDArray[np.float32]:
    """Depth by time: walls as bands that move with the beat."""
    phase = beats % 1.0
    squeeze = np.interp(
        phase, [0, 0.08, 0.36, 0.5, 0.75, 0.88, 1.0], [0, 0.1, 1, 0.35, 0.15, 0.05, 0]
    )
    depth = np.linspace(0, 1, height)[:, None]
    echo = np.full((height, len(beats)), rng.uniform(0.02, 0.12))

    def band(edge: Curve, thick: Curve | float, level: float) -> None:
        inside = (depth > edge) & (depth < edge + thick)
        echo[inside] = level

    kind = int(rng.integers(4))
    if kind <= 1:  # through the left ventricle or the mitral leaflets
        septum = rng.uniform(0.24, 0.34) + rng.uniform(0.0, 0.05) * squeeze
        wall = rng.uniform(0.07, 0.12) * (1 + 0.4 * squeeze)
        back = rng.uniform(0.68, 0.8) - rng.uniform(0.04, 0.14) * squeeze
        band(0 * squeeze, 0.08, 0.5)
        band(septum, wall, 0.45)
        band(back, wall, 0.45)
        band(back + wall, 0.05, 1.0)
        band(back + wall + 0.05, 1.0, 0.18)
        if kind == 1:
            open_ = np.exp(-0.5 * ((phase - 0.5) / 0.06) ** 2) + 0.6 * np.exp(
                -0.5 * ((phase - 0.88) / 0.045) ** 2
            )
            middle = septum + wall + 0.55 * (back - septum - wall)
            band(middle - 0.13 * open_, 0.02, 0.9)
            band(middle + 0.08 * open_ + 0.015, 0.02, 0.7)
    elif kind == 2:  # aortic root and left atrium
        rise = 0.05 * squeeze
        front, back = rng.uniform(0.25, 0.33) - rise, rng.uniform(0.48, 0.56) - rise
        band(0 * squeeze, 0.07, 0.5)
        band(front, 0.035, 0.9)
        band(back, 0.035, 0.9)
        opened = ((phase > 0.06) & (phase < 0.36)).astype(float)
        middle = (front + back) / 2 + 0.015
        band(middle - 0.07 * opened, 0.012, 0.8)
        band(middle + 0.07 * opened, 0.012, 0.8)
        band(back + 0.30 + 0 * squeeze, 0.05, 0.9)
        band(back + 0.35 + 0 * squeeze, 1.0, 0.2)
    else:  # annulus towards the apex, or the caval vein that breathes
        if rng.random() < 0.6:
            line = rng.uniform(0.55, 0.75) - rng.uniform(0.04, 0.16) * squeeze
            band(line - 0.05, 0.1, 0.4)
            band(line, 0.035, 1.0)
            band(line + 0.12, 1.0, 0.12)
        else:
            breath = 0.5 + 0.5 * np.sin(beats * rng.uniform(0.9, 1.6))
            front = 0.35 + 0.06 * breath
            echo[:] = 0.3
            band(front, 0.2 - 0.14 * breath, 0.03)
            band(front - 0.02, 0.02, 0.8)
            band(front + 0.2 - 0.14 * breath, 0.02, 0.8)
    layers = np.exp(0.5 * gaussian_filter(rng.standard_normal((height, 1)), (1.0, 0)) * 2)
    speckle = gaussian_filter(rng.standard_normal((2, *echo.shape)), (0, 1.0, rng.uniform(1.5, 6)))
    power = np.hypot(speckle[0], speckle[1])
    power *= echo * layers / np.mean(power)
    power += rng.uniform(0.0, 0.03)
    decibel = 20 * np.log10(power + 1e-3)
    grey = np.clip(0.75 + (decibel + rng.uniform(2, 8)) / rng.uniform(35, 60), 0, 1)
    return np.asarray(grey ** rng.uniform(0.8, 1.4), np.float32)
