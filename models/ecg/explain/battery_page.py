"""The page of a waveform pack's checks of explanations, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from models.ecg.explain.quality import NOISE, SHIFT_S
from models.ecg.explain.waves import Need, Wave
from models.explain.quality import Measured
from models.finding import Evidence

if TYPE_CHECKING:
    from models.ecg.explain.battery import Checked, WaveCheck, WaveformReport


def page(report: WaveformReport) -> Iterator[str]:
    """The lines of a pack's page."""
    yield f"# {report.pack} {report.version}: can its explanations be trusted?"
    yield ""
    yield f"Weights {report.weights_sha256[:12]}. Research use only, not for diagnosis."
    yield ""
    for checked in report.on:
        yield _whom(checked)
    yield ""
    yield (
        f"Seed {report.seed}; randomisation, stability and sums on the first {report.few} "
        "recordings of each. In brackets: 95 % intervals, by bootstrap over recordings. What each "
        "check is, and how good an answer can be: docs/explanations.md."
    )
    yield ""
    yield from _waves(report)
    yield from _table(
        "Sums",
        "By how much the parts of integrated gradients miss the difference between recording and "
        "flat line, as a share of the way that the number goes between them; in which share of "
        "recordings that is 1 % or less; gradients that it took. Of LRP: what is not accounted "
        "for, and what biases and epsilon take, as shares of all that is given out.",
        ("output", "on", "gap", "within 1 %", "gradients", "LRP unaccounted", "to biases",
         "to epsilon"),
        [
            (one.output, checked.name, _percent(one.gap), one.complete, _whole(one.steps),
             _percent(one.unaccounted), _percent(one.by_biases), _percent(one.by_epsilon))
            for checked in report.on
            for one in checked.sums
        ],
    )  # fmt: skip
    maps = [(checked, one) for checked in report.on for one in checked.maps]
    yield from _table(
        "Insertion and deletion",
        "Areas under the curves, 0 to 1: the strongest places (samples of leads) are kept alone, "
        "or become the isoelectric line. A map is worth something where its insertion is above, "
        "and its deletion below, those of maps that know nothing of the network: a random one, and "
        "the signal's own height. Empty maps, which Grad-CAM gives where nothing raises the "
        "number, count nowhere.",
        ("output", "method", "on", "insertion", "random", "height", "deletion", "random",
         "height", "empty maps"),
        [
            (one.output, one.method.value, checked.name, one.insertion, one.insertion_by_random,
             one.insertion_by_signal, one.deletion, one.deletion_by_random,
             one.deletion_by_signal, _percent(one.empty))
            for checked, one in maps
        ],
    )  # fmt: skip
    yield from _table(
        "Cascading randomisation",
        "Rank correlation with the map of the trained network when the weights of its last layers "
        "are shuffled: of strengths, and of the maps with their signs. Both should fall. Strengths "
        "of methods that multiply by the signal stay alike, since the signal does; what a reader "
        "sees is the colour, which is the sign.",
        ("output", "method", "on", *(f"{100 * share:.0f} % shuffled" for share in report.stages)),
        [
            (
                one.output,
                one.method.value,
                checked.name,
                *(_both(*alike) for _, *alike in one.randomised),
            )
            for checked, one in maps
        ],
    )
    yield from _table(
        "Stability",
        f"Rank correlation under noise of {100 * NOISE:.0f} % of the recording's standard "
        f"deviation, and {1000 * SHIFT_S:.0f} ms later: both should stay high.",
        ("output", "method", "on", "noise", "shift"),
        [(one.output, one.method.value, checked.name, one.noise, one.shift)
         for checked, one in maps],
    )  # fmt: skip
    for checked in report.on:
        for note in checked.notes:
            yield f"- {checked.name}: {note}"
        if checked.citation:
            yield f"Data of {checked.name}: {checked.citation}. {checked.licence}."
    yield ""


def _waves(report: WaveformReport) -> Iterator[str]:
    """One table for each data set: outputs down, waves across."""
    yield "## Wave blocking"
    yield ""
    yield (
        "A wave of every beat is replaced by a straight line between its borders, in all leads "
        "(Hicks et al. 2021). By how much the output moves: a measurement in units of its held "
        "error (half the width of its 95 % interval), a score as it is, in recordings with or "
        "without the finding, whichever is more. An output must move by "
        "half its held error, or a tenth of a score, without a wave that it needs, and by less "
        "without one that it does not need; where a wave may tell, nothing is expected."
    )
    yield ""
    for checked in report.on:
        yield f"On {checked.name}, {checked.blocked} recordings:"
        yield ""
        heads = ("output", *(f"without {wave.value}" for wave in Wave))
        yield f"| {' | '.join(heads)} |"
        yield "| --- " * len(heads) + "|"
        for output in dict.fromkeys(one.output for one in checked.waves):
            cells = [_cell(one) for one in checked.waves if one.output == output]
            yield f"| {output} | {' | '.join(cells)} |"
        judged = [one for one in checked.waves if one.as_expected is not None]
        right = sum(bool(one.as_expected) for one in judged)
        yield ""
        yield f"As expected: {right} of {len(judged)}."
        yield ""


def _cell(check: WaveCheck) -> str:
    if check.need is Need.MAYBE:
        return f"{check.moved}; may tell"
    if check.as_expected is None:
        return f"{check.moved}; {check.need.value}: too few to say"
    verdict = "as expected" if check.as_expected else "**not as expected**"
    return f"{check.moved}; {check.need.value}: {verdict}"


def _whom(checked: Checked) -> str:
    simulated = checked.evidence is Evidence.SIMULATED
    whom = "simulated recordings: nothing here was tested on patients" if simulated else "patients"
    return (
        f"- **{checked.name}**: {checked.records} {whom}, {checked.blocked} with waves blocked. "
        f"{checked.title}, split {checked.split}."
    )


def _table(
    title: str, words: str, heads: Sequence[str], rows: Sequence[Sequence[object]]
) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield words
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def _both(strengths: Measured, signed: Measured) -> str:
    if not strengths.n:
        return "not measured"
    return f"{strengths.value:.2f}, signed {signed.value:.2f}"


def _percent(one: Measured) -> str:
    return f"{100 * one.value:.2f} %" if one.n else "not measured"


def _whole(one: Measured) -> str:
    return f"{one.value:.0f}" if one.n else "-"
