"""The summaries of relevance as Markdown, JSON and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models.ecg.explain.claims import Claim, Verdict, claims
from models.ecg.explain.summaries import Outcome, OutputSummary, Summaries, mean_by_lead
from models.explain.quality import Measured, over_clips
from models.finding import Evidence, Kind
from models.tasks import TASKS

PAGE, FIGURES = "ecg-summaries.md", "ecg-summaries.json"


def write_summaries(summaries: Summaries, folder: Path) -> tuple[Path, ...]:
    """Write page, figures and pictures into a folder, which is made; returns the files."""
    from models.ecg.explain.summaries_pictures import draw_beats, draw_leads, draw_means

    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        **draw_means(summaries, folder),
        **draw_leads(summaries, folder),
        **draw_beats(summaries, folder),
    }
    page, figures = folder / PAGE, folder / FIGURES
    page.write_text("\n".join(_page(summaries, drawn)) + "\n")
    figures.write_text(json.dumps(as_json(summaries), indent=1) + "\n")
    return (page, figures, *drawn.values())


def as_json(summaries: Summaries) -> dict[str, Any]:
    """Figures alone; what was not measured is null. No recording is named."""
    return {
        "pack": summaries.pack,
        "version": summaries.version,
        "weights_sha256": summaries.weights_sha256,
        "dataset": summaries.dataset,
        "evidence": summaries.evidence.value,
        "split": summaries.split,
        "method": summaries.method.value,
        "leads": list(summaries.leads),
        "outputs": [_output_json(one) for one in summaries.outputs],
        "claims": [_claim_json(one) for one in claims(summaries)],
    }


def _output_json(one: OutputSummary) -> dict[str, Any]:
    return {
        "output": one.output,
        "unit": one.unit,
        "recordings": len(one.records),
        "correlation": _numbers(one.correlation),
        "groups": {
            name: {
                "recordings": len(records),
                "mean": _numbers(over_clips(record.mean for record in records)),
                "by_lead": [_numbers(mean) for mean in mean_by_lead(records)],
            }
            for name, records in one.groups.items()
        },
    }


def _claim_json(one: Claim) -> dict[str, str]:
    return {
        "claim": one.claim,
        "output": one.output,
        "numbers": one.numbers,
        "verdict": one.verdict.value,
    }


def _numbers(one: Any) -> dict[str, float | int | None]:
    """A measured value with its interval; what is not finite is null."""

    def known(value: float) -> float | None:
        return float(f"{value:.4g}") if value == value else None

    return {"value": known(one.value), "low": known(one.low), "high": known(one.high), "n": one.n}


def _page(summaries: Summaries, drawn: dict[str, Path]) -> Iterator[str]:
    simulated = summaries.evidence is Evidence.SIMULATED
    whom = "simulated recordings: nothing here was tested on patients" if simulated else "patients"
    yield f"# {summaries.pack} {summaries.version}: relevance over many recordings"
    yield ""
    yield (
        f"{summaries.title}, split {summaries.split} ({whom}). Method: "
        f"{summaries.method.words}. Weights {summaries.weights_sha256[:12]}. Research use only, "
        "not for diagnosis."
    )
    yield ""
    yield (
        "The summaries are those of Bender et al. 2024 (IEEE J. Biomedical and Health Informatics "
        "28(4):1848). Relevance is a sample's part of the number that the network gives: of a "
        "score's log odds, of a measurement in its unit. In brackets: 95 % intervals, by bootstrap "
        "over recordings."
    )
    yield ""
    yield from _claims(claims(summaries))
    yield "## Mean relevance of a recording"
    yield ""
    yield "A thousandth of a sample's part, over all samples and leads, by what is true."
    yield ""
    yield from _means(summaries)
    if "means" in drawn:
        yield f"![Mean relevance against score]({drawn['means'].name})"
        yield ""
    yield "## Mean relevance of each lead"
    yield ""
    yield "In the same unit."
    yield ""
    yield from _leads(summaries)
    if "leads" in drawn:
        yield f"![Mean relevance by lead]({drawn['leads'].name})"
        yield ""
    beats = {name: path for name, path in drawn.items() if name not in ("means", "leads")}
    if beats:
        yield "## Average beats"
        yield ""
        yield "Aligned at R, the mean over recordings; blue lowers the output, orange raises it."
        yield ""
        for name, path in beats.items():
            yield f"![{name}]({path.name})"
            yield ""
    for note in summaries.notes:
        yield f"- {note}"
    if summaries.citation:
        yield f"Data: {summaries.citation}. {summaries.licence}."


def _claims(found: Sequence[Claim]) -> Iterator[str]:
    if not found:
        return
    yield "## What was found on Ribeiro's network, and here"
    yield ""
    yield "| output | finding of the paper | here | verdict |"
    yield "| --- | --- | --- | --- |"
    for one in found:
        verdict = one.verdict.value
        if one.verdict is Verdict.HOLDS_NOT:
            verdict = f"**{verdict}**"
        yield f"| {one.output} | {one.claim} | {one.numbers} | {verdict} |"
    yield ""


def _means(summaries: Summaries) -> Iterator[str]:
    scores = [one for one in summaries.outputs if one.kind is Kind.SCORE]
    if scores:
        heads = ("output", "correlation with the score", *(outcome.value for outcome in Outcome))
        yield f"| {' | '.join(heads)} |"
        yield "| --- " * len(heads) + "|"
        for one in scores:
            cells = [_group(one.of(outcome)) for outcome in Outcome]
            yield f"| {one.output} | {one.correlation} | {' | '.join(cells)} |"
        yield ""
    for one in summaries.outputs:
        if one.kind is not Kind.SCORE:
            yield f"- {TASKS[one.output].title}: {_group(one.records)}"
    yield ""


def _leads(summaries: Summaries) -> Iterator[str]:
    heads = ("output", "recordings", *summaries.leads)
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for one in summaries.outputs:
        for name, records in one.groups.items():
            cells = [f"{1000 * mean.value:.2g}" for mean in mean_by_lead(records)]
            yield f"| {one.output} | {len(records)} {name} | {' | '.join(cells)} |"
    yield ""


def _group(records: Sequence[Any]) -> str:
    found = over_clips(record.mean for record in records)
    return f"{_thousandth(found)}, {found.n}" if found.n else "none"


def _thousandth(one: Measured) -> str:
    return f"{1000 * one.value:.2g} ({1000 * one.low:.2g} to {1000 * one.high:.2g})"
