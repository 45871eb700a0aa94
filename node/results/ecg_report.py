"""The report of a study's ECGs: one TID 1500 Measurement Report, apart from that of the clips.

For each ECG and pack, groups (TID 1501) of at most five measurements: the numbers, what the
thresholds decide, the stretch of the recording that was read, and below each number the stretches
that moved it most, as temporal coordinates on the waveform (rows 10g and 10h, TID 321). Then a
line of words for every ECG, those that no model read included, with the reason.

OHIF 3.13 takes a group without a spatial coordinate for a broken one: the report opens, and its
whole window becomes an error. So a group has a point on the page of the picture that explains it,
beside the stretch on the waveform, and OHIF shows the numbers on that page. Where there is no
picture, nothing can bear such a point: the same groups then stand under another title, as an ECG
report, which OHIF and every other viewer shows as a tree of text. An archive loses nothing by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from models.finding import Finding, PackRef
from models.packs.manifest import Signal
from node.results import codes, content
from node.results.codes import Concept
from node.results.content import HAS_CONCEPT_MOD, INFERRED_FROM, SELECTED_FROM, Item
from node.results.document import Series, Source, in_order, reportable, write_document
from node.results.evidence import NOTHING_KNOWN, TestedOn
from node.results.groups import (
    Part,
    evaluations,
    explanation,
    group_head,
    group_words,
    intervals,
    measurement,
    observer_items,
    pack_words,
    parts_of,
    refusal_lines,
)
from node.results.objects import (
    RESEARCH_WORDS,
    EcgReading,
    EcgResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    derive_uid,
    reference,
)

# Where a group's point lies, in pixels of a page. OHIF writes a group's lines to the right of it
# and below: those of the first into the dark below the paper (:mod:`models.ecg.explain.paper`),
# where they can be read and cover no trace, those of others on the same page above them.
_POINT_COLUMN, _LOWEST_ROW, _ROW_STEP, _ROWS_OF_POINTS = 24.0, 770.0, 180.0, 5


def build_ecg_report(
    ecgs: Sequence[EcgResult],
    *,
    revision: int,
    predecessor: ObjectRef | None,
    settings: ReportSettings,
    created_at: datetime,
    tested_on: TestedOn = NOTHING_KNOWN,
) -> EncodedObject:
    """The report of a study's ECGs.

    Parameters
    ----------
    ecgs
        Every ECG of the study, in any order.
    revision
        1 for the first report; becomes the Instance Number.
    predecessor
        The ECG report that this one takes the place of.
    created_at
        When the report was made, with a time zone. It is in the object, but not in its UID.
    tested_on
        On which data each output was tested, for the words beside it.

    Returns
    -------
    EncodedObject
        Explicit VR Little Endian. The same inputs give the same SOP Instance UID.

    Raises
    ------
    ResultError
        If the ECGs are none, or of several studies, or a finding contradicts itself.
    """
    sources = ecg_sources_of(ecgs, settings)
    return write_document(
        _root(sources, settings, tested_on),
        sources,
        Series(
            sop_class_uid=settings.sop_class_uid,
            kind="ECG SR",
            number=settings.ecg_report_series_number,
            description=settings.ecg_report_series_description,
        ),
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=created_at,
    )


@dataclass(frozen=True)
class EcgSource(Source[EcgResult]):
    """An ECG as a report speaks of it."""

    noun: ClassVar[str] = "ECG"

    @cached_property
    def _readings(self) -> dict[PackRef, EcgReading]:
        return {reading.pack: reading for reading in self.result.readings}

    def reading_of(self, pack: PackRef) -> EcgReading | None:
        """What a pack read of it, as far as it stands in the object."""
        reading = self._readings.get(pack)
        return reading if reading is not None and reading.group > 0 else None

    def waveform(self, reading: EcgReading | None, relationship: object = content.CONTAINS) -> Item:
        """The recording, or those of its channels that were read: a derived lead has none."""
        channels = (
            []
            if reading is None
            else [(reading.group, channel) for channel in reading.channels if channel > 0]
        )
        return content.waveform(
            codes.SOURCE_OF_MEASUREMENT,
            self.ref.sop_class_uid,
            self.ref.sop_instance_uid,
            relationship,
            channels=channels,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where in the picture a group's numbers stand.

    ``page`` counts from 1 on, None in a picture of one page; ``before`` are so many groups on the
    same page. ``explained``: the page shows what moved one of the group's values.
    """

    page: int | None
    before: int
    explained: bool


def _places(source: EcgSource, parts: Sequence[Part]) -> Iterator[_Place]:
    """The page of each group: the one that explains it, or the one with the fewest numbers."""
    pages = source.result.pages
    used = Counter(dict.fromkeys(range(1, len(pages) + 1), 0)) or Counter({1: 0})
    wanted = []
    for part in parts:
        outputs = {finding.output for finding in part.findings}
        own = next((number for number, one in enumerate(pages, start=1) if one in outputs), None)
        wanted.append(own)
        if own is not None:
            used[own] += 1
    taken: Counter[int] = Counter()
    for own in wanted:
        page = own or min(used, key=lambda number: used[number])
        used[page] += own is None
        yield _Place(
            page=page if len(pages) > 1 else None,
            before=taken[page],
            explained=own is not None or not pages,
        )
        taken[page] += 1


def ecg_sources_of(ecgs: Sequence[EcgResult], settings: ReportSettings) -> list[EcgSource]:
    """The ECGs of a report in their order, with what may be said of each."""
    return in_order(
        [
            EcgSource(
                result=ecg,
                ref=reference(ecg.header),
                findings=reportable(ecg.findings, settings),
                left_out=tuple(refusal_lines(ecg.refusals)),
            )
            for ecg in ecgs
        ],
        "ECG",
    )


def _root(sources: Sequence[EcgSource], settings: ReportSettings, tested_on: TestedOn) -> Item:
    shown = all(source.result.capture is not None for source in sources if source.findings)
    groups: list[Item] = []
    for source in sources:
        of_source = [*parts_of(source.findings)]
        for part, place in zip(of_source, _places(source, of_source), strict=True):
            groups.append(_group(source, part, place, tested_on))
    parts = [
        content.code(codes.LANGUAGE, codes.ENGLISH_US, HAS_CONCEPT_MOD),
        *observer_items(settings),
        content.code(codes.PROCEDURE_REPORTED, codes.TWELVE_LEAD_ECG, HAS_CONCEPT_MOD),
    ]
    if groups:
        parts.append(content.container(codes.IMAGING_MEASUREMENTS, groups))
    parts.append(
        content.container(
            codes.QUALITATIVE_EVALUATIONS,
            [
                content.text(
                    codes.COMMENT,
                    f"{RESEARCH_WORDS}. Results of echonode "
                    f"{settings.software_version}, not verified by a physician.",
                ),
                *(content.text(codes.ECG, ecg_words(source)) for source in sources),
            ],
        )
    )
    title, template = (
        (codes.IMAGING_MEASUREMENT_REPORT, "1500") if shown else (codes.ECG_REPORT, None)
    )
    return content.container(title, parts, relationship=None, template=template)


def _group(source: EcgSource, part: Part, place: _Place, tested_on: TestedOn) -> Item:
    """TID 1501: what one pack says of one subject in one ECG."""
    subject, pack, findings = part.subject, part.pack, part.findings
    identity = (source.ref.sop_instance_uid, pack.name, subject.finding.value, str(part.number))
    reading = source.reading_of(pack)
    return content.container(
        codes.MEASUREMENT_GROUP,
        [
            *group_head(
                f"{subject.short} {source.short or 'ECG'}, {pack.name}",
                derive_uid("tracking", *identity),
                subject,
                pack,
                findings,
            ),
            *(measurement(finding, _moving(source, finding)) for finding in findings),
            *evaluations(findings),
            *intervals(findings),
            *_picture(source, place),
            *_read(source, reading),
            content.text(
                codes.COMMENT,
                group_words(findings, tested_on, seen="ECGs", not_done="measured on the curve"),
            ),
        ],
    )


def _picture(source: EcgSource, place: _Place) -> Iterator[Item]:
    """The page that explains a group, and the group's point on a page."""
    capture = source.result.capture
    if capture is None:
        return
    if place.explained:
        yield explanation(capture, place.page)
    yield content.point(
        codes.SOURCE_OF_MEASUREMENT,
        _POINT_COLUMN,
        _LOWEST_ROW - _ROW_STEP * (place.before % _ROWS_OF_POINTS),
        content.image(
            codes.SOURCE_OF_MEASUREMENT,
            capture.sop_class_uid,
            capture.sop_instance_uid,
            SELECTED_FROM,
            frame=place.page,
        ),
    )


def _read(source: EcgSource, reading: EcgReading | None) -> Iterator[Item]:
    """The stretch that was read, or the recording where that stretch stands in no object."""
    item = None
    if reading is not None:
        item = _stretch(
            codes.SOURCE_OF_MEASUREMENT, (reading.begin_ms, reading.end_ms), source, reading
        )
    yield item if item is not None else source.waveform(None)


def _moving(source: EcgSource, finding: Finding) -> Iterator[Item]:
    """TID 321: the stretches that moved a value most, the most telling first."""
    reading = source.reading_of(finding.pack)
    if reading is None:
        return
    for span in finding.spans_ms:
        item = _stretch(codes.MOVED_THE_VALUE, span, source, reading, INFERRED_FROM)
        if item is not None:
            yield item


def _stretch(
    name: Concept,
    span_ms: tuple[float, float],
    source: EcgSource,
    reading: EcgReading,
    relationship: object = content.CONTAINS,
) -> Item | None:
    """A stretch of what was read; None where less than a millisecond of it lies in the recording.

    A network may see zeros before and behind a recording that is short.
    """
    begin, end = (max(0, round(each)) for each in span_ms)
    if end <= begin:
        return None
    waveform = source.waveform(reading, SELECTED_FROM)
    return content.stretch(name, begin / 1000.0, end / 1000.0, waveform, relationship)


# Words.


def ecg_words(source: EcgSource) -> str:
    """A line about an ECG: who read what of it, what cannot be trusted, what was not given."""
    words = f"{source.title[0].upper()}{source.title[1:]}."
    if source.result.not_analysed is not None:
        words += f" Not analysed: {source.result.not_analysed.rstrip('.')}."
    elif source.result.packs:
        words += f" Read by {', '.join(_read_by(source, pack) for pack in source.result.packs)}."
    if source.result.troubles:
        words += f" Mind: {'; '.join(each.rstrip('.') for each in source.result.troubles)}."
    if source.left_out:
        words += f" Not given: {'; '.join(each.rstrip('.') for each in source.left_out)}."
    return words


def _read_by(source: EcgSource, pack: PackRef) -> str:
    """A pack, and which part of the recording it saw."""
    reading = next((each for each in source.result.readings if each.pack == pack), None)
    if reading is None:
        return pack_words(pack)
    if reading.signal is Signal.MEDIAN:
        whose = "the cart's" if reading.group > 0 else "a"
        return f"{pack_words(pack)} ({whose} median beat)"
    return (
        f"{pack_words(pack)} ({reading.begin_ms / 1000.0:.1f} to "
        f"{reading.end_ms / 1000.0:.1f} s of the rhythm)"
    )
