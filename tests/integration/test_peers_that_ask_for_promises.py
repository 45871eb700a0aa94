"""Echo machines that ask us to promise what they sent: storage commitment, with pynetdicom."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association

from node.doors.contexts import COMMITMENT_CLASS, COMMITMENT_INSTANCE
from node.doors.promises import PromiseKeeper
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DeliverySettings, DimseSettings, Machine
from storage import catalog
from storage.database import Database
from storage.files import FolderStore
from tests.integration.test_dimse_door import small_image
from tests.peers import free_port, wait_until

pytestmark = [
    # The network library leaves the socket of a rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

_STILL = UID("1.2.840.10008.5.1.4.1.1.6.1")


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Sockets that the library left to the collector are collected here, not in another test."""
    yield
    gc.collect()


@dataclass
class EchoMachine:
    """Sends, asks, and takes reports: on its association, or as a server of its own."""

    port: int = field(default_factory=free_port)
    answers: list[int] = field(default_factory=list)  #: to the next reports; then success
    reports: list[tuple[int, Dataset]] = field(default_factory=list)

    def take(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return (self.answers.pop(0) if self.answers else 0x0000), None

    def associate(self, port: int) -> Association:
        entity = AE("ECHOCART")
        entity.add_requested_context(_STILL, ExplicitVRLittleEndian)
        entity.add_requested_context(COMMITMENT_CLASS)
        association = entity.associate(
            "127.0.0.1", port, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)]
        )
        assert association.is_established
        return association

    @contextmanager
    def listening(self) -> Iterator[None]:
        entity = AE("ECHOCART")
        entity.add_supported_context(COMMITMENT_CLASS, scu_role=True, scp_role=True)
        server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)],
        )
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def shown(self) -> tuple[int, list[str], dict[str, int]]:
        """The one report: event type, UIDs kept, and UIDs that are not with the reason."""
        ((event_type, information),) = self.reports
        return (
            event_type,
            [
                item.ReferencedSOPInstanceUID
                for item in information.get("ReferencedSOPSequence", [])
            ],
            {
                item.ReferencedSOPInstanceUID: item.FailureReason
                for item in information.get("FailedSOPSequence", [])
            },
        )


@dataclass
class PromisingNode:
    database: Database
    files: FolderStore
    machine: EchoMachine
    now: datetime = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
    refusal: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keeper = self.new_keeper()
        self.door = DimseDoor(
            DimseSettings(host="127.0.0.1", port=0),
            Intake(self.database, self.files),
            str(self.files.incoming_folder),
            promises=self.keeper,
            refusing=lambda: self.refusal[0] if self.refusal else None,
        )

    def new_keeper(self, *, known: bool = True) -> PromiseKeeper:
        """Another one on the same rows, as after a start."""
        listed = Machine(ae_title="ECHOCART", host="127.0.0.1", port=self.machine.port)
        return PromiseKeeper(
            self.database,
            self.files,
            [listed] if known else [],
            "ECHONODE",
            DeliverySettings(first_pause_s=10, longest_pause_s=1000, give_up_after_s=3600),
            clock=lambda: self.now,
        )

    def after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def request(self) -> catalog.PromiseRequestRecord:
        with self.database.read() as session:
            (request,) = catalog.list_promise_requests(session)
        return request


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Iterator[PromisingNode]:
    opened = PromisingNode(database, FolderStore(tmp_path / "store"), EchoMachine())
    opened.door.start()
    yield opened
    opened.door.stop()


def ask(
    association: Association,
    *stills: Dataset,
    action: int = 1,
    instance: str = COMMITMENT_INSTANCE,
    transaction: str | None = None,
) -> int:
    """N-ACTION; gives the status."""
    information = Dataset()
    information.TransactionUID = generate_uid() if transaction is None else transaction
    information.ReferencedSOPSequence = Sequence()
    for still in stills:
        reference = Dataset()
        reference.ReferencedSOPClassUID = still.SOPClassUID
        reference.ReferencedSOPInstanceUID = still.SOPInstanceUID
        information.ReferencedSOPSequence.append(reference)
    status, _ = association.send_n_action(information, action, COMMITMENT_CLASS, instance)
    return int(status.Status)


def test_a_machine_that_stays_hears_on_its_own_association(node: PromisingNode) -> None:
    still = small_image()
    association = node.machine.associate(node.door.port)
    association.send_c_store(still)
    assert ask(association, still) == 0x0000
    wait_until(lambda: node.request().reported_at, what="the report is taken", timeout_s=15)
    assert association.is_established  # and goes on
    later = small_image()
    assert association.send_c_store(later).Status == 0x0000
    association.release()

    with node.database.read() as session:
        assert catalog.find_instance(session, str(later.SOPInstanceUID)) is not None
    assert node.machine.shown() == (1, [still.SOPInstanceUID], {})
    with node.database.read() as session:
        timeline = catalog.study_detail(session, str(still.StudyInstanceUID)).timeline
    assert "promised ECHOCART to keep 1 object" in [event.message for event in timeline]
    node.after(60)
    assert node.keeper.report_due() == 0


def test_a_machine_that_leaves_hears_on_an_association_to_its_address(node: PromisingNode) -> None:
    still = small_image()
    association = node.machine.associate(node.door.port)
    association.send_c_store(still)
    assert ask(association, still) == 0x0000
    association.release()
    wait_until(lambda: not node.door.associations, what="it has left", timeout_s=10, pause_s=0.01)
    wait_until(
        lambda: node.request().next_attempt_at <= node.now,
        what="the report is due at once",
        timeout_s=10,
        pause_s=0.01,
    )
    with node.machine.listening():
        assert node.keeper.report_due() == 1

    assert node.machine.shown() == (1, [still.SOPInstanceUID], {})
    assert node.request().last_answer == "taken by ECHOCART"


def test_each_object_is_judged_by_row_and_file(node: PromisingNode) -> None:
    kept, other_class, lost, cut, unknown = stills = [small_image() for _ in range(5)]
    association = node.machine.associate(node.door.port)
    for still in stills[:-1]:
        association.send_c_store(still)
    with node.database.read() as session:
        paths = {
            name: node.files.path(found.file_key)
            for name, still in (("lost", lost), ("cut", cut))
            if (found := catalog.find_instance(session, str(still.SOPInstanceUID)))
        }
    paths["lost"].unlink()
    os.truncate(paths["cut"], 100)
    other_class.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    assert ask(association, *stills) == 0x0000
    wait_until(lambda: node.request().reported_at, what="the report is taken", timeout_s=15)
    association.release()

    assert node.machine.shown() == (
        2,
        [kept.SOPInstanceUID],
        {
            other_class.SOPInstanceUID: 0x0119,
            lost.SOPInstanceUID: 0x0110,
            cut.SOPInstanceUID: 0x0110,
            unknown.SOPInstanceUID: 0x0112,
        },
    )


def test_a_report_that_is_not_taken_comes_again_after_a_restart_too(node: PromisingNode) -> None:
    still = small_image()
    association = node.machine.associate(node.door.port)
    association.send_c_store(still)
    ask(association, still)
    association.abort()
    node.after(11)
    assert node.keeper.report_due() == 0  # the machine does not listen

    restarted = node.new_keeper()
    assert restarted.report_due() == 0  # not yet again
    assert node.request().attempts == 1
    assert "cannot be reached" in node.request().last_answer
    node.after(13)
    node.machine.answers.append(0x0110)
    with node.machine.listening():
        assert restarted.report_due() == 0
        assert node.request().last_answer == "refused: 0x0110"
        node.after(60)
        assert restarted.report_due() == 1

    assert len(node.machine.reports) == 2


def test_a_machine_without_an_address_is_named_to_the_operator_until_it_is_given_up(
    node: PromisingNode,
) -> None:
    association = node.machine.associate(node.door.port)
    ask(association, small_image())
    association.abort()
    node.after(11)
    keeper = node.new_keeper(known=False)

    assert keeper.report_due() == 0
    assert "add it to [[machines]]" in node.request().last_answer
    node.after(3700)
    assert keeper.report_due() == 0
    assert node.request().given_up_at is not None


def test_what_is_no_request_is_refused_and_not_kept(node: PromisingNode) -> None:
    still = small_image()
    association = node.machine.associate(node.door.port)
    answers = [
        ask(association, still, action=7),
        ask(association, still, instance="1.2.3"),
        ask(association),
        ask(association, still, transaction=""),
    ]
    association.release()

    assert answers == [0x0123, 0x0112, 0x0115, 0x0115]
    with node.database.read() as session:
        assert catalog.list_promise_requests(session) == ()


def test_a_machine_that_asks_anew_and_anew_and_is_never_reached_fills_no_database(
    node: PromisingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.doors.promises._MOST_OPEN", 3)
    still = small_image()
    association = node.machine.associate(node.door.port)
    node.machine.answers += [0x0110] * 10
    answers = [ask(association, still) for _ in range(4)]
    association.release()

    assert answers == [0x0000, 0x0000, 0x0000, 0x0213]


def test_promises_are_given_while_nothing_may_be_taken(node: PromisingNode) -> None:
    still = small_image()
    association = node.machine.associate(node.door.port)
    association.send_c_store(still)
    node.refusal.append("the disk is nearly full")

    assert association.send_c_store(small_image()).Status == 0xA700
    assert ask(association, still) == 0x0000
    wait_until(lambda: node.request().reported_at, what="the report is taken", timeout_s=15)
    association.release()
    assert node.machine.shown() == (1, [still.SOPInstanceUID], {})


_DOOR_OF_ITS_OWN = """
import sys
from pathlib import Path
from node.doors.promises import PromiseKeeper
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DeliverySettings, DimseSettings
from storage.database import Database
from storage.files import FolderStore
database, files = Database(sys.argv[1]), FolderStore(Path(sys.argv[2]))
keeper = PromiseKeeper(database, files, [], "ECHONODE", DeliverySettings())
door = DimseDoor(DimseSettings(host="127.0.0.1", port=int(sys.argv[3])),
                 Intake(database, files), str(files.incoming_folder), promises=keeper)
door.start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_node_that_is_killed_after_its_answer_reports_when_it_is_back(
    node: PromisingNode, database_url: str
) -> None:
    still = small_image()
    port = free_port()
    command = [
        sys.executable,
        "-c",
        _DOOR_OF_ITS_OWN,
        database_url,
        str(node.files.root),
        str(port),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        association = node.machine.associate(port)
        association.send_c_store(still)
        status = ask(association, still)
        process.send_signal(signal.SIGKILL)
    association.abort()

    assert status == 0x0000
    assert node.machine.reports == []
    node.now = datetime.fromtimestamp(time.time() + 60, UTC)
    with node.machine.listening():
        assert node.new_keeper().report_due() == 1
    assert node.machine.shown() == (1, [still.SOPInstanceUID], {})
