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
VOLUMES = ("edv", "esv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """One output over the clips that gave it, every heartbeat counted once.

    ``values`` are what each beat gave, or each clip where beats were not told apart
    (``of_beats``); ``value`` is their mean and ``deviation`` their standard deviation, None for a
    single one. ``low`` and ``high`` are the means of the clips' 95 % intervals, None where a clip
    has none: all clips show one heart to one model, whose error does not average out. ``members``
    are the clips (as indices into what was given) with their findings.
    """

    output: str
    unit: str
    value: float
    deviation: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]
    of_beats: bool
    members: tuple[tuple[int, Finding], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One pack's ejection fraction over the clips that it read, and the volumes beside it."""

    ejection: Mean
    volumes: tuple[Mean, ...]
    pack: PackRef
    method: Method
    evidence: Evidence

    @property
    def means(self) -> tuple[Mean, ...]:
        """All of it, the ejection fraction first."""
        return (self.ejection, *self.volumes)


def summarise(clips: Sequence[ClipResult], findings: Sequence[Sequence[Finding]]) -> Summary | None:
    """The mean over beats and clips from the best source, or None where there is no sound one.

    Sources (a pack and its method) are never mixed. Evidence from patients goes before the
    simulator's, a tracing before a number without one, more clips before fewer. The clips of a
    stress study are not averaged: rest and peak are different hearts. Volumes are those of the
    clips that the ejection fraction came from.

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
                sources[_source(finding)].append((index, finding))
    if not sources:
        return None
    source, members = min(sources.items(), key=lambda item: _rank(*item))
    pack, method, evidence = source
    volumes = []
    for output in VOLUMES:
        beside = [
            (index, finding)
            for index in dict.fromkeys(index for index, _ in members)
            for finding in findings[index]
            if finding.output == output and finding.value is not None and _source(finding) == source
        ]
        if beside:
            volumes.append(_mean(output, beside))
    return Summary(
        ejection=_mean(OUTPUT, members),
        volumes=tuple(volumes),
        pack=pack,
        method=method,
        evidence=evidence,
    )


def _source(finding: Finding) -> tuple[PackRef, Method, Evidence]:
    return finding.pack, finding.method, finding.evidence


def _mean(output: str, members: Sequence[tuple[int, Finding]]) -> Mean:
    of_beats = all(finding.per_beat for _, finding in members)
    counts = [len(finding.per_beat) if of_beats else 1 for _, finding in members]
    values: list[float] = []
    for _, finding in members:
        values += finding.per_beat if of_beats else (finding.value or 0.0,)

    def weighted(numbers: Iterable[float | None]) -> float | None:
        known = [number for number in numbers if number is not None]
        return statistics.fmean(known, counts) if len(known) == len(counts) else None

    value = weighted(finding.value for _, finding in members)
    return Mean(
        output=output,
        unit=members[0][1].unit,
        value=value if value is not None else statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        low=weighted(finding.low for _, finding in members),
        high=weighted(finding.high for _, finding in members),
        values=tuple(values),
        of_beats=of_beats,
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
