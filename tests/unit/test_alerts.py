"""When people are told of trouble: once at its begin, once at its end, whatever goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from node.sections import AlertsSettings
from node.watch.alerts import Alarm, Alert, AlertError, Alerts, Sight, sight_of
from storage import catalog
from storage.database import Database
from tests.outbox_steps import Studies
from tests.peers import wait_until
from tests.unit.storage_steps import NOW, STUDY, clip, complete, later, receive

DISK = Alarm(kind="disk-full", words="3 MB free", next_step="free space")
DOWN = Alarm(kind="destination-down", subject="pacs", words="nothing", next_step="look")


@dataclass
class Pocket:
    """Someone who is told, or who cannot be reached."""

    name: str = "pocket"
    reachable: bool = True
    told: list[Alert] = field(default_factory=list)
    tried: int = 0
    error: Exception = AlertError("nobody there")  # noqa: RUF009 - never changed

    def check(self) -> None:
        pass

    def send(self, alert: Alert) -> None:
        self.tried += 1
        if not self.reachable:
            raise self.error
        self.told.append(alert)

    @property
    def heard(self) -> list[tuple[str, str]]:
        return [(alert.alarm.key, alert.state.value) for alert in self.told]


class Bench:
    """Alerts with a clock and a view that a test moves."""

    def __init__(self, folder: Path, *pockets: Pocket) -> None:
        self.now = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
        self.sight = Sight(alarms=())
        self.pockets = pockets
        self.memory = folder / "alerts.json"
        self.counted: list[tuple[str, str, str]] = []
        self.begin()

    def begin(self) -> None:
        """As a node that starts."""
        self.alerts = Alerts(
            AlertsSettings(pause_s=300),
            lambda: self.sight,
            node="ECHONODE on test",
            memory=self.memory,
            counted=lambda *what: self.counted.append(what),
            ways=self.pockets,
            clock=lambda: self.now,
        )

    def see(
        self, *alarms: Alarm, after_s: float = 10, unseen: frozenset[str] = frozenset()
    ) -> None:
        self.now += timedelta(seconds=after_s)
        self.sight = Sight(alarms=alarms, unseen=unseen)
        self.alerts.turn()


def test_one_trouble_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    pocket = Pocket()
    bench = Bench(tmp_path, pocket)

    for _ in range(5):
        bench.see(DISK)
    bench.see(after_s=299)
    assert pocket.heard == [("disk-full:", "begun")], "it may come back"
    bench.see(after_s=10)

    assert pocket.heard == [("disk-full:", "begun"), ("disk-full:", "over")]
    begun, over = pocket.told
    assert begun.text == ("ECHONODE on test: disk-full begun. 3 MB free. To do: free space.")
    assert over.since == begun.at
    assert "It lasted since 2026-03-04 12:00 UTC" in over.text


def test_a_trouble_that_comes_and_goes_is_one_trouble(tmp_path: Path) -> None:
    pocket = Pocket()
    bench = Bench(tmp_path, pocket)

    for _ in range(10):
        bench.see(DISK, after_s=100)
        bench.see(after_s=100)

    assert pocket.heard == [("disk-full:", "begun")]


def test_two_destinations_are_two_troubles(tmp_path: Path) -> None:
    pocket = Pocket()
    bench = Bench(tmp_path, pocket)
    other = Alarm(kind="destination-down", subject="second", words="nothing", next_step="look")

    bench.see(DOWN, other)
    bench.see(other, after_s=301)

    assert pocket.heard[2:] == [("destination-down:pacs", "over")]


def test_what_cannot_be_seen_now_is_not_over(tmp_path: Path) -> None:
    pocket = Pocket()
    bench = Bench(tmp_path, pocket)

    bench.see(DOWN)
    bench.see(after_s=1000, unseen=frozenset({"destination-down"}))
    assert pocket.heard == [("destination-down:pacs", "begun")]
    bench.see(after_s=301)

    assert pocket.heard[1:] == [("destination-down:pacs", "over")]


def test_who_cannot_be_reached_is_tried_again_and_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("node.watch.alerts.time.monotonic", lambda: clock[0])
    away, here = Pocket("away", reachable=False), Pocket("here")
    bench = Bench(tmp_path, away, here)

    bench.see(DISK)
    bench.see(DISK)
    assert here.heard == [("disk-full:", "begun")]
    assert away.tried == 1, "not before its pause is over"
    clock[0] = 11
    bench.see(DISK)
    clock[0] = 25
    bench.see(DISK)
    assert away.tried == 2, "the pause grows"
    away.reachable = True
    clock[0] = 40
    bench.see(DISK)

    assert away.heard == [("disk-full:", "begun")]
    assert bench.counted.count(("disk-full", "away", "failed")) == 2
    assert bench.counted.count(("disk-full", "away", "sent")) == 1


def test_a_way_that_breaks_down_keeps_no_other_waiting(tmp_path: Path) -> None:
    broken, here = Pocket("broken", reachable=False, error=UnicodeError("?")), Pocket("here")
    bench = Bench(tmp_path, broken, here)

    bench.see(DISK)

    assert here.heard == [("disk-full:", "begun")]
    assert ("disk-full", "broken", "failed") in bench.counted


def test_the_end_of_what_nobody_heard_of_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("node.watch.alerts.time.monotonic", lambda: clock[0])
    away = Pocket(reachable=False)
    bench = Bench(tmp_path, away)

    bench.see(DISK)
    bench.see(after_s=301)
    away.reachable = True
    clock[0] = 1000.0
    bench.see()

    assert away.heard == []


def test_a_restart_tells_nothing_anew_but_the_end(tmp_path: Path) -> None:
    pocket = Pocket()
    bench = Bench(tmp_path, pocket)
    bench.see(DISK)

    bench.begin()
    bench.see(DISK)
    assert pocket.heard == [("disk-full:", "begun")]
    bench.see(after_s=301)

    assert pocket.heard[1:] == [("disk-full:", "over")]
    assert pocket.told[1].since == pocket.told[0].at


def test_a_restart_tells_to_those_who_could_not_be_told_before(tmp_path: Path) -> None:
    away, here = Pocket("away", reachable=False), Pocket("here")
    bench = Bench(tmp_path, away, here)
    bench.see(DISK)

    away.reachable = True
    bench.begin()
    bench.see(DISK)

    assert away.heard == [("disk-full:", "begun")]
    assert here.heard == [("disk-full:", "begun")], "and to nobody twice"


@pytest.mark.parametrize("content", ["", "{", '[{"since": 3}]', "[1]"])
def test_a_memory_that_cannot_be_read_hinders_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "alerts.json").write_text(content)
    pocket = Pocket()
    bench = Bench(tmp_path, pocket)

    bench.see(DISK)

    assert pocket.heard == [("disk-full:", "begun")]


def test_a_look_that_fails_ends_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.watch.alerts._LOOK_S", 0.01)
    pocket = Pocket()
    looks = iter([RuntimeError("broken"), OSError("gone")])

    def look() -> Sight:
        for error in looks:
            raise error
        return Sight(alarms=(DISK,))

    alerts = Alerts(AlertsSettings(), look, node="n", ways=[pocket])
    alerts.start()
    try:
        wait_until(lambda: pocket.told, what="it was told", timeout_s=10, pause_s=0.01)
    finally:
        alerts.stop()

    assert pocket.heard == [("disk-full:", "begun")]


def kinds(sight: Sight) -> dict[str, str]:
    return {alarm.key: alarm.words for alarm in sight.alarms}


def test_a_clip_that_waits_too_long_is_a_trouble(database: Database) -> None:
    receive(database, clip(1), clip(2))
    complete(database)
    settings = AlertsSettings(queue_older_than_s=600)

    early = sight_of(settings, database, {}, now=later(600))
    late = sight_of(settings, database, {}, now=later(30 + 660))

    assert kinds(early) == {}
    assert kinds(late) == {"queue-old:": "a clip has waited for a worker for 11 min; 2 wait"}
    assert STUDY not in str(late)


def test_a_destination_that_takes_nothing_is_a_trouble_once_it_was_tried(
    database: Database, tmp_path: Path
) -> None:
    studies = Studies(database, tmp_path)
    studies.add("pacs", "second", results=2)
    settings = AlertsSettings(destination_down_after_s=600)

    def seen() -> dict[str, str]:
        return kinds(sight_of(settings, database, {}, now=studies.clock()))

    studies.clock.pass_(minutes=30)
    assert seen() == {}, "nobody tried"
    with database.write() as session:
        first, _ = catalog.claim_due_deliveries(session, studies.clock(), destination="pacs")
        catalog.record_delivery_retry(
            session, first.delivery_id, "no", None, studies.clock(), next_attempt_at=studies.clock()
        )
    assert seen() == {"destination-down:pacs": "it has taken nothing for 30 min; 1 results wait"}
    with database.write() as session:
        second = next(
            item
            for item in catalog.study_detail(session, studies_uid(session)).deliveries
            if item.destination == "pacs" and item.id != first.delivery_id
        )
        catalog.record_delivered(session, second.id, "0x0000", 0, studies.clock())
    assert seen() == {}, "it took another one just now"


def studies_uid(session: object) -> str:
    (study,) = catalog.list_studies(session)  # type: ignore[arg-type]  # a session
    return study.study_instance_uid


def test_what_failed_lately_is_a_trouble_and_later_no_longer(database: Database) -> None:
    receive(database, clip(1))
    number = complete(database)
    with database.write() as session:
        claimed = catalog.claim_next(session, "w", later(31))
        assert claimed is not None
        catalog.record_failure(
            session, claimed.recording_id, "broke", max_attempts=0, now=later(40)
        )
        catalog.begin_reporting(session, number, now=later(41))
        catalog.fail_study(session, number, "no", "look", revision=1, now=later(42))
    settings = AlertsSettings(failures_within_s=3600)

    soon = sight_of(settings, database, {}, now=later(100))
    after = sight_of(settings, database, {}, now=later(42 + 3601))

    assert kinds(soon) == {"failures:": "in the last 60 min: 1 clip, 1 study"}
    assert kinds(after) == {}


def test_disk_workers_and_a_database_that_is_away(database: Database, tmp_path: Path) -> None:
    disk = {"troubles": [{"kind": "disk-full", "what": "3 MB free", "next_step": "free space"}]}
    failed = SimpleNamespace(state="failed")
    busy = SimpleNamespace(state="busy")
    settings = AlertsSettings()

    assert set(kinds(sight_of(settings, database, disk, [failed, failed], now=NOW))) == {
        "disk-full:",
        "workers:",
    }
    assert set(kinds(sight_of(settings, database, {}, [failed, busy], now=NOW))) == set()
    (tmp_path / "echonode.db").unlink()
    away = sight_of(settings, database, {}, now=NOW)
    assert set(kinds(away)) == {"database:"}
    assert away.unseen == {"queue-old", "destination-down", "failures", "node-gone"}


def test_of_several_nodes_the_eldest_tells_what_all_see(database: Database) -> None:
    receive(database, clip(1))
    complete(database)
    settings = AlertsSettings(queue_older_than_s=600)
    for name, started in (("younger", later(5)), ("eldest", later(1)), ("dead", NOW)):
        with database.write() as session:
            catalog.join(session, name, pid=1, started_at=started, details={})
    late = later(30 + 660)
    disk = {"troubles": [{"kind": "disk-full", "what": "3 MB free", "next_step": "free space"}]}

    younger = sight_of(settings, database, disk, name="younger", now=late)
    assert set(kinds(younger)) == {"disk-full:"}
    assert "queue-old" in younger.unseen, "it does not say that all is well either"
    before = sight_of(settings, database, {}, name="eldest", now=late)
    assert "queue-old:" not in kinds(before), "an elder one lives, as far as is known"
    with database.write() as session:
        (dead,) = (node for node in catalog.read_nodes(session) if node.node_id == "dead")
        assert catalog.take_over(session, dead, "younger") is not None
    told = kinds(sight_of(settings, database, {}, name="eldest", now=late))
    assert set(told) == {"queue-old:", "node-gone:dead"}
    assert told["node-gone:dead"].endswith("younger goes on with its work")
