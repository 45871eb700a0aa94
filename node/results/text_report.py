"""The same report for people: a short text in a Structured Report, beside the one for machines.

For archives whose viewers show the codes of a measurement report badly or not at all. TID 2000
in Basic Text SR: a summary, the findings of each clip, and what was done with every clip. It has
a series of its own, since viewers show one report of a series only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pydicom.uid import BasicTextSRStorage

from models.finding import Evidence, Finding, Kind
from node.results import codes, content
from node.results.codes import OUTPUTS, Concept
from node.results.content import HAS_CONCEPT_MOD, Item
from node.results.document import Series, Source, write_document
from node.results.evidence import NOTHING_KNOWN, TestedOn, evidence_words, outside_words
from node.results.groups import (
    counted,
    main_number,
    observer_items,
    pack_words,
    title_of,
    verdict,
)
from node.results.objects import (
    RESEARCH_WORDS,
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
)
from node.results.report import ClipSource, clip_words, sources_of
from node.results.summary import Mean, Summary, summarise

_UNIT_WORDS = {"a": "years", "cm2": "square cm", "{score}": "", "/min": "per minute"}
_VERDICTS = {codes.PRESENT: "present", codes.ABSENT: "absent", codes.INDETERMINATE: "uncertain"}


def build_text_report(
    clips: Sequence[ClipResult],
    *,
    revision: int,
    predecessor: ObjectRef | None,
    settings: ReportSettings,
    created_at: datetime,
    tested_on: TestedOn = NOTHING_KNOWN,
    not_read: Sequence[str] = (),
) -> EncodedObject:
    """The report of a study as text.

    Parameters, result and errors are those of :func:`node.results.report.build_report`;
    ``predecessor`` is an earlier text report.
    """
    sources = sources_of(clips, settings)
    return write_document(
        _root(sources, settings, tested_on, not_read),
        sources,
        Series(
            sop_class_uid=BasicTextSRStorage,
            kind="TEXT",
            number=settings.text_series_number,
            description=settings.text_series_description,
        ),
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=created_at,
    )


def _root(
    sources: Sequence[ClipSource],
    settings: ReportSettings,
    tested_on: TestedOn,
    not_read: Sequence[str],
) -> Item:
    findings = [finding for source in sources for finding in source.findings]
    summary = summarise(
        [source.result for source in sources], [source.findings for source in sources]
    )
    said = [line for source in sources for line in findings_of(source)]
    parts = [
        chapter(
            codes.SUMMARY,
            codes.CONCLUSION,
            [
                research_words(settings),
                *_conclusion(summary, sources, findings),
            ],
        )
    ]
    if said:
        parts.append(chapter(codes.FINDINGS, codes.FINDING, said))
    read = sum(bool(source.result.packs) and not source.result.not_analysed for source in sources)
    clips = counted(len(sources), "clip")
    done = [
        f"Transthoracic echocardiography, {clips}; {read} of them read by models.",
        *(clip_words(source) for source in sources),
        *not_read,
    ]
    if findings:
        done.append(f"Evidence. {evidence_words(findings, tested_on)}")
    parts.append(chapter(codes.PROCEDURES, codes.PROCEDURE_DESCRIPTION, done))
    return content.container(
        codes.ECHO_REPORT,
        [
            content.code(codes.LANGUAGE, codes.ENGLISH_US, HAS_CONCEPT_MOD),
            *observer_items(settings),
            *parts,
        ],
        relationship=None,
        template="2000",
    )


def research_words(settings: ReportSettings) -> str:
    """What a report for people begins with."""
    return (
        f"{RESEARCH_WORDS}. Made by software (echonode {settings.software_version}), "
        "not verified by a physician."
    )


def chapter(heading: Concept, name: Concept, texts: Sequence[str]) -> Item:
    """A heading with texts below it."""
    return content.container(heading, [content.text(name, text) for text in texts])


def _conclusion(
    summary: Summary | None, sources: Sequence[ClipSource], findings: Sequence[Finding]
) -> Iterator[str]:
    if summary is None:
        yield "No ejection fraction is given of this study."
    else:
        ejection = summary.ejection
        where = ", ".join(sources[index].title for index, _ in ejection.members)
        lines = [_mean_words(ejection, summary.evidence)]
        clips = counted(len(ejection.members), "clip")
        if ejection.deviation is not None:
            over = f"{counted(len(ejection.values), 'beat')} in " if ejection.of_beats else ""
            lines.append(
                f"mean of {over}{clips}, standard deviation {ejection.deviation:.1f} points"
            )
        else:
            lines.append("from one beat" if ejection.of_beats else f"from {clips}")
        volumes = "".join(f" {_mean_words(mean, summary.evidence)}." for mean in summary.volumes)
        yield (
            f"{', '.join(lines)}.{volumes} "
            f"By {summary.method} ({where}; {pack_words(summary.pack)})."
        )
    warning = outside_words(findings)
    if warning:
        yield warning


def _mean_words(mean: Mean, evidence: Evidence) -> str:
    title = title_of(mean.output, evidence)
    return _value_words(title, mean.output, mean.value, mean.unit, mean.low, mean.high)


def _value_words(
    title: str, output: str, value: float, unit: str, low: float | None, high: float | None
) -> str:
    decimals = OUTPUTS[output].decimals
    unit = _UNIT_WORDS.get(unit, unit)
    words = f"{title} {value:.{decimals}f} {unit}".rstrip()
    if low is not None and high is not None:
        words += f" (95 % interval {low:.{decimals}f} to {high:.{decimals}f} {unit})"
    return words


def findings_of(source: Source[Any]) -> Iterator[str]:
    """A sentence or two for each pack and subject."""
    groups: dict[tuple[object, object], list[Finding]] = {}
    for output, known in OUTPUTS.items():
        for finding in source.findings:
            if finding.output == output:
                groups.setdefault((finding.pack, known.subject), []).append(finding)
    packs = list(dict.fromkeys(finding.pack for finding in source.findings))
    for pack in packs:
        for (of_pack, _), findings in groups.items():
            if of_pack != pack:
                continue
            frames = dict.fromkeys(item.frames[0] + 1 for item in findings if item.frames)
            where = f", frame {', '.join(map(str, frames))}" if frames else ""
            said = "; ".join(_finding_words(finding) for finding in findings)
            methods = dict.fromkeys(
                finding.method.value for finding in findings if finding.kind is Kind.MEASUREMENT
            )
            by = f" by {' and '.join(methods)}" if methods else ""
            yield f"{said}. Read{by} from {source.title}{where}, by {pack_words(pack)}."


def _finding_words(finding: Finding) -> str:
    if finding.kind is Kind.SCORE:
        return _score_words(finding)
    title = title_of(finding.output, finding.evidence)
    words = _value_words(
        title, finding.output, main_number(finding), finding.unit, finding.low, finding.high
    )
    beats = len(finding.per_beat)
    mean = f", mean of {beats} beats" if beats > 1 else ""
    return f"{words}{mean}"


def _score_words(finding: Finding) -> str:
    score = f"score {main_number(finding):.{OUTPUTS[finding.output].decimals}f}"
    title = title_of(finding.output, finding.evidence)
    said = verdict(finding)
    if said is None:
        return f"{title}: {score}"
    return f"{title}: {_VERDICTS[said]} ({score}, threshold {finding.threshold:.3g})"
