"""Several nodes with one database: who holds what, and what becomes of it when he is dead."""

from __future__ import annotations

from datetime import timedelta

import pytest

from node.membership import Membership
from storage import catalog
from storage.catalog import (
    CatalogError,
    ClaimedRecording,
    ClaimLostError,
    NodeRecord,
    PromiseItem,
    RecordingState,
    TakenUp,
)
from storage.database import Database
from tests.unit.storage_steps import (
    A4C,
    NOW,
    clip,
    complete,
    detail,
    later,
    name_views,
    receive,
    result,
    until_delivering,
)

pytestmark = pytest.mark.both_databases


def join(database: Database, name: str, seat: str = "", at: float = 0, **terms: bool) -> str:
    with database.write() as session:
        return catalog.join(
            session, name, pid=1, started_at=NOW, details={}, seat=seat, now=later(at), **terms
        )


def node(database: Database, name: str, at: float = 0) -> NodeRecord:
    with database.read() as session:
        return next(one for one in catalog.read_nodes(session, later(at)) if one.node_id == name)


def take(database: Database, holder: str) -> ClaimedRecording:
    with database.beside() as session:
        claimed = catalog.claim_next(session, "w", later(31), holder=holder)
    assert claimed is not None
    return claimed


def state_of(database: Database, claimed: ClaimedRecording) -> RecordingState:
    return next(one.state for one in detail(database).recordings if one.id == claimed.recording_id)


def lose(database: Database, name: str, by: str) -> TakenUp | None:
    with database.write() as session:
        return catalog.take_over(session, node(database, name), by, now=later(60))


def test_only_its_holder_says_what_came_of_a_claim(database: Database) -> None:
    one, two = join(database, "one"), join(database, "two")
    receive(database, clip(1))
    complete(database)
    claimed = take(database, one)
    assert claimed.holder == one
    for other in (two, ""):
        with pytest.raises(ClaimLostError, match="goes on with it"), database.write() as session:
            catalog.record_view(session, claimed.recording_id, A4C, queue=True, holder=other)
        with pytest.raises(ClaimLostError), database.write() as session:
            catalog.put_back(session, claimed.recording_id, "no", holder=other)
    with database.write() as session:
        catalog.record_view(session, claimed.recording_id, A4C, queue=True, holder=one)
    assert state_of(database, claimed) is RecordingState.QUEUED


def test_what_a_dead_node_held_goes_on_and_nothing_of_the_living(database: Database) -> None:
    one, two = join(database, "one"), join(database, "two")
    receive(database, clip(1), clip(2))
    complete(database)
    dead, living = take(database, one), take(database, two)

    assert lose(database, "one", "two") == TakenUp(recordings=1)

    assert state_of(database, dead) is RecordingState.TO_VIEW
    assert state_of(database, living) is RecordingState.VIEWING
    (told,) = [event for event in detail(database).timeline if event.kind == "interrupted"]
    assert told.message.startswith("node one gave no sign of life while it was at work on this")
    assert (node(database, "one").alive, node(database, "one").taken_over_by) == (False, "two")
    # And what the dead one says when it wakes up counts no more, though nobody has begun anew.
    with pytest.raises(ClaimLostError), database.write() as session:
        catalog.record_view(session, dead.recording_id, A4C, queue=True, holder=one)
    with pytest.raises(ClaimLostError, match="was taken over"):
        take(database, one)
    with database.beside() as session:
        assert not catalog.renew(session, one, details={})
    again = take(database, two)
    assert (again.recording_id, again.attempts) == (dead.recording_id, 2)


def test_who_gave_a_sign_meanwhile_is_not_taken_over(database: Database) -> None:
    one = join(database, "one")
    receive(database, clip(1))
    complete(database)
    claimed = take(database, one)
    seen = node(database, "one")
    with database.beside() as session:
        assert catalog.renew(session, one, details={"x": 1}, now=later(5))
    with database.write() as session:
        assert catalog.take_over(session, seen, "two") is None
    assert state_of(database, claimed) is RecordingState.VIEWING
    assert node(database, "one", at=6).alive


def test_a_node_that_comes_back_to_its_seat_takes_up_its_own(database: Database) -> None:
    before, other = join(database, "one", seat="a"), join(database, "two", seat="b")
    receive(database, clip(1), clip(2))
    complete(database)
    mine, theirs = take(database, before), take(database, other)

    after = join(database, "one", seat="a", at=1)
    with database.write() as session:
        assert catalog.take_up(session) == TakenUp(recordings=1)

    assert after != before
    assert state_of(database, mine) is RecordingState.TO_VIEW
    assert state_of(database, theirs) is RecordingState.VIEWING


def test_a_name_has_one_node_until_that_is_dead(database: Database) -> None:
    join(database, "one", seat="a")
    with pytest.raises(CatalogError, match="a node named one works on this database already"):
        join(database, "one", seat="b", at=29)
    join(database, "one", seat="b", at=31)
    assert node(database, "one", at=32).seat == "b"


def test_what_a_node_leaves_when_it_stops_is_free(database: Database) -> None:
    one = join(database, "one")
    receive(database, clip(1))
    complete(database)
    claimed = take(database, one)
    with database.write() as session:
        catalog.leave(session, one)
        assert catalog.take_up(session).recordings == 1
        assert catalog.read_nodes(session) == ()
    assert state_of(database, claimed) is RecordingState.TO_VIEW


def test_a_node_that_is_alone_keeps_no_rows_of_others(database: Database) -> None:
    join(database, "of an earlier host", seat="a")
    with pytest.raises(CatalogError, match="SQLite has one node"):
        join(database, "one", seat="b", at=29, alone=True)
    join(database, "one", seat="b", at=31, alone=True)
    join(database, "renamed", seat="b", at=32, alone=True)
    with database.read() as session:
        assert [one.node_id for one in catalog.read_nodes(session)] == ["renamed"]


def test_a_node_that_will_not_come_back_can_be_forgotten(database: Database) -> None:
    join(database, "one")
    with pytest.raises(CatalogError, match="no node two"), database.write() as session:
        catalog.forget_node(session, "two")
    lose(database, "one", "two")
    with database.write() as session:
        catalog.forget_node(session, "one")
        assert catalog.read_nodes(session) == ()


def test_the_results_of_a_study_are_made_by_one_node(database: Database) -> None:
    one, two = join(database, "one"), join(database, "two")
    receive(database, clip(1))
    study_id = complete(database)
    name_views(database, queue=False)
    with database.write() as session:
        (claimed,) = catalog.claim_reports(session, holder=one)
        assert catalog.claim_reports(session, holder=two) == ()
        assert not catalog.anything_to_report(session, holder=two)
    assert (claimed.study_id, claimed.holder) == (study_id, one)
    with pytest.raises(ClaimLostError), database.write() as session:
        catalog.add_results(session, study_id, 1, [result("r")], ["pacs"], holder=two)
    lose(database, "one", "two")
    with database.write() as session:
        assert [item.study_id for item in catalog.claim_reports(session, holder=two)] == [study_id]
    with pytest.raises(ClaimLostError), database.write() as session:
        catalog.ignore_study(session, study_id, "no", revision=1, holder=one)
    with pytest.raises(ClaimLostError), database.write() as session:
        catalog.fail_study(session, study_id, "no", "none", revision=1, holder=one)
    with database.write() as session:
        catalog.add_results(session, study_id, 1, [result("r")], ["pacs"], holder=two)
    assert len(detail(database).results) == 1


def test_results_that_could_not_be_made_here_are_made_elsewhere(database: Database) -> None:
    one, two = join(database, "one"), join(database, "two")
    receive(database, clip(1))
    study_id = complete(database)
    name_views(database, queue=False)
    with database.write() as session:
        catalog.claim_reports(session, holder=one)
        assert catalog.claim_reports(session, holder=one, but_not=[study_id]) == ()
        catalog.put_back_report(session, study_id, holder=one)
        assert len(catalog.claim_reports(session, holder=two)) == 1


def test_a_destination_gets_results_from_one_node_at_a_time(database: Database) -> None:
    one, two = join(database, "one"), join(database, "two")
    until_delivering(database, "pacs", "other")
    with database.write() as session:
        (first,) = catalog.claim_due_deliveries(session, later(50), "pacs", holder=one)
    receive(database, clip(2, study_instance_uid="1.2.9", sop_instance_uid="1.2.9.1"))
    complete(database, "1.2.9")
    name_views(database, queue=False)
    with database.write() as session:
        (study,) = catalog.claim_reports(session, holder=two)
        catalog.add_results(
            session, study.study_id, 1, [result("x")], ["pacs"], holder=two, now=later(51)
        )
        assert catalog.claim_due_deliveries(session, later(52), "pacs", holder=two) == ()
        assert len(catalog.claim_due_deliveries(session, later(52), "other", holder=two)) == 1
    with pytest.raises(ClaimLostError), database.write() as session:
        catalog.record_delivered(session, first.delivery_id, "yes", 0, later(53), holder=two)
    assert lose(database, "one", "two") == TakenUp(deliveries=1)
    with pytest.raises(ClaimLostError), database.write() as session:
        catalog.record_delivered(session, first.delivery_id, "yes", 0, later(61), holder=one)
    with database.write() as session:
        went = catalog.claim_due_deliveries(session, later(62), "pacs", holder=two)
    assert [item.silence is not None for item in went] == [False, True]  # it may be there already
    assert went[1].delivery_id == first.delivery_id


def test_a_machine_s_wish_is_reported_on_by_one_node(database: Database) -> None:
    one, two = join(database, "one"), join(database, "two")
    item = PromiseItem(sop_class_uid="1.2", sop_instance_uid="1.2.3")
    with database.write() as session:
        wish = catalog.add_promise_request(
            session, transaction_uid="1.9", calling_ae="CART", peer_host="", items=[item],
            first_attempt_at=NOW, now=NOW,
        ).id  # fmt: skip
        assert catalog.claim_promise_request(session, wish, holder=one) is not None
        assert catalog.claim_promise_request(session, wish, holder=two) is None
        assert catalog.promise_requests_due(session, later(1), holder=two) == ()
        assert len(catalog.promise_requests_due(session, later(1), holder=one)) == 1
    assert lose(database, "one", "two") == TakenUp(promises=1)
    with database.write() as session:
        assert catalog.claim_promise_request(session, wish, holder=two) is not None


def test_a_request_for_a_promise_is_made_anew_only_where_its_node_is_dead(
    database: Database,
) -> None:
    one, two = join(database, "one"), join(database, "two")
    until_delivering(database, "pacs")
    with database.write() as session:
        (due,) = catalog.claim_due_deliveries(session, later(50), "pacs", holder=one)
        catalog.record_stored(session, due.delivery_id, "yes", 0, later(51), holder=one)
        catalog.open_commitment(
            session, "pacs", "1.7", [due.delivery_id], later(52), due_at=later(900), holder=one
        )
    with database.write() as session:
        assert catalog.take_up(session, now=later(60)) == TakenUp()
        found = catalog.find_commitment(session, "1.7")
    assert found is not None
    assert found.closed_at is None
    lose(database, "one", two)
    with database.read() as session:
        found = catalog.find_commitment(session, "1.7")
    assert found is not None
    assert str(found.outcome) == "interrupted"


class Steady:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def member(database: Database, name: str, steady: Steady) -> Membership:
    made = Membership(
        database, name, seat=name, lease_s=30, max_attempts=3, started_at=NOW, steady=steady
    )
    made.join()
    return made


def test_a_node_is_dead_after_a_lease_without_a_sign_and_no_sooner(database: Database) -> None:
    if database.url.get_backend_name() == "sqlite":
        return  # a file has one node
    steady = Steady()
    one, two = member(database, "one", steady), member(database, "two", steady)
    receive(database, clip(1))
    complete(database)
    claimed = take(database, one.holder())
    for _ in range(5):
        steady.now += 5
        two.beat()
    one.beat()
    for _ in range(6):
        steady.now += 5
        two.beat()
    assert state_of(database, claimed) is RecordingState.VIEWING
    steady.now += 5
    two.beat()
    assert state_of(database, claimed) is RecordingState.TO_VIEW
    before = one.holder()
    one.beat()
    assert one.holder() != before
    assert take(database, one.holder()).recording_id == claimed.recording_id


def test_who_could_not_speak_himself_judges_nobody(database: Database) -> None:
    if database.url.get_backend_name() == "sqlite":
        return
    steady = Steady()
    one, two = member(database, "one", steady), member(database, "two", steady)
    receive(database, clip(1))
    complete(database)
    claimed = take(database, one.holder())
    two.beat()
    steady.now += 300  # the server was away, and comes back for both
    two.beat()
    one.beat()
    for _ in range(5):
        steady.now += 5
        two.beat()
        assert state_of(database, claimed) is RecordingState.VIEWING
    assert one.holder() == claimed.holder


def test_a_node_that_leaves_lies_about_nothing(database: Database) -> None:
    steady = Steady()
    one = member(database, "one", steady)
    receive(database, clip(1))
    complete(database)
    claimed = take(database, one.holder())
    one.leave()
    assert state_of(database, claimed) is RecordingState.TO_VIEW
    with database.read() as session:
        assert catalog.read_nodes(session) == ()


def test_nodes_go_by_the_servers_clock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one = member(database, "one", Steady())
    assert abs(one.now() - catalog.utc_now()) < timedelta(seconds=5)
    ahead = timedelta(seconds=90)
    monkeypatch.setattr(catalog, "clock_of", lambda _session, _now: catalog.utc_now() + ahead)
    one.beat()
    of_a_file = database.url.get_backend_name() == "sqlite"
    expected = catalog.utc_now() + (timedelta() if of_a_file else ahead)
    assert abs(one.now() - expected) < timedelta(seconds=5)


def test_the_time_of_the_nodes_is_the_servers(database: Database) -> None:
    with database.read() as session:
        there = catalog.clock_of(session, None)
    assert abs(there - catalog.utc_now()) < timedelta(minutes=1)
