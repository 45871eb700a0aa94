"""From a trained network to a pack that says how good it is.

    python -m models.training.packing --pack models/packs/lv --data DIR

The width of intervals and the thresholds of scores come from the split "held", which no weight
saw; the figures from the split "valid", which is read once, at the very end. The command renews
the evidence of a pack that is there, without training.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import safe_open

from models.data.dataset import Dataset, open_dataset
from models.evaluation import metrics
from models.evaluation.figures import Measurement, Score
from models.evaluation.metrics import Estimate, error_quantiles
from models.evaluation.page import unit_words
from models.evaluation.reading import Answer, read_cases
from models.evaluation.report import Report, evaluate_pack, slugs, write_report
from models.finding import Evidence, Kind
from models.packs import Pack, load_pack, write_pack
from models.training.recipe import strictest_licence

log = logging.getLogger(__name__)

NOT_BETTER = "not shown to be better than saying the patients' mean"
NOT_BETTER_SCORE = "not shown to be better than chance"
NOT_TESTED = "not tested"


def pack_with_evidence(
    out: Path,
    manifest: Mapping[str, Any],
    network: keras.Model,
    *,
    dataset: Dataset | Sequence[Dataset],
    card: str,
    intervals: Dataset | None = None,
    half: bool = True,
    draws: int = metrics.DRAWS,
    plots: bool = True,
) -> Pack:
    """Write the pack with its intervals, thresholds, figures, report, licence and card.

    Each output is told by the first data set that has its truth in the split "valid"; from there
    come its evidence, ``tested_on``, ``caution`` and ``figures``. ``low_error`` and ``high_error``
    are conformal quantiles of the errors of single clips of "held", since an interval stands
    beside the value of one clip; the threshold of a score is the one with the greatest sensitivity
    + specificity on "held" (Youden), which does not go with how common the finding is there. An
    output whose truth no data set has says that it was not tested.

    Parameters
    ----------
    manifest
        That of :func:`models.packs.write_pack`; outputs may leave out what is worked out here.
    dataset
        One, or several, the most telling first: each gets its own part of the report.
    card
        The text of ``MODEL_CARD.md``.
    intervals
        The data set whose split "held" gives intervals and thresholds, where it is not the one
        that tells an output.
    half
        Store weights as float16.

    Raises
    ------
    models.packs.PackError
        If the manifest does not fit the network.
    """
    datasets = tuple(dataset) if isinstance(dataset, Sequence) else (dataset,)
    outputs = [_untold(output) for output in manifest.get("outputs", ())]
    whole = {**manifest, "licence": manifest.get("licence", strictest_licence(datasets))}
    pack = write_pack(out, {**whole, "outputs": outputs}, network, half=half)
    for chooser in (datasets if intervals is None else (intervals, *datasets)) if outputs else ():
        wanting = [output for output in outputs if not _chosen(output)]
        if not wanting:
            break
        log.info("intervals and thresholds from %s", chooser.name)
        answers = read_cases(pack, chooser.cases("held"))
        for output in wanting:
            output.update(_choices(output, answers))
    pack = write_pack(out, {**whole, "outputs": outputs}, network, half=half)
    reports = []
    for one in datasets:
        log.info("figures from %s", one.name)
        reports.append(evaluate_pack(pack, one, draws=draws))
    for output in outputs:
        output.update(_told(output["name"], reports))
    write_pack(out, {**whole, "outputs": outputs}, network, half=half)
    write_report(out, reports, plots=plots)
    (out / "LICENSE").write_text(licence_text(whole["licence"], datasets))
    (out / "MODEL_CARD.md").write_text(card)
    return load_pack(out)


def renew_evidence(
    folder: Path,
    datasets: Sequence[Dataset],
    *,
    intervals: Dataset | None = None,
    draws: int = metrics.DRAWS,
) -> Pack:
    """Work out the evidence of a pack anew, with the weights and the card that it has.

    Raises
    ------
    models.packs.PackError
        If it is no valid pack.
    """
    pack = load_pack(folder)
    manifest = pack.manifest.model_dump(exclude={"weights_sha256"})
    card = (folder / "MODEL_CARD.md").read_text()
    return pack_with_evidence(
        folder,
        manifest,
        pack.network,
        dataset=datasets,
        card=card,
        intervals=intervals,
        half=_is_half(folder / pack.manifest.weights),
        draws=draws,
    )


def _is_half(weights: Path) -> bool:
    with safe_open(weights, framework="numpy") as held:
        return all(held.get_slice(key).get_dtype() == "F16" for key in held.keys())  # noqa: SIM118


def licence_text(licence: str, datasets: Sequence[Dataset]) -> str:
    """The text of a pack's ``LICENSE``: that of the weights, and of each data set they saw."""
    lines = ["The weights in this folder carry this licence:", "", f"    {licence}"]
    if "CC BY-NC-SA 4.0" in licence:
        lines += [
            "    https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
            "",
            "Weights derived from these must carry the same licence.",
        ]
    lines += ["", "Not a medical device; not for diagnosis.", "", "Data:"]
    for one in dict.fromkeys((one.title, one.licence, one.citation) for one in datasets):
        title, terms, citation = one
        lines += ["", f"    {title}", f"    {terms}", *([f"    {citation}"] if citation else [])]
    own = "The software of echonode around them has its own licence (Apache-2.0)."
    return "\n".join([*lines, "", own, ""])


def told_of(found: Measurement | Score, whom: str) -> str:
    """On whom an output was tested and how that went, for the reader of a DICOM report."""
    if isinstance(found, Measurement):
        return _told_of_measurement(found, whom)
    return _told_of_score(found, whom)


def _told_of_measurement(found: Measurement, whom: str) -> str:
    unit = unit_words(found.unit)
    warning = caution_of(found)
    words = (
        f"{whom}: mean absolute error {_figure(found.mae)} {unit} against "
        f"{_short(found.mae_of_predicting_the_mean)} of always saying the mean, "
        f"R2 {_figure(found.r2, 2)}"
    )
    return f"{words}: {warning.upper()}" if warning else words


def _told_of_score(found: Score, whom: str) -> str:
    warning = caution_of(found)
    words = (
        f"{whom}, {found.positives} of {found.counts.examinations} with the finding: "
        f"AUC {_figure(found.auc, 2)}, F1 {_figure(found.f1, 2)} against "
        f"{found.f1_of_always_yes:.2f} of always saying yes, sensitivity "
        f"{_figure(found.sensitivity, 2)}, specificity {_figure(found.specificity, 2)}"
    )
    return f"{words}: {warning.upper()}" if warning else words


def caution_of(found: Measurement | Score) -> str:
    """What stands beside every value of an output that failed its test; empty where it did not."""
    if isinstance(found, Measurement):
        return "" if found.r2.low > 0 else NOT_BETTER
    return "" if found.auc.low > 0.5 else NOT_BETTER_SCORE


def _figure(one: Estimate, digits: int | None = None) -> str:
    if not one.measured:
        return "cannot be measured"
    if digits is None:
        digits = 1 if one.value >= 1 else 2
    return f"{one.value:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _untold(output: Mapping[str, Any]) -> dict[str, Any]:
    """An output without what is worked out here."""
    kept = {**output, "low_error": None, "high_error": None, "threshold": None}
    return {
        **kept,
        "evidence": Evidence.SIMULATED,
        "tested_on": NOT_TESTED,
        "caution": NOT_TESTED,
        "figures": {},
    }


def _chosen(output: Mapping[str, Any]) -> bool:
    return output["low_error"] is not None or output["threshold"] is not None


def _choices(output: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, float]:
    """The interval of a measurement, or the threshold of a score; empty without a truth."""
    name = output["name"]
    given = [one for one in answers if name in one.said and name in one.case.truths]
    if not given:
        return {}
    truth = np.array([one.case.truths[name] for one in given])
    value = np.array([one.said[name].value for one in given])
    if output["kind"] == Kind.SCORE:
        threshold = metrics.youden_threshold(truth > 0.5, value)
        return {} if np.isnan(threshold) else {"threshold": float(f"{threshold:.4g}")}
    low, high = error_quantiles(truth, value)
    return {"low_error": round(low, 2), "high_error": round(high, 2)}


def _told(name: str, reports: Sequence[Report]) -> dict[str, Any]:
    """What an output's manifest says of its test."""
    told: dict[str, Any] = {}
    every: dict[str, Any] = {}
    for report, slug in zip(reports, slugs(reports), strict=True):
        whom = _whom(report)
        for one in report.outputs:
            if one.output != name:
                continue
            every[slug] = _compact(one)
            told = told or {
                "evidence": report.dataset.evidence,
                "tested_on": told_of(one, whom.format(patients=one.counts.patients)),
                "caution": caution_of(one),
            }
    return {**told, "figures": every} if told else {}


def _whom(report: Report) -> str:
    if report.dataset.evidence is Evidence.SIMULATED:
        return f"SIMULATED ONLY: {report.dataset.title}, {{patients}} simulated patients"
    return f"{report.dataset.title}, validation split, {{patients}} patients"


def _compact(one: Measurement | Score) -> dict[str, Any]:
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


def main() -> None:
    """Read the command line and renew a pack's evidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True, help="the most telling first")
    parser.add_argument("--intervals", help="the data set for intervals, where it is another one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    chooser = None if options.intervals is None else open_dataset(options.intervals)
    renew_evidence(options.pack, [open_dataset(one) for one in options.data], intervals=chooser)


if __name__ == "__main__":
    main()
