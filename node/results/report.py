"""The report: one TID 1500 Measurement Report for a study, as Comprehensive 3D SR.

What a reader meets, in order: the study's ejection fraction, to be read first; then, for each
clip and pack, groups of at most five measurements with their evidence, where they were made, the
picture that explains them and the frame they came from; then a line of words for every clip, the
ones that no model read included, with the reason. The image library gives each clip's view in
codes. Every group has a tracking UID and a spatial coordinate, without which OHIF 3.13 fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.tasks import TASKS
from models.views import ViewCall
from node.results import codes, content
from node.results.codes import OUTPUTS, UNITS, VIEWS, Concept, Subject
from node.results.content import (
    HAS_ACQ_CONTEXT,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    HAS_PROPERTIES,
    SELECTED_FROM,
    Item,
)
from node.results.evidence import (
    NOTHING_KNOWN,
    TestedOn,
    check_finding,
    evidence_words,
    outside_words,
    withheld,
)
from node.results.header import (
    add_equipment,
    add_times,
    coding_scheme_items,
    copy_patient_and_study,
)
from node.results.objects import (
    MANUFACTURER,
    MODEL_NAME,
    RESEARCH_WORDS,
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    content_uid,
    derive_uid,
    encode,
    mark_as_own,
    reference,
    series_uid,
)
from node.results.summary import Mean, Summary, summarise

MAX_MEASUREMENTS = 5  # OHIF 3.13 shows so many lines of a group and no more


def build_report(
    clips: Sequence[ClipResult],
    *,
    revision: int,
    predecessor: ObjectRef | None,
    settings: ReportSettings,
    created_at: datetime,
    tested_on: TestedOn = NOTHING_KNOWN,
    not_read: Sequence[str] = (),
) -> EncodedObject:
    """The report of a study.

    Parameters
    ----------
    clips
        Every clip of the study, in any order.
    revision
        1 for the first report; becomes the Instance Number.
    predecessor
        The report that this one takes the place of.
    created_at
        When the report was made, with a time zone. It is in the object, but not in its UID.
    tested_on
        On which data each output was tested, for the words beside it.
    not_read
        What the study holds besides clips and why no model read it, a sentence each.

    Returns
    -------
    EncodedObject
        Explicit VR Little Endian. The same inputs give the same SOP Instance UID.

    Raises
    ------
    ResultError
        If the clips are none, or of several studies, or a finding contradicts itself.
    """
    sources = sources_of(clips, settings)
    return write_document(
        _root(sources, settings, tested_on, not_read),
        sources,
        Series(
            sop_class_uid=settings.sop_class_uid,
            kind="SR",
            number=settings.report_series_number,
            description=settings.report_series_description,
        ),
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=created_at,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The series of a sort of report, and the class of its objects."""

    sop_class_uid: str
    kind: str
    number: int
    description: str


def write_document(
    root: Item,
    sources: Sequence[Source],
    series: Series,
    *,
    revision: int,
    predecessor: ObjectRef | None,
    settings: ReportSettings,
    created_at: datetime,
) -> EncodedObject:
    """An SR document of this content: its header, its UID, its bytes. See :func:`build_report`."""
    if revision < 1:
        raise ResultError(f"revision {revision}: the first is 1")
    header = sources[0].result.header
    dataset = Dataset()
    copy_patient_and_study(header, dataset)
    dataset.SOPClassUID = series.sop_class_uid
    dataset.Modality = "SR"
    dataset.SeriesInstanceUID = series_uid(sources[0].ref.study_instance_uid, series.kind, settings)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.InstanceNumber = revision
    _add_state_and_evidence(dataset, sources, predecessor)
    add_equipment(dataset, settings, _packs(sources))
    dataset.CodingSchemeIdentificationSequence = coding_scheme_items()
    for element in root:
        dataset[element.tag] = element
    mark_as_own(dataset, "SR")
    dataset.SOPInstanceUID = content_uid(dataset, leave_out=())
    add_times(dataset, header, created_at)
    return encode(dataset, ExplicitVRLittleEndian)


@dataclass(frozen=True)
class Source:
    """A clip as a report speaks of it."""

    result: ClipResult
    ref: ObjectRef
    findings: tuple[Finding, ...]  # those that may be reported
    left_out: tuple[str, ...]  # what may not, and why

    @cached_property
    def order(self) -> tuple[float, float, str]:
        header = self.result.header
        return (
            _number(header, "SeriesNumber"),
            _number(header, "InstanceNumber"),
            self.ref.sop_instance_uid,
        )

    @cached_property
    def title(self) -> str:
        series, instance, uid = self.order
        if math.isinf(instance):
            return f"image {uid}"
        if math.isinf(series):
            return f"image {instance:.0f}"
        return f"series {series:.0f} image {instance:.0f}"

    @cached_property
    def short(self) -> str:
        """The title as viewers abbreviate it; readers of SR hide a label beyond 30 characters."""
        series, instance, _ = self.order
        known = [f"S{series:.0f}"] if not math.isinf(series) else []
        known += [f"I{instance:.0f}"] if not math.isinf(instance) else []
        return " ".join(known) or "clip"

    @cached_property
    def frame_count(self) -> int:
        count = _number(self.result.header, "NumberOfFrames")
        return 1 if math.isinf(count) else max(int(count), 1)

    def image(
        self,
        name: Concept,
        relationship: object,
        *,
        frame: int | None = None,
        children: Iterable[Item] = (),
    ) -> Item:
        """A reference to the clip; ``frame`` is zero-based and left out of a still."""
        if frame is not None and not 0 <= frame < self.frame_count:
            raise ResultError(
                f"{self.title}: a finding came from frame {frame}, "
                f"but the clip has {self.frame_count}"
            )
        number = frame + 1 if frame is not None and self.frame_count > 1 else None
        return content.image(
            name,
            self.ref.sop_class_uid,
            self.ref.sop_instance_uid,
            relationship,
            frame=number,
            children=children,
        )

    def coordinate(self, frame: int, group: int) -> Item:
        """A point on a frame: the whole picture was the source, but viewers need a point.

        They write a group's lines to the right of it. So it lies at the left, where long lines
        are not cut, and each group's at a height of its own, so that none covers another.
        """
        header = self.result.header
        if not header.get("Rows") or not header.get("Columns"):
            raise ResultError(f"{self.title}: the header has no Rows or Columns")
        return content.point(
            codes.SOURCE_OF_MEASUREMENT,
            int(header.Columns) / 8,
            int(header.Rows) * (1 + 2 * (group % 5)) / 12,
            self.image(codes.SOURCE_OF_MEASUREMENT, SELECTED_FROM, frame=frame),
        )


def sources_of(clips: Sequence[ClipResult], settings: ReportSettings) -> list[Source]:
    """The clips of a report in their order, with what may be said of each."""
    if not clips:
        raise ResultError("a report needs at least one clip")
    sources = []
    for clip in clips:
        for finding in clip.findings:
            check_finding(finding)
        sources.append(
            Source(
                result=clip,
                ref=reference(clip.header),
                # What the site has switched off is no news to a reader: it is left out in silence.
                findings=tuple(
                    finding for finding in clip.findings if withheld(finding, settings) is None
                ),
                left_out=tuple(_refusal_lines(clip.refusals)),
            )
        )
    if len({source.ref.study_instance_uid for source in sources}) > 1:
        raise ResultError("the clips belong to several studies; make a report for each")
    if len({source.ref.sop_instance_uid for source in sources}) < len(sources):
        raise ResultError("a clip was given twice")
    return sorted(sources, key=lambda source: source.order)


def _refusal_lines(refusals: Sequence[Refusal]) -> Iterator[str]:
    """What was not given, a reason once for all that it kept back."""
    titles: dict[tuple[PackRef, str], list[str]] = {}
    for refusal in refusals:
        titles.setdefault((refusal.pack, refusal.reason), []).append(_output_title(refusal.output))
    for (pack, reason), names in titles.items():
        yield f"{', '.join(names)} by {pack_words(pack)}: {reason}"


# The header.


def _add_state_and_evidence(
    dataset: Dataset, sources: Sequence[Source], predecessor: ObjectRef | None
) -> None:
    """What a report says of itself and of what it rests on (PS3.3 C.17.2)."""
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.PerformedProcedureCodeSequence = []
    captures = [source.result.capture for source in sources]
    dataset.CurrentRequestedProcedureEvidenceSequence = hierarchy(
        [source.ref for source in sources] + [ref for ref in captures if ref is not None]
    )
    if predecessor is not None:
        dataset.PredecessorDocumentsSequence = hierarchy([predecessor])


def hierarchy(refs: Iterable[ObjectRef]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""

    def study(ref: ObjectRef) -> str:
        return ref.study_instance_uid

    def series(ref: ObjectRef) -> str:
        return ref.series_instance_uid

    studies = []
    for study_uid, of_study in groupby(sorted(set(refs), key=_order), key=study):
        study_item = Dataset()
        study_item.ReferencedSeriesSequence = []
        study_item.StudyInstanceUID = study_uid
        for the_series, of_series in groupby(of_study, key=series):
            series_item = Dataset()
            series_item.ReferencedSOPSequence = [_sop_item(ref) for ref in of_series]
            series_item.SeriesInstanceUID = the_series
            study_item.ReferencedSeriesSequence.append(series_item)
        studies.append(study_item)
    return studies


def _order(ref: ObjectRef) -> tuple[str, str, str]:
    return (ref.study_instance_uid, ref.series_instance_uid, ref.sop_instance_uid)


def _sop_item(ref: ObjectRef) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = ref.sop_class_uid
    item.ReferencedSOPInstanceUID = ref.sop_instance_uid
    return item


def _packs(sources: Iterable[Source]) -> list[PackRef]:
    """Every pack that took part, by name."""
    packs = {
        pack
        for source in sources
        for pack in (
            *source.result.packs,
            *(finding.pack for finding in source.findings),
            *(refusal.pack for refusal in source.result.refusals),
        )
    }
    return sorted(packs, key=lambda pack: (pack.name, pack.version, pack.weights_sha256))


# The tree.


def _root(
    sources: Sequence[Source],
    settings: ReportSettings,
    tested_on: TestedOn,
    not_read: Sequence[str],
) -> Item:
    groups: list[Item] = []
    summary = summarise(
        [source.result for source in sources], [source.findings for source in sources]
    )
    if summary is not None:
        groups.append(_summary_group(summary, sources, tested_on))
    for source in sources:
        groups.extend(_clip_groups(source, tested_on))
    parts = [
        content.code(codes.LANGUAGE, codes.ENGLISH_US, HAS_CONCEPT_MOD),
        *observer_items(settings),
        content.code(codes.PROCEDURE_REPORTED, codes.TRANSTHORACIC_ECHO, HAS_CONCEPT_MOD),
        content.container(
            codes.IMAGE_LIBRARY,
            [
                content.container(
                    codes.IMAGE_LIBRARY_GROUP, [_library_entry(source) for source in sources]
                )
            ],
        ),
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
                *(content.text(codes.CLIP, clip_words(source)) for source in sources),
                *(content.text(codes.COMMENT, text) for text in not_read),
            ],
        )
    )
    return content.container(
        codes.IMAGING_MEASUREMENT_REPORT, parts, relationship=None, template="1500"
    )


def observer_items(settings: ReportSettings) -> list[Item]:
    """TID 1002 and TID 1004: a device observed."""
    return [
        content.code(codes.OBSERVER_TYPE, codes.DEVICE, HAS_OBS_CONTEXT),
        content.uid(codes.DEVICE_UID, settings.device_uid, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_NAME, MODEL_NAME, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_MANUFACTURER, MANUFACTURER, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_MODEL, MODEL_NAME, HAS_OBS_CONTEXT),
        content.text(codes.DEVICE_SERIAL, settings.device_serial, HAS_OBS_CONTEXT),
    ]


def _library_entry(source: Source) -> Item:
    """TID 1601 and TID 1602: the clip, and which view of the heart it shows."""
    return source.image(
        codes.SOURCE_OF_MEASUREMENT,
        content.CONTAINS,
        children=[
            content.code(codes.MODALITY, codes.ULTRASOUND, HAS_ACQ_CONTEXT),
            *_view_items(source.result.view),
        ],
    )


def _view_items(view: ViewCall | None) -> list[Item]:
    """The view in codes where the model is certain; its label and score in any case."""
    if view is None:
        return []
    items = []
    if view.certain:
        known = VIEWS[view.view]
        items.append(content.code(known.name, known.value, HAS_ACQ_CONTEXT))
        if known.site is not None:
            items.append(content.code(codes.FINDING_SITE, known.site, HAS_ACQ_CONTEXT))
    items.append(content.text(codes.VIEW_LABEL, view.view.value, HAS_ACQ_CONTEXT))
    items.append(
        content.number(codes.VIEW_SCORE, view.score, codes.SCORE, 3, relationship=HAS_ACQ_CONTEXT)
    )
    return items


def _clip_groups(source: Source, tested_on: TestedOn) -> Iterator[Item]:
    """The measurement groups of a clip: by pack, by subject, at most five measurements each."""
    packs = list(dict.fromkeys(finding.pack for finding in source.findings))
    number = 0  # that of the study's summary
    for pack in packs:
        for subject in dict.fromkeys(output.subject for output in OUTPUTS.values()):
            findings = [
                finding
                for output, of_output in OUTPUTS.items()
                for finding in source.findings
                if finding.output == output
                and finding.pack == pack
                and of_output.subject == subject
            ]
            for start in range(0, len(findings), MAX_MEASUREMENTS):
                part = findings[start : start + MAX_MEASUREMENTS]
                number += 1
                yield _group(
                    source, pack, subject, part, start // MAX_MEASUREMENTS, number, tested_on
                )


def _group(
    source: Source,
    pack: PackRef,
    subject: Subject,
    findings: Sequence[Finding],
    part: int,
    number: int,
    tested_on: TestedOn,
) -> Item:
    """TID 1501: what one pack says of one part of the heart in one clip."""
    identity = (source.ref.sop_instance_uid, pack.name, subject.finding.value, str(part))
    frames = dict.fromkeys(finding.frames[0] if finding.frames else 0 for finding in findings)
    capture = source.result.capture
    return content.container(
        codes.MEASUREMENT_GROUP,
        [
            *_group_head(
                f"{subject.short} {source.short}, {pack.name}",
                derive_uid("tracking", *identity),
                subject,
                pack,
                findings,
            ),
            *(_measurement(finding) for finding in findings),
            *_evaluations(findings),
            *_intervals(findings),
            *([_explanation(capture)] if capture is not None else []),
            *(source.coordinate(frame, number) for frame in frames),
            content.text(codes.COMMENT, _group_words(findings, tested_on)),
        ],
    )


def _summary_group(summary: Summary, sources: Sequence[Source], tested_on: TestedOn) -> Item:
    """TID 1501: the ejection fraction of the study, with the clips that it came from.

    Five numbers, the one to read first on top: the fraction, how far its beats lie apart, how
    many they are, and the two volumes.
    """
    ejection = summary.ejection
    firsts = [finding for _, finding in ejection.members]
    items = [
        *_group_head(
            f"Study summary, {summary.pack.name}",
            derive_uid("tracking", sources[0].ref.study_instance_uid, "summary", "ef"),
            OUTPUTS["ef"].subject,
            summary.pack,
            firsts[:1],
        ),
        _mean_item(ejection, summary),
    ]
    if summary.evidence is Evidence.PATIENTS:  # these two names do not tell of the simulator
        items += _spread_items(ejection)
    items += [_mean_item(mean, summary) for mean in summary.volumes]
    for mean in summary.means:
        if mean.low is not None and mean.high is not None:
            items.append(_interval(mean.output, mean.low, mean.high, mean.unit, summary.evidence))
    captures = dict.fromkeys(sources[index].result.capture for index, _ in ejection.members)
    items += [_explanation(capture) for capture in captures if capture is not None]
    points = dict.fromkeys(
        (index, finding.frames[0] if finding.frames else 0)
        for mean in summary.means
        for index, finding in mean.members
    )
    items += [sources[index].coordinate(frame, 0) for index, frame in points]
    items.append(content.text(codes.COMMENT, _summary_words(summary, sources)))
    heads = [mean.members[0][1] for mean in summary.means]
    items.append(content.text(codes.COMMENT, _group_words(heads, tested_on, beats=False)))
    warning = outside_words(finding for mean in summary.means for _, finding in mean.members[1:])
    if warning:
        items.append(content.text(codes.COMMENT, warning))
    return content.container(codes.MEASUREMENT_GROUP, items)


def _spread_items(mean: Mean) -> list[Item]:
    """How far the values behind the ejection fraction lie apart, and how many they are."""
    items = []
    if mean.deviation is not None:
        items.append(
            content.number(
                codes.EF_DEVIATION,
                mean.deviation,
                UNITS[mean.unit],
                OUTPUTS["ef"].decimals,
                [content.code(codes.DERIVATION, codes.STANDARD_DEVIATION, HAS_CONCEPT_MOD)],
            )
        )
    name, unit = (
        (codes.BEATS_AVERAGED, codes.BEATS)
        if mean.of_beats
        else (codes.CLIPS_AVERAGED, codes.CLIPS)
    )
    return [*items, content.number(name, len(mean.values), unit, 0)]


def _mean_item(mean: Mean, summary: Summary) -> Item:
    """TID 300: a mean over beats and clips, called so only where it is one."""
    output = OUTPUTS[mean.output]
    derivation = codes.MEAN if len(mean.values) > 1 else codes.ESTIMATED
    return content.number(
        output.name_of(summary.method, summary.evidence),
        mean.value,
        UNITS[mean.unit],
        output.decimals,
        [
            *_method(summary.method),
            content.code(codes.DERIVATION, derivation, HAS_CONCEPT_MOD),
            *_bounds(mean.output, mean.low, mean.high, mean.unit),
        ],
    )


def _group_head(
    tracking: str, tracking_uid: str, subject: Subject, pack: PackRef, findings: Sequence[Finding]
) -> list[Item]:
    return [
        content.text(codes.TRACKING_IDENTIFIER, tracking, HAS_OBS_CONTEXT),
        content.uid(codes.TRACKING_UID, tracking_uid, HAS_OBS_CONTEXT),
        content.code(codes.FINDING, subject.finding),
        content.code(codes.FINDING_SITE, subject.site, HAS_CONCEPT_MOD),
        *_algorithm(pack, findings),
    ]


def _explanation(capture: ObjectRef) -> Item:
    """TID 1501 row 9d: the picture that shows what moved the values."""
    return content.image(
        codes.VISUAL_EXPLANATION,
        capture.sop_class_uid,
        capture.sop_instance_uid,
        content.CONTAINS,
    )


def _algorithm(pack: PackRef, findings: Iterable[Finding]) -> list[Item]:
    """TID 4019: which pack, with which weights, and where it draws the line."""
    parameters = [f"weights_sha256={pack.weights_sha256}"]
    parameters += [
        f"decision_threshold.{finding.output}={finding.threshold:.6g}"
        for finding in findings
        if finding.threshold is not None
    ]
    return [
        content.code(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD),
        content.text(codes.ALGORITHM_NAME, pack.name, HAS_CONCEPT_MOD),
        content.text(codes.ALGORITHM_VERSION, pack.version, HAS_CONCEPT_MOD),
        content.text(codes.ALGORITHM_MANUFACTURER, MANUFACTURER, HAS_CONCEPT_MOD),
        *(content.text(codes.ALGORITHM_PARAMETERS, each, HAS_CONCEPT_MOD) for each in parameters),
    ]


def _measurement(finding: Finding) -> Item:
    """TID 300: a number, how it came about, and its interval."""
    output = OUTPUTS[finding.output]
    name = output.name_of(finding.method, finding.evidence)
    if finding.kind is Kind.SCORE:
        return content.number(name, main_number(finding), codes.SCORE, output.decimals)
    derivation = codes.MEAN if len(finding.per_beat) > 1 else codes.ESTIMATED
    return content.number(
        name,
        main_number(finding),
        UNITS[finding.unit],
        output.decimals,
        [
            *_method(finding.method),
            content.code(codes.DERIVATION, derivation, HAS_CONCEPT_MOD),
            *_bounds(finding.output, finding.low, finding.high, finding.unit),
        ],
    )


def _method(method: Method) -> list[Item]:
    if method not in codes.METHODS:
        return []
    return [content.code(codes.MEASUREMENT_METHOD, codes.METHODS[method], HAS_CONCEPT_MOD)]


def _bounds(output: str, low: float | None, high: float | None, unit: str) -> list[Item]:
    """The interval as numbers below the value, in the value's own unit."""
    return [
        content.number(
            name, bound, UNITS[unit], OUTPUTS[output].decimals, relationship=HAS_PROPERTIES
        )
        for name, bound in ((codes.INTERVAL_LOW, low), (codes.INTERVAL_HIGH, high))
        if bound is not None
    ]


def _interval(output: str, low: float, high: float, unit: str, evidence: Evidence) -> Item:
    """The interval as words, since many viewers do not show what stands below a number."""
    decimals = OUTPUTS[output].decimals
    return content.text(
        codes.INTERVAL,
        f"{title_of(output, evidence)}: {low:.{decimals}f} to {high:.{decimals}f} {unit}",
    )


def _intervals(findings: Iterable[Finding]) -> list[Item]:
    return [
        _interval(finding.output, finding.low, finding.high, finding.unit, finding.evidence)
        for finding in findings
        if finding.low is not None and finding.high is not None
    ]


def verdict(finding: Finding) -> Concept | None:
    """Present, absent or, where the network looked outside the sector, neither of them.

    None for what is no qualitative finding.
    """
    if OUTPUTS[finding.output].qualitative is None:
        return None
    if finding.score is None or finding.threshold is None:
        return None
    if finding.looked_outside:
        return codes.INDETERMINATE
    return codes.PRESENT if finding.score >= finding.threshold else codes.ABSENT


def _evaluations(findings: Iterable[Finding]) -> list[Item]:
    """A score against its threshold, as a qualitative finding with its severity."""
    items = []
    for finding in findings:
        output = OUTPUTS[finding.output]
        concept = output.finding_of(finding.evidence)
        value = verdict(finding)
        if concept is None or value is None:
            continue
        below = []
        if output.severity is not None:
            below.append(content.code(codes.SEVERITY, output.severity, HAS_CONCEPT_MOD))
        items.append(content.with_children(content.code(concept, value), below))
    return items


# Words.


def clip_words(source: Source) -> str:
    """A line about a clip: its view, who read it, what was not given and why."""
    words = f"{source.title[0].upper()}{source.title[1:]}: {_view_words(source.result.view)}."
    if source.result.not_analysed is not None:
        words += f" Not analysed: {source.result.not_analysed.rstrip('.')}."
    elif source.result.packs:
        words += f" Read by {', '.join(pack_words(pack) for pack in source.result.packs)}."
    warning = outside_words(source.findings)
    if warning:
        words += f" {warning}"
    if source.left_out:
        words += f" Not given: {'; '.join(each.rstrip('.') for each in source.left_out)}."
    return words


def _view_words(view: ViewCall | None) -> str:
    if view is None:
        return "view not determined"
    sure = "" if view.certain else "uncertain, perhaps "
    return f"{sure}{VIEWS[view.view].title} ({view.view.value}, score {view.score:.2f})"


def _summary_words(summary: Summary, sources: Sequence[Source]) -> str:
    ejection = summary.ejection
    names = ", ".join(sources[index].title for index, _ in ejection.members)
    by = f"{summary.method} by {pack_words(summary.pack)}"
    clips = counted(len(ejection.members), "clip")
    if ejection.deviation is None:
        beats = " one beat in" if ejection.of_beats else ""
        return f"From{beats} one clip ({names}), {by}."
    over = f"{counted(len(ejection.values), 'beat')} in {clips}" if ejection.of_beats else clips
    words = (
        f"Mean of {over} ({names}), {by}; range {min(ejection.values):.1f} to "
        f"{max(ejection.values):.1f} %, standard deviation {ejection.deviation:.1f} "
        "percentage points."
    )
    if len(ejection.members) > 1:
        words += (
            " Intervals are the mean of the clips' own: a model errs on all clips of one heart "
            "alike."
        )
    return words


def title_of(output: str, evidence: Evidence) -> str:
    """What an output is called in a line of words, on this evidence."""
    mark = "" if evidence is Evidence.PATIENTS else "SIMULATED ONLY: "
    return f"{mark}{TASKS[output].title}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _group_words(findings: Sequence[Finding], tested_on: TestedOn, *, beats: bool = True) -> str:
    words = evidence_words(findings, tested_on)
    warning = outside_words(findings)
    if warning:
        words += f" {warning}"
    if any(finding.method is Method.REGRESSION for finding in findings):
        words += " Numbers were given directly by a network; nothing was traced."
    without = [
        _output_title(finding.output)
        for finding in findings
        if finding.kind is Kind.MEASUREMENT and (finding.low is None or finding.high is None)
    ]
    if without:
        words += f" No interval is known of: {', '.join(without)}."
    for finding in findings if beats else ():
        if len(finding.per_beat) > 1:
            each = ", ".join(_rounded(finding, value) for value in finding.per_beat)
            words += (
                f" {_output_title(finding.output)}: mean of {len(finding.per_beat)} beats "
                f"({each} {finding.unit})."
            )
    return words


def pack_words(pack: PackRef) -> str:
    """A pack as readers know it."""
    return f"{pack.name} {pack.version}"


def _output_title(output: str) -> str:
    return TASKS[output].title if output in TASKS else output


def _rounded(finding: Finding, value: float) -> str:
    return f"{value:.{OUTPUTS[finding.output].decimals}f}"


def main_number(finding: Finding) -> float:
    """The value, or the score of what has none."""
    number = finding.score if finding.kind is Kind.SCORE else finding.value
    if number is None:  # held by check_finding
        raise ResultError(f"finding {finding.output!r}: a {finding.kind} without its number")
    return number


def _number(header: Dataset, keyword: str) -> float:
    """An integer of the header; infinity where it has none."""
    try:
        return float(int(str(header.get(keyword))))
    except ValueError:
        return math.inf
