"""The node's side of a cluster: an executor whose workers are elsewhere."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from node.compute.card import Card
from node.compute.job import CANNOT_READ, Job, pack_call, run_job
from node.compute.settings import CONNECT_S, ComputeError, scheduler_url, security_of, set_up_dask
from node.executor import (
    SlotState,
    WorkerDied,
    WorkerError,
    WorkerStartFailed,
    WorkerState,
    unpacked,
)
from node.sections import AnalysisSettings
from storage.files import local

if TYPE_CHECKING:
    from distributed import Client
    from distributed.cfexecutor import ClientExecutor

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MOST_PLACES = 4096  #: clips that a node ever has at work at once

_LOOK_S = 1.0  # between two looks at the cluster
_ASK_S = 10.0  # longest wait for what the scheduler says of its workers
_CARRIERS = 4  # threads that read clips for sending


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A worker of the cluster as the scheduler describes it.

    ``refused`` is why it gets no clip of ours; None where it may read. ``places`` are the clips
    that it reads at once.
    """

    address: str
    places: int
    refused: str | None
    states: tuple[WorkerState, ...]


def members_of(info: Mapping[str, Any], card: Card) -> tuple[Member, ...]:
    """The echonode workers of a scheduler, each judged by its card.

    Parameters
    ----------
    info
        What :meth:`distributed.Client.scheduler_info` gives.
    """
    return tuple(
        _member(address, told, card)
        for address, told in sorted(info.get("workers", {}).items())
        if "echonode" in told
    )


def _member(address: str, told: Mapping[str, Any], card: Card) -> Member:
    place = f"{told['echonode'].get('host', '?')} ({address})"
    theirs = Card.read(told["echonode"].get("card"))
    slots = told.get("metrics", {}).get("echonode_slots") or ()
    if theirs is None:
        refused: str | None = "it runs another version of echonode"
    else:
        refused = card.differs(theirs)
    if refused is not None:
        refused = f"it gets no clip: {refused}"
        state = WorkerState(
            pid=None,
            state=SlotState.FAILED,
            since=_time(told["echonode"].get("since")),
            error=refused,
            place=place,
        )
        return Member(address=address, places=0, refused=refused, states=(state,))
    states = tuple(_state(slot, place) for slot in slots)
    offers = int(told.get("resources", {}).get(card.resource, 0))
    return Member(address=address, places=offers, refused=None, states=states)


def _state(slot: Mapping[str, Any], place: str) -> WorkerState:
    return WorkerState(
        pid=slot["pid"],
        state=SlotState(slot["state"]),
        since=_time(slot["since"]),
        jobs_done=slot["jobs_done"],
        restarts=slot["restarts"],
        error=slot["error"],
        place=place,
    )


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sent:
    """A clip that was handed over. Its future is the caller's."""

    future: Future[Any]
    call: bytes
    source: str


class Cluster(Executor):
    """Runs functions of a clip's file on the workers of a Dask cluster that have our card.

    A function's first argument is the clip: what :func:`storage.files.local` takes. It arrives at
    the function as a path of the machine that reads. Functions, other arguments and answers must be
    picklable, as for :class:`node.executor.WorkerProcesses`, and so is what a future fails with:
    the function's own exception, :class:`~node.executor.WorkerDied`,
    :class:`~node.executor.WorkerTimedOut`; and :class:`~node.executor.WorkerStartFailed` where the
    cluster lost the clip before anything could be said of it.

    Nothing here waits for the cluster: where none answers, :meth:`refusing` says so, and it is
    called again and again until it answers.

    Raises
    ------
    ComputeError
        If the files of ``[analysis.tls]`` cannot be used.
    """

    def __init__(self, analysis: AnalysisSettings, card: Card) -> None:
        address = analysis.cluster
        if address is None:
            raise ValueError(f"{analysis.executor} names no cluster")
        set_up_dask()
        self._address = address
        self._url = scheduler_url(analysis, address)
        self._security = security_of(analysis.tls)
        self._send_bytes = analysis.send_bytes
        self._card = card
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._executor: ClientExecutor | None = None
        self._members: tuple[Member, ...] = ()
        self._trouble: str | None = "the cluster is being called"
        self._since = datetime.now(UTC)
        self._at_work: set[_Sent] = set()
        self._closed = threading.Event()
        self._carriers = ThreadPoolExecutor(_CARRIERS, thread_name_prefix="carry")
        self._thread = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand over a call; its first argument is the clip.

        Raises
        ------
        RuntimeError
            After :meth:`shutdown`.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        source, *others = args
        try:
            call = pack_call(fn, tuple(others), kwargs)
        except Exception as error:  # noqa: BLE001 - any class may raise anything on pickling
            future.set_exception(error)
            return future
        sent = _Sent(future=future, call=call, source=str(source))
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("cannot submit a job after the executor was shut down")
            self._at_work.add(sent)
        self._carriers.submit(self._carry, sent, with_bytes=self._send_bytes)
        return future

    def refusing(self) -> str | None:
        """Why a clip that was handed over now would only wait; None where a place is free."""
        with self._lock:
            if self._trouble is not None:
                return self._trouble
            places = sum(member.places for member in self._members)
            if len(self._at_work) >= places:
                return f"all {places} places of the cluster are taken"
            return None

    def workers(self) -> tuple[WorkerState, ...]:
        """Every place of every worker; one that failed where the cluster cannot be used."""
        with self._lock:
            trouble, members = self._trouble, self._members
        shown = tuple(state for member in members for state in member.states)
        if trouble is None or any(state.state is SlotState.FAILED for state in shown):
            return shown
        nobody = WorkerState(
            pid=None,
            state=SlotState.FAILED,
            since=self._since,
            error=trouble,
            place=f"dask://{self._address}",
        )
        return (*shown, nobody)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Leave the cluster. What is at work there is given up: a row says that it runs again."""
        self.terminate()

    def terminate(self) -> None:
        """The same at once; futures that have not ended fail."""
        with self._lock:
            self._closed.set()
            left = list(self._at_work)
        for sent in left:
            self._end(sent, lambda: _failed(WorkerDied("it was stopped")))
        self._carriers.shutdown(wait=False, cancel_futures=True)
        if threading.current_thread() is not self._thread:
            self._thread.join(CONNECT_S + 5.0)

    # The way of a clip, in threads of carriers and of Dask's client.

    def _carry(self, sent: _Sent, *, with_bytes: bool) -> None:
        try:
            job = self._job(sent, with_bytes=with_bytes)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: the caller gets it
            unread = error
            self._end(sent, lambda: _failed(unread))
            return
        executor = self._executor
        try:
            theirs = None if executor is None else executor.submit(run_job, job)
        except Exception:
            log.exception("clip-not-handed-over")  # to a client that has just been closed
            theirs = None
        if theirs is None:
            lost = WorkerStartFailed("the cluster was gone before it had the clip")
            self._end(sent, lambda: _failed(lost))
        else:
            theirs.add_done_callback(lambda done: self._came_back(sent, done))

    def _job(self, sent: _Sent, *, with_bytes: bool) -> Job:
        if not with_bytes:
            return Job(fingerprint=self._card.fingerprint, call=sent.call, source=sent.source)
        with local(sent.source) as path:
            clip = path.read_bytes()
        return Job(fingerprint=self._card.fingerprint, call=sent.call, clip=clip)

    def _came_back(self, sent: _Sent, done: Future[bytes]) -> None:
        try:
            answer = done.result()
        except BaseException as error:  # noqa: BLE001 - Dask's, and CancelledError is no Exception
            failure = _translated(error)
            self._end(sent, lambda: _failed(failure))
            return
        if answer == CANNOT_READ:
            log.warning("worker-cannot-read-store", next_step="the clip is sent to it instead")
            with contextlib.suppress(RuntimeError):  # shut down meanwhile
                self._carriers.submit(self._carry, sent, with_bytes=True)
            return
        self._end(sent, lambda: unpacked(answer))

    def _end(self, sent: _Sent, answer: Callable[[], tuple[bool, Any]]) -> None:
        """Give the caller what came of his clip, once."""
        with self._lock:
            if sent not in self._at_work:
                return
            self._at_work.discard(sent)
        ok, value = answer()
        if ok:
            sent.future.set_result(value)
        else:
            sent.future.set_exception(value)

    # The watch over the cluster, in a thread of its own.

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                self._look()
            except Exception:
                log.exception("cluster-not-seen")
                self._say("the cluster could not be looked at; the log says why")
            self._closed.wait(_LOOK_S)
        self._hang_up()

    def _look(self) -> None:
        client = self._client
        if client is not None and client.status == "closed":
            self._hang_up()  # Dask's client called again by itself, and has given up
            client = None
        if client is None:
            client = self._call()
        if client is None:
            return
        if client.status != "running":
            self._say(f"the scheduler at {self._address} has hung up; it is being called again")
            return
        try:
            info = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=_ASK_S)
        except (OSError, TimeoutError) as error:
            self._say(f"the scheduler at {self._address} does not answer: {_reason(error)}")
            return
        self._judge(members_of(info, self._card), len(info.get("workers", {})))

    def _call(self) -> Client | None:
        from distributed import Client

        try:
            _knock(self._address)
            client = Client(
                self._url,
                security=self._security,
                timeout=CONNECT_S,
                set_as_default=False,
                name=f"echonode-{socket.gethostname()}",
            )
        except (OSError, TimeoutError) as error:
            self._say(f"no scheduler answers at {self._address}: {_reason(error)}")
            return None
        self._client = client
        self._executor = client.get_executor(
            pure=False, resources={self._card.resource: 1}, retries=0
        )
        log.info("cluster-joined", scheduler=self._address)
        return client

    def _judge(self, members: tuple[Member, ...], workers: int) -> None:
        known = {member.address for member in self._members}
        for member in members:
            if member.address not in known and member.refused is not None:
                log.warning("worker-refused", worker=member.address, reason=member.refused)
        refused = [member for member in members if member.refused is not None]
        trouble = None
        if not any(member.places for member in members):
            trouble = "the cluster has no worker for us: start one with `echonode worker`"
            if refused:
                trouble = f"no worker of the cluster may read: {refused[0].refused}"
            elif members:
                trouble = "no worker of the cluster is ready"
            elif workers:
                trouble = f"none of the cluster's {workers} workers is of echonode"
        self._say(trouble, members)

    def _say(self, trouble: str | None, members: tuple[Member, ...] = ()) -> None:
        with self._lock:
            changed = trouble != self._trouble
            self._trouble, self._members = trouble, members
            if changed:
                self._since = datetime.now(UTC)
        if changed and trouble is not None:
            log.warning("cluster-cannot-read", reason=trouble)
        elif changed:
            log.info("cluster-reads", places=sum(member.places for member in members))

    def _hang_up(self) -> None:
        client, self._client, self._executor = self._client, None, None
        if client is not None:
            with contextlib.suppress(Exception):  # it goes anyway
                client.close(timeout=2)


def look_at(analysis: AnalysisSettings, card: Card) -> tuple[Member, ...]:
    """Call the cluster once, for whoever wants to know whether it can be used.

    Raises
    ------
    ComputeError
        If no scheduler answers, or the files of ``[analysis.tls]`` cannot be used.
    """
    if analysis.cluster is None:
        raise ValueError(f"{analysis.executor} names no cluster")
    set_up_dask()
    security = security_of(analysis.tls)
    from distributed import Client

    url = scheduler_url(analysis, analysis.cluster)
    try:
        _knock(analysis.cluster)
        with Client(url, security=security, timeout=CONNECT_S, set_as_default=False) as client:
            return members_of(client.scheduler_info(n_workers=-1), card)
    except (OSError, TimeoutError) as error:
        raise ComputeError(
            f"no scheduler answers at {analysis.cluster}: {_reason(error)}"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at an address: Dask itself asks ever more rarely."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S):
        pass


def _translated(error: BaseException) -> Exception:
    """What an exception of Dask says of the clip, as the worker processes would say it."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerDied(f"{error.allowed_failures + 1} workers died while they read it")
    if isinstance(error, CancelledError) or type(error).__name__ == "FutureCancelledError":
        return WorkerStartFailed("the connection to the cluster was lost")
    return WorkerError(f"the cluster could not run it: {type(error).__name__}: {error}")


def _failed(error: Exception) -> tuple[bool, Any]:
    return False, error


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = getattr(cause, "strerror", None) or str(cause) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
