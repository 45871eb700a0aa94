"""Archives that are down, slow, hang, break off or lose the answer; and bytes that are lost."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StudyRootQueryRetrieveInformationModelFind,
)

from node.delivery.commitment import Terms
from node.delivery.dimse import DimseSender
from node.delivery.dimse_archive import DimseArchive
from node.delivery.sending import Answer, Outgoing
from node.doors.scp import DimseDoor
from node.intake import Intake
from node.sections import DimseDestination, DimseSettings
from node.watch.transfers import Direction, Peer, Transfer
from storage import catalog
from storage.catalog import _results
from storage.database import Database
from storage.states import DeliveryState, Silence
from tests.outbox_steps import Studies, Taking, small_object
from tests.peers import send, storescp

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
    # And its own SCP, which plays the archive, the files of what it receives in pieces.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO"),
    pytest.mark.filterwarnings("ignore:unclosed file <_io:ResourceWarning"),
]

WAITING, SENT, DELIVERED, FAILED = (
    DeliveryState.WAITING,
    DeliveryState.SENT,
    DeliveryState.DELIVERED,
    DeliveryState.FAILED,
)


@pytest.fixture
def studies(database: Database, tmp_path: Path) -> Studies:
    return Studies(database, tmp_path)


class Switched:
    """An archive that is there or not."""

    def __init__(self) -> None:
        self.up = False
        self.sent: list[str] = []
        self.tries = 0

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        self.tries += 1
        for item in objects:
            if self.up:
                self.sent.append(item.sop_instance_uid)
            yield Answer(
                delivery_id=item.delivery_id,
                accepted=self.up,
                status=0 if self.up else None,
                text="0x0000 stored" if self.up else "cannot be reached",
                silence=None if self.up else Silence.NOT_REACHED,
            )


def test_an_archive_that_was_down_for_a_day_gets_everything_in_order_when_it_is_back(
    studies: Studies,
) -> None:
    archive = Switched()
    outbox = studies.outbox({"pacs": archive}, first_pause_s=600, longest_pause_s=7200)
    uids = [studies.add("pacs", results=2)]
    day = studies.clock() + timedelta(days=1)
    while studies.clock() < day:
        outbox.deliver_due("pacs")
        studies.clock.pass_(seconds=studies.next_attempt_in_s(uids[0]))
    assert 10 <= archive.tries <= 20  # growing pauses: an archive that is down is not stormed
    uids += [studies.add("pacs") for _ in range(2)]
    assert all(states == WAITING for uid in uids for states in studies.states(uid))

    archive.up = True
    outbox.deliver_due("pacs")
    assert archive.sent == [result for uid in uids for result in studies.results(uid)]
    assert {studies.detail(uid).study.state for uid in uids} == {"done"}


def test_what_waits_only_for_an_archive_that_was_down_goes_before_what_came_later(
    studies: Studies,
) -> None:
    archive = Switched()
    outbox = studies.outbox({"pacs": archive}, first_pause_s=3600)
    first = studies.add("pacs")
    outbox.deliver_due("pacs")
    archive.up = True
    studies.clock.pass_(seconds=60)
    second = studies.add("pacs")
    outbox.deliver_due("pacs")
    assert archive.sent == [*studies.results(first), *studies.results(second)]


def test_an_object_at_which_the_association_breaks_keeps_no_other_waiting(
    studies: Studies,
) -> None:
    class Poisoned:
        def __init__(self) -> None:
            self.taken: list[str] = []

        def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
            broken = False
            for item in objects:
                poison = item.sop_instance_uid == poisoned
                broken, silence = broken or poison, Silence.NOT_REACHED
                if poison:
                    silence = Silence.NO_ANSWER
                if not broken:
                    self.taken.append(item.sop_instance_uid)
                yield Answer(
                    delivery_id=item.delivery_id,
                    accepted=not broken,
                    status=None,
                    text="",
                    silence=silence if broken else None,
                )

    archive = Poisoned()
    outbox = studies.outbox({"pacs": archive})
    uid = studies.add("pacs", results=3)
    poisoned, *others = studies.results(uid)
    outbox.deliver_due("pacs")
    assert archive.taken == []
    studies.clock.pass_(seconds=20)
    outbox.deliver_due("pacs")
    assert archive.taken == others


def test_bytes_that_are_missing_or_changed_are_never_sent(studies: Studies) -> None:
    archive = Taking()
    outbox = studies.outbox({"pacs": archive})
    uid = studies.add("pacs", results=3)
    missing, changed, whole = studies.detail(uid).results
    studies.files.path(missing.file_key).unlink()
    path = studies.files.path(changed.file_key)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    outbox.deliver_due("pacs")

    detail = studies.detail(uid)
    assert archive.sent == [whole.sop_instance_uid]
    assert studies.states(uid) == [FAILED, FAILED, DELIVERED]
    assert "are missing; restore this file" in detail.deliveries[0].last_answer
    assert "are not those that were kept" in detail.deliveries[1].last_answer
    assert detail.study.state == "failed"
    assert "echonode retry" in detail.study.next_step


def test_a_store_that_is_away_is_waited_for(studies: Studies) -> None:
    archive = Taking()
    outbox = studies.outbox({"pacs": archive})
    uid = studies.add("pacs")
    results = studies.files.root / "results"
    results.rename(studies.files.root / "away")
    outbox.deliver_due("pacs")
    assert studies.states(uid) == [WAITING]

    (studies.files.root / "away").rename(results)
    studies.clock.pass_(seconds=20)
    outbox.deliver_due("pacs")
    assert studies.detail(uid).study.state == "done"


def test_results_and_their_places_in_the_outbox_are_written_together_or_not_at_all(
    studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(BaseException):
        pass

    def cut(*_arguments: object, **_named: object) -> None:
        raise PowerCutError

    monkeypatch.setattr(_results, "_announce", cut)
    with pytest.raises(PowerCutError):
        studies.add("pacs")
    with studies.database.read() as session:
        (study,) = catalog.list_studies(session)
        assert study.state == "reporting"
        assert catalog.results_of(session, study.id) == ()
        assert catalog.deliveries_of(session, study.id) == ()


def test_a_node_that_stops_gives_back_what_it_did_not_begin(studies: Studies) -> None:
    outbox = studies.outbox({"pacs": Taking()})
    uid = studies.add("pacs", results=3)
    outbox.stop()
    outbox.deliver_due("pacs")
    assert studies.states(uid) == [DELIVERED, WAITING, WAITING]
    assert [item.attempts for item in studies.detail(uid).deliveries] == [1, 0, 0]


def test_what_went_out_is_told_study_by_study(studies: Studies) -> None:
    class Choosy(Taking):
        def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
            for number, answer in enumerate(super().send(objects)):
                if number == 2:
                    yield Answer(
                        delivery_id=answer.delivery_id, accepted=False, status=0xC000, text="no"
                    )
                else:
                    yield answer

    told: list[Transfer] = []
    peer = Peer(host="pacs.example", ae_title="PACS", port=104)
    outbox = studies.outbox({"pacs": Choosy()})
    outbox._peers, outbox._transferred = {"pacs": peer}, told.append
    first, second = studies.add("pacs", results=2), studies.add("pacs", results=2)
    outbox.deliver_due("pacs")

    assert [(item.study_instance_uid, item.count, item.accepted) for item in told] == [
        (first, 2, True),
        (second, 2, False),
    ]
    assert {(item.direction, item.peer, item.door) for item in told} == {
        (Direction.OUT, peer, "pacs")
    }
    down = Switched()
    outbox._senders = {"pacs": down}
    told.clear()
    studies.clock.pass_(seconds=60)
    outbox.deliver_due("pacs")
    assert down.tries == 1
    assert told == []  # nothing went out


class Hard:
    """An archive of pynetdicom that a test can make slow, mute or broken."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.let_go = threading.Event()
        self.waits = threading.Event()
        self.slow = False
        self.breaks_off = False
        self.shows = True
        entity = AE("HARD")
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self._server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)],
        )
        self.destination = DimseDestination(
            name="pacs",
            kind="dimse",
            host="127.0.0.1",
            port=self._server.server_address[1],
            ae_title="HARD",
        )

    def __enter__(self) -> Hard:
        return self

    def __exit__(self, *_error: object) -> None:
        self.let_go.set()
        self._server.shutdown()
        gc.collect()  # what it left open is left here, and not in another test

    def _store(self, event: evt.Event) -> int:
        if self.slow:
            self.waits.set()
            self.let_go.wait(60)
        self.stored.append(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]
        if self.breaks_off:
            event.assoc.abort()
        return 0x0000

    def _find(self, _event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for uid in self.stored if self.shows else ():
            match = Dataset()
            match.SOPInstanceUID = uid
            yield 0xFF00, match

    def sender(self, timeout_s: float = 10) -> DimseSender:
        return DimseSender(self.destination, "ECHONODE", timeout_s=timeout_s)

    def terms(self) -> Terms:
        asking = DimseArchive(self.destination, "ECHONODE", timeout_s=10, linger_s=0)
        return Terms(archive=asking, ae_title="HARD")


def test_an_object_whose_answer_was_lost_is_looked_for_before_it_is_sent_again(
    studies: Studies,
) -> None:
    with Hard() as archive:
        archive.breaks_off = True
        outbox = studies.outbox({"pacs": archive.sender()}, {"pacs": archive.terms()})
        uid = studies.add("pacs")
        outbox.deliver_due("pacs")
        assert studies.states(uid) == [WAITING]
        assert "may have the object" in studies.detail(uid).deliveries[0].last_answer
        archive.breaks_off = False
        studies.clock.pass_(seconds=20)
        outbox.deliver_due("pacs")
        outbox.ask_due("pacs")

        assert archive.stored == studies.results(uid)  # it came once
    assert studies.detail(uid).study.state == "done"


def test_an_object_whose_answer_was_lost_and_that_is_not_shown_is_sent_again(
    studies: Studies,
) -> None:
    with Hard() as archive:
        archive.breaks_off, archive.shows = True, False
        outbox = studies.outbox({"pacs": archive.sender()}, {"pacs": archive.terms()})
        uid = studies.add("pacs")
        outbox.deliver_due("pacs")
        archive.breaks_off = False
        studies.clock.pass_(seconds=20)
        outbox.deliver_due("pacs")
        assert archive.stored == studies.results(uid) * 2  # the same object under its own UID
    assert studies.states(uid) == [SENT]


def test_a_crash_between_the_archives_answer_and_our_note_leaves_one_copy(
    studies: Studies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(BaseException):
        pass

    def cut(*_arguments: object) -> None:
        raise PowerCutError

    with storescp(tmp_path / "kept") as archive:
        destination = DimseDestination(
            name="pacs",
            kind="dimse",
            host="127.0.0.1",
            port=archive.port,
            ae_title=archive.ae_title,
        )
        sender = DimseSender(destination, "ECHONODE", timeout_s=10)
        uid = studies.add("pacs", results=2)
        outbox = studies.outbox({"pacs": sender})
        monkeypatch.setattr(outbox, "_note", cut)
        with pytest.raises(PowerCutError):
            outbox.deliver_due("pacs")
        assert studies.states(uid) == [DeliveryState.SENDING] * 2
        with studies.database.write() as session:
            assert catalog.requeue_interrupted_deliveries(session, now=studies.clock()) == 2
        studies.outbox({"pacs": sender}).deliver_due("pacs")
        assert len(archive.files()) == 2

    assert studies.detail(uid).study.state == "done"


def test_an_archive_that_takes_long_for_an_object_holds_up_nobody_else(
    studies: Studies, tmp_path: Path
) -> None:
    door = DimseDoor(
        DimseSettings(host="127.0.0.1", port=0),
        Intake(studies.database, studies.files),
        str(studies.files.incoming_folder),
    )
    door.start()
    try:
        with Hard() as slow:
            slow.slow = True
            quick = Taking()
            outbox = studies.outbox({"slow": slow.sender(60), "quick": quick})
            uid = studies.add("slow", "quick", results=2)
            thread = threading.Thread(target=outbox.deliver_due, args=("slow",))
            thread.start()
            assert slow.waits.wait(30)

            # The archive holds an object in its hands, and has not answered.
            study, series = generate_uid(), generate_uid()
            images = [small_object(tmp_path, study, series) for _ in range(3)]
            sent = send(door.port, *images)
            assert sent.returncode == 0, sent.stdout + sent.stderr
            assert outbox.deliver_due("quick") == 2
            with studies.database.read() as session:
                assert catalog.find_study(session, study).images == 3
            assert slow.stored == []
            assert thread.is_alive()

            slow.let_go.set()
            thread.join(30)
            assert len(slow.stored) == 2
    finally:
        door.stop()
    assert studies.detail(uid).study.state == "done"


def test_an_archive_that_hangs_in_mid_association_is_left_and_called_again(
    studies: Studies,
) -> None:
    with Hard() as archive:
        archive.slow = True
        uid = studies.add("pacs", results=3)
        outbox = studies.outbox({"pacs": archive.sender(timeout_s=6)})
        outbox.deliver_due("pacs")
        answers = [item.last_answer for item in studies.detail(uid).deliveries]
        assert "timed out; it may have the object" in answers[0]
        assert all("ended the association" in answer for answer in answers[1:])
        archive.slow = False
        archive.let_go.set()
        studies.clock.pass_(seconds=20)
        studies.outbox({"pacs": archive.sender()}).deliver_due("pacs")
        assert set(archive.stored) == set(studies.results(uid))
    assert studies.detail(uid).study.state == "done"


def test_an_archive_that_stops_reading_in_the_middle_of_an_object_is_left(
    studies: Studies,
) -> None:
    stuck = threading.Event()
    with Hard() as archive:

        def deaf(event: evt.Event) -> None:
            if isinstance(event.pdu, P_DATA_TF):
                stuck.wait(60)  # in the thread that reads the socket

        archive._server.bind(evt.EVT_PDU_RECV, deaf)
        uid = studies.add("pacs", rows=4000)  # more than the buffers between the two hold
        outbox = studies.outbox({"pacs": archive.sender(timeout_s=6)})
        thread = threading.Thread(target=outbox.deliver_due, args=("pacs",))
        thread.start()
        thread.join(60)
        ended = not thread.is_alive()
        stuck.set()
        thread.join(60)
    assert ended
    assert studies.states(uid) == [WAITING]
    assert "may have the object" in studies.detail(uid).deliveries[0].last_answer


def test_warnings_of_an_archive_are_kept_and_count_as_stored(studies: Studies) -> None:
    codes = [0xB000, 0xB006, 0xB007, 0xA700]
    with Hard() as archive:

        def answer(_event: evt.Event) -> int:
            return codes.pop(0)

        archive._server.unbind(evt.EVT_C_STORE, archive._store)
        archive._server.bind(evt.EVT_C_STORE, answer)
        uid = studies.add("pacs", results=4)
        studies.outbox({"pacs": archive.sender()}).deliver_due("pacs")

    deliveries = studies.detail(uid).deliveries
    assert [item.state for item in deliveries] == [DELIVERED] * 3 + [WAITING]
    assert [item.last_status for item in deliveries] == [0xB000, 0xB006, 0xB007, 0xA700]
    assert "coerced" in deliveries[0].last_answer
    assert "discarded" in deliveries[1].last_answer


def test_pauses_grow_to_the_longest_and_differ_between_batches(studies: Studies) -> None:
    outbox = studies.outbox({"pacs": Switched()}, first_pause_s=10, longest_pause_s=60)
    uid = studies.add("pacs")
    pauses = []
    for _ in range(7):
        outbox.deliver_due("pacs")
        pauses.append(studies.next_attempt_in_s(uid))
        studies.clock.pass_(seconds=pauses[-1])
    for pause, plain in zip(pauses, (10, 20, 40, 60, 60, 60, 60), strict=True):
        assert 0.8 * plain <= pause <= 1.2 * plain
    assert len(set(pauses[3:])) > 1
