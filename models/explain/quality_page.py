"""The page of a pack's checks of explanations, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.explain.quality import Measured
from models.finding import MOST_OUTSIDE, Evidence

if TYPE_CHECKING:
    from models.explain.battery import QualityReport


def page(report: QualityReport) -> Iterator[str]:
    """The lines of a pack's page."""
    yield f"# {report.pack} {report.version}: can its maps be trusted?"
    yield ""
    yield f"Weights {report.weights_sha256[:12]}. Research use only, not for diagnosis."
    yield ""
    yield (
        f"On {report.dataset}: one frame of each of {report.clips} clips, seed {report.seed}. "
        f"D4 and D6 on {min(report.few, report.clips)} of them. In brackets: 95 % "
        "intervals, by bootstrap over clips."
    )
    if report.evidence is Evidence.SIMULATED:
        yield "Simulated clips: nothing here was tested on patients."
    yield ""
    yield "## D1 Insertion and deletion"
    yield ""
    yield (
        "Areas under the curves, 0 to 1; places are taken out by blurring. A map is worth "
        "something where its insertion is above, and its deletion below, those of maps that know "
        "nothing."
    )
    yield ""
    yield "| output | method | insertion | random | centre | deletion | random | centre |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for one in report.maps:
        yield (
            f"| {one.output} | {one.method.value} | {one.insertion} | {one.insertion_by_random} | "
            f"{one.insertion_by_centre} | {one.deletion} | {one.deletion_by_random} | "
            f"{one.deletion_by_centre} |"
        )
    yield ""
    yield "## D2 Pointing and energy in the true mask"
    yield ""
    yield "| output | method | strongest place in the mask | energy in the mask | mask's share |"
    yield "| --- | --- | --- | --- | --- |"
    for one in report.maps:
        yield (
            f"| {one.output} | {one.method.value} | {one.pointing} | {one.energy} | "
            f"{one.energy_by_chance} |"
        )
    yield ""
    yield "## D3 Covering, and D6 completeness"
    yield ""
    yield (
        "By how much the network's own number moves when the structure is covered by its "
        "surroundings, and when an equal patch elsewhere is; in which share of clips the former is "
        "more. By which share the parts of integrated gradients miss the difference, and in which "
        "share of frames they do so by 1 % or less."
    )
    yield ""
    yield "| output | structure | covered | elsewhere | structure moves more | gap | within 1 % |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for out in report.outputs:
        yield (
            f"| {out.output} | {out.structure or '-'} | {out.by_structure} | {out.by_elsewhere} | "
            f"{out.covering_wins} | {_percent(out.completeness_gap)} | {out.complete} |"
        )
    yield ""
    yield "## D4 Cascading randomisation, D5 stability"
    yield ""
    yield (
        "Rank correlation and SSIM with the map of the trained network when the weights of its "
        "last layers are shuffled: both must fall. Rank correlation under noise of 2 % and after a "
        "shift of two pixels: both should stay high."
    )
    yield ""
    heads = " | ".join(f"{100 * share:.0f} % shuffled" for share in report.stages)
    yield f"| output | method | {heads} | noise | shift |"
    yield "| --- | --- |" + " --- |" * (len(report.stages) + 2)
    for one in report.maps:
        cells = [f"{rank.value:.2f}, {ssim.value:.2f}" for _, rank, ssim in one.randomised]
        cells += ["not measured"] * (len(report.stages) - len(cells))
        yield (
            f"| {one.output} | {one.method.value} | {' | '.join(cells)} | "
            f"{one.noise} | {one.shift} |"
        )
    yield ""
    yield "## D7 Relevance outside the sector and on burned-in text"
    yield ""
    yield f"An alarm is raised where more than {100 * MOST_OUTSIDE:.0f} % lies outside."
    yield ""
    yield "| output | method | outside | most | on text |"
    yield "| --- | --- | --- | --- | --- |"
    for one in report.maps:
        yield (
            f"| {one.output} | {one.method.value} | {one.outside} | {one.outside_most:.2f} | "
            f"{one.on_text} |"
        )
    if report.lead is not None:
        lead = report.lead
        yield ""
        yield "## Covering the lead"
        yield ""
        yield (
            f"Of {lead.clips} simulated clips with a lead {lead.seen} score at least the "
            f"threshold; with the lead covered {lead.flipped} of these fall below it, with "
            f"an equal patch elsewhere {lead.flipped_elsewhere}. The score falls by {lead.fall} "
            f"and by {lead.fall_elsewhere}: {'passed' if lead.passed else 'NOT PASSED'}."
        )
    for note in report.notes:
        yield ""
        yield f"- {note}"
    yield ""


def _percent(one: Measured) -> str:
    return f"{100 * one.value:.2f} %" if one.n else "not measured"
