"""Whether anything may be taken in: space, the store, the database, the clock.

The node refuses before a disk is full, not when it is: what it has promised to keep, and the rows
that say so, need room too. Between the mark where refusing begins and the one where it ends lies
a gap, so that a disk at its mark does not make the node change its mind with every object.

What is found wrong is a :class:`Trouble` with words and a next step. Each ends by itself when its
cause is gone.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.engine import make_url

from node.sections import DiskSettings
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import Area, FileStore, FileStoreError

log = structlog.get_logger(__name__)

_FRESH_S = 1.0  # after that a C-STORE looks anew
_CLOCK_TOLERANCE = timedelta(seconds=60)
_PROBE_BYTES = 4096


class TroubleKind(StrEnum):
    """What can be wrong."""

    DISK_FULL = "disk-full"  #: less is free than is to be kept free
    STORE_GONE = "store-gone"  #: its folders are not there
    STORE_READ_ONLY = "store-read-only"  #: or cannot be written for another reason
    DATABASE = "database"  #: it is locked, gone, or takes no rows
    CLOCK = "clock"  #: it runs behind what was written down


#: For peers and logs: no paths.
_REASONS = {
    TroubleKind.DISK_FULL: "the disk is nearly full",
    TroubleKind.STORE_GONE: "the store is not there",
    TroubleKind.STORE_READ_ONLY: "the store cannot be written",
    TroubleKind.DATABASE: "the database takes no rows",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """One thing that is wrong: in words, what to do, and since when."""

    kind: TroubleKind
    words: str
    next_step: str
    since: datetime

    @property
    def refuses(self) -> bool:
        """Whether nothing is taken in meanwhile."""
        return self.kind in _REASONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A volume on which the node keeps something, with its two marks."""

    path: Path
    free_bytes: int
    total_bytes: int
    mark_bytes: int  #: with less free, nothing is taken
    go_on_bytes: int  #: with so much free, it is taken again


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskState:
    """What the last look found."""

    volumes: tuple[Volume, ...]
    troubles: tuple[Trouble, ...]

    @property
    def refusing(self) -> Trouble | None:
        """The first trouble because of which nothing is taken."""
        return next((trouble for trouble in self.troubles if trouble.refuses), None)


class DiskWatch:
    """Looks at what the node needs in order to keep something. Any thread may ask.

    Parameters
    ----------
    settings
        The marks.
    data_dir
        The node's own folder.
    database
        Asked whether it would take a row.
    files
        The store, where it is not in ``data_dir``.
    longest_pause_s
        The longest pause between two tries at a delivery: see
        :func:`storage.catalog.mend_times`.
    """

    def __init__(
        self,
        settings: DiskSettings,
        data_dir: Path,
        database: Database,
        *,
        files: FileStore | None = None,
        longest_pause_s: float = 900.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._files = files
        self._is_full = False  # here, as the last look found
        self._elsewhere: list[Trouble] = []  # of a store that is asked at each look
        self._database = database
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._looking = threading.Lock()
        self._looked_at = float("-inf")  # of the monotonic clock
        self._state = DiskState(volumes=(), troubles=())

    @property
    def state(self) -> DiskState:
        """What the last look found."""
        return self._state

    def refusing(self) -> str | None:
        """Why nothing may be taken now, in words without a path; None while all is well.

        Looks at the volumes and the folders where that was not done in the last second, or where
        what came meanwhile has taken the space.
        """
        stale = time.monotonic() - self._looked_at > _FRESH_S or self._filled()
        if stale and self._looking.acquire(blocking=False):
            try:
                kept = [
                    trouble
                    for trouble in self._state.troubles
                    if trouble.kind in (TroubleKind.DATABASE, TroubleKind.CLOCK)
                ]
                self._found(self._at_volumes(probe=False), kept)
            finally:
                self._looking.release()
        trouble = self._state.refusing
        return None if trouble is None else _REASONS[trouble.kind]

    def _filled(self) -> bool:
        """Whether a volume has fallen under its mark since the last look."""
        if self._state.refusing is not None:
            return False
        try:
            return any(_free_bytes(one.path) < one.mark_bytes for one in self._state.volumes)
        except OSError:
            return True  # it is not there any more

    def unreadable(self) -> str | None:
        """Why what is kept cannot be read now; None while it can."""
        self.refusing()
        gone = [item for item in self._state.troubles if item.kind is TroubleKind.STORE_GONE]
        return gone[0].words if gone else None

    def look(self) -> DiskState:
        """Look at everything now: also whether a file can be written and a row would be taken."""
        at_database = self._at_database()  # may wait for a lock: nobody waits for this meanwhile
        self._elsewhere = reach_troubles(self._files, self._clock())  # and for an answer
        with self._looking:
            self._found(self._at_volumes(probe=True), at_database)
        return self._state

    def shown(self) -> dict[str, Any]:
        """The state as plain values, for the heartbeat."""
        return shown(self._state)

    def _at_volumes(self, *, probe: bool) -> tuple[tuple[Volume, ...], list[Trouble]]:
        now = self._clock()
        try:
            url = str(self._database.url)
            volumes = volumes_of(self._settings, self._data_dir, url, self._files)
        except OSError as error:
            words = f"data_dir {self._data_dir}: {error.strerror}"
            if error.filename:
                words = f"{error.filename}: {error.strerror}"
            return (), [_trouble(TroubleKind.STORE_GONE, words, _MOUNT, now)]
        troubles = full_volumes(volumes, now, already_full=self._is_full)
        probe = probe and not troubles
        troubles += store_troubles(self._data_dir, now, probe=probe, files=self._files)
        self._is_full = any(item.kind is TroubleKind.DISK_FULL for item in troubles)
        return volumes, troubles + self._elsewhere

    def _at_database(self) -> list[Trouble]:
        now = self._clock()
        try:
            with self._database.write() as session:
                newest = catalog.newest_time(session)
                behind = newest is not None and newest > now + _CLOCK_TOLERANCE
                mended = 0
                if behind:
                    mended = catalog.mend_times(session, now, longest_pause_s=self._longest_pause_s)
        except DatabaseError as error:
            words, _, next_step = str(error).rpartition("; ")
            return [_trouble(TroubleKind.DATABASE, words, next_step, now)]
        if mended:
            log.warning("times-mended", rows=mended)
        if newest is None or not behind:
            return []
        return [
            _trouble(
                TroubleKind.CLOCK,
                f"the clock is {_span(newest - now)} behind the newest row, of "
                f"{newest:%Y-%m-%d %H:%M:%S} UTC: was it set back?",
                "see to the clock; the node works on, and what waits counts its time from now on",
                now,
            )
        ]

    def _found(
        self, at_volumes: tuple[tuple[Volume, ...], list[Trouble]], others: Sequence[Trouble]
    ) -> None:
        volumes, troubles = at_volumes
        before = {trouble.kind: trouble for trouble in self._state.troubles}
        now = {trouble.kind: trouble for trouble in (*troubles, *others)}
        for kind in before.keys() & now.keys():
            now[kind] = replace(now[kind], since=before[kind].since)
        self._state = DiskState(
            volumes=volumes, troubles=tuple(now[kind] for kind in TroubleKind if kind in now)
        )
        self._looked_at = time.monotonic()
        for kind in now.keys() - before.keys():
            log.warning(
                "trouble",
                kind=kind.value,
                what=now[kind].words,
                next_step=now[kind].next_step,
                refuses=now[kind].refuses,
            )
        for kind in before.keys() - now.keys():
            lasted = self._clock() - before[kind].since
            log.info("trouble-over", kind=kind.value, lasted_s=round(lasted.total_seconds()))


def shown(state: DiskState) -> dict[str, Any]:
    """A state as plain values."""
    refusing = state.refusing
    return {
        "refusing": None if refusing is None else _REASONS[refusing.kind],
        "refusing_since": None if refusing is None else refusing.since.isoformat(),
        "troubles": [
            {
                "kind": trouble.kind.value,
                "what": trouble.words,
                "next_step": trouble.next_step,
                "since": trouble.since.isoformat(),
                "refuses": trouble.refuses,
            }
            for trouble in state.troubles
        ],
        "volumes": [
            {
                "path": str(volume.path),
                "free_bytes": volume.free_bytes,
                "total_bytes": volume.total_bytes,
                "mark_bytes": volume.mark_bytes,
                "go_on_bytes": volume.go_on_bytes,
            }
            for volume in state.volumes
        ],
    }


def volumes_of(
    settings: DiskSettings, data_dir: Path, database_url: str, files: FileStore | None = None
) -> tuple[Volume, ...]:
    """The volume of the data folder, and those of the store and the database where they are others.

    Raises
    ------
    OSError
        If the data folder is not there.
    """
    volumes = {data_dir.stat().st_dev: _volume(settings, data_dir)}
    if files is not None:
        volumes.setdefault(files.root.stat().st_dev, _volume(settings, files.root))
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database is not None:
        folder = Path(url.database).parent
        if folder.is_dir():
            volumes.setdefault(folder.stat().st_dev, _volume(settings, folder))
    return tuple(volumes.values())


def full_volumes(
    volumes: Sequence[Volume], now: datetime, *, already_full: bool = False
) -> list[Trouble]:
    """The trouble that a volume is nearly full, or still not free enough to go on."""
    for volume in volumes:
        mark = volume.go_on_bytes if already_full else volume.mark_bytes
        if volume.free_bytes >= mark:
            continue
        words = (
            f"{_size(volume.free_bytes)} free of {_size(volume.total_bytes)} at {volume.path}; "
            f"nothing is taken under {_size(volume.mark_bytes)}, and again from "
            f"{_size(volume.go_on_bytes)} on"
        )
        next_step = "free space there, or let [retention] do it"
        if volume.go_on_bytes > volume.total_bytes:
            next_step = "the volume is smaller than that: set [disk] keep_free_bytes lower"
        return [_trouble(TroubleKind.DISK_FULL, words, next_step, now)]
    return []


def store_troubles(
    data_dir: Path, now: datetime, *, probe: bool, files: FileStore | None = None
) -> list[Trouble]:
    """What keeps files from being written on this machine; ``probe`` writes one to see."""
    root, incoming = data_dir, data_dir / "incoming"
    folders: tuple[Path, ...] = (incoming, *(data_dir / area for area in Area))
    if files is not None:
        root, incoming, folders = files.root, files.incoming_folder, files.folders
    for folder in folders:
        if not folder.is_dir():
            return [
                _trouble(TroubleKind.STORE_GONE, f"the folder {folder} is not there", _MOUNT, now)
            ]
    try:
        if os.statvfs(root).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # noqa: TRY301 - as a write would
        if probe:
            _try_to_write(incoming)
    except OSError as error:
        words = f"the store at {root} cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            next_step = "free space there: bytes, inodes, or this user's quota"
            return [_trouble(TroubleKind.DISK_FULL, words, next_step, now)]
        next_step = "see why the volume is read-only, and that this user may write there"
        return [_trouble(TroubleKind.STORE_READ_ONLY, words, next_step, now)]
    return []


def reach_troubles(files: FileStore | None, now: datetime, *, write: bool = False) -> list[Trouble]:
    """What keeps files from being written to a store that is not on this machine."""
    try:
        if files is not None:
            files.reach(write=write)
    except FileStoreError as error:
        words, _, next_step = str(error).rpartition("; ")
        kind = TroubleKind.DISK_FULL if error.disk_full else TroubleKind.STORE_GONE
        return [_trouble(kind, words, next_step, now)]
    return []


_MOUNT = "see that its volume is mounted; the node goes on when it is"


def _try_to_write(folder: Path) -> None:
    """Write into a file that has no name, where the file system offers that.

    So a node that dies meanwhile leaves nothing behind, and nobody takes it for something received.
    """
    with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(_PROBE_BYTES))


def _free_bytes(path: Path) -> int:
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def _volume(settings: DiskSettings, path: Path) -> Volume:
    space = os.statvfs(path)
    total = space.f_blocks * space.f_frsize
    mark = max(settings.keep_free_bytes, int(total * settings.keep_free_percent / 100))
    return Volume(
        path=path,
        free_bytes=space.f_bavail * space.f_frsize,
        total_bytes=total,
        mark_bytes=mark,
        go_on_bytes=int(mark * settings.go_on_percent / 100),
    )


def _trouble(kind: TroubleKind, words: str, next_step: str, now: datetime) -> Trouble:
    return Trouble(kind=kind, words=words, next_step=next_step, since=now)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _span(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    return f"{seconds // 3600} h {seconds % 3600 // 60} min" if seconds >= 3600 else f"{seconds} s"
