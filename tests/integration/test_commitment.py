"""What archives promise: asked, answered, denied, late, twice, by the wrong one, or never."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from node.delivery.asking import Asked, Kept, Reply, Report, Seen
from node.delivery.commitment import Promises, Terms
from node.delivery.outbox import Outbox
from node.delivery.sending import Sender
from node.watch.transfers import Peer
from storage import catalog
from storage.database import Database, DatabaseError, migrate, open_database
from storage.states import CommitmentOutcome, DeliveryState, Promise
from tests.outbox_steps import Studies, Taking

PACS = Peer(host="127.0.0.1", ae_title="PACS")
OK, NO_SUCH_EVENT, NO_SUCH_INSTANCE, INVALID = 0x0000, 0x0113, 0x0112, 0x0115
SENT, WAITING, DELIVERED, FAILED = (
    DeliveryState.SENT,
    DeliveryState.WAITING,
    DeliveryState.DELIVERED,
    DeliveryState.FAILED,
)


class Scripted:
    """An archive that takes requests as told, and shows what it has."""

    def __init__(self, *asks: Asked, looks: Sequence[Seen] = ()) -> None:
        self.asks = list(asks)
        self.looks = list(looks)
        self.has: set[str] | None = None
        self.transactions: list[str] = []
        self.about: list[list[str]] = []
        self.looked = 0
        self.at_once: Callable[[str, Report], object] | None = None
        self.before_taken: Callable[[], object] = lambda: None

    def ask(
        self,
        transaction_uid: str,
        objects: Sequence[Kept],
        *,
        taken: Callable[[], None],
        report: Report,
    ) -> Asked:
        self.transactions.append(transaction_uid)
        self.about.append([item.sop_instance_uid for item in objects])
        asked = self.asks.pop(0) if self.asks else Asked(reply=Reply.TAKEN)
        if asked.reply is Reply.TAKEN:
            self.before_taken()
            taken()
            if self.at_once is not None:
                self.at_once(transaction_uid, report)
        return asked

    def look(self, objects: Sequence[Kept]) -> Seen:
        self.looked += 1
        if self.has is not None:
            wanted = {item.sop_instance_uid for item in objects}
            return Seen(reply=Reply.TAKEN, found=frozenset(wanted & self.has))
        return self.looks.pop(0)


def report(transaction_uid: str, kept: Sequence[str] = (), **failed: int) -> Dataset:
    """The event information of a report; ``failed`` by UID with dots as underscores."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_named(uid) for uid in kept]
    if failed:
        information.FailedSOPSequence = []
        for name, reason in failed.items():
            item = _named(name.removeprefix("u").replace("_", "."))
            item.FailureReason = reason
            information.FailedSOPSequence.append(item)
    return information


def _named(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    item.ReferencedSOPInstanceUID = uid
    return item


def no(uid: str, reason: int) -> dict[str, int]:
    """A failure for :func:`report`."""
    return {"u" + uid.replace(".", "_"): reason}


class Asking:
    """An outbox whose one destination is a scripted archive."""

    def __init__(
        self, database: Database, folder: Path, archive: Scripted, *, required: bool = False
    ) -> None:
        self.studies = Studies(database, folder)
        self.archive = archive
        self.sender = Taking()
        self.terms = Terms(archive=archive, required=required, timeout_s=600, ae_title="PACS")
        self.start()

    def start(self, **settings: float) -> None:
        """As a start of the node: everything is built anew upon the rows."""
        rules = {"first_pause_s": 10, "give_up_after_s": 7200, **settings}
        senders: dict[str, Sender] = {"pacs": self.sender}
        self.outbox: Outbox = self.studies.outbox(senders, {"pacs": self.terms}, **rules)
        self.promises: Promises = self.studies.promises({"pacs": self.terms}, **rules)

    def round(self) -> None:
        """What the clock does each second."""
        self.outbox.deliver_due("pacs")
        self.outbox.ask_due("pacs")

    def until(self, uid: str, state: DeliveryState, *, rounds: int = 40) -> int:
        """Let time pass until a study's first delivery is in a state; gives the rounds."""
        for number in range(rounds):
            self.round()
            if self.studies.states(uid)[0] is state:
                return number
            self.studies.clock.now += timedelta(
                seconds=max(1.0, self.studies.next_attempt_in_s(uid))
            )
        pytest.fail(f"never {state}: {self.studies.detail(uid).deliveries}")


@pytest.fixture
def archive() -> Scripted:
    return Scripted()


@pytest.fixture
def asking(database: Database, tmp_path: Path, archive: Scripted) -> Asking:
    return Asking(database, tmp_path, archive)


def test_a_stored_result_is_delivered_when_the_archive_has_promised_to_keep_it(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs", results=2)
    asking.round()
    assert asking.studies.states(uid) == [SENT, SENT]
    assert asking.studies.detail(uid).study.state == "delivering"
    assert archive.about == [asking.studies.results(uid)]

    (transaction,) = archive.transactions
    assert asking.promises.reported(PACS, 1, report(transaction, asking.studies.results(uid))) == OK

    detail = asking.studies.detail(uid)
    assert detail.study.state == "done"
    assert {item.promise for item in detail.deliveries} == {Promise.COMMITTED}
    assert asking.studies.kinds(uid)[-6:] == [
        "stored", "stored", "promise-asked", "delivered", "delivered", "study-done"
    ]  # fmt: skip
    assert "promised" in detail.timeline[-2].message


def test_an_answer_that_comes_before_the_request_is_acknowledged_counts(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    results = asking.studies.results(uid)
    archive.before_taken = lambda: asking.promises.reported(
        PACS, 1, report(archive.transactions[-1], results)
    )
    asking.round()
    assert asking.studies.detail(uid).study.state == "done"


def test_what_an_archive_does_not_keep_is_sent_again_and_the_rest_is_delivered(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs", results=3)
    one, two, three = asking.studies.results(uid)
    asking.round()
    answer = report(archive.transactions[0], [two], **no(one, 0x0112), **no(three, 0x0119))
    assert asking.promises.reported(PACS, 2, answer) == OK

    assert asking.studies.states(uid) == [WAITING, DELIVERED, WAITING]
    words = [item.last_answer for item in asking.studies.detail(uid).deliveries]
    assert "0x0112 it has no such object" in words[0]
    assert "0x0119" in words[2]
    assert asking.studies.kinds(uid).count("no-promise") == 2
    assert asking.sender.sent == [one, two, three]

    asking.round()
    assert asking.sender.sent == [one, two, three]  # not before the pause is over
    asking.studies.clock.pass_(seconds=13)
    asking.round()
    assert asking.sender.sent == [one, two, three, one, three]
    assert archive.about[1] == [one, three]
    asking.promises.reported(PACS, 1, report(archive.transactions[1], [one, three]))
    assert asking.studies.detail(uid).study.state == "done"


def test_an_archive_that_says_no_again_and_again_gets_it_again_with_growing_pauses_and_then_failed(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    archive.at_once = lambda transaction, hear: hear(
        PACS, 2, report(transaction, **no(result, 0x0112))
    )
    pauses = []
    for _ in range(4):
        asking.round()
        assert asking.studies.states(uid) == [WAITING]
        pauses.append(asking.studies.next_attempt_in_s(uid))
        asking.studies.clock.pass_(seconds=pauses[-1])

    assert [8 <= pauses[0] <= 12, 16 <= pauses[1] <= 24, 32 <= pauses[2] <= 48] == [True] * 3
    asking.until(uid, FAILED)
    detail = asking.studies.detail(uid)
    assert detail.study.state == "failed"
    assert "0x0112 it has no such object" in detail.study.reason
    assert "echonode retry" in detail.study.next_step
    age = asking.studies.clock() - detail.deliveries[0].queued_at
    assert timedelta(hours=2) <= age <= timedelta(hours=2, seconds=1200)


def test_a_transaction_that_counts_as_a_duplicate_is_asked_for_anew_and_nothing_sent_again(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    asking.round()
    asking.promises.reported(PACS, 2, report(archive.transactions[0], **no(result, 0x0131)))
    assert asking.studies.states(uid) == [SENT]

    asking.studies.clock.pass_(seconds=30)
    asking.round()
    assert len(set(archive.transactions)) == 2
    assert asking.sender.sent == [result]


def test_a_class_that_is_not_promised_is_looked_for(asking: Asking, archive: Scripted) -> None:
    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    asking.round()
    archive.has = {result}
    asking.promises.reported(PACS, 2, report(archive.transactions[0], **no(result, 0x0122)))
    asking.round()

    (delivery,) = asking.studies.detail(uid).deliveries
    assert (delivery.state, delivery.promise) == (DELIVERED, Promise.FOUND)
    assert "nothing for this class" in delivery.last_answer
    assert len(archive.transactions) == 1


def test_the_same_answer_twice_and_the_contrary_after_it_change_nothing(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs", results=2)
    one, two = asking.studies.results(uid)
    asking.round()
    answer = report(archive.transactions[0], [one], **no(two, 0x0110))
    assert asking.promises.reported(PACS, 2, answer) == OK
    before = asking.studies.detail(uid)
    assert asking.promises.reported(PACS, 2, answer) == OK
    contrary = report(archive.transactions[0], [two], **no(one, 0x0110))
    assert asking.promises.reported(PACS, 2, contrary) == OK
    assert asking.studies.detail(uid) == before


def test_answers_that_are_not_ours_are_turned_away_and_change_nothing(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    results = asking.studies.results(uid)
    asking.round()
    (transaction,) = archive.transactions
    before = asking.studies.detail(uid)
    good = report(transaction, results)
    hear = asking.promises.reported

    assert hear(PACS, 1, report(generate_uid(), results)) == NO_SUCH_INSTANCE
    assert hear(replace(PACS, ae_title="STRANGER"), 1, good) == NO_SUCH_INSTANCE
    assert hear(PACS, 3, good) == NO_SUCH_EVENT
    assert hear(PACS, 1, Dataset()) == INVALID
    broken = report(transaction)
    broken.ReferencedSOPSequence = [Dataset()]
    assert hear(PACS, 1, broken) == INVALID
    assert hear(PACS, 1, report(transaction, [generate_uid()])) == OK  # of no object of ours
    assert asking.studies.detail(uid) == before

    assert hear(PACS, 1, good) == OK
    assert asking.studies.detail(uid).study.state == "done"


def test_an_object_that_an_answer_leaves_out_is_not_promised(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs", results=2)
    one, _two = asking.studies.results(uid)
    asking.round()
    asking.promises.reported(PACS, 1, report(archive.transactions[0], [one]))
    assert asking.studies.states(uid) == [DELIVERED, SENT]

    archive.has = set()
    asking.studies.clock.pass_(seconds=601)
    asking.round()
    assert asking.studies.states(uid) == [DELIVERED, WAITING]


def test_an_answer_of_success_without_a_list_is_for_all(asking: Asking, archive: Scripted) -> None:
    uid = asking.studies.add("pacs", results=2)
    asking.round()
    asking.promises.reported(PACS, 1, report(archive.transactions[0]))
    assert asking.studies.states(uid) == [DELIVERED, DELIVERED]


def test_an_archive_that_never_answers_is_queried_after_its_time_and_believed_by_what_it_shows(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs", results=2)
    one, _two = asking.studies.results(uid)
    asking.round()
    asking.studies.clock.pass_(seconds=599)
    asking.round()
    assert asking.studies.states(uid) == [SENT, SENT]

    archive.has = {one}
    asking.studies.clock.pass_(seconds=2)
    asking.round()
    assert asking.studies.states(uid) == [DELIVERED, WAITING]  # the other is sent again
    (first, second) = asking.studies.detail(uid).deliveries
    assert first.promise is Promise.FOUND
    assert "did not answer the request in time" in first.last_answer
    assert "does not show" in second.last_answer
    with asking.studies.database.read() as session:
        closed = catalog.find_commitment(session, archive.transactions[0])
    assert closed is not None
    assert closed.outcome is CommitmentOutcome.OVERDUE


def test_a_late_promise_counts_while_something_still_waits_for_it(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    results = asking.studies.results(uid)
    archive.looks = [Seen(reply=Reply.NOT_REACHED, text="down")]
    asking.round()
    asking.studies.clock.pass_(seconds=700)
    asking.round()
    assert asking.studies.states(uid) == [SENT]
    assert asking.promises.reported(PACS, 1, report(archive.transactions[0], results)) == OK
    assert asking.studies.detail(uid).study.state == "done"


def test_a_late_no_does_not_undo_what_was_sent_again_since(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    archive.has = set()
    asking.round()
    asking.studies.clock.pass_(seconds=700)
    asking.round()
    assert asking.studies.states(uid) == [WAITING]
    late = report(archive.transactions[0], **no(result, 0x0112))
    asking.studies.clock.pass_(seconds=30)
    asking.outbox.deliver_due("pacs")
    assert asking.promises.reported(PACS, 2, late) == OK
    assert asking.studies.states(uid) == [SENT]

    asking.round()
    asking.promises.reported(PACS, 1, report(archive.transactions[1], [result]))
    assert asking.studies.detail(uid).study.state == "done"


def test_a_no_after_delivery_is_told_and_moves_nothing(asking: Asking, archive: Scripted) -> None:
    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    archive.has = {result}
    asking.round()
    asking.studies.clock.pass_(seconds=700)
    asking.round()
    assert asking.studies.detail(uid).study.state == "done"
    asking.promises.reported(PACS, 2, report(archive.transactions[0], **no(result, 0x0112)))

    detail = asking.studies.detail(uid)
    assert detail.study.state == "done"
    assert detail.timeline[-1].kind == "no-promise"
    assert "echonode resend" in detail.timeline[-1].message


def test_an_archive_without_storage_commitment_is_queried_at_once_and_not_asked_for_it_again(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(Asked(reply=Reply.NOT_OFFERED, text="it took none of our contexts"))
    asking = Asking(database, tmp_path, archive)
    first = asking.studies.add("pacs")
    archive.has = set()
    asking.round()
    assert asking.studies.states(first) == [SENT]  # it may show it in a moment
    archive.has = set(asking.studies.results(first))
    asking.studies.clock.pass_(seconds=15)
    asking.round()
    (delivery,) = asking.studies.detail(first).deliveries
    assert (delivery.state, delivery.promise) == (DELIVERED, Promise.FOUND)
    assert "none of our contexts" in delivery.last_answer

    second = asking.studies.add("pacs")
    archive.has |= set(asking.studies.results(second))
    asking.round()
    assert asking.studies.states(second) == [DELIVERED]
    assert len(archive.transactions) == 1


def test_an_archive_that_can_be_asked_neither_way_is_believed_by_its_status_and_it_is_told(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(
        Asked(reply=Reply.NOT_OFFERED, text="no such context"),
        looks=[Seen(reply=Reply.NOT_OFFERED, text="no query either")],
    )
    asking = Asking(database, tmp_path, archive)
    first, second = asking.studies.add("pacs"), None
    asking.round()
    detail = asking.studies.detail(first)
    assert detail.study.state == "done"
    assert detail.deliveries[0].promise is Promise.STATUS
    message = next(event.message for event in detail.timeline if event.kind == "delivered")
    assert "could not be asked for a promise" in message
    assert "no such context" in message
    assert "no query either" in message

    second = asking.studies.add("pacs")
    asking.round()
    assert asking.studies.detail(second).study.state == "done"
    assert (len(archive.transactions), archive.looked) == (1, 1)  # both are known by now


def test_an_archive_that_falls_silent_at_every_question_is_believed_by_its_status_in_the_end(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(
        *[Asked(reply=Reply.NOT_NOW, text="it ended the association")] * 40,
        looks=[Seen(reply=Reply.NOT_NOW, text="it ended that one, too")] * 40,
    )
    asking = Asking(database, tmp_path, archive)
    uid = asking.studies.add("pacs")
    asking.round()
    assert asking.studies.states(uid) == [SENT]
    asking.until(uid, DELIVERED)
    detail = asking.studies.detail(uid)
    assert asking.studies.clock() - detail.study.first_image_at >= timedelta(seconds=600)
    (delivery,) = detail.deliveries
    assert delivery.promise is Promise.STATUS
    assert "it ended the association" in delivery.last_answer
    assert "it ended that one, too" in delivery.last_answer
    assert len(asking.sender.sent) == 1


def test_one_silence_long_after_it_stored_is_not_enough_to_believe_an_archive(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(looks=[Seen(reply=Reply.NOT_NOW, text="it fell silent")])
    asking = Asking(database, tmp_path, archive)
    uid = asking.studies.add("pacs")
    asking.round()  # it takes the request, and never answers
    asking.studies.clock.pass_(seconds=86_400)  # the node was switched off
    asking.start(give_up_after_s=259_200)
    asking.round()
    assert (asking.studies.states(uid), archive.looked) == ([SENT], 1)

    archive.has = set(asking.studies.results(uid))
    asking.studies.clock.pass_(seconds=60)
    asking.round()
    (delivery,) = asking.studies.detail(uid).deliveries
    assert (delivery.state, delivery.promise) == (DELIVERED, Promise.FOUND)


def test_where_the_settings_say_so_nothing_is_asked_and_it_is_told(
    database: Database, tmp_path: Path
) -> None:
    studies = Studies(database, tmp_path)
    outbox = studies.outbox({"pacs": Taking()}, {})
    uid = studies.add("pacs")
    outbox.deliver_due("pacs")
    detail = studies.detail(uid)
    assert detail.study.state == "done"
    assert detail.deliveries[0].promise is Promise.STATUS
    assert "not to ask" in detail.deliveries[0].last_answer


def test_required_means_that_only_a_promise_delivers(database: Database, tmp_path: Path) -> None:
    archive = Scripted(Asked(reply=Reply.NOT_OFFERED, text="no such context"))
    asking = Asking(database, tmp_path, archive, required=True)
    uid = asking.studies.add("pacs")
    archive.has = set(asking.studies.results(uid))
    asking.round()
    assert asking.studies.states(uid) == [SENT]
    asking.until(uid, FAILED)

    assert archive.looked == 0
    assert len(archive.transactions) > 10  # it was asked again and again, and never answered
    assert "never answered" in asking.studies.detail(uid).study.reason


def test_an_archive_that_refuses_the_request_for_long_is_queried(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(*[Asked(reply=Reply.NOT_NOW, text="0x0213 to the request")] * 50)
    asking = Asking(database, tmp_path, archive)
    uid = asking.studies.add("pacs")
    archive.has = set(asking.studies.results(uid))
    asking.round()
    assert asking.studies.states(uid) == [SENT]
    asking.until(uid, DELIVERED)
    assert asking.studies.clock() - asking.studies.detail(uid).study.first_image_at >= timedelta(
        seconds=600
    )
    assert "0x0213" in asking.studies.detail(uid).deliveries[0].last_answer


def test_an_archive_that_goes_down_after_it_stored_is_asked_when_it_is_back(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(*[Asked(reply=Reply.NOT_REACHED, text="cannot be reached")] * 12)
    asking = Asking(database, tmp_path, archive)
    uid = asking.studies.add("pacs")
    asking.round()
    for _ in range(12):
        assert asking.studies.states(uid) == [SENT]
        asking.studies.clock.pass_(seconds=asking.studies.next_attempt_in_s(uid))
        asking.round()
    asking.promises.reported(PACS, 1, report(archive.transactions[-1], asking.studies.results(uid)))
    assert asking.studies.detail(uid).study.state == "done"
    assert len(asking.sender.sent) == 1


def test_an_archive_that_never_comes_back_after_it_stored_is_given_up(
    database: Database, tmp_path: Path
) -> None:
    archive = Scripted(*[Asked(reply=Reply.NOT_REACHED, text="cannot be reached")] * 500)
    asking = Asking(database, tmp_path, archive)
    uid = asking.studies.add("pacs")
    asking.until(uid, FAILED)
    assert "cannot be reached" in asking.studies.detail(uid).study.reason


def test_a_restart_before_the_request_was_acknowledged_asks_anew(
    asking: Asking, archive: Scripted
) -> None:
    class PowerCutError(BaseException):
        pass

    def cut() -> None:
        raise PowerCutError

    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    archive.before_taken = cut
    with pytest.raises(PowerCutError):
        asking.round()
    archive.before_taken = lambda: None

    with asking.studies.database.write() as session:
        catalog.requeue_interrupted_deliveries(session, now=asking.studies.clock())
    asking.start()
    asking.round()
    first, second = archive.transactions
    assert first != second
    assert asking.promises.reported(PACS, 1, report(second, [result])) == OK
    assert asking.studies.detail(uid).study.state == "done"
    assert asking.promises.reported(PACS, 1, report(first, [result])) == OK  # it had come after all
    assert asking.sender.sent == [result]


def test_a_restart_after_the_request_was_acknowledged_waits_for_its_answer(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    asking.round()
    with asking.studies.database.write() as session:
        catalog.requeue_interrupted_deliveries(session, now=asking.studies.clock())
    asking.start()
    asking.round()
    (transaction,) = archive.transactions
    asking.promises.reported(PACS, 1, report(transaction, asking.studies.results(uid)))
    assert asking.studies.detail(uid).study.state == "done"


def test_a_report_that_the_database_does_not_take_is_answered_with_a_failure(
    asking: Asking, archive: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = asking.studies.add("pacs")
    results = asking.studies.results(uid)
    asking.round()

    def locked(*_arguments: object) -> None:
        raise DatabaseError("the database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(catalog, "record_promised", locked)
        assert asking.promises.reported(PACS, 1, report(archive.transactions[0], results)) == 0x0110
    assert asking.studies.states(uid) == [SENT]
    assert asking.promises.reported(PACS, 1, report(archive.transactions[0], results)) == OK
    assert asking.studies.states(uid) == [DELIVERED]


def test_a_study_sent_again_by_an_operator_is_asked_for_anew(
    asking: Asking, archive: Scripted
) -> None:
    uid = asking.studies.add("pacs")
    (result,) = asking.studies.results(uid)
    asking.round()
    with asking.studies.database.write() as session:
        catalog.resend(session, uid, now=asking.studies.clock())
    # The answer to the first sending comes when the second waits: it is sent all the same.
    asking.promises.reported(PACS, 1, report(archive.transactions[0], [result]))
    assert asking.studies.states(uid) == [WAITING]
    asking.round()
    assert asking.sender.sent == [result, result]
    asking.promises.reported(PACS, 1, report(archive.transactions[1], [result]))
    assert asking.studies.detail(uid).study.state == "done"


def test_a_held_study_is_not_asked_for_and_hears_all_the_same(
    asking: Asking, archive: Scripted
) -> None:
    uid, other = asking.studies.add("pacs"), asking.studies.add("pacs")
    asking.outbox.deliver_due("pacs")
    with asking.studies.database.write() as session:
        catalog.hold(session, uid, now=asking.studies.clock())
    asking.outbox.ask_due("pacs")
    assert archive.about == [asking.studies.results(other)]


def test_two_destinations_promise_for_themselves(database: Database, tmp_path: Path) -> None:
    studies = Studies(database, tmp_path)
    quick, slow = Scripted(), Scripted()
    terms = {
        "quick": Terms(archive=quick, ae_title="PACS"),
        "slow": Terms(archive=slow, ae_title="SLOW"),
    }
    outbox = studies.outbox({"quick": Taking(), "slow": Taking()}, terms)
    promises = studies.promises(terms)
    uid = studies.add("quick", "slow")
    for name in ("quick", "slow"):
        outbox.deliver_due(name)
        outbox.ask_due(name)
    results = studies.results(uid)
    # One archive does not answer for the other.
    assert promises.reported(PACS, 1, report(slow.transactions[0], results)) == NO_SUCH_INSTANCE
    assert promises.reported(PACS, 1, report(quick.transactions[0], results)) == OK
    assert studies.states(uid) == [DELIVERED, SENT]
    assert studies.detail(uid).study.state == "delivering"
    with database.read() as session:
        counts = catalog.promise_counts(session)
    assert (counts["quick"].committed, counts["quick"].waiting) == (1, 0)
    assert (counts["slow"].committed, counts["slow"].waiting) == (0, 1)
    assert counts["quick"].last_taken_at == studies.clock()


def test_what_waits_for_a_destination_that_is_not_asked_any_more_is_delivered_by_its_status(
    asking: Asking,
) -> None:
    uid = asking.studies.add("pacs")
    asking.round()
    assert asking.promises.settle_unasked() == 0
    assert asking.studies.promises({}).settle_unasked() == 1
    detail = asking.studies.detail(uid)
    assert detail.study.state == "done"
    assert detail.deliveries[0].promise is Promise.STATUS


def test_an_earlier_version_sends_what_waited_for_a_promise_once_more(
    asking: Asking, database_url: str
) -> None:
    uid = asking.studies.add("pacs")
    asking.round()
    asking.studies.database.close()
    migrate(database_url, "0005")
    with sqlite3.connect(database_url.removeprefix("sqlite:///")) as rows:
        assert rows.execute("SELECT state FROM delivery").fetchall() == [("waiting",)]
        rows.execute("UPDATE delivery SET state = 'delivered', delivered_at = last_attempt_at")
    rows.close()
    migrate(database_url)
    again = open_database(database_url)
    with again.read() as session:
        (delivery,) = catalog.study_detail(session, uid).deliveries
        assert catalog.promise_counts(session)["pacs"].by_status == 1
    again.close()
    assert (delivery.promise, delivery.asks) == (Promise.STATUS, 0)
    assert delivery.stored_at == delivery.delivered_at
