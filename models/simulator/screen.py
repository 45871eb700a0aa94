"""The maker's screen around the sector: header, ticks, bars, ECG, colours, calipers.

No maker's screen is copied; each layout is drawn at random from what such screens have in common.
Sizes are pixels of the finished picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.simulator.sector import BEAMS, DEPTHS, Probe, Sector

RGB = tuple[int, int, int]

SIZES = ((240, 320), (300, 400), (434, 636), (480, 640), (600, 800), (708, 1016), (768, 1024))
_INKS: tuple[RGB, ...] = ((255, 255, 255), (200, 200, 200), (255, 220, 90), (120, 220, 255))
_ECG_INKS: tuple[RGB, ...] = ((60, 255, 90), (255, 255, 255), (255, 210, 60), (90, 200, 255))
_BANDS: tuple[RGB, ...] = ((36, 66, 104), (44, 72, 74), (60, 60, 66), (30, 30, 74))
_BAND = 0.05  #: height of a strip of soft keys, share of the rows
_FLOW_INKS: tuple[RGB | None, ...] = (
    None, (255, 255, 255), (170, 170, 170), (80, 200, 255), (40, 90, 255), (90, 230, 90),
)  # fmt: skip
_KEYS = ("Gen", "Sector", "Dual", "Focus", "THI On", "MB Off", "Page 1/3", "Zoom", "Biopsy", "2D")
_WORDS = (
    "ADULT ECHO", "TTE", "FR 52Hz", "16cm", "2D", "HGen", "Gn 52", "C 50", "P Low", "MI 1.2",
    "TIS 0.7", "S5-1", "1.7/3.4", "3:24:10", "DR 65", "HR 71", "General", "Cardiac", "0 dB",
    "T1/0/0", "M3", "V:1.4", "Pat. T: 37.0C", "P 88%", "DEMO", "ID 000000", "Vmax", "CAL",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of the screen lie, and their ink."""

    rows: int
    columns: int
    plain: bool  #: nothing but the sector
    colour: bool  #: three channels
    background: RGB
    ink: RGB
    ecg_ink: RGB
    header_lines: int
    header_left: bool
    side_text: int
    grey_bar: bool
    colour_bar: bool
    ticks: bool
    tick_side: int  #: -1 left of the sector, 1 right, 0 along its edge
    ecg: bool
    ecg_height: float  #: share of the rows
    mark: bool  #: maker's mark beside the apex
    tint: tuple[float, float, float]
    calipers: bool
    band_top: RGB | None = None  #: a coloured strip behind the header
    band_bottom: RGB | None = None  #: a strip of soft keys along the lower edge
    right_text: int = 0  #: lines of text beside the right edge
    rate: bool = False  #: heart rate beside the ECG
    flow_map: int = 0  #: which colours a colour-Doppler box has
    flow_ink: RGB | None = None  #: of the line around the box

    @property
    def sector_box(self) -> tuple[int, int, int, int]:
        """Rows and columns that the sector may take: top, left, bottom, right."""
        if self.plain:
            return 0, 0, self.rows, self.columns
        top = round(self.rows * (0.03 + 0.035 * self.header_lines))
        bottom = round(self.rows * (0.985 - (self.ecg_height if self.ecg else 0.0)))
        if self.band_bottom is not None:
            bottom -= round(self.rows * _BAND)
        left = round(self.columns * (0.12 if self.side_text else 0.03))
        right = round(self.columns * (0.93 if self.grey_bar or self.colour_bar else 0.985))
        if self.right_text:
            right = min(right, round(self.columns * 0.85))
        return top, left, bottom, right


def random_layout(
    rng: np.random.Generator,
    *,
    rows: int | None = None,
    columns: int | None = None,
    colour: bool = False,
) -> Layout:
    """A screen like some machine's. ``colour`` asks for three channels whatever else is drawn."""
    if rows is None or columns is None:
        rows, columns = SIZES[int(rng.integers(len(SIZES)))]
    plain = bool(rng.random() < 0.15) and not colour
    dark = int(rng.integers(8, 50))
    backgrounds: tuple[RGB, ...] = (
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (dark, dark, dark),
        (10, 14, 30),
    )
    tinted = bool(rng.random() < 0.15)
    own = rng.spawn(1)[0]  # so that what was drawn before these parts came stays as it was
    bands = own.random() < 0.3
    return Layout(
        rows=rows,
        columns=columns,
        plain=plain,
        colour=colour or (not plain and bool(rng.random() < 0.6)),
        background=(0, 0, 0) if plain else backgrounds[int(rng.integers(len(backgrounds)))],
        ink=_INKS[int(rng.integers(len(_INKS)))],
        ecg_ink=_ECG_INKS[int(rng.integers(len(_ECG_INKS)))],
        header_lines=int(rng.integers(0, 4)),
        header_left=bool(rng.random() < 0.7),
        side_text=int(rng.choice([0, 0, 4, 7, 10])),
        grey_bar=bool(rng.random() < 0.5),
        colour_bar=colour,
        ticks=bool(rng.random() < 0.75),
        tick_side=int(rng.integers(-1, 2)),
        ecg=bool(rng.random() < 0.6),
        ecg_height=float(rng.uniform(0.07, 0.16)),
        mark=bool(rng.random() < 0.6),
        tint=(1.0, float(rng.uniform(0.8, 1.0)), float(rng.uniform(0.6, 0.95)))
        if tinted
        else (1.0, 1.0, 1.0),
        calipers=bool(rng.random() < 0.07),
        band_top=_BANDS[int(own.integers(len(_BANDS)))] if bands else None,
        band_bottom=_BANDS[int(own.integers(len(_BANDS)))] if own.random() < 0.15 else None,
        right_text=int(own.choice([0, 0, 0, 4, 8])),
        rate=bool(own.random() < 0.5),
        flow_map=int(own.integers(len(_FLOW_MAPS))),
        flow_ink=_FLOW_INKS[int(own.integers(len(_FLOW_INKS)))],
    )


def place_sector(
    layout: Layout,
    rng: np.random.Generator,
    *,
    depth_cm: float,
    probe: Probe = Probe.PHASED,
    box: tuple[int, int, int, int] | None = None,
) -> Sector:
    """Fit a sector of ``depth_cm`` into the layout's box, somewhat off its middle at times."""
    top, left, bottom, right = box or layout.sector_box
    height, width = bottom - top, right - left
    first_cm, steer = 0.0, 0.0
    if probe is Probe.LINEAR:
        half = depth_cm * float(rng.uniform(0.35, 0.8))
        steer = float(rng.choice([0.0, 0.0, 0.0, 12.0, -12.0]))
        left_cm = right_cm = half + depth_cm * abs(math.tan(math.radians(steer)))
        tall_cm, above_cm = depth_cm, 0.0
    else:
        convex = probe is Probe.CONVEX
        half = float(rng.uniform(26, 37) if convex else np.clip(rng.normal(41, 5), 28, 52))
        first_cm = float(rng.uniform(3.0, 6.0)) if convex else 0.0
        steer = 0.0 if convex or rng.random() < 0.85 else float(rng.uniform(-12, 12))
        reach = first_cm + depth_cm
        # The arc is widest at its outermost beam, or at 90 degrees if the steering goes past it.
        left_cm = reach * math.sin(math.radians(min(90.0, half - steer)))
        right_cm = reach * math.sin(math.radians(min(90.0, half + steer)))
        above_cm = first_cm * (1 - math.cos(math.radians(half)))
        tall_cm = depth_cm + above_cm
    fill = 1.0 if layout.plain else float(rng.uniform(0.86, 1.0))
    cm_per_pixel = max(tall_cm / height, (left_cm + right_cm) / width) / fill
    if not layout.plain and rng.random() < 0.15 and probe is Probe.PHASED:
        cm_per_pixel /= float(rng.uniform(1.02, 1.25))  # the sector runs over the box: a zoom
    slack_rows = height - tall_cm / cm_per_pixel
    slack_columns = width - (left_cm + right_cm) / cm_per_pixel
    row = top + max(0.0, slack_rows) * float(rng.uniform(0, 1)) + above_cm / cm_per_pixel
    column = (
        left + left_cm / cm_per_pixel + slack_columns * float(np.clip(rng.normal(0.5, 0.2), 0, 1))
    )
    return Sector(
        probe=probe,
        rows=layout.rows,
        columns=layout.columns,
        centre_row=row,
        centre_column=column,
        cm_per_pixel=cm_per_pixel,
        depth_cm=depth_cm,
        half_width=half,
        first_cm=first_cm,
        steer_deg=steer,
        near_cm=float(rng.choice([0.0, 0.0, 0.3, 0.8])) if probe is Probe.PHASED else 0.0,
    )


class Screen:
    """Draws frames of one clip: what stands still once, the ECG and the sector for each."""

    def __init__(
        self,
        layout: Layout,
        sectors: tuple[Sector, ...],
        rng: np.random.Generator,
        *,
        box: tuple[int, int, int, int] | None = None,
    ) -> None:
        self.layout = layout
        self._sectors = sectors
        self._box = box or layout.sector_box
        self._mask = np.zeros((layout.rows, layout.columns), bool)
        for sector in sectors:
            self._mask |= sector.mask
        top, left, bottom, right = self._box
        clip = np.zeros_like(self._mask)
        clip[top:bottom, left:right] = True
        self._mask &= clip
        self._where = np.flatnonzero(self._mask)
        self._shades = _shades(layout)
        self._trace: NDArray[np.intp] | None = None  # the ECG's pixels, flat, once it is drawn
        self._base = self._still(rng)
        self._over = self._on_top(rng)
        self._ecg_seed = int(rng.integers(2**31))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(rows, columns): the pixels that show beams."""
        return self._mask

    def frame(
        self,
        picture: NDArray[np.float32],
        *,
        progress: float,
        phase: float,
        beats: float,
        flow: NDArray[np.float32] | None = None,
    ) -> NDArray[np.uint8]:
        """One frame.

        Parameters
        ----------
        picture
            Grey (0 to 1), (rows, columns).
        progress
            0 to 1: where the ECG's cursor stands.
        phase, beats
            Place in the beat at the first frame, and beats over the strip of the ECG.
        flow
            Velocity from -1 to 1 by pixel, NaN where there is none to show.
        """
        base = self._base.copy()
        inside = picture.ravel().take(self._where)
        grey = (np.clip(inside, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        if self.layout.colour:
            flat = base.reshape(-1, 3)
            for channel, shades in enumerate(self._shades):
                flat[self._where, channel] = shades.take(grey)
            if flow is not None:
                _paint_flow(base, flow, self._mask, self.layout)
        else:
            base.reshape(-1)[self._where] = grey
        if self._over is not None:
            base[self._over] = 255
        if self.layout.ecg and not self.layout.plain:
            self._draw_ecg(base, progress=progress, phase=phase, beats=beats)
        return base

    # -- what stands still --

    def _still(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        layout = self.layout
        image = Image.new("RGB", (layout.columns, layout.rows), layout.background)
        draw = ImageDraw.Draw(image)
        if not layout.plain:
            self._draw_bands(draw, rng.spawn(1)[0])
            self._draw_header(draw, rng)
            if layout.grey_bar:
                self._draw_bar(image, None)
            if layout.colour_bar:
                self._draw_bar(image, "flow")
            if layout.ticks:
                self._draw_ticks(draw)
            if layout.mark and self._sectors:
                self._draw_mark(draw, rng)
        pixels = np.array(image)
        return pixels if layout.colour else luma(pixels)

    def _on_top(self, rng: np.random.Generator) -> NDArray[np.bool_] | None:
        if not self.layout.calipers or self.layout.plain:
            return None
        image = Image.new("L", (self.layout.columns, self.layout.rows))
        draw = ImageDraw.Draw(image)
        top, left, bottom, right = self._box
        x = rng.uniform(left + (right - left) * 0.3, left + (right - left) * 0.7, 2)
        y = rng.uniform(top + (bottom - top) * 0.3, top + (bottom - top) * 0.9, 2)
        for px, py in zip(x.tolist(), y.tolist(), strict=True):
            draw.line([(px - 4, py), (px + 4, py)], fill=255)
            draw.line([(px, py - 4), (px, py + 4)], fill=255)
        draw.line([(x[0], y[0]), (x[1], y[1])], fill=255)
        draw.text(
            (left + 4, bottom - 24),
            "1 D  4.53 cm",
            fill=255,
            font=_font(letter_height(self.layout)),
        )
        return np.asarray(image) > 127

    def _draw_header(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
        layout = self.layout
        size = letter_height(layout)
        font = _font(size)
        for line in range(layout.header_lines):
            words = "   ".join(dict.fromkeys(rng.choice(_WORDS, int(rng.integers(2, 6))).tolist()))
            x = layout.columns * (0.02 if layout.header_left else 0.3)
            draw.text((x, 2 + line * size * 1.25), words, fill=layout.ink, font=font)
        top = layout.rows * float(rng.uniform(0.15, 0.4))
        for line in range(layout.side_text):
            word = str(rng.choice(_WORDS))
            draw.text((3, top + line * size * 1.4), word, fill=layout.ink, font=font)

    def _draw_bands(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
        layout = self.layout
        size = letter_height(layout)
        font = _font(size)
        rows, columns = layout.rows, layout.columns
        if layout.band_top is not None:
            high = max(4, round(rows * (0.03 + 0.035 * layout.header_lines)) - 2)
            draw.rectangle((0, 0, columns, high), fill=layout.band_top)
        if layout.band_bottom is not None:
            top = rows - round(rows * _BAND)
            draw.rectangle((0, top, columns, rows), fill=layout.band_bottom)
            for place, word in enumerate(rng.permutation(_KEYS)[:6].tolist()):
                x = columns * (0.04 + 0.16 * place)
                draw.text((x, top + size * 0.3), word, fill=(190, 200, 210), font=font)
        start = rows * float(rng.uniform(0.12, 0.35))
        short = [word for word in _WORDS if len(word) < 7]
        for line, word in enumerate(rng.permutation(short)[: layout.right_text].tolist()):
            at = (columns * 0.875, start + line * size * 1.4)
            draw.text(at, word, fill=layout.ink, font=font)
        if layout.rate and layout.ecg:
            beats = f"{int(rng.integers(48, 110))} bpm"
            y = self._ecg_foot - size * 1.6
            draw.text((columns * 0.925, y), beats, fill=layout.ecg_ink, font=font)

    @property
    def _ecg_foot(self) -> int:
        """The row that the ECG's strip ends at."""
        keys = round(self.layout.rows * _BAND) if self.layout.band_bottom is not None else 0
        return self.layout.rows - keys

    def _draw_bar(self, image: Image.Image, kind: str | None) -> None:
        layout = self.layout
        height, width = max(8, layout.rows // 4), max(4, layout.columns // 60)
        ramp = np.linspace(1, -1 if kind else 0, height, dtype=np.float32)[:, None].repeat(width, 1)
        pixels = np.zeros((height, width, 3), np.uint8)
        if kind:
            _paint_flow(pixels, ramp, np.ones((height, width), bool), layout)
        else:
            pixels[:] = (ramp * 255).astype(np.uint8)[:, :, None]
        place = (round(layout.columns * 0.96), round(layout.rows * (0.08 if kind else 0.42)))
        image.paste(Image.fromarray(pixels), place)

    def _draw_ticks(self, draw: ImageDraw.ImageDraw) -> None:
        layout = self.layout
        for sector in self._sectors:
            for cm in range(int(sector.depth_cm) + 1):
                row = sector.centre_row + cm / sector.cm_per_pixel
                length = 6 if cm % 5 == 0 else 3
                if layout.tick_side == 0 and sector.probe is Probe.PHASED:
                    angle = math.radians(sector.half_width + 1.5)
                    x = sector.centre_column + cm / sector.cm_per_pixel * math.sin(angle)
                    row = sector.centre_row + cm / sector.cm_per_pixel * math.cos(angle)
                elif layout.tick_side < 0:
                    x = self._box[1] - 2
                else:
                    x = self._box[3] + 2
                draw.line([(x, row), (x + length, row)], fill=layout.ink)

    def _draw_mark(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
        sector = self._sectors[0]
        side = -1 if rng.random() < 0.7 else 1
        x = sector.centre_column + side * self.layout.columns * 0.04
        y = max(4.0, sector.centre_row + 6)
        text = str(rng.choice(["V", "P", "M", "O"]))
        draw.text((x, y), text, fill=self.layout.ink, font=_font(letter_height(self.layout)))

    # -- what moves --

    def _draw_ecg(
        self, frame: NDArray[np.uint8], *, progress: float, phase: float, beats: float
    ) -> None:
        rows, columns = frame.shape[:2]
        first, last = round(columns * 0.05), round(columns * 0.92)
        if self._trace is None:  # one strip for the clip; only its cursor moves
            height = self.layout.ecg_height * rows
            x = np.arange(first, last)
            curve = ecg_curve((x - first) / (last - first) * beats + phase)
            y = self._ecg_foot - 4 - height * 0.25 - curve * height * 0.6
            lower = np.clip(np.minimum(y, np.roll(y, 1)), 0, rows - 1).astype(int)
            upper = np.clip(np.maximum(y, np.roll(y, 1)), 0, rows - 1).astype(int)
            lower[0] = upper[0]
            row = np.arange(rows)[:, None]
            strip = np.zeros((rows, columns), bool)
            strip[:, first:last] = (row >= lower) & (row <= upper)
            self._trace = np.flatnonzero(strip)
        cursor = first + round((last - first) * progress)
        column = self._trace % columns
        shown = self._trace[(column <= cursor) | (column >= cursor + 6)]
        if self.layout.colour:
            frame.reshape(-1, 3)[shown] = self.layout.ecg_ink
        else:
            frame.reshape(-1)[shown] = 220


def _shades(layout: Layout) -> tuple[NDArray[np.uint8], ...]:
    """What each of 256 greys becomes in red, green and blue."""
    grey = np.arange(256, dtype=np.float32)
    return tuple((grey * np.float32(share)).astype(np.uint8) for share in layout.tint)


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey of RGB pixels (last axis 3), by ITU-R BT.601 as JPEG has it."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(np.rint(pixels @ weights), np.uint8)


def ecg_curve(beats: NDArray[np.float64]) -> NDArray[np.float64]:
    """An ECG of height about 1 at the R wave; ``beats`` counts beats, whole at each R wave."""
    phase = (beats + 0.5) % 1.0 - 0.5
    waves = ((-0.17, 0.030, 0.13), (-0.025, 0.009, -0.12), (0.0, 0.010, 1.0), (0.028, 0.010, -0.22),
             (0.30, 0.050, 0.28))  # fmt: skip
    curve = np.zeros_like(phase)
    for centre, width, height in waves:
        # A wave near half a beat is seen from both sides.
        for turn in (-1.0, 0.0, 1.0):
            curve += height * np.exp(-0.5 * ((phase - centre + turn) / width) ** 2)
    return curve


def random_flow(rng: np.random.Generator) -> tuple[slice, slice]:
    """The colour box, as depths and beams."""
    top = int(rng.uniform(0.15, 0.55) * DEPTHS)
    bottom = min(DEPTHS - 4, top + int(rng.uniform(0.25, 0.5) * DEPTHS))
    middle = int(rng.uniform(0.3, 0.7) * BEAMS)
    half = int(rng.uniform(0.15, 0.35) * BEAMS)
    return slice(top, bottom), slice(max(0, middle - half), min(BEAMS, middle + half))


def letter_height(layout: Layout) -> int:
    """Height of the screen's letters."""
    return max(8, round(layout.rows * 0.024))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


# Colours at speeds 0, half and full, towards the probe and away from it.
_FLOW_MAPS: tuple[tuple[tuple[RGB, RGB, RGB], tuple[RGB, RGB, RGB]], ...] = (
    (((90, 0, 0), (172, 55, 15), (255, 220, 30)), ((0, 0, 100), (20, 55, 178), (40, 220, 255))),
    (((90, 0, 0), (180, 20, 20), (255, 70, 60)), ((0, 0, 100), (20, 20, 190), (70, 80, 255))),
    (((120, 0, 0), (255, 110, 0), (255, 255, 130)), ((0, 0, 130), (0, 120, 255), (150, 255, 255))),
    (((110, 0, 0), (220, 60, 0), (250, 220, 0)), ((0, 0, 120), (0, 90, 190), (0, 220, 120))),
)


def _paint_flow(
    frame: NDArray[np.uint8], flow: NDArray[np.float32], mask: NDArray[np.bool_], layout: Layout
) -> None:
    """Warm towards the probe, cold away; paler the faster. Infinite: the line around the box."""
    shown = mask & np.isfinite(flow)
    speed = np.clip(flow[shown], -1, 1)
    towards, away = _FLOW_MAPS[layout.flow_map]
    knots = [-1.0, -0.5, -1e-6, 1e-6, 0.5, 1.0]
    colours = np.array([*reversed(away), *towards], np.float32)
    for channel in range(3):
        frame[shown, channel] = np.interp(speed, knots, colours[:, channel]).astype(np.uint8)
    if layout.flow_ink is not None:
        frame[mask & np.isposinf(flow)] = layout.flow_ink
