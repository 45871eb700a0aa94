"""From a trained network of ECGs to a pack that says how good it is, and on how few that rests.

Thresholds (greatest F1, as Ribeiro et al. 2020) and the width of intervals come from the split
"held" of simulated recordings, figures from "valid": first of real recordings, where there are
any, then of simulated ones. Nothing is chosen by real recordings. An output was tested on patients
only where :func:`models.evaluation.ecg.enough_real` says so; its caution says on how few.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models.data.dataset import Source
from models.data.ecgs import SimulatedEcgs
from models.evaluation import ecg as words
from models.evaluation import metrics
from models.evaluation.figures import Measurement, Score
from models.evaluation.reading import Answer, read_cases
from models.evaluation.report import Report, add_section, report_of, slugs, write_report
from models.finding import Evidence, Kind
from models.packs import OutputSpec, Pack, PackKind, load_pack, write_pack
from models.training import ecg_training, stored
from models.training.both_splits import Both, compact, told_of
from models.training.ecg_training import MOST_HELD, EcgProtocol
from models.training.packing import licence_text
from models.training.recipe import Trial, strictest_licence

log = logging.getLogger(__name__)

_LEARNED = "LEARNED FROM SIMULATED ECGs ALONE, and so few real ones prove little"

MOST_TESTED = 500
"""Simulated recordings of the test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EcgPacking:
    """What a pack is called, the text of its card, and whether its weights are float16."""

    name: str
    version: str
    title: str
    citations: tuple[str, ...]
    card: str
    half: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tested:
    """A data set, what the pack said of its split "valid", and the figures of that."""

    dataset: Source
    answers: tuple[Answer, ...]
    report: Report


def pack_ecg(
    packing: EcgPacking, protocol: EcgProtocol, datasets: Sequence[Source], trial: Trial, out: Path
) -> Pack:
    """The pack of a finished training, with thresholds, intervals, figures, report and card.

    Raises
    ------
    models.packs.PackError
        If the stored weights answer otherwise than the network by more than is allowed.
    """
    trained = ecg_training.train(protocol, datasets, trial)
    manifest: dict[str, Any] = {
        "name": packing.name,
        "version": packing.version,
        "kind": PackKind.WAVEFORM,
        "title": packing.title,
        "network": {"name": protocol.network, "settings": dict(protocol.settings)},
        "input": protocol.spec.model_dump(),
        "licence": strictest_licence(_taught(datasets)),
        "citations": (*packing.citations, *(one.citation for one in datasets if one.citation)),
        "trained_on": _trained_on(trained.recordings, datasets),
        "training_command": trial.command,
    }
    outputs = ecg_training.outputs_of(protocol, trained.targets)
    pack = write_pack(out, {**manifest, "outputs": outputs}, trained.network, half=packing.half)
    agreed = _agreed(pack, trained.network, datasets, half=packing.half)
    held = _held_answers(pack, datasets)
    for output in outputs:
        output.update(_choices(output, held))
    pack = write_pack(out, {**manifest, "outputs": outputs}, trained.network, half=packing.half)
    tested = [_tested(pack, one) for one in datasets]
    rates = _heart_rates(tested)
    for spec, output in zip(pack.manifest.outputs, outputs, strict=True):
        output.update(_told(spec, tested, rates))
    pack = write_pack(out, {**manifest, "outputs": outputs}, trained.network, half=packing.half)
    _write_report(out, pack, tested, rates)
    add_section(
        out, stored.NAME, title=stored.TITLE, lines=agreed.lines(), data=agreed.as_figures()
    )
    (out / "LICENSE").write_text(licence_text(manifest["licence"], _taught(datasets)))
    (out / "MODEL_CARD.md").write_text(packing.card)
    return load_pack(out)


def _taught(datasets: Sequence[Source]) -> list[Source]:
    """Those that weights saw: real recordings may be there for the test alone."""
    return [one for one in datasets if one.cases("train")]


def _trained_on(recordings: int, datasets: Sequence[Source]) -> str:
    taught = _taught(datasets)
    real = any(one.evidence is Evidence.PATIENTS for one in taught)
    what = "recordings" if real else "simulated recordings and no patient"
    return f"{recordings} {what}: " + "; ".join(one.title for one in taught)


def _agreed(
    pack: Pack, network: keras.Model, datasets: Sequence[Source], *, half: bool
) -> stored.Stored:
    cases = [case for one in datasets for case in one.cases("held")]
    as_type = "float16" if half else "float32"
    return stored.compare_stored(pack, network, cases, split="held", as_type=as_type)


def _held_answers(pack: Pack, datasets: Sequence[Source]) -> tuple[Answer, ...]:
    log.info('split "held", for thresholds and intervals')
    cases = [case for one in datasets for case in one.cases("held")[:MOST_HELD]]
    return read_cases(pack, cases)


def _choices(output: dict[str, Any], answers: Sequence[Answer]) -> dict[str, float]:
    """The interval of a measurement, or the threshold of a score that is better than chance."""
    name = output["name"]
    given = [one for one in answers if name in one.said and name in one.case.truths]
    truth = np.array([one.case.truths[name] for one in given])
    value = np.array([one.said[name].value for one in given])
    if output["kind"] is Kind.SCORE:
        area = metrics.bootstrap(metrics.auc, truth > 0.5, value)
        if not area.low > 0.5:
            return {}
        return {"threshold": float(f"{metrics.f1_threshold(truth > 0.5, value):.4g}")}
    low, high = metrics.error_quantiles(truth, value)
    return {"low_error": float(f"{low:.4g}"), "high_error": float(f"{high:.4g}")}


def _tested(pack: Pack, dataset: Source) -> _Tested:
    log.info("figures from %s", dataset.name)
    if isinstance(dataset, SimulatedEcgs):
        few = min(dataset.options.records, MOST_TESTED)
        dataset = replace(dataset, options=replace(dataset.options, records=few))
    answers = read_cases(pack, dataset.cases("valid"))
    report = report_of(pack, dataset, answers, split="valid")
    return _Tested(dataset=dataset, answers=answers, report=report)


def _heart_rates(tested: Sequence[_Tested]) -> words.Section | None:
    """On the real recordings, where the pack gives a heart rate for one of them."""
    real = [one for one in tested if one.dataset.evidence is Evidence.PATIENTS]
    answers = [answer for one in real for answer in one.answers]
    if not any("heart_rate" in answer.said for answer in answers):
        return None
    return words.heart_rates([answer.case for answer in answers], answers)


def _told(
    spec: OutputSpec, tested: Sequence[_Tested], rates: words.Section | None
) -> dict[str, Any]:
    """What an output's manifest says of its test."""
    found = {
        slug: figures
        for slug, one in zip(slugs([each.report for each in tested]), tested, strict=True)
        if (figures := _figures(one.report, spec.name)) is not None
    }
    real = next(
        (
            figures
            for one in tested
            if one.dataset.evidence is Evidence.PATIENTS
            and (figures := _figures(one.report, spec.name)) is not None
        ),
        None,
    )
    on_patients = words.enough_real(real)
    wanted = Evidence.PATIENTS if on_patients else Evidence.SIMULATED
    told = next(
        (
            (one, figures)
            for one in tested
            if one.dataset.evidence is wanted
            and (figures := _figures(one.report, spec.name)) is not None
        ),
        None,
    )
    caution = "; ".join(words.cautions(spec, real, rates))
    if told is None:
        return {"evidence": Evidence.SIMULATED, "tested_on": "not tested", "caution": caution}
    one, figures = told
    told_on = told_of(Both(test=figures, held=None, simulated=not on_patients), _whom(one, figures))
    return {
        "evidence": wanted,
        "tested_on": f"{told_on}; {_LEARNED}" if on_patients else told_on,
        "caution": caution,
        "figures": {slug: compact(each) for slug, each in found.items()},
    }


def _figures(report: Report, name: str) -> Measurement | Score | None:
    return next((one for one in report.outputs if one.output == name), None)


def _whom(tested: _Tested, figures: Measurement | Score) -> str:
    patients = figures.counts.patients
    if tested.dataset.evidence is Evidence.SIMULATED:
        return f"SIMULATED ONLY: {tested.dataset.title}, {patients} simulated patients"
    return f"{tested.dataset.title}, {patients} of them"


def _write_report(
    out: Path, pack: Pack, tested: Sequence[_Tested], rates: words.Section | None
) -> None:
    evidence = {output.name: output.evidence for output in pack.manifest.outputs}
    reports = [_with_evidence(one.report, evidence) for one in tested]
    write_report(out, reports)
    sections = [
        words.one_by_one(pack, one.answers)
        for one in tested
        if one.dataset.evidence is Evidence.PATIENTS
    ]
    measures = any(output.kind is Kind.MEASUREMENT for output in pack.manifest.outputs)
    for section in (
        *sections,
        rates,
        words.cart(pack) if measures else None,
        words.papers(reports),
    ):
        if section is not None:
            add_section(
                out, section.name, title=section.title, lines=section.lines, data=section.data
            )


def _with_evidence(report: Report, evidence: dict[str, Evidence]) -> Report:
    """The report with the evidence that came of it."""
    return replace(
        report,
        measurements=tuple(
            replace(one, evidence=evidence[one.output]) for one in report.measurements
        ),
        scores=tuple(replace(one, evidence=evidence[one.output]) for one in report.scores),
    )
