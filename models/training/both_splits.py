"""Is an output shown to be better than knowing nothing: on held-out clips, and on the test?

One split alone may flatter: with fifty patients the figures of an output that knows nothing look
good every so often. So both must bear it out, and where one does not, the output's caution says so
with the figures of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.evaluation.figures import Measurement, Score
from models.evaluation.metrics import Estimate
from models.evaluation.page import unit_words

NAME, TITLE = "both_splits", "Better than knowing nothing?"
"""Of the report's section."""

NOT_BETTER = "not shown to be better than saying the patients' mean"
NOT_BETTER_SCORE = "not shown to be better than chance"


@dataclass(frozen=True, kw_only=True, slots=True)
class Both:
    """An output's figures on the test, and on clips held out of training, where there are any."""

    test: Measurement | Score
    held: Measurement | Score | None
    simulated: bool

    @property
    def caution(self) -> str:
        """What stands beside every value of an output that one of the splits does not bear out.

        A score is borne out where the 95 % interval of its AUC stays above 0.5, a measurement
        where that of R2 stays above 0 and the error below that of saying the mean. Held-out clips
        that cannot tell (nobody among them has the finding) say nothing.
        """
        if all(map(_better, self._parts())):
            return ""
        words = NOT_BETTER if isinstance(self.test, Measurement) else NOT_BETTER_SCORE
        return f"{words}: {self.words}"

    @property
    def words(self) -> str:
        """The figures of both splits in a line."""
        whose = [f"{_brief(self.test)} on {self.test.counts.patients} {self._who} of the test"]
        return ", ".join([self.held_words, *whose] if self.held is not None else whose)

    @property
    def held_words(self) -> str:
        """The figures on clips held out of training; empty where there are none."""
        if self.held is None:
            return ""
        patients = self.held.counts.patients
        return f"{_brief(self.held)} on {patients} {self._who} held out of training"

    def as_figures(self) -> dict[str, Any]:
        """For ``evaluation.json``."""
        return {
            "held": None if self.held is None else compact(self.held),
            "test": compact(self.test),
            "caution": self.caution,
        }

    @property
    def _who(self) -> str:
        return "simulated patients" if self.simulated else "patients"

    def _parts(self) -> list[Measurement | Score]:
        held = [] if self.held is None or not _can_tell(self.held) else [self.held]
        return [*held, self.test]


def _can_tell(found: Measurement | Score) -> bool:
    return (found.r2 if isinstance(found, Measurement) else found.auc).measured


def _better(found: Measurement | Score) -> bool:
    """Whether it is shown to be better than saying the mean, or than chance."""
    if isinstance(found, Score):
        return found.auc.low > 0.5
    return found.r2.low > 0 and found.mae.value < found.mae_of_predicting_the_mean


def _brief(found: Measurement | Score) -> str:
    if isinstance(found, Score):
        return f"AUC {_figure(found.auc, 2)}"
    guess = found.mae_of_predicting_the_mean
    words = f"R2 {_figure(found.r2, 2)}"
    if found.mae.value < guess:
        return words
    unit = unit_words(found.unit)
    error = f"error {_short(found.mae.value)} {unit} against {_short(guess)} of saying the mean"
    return f"{words} and {error}"


def both_lines(told: Mapping[str, Both]) -> list[str]:
    """The section for ``evaluation.md``, by output."""
    lines = [
        (
            'Each output on the clips of the split "held", which no weight saw (its threshold and '
            "interval were chosen there), and on those of the test. Both must show that it is "
            "better: a score than chance (the 95 % interval of AUC stays above 0.5), a measurement "
            "than saying the mean (that of R² stays above 0, and the error below the mean's)."
        ),
        "",
        "| output | figure | held out | test | shown to be better |",
        "|---|---|---|---|---|",
    ]
    for both in told.values():
        name = "R²" if isinstance(both.test, Measurement) else "AUC"
        name += ", SIMULATED" if both.simulated else ""
        held = "none" if both.held is None else _split_words(both.held)
        shown = "NO" if both.caution else "yes"
        lines.append(
            f"| {both.test.title} | {name} | {held} | {_split_words(both.test)} | {shown} |"
        )
    cautions = [
        f"- {both.test.title} was {both.caution}." for both in told.values() if both.caution
    ]
    return [*lines, "", "Beside their values stands:", "", *cautions] if cautions else lines


def _split_words(found: Measurement | Score) -> str:
    who = f"{found.counts.patients} patients"
    if isinstance(found, Score):
        return f"{_figure(found.auc, 2)}, {found.positives} of {who}"
    error = f"error {_short(found.mae.value)}, mean's {_short(found.mae_of_predicting_the_mean)}"
    return f"{_figure(found.r2, 2)}, {error}, {who}"


def told_of(both: Both, whom: str, definition: str = "") -> str:
    """On whom an output was tested and how that went, for the reader of a DICOM report.

    The last colon parts whom from how: a reader of it may group outputs by their patients.
    ``definition`` says what counted as the finding, or as the value, in these data.
    """
    found = both.test
    words = _of_measurement(found) if isinstance(found, Measurement) else _of_score(found)
    told = f"{whom}{words}"
    if definition:
        told += f"; {definition}"
    if both.caution:
        what = NOT_BETTER if isinstance(found, Measurement) else NOT_BETTER_SCORE
        told += f"; {what.upper()}"
        if both.held is not None:
            told += f", with {both.held_words}"
    return told


def _of_measurement(found: Measurement) -> str:
    return (
        f": mean absolute error {_figure(found.mae)} {unit_words(found.unit)} against "
        f"{_short(found.mae_of_predicting_the_mean)} of always saying the mean, "
        f"R2 {_figure(found.r2, 2)}"
    )


def _of_score(found: Score) -> str:
    return (
        f", {found.positives} of {found.counts.examinations} with the finding: "
        f"AUC {_figure(found.auc, 2)}, F1 {_figure(found.f1, 2)} against "
        f"{found.f1_of_always_yes:.2f} of always saying yes, sensitivity "
        f"{_figure(found.sensitivity, 2)}, specificity {_figure(found.specificity, 2)}"
    )


def _figure(one: Estimate, digits: int | None = None) -> str:
    if not one.measured:
        return "cannot be measured"
    if digits is None:
        digits = 1 if one.value >= 1 else 2
    return f"{one.value:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def compact(one: Measurement | Score) -> dict[str, Any]:
    """The figures that a manifest carries; the rest stands in ``evaluation.json``."""
    refused = sum(one.counts.refused.values())
    if isinstance(one, Measurement):
        return {
            "patients": one.counts.patients,
            "mae": _three(one.mae),
            "mae_of_predicting_the_mean": round(one.mae_of_predicting_the_mean, 3),
            "r2": _three(one.r2),
            "bias": _three(one.bias),
            "limits_of_agreement": [
                round(one.lower_limit.value, 2),
                round(one.upper_limit.value, 2),
            ],
            "interval_coverage": _three(one.interval.coverage) if one.interval else None,
            "refused": refused,
        }
    return {
        "patients": one.counts.patients,
        "positives": one.positives,
        "auc": _three(one.auc),
        "f1": _three(one.f1),
        "f1_of_always_yes": round(one.f1_of_always_yes, 3),
        "sensitivity": _three(one.sensitivity),
        "specificity": _three(one.specificity),
        "refused": refused,
    }


def _three(one: Estimate) -> list[float] | None:
    if not one.measured:
        return None
    return [round(number, 3) for number in (one.value, one.low, one.high)]
