"""Judge a pack on CAMUS patients, and write its report.

    python -m models.evaluation.camus --pack models/packs/lv --camus DIR

Clips go the way that a hospital's clips go: through :class:`models.clip.Clip` and the pack's
reader. A patient is shown as the two real frames, and as a cine made from them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip
from models.data.camus import CITATION, CLASSES, Patient, pair_clip, read_camus
from models.data.cines import Heart
from models.evaluation import metrics
from models.finding import Finding
from models.packs import Pack, PackKind, load_pack
from models.readers import RegressionReader, TracingReader
from models.tasks import TASKS

CAVEATS = (
    (
        "Truth is an expert's tracing of the same two frames, measured by discs in one plane: not "
        "the biplane volume of the clinic."
    ),
    (
        "CAMUS is one hospital and one maker; patients of the validation split took no part in "
        "training or in any choice."
    ),
    (
        "A cine made from a patient is the real end-diastolic and end-systolic frame, warped for "
        "the moments between: no valves open and no speckle changes in it."
    ),
    (
        "With 50 patients the seed of a training alone moves the error of the ejection fraction by "
        "about a point."
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """One output over patients; a refused patient has NaN in ``value``, ``low`` and ``high``."""

    truth: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def given(self) -> NDArray[np.bool_]:
        """Which patients got a value."""
        return np.isfinite(self.value)


def cine_clip(patient: Patient, *, frame_time_ms: float, frames: int) -> Clip:
    """A cine made from the patient's two frames, 70 beats a minute."""
    times = np.arange(frames) * frame_time_ms
    made = Heart(patient).cine(times, heart_rate_bpm=70.0)
    greys = np.stack([frame.grey for frame in made])
    return Clip.from_frames(greys, frame_time_ms=frame_time_ms, spacing_mm=_side_mm(patient))


def read_patients(
    reader: TracingReader | RegressionReader,
    patients: Sequence[Patient],
    clip_of: Callable[[Patient], Clip],
) -> dict[str, Read]:
    """Every output of a pack on every patient."""
    answers = [_answers(reader.read(clip_of(patient)).findings) for patient in patients]
    return {
        name: Read(
            truth=np.array([_truth(patient, name) for patient in patients]),
            value=np.array([each.get(name, _NOTHING)[0] for each in answers]),
            low=np.array([each.get(name, _NOTHING)[1] for each in answers]),
            high=np.array([each.get(name, _NOTHING)[2] for each in answers]),
        )
        for name in reader.output_names
    }


def trace_overlap(reader: TracingReader, patients: Sequence[Patient]) -> dict[str, list[float]]:
    """Dice of each structure, mean over a patient's two frames, with its interval."""
    overlaps = []
    for patient in patients:
        each = []
        for frame in (patient.ed, patient.es):
            mask = reader.trace_frames(frame.grey[np.newaxis])[0]
            each.append(
                [metrics.dice(mask == k, frame.labels == k) for k in range(1, len(CLASSES))]
            )
        overlaps.append(np.mean(each, axis=0))
    whole = np.array(overlaps)
    found = {}
    for index, name in enumerate(CLASSES[1:]):
        estimate = metrics.bootstrap(lambda values: float(values.mean()), whole[:, index])
        found[name] = [round(x, 4) for x in (estimate.value, estimate.low, estimate.high)]
    return found


def figures(reads: dict[str, Read]) -> dict[str, dict[str, object]]:
    """The papers' figures of each output."""
    found = {}
    for name, read in reads.items():
        given = read.given
        truth, value = read.truth[given], read.value[given]
        figures_of = metrics.agreement(truth, value)
        figures_of["refused"] = int((~given).sum())
        if np.isfinite(read.low[given]).all():
            covered = metrics.coverage(truth, read.low[given], read.high[given])
            figures_of["interval_coverage"] = round(covered, 3)
            figures_of["interval_width"] = round(float((read.high - read.low)[given].mean()), 2)
        found[name] = figures_of
    return found


def evaluate(pack: Pack, patients: Sequence[Patient]) -> dict[str, Any]:
    """The whole report of a pack on these patients, ready for JSON."""
    report: dict[str, Any] = {
        "pack": pack.manifest.name,
        "version": pack.manifest.version,
        "weights_sha256": pack.manifest.weights_sha256,
        "data": f"CAMUS apical four-chamber, {len(patients)} patients of the validation split",
        "caveats": list(CAVEATS),
    }
    reader: TracingReader | RegressionReader
    if pack.manifest.kind is PackKind.TRACING:
        reader = TracingReader(pack)
        report["dice"] = trace_overlap(reader, patients)
        cine_ms, frames = 40.0, 40
    else:
        reader = RegressionReader(pack)
        cine_ms, frames = 100.0, 20
    report["two_real_frames"] = figures(read_patients(reader, patients, pair_clip))
    report["cines_made_from_patients"] = figures(
        read_patients(
            reader, patients, lambda one: cine_clip(one, frame_time_ms=cine_ms, frames=frames)
        )
    )
    return report


def as_markdown(report: dict[str, Any]) -> str:
    """The report for a reader."""
    lines = [
        f"# {report['pack']} {report['version']}: evaluation",
        "",
        (
            f"{report['data']}; weights {report['weights_sha256'][:12]}. "
            "In brackets: 95 % bootstrap interval over patients. Research use only."
        ),
        "",
    ]
    if "dice" in report:
        lines += ["| structure | Dice |", "|---|---|"]
        lines += [
            f"| {name} | {value:.3f} ({low:.3f} to {high:.3f}) |"
            for name, (value, low, high) in report["dice"].items()
        ]
        lines.append("")
    for key, title in (
        ("two_real_frames", "The two real frames (ED, ES) of each patient"),
        ("cines_made_from_patients", "Cines made from each patient's two frames"),
    ):
        lines += [f"## {title}", "", *_table(report[key]), ""]
    lines += ["## Mind", "", *(f"- {caveat}" for caveat in report["caveats"]), ""]
    return "\n".join([*lines, f"Data: {CITATION}.", ""])


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write ``evaluation.json`` and ``evaluation.md`` into a pack's folder."""
    (folder / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "evaluation.md").write_text(as_markdown(report))


_NOTHING = (float("nan"), float("nan"), float("nan"))


def _answers(findings: Sequence[Finding]) -> dict[str, tuple[float, float, float]]:
    nan = float("nan")
    return {
        finding.output: (
            nan if finding.value is None else finding.value,
            nan if finding.low is None else finding.low,
            nan if finding.high is None else finding.high,
        )
        for finding in findings
    }


def _truth(patient: Patient, output: str) -> float:
    return {
        "ef": patient.ef_percent,
        "edv": patient.edv_ml,
        "esv": patient.esv_ml,
        "la_area": patient.la_area_cm2,
    }[output]


def _side_mm(patient: Patient) -> float:
    return float(np.sqrt(patient.ed.row_mm * patient.ed.column_mm))


def _table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        (
            "| output | n | MAE | MAE of the mean | R² | bias | limits of agreement | "
            "95 % interval covers | refused |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        mae, r2, bias = (
            f"{one[key][0]:.2f} ({one[key][1]:.2f} to {one[key][2]:.2f})"
            for key in ("mae", "r2", "bias")
        )
        low, high = one["limits_of_agreement"]
        covers = one.get("interval_coverage")
        lines.append(
            f"| {TASKS[name].title}, {TASKS[name].unit} | {one['patients']} | {mae} | "
            f"{one['mae_of_predicting_the_mean']:.2f} | {r2} | {bias} | {low:.1f} to {high:.1f} | "
            f"{'' if covers is None else f'{100 * covers:.0f} %'} | {one['refused']} |"
        )
    return lines


def main() -> None:
    """Read the command line and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--camus", type=Path, required=True)
    options = parser.parse_args()
    report = evaluate(load_pack(options.pack), read_camus(options.camus, "valid"))
    write_report(options.pack, report)


if __name__ == "__main__":
    main()
