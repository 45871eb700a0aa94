"""The value to read first: a study's ejection fraction from its best-evidenced source."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from models.finding import Evidence, Finding, Method, PackRef
from node.results.objects import ClipResult

OUTPUT = "ef"


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One pack's ejection fraction, in percent, over the clips that it read.

    ``deviation`` is the standard deviation over clips, None for a single one. ``members`` are
    the clips (as indices into what was given) with their findings.
    """

    value: float
    lowest: float
    highest: float
    deviation: float | None
    pack: PackRef
    method: Method
    evidence: Evidence
    members: tuple[tuple[int, Finding], ...]


def summarise(clips: Sequence[ClipResult], findings: Sequence[Sequence[Finding]]) -> Summary | None:
    """The mean over clips from the best source, or None where there is no sound one.

    Sources (a pack and its method) are never mixed. Evidence from patients goes before the
    simulator's, a tracing before a number without one, more clips before fewer. The clips of a
    stress study are not averaged: rest and peak are different hearts.

    Parameters
    ----------
    clips
        The clips of one study.
    findings
        For each clip, those of its findings that may be reported.
    """
    if _stages(clip.header for clip in clips):
        return None
    sources: dict[tuple[PackRef, Method, Evidence], list[tuple[int, Finding]]] = defaultdict(list)
    for index, of_clip in enumerate(findings):
        for finding in of_clip:
            if finding.output == OUTPUT and finding.value is not None:
                key = (finding.pack, finding.method, finding.evidence)
                sources[key].append((index, finding))
    if not sources:
        return None
    (pack, method, evidence), members = min(sources.items(), key=lambda source: _rank(*source))
    values = [finding.value for _, finding in members if finding.value is not None]
    return Summary(
        value=statistics.fmean(values),
        lowest=min(values),
        highest=max(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        pack=pack,
        method=method,
        evidence=evidence,
        members=tuple(members),
    )


def _rank(
    source: tuple[PackRef, Method, Evidence], members: Sequence[tuple[int, Finding]]
) -> tuple[bool, bool, int, str, str]:
    pack, method, evidence = source
    return (
        evidence is not Evidence.PATIENTS,
        method is not Method.SINGLE_PLANE_DISCS,
        -len(members),
        pack.name,
        pack.weights_sha256,
    )


def _stages(headers: Iterable[Dataset]) -> bool:
    """Whether the clips belong to more than one stage of a stress study."""
    stages = set()
    for header in headers:
        if _number(header.get("NumberOfStages")) > 1:
            return True
        stages.add((str(header.get("StageName") or ""), _number(header.get("StageNumber"))))
    return len(stages) > 1


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
