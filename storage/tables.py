"""The tables.

Times are aware datetimes in UTC. States and kinds are stored as the words of their enums. No
table holds a patient's name or identifier: the files do, the rows point at them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from storage.states import (
    BackfillDayState,
    BackfilledState,
    BackfillState,
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

_UID = String(64)  # PS3.5 9: at most 64 characters
_AE_TITLE = String(16)  # PS3.5 6.2, VR AE
_SHA256 = String(64)
_WORD = String(32)
_HOLDER = String(64)  # a node and its start: see storage.catalog's nodes
_CASCADE = "all, delete-orphan"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC; SQLite, which knows no zones, gets it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn to UTC; a naive time is a mistake of ours and is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value} has no zone; the store takes aware times only")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _words(kind: type[StrEnum]) -> Enum:
    # No CHECK constraint: on SQLite a new state would mean copying the table.
    return Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """What all tables share: names for constraints, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[int]: JSON,
        list[float]: JSON,
        list[str]: JSON,
        list[list[float]]: JSON,
        list[dict[str, Any]]: JSON,
        StudyState: _words(StudyState),
        RecordingState: _words(RecordingState),
        DeliveryState: _words(DeliveryState),
        RecordingKind: _words(RecordingKind),
        ResultKind: _words(ResultKind),
        FileState: _words(FileState),
        Promise: _words(Promise),
        Silence: _words(Silence),
        CommitmentOutcome: _words(CommitmentOutcome),
    }


class Study(Base):
    """A study, from its first image to the archive's answer."""

    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(_UID, unique=True)
    state: Mapped[StudyState]
    reason: Mapped[str] = mapped_column(Text, default="")  #: why it is in this state
    next_step: Mapped[str] = mapped_column(Text, default="")  #: what to do, when held or failed
    revision: Mapped[int] = mapped_column(default=1)
    state_before_hold: Mapped[StudyState | None]  #: where a held study would be ...
    reason_before_hold: Mapped[str] = mapped_column(Text, default="")  #: ... and why
    next_step_before_hold: Mapped[str] = mapped_column(Text, default="")
    urgency: Mapped[int] = mapped_column(default=0)  #: higher first
    first_image_at: Mapped[datetime]
    revision_opened_at: Mapped[datetime]  #: the first image of this revision
    last_image_at: Mapped[datetime]
    last_released_at: Mapped[datetime | None]  #: an association that carried it was released
    state_since: Mapped[datetime]
    holder: Mapped[str | None] = mapped_column(_HOLDER)  #: who makes its results now
    study_date: Mapped[date | None] = mapped_column(index=True)
    accession_number: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)

    instances: Mapped[list[Instance]] = relationship(
        back_populates="study", cascade=_CASCADE, passive_deletes=True
    )
    recordings: Mapped[list[Recording]] = relationship(
        back_populates="study", cascade=_CASCADE, passive_deletes=True, order_by="Recording.id"
    )
    results: Mapped[list[Result]] = relationship(
        back_populates="study", cascade=_CASCADE, passive_deletes=True, order_by="Result.id"
    )
    events: Mapped[list[TimelineEvent]] = relationship(
        back_populates="study", cascade=_CASCADE, passive_deletes=True, order_by="TimelineEvent.id"
    )

    __table_args__ = (
        Index("ix_study_state", "state", "state_since"),
        Index("ix_study_newest", "last_image_at", "id"),
        Index("ix_study_state_newest", "state", "last_image_at", "id"),
    )


class Instance(Base):
    """A DICOM object that was acknowledged and is kept."""

    __tablename__ = "instance"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(_UID, index=True)
    sop_instance_uid: Mapped[str] = mapped_column(_UID, unique=True)
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(_UID)
    content_sha256: Mapped[str] = mapped_column(_SHA256)  #: of the data set's bytes as received
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    file_key: Mapped[str] = mapped_column(String(128))
    calling_ae: Mapped[str] = mapped_column(_AE_TITLE, default="")
    called_ae: Mapped[str] = mapped_column(_AE_TITLE, default="")
    peer_host: Mapped[str] = mapped_column(String(255), default="")
    door: Mapped[str] = mapped_column(_WORD)  #: "dimse", "folder", ...
    received_at: Mapped[datetime]
    own: Mapped[bool] = mapped_column(default=False)  #: made by the node itself
    revision: Mapped[int]  #: of the study, in which it came
    file_state: Mapped[FileState] = mapped_column(
        default=FileState.KEPT, server_default=FileState.KEPT.value
    )
    file_since: Mapped[datetime | None]  #: in that state; None: from the first on

    study: Mapped[Study] = relationship(back_populates="instances")
    recording: Mapped[Recording | None] = relationship(
        back_populates="instance", cascade=_CASCADE, passive_deletes=True
    )

    __table_args__ = (Index("ix_instance_file", "file_state", "received_at"),)


class Recording(Base):
    """An instance that a model may look at. Its state is its place in the queue."""

    __tablename__ = "recording"

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[int] = mapped_column(
        ForeignKey("instance.id", ondelete="CASCADE"), unique=True
    )
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), index=True)
    kind: Mapped[RecordingKind]
    state: Mapped[RecordingState]
    reason: Mapped[str] = mapped_column(Text, default="")
    mode: Mapped[str | None] = mapped_column(_WORD)
    view_label: Mapped[str | None] = mapped_column(_WORD)
    view_score: Mapped[float | None]
    view_certain: Mapped[bool | None]
    frame_count: Mapped[int | None]
    troubles: Mapped[list[str]] = mapped_column(server_default=text("'[]'"))
    # ... what cannot be trusted in it, in words
    readings: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default=text("'[]'")
    )  #: which stretch of it each pack read
    pages: Mapped[list[str]] = mapped_column(server_default=text("'[]'"))
    # ... the outputs that its picture explains, one a page
    attempts: Mapped[int] = mapped_column(default=0)  #: at what it waits for now
    urgency: Mapped[int] = mapped_column(default=0)  #: of its study, here for the queue's index
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(Text)
    holder: Mapped[str | None] = mapped_column(_HOLDER)  #: whose worker is at it now

    study: Mapped[Study] = relationship(back_populates="recordings")
    instance: Mapped[Instance] = relationship(back_populates="recording")
    findings: Mapped[list[Finding]] = relationship(
        cascade=_CASCADE, passive_deletes=True, order_by="Finding.id"
    )
    refusals: Mapped[list[Refusal]] = relationship(
        cascade=_CASCADE, passive_deletes=True, order_by="Refusal.id"
    )
    pack_runs: Mapped[list[PackRun]] = relationship(
        cascade=_CASCADE, passive_deletes=True, order_by="PackRun.id"
    )

    __table_args__ = (Index("ix_recording_queue", "state", urgency.desc(), "queued_at", "id"),)


class Finding(Base):
    """One output's value for one recording."""

    __tablename__ = "finding"

    id: Mapped[int] = mapped_column(primary_key=True)
    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recording.id", ondelete="CASCADE"), index=True
    )
    revision: Mapped[int]  #: of the study, when it was found
    output: Mapped[str] = mapped_column(_WORD)
    kind: Mapped[str] = mapped_column(_WORD)
    value: Mapped[float | None]
    unit: Mapped[str] = mapped_column(_WORD)  #: UCUM
    low: Mapped[float | None]
    high: Mapped[float | None]
    score: Mapped[float | None]
    threshold: Mapped[float | None]
    method: Mapped[str] = mapped_column(String(64))
    evidence: Mapped[str] = mapped_column(_WORD)
    pack: Mapped[str] = mapped_column(String(64))
    pack_version: Mapped[str] = mapped_column(_WORD)
    weights_sha256: Mapped[str] = mapped_column(_SHA256)
    frames: Mapped[list[int]]  #: zero-based source frames, the most telling first
    per_beat: Mapped[list[float]] = mapped_column(server_default=text("'[]'"))  #: in the unit
    outside_share: Mapped[float | None]  #: of the relevance, 0 to 1; None where it was not asked
    spans_ms: Mapped[list[list[float]]] = mapped_column(server_default=text("'[]'"))
    # ... begin and end of what moved the value most, the most telling first


class Refusal(Base):
    """An output that was not given for a recording, and why."""

    __tablename__ = "refusal"

    id: Mapped[int] = mapped_column(primary_key=True)
    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recording.id", ondelete="CASCADE"), index=True
    )
    output: Mapped[str] = mapped_column(_WORD)
    reason: Mapped[str] = mapped_column(Text)
    pack: Mapped[str] = mapped_column(String(64))
    pack_version: Mapped[str] = mapped_column(_WORD)
    weights_sha256: Mapped[str] = mapped_column(_SHA256)


class PackRun(Base):
    """A pack that ran on a recording, whether it found anything or not."""

    __tablename__ = "pack_run"

    id: Mapped[int] = mapped_column(primary_key=True)
    recording_id: Mapped[int] = mapped_column(
        ForeignKey("recording.id", ondelete="CASCADE"), index=True
    )
    pack: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(_WORD)
    weights_sha256: Mapped[str] = mapped_column(_SHA256)


class Result(Base):
    """An SR or SC object that the node made; its bytes are in the file store."""

    __tablename__ = "result"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), index=True)
    revision: Mapped[int]  #: of the study, for which it was first made
    recording_id: Mapped[int | None] = mapped_column(
        ForeignKey("recording.id", ondelete="SET NULL"), index=True
    )
    kind: Mapped[ResultKind]
    subject: Mapped[RecordingKind] = mapped_column(
        default=RecordingKind.ULTRASOUND, server_default=RecordingKind.ULTRASOUND.value
    )  #: what it speaks of: a study of clips and ECGs has a report of each
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    sop_instance_uid: Mapped[str] = mapped_column(_UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(_UID, index=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(_UID)
    file_key: Mapped[str] = mapped_column(String(128))
    sha256: Mapped[str] = mapped_column(_SHA256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    current: Mapped[bool] = mapped_column(default=True)  #: no later revision replaced it
    stands_for: Mapped[str | None] = mapped_column(_UID)  #: SOP instance UID of another result,
    # in whose place it goes to destinations that do not take that one's class
    file_state: Mapped[FileState] = mapped_column(
        default=FileState.KEPT, server_default=FileState.KEPT.value
    )
    file_since: Mapped[datetime | None]  #: in that state; None: from the first on

    study: Mapped[Study] = relationship(back_populates="results")
    deliveries: Mapped[list[Delivery]] = relationship(
        back_populates="result", cascade=_CASCADE, passive_deletes=True, order_by="Delivery.id"
    )

    __table_args__ = (Index("ix_result_file", "file_state", "created_at"),)


class Delivery(Base):
    """One result on its way to one destination: a line of the outbox."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result.id", ondelete="CASCADE"))
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[DeliveryState]
    attempts: Mapped[int] = mapped_column(default=0)
    holder: Mapped[str | None] = mapped_column(_HOLDER)  #: who sends it now
    queued_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]
    last_attempt_at: Mapped[datetime | None]
    last_answer: Mapped[str] = mapped_column(Text, default="")
    last_status: Mapped[int | None]  #: a DIMSE or HTTP status
    delivered_at: Mapped[datetime | None]
    silence: Mapped[Silence | None]  #: of the last attempt, where no answer came
    stored_at: Mapped[datetime | None]  #: the destination's status last said so
    asks: Mapped[int] = mapped_column(default=0, server_default="0")  #: for its promise, since then
    promise: Mapped[Promise | None]  #: how it is known that the destination has it

    result: Mapped[Result] = relationship(back_populates="deliveries")
    commitments: Mapped[list[CommitmentItem]] = relationship(
        back_populates="delivery",
        cascade=_CASCADE,
        passive_deletes=True,
        order_by="CommitmentItem.id",
    )

    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_delivery_due", "state", "next_attempt_at"),
        Index("ix_delivery_stored", "destination", "stored_at"),
    )


class Commitment(Base):
    """A transaction of storage commitment that we asked a destination for (PS3.4 Annex J).

    Its row is committed before the request is sent: an answer can come sooner than the request's.
    """

    __tablename__ = "commitment"

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(_UID, unique=True)
    destination: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str | None] = mapped_column(_HOLDER)  #: who asked
    asked_at: Mapped[datetime]
    due_at: Mapped[datetime]  #: after that no answer is waited for
    accepted_at: Mapped[datetime | None]  #: the destination took the request
    closed_at: Mapped[datetime | None]  #: nothing is waited for any more
    outcome: Mapped[CommitmentOutcome | None]
    answer: Mapped[str] = mapped_column(Text, default="")  #: in words, where the request failed

    items: Mapped[list[CommitmentItem]] = relationship(
        back_populates="commitment",
        cascade=_CASCADE,
        passive_deletes=True,
        order_by="CommitmentItem.id",
    )

    __table_args__ = (
        Index("ix_commitment_open", "destination", "closed_at", "due_at"),
        Index("ix_commitment_outcome", "outcome", "destination"),
        Index("ix_commitment_accepted", "destination", "accepted_at"),
    )


class CommitmentItem(Base):
    """One delivery in a transaction, and what the destination said of it."""

    __tablename__ = "commitment_item"

    id: Mapped[int] = mapped_column(primary_key=True)
    commitment_id: Mapped[int] = mapped_column(ForeignKey("commitment.id", ondelete="CASCADE"))
    delivery_id: Mapped[int] = mapped_column(
        ForeignKey("delivery.id", ondelete="CASCADE"), index=True
    )
    answered_at: Mapped[datetime | None]
    failure_reason: Mapped[int | None]  #: PS3.3 C.14; None where it promised

    commitment: Mapped[Commitment] = relationship(back_populates="items")
    delivery: Mapped[Delivery] = relationship(back_populates="commitments")

    __table_args__ = (
        UniqueConstraint("commitment_id", "delivery_id"),
        Index(
            "ix_commitment_item_refused",
            "commitment_id",
            sqlite_where=text("failure_reason IS NOT NULL"),
            postgresql_where=text("failure_reason IS NOT NULL"),
        ),
    )


class RefusedClass(Base):
    """A destination that does not take objects of a class, and when it last said so."""

    __tablename__ = "refused_class"

    id: Mapped[int] = mapped_column(primary_key=True)
    destination: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    refused_at: Mapped[datetime]
    answer: Mapped[str] = mapped_column(Text)  #: the destination's own words

    __table_args__ = (UniqueConstraint("destination", "sop_class_uid"),)


class TimelineEvent(Base):
    """A line of a study's timeline."""

    __tablename__ = "timeline_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(_WORD)  #: a slug, as in :class:`storage.states.EventKind`
    message: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]]

    study: Mapped[Study] = relationship(back_populates="events")

    __table_args__ = (
        Index("ix_timeline_event_study", "study_id", "id"),
        Index("ix_timeline_event_kind", "kind", "at"),
    )


class QuarantinedObject(Base):
    """An object that could not be taken, and why.

    What it says of itself may be anything, and is empty where it says nothing.
    """

    __tablename__ = "quarantined_object"

    id: Mapped[int] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(index=True)
    reason: Mapped[str] = mapped_column(Text)
    status_sent: Mapped[int]  #: the DIMSE status that the sender got
    sop_class_uid: Mapped[str] = mapped_column(Text, default="")
    sop_instance_uid: Mapped[str] = mapped_column(Text, default="")
    study_instance_uid: Mapped[str] = mapped_column(Text, default="")
    calling_ae: Mapped[str] = mapped_column(Text, default="")
    peer_host: Mapped[str] = mapped_column(String(255), default="")
    file_key: Mapped[str | None] = mapped_column(String(128))
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str] = mapped_column(_SHA256, default="")
    file_state: Mapped[FileState] = mapped_column(
        default=FileState.KEPT, server_default=FileState.KEPT.value
    )
    file_since: Mapped[datetime | None]  #: in that state; None: from the first on

    __table_args__ = (Index("ix_quarantined_object_file", "file_state", "received_at"),)


class PromiseRequest(Base):
    """An echo machine's wish for our promise to keep objects (storage commitment), and its report.

    It is open while neither ``reported_at`` nor ``given_up_at`` is set.
    """

    __tablename__ = "promise_request"

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(_UID)
    calling_ae: Mapped[str] = mapped_column(_AE_TITLE)
    peer_host: Mapped[str] = mapped_column(String(255), default="")
    asked_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    last_answer: Mapped[str] = mapped_column(Text, default="")
    holder: Mapped[str | None] = mapped_column(_HOLDER)  #: who reports on it now
    reported_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]

    items: Mapped[list[PromiseRequestItem]] = relationship(
        cascade=_CASCADE, passive_deletes=True, order_by="PromiseRequestItem.id"
    )

    __table_args__ = (
        UniqueConstraint("calling_ae", "transaction_uid"),
        Index("ix_promise_request_due", "reported_at", "given_up_at", "next_attempt_at"),
    )


class PromiseRequestItem(Base):
    """An object that is to be promised."""

    __tablename__ = "promise_request_item"

    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[int] = mapped_column(
        ForeignKey("promise_request.id", ondelete="CASCADE"), index=True
    )
    sop_class_uid: Mapped[str] = mapped_column(_UID)
    sop_instance_uid: Mapped[str] = mapped_column(_UID)


class NodeProcess(Base):
    """A node that runs, or that died: one row for each name, kept fresh by its heartbeat.

    What a node has claimed bears its ``holder``: its name, and a word drawn at each start. A
    holder that stands here, and was not taken over, lives; what others hold is anybody's.
    """

    __tablename__ = "node_process"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  #: the node's name
    pid: Mapped[int]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    details: Mapped[dict[str, Any]]  #: addresses, workers
    holder: Mapped[str | None] = mapped_column(_HOLDER)
    seat: Mapped[str] = mapped_column(_WORD, default="", server_default=text("''"))  #: its folder
    lease_s: Mapped[float] = mapped_column(default=30.0, server_default=text("30"))
    taken_over_at: Mapped[datetime | None]
    taken_over_by: Mapped[str | None] = mapped_column(_HOLDER)  #: a node's name


class Tally(Base):
    """How many rows of a table are in a state, so that nobody has to count a million of them.

    The database itself keeps these, by triggers on the tables ``study``, ``recording`` and
    ``delivery`` (revision 0011): a revision that copies one of them on SQLite makes its triggers
    anew. On PostgreSQL each connection adds to rows of its own, so that none waits for another;
    what counts is their sum.
    """

    __tablename__ = "tally"

    what: Mapped[str] = mapped_column(_WORD, primary_key=True)  #: the table
    destination: Mapped[str] = mapped_column(String(64), primary_key=True)  #: of deliveries
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    promise: Mapped[str] = mapped_column(String(16), primary_key=True)  #: of deliveries, or ""
    writer: Mapped[int] = mapped_column(primary_key=True)  #: a process of the server; 0: all
    number: Mapped[int] = mapped_column(BigInteger)


class Backfill(Base):
    """Years of studies that are taken out of an archive or a folder, day by day."""

    __tablename__ = "backfill"

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(Text)  #: the archive's name, or the folder
    from_folder: Mapped[bool]
    first_day: Mapped[date | None]
    last_day: Mapped[date | None]
    newest_first: Mapped[bool]
    modalities: Mapped[str] = mapped_column(Text, default="")  #: with spaces between; "": all
    state: Mapped[BackfillState] = mapped_column(_words(BackfillState))
    doing: Mapped[str] = mapped_column(Text, default="")  #: what it does, or why it does nothing
    terms: Mapped[dict[str, Any]]  #: how gently, as the last start said
    begun_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    files: Mapped[int] = mapped_column(default=0)  #: of a folder, looked at
    unreadable: Mapped[int] = mapped_column(default=0)  #: of these
    runner: Mapped[str | None] = mapped_column(_HOLDER)  #: the process that is at it
    seat: Mapped[str] = mapped_column(_WORD, default="")  #: the data folder of that
    running_since: Mapped[datetime | None]
    signed_at: Mapped[datetime | None]  #: its last sign of life
    expected_at: Mapped[datetime | None]  #: its end, as the runner last reckoned

    __table_args__ = (Index("ix_backfill_source", "source", "state"),)


class BackfillDay(Base):
    """A day of a backfill; the one without a date is of studies that have none."""

    __tablename__ = "backfill_day"

    id: Mapped[int] = mapped_column(primary_key=True)
    backfill_id: Mapped[int] = mapped_column(ForeignKey("backfill.id", ondelete="CASCADE"))
    day: Mapped[date | None]
    state: Mapped[BackfillDayState] = mapped_column(_words(BackfillDayState))
    reason: Mapped[str] = mapped_column(Text, default="")
    studies: Mapped[int] = mapped_column(default=0)  #: found
    settled: Mapped[int] = mapped_column(default=0)  #: of these
    objects: Mapped[int] = mapped_column(default=0)  #: that came
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    clips: Mapped[int] = mapped_column(default=0)  #: among them

    __table_args__ = (Index("ix_backfill_day_open", "backfill_id", "state", "day"),)


class BackfillStudy(Base):
    """A study of a backfill, and what came of it."""

    __tablename__ = "backfill_study"

    id: Mapped[int] = mapped_column(primary_key=True)
    backfill_id: Mapped[int] = mapped_column(ForeignKey("backfill.id", ondelete="CASCADE"))
    day_id: Mapped[int] = mapped_column(ForeignKey("backfill_day.id", ondelete="CASCADE"))
    study_instance_uid: Mapped[str] = mapped_column(_UID, index=True)
    state: Mapped[BackfilledState] = mapped_column(_words(BackfilledState))
    reason: Mapped[str] = mapped_column(Text, default="")
    listed: Mapped[int | None]  #: instances, as the archive counts them
    attempts: Mapped[int] = mapped_column(default=0)
    objects: Mapped[int] = mapped_column(default=0)  #: that came
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    clips: Mapped[int] = mapped_column(default=0)  #: among them
    begun_at: Mapped[datetime | None]  #: first tried
    ended_at: Mapped[datetime | None]  #: last settled

    __table_args__ = (
        UniqueConstraint("backfill_id", "study_instance_uid"),
        Index("ix_backfill_study_day", "day_id", "state"),
        Index("ix_backfill_study_state", "backfill_id", "state"),
        Index("ix_backfill_study_ended", "backfill_id", "ended_at"),
    )


class BackfillFile(Base):
    """A file of a folder that was looked into, so that it need not be again.

    Names of files are often patients' names: what stands here is a digest of name, size and time.
    """

    __tablename__ = "backfill_file"

    id: Mapped[int] = mapped_column(primary_key=True)
    backfill_id: Mapped[int] = mapped_column(ForeignKey("backfill.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(_WORD)
    place: Mapped[int] = mapped_column(default=0)  #: of an object within an archive
    study_id: Mapped[int | None]  #: row of the study; None: nothing wanted is in it

    __table_args__ = (Index("ix_backfill_file_digest", "backfill_id", "digest"),)
