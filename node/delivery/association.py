"""Associations that the node opens: to send, to ask for a promise, to query."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from node.delivery.lines import Lines
from node.sections import DimsePeer
from node.tls import client_context

_CONNECT_S = 30.0  # an archive that is slow to store is not slow to answer the door
_PROBE_S = 5.0
_LONGEST_TURN_S = 1.0  # of an association's own thread
_HUNG_UP_S = 1.0  # when the node stops, nobody is waited for
Handlers = Sequence[tuple[evt.InterventionEvent | evt.NotificationEvent, Callable[..., Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """An association with a destination, or why there is none."""

    association: Association
    destination: DimsePeer
    rejections: Sequence[A_ASSOCIATE_RJ]
    tls: ssl.SSLContext | None

    @property
    def open(self) -> bool:
        """Whether messages can be sent now."""
        return bool(self.association.is_established)

    @property
    def took_no_context(self) -> bool:
        """Whether the peer answered and would not have a single one of our classes."""
        answered = self.association.acceptor.primitive is not None
        return answered and not self.rejections and not self.association.accepted_contexts

    def accepted(self, sop_class_uid: str) -> set[str]:
        """The transfer syntaxes that the peer takes for a class."""
        return {
            str(context.transfer_syntax[0])
            for context in self.association.accepted_contexts
            if context.abstract_syntax == sop_class_uid
        }

    def why_not(self) -> str:
        """Why it is not open, for the operator."""
        where = place(self.destination)
        if self.rejections:
            return f"{where} rejected the association: {self.rejections[0].reason_str}"
        if self.took_no_context:
            return f"{where} accepted none of our presentation contexts"
        trouble = None if self.tls is None else _tls_trouble(self.destination, self.tls)
        if trouble is not None:
            section = f"[{self.destination.section}.tls]"
            return f"{where}: no TLS: {trouble}; compare its certificate with {section}"
        return f"{where} cannot be reached, or ended the association"


class Caller:
    """Opens associations to one destination.

    Parameters
    ----------
    destination
        Host, port, AE title, TLS and patience.
    ae_title
        Our own.
    timeout_s
        In place of the destination's.
    lines
        Where a stop finds the associations that are open.

    Raises
    ------
    TlsError
        If a certificate or key of the settings cannot be used.
    """

    def __init__(
        self,
        destination: DimsePeer,
        ae_title: str,
        *,
        timeout_s: float | None = None,
        lines: Lines | None = None,
    ) -> None:
        self.destination = destination
        self._lines = lines or Lines()
        self.timeout_s = timeout_s or destination.timeout_s
        self._ae_title = ae_title
        self._tls = None if destination.tls is None else client_context(destination.tls)

    @contextmanager
    def call(
        self,
        contexts: Sequence[PresentationContext],
        handlers: Handlers = (),
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> Iterator[Line]:
        """An association for the length of a block; whether it is open, the line says."""
        entity = AE(self._ae_title)
        connect_s = _HUNG_UP_S if self._lines.hung_up else _CONNECT_S
        entity.connection_timeout = min(connect_s, self.timeout_s)
        entity.acse_timeout = min(_CONNECT_S, self.timeout_s)
        entity.network_timeout = self.timeout_s
        entity.dimse_timeout = self.timeout_s
        rejections: list[A_ASSOCIATE_RJ] = []
        association = entity.associate(
            self.destination.host,
            self.destination.port,
            contexts=list(contexts),
            ae_title=self.destination.ae_title,
            ext_neg=list(roles),
            tls_args=None if self._tls is None else (self._tls, self.destination.host),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _limit_waiting, [self.timeout_s]),
                (evt.EVT_CONN_OPEN, _keep_in_sight, [self._lines]),
                (evt.EVT_PDU_RECV, _keep_rejection, [rejections]),
                *handlers,
            ],
        )
        try:
            yield Line(
                association=association,
                destination=self.destination,
                rejections=rejections,
                tls=self._tls,
            )
        finally:
            if association.is_established:
                association.release()
            self._lines.remove(association)


def place(destination: DimsePeer) -> str:
    """A destination as messages name it."""
    return f"{destination.name} ({destination.ae_title} at {destination.host}:{destination.port})"


def _keep_rejection(event: evt.Event, rejections: list[A_ASSOCIATE_RJ]) -> None:
    # A peer that rejects and closes at once is taken by pynetdicom 3.0 for one that never answered
    # when it closes before the requesting thread looks; the PDU itself is seen in every case.
    if isinstance(event.pdu, A_ASSOCIATE_RJ):
        rejections.append(event.pdu)


def _limit_waiting(event: evt.Event, timeout_s: float) -> None:
    # pynetdicom 3.0 waits without end for a peer that stops in the middle of a PDU, whether it
    # sends it or takes it, and so would the thread that called.
    transport = event.assoc.dul.socket
    connection = None if transport is None else transport.socket
    if connection is None:
        return  # closed meanwhile
    limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _keep_in_sight(event: evt.Event, lines: Lines) -> None:
    transport = event.assoc.dul.socket
    connection = None if transport is None else transport.socket
    if connection is not None:
        lines.add(event.assoc, connection)


def _tls_trouble(destination: DimsePeer, context: ssl.SSLContext) -> str | None:
    """Why no TLS comes about with a host that answers; None where that is not the trouble.

    The network library keeps the reason for itself, so it is asked for once more.
    """
    try:
        with (
            socket.create_connection(
                (destination.host, destination.port), timeout=_PROBE_S
            ) as plain,
            context.wrap_socket(plain, server_hostname=destination.host) as secured,
        ):
            secured.settimeout(1.0)
            # A server of TLS 1.3 refuses our certificate after the handshake.
            secured.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not believed: {error.verify_message}"
    except ssl.SSLError as error:
        return (error.reason or str(error)).replace("_", " ").lower()
    except OSError:
        return None
    return None


class _Pausing:
    """Whether an association's own thread waits, so that another may talk to the peer.

    In pynetdicom 3.0 the threads that serve N-EVENT-REPORT write this too. When one of them does
    so at the wrong moment, or the thread ends, a call to send or to release never returns. So only
    the thread itself is listened to, and one that ended counts as waiting.
    """

    def __get__(self, association: Association, _kind: type[Association]) -> bool:
        ended = bool(getattr(association, "_kill", False))
        return ended or bool(association.__dict__.get("_is_paused", False))

    def __set__(self, association: Association, value: bool) -> None:
        if threading.current_thread() is association:
            association.__dict__["_is_paused"] = value


class Checkpoint(threading.Event):
    """Where an association's own thread rests while another talks to the peer.

    In pynetdicom 3.0 a thread that has just been let go on, and has not yet run, counts as resting
    still. Where the next request is sent at once and answered quickly, it takes the answer for a
    request of the peer's, and whoever waits for the answer waits until the DIMSE timeout. Here
    :meth:`clear` returns when the thread rests, and stays so until :meth:`set`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Condition()
        self._rests = False

    def wait(self, timeout: float | None = None) -> bool:
        """Rest until :meth:`set`; the thread of the association alone does."""
        with self._turn:
            self._rests = True
            self._turn.notify_all()
            passed = self._turn.wait_for(self.is_set, timeout)
            self._rests = False
        return passed

    def set(self) -> None:
        """Let it go on."""
        with self._turn:
            super().set()
            self._turn.notify_all()

    def clear(self) -> None:
        """Let it rest at its next turn, and wait for that; not long, since it may have ended."""
        with self._turn:
            super().clear()
            self._turn.wait_for(lambda: self._rests, _LONGEST_TURN_S)


class _Checkpoints:
    """Gives each association a :class:`Checkpoint` for the plain event that the library makes."""

    def __get__(self, association: Association, _kind: type[Association]) -> threading.Event:
        event: threading.Event = association.__dict__["_reactor_checkpoint"]
        return event

    def __set__(self, association: Association, event: threading.Event) -> None:
        ours = Checkpoint() if type(event) is threading.Event else event
        association.__dict__["_reactor_checkpoint"] = ours


setattr(Association, "_is_paused", _Pausing())  # noqa: B010 - an attribute of its instances
setattr(Association, "_reactor_checkpoint", _Checkpoints())  # noqa: B010 - the same
