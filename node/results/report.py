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

from models.finding import Evidence
from models.views import ViewCall
from node.results import codes, content
from node.results.codes import OUTPUTS, UNITS, VIEWS, Concept
from node.results.content import HAS_ACQ_CONTEXT, HAS_CONCEPT_MOD, SELECTED_FROM, Item
from node.results.document import Series, Source, in_order, number_of, reportable, write_document
from node.results.evidence import NOTHING_KNOWN, TestedOn, outside_words
from node.results.groups import (
    Part,
    bounds,
    counted,
    evaluations,
    explanation,
    group_head,
    group_words,
    interval,
    intervals,
    measurement,
    method_items,
    observer_items,
    pack_words,
    parts_of,
    refusal_lines,
)
from node.results.objects import (
    RESEARCH_WORDS,
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    derive_uid,
    reference,
)
from node.results.summary import Mean, Summary, summarise


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


@dataclass(frozen=True)
class ClipSource(Source[ClipResult]):
    """A clip as a report speaks of it."""

    @cached_property
    def frame_count(self) -> int:
        count = number_of(self.result.header, "NumberOfFrames")
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


def sources_of(clips: Sequence[ClipResult], settings: ReportSettings) -> list[ClipSource]:
    """The clips of a report in their order, with what may be said of each."""
    return in_order(
        [
            ClipSource(
                result=clip,
                ref=reference(clip.header),
                findings=reportable(clip.findings, settings),
                left_out=tuple(refusal_lines(clip.refusals)),
            )
            for clip in clips
        ],
        "clip",
    )


# The tree.


def _root(
    sources: Sequence[ClipSource],
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


def _library_entry(source: ClipSource) -> Item:
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


def _clip_groups(source: ClipSource, tested_on: TestedOn) -> Iterator[Item]:
    """The measurement groups of a clip. Number 0 is that of the study's summary."""
    for number, part in enumerate(parts_of(source.findings), start=1):
        yield _group(source, part, number, tested_on)


def _group(source: ClipSource, part: Part, number: int, tested_on: TestedOn) -> Item:
    """TID 1501: what one pack says of one part of the heart in one clip."""
    subject, pack, findings = part.subject, part.pack, part.findings
    identity = (source.ref.sop_instance_uid, pack.name, subject.finding.value, str(part.number))
    frames = dict.fromkeys(finding.frames[0] if finding.frames else 0 for finding in findings)
    capture = source.result.capture
    return content.container(
        codes.MEASUREMENT_GROUP,
        [
            *group_head(
                f"{subject.short} {source.short or 'clip'}, {pack.name}",
                derive_uid("tracking", *identity),
                subject,
                pack,
                findings,
            ),
            *(measurement(finding) for finding in findings),
            *evaluations(findings),
            *intervals(findings),
            *([explanation(capture)] if capture is not None else []),
            *(source.coordinate(frame, number) for frame in frames),
            content.text(codes.COMMENT, group_words(findings, tested_on)),
        ],
    )


def _summary_group(summary: Summary, sources: Sequence[ClipSource], tested_on: TestedOn) -> Item:
    """TID 1501: the ejection fraction of the study, with the clips that it came from.

    Five numbers, the one to read first on top: the fraction, how far its beats lie apart, how
    many they are, and the two volumes.
    """
    ejection = summary.ejection
    firsts = [finding for _, finding in ejection.members]
    items = [
        *group_head(
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
            items.append(interval(mean.output, mean.low, mean.high, mean.unit, summary.evidence))
    captures = dict.fromkeys(sources[index].result.capture for index, _ in ejection.members)
    items += [explanation(capture) for capture in captures if capture is not None]
    points = dict.fromkeys(
        (index, finding.frames[0] if finding.frames else 0)
        for mean in summary.means
        for index, finding in mean.members
    )
    items += [sources[index].coordinate(frame, 0) for index, frame in points]
    items.append(content.text(codes.COMMENT, _summary_words(summary, sources)))
    heads = [mean.members[0][1] for mean in summary.means]
    items.append(content.text(codes.COMMENT, group_words(heads, tested_on, beats=False)))
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
            *method_items(summary.method),
            content.code(codes.DERIVATION, derivation, HAS_CONCEPT_MOD),
            *bounds(mean.output, mean.low, mean.high, mean.unit),
        ],
    )


# Words.


def clip_words(source: ClipSource) -> str:
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


def _summary_words(summary: Summary, sources: Sequence[ClipSource]) -> str:
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
