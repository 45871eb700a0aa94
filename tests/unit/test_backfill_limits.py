"""How gently a backfill comes, what holds it back, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.backfill.limits import Hourly, Limits, read_rates, read_size
from node.backfill.model import Came
from node.backfill.progress import Estimate, estimate
from node.backfill.run import Backfill
from node.fetching.limits import Rate, read_hours
from node.fetching.model import RefusedError
from storage import catalog
from storage.catalog import BackfillProgress, BackfillRecord, BackfillState
from storage.database import Database, DatabaseError
from tests.fetch_steps import Site, fetching_site
from tests.unit.storage_steps import clip, receive

DAY = date(2024, 1, 30)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


# Rates.


@pytest.mark.parametrize(
    ("text", "rate", "hourly"),
    [
        ("4/s,80Mbit/s", Rate(objects=4, bits=80e6), Hourly()),
        ("60studies/h", Rate(), Hourly(studies=60)),
        ("4/s, 5000/h ,40 GB/h", Rate(objects=4), Hourly(objects=5000, size_bytes=40e9)),
        ("none", Rate(), Hourly()),
    ],
)
def test_rates_are_read(text: str, rate: Rate, hourly: Hourly) -> None:
    assert read_rates(text) == (rate, hourly)


@pytest.mark.parametrize("text", ["", "0studies/h", "5000/d", "4GB/s", "none,4/h,fast", "-1/h"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        read_rates(text)


def test_a_size_is_read() -> None:
    assert (read_size("200GB"), read_size("1.5 TB")) == (200_000_000_000, 1_500_000_000_000)
    with pytest.raises(ValueError, match="is no size"):
        read_size("200")


def test_the_share_of_an_hour_is_that_of_the_limit_that_is_nearest() -> None:
    hourly = Hourly(studies=60, objects=6000, size_bytes=36e9)
    assert hourly.cost_s(10, 10_000_000) == pytest.approx(60)
    assert hourly.cost_s(500, 10_000_000) == pytest.approx(300)
    assert hourly.cost_s(10, 9_000_000_000) == pytest.approx(900)
    assert Hourly().cost_s(10**6, 10**12) == 0


# The estimate.

RECORD = BackfillRecord(
    backfill_id=1,
    source="pacs",
    from_folder=False,
    first_day=DAY,
    last_day=DAY,
    newest_first=True,
    modalities=("US",),
    state=BackfillState.OPEN,
    doing="",
    terms={},
    begun_at=NOON - timedelta(days=9),
    ended_at=None,
    files=0,
    unreadable=0,
    runner="here/1/a",
    running_since=NOON - timedelta(days=1),
    signed_at=NOON,
    expected_at=None,
)
PROGRESS = BackfillProgress(
    days=100,
    days_done=9,
    days_listed=10,
    studies=50,
    settled=45,
    clips=900,
    clips_waiting=100,
    window_from=NOON - timedelta(hours=1),
    window_to=NOON,
    window_studies=10,
    window_clips=400,
)


def reckon(**changes: Any) -> Estimate:
    return estimate(RECORD, replace(PROGRESS, **changes), NOON)


def test_the_end_is_that_of_the_slower_of_both() -> None:
    one = reckon()
    # 5 known and 90 days of 5 each; of these 20 clips each, and 100 that wait.
    assert one.fetching is not None
    assert one.analysing is not None
    assert (one.fetching.left, one.analysing.left) == (455, 100 + 455 * 20)
    assert one.slower == "fetching"
    assert one.remaining_s == pytest.approx(45.5 * 3600)
    assert one.ends_at == NOON + timedelta(hours=45.5)
    assert "90 days not asked for yet" in one.basis

    one = reckon(window_clips=40)
    assert one.slower == "analysing"
    assert one.remaining_s == pytest.approx(9200 / 40 * 3600)


def test_without_a_rate_there_is_no_estimate_but_a_reason() -> None:
    one = reckon(window_studies=0)
    assert (one.ends_at, one.basis) == (None, "no study was fetched in the last hour")
    assert reckon(window_clips=0).basis == "no clip of it was analysed in the last hour"


def test_when_all_is_fetched_clips_alone_count() -> None:
    one = reckon(days_listed=100, days_done=100, settled=50, window_studies=0)
    assert one.slower == "analysing"
    assert one.remaining_s == pytest.approx(0.25 * 3600)
    one = reckon(days_listed=100, days_done=100, settled=50, clips_waiting=0, window_clips=0)
    assert (one.remaining_s, one.basis) == (0, "nothing is left")


def test_outside_of_the_hours_nothing_is_fetched() -> None:
    here = NOON.astimezone()
    hours = f"{here - timedelta(hours=2):%H:%M}-{here + timedelta(hours=2):%H:%M}"
    record = replace(RECORD, terms={"hours": hours})
    one = estimate(record, replace(PROGRESS, window_clips=10**6), NOON)
    # 45.5 hours at four a day: 11 days, and an hour and a half of the next four.
    assert one.ends_at == NOON + timedelta(days=11, hours=1.5)
    assert hours in one.basis


def test_how_long_hours_last() -> None:
    hours = read_hours("20:00-06:00")
    at = datetime(2026, 3, 4, 23, tzinfo=UTC)
    assert hours.left_s(at) == 7 * 3600
    assert hours.left_s(at.replace(hour=7)) == 0


# The loop.


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).astimezone()
        self.slept: list[float] = []
        self.then: Callable[[], None] = lambda: None

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, pause_s: float) -> None:
        self.slept.append(pause_s)
        self.now += timedelta(seconds=pause_s)
        self.then()


class Told:
    """What is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.states: list[str] = []

    def says(self, words: str) -> None:
        """What it does now."""

    def tells(self, line: str) -> None:
        self.lines.append(line)

    def ended(self, study: Any, came: Came, state: Any) -> None:
        del study, came
        self.states.append(str(state))


class Years:
    """A source with studies by day; ``take`` may be exchanged."""

    def __init__(self, days: Mapping[date, tuple[str, ...]]) -> None:
        self.days = days
        self.asked: list[date | None] = []
        self.took: list[str] = []
        self.take_one: Callable[[str], Came] = lambda _uid: Came(whole=True)

    def look_through(self) -> None:
        """Nothing."""

    def find(self, day: date | None) -> Mapping[str, int | None]:
        self.asked.append(day)
        if day not in self.days:
            raise RefusedError("the query was answered 0xC000")
        return dict.fromkeys(self.days[day])

    def take(self, study: catalog.BackfilledStudy) -> Came:
        self.took.append(study.study_instance_uid)
        return self.take_one(study.study_instance_uid)


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    with fetching_site(database, tmp_path) as opened:
        yield opened


def prepared(
    site: Site, source: Years, limits: Limits | None = None, days: int = 2, **more: Any
) -> tuple[Backfill, Told, Clock]:
    clock, told = Clock(), Told()
    with site.database.write() as session:
        record = catalog.find_backfill(session, "pacs") or catalog.add_backfill(
            session,
            catalog.NewBackfill(
                source="pacs", first_day=DAY - timedelta(days=days - 1), last_day=DAY
            ),
        )
        record = catalog.take_backfill(
            session, record.backfill_id, "me", seat="a", terms={}, lease_s=60
        )
    work = Backfill(
        site.opened,
        record,
        "me",
        source,
        limits or Limits(pause_s=0),
        told,
        sleep=clock.sleep,
        clock=clock,
        **more,
    )
    return work, told, clock


def state_of(site: Site) -> BackfillRecord:
    with site.database.read() as session:
        (record,) = catalog.list_backfills(session)
    return record


def test_a_day_that_is_refused_is_asked_for_once_more_and_then_told(site: Site) -> None:
    source = Years({DAY: ("1.2.1",)})
    work, told, _clock = prepared(site, source)
    progress = work.run()
    yesterday = DAY - timedelta(days=1)
    assert source.asked == [DAY, yesterday, yesterday]
    assert (progress.days_done, progress.days_refused) == (1, 1)
    assert progress.reasons == {"day not listed: the query was answered 0xC000": 1}
    assert told.states == ["here"]
    assert state_of(site).doing == "done: 1 studies, 1 days not listed"


def test_one_study_that_nobody_foresaw_does_not_end_weeks_of_work(site: Site) -> None:
    source = Years({DAY: ("1.2.1", "1.2.2")})

    def take(uid: str) -> Came:
        if uid == "1.2.1":
            raise ZeroDivisionError("Doe^Jane")
        return Came(whole=True)

    source.take_one = take
    work, told, _clock = prepared(site, source, days=1)
    progress = work.run()
    assert told.states == ["partly", "here", "partly"]  # tried once more at the end
    assert progress.reasons == {"an error of echonode's own (ZeroDivisionError)": 1}


def test_a_study_in_which_processes_die_is_passed_over(site: Site) -> None:
    class Died(BaseException):
        pass

    def die(_uid: str) -> Came:
        raise Died

    source = Years({DAY: ("1.2.1", "1.2.2")})
    source.take_one = die
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "backfill_study_put_back", lambda *_args: None)
        for _ in range(3):
            with pytest.raises(Died):
                prepared(site, source, days=1)[0].run()
    source.take_one = lambda _uid: Came(whole=True)
    work, _told, _clock = prepared(site, source, days=1)
    work.run()
    assert source.took == ["1.2.1"] * 3 + ["1.2.2", "1.2.1"]  # and then once more, at the end


def test_what_was_wished_for_an_hour_is_kept_also_over_a_stop(site: Site) -> None:
    source = Years({DAY: ("1.2.1", "1.2.2")})

    def take(uid: str) -> Came:
        if uid == "1.2.2":
            raise KeyboardInterrupt
        receive(
            site.database,
            clip(
                len(source.took),
                study_instance_uid=uid,
                sop_instance_uid=f"{uid}.1",
                received_at=datetime.now(UTC),
            ),
        )
        return Came(whole=True, taken=1)

    source.take_one = take
    limits = Limits(hourly=Hourly(studies=60), pause_s=0)
    work, _told, clock = prepared(site, source, limits, days=1)
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert sum(clock.slept) == pytest.approx(60, abs=5)
    assert state_of(site).runner is None

    work, _told, clock = prepared(site, source, limits, days=1)
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert sum(clock.slept) == pytest.approx(60, abs=5)


def test_no_study_begins_while_the_node_has_enough_to_do_or_little_space(site: Site) -> None:
    source = Years({DAY: ("1.2.1",)})
    receive(site.database, clip(1), clip(2))
    work, told, clock = prepared(
        site, source, Limits(queue_below=2, pause_s=0), days=1, node_runs=lambda: False
    )

    def look() -> None:
        assert source.took == []
        if len(clock.slept) > 3:
            with site.database.write() as session:
                session.execute(catalog._queue.Recording.__table__.delete())  # type: ignore[attr-defined]

    clock.then = look
    work.run()
    assert told.lines == [
        "waits: clips wait here to be analysed: 2, and no node runs that would: start it"
    ]
    assert source.took == ["1.2.1"]

    with site.database.write() as session:
        catalog.reopen_backfill(session, state_of(site).backfill_id)
    work, told, clock = prepared(site, source, Limits(keep_free_bytes=1 << 60), days=1)
    site.opened.refusing()
    full = work._too_full()
    assert full is not None
    assert "1152921504.6 GB are to be" in full[0]


def test_hours_are_heeded(site: Site) -> None:
    source = Years({DAY: ("1.2.1",)})
    now = datetime.now(UTC).astimezone()
    begin, end = now + timedelta(hours=2), now + timedelta(hours=3)
    limits = Limits(hours=read_hours(f"{begin:%H:%M}-{end:%H:%M}"), pause_s=0)
    work, told, clock = prepared(site, source, limits, days=1)
    work.run()
    assert 7000 < sum(clock.slept) <= 7200
    assert told.lines == [f"waits: until {begin:%H:%M}, when the hours begin"]


def test_a_database_that_is_away_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Years({DAY: ("1.2.1",)})
    work, told, clock = prepared(site, source, days=1)
    read, away = site.database.read, [True] * 3

    @contextmanager
    def failing() -> Iterator[Any]:
        if away:
            away.pop()
            raise DatabaseError("it is locked")
        with read() as session:
            yield session

    monkeypatch.setattr(site.database, "read", failing)
    work.run()
    assert source.took == ["1.2.1"]
    assert clock.slept == [5.0] * 3
    assert told.lines == ["waits: the database cannot be used: it is locked"]


def test_one_that_was_given_up_stops_at_its_next_step(site: Site) -> None:
    source = Years({DAY: ("1.2.1", "1.2.2")})

    def take(_uid: str) -> Came:
        with site.database.write() as session:
            catalog.give_up_backfill(session, state_of(site).backfill_id)
        return Came(whole=True)

    source.take_one = take
    work, _told, _clock = prepared(site, source, days=1)
    with pytest.raises(catalog.BackfillLostError, match="given up by an operator"):
        work.run()
    assert source.took == ["1.2.1"]
    assert state_of(site).state is BackfillState.GIVEN_UP


def test_it_signs_and_reckons_while_it_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.backfill.run._SIGN_EVERY_S", 0.02)
    source = Years({DAY: ("1.2.1",)})
    work, _told, _clock = prepared(site, source, days=1)
    begun = state_of(site)

    def signed(_uid: str) -> Came:
        work.says("takes its time")
        deadline = time.monotonic() + 20
        while state_of(site).doing != "takes its time" and time.monotonic() < deadline:
            time.sleep(0.02)
        return Came(whole=True)

    source.take_one = signed
    assert begun.doing == "begins"
    work.run()
    shown = state_of(site)
    assert shown.signed_at is not None
    assert begun.signed_at is not None
    assert shown.signed_at > begun.signed_at
    assert (shown.state, shown.doing) == (BackfillState.DONE, "done: 1 studies")
