"""What a report on an ECG pack says besides its figures: how few real recordings there were.

Fifty recordings of patients bear no figure alone. So each is told by its name, truth and value; the
rate is held against R peaks, which a detector found and no expert; intervals against those that a
cart wrote into the one real object at hand; and the papers' figures stand beside ours with what
keeps them from being compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.data.dataset import Known
from models.data.ecgs import EcgCase
from models.ecg.beats import heart_rate_bpm, r_peaks
from models.ecg.reader import WaveformReader
from models.ecg.reading import read_ecg
from models.ecg.recording import Measured
from models.evaluation.figures import Measurement, Score
from models.evaluation.metrics import Estimate, bootstrap, mean_absolute_error
from models.evaluation.page import estimate, number, unit_words
from models.evaluation.reading import Answer
from models.evaluation.report import Report
from models.finding import Evidence, Kind
from models.packs import OutputSpec, Pack
from models.tasks import ECG_TASKS

FEWEST: Final = 5
"""Real recordings with a finding, and as many without, below which nothing was tested on them."""

FIGURES_OF_RIBEIRO: Final[Mapping[str, float]] = {
    "first_degree_av_block": 0.897,
    "rbbb": 0.944,
    "lbbb": 1.000,
    "sinus_bradycardia": 0.882,
    "atrial_fibrillation": 0.870,
    "sinus_tachycardia": 0.960,
}
"""F1 on 827 recordings of patients; Ribeiro et al. 2020 (Nature Communications 11:1760)."""

_SEX_OF_HICKS = "AUC 0.96, accuracy 89 %"  # Hicks et al. 2021 (Scientific Reports 11:10949)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a report, for :func:`models.evaluation.report.add_section`."""

    name: str
    title: str
    lines: tuple[str, ...]
    data: Mapping[str, Any]


def enough_real(found: Measurement | Score | None) -> bool:
    """Whether an output may be called tested on patients.

    At least :data:`FEWEST` of them had the finding and as many had not, and the 95 % interval of
    the AUC lies above 0.5; of a measurement at least so many had a truth, and that of R2 lies above
    0.
    """
    if isinstance(found, Score):
        without = found.counts.examinations - found.positives
        return min(found.positives, without) >= FEWEST and found.auc.low > 0.5
    return found is not None and found.counts.examinations >= FEWEST and found.r2.low > 0


def one_by_one(pack: Pack, answers: Sequence[Answer]) -> Section:
    """Each real recording by name: what is known of it, and what the pack said."""
    outputs = [
        output
        for output in pack.manifest.outputs
        if any(output.name in one.case.truths for one in answers)
    ]
    columns = ["recording", *(ECG_TASKS[output.name].title for output in outputs), "not given"]
    lines = [
        (
            "Truth and value of each real recording: of a score yes or no, and the score, with an "
            "exclamation mark where the two part at the threshold; a dash where the truth is not "
            "known. No weight, threshold or length of training came from these recordings; but "
            "the simulator's voltages and shapes were set beside real ones, these among them, so "
            "they are not wholly unseen."
        ),
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    data: dict[str, Any] = {}
    for one in answers:
        cells = [_cell(output, one) for output in outputs]
        reasons = dict.fromkeys(one.refused.values()) if one.refused else {one.problem: None}
        lines.append("| " + " | ".join([one.case.name, *cells, "; ".join(reasons)]) + " |")
        data[one.case.name] = {
            "truths": {output.name: one.case.truths.get(output.name) for output in outputs},
            "values": {
                output.name: float(f"{one.said[output.name].value:.4g}")
                for output in outputs
                if output.name in one.said
            },
            "refused": dict(one.refused),
            "problem": one.problem,
        }
    return Section(
        name="one_by_one", title="Real recordings, one by one", lines=tuple(lines), data=data
    )


def _cell(output: OutputSpec, one: Answer) -> str:
    truth = one.case.truths.get(output.name)
    said = one.said.get(output.name)
    value = "no value" if said is None else f"{said.value:.2f}"
    if output.kind is not Kind.SCORE:
        return value if truth is None else f"{truth:.3g}: {value}"
    if truth is None:
        return f"–: {value}"
    wrong = (
        said is not None
        and output.threshold is not None
        and (said.value >= output.threshold) != (truth > 0.5)
    )
    return f"{'yes' if truth > 0.5 else 'no'}: {value}{' !' if wrong else ''}"


def heart_rates(cases: Sequence[Known], answers: Sequence[Answer]) -> Section:
    """The pack's heart rate on real recordings against R peaks of a detector."""
    rows: list[tuple[str, float, float]] = []
    for case, one in zip(cases, answers, strict=True):
        if "heart_rate" not in one.said or not isinstance(case, EcgCase):
            continue
        strip = case.ecg().rhythm
        rate = heart_rate_bpm(r_peaks(strip), strip.rate_hz)
        if rate is not None:
            rows.append((case.name, rate, one.said["heart_rate"].value))
    found = np.array([row[1:] for row in rows], np.float64).reshape(-1, 2)
    error = _error(found)
    far = sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:FEWEST]
    lines = (
        (
            f"On {len(rows)} real recordings the network's heart rate was held against that of "
            "the R peaks that echonode's own detector finds: a detector, and no expert."
        ),
        "",
        f"- mean absolute error {estimate(error, 1)} a minute;",
        f"- within 5 a minute in {int((np.abs(found[:, 0] - found[:, 1]) <= 5).sum())};",
        "- farthest off: "
        + ", ".join(f"{name} ({value:.0f}, by R peaks {rate:.0f})" for name, rate, value in far)
        + ".",
    )
    data = {
        "recordings": len(rows),
        "mae": _three(error),
        "by_recording": {name: [round(rate, 1), round(value, 1)] for name, rate, value in rows},
    }
    return Section(name="heart_rate", title="Heart rate against R peaks", lines=lines, data=data)


def _error(found: np.ndarray[Any, np.dtype[np.float64]]) -> Estimate:
    if len(found) < 2:
        nan = float("nan")
        return Estimate(value=nan, low=nan, high=nan)
    return bootstrap(mean_absolute_error, found[:, 0], found[:, 1])


def cart(pack: Pack) -> Section | None:
    """The pack on the one real ECG object that pydicom ships, beside what its cart measured.

    None where the object is not at hand.
    """
    path = cart_file()
    if path is None:
        return None
    ecg = read_ecg(path)
    reading = WaveformReader(pack).read(ecg)
    by_cart = measured_by_cart(ecg.measured)
    rows, data = [], {}
    for output in pack.manifest.outputs:
        if output.kind is Kind.SCORE:
            continue
        value = next((f for f in reading.findings if f.output == output.name), None)
        refusal = next((r.reason for r in reading.refusals if r.output == output.name), "")
        known = by_cart.get(output.name)
        said = refusal or (
            ""
            if value is None or value.value is None
            else f"{value.value:.3g} ({_bound(value.low)} to {_bound(value.high)})"
        )
        rows.append(
            f"| {ECG_TASKS[output.name].title}, {unit_words(output.unit)} | "
            f"{'not said' if known is None else f'{known:.3g}'} | {said} |"
        )
        data[output.name] = {
            "cart": known,
            "value": None if value is None else value.value,
            "refused": refusal,
        }
    lines = (
        (
            "One recording of one patient (the test file `waveform_ecg.dcm` of pydicom): no "
            "figure follows from it, but its cart's own numbers are the only ones of a real "
            "recording here. In brackets the 95 % interval, which is one of simulated recordings."
        ),
        "",
        "| output | the cart | this pack |",
        "|---|---|---|",
        *rows,
    )
    return Section(name="cart", title="Beside a cart's own numbers", lines=lines, data=data)


def cart_file() -> Path | None:
    """pydicom's real ECG object; None where it is not installed with its test files."""
    from pydicom.data import get_testdata_file

    found = get_testdata_file("waveform_ecg.dcm", download=False)
    return Path(str(found)) if found else None


def measured_by_cart(measured: Measured) -> dict[str, float]:
    """A cart's numbers by output, where it has them."""
    said = {
        "heart_rate": None if not measured.rr_ms else 60000.0 / measured.rr_ms,
        "pr_interval": measured.pr_ms,
        "qrs_duration": measured.qrs_ms,
        "qt_interval": measured.qt_ms,
    }
    return {name: value for name, value in said.items() if value is not None}


def papers(reports: Sequence[Report]) -> Section | None:
    """The papers' figures beside ours; None for outputs of which they have none."""
    rows, data = [], {}
    for name in (*FIGURES_OF_RIBEIRO, "sex"):
        ours = {report.dataset.evidence: _score(report, name) for report in reports}
        if not any(ours.values()):
            continue
        simulated, real = ours.get(Evidence.SIMULATED), ours.get(Evidence.PATIENTS)
        paper = _SEX_OF_HICKS if name == "sex" else f"F1 {FIGURES_OF_RIBEIRO[name]:.3f}"
        cells = {
            "paper": paper,
            "simulated": _ours(name, simulated),
            "real": _ours(name, real),
        }
        rows.append(" | ".join(["| " + ECG_TASKS[name].title, *cells.values()]) + " |")
        data[name] = cells
    if not rows:
        return None
    lines = (
        (
            "Not to be compared: the papers' networks learned from patients (Ribeiro et al. 2020 "
            "from 2.3 million recordings) and were tested on patients whom several cardiologists "
            "had judged (827 recordings). Ours learned from a simulator. Its figures on simulated "
            "recordings say how well it knows the simulator; those on real ones rest on so few "
            "that one recording more or less moves them by several points, and their truth is "
            "what the collections' lists of diagnoses say."
        ),
        "",
        "| output | the paper | here, simulated | here, real |",
        "|---|---|---|---|",
        *rows,
    )
    return Section(name="papers", title="Beside the papers' figures", lines=lines, data=data)


def _score(report: Report, name: str) -> Score | None:
    return next((one for one in report.scores if one.output == name), None)


def _ours(name: str, found: Score | None) -> str:
    if found is None:
        return "not tested"
    negatives = found.counts.examinations - found.positives
    figure = f"AUC {number(found.auc.value)}"
    if name != "sex":
        figure = f"F1 {number(found.f1.value)}, {figure}"
    return f"{figure}; {found.positives} with, {negatives} without"


def cautions(
    output: OutputSpec, real: Measurement | Score | None, heart_rate: Section | None
) -> Iterator[str]:
    """What a reader of an ECG pack's value must know beside it."""
    if isinstance(real, Score):
        without = real.counts.examinations - real.positives
        few = f"{real.positives} real recordings with the finding and {without} without"
        if output.name == "sex":
            few = f"{real.positives} real recordings of men and {without} of women"
        if enough_real(real):
            yield f"learned from simulated ECGs alone; tested on only {few}"
        elif min(real.positives, without) >= FEWEST:
            yield (
                "learned from simulated ECGs alone, and not shown to be better than chance on "
                f"{few}: AUC {estimate(real.auc)}"
            )
        else:
            yield f"learned from and tested on simulated ECGs alone; of {few} nothing follows"
    else:
        yield "learned from and tested on simulated ECGs alone"
    if output.name == "heart_rate" and heart_rate is not None:
        error = heart_rate.data["mae"]
        if error is not None:
            yield (
                f"{error[0]:.0f} a minute beside a detector's R peaks on "
                f"{heart_rate.data['recordings']} real ones"
            )
    if output.name == "pr_interval":
        yield "means nothing in atrial fibrillation"


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"


def _three(one: Estimate) -> list[float] | None:
    if not one.measured:
        return None
    return [round(part, 2) for part in (one.value, one.low, one.high)]
