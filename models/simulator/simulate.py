"""One call from a view and a seed to a clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, uniform_filter

from models.simulator.anatomy import Anatomy, build_anatomy
from models.simulator.beams import BeamPainter
from models.simulator.clip import VISIBLE, SimulatedClip, Truth
from models.simulator.heart import Heart, Lead, random_heart, with_edv
from models.simulator.look import Borrowed, Look, random_look, slow_field
from models.simulator.others import simulate_other
from models.simulator.person import Person, random_person, shape_heart, within
from models.simulator.regions import box_of, two_d_region
from models.simulator.screen import Layout, Screen, place_sector, random_flow, random_layout
from models.simulator.sector import Sector
from models.simulator.stills import simulate_still
from models.views import View

_STILLS = (View.PW, View.CW, View.M_MODE)
_COLOUR_CHANCE = 0.12
_DEFIBRILLATORS = 0.4  #: share of leads


def simulate(
    view: View,
    *,
    seed: int,
    frames: int | None = None,
    ef: float | None = None,
    lead: Lead | bool | None = None,
    size: tuple[int, int] | None = None,
    frame_time_ms: float | None = None,
    colour_flow: bool | None = None,
    look: Look | None = None,
    borrowed: Borrowed | None = None,
    masks: bool = True,
    person: Person | None = None,
    edv_ml: float | None = None,
    wall_cm: float | None = None,
    la_scale: float | None = None,
    heart_rate_bpm: float | None = None,
    dual: bool = False,
) -> SimulatedClip:
    """Make a clip. The same arguments make the same pixels.

    Parameters
    ----------
    view
        What the clip shows. PW, CW and M-mode are stills; "other" is drawn among blank pictures,
        phantoms, organs, linear probes and pages of text.
    seed
        Of everything that is drawn at random.
    frames
        How many; None makes about one beat (1 for stills).
    ef
        Ejection fraction in percent (5 to 85); None draws one.
    lead
        Whether a lead lies in the right heart, or which (seen in four-chamber views and the
        right-ventricular inflow); True draws a pacemaker's or a defibrillator's, None one at times.
    size
        Rows and columns of the screen, 64 to 4096 each; None draws one of usual screens.
    frame_time_ms
        Time between frames, 2 to 1000; None draws 25 to 70 frames a second.
    colour_flow
        Whether a colour-Doppler box is shown; None shows one at times.
    look
        Gain, haze, grain and so on; None draws one.
    borrowed
        What a real frame lends to a drawn look.
    masks
        Whether to draw the truth of every pixel.
    person
        Whose heart it is; None draws an adult.
    edv_ml, wall_cm, heart_rate_bpm
        End-diastolic volume (20 to 400 mL), wall thickness at end diastole (0.4 to 2.5 cm) and
        heart rate (30 to 200 a minute); None draws them.
    la_scale
        Length and width of the left atrium against those drawn for the person (0.5 to 2.0): its
        volume grows by the cube. None leaves some atria stretched, as those of patients are.
    dual
        Two pictures side by side, the right one with a colour-Doppler box unless ``colour_flow``
        is False. Stills and "other" have no such form.

    Raises
    ------
    ValueError
        If something is out of range.
    """
    _check(
        seed=seed,
        frames=frames,
        size=size,
        frame_time_ms=frame_time_ms,
        ranges={
            "an end-diastolic volume": (edv_ml, (20, 400), "mL"),
            "a wall": (wall_cm, (0.4, 2.5), "cm"),
            "an atrium": (la_scale, (0.5, 2.0), "times the usual size"),
            "a heart rate": (heart_rate_bpm, (30, 200), "a minute"),
        },
    )
    rng = np.random.default_rng([seed, tuple(View).index(view)])
    if view in _STILLS:
        return simulate_still(view, rng=rng, seed=seed, frames=frames or 1, size=size)
    if view is View.OTHER:
        return simulate_other(rng=rng, seed=seed, frames=frames, size=size, borrowed=borrowed)
    # A stream of its own: who it is changes the heart, and nothing else that is drawn.
    own = rng.spawn(1)[0]
    drawn_person = random_person(own)
    whose = person or drawn_person
    heart = shape_heart(random_heart(rng, ef_percent=ef, lead=lead), whose, own)
    heart = _as_asked(
        heart, own, lead=lead, edv_ml=edv_ml, wall_cm=wall_cm, la_scale=la_scale,
        heart_rate_bpm=heart_rate_bpm,
    )  # fmt: skip
    anatomy = build_anatomy(view, heart, rng)
    drawn_look = look or random_look(rng, borrowed)
    flow = bool(rng.random() < _COLOUR_CHANCE) if colour_flow is None else colour_flow
    if dual and colour_flow is None:
        flow = True
    layout = random_layout(
        rng, rows=size[0] if size else None, columns=size[1] if size else None, colour=flow
    )
    if dual:
        layout = replace(layout, plain=False, calipers=False)
    sectors = _place(layout, rng, depth_cm=anatomy.depth_cm, dual=dual)
    step_ms = float(rng.uniform(1000 / 70, 40)) if frame_time_ms is None else frame_time_ms
    count = frames or max(2, math.ceil(heart.rr_ms / step_ms))
    return _film(
        view=view, seed=seed, heart=heart, anatomy=anatomy, look=drawn_look, layout=layout,
        sectors=sectors, step_ms=step_ms, count=count, flow=flow, masks=masks, person=whose,
        rng=rng,
    )  # fmt: skip


def _check(
    *,
    seed: int,
    frames: int | None,
    size: tuple[int, int] | None,
    frame_time_ms: float | None,
    ranges: Mapping[str, tuple[float | None, tuple[float, float], str]],
) -> None:
    if seed < 0:
        raise ValueError(f"a seed is a whole number of 0 or more, not {seed}")
    if frames is not None and frames < 1:
        raise ValueError(f"a clip needs at least one frame, not {frames}")
    for side in size or ():
        within("a side of the screen", side, (64, 4096), "pixels")
    if frame_time_ms is not None:
        within("a time between frames", frame_time_ms, (2, 1000), "ms")
    for what, (value, bounds, unit) in ranges.items():
        if value is not None:
            within(what, value, bounds, unit)


def _as_asked(
    heart: Heart,
    rng: np.random.Generator,
    *,
    lead: Lead | bool | None,
    edv_ml: float | None,
    wall_cm: float | None,
    la_scale: float | None,
    heart_rate_bpm: float | None,
) -> Heart:
    """The drawn heart with what was asked for in place of what was drawn."""
    shock = rng.random() < _DEFIBRILLATORS
    if heart.lead and not isinstance(lead, Lead):
        heart = replace(heart, lead=Lead.DEFIBRILLATOR if shock else Lead.PACEMAKER)
    if edv_ml is not None:
        heart = with_edv(heart, edv_ml)
    if la_scale is not None:
        stretch = la_scale / heart.la_stretch
        heart = replace(
            heart,
            la_length_cm=heart.la_length_cm * stretch,
            la_width_cm=heart.la_width_cm * stretch,
            la_stretch=la_scale,
        )
    return replace(
        heart,
        wall_cm=heart.wall_cm if wall_cm is None else wall_cm,
        heart_rate_bpm=heart.heart_rate_bpm if heart_rate_bpm is None else heart_rate_bpm,
    )


def _film(
    *,
    view: View,
    seed: int,
    heart: Heart,
    anatomy: Anatomy,
    look: Look,
    layout: Layout,
    sectors: tuple[Sector, ...],
    step_ms: float,
    count: int,
    flow: bool,
    masks: bool,
    person: Person,
    rng: np.random.Generator,
) -> SimulatedClip:
    sector = sectors[0]
    painter = BeamPainter(anatomy, sector, look, rng)
    screen = Screen(layout, sectors, rng)
    stream = FlowBox(rng, sectors[-1]) if flow else None
    start_ms = float(rng.uniform(0, heart.rr_ms)) if rng.random() < 0.5 else 0.0
    pictures, labels, phases, volumes = [], [], [], []
    for index in range(count):
        beat = heart.at(start_ms + index * step_ms)
        beams, structure = painter.paint(beat, heart)
        pictures.append(
            screen.frame(
                _drawn(sectors, beams),
                progress=index / max(1, count - 1),
                phase=start_ms / heart.rr_ms,
                beats=max(1.0, count * step_ms / heart.rr_ms),
                flow=None if stream is None else stream.at(beat.phase, beams),
            )
        )
        phases.append(beat.phase)
        volumes.append(beat.volume_ml)
        if masks:
            labels.append(sum(one.draw_labels(structure) for one in sectors) * screen.mask)
    ventricle, atrium, right = (view in VISIBLE[name] for name in ("ef", "la_area", "ra_length"))
    leads = view in VISIBLE["lead"]
    truth = Truth(
        kind=view.value,
        heart_rate_bpm=heart.heart_rate_bpm,
        edv_ml=heart.edv_ml if ventricle else None,
        esv_ml=heart.esv_ml if ventricle else None,
        ef_percent=heart.ef_percent if ventricle else None,
        volumes_ml=tuple(volumes) if ventricle else (),
        wall_cm=heart.wall_cm if ventricle else None,
        la_area_cm2=heart.la_area_cm2 if atrium else None,
        la_volume_ml=heart.la_volume_ml if atrium else None,
        ra_length_cm=heart.ra_length_cm if right else None,
        lead=heart.lead is not None if leads else None,
        lead_kind=heart.lead if leads else None,
        person=person,
        cm_per_pixel=sector.cm_per_pixel,
        phases=tuple(phases),
        masks=np.stack(labels) if masks else None,
    )
    box = box_of(screen.mask)
    return SimulatedClip(
        view=view,
        seed=seed,
        frames=np.stack(pictures),
        frame_time_ms=step_ms,
        truth=truth,
        regions=tuple(
            two_d_region(one, place, flow=flow and one is sectors[-1])
            for one, place in zip(
                sectors,
                (box,) if len(sectors) == 1 else [box_of(one.mask) for one in sectors],
                strict=True,
            )
        ),
        sector_box=box,
        colour_flow=flow,
        sector_mask=screen.mask,
    )


def _place(
    layout: Layout, rng: np.random.Generator, *, depth_cm: float, dual: bool
) -> tuple[Sector, ...]:
    if not dual:
        return (place_sector(layout, rng, depth_cm=depth_cm),)
    top, left, bottom, right = layout.sector_box
    half = (right - left) // 2
    first = place_sector(layout, rng, depth_cm=depth_cm, box=(top, left, bottom, left + half - 3))
    return first, replace(first, centre_column=first.centre_column + half)


def _drawn(sectors: tuple[Sector, ...], beams: NDArray[np.float32]) -> NDArray[np.float32]:
    """One beam picture on the screen, in every sector."""
    picture = sectors[0].draw(beams)
    for other in sectors[1:]:
        np.maximum(picture, other.draw(beams), out=picture)
    return picture


class FlowBox:
    """A colour-Doppler box over the blood of a beam picture."""

    def __init__(self, rng: np.random.Generator, sector: Sector) -> None:
        self._sector = sector
        self._depths, self._beams = random_flow(rng)
        self._fields = [slow_field(rng, depth_scale=40, beam_scale=25) for _ in range(2)]
        self._drift = float(rng.normal(0, 0.4))
        self._threshold = float(rng.uniform(0.25, 0.5))
        self._mosaic = float(rng.choice([0.0, 0.2, 0.5]))
        self._rng = np.random.default_rng(rng.integers(2**63))
        box = np.zeros(self._fields[0].shape, np.uint8)
        box[self._depths, self._beams] = 1
        covered = sector.draw_labels(box) > 0
        self._border = covered & ~binary_erosion(covered)

    def at(self, phase: float, beams: NDArray[np.float32]) -> NDArray[np.float32]:
        """Velocity by pixel, -1 to 1, NaN where none is shown, infinite on the box's border."""
        turn = 2 * math.pi * phase
        speed = self._fields[0] * math.cos(turn) + self._fields[1] * math.sin(turn) + self._drift
        if self._mosaic:
            speed = speed + self._mosaic * self._rng.standard_normal(speed.shape, np.float32)
        shown = np.zeros(beams.shape, np.float32)
        window = (self._depths, self._beams)
        dark = uniform_filter(beams, 5)[window] < self._threshold
        shown[window] = dark & (np.abs(speed[window]) > 0.25)
        where = self._sector.draw(shown) > 0.5
        flow = np.where(where, self._sector.draw(np.asarray(speed, np.float32)), np.nan)
        flow[self._border] = np.inf
        return flow
