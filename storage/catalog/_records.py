"""The frozen records that go into the catalog and come out of it.

Everything that leaves a session is one of these, so that any thread may keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from storage.states import (
    CommitmentOutcome,
    DeliveryState,
    FileState,
    Promise,
    RecordingKind,
    RecordingState,
    ResultKind,
    Silence,
    StudyState,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewInstance:
    """An object whose file is kept and which is now to be acknowledged.

    ``recording_kind`` None means that no model may look at it. ``urgency`` raises the study's;
    ``urgency_reason`` says why in the timeline.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    content_sha256: str
    size_bytes: int
    file_key: str
    door: str
    received_at: datetime
    calling_ae: str = ""
    called_ae: str = ""
    peer_host: str = ""
    own: bool = False
    recording_kind: RecordingKind | None = None
    urgency: int = 0
    urgency_reason: str = ""
    study_date: date | None = None
    accession_number: str | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceRecord:
    """An instance that is kept."""

    id: int
    study_id: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    content_sha256: str
    size_bytes: int
    file_key: str
    calling_ae: str
    called_ae: str
    peer_host: str
    door: str
    received_at: datetime
    own: bool
    revision: int
    recording_id: int | None
    file_state: FileState = FileState.KEPT


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecord:
    """A study, as a list shows it. ``images`` counts instances that the node did not make."""

    id: int
    study_instance_uid: str
    state: StudyState
    reason: str
    next_step: str
    revision: int
    state_before_hold: StudyState | None
    urgency: int
    first_image_at: datetime
    last_image_at: datetime
    state_since: datetime
    study_date: date | None
    accession_number: str | None
    description: str | None
    images: int
    recordings: Mapping[str, int]  #: how many in each state that has any


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletableStudy:
    """A study that is quiet long enough, and why that is so, in words."""

    study_id: int
    study_instance_uid: str
    revision: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportableStudy:
    """A study whose recordings all have an end."""

    study_id: int
    study_instance_uid: str
    revision: int
    holder: str = ""  #: who makes its results


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedRecording:
    """A recording that this worker has taken; ``state`` says for what: VIEWING or ANALYSING."""

    recording_id: int
    study_id: int
    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    kind: RecordingKind
    state: RecordingState
    file_key: str
    attempts: int
    ordinal: int  #: the how-manieth recording of its study it is, from 1 on
    view_label: str | None
    view_score: float | None = None
    calling_ae: str = ""
    called_ae: str = ""
    door: str = ""
    queued_at: datetime | None = None
    holder: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOutcome:
    """What reading a recording said. ``label`` None: this kind of recording has no views."""

    label: str | None
    score: float | None
    certain: bool | None
    mode: str | None
    frame_count: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingRecord:
    """One output's value for one recording, going in and coming out.

    ``low`` and ``high`` bound a 95 % interval in ``unit`` (UCUM). ``per_beat`` is what each
    heartbeat gave, where ``value`` is their mean. ``outside_share`` is how much of what moved the
    value lay outside the scanning sector, 0 to 1. ``spans_ms`` are begin and end of the stretches
    of an ECG that moved the value most, the most telling first.
    """

    output: str
    kind: str
    value: float | None
    unit: str
    method: str
    evidence: str
    pack: str
    pack_version: str
    weights_sha256: str
    low: float | None = None
    high: float | None = None
    score: float | None = None
    threshold: float | None = None
    frames: tuple[int, ...] = ()
    per_beat: tuple[float, ...] = ()
    outside_share: float | None = None
    spans_ms: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingRecord:
    """Which stretch of an ECG a pack read.

    ``signal`` is "rhythm" or "median". ``group`` is the multiplex group of the object, from 1 on,
    and ``channels`` are those of the leads that were read; a stretch that stands in no object, such
    as a median beat that was made here, has group 0 and no channels. ``begin_ms`` and ``end_ms``
    count from the group's first sample.
    """

    pack: str
    signal: str
    group: int
    channels: tuple[int, ...]
    begin_ms: float
    end_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusalRecord:
    """An output that was not given for a recording, and why."""

    output: str
    reason: str
    pack: str
    pack_version: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PackRunRecord:
    """A pack that ran on a recording."""

    pack: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NewResult:
    """A result whose bytes are in the file store and which is now to be sent.

    ``destinations`` are the names of those that are to have it, None for every one. ``subject`` is
    the kind of recording that it speaks of.
    """

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    file_key: str
    sha256: str
    size_bytes: int
    recording_id: int | None = None
    destinations: tuple[str, ...] | None = None
    subject: RecordingKind = RecordingKind.ULTRASOUND


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingRecord:
    """A recording with all that is known of it."""

    id: int
    study_id: int
    study_instance_uid: str
    kind: RecordingKind
    state: RecordingState
    reason: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_key: str
    revision: int  #: of the study, in which it came
    mode: str | None
    view_label: str | None
    view_score: float | None
    view_certain: bool | None
    frame_count: int | None
    attempts: int
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    findings: tuple[FindingRecord, ...]
    refusals: tuple[RefusalRecord, ...]
    packs: tuple[PackRunRecord, ...]
    calling_ae: str = ""
    called_ae: str = ""
    door: str = ""
    troubles: tuple[str, ...] = ()  #: what cannot be trusted in it, in words
    readings: tuple[ReadingRecord, ...] = ()  #: which stretch of an ECG each pack read
    pages: tuple[str, ...] = ()  #: the outputs that its picture explains, one a page


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRecord:
    """A result that is kept; ``revision`` is the study's for which it was first made.

    ``stands_for`` is the SOP instance UID of the result in whose place it goes to destinations
    that do not take that one's class.
    """

    id: int
    study_id: int
    revision: int
    recording_id: int | None
    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    file_key: str
    sha256: str
    size_bytes: int
    created_at: datetime
    current: bool
    stands_for: str | None = None
    file_state: FileState = FileState.KEPT
    subject: RecordingKind = RecordingKind.ULTRASOUND


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedClassRecord:
    """A class that a destination did not take, when it said so, and in which words."""

    destination: str
    sop_class_uid: str
    refused_at: datetime
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DueDelivery:
    """A delivery that this sender has taken, with what it needs to send it."""

    delivery_id: int
    destination: str
    attempts: int  #: with this one
    queued_at: datetime
    silence: Silence | None  #: of the attempt before, where no answer came
    study_instance_uid: str
    result: ResultRecord
    holder: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromiseDue:
    """A delivery that its destination has stored and is to be asked for."""

    delivery_id: int
    destination: str
    attempts: int  #: at sending
    asks: int  #: for its promise, since it was last stored
    queued_at: datetime
    stored_at: datetime
    study_instance_uid: str
    result: ResultRecord
    overdue: bool  #: the destination took a request since then, and was silent for too long
    refusals: tuple[int, ...]  #: the failure reasons that it gave since then


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitmentRecord:
    """A transaction of storage commitment, open or closed."""

    transaction_uid: str
    destination: str
    asked_at: datetime
    due_at: datetime
    accepted_at: datetime | None
    closed_at: datetime | None
    outcome: CommitmentOutcome | None
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromiseCounts:
    """What a destination has promised, shown and refused so far, and what is waited for."""

    committed: int = 0  #: deliveries that it has promised to keep
    found: int = 0  #: deliveries that it showed when it was asked by a query
    by_status: int = 0  #: deliveries that are known by its status alone
    waiting: int = 0  #: deliveries whose promise is awaited
    refused: int = 0  #: objects of which it said that it does not keep them
    overdue: int = 0  #: requests that it took and did not answer in time
    failed: int = 0  #: deliveries that were given up
    last_taken_at: datetime | None = None  #: when it last took a request


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryRecord:
    """Where one result is on its way to one destination."""

    id: int
    result_id: int
    sop_instance_uid: str
    kind: ResultKind
    destination: str
    state: DeliveryState
    attempts: int
    queued_at: datetime
    next_attempt_at: datetime
    last_attempt_at: datetime | None
    last_answer: str
    last_status: int | None
    delivered_at: datetime | None
    stored_at: datetime | None = None  #: the destination's status last said so
    asks: int = 0  #: for its promise, since then
    promise: Promise | None = None  #: how it is known that the destination has it


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRecord:
    """A line of a study's timeline."""

    at: datetime
    kind: str
    message: str
    details: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyDetail:
    """All that is known of a study."""

    study: StudyRecord
    recordings: tuple[RecordingRecord, ...]
    results: tuple[ResultRecord, ...]
    deliveries: tuple[DeliveryRecord, ...]
    timeline: tuple[EventRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """What has waited longest: a recording's or a result's SOP instance UID, and since when."""

    study_instance_uid: str
    sop_instance_uid: str
    since: datetime
    age_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """Something that went wrong lately."""

    at: datetime
    study_instance_uid: str
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DestinationWatch:
    """How a destination does that has something waiting."""

    destination: str
    waiting: int
    oldest_age_s: float  #: of what waits, since it was put into the outbox
    silent_s: float  #: for how long it has taken nothing although it was tried; 0: not tried


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueStatus:
    """How many of what are in which state (every state is there, with 0 where there are none)."""

    studies: Mapping[str, int]
    recordings: Mapping[str, int]
    deliveries: Mapping[str, int]
    quarantined: int
    oldest_recording: Waiting | None
    oldest_delivery: Waiting | None
    last_errors: tuple[Trouble, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewQuarantined:
    """An object that could not be taken; ``file_key`` None where no bytes could be kept.

    One that the node made itself has neither ``calling_ae`` nor ``peer_host``.
    """

    received_at: datetime
    reason: str
    status_sent: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    calling_ae: str = ""
    peer_host: str = ""
    file_key: str | None = None
    size_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedRecord:
    """An object in quarantine."""

    id: int
    received_at: datetime
    reason: str
    status_sent: int
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    calling_ae: str
    peer_host: str
    file_key: str | None
    size_bytes: int
    sha256: str

    @property
    def made_here(self) -> bool:
        """Whether the node made it itself: then nobody sent it, and no status went back."""
        return not (self.calling_ae or self.peer_host)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromiseItem:
    """An object that a machine wants to know kept."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromiseRequestRecord:
    """A machine's wish for our promise, and what became of the report to it."""

    id: int
    transaction_uid: str
    calling_ae: str
    peer_host: str
    asked_at: datetime
    attempts: int
    next_attempt_at: datetime
    last_answer: str
    reported_at: datetime | None
    given_up_at: datetime | None
    items: tuple[PromiseItem, ...]
    holder: str = ""  #: who reports on it now


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeRecord:
    """A node that runs, or did at its last heartbeat."""

    node_id: str  #: its name
    pid: int
    started_at: datetime
    heartbeat_at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)
    holder: str = ""  #: what its claims bear
    seat: str = ""  #: of which data folder
    lease_s: float = 30.0
    alive: bool = True  #: it gave a sign within its lease, by the database's clock
    taken_over_at: datetime | None = None
    taken_over_by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenUp:
    """How much goes on that was at work and held by nobody."""

    recordings: int = 0
    deliveries: int = 0
    reports: int = 0
    promises: int = 0

    def __bool__(self) -> bool:
        """Whether there was anything."""
        return bool(self.recordings or self.deliveries or self.reports or self.promises)


@dataclass(frozen=True, kw_only=True, slots=True)
class HourRecord:
    """What was done in an hour; the times are from a study's last image to its results."""

    begins_at: datetime
    received: int  #: instances, without our own
    analysed: int  #: recordings
    reported: int  #: studies
    median_s: float | None
    slowest_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownRecording:
    """Where the pictures of a recording lie; a key is None where there is no file."""

    kind: RecordingKind
    mode: str | None
    frame_count: int | None
    file_key: str | None  #: as it came
    cine_key: str | None  #: the secondary capture that was made of it
