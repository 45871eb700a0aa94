"""Slow, broken and lying peers, by hand on bare sockets, against a real door.

After each of them everything is as before, and a normal sender was served meanwhile.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dul import DULServiceProvider

from node.doors import incoming, transport
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DimseSettings
from node.watch.transfers import TurnedAway
from storage.database import Database
from storage.files import FolderStore
from tests.integration.test_dimse_door import small_image
from tests.peers import send, wait_until
from tests.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    associate_request,
    command,
    data,
    echo_request,
    pdata,
    pdu,
    status_of,
    store_request,
)

pytestmark = [
    # The network library leaves the socket of a rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

_FOUR_GIB = 0xFFFFFFFF


@dataclass
class BesetDoor:
    """A door with short patience."""

    door: DimseDoor
    files: FolderStore
    normal: Path
    turned_away: list[TurnedAway] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.door.port

    def serves(self) -> None:
        """A normal sender is served now; on a machine that is busy it may be slow itself."""
        # Those who knocked before may not all have been heard yet.
        wait_until(
            lambda: send(self.port, self.normal, options=("-xe",)).returncode == 0,
            what="a normal sender is served",
            timeout_s=20,
            pause_s=0.2,
        )

    def left_open(self) -> dict[str, object]:
        """Threads of connections, sockets, other handles, and files that are being received."""
        handles = [_target(handle) for handle in Path("/proc/self/fd").iterdir()]
        return {
            "threads": sorted(t.name for t in threading.enumerate() if _of_connection(t)),
            "sockets": sum(handle.startswith("socket:") for handle in handles),
            "received": [h for h in handles if str(self.files.incoming_folder) in h],
            "incoming": sorted(path.name for path in self.files.incoming_folder.iterdir()),
        }

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """What happens in the block leaves nothing behind."""
        wait_until(lambda: not self.left_open()["threads"], what="no connection", pause_s=0.01)
        before = self.left_open()
        yield
        end = time.monotonic() + 15
        while self.left_open() != before and time.monotonic() < end:
            time.sleep(0.02)
        assert self.left_open() == before


def _target(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except OSError:
        return ""


def _of_connection(thread: threading.Thread) -> bool:
    return isinstance(thread, DULServiceProvider) or any(
        word in thread.name for word in ("AcceptorThread", "process_request")
    )


@pytest.fixture
def beset(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[BesetDoor]:
    files = FolderStore(tmp_path / "store")
    turned_away: list[TurnedAway] = []
    patience: dict[str, Any] = {
        "acse_timeout_s": 5.0,
        "pdu_timeout_s": 3.0,
        "network_timeout_s": 5.0,
        "maximum_pdu_size": 16384,
    }
    settings = DimseSettings(host="127.0.0.1", port=0, **(patience | getattr(request, "param", {})))
    normal = tmp_path / "normal.dcm"
    small_image().save_as(normal, enforce_file_format=True)
    door = DimseDoor(
        settings,
        Intake(database, files),
        str(files.incoming_folder),
        turned_away=turned_away.append,
    )
    door.start()
    opened = BesetDoor(door=door, files=files, normal=normal, turned_away=turned_away)
    yield opened
    door.stop()


def associated(peer: RawPeer) -> None:
    assert peer.associate() == ASSOCIATE_AC


def nothing(_peer: RawPeer) -> None:
    """Connects, and says nothing."""


def half_a_request(peer: RawPeer) -> None:
    request = associate_request(["1.2.840.10008.1.1"])
    peer.send(request[: len(request) // 2])


def silence(peer: RawPeer) -> None:
    associated(peer)


def no_release(peer: RawPeer) -> None:
    associated(peer)
    peer.send(echo_request())
    assert status_of(peer.receive()[1]) == 0


def half_a_pdu(peer: RawPeer) -> None:
    associated(peer)
    peer.send(store_request())
    peer.send(data(1, bytes(4000))[:2000])


def half_an_object(peer: RawPeer) -> None:
    associated(peer)
    peer.send(store_request())
    for _ in range(3):
        peer.send(data(1, bytes(4000)))


def a_long_pdu(peer: RawPeer) -> None:
    associated(peer)
    peer.send(pdu(P_DATA, b"", length=_FOUR_GIB))


def a_pdu_that_is_a_little_too_long(peer: RawPeer) -> None:
    associated(peer)
    peer.send(pdu(P_DATA, b"", length=16384 + 1025))


def a_long_request(peer: RawPeer) -> None:
    peer.send(pdu(ASSOCIATE_RQ, b"", length=_FOUR_GIB))


def a_long_release(peer: RawPeer) -> None:
    associated(peer)
    peer.send(pdu(RELEASE_RQ, b"", length=1 << 30))


def http(peer: RawPeer) -> None:
    peer.send(b"GET / HTTP/1.1\r\nHost: echonode\r\n\r\n")


def an_unknown_type(peer: RawPeer) -> None:
    associated(peer)
    peer.send(pdu(0x77, bytes(10)))


def a_request_of_garbage(peer: RawPeer) -> None:
    peer.send(pdu(ASSOCIATE_RQ, os.urandom(500)))


def a_request_without_items(peer: RawPeer) -> None:
    peer.send(pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + b" " * 32 + bytes(32)))


def data_without_an_association(peer: RawPeer) -> None:
    peer.send(echo_request())


def a_pdv_that_claims_more(peer: RawPeer) -> None:
    associated(peer)
    peer.send(pdata(1, 3, bytes(20), length=2000))


def an_empty_pdv(peer: RawPeer) -> None:
    associated(peer)
    peer.send(pdu(P_DATA, struct.pack(">LB", 1, 1)))


def an_unknown_context(peer: RawPeer) -> None:
    associated(peer)
    peer.send(store_request(context=77))


def an_unknown_command(peer: RawPeer) -> None:
    associated(peer)
    peer.send(command(1, {0x0100: b"\x34\x12", 0x0800: b"\x01\x01"}))


def a_command_without_a_field(peer: RawPeer) -> None:
    associated(peer)
    peer.send(command(1, {0x0110: b"\x01\x00"}))


def an_endless_command(peer: RawPeer) -> None:
    associated(peer)
    with suppress(OSError):
        for _ in range(20):
            peer.send(pdata(1, 1, bytes(8000)))


def a_list_without_end(peer: RawPeer) -> None:
    associated(peer)
    peer.send(
        command(
            3,
            {0x0100: struct.pack("<H", 0x0030), 0x0110: b"\1\0", 0x0800: b"\1\0", 0x0002: b"1.2 "},
        )
    )
    with suppress(OSError):
        for _ in range(20 << 20 >> 14):
            peer.send(data(3, bytes(16000)))


SILENT = [nothing, half_a_request, silence, no_release, half_a_pdu, half_an_object]
LYING = [
    a_long_pdu,
    a_pdu_that_is_a_little_too_long,
    a_long_request,
    a_long_release,
    http,
    an_unknown_type,
    a_request_of_garbage,
    a_request_without_items,
    data_without_an_association,
    a_pdv_that_claims_more,
    an_empty_pdv,
    an_unknown_context,
    an_unknown_command,
    a_command_without_a_field,
    an_endless_command,
    a_list_without_end,
]


def drip(peer: RawPeer, message: bytes) -> None:
    """Send byte by byte, each long before the patience for silence ends, until it is cut off."""
    for start in range(len(message)):
        peer.send(message[start : start + 1])
        time.sleep(0.1)
        if start > 300:
            return


def a_request_that_drips(peer: RawPeer) -> None:
    drip(peer, associate_request(["1.2.840.10008.1.1"] * 20))


def a_pdu_that_drips(peer: RawPeer) -> None:
    associated(peer)
    peer.send(store_request())
    drip(peer, data(1, bytes(4000)))


def an_object_that_drips_in_whole_pdus(peer: RawPeer) -> None:
    associated(peer)
    peer.send(store_request())
    for _ in range(300):
        peer.send(data(1, bytes(10)))
        time.sleep(0.1)


DRIPPING = [a_request_that_drips, a_pdu_that_drips, an_object_that_drips_in_whole_pdus]


def test_peers_that_fall_silent_or_drip_are_cut_off_and_others_are_served(
    beset: BesetDoor,
) -> None:
    lasted: dict[str, float] = {}

    def misbehave(behaviour: Callable[[RawPeer], None]) -> None:
        began = time.monotonic()
        with RawPeer(beset.port) as peer, suppress(OSError):
            behaviour(peer)
            peer.last_words()
        lasted[behaviour.__name__] = time.monotonic() - began

    with beset.as_before():
        threads = [
            threading.Thread(target=misbehave, args=(behaviour,))
            for behaviour in (*SILENT, *DRIPPING)
        ]
        for thread in threads:
            thread.start()
        beset.serves()
        for thread in threads:
            thread.join(60)

    assert set(lasted) == {behaviour.__name__ for behaviour in (*SILENT, *DRIPPING)}
    assert max(lasted.values()) < 19  # the peers themselves give up after 20 s


def test_a_peer_that_lies_is_told_that_it_is_over(beset: BesetDoor) -> None:
    for behaviour in LYING:
        with beset.as_before(), RawPeer(beset.port) as peer:
            behaviour(peer)
            heard = peer.last_words()

        # What was still on its way to us may have taken the last words with it, but for these.
        told = heard[:1] == bytes([ABORT]) or behaviour in (an_endless_command, a_list_without_end)
        assert told, behaviour.__name__
    beset.serves()


@pytest.mark.parametrize(
    "beset", [{"acse_timeout_s": 90.0, "network_timeout_s": 90.0}], indirect=True
)
def test_callers_that_leave_before_a_word_take_no_place(beset: BesetDoor) -> None:
    with beset.as_before():
        for _ in range(60):  # more than there are connections
            RawPeer(beset.port).close()
        wait_until(
            lambda: not beset.left_open()["threads"],
            what="they are seen to have left",
            timeout_s=30,
        )
        beset.serves()


def test_a_peer_that_releases_and_does_not_close_is_closed(beset: BesetDoor) -> None:
    with beset.as_before(), RawPeer(beset.port) as peer:
        associated(peer)
        peer.send(pdu(RELEASE_RQ, bytes(4)))

        assert peer.last_words()[:1] == bytes([RELEASE_RP])


def test_a_peer_that_asks_without_hearing_answers_is_not_read_ahead(beset: BesetDoor) -> None:
    with beset.as_before(), RawPeer(beset.port) as peer:
        associated(peer)
        peer.socket.settimeout(1.0)
        whole = store_request() + data(1, b"\x08\x00\x05\x00CS\x00\x00", last=True)
        with suppress(OSError):
            peer.send(whole * 300)
            peer.send(pdu(RELEASE_RQ, bytes(4)))
        most = 0
        end = time.monotonic() + 2
        while time.monotonic() < end and most <= 8:
            most = max(most, len(list(beset.files.incoming_folder.iterdir())))
        beset.serves()

        assert most <= 8  # files of requests that wait, of 300 that were sent


@pytest.mark.parametrize(
    "beset",
    [
        {
            "max_associations": 12,
            "max_associations_per_peer": 8,
            "acse_timeout_s": 60.0,
            "pdu_timeout_s": 60.0,
            "network_timeout_s": 60.0,
        }
    ],
    indirect=True,
)
def test_two_hundred_associations_at_once_keep_no_other_machine_out(beset: BesetDoor) -> None:
    with beset.as_before():
        before = threading.active_count()
        peers = [RawPeer(beset.port) for _ in range(200)]
        for peer in peers:
            with suppress(OSError):
                peer.send(associate_request(["1.2.840.10008.1.1"]))
        answers = []
        for peer in peers:
            try:
                answers.append(peer.receive())
            except OSError:
                answers.append((0, b""))
        most_threads = threading.active_count() - before
        other = AE("OTHERCART")
        other.add_requested_context("1.2.840.10008.1.1")
        elsewhere = other.associate("127.0.0.1", beset.port, bind_address=("127.0.0.2", 0))
        served = elsewhere.is_established and elsewhere.send_c_echo().Status == 0
        elsewhere.release()
        for peer in peers:
            peer.close()

    kinds = [kind for kind, _ in answers]
    assert served
    assert kinds.count(ASSOCIATE_AC) == 8
    assert {body for kind, body in answers if kind == ASSOCIATE_RJ} <= {b"\x00\x02\x03\x02"}
    assert most_threads <= 3 * (8 + 10)
    assert beset.door.turned_away == 200 - 8
    assert len(beset.turned_away) < 10  # a line in ten seconds, and a count


@pytest.mark.parametrize("beset", [{"max_associations_per_peer": 1}], indirect=True)
def test_an_association_that_died_frees_its_place(beset: BesetDoor) -> None:
    with RawPeer(beset.port) as first:
        associated(first)
        with RawPeer(beset.port) as second:
            assert second.associate() == ASSOCIATE_RJ
        first.last_words()  # silent, and cut off
    wait_until(lambda: beset.door.associations == 0, what="the place is free", pause_s=0.01)
    beset.serves()


def test_a_disk_that_is_full_in_the_middle_of_a_pdu_gives_a700_and_all_space_back(
    beset: BesetDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 6000

    def write(handle: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(room, len(data))  # as a disk does: a part is still written
        room -= taken
        return real_write(handle, data[:taken])

    real_write = os.write
    with beset.as_before(), RawPeer(beset.port) as peer:
        associated(peer)
        monkeypatch.setattr(incoming.os, "write", write)
        peer.send(store_request(uid="1.2.3") + data(1, bytes(4000)) + data(1, bytes(4000)))
        wait_until(lambda: not room, what="the disk is full", pause_s=0.01)
        wait_until(
            lambda: not list(beset.files.incoming_folder.iterdir()),
            what="the space is given back before the object has come to its end",
            pause_s=0.01,
        )
        peer.send(data(1, bytes(4000), last=True))
        full = status_of(peer.receive()[1])
        monkeypatch.undo()
        peer.send(echo_request())
        echo = status_of(peer.receive()[1])

    assert (full, echo) == (0xA700, 0x0000)


def test_where_no_file_can_be_made_the_answer_is_a700(
    beset: BesetDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with beset.as_before(), RawPeer(beset.port) as peer:
        associated(peer)
        monkeypatch.setattr(incoming.os, "open", no_file)
        peer.send(store_request() + data(1, bytes(4000), last=True))
        status = status_of(peer.receive()[1])
        monkeypatch.undo()

    assert status == 0xA700


def test_stopping_answers_what_is_being_taken_in_and_ends_the_rest(
    beset: BesetDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = threading.Event()
    receive = beset.door._intake.receive

    def slow(arrival):  # type: ignore[no-untyped-def]
        entered.set()
        time.sleep(0.5)
        return receive(arrival)

    monkeypatch.setattr(beset.door._intake, "receive", slow)
    still = small_image()
    cart = AE("ECHOCART")
    cart.add_requested_context(UID(still.SOPClassUID), ExplicitVRLittleEndian)
    association = cart.associate("127.0.0.1", beset.port)
    with RawPeer(beset.port) as idle:
        associated(idle)
        answers: list[int] = []
        sending = threading.Thread(
            target=lambda: answers.append(association.send_c_store(still).Status)
        )
        sending.start()
        assert entered.wait(10)
        beset.door.stop()
        sending.join(10)

        assert answers == [0x0000]
        assert idle.last_words()[:1] == bytes([ABORT])
    assert not [t for t in threading.enumerate() if t.name.startswith("AcceptorThread")]


def test_an_ipv4_caller_on_an_ipv6_socket_is_known_by_its_ipv4_address() -> None:
    assert transport.plain_address("::ffff:10.1.2.3") == "10.1.2.3"
    assert transport.plain_address("fe80::1%eth0") == "fe80::1"


def test_the_network_library_is_the_one_that_the_door_was_tried_with() -> None:
    assert pynetdicom.__version__ == transport.TRIED_WITH, (
        "node/doors/transport.py stands in for parts of the network library: read these again in "
        "the new version, run this file, and set TRIED_WITH"
    )
