"""A study as its page shows it: what is said of each clip, with all that must stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from models.clip import ClipError
from models.finding import Evidence, Finding, PackRef
from models.packs import Pack
from models.tasks import TASKS
from node.cli.findings import beats, finding_json, interval, output_title, value
from node.evidence import cautions, reportable
from node.kept import header_of
from node.records import finding_from_row
from node.results import ClipResult
from node.results.evidence import evidence_words, outside_words
from node.results.summary import Mean, Summary, summarise
from node.settings import Settings
from node.web.pages.pictures import has_picture
from storage.catalog import (
    DeliveryRecord,
    DeliveryState,
    FileState,
    ReadingRecord,
    RecordingKind,
    RecordingRecord,
    RecordingState,
    ResultKind,
    ResultRecord,
    ShownRecording,
    StudyDetail,
    StudyState,
)
from storage.files import FileStore, FileStoreError
from storage.states import HOLDABLE

SIMULATED = "SIMULATED ONLY: "

_STAGE = ("NumberOfStages", "StageName", "StageNumber")


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingLine:
    """A line of a table of findings."""

    title: str
    value: str
    interval: str
    evidence: str
    tested_on: str
    pack: str
    beats: str
    simulated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipView:
    """A clip or an ECG."""

    number: int
    uid: str
    kind: str
    state: str
    reason: str
    view: str
    score: str
    certain: bool
    frame_count: int | None
    attempts: int
    picture: str  #: "cine", "clip", "pages" or empty
    pages: tuple[str, ...]  #: of an ECG's picture: what each explains
    read: tuple[str, ...]  #: what each pack read of an ECG
    findings: tuple[FindingLine, ...]
    not_given: tuple[tuple[str, str], ...]  #: an output and why it was not given
    words: str  #: research use only, and on what evidence
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanLine:
    """A value of the study: the mean over beats and clips."""

    title: str
    value: str
    interval: str
    of: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """What to read first, with all that must stand beside it."""

    lines: tuple[MeanLine, ...]
    by: str
    words: str
    warnings: tuple[str, ...]
    simulated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Buttons:
    """Which buttons make sense now; whether one really goes says the catalog."""

    hold: bool
    release: bool
    retry: bool
    resend: bool


def clip_views(
    detail: StudyDetail, settings: Settings, packs: Sequence[Pack]
) -> tuple[ClipView, ...]:
    """The clips and ECGs of a study, in the order they came."""
    pictured = {
        result.recording_id
        for result in detail.results
        if is_picture(result) and result.file_state is FileState.KEPT
    }
    tested_on = _tested_on(packs)
    return tuple(
        _clip(number, recording, settings, packs, tested_on, pictured=recording.id in pictured)
        for number, recording in enumerate(detail.recordings, start=1)
    )


def is_picture(result: ResultRecord) -> bool:
    """Whether a result is the picture of a clip or an ECG."""
    return (
        result.kind is ResultKind.SC
        and result.recording_id is not None
        and result.stands_for is None
        and (result.subject is RecordingKind.ECG or is_cine(result))
    )


def is_cine(result: ResultRecord) -> bool:
    """Whether a result is the picture of a clip, to be played."""
    return (
        result.kind is ResultKind.SC
        and result.subject is RecordingKind.ULTRASOUND
        and result.recording_id is not None
        and result.stands_for is None
        and result.sop_class_uid == MultiFrameTrueColorSecondaryCaptureImageStorage
    )


def headline(
    detail: StudyDetail, settings: Settings, packs: Sequence[Pack], files: FileStore
) -> Headline | None:
    """The study's ejection fraction, as its report has it; None where there is no sound one."""
    clips, findings = [], []
    for recording in detail.recordings:
        said = _reportable(recording, settings)
        of_clip = recording.kind is RecordingKind.ULTRASOUND
        if of_clip and recording.state is RecordingState.DONE and said:
            try:
                header = _stage(files, recording.file_key)
            except (ClipError, FileStoreError):
                return None  # rest and peak of a stress study could not be told apart
            clips.append(ClipResult(header=header))
            findings.append(said)
    found = summarise(clips, findings)
    return None if found is None else _headline(found, packs)


def buttons(detail: StudyDetail) -> Buttons:
    """Which buttons make sense in a study's state."""
    state = detail.study.state
    held = state is StudyState.HELD
    current = [result for result in detail.results if result.current]
    failed = (
        state is StudyState.FAILED
        or any(item.state is RecordingState.FAILED for item in detail.recordings)
        or any(item.state is DeliveryState.FAILED for item in detail.deliveries)
        or any(item.file_state is FileState.LOST for item in current)
    )
    return Buttons(
        hold=state in HOLDABLE,
        release=held,
        retry=failed and not held,
        resend=bool(current) and not held,
    )


def promise_words(delivery: DeliveryRecord) -> str:
    """How it is known that a destination has what it got, or what is waited for."""
    if delivery.state is DeliveryState.SENT:
        return "awaited"
    words = {"committed": "promised", "found": "shown by a query", "status": "by status alone"}
    return words.get(delivery.promise.value if delivery.promise else "", "")


def result_words(result: ResultRecord) -> str:
    """What a result is, for a reader."""
    if result.kind is ResultKind.SC:
        if result.recording_id is None:
            return "Summary page"
        if result.subject is RecordingKind.ECG:
            return "Explained ECG" if result.stands_for is None else "Single page of an ECG"
        return "Saliency cine" if is_cine(result) else "Single frame of a cine"
    words = {
        ResultKind.SR: "Structured Report",
        ResultKind.TEXT: "Report as text",
        ResultKind.KEY: "Key Object Selection",
    }[result.kind]
    return f"{words}, of ECGs" if result.subject is RecordingKind.ECG else words


def _clip(
    number: int,
    recording: RecordingRecord,
    settings: Settings,
    packs: Sequence[Pack],
    tested_on: dict[tuple[PackRef, str], str],
    *,
    pictured: bool,
) -> ClipView:
    findings = _reportable(recording, settings)
    source = ShownRecording(
        kind=recording.kind,
        mode=recording.mode,
        frame_count=recording.frame_count,
        file_key=recording.file_key,
        cine_key=None,
    )
    score = "" if recording.view_score is None else f"{recording.view_score:.2f}"
    outside = outside_words(findings)
    return ClipView(
        number=number,
        uid=recording.sop_instance_uid,
        kind=recording.kind.value,
        state=recording.state.value,
        reason=recording.reason,
        view=recording.view_label or "",
        score=score,
        certain=bool(recording.view_certain),
        frame_count=recording.frame_count,
        attempts=recording.attempts,
        picture=_picture(recording, source, pictured=pictured),
        pages=tuple(_title(output) for output in recording.pages),
        read=tuple(_read_words(read) for read in recording.readings),
        findings=tuple(_line(finding, tested_on) for finding in findings),
        not_given=tuple((_title(item.output), item.reason) for item in recording.refusals),
        words=evidence_words(findings) if findings else "",
        warnings=(
            *(f"Not to be trusted: {trouble}" for trouble in recording.troubles),
            *((outside,) if outside else ()),
            *cautions(findings, packs),
        ),
    )


def _picture(recording: RecordingRecord, source: ShownRecording, *, pictured: bool) -> str:
    if pictured:
        return "pages" if recording.kind is RecordingKind.ECG else "cine"
    return "clip" if has_picture(source) else ""


def _read_words(read: ReadingRecord) -> str:
    if read.signal == "median":
        whose = "the cart's own median beat" if read.group else "a median beat that was made here"
        return f"{read.pack}: {whose}"
    return f"{read.pack}: the rhythm from {read.begin_ms / 1000:.1f} to {read.end_ms / 1000:.1f} s"


def _reportable(recording: RecordingRecord, settings: Settings) -> tuple[Finding, ...]:
    findings, _withheld = reportable(
        tuple(finding_from_row(row) for row in recording.findings),
        allow_simulated=settings.analysis.allow_simulated_evidence,
        allow_demographics=settings.analysis.person_estimates,
    )
    return findings


def _line(finding: Finding, tested_on: dict[tuple[PackRef, str], str]) -> FindingLine:
    found = finding_json(finding)
    simulated = finding.evidence is not Evidence.PATIENTS
    return FindingLine(
        title=f"{SIMULATED if simulated else ''}{output_title(found)}",
        value=value(found),
        interval=interval(found),
        evidence=finding.evidence.value,
        tested_on=tested_on.get((finding.pack, finding.output), ""),
        pack=f"{finding.pack.name} {finding.pack.version}",
        beats=beats(found),
        simulated=simulated,
    )


def _headline(found: Summary, packs: Sequence[Pack]) -> Headline:
    findings = [finding for mean in found.means for _, finding in mean.members]
    outside = outside_words(findings)
    simulated = found.evidence is not Evidence.PATIENTS
    return Headline(
        lines=tuple(_mean(mean, simulated=simulated) for mean in found.means),
        by=f"{found.pack.name} {found.pack.version}, {found.method.value}",
        words=evidence_words(findings),
        warnings=(
            *((outside,) if outside else ()),
            *dict.fromkeys(cautions(findings, packs)),
        ),
        simulated=simulated,
    )


def _mean(mean: Mean, *, simulated: bool) -> MeanLine:
    shown = {
        "output": mean.output, "unit": mean.unit, "value": mean.value, "score": None,
        "low": mean.low, "high": mean.high,
    }  # fmt: skip
    clips = _counted(len({index for index, _ in mean.members}), "clip")
    beats_in = f"{_counted(len(mean.values), 'beat')} in " if mean.of_beats else ""
    spread = "" if mean.deviation is None else f", standard deviation {mean.deviation:.1f}"
    return MeanLine(
        title=f"{SIMULATED if simulated else ''}{_title(mean.output)}",
        value=value(shown),
        interval=interval(shown),
        of=f"{'mean of ' if len(mean.values) > 1 else 'from '}{beats_in}{clips}{spread}",
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _title(output: str) -> str:
    task = TASKS.get(output)
    return output if task is None else task.title


def _tested_on(packs: Sequence[Pack]) -> dict[tuple[PackRef, str], str]:
    return {
        (pack.ref, output.name): output.tested_on
        for pack in packs
        for output in pack.manifest.outputs
    }


@lru_cache(maxsize=512)
def _stage(files: FileStore, key: str) -> Dataset:
    """What a clip's header says of a stress study, and nothing else of it."""
    header = header_of(files, key)
    kept = Dataset()
    for keyword in _STAGE:
        if keyword in header:
            kept[keyword] = header[keyword]
    return kept
