"""A worker of a cluster: worker processes with the packs loaded, behind a Dask worker.

The Dask worker takes jobs from the scheduler and hands them to the processes beside it, which are
those of :class:`node.executor.WorkerProcesses`. So its own process stays light and answers the
scheduler while a clip is read; a process that dies or takes too long is a failed try of its clip,
with the reason, and not the end of the worker; and packs stay loaded when the scheduler is away for
a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from node.compute.card import Card, Device, card_of
from node.compute.job import Job, read_here
from node.compute.settings import CONNECT_S, scheduler_url, security_of, set_up_dask
from node.executor import (
    SlotState,
    WorkerError,
    WorkerProcesses,
    WorkerStartFailed,
    packed_error,
)
from node.sections import AnalysisSettings, LogSettings

log = structlog.get_logger(__name__)

_LOOK_S = 0.5  # how often a worker looks whether its processes are as they were
_LEAVE_S = 10.0  # longest time for saying good-bye
_PAUSE_S = 2.0  # before the scheduler is called again

Prepare = Callable[[Sequence[str], int, LogSettings, Path | None], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What a worker offers to a cluster.

    ``places`` are the clips that it reads at once, each in a process of its own. ``device`` is what
    they are read with, and ``gpus`` how many of these the machine has. ``prepared`` is where
    networks are kept as they run.
    """

    scheduler: str
    name: str
    places: int
    packs: tuple[str, ...]
    device: Device = "cpu"
    gpus: int = 0
    host: str | None = None
    prepared: Path | None = None


class Machine:
    """The processes of a worker, and what it says of them."""

    def __init__(
        self,
        offer: Offer,
        analysis: AnalysisSettings,
        logs: LogSettings,
        *,
        prepare: Prepare | None = None,
    ) -> None:
        self.offer = offer
        self.card = card_of(offer.packs, offer.device)
        self._since = datetime.now(UTC)
        self._pool = WorkerProcesses(
            offer.places,
            initializer=_prepare,
            initargs=(self.card, offer, logs, prepare),
            time_limit_s=analysis.time_limit_s,
        )

    async def read(self, job: Job) -> bytes:
        """Have a process read a clip; gives what it answers, or why it did not.

        Raises
        ------
        distributed.Reschedule
            If no process can be started: the clip is for another worker.
        """
        if job.fingerprint != self.card.fingerprint:  # the scheduler has seen to it already
            return packed_error(WorkerError("the packs of the worker are not those of the node"))
        future = self._pool.submit(read_here, job.call, job.clip, job.source)
        try:
            return await asyncio.wrap_future(future)
        except WorkerStartFailed:
            from distributed import Reschedule

            await asyncio.sleep(_PAUSE_S)  # by then this worker has taken its offer back
            raise Reschedule from None
        except Exception as error:  # noqa: BLE001 - the edge of the worker: the node gets it
            return packed_error(error.with_traceback(None))  # of what is ours it tells nothing

    @property
    def ready(self) -> bool:
        """Whether a process reads, or could."""
        return any(slot.state in (SlotState.IDLE, SlotState.BUSY) for slot in self._pool.workers())

    @property
    def failed(self) -> bool:
        """Whether every process has been given up for now."""
        return all(slot.state is SlotState.FAILED for slot in self._pool.workers())

    @property
    def error(self) -> str | None:
        """The last thing that went wrong with a process."""
        return next((slot.error for slot in self._pool.workers() if slot.error), None)

    def resources(self) -> dict[str, float]:
        """What the scheduler may count on."""
        offered = {self.card.resource: float(self.offer.places)} if not self.failed else {}
        return {**offered, "GPU": float(self.offer.gpus)} if self.offer.gpus else offered

    def told(self) -> dict[str, Any]:
        """What the node must know of a worker before it gives it anything."""
        return {
            "card": self.card.plain(),
            "host": socket.gethostname(),
            "since": self._since.isoformat(),
        }

    def slots(self) -> list[dict[str, Any]]:
        """How the processes are."""
        return [
            {**asdict(slot), "state": slot.state.value, "since": slot.since.isoformat()}
            for slot in self._pool.workers()
        ]

    def terminate(self) -> None:
        """End the processes."""
        self._pool.terminate()


async def serve(
    machine: Machine,
    analysis: AnalysisSettings,
    stopping: asyncio.Event,
    *,
    joined: Callable[[str], None] = lambda _address: None,
) -> None:
    """Be a worker of the cluster until ``stopping`` is set.

    It joins when its processes are ready, or have been given up: then it offers nothing, and the
    node shows why. A scheduler that is away is called until it is there again.

    Parameters
    ----------
    joined
        Is called with the worker's address each time that it has joined.
    """
    scheduler = scheduler_url(analysis, machine.offer.scheduler)
    security = security_of(analysis.tls)
    kind = _worker_class()
    told = False
    with tempfile.TemporaryDirectory(prefix="echonode-worker-") as folder:
        while not stopping.is_set():
            if not (machine.ready or machine.failed):
                await _pause(stopping, _LOOK_S)
                continue
            if (away := await _why_away(machine.offer.scheduler)) is not None:
                if not told:
                    log.warning("scheduler-not-reached", scheduler=scheduler, reason=away)
                told = True
                await _pause(stopping, _PAUSE_S)
                continue
            failed = machine.failed
            worker = kind(
                scheduler,
                machine=machine,
                name=f"{machine.offer.name}-{datetime.now(UTC):%H%M%S%f}",
                nthreads=machine.offer.places,
                resources=machine.resources(),
                security=security,
                host=machine.offer.host or _address_towards(machine.offer.scheduler),
                dashboard_address="127.0.0.1:0",
                local_directory=folder,
                memory_limit=0,
                death_timeout=CONNECT_S,
                metrics={"echonode_slots": lambda worker: worker.machine.slots()},
                startup_information={"echonode": lambda worker: worker.machine.told()},
            )
            try:
                await worker
            except Exception as error:  # noqa: BLE001 - of many kinds; the scheduler is called again
                if not told:
                    log.warning("scheduler-not-reached", scheduler=scheduler, reason=_words(error))
                told = True
                await _pause(stopping, _PAUSE_S)
                continue
            told = False
            log.info(
                "cluster-joined",
                scheduler=scheduler,
                address=worker.address,
                places=0 if failed else machine.offer.places,
                reason=machine.error if failed else None,
            )
            joined(worker.address)
            while not stopping.is_set() and machine.failed is failed and not _gone(worker):
                await _pause(stopping, _LOOK_S)
            await _leave(worker)
            log.info("cluster-left", scheduler=scheduler)


def run(machine: Machine, analysis: AnalysisSettings, *, joined: Callable[[str], None]) -> None:
    """Be a worker until SIGTERM or SIGINT."""

    async def until_told() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await serve(machine, analysis, stopping, joined=joined)

    set_up_dask()
    try:
        asyncio.run(until_told())
    finally:
        machine.terminate()


def _prepare(card: Card, offer: Offer, logs: LogSettings, prepare: Prepare | None) -> None:
    """Make a process ready; what it loads must be what the worker has said that it has.

    Raises
    ------
    WorkerError
        If the installation or a pack is not what it was when the worker was started, or there is no
        GPU to read with.
    """
    if card_of(offer.packs, offer.device) != card:
        raise WorkerError(
            "echonode or a pack was changed since this worker was started; start it again"
        )
    if offer.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the digits of a GPU are others
    else:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # several processes share its memory
    if prepare is None:
        from node.workers import prepare_worker

        prepare = prepare_worker  # here, since it takes seconds to import
    prepare(offer.packs, offer.places, logs, offer.prepared)
    if offer.device == "gpu":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            raise WorkerError(
                "TensorFlow sees no GPU: install its build for GPUs and the driver, or start the "
                "worker without --gpu"
            )


def _worker_class() -> Any:
    """Dask's worker with a machine; made here, so that importing this module wakes no Dask."""
    set_up_dask()
    from distributed import Worker

    class ClipWorker(Worker):  # type: ignore[misc] # the library carries no types
        def __init__(self, *args: Any, machine: Machine, **options: Any) -> None:
            self.machine = machine
            super().__init__(*args, **options)

    return ClipWorker


def _gone(worker: Any) -> bool:
    return worker.status.name in ("closing", "closed", "failed")


async def _leave(worker: Any) -> None:
    """Say good-bye, so that what is read here goes on elsewhere and counts as no death."""
    with contextlib.suppress(Exception):  # a scheduler that is not there cannot be told
        await asyncio.wait_for(worker.close_gracefully(reason="stopped"), _LEAVE_S)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(worker.close(timeout=2, executor_wait=False), _LEAVE_S)


async def _why_away(scheduler: str) -> str | None:
    """Why nothing can be had at the scheduler's port; Dask itself asks ever more rarely."""
    host, _, port = scheduler.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), int(port)), CONNECT_S
        )
    except (OSError, TimeoutError) as error:
        return _words(error)
    writer.close()
    return None


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def _address_towards(scheduler: str) -> str | None:
    """Our address on the way to the scheduler: the only one to listen on."""
    host, _, port = scheduler.rpartition(":")
    try:
        family, kind, _, _, there = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as way:
            way.connect(there)
            return str(way.getsockname()[0])
    except OSError:
        return None


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
