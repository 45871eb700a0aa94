"""The network library's transport, held in bounds.

pynetdicom 3.0.4 trusts its peers more than a port on a hospital's network can. Read in its
sources, and met in ``tests/integration/test_peers_that_misbehave.py``:

- An accepted socket has no timeout. A peer that stops within a PDU keeps two threads and a place
  for good (its issue 979): ``Association.kill`` waits for the thread that reads.
- A length field is believed, whatever it says; so is the length of a message that is no C-STORE.
- A caller that leaves before it asks for an association keeps a thread until the ACSE timeout, and
  counts against the limit of associations.
- What goes wrong while a PDU is worked on (a disk that is full, an unknown context, an empty PDV)
  ends the thread that reads without a word to the peer, and leaves its file behind.
- TLS is negotiated in the accept loop, where one silent caller keeps all others out.
- A socket that the peer closed first is never closed; requests that are sent without waiting for
  answers queue up without limit.

Everything that we put in the place of its parts is in this module. A test fails when the library
is another than :data:`TRIED_WITH`: read its sources again then.
"""

from __future__ import annotations

import functools
import gc
import ipaddress
import itertools
import os
import queue
import select
import socket
import ssl
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast
from weakref import WeakKeyDictionary

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT, DimseServiceType
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from node.doors.contexts import COMMITMENT_CLASS, COMMITMENT_INSTANCE, STORAGE_CLASSES
from node.doors.incoming import IncomingFile
from node.doors.lane import Inbox, Lane, LaneError, StoreRequest, store_answer
from node.doors.proposal import Grant, Proposals, Shortened
from node.watch.transfers import Peer

log = structlog.get_logger(__name__)

TRIED_WITH = "3.0.4"

_TICK_S = 0.25
_POLL_S = 0.001  # as the library does where one of its threads waits for the other
_WAITING_STATES = ("Sta2", "Sta6")  # PS3.8 9.2.1: for a request to associate, and associated
_GRACE_S = 5.0  # from the word that it is over to the end of the threads
_COLLECT_EVERY_S = 30.0
_HEAD_BYTES = 6  # of a PDU
_PIECE_BYTES = 1 << 18
_ASSOCIATE_RQ, _ASSOCIATE_AC, _P_DATA = 0x01, 0x02, 0x04
# PS3.8 9.3: an A-ASSOCIATE with 128 contexts of many syntaxes has less than 100 kB; a release or
# an abort has four bytes.
_LONGEST_PDU_BYTES = {0x01: 1 << 18, 0x02: 1 << 18} | dict.fromkeys((0x03, 0x05, 0x06, 0x07), 64)
_SLACK_BYTES = 1024  # some peers count the heads of PDU and PDV in, or do not
_LONGEST_COMMAND_BYTES = 1 << 16
_LONGEST_LIST_BYTES = 16 << 20  # a data set that is no C-STORE's is kept in memory
_LEAST_BYTES_PER_S = 1024.0  # of a message, over its whole time
_WAITING_REQUESTS = 4  # one operation at a time is negotiated; no more are read ahead than this
_LONGEST_DRAIN_BYTES = 1 << 20
_REMEMBERED_UIDS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How much of the node callers may take."""

    associations: int
    associations_per_host: int
    pdu_bytes: int  #: longest P-DATA-TF, as negotiated
    set_up_s: float  #: from connection to association
    pdu_s: float  #: from a PDU's first byte to its last
    silence_s: float

    @property
    def connections(self) -> int:
        """Those beyond the associations are heard and told to come again, or are still silent."""
        return self.associations + max(20, self.associations // 2)

    @property
    def connections_per_host(self) -> int:
        """The same for one address."""
        return self.associations_per_host + 10


class DoorServer(ThreadedAssociationServer):
    """Accepts at once, and gives each connection a thread that sees to its end.

    Parameters
    ----------
    bounds
        How much callers may take.
    tls
        What to speak TLS with; None speaks in the clear.
    admits
        Gives a reason to turn an address away, or None.
    turned_away
        Told of each caller that was turned away here, and why.
    new_file
        Makes the file for a data set that arrives.
    store
        Takes an object whose data set has arrived; gives the status to answer, and a comment.
    ticking
        Called now and then by the thread of each connection with an association.
    ended
        Told when nothing of a connection is left.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        *args: Any,
        bounds: Bounds,
        tls: ssl.SSLContext | None,
        admits: Callable[[str], str | None],
        turned_away: Callable[[Peer, str], None],
        new_file: Callable[[], IncomingFile],
        store: Callable[[Connection, StoreRequest, IncomingFile], tuple[int, str]],
        ticking: Callable[[Connection], None],
        ended: Callable[[Connection], None],
        **options: Any,
    ) -> None:
        _use_our_files()
        _spare_the_library()
        super().__init__(*args, **options)
        self.proposals = Proposals(
            {
                str(context.abstract_syntax): [str(syntax) for syntax in context.transfer_syntax]
                for context in self.contexts
            },
            STORAGE_CLASSES,
        )
        self.contexts = _Shared(self.contexts)
        self.bounds = bounds
        self.new_file = new_file
        self.store = store
        self._tls = tls
        self._admits = admits
        self._turned_away = turned_away
        self.ticking = ticking
        self._ended = ended
        self._collected = time.monotonic()
        self._lock = threading.Lock()
        self._connections: dict[Any, Connection] = {}  # by the socket as accepted

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All that are open, associated or not."""
        with self._lock:
            return tuple(self._connections.values())

    def connection_of(self, association: Association) -> Connection | None:
        """The connection of an association; None once nothing is left of it."""
        for connection in self.connections:
            if connection.association is association:
                return connection
        return None

    def take_place(self, connection: Connection) -> str | None:
        """Give a connection its place among the associations, or the reason why it gets none."""
        with self._lock:
            placed = [other.peer.host for other in self._connections.values() if other.has_place]
            if len(placed) >= self.bounds.associations:
                return f"{len(placed)} associations are open"
            if placed.count(connection.peer.host) >= self.bounds.associations_per_host:
                return f"{placed.count(connection.peer.host)} associations are open from there"
            connection.placed = True
            return None

    def service_actions(self) -> None:
        """Now and then clear away the rings of references that ended associations are."""
        if time.monotonic() - self._collected > _COLLECT_EVERY_S:
            gc.collect()
            self._collected = time.monotonic()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, and nothing that could wait for the caller."""
        listening = cast(socket.socket, self.socket)
        return listening.accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a caller is served at all."""
        peer = Peer(host=plain_address(client_address[0]), port=int(client_address[1]))
        reason = self._admits(peer.host)
        with self._lock:
            hosts = [other.peer.host for other in self._connections.values()]
            if reason is None and len(hosts) >= self.bounds.connections:
                reason = f"{len(hosts)} connections are open"
            if reason is None and hosts.count(peer.host) >= self.bounds.connections_per_host:
                reason = f"{hosts.count(peer.host)} connections are open from there"
            if reason is None:
                self._connections[request] = Connection(self, request, peer)
        if reason is not None:
            self._turned_away(peer, reason)
        return reason is None

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of a connection: from its acceptance until nothing of it is left."""
        connection = self._connections[request]
        try:
            if self._secured(connection, request):
                connection.attend(_Handler(connection.socket, client_address, self).association)
        except Exception:
            # The edge of a connection's thread.
            log.exception("connection-failed", peer=connection.peer.host)
        finally:
            connection.close()
            self._forget(request)
            self._ended(connection)

    def _secured(self, connection: Connection, request: socket.socket) -> bool:
        """Make the socket ready, with TLS where it is spoken; False where the caller cannot."""
        try:
            _keep_alive(request)
            request.settimeout(self.bounds.set_up_s)
            if self._tls is not None:
                secured = self._tls.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
                connection.socket = secured
                secured.do_handshake()  # the timeout is that of the whole handshake
                connection.peer = _with_certificate(connection.peer, secured)
            connection.socket.settimeout(self.bounds.pdu_s)
        except (ssl.SSLEOFError, ConnectionError):
            return False  # came and went, as those do who look whether the port is open
        except (OSError, ValueError) as error:
            if self._tls is not None:
                reason = getattr(error, "reason", None) or error.__class__.__name__
                self._turned_away(connection.peer, f"no TLS: {reason}")
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what went wrong before a connection had its thread."""
        log.exception("connection-failed", peer=str(client_address[0]))  # noqa: LOG004 - in one

    def shutdown(self) -> None:
        """Listen no more, let what is being taken in be answered, and end the associations."""
        super().shutdown()
        deadline = time.monotonic() + _GRACE_S
        for connection in self.connections:
            connection.end(deadline)
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        for connection in self.connections:
            connection.close()

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)


class Connection:
    """One caller's connection, with what the library does not keep of it."""

    def __init__(self, server: DoorServer, accepted: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.socket = accepted
        self.association: Association | None = None
        self.placed = False  #: was given a place among the associations
        self.serving = threading.Lock()  #: held while a request is answered
        self._server = server
        self._bounds = server.bounds
        self._opened = self._heard = time.monotonic()
        self._pdu_since: float | None = None
        self._message_since: float | None = None
        self._message_bytes = 0
        self._drained_bytes = 0
        self._waiting = 0
        self._files: list[IncomingFile] = []
        self._over_since: float | None = None
        self._message_numbers = itertools.count(1)
        self._awaited: dict[int, Callable[[int | None], None]] = {}
        longest = max(self._bounds.pdu_bytes + _SLACK_BYTES, *_LONGEST_PDU_BYTES.values())
        self._inbox = Inbox(_HEAD_BYTES + longest)
        self._lane = Lane(self._syntax_of, self.new_file, self._store)
        self._bell = _Bell()
        self._shortened: Shortened | None = None  #: what the library was not shown

    def attend(self, association: Association) -> None:
        """Start an association and stay until it has ended, or end it when it is overdue."""
        self.association = association
        dul = association.dul
        # The library looks for news a thousand times a second, in two threads for each association.
        dul.event_queue = _Queue(self._bell.ring)  # without "Evt5" of the library's own socket
        dul.to_provider_queue = _Queue(self._bell.ring)
        news = _Checkpoint()
        association._reactor_checkpoint = news
        dul.to_user_queue = _Queue(news.ring)
        association.dimse.msg_queue = _Queue(news.ring)
        dul.socket = _Socket(association, self)
        dul.daemon = True
        _CONNECTIONS[dul] = weakref.ref(self)
        for owner, name, replacement in (
            (dul, "_read_pdu_data", self._read_pdu),
            (dul.state_machine, "do_action", self._guarded(dul.state_machine.do_action)),
            (association.dimse, "receive_primitive", self._bounded),
            (association, "_serve_request", self._serve),
        ):
            setattr(owner, name, replacement)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": (self.peer.host, self.peer.port)})
        association.start()
        while association.is_alive() or dul.is_alive():
            association.join(_TICK_S)
            self._watch(time.monotonic())
            if association.is_established and self._over_since is None:
                self._server.ticking(self)
            if self._over_since and time.monotonic() - self._over_since > 2 * _GRACE_S:
                log.error("connection-does-not-end", peer=self.peer.host)
                break

    def report(
        self, event_type: int, information: Dataset, answered: Callable[[int | None], None]
    ) -> bool:
        """Send an N-EVENT-REPORT on storage commitment, between two requests of the peer's.

        ``answered`` is called once, with the status of the answer, or None where none came. Gives
        False, and calls nothing, where the association takes no report now.
        """
        association = cast(Association, self.association)
        if not self.serving.acquire(timeout=_TICK_S):
            return False
        try:
            contexts = [
                each
                for each in association.accepted_contexts
                if each.abstract_syntax == COMMITMENT_CLASS
            ]
            leaving = association.acse.is_aborted() or not association.is_established
            if leaving or not contexts or not association.dul.to_user_queue.empty():
                return False
            syntax = contexts[0].transfer_syntax[0]
            encoded = encode(
                information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
            )
            request = N_EVENT_REPORT()
            request.MessageID = next(self._message_numbers)
            request.AffectedSOPClassUID = COMMITMENT_CLASS
            request.AffectedSOPInstanceUID = COMMITMENT_INSTANCE
            request.EventTypeID = event_type
            request.EventInformation = BytesIO(encoded or b"")
            self._awaited[request.MessageID] = answered
            # Not ``Association.send_n_event_report``: it takes the peer's next request, or its
            # wish to release, for the answer. The answer comes to ``_serve``.
            association.dimse.send_msg(request, cast(int, contexts[0].context_id))
            return True
        finally:
            self.serving.release()

    def new_file(self) -> IncomingFile:
        """A file for a data set that begins now; it goes with the connection if no one keeps it."""
        self._files = [file for file in self._files if file.is_open]
        file = self._server.new_file()
        self._files.append(file)
        return file

    def end(self, deadline: float) -> None:
        """End the association from our side, once what is being served has been answered."""
        association = self.association
        if association is None:
            self._hang_up(socket.SHUT_RDWR)
            return
        got = self.serving.acquire(timeout=max(0.0, deadline - time.monotonic()))
        while not association.dul.to_provider_queue.empty() and time.monotonic() < deadline:
            time.sleep(0.001)
        self._over_since = self._over_since or time.monotonic()
        association.dul.event_queue.put("Evt19")  # sends an A-ABORT
        if got:
            self.serving.release()

    def close(self) -> None:
        """Let go of the socket and of files that no one took over."""
        self._hang_up(socket.SHUT_RDWR)
        self.socket.close()
        for file in self._files:
            file.discard()
        self._files = []
        while self._awaited:
            self._awaited.popitem()[1](None)
        self._bell.close()

    def complete(self, pdu: bytes) -> bytes:
        """A PDU that the library made, with what it could not know."""
        shortened = self._shortened
        if pdu[0] != _ASSOCIATE_AC or shortened is None or not shortened.answers:
            return pdu
        self._shortened = None
        accepted = cast(Association, self.association)._accepted_cx
        accepted.update((grant.context_id, _context(grant)) for grant in shortened.granted)
        return self._server.proposals.complete(pdu, shortened.answers)

    @property
    def has_place(self) -> bool:
        """Whether it takes a place among the associations now."""
        association = self.association
        over = association is None or association.is_released or association.is_aborted
        return self.placed and not over

    @property
    def busy(self) -> bool:
        """Whether as many requests wait as are read ahead."""
        association = cast(Association, self.association)
        return max(association.dimse.msg_queue.qsize(), self._waiting) >= _WAITING_REQUESTS

    # What the association's threads call in the place of the library's own.

    def _read_pdu(self) -> None:
        """Read one PDU, believing no length; see ``DULServiceProvider._read_pdu_data``."""
        dul = cast(Association, self.association).dul
        if dul.state_machine.current_state == "Sta13":
            self._drain()
            return
        event: str | None = None
        while event is None:
            self._pdu_since = time.monotonic()
            try:
                event = self._read_and_decode()
            except OSError:
                event = "Evt17"  # the connection is lost
            finally:
                self._pdu_since = None
            if event is None and not self._comes_more():
                return
        # Evt19 sends an A-ABORT; where we ended the reading ourselves, the peer shall hear it.
        dul.event_queue.put("Evt19" if event == "Evt17" and self._over_since else event)

    def comes_something(self) -> bool:
        """Whether there is something to read; waits a while for it where nothing else is to do."""
        dul = cast(Association, self.association).dul
        may_wait = dul.state_machine.current_state in _WAITING_STATES and not self._is_called
        # How long the library sleeps where there is nothing to do: it has waited here.
        dul._run_loop_delay = 0.0 if may_wait else _POLL_S
        if dul.state_machine.current_state == "Sta13":
            self._inbox.clear()
        if len(self._inbox) or (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
            return True
        return self._bell.wait_for(self.socket, _TICK_S if may_wait else 0.0)

    def _comes_more(self) -> bool:
        return not self._is_called and self.comes_something()

    @property
    def _is_called(self) -> bool:
        """Whether the thread that reads has something else to do."""
        dul = cast(Association, self.association).dul
        empty = dul.event_queue.empty() and dul.to_provider_queue.empty()
        return dul._kill_thread or not empty

    def _read_and_decode(self) -> str | None:
        dul = cast(Association, self.association).dul
        inbox = self._inbox
        if not self._has(_HEAD_BYTES):
            return "Evt17"
        kind, _, length = struct.unpack(">BBL", inbox.peek(_HEAD_BYTES))
        longest = self._bounds.pdu_bytes + _SLACK_BYTES
        if kind != _P_DATA:
            longest = _LONGEST_PDU_BYTES.get(kind, -1)
        if length > longest:
            log.warning("pdu-refused", peer=self.peer.host, type=kind, length=length)
            return "Evt19"
        if not self._has(_HEAD_BYTES + length):
            return "Evt17"
        self._pdu_since = None
        pdu_bytes = inbox.peek(_HEAD_BYTES + length)
        try:
            if kind == _P_DATA and self._lane_is_free():
                rest = self._by_lane(pdu_bytes[_HEAD_BYTES:])
                if rest is None:
                    return None
                pdu_bytes = memoryview(struct.pack(">BBL", kind, 0, len(rest)) + rest)
            whole = bytearray(pdu_bytes)
            if kind == _ASSOCIATE_RQ:
                self._shortened = self._server.proposals.shorten(bytes(whole))
                whole = bytearray(self._shortened.request)
            pdu, event = dul._decode_pdu(whole)
        except LaneError as error:
            log.warning("pdu-not-understood", peer=self.peer.host, error=str(error))
            return "Evt19"
        except Exception as error:  # noqa: BLE001 - a foreign PDU may fail in any way
            log.warning("pdu-not-understood", peer=self.peer.host, error=type(error).__name__)
            return "Evt19"
        finally:
            inbox.skip(_HEAD_BYTES + length)
        dul._recv_pdu.put(pdu)
        return event

    def _has(self, count: int) -> bool:
        """Wait for so many bytes; False where the peer closes before."""
        while len(self._inbox) < count:
            # An unmodified storescu waits for our acknowledgement before each small object
            # (Nagle), and Linux holds that back for 40 ms unless it is told each time.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if not self._inbox.read(self.socket, count):
                return False
            self._heard = time.monotonic()
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return True

    # C-STORE requests, by their lane.

    def _lane_is_free(self) -> bool:
        """Whether the library is at no message of its own."""
        association = cast(Association, self.association)
        is_open = association.dul.state_machine.current_state == "Sta6"
        return is_open and association.dimse.message is None

    def _by_lane(self, items: memoryview) -> memoryview | None:
        if self._message_since is None:
            self._message_since, self._message_bytes = time.monotonic(), 0
        self._message_bytes += len(items)
        rest = self._lane.take(items)
        cast(Association, self.association).dul._idle_timer.restart()
        if not self._lane.is_taking:
            self._message_since = None
        return rest

    def _syntax_of(self, context_id: int) -> str | None:
        context = cast(Association, self.association)._accepted_cx.get(context_id)
        return None if context is None else str(context.transfer_syntax[0])

    def _store(self, request: StoreRequest, file: IncomingFile) -> None:
        association = cast(Association, self.association)
        self._message_since = None
        with self.serving:
            try:
                status, comment = self._server.store(self, request, file)
            finally:
                file.discard()  # where no one has taken it over
            longest = association.dimse.maximum_pdu_size
            for pdu in store_answer(request, status, comment, longest):
                cast(AssociationSocket, association.dul.socket).send(pdu)
        self._heard = time.monotonic()

    def _drain(self) -> None:
        """What comes after the end is dropped, and not for long."""
        self._inbox.clear()
        with suppress(OSError):
            count = len(self.socket.recv(_PIECE_BYTES))
            self._drained_bytes += count
            if count and self._drained_bytes < _LONGEST_DRAIN_BYTES:
                return
        cast(Association, self.association).dul.event_queue.put("Evt17")

    def _guarded(self, do_action: Callable[[str], None]) -> Callable[[str], None]:
        """The state machine, whose failures end the association with a word to the peer."""
        dul = cast(Association, self.association).dul

        def guarded(event: str) -> None:
            try:
                do_action(event)
            except Exception as error:  # noqa: BLE001 - the library has logged it
                dul.kill_dul()
                if dul.state_machine.current_state != "Sta13":  # where an A-ABORT has been sent
                    log.warning(
                        "association-failed", peer=self.peer.host, error=type(error).__name__
                    )
                    with suppress(OSError):
                        abort = A_ABORT_RQ()
                        abort.source, abort.reason_diagnostic = 0x02, 0x00
                        self.socket.sendall(abort.encode())
                self._hang_up(socket.SHUT_RDWR)
                self._wake()

        return guarded

    def _bounded(self, primitive: P_DATA) -> None:
        """Messages, as long as they stay within what may be kept in memory."""
        dimse = cast(Association, self.association).dimse
        if self._message_since is None:
            self._message_since, self._message_bytes = time.monotonic(), 0
        self._message_bytes += sum(len(data) for _, data in primitive.presentation_data_value_list)
        type(dimse).receive_primitive(dimse, primitive)
        message = dimse.message
        if message is None:
            self._message_since = None
        elif message.encoded_command_set.tell() > _LONGEST_COMMAND_BYTES or (
            message.data_set is not None and message.data_set.tell() > _LONGEST_LIST_BYTES
        ):
            log.warning("message-too-long", peer=self.peer.host)
            dimse.dul.event_queue.put("Evt19")

    def _serve(self, message: DimseServiceType, context_id: int) -> None:
        """A request, one after another; the library gives each N-EVENT-REPORT a thread."""
        association = cast(Association, self.association)
        self._waiting += 1
        try:
            with self.serving:
                if message.MessageIDBeingRespondedTo is not None:
                    self._answer(message)
                    return
                type(association)._serve_request(association, message, context_id)
        finally:
            self._waiting -= 1
            self._heard = time.monotonic()
            # The library counts our own time as the peer's silence.
            association.dul._idle_timer.restart()

    def _answer(self, message: DimseServiceType) -> None:
        number = cast(int, message.MessageIDBeingRespondedTo)
        answered = self._awaited.pop(number, None)
        if answered is not None:
            answered(getattr(message, "Status", None))

    # Watching.

    def _watch(self, now: float) -> None:
        association = cast(Association, self.association)
        if self._over_since is None:
            reason = self._overdue(now)
            if reason is not None:
                log.warning("caller-cut-off", reason=reason, peer=self.peer.host)
                self._over_since = now
                # Wakes the thread that reads, and leaves the way open for an A-ABORT.
                self._hang_up(socket.SHUT_RD)
                association.dul.event_queue.put("Evt19")
        elif now - self._over_since > _GRACE_S:
            self._hang_up(socket.SHUT_RDWR)
            association.dul.kill_dul()
            association._kill = True
        if not association.dul.is_alive():
            self._wake()

    def _overdue(self, now: float) -> str | None:
        association = cast(Association, self.association)
        if not (association.is_established or association.is_released or association.is_aborted):
            late = now - self._opened > self._bounds.set_up_s
            return "no association was asked for" if late else None
        if self._pdu_since is not None and now - self._pdu_since > self._bounds.pdu_s:
            return "a PDU did not come to its end"
        if self._message_since is not None:
            age = now - self._message_since
            if age > self._bounds.pdu_s and self._message_bytes < age * _LEAST_BYTES_PER_S:
                return "a message trickles"
        # The library's own timer goes by a clock that can be set.
        if not self.serving.locked() and now - self._heard > self._bounds.silence_s + 2 * _TICK_S:
            return "silence"
        return None

    def _wake(self) -> None:
        """The association's own thread may wait for a request that will not come any more."""
        association = cast(Association, self.association)
        if association.requestor.primitive is None:
            association.is_aborted = True
        if association.dul.to_user_queue.empty():
            association.dul.to_user_queue.put(A_P_ABORT())

    def _hang_up(self, how: int) -> None:
        with suppress(OSError):
            # Not SSLSocket.shutdown, which takes TLS away under the thread that reads.
            socket.socket.shutdown(self.socket, how)


class _Socket(AssociationSocket):
    """Reads only what can be served, and is closed when it is closed."""

    def __init__(self, association: Association, connection: Connection) -> None:
        super().__init__(association, client_socket=connection.socket)
        self._connection = connection

    @property
    def ready(self) -> bool:
        """Whether there is something to read, and room for it."""
        if self._connection.busy:
            self._assoc.dul._run_loop_delay = _POLL_S
            return False
        try:
            return self._connection.comes_something()
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # the connection is lost
            return False

    def send(self, bytestream: bytes) -> None:
        """Send a PDU."""
        super().send(self._connection.complete(bytestream))

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class _Shared(list[Any]):
    """The contexts that all associations have: read by all, changed by none.

    The library copies them for each association, deeply, which takes milliseconds.
    """

    def __deepcopy__(self, _memo: dict[int, Any]) -> list[Any]:
        return list(self)


class _Bell:
    """Wakes the thread that reads a connection while it waits for the peer."""

    def __init__(self) -> None:
        self._handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake it."""
        with self._lock:
            if self._handle >= 0:
                os.eventfd_write(self._handle, 1)

    def wait_for(self, source: socket.socket, timeout_s: float) -> bool:
        """Whether something came from a socket, or it ended, before the bell rang or in time."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self._handle, select.POLLIN)
        ready = dict(poll.poll(timeout_s * 1000))
        if self._handle in ready:
            os.eventfd_read(self._handle)
        return source.fileno() in ready

    def close(self) -> None:
        """Let go of it; it rings no more."""
        with self._lock:
            os.close(self._handle)
            self._handle = -1


class _Queue(queue.Queue[Any]):
    """Tells when something was put in."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put in, and tell."""
        super().put(item, block, timeout)
        self._ring()


class _Checkpoint(threading.Event):
    """Where an association's thread stops in each turn: until there is news, or for a while.

    The library made it to hold the thread up while another sends; so it does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._news = threading.Event()
        super().set()

    def ring(self) -> None:
        """There is news."""
        self._news.set()

    def set(self) -> None:
        """Let the thread go on."""
        super().set()
        self._news.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the thread may go on and has a reason to."""
        passed = super().wait(timeout)
        self._news.wait(_TICK_S)
        self._news.clear()
        return passed


class _Handler(RequestHandler):
    """Makes an association as the library does, and leaves its life to :class:`Connection`."""

    association: Association

    def handle(self) -> None:
        """Make the association."""
        self.association = self._create_association()


def plain_address(host: str) -> str:
    """An address as it is written in settings: an IPv4 one that came by an IPv6 socket is IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _with_certificate(peer: Peer, secured: ssl.SSLSocket) -> Peer:
    """A caller with the name in its certificate, where it has shown one that we believe."""
    certificate = cast(dict[str, Any], secured.getpeercert() or {})
    names = [
        value
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    return Peer(host=peer.host, port=peer.port, user=names[0]) if names else peer


def _keep_alive(accepted: socket.socket) -> None:
    """Let the kernel find out when the other machine is gone."""
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


# Weak both ways: a connection leads to its thread, so that neither would ever be let go.
_CONNECTIONS: WeakKeyDictionary[threading.Thread, weakref.ref[Connection]] = WeakKeyDictionary()


# The same for associations that we opened, on which an archive sends what was asked for (C-GET).
_ASKED_FOR: WeakKeyDictionary[threading.Thread, Callable[[], IncomingFile]] = WeakKeyDictionary()


def receive_into(association: Association, new_file: Callable[[], IncomingFile]) -> None:
    """Let the data sets that come on an association of ours go to these files."""
    _use_our_files()
    _ASKED_FOR[association.dul] = new_file


def _use_our_files() -> None:
    """Data sets go to the files of the connection whose thread receives them.

    The library has no setting for that: it makes a ``NamedTemporaryFile`` wherever it is.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True
    setattr(dimse_messages, "NamedTemporaryFile", _file_here)  # noqa: B010 - a name it imports


def _spare_the_library() -> None:
    """Let it do once, or not at all, what it does for each association and nobody needs.

    It writes each PDU out in words for its log at debug level, which is never shown, as it names
    patients. And it checks the same UIDs hundreds of times.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.VALIDATORS["UI"] = _CHECKED_UIDS


_CHECKED_UIDS = functools.lru_cache(_REMEMBERED_UIDS)(_config.VALIDATORS["UI"])


@functools.lru_cache(_REMEMBERED_UIDS)
def _context(grant: Grant) -> PresentationContext:
    """An accepted context as the library makes it: read by all who have it, changed by none."""
    context = PresentationContext()
    context.context_id = grant.context_id
    context.abstract_syntax = UID(grant.sop_class_uid)
    context.transfer_syntax = [UID(grant.transfer_syntax_uid)]
    context.result = 0
    context._as_scu, context._as_scp = False, True
    return context


@functools.wraps(tempfile.NamedTemporaryFile)
def _file_here(*args: Any, **options: Any) -> Any:
    thread = threading.current_thread()
    known = _CONNECTIONS.get(thread)
    connection = known() if known is not None else None
    if connection is not None:
        return connection.new_file()
    new_file = _ASKED_FOR.get(thread)
    return tempfile.NamedTemporaryFile(*args, **options) if new_file is None else new_file()
