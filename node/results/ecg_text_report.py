"""The report of a study's ECGs for people: a short text in a Structured Report of its own.

TID 2000 in Basic Text SR, as :mod:`node.results.text_report` writes it of clips: what lies above
its threshold, the findings of each ECG, and what was done with every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.uid import BasicTextSRStorage

from models.finding import Finding
from node.results import codes, content
from node.results.codes import OUTPUTS
from node.results.content import HAS_CONCEPT_MOD, Item
from node.results.document import Series, write_document
from node.results.ecg_report import EcgSource, ecg_sources_of, ecg_words
from node.results.evidence import NOTHING_KNOWN, TestedOn, evidence_words
from node.results.groups import counted, main_number, observer_items, title_of, verdict
from node.results.objects import EcgResult, EncodedObject, ObjectRef, ReportSettings
from node.results.text_report import chapter, findings_of, research_words


def build_ecg_text_report(
    ecgs: Sequence[EcgResult],
    *,
    revision: int,
    predecessor: ObjectRef | None,
    settings: ReportSettings,
    created_at: datetime,
    tested_on: TestedOn = NOTHING_KNOWN,
) -> EncodedObject:
    """The report of a study's ECGs as text.

    Parameters, result and errors are those of :func:`node.results.ecg_report.build_ecg_report`;
    ``predecessor`` is an earlier text report of ECGs.
    """
    sources = ecg_sources_of(ecgs, settings)
    return write_document(
        _root(sources, settings, tested_on),
        sources,
        Series(
            sop_class_uid=BasicTextSRStorage,
            kind="ECG TEXT",
            number=settings.ecg_text_series_number,
            description=settings.ecg_text_series_description,
        ),
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=created_at,
    )


def _root(sources: Sequence[EcgSource], settings: ReportSettings, tested_on: TestedOn) -> Item:
    findings = [finding for source in sources for finding in source.findings]
    said = [line for source in sources for line in findings_of(source)]
    parts = [
        chapter(
            codes.SUMMARY,
            codes.CONCLUSION,
            [research_words(settings), *(_conclusion(source) for source in sources)],
        )
    ]
    if said:
        parts.append(chapter(codes.FINDINGS, codes.FINDING, said))
    read = sum(bool(source.result.packs) and not source.result.not_analysed for source in sources)
    done = [
        f"12-lead electrocardiography, {counted(len(sources), 'ECG')}; {read} read by models.",
        *(ecg_words(source) for source in sources),
    ]
    if findings:
        done.append(f"Evidence. {evidence_words(findings, tested_on, seen='ECGs')}")
    parts.append(chapter(codes.PROCEDURES, codes.PROCEDURE_DESCRIPTION, done))
    return content.container(
        codes.ECG_REPORT,
        [
            content.code(codes.LANGUAGE, codes.ENGLISH_US, HAS_CONCEPT_MOD),
            *observer_items(settings),
            *parts,
        ],
        relationship=None,
        template="2000",
    )


def _conclusion(source: EcgSource) -> str:
    """What an ECG shows, the doubts about it beside it."""
    title = f"{source.title[0].upper()}{source.title[1:]}"
    judged = [finding for finding in source.findings if verdict(finding) is not None]
    present = [_present(finding) for finding in judged if verdict(finding) == codes.PRESENT]
    if present:
        words = f"{title}: {', '.join(present)}."
    elif judged:
        words = f"{title}: no score lies above its threshold."
    elif source.findings:
        words = f"{title}: see its measurements."
    else:
        words = f"{title}: nothing was found out."
    if source.result.troubles:
        words += f" Mind: {'; '.join(each.rstrip('.') for each in source.result.troubles)}."
    return words


def _present(finding: Finding) -> str:
    decimals = OUTPUTS[finding.output].decimals
    title = title_of(finding.output, finding.evidence)
    return f"{title} (score {main_number(finding):.{decimals}f})"
