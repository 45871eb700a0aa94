"""Who the door lets in: by address, by AE title, by certificate; and who is kept out."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from node.doors.callers import TurnedAwayBook
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DimseSettings, ServerTls
from node.tls import TlsError, client_context
from node.watch.transfers import Peer, Transfer, TurnedAway
from storage.database import Database
from storage.files import FolderStore
from tests.certificates import Certificates, make_certificates
from tests.integration.test_dimse_door import small_image
from tests.peers import send, wait_until
from tests.raw_peer import ASSOCIATE_AC, RawPeer, associate_request, data, store_request

pytestmark = [
    # The network library leaves the socket of a rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

_ECHO = "1.2.840.10008.1.1"
_ALL = "0.0.0.0"  # noqa: S104 - what is refused


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Sockets that the library left to the collector are collected here, not in another test."""
    yield
    gc.collect()


@dataclass
class GuardedDoor:
    door: DimseDoor
    still: Dataset
    path: Path
    turned_away: list[TurnedAway]
    transfers: list[Transfer]

    @property
    def port(self) -> int:
        return self.door.port

    @property
    def reasons(self) -> list[str]:
        return [away.reason for away in self.turned_away]

    def storescu(self, *options: str) -> int:
        """Send an object by DCMTK; gives its exit status."""
        return send(self.port, self.path, options=("-xe", "-to", "10", *options)).returncode

    def associate(
        self, *, calling: str = "ECHOCART", called: str = "ECHONODE", address: str = "127.0.0.1"
    ) -> Association:
        """Ask for an association by pynetdicom."""
        entity = AE(calling)
        entity.add_requested_context(_ECHO)
        return entity.associate("127.0.0.1", self.port, ae_title=called, bind_address=(address, 0))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def opened(database: Database, tmp_path: Path) -> Iterator[Callable[..., GuardedDoor]]:
    files = FolderStore(tmp_path / "store")
    doors: list[DimseDoor] = []

    def open_door(**settings: object) -> GuardedDoor:
        turned_away: list[TurnedAway] = []
        transfers: list[Transfer] = []
        door = DimseDoor(
            DimseSettings(**{"host": "127.0.0.1", "port": 0} | settings),  # type: ignore[arg-type]
            Intake(database, files),
            str(files.incoming_folder),
            turned_away=turned_away.append,
            transferred=transfers.append,
        )
        door.start()
        doors.append(door)
        still = small_image()
        path = tmp_path / "still.dcm"
        still.save_as(path, enforce_file_format=True)
        return GuardedDoor(door, still, path, turned_away, transfers)

    yield open_door
    for door in doors:
        door.stop()


def dcmtk(certificates: Certificates, name: str) -> tuple[str, ...]:
    """Options of a DCMTK program that shows a certificate and believes our authority."""
    shown = getattr(certificates, name)
    return (
        *("+tls", str(shown.private_key), str(shown.certificate)),
        *("+cf", str(certificates.authority)),
    )


def test_dcmtk_and_pynetdicom_come_in_by_tls_with_a_certificate(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened(tls=certificates.server_tls(ask_for_client=True))

    assert door.storescu(*dcmtk(certificates, "client")) == 0
    entity = AE("ECHOCART")
    entity.add_requested_context(_ECHO)
    context = client_context(certificates.client_tls(show=certificates.client))
    association = entity.associate("127.0.0.1", door.port, tls_args=(context, "localhost"))
    assert association.send_c_echo().Status == 0x0000
    association.release()

    wait_until(lambda: door.transfers, what="the transfer is told", timeout_s=10, pause_s=0.01)
    assert door.transfers[0].peer.user == "ECHOCART"
    assert door.turned_away == []


def test_a_door_that_asks_for_no_certificate_speaks_tls_with_all(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened(tls=certificates.server_tls())

    assert door.storescu("+tla", "+cf", str(certificates.authority)) == 0
    assert door.storescu() != 0  # in the clear


def test_without_the_right_certificate_no_one_comes_in_and_no_one_waits(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened(tls=certificates.server_tls(ask_for_client=True), max_associations=3)
    silent = [RawPeer(door.port) for _ in range(5)]  # never shake hands

    assert door.storescu("+tla", "+cf", str(certificates.authority)) != 0
    assert door.storescu(*dcmtk(certificates, "stranger")) != 0
    assert door.storescu() != 0
    assert door.storescu(*dcmtk(certificates, "client")) == 0
    wait_until(lambda: door.door.turned_away == 3, what="all are counted", timeout_s=10)
    for peer in silent:
        peer.close()


def old(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1


def without_forward_secrecy(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(
    ("weak", "reason"),
    [(old, "UNSUPPORTED_PROTOCOL"), (without_forward_secrecy, "NO_SHARED_CIPHER")],
)
def test_weak_tls_is_refused(
    opened: Callable[..., GuardedDoor],
    certificates: Certificates,
    weak: Callable[[ssl.SSLContext], None],
    reason: str,
) -> None:
    door = opened(tls=certificates.server_tls())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.authority)
    weak(context)

    with RawPeer(door.port) as peer, pytest.raises(OSError):  # noqa: PT011 - alert or reset
        context.wrap_socket(peer.socket, server_hostname="localhost")

    wait_until(lambda: door.reasons, what="it is turned away", timeout_s=10, pause_s=0.01)
    assert door.reasons == [f"no TLS: {reason}"]


def test_in_the_clear_on_the_port_of_tls_is_cut_off(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened(tls=certificates.server_tls())
    with RawPeer(door.port) as peer:
        peer.send(associate_request([_ECHO]))
        heard = peer.last_words()
    wait_until(lambda: door.reasons, what="it is told", timeout_s=10, pause_s=0.01)

    assert heard[:1] != bytes([ASSOCIATE_AC])
    assert door.reasons[0].startswith("no TLS: ")


def test_who_only_looks_whether_the_port_of_tls_is_open_is_not_told_of(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened(tls=certificates.server_tls())
    RawPeer(door.port).close()
    with RawPeer(door.port) as peer:
        peer.send(b"nonsense" * 10)
        peer.last_words()
    wait_until(lambda: door.reasons, what="it is turned away", timeout_s=10, pause_s=0.01)

    assert door.door.turned_away == 1  # the one that spoke


def test_a_silent_handshake_ends_with_the_time_for_setting_up(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened(tls=certificates.server_tls(), acse_timeout_s=0.5)
    with RawPeer(door.port) as peer:
        assert peer.last_words() == b""
    wait_until(lambda: door.reasons, what="it is told", timeout_s=10, pause_s=0.01)

    assert door.reasons == ["no TLS: TimeoutError"]


def test_a_peer_by_tls_that_stops_within_a_pdu_is_cut_off_and_leaves_nothing(
    opened: Callable[..., GuardedDoor], certificates: Certificates, tmp_path: Path
) -> None:
    door = opened(tls=certificates.server_tls(), pdu_timeout_s=0.5)
    context = client_context(certificates.client_tls())
    with RawPeer(door.port) as peer:
        secured = context.wrap_socket(peer.socket, server_hostname="localhost")
        peer.socket = secured
        assert peer.associate() == ASSOCIATE_AC
        peer.send(store_request() + data(1, bytes(4000))[:2000])
        with suppress(ssl.SSLError):
            peer.last_words()
    server = door.door._server
    assert server is not None
    wait_until(lambda: not server.connections, what="it ends", timeout_s=20, pause_s=0.01)

    assert list((tmp_path / "store" / "incoming").iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("AcceptorThread")]


def test_a_tls_caller_at_a_door_in_the_clear_is_turned_off(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    door = opened()

    assert door.storescu(*dcmtk(certificates, "client")) != 0
    assert door.storescu() == 0


def test_a_certificate_that_cannot_be_used_is_an_error_at_the_start(
    opened: Callable[..., GuardedDoor], certificates: Certificates
) -> None:
    unfit = ServerTls(
        certificate=certificates.server.certificate, private_key=certificates.client.private_key
    )

    with pytest.raises(TlsError, match=r"server\.pem"):
        opened(tls=unfit)


def test_an_address_that_is_not_named_is_cut_off_before_a_word(
    opened: Callable[..., GuardedDoor],
) -> None:
    door = opened(allowed_addresses=("127.0.0.2", "fd00::/8"))
    with RawPeer(door.port) as stranger:
        heard = stranger.last_words()
    known = door.associate(address="127.0.0.2")
    wait_until(lambda: door.reasons, what="it is told", timeout_s=10, pause_s=0.01)

    assert heard == b""
    assert known.is_established
    assert door.reasons == ["address is not in allowed_addresses"]
    known.release()


def test_where_addresses_and_ae_titles_are_named_a_caller_needs_both(
    opened: Callable[..., GuardedDoor],
) -> None:
    door = opened(allowed_addresses=("127.0.0.2",), allowed_calling_aes=("CART1",))
    calls = [("CART1", "127.0.0.2"), ("CART1", "127.0.0.1"), ("CART2", "127.0.0.2")]
    answers = []
    for calling, address in calls:
        association = door.associate(calling=calling, address=address)
        answers.append(association.is_established)
        if association.is_established:
            association.release()

    assert answers == [True, False, False]
    wait_until(lambda: len(door.reasons) == 2, what="both are told", timeout_s=10, pause_s=0.01)
    assert set(door.reasons) == {
        "address is not in allowed_addresses",
        "calling AE title is not in allowed_calling_aes",
    }


def test_a_called_ae_title_that_is_not_ours_is_rejected_where_it_is_checked(
    opened: Callable[..., GuardedDoor],
) -> None:
    door = opened(check_called_ae=True)
    wrong, right = door.associate(called="SOMEONE"), door.associate()

    assert wrong.is_rejected
    assert right.is_established
    wait_until(lambda: door.reasons, what="it is told", timeout_s=10, pause_s=0.01)
    assert door.reasons == ["called AE title is not ours"]
    right.release()


@pytest.mark.parametrize("host", [_ALL, "::", "192.0.2.7", "node.example"])
def test_a_door_that_is_open_to_all_is_no_setting(host: str) -> None:
    with pytest.raises(ValidationError) as refused:
        DimseSettings(host=host)

    for way in ("allowed_addresses", "allowed_calling_aes", "client_authorities"):
        assert way in str(refused.value)
    assert "anyone_may_send = true" in str(refused.value)


@pytest.mark.parametrize(
    "way",
    [
        {"allowed_addresses": ("10.0.0.0/8",)},
        {"allowed_calling_aes": ("CART1",)},
        {"anyone_may_send": True},
        {
            "tls": ServerTls(
                certificate=Path("c"), private_key=Path("k"), client_authorities=Path("a")
            )
        },
    ],
)
def test_each_way_of_naming_who_may_send_opens_the_door_to_the_network(
    way: dict[str, object],
) -> None:
    assert DimseSettings(host=_ALL, **way).host == _ALL  # type: ignore[arg-type]


def test_without_a_host_the_door_listens_on_this_machine_alone() -> None:
    assert socket.inet_aton(DimseSettings().host) == b"\x7f\0\0\1"


def test_a_flood_of_callers_is_counted_and_told_once_an_address() -> None:
    told: list[TurnedAway] = []
    book = TurnedAwayBook("dimse", told.append)
    for _ in range(1000):
        for host in ("10.0.0.1", "10.0.0.2"):
            book.enter(Peer(host=host), "not let in")

    assert book.count == 2000
    assert [away.peer.host for away in told] == ["10.0.0.1", "10.0.0.2"]


def test_a_flood_from_everywhere_fills_no_memory() -> None:
    told: list[TurnedAway] = []
    book = TurnedAwayBook("dimse", told.append)
    for number in range(5000):
        book.enter(Peer(host=f"10.0.{number // 256}.{number % 256}"), "not let in")

    assert book.count == 5000
    assert len(told) <= 256


def test_a_door_on_ipv6_knows_its_callers_by_their_addresses(
    opened: Callable[..., GuardedDoor],
) -> None:
    door = opened(host="::1", allowed_addresses=("::1",))
    entity = AE("ECHOCART")
    entity.add_requested_context(_ECHO)
    association = entity.associate("::1", door.port)
    assert association.send_c_echo().Status == 0x0000
    server = door.door._server
    assert server is not None
    (connection,) = server.connections
    association.release()

    assert connection.peer.host == "::1"
    assert connection.peer.ae_title == "ECHOCART"


def test_the_kernel_watches_over_each_connection(opened: Callable[..., GuardedDoor]) -> None:
    door = opened()
    association = door.associate()
    server = door.door._server
    assert server is not None
    (connection,) = server.connections
    alive = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    association.release()

    assert alive == 1
