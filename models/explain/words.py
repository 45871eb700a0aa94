"""What was found, in lines of words: values with unit, interval and evidence, and what was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import ImageDraw

from models.explain import ink
from models.explain.box import Box
from models.finding import Evidence, Finding, PackRef, Refusal
from models.tasks import TASKS

MIDDLE, SMALL = 16, 14
ROW = 20
_WIDEST = 480  # of a line of a value: names and numbers stay together
_VALUE = 0.7  # where this column ends, as a share of that
_GAP = 6

SIMULATED_WORDS = "SIMULATED ONLY, never tested on patients"

_SHORT_NAMES = {
    "ef": "Ejection fraction",
    "edv": "End-diastolic volume",
    "esv": "End-systolic volume",
    "la_dilation": "Left-atrial dilation",
    "lvh": "LV hypertrophy",
    "lead": "Pacemaker or ICD lead",
    "ra_length": "Right-atrial length",
    "la_area": "Left-atrial area",
    "j_amplitude": "J point, lead V5",
    "r_amplitude": "R wave, lead V5",
    "t_amplitude": "T wave, lead V5",
}
_UNITS = {"%": " %", "mL": " mL", "cm2": " cm²", "cm": " cm", "kg": " kg", "a": " years"}
_DECIMALS = {"%": 0, "mL": 0, "cm2": 1, "cm": 1, "kg": 0, "a": 0, "ms": 0, "/min": 0}

_Row = Callable[[ImageDraw.ImageDraw, int, int], None]


class Lines:
    """Lines from the top of a box down; where not all fit, the last one says so.

    Parameters
    ----------
    width
        Of the box that they will stand in: it decides where a line ends.
    thresholds
        Whether a score without an interval is followed by its threshold.
    """

    def __init__(self, width: int, *, thresholds: bool = False) -> None:
        self._width = width
        self._thresholds = thresholds
        self.columns = min(width, _WIDEST)  #: the intervals end here
        self._rows: list[tuple[int, _Row]] = []

    @property
    def height(self) -> int:
        """What all of them need."""
        return sum(height for height, _ in self._rows)

    def draw(self, draw: ImageDraw.ImageDraw, box: Box) -> int:
        """Draw what fits; return the height that it took."""
        limit = box.bottom - (0 if self.height <= box.height else ROW)
        top = box.top
        for height, row in self._rows:
            if top + height > limit:
                words = "More stands in the report."
                ink.write(draw, (box.left, top + ROW // 2), words, size=SMALL, colour=ink.QUIET)
                return top + ROW - box.top
            row(draw, box.left, top + height // 2)
            top += height
        return top - box.top

    def gap(self, height: int = _GAP) -> None:
        """Some room, unless it would stand at the top."""
        if self._rows:
            self._rows.append((height, lambda *_: None))

    def text(self, words: str, *, size: int = SMALL, colour: ink.Colour = ink.TEXT) -> None:
        """One line, cut where it is too long."""
        cut = ink.shortened(words, size, self._width)

        def row(draw: ImageDraw.ImageDraw, left: int, middle: int) -> None:
            ink.write(draw, (left, middle), cut, size=size, colour=colour)

        self._rows.append((ROW if size <= MIDDLE else size + 8, row))

    def paragraph(self, words: str, colour: ink.Colour = ink.TEXT, *, gap: bool = True) -> None:
        """Words over as many lines as they need."""
        if gap:
            self.gap()
        for line in ink.wrapped(words, SMALL, self._width):

            def row(draw: ImageDraw.ImageDraw, left: int, middle: int, line: str = line) -> None:
                ink.write(draw, (left, middle), line, size=SMALL, colour=colour)

            self._rows.append((ROW - 2, row))

    def of_packs(self, findings: Sequence[Finding]) -> None:
        """The findings below the pack that gave them, and what they were tested on."""
        packs: dict[tuple[PackRef, Evidence], list[Finding]] = {}
        for finding in findings:
            packs.setdefault((finding.pack, finding.evidence), []).append(finding)
        for (pack, evidence), given in packs.items():
            self.gap()
            methods = " and ".join(dict.fromkeys(finding.method.value for finding in given))
            simulated = evidence is Evidence.SIMULATED
            tested = SIMULATED_WORDS if simulated else "tested on patients"
            self.paragraph(
                f"{pack_words(pack)}, {methods}; {tested}",
                ink.WARNING if simulated else ink.QUIET,
                gap=False,
            )
            for finding in given:
                self.finding(finding)

    def finding(self, finding: Finding) -> None:
        """Name, value and interval."""
        value, interval = value_words(finding), interval_words(finding)
        if self._thresholds and not interval:
            interval = threshold_words(finding)
        value_right = round(self.columns * _VALUE)
        room = value_right - ink.width_of(value, MIDDLE) - 10
        name = ink.shortened(short_name(finding.output), SMALL, room)

        def row(draw: ImageDraw.ImageDraw, left: int, middle: int) -> None:
            ink.write(draw, (left, middle), name, size=SMALL)
            ink.write(draw, (left + value_right, middle), value, size=MIDDLE, anchor="rm")
            ink.write(
                draw, (left + self.columns, middle), interval, size=SMALL, colour=ink.QUIET,
                anchor="rm",
            )  # fmt: skip

        self._rows.append((ROW, row))

    def refusals(self, refusals: Sequence[Refusal]) -> None:
        """What was not given; the reasons are long, and stand in the report."""
        names = dict.fromkeys(short_name(refusal.output) for refusal in refusals)
        if names:
            self.paragraph(f"Not given (the report says why): {', '.join(names)}.", ink.QUIET)


def pack_words(pack: PackRef) -> str:
    """Which pack, for a reader."""
    return f"{pack.name} {pack.version}"


def long_name(output: str) -> str:
    """An output's title, the left ventricle as LV."""
    title = TASKS[output].title if output in TASKS else output
    return title.replace("Left ventricular", "LV")


def short_name(output: str) -> str:
    """An output in few words."""
    return _SHORT_NAMES.get(output) or long_name(output)


def value_words(finding: Finding) -> str:
    """The value with its unit, or the score."""
    if finding.score is not None:
        return f"score {finding.score:.2f}"
    if finding.value is None:
        return "-"
    return number_words(finding.value, finding.unit) + unit_words(finding.unit)


def interval_words(finding: Finding) -> str:
    """The 95 % interval without its unit; empty where there is none."""
    if finding.low is None or finding.high is None:
        return ""
    low, high = (number_words(bound, finding.unit) for bound in (finding.low, finding.high))
    return f"{low} to {high}"


def threshold_words(finding: Finding) -> str:
    """On which side of its threshold a score is; empty where it has none."""
    if finding.score is None or finding.threshold is None:
        return ""
    side = "above" if finding.score >= finding.threshold else "below"
    return f"{side} {finding.threshold:.2f}"


def number_words(value: float, unit: str) -> str:
    """A number with as many decimals as its unit deserves."""
    return f"{value:.{_DECIMALS.get(unit, 2)}f}"


def unit_words(unit: str) -> str:
    """A unit as it stands behind a number."""
    return _UNITS.get(unit, f" {unit}")
