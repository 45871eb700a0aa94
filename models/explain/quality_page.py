"""The page of a pack's checks of explanations, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from models.explain.quality import Measured
from models.explain.summary import COLUMNS, LEGEND, summary
from models.finding import Evidence

if TYPE_CHECKING:
    from models.explain.battery import Checked, MapChecks, OutputChecks, QualityReport


def page(report: QualityReport) -> Iterator[str]:
    """The lines of a pack's page."""
    yield f"# {report.pack} {report.version}: can its maps be trusted?"
    yield ""
    yield f"Weights {report.weights_sha256[:12]}. Research use only, not for diagnosis."
    yield ""
    for checked in report.on:
        yield _whom(checked)
    yield ""
    few = min(report.few, *(checked.clips for checked in report.on))
    yield (
        f"One frame of each clip was asked, seed {report.seed}; D4, D5, D6 and the letters of D7 "
        f"on the first {few} clips of each. In brackets: 95 % intervals, by bootstrap over clips. "
        "What each check is, and how good an answer can be: docs/explanations.md."
    )
    yield ""
    yield from _short(report)
    yield from _table(
        "D1 Insertion and deletion",
        "Areas under the curves, 0 to 1; places are taken out by blurring. A map is worth "
        "something where its insertion is above, and its deletion below, those of maps that know "
        "nothing: a random one, and a Gaussian at the sector's middle.",
        ("insertion", "random", "centre", "deletion", "random", "centre"),
        [
            (
                *_who(checked, one),
                one.insertion,
                one.insertion_by_random,
                one.insertion_by_centre,
                one.deletion,
                one.deletion_by_random,
                one.deletion_by_centre,
            )
            for checked, one in _maps(report)
        ],
    )
    yield from _table(
        "D2 Pointing and energy in the true mask",
        "The mask is that of the output's structure (table D3).",
        ("strongest place in the mask", "energy in the mask", "mask's share"),
        [
            (*_who(checked, one), one.pointing, one.energy, one.energy_by_chance)
            for checked, one in _maps(report)
        ],
    )
    yield from _table(
        "D3 Covering",
        "By how much the network's own number moves when the structure is covered by its "
        "surroundings, and when an equal patch elsewhere is; in which share of clips the former is "
        "more. Beside it, of D7, by how much white letters outside the sector move the number.",
        ("structure", "covered", "elsewhere", "structure moves more", "letters"),
        [
            (*_who(checked, out), out.structure or "-", out.by_structure, out.by_elsewhere,
             out.covering_wins, out.by_text)
            for checked, out in _outputs(report)
        ],
        method=False,
    )  # fmt: skip
    yield from _table(
        "D4 Cascading randomisation",
        "Rank correlation and SSIM with the map of the trained network when the weights of its "
        "last layers are shuffled: both must fall.",
        tuple(f"{100 * share:.0f} % shuffled" for share in report.stages),
        [(*_who(checked, one), *_stages(report, one)) for checked, one in _maps(report)],
    )
    yield from _table(
        "D5 Stability",
        "Rank correlation under noise of 2 % and after a shift of two pixels: both should stay "
        "high.",
        ("noise", "shift"),
        [(*_who(checked, one), one.noise, one.shift) for checked, one in _maps(report)],
    )
    yield from _table(
        "D6 Completeness",
        "By how much the parts of integrated gradients miss the difference between picture and "
        "baseline, as a share of the way that the number goes between them, up and down; in which "
        "share of frames that is 1 % or less; the difference as a share of the way; gradients that "
        "it took.",
        ("gap", "within 1 %", "difference / way", "steps"),
        [
            (
                *_who(checked, out),
                _percent(out.completeness_gap),
                out.complete,
                out.straight,
                f"{out.steps.value:.0f}" if out.steps.n else "-",
            )
            for checked, out in _outputs(report)
        ],
        method=False,
    )
    yield from _table(
        "D7 Relevance outside the sector and on burned-in text",
        f"An alarm is raised where more than {100 * report.most_outside:.0f} % lies outside.",
        ("outside", "most", "flagged", "on text"),
        [
            (*_who(checked, one), one.outside, f"{one.outside_most:.2f}", one.flagged, one.on_text)
            for checked, one in _maps(report)
        ],
    )
    if report.lead is not None:
        lead = report.lead
        yield "## Covering the lead"
        yield ""
        yield (
            f"Of {lead.clips} simulated clips with a lead {lead.seen} score at least the "
            f"threshold; with the lead covered {lead.flipped} of these fall below it, with "
            f"an equal patch elsewhere {lead.flipped_elsewhere}. The score falls by {lead.fall} "
            f"and by {lead.fall_elsewhere}: {'passed' if lead.passed else 'NOT PASSED'}."
        )
        yield ""
    for checked in report.on:
        for note in checked.notes:
            yield f"- {checked.name}: {note}"
        if checked.citation:
            yield f"Data of {checked.name}: {checked.citation}. {checked.licence}."
    yield ""


def _whom(checked: Checked) -> str:
    simulated = checked.evidence is Evidence.SIMULATED
    whom = "simulated clips: nothing here was tested on patients" if simulated else "patients"
    return f"- **{checked.name}**: {checked.clips} {whom}. {checked.title}, split {checked.split}."


def _short(report: QualityReport) -> Iterator[str]:
    short = summary(report.as_json())
    yield f"## In short, by {short.method}"
    yield ""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "| --- " * len(COLUMNS) + "|"
    for row in short.rows:
        yield f"| {' | '.join(row)} |"
    yield ""
    yield LEGEND
    yield ""
    for words, remarks in (
        ("Not passed:", short.remarks),
        ("Nor by other methods, for comparison:", short.of_others),
    ):
        if not remarks:
            continue
        yield words
        yield ""
        for remark in remarks:
            yield f"- {remark}"
        yield ""


def _table(
    title: str,
    words: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    method: bool = True,
) -> Iterator[str]:
    heads = ("output", *(("method",) if method else ()), "on", *columns)
    yield f"## {title}"
    yield ""
    yield words
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def _maps(report: QualityReport) -> list[tuple[Checked, MapChecks]]:
    """By method and output, so that data sets stand one below the other."""
    found = [(checked, one) for checked in report.on for one in checked.maps]
    keys = list(dict.fromkeys((one.method, one.outputs) for _, one in found))
    return sorted(found, key=lambda pair: keys.index((pair[1].method, pair[1].outputs)))


def _outputs(report: QualityReport) -> list[tuple[Checked, OutputChecks]]:
    found = [(checked, one) for checked in report.on for one in checked.outputs]
    keys = list(dict.fromkeys(one.outputs for _, one in found))
    return sorted(found, key=lambda pair: keys.index(pair[1].outputs))


def _who(checked: Checked, one: MapChecks | OutputChecks) -> tuple[str, ...]:
    method = getattr(one, "method", None)
    return (", ".join(one.outputs), *(() if method is None else (method.value,)), checked.name)


def _stages(report: QualityReport, one: MapChecks) -> list[str]:
    cells = [f"{rank.value:.2f}, {ssim.value:.2f}" for _, rank, ssim in one.randomised]
    return cells + ["not measured"] * (len(report.stages) - len(cells))


def _percent(one: Measured) -> str:
    return f"{100 * one.value:.2f} %" if one.n else "not measured"
