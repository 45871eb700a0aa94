"""What each view cuts through: the heart and its neighbours as layers of paint.

Two systems of coordinates, both in cm. *Probe*: x to the right of the screen, z downwards from
the probe's face. *Heart*: u along the axis of the ventricle from apex to base, v across it; a
:class:`Placement` turns one into the other. Later layers cover earlier ones.

The arrangement follows the standard displays of transthoracic echocardiography (Mitchell et al.
2019, JASE 32:1-64): apex up and left heart on the right for apical views, base on the right for
the parasternal long axis, the marker side on the left for short axes, head on the right for the
abdominal long sections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np

from models.simulator.heart import Beat, Heart, Lead
from models.simulator.shapes import Bullet, Ellipse, HalfPlane, Shape, Tube
from models.views import View

BLOOD = 0.025
TISSUE = 0.16  #: whatever lies around the heart
MUSCLE = 0.30
LIVER = 0.28
WALL = 0.55  #: vessels, atrial walls
BRIGHT = 1.0  #: valves, annulus, pericardium
METAL = 2.4


class Structure(IntEnum):
    """What a pixel of a clip's truth shows. The first four are numbered as CAMUS numbers them."""

    BACKGROUND = 0
    LV_CAVITY = 1
    MYOCARDIUM = 2
    LEFT_ATRIUM = 3
    RIGHT_VENTRICLE = 4
    RIGHT_ATRIUM = 5
    AORTA = 6
    LEAD = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One coat of paint: where, how strongly it echoes, and how soft its border is."""

    shape: Shape
    echo: float
    soft_cm: float = 0.12
    structure: Structure | None = None  #: None leaves the truth beneath it as it is
    in_probe: bool = False  #: the shape is given in probe coordinates


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where the heart lies before the probe: u = v = 0 at (x, z), u turned from straight down.

    ``angle_deg`` 0 points u away from the probe and v to the right of the screen; 90 points u to
    the right and v towards the probe.
    """

    x: float
    z: float
    angle_deg: float
    mirrored: bool = False


Moment = Callable[[Beat], list[Layer]]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A view's layers at any moment of the beat, and what moves with the ventricle."""

    placement: Placement
    layers: Moment
    background: float = TISSUE
    depth_cm: float = 16.0
    centre_uv: tuple[float, float] | None = None  #: of the ventricle, which the tissue moves to
    blood: tuple[tuple[float, float, float], ...] = field(default=())
    """(u, v, reach) of jets that colour Doppler may show."""


def build_anatomy(view: View, heart: Heart, rng: np.random.Generator) -> Anatomy:
    """The layers of one of the twelve two-dimensional views.

    Raises
    ------
    ValueError
        If the view has no anatomy of its own: Doppler, M-mode, "other".
    """
    try:
        builder = _BUILDERS[view]
    except KeyError:
        raise ValueError(f"view {view.value!r} is not a section of the heart") from None
    anatomy = builder(heart, rng)
    if heart.chest_cm is None:
        return anatomy
    return _behind_chest(anatomy, heart.chest_cm, rng.spawn(1)[0], deeper=view not in _FROM_BELOW)


def _behind_chest(
    anatomy: Anatomy, chest_cm: float, rng: np.random.Generator, *, deeper: bool
) -> Anatomy:
    """Skin, fat and fascia before the heart, which lies the ``deeper`` the thicker they are."""
    thick = chest_cm if deeper else 0.6 * chest_cm
    bend = float(rng.normal(0, 0.02))

    def line(z: float) -> Tube:
        points = tuple((x, z + bend * x * x) for x in np.linspace(-7, 7, 5).tolist())
        return Tube(points=points, radius=float(rng.uniform(0.04, 0.1)))

    fat, fascia = float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.4, 1.0))
    chest = [
        Layer(shape=HalfPlane(u=0, v=thick, normal_deg=90), echo=fat, in_probe=True),
        Layer(shape=line(thick * float(rng.uniform(0.3, 0.6))), echo=fascia * 0.6, in_probe=True),
        Layer(shape=line(thick), echo=fascia, soft_cm=0.16, in_probe=True),
    ]
    inner, place = anatomy.layers, anatomy.placement
    if not deeper:  # liver and vessels are placed by depth: the wall covers their nearest part
        return replace(anatomy, layers=lambda beat: [*inner(beat), *chest])
    shift = min(max(chest_cm - 1.0, -0.5), 2.2)
    return replace(
        anatomy,
        placement=replace(place, z=place.z + shift),
        layers=lambda beat: [*chest, *inner(beat)],
        depth_cm=anatomy.depth_cm + 0.6 * shift,
    )


# --- Parts that several views share ----------------------------------------------------------


def _ventricle(
    beat: Beat, *, v: float = 0.0, squeeze: float = 1.0, outer_echo: float = 0.45
) -> list[Layer]:
    a, w, length = beat.lv_radius_cm, beat.wall_cm, beat.lv_length_cm
    base = length
    outside = Bullet(
        base_u=base + 0.15, v=v, length=length + w + 0.35, half_width=(a + w + 0.2) * squeeze
    )
    muscle = Bullet(base_u=base, v=v, length=length + w, half_width=(a + w) * squeeze)
    cavity = Bullet(base_u=base, v=v, length=length, half_width=a * squeeze)
    return [
        Layer(shape=outside, echo=outer_echo, soft_cm=0.3),
        Layer(shape=muscle, echo=MUSCLE, soft_cm=0.2, structure=Structure.MYOCARDIUM),
        Layer(shape=cavity, echo=BLOOD, soft_cm=0.25, structure=Structure.LV_CAVITY),
    ]


def _chamber(shape: Ellipse, structure: Structure, *, wall_cm: float = 0.25) -> list[Layer]:
    wall = Ellipse(
        u=shape.u,
        v=shape.v,
        half_u=shape.half_u + wall_cm,
        half_v=shape.half_v + wall_cm,
        angle_deg=shape.angle_deg,
    )
    return [
        Layer(shape=wall, echo=WALL, soft_cm=0.2),
        Layer(shape=shape, echo=BLOOD, soft_cm=0.2, structure=structure),
    ]


def _leaflets(
    left: tuple[float, float],
    right: tuple[float, float],
    *,
    opened: float,
    towards_deg: float,
    share: float = 0.5,
    thickness: float = 0.09,
    echo: float = BRIGHT,
) -> list[Layer]:
    """Two leaflets from the ends of an annulus: closed they meet, opened they point ahead."""
    width = math.dist(left, right)
    out: list[Layer] = []
    across = math.atan2(right[1] - left[1], right[0] - left[0])
    ahead = math.radians(towards_deg)
    for start, direction, part in ((left, across, share), (right, across + math.pi, 1 - share)):
        reach = width * part * 1.12
        # Closed: along the annulus, a little tented. Opened: along the flow.
        closed = (
            math.cos(direction) + 0.22 * math.cos(ahead),
            math.sin(direction) + 0.22 * math.sin(ahead),
        )
        wide = (
            math.cos(ahead) + 0.25 * math.cos(direction),
            math.sin(ahead) + 0.25 * math.sin(direction),
        )
        du = (1 - opened) * closed[0] + opened * wide[0]
        dv = (1 - opened) * closed[1] + opened * wide[1]
        norm = math.hypot(du, dv) or 1.0
        tip = (start[0] + reach * du / norm, start[1] + reach * dv / norm)
        out.append(
            Layer(shape=Tube(points=(start, tip), radius=thickness), echo=echo, soft_cm=0.08)
        )
    return out


def _orifice(u: float, low: float, high: float) -> Layer:
    """Blood between two chambers, where a valve's annulus lets it through."""
    shape = Ellipse(u=u, v=(low + high) / 2, half_u=0.55, half_v=max(0.3, (high - low) / 2 - 0.12))
    return Layer(shape=shape, echo=BLOOD)


def _root(points: tuple[tuple[float, float], ...], radius: float, beat: Beat) -> list[Layer]:
    """The aortic root and its cusps; its near end opens into the ventricle."""
    (u, v) = points[0]
    mouth = Ellipse(u=u - 0.9, v=v, half_u=radius + 1.0, half_v=radius * 0.92)
    return [
        *_vessel(points, radius, structure=Structure.AORTA, echo=0.6 + 0.53 * beat.calcium),
        Layer(shape=mouth, echo=BLOOD, soft_cm=0.2),
        *_cusps(u + 0.8, v, radius, beat),
    ]


def _spots(places: list[tuple[float, float]], radius: float, echo: float) -> list[Layer]:
    return [
        Layer(shape=Ellipse(u=u, v=v, half_u=radius, half_v=radius), echo=echo) for u, v in places
    ]


def _vessel(
    points: tuple[tuple[float, float], ...],
    radius: float,
    *,
    end_radius: float | None = None,
    wall_cm: float = 0.2,
    echo: float = 0.8,
    structure: Structure | None = None,
    in_probe: bool = False,
) -> list[Layer]:
    outer_end = None if end_radius is None else end_radius + wall_cm
    return [
        Layer(
            shape=Tube(points=points, radius=radius + wall_cm, end_radius=outer_end),
            echo=echo,
            in_probe=in_probe,
        ),
        Layer(
            shape=Tube(points=points, radius=radius, end_radius=end_radius),
            echo=BLOOD,
            structure=structure,
            in_probe=in_probe,
        ),
    ]


# --- Apical views ----------------------------------------------------------------------------


def _apical_placement(rng: np.random.Generator, *, tilt: tuple[float, float]) -> Placement:
    return Placement(
        x=float(rng.normal(0.0, 0.9)),
        z=float(rng.uniform(0.9, 3.2)),
        angle_deg=float(rng.uniform(*tilt)),
        mirrored=bool(rng.random() < 0.15),  # some laboratories show the left heart on the left
    )


def _right_heart(heart: Heart, beat: Beat, *, ra_v: float, rv_share: float) -> list[Layer]:
    base, a, w = beat.lv_length_cm, beat.lv_radius_cm, beat.wall_cm
    half = heart.rv_width_cm / 2 * (1 - 0.2 * beat.emptied)
    rv_v = -(a + w) - half * 0.95
    length = base * rv_share
    grow = beat.atrial_scale
    atrium = Ellipse(
        u=base - 0.3 + heart.ra_length_cm * grow / 2,
        v=ra_v,
        half_u=heart.ra_length_cm * grow / 2,
        half_v=heart.ra_width_cm * grow / 2,
    )
    wall = Bullet(
        base_u=base - 0.4, v=rv_v, length=length + 0.5, half_width=half + 0.45, angle_deg=-9.0
    )
    cavity = Bullet(base_u=base - 0.5, v=rv_v, length=length, half_width=half, angle_deg=-9.0)
    out = [
        Layer(shape=wall, echo=0.4, soft_cm=0.25),
        Layer(shape=cavity, echo=BLOOD * 1.4, soft_cm=0.3, structure=Structure.RIGHT_VENTRICLE),
        *_chamber(atrium, Structure.RIGHT_ATRIUM),
        _orifice(base - 0.5, rv_v - half * 0.9, rv_v + half * 0.9),
        *_leaflets(
            (base - 0.5, rv_v - half * 0.9),
            (base - 0.5, rv_v + half * 0.9),
            opened=beat.mitral_open * 0.9,
            towards_deg=180.0,
            echo=BRIGHT * math.sqrt(beat.brightness),
        ),
    ]
    if heart.band:
        reach = (
            (base - length * 0.45, rv_v - 0.7 * half),
            (base - length * 0.7, rv_v + 0.7 * half),
        )
        out.append(Layer(shape=Tube(points=reach, radius=0.1), echo=heart.band))
    if heart.lead:
        sway = 0.35 * heart.lead_bend
        course = (
            (base + heart.ra_length_cm, ra_v - 0.6 + sway),
            (base + 0.8, ra_v - 0.2 - sway),
            (base - 1.5, rv_v + (0.3 + sway) * half),
            (base - length * 0.85, rv_v + 0.6 * half),
        )
        out += _lead_layers(heart.lead, course)
    return out


def _lead_layers(lead: Lead, course: tuple[tuple[float, float], ...]) -> list[Layer]:
    """A lead along its course; the last part of a defibrillator's is a wound coil."""
    shock = lead is Lead.DEFIBRILLATOR
    body = Tube(points=course, radius=0.15 if shock else 0.11)
    out = [Layer(shape=body, echo=METAL, soft_cm=0.08, structure=Structure.LEAD)]
    if shock:
        coil = Tube(points=course[-2:], radius=0.24)
        out.append(Layer(shape=coil, echo=METAL, soft_cm=0.08, structure=Structure.LEAD))
        (u, v), (end_u, end_v) = course[-2:]
        turns = max(2, round(math.dist(*course[-2:]) / 0.45))
        for turn in range(turns):
            share = (turn + 0.5) / turns
            gap = Ellipse(
                u=u + share * (end_u - u), v=v + share * (end_v - v), half_u=0.08, half_v=0.08
            )
            # Between the windings less comes back; it is still the lead.
            out.append(Layer(shape=gap, echo=0.5, soft_cm=0.08, structure=Structure.LEAD))
    return out


def _left_atrium(heart: Heart, beat: Beat, *, v: float, angle_deg: float = 0.0) -> list[Layer]:
    grow = beat.atrial_scale
    return _chamber(
        Ellipse(
            u=beat.lv_length_cm + 0.1 + heart.la_length_cm * grow / 2,
            v=v,
            half_u=heart.la_length_cm * grow / 2,
            half_v=heart.la_width_cm * grow / 2,
            angle_deg=angle_deg,
        ),
        Structure.LEFT_ATRIUM,
    )


def _mitral(beat: Beat, *, low: float, high: float, share: float = 0.58) -> list[Layer]:
    base = beat.lv_length_cm
    return [
        _orifice(base, low, high),
        *_spots([(base, low), (base, high)], 0.22 * beat.thickness, 0.9 * beat.brightness),
        *_leaflets(
            (base, low),
            (base, high),
            opened=beat.mitral_open,
            towards_deg=180.0,
            share=share,
            thickness=0.09 * beat.thickness,
            echo=BRIGHT * beat.brightness,
        ),
    ]


def _behind_heart(u: float, reach: float, rng_echo: float) -> Layer:
    """The bright pericardium and lung behind the atria."""
    points = tuple((u - 0.07 * y * y, y) for y in np.linspace(-reach, reach, 7).tolist())
    return Layer(shape=Tube(points=points, radius=0.5), echo=rng_echo, soft_cm=0.5)


def _four_chamber_layers(heart: Heart, rng: np.random.Generator, *, outflow: bool) -> Moment:
    rv_share = float(rng.uniform(0.62, 0.85))
    behind = float(rng.uniform(0.3, 0.9))
    show_behind = bool(rng.random() < 0.7)
    side = float(rng.uniform(0.3, 0.9))
    septum = float(rng.uniform(0.3, 0.65))
    root_shift = float(rng.uniform(0.20, 0.42))
    root_radius = heart.aorta_radius_cm * float(rng.uniform(0.8, 1.0))

    def layers(beat: Beat) -> list[Layer]:
        a, w, base = beat.lv_radius_cm, beat.wall_cm, beat.lv_length_cm
        la_v = 0.15 + (0.5 * a if outflow else 0.0)
        ra_v = -(heart.ra_width_cm / 2 + 0.35) - (0.3 * a + 0.25 if not outflow else 0.75 * a + 0.7)
        out: list[Layer] = []
        if show_behind:
            out.append(_behind_heart(base + heart.la_length_cm + 0.9, 6.0, behind))
        lateral = ((base * 0.2, a * 0.6 + w), (base * 0.6, a + w + 0.1), (base, a + w + 0.3))
        out.append(Layer(shape=Tube(points=lateral, radius=0.35), echo=side, soft_cm=0.4))
        out += _right_heart(heart, beat, ra_v=ra_v, rv_share=rv_share)
        out += _ventricle(beat)
        out += _left_atrium(heart, beat, v=la_v)
        # The septum is the brightest wall of an apical picture: it shows its middle layer.
        line = (
            (1.2, -(a * 0.55 + w * 0.6)),
            (base * 0.6, -(a * 0.95 + w / 2)),
            (base, -(a + w / 2)),
        )
        middle = septum * (0.8 + 0.533 * beat.calcium)
        out.append(Layer(shape=Tube(points=line, radius=0.22), echo=middle, soft_cm=0.3))
        if outflow:
            axis = -a * root_shift - 0.25
            course = ((base - 0.3, axis), (base + 1.6, axis - 0.15), (base + 3.4, axis - 0.5))
            out += _root(course, root_radius, beat)
            out += _mitral(beat, low=axis + root_radius + 0.15, high=a * 1.0 + 0.2)
        else:
            crux = (base - 0.25, -(a + w * 0.6))
            out += _spots([crux], 0.35 * beat.thickness, 0.9 * beat.brightness)
            out += _mitral(beat, low=-a * 0.98, high=a * 0.98)
        return out

    return layers


def _cusps(u: float, v: float, radius: float, beat: Beat) -> list[Layer]:
    """Aortic cusps in a root along u: a line in the middle, or along the walls when open."""
    opened = beat.aortic_open
    out = []
    for sign in (-1.0, 1.0):
        tip = (u + 0.45 + 0.3 * opened, v + sign * radius * (0.06 + 0.8 * opened))
        shape = Tube(
            points=((u - 0.2, v + sign * radius * 0.95), tip), radius=0.07 * beat.thickness
        )
        out.append(Layer(shape=shape, echo=BRIGHT * beat.brightness, soft_cm=0.08))
    return out


def _a4c(heart: Heart, rng: np.random.Generator) -> Anatomy:
    return Anatomy(
        placement=_apical_placement(rng, tilt=(-16, 16)),
        layers=_four_chamber_layers(heart, rng, outflow=False),
        depth_cm=_depth(heart, rng, atrium=True),
        centre_uv=(heart.lv_length_cm * 0.65, 0.0),
        blood=((heart.lv_length_cm, 0.0, 2.0), (heart.lv_length_cm, -4.0, 1.6)),
    )


def _a5c(heart: Heart, rng: np.random.Generator) -> Anatomy:
    return Anatomy(
        placement=_apical_placement(rng, tilt=(-14, 16)),
        layers=_four_chamber_layers(heart, rng, outflow=True),
        depth_cm=_depth(heart, rng, atrium=True),
        centre_uv=(heart.lv_length_cm * 0.65, 0.0),
        blood=((heart.lv_length_cm - 0.5, -0.8, 1.7),),
    )


def _a2c(heart: Heart, rng: np.random.Generator) -> Anatomy:
    walls = rng.uniform(0.3, 0.85, 2)
    behind = float(rng.uniform(0.3, 0.9))
    appendage = bool(rng.random() < 0.5)

    def layers(beat: Beat) -> list[Layer]:
        a, w, base = beat.lv_radius_cm, beat.wall_cm, beat.lv_length_cm
        out = [_behind_heart(base + heart.la_length_cm + 0.9, 5.0, behind)]
        for sign, echo in zip((-1.0, 1.0), walls.tolist(), strict=True):
            side = (
                (base * 0.2, sign * (a * 0.6 + w)),
                (base * 0.6, sign * (a + w + 0.1)),
                (base + 0.4, sign * (a + w + 0.3)),
            )
            out.append(Layer(shape=Tube(points=side, radius=0.4), echo=echo, soft_cm=0.5))
        out += _ventricle(beat)
        out += _left_atrium(heart, beat, v=0.1)
        if appendage:
            ear = ((base + 1.0, heart.la_width_cm * 0.4), (base + 0.9, heart.la_width_cm * 0.85))
            out += _vessel(ear, 0.55, wall_cm=0.15, echo=WALL)
        out += _spots([(base + 0.35, -(a + 0.65))], 0.42, WALL)  # coronary sinus, cut across
        out += _spots([(base + 0.35, -(a + 0.65))], 0.26, BLOOD)
        out += _mitral(beat, low=-a * 0.98, high=a * 0.98, share=0.5)
        return out

    return Anatomy(
        placement=_apical_placement(rng, tilt=(-14, 14)),
        layers=layers,
        depth_cm=_depth(heart, rng, atrium=True),
        centre_uv=(heart.lv_length_cm * 0.65, 0.0),
        blood=((heart.lv_length_cm, 0.0, 2.0),),
    )


def _a3c(heart: Heart, rng: np.random.Generator) -> Anatomy:
    behind = float(rng.uniform(0.3, 0.9))
    side = float(rng.uniform(0.4, 0.9))
    rv_half = heart.rv_width_cm * float(rng.uniform(0.28, 0.42))

    def layers(beat: Beat) -> list[Layer]:
        a, w, base = beat.lv_radius_cm, beat.wall_cm, beat.lv_length_cm
        root = heart.aorta_radius_cm
        axis = a - root * 0.75
        wall = ((base * 0.2, -(a * 0.6 + w)), (base * 0.6, -(a + w + 0.1)), (base, -(a + w + 0.3)))
        rv = Bullet(
            base_u=base + 0.3,
            v=a + w + rv_half * 0.9,
            length=base * 0.62,
            half_width=rv_half,
            angle_deg=8.0,
        )
        outer = Bullet(
            base_u=base + 0.4,
            v=a + w + rv_half * 0.9,
            length=base * 0.62 + 0.4,
            half_width=rv_half + 0.4,
            angle_deg=8.0,
        )
        return [
            _behind_heart(base + heart.la_length_cm + 0.9, 5.5, behind),
            Layer(shape=Tube(points=wall, radius=0.4), echo=side, soft_cm=0.5),
            Layer(shape=outer, echo=0.4, soft_cm=0.25),
            Layer(shape=rv, echo=BLOOD * 1.4, structure=Structure.RIGHT_VENTRICLE, soft_cm=0.25),
            *_ventricle(beat),
            *_left_atrium(heart, beat, v=-a * 0.45 - 0.3, angle_deg=8.0),
            *_root(
                ((base - 0.2, axis), (base + 1.8, axis + 0.5), (base + 4.0, axis + 1.5)), root, beat
            ),
            *_mitral(beat, low=-a * 1.0, high=axis - root - 0.1, share=0.42),
        ]

    return Anatomy(
        placement=_apical_placement(rng, tilt=(-18, 12)),
        layers=layers,
        depth_cm=_depth(heart, rng, atrium=True),
        centre_uv=(heart.lv_length_cm * 0.65, 0.0),
        blood=((heart.lv_length_cm - 0.5, 0.6, 1.6), (heart.lv_length_cm, -0.8, 1.8)),
    )


def _depth(heart: Heart, rng: np.random.Generator, *, atrium: bool) -> float:
    # Who scans turns the knob to the heart, but not by every centimetre: size shows.
    whole = heart.lv_length_cm + (heart.la_length_cm if atrium else 0.0)
    usual = 13.5 if atrium else 8.6
    need = 2.6 + 0.6 * whole + 0.4 * usual
    return float(np.clip(need * rng.uniform(0.84, 1.19), 9.0, 24.0))


# --- Parasternal views -----------------------------------------------------------------------


def _psla(heart: Heart, rng: np.random.Generator) -> Anatomy:
    behind = float(rng.uniform(0.5, 1.2))
    front = float(rng.uniform(0.3, 0.7))
    descending = bool(rng.random() < 0.7)
    pitch = float(rng.uniform(-4, 16))

    def layers(beat: Beat) -> list[Layer]:
        a, w, base = beat.lv_radius_cm * 0.95, beat.wall_cm, beat.lv_length_cm
        root = heart.aorta_radius_cm
        rv_v = a + w + 1.1
        axis = a - root * 0.55
        la = Ellipse(
            u=base + 0.2 + heart.la_length_cm * beat.atrial_scale * 0.45,
            v=axis - root - 0.35 - heart.la_width_cm * beat.atrial_scale * 0.45,
            half_u=heart.la_length_cm * beat.atrial_scale * 0.45,
            half_v=heart.la_width_cm * beat.atrial_scale * 0.45,
        )
        out = [
            Layer(
                shape=Tube(
                    points=(
                        (base * 0.1, -(a * 0.8 + w + 0.3)),
                        (base * 0.6, -(a + w + 0.4)),
                        (base + 0.5, -(a + w + 0.3)),
                    ),
                    radius=0.32,
                ),
                echo=behind,
                soft_cm=0.3,
            ),
            Layer(
                shape=Ellipse(u=base * 0.72, v=rv_v, half_u=base * 0.55, half_v=1.5),
                echo=front,
                soft_cm=0.3,
            ),
            Layer(
                shape=Ellipse(
                    u=base * 0.74,
                    v=rv_v - 0.05,
                    half_u=base * 0.5,
                    half_v=heart.rv_width_cm * 0.3 * (1 - 0.2 * beat.emptied),
                ),
                echo=BLOOD * 1.4,
                structure=Structure.RIGHT_VENTRICLE,
                soft_cm=0.25,
            ),
            *_ventricle(beat, squeeze=0.95),
            *_chamber(la, Structure.LEFT_ATRIUM),
            *_root(
                ((base - 0.3, axis), (base + 2.0, axis + 0.15), (base + 5.0, axis + 0.6)),
                root,
                beat,
            ),
            _orifice(base, -a * 0.98, axis - root),
            *_spots(
                [(base, -a * 0.98), (base, axis - root)],
                0.22 * beat.thickness,
                0.9 * beat.brightness,
            ),
            *_leaflets(
                (base, -a * 0.98),
                (base, axis - root),
                opened=beat.mitral_open,
                towards_deg=180.0,
                share=0.38,
                thickness=0.09 * beat.thickness,
                echo=BRIGHT * beat.brightness,
            ),
        ]
        if descending:
            out += _vessel(((base + 0.6, -(a + w + 1.7)), (base + 0.7, -(a + w + 1.7))), 1.05)
        return out

    base = heart.lv_length_cm
    where_x, where_z = float(rng.uniform(-0.8, 2.0)), float(rng.uniform(5.4, 8.2))
    turn = math.radians(90 + pitch)
    return Anatomy(
        placement=Placement(
            x=where_x - base * math.sin(turn),
            z=where_z - base * math.cos(turn),
            angle_deg=90 + pitch,
        ),
        layers=layers,
        depth_cm=float(where_z + heart.lv_radius_cm + rng.uniform(3.0, 7.0)),
        centre_uv=(base * 0.65, 0.0),
        blood=((base, -0.8, 1.8), (base - 0.5, 1.2, 1.5)),
    )


def _sax_mid(heart: Heart, rng: np.random.Generator) -> Anatomy:
    mitral = bool(rng.random() < 0.45)
    turn = float(rng.uniform(-20, 20))
    behind = float(rng.uniform(0.4, 1.0))
    squash = float(rng.uniform(0.9, 1.06))
    level = 0.98 if mitral else 0.9

    def layers(beat: Beat) -> list[Layer]:
        a, w = beat.lv_radius_cm * level, beat.wall_cm
        outer = a + w
        rv = Ellipse(
            u=-outer * 0.42,
            v=-outer * 0.75,
            half_u=outer * 0.85,
            half_v=outer * 0.45 + heart.rv_width_cm * 0.32 * (1 - 0.2 * beat.emptied),
            angle_deg=-25.0,
        )
        rim = Ellipse(
            u=rv.u, v=rv.v, half_u=rv.half_u + 0.45, half_v=rv.half_v + 0.45, angle_deg=-25.0
        )
        out = [
            Layer(shape=rim, echo=0.45, soft_cm=0.25),
            Layer(shape=rv, echo=BLOOD * 1.4, structure=Structure.RIGHT_VENTRICLE, soft_cm=0.25),
            Layer(
                shape=Ellipse(u=0.1, v=0, half_u=(outer + 0.35) * squash, half_v=outer + 0.35),
                echo=behind,
                soft_cm=0.4,
            ),
            Layer(
                shape=Ellipse(u=0, v=0, half_u=outer * squash, half_v=outer),
                echo=MUSCLE,
                structure=Structure.MYOCARDIUM,
                soft_cm=0.2,
            ),
            Layer(
                shape=Ellipse(u=0, v=0, half_u=a * squash, half_v=a),
                echo=BLOOD,
                structure=Structure.LV_CAVITY,
                soft_cm=0.25,
            ),
        ]
        if mitral:
            gap = 0.12 + 0.55 * beat.mitral_open
            mouth = Ellipse(u=0.15, v=0, half_u=a * gap + 0.14, half_v=a * 0.72)
            lips = Ellipse(u=0.15, v=0, half_u=a * gap, half_v=a * 0.72 - 0.16)
            out.append(Layer(shape=mouth, echo=0.85, soft_cm=0.1))
            out.append(Layer(shape=lips, echo=BLOOD, soft_cm=0.1))
        else:
            for angle in (35.0, -35.0):
                at = (
                    0.66 * a * math.cos(math.radians(angle)),
                    0.66 * a * math.sin(math.radians(angle)),
                )
                out += _spots([at], 0.30 + 0.12 * a, MUSCLE * 1.4)
        return out

    depth = float(rng.uniform(5.8, 8.5))
    return Anatomy(
        placement=Placement(x=float(rng.normal(0.4, 0.8)), z=depth, angle_deg=turn),
        layers=layers,
        depth_cm=float(depth + heart.lv_radius_cm + rng.uniform(2.6, 6.5)),
        centre_uv=(0.0, 0.0),
        blood=((0.0, 0.0, 1.5),),
    )


def _sax_basal(heart: Heart, rng: np.random.Generator) -> Anatomy:
    turn = float(rng.uniform(-18, 18))
    root = heart.aorta_radius_cm * float(rng.uniform(0.95, 1.2))
    rv_radius = float(rng.uniform(0.9, 1.35))
    spin = float(rng.uniform(-20, 20))
    trunk = bool(rng.random() < 0.7)

    def layers(beat: Beat) -> list[Layer]:
        grow = beat.atrial_scale
        la = Ellipse(
            u=root + 0.4 + heart.la_width_cm * grow * 0.42,
            v=0.5,
            half_u=heart.la_width_cm * grow * 0.42,
            half_v=heart.la_length_cm * grow * 0.5,
        )
        ra = Ellipse(
            u=root + 0.3 + heart.ra_width_cm * grow * 0.30,
            v=-(root + heart.ra_length_cm * grow * 0.5),
            half_u=heart.ra_width_cm * grow * 0.48,
            half_v=heart.ra_length_cm * grow * 0.42,
            angle_deg=20.0,
        )
        out = root + rv_radius + 0.35
        wrap = tuple(
            (-out * math.cos(math.radians(t)), out * math.sin(math.radians(t)))
            for t in (-95, -65, -35, -5, 25, 55, 80)
        )
        parts = [
            *_chamber(ra, Structure.RIGHT_ATRIUM),
            *_chamber(la, Structure.LEFT_ATRIUM),
            *_vessel(
                wrap,
                rv_radius * 1.25 * (1 - 0.15 * beat.emptied),
                end_radius=rv_radius * 0.9,
                wall_cm=0.3,
                echo=0.5,
                structure=Structure.RIGHT_VENTRICLE,
            ),
        ]
        if trunk:
            tail = ((0.2, out), (1.8, out + 0.3), (3.2, out - 0.4))
            parts += _vessel(tail, rv_radius * 0.9, wall_cm=0.2, echo=0.6)
        parts += [
            Layer(
                shape=Ellipse(u=0, v=0, half_u=root + 0.28, half_v=root + 0.28),
                echo=0.65 + 0.67 * beat.calcium,
            ),
            Layer(
                shape=Ellipse(u=0, v=0, half_u=root, half_v=root),
                echo=BLOOD,
                structure=Structure.AORTA,
            ),
            *_star(root, beat, spin),
            # tricuspid valve on the left, pulmonary valve on the right
            *_leaflets(
                (0.5, -(out + rv_radius)),
                (0.5, -(out - rv_radius)),
                opened=beat.mitral_open,
                towards_deg=180.0,
            ),
            *_leaflets(
                (-out * 0.5 - 0.5, out * 0.86 + 0.8),
                (-out * 0.5 + 0.5, out * 0.86 - 0.8),
                opened=beat.aortic_open,
                towards_deg=40.0,
            ),
        ]
        return parts

    depth = float(rng.uniform(5.0, 7.6))
    return Anatomy(
        placement=Placement(x=float(rng.normal(0.2, 0.8)), z=depth, angle_deg=turn),
        layers=layers,
        depth_cm=float(depth + root + heart.la_width_cm + rng.uniform(1.2, 5.0)),
        blood=((0.0, -2.6, 1.5), (-1.0, 2.4, 1.4)),
    )


def _star(radius: float, beat: Beat, spin_deg: float) -> list[Layer]:
    """Three cusps across the aortic root: a star when closed, a triangle when open."""
    out: list[Layer] = []
    for index in range(3):
        angle = math.radians(90 + spin_deg + 120 * index)
        rim = (radius * math.sin(angle), radius * math.cos(angle))
        if beat.aortic_open < 0.4:
            line = ((0.0, 0.0), rim)
        else:
            after = math.radians(90 + spin_deg + 120 * (index + 1))
            line = (rim, (radius * math.sin(after), radius * math.cos(after)))
        cusp = Tube(points=line, radius=0.08 * beat.thickness)
        out.append(Layer(shape=cusp, echo=0.9 * beat.brightness, soft_cm=0.1))
    return out


def _rv_inflow(heart: Heart, rng: np.random.Generator) -> Anatomy:
    size = float(rng.uniform(0.85, 1.2))
    eustachian = bool(rng.random() < 0.6)
    side = float(rng.uniform(0.3, 0.7))

    def layers(beat: Beat) -> list[Layer]:
        beat_scale = 1 - 0.13 * beat.emptied
        rv = Ellipse(
            u=0.0,
            v=0.0,
            half_u=2.5 * size * beat_scale,
            half_v=2.9 * size * beat_scale,
            angle_deg=18.0,
        )
        wall = Ellipse(u=0.0, v=0.0, half_u=rv.half_u + 0.5, half_v=rv.half_v + 0.5, angle_deg=18.0)
        ra_half = heart.ra_length_cm * beat.atrial_scale * 0.5
        ra = Ellipse(u=rv.half_u + ra_half - 0.3, v=1.5, half_u=ra_half, half_v=ra_half * 1.05)
        left_end, right_end = (rv.half_u * 0.78, -0.6), (rv.half_u * 0.45, 2.9 * size * 0.9)
        out = [
            Layer(shape=HalfPlane(u=0.6, v=-2.8 * size, normal_deg=70.0), echo=MUSCLE, soft_cm=0.5),
            *_chamber(ra, Structure.RIGHT_ATRIUM, wall_cm=0.3),
            Layer(shape=wall, echo=side, soft_cm=0.3),
            Layer(shape=rv, echo=BLOOD * 1.3, soft_cm=0.3, structure=Structure.RIGHT_VENTRICLE),
            *_spots([left_end, right_end], 0.28 * beat.thickness, 0.9 * beat.brightness),
            *_leaflets(
                left_end,
                right_end,
                opened=beat.mitral_open,
                towards_deg=200.0,
                echo=BRIGHT * beat.brightness,
            ),
        ]
        if heart.lead:
            course = (
                (ra.u + ra_half * 0.9, ra.v + 0.6),
                ((left_end[0] + right_end[0]) / 2, 0.9 + 0.4 * heart.lead_bend),
                (0.2, -0.3),
                (-1.2 * size, -2.2 * size),
            )
            out += _lead_layers(heart.lead, course)
        if eustachian:
            ridge = ((ra.u + ra_half * 0.7, ra.v - 1.2), (ra.u + ra_half * 0.1, ra.v - 0.6))
            out.append(Layer(shape=Tube(points=ridge, radius=0.08), echo=0.8))
        return out

    depth = float(rng.uniform(4.2, 6.0))
    return Anatomy(
        placement=Placement(
            x=float(rng.uniform(-1.8, 0.3)), z=depth, angle_deg=float(rng.uniform(-8, 22))
        ),
        layers=layers,
        depth_cm=float(depth + 2.5 * size + heart.ra_length_cm + rng.uniform(0.5, 4.0)),
        blood=((2.3, 1.0, 1.7),),
    )


# --- Subcostal and suprasternal views --------------------------------------------------------


def _liver(z_cm: float, slope: float, rng: np.random.Generator) -> list[Layer]:
    """Liver from the probe's face down to a sloping, bright diaphragm, with a few vessels."""
    bend = float(rng.uniform(0.0, 0.05))
    edge = tuple((x, z_cm + slope * x - bend * x * x) for x in np.linspace(-9, 9, 9).tolist())
    out = [
        Layer(
            shape=HalfPlane(u=0, v=z_cm, normal_deg=90 - math.degrees(math.atan(slope))),
            echo=LIVER,
            in_probe=True,
            soft_cm=0.4,
        ),
        Layer(shape=Tube(points=edge, radius=0.16), echo=0.8, in_probe=True),
    ]
    for _ in range(int(rng.integers(1, 4))):
        x, z = float(rng.uniform(-3, 3)), float(rng.uniform(1.8, max(2.2, z_cm - 1.0)))
        run = ((x, z), (x + float(rng.uniform(0.5, 2.0)), z + float(rng.uniform(-0.6, 0.6))))
        out += _vessel(run, float(rng.uniform(0.15, 0.3)), wall_cm=0.1, echo=0.5, in_probe=True)
    return out


def _sub4c(heart: Heart, rng: np.random.Generator) -> Anatomy:
    inner = _four_chamber_layers(heart, rng, outflow=False)
    angle = float(rng.uniform(-108, -58))
    liver_z = float(rng.uniform(3.2, 5.2))
    liver = _liver(liver_z, float(rng.uniform(-0.15, 0.25)), rng)

    def layers(beat: Beat) -> list[Layer]:
        return [*liver, *inner(beat)]

    # The middle of the heart, at the mitral annulus, lies under the liver.
    turn = math.radians(angle)
    base = heart.lv_length_cm
    to_edge = heart.lv_radius_cm + heart.wall_cm + heart.rv_width_cm
    x, z = float(rng.uniform(-1.5, 1.0)), liver_z + to_edge * float(rng.uniform(0.85, 1.05))
    return Anatomy(
        placement=Placement(
            x=x - 0.8 * base * math.sin(turn), z=z - 0.8 * base * math.cos(turn), angle_deg=angle
        ),
        layers=layers,
        depth_cm=float(z + heart.lv_radius_cm + rng.uniform(2.5, 6.0)),
        centre_uv=(base * 0.65, 0.0),
        blood=((base, 0.0, 1.8), (base, -4.0, 1.5)),
    )


def _ivc(heart: Heart, rng: np.random.Generator) -> Anatomy:
    depth = float(rng.uniform(5.0, 8.5))
    radius = float(rng.uniform(0.6, 1.25))
    slope = float(rng.uniform(-0.15, 0.28))
    collapse = float(rng.uniform(0.05, 0.5))
    join = float(rng.uniform(0.3, 2.5))
    atrium = float(rng.uniform(3.6, 5.6))
    texture = _liver(depth + 4.0, slope, rng)
    vein = bool(rng.random() < 0.75)
    mirrored = bool(rng.random() < 0.5)

    def layers(beat: Beat) -> list[Layer]:
        # Breathing narrows the vein; over a short clip the beat stands in for it.
        now = radius * (1 - collapse * beat.emptied)
        line = (
            (-9.0, depth - 9 * slope),
            (join, depth + join * slope),
            (atrium, depth + atrium * slope),
        )
        out = [
            *texture,
            *_vessel(line, now, wall_cm=0.15, echo=0.75, in_probe=True),
        ]
        if vein:
            out += _vessel(
                ((join - 3.2, depth - 3.6 + slope), (join + 0.3, depth - 0.3 + slope)),
                0.32,
                end_radius=0.5,
                wall_cm=0.1,
                echo=0.5,
                in_probe=True,
            )
        centre = (atrium + 2.0, depth + (atrium + 2.0) * slope - 0.3)
        half = heart.ra_width_cm * 0.55 * beat.atrial_scale
        out += [
            Layer(
                shape=Ellipse(u=centre[0], v=centre[1], half_u=half + 0.25, half_v=half + 0.25),
                echo=WALL,
                in_probe=True,
            ),
            Layer(
                shape=Ellipse(u=centre[0], v=centre[1], half_u=half, half_v=half),
                echo=BLOOD,
                in_probe=True,
                structure=Structure.RIGHT_ATRIUM,
            ),
            Layer(
                shape=Tube(
                    points=(
                        (atrium - 1.0, depth + slope * atrium),
                        (atrium + 1.5, depth + slope * atrium),
                    ),
                    radius=now,
                ),
                echo=BLOOD,
                in_probe=True,
            ),
        ]
        return out

    return Anatomy(
        placement=Placement(x=0.0, z=0.0, angle_deg=0.0, mirrored=mirrored),
        layers=layers,
        background=LIVER * float(rng.uniform(0.8, 1.2)),
        depth_cm=float(depth + rng.uniform(3.5, 8.0)),
        blood=((depth, 0.0, 1.0),),
    )


def _subao(_heart: Heart, rng: np.random.Generator) -> Anatomy:
    across = bool(rng.random() < 0.35)
    depth = float(rng.uniform(5.5, 9.5))
    radius = float(rng.uniform(0.75, 1.35))
    slope = float(rng.uniform(-0.08, 0.18))
    liver = _liver(depth - radius - float(rng.uniform(0.2, 1.2)), slope, rng)
    branch = bool(rng.random() < 0.6)
    pulse = float(rng.uniform(0.02, 0.08))
    spine = float(rng.uniform(0.6, 1.4))
    x = float(rng.uniform(-1.2, 1.2))

    def spine_below(z: float) -> list[Layer]:
        out = []
        for centre in np.arange(-6.0, 7.0, 3.1).tolist():
            arc = tuple(
                (centre + d, z + slope * (centre + d) + 0.10 * d * d)
                for d in (-1.1, -0.4, 0.4, 1.1)
            )
            out.append(Layer(shape=Tube(points=arc, radius=0.18), echo=spine, in_probe=True))
        return out

    def along(beat: Beat) -> list[Layer]:
        now = radius * (1 + pulse * beat.emptied)
        line = ((-10.0, depth - 10 * slope), (10.0, depth + 10 * slope))
        out = [
            *liver,
            *spine_below(depth + radius + 0.9),
            *_vessel(line, now, wall_cm=0.22, echo=0.95, structure=Structure.AORTA, in_probe=True),
        ]
        if branch:
            arm = (
                (x, depth - now + x * slope),
                (x + 0.8, depth - now - 1.2),
                (x + 4.5, depth - now - 1.3),
            )
            out += _vessel(arm, 0.28, wall_cm=0.14, echo=0.7, in_probe=True)
        return out

    def cut(beat: Beat) -> list[Layer]:
        now = radius * (1 + pulse * beat.emptied)
        arc = tuple(
            (x + 0.3 + d, depth + radius + 0.8 + 0.14 * d * d) for d in (-2.0, -0.8, 0.8, 2.0)
        )
        vein = Ellipse(u=x - 2.6, v=depth - 0.1, half_u=1.1, half_v=0.75)
        rim = Ellipse(u=vein.u, v=vein.v, half_u=1.22, half_v=0.87)
        return [
            *liver,
            Layer(shape=Tube(points=arc, radius=0.22), echo=spine, in_probe=True),
            Layer(shape=rim, echo=0.5, in_probe=True),
            Layer(shape=vein, echo=BLOOD, in_probe=True),
            *_vessel(
                ((x + 0.4, depth), (x + 0.5, depth)),
                now,
                wall_cm=0.22,
                echo=0.95,
                structure=Structure.AORTA,
                in_probe=True,
            ),
        ]

    return Anatomy(
        placement=Placement(x=0.0, z=0.0, angle_deg=0.0),
        layers=cut if across else along,
        depth_cm=float(depth + rng.uniform(3.5, 7.5)),
        blood=((depth, 0.0, 1.0),),
    )


def _supao(heart: Heart, rng: np.random.Generator) -> Anatomy:
    radius = heart.aorta_radius_cm * float(rng.uniform(0.7, 0.95))
    bend = float(rng.uniform(2.4, 3.5))
    centre_x, top = float(rng.uniform(-0.8, 0.8)), float(rng.uniform(2.6, 4.4))
    centre_z = top + bend
    artery = bool(rng.random() < 0.85)
    atrium = bool(rng.random() < 0.5)
    heads = rng.normal(0.0, 0.2, 3)
    start, end = float(rng.uniform(-105, -70)), float(rng.uniform(85, 115))

    def layers(beat: Beat) -> list[Layer]:
        now = radius * (1 + 0.05 * beat.emptied)
        arc = [
            (
                centre_x + bend * math.sin(math.radians(t)),
                centre_z - bend * math.cos(math.radians(t)),
            )
            for t in np.linspace(start, end, 11).tolist()
        ]
        last = arc[-1]
        arch = (*arc, (last[0] + 0.2, last[1] + 3.5))
        out: list[Layer] = []
        if atrium:
            out += [
                Layer(
                    shape=Ellipse(u=centre_x + 0.2, v=centre_z + 3.2, half_u=2.0, half_v=1.6),
                    echo=WALL,
                    in_probe=True,
                ),
                Layer(
                    shape=Ellipse(u=centre_x + 0.2, v=centre_z + 3.2, half_u=1.8, half_v=1.4),
                    echo=BLOOD,
                    structure=Structure.LEFT_ATRIUM,
                    in_probe=True,
                ),
            ]
        branches = zip((-28, 5, 36), (-1.3, 0.1, 1.5), heads.tolist(), strict=True)
        for angle, lean, jitter in branches:
            t = math.radians(angle)
            root = (centre_x + bend * math.sin(t), centre_z - bend * math.cos(t))
            out += _vessel(
                (root, (root[0] + lean + jitter, root[1] - 3.0)),
                0.36,
                wall_cm=0.14,
                echo=0.7,
                in_probe=True,
            )
        out += _vessel(
            arch,
            now,
            end_radius=now * 0.8,
            wall_cm=0.24,
            echo=0.9,
            structure=Structure.AORTA,
            in_probe=True,
        )
        if artery:
            out += _vessel(
                ((centre_x, centre_z + 0.2), (centre_x + 0.1, centre_z + 0.2)),
                max(0.5, bend - radius - 0.75),
                wall_cm=0.15,
                echo=0.7,
                in_probe=True,
            )
        return out

    return Anatomy(
        placement=Placement(x=0.0, z=0.0, angle_deg=0.0, mirrored=bool(rng.random() < 0.1)),
        layers=layers,
        depth_cm=float(centre_z + rng.uniform(3.0, 7.0)),
        blood=((centre_z, 0.0, 2.5),),
    )


_FROM_BELOW = (View.SUB4C, View.IVC, View.SUBAO, View.SUPAO)  # placed by depth, not by the heart

_BUILDERS: Mapping[View, Callable[[Heart, np.random.Generator], Anatomy]] = {
    View.PSLA: _psla,
    View.RV_INFLOW: _rv_inflow,
    View.SAX_BASAL: _sax_basal,
    View.SAX_MID: _sax_mid,
    View.A4C: _a4c,
    View.A5C: _a5c,
    View.A2C: _a2c,
    View.A3C: _a3c,
    View.SUB4C: _sub4c,
    View.IVC: _ivc,
    View.SUBAO: _subao,
    View.SUPAO: _supao,
}
