"""Builds the parts of the node and joins them: the only place that knows all of them."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import structlog

from models.packs import Pack, PackError, load_pack, shipped_packs
from node.analysis import analyse, picture_settings
from node.cli.status import status_json
from node.compute.card import card_of
from node.compute.cluster import MOST_PLACES, Cluster
from node.compute.settings import ComputeError
from node.delivery.commitment import Promises
from node.delivery.outbox import Outbox
from node.delivery.ways import WayError, ways_to
from node.dispatch import Dispatcher, DispatchSettings, Work
from node.doors.folder import FolderDoor, FolderDoors
from node.doors.promises import PromiseKeeper
from node.doors.scp import DimseDoor
from node.evidence import worth_running
from node.executor import WorkerProcesses
from node.intake import Intake
from node.jobs import Jobs
from node.kept import check_mounted
from node.lifecycle import Lifecycle
from node.membership import Membership, beat_every_s
from node.memory import leave_no_holes
from node.reporting import Reporter
from node.results import ReportSettings
from node.retention import Retention
from node.rules import reading_packs, unknown_packs
from node.service import tell
from node.settings import Settings
from node.tls import TlsError
from node.watch.alerts import Alerts, node_name, sight_of
from node.watch.audit import Audit
from node.watch.audit_file import AuditFileError
from node.watch.disk import DiskWatch
from node.watch.metrics import Metrics, Watched
from node.watch.transfers import Handled
from node.web import metrics as web_metrics
from node.web import studies as web_studies
from node.web.callers import Callers
from node.web.dicomweb.pixels import Pixels
from node.web.dicomweb.routes import router as dicomweb_router
from node.web.pages import routes as pages
from node.web.server import HttpError, HttpServer
from node.web.site import Parts, make_site
from node.web.users import UserFile
from node.window import Window
from node.workers import prepare_worker
from storage import catalog
from storage.database import Database, DatabaseError, migrate
from storage.files import FileStoreError, open_store
from storage.states import RecordingKind

log = structlog.get_logger(__name__)

_STALE_AFTER_S = 900.0  # a file in incoming/ is written to while it is received


class NodeError(Exception):
    """The node cannot start; the message names the thing, the place and the next step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Where a running node listens."""

    dimse_host: str
    dimse_port: int
    ae_title: str
    http_url: str | None = None


class Node:
    """A node, from settings to running threads and processes.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started_at = datetime.now(UTC)
        self._lock: IO[str] | None = None
        self._left_word = ""

    def start(self) -> None:
        """Bring the database up to date, take up what was interrupted, and open the door.

        Raises
        ------
        NodeError
            If the data folder is in use or a part cannot start.
        """
        settings = self._settings
        self._lock = _lock_data_folder(settings.data_dir)
        try:
            self._build()
        except BaseException:
            self.stop()
            raise
        log.info("node-started", **asdict(self.addresses))

    def _build(self) -> None:
        settings = self._settings
        there = _check_packs(settings)
        for words in unknown_packs(settings.rules, there):
            raise NodeError(words)
        packs = worth_running(
            there,
            allow_simulated=settings.analysis.allow_simulated_evidence,
            allow_demographics=settings.analysis.person_estimates,
        )
        try:
            migrate(settings.database_url)
            self._database = Database(settings.database_url)
        except DatabaseError as error:
            raise NodeError(str(error)) from error
        self._membership = Membership(
            self._database,
            settings.node.name,
            seat=_device_serial(settings.data_dir),
            lease_s=settings.node.lease_s,
            max_attempts=settings.analysis.max_attempts,
            started_at=self._started_at,
            details=self._details,
            taken_up=lambda: self._dispatcher.wake(),
        )
        try:
            self._membership.set_clock()
        except DatabaseError as error:
            raise NodeError(str(error)) from error
        try:
            self._audit = Audit(settings.audit, settings.data_dir, settings.dimse.ae_title)
        except (AuditFileError, TlsError) as error:
            raise NodeError(str(error)) from error
        self._audit.start()
        self._metrics = Metrics(
            (*settings.dimse.allowed_calling_aes, *(item.ae_title for item in settings.machines)),
            started_at_s=self._started_at.timestamp(),
        )
        try:
            if settings.store_url:
                check_mounted(settings, self._database)
            self._files = open_store(settings.store_url, settings.data_dir)
        except FileStoreError as error:
            raise NodeError(str(error)) from error
        clock = self._membership.now
        self._disk = DiskWatch(
            settings.disk,
            settings.data_dir,
            self._database,
            files=self._files,
            longest_pause_s=settings.delivery.longest_pause_s,
            clock=clock,
        )
        self._watch()
        self._sweep(older_than_s=0.0)
        self._join()
        report_settings = ReportSettings(
            device_serial=_device_serial(settings.data_dir),
            simulated_evidence=settings.analysis.allow_simulated_evidence,
            demographic_estimates=frozenset(settings.analysis.person_estimates),
        )
        self._executor = self._readers([str(pack.folder) for pack in packs])
        destinations = settings.destinations
        try:
            ways = ways_to(destinations, settings.dimse.ae_title)
        except WayError as error:
            raise NodeError(str(error)) from error
        holder = self._membership.holder
        promises = Promises(
            self._database, ways.terms, settings.delivery, holder=holder, clock=clock
        )
        # On a server another node may ask for what waits at a destination that is not ours.
        promises.settle_unasked(None if self._membership.alone else list(ways.senders))
        self._outbox = Outbox(
            self._database,
            self._files,
            ways.senders,
            settings.delivery,
            promises=promises,
            peers=ways.peers,
            transferred=self._audit.transferred,
            answered=self._metrics.delivered,
            stage_took=self._metrics.stage_took,
            holder=holder,
            clock=clock,
        )
        reporter = Reporter(
            self._files,
            report_settings,
            summary_page=settings.capture.summary_page,
            tested_on={
                (pack.ref, output.name): output.tested_on
                for pack in packs
                for output in pack.manifest.outputs
            },
            rules=settings.rules,
            text_for=[item.name for item in destinations if item.text_report],
            key_object_for=[item.name for item in destinations if item.key_object],
        )
        self._lifecycle = Lifecycle(
            self._database,
            settings.study,
            reporter,
            self._outbox.destinations,
            analysable=lambda: self._dispatcher.wake(),
            refusing=self._disk.refusing,
            stage_took=self._metrics.stage_took,
            ended=self._metrics.study_ended,
            holder=holder,
            clock=clock,
        )
        self._dispatcher = Dispatcher(
            self._database,
            self._files,
            self._executor,
            DispatchSettings(
                slots=(
                    settings.analysis.workers
                    if settings.analysis.cluster is None
                    else MOST_PLACES  # the cluster says by itself when it is full
                ),
                max_attempts=settings.analysis.max_attempts,
                allow_simulated_evidence=settings.analysis.allow_simulated_evidence,
                rules=settings.rules,
                packs=reading_packs(packs, RecordingKind.ULTRASOUND),
                ecg_packs=reading_packs(packs, RecordingKind.ECG),
                ahead=settings.analysis.ahead,
            ),
            report_settings,
            work=Work(analyse=partial(analyse, drawn=picture_settings(settings))),
            refusing=self._refusing_clips,
            metrics=self._metrics,
            holder=holder,
            worker=settings.node.name,
            clock=clock,
        )
        retention = Retention(
            settings.retention,
            self._database,
            self._files,
            self._files.free_bytes,
            deleted=lambda study, why: self._audit.deleted(study, why=why),
            clock=clock,
        )
        self._keeper = PromiseKeeper(
            self._database,
            self._files,
            settings.machines,
            settings.dimse.ae_title,
            settings.delivery,
            lines=ways.lines,
            holder=holder,
            clock=clock,
        )
        intake = Intake(
            self._database, self._files, handled=self._count, rules=settings.rules, clock=clock
        )
        self._folders = FolderDoors(
            [
                FolderDoor(
                    folder,
                    self._files,
                    intake,
                    refusing=self._disk.refusing,
                    transferred=self._audit.transferred,
                )
                for folder in settings.folders
            ]
        )
        self._jobs = Jobs(
            self._lifecycle,
            self._outbox,
            heartbeat=self._membership.beat,
            heartbeat_s=beat_every_s(settings.node.lease_s),
            sweep=self._tidy,
            watch=self._watch,
            retention=partial(self._alone, "retention", retention.run),
            unreadable=self._disk.unreadable,
            promises=self._keeper.report_due,
            alive=partial(tell, "WATCHDOG=1"),
            folders=self._folders.doors,
            hang_up=ways.lines.hang_up,
        )
        self._door = DimseDoor(
            settings.dimse,
            intake,
            str(self._files.incoming_folder),
            released=self._lifecycle.released,
            refusing=self._disk.refusing,
            commitment_reported=promises.reported,
            promises=self._keeper,
            transferred=self._audit.transferred,
            turned_away=self._audit.turned_away,
            refused=self._metrics.refused,
            counted_away=self._metrics.turned_away,
        )
        self._metrics.watch(
            Watched(
                database=self._database,
                disk=self._disk.shown,
                associations=lambda: self._door.associations,
                workers=self._executor.workers,
            )
        )
        try:
            self._door.start()
        except OSError as error:
            raise NodeError(
                f"cannot listen on {settings.dimse.host}:{settings.dimse.port}: {error.strerror}; "
                "choose another [dimse] port or stop what uses it"
            ) from error
        except TlsError as error:
            raise NodeError(f"[dimse.tls]: {error}") from error
        self._serve_http(intake)
        self._dispatcher.start()
        self._jobs.start()
        self._alerts = Alerts(
            settings.alerts,
            lambda: sight_of(
                settings.alerts,
                self._database,
                self._disk.shown(),
                self._executor.workers(),
                folders=self._folders.shown(),
                name=settings.node.name,
            ),
            node=node_name(settings.dimse.ae_title),
            memory=settings.data_dir / "alerts.json",
            counted=self._metrics.alerted,
        )
        self._alerts.start()
        self._membership.beat()
        self._window = Window(settings.data_dir, self._status)
        try:
            self._window.start()
        except OSError as error:
            # Not every volume takes a socket; whoever asks reads the rows then.
            log.warning("no-window", reason=error.strerror)

    def _readers(self, packs: list[str]) -> WorkerProcesses | Cluster:
        """Where clips are read: in processes here, or in a cluster."""
        settings = self._settings
        if settings.analysis.cluster is not None:
            try:
                return Cluster(settings.analysis, card_of(packs, settings.analysis.device))
            except (ComputeError, OSError) as error:
                raise NodeError(str(error)) from error
        return WorkerProcesses(
            settings.analysis.workers,
            initializer=prepare_worker,
            initargs=(
                packs,
                settings.analysis.workers,
                settings.log,
                settings.prepared_networks,
            ),
            time_limit_s=settings.analysis.time_limit_s,
        )

    def _refusing_clips(self) -> str | None:
        """Why no clip is begun now."""
        refused = self._disk.refusing()
        if refused is None and isinstance(self._executor, Cluster):
            return self._executor.refusing()
        return refused

    def _serve_http(self, intake: Intake) -> None:
        settings = self._settings
        if not settings.http.enabled:
            return
        self._pixels = Pixels()
        users = UserFile(settings.http.users_file or settings.data_dir / "users.json")
        parts = Parts(
            settings=settings,
            database=self._database,
            audit=self._audit,
            callers=Callers(settings.http, users, self._audit),
            not_ready=self._disk.refusing,
            metrics=self._metrics,
            files=self._files,
            intake=intake,
            pixels=self._pixels,
        )
        self._http = HttpServer(settings.http, users)
        try:
            routers = [web_metrics.router, web_studies.router, pages.router]
            if settings.dicomweb.enabled:
                routers.append(dicomweb_router)
            self._http.start(make_site(parts, *routers))
        except HttpError as error:
            raise NodeError(str(error)) from error

    @property
    def addresses(self) -> Addresses:
        """Where the node listens now."""
        return Addresses(
            dimse_host=self._settings.dimse.host,
            dimse_port=self._door.port,
            ae_title=self._settings.dimse.ae_title,
            http_url=self._http.url if self._settings.http.enabled else None,
        )

    def stop(self) -> None:
        """Close the door, finish what is being written, end the workers."""
        parts = ("_window", "_alerts", "_http", "_pixels", "_door", "_folders", "_outbox", "_jobs")
        for part in (*parts, "_dispatcher"):
            if hasattr(self, part):
                getattr(self, part).stop()
        if hasattr(self, "_executor"):
            self._executor.terminate()
        if hasattr(self, "_membership"):
            self._membership.leave()
        if hasattr(self, "_database"):
            self._database.close()
        if hasattr(self, "_audit"):
            self._audit.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        log.info("node-stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _join(self) -> None:
        """Join those who work on the database; what a stop interrupted goes on where its row says.

        Raises
        ------
        NodeError
            If another node of the same name is there.
        """
        try:
            self._membership.join()
        except (catalog.CatalogError, DatabaseError) as error:
            raise NodeError(str(error)) from error

    def _alone(self, task: str, work: Callable[[], object]) -> None:
        """Do what one of several nodes does at a time."""
        with self._database.alone(task) as alone:
            if alone:
                work()

    def _count(self, handled: Handled) -> None:
        """What became of an object that a door handed in."""
        if handled.refused is not None:
            self._metrics.refused(handled.door, handled.refused)
        elif handled.repeated:
            self._metrics.repeated(handled.door)
        else:
            self._metrics.received(handled.door, handled.size_bytes, handled.calling_ae)
            self._metrics.stage_took("keep", handled.took_s)

    def _tidy(self) -> None:
        """Now and then: files that were never acknowledged, and counts of connections long gone."""
        self._sweep()
        with self._database.write() as session:
            catalog.fold_tallies(session)

    def _sweep(self, *, older_than_s: float | None = None) -> None:
        """Remove files that an association left half written: they were never acknowledged."""
        if older_than_s is None:
            # Longer than any silence after which an association is cut off.
            older_than_s = max(_STALE_AFTER_S, 2 * self._settings.dimse.network_timeout_s)
        removed = self._files.clear_incoming(older_than_s)
        if removed:
            log.info("half-received-files-removed", count=removed)

    def _watch(self) -> None:
        """Look at disk and database, and leave word where also a locked database keeps no one out.

        The file that says who holds the data folder is open and has its place on the disk.
        """
        self._disk.look()
        shown = json.dumps(self._disk.shown())
        if self._lock is None or shown == self._left_word:
            return
        try:
            self._lock.truncate(0)
            self._lock.write(shown)
            self._lock.flush()
            self._left_word = shown
        except OSError as error:
            log.warning("no-word-left", reason=error.strerror)

    def _status(self) -> dict[str, Any] | None:
        """What ``echonode status`` is told; None while the database cannot be read."""
        try:
            with self._database.read() as session:
                return {**status_json(self._settings, session), "running": True}
        except DatabaseError as error:
            log.warning("status-not-told", reason=str(error))
            return None

    def _details(self) -> dict[str, Any]:
        """What the heartbeat tells."""
        return {
            "addresses": asdict(self.addresses),
            "associations": self._door.associations,
            "turned_away": self._door.turned_away,
            "disk": self._disk.shown(),
            "folders": self._folders.shown(),
            "audit": self._audit.status(),
            "workers": [
                {**asdict(worker), "since": worker.since.isoformat()}
                for worker in self._executor.workers()
            ],
        }


def run(
    settings: Settings, *, ready: Callable[[Addresses], None] = lambda _addresses: None
) -> None:
    """Run a node until SIGTERM or SIGINT; ``ready`` is called once it listens."""
    os.umask(0o077)  # whatever is written here is for the service user alone
    leave_no_holes()
    # What was imported stays: each look of the collector at it would hold up all threads.
    gc.collect()
    gc.freeze()
    stopping = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    previous = {
        number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with Node(settings) as node:
            ready(node.addresses)
            tell("READY=1")
            stopping.wait()
            tell("STOPPING=1")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _lock_data_folder(folder: Path) -> IO[str]:
    """Hold the data folder: two nodes on one SQLite file and one incoming folder would collide."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)  # made by someone else: what is in it is for us alone
        lock = (folder / "node.lock").open("a+")
        os.fchmod(lock.fileno(), 0o600)
    except OSError as error:
        raise NodeError(
            f"data_dir {folder} cannot be written: {error.strerror}; "
            "give the service user the folder, or set another data_dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise NodeError(
            f"data_dir {folder} is in use by another node; stop it, or set another data_dir"
        ) from error
    return lock


def _device_serial(folder: Path) -> str:
    """This node's serial number in its results: drawn once, kept as long as its data."""
    path = folder / "device-serial"
    if not path.exists():
        path.touch(0o600)
        path.write_text(f"{uuid.uuid4().hex[:16]}\n")
    return path.read_text().strip()


def _check_packs(settings: Settings) -> tuple[Pack, ...]:
    """All packs, each with a valid manifest and checksum."""
    try:
        return tuple(load_pack(folder) for folder in (*shipped_packs(), *settings.analysis.packs))
    except PackError as error:
        raise NodeError(str(error)) from error
