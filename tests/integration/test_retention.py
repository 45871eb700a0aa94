"""Retention: what was delivered goes by age and by space, and nothing else ever does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.intake import Arrival, Intake, Status
from node.retention import Retention
from node.sections import RetentionSettings
from storage import catalog
from storage.catalog import DeliveryState, FileState, Keeping, Stays, StudyState
from storage.database import Database
from storage.files import Area, FileStoreError, FolderStore
from storage.states import EventKind, ResultKind
from storage.tables import Delivery, Instance, QuarantinedObject, Result, Study, TimelineEvent
from tests.running_node import REAL_CINE

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MB = 1_000_000


@dataclass
class Store:
    """A store with studies of any age and state, and a retention for it."""

    database: Database
    files: FolderStore
    free: int = 1000 * MB
    number: int = 0

    def study(
        self,
        age_days: float,
        state: StudyState = StudyState.DONE,
        deliveries: tuple[DeliveryState, ...] = (DeliveryState.DELIVERED,),
        *,
        size_bytes: int = 10,
        promised: bool = False,
    ) -> str:
        self.number += 1
        uid = f"1.2.{self.number}"
        came = NOW - age_days * DAY
        with self.database.write() as session:
            study = Study(
                study_instance_uid=uid, state=state, first_image_at=came, revision_opened_at=came,
                last_image_at=came, state_since=came,
            )  # fmt: skip
            session.add(study)
            session.flush()
            session.add(
                Instance(
                    study_id=study.id, series_instance_uid=f"{uid}.1",
                    sop_instance_uid=f"{uid}.1.1", sop_class_uid="1.2", transfer_syntax_uid="1.2",
                    content_sha256="", size_bytes=size_bytes, door="test", received_at=came,
                    revision=1, file_key=self._file(Area.OBJECTS, 1000 + self.number),
                )
            )  # fmt: skip
            if state is not StudyState.IGNORED:
                result = Result(
                    study_id=study.id, revision=1, kind=ResultKind.SR, sop_class_uid="1.2",
                    sop_instance_uid=f"{uid}.2.1", series_instance_uid=f"{uid}.2",
                    transfer_syntax_uid="1.2", sha256="", size_bytes=5, created_at=came,
                    file_key=self._file(Area.RESULTS, 2000 + self.number),
                )  # fmt: skip
                session.add(result)
                for place, answer in enumerate(deliveries):
                    result.deliveries.append(
                        Delivery(
                            destination=f"pacs {place}", state=answer, queued_at=came,
                            next_attempt_at=came,
                        )
                    )  # fmt: skip
            if promised:
                catalog.add_event(session, study.id, EventKind.PROMISE_GIVEN, "promised", at=came)
        return uid

    def _file(self, area: Area, number: int) -> str:
        return self.files.write(area, f"{number:064x}", b"content")

    def retention(self, **written: object) -> Retention:
        return Retention(
            RetentionSettings.model_validate(written),
            self.database,
            self.files,
            lambda: self.free,
            clock=lambda: NOW,
        )

    def sources(self) -> dict[str, FileState]:
        with self.database.read() as session:
            return {row.study.study_instance_uid: row.file_state for row in session.query(Instance)}

    def there(self) -> set[str]:
        """The files that are there."""
        return {str(path.relative_to(self.files.root)) for path in self.files.root.glob("*/*/*")}

    def timeline(self, uid: str) -> list[str]:
        with self.database.read() as session:
            return [event.message for event in catalog.study_detail(session, uid).timeline]


@pytest.fixture
def store(database: Database, tmp_path: Path) -> Store:
    return Store(database, FolderStore(tmp_path / "store"))


KEPT, REMOVED = FileState.KEPT, FileState.REMOVED


def test_without_settings_nothing_ever_goes(store: Store) -> None:
    store.study(10_000)
    store.free = 0
    assert store.retention().run() == ()
    assert len(store.there()) == 2


def test_what_is_old_and_delivered_goes_and_its_row_and_timeline_stay(store: Store) -> None:
    old, young = store.study(40), store.study(20)

    (given,) = store.retention(sources_after_days=30).run()

    assert (given.keeping, given.files, given.size_bytes) == (Keeping.SOURCES, 1, 10)
    assert store.sources() == {old: REMOVED, young: KEPT}
    assert len(store.there()) == 3
    assert "gave up the files of 1 received object" in store.timeline(old)[-1]
    assert "older than 30 days" in store.timeline(old)[-1]
    assert store.retention(sources_after_days=30).run() == ()


def test_results_and_quarantine_have_their_own_ages(store: Store) -> None:
    uid = store.study(40)
    key = store.files.write(Area.QUARANTINE, "ab" * 32, b"twice")
    with store.database.write() as session:
        for age in (40, 20):
            session.add(
                QuarantinedObject(
                    received_at=NOW - age * DAY, reason="no", status_sent=0, file_key=key
                )
            )
    given = store.retention(results_after_days=30, quarantine_after_days=30).run()
    assert {item.keeping for item in given} == {Keeping.RESULTS, Keeping.QUARANTINE}
    assert store.sources() == {uid: KEPT}
    with store.database.read() as session:
        assert session.query(Result).one().file_state is REMOVED
        assert session.query(QuarantinedObject).count() == 1
    assert store.files.path(key).is_file(), "the other row needs it"
    store.retention(quarantine_after_days=10).run()
    assert not store.files.path(key).exists()


@pytest.mark.parametrize(
    ("state", "deliveries", "reason"),
    [
        *[
            (state, (DeliveryState.DELIVERED,), Stays.NOT_AT_ITS_END)
            for state in StudyState
            if state not in (StudyState.DONE, StudyState.IGNORED)
        ],
        *[
            (StudyState.DONE, (DeliveryState.DELIVERED, state), Stays.NOT_DELIVERED)
            for state in DeliveryState
            if state not in (DeliveryState.DELIVERED, DeliveryState.REPLACED)
        ],
        (StudyState.DONE, (), Stays.NO_DESTINATION),
    ],
)
def test_nothing_of_a_study_goes_that_is_not_done_and_delivered(
    store: Store,
    state: StudyState,
    deliveries: tuple[DeliveryState, ...],
    reason: Stays,
) -> None:
    store.study(1000, state, deliveries)
    store.free = 0
    retention = store.retention(
        sources_after_days=1, results_after_days=1, most_bytes=0, start_when_free_below=MB
    )
    assert retention.plan() == ()
    assert retention.run() == ()
    assert len(store.there()) == 2
    assert {item.reason for item in retention.staying()[Keeping.SOURCES]} == {reason}


def test_what_a_machine_was_promised_goes_only_where_the_settings_say_so(store: Store) -> None:
    uid = store.study(100, promised=True)
    retention = store.retention(sources_after_days=30)
    assert retention.run() == ()
    assert [item.reason for item in retention.staying()[Keeping.SOURCES]] == [Stays.PROMISED]
    assert store.retention(sources_after_days=30, promised_after_days=200).run() == ()
    assert store.retention(sources_after_days=30, promised_after_days=90).run() != ()
    assert store.sources() == {uid: REMOVED}


def test_for_space_the_oldest_go_until_there_is_enough(store: Store) -> None:
    studies = [store.study(age, size_bytes=10 * MB) for age in (50, 40, 30, 20, 0.5)]
    retention = store.retention(most_bytes=25 * MB)
    plan = retention.plan()
    assert [item.files for item in plan] == [3]
    assert [item.files for item in retention.run()] == [3]
    assert [state for _, state in sorted(store.sources().items())] == [REMOVED] * 3 + [KEPT] * 2
    store.free = 0
    store.retention(start_when_free_below=1000 * MB).run()
    assert store.sources()[studies[3]] is REMOVED
    assert store.sources()[studies[4]] is KEPT, "younger than keep_at_least_days"


def test_enough_free_space_lets_all_stay(store: Store) -> None:
    store.study(50)
    store.free = 1001 * MB
    assert store.retention(start_when_free_below=1000 * MB).run() == ()


def test_a_crash_between_the_mark_and_the_file_is_gone_on_with(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = store.study(40)

    def crash(_files: FolderStore, _key: str) -> None:
        raise FileStoreError("power cut")

    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "delete", crash)
        with pytest.raises(FileStoreError):
            store.retention(sources_after_days=30).run()
    assert store.sources() == {uid: FileState.REMOVING}
    assert len(store.there()) == 2, "marked, and there"
    store.retention().run()  # also where it has been switched off meanwhile
    assert store.sources() == {uid: REMOVED}
    assert len(store.there()) == 1


def test_a_crash_after_the_file_went_leaves_no_row_that_says_it_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = store.study(40)
    with monkeypatch.context() as broken:
        broken.setattr(catalog, "note_removed", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.retention(sources_after_days=30).run()
    assert store.sources() == {uid: FileState.REMOVING}
    assert len(store.there()) == 1
    store.retention().run()
    assert store.sources() == {uid: REMOVED}


def test_an_image_that_comes_again_after_it_was_removed_is_kept_again_and_stays(
    store: Store,
) -> None:
    arriving = store.files.incoming_folder / "one"
    intake = Intake(store.database, store.files)

    def bring() -> str:
        arriving.write_bytes(REAL_CINE.read_bytes())
        receipt = intake.receive(Arrival(path=arriving, door="test"))
        assert receipt.status == Status.SUCCESS
        return str(receipt.study_instance_uid)

    uid = bring()
    with store.database.write() as session:
        study = session.query(Study).one()
        study.state = StudyState.IGNORED
        study.last_image_at = session.query(Instance).one().received_at = NOW - 40 * DAY
    store.retention(sources_after_days=30).run()
    assert store.sources() == {uid: REMOVED}
    assert store.there() == set()
    assert bring() == uid
    assert store.sources() == {uid: KEPT}
    assert len(store.there()) == 1


_DELIVERIES = st.lists(st.sampled_from(list(DeliveryState)), max_size=3)
_STUDIES = st.lists(
    st.tuples(
        st.integers(0, 100),
        st.sampled_from(list(StudyState)),
        st.one_of(_DELIVERIES, st.just([DeliveryState.DELIVERED])).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(studies=_STUDIES, age=st.integers(1, 60), space=st.booleans())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_that_was_not_delivered_is_ever_chosen(
    store: Store,
    studies: list[tuple[int, StudyState, tuple[DeliveryState, ...], bool]],
    age: int,
    space: bool,
) -> None:
    with store.database.write() as session:
        for table in (Delivery, Result, Instance, TimelineEvent, Study):
            session.query(table).delete()
    facts = {
        store.study(days, state, answers, promised=promised): (days, state, answers, promised)
        for days, state, answers, promised in studies
    }
    store.free = 0 if space else 1000 * MB
    retention = store.retention(
        sources_after_days=age, results_after_days=age, start_when_free_below=10 * MB
    )
    planned = {item.keeping: 0 for item in retention.plan()}
    for item in retention.plan():
        planned[item.keeping] += item.files
    done = {item.keeping: 0 for item in retention.run()}
    assert set(planned) == set(done)

    with store.database.read() as session:
        rows = [*session.query(Instance), *session.query(Result)]
        for row in rows:
            days, state, answers, promised = facts[row.study.study_instance_uid]
            delivered = (
                state is StudyState.IGNORED  # has no results
                or (
                    state is StudyState.DONE
                    and bool(answers)
                    and set(answers) <= {DeliveryState.DELIVERED, DeliveryState.REPLACED}
                )
            )
            kept_for_promise = promised and isinstance(row, Instance)
            old = days > (1 if space else age)
            may_go = delivered and old and not kept_for_promise
            if row.file_state is not KEPT:
                assert may_go, (days, state, answers)
            elif may_go:
                assert not days > age, "what is old enough goes"
            assert store.files.path(row.file_key).is_file() == (row.file_state is KEPT)
