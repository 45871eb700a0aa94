"""The states of what is kept, and which state may follow which.

The two tables of moves are the whole of the state machine: nothing changes a state but through
them. A held study keeps the state that it would be in besides (``state_before_hold``), and that
one follows the same table.
"""

from __future__ import annotations

from enum import StrEnum


class StudyState(StrEnum):
    """Where a study is on its way."""

    RECEIVING = "receiving"  #: images still come
    ANALYSING = "analysing"  #: complete; its recordings are looked at
    REPORTING = "reporting"  #: every recording has an end; the results are being made
    DELIVERING = "delivering"  #: the results wait for an archive
    DONE = "done"  #: every archive has said that it has the results
    HELD = "held"  #: an operator wishes that nothing happens to it
    IGNORED = "ignored"  #: nothing in it for a model; the reason says why
    FAILED = "failed"  #: went wrong; the reason says how and the next step what to do


class RecordingState(StrEnum):
    """What is to be done with a recording. The rows in TO_VIEW and QUEUED are the queue."""

    RECEIVED = "received"  #: kept; its study is not complete
    TO_VIEW = "to_view"  #: waits for a worker to read it and name its view
    VIEWING = "viewing"  #: a worker is at that
    QUEUED = "queued"  #: waits for a worker to analyse it
    ANALYSING = "analysing"  #: a worker is at that
    DONE = "done"  #: analysed
    SKIPPED = "skipped"  #: read, and nothing for a model to do; the reason says why
    REFUSED = "refused"  #: cannot be read; the reason says why
    FAILED = "failed"  #: the worker failed too often; the reason says how


class DeliveryState(StrEnum):
    """Where one result is on its way to one destination."""

    WAITING = "waiting"  #: to be sent when its time has come
    SENDING = "sending"  #: taken by a sender
    SENT = "sent"  #: stored, as the destination's status says; its promise to keep it is awaited
    DELIVERED = "delivered"  #: the destination has it; how it is known says :class:`Promise`
    REPLACED = "replaced"  #: the destination does not take its class and gets others instead
    FAILED = "failed"  #: given up; the last answer says why


class Promise(StrEnum):
    """How it is known that a destination has what was delivered."""

    COMMITTED = "committed"  #: it has promised to keep it: storage commitment
    FOUND = "found"  #: it shows it when it is asked by a query
    STATUS = "status"  #: by the status of the sending alone: it was not, or could not be, asked


class Silence(StrEnum):
    """Why the last attempt at a delivery ended without an answer of the destination."""

    NOT_REACHED = "not-reached"  #: nothing was sent: it does not have it from that attempt
    NO_ANSWER = "no-answer"  #: it was sent, or partly: it may have it


class CommitmentOutcome(StrEnum):
    """How a transaction of storage commitment ended."""

    ANSWERED = "answered"  #: the destination has spoken of every object
    NOT_TAKEN = "not-taken"  #: it did not take the request
    OVERDUE = "overdue"  #: it took the request, and was silent for too long
    INTERRUPTED = "interrupted"  #: the node stopped before it knew whether the request was taken


class RecordingKind(StrEnum):
    """Which reader a recording needs."""

    ULTRASOUND = "ultrasound"
    ECG = "ecg"

    @property
    def has_views(self) -> bool:
        """Whether a worker names the view of such a recording before another analyses it."""
        return self is RecordingKind.ULTRASOUND


class ResultKind(StrEnum):
    """What sort of object a result is."""

    SR = "sr"  #: a Structured Report
    SC = "sc"  #: a secondary capture
    KEY = "key"  #: a Key Object Selection, which points at clips and pictures
    TEXT = "text"  #: a Structured Report of words: the same for a reader without an SR viewer


class FileState(StrEnum):
    """Whether the file of a row is there. The row and the study's timeline stay in any case."""

    KEPT = "kept"  #: it is there
    REMOVING = "removing"  #: given up by retention; the file goes next, and a start goes on with it
    REMOVED = "removed"  #: given up by retention, and gone
    LOST = "lost"  #: found missing or damaged; the sender's next copy takes its place


class EventKind(StrEnum):
    """The slugs of timeline events that the catalog writes itself."""

    STUDY_OPENED = "study-opened"
    REVISION_OPENED = "revision-opened"
    LATE_OBJECT = "late-object"  #: came after completion, and no model could look at it
    STUDY_COMPLETE = "study-complete"
    REPORTING = "reporting"
    RESULTS_MADE = "results-made"
    STUDY_DONE = "study-done"
    STUDY_IGNORED = "study-ignored"
    STUDY_FAILED = "study-failed"
    HELD = "held"
    RELEASED = "released"
    RETRIED = "retried"
    RESENT = "resent"
    VIEW_NAMED = "view-named"
    RECORDING_DONE = "recording-done"
    RECORDING_REFUSED = "recording-refused"
    RECORDING_SKIPPED = "recording-skipped"  #: not looked at, by a rule of the operator's
    URGENCY_SET = "urgency-set"  #: by a rule of the operator's
    RECORDING_FAILED = "recording-failed"
    RECORDING_AGAIN = "recording-again"
    INTERRUPTED = "interrupted"
    STORED = "stored"  #: a destination has stored a result; its promise to keep it is awaited
    PROMISE_ASKED = "promise-asked"
    NO_PROMISE = "no-promise"  #: a destination did not promise to keep what it stored
    PROMISE_GIVEN = "promise-given"  #: by us, to an echo machine that asked for it
    DELIVERED = "delivered"
    DELIVERY_AGAIN = "delivery-again"
    DELIVERY_FAILED = "delivery-failed"
    SENT_INSTEAD = "sent-instead"
    RESULT_QUARANTINED = "result-quarantined"  #: our own object had a fault and is not sent
    FILES_REMOVED = "files-removed"  #: retention gave up files; the rows stay
    FILE_LOST = "file-lost"  #: a file was found missing or damaged
    FILE_AGAIN = "file-again"  #: a file that was gone is kept again


#: Events that tell of trouble, for the operator's list of last errors.
TROUBLE = (
    EventKind.STUDY_FAILED,
    EventKind.RECORDING_REFUSED,
    EventKind.RECORDING_FAILED,
    EventKind.RECORDING_AGAIN,
    EventKind.NO_PROMISE,
    EventKind.DELIVERY_AGAIN,
    EventKind.DELIVERY_FAILED,
    EventKind.RESULT_QUARANTINED,
    EventKind.FILE_LOST,
)

#: Which state of a study may follow which; HELD stands beside it (see :data:`HOLDABLE`).
STUDY_MOVES: dict[StudyState, frozenset[StudyState]] = {
    StudyState.RECEIVING: frozenset(
        {StudyState.ANALYSING, StudyState.IGNORED, StudyState.FAILED},
    ),
    StudyState.ANALYSING: frozenset(
        {StudyState.RECEIVING, StudyState.REPORTING, StudyState.IGNORED, StudyState.FAILED},
    ),
    StudyState.REPORTING: frozenset(
        {
            StudyState.RECEIVING,
            StudyState.ANALYSING,
            StudyState.DELIVERING,
            StudyState.DONE,
            StudyState.IGNORED,
            StudyState.FAILED,
        },
    ),
    StudyState.DELIVERING: frozenset(
        {StudyState.RECEIVING, StudyState.ANALYSING, StudyState.DONE, StudyState.FAILED},
    ),
    StudyState.DONE: frozenset(
        {StudyState.RECEIVING, StudyState.ANALYSING, StudyState.DELIVERING},
    ),
    StudyState.IGNORED: frozenset({StudyState.RECEIVING, StudyState.ANALYSING}),
    StudyState.FAILED: frozenset(
        {StudyState.RECEIVING, StudyState.ANALYSING, StudyState.DELIVERING},
    ),
}

#: The states that an operator can hold: those in which something would still happen by itself.
HOLDABLE = frozenset(
    {
        StudyState.RECEIVING,
        StudyState.ANALYSING,
        StudyState.REPORTING,
        StudyState.DELIVERING,
    },
)

#: Which state of a recording may follow which.
RECORDING_MOVES: dict[RecordingState, frozenset[RecordingState]] = {
    # Straight to a worker: it is read ahead, while its study may still arrive. What has no views
    # (an ECG) never waits to be named.
    RecordingState.RECEIVED: frozenset(
        {
            RecordingState.TO_VIEW,
            RecordingState.VIEWING,
            RecordingState.QUEUED,
            RecordingState.ANALYSING,
        },
    ),
    RecordingState.TO_VIEW: frozenset({RecordingState.VIEWING}),
    RecordingState.VIEWING: frozenset(
        {
            RecordingState.TO_VIEW,
            RecordingState.QUEUED,
            RecordingState.SKIPPED,
            RecordingState.REFUSED,
            RecordingState.FAILED,
        },
    ),
    RecordingState.QUEUED: frozenset({RecordingState.ANALYSING}),
    RecordingState.ANALYSING: frozenset(
        {
            RecordingState.QUEUED,
            RecordingState.DONE,
            RecordingState.SKIPPED,
            RecordingState.REFUSED,
            RecordingState.FAILED,
        },
    ),
    RecordingState.DONE: frozenset({RecordingState.QUEUED}),  # its picture was lost here
    RecordingState.SKIPPED: frozenset(),
    RecordingState.REFUSED: frozenset(),
    RecordingState.FAILED: frozenset({RecordingState.TO_VIEW, RecordingState.QUEUED}),
}

#: States of a recording in which nothing more is to be done with it.
RECORDING_ENDS = frozenset(
    {
        RecordingState.DONE,
        RecordingState.SKIPPED,
        RecordingState.REFUSED,
        RecordingState.FAILED,
    },
)


class BackfillState(StrEnum):
    """Where the taking of years out of an archive or a folder is."""

    OPEN = "open"  #: something is left to do; whether anybody is at it, its runner says
    DONE = "done"  #: every day was asked for and every study tried
    GIVEN_UP = "given-up"  #: by an operator


class BackfillDayState(StrEnum):
    """Where one day of a backfill is."""

    WAITING = "waiting"  #: nobody has asked for it yet
    LISTED = "listed"  #: its studies are known, and not all are settled
    DONE = "done"  #: they all are
    REFUSED = "refused"  #: the archive would not list it; the reason says why


class BackfilledState(StrEnum):
    """What came of one study of a backfill."""

    WAITING = "waiting"  #: found, and not tried yet
    FETCHING = "fetching"  #: it comes now, or was broken off in the middle
    TAKEN = "taken"  #: all that was missing here has come
    HERE = "here"  #: nothing was missing
    PARTLY = "partly"  #: something did not come, or could not be kept; the reason says why
