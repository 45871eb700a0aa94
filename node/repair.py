"""Mends what :mod:`storage.soundness` finds, while the node runs or not.

Nothing is deleted that could be somebody's image: what has no row is taken in again by the rules
of intake, what is damaged goes to quarantine, and a row whose file is gone says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from node.intake import Arrival, Intake, Status, content_digest
from storage import catalog
from storage.database import Database
from storage.files import Area, FileStore
from storage.soundness import Fault, FaultKind

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 1 << 20


class Repair:
    """Mends faults, one at a time.

    Parameters
    ----------
    database, files
        Those in which the faults were found.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._clock = clock
        self._intake = Intake(database, files, clock=clock)

    def mend(self, fault: Fault) -> str:
        """Mend a fault; returns what was done in words, empty where it needs a hand."""
        done = self._mend(fault)
        log.warning("store-mended", kind=fault.kind.value, file=fault.key, done=done or "nothing")
        return done

    def _mend(self, fault: Fault) -> str:
        match fault.kind:
            case FaultKind.LEFTOVER:
                (self._files.root / fault.key).unlink(missing_ok=True)
                return "removed"
            case FaultKind.STRAY if fault.area is Area.OBJECTS:
                return self._take_in(fault)
            case FaultKind.STRAY:
                return self._to_quarantine(fault)
            case FaultKind.MISSING:
                return self._missing(fault)
            case FaultKind.WRONG_SIZE | FaultKind.WRONG_DIGEST:
                return self._damaged(fault)
            case FaultKind.THERE_AFTER_ALL:
                return self._there(fault)
            case FaultKind.COUNT:
                with self._database.write() as session:
                    catalog.recount(session)
                return "counted anew"
            case _:
                return ""

    def _take_in(self, fault: Fault) -> str:
        """An object without a row: as if it came now, at a door of its own."""
        again = self._files.copy_out(fault.key)
        try:
            receipt = self._intake.receive(Arrival(path=again, door="repair"))
        finally:
            again.unlink(missing_ok=True)
        if receipt.status == Status.OUT_OF_RESOURCES:
            return ""
        self._drop(fault)
        if receipt.new:
            return "taken in again"
        kept = receipt.status == Status.SUCCESS and receipt.comment in ("", "already kept")
        return "kept already" if kept else f"in quarantine: {receipt.comment}"

    def _to_quarantine(self, fault: Fault) -> str:
        reason = "found in the store without a row"
        if fault.area is Area.RESULTS:
            reason = "a result made here that no study names; " + reason
        self._quarantine(fault, reason)
        if fault.area is not Area.QUARANTINE:
            self._drop(fault)
        return "in quarantine"

    def _missing(self, fault: Fault) -> str:
        row_id = fault.row_id or 0
        with self._database.write() as session:
            if self._files.size_bytes(fault.key) is not None:
                return "there again"
            if fault.area is Area.OBJECTS:
                catalog.mark_instance_lost(session, row_id, "is missing", now=self._clock())
                return "marked as lost; the sender's next copy is taken"
            if fault.area is Area.RESULTS:
                return catalog.mark_result_lost(session, row_id, "is missing", now=self._clock())
            catalog.mend_quarantined(session, row_id, "is missing", size_bytes=None)
            return "its row says so now"

    def _damaged(self, fault: Fault) -> str:
        row_id = fault.row_id or 0
        if fault.area is Area.QUARANTINE:
            size, digests = self._seen(fault.key)
            with self._database.write() as session:
                catalog.mend_quarantined(
                    session, row_id, "is not as it came", size_bytes=size, sha256=digests[0]
                )
            return "its row says so now"
        self._quarantine(fault, f"damaged in the store: {fault.words.rpartition(': ')[2]}")
        with self._database.write() as session:
            if fault.area is Area.OBJECTS:
                catalog.mark_instance_lost(session, row_id, "is damaged", now=self._clock())
                becomes = "marked as lost; the sender's next copy is taken"
            else:
                becomes = catalog.mark_result_lost(session, row_id, "is damaged", now=self._clock())
            self._files.delete(fault.key)
        return f"the damaged file is in quarantine; {becomes}"

    def _there(self, fault: Fault) -> str:
        """A row has given its file up, and it is there: whole, or the rest of a damaged one."""
        if fault.area is Area.QUARANTINE:
            return ""
        row_id = fault.row_id or 0
        size, digests = self._seen(fault.key)
        with self._database.write() as session:
            if catalog.mark_there(
                session,
                fault.area is Area.RESULTS,
                row_id,
                size_bytes=size,
                digests=set(digests),
                now=self._clock(),
            ):
                return "its row says so now"
        self._quarantine(fault, "the rest of a file that was given up")
        self._files.delete(fault.key)
        return "in quarantine"

    def _quarantine(self, fault: Fault, reason: str) -> None:
        size, (digest, _) = self._seen(fault.key)
        key = fault.key
        if fault.area is not Area.QUARANTINE:
            again = self._files.copy_out(fault.key)
            try:
                key = self._files.adopt(again, Area.QUARANTINE, digest)
            finally:
                again.unlink(missing_ok=True)
        new = catalog.NewQuarantined(
            received_at=self._clock(),
            reason=reason,
            status_sent=0,
            file_key=key,
            size_bytes=size,
            sha256=digest,
        )
        with self._database.write() as session:
            # A repair that was interrupted is done again.
            if not catalog.is_quarantined(session, key, reason):
                catalog.add_quarantined(session, new)

    def _seen(self, key: str) -> tuple[int, tuple[str, str]]:
        """How long a file is, and the digests of the whole and of its data set."""
        with self._files.open(key) as file:
            size, whole = 0, hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                whole.update(chunk)
                size += len(chunk)
            return size, (whole.hexdigest(), content_digest(file))

    def _drop(self, fault: Fault) -> None:
        """Delete the first name, where no row speaks of it: the content is kept elsewhere now."""
        with self._database.write() as session:
            if not catalog.is_named(session, fault.key):
                self._files.delete(fault.key)
