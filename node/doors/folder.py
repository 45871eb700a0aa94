"""Watched folders: files that are left there come in as if a machine had sent them.

The node looks again and again, since network shares tell nobody of a new file. A file is taken when
it has not changed for a while, and is deleted or moved only after the intake has said that it is
kept. What a stop or a crash leaves is found by the next look, and the intake knows it again.

A file's name often holds a patient's: no name of a file is logged or shown.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import structlog

from node.doors.media import Fault, Find, Skipped, objects_in, shown, walk
from node.doors.taking import DOOR, Fate, RefusedError, Taken, Taker
from node.intake import Intake
from node.sections import WatchedFolder
from node.watch.transfers import Direction, Peer, Transfer
from storage.files import FileStore

log = structlog.get_logger(__name__)

FAILED = "failed"  #: the subfolder of what is not in, each with a text that says why
TAKEN = "taken"  #: the subfolder of what is kept, with ``after = "move"``
MOST_FILES = 200_000  #: that a folder may hold: so many are remembered
_OURS = ".echonode-"  # begins the name of a file that is about to be deleted
_GONE = "see that its volume or share is mounted, and that this user may read it"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """A file as it was when it was looked at."""

    path: Path
    about: os.stat_result
    key: bytes  #: of its place, size and time: it changes with the file


@dataclass
class _Look:
    """What one look has found."""

    waiting: dict[bytes, float] = field(default_factory=dict)  #: since when unchanged
    settled: dict[bytes, str] = field(default_factory=dict)  #: what need not be looked at again
    unreadable: int = 0
    too_many: bool = False
    refused: str | None = None
    studies: dict[str, Counter[str]] = field(default_factory=dict)  #: classes of what came in
    spoiled: set[str] = field(default_factory=set)  #: studies of which not all came in


class FolderDoor:
    """Takes what is left in one folder. One thread at a time looks; any may ask.

    Parameters
    ----------
    settings
        Which folder, and what becomes of a file.
    files, intake
        Where objects go.
    refusing
        Gives a reason while nothing may be taken.
    transferred
        Told of each study that came in with a look.
    clock
        Seconds that only go forward; for tests.
    """

    def __init__(
        self,
        settings: WatchedFolder,
        files: FileStore,
        intake: Intake,
        *,
        refusing: Callable[[], str | None] = lambda: None,
        transferred: Callable[[Transfer], None] = lambda _transfer: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._refusing = refusing
        self._transferred = transferred
        self._clock = clock
        self._stopping = threading.Event()
        self._taker = Taker(files, intake, self._reason)
        self._before = _Look()
        self._taken = 0  # objects, since the start
        self._failed = 0
        self._trouble: str | None = None
        self._next_step = ""
        self._since: datetime | None = None
        self._looked_at: datetime | None = None

    @property
    def every_s(self) -> float:
        """The pause between two looks."""
        return self._settings.every_s

    def stop(self) -> None:
        """Let a look end soon."""
        self._stopping.set()

    def look(self) -> None:
        """Look once, and take what is to be taken."""
        now = _Look()
        try:
            os.scandir(self._settings.path).close()
            for seen in self._files(now):
                self._look_at(seen, now)
                if self._stopping.is_set():
                    return
        except OSError as error:
            self._say(f"it cannot be read: {error.strerror}", _GONE)
            return
        finally:
            self._tell(now)
            self._before = now
            self._looked_at = datetime.now(UTC)
        self._failed = self._count_failed(now)
        self._judge(now)

    def shown(self) -> dict[str, Any]:
        """How it is, for the heartbeat."""
        states = Counter(self._before.settled.values())
        return {
            "path": str(self._settings.path),
            "after": self._settings.after,
            "looked_at": None if self._looked_at is None else self._looked_at.isoformat(),
            "waiting": len(self._before.waiting),
            "failed": self._failed,
            "not_dicom": states["not-dicom"],
            "taken": self._taken,
            "trouble": self._trouble,
            "next_step": self._next_step,
            "since": None if self._since is None else self._since.isoformat(),
        }

    # What lies there.

    def _files(self, now: _Look) -> Iterator[_Seen]:
        """The files that may be due, bounded in number."""
        root = self._settings.path
        own = [root / FAILED, root / TAKEN]
        for path in walk(root, follow_links=False, leave_out=own, most=MOST_FILES):
            if isinstance(path, Fault):
                now.too_many |= path.too_many
                now.unreadable += not path.too_many
            if not isinstance(path, Path):
                continue
            if len(now.waiting) + len(now.settled) >= MOST_FILES:
                now.too_many = True
                return
            try:
                about = path.lstat()
            except FileNotFoundError:
                continue
            yield _Seen(path=path, about=about, key=_key(path, about))

    def _look_at(self, seen: _Seen, now: _Look) -> None:
        state = self._before.settled.get(seen.key)
        if state is not None:
            state = self._finish(seen) if state == "stuck" else state
            if state is not None:
                now.settled[seen.key] = state
            return
        at = self._clock()
        since = self._before.waiting.get(seen.key, at)
        now.waiting[seen.key] = since
        if at - since < self._settings.unchanged_s or now.refused is not None:
            return
        try:
            state = self._take(seen, now)
        except RefusedError as error:
            now.refused = str(error)
        except OSError:
            now.unreadable += 1  # a share that hangs, or a right that is missing: tried again
        except Exception as error:  # noqa: BLE001 - the edge of a file: those behind it come in
            # The trace would show the file's name.
            self._complain("folder-file-failed", type(error).__name__)
            del now.waiting[seen.key]
            now.settled[seen.key] = "failed"
        else:
            del now.waiting[seen.key]
            if state is not None:
                now.settled[seen.key] = state

    def _take(self, seen: _Seen, now: _Look) -> str | None:
        """What is to be remembered of a file; None: it is gone from here.

        Raises
        ------
        RefusedError
            If nothing may be taken now.
        OSError
            If it cannot be read.
        """
        faults: list[str] = []
        came_in = False
        for found in objects_in(seen.path, follow_links=False, read_lists=False):
            if self._stopping.is_set():
                raise RefusedError("the node stops")
            taken = self._object(found, seen, faults)
            if taken is None:
                continue
            if taken.fate.failed:
                faults.append(f"{found.name}: {taken.reason}")
                now.spoiled.add(taken.study_instance_uid)
            elif taken.fate in (Fate.TAKEN, Fate.KNOWN):
                came_in = True
            if taken.fate is Fate.TAKEN:
                self._taken += 1
                classes = now.studies.setdefault(taken.study_instance_uid, Counter())
                classes[taken.sop_class_uid] += 1
        if faults:
            return self._set_aside(seen, faults)
        if not came_in:
            return "not-dicom"
        return self._finish(seen)

    def _object(self, found: Find, seen: _Seen, faults: list[str]) -> Taken | None:
        if isinstance(found, Skipped):
            return None
        is_member = found.name != shown(seen.path)
        if isinstance(found, Fault):
            if found.may_pass:
                raise OSError(errno.EIO, found.reason)
            faults.append(f"{found.name}: {found.reason}")
            return None
        try:
            return self._taker.take(found.opened)
        except OSError as error:
            if not is_member:
                raise
            faults.append(f"{found.name}: {error.strerror}")
            return None

    # What becomes of a file.

    def _finish(self, seen: _Seen) -> str | None:
        """Delete, move or leave a file whose content is kept."""
        after = self._settings.after
        if after == "leave":
            return "kept"
        try:
            if after == "move":
                self._move(seen, TAKEN)
                return None
            # Whoever writes a new file of this name meanwhile keeps it: what is deleted is looked
            # at once more, under a name that nobody else uses.
            doomed = seen.path.with_name(f"{_OURS}{uuid.uuid4().hex}")
            if _renamed(seen, doomed):
                doomed.unlink()
        except OSError:
            return "stuck"  # tried again with every look
        return None

    def _set_aside(self, seen: _Seen, faults: Sequence[str]) -> str | None:
        """Move a file that is not in to a place of its own, with the reasons beside it."""
        self._complain("folder-file-failed", f"{len(faults)} objects are not in")
        if self._settings.after == "leave":
            return "failed"
        try:
            target = self._move(seen, FAILED)
        except OSError as error:
            self._complain("folder-keeps-file", error.strerror or "")
            return "failed"
        if target is not None:
            with suppress(OSError):  # a name that is too long with four more letters
                text = "".join(f"{line}\n" for line in faults)
                Path(f"{target}.txt").write_text(text, encoding="utf-8", errors="replace")
        return None

    def _move(self, seen: _Seen, subfolder: str) -> Path | None:
        root = self._settings.path
        target = root / subfolder / seen.path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 2
        plain = target
        while os.path.lexists(target):
            target = plain.with_name(f"{plain.stem}-{number}{plain.suffix}")
            number += 1
        return target if _renamed(seen, target) else None

    # What is told.

    def _reason(self) -> str | None:
        return "the node stops" if self._stopping.is_set() else self._refusing()

    def _complain(self, event: str, reason: str) -> None:
        """A line in the log: never with a file's name, nor with a trace that shows it."""
        log.warning(event, folder=str(self._settings.path), reason=reason)

    def _count_failed(self, now: _Look) -> int:
        here = sum(state in ("failed", "stuck") for state in now.settled.values())
        folder = self._settings.path / FAILED
        if not folder.is_dir():
            return here
        there = walk(folder, follow_links=False, most=MOST_FILES)
        return here + sum(isinstance(one, Path) and one.suffix != ".txt" for one in there)

    def _judge(self, now: _Look) -> None:
        if now.too_many:
            self._say(
                f"more than {MOST_FILES} files lie in it: what is beyond is not looked at",
                'move files away, or let them go with after = "delete"',
            )
        elif now.refused is not None:
            self._say(f"its files wait: {now.refused}", "`echonode status` says what to do")
        elif now.unreadable:
            self._say(
                f"{now.unreadable} of its files or folders cannot be read; they are tried again",
                "see that this user may read what is put there",
            )
        elif "stuck" in now.settled.values():
            self._say(
                "files are kept and cannot be deleted or moved from it",
                "see that this user may write there",
            )
        else:
            self._say(None, "")

    def _say(self, trouble: str | None, next_step: str) -> None:
        if trouble != self._trouble:
            if trouble is None:
                log.info("folder-well-again", folder=str(self._settings.path))
            else:
                log.warning("folder-trouble", folder=str(self._settings.path), what=trouble)
            self._since = None if trouble is None else datetime.now(UTC)
        self._trouble, self._next_step = trouble, next_step

    def _tell(self, now: _Look) -> None:
        for study, classes in now.studies.items():
            self._transferred(
                Transfer(
                    direction=Direction.IN,
                    peer=Peer(host="localhost", user="folder"),
                    door=DOOR,
                    study_instance_uid=study,
                    sop_class_uids=tuple(classes),
                    count=classes.total(),
                    accepted=study not in now.spoiled,
                )
            )


class FolderDoors:
    """All watched folders of a node."""

    def __init__(self, doors: Sequence[FolderDoor]) -> None:
        self.doors = tuple(doors)

    def shown(self) -> list[dict[str, Any]]:
        """How each is, for the heartbeat."""
        return [door.shown() for door in self.doors]

    def stop(self) -> None:
        """Let looks end soon."""
        for door in self.doors:
            door.stop()


def _key(path: Path, about: os.stat_result) -> bytes:
    # Not the inode: on some network shares it is another one with every look.
    words = f"{about.st_size} {about.st_mtime_ns} ".encode()
    return blake2b(words + os.fsencode(path), digest_size=16).digest()


def _renamed(seen: _Seen, target: Path) -> bool:
    """Give a file another name, unless another file has taken its place since it was read."""
    seen.path.rename(target)
    now = target.lstat()
    if _same(now, seen.about):
        return True
    if not os.path.lexists(seen.path):
        target.rename(seen.path)
    return False


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
