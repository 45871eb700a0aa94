"""Which findings may leave, and the words about evidence that go with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from models.finding import MOST_OUTSIDE, Evidence, Finding, Kind, PackRef
from models.tasks import TASKS
from node.evidence import why_withheld
from node.results.codes import OUTPUTS, UNITS
from node.results.objects import RESEARCH_WORDS, ReportSettings, ResultError

TestedOn = Mapping[tuple[PackRef, str], str]
"""By pack and output: on which data the output was tested, in words for a reader."""

NOTHING_KNOWN: TestedOn = MappingProxyType({})

_LEVELS = {
    Evidence.PATIENTS: "tested on patients that training never saw",
    Evidence.SIMULATED: (
        "FOR DEMONSTRATION: has only seen simulated {seen}, never tested on patients"
    ),
}


def check_finding(finding: Finding) -> None:
    """Refuse a finding that contradicts itself or has no codes.

    Raises
    ------
    ResultError
        With the finding's name and what is wrong with it.
    """
    name = f"finding {finding.output!r} of pack {finding.pack.name}"
    if finding.output not in OUTPUTS:
        raise ResultError(f"{name}: there are no codes for this output")
    if finding.unit not in UNITS:
        raise ResultError(f"{name}: there is no code for the unit {finding.unit!r}")
    main = finding.score if finding.kind is Kind.SCORE else finding.value
    if main is None:
        raise ResultError(f"{name}: a {finding.kind} without its number")
    share = finding.outside_share
    for number in (main, finding.low, finding.high, finding.threshold, share):
        if number is not None and not math.isfinite(number):
            raise ResultError(f"{name}: {number} is not a number to report")


def withheld(finding: Finding, settings: ReportSettings) -> str | None:
    """Why a finding may not leave, or None where it may."""
    return why_withheld(
        finding.output,
        finding.evidence,
        allow_simulated=settings.simulated_evidence,
        allow_demographics=settings.demographic_estimates,
    )


def outside_words(findings: Iterable[Finding]) -> str:
    """A warning beside findings that were moved by what is no picture of the heart; else empty."""
    titles = [
        f"{TASKS[finding.output].title} ({100 * (finding.outside_share or 0):.0f} %)"
        for finding in findings
        if finding.looked_outside
    ]
    if not titles:
        return ""
    return (
        "DO NOT RELY ON: "
        f"{', '.join(dict.fromkeys(titles))}. The network looked outside the scanning sector: "
        f"more than {100 * MOST_OUTSIDE:.0f} % of what moved the value lies there."
    )


def evidence_words(
    findings: Iterable[Finding], tested_on: TestedOn = NOTHING_KNOWN, *, seen: str = "clips"
) -> str:
    """What must stand beside these findings: for research, and on what evidence.

    ``seen`` are what a simulator shows to a network: "clips", or "ECGs".
    """
    grouped: dict[str, dict[str, None]] = {}
    for finding in findings:
        level = _LEVELS[finding.evidence].format(seen=seen)
        tested = tested_on.get((finding.pack, finding.output), "").strip().rstrip(".")
        words = f"{level} ({tested})" if tested else level
        grouped.setdefault(words, {})[TASKS[finding.output].title] = None
    lines = [f"{', '.join(titles)}: {words}." for words, titles in grouped.items()]
    return " ".join((f"{RESEARCH_WORDS}.", *lines))
