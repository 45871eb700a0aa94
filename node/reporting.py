"""From a study's rows to its results: what is reported, what is not, and why.

One Structured Report of a study's clips and one of its ECGs, and the same as text where a
destination wants it; the pictures were made when each recording was analysed and are only pointed
at. The two reports know nothing of each other: what comes of one is no other for the other's sake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

import structlog
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from models.views import View, ViewCall
from node.kept import bytes_of, header_of, without_samples
from node.records import (
    finding_from_row,
    pack_from_row,
    reading_from_row,
    refusal_from_row,
)
from node.results import (
    ClipResult,
    EcgResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    TestedOn,
    build_ecg_report,
    build_ecg_text_report,
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
from storage.states import FileState, RecordingKind, RecordingState, ResultKind

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyMaterial:
    """What reports are made from. ``captures`` are the pictures by recording.

    ``earlier`` are the results of earlier revisions, the oldest first, but for these.
    """

    study_instance_uid: str
    revision: int
    recordings: tuple[catalog.RecordingRecord, ...]
    captures: Mapping[int, catalog.ResultRecord]
    earlier: tuple[catalog.ResultRecord, ...] = ()

    def of(self, kind: RecordingKind) -> tuple[catalog.RecordingRecord, ...]:
        """The recordings of a kind, in the order they came."""
        return tuple(recording for recording in self.recordings if recording.kind is kind)

    @property
    def counted(self) -> str:
        """How many recordings there are, and what they are, in words but for the plural's s."""
        kinds = {recording.kind for recording in self.recordings}
        nouns = {RecordingKind.ULTRASOUND: "clip", RecordingKind.ECG: "ECG"}
        noun = nouns[kinds.pop()] if len(kinds) == 1 else "recording"
        return f"{len(self.recordings)} {noun}"

    def read(self, kind: RecordingKind) -> bool:
        """Whether any recording of a kind was analysed."""
        return any(recording.state is RecordingState.DONE for recording in self.of(kind))

    def last(
        self, kind: ResultKind, subject: RecordingKind, *, before: int | None = None
    ) -> catalog.ResultRecord | None:
        """The last result of a kind from before a revision, this one unless another is given."""
        limit = self.revision if before is None else before
        return next(
            (
                result
                for result in reversed(self.earlier)
                if result.kind is kind and result.subject is subject and result.revision < limit
            ),
            None,
        )


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
        of_kinds = ((RecordingKind.ULTRASOUND, self._of_clips), (RecordingKind.ECG, self._of_ecgs))
        created_at = self._clock()
        parts = [make(material, created_at) for kind, make in of_kinds if material.read(kind)]
        return _together(parts)

    def _of_clips(self, material: StudyMaterial, created_at: datetime) -> Report:
        kind = RecordingKind.ULTRASOUND
        clips = tuple(self._clip(recording, material) for recording in material.of(kind))
        chosen, decided_by = self._destinations(material, clips[0].header, kind)
        text_for = _among(self._text_for, chosen)
        key_object_for = _among(self._key_object_for, chosen)
        # The report points at the cines: an archive gets them first.
        results = _captures(material, kind)
        faulty: list[FaultyResultError] = []

        def build(revision: int, predecessor: ObjectRef | None) -> EncodedObject:
            return build_report(
                clips,
                revision=revision,
                predecessor=predecessor,
                settings=self._settings,
                created_at=created_at,
                tested_on=self._tested_on,
                not_read=_not_read(material),
            )

        standing = _standing(material, kind, build, text_for, key_object_for)
        if standing is not None:
            results += standing
            return Report(results=tuple(results), destinations=chosen, decided_by=decided_by)
        encoded = build(material.revision, _predecessor(material, ResultKind.SR, kind))
        if self._summary_page:
            made = self._beside("page", partial(self._page, clips, material, created_at), faulty)
            results += made
        results.append(keep_result(self._files, encoded, kind=ResultKind.SR))
        if text_for:
            made = self._beside("text", partial(self._text, clips, material, created_at), faulty)
            results += [replace(kept, destinations=text_for) for kept in made]
        if key_object_for:
            key_object = partial(self._key_object, clips, tuple(results), material, created_at)
            made = self._beside("key-object", key_object, faulty)
            results += [replace(kept, destinations=key_object_for) for kept in made]
        return Report(
            results=tuple(results),
            faulty=tuple(faulty),
            destinations=chosen,
            decided_by=decided_by,
        )

    def _of_ecgs(self, material: StudyMaterial, created_at: datetime) -> Report:
        kind = RecordingKind.ECG
        ecgs = tuple(self._ecg(recording, material) for recording in material.of(kind))
        chosen, decided_by = self._destinations(material, ecgs[0].header, kind)
        text_for = _among(self._text_for, chosen)
        key_object_for = _among(self._key_object_for, chosen)
        results = _captures(material, kind)
        faulty: list[FaultyResultError] = []

        def build(revision: int, predecessor: ObjectRef | None) -> EncodedObject:
            return build_ecg_report(
                ecgs,
                revision=revision,
                predecessor=predecessor,
                settings=self._settings,
                created_at=created_at,
                tested_on=self._tested_on,
            )

        standing = _standing(material, kind, build, text_for, key_object_for)
        if standing is not None:
            results += standing
            return Report(results=tuple(results), destinations=chosen, decided_by=decided_by)
        encoded = build(material.revision, _predecessor(material, ResultKind.SR, kind))
        results.append(_of_ecg(keep_result(self._files, encoded, kind=ResultKind.SR)))
        if text_for:
            made = self._beside("text", partial(self._ecg_text, ecgs, material, created_at), faulty)
            results += [replace(_of_ecg(kept), destinations=text_for) for kept in made]
        if key_object_for:
            key_object = partial(self._ecg_key_object, ecgs, material, created_at)
            made = self._beside("key-object", key_object, faulty)
            results += [replace(_of_ecg(kept), destinations=key_object_for) for kept in made]
        return Report(
            results=tuple(results),
            faulty=tuple(faulty),
            destinations=chosen,
            decided_by=decided_by,
        )

    def _destinations(
        self, material: StudyMaterial, header: Dataset, kind: RecordingKind
    ) -> tuple[tuple[str, ...] | None, str]:
        """Where the results go, and who says so: one report speaks for all recordings of a kind.

        The first one decides, for every revision alike, so that whoever gets a revision has got
        those before it.
        """
        first = material.of(kind)[0]
        facts = facts_of(
            header,
            calling_ae=first.calling_ae,
            called_ae=first.called_ae,
            door=first.door,
            kind=kind,
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
            predecessor=_predecessor(material, ResultKind.TEXT, RecordingKind.ULTRASOUND),
            settings=self._settings,
            created_at=created_at,
            tested_on=self._tested_on,
            not_read=_not_read(material),
        )
        return keep_result(self._files, encoded, kind=ResultKind.TEXT)

    def _ecg_text(
        self, ecgs: Sequence[EcgResult], material: StudyMaterial, created_at: datetime
    ) -> catalog.NewResult:
        """The report of the ECGs as plain sentences."""
        encoded = build_ecg_text_report(
            ecgs,
            revision=material.revision,
            predecessor=_predecessor(material, ResultKind.TEXT, RecordingKind.ECG),
            settings=self._settings,
            created_at=created_at,
            tested_on=self._tested_on,
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

    def _ecg_key_object(
        self, ecgs: Sequence[EcgResult], material: StudyMaterial, created_at: datetime
    ) -> catalog.NewResult:
        """What points at the ECGs and their pictures."""
        encoded = build_key_object(
            (),
            ecgs=ecgs,
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

    def _ecg(self, recording: catalog.RecordingRecord, material: StudyMaterial) -> EcgResult:
        packs = tuple(pack_from_row(row) for row in recording.packs)
        return EcgResult(
            header=without_samples(header_of(self._files, recording.file_key)),
            findings=tuple(finding_from_row(row) for row in recording.findings),
            refusals=tuple(refusal_from_row(row) for row in recording.refusals),
            troubles=recording.troubles,
            not_analysed=None if recording.state is RecordingState.DONE else recording.reason,
            capture=_reference(material.captures.get(recording.id), material),
            pages=recording.pages,
            packs=packs,
            readings=tuple(
                reading_from_row(read, pack)
                for read in recording.readings
                for pack in packs
                if pack.name == read.pack
            ),
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
    earlier = [result for result in results if result.revision < study.revision]
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
        earlier=tuple(sorted(earlier, key=lambda result: (result.revision, result.id))),
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


def _predecessor(
    material: StudyMaterial, kind: ResultKind, subject: RecordingKind
) -> ObjectRef | None:
    return _reference(material.last(kind, subject), material)


def _captures(material: StudyMaterial, kind: RecordingKind) -> list[catalog.NewResult]:
    """The pictures of the recordings of a kind."""
    ids = {recording.id for recording in material.of(kind)}
    return [new_result(made) for of, made in material.captures.items() if of in ids]


def _of_ecg(made: catalog.NewResult) -> catalog.NewResult:
    return replace(made, subject=RecordingKind.ECG)


def _standing(
    material: StudyMaterial,
    kind: RecordingKind,
    build: Callable[[int, ObjectRef | None], EncodedObject],
    text_for: tuple[str, ...],
    key_object_for: tuple[str, ...],
) -> list[catalog.NewResult] | None:
    """What was made for an earlier revision, where that says all that there is to say.

    So a late ECG leaves the report of its echo as it was, and the other way round. None: this
    revision has something new to say of these recordings, or there is nothing of another kind.
    """
    last = material.last(ResultKind.SR, kind)
    if last is None or len(material.of(kind)) == len(material.recordings):
        return None
    before = material.last(ResultKind.SR, kind, before=last.revision)
    same = build(last.revision, _reference(before, material))
    beside = [
        result
        for result in material.earlier
        if result.revision == last.revision
        and result.subject is kind
        and result.recording_id is None
    ]
    there = all(one.current and one.file_state is FileState.KEPT for one in beside)
    if same.ref.sop_instance_uid != last.sop_instance_uid or not there:
        return None
    only = {ResultKind.TEXT: text_for, ResultKind.KEY: key_object_for}
    return [replace(new_result(one), destinations=only.get(one.kind)) for one in beside]


def _together(parts: Sequence[Report]) -> Report:
    """One report of several, each with the destinations that were chosen for it."""
    if len({part.destinations for part in parts}) == 1:
        destinations = parts[0].destinations
        results = [result for part in parts for result in part.results]
    else:
        every = [part.destinations for part in parts if part.destinations is not None]
        together = dict.fromkeys(name for names in every for name in names)
        destinations = tuple(together) if len(every) == len(parts) else None
        results = [
            replace(result, destinations=part.destinations)
            if result.destinations is None
            else result
            for part in parts
            for result in part.results
        ]
    return Report(
        results=tuple(results),
        faulty=tuple(faulty for part in parts for faulty in part.faulty),
        destinations=destinations,
        decided_by=" and ".join(
            dict.fromkeys(part.decided_by for part in parts if part.decided_by)
        ),
    )


def _not_read(material: StudyMaterial) -> tuple[str, ...]:
    """What is no clip, and why it was left: a study may bring its ECG."""
    return tuple(
        f"{recording.kind.value.upper()}, not analysed: {recording.reason.rstrip('.')}."
        for recording in material.of(RecordingKind.ECG)
        if recording.state is not RecordingState.DONE
    )


def _why_ignored(material: StudyMaterial) -> str:
    if not material.recordings:
        return "no image that a model could look at"
    told = []
    clips, ecgs = material.of(RecordingKind.ULTRASOUND), material.of(RecordingKind.ECG)
    for recordings, noun in ((clips, "clips"), (ecgs, "ECGs")):
        rulings = Counter(item.reason for item in recordings if ruled_out(item.reason))
        told += [
            f"{reason}: {count} of {len(recordings)} {noun}"
            for reason, count in sorted(rulings.items())
        ]
    seen = Counter(
        recording.view_label or "not readable"
        for recording in clips
        if not ruled_out(recording.reason)
    )
    if seen:
        labels = ", ".join(f"{count} x {label}" for label, count in sorted(seen.items()))
        told.append(f"no apical four-chamber clip that a model can read: {labels}")
    reasons = Counter(item.reason for item in ecgs if not ruled_out(item.reason))
    if reasons:
        words = ", ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items()))
        told.append(f"no ECG that a model can read: {words}")
    return "; ".join(told)


def _why_failed(material: StudyMaterial) -> str:
    failed = [item for item in material.recordings if item.state is RecordingState.FAILED]
    return f"{len(failed)} of {material.counted}s failed: {failed[0].reason}"
