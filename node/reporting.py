"""From a study's rows to its results: what is reported, what is not, and why.

One Structured Report a study and revision, and the same as text where a destination wants it; the
saliency cines were made when each clip was analysed and are only pointed at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

import structlog
from sqlalchemy.orm import Session

from models.views import View, ViewCall
from node.kept import bytes_of, header_of
from node.records import finding_from_row, pack_from_row, refusal_from_row
from node.results import (
    ClipResult,
    ObjectRef,
    ReportSettings,
    TestedOn,
    build_key_object,
    build_page,
    build_report,
    build_text_report,
)
from node.results.store import FaultyResultError, keep_result, new_result
from node.rules import facts_of, rule_on_results, ruled_out
from node.sections import Rule
from storage import catalog
from storage.files import FileStore, FileStoreError
from storage.states import RecordingKind, RecordingState, ResultKind

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyMaterial:
    """What a report is made from. ``captures`` are the saliency cines by recording.

    ``predecessor`` is the last earlier report, ``text_predecessor`` the last one of text.
    """

    study_instance_uid: str
    revision: int
    recordings: tuple[catalog.RecordingRecord, ...]
    captures: Mapping[int, catalog.ResultRecord]
    predecessor: catalog.ResultRecord | None
    text_predecessor: catalog.ResultRecord | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What became of a study: results to deliver, or the reason why there are none.

    ``faulty`` are objects that failed the gate and are done without. ``destinations`` are those
    that a rule chose, ``decided_by`` names it; None: all.
    """

    results: tuple[catalog.NewResult, ...] = ()
    faulty: tuple[FaultyResultError, ...] = ()
    ignored: str | None = None
    failed: str | None = None
    destinations: tuple[str, ...] | None = None
    decided_by: str = ""


class Reporter:
    """Makes results.

    Parameters
    ----------
    settings
        Say, among other things, which outputs may stand in a report.
    tested_on
        For each output, on which data it was tested.
    text_for
        The destinations that also get the report as text.
    key_object_for
        The destinations that also get a Key Object Selection.
    summary_page
        Make a page of each study's results, as a picture.
    rules
        Choose the destinations of a study's results, by its first clip.
    """

    def __init__(
        self,
        files: FileStore,
        settings: ReportSettings,
        *,
        tested_on: TestedOn = MappingProxyType({}),
        text_for: Sequence[str] = (),
        key_object_for: Sequence[str] = (),
        summary_page: bool = True,
        rules: Sequence[Rule] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._files = files
        self._settings = settings
        self._tested_on = tested_on
        self._text_for = tuple(text_for)
        self._key_object_for = tuple(key_object_for)
        self._summary_page = summary_page
        self._rules = tuple(rules)
        self._clock = clock

    def report(self, material: StudyMaterial) -> Report:
        """Make the results of a study whose recordings have all been looked at."""
        states = Counter(recording.state for recording in material.recordings)
        if not states[RecordingState.DONE]:
            if states[RecordingState.FAILED]:
                return Report(failed=_why_failed(material))
            return Report(ignored=_why_ignored(material))
        clips = tuple(
            self._clip(recording, material)
            for recording in material.recordings
            if recording.kind is RecordingKind.ULTRASOUND
        )
        created_at = self._clock()
        chosen, decided_by = self._destinations(material, clips)
        encoded = build_report(
            clips,
            revision=material.revision,
            predecessor=_reference(material.predecessor, material),
            settings=self._settings,
            created_at=created_at,
            tested_on=self._tested_on,
            not_read=_not_read(material),
        )
        # The report points at the cines: an archive gets them first.
        results = [new_result(capture) for capture in material.captures.values()]
        faulty: list[FaultyResultError] = []
        if self._summary_page:
            made = self._beside("page", partial(self._page, clips, material, created_at), faulty)
            results += made
        results.append(keep_result(self._files, encoded, kind=ResultKind.SR))
        if text_for := _among(self._text_for, chosen):
            made = self._beside("text", partial(self._text, clips, material, created_at), faulty)
            results += [replace(kept, destinations=text_for) for kept in made]
        if key_object_for := _among(self._key_object_for, chosen):
            key_object = partial(self._key_object, clips, tuple(results), material, created_at)
            made = self._beside("key-object", key_object, faulty)
            results += [replace(kept, destinations=key_object_for) for kept in made]
        return Report(
            results=tuple(results),
            faulty=tuple(faulty),
            destinations=chosen,
            decided_by=decided_by,
        )

    def _destinations(
        self, material: StudyMaterial, clips: Sequence[ClipResult]
    ) -> tuple[tuple[str, ...] | None, str]:
        """Where the results go, and who says so: one report speaks for all clips of a study.

        The first clip decides, for every revision alike, so that whoever gets a revision has got
        those before it.
        """
        first = next(one for one in material.recordings if one.kind is RecordingKind.ULTRASOUND)
        facts = facts_of(
            clips[0].header,
            calling_ae=first.calling_ae,
            called_ae=first.called_ae,
            door=first.door,
        )
        return rule_on_results(self._rules, facts)

    def missing(self, material: StudyMaterial) -> int:
        """How many recordings' files are gone; raises FileStoreError where none can be read."""
        gone = 0
        for recording in material.recordings:
            try:
                self._files.check_readable(recording.file_key)
            except FileStoreError as error:
                if not error.missing:
                    raise
                gone += 1
        return gone

    def _beside(
        self,
        what: str,
        make: Callable[[], catalog.NewResult],
        faulty: list[FaultyResultError],
    ) -> list[catalog.NewResult]:
        """What goes beside the report; nothing where it cannot be made: the report is worth more.

        One with a fault is added to ``faulty``, for quarantine.
        """
        try:
            return [make()]
        except (ValueError, OSError) as error:
            log.error(f"{what}-not-made", reason=str(error))  # noqa: TRY400 - says all
            faulty += [error] if isinstance(error, FaultyResultError) else []
            return []

    def _text(
        self, clips: Sequence[ClipResult], material: StudyMaterial, created_at: datetime
    ) -> catalog.NewResult:
        """The report as plain sentences."""
        encoded = build_text_report(
            clips,
            revision=material.revision,
            predecessor=_reference(material.text_predecessor, material),
            settings=self._settings,
            created_at=created_at,
            tested_on=self._tested_on,
            not_read=_not_read(material),
        )
        return keep_result(self._files, encoded, kind=ResultKind.TEXT)

    def _page(
        self, clips: Sequence[ClipResult], material: StudyMaterial, created_at: datetime
    ) -> catalog.NewResult:
        """The summary page, with curves and frames of the cines."""
        encoded = build_page(
            clips,
            _Cines(self._files, tuple(material.captures.values())),
            revision=material.revision,
            settings=self._settings,
            created_at=created_at,
            tested_on=self._tested_on,
        )
        return keep_result(self._files, encoded, kind=ResultKind.SC)

    def _key_object(
        self,
        clips: Sequence[ClipResult],
        results: Sequence[catalog.NewResult],
        material: StudyMaterial,
        created_at: datetime,
    ) -> catalog.NewResult:
        """What points at the clips, their cines and the pictures that are no clip's."""
        pictures = [item for item in results if item.kind is ResultKind.SC]
        refs = [_reference(item, material) for item in pictures if item.recording_id is None]
        encoded = build_key_object(
            clips,
            [ref for ref in refs if ref is not None],
            revision=material.revision,
            settings=self._settings,
            created_at=created_at,
        )
        return keep_result(self._files, encoded, kind=ResultKind.KEY)

    def _clip(self, recording: catalog.RecordingRecord, material: StudyMaterial) -> ClipResult:
        capture = material.captures.get(recording.id)
        return ClipResult(
            header=header_of(self._files, recording.file_key),
            view=_view(recording),
            findings=tuple(finding_from_row(row) for row in recording.findings),
            refusals=tuple(refusal_from_row(row) for row in recording.refusals),
            not_analysed=None if recording.state is RecordingState.DONE else recording.reason,
            capture=_reference(capture, material),
            packs=tuple(pack_from_row(row) for row in recording.packs),
        )


def _among(names: Sequence[str], chosen: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for name in names if chosen is None or name in chosen)


class _Cines(Mapping[str, bytes]):
    """Cines by SOP Instance UID, read when they are asked for: a study may have many."""

    def __init__(self, files: FileStore, captures: Sequence[catalog.ResultRecord]) -> None:
        self._files = files
        self._keys = {capture.sop_instance_uid: capture.file_key for capture in captures}

    def __getitem__(self, sop_instance_uid: str) -> bytes:
        return bytes_of(self._files, self._keys[sop_instance_uid])

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def study_material(session: Session, study: catalog.ReportableStudy) -> StudyMaterial:
    """Read what a report of a study is made from."""
    # What went to some archive in place of a result is no result to report on.
    results = [
        result
        for result in catalog.results_of(session, study.study_id)
        if result.stands_for is None
    ]

    def last(kind: ResultKind) -> catalog.ResultRecord | None:
        earlier = [
            result for result in results if result.kind is kind and result.revision < study.revision
        ]
        return max(earlier, key=lambda result: (result.revision, result.id), default=None)

    recordings = catalog.recordings_of(session, study.study_id)
    read = {recording.id for recording in recordings if recording.state is RecordingState.DONE}
    return StudyMaterial(
        study_instance_uid=study.study_instance_uid,
        revision=study.revision,
        recordings=recordings,
        # A clip that was analysed again may have left an older cine: the last one counts.
        captures={
            result.recording_id: result
            for result in results
            if result.kind is ResultKind.SC and result.recording_id in read
        },
        predecessor=last(ResultKind.SR),
        text_predecessor=last(ResultKind.TEXT),
    )


def _view(recording: catalog.RecordingRecord) -> ViewCall | None:
    if recording.view_label is None:
        return None
    return ViewCall(
        view=View(recording.view_label),
        score=recording.view_score or 0.0,
        certain=bool(recording.view_certain),
    )


def _reference(
    result: catalog.ResultRecord | catalog.NewResult | None, material: StudyMaterial
) -> ObjectRef | None:
    if result is None:
        return None
    return ObjectRef(
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        study_instance_uid=material.study_instance_uid,
    )


def _not_read(material: StudyMaterial) -> tuple[str, ...]:
    """What is no clip, and why it was left: a study may bring its ECG."""
    return tuple(
        f"{recording.kind.value.upper()}, not analysed: {recording.reason.rstrip('.')}."
        for recording in material.recordings
        if recording.kind is not RecordingKind.ULTRASOUND
        and recording.state is not RecordingState.DONE
    )


def _why_ignored(material: StudyMaterial) -> str:
    if not material.recordings:
        return "no image that a model could look at"
    rulings = Counter(item.reason for item in material.recordings if ruled_out(item.reason))
    seen = Counter(
        recording.view_label or "not readable"
        for recording in material.recordings
        if not ruled_out(recording.reason)
    )
    told = [
        f"{reason}: {count} of {len(material.recordings)} clips"
        for reason, count in sorted(rulings.items())
    ]
    if seen:
        labels = ", ".join(f"{count} x {label}" for label, count in sorted(seen.items()))
        told.append(f"no apical four-chamber clip that a model can read: {labels}")
    return "; ".join(told)


def _why_failed(material: StudyMaterial) -> str:
    failed = [item for item in material.recordings if item.state is RecordingState.FAILED]
    return f"{len(failed)} of {len(material.recordings)} clips failed: {failed[0].reason}"
