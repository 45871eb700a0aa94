"""Worker processes behind the standard executor interface.

:class:`WorkerProcesses` is a :class:`concurrent.futures.Executor` with a number of slots, each one
process of its own. Unlike :class:`~concurrent.futures.ProcessPoolExecutor`, where one process that
dies breaks the pool and every job in it, here a process that dies fails only the job it was
running and is replaced; a job that takes too long has its process killed; and a process never
outlives the node. The parent imports nothing that the workers need.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import multiprocessing
import multiprocessing.util  # registers its exit function, see WorkerProcesses.__init__
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, ParamSpec, TypeVar

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

START_LIMIT_S = 300.0  #: a process whose initializer takes longer than this is killed
START_ATTEMPTS = 3  #: deaths in a row before its initializer ended, after which a slot gives up
RETRY_AFTER_S = 60.0  #: after which it tries again: memory may have come free
_IDLE_LOOK_S = 0.5  # how often an idle slot looks whether its process still lives
_START_PAUSE_S = 0.5  # after the first death in starting; twice that after the second, and so on
_END_LIMIT_S = 5.0  # how long a process that was told to end may take before it is killed


class WorkerError(Exception):
    """A job did not end because of the process that ran it, not because of the job's own code."""


class WorkerDied(WorkerError):  # noqa: N818 - says what happened
    """The process that ran the job died; the message says by which signal or exit code."""


class WorkerTimedOut(WorkerError):  # noqa: N818 - says what happened
    """The job took longer than its limit and its process was killed."""


class WorkerStartFailed(WorkerError):  # noqa: N818 - says what happened
    """No process could be started: the initializer failed. The message gives its reason."""


class SlotState(StrEnum):
    """What a slot's process does."""

    STARTING = "starting"  #: its initializer runs
    IDLE = "idle"  #: it waits for a job
    BUSY = "busy"  #: it runs a job
    FAILED = "failed"  #: it could not be started and is given up
    STOPPED = "stopped"  #: the executor was shut down


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """A slot as the status page shows it.

    ``since`` is when ``state`` began. ``restarts`` counts processes that replaced a dead one.
    ``error`` is the last thing that went wrong in the slot. ``place`` is the other machine where it
    is; None: this one.
    """

    pid: int | None
    state: SlotState
    since: datetime
    jobs_done: int = 0
    restarts: int = 0
    error: str | None = None
    place: str | None = None


class WorkerProcesses(Executor):
    """Runs functions in ``count`` processes of its own, first come first served.

    Parameters
    ----------
    count
        How many processes. They start at once, in the background.
    initializer, initargs
        Called once in each process before its first job.
    time_limit_s
        A job that runs longer has its process killed and fails with :class:`WorkerTimedOut`.
        None: no limit.
    start_limit_s
        The same for the initializer.
    retry_after_s
        A slot whose process could not be started tries again after this time.

    Functions, arguments and answers must be picklable; what is not fails its own future. A
    function's own exception arrives as it was raised, with the worker's traceback as a note.
    Workers ignore SIGINT and SIGTERM, which a terminal or systemd sends to the whole group: the
    node decides when they end. When the node dies in any way, they die too.
    """

    def __init__(
        self,
        count: int,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        time_limit_s: float | None = None,
        start_limit_s: float = START_LIMIT_S,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        if count < 1:
            raise ValueError(f"an executor needs at least one worker process, not {count}")
        self._queue = _Queue()
        self._slots = tuple(
            _Slot(
                name=f"worker-{number}",
                queue=self._queue,
                start=(initializer, initargs),
                time_limit_s=time_limit_s,
                start_limit_s=start_limit_s,
                retry_after_s=retry_after_s,
            )
            for number in range(1, count + 1)
        )
        # Registered after multiprocessing's own exit function, and so runs before it: that one
        # would wait for the processes.
        atexit.register(self.terminate)
        for slot in self._slots:
            slot.begin(on_failed=self._slot_failed)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call.

        Where every slot has given up starting its process, the future fails at once with
        :class:`WorkerStartFailed`; the slots try again after ``retry_after_s``.

        Raises
        ------
        RuntimeError
            After :meth:`shutdown`.
        """
        future: Future[T] = Future()
        self._queue.put(_Job(future=future, call=(fn, args, kwargs)))
        return future

    def workers(self) -> tuple[WorkerState, ...]:
        """Every slot as it is now."""
        return tuple(slot.state for slot in self._slots)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; end each process when the queue is empty.

        Parameters
        ----------
        wait
            Return only after every process has ended.
        cancel_futures
            Cancel what has not begun. What runs is always finished; see :meth:`terminate`.
        """
        self._queue.close(cancel=cancel_futures)
        if self._queue.finished:
            for slot in self._slots:
                if slot.state.state in (SlotState.STARTING, SlotState.FAILED):
                    slot.kill()  # there is nothing left that it could run
        if wait:
            self._join()

    def terminate(self) -> None:
        """Kill every process now.

        Running jobs fail with :class:`WorkerDied`, those that wait are cancelled.
        """
        self._queue.close(cancel=True)
        for slot in self._slots:
            slot.kill()
        self._join()

    def _join(self) -> None:
        for slot in self._slots:
            slot.join()
        atexit.unregister(self.terminate)

    def _slot_failed(self) -> None:
        if all(slot.state.state is SlotState.FAILED for slot in self._slots):
            reasons = dict.fromkeys(slot.state.error or "" for slot in self._slots)
            self._queue.fail(WorkerStartFailed("; ".join(reasons)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    future: Future[Any]
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Queue:
    """The jobs that wait, in order; shared by the slots."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._closed = False
        self._error: WorkerStartFailed | None = None

    def put(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("cannot submit a job after the executor was shut down")
            error = self._error
            if error is None:
                self._jobs.append(job)
                self._changed.notify()
        if error is not None:
            job.future.set_exception(WorkerStartFailed(str(error)))

    def take(self, timeout_s: float) -> _Job | None:
        """The next job that nobody cancelled, or None when there is none after the time."""
        with self._changed:
            if not self._jobs and not self._closed:
                self._changed.wait(timeout_s)
            while self._jobs:
                job = self._jobs.popleft()
                if job.future.set_running_or_notify_cancel():
                    return job
            return None

    @property
    def finished(self) -> bool:
        """Closed and empty."""
        with self._changed:
            return self._closed and not self._jobs

    def close(self, *, cancel: bool) -> None:
        with self._changed:
            self._closed = True
            jobs = list(self._jobs) if cancel else []
            if cancel:
                self._jobs.clear()
            self._changed.notify_all()
        for job in jobs:
            job.future.cancel()
            job.future.set_running_or_notify_cancel()

    def fail(self, error: WorkerStartFailed) -> None:
        """Fail what waits and what comes, until :meth:`recover`."""
        with self._changed:
            self._error = error
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(WorkerStartFailed(str(error)))

    def recover(self) -> None:
        """A process runs: take jobs again."""
        with self._changed:
            self._error = None


class _Slot:
    """One thread here that looks after one process there, for as long as the executor lives.

    The thread that starts a process is the one whose end the kernel reports to it (see
    :func:`_die_with_parent`), so each slot starts its own and ends it before the thread ends.
    """

    def __init__(
        self,
        *,
        name: str,
        queue: _Queue,
        start: tuple[Callable[..., object] | None, tuple[Any, ...]],
        time_limit_s: float | None,
        start_limit_s: float,
        retry_after_s: float,
    ) -> None:
        self._name = name
        self._queue = queue
        self._start_call = start
        self._time_limit_s = time_limit_s
        self._start_limit_s = start_limit_s
        self._retry_after_s = retry_after_s
        self._killed = threading.Event()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self.state = WorkerState(pid=None, state=SlotState.STARTING, since=datetime.now(UTC))

    def begin(self, *, on_failed: Callable[[], None]) -> None:
        self._thread = threading.Thread(
            target=self._live, args=(on_failed,), name=self._name, daemon=True
        )
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def kill(self) -> None:
        """End the process and the slot now. Callable from any thread."""
        self._killed.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(ValueError):  # closed meanwhile
                process.kill()

    def _live(self, on_failed: Callable[[], None]) -> None:
        while not self._killed.is_set() and not self._queue.finished:
            try:
                self._serve()
            except WorkerStartFailed as error:
                _log.error("%s is given up for now: %s", self._name, error)
                self._give_up(str(error), on_failed)
            except Exception as error:  # noqa: BLE001 - the edge of the thread: others go on
                _log.exception("%s is given up for now", self._name)
                self._give_up(f"the thread that looks after a worker failed: {error!r}", on_failed)
        self._end_process()
        self._set(state=SlotState.STOPPED, pid=None)

    def _serve(self) -> None:
        """Run jobs until there are no more to come."""
        while self._ensure_process():
            job = self._queue.take(_IDLE_LOOK_S)
            if job is not None:
                self._run(job)
            elif self._queue.finished:
                break

    def _give_up(self, reason: str, on_failed: Callable[[], None]) -> None:
        self._end_process()
        self._set(state=SlotState.FAILED, pid=None, error=reason)
        on_failed()
        again = time.monotonic() + self._retry_after_s
        while time.monotonic() < again and not self._queue.finished:
            if self._killed.wait(min(_IDLE_LOOK_S, self._retry_after_s)):
                break

    def _ensure_process(self) -> bool:
        """Have a living process with its initializer done; False when the slot must end.

        Raises
        ------
        WorkerStartFailed
            If the initializer raised, or the process died in it several times in a row.
        """
        process = self._process
        if process is not None and process.is_alive():
            return not self._killed.is_set()
        if process is not None:
            self._mourn(f"an idle worker process died: {self._how_it_ended()}")
        for attempt in range(1, START_ATTEMPTS + 1):
            if self._killed.is_set() or self._queue.finished:
                return False
            try:
                self._start_process()
            except WorkerDied as death:
                self._mourn(f"a worker process died while it started: {death}")
                if attempt == START_ATTEMPTS:
                    raise WorkerStartFailed(
                        f"a worker process died {attempt} times in a row while it started "
                        f"({death}); look at the memory and the log of the machine"
                    ) from death
                self._killed.wait(attempt * _START_PAUSE_S)
            else:
                return True
        return False

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._start_call), name=self._name)
        try:
            process.start()
        except OSError as error:
            raise WorkerDied(f"the machine started no process: {error.strerror}") from error
        finally:
            theirs.close()  # so that its death is an end of file here
        self._process = process
        if self._killed.is_set():  # kill() may have come before there was a process
            process.kill()
        self._set(state=SlotState.STARTING, pid=process.pid)
        ok, answer = self._answer(self._start_limit_s, "the initializer")
        if not ok:
            self._end_process()
            raise WorkerStartFailed(f"a worker process could not be prepared: {answer}") from answer
        self._set(state=SlotState.IDLE)
        self._queue.recover()

    def _run(self, job: _Job) -> None:
        self._set(state=SlotState.BUSY)
        try:
            # Pickled here, so that what cannot be pickled fails this job and nothing else.
            message = pickle.dumps(job.call, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # noqa: BLE001 - any class may raise anything on pickling
            job.future.set_exception(error)
            self._set(state=SlotState.IDLE)
            return
        try:
            self._send(message)
            ok, answer = self._answer(self._time_limit_s, "a job")
        except WorkerError as error:
            _log.warning("%s: %s", self._name, error)
            self._mourn(str(error))
            job.future.set_exception(error)
            return
        self._set(state=SlotState.IDLE, jobs_done=self.state.jobs_done + 1)
        if ok:
            job.future.set_result(answer)
        else:
            job.future.set_exception(answer)

    def _send(self, message: bytes) -> None:
        assert self._pipe is not None  # noqa: S101 - a process runs
        try:
            self._pipe.send_bytes(message)
        except OSError as error:
            raise WorkerDied(f"the worker process died: {self._how_it_ended()}") from error

    def _answer(self, limit_s: float | None, what: str) -> tuple[bool, Any]:
        """The process's answer: (True, value) or (False, exception).

        Raises
        ------
        WorkerDied, WorkerTimedOut
            The process is gone in both cases.
        """
        assert self._pipe is not None and self._process is not None  # noqa: S101, PT018
        ready = wait([self._pipe, self._process.sentinel], limit_s)
        if not ready:
            self._process.kill()
            self._process.join()
            raise WorkerTimedOut(
                f"{what} took longer than {limit_s:g} s and its worker process was killed"
            )
        try:
            # Either there is an answer, perhaps of a process that has died since, or the pipe ends.
            message = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._process.join()
            raise WorkerDied(f"the worker process died: {self._how_it_ended()}") from error
        return unpacked(message)

    def _how_it_ended(self) -> str:
        assert self._process is not None  # noqa: S101 - called after its death
        self._process.join(_END_LIMIT_S)
        if self._killed.is_set():
            return "it was stopped"
        code = self._process.exitcode
        if code is None:
            return "exit code unknown"
        if code >= 0:
            return f"exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        hint = ", perhaps out of memory" if -code == signal.SIGKILL else ""
        return f"signal {-code} ({name}{hint})"

    def _mourn(self, error: str) -> None:
        """Take leave of a dead process and count the one that will replace it."""
        self._end_process()
        self._set(state=SlotState.STARTING, pid=None, restarts=self.state.restarts + 1, error=error)

    def _end_process(self) -> None:
        """Close the pipe, which tells the process to end, and see that it does."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return
        process.join(_END_LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()

    def _set(self, *, state: SlotState, **changes: Any) -> None:
        since = self.state.since if state is self.state.state else datetime.now(UTC)
        self.state = replace(self.state, state=state, since=since, **changes)


def unpacked(message: bytes) -> tuple[bool, Any]:
    """A worker's answer: (True, value) or (False, exception). Only of those who are trusted."""
    try:
        ok, answer, trace = pickle.loads(message)  # noqa: S301 - from our own process
    except Exception as error:  # noqa: BLE001 - a class may raise anything when it is rebuilt
        return False, WorkerError(f"a worker's answer could not be read: {error!r}")
    if trace:
        answer.add_note(f"In the worker process:\n{trace}")
    return ok, answer


# Below: what runs in the worker process.


def _work(
    pipe: Connection, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """The life of a worker: prepare, then answer one job after another until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    ready = _reply(pipe, _prepare, (initializer, initargs), {})
    while ready:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            break
        try:
            function, args, kwargs = pickle.loads(message)  # noqa: S301 - from our own parent
        except Exception as error:  # noqa: BLE001 - a class may raise anything when it is rebuilt
            pipe.send_bytes(packed_error(error))
            continue
        _reply(pipe, function, args, kwargs)
    # Native threads (TensorFlow's) may hang in destructors: nothing here is worth waiting for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _prepare(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    if initializer is not None:
        initializer(*initargs)


def _reply(
    pipe: Connection,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> bool:
    """Call and send the answer; True if the call returned."""
    ok, message = packed_answer(function, args, kwargs)
    pipe.send_bytes(message)
    return ok


def packed_answer(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, bytes]:
    """Call, and pack what comes of it for :func:`unpacked`; True if the call returned."""
    try:
        answer = function(*args, **kwargs)
        return True, pickle.dumps((True, answer, ""), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the edge of the process: whoever asked gets it
        return False, packed_error(error)


def packed_error(error: Exception) -> bytes:
    """An exception as :func:`unpacked` reads it, its traceback as text."""
    trace = "".join(traceback.format_exception(error))
    try:
        message = pickle.dumps((False, error, trace), protocol=pickle.HIGHEST_PROTOCOL)
        pickle.loads(message)  # noqa: S301 - some exceptions pickle, yet cannot be rebuilt
    except Exception:  # noqa: BLE001 - see above
        plain = WorkerError(f"{type(error).__name__}: {error}")
        message = pickle.dumps((False, plain, trace), protocol=pickle.HIGHEST_PROTOCOL)
    return message


def _die_with_parent() -> None:
    """See that this process ends when the node does, even by SIGKILL and in the midst of a job.

    A thread watches the parent; on Linux the kernel does too, for when native code never lets the
    thread run (PR_SET_PDEATHSIG, prctl(2); it follows the parent's thread that started us).
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):  # the thread is enough
            ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _watch(parent_sentinel: int) -> None:
    wait([parent_sentinel])
    os._exit(1)
