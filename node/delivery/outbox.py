"""The outbox: results wait here until a destination has taken them.

Rows say what is due, files hold the exact bytes. Every answer is noted at once in a transaction of
its own, so a crash repeats at most the object that was on the wire, under the same UID.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog

from node.delivery.sending import Answer, Outgoing, Sender
from node.settings import DeliverySettings
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import FileStore

log = structlog.get_logger(__name__)

_BATCH = 50  # objects on one association; the rest goes with the next
_DATABASE_PAUSE_S = 1.0
_JITTER = 0.2  # archives that come back are not met by everything at once


class Outbox:
    """Delivers what is due.

    Parameters
    ----------
    senders
        The way to each destination, by its name in settings.
    settings
        Pauses between attempts and the age at which to give up.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        senders: Mapping[str, Sender],
        settings: DeliverySettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._senders = senders
        self._settings = settings
        self._clock = clock
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Wait no longer for a database that does not answer; the next start sends again."""
        self._stopping.set()

    @property
    def destinations(self) -> tuple[str, ...]:
        """The names of the destinations."""
        return tuple(self._senders)

    def deliver_due(self, destination: str) -> int:
        """Send what is due to one destination; returns how many objects it took."""
        with self._database.write() as session:
            due = catalog.claim_due_deliveries(
                session, self._clock(), destination=destination, limit=_BATCH
            )
        if not due:
            return 0
        by_id = {delivery.delivery_id: delivery for delivery in due}
        outgoing = [
            Outgoing(
                delivery_id=delivery.delivery_id,
                path=self._files.path(delivery.result.file_key),
                sop_class_uid=delivery.result.sop_class_uid,
                sop_instance_uid=delivery.result.sop_instance_uid,
                transfer_syntax_uid=delivery.result.transfer_syntax_uid,
            )
            for delivery in due
        ]
        taken = 0
        open_ids = set(by_id)
        try:
            for answer in self._senders[destination].send(outgoing):
                self._note(by_id[answer.delivery_id], answer)
                open_ids.discard(answer.delivery_id)
                taken += answer.accepted
        finally:
            # A sender that broke down leaves no delivery behind in "sending".
            for delivery_id in sorted(open_ids):
                silence = Answer(
                    delivery_id=delivery_id,
                    accepted=False,
                    status=None,
                    text=f"sending to {destination} broke off; see the node's log",
                )
                self._note(by_id[delivery_id], silence)
        return taken

    def _note(self, delivery: catalog.DueDelivery, answer: Answer) -> None:
        """Write an answer down, as soon as the database takes it."""
        while True:
            try:
                self._write_down(delivery, answer)
            except DatabaseError as error:
                log.error(  # noqa: TRY400 - the message of the store says all
                    "answer-waits", destination=delivery.destination, reason=str(error)
                )
                if self._stopping.wait(_DATABASE_PAUSE_S):
                    return
            else:
                return

    def _write_down(self, delivery: catalog.DueDelivery, answer: Answer) -> None:
        now = self._clock()
        with self._database.write() as session:
            if answer.accepted:
                catalog.record_delivered(
                    session, delivery.delivery_id, answer.text, answer.status, now
                )
            elif now - delivery.queued_at >= timedelta(seconds=self._settings.give_up_after_s):
                catalog.record_delivery_failed(
                    session, delivery.delivery_id, answer.text, answer.status, now
                )
            else:
                catalog.record_delivery_retry(
                    session,
                    delivery.delivery_id,
                    answer.text,
                    answer.status,
                    now,
                    next_attempt_at=now + self._pause(delivery.attempts),
                )
        log.log(
            20 if answer.accepted else 30,
            "result-delivered" if answer.accepted else "result-not-delivered",
            destination=delivery.destination,
            kind=delivery.result.kind.value,
            answer=answer.text,
            attempt=delivery.attempts,
        )

    def _pause(self, attempts: int) -> timedelta:
        """Doubling pauses up to the longest, each a little off: nodes must not march in step."""
        growing = self._settings.first_pause_s * 2.0 ** min(attempts - 1, 30)
        pause_s = min(growing, self._settings.longest_pause_s)
        return timedelta(seconds=pause_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret
