"""What is none of the fifteen views: blank, phantom, other organs, other probes, pages of text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.simulator.anatomy import BLOOD, LIVER, Anatomy, Layer, Placement
from models.simulator.beams import BeamPainter
from models.simulator.clip import SimulatedClip, Truth
from models.simulator.heart import random_heart
from models.simulator.look import Borrowed, random_look
from models.simulator.regions import box_of, two_d_region
from models.simulator.screen import Screen, luma, place_sector, random_layout
from models.simulator.sector import Probe, Sector
from models.simulator.shapes import Ellipse, HalfPlane, Tube
from models.views import View

KINDS = ("blank", "phantom", "abdomen", "organ", "linear", "vessel", "blobs", "text", "dual")
_SHARES = (0.12, 0.09, 0.16, 0.12, 0.14, 0.11, 0.14, 0.06, 0.06)


def simulate_other(
    *,
    rng: np.random.Generator,
    seed: int,
    frames: int | None,
    size: tuple[int, int] | None,
    borrowed: Borrowed | None = None,
    kind: str | None = None,
) -> SimulatedClip:
    """A clip of one of :data:`KINDS`, drawn where none is asked for."""
    kind = kind or str(rng.choice(KINDS, p=_SHARES))
    if kind == "text":
        return _text_page(rng, seed, size)
    count = frames or int(rng.choice([1, 1, 8, 16]))
    heart = random_heart(rng)
    anatomy, probe = _SCENES[kind](rng)
    look = random_look(rng, borrowed)
    if kind == "blank":
        look = replace(look, gain_db=float(rng.uniform(-35, -8)), near_clutter=1.2)
    layout = random_layout(
        rng, rows=size[0] if size else None, columns=size[1] if size else None, colour=False
    )
    sectors: tuple[Sector, ...]
    if kind == "dual":
        layout = replace(layout, plain=False, calipers=False)
        top, left, bottom, right = layout.sector_box
        middle = (left + right) // 2
        sectors = tuple(
            place_sector(layout, rng, depth_cm=anatomy.depth_cm, probe=probe, box=box)
            for box in ((top, left, bottom, middle - 2), (top, middle + 2, bottom, right))
        )
    else:
        sectors = (place_sector(layout, rng, depth_cm=anatomy.depth_cm, probe=probe),)
    painters = [BeamPainter(anatomy, sector, look, rng) for sector in sectors]
    screen = Screen(layout, sectors, rng)
    pictures = []
    for index in range(count):
        beat = heart.at(index * 40.0)
        drawn = [
            sector.draw(painter.paint(beat, heart)[0])
            for painter, sector in zip(painters, sectors, strict=True)
        ]
        pictures.append(
            screen.frame(np.maximum.reduce(drawn), progress=index / count, phase=0, beats=3)
        )
    box = box_of(screen.mask)
    boxes = [box_of(sector.mask) for sector in sectors]
    return SimulatedClip(
        view=View.OTHER,
        seed=seed,
        frames=np.stack(pictures),
        frame_time_ms=40.0,
        truth=Truth(kind=kind, cm_per_pixel=sectors[0].cm_per_pixel),
        regions=tuple(
            two_d_region(sector, place, flow=False)
            for sector, place in zip(sectors, boxes, strict=True)
        ),
        sector_box=box,
        sector_mask=screen.mask,
    )


def _still(
    layers: list[Layer], *, depth_cm: float, background: float, mirrored: bool = False
) -> Anatomy:
    return Anatomy(
        placement=Placement(x=0.0, z=0.0, angle_deg=0.0, mirrored=mirrored),
        layers=lambda _beat: layers,
        background=background,
        depth_cm=depth_cm,
    )


def _cyst(
    x: float, z: float, half_x: float, half_z: float, angle: float, rim: float
) -> list[Layer]:
    outer = Ellipse(u=x, v=z, half_u=half_x + 0.15, half_v=half_z + 0.15, angle_deg=angle)
    inner = Ellipse(u=x, v=z, half_u=half_x, half_v=half_z, angle_deg=angle)
    return [
        Layer(shape=outer, echo=rim, in_probe=True),
        Layer(shape=inner, echo=BLOOD, in_probe=True),
    ]


def _blank(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    depth = float(rng.uniform(5, 20))
    probe = (Probe.PHASED, Probe.CONVEX, Probe.LINEAR)[int(rng.integers(3))]
    spacing = float(rng.uniform(0.3, 1.2))
    layers = []
    if rng.random() < 0.6:  # reverberations of a probe in air
        for index in range(1, int(rng.integers(3, 9))):
            z = index * spacing
            layers.append(
                Layer(
                    shape=Tube(points=((-12, z), (12, z)), radius=0.08),
                    echo=1.5 * math.exp(-0.5 * index),
                    in_probe=True,
                )
            )
    return _still(layers, depth_cm=depth, background=float(rng.uniform(0.005, 0.1))), probe


def _phantom(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    depth = float(rng.uniform(6, 18))
    probe = (Probe.PHASED, Probe.CONVEX, Probe.LINEAR)[int(rng.integers(3))]
    layers: list[Layer] = []
    step = float(rng.uniform(1.0, 2.5))
    for z in np.arange(step, depth, step).tolist():
        wire = Ellipse(u=0.0, v=z, half_u=0.09, half_v=0.09)
        layers.append(Layer(shape=wire, echo=2.0, in_probe=True))
    for _ in range(int(rng.integers(0, 6))):
        x, z = float(rng.uniform(-4, 4)), float(rng.uniform(1, depth))
        half = float(rng.uniform(0.2, 0.9))
        layers += _cyst(x, z, half, half, 0.0, LIVER)
    return _still(layers, depth_cm=depth, background=LIVER), probe


def _abdomen(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    """Liver with kidney, gallbladder or vessels, by a convex probe or a sector."""
    depth = float(rng.uniform(10, 20))
    layers: list[Layer] = []
    if rng.random() < 0.6:  # kidney: dark rim, bright middle
        x, z, turn = (
            float(rng.uniform(-3, 3)),
            depth * float(rng.uniform(0.35, 0.65)),
            rng.uniform(-40, 40),
        )
        for half_x, half_z, echo in ((5.2, 2.7, 0.8), (5.0, 2.5, 0.14), (2.9, 1.0, 0.75)):
            shape = Ellipse(u=x, v=z, half_u=half_x, half_v=half_z, angle_deg=float(turn))
            layers.append(Layer(shape=shape, echo=echo, soft_cm=0.25, in_probe=True))
    if rng.random() < 0.5:  # gallbladder
        layers += _cyst(
            float(rng.uniform(-3, 3)), depth * float(rng.uniform(0.2, 0.6)),
            float(rng.uniform(1.2, 3.2)), float(rng.uniform(0.7, 1.5)),
            float(rng.uniform(-60, 60)), 0.6,
        )  # fmt: skip
    for _ in range(int(rng.integers(1, 6))):
        x, z = float(rng.uniform(-5, 5)), float(rng.uniform(2, depth))
        points = ((x, z), (x + float(rng.normal(0, 1.5)), z + float(rng.normal(0, 1.0))))
        radius = float(rng.uniform(0.12, 0.45))
        layers.append(
            Layer(shape=Tube(points=points, radius=radius + 0.1), echo=0.5, in_probe=True)
        )
        layers.append(Layer(shape=Tube(points=points, radius=radius), echo=BLOOD, in_probe=True))
    if rng.random() < 0.5:
        z = depth * float(rng.uniform(0.7, 0.95))
        curve = tuple((x, z - 0.03 * x * x) for x in np.linspace(-9, 9, 9).tolist())
        layers.append(Layer(shape=Tube(points=curve, radius=0.2), echo=1.0, in_probe=True))
    probe = Probe.CONVEX if rng.random() < 0.75 else Probe.PHASED
    return _still(layers, depth_cm=depth, background=LIVER), probe


def _organ(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    """A full bladder, a head of an unborn, a uterus: one large outline."""
    depth = float(rng.uniform(9, 18))
    x, z = float(rng.uniform(-1.5, 1.5)), depth * float(rng.uniform(0.35, 0.6))
    half_x, half_z = depth * float(rng.uniform(0.18, 0.36)), depth * float(rng.uniform(0.14, 0.3))
    turn = float(rng.uniform(-30, 30))
    layers: list[Layer] = []
    if rng.random() < 0.5:  # skull with midline and ventricles
        outer = Ellipse(u=x, v=z, half_u=half_x + 0.3, half_v=half_z + 0.3, angle_deg=turn)
        inner = Ellipse(u=x, v=z, half_u=half_x, half_v=half_z, angle_deg=turn)
        layers += [
            Layer(shape=outer, echo=1.6, in_probe=True),
            Layer(shape=inner, echo=0.12, in_probe=True),
        ]
        t = math.radians(turn)
        line = (
            (x - half_x * math.cos(t), z - half_x * math.sin(t)),
            (x + half_x * math.cos(t), z + half_x * math.sin(t)),
        )
        layers.append(Layer(shape=Tube(points=line, radius=0.1), echo=0.7, in_probe=True))
    else:
        layers += _cyst(x, z, half_x, half_z, turn, 0.7)
        if rng.random() < 0.5:
            layers.append(
                Layer(
                    shape=Ellipse(u=x, v=z + half_z + 1.8, half_u=2.6, half_v=1.6, angle_deg=turn),
                    echo=0.3,
                    in_probe=True,
                )
            )
    probe = Probe.CONVEX if rng.random() < 0.7 else Probe.PHASED
    return _still(layers, depth_cm=depth, background=0.2), probe


def _linear(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    """Skin, fat, muscle and bone."""
    depth = float(rng.uniform(2.5, 7))
    layers: list[Layer] = []
    z = 0.0
    for _ in range(int(rng.integers(3, 9))):
        z += float(rng.uniform(0.08, 0.25)) * depth
        slope = float(rng.normal(0, 0.06))
        layers.append(
            Layer(
                shape=HalfPlane(u=0.0, v=z, normal_deg=-90 + math.degrees(slope)),
                echo=float(rng.uniform(0.06, 0.45)),
                in_probe=True,
            )
        )
        line = ((-8.0, z - 8 * slope), (8.0, z + 8 * slope))
        layers.append(
            Layer(
                shape=Tube(points=line, radius=float(rng.uniform(0.02, 0.07))),
                echo=float(rng.uniform(0.5, 1.4)),
                soft_cm=0.04,
                in_probe=True,
            )
        )
    layers.reverse()  # half planes reach upwards: the shallowest must be painted last
    if rng.random() < 0.5:
        z = depth * float(rng.uniform(0.5, 0.85))
        bend = float(rng.uniform(0.05, 0.35))
        arc = tuple((x, z + bend * x * x) for x in np.linspace(-2.5, 2.5, 7).tolist())
        layers.append(Layer(shape=Tube(points=arc, radius=0.09), echo=2.0, in_probe=True))
    return _still(layers, depth_cm=depth, background=0.2), Probe.LINEAR


def _vessel_scan(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    """A carotid artery, along or across, or a thyroid beside it."""
    depth = float(rng.uniform(2.5, 5.5))
    z, radius = depth * float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.25, 0.5))
    layers: list[Layer] = []
    if rng.random() < 0.55:
        slope = float(rng.normal(0, 0.12))
        line = ((-6.0, z - 6 * slope), (6.0, z + 6 * slope))
        layers.append(
            Layer(
                shape=Tube(points=line, radius=radius + 0.1), echo=0.9, soft_cm=0.04, in_probe=True
            )
        )
        layers.append(
            Layer(shape=Tube(points=line, radius=radius), echo=BLOOD, soft_cm=0.04, in_probe=True)
        )
    else:
        x = float(rng.uniform(-1, 1))
        layers.append(
            Layer(shape=Ellipse(u=x + 1.3, v=z, half_u=1.1, half_v=0.8), echo=0.4, in_probe=True)
        )
        layers += _cyst(x, z, radius, radius, 0.0, 0.7)
        layers += _cyst(x - 0.9, z - 0.2, radius * 1.5, radius * 0.7, 10.0, 0.4)
    return _still(layers, depth_cm=depth, background=0.18), Probe.LINEAR


def _blobs(rng: np.random.Generator) -> tuple[Anatomy, Probe]:
    """Dark and bright shapes in a cardiac sector that make up no view."""
    depth = float(rng.uniform(10, 20))
    layers: list[Layer] = []
    for _ in range(int(rng.integers(0, 7))):
        x, z = float(rng.uniform(-6, 6)), float(rng.uniform(1, depth))
        if rng.random() < 0.5:
            layers += _cyst(
                x, z, float(rng.uniform(0.5, 2.5)), float(rng.uniform(0.5, 2.5)),
                float(rng.uniform(0, 90)), float(rng.uniform(0.2, 0.9)),
            )  # fmt: skip
        else:
            end = (x + float(rng.normal(0, 3)), z + float(rng.normal(0, 3)))
            layers.append(
                Layer(
                    shape=Tube(points=((x, z), end), radius=float(rng.uniform(0.1, 0.8))),
                    echo=float(rng.uniform(0.02, 1.2)),
                    soft_cm=0.3,
                    in_probe=True,
                )
            )
    return _still(layers, depth_cm=depth, background=float(rng.uniform(0.05, 0.3))), Probe.PHASED


_SCENES: dict[str, Callable[[np.random.Generator], tuple[Anatomy, Probe]]] = {
    "blank": _blank,
    "phantom": _phantom,
    "abdomen": _abdomen,
    "organ": _organ,
    "linear": _linear,
    "vessel": _vessel_scan,
    "blobs": _blobs,
    "dual": _abdomen,
}

_LINES = (
    "Adult Echo Report", "LVIDd 4.8 cm", "LVIDs 3.1 cm", "IVSd 1.0 cm", "LVPWd 0.9 cm", "EF 62 %",
    "E/A 1.2", "Dec time 190 ms", "TR Vmax 2.3 m/s", "RVSP 26 mmHg", "Comments:", "Worksheet",
    "Measurement   Value   Mean", "AoD 3.1 cm", "LA 3.6 cm", "Sonographer", "Page 1 of 2",
)  # fmt: skip


def _text_page(rng: np.random.Generator, seed: int, size: tuple[int, int] | None) -> SimulatedClip:
    rows, columns = size or (480, 640)
    light = bool(rng.random() < 0.3)
    image = Image.new("RGB", (columns, rows), (235, 235, 235) if light else (0, 0, 20))
    draw = ImageDraw.Draw(image)
    height = max(9, round(rows * float(rng.uniform(0.025, 0.045))))
    font = ImageFont.load_default(height)
    ink = (10, 10, 10) if light else (230, 230, 200)
    for line in range(int(rng.integers(6, 20))):
        x = columns * float(rng.choice([0.05, 0.05, 0.5]))
        draw.text((x, height * 1.5 * (line + 1)), str(rng.choice(_LINES)), fill=ink, font=font)
    if rng.random() < 0.5:
        draw.rectangle([columns * 0.03, rows * 0.02, columns * 0.97, rows * 0.97], outline=ink)
    pixels: NDArray[np.uint8] = np.array(image)
    frame = luma(pixels) if rng.random() < 0.3 else pixels
    return SimulatedClip(
        view=View.OTHER,
        seed=seed,
        frames=frame[None],
        frame_time_ms=33.3,
        truth=Truth(kind="text"),
        regions=(),
        sector_box=None,
    )
