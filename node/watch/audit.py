"""The audit trail (PS3.15 A.5): who sent, got, asked, changed and was turned away.

As files, always, and by syslog where the settings name a server. What is told here never holds up
or fails the work that it tells of.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from node.sections import AuditSettings
from node.watch import audit_message as a
from node.watch.audit_file import AuditFile
from node.watch.audit_message import Action, AuditEvent, Code, Outcome, Participant
from node.watch.audit_syslog import SyslogSender
from node.watch.logs import study_key
from node.watch.transfers import Direction, Peer, Transfer, TurnedAway

log = structlog.get_logger(__name__)

_FLUSH_S = 1.0
_OURS = "99ECHOAI"
_FILE = Code("file", "File", _OURS)


class Audit:
    """Writes the trail. Every method may be called from any thread and raises nothing.

    Parameters
    ----------
    settings
        ``[audit]``.
    data_dir
        Of the node; the trail lies in ``audit`` there, unless the settings say otherwise.
    ae_title
        Of the node.
    node
        Whether this is the node itself, which sends, rotates and deletes; a command only appends.
    clock
        The time of an event; for tests.

    Raises
    ------
    AuditFileError, TlsError
        If the trail cannot be written, or the syslog server's TLS settings cannot be used.
    """

    def __init__(
        self,
        settings: AuditSettings,
        data_dir: Path,
        ae_title: str,
        *,
        node: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._ae_title = ae_title
        self._clock = clock
        self._source_id = f"{ae_title}@{socket.gethostname()}"
        self._file: AuditFile | None = None
        self._sender: SyslogSender | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost_told = 0
        if settings.enabled:
            folder = settings.folder or data_dir / "audit"
            self._file = AuditFile(folder, max_file_bytes=settings.max_file_bytes, rotate=node)
            if node and settings.syslog is not None:
                self._sender = SyslogSender(settings.syslog, folder)

    def start(self) -> None:
        """Tell that the node has started; begin to send."""
        self._activity(a.APPLICATION_START)
        if self._file is not None:
            self._thread = threading.Thread(target=self._keep, name="audit", daemon=True)
            self._thread.start()
        if self._sender is not None:
            self._sender.start()

    def stop(self) -> None:
        """Tell that the node stops, and bring all to the disk."""
        self._activity(a.APPLICATION_STOP)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._sender is not None:
            self._sender.stop()
        self.close()

    def close(self) -> None:
        """Bring all to the disk, without a word: for commands."""
        if self._file is not None:
            self._file.close()

    def status(self) -> dict[str, Any]:
        """For the heartbeat: whether it is written, and how far it is sent."""
        shown: dict[str, Any] = {"enabled": self._file is not None}
        if self._file is not None:
            shown["lost"] = self._file.lost
        if self._sender is not None:
            sent = self._sender.status()
            shown["syslog"] = {
                "connected": sent.connected,
                "waiting_bytes": sent.waiting_bytes,
                "last_error": sent.last_error,
            }
        return shown

    # What the doors and the outbox tell.

    def transferred(self, transfer: Transfer) -> None:
        """Objects of a study came in or went out."""
        comes = transfer.direction is Direction.IN
        them = self._peer(
            transfer.peer, requestor=comes, roles=(a.SOURCE if comes else a.DESTINATION,)
        )
        us = self._node(requestor=not comes, roles=(a.DESTINATION if comes else a.SOURCE,))
        kind = a.IMPORT if comes and transfer.door == "folder" else a.INSTANCES_TRANSFERRED
        self._tell(
            AuditEvent(
                kind=kind,
                action=Action.CREATE,
                outcome=Outcome.SUCCESS if transfer.accepted else Outcome.MINOR_FAILURE,
                description="" if transfer.accepted else "not every object was taken",
                participants=(them, us) if comes else (us, them),
                objects=(_study(transfer),),
            )
        )

    def begins_transfer(self, peer: Peer, study_instance_uid: str) -> None:
        """Sending a study's objects to another node begins."""
        self._tell(
            AuditEvent(
                kind=a.BEGIN_TRANSFERRING,
                action=Action.EXECUTE,
                participants=(
                    self._node(requestor=True, roles=(a.SOURCE,)),
                    self._peer(peer, requestor=False, roles=(a.DESTINATION,)),
                ),
                objects=(_of(study_instance_uid),),
            )
        )

    def turned_away(self, turned: TurnedAway) -> None:
        """A caller was not let in."""
        self._alert(a.NODE_AUTHENTICATION, turned.peer, turned.door, turned.reason)

    # What the web server tells.

    def authenticated(self, peer: Peer, door: str) -> None:
        """Someone showed a good password, token or certificate."""
        self._authentication(peer, door, Outcome.SUCCESS, "")

    def not_authenticated(
        self, peer: Peer, door: str, reason: str, *, locked: bool = False
    ) -> None:
        """Someone showed a wrong one; ``locked``: so often that more tries are not looked at."""
        outcome = Outcome.SERIOUS_FAILURE if locked else Outcome.MINOR_FAILURE
        self._authentication(peer, door, outcome, reason)
        if locked:
            self._alert(a.NODE_AUTHENTICATION, peer, door, reason)

    def forbidden(self, peer: Peer, door: str, reason: str) -> None:
        """Someone known asked for what he has no role for."""
        self._alert(a.RESTRICTED_FUNCTION, peer, door, reason)

    def queried(self, peer: Peer, door: str, query: str, *, sop_class_uid: str = "") -> None:
        """Someone asked for a list. ``query`` must not hold a patient's values."""
        self._tell(
            AuditEvent(
                kind=a.QUERY,
                action=Action.EXECUTE,
                participants=(
                    self._peer(peer, requestor=True, roles=(a.SOURCE,)),
                    self._node(requestor=False, roles=(a.DESTINATION,)),
                ),
                objects=(
                    a.SystemObject(
                        identifier=sop_class_uid or door,
                        kind=a.CLASS_UID if sop_class_uid else a.URI,
                        query=query,
                        role="24" if not sop_class_uid else "3",
                    ),
                ),
            )
        )

    def looked(self, peer: Peer, study_instance_uid: str) -> None:
        """Someone looked at a study."""
        self._accessed(peer, study_instance_uid, Action.READ)

    def operated(
        self, peer: Peer, action: str, study_instance_uid: str, *, refused: str = ""
    ) -> None:
        """An operator changed a study's course (hold, release, retry, resend), or tried to."""
        code = Code(action, f"{action} by an operator", _OURS)
        self._accessed(peer, study_instance_uid, Action.UPDATE, types=(code,), refused=refused)

    # What commands and jobs tell.

    def deleted(
        self, study_instance_uid: str, *, sop_classes: tuple[tuple[str, int], ...] = (), why: str
    ) -> None:
        """Files of a study were deleted, by retention or by an operator."""
        self._tell(
            AuditEvent(
                kind=a.INSTANCES_ACCESSED,
                action=Action.DELETE,
                description=why,
                participants=(self._node(requestor=True),),
                objects=(_of(study_instance_uid, sop_classes),),
            )
        )

    def exported(self, user: str, what: str, study_instance_uid: str = "") -> None:
        """Someone copied objects out of the node, to a file."""
        self._tell(
            AuditEvent(
                kind=a.EXPORT,
                action=Action.READ,
                description=what,
                participants=(
                    Participant(user_id=user, requestor=True),
                    self._node(requestor=False, roles=(a.SOURCE,)),
                    Participant(
                        user_id="file",
                        requestor=False,
                        roles=(a.DESTINATION_MEDIA,),
                        media_type=_FILE,
                    ),
                ),
                objects=(_of(study_instance_uid),) if study_instance_uid else (),
            )
        )

    def users_changed(self, user: str, what: str, name: str) -> None:
        """Someone added, changed or removed a user of the web server."""
        self._tell(
            AuditEvent(
                kind=a.SECURITY_ALERT,
                action=Action.EXECUTE,
                types=(a.USER_SECURITY_CHANGED,),
                participants=(
                    Participant(user_id=user, requestor=True),
                    self._node(requestor=False),
                ),
                objects=(
                    a.SystemObject(
                        identifier=name,
                        kind=Code("11", "User Identifier", "RFC-3881"),
                        name=name,
                        details=(("Alert Description", what),),
                        role="11",
                    ),
                ),
            )
        )

    # How they are told.

    def _activity(self, code: Code) -> None:
        launcher = Participant(
            user_id=str(os.geteuid()),
            requestor=True,
            roles=(Code("110151", "Application Launcher"),),
        )
        self._tell(
            AuditEvent(
                kind=a.APPLICATION_ACTIVITY,
                action=Action.EXECUTE,
                types=(code,),
                participants=(self._node(requestor=False, roles=(a.APPLICATION,)), launcher),
            )
        )

    def _authentication(self, peer: Peer, door: str, outcome: Outcome, reason: str) -> None:
        self._tell(
            AuditEvent(
                kind=a.USER_AUTHENTICATION,
                action=Action.EXECUTE,
                types=(a.LOGIN,),
                outcome=outcome,
                description=f"{door}: {reason}" if reason else "",
                participants=(self._peer(peer, requestor=True), self._node(requestor=False)),
            )
        )

    def _alert(self, code: Code, peer: Peer, door: str, reason: str) -> None:
        self._tell(
            AuditEvent(
                kind=a.SECURITY_ALERT,
                action=Action.EXECUTE,
                types=(code,),
                outcome=Outcome.SERIOUS_FAILURE,
                description=reason,
                participants=(
                    self._node(requestor=False),
                    self._peer(peer, requestor=True),
                ),
                objects=(
                    a.SystemObject(
                        identifier=peer.host or "unknown",
                        kind=a.NODE_ID,
                        name=peer.ae_title or peer.user or peer.host,
                        details=(("Alert Description", f"{door}: {reason}"),),
                    ),
                ),
            )
        )

    def _accessed(
        self,
        peer: Peer,
        study_instance_uid: str,
        action: Action,
        *,
        types: tuple[Code, ...] = (),
        refused: str = "",
    ) -> None:
        self._tell(
            AuditEvent(
                kind=a.INSTANCES_ACCESSED,
                action=action,
                types=types,
                outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
                description=refused,
                participants=(self._peer(peer, requestor=True), self._node(requestor=False)),
                objects=(_of(study_instance_uid),),
            )
        )

    def _node(self, *, requestor: bool, roles: tuple[Code, ...] = ()) -> Participant:
        return Participant(
            user_id=str(os.getpid()),
            requestor=requestor,
            ae_titles=(self._ae_title,),
            user_name="echonode",
            host=socket.gethostname(),
            roles=roles,
        )

    def _peer(self, peer: Peer, *, requestor: bool, roles: tuple[Code, ...] = ()) -> Participant:
        return Participant(
            user_id=peer.user or peer.ae_title or peer.host or "unknown",
            requestor=requestor,
            ae_titles=(peer.ae_title,) if peer.ae_title else (),
            host=peer.host,
            roles=roles,
        )

    def _tell(self, event: AuditEvent) -> None:
        if self._file is None:
            return
        try:
            line = a.audit_message(event, source_id=self._source_id, at=self._clock())
            self._file.append(line)
            if self._sender is not None:
                self._sender.wake()
        except Exception:
            # What is told of must not fail for the telling.
            log.exception("audit-failed", audit_event=event.kind.meaning)

    def _keep(self) -> None:
        """Bring lines to the disk each second; once a while, delete what is too old."""
        turns = 0
        while not self._stopping.wait(_FLUSH_S):
            try:
                self._turn(turns)
            except Exception:
                # The edge of the thread.
                log.exception("audit-not-kept")
            turns += 1

    def _turn(self, turns: int) -> None:
        file = self._file
        if file is None:
            return
        if file.flush() and file.lost > self._lost_told:
            self._lost_told = file.lost
            self._tell(
                AuditEvent(
                    kind=a.SECURITY_ALERT,
                    action=Action.EXECUTE,
                    types=(a.RECORDING_STOPPED,),
                    outcome=Outcome.SERIOUS_FAILURE,
                    description=f"{file.lost} messages were lost: the file could not be written",
                    participants=(self._node(requestor=True),),
                )
            )
        if turns % 3600 == 0:
            needed = None if self._sender is None else self._sender.needed_from
            file.delete_older(self._settings.keep_days, before=needed)


def _study(transfer: Transfer) -> a.StudyObject:
    classes = transfer.sop_class_uids
    # Of several classes only the sum is known, and the schema wants a number with each.
    uid = classes[0] if len(classes) == 1 else ""
    return _of(transfer.study_instance_uid, ((uid, transfer.count),))


def _of(study_instance_uid: str, sop_classes: tuple[tuple[str, int], ...] = ()) -> a.StudyObject:
    # What stands in place of a UID may be a name.
    known = re.fullmatch("[0-9.]{1,64}", study_instance_uid) is not None
    return a.StudyObject(
        study_instance_uid=study_instance_uid if known else "unknown",
        key=study_key(study_instance_uid),
        sop_classes=sop_classes,
    )
