"""From a trained network to a pack that says how good it is.

    python -m models.training.packing --pack models/packs/lv --data DIR

The width of intervals and the thresholds of scores come from the split "held", which no weight
saw; the figures from the split "valid", which is read once, at the very end. An output is shown to
be better than knowing nothing only where both splits show it; where one does not, its caution says
so with the figures of both. The command renews the evidence of a pack that is there, without
training.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import safe_open

from models.data.dataset import Case, Dataset, DatasetError, Source, open_dataset
from models.evaluation import figures, metrics
from models.evaluation.figures import Measurement, Score
from models.evaluation.metrics import error_quantiles
from models.evaluation.reading import Answer, read_cases
from models.evaluation.report import (
    Report,
    add_section,
    evaluate_pack,
    restore_sections,
    sections_of,
    slugs,
    write_report,
)
from models.finding import Evidence, Kind
from models.packs import OutputSpec, Pack, load_pack, write_pack
from models.training import both_splits, stored
from models.training.both_splits import Both, compact, told_of
from models.training.recipe import strictest_licence

log = logging.getLogger(__name__)

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

    The stored weights are held against the network in memory (:mod:`models.training.stored`).

    Parameters
    ----------
    manifest
        That of :func:`models.packs.write_pack`; outputs may leave out what is worked out here.
    network
        As it was trained, float32.
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
        If the manifest does not fit the network, or the stored weights answer otherwise than the
        network by more than is allowed.
    """
    datasets = tuple(dataset) if isinstance(dataset, Sequence) else (dataset,)
    return _packed(
        out,
        manifest,
        network,
        datasets=datasets,
        card=card,
        intervals=intervals,
        half=half,
        draws=draws,
        plots=plots,
        trained=network,
    )


def renew_evidence(
    folder: Path,
    datasets: Sequence[Dataset],
    *,
    intervals: Dataset | None = None,
    trained: keras.Model | None = None,
    draws: int = metrics.DRAWS,
    plots: bool = True,
) -> Pack:
    """Work out the evidence of a pack anew, with the weights and the card that it has.

    Sections that others put into its report stay, for the weights are the same; so does what was
    once measured of the stored weights, unless ``trained``, the float32 network that they were
    written from, is at hand to measure it again.

    Raises
    ------
    models.packs.PackError
        If it is no valid pack; or as :func:`pack_with_evidence`.
    """
    pack = load_pack(folder)
    kept = sections_of(folder)
    packed = _packed(
        folder,
        pack.manifest.model_dump(exclude={"weights_sha256"}),
        pack.network,
        datasets=tuple(datasets),
        card=(folder / "MODEL_CARD.md").read_text(),
        intervals=intervals,
        half=_is_half(folder / pack.manifest.weights),
        draws=draws,
        plots=plots,
        trained=trained,
    )
    restore_sections(folder, kept)
    return packed


def _packed(
    out: Path,
    manifest: Mapping[str, Any],
    network: keras.Model,
    *,
    datasets: Sequence[Dataset],
    card: str,
    intervals: Dataset | None,
    half: bool,
    draws: int,
    plots: bool,
    trained: keras.Model | None,
) -> Pack:
    outputs = [_untold(output) for output in manifest.get("outputs", ())]
    whole = {**manifest, "licence": manifest.get("licence", strictest_licence(datasets))}
    pack = write_pack(out, {**whole, "outputs": outputs}, network, half=half)
    agreed = None if trained is None else _agreed(pack, trained, datasets, half=half)
    held = _HeldAnswers(pack)
    for chooser in (datasets if intervals is None else (intervals, *datasets)) if outputs else ():
        wanting = [output for output in outputs if not _chosen(output)]
        if not wanting:
            break
        answers = held.of(chooser)
        for output in wanting:
            output.update(_choices(output, answers))
    pack = write_pack(out, {**whole, "outputs": outputs}, network, half=half)
    reports = []
    for one in datasets:
        log.info("figures from %s", one.name)
        reports.append(evaluate_pack(pack, one, draws=draws))
    told = {}
    for spec, output in zip(pack.manifest.outputs, outputs, strict=True):
        found = _both_splits(spec.name, reports, datasets)
        if found is not None:
            report, test, where = found
            told[spec.name] = Both(
                test=test,
                held=_figures(spec, held.of(where), draws=draws),
                simulated=_simulated(report),
            )
            definition = getattr(where, "definitions", {}).get(spec.name, "")
            output.update(_told(told[spec.name], report, reports, definition))
    write_pack(out, {**whole, "outputs": outputs}, network, half=half)
    evidence = {output["name"]: Evidence(output["evidence"]) for output in outputs}
    write_report(out, [_with_evidence(report, evidence) for report in reports], plots=plots)
    if told:
        add_section(
            out,
            both_splits.NAME,
            title=both_splits.TITLE,
            lines=both_splits.both_lines(told),
            data={name: both.as_figures() for name, both in told.items()},
        )
    if agreed is not None:
        add_section(
            out,
            stored.NAME,
            title=stored.TITLE,
            lines=agreed.lines(),
            data=agreed.as_figures(),
        )
    (out / "LICENSE").write_text(licence_text(whole["licence"], datasets))
    (out / "MODEL_CARD.md").write_text(card)
    return load_pack(out)


class _HeldAnswers:
    """What a pack says of each data set's split "held", read once."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._read: dict[int, Sequence[Answer]] = {}

    def of(self, dataset: Dataset) -> Sequence[Answer]:
        if id(dataset) not in self._read:
            log.info('split "held" of %s', dataset.name)
            self._read[id(dataset)] = read_cases(self._pack, _cases(dataset, "held"))
        return self._read[id(dataset)]


def _cases(dataset: Dataset, split: str) -> Sequence[Case]:
    try:
        return dataset.cases(split)
    except DatasetError:
        return ()


def _agreed(
    pack: Pack, trained: keras.Model, datasets: Sequence[Dataset], *, half: bool
) -> stored.Stored:
    """On the first data set's held clips; on those of the test, where it has none."""
    split = "held" if _cases(datasets[0], "held") else "valid"
    return stored.compare_stored(
        pack,
        trained,
        _cases(datasets[0], split),
        split=split,
        as_type="float16" if half else "float32",
    )


def _both_splits(
    name: str, reports: Sequence[Report], datasets: Sequence[Dataset]
) -> tuple[Report, Measurement | Score, Dataset] | None:
    """The first report that measured an output, its figures, and whose they are."""
    for report, dataset in zip(reports, datasets, strict=True):
        for one in report.outputs:
            if one.output == name:
                return report, one, dataset
    return None


def _figures(
    spec: OutputSpec, answers: Sequence[Answer], *, draws: int
) -> Measurement | Score | None:
    if spec.kind is Kind.SCORE:
        return figures.score(spec, answers, draws=draws)
    return figures.measurement(spec, answers, draws=draws)


def _with_evidence(report: Report, evidence: Mapping[str, Evidence]) -> Report:
    """The report with the evidence that came of it: when it was made nothing was tested yet."""
    return replace(
        report,
        measurements=tuple(
            replace(one, evidence=evidence[one.output]) for one in report.measurements
        ),
        scores=tuple(replace(one, evidence=evidence[one.output]) for one in report.scores),
    )


def _is_half(weights: Path) -> bool:
    with safe_open(weights, framework="numpy") as held:
        return all(held.get_slice(key).get_dtype() == "F16" for key in held.keys())  # noqa: SIM118


def licence_text(licence: str, datasets: Sequence[Source]) -> str:
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


def _told(
    both: Both, told_by: Report, reports: Sequence[Report], definition: str
) -> dict[str, Any]:
    """What an output's manifest says of its test."""
    every: dict[str, Any] = {}
    for report, slug in zip(reports, slugs(reports), strict=True):
        for one in report.outputs:
            if one.output == both.test.output:
                every[slug] = compact(one)
                if report is told_by and both.held is not None:
                    every[f"{slug}-held"] = compact(both.held)
    whom = _whom(told_by).format(patients=both.test.counts.patients)
    return {
        "evidence": told_by.dataset.evidence,
        "tested_on": told_of(both, whom, definition),
        "caution": both.caution,
        "figures": every,
    }


def _simulated(report: Report) -> bool:
    return report.dataset.evidence is Evidence.SIMULATED


def _whom(report: Report) -> str:
    if _simulated(report):
        return f"SIMULATED ONLY: {report.dataset.title}, {{patients}} simulated patients"
    return f"{report.dataset.title}, validation split, {{patients}} patients"


def main() -> None:
    """Read the command line and renew a pack's evidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True, help="the most telling first")
    parser.add_argument("--intervals", help="the data set for intervals, where it is another one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    chooser = None if options.intervals is None else open_dataset(options.intervals)
    renew_evidence(options.pack, [_opened(one) for one in options.data], intervals=chooser)


def _opened(where: str) -> Dataset:
    """A data set; or the clips of a views training, by the file that it keeps them in."""
    if not where.endswith(".npz"):
        return open_dataset(where)
    from models.training.view_evidence import ViewClips
    from models.training.view_set import ViewSet

    return ViewClips(data=ViewSet.load(Path(where)))


if __name__ == "__main__":
    main()
