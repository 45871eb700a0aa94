"""Takes queued recordings in order and hands them to an executor.

The rows are the queue: this module remembers nothing that they do not say. What runs is a pure
function of a file and the packs, so a recording that was interrupted simply runs again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import structlog

from models.clip import ClipError
from node.analysis import (
    ClipView,
    EcgAnalysis,
    RecordingAnalysis,
    analyse,
    name_view,
    reason_to_skip,
)
from node.executor import WorkerDied, WorkerStartFailed, WorkerTimedOut
from node.kept import header_of, without_samples
from node.records import finding_to_row, pack_to_row, read_to_row, refusal_to_row
from node.results import ReportSettings, ResultError, build_capture, build_ecg_capture
from node.results.store import FaultyResultError, keep_result
from node.rules import Ruling, asks_header, facts_of, rule_on_clip
from node.sections import Rule
from node.watch.metrics import Metrics
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import FileStore, FileStoreError
from storage.states import RecordingKind, RecordingState, ResultKind

log = structlog.get_logger(__name__)

_POLL_S = 1.0  # rows also change by the command line, which cannot wake us
_PAUSE_AFTER_BROKEN_START_S = 30.0
_NO_ECG_PACK = "no pack that is in use here reads 12-lead ECGs; see 'echonode packs'"


@dataclass(frozen=True, kw_only=True, slots=True)
class DispatchSettings:
    """How recordings are run."""

    slots: int
    max_attempts: int
    allow_simulated_evidence: bool  #: the picture may show outputs that only saw the simulator
    rules: tuple[Rule, ...] = ()  #: leave clips out, or packs
    packs: tuple[str, ...] = ()  #: those for measurements in clips, of which rules choose
    ecg_packs: tuple[str, ...] = ()  #: those that read ECGs, of which rules choose
    ahead: bool = False  #: read clips while their study still arrives, where nothing else waits


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The two things that a worker does; module-level functions, since they cross to a process."""

    name_view: Callable[[str], ClipView] = name_view
    analyse: Callable[..., RecordingAnalysis] = analyse


@dataclass(frozen=True, kw_only=True, slots=True)
class _RuledOut:
    """What comes of a recording that a rule leaves out."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """A job that has ended, and what it was for. ``note`` says why not all packs ran."""

    claimed: catalog.ClaimedRecording
    future: Future[Any]
    took_s: float
    note: str = ""


class Dispatcher:
    """Keeps the executor's slots full, from a thread of its own.

    Parameters
    ----------
    executor
        Runs the work, by default :func:`node.analysis.name_view` and
        :func:`node.analysis.analyse`.
    refusing
        While it gives a reason, no recording is begun: what came of it could not be kept.
    metrics
        Counts what the workers do.
    holder
        What this node's claims bear now: see :mod:`node.membership`.
    worker
        Who an operator reads has a recording.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        executor: Executor,
        settings: DispatchSettings,
        report_settings: ReportSettings,
        *,
        work: Work | None = None,
        refusing: Callable[[], str | None] = lambda: None,
        metrics: Metrics | None = None,
        holder: Callable[[], str] = lambda: "",
        worker: str = "pool",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._executor = executor
        self._metrics = metrics or Metrics()
        self._settings = settings
        self._report_settings = report_settings
        self._work = work or Work()
        self._refusing = refusing
        self._holder = holder
        self._worker = worker
        self._clock = clock
        self._states: tuple[RecordingState, ...] = (RecordingState.QUEUED, RecordingState.TO_VIEW)
        if settings.ahead:
            self._states = (*self._states, RecordingState.RECEIVED)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._not_before = 0.0  # of the monotonic clock: workers that do not start are let alone
        self._free = threading.BoundedSemaphore(settings.slots)
        self._finished: SimpleQueue[_Outcome] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)

    def start(self) -> None:
        """Begin to take recordings."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now: something was added."""
        self._wake.set()

    def stop(self) -> None:
        """Take no more; what runs is abandoned and runs again at the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._record_finished()
                while not self._stopping.is_set() and self._start_next():
                    pass
            except Exception:
                # The edge of a thread: the queue must go on when, say, the database is locked.
                log.exception("dispatch-failed")
            self._wake.wait(_POLL_S)

    def _start_next(self) -> bool:
        """Start one recording where a slot is free and one waits; tells whether it did."""
        if time.monotonic() < self._not_before or self._refusing() is not None:
            return False
        if not self._free.acquire(blocking=False):
            return False
        claimed = None
        try:
            with self._database.beside() as session:
                claimed = catalog.claim_next(
                    session,
                    worker=self._worker,
                    now=self._clock(),
                    states=self._states,
                    holder=self._holder(),
                )
            if claimed is None:
                return False
            if claimed.queued_at is not None:
                waited = self._clock() - claimed.queued_at
                self._metrics.stage_took("queue", waited.total_seconds())
            self._submit(claimed)
        except catalog.ClaimLostError as error:
            log.warning("nothing-claimed", reason=str(error))  # the next heartbeat mends that
            return False
        finally:
            if claimed is None:
                self._free.release()
        return True

    def _submit(self, claimed: catalog.ClaimedRecording) -> None:
        source = self._files.source(claimed.file_key)
        began = time.monotonic()
        future: Future[Any] = Future()
        note = ""
        if claimed.kind is RecordingKind.ECG and not self._settings.ecg_packs:
            future.set_result(EcgAnalysis(refused=_NO_ECG_PACK))
        else:
            try:
                ruling = self._ruling(claimed)
            except ClipError as error:
                future.set_result(ClipView(view=None, refused=str(error)))
            except FileStoreError as error:
                future.set_exception(error)
            else:
                note = ruling.words
                if ruling.skip is not None:
                    future.set_result(_RuledOut(reason=ruling.skip))
                else:
                    future = self._hand_over(claimed, source, ruling)
        future.add_done_callback(lambda done: self._put_finished(claimed, done, began, note))

    def _hand_over(
        self, claimed: catalog.ClaimedRecording, source: str, ruling: Ruling
    ) -> Future[Any]:
        if claimed.state is RecordingState.VIEWING:
            return self._executor.submit(self._work.name_view, source)
        return self._executor.submit(
            self._work.analyse,
            source,
            kind=claimed.kind,
            allow_simulated=self._settings.allow_simulated_evidence,
            only=ruling.packs,
        )

    def _ruling(self, claimed: catalog.ClaimedRecording, seen: ClipView | None = None) -> Ruling:
        """What the rules make of a recording by now: the settings of this moment count."""
        rules = self._settings.rules
        if not rules:
            return Ruling()
        header = None
        if asks_header(rules):
            header = header_of(self._files, claimed.file_key)
        facts = facts_of(
            header,
            calling_ae=claimed.calling_ae,
            called_ae=claimed.called_ae,
            door=claimed.door,
            view=claimed.view_label,
            score=claimed.view_score,
            kind=claimed.kind,
        )
        if seen is not None and seen.view is not None:
            facts = replace(facts, view=seen.view.view.value, score=seen.view.score)
        ecg = claimed.kind is RecordingKind.ECG
        running = self._settings.ecg_packs if ecg else self._settings.packs
        return rule_on_clip(rules, facts, running)

    def _put_finished(
        self, claimed: catalog.ClaimedRecording, future: Future[Any], began: float, note: str
    ) -> None:
        took_s = time.monotonic() - began
        self._finished.put(_Outcome(claimed=claimed, future=future, took_s=took_s, note=note))
        self._wake.set()

    def _record_finished(self) -> None:
        """Write down what came of the jobs that have ended; what cannot be written waits."""
        for _ in range(self._finished.qsize()):
            outcome = self._finished.get()
            if self._stopping.is_set():
                return  # the rows still say "viewing" or "analysing": the next start takes them up
            try:
                self._record(outcome)
            except (DatabaseError, FileStoreError) as error:
                log.error(  # noqa: TRY400 - the message of the store says all
                    "outcome-waits", recording=outcome.claimed.recording_id, reason=str(error)
                )
                self._finished.put(outcome)
            except catalog.ClaimLostError as error:
                # Another node thought us dead: what it finds counts.
                log.warning(
                    "outcome-dropped", recording=outcome.claimed.recording_id, reason=str(error)
                )
                self._free.release()
            except Exception:
                # An error of ours must not stop the queue: the next start takes the row up.
                log.exception("outcome-not-recorded", recording=outcome.claimed.recording_id)
                self._free.release()
            else:
                self._free.release()
                self._count(outcome)

    def _count(self, outcome: _Outcome) -> None:
        error = outcome.future.exception()
        viewing = outcome.claimed.state is RecordingState.VIEWING
        if error is not None:
            put_back = isinstance(error, WorkerStartFailed)
            self._metrics.clip_ended("put-back" if put_back else "failed")
            return
        said: ClipView | RecordingAnalysis | _RuledOut = outcome.future.result()
        if isinstance(said, _RuledOut):
            self._metrics.clip_ended("ruled-out")
            return
        self._metrics.stage_took("view" if viewing else "analyse", outcome.took_s)
        done = "view-named" if viewing else "analysed"
        self._metrics.clip_ended(done if said.refused is None else "refused")
        for pack, seconds in said.reading_s.items():
            self._metrics.analysed(pack, seconds)

    def _record(self, outcome: _Outcome) -> None:
        claimed, error = outcome.claimed, outcome.future.exception()
        said = None if error is not None else outcome.future.result()
        if isinstance(said, _RuledOut):
            with self._database.write() as session:
                catalog.skip_recording(
                    session, claimed.recording_id, said.reason, holder=claimed.holder
                )
        elif isinstance(error, WorkerStartFailed):
            log.error("workers-do-not-start", reason=str(error))
            self._put_back(claimed, str(error))
        elif (said is None or said.refused is not None) and (
            unreadable := self._unreadable(claimed)
        ):
            self._record_unreadable(claimed, unreadable)
        elif isinstance(error, FileStoreError):
            # It can be read again by now: nothing is wrong with the clip.
            log.warning("store-not-read", recording=claimed.recording_id, reason=str(error))
            self._put_back(claimed, "the store could not be read")
        elif error is not None:
            self._record_failure(claimed, error)
        elif isinstance(said, ClipView):
            self._record_view(claimed, said)
        else:
            self._record_analysis(claimed, outcome.future.result(), outcome.note)

    def _record_view(self, claimed: catalog.ClaimedRecording, outcome: ClipView) -> None:
        why_not = None if outcome.refused is not None else reason_to_skip(outcome)
        if outcome.refused is None and why_not is None:
            try:
                why_not = self._ruling(claimed, outcome).skip
            except ClipError as error:
                if unreadable := self._unreadable(claimed):
                    self._record_unreadable(claimed, unreadable)
                    return
                outcome = replace(outcome, view=None, refused=str(error))
        with self._database.write() as session:
            if outcome.refused is not None or outcome.view is None:
                catalog.refuse_recording(
                    session,
                    claimed.recording_id,
                    outcome.refused or "no view could be named",
                    holder=claimed.holder,
                )
                return
            catalog.record_view(
                session,
                claimed.recording_id,
                catalog.ViewOutcome(
                    label=outcome.view.view.value,
                    score=outcome.view.score,
                    certain=outcome.view.certain,
                    mode=outcome.mode,
                    frame_count=outcome.frame_count,
                ),
                queue=why_not is None,
                reason=why_not or "",
                holder=claimed.holder,
            )

    def _record_analysis(
        self, claimed: catalog.ClaimedRecording, outcome: RecordingAnalysis, note: str
    ) -> None:
        if outcome.refused is not None:
            with self._database.write() as session:
                catalog.refuse_recording(
                    session, claimed.recording_id, outcome.refused, holder=claimed.holder
                )
            return
        capture = self._keep_capture(claimed, outcome)
        try:
            kept = self._keep_analysis(claimed, outcome, note, capture)
        except catalog.ClaimLostError:
            if capture is not None:
                self._drop(capture.file_key)
            raise
        if capture is not None and kept is not None and kept.file_key != capture.file_key:
            self._files.delete(capture.file_key)  # the picture was there; its first bytes stay

    def _keep_analysis(
        self,
        claimed: catalog.ClaimedRecording,
        outcome: RecordingAnalysis,
        note: str,
        capture: catalog.NewResult | None,
    ) -> catalog.ResultRecord | None:
        of_ecg = outcome if isinstance(outcome, EcgAnalysis) else EcgAnalysis()
        with self._database.write() as session:
            catalog.record_analysis(
                session,
                claimed.recording_id,
                findings=[finding_to_row(finding) for finding in outcome.findings],
                refusals=[refusal_to_row(refusal) for refusal in outcome.refusals],
                packs=[pack_to_row(pack) for pack in outcome.packs_run],
                troubles=of_ecg.troubles,
                readings=[read_to_row(read) for read in of_ecg.reads],
                pages=of_ecg.pages,
                note=note,
                holder=claimed.holder,
            )
            if capture is None:
                return None
            # With the findings: a stop from here on finds the picture made and the recording done.
            return catalog.add_capture(session, claimed.recording_id, capture)

    def _drop(self, file_key: str) -> None:
        """Delete a picture that came too late, where no row speaks of its file."""
        with self._database.write() as session:
            if not catalog.is_named(session, file_key):
                self._files.delete(file_key)

    def _keep_capture(
        self, claimed: catalog.ClaimedRecording, outcome: RecordingAnalysis
    ) -> catalog.NewResult | None:
        """Make the picture of an analysis; None where there is nothing to show."""
        if outcome.picture is None:
            return None
        build = build_ecg_capture if claimed.kind is RecordingKind.ECG else build_capture
        try:
            encoded = build(
                without_samples(header_of(self._files, claimed.file_key)),
                outcome.picture,
                findings=outcome.findings,
                packs=outcome.packs_run,
                instance_number=claimed.ordinal,
                settings=self._report_settings,
                created_at=self._clock(),
            )
            kept = keep_result(
                self._files, encoded, kind=ResultKind.SC, recording_id=claimed.recording_id
            )
            return replace(kept, subject=claimed.kind)
        except ResultError as error:
            # The findings are worth more than their picture: only that is given up.
            if isinstance(error, FaultyResultError):
                with self._database.write() as session:
                    catalog.quarantine_result(session, error.quarantined)
            log.error(  # noqa: TRY400 - the message says all
                "picture-not-made", recording=claimed.recording_id, reason=str(error)
            )
            return None

    def _record_failure(self, claimed: catalog.ClaimedRecording, error: BaseException) -> None:
        if isinstance(error, WorkerDied | WorkerTimedOut):
            reason = str(error)
        else:
            reason = f"the analysis failed: {type(error).__name__}: {error}"
        with self._database.write() as session:
            state = catalog.record_failure(
                session,
                claimed.recording_id,
                reason,
                max_attempts=self._settings.max_attempts,
                holder=claimed.holder,
            )
        log.error(
            "recording-failed",
            recording=claimed.recording_id,
            attempt=claimed.attempts,
            state=state.value,
            reason=reason,
        )

    def _unreadable(self, claimed: catalog.ClaimedRecording) -> FileStoreError | None:
        """Why a file cannot be read at all: then nothing was said of what is in it."""
        try:
            self._files.check_readable(claimed.file_key)
        except FileStoreError as error:
            return error
        return None

    def _record_unreadable(self, claimed: catalog.ClaimedRecording, why: FileStoreError) -> None:
        log.error("recording-not-there", recording=claimed.recording_id, reason=str(why))
        if why.is_lasting:
            mend = "is not in the store; `echonode db check --repair`"
            if why.damaged:
                mend = "is damaged in the store; `echonode db check --deep --repair`"
            with self._database.write() as session:
                catalog.record_failure(
                    session,
                    claimed.recording_id,
                    f"its file {mend} and send it again",
                    max_attempts=0,
                    holder=claimed.holder,
                )
        else:
            self._put_back(claimed, "the store cannot be read")

    def _put_back(self, claimed: catalog.ClaimedRecording, reason: str) -> None:
        """Nothing is wrong with the clip, so it waits, for the operator or for the store."""
        with self._database.write() as session:
            catalog.put_back(session, claimed.recording_id, reason, holder=claimed.holder)
        self._not_before = time.monotonic() + _PAUSE_AFTER_BROKEN_START_S
