"""The picture of an explained ECG: a page of ECG paper that a cardiologist can judge at a glance.

Three rows of four leads, 2.5 s each, and lead II below them for 10 s, at 25 mm/s and 10 mm/mV;
of a median beat the twelve leads beside each other at 50 mm/s. Relevance is a ribbon of colour
under the trace: blue lowers the value, orange raises it, thickness is strength. Below it stands
what was found, with interval or threshold and evidence, and what cannot be trusted. Nothing of the
patient comes into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.ecg.explain import trace
from models.ecg.explain.trace import PIXELS_PER_MM, Paper
from models.ecg.recording import LEADS, Ecg, Strip
from models.explain import ink
from models.explain.box import Box
from models.explain.panels import EncodedPicture, PictureSettings, to_jpeg
from models.explain.sheet import RESEARCH_USE
from models.explain.words import (
    MIDDLE,
    ROW,
    SMALL,
    Lines,
    interval_words,
    long_name,
    pack_words,
    threshold_words,
    value_words,
)
from models.finding import Evidence, Finding, Kind, PackRef, Refusal
from models.threads import side_by_side

__all__ = ["MOST_PAGES", "EcgShown", "draw_ecg", "encode_pages"]

MOST_PAGES = 6
"""A picture has no more pages than this: one for each explained output."""

WIDTH = 1600
"""Of a page, in pixels."""

_GAP = 20
_HEADER, _STRIP, _LEGEND, _FOOTER = 50, 34, 44, 34
_BIG = 20
_PAPER_MM = 114  # height
_LEAST_WORDS, _MOST_WORDS = 80, 420  # height
_COLUMNS = 3  # of words
_LEFT = 54  # of the paper: where the first lead begins, behind the calibration
_SHOWN_S, _LEAD_S = 10.0, 2.5
_MM_PER_S, _BEAT_MM_PER_S = 25.0, 50.0
_GAINS = (10.0, 5.0)  # mm/mV: the second where waves are so high that rows would run together
_LEAST_UP_MM, _LEAST_DOWN_MM = 11.0, 5.0  # of a row: the calibration, and room for a name
_CLOSEST = 0.6  # of the room that two rows need between them: closer, traces run together
_PAGE_MS = 5000.0  # that a viewer shows a page for, where it plays them
_RIM = tuple((x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y)
_TOP_MM, _BRACKETS_MM = 2.0, 3.0  # of the paper's edges: for ribbons, and for the brackets
_BRACKET = 5  # height of the marks of the most telling stretches

_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_RHYTHM = "II"


@dataclass(frozen=True, kw_only=True, eq=False)
class EcgShown:
    """What a page shows beside the traces.

    ``relevance`` (12, samples) is over the recording's rhythm strip, or over ``beat`` where that
    is given: the median beat that was read, which is then drawn in place of the rhythm.
    ``relevance_of`` is the finding that it explains, ``method`` how, in words for a reader, and
    ``unit`` what its numbers are. ``cautions`` are said beside what the recording's own
    ``troubles`` say. ``title`` and ``subject`` stand over the paper instead of what is said there
    of a recording and of a finding.
    """

    findings: tuple[Finding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    cautions: tuple[str, ...] = ()
    relevance: NDArray[np.floating] | None = field(default=None, repr=False)
    relevance_of: Finding | None = None
    method: str = ""
    unit: str = ""
    beat: Strip | None = None
    title: str = ""
    subject: str = ""


def draw_ecg(ecg: Ecg, shown: EcgShown) -> NDArray[np.uint8]:
    """Draw a page.

    Parameters
    ----------
    ecg
        The recording; of its rhythm the first 10 s are drawn, or what there is.
    shown
        What stands over and below it.

    Returns
    -------
    (rows, columns, 3) RGB, some 1100 x 1600, both even.

    Raises
    ------
    ValueError
        If relevance and strip are not of one shape.
    """
    return _Page(ecg, shown).draw()


def encode_pages(
    ecg: Ecg, pages: Sequence[EcgShown], settings: PictureSettings | None = None
) -> EncodedPicture:
    """Draw one page for each explained output and compress them: JPEG baseline 4:2:2.

    Pages after :data:`MOST_PAGES` are left out. All have the rows of the highest; a viewer that
    plays them turns a page in 5 s.

    Raises
    ------
    ValueError
        If there is no page, or relevance and strip are not of one shape.
    """
    if not pages:
        raise ValueError("an ECG's picture needs at least one page")
    drawn = [*side_by_side(lambda shown: draw_ecg(ecg, shown), list(pages[:MOST_PAGES]))]
    rows = max(len(page) for page in drawn)
    quality = (settings or PictureSettings()).quality
    explained = any(shown.relevance is not None for shown in pages)
    return EncodedPicture(
        jpeg_frames=tuple(to_jpeg(_as_high(page, rows), quality) for page in drawn),
        rows=rows,
        columns=WIDTH,
        frame_times_ms=tuple(_PAGE_MS * number for number in range(len(drawn))),
        source_frames=(),
        title="Where the models looked" if explained else "What was found",
    )


def _as_high(page: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    out = np.empty((rows, *page.shape[1:]), np.uint8)
    out[:] = ink.PAPER
    out[: len(page)] = page
    return out


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """Leads beside each other: where zero is, and where their names stand, in pixels."""

    names: tuple[str, ...]
    baseline: int
    top: int


class _Page:
    """One page: where things stand, and how they are drawn."""

    def __init__(self, ecg: Ecg, shown: EcgShown) -> None:
        self._ecg, self._shown = ecg, shown
        self._strip = ecg.rhythm if shown.beat is None else shown.beat
        self._strength: NDArray[np.float32] | None = None
        self._full, self._inside = 0.0, 0.0  # full strength; how much of it is drawn
        if shown.relevance is not None:
            _check(shown.relevance, self._strip)
            self._strength, self._full = trace.strengths(shown.relevance, self._strip.rate_hz)
        self._gain, self._rows_of_leads = self._place_rows()
        self._top = _HEADER + _STRIP
        self._paper = Box(
            left=_GAP, top=self._top, width=WIDTH - 2 * _GAP, height=_PAPER_MM * PIXELS_PER_MM
        )
        self._legend_top = self._paper.bottom + 2
        self._words_top = self._legend_top + (_LEGEND if self._strength is not None else 8) + ROW
        self._columns = self._word_columns()
        height = max([lines.height for lines in self._columns] + [_LEAST_WORDS])
        self._footer_top = self._words_top + min(height, _MOST_WORDS) + 8
        self._rows = self._footer_top + _FOOTER
        self._rows += self._rows % 2  # JPEG 4:2:2 and viewers like even sizes

    def draw(self) -> NDArray[np.uint8]:
        """All of it."""
        page = Image.new("RGB", (WIDTH, self._rows), ink.PAPER)
        draw = ImageDraw.Draw(page)
        self._draw_header(draw)
        labels: list[Callable[[ImageDraw.ImageDraw], None]] = []
        paper = Paper(
            self._paper.width,
            self._paper.height,
            mm_per_s=_MM_PER_S if self._shown.beat is None else _BEAT_MM_PER_S,
            mm_per_mv=self._gain,
        )
        if self._shown.beat is None:
            self._draw_rhythm(paper, labels)
        else:
            self._draw_beats(paper, labels)
        sheet = paper.picture()
        over = ImageDraw.Draw(sheet)
        for label in labels:
            label(over)
        page.paste(sheet, (self._paper.left, self._paper.top))
        if self._strength is not None:
            self._draw_legend(draw)
        self._draw_words(draw)
        self._draw_footer(draw)
        return np.asarray(page)

    # The paper.

    def _place_rows(self) -> tuple[float, tuple[_Row, ...]]:
        """The gain, and where rows stand: as high and as deep as their waves need."""
        rows = [list(names) for names in _ROWS]
        if self._shown.beat is None:
            rows.append([_RHYTHM])
        reach = [self._reach(names) for names in rows]
        room = _PAPER_MM - _TOP_MM - _BRACKETS_MM
        for gain in _GAINS:
            up = [max(gain * high, _LEAST_UP_MM) for high, _ in reach]
            down = [max(gain * deep, _LEAST_DOWN_MM) for _, deep in reach]
            spare = (room - sum(up) - sum(down)) / len(rows)
            # The first row's waves and the last one's must stay on the paper; between them rows
            # may reach into each other.
            between = sum(up[1:]) + sum(down[:-1])
            share = min(1.0, (room - up[0] - down[-1]) / between)
            if share >= _CLOSEST:
                break
        share, spare = max(share, _CLOSEST / 2), max(0.0, spare)
        placed, top = [], _TOP_MM
        for place, names in enumerate(rows):
            baseline = top + spare / 2 + (up[place] if place == 0 else share * up[place])
            placed.append(
                _Row(
                    names=tuple(names),
                    baseline=round(baseline * PIXELS_PER_MM),
                    top=round((top - _TOP_MM) * PIXELS_PER_MM),
                )
            )
            top = baseline + share * down[place] + spare / 2
        return gain, tuple(placed)

    def _reach(self, names: Sequence[str]) -> tuple[float, float]:
        """How far the waves of these leads reach up and down from their medians, in mV."""
        rate = self._strip.rate_hz
        up, down = 0.0, 0.0
        for name in names:
            shown = self._strip.lead(name)[: round(_SHOWN_S * rate)]
            if np.isfinite(shown).any():
                low, middle, high = np.nanpercentile(shown, (0.1, 50, 99.9))
                up, down = max(up, float(high - middle)), max(down, float(middle - low))
        return up, down

    def _draw_rhythm(
        self, paper: Paper, labels: list[Callable[[ImageDraw.ImageDraw], None]]
    ) -> None:
        wide = paper.pixels(_LEAD_S)
        # A recording of less than 10 s is not stretched: its columns overlap in time.
        later_s = min(_LEAD_S, max(0.0, (self._strip.duration_s - _LEAD_S) / 3))
        for row in self._rows_of_leads:
            paper.calibration(8, row.baseline)
            for column, name in enumerate(row.names):
                left = _LEFT + column * wide
                if column:
                    paper.tick(left, row.baseline)
                alone = len(row.names) == 1
                self._draw_lead(
                    paper, labels, name, left, row, begin_s=column * later_s,
                    length_s=_SHOWN_S if alone else _LEAD_S, share=not alone,
                )  # fmt: skip
        labels.append(lambda draw: self._draw_spans(draw, paper))

    def _draw_beats(
        self, paper: Paper, labels: list[Callable[[ImageDraw.ImageDraw], None]]
    ) -> None:
        wide = (paper.width - _LEFT) / 4
        for row in self._rows_of_leads:
            paper.calibration(8, row.baseline)
            for column, name in enumerate(row.names):
                self._draw_lead(
                    paper, labels, name, _LEFT + column * wide, row, begin_s=0.0,
                    length_s=paper.seconds(wide - 8), share=True,
                )  # fmt: skip

    def _draw_lead(
        self,
        paper: Paper,
        labels: list[Callable[[ImageDraw.ImageDraw], None]],
        name: str,
        left: float,
        row: _Row,
        *,
        begin_s: float,
        length_s: float,
        share: bool,
    ) -> None:
        """A stretch of a lead about its median, and its name."""
        rate, at = self._strip.rate_hz, LEADS.index(name)
        part = slice(round(begin_s * rate), round((begin_s + length_s) * rate))
        values = self._strip.millivolts[at]
        missing = not np.isfinite(values).any()
        if not missing:
            values = values - np.nanmedian(values)
            strength = None if self._strength is None else self._strength[at, part]
            paper.lead(values[part], rate, left, row.baseline, strength)
            if self._shown.relevance is not None and share:
                self._inside += float(np.nansum(np.abs(self._shown.relevance[at, part])))
        else:
            words = f"{name}: not recorded"
            labels.append(lambda draw: _label(draw, left + 40, row.baseline - 12, words))
        labels.append(lambda draw: self._name(draw, left + 8, row.top + 14, name, share=share))

    def _name(
        self, draw: ImageDraw.ImageDraw, left: float, middle: float, name: str, *, share: bool
    ) -> None:
        """A lead's name, and how much of all relevance lies in it."""
        _label(draw, left, middle, name, size=_BIG)
        shares = self._shares()
        if share and shares is not None:
            words = f"{100 * shares[LEADS.index(name)]:.0f} %"
            _label(draw, left + ink.width_of(name, _BIG) + 10, middle + 1, words, size=MIDDLE)

    def _shares(self) -> NDArray[np.float64] | None:
        """(12,): of the strength of all relevance; None where all leads have the same."""
        if self._shown.relevance is None:
            return None
        known = np.nan_to_num(np.abs(np.asarray(self._shown.relevance, np.float64))).sum(axis=1)
        present = known[np.isfinite(self._strip.millivolts).any(axis=1)]
        if not len(present) or present.sum() <= 0 or np.ptp(present) <= 1e-6 * present.max():
            return None
        return np.asarray(known / known.sum())

    def _draw_spans(self, draw: ImageDraw.ImageDraw, paper: Paper) -> None:
        """Marks below the rhythm strip: the stretches that moved the value most."""
        of = self._shown.relevance_of
        bottom = paper.height - 6
        for number, (begin_ms, end_ms) in enumerate(() if of is None else of.spans_ms, start=1):
            if begin_ms >= 1000 * _SHOWN_S:
                continue
            left = _LEFT + paper.pixels(max(0.0, begin_ms) / 1000)
            right = max(left + 4, _LEFT + paper.pixels(min(end_ms / 1000, _SHOWN_S)))
            draw.line(
                [(left, bottom - _BRACKET), (left, bottom), (right, bottom),
                 (right, bottom - _BRACKET)],
                fill=trace.PEN, width=2,
            )  # fmt: skip
            words = str(number)
            _label(draw, (left + right) / 2 - ink.width_of(words, SMALL) / 2, bottom - 12, words)

    # The words.

    def _draw_header(self, draw: ImageDraw.ImageDraw) -> None:
        middle, right = _HEADER // 2 - 2, WIDTH - _GAP
        ink.write(draw, (_GAP, middle), self._title(), size=_BIG)
        ink.write(draw, (right, middle), RESEARCH_USE, size=_BIG, colour=ink.WARNING, anchor="rm")
        draw.line((_GAP, _HEADER - 6, right, _HEADER - 6), fill=ink.LINE)
        middle = _HEADER + _STRIP // 2 - 2
        scale = self._scale_words()
        ink.write(draw, (right, middle), scale, size=MIDDLE, colour=ink.QUIET, anchor="rm")
        of = self._shown.relevance_of
        words = self._shown.subject or ("" if of is None else _explained_words(of))
        words = ink.shortened(words, _BIG, right - _GAP - ink.width_of(scale, MIDDLE) - 24)
        simulated = of is not None and of.evidence is Evidence.SIMULATED
        colour = ink.WARNING if simulated else ink.TEXT
        ink.write(draw, (_GAP, middle), words, size=_BIG, colour=colour)

    def _title(self) -> str:
        if self._shown.title:
            return self._shown.title
        title = "12-lead ECG" if self._shown.beat is None else "12-lead ECG, median beat"
        return title if self._strength is None else f"{title}: where the network looked"

    def _scale_words(self) -> str:
        speed = _MM_PER_S if self._shown.beat is None else _BEAT_MM_PER_S
        strip = self._strip
        length = f"{strip.duration_s:.1f} s at {strip.rate_hz:g} Hz"
        if self._shown.beat is None and strip.duration_s > _SHOWN_S + 0.05:
            length = f"first {_SHOWN_S:g} s of {length}"
        elif self._shown.beat is None and strip.duration_s < _SHOWN_S - 0.05:
            length = f"only {length}, columns overlap in time"
        return f"{speed:g} mm/s · {self._gain:g} mm/mV · {length}"

    def _draw_legend(self, draw: ImageDraw.ImageDraw) -> None:
        """The ribbon from strongest lowering to strongest raising, with numbers and words."""
        middle = self._legend_top + _LEGEND // 2
        relevance = self._shown.relevance
        lowers = relevance is not None and bool((np.nan_to_num(relevance) < 0).any())
        what = self._explained()
        unit = f" {self._shown.unit}" if self._shown.unit else ""
        left = float(_GAP)
        if lowers:
            words = f"lowers the {what}  -{_number(self._full)}"
            ink.write(draw, (left, middle), words, size=MIDDLE)
            left += ink.width_of(words, MIDDLE) + 8
        words = f"+{_number(self._full)}{unit}  raises the {what}"
        if self._full > 0:
            left = _draw_scale(draw, left, middle, lowers=lowers)
        else:
            words = f"No relevance: this method found nothing that moves the {what}"
        ink.write(draw, (left, middle), words, size=MIDDLE)
        left += ink.width_of(words, MIDDLE) + 28
        words = self._shown.method
        if self._shares() is not None:
            words += " · % behind a lead: its share of all relevance"
        words = ink.shortened(words, SMALL, WIDTH - _GAP - left)
        ink.write(draw, (WIDTH - _GAP, middle), words, size=SMALL, colour=ink.QUIET, anchor="rm")

    def _explained(self) -> str:
        of = self._shown.relevance_of
        if of is None:
            return "output"
        return "score" if of.kind is Kind.SCORE else "value"

    def _word_columns(self) -> list[Lines]:
        """What was found, by pack, and in the last column what cannot be trusted."""
        width = (WIDTH - (_COLUMNS + 1) * _GAP) // _COLUMNS
        columns = [Lines(width, thresholds=True) for _ in range(_COLUMNS)]
        packs: dict[tuple[PackRef, Evidence], list[Finding]] = {}
        for finding in self._shown.findings:
            packs.setdefault((finding.pack, finding.evidence), []).append(finding)
        for place, given in enumerate(packs.values()):
            lines = (
                columns[place]
                if place < _COLUMNS - 1
                else min(columns[:-1], key=lambda one: one.height)
            )
            lines.gap()
            lines.of_packs(given)
        warnings = columns[-1]
        for trouble in self._ecg.troubles:
            about = f"{', '.join(trouble.leads)}: " if trouble.leads else ""
            warnings.paragraph(f"{about}{trouble.words}", ink.WARNING)
        for caution in dict.fromkeys(self._shown.cautions):
            warnings.paragraph(caution, ink.WARNING)
        warnings.refusals(self._shown.refusals)
        return columns

    def _draw_words(self, draw: ImageDraw.ImageDraw) -> None:
        height = self._footer_top - self._words_top
        for place, lines in enumerate(self._columns):
            left = _GAP + place * ((WIDTH - _GAP) // _COLUMNS)
            box = Box(left=left, top=self._words_top, width=lines.columns, height=height)
            if not lines.height:
                continue
            middle = self._words_top - ROW // 2 - 2
            if place < _COLUMNS - 1:
                ink.write(draw, (left, middle), "Findings", size=MIDDLE)
                ink.write(
                    draw, (left + lines.columns, middle), "95 % interval or threshold",
                    size=SMALL, colour=ink.QUIET, anchor="rm",
                )  # fmt: skip
            else:
                ink.write(draw, (left, middle), "To be borne in mind", size=MIDDLE)
            lines.draw(draw, box)

    def _draw_footer(self, draw: ImageDraw.ImageDraw) -> None:
        middle = self._footer_top + _FOOTER // 2
        words = "Each lead is drawn about its own median"
        derived = self._strip.derived
        if derived:
            words += f"; reckoned from others: {', '.join(derived)}"
        if self._shown.relevance_of is not None and self._shown.relevance_of.spans_ms:
            words += "; numbered: stretches that moved it most"
        if self._shown.relevance is not None and self._shown.beat is None:
            total = float(np.nansum(np.abs(np.asarray(self._shown.relevance, np.float64))))
            if total > 0:
                words += f"; 12 traces hold {100 * self._inside / total:.0f} % of all relevance"
        ink.write(draw, (_GAP, middle), words, size=SMALL, colour=ink.QUIET)
        spoke = [finding.pack for finding in self._shown.findings]
        spoke += [refusal.pack for refusal in self._shown.refusals]
        packs = dict.fromkeys(pack_words(pack) for pack in spoke)
        words = ink.shortened(" · ".join(("echonode", *packs)), SMALL, WIDTH * 0.4)
        ink.write(draw, (WIDTH - _GAP, middle), words, size=SMALL, colour=ink.QUIET, anchor="rm")


def _draw_scale(draw: ImageDraw.ImageDraw, left: float, middle: float, *, lowers: bool) -> float:
    """The ribbon as it grows with strength, on a piece of paper; returns where words go on."""
    left += 6
    width = 320 if lowers else 160
    draw.rounded_rectangle(
        (left - 6, middle - 14, left + width + 6, middle + 14), radius=6, fill=trace.SHEET
    )
    for place, strength in enumerate(np.linspace(-1.0 if lowers else 0.0, 1.0, width).tolist()):
        half, at = trace.thickness_of(strength) / 2, left + place
        if half > 0:
            draw.line((at, middle - half, at, middle + half), fill=trace.colour_of(strength))
    draw.line((left, middle, left + width - 1, middle), fill=trace.PEN, width=2)
    return left + width + 20


def _check(relevance: NDArray[np.floating], strip: Strip) -> None:
    if relevance.shape != strip.millivolts.shape:
        raise ValueError(
            f"relevance is {relevance.shape}, and the strip that it explains "
            f"{strip.millivolts.shape}"
        )


def _explained_words(finding: Finding) -> str:
    """Name, value, interval or threshold, and evidence where it is none of patients."""
    beside = interval_words(finding) or threshold_words(finding)
    words = f"{long_name(finding.output)}  {value_words(finding)}"
    if beside:
        words += f" ({beside})"
    if finding.evidence is Evidence.SIMULATED:
        words += "  SIMULATED ONLY"
    return words


def _number(value: float) -> str:
    """Two figures that count."""
    return f"{value:.2g}"


def _label(
    draw: ImageDraw.ImageDraw, left: float, middle: float, words: str, *, size: int = SMALL
) -> None:
    """Dark words on the paper with a narrow rim, which sets them off and hides no wave."""
    for across, down in _RIM:
        place = (left + across, middle + down)
        ink.write(draw, place, words, size=size, colour=trace.SHEET)
    ink.write(draw, (left, middle), words, size=size, colour=trace.PEN)
