"""How fast, when, and what of a study is fetched: without an archive."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, UltrasoundMultiFrameImageStorage

from node.cli import main
from node.cli.output import ExitCode
from node.doors.contexts import STORAGE_CLASSES, ULTRASOUND_CLASSES
from node.fetching.answers import series_of, studies_of
from node.fetching.dimse import MOST_CONTEXTS, _wait_while_it_comes, storage_contexts
from node.fetching.limits import Pace, Rate, read_hours, read_rate
from node.fetching.model import (
    Answers,
    FoundObject,
    FoundSeries,
    FoundStudy,
    Outcome,
    Question,
    Wish,
    is_uid,
)
from node.fetching.plan import Plan, make_plan
from node.fetching.run import Broken, Fetch, Terms
from node.watch.transfers import Peer
from storage.catalog import FileState, ObjectHere, StudyHere
from storage.database import Database
from tests.fetch_steps import Site, Watch, fetching_site
from tests.unit.storage_steps import clip, complete, receive

STUDY = "1.2.3"


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, pause_s: float) -> None:
        self.slept.append(pause_s)
        self.now += pause_s


# How fast, and when.


@pytest.mark.parametrize(
    ("text", "objects", "bits"),
    [
        ("4/s", 4, None),
        ("80Mbit/s", None, 80e6),
        ("0.5/s, 2.5 Gbit/s", 0.5, 2.5e9),
        ("none", None, None),
    ],
)
def test_a_rate_is_read(text: str, objects: float | None, bits: float | None) -> None:
    assert read_rate(text) == Rate(objects=objects, bits=bits)


@pytest.mark.parametrize("text", ["", "4", "0/s", "-1/s", "4/m", "4/s;5Mbit/s", "fast", "8MB/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        read_rate(text)


def test_a_pace_is_held_by_number_and_by_size() -> None:
    clock = Clock()
    pace = Pace(Rate(objects=2, bits=8e6), clock=clock, sleep=clock.sleep)
    began = clock.now
    for _ in range(20):
        pace.took(1000)
        pace.wait(60)
    assert clock.now - began == pytest.approx(10, abs=1)

    began = clock.now
    for _ in range(10):
        pace.took(3_000_000)
        pace.wait(60)
    assert clock.now - began == pytest.approx(30, abs=1)


def test_time_that_was_not_used_is_not_saved_up_and_no_wait_is_longer_than_allowed() -> None:
    clock = Clock()
    pace = Pace(Rate(bits=8e6), clock=clock, sleep=clock.sleep)
    clock.now += 3600
    pace.took(10_000_000)
    assert pace.owed_s == pytest.approx(9)
    pace.wait(2)
    assert clock.slept == [2]
    assert pace.owed_s == pytest.approx(7)


@pytest.mark.parametrize(
    ("hours", "at", "wait_h"),
    [
        ("20:00-06:00", "21:00", 0),
        ("20:00-06:00", "05:59", 0),
        ("20:00-06:00", "06:00", 14),
        ("20:00-06:00", "19:00", 1),
        ("08:00-24:00", "23:59", 0),
        ("8:00-12:00", "07:00", 1),
        ("8:00-12:00", "12:00", 20),
    ],
)
def test_hours_may_go_over_midnight(hours: str, at: str, wait_h: float) -> None:
    now = datetime.fromisoformat(f"2026-01-05T{at}:00+00:00")

    assert read_hours(hours).wait_s(now) == wait_h * 3600


@pytest.mark.parametrize("text", ["", "20-6", "25:00-06:00", "20:00-24:30", "06:00-06:00"])
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hours|begin when they end"):
        read_hours(text)


# What is asked, and what counts as an answer.


def test_days_are_asked_for_one_by_one() -> None:
    wish = Wish(first_day=date(2026, 2, 27), last_day=date(2026, 3, 1), modalities=("US", "ECG"))

    assert [(q.day and q.day.day, q.modality) for q in wish.questions()] == [
        (27, "US"), (27, "ECG"), (28, "US"), (28, "ECG"), (1, "US"), (1, "ECG")
    ]  # fmt: skip
    assert list(Wish(studies=("1.2", "1.3", "1.2")).questions()) == [
        Question(study_instance_uid="1.2"), Question(study_instance_uid="1.3")
    ]  # fmt: skip


def answer(**values: Any) -> Dataset:
    dataset = Dataset()
    for key, value in {"StudyInstanceUID": STUDY, **values}.items():
        setattr(dataset, key, value)
    return dataset


@pytest.mark.parametrize(
    ("question", "fits"),
    [
        (Question(study_instance_uid=STUDY), True),
        (Question(study_instance_uid="1.2.4"), False),
        (Question(day=date(2026, 1, 5)), True),
        (Question(day=date(2026, 1, 6)), False),
        (Question(day=date(2026, 1, 5), modality="SR"), True),
        (Question(day=date(2026, 1, 5), modality="MR"), False),
        (Question(accession_number="A1"), True),
        (Question(accession_number="A"), False),
    ],
)
def test_an_answer_is_laid_beside_its_question(question: Question, fits: bool) -> None:
    given = answer(StudyDate="20260105", ModalitiesInStudy=["US", "SR"], AccessionNumber="A1 ")

    answers = studies_of([given, given], question)

    assert len(answers.found) == (1 if fits else 0)
    assert answers.dropped == (0 if fits else 2)


def test_a_study_without_a_date_is_none_of_a_day() -> None:
    assert studies_of([answer()], Question(day=date(2026, 1, 5))).found == ()


def test_a_series_of_another_study_is_none_of_this() -> None:
    own, other = answer(SeriesInstanceUID="1.5"), answer(SeriesInstanceUID="1.6")
    other.StudyInstanceUID = "1.9"

    answers = series_of([own, other], STUDY)

    assert [one.series_instance_uid for one in answers.found] == ["1.5"]
    assert answers.dropped == 1


@pytest.mark.parametrize(
    ("text", "fits"),
    [("1.2.840.1", True), ("1", False), ("1..2", False), ("1.2\n", False), ("1.2" * 22, False)],
)
def test_what_is_a_uid(text: str, fits: bool) -> None:
    assert is_uid(text) is fits


# What of a study is wanted.

US = str(UltrasoundMultiFrameImageStorage)


class Asked:
    """What an archive lists; None where it does not answer at that level."""

    def __init__(
        self, series: list[FoundSeries] | None, objects: dict[str, list[FoundObject]] | None
    ) -> None:
        self._series = series
        self._objects = objects
        self.listed: list[str] = []

    def studies(self, _question: Question) -> Answers[FoundStudy]:
        return Answers(found=())

    def series(self, _study: str) -> Answers[FoundSeries] | None:
        return None if self._series is None else Answers(found=tuple(self._series))

    def objects(self, _study: str, series: str) -> Answers[FoundObject] | None:
        self.listed.append(series)
        return None if self._objects is None else Answers(found=tuple(self._objects[series]))


def found(series: str, number: int, sop_class: str | None = US) -> FoundObject:
    return FoundObject(
        series_instance_uid=series, sop_instance_uid=f"{series}.{number}", sop_class_uid=sop_class
    )


def held(
    *received: tuple[str, FileState],
    series: str = "1.5",
    own: tuple[str, ...] = (),
    **more: frozenset[str],
) -> StudyHere:
    sets = {"made": frozenset[str](), "made_series": frozenset[str](), **more}
    return StudyHere(
        received={
            uid: ObjectHere(
                series_instance_uid=series, file_state=state, size_bytes=1, own=uid in own
            )
            for uid, state in received
        },
        quarantined=sets.pop("quarantined", frozenset()),
        **sets,
    )


KNOWN = held(
    ("1.5.1", FileState.KEPT),
    ("1.5.2", FileState.REMOVED),
    ("1.5.3", FileState.LOST),
    ("1.5.6", FileState.KEPT),
    own=("1.5.6",),
    made=frozenset({"1.5.5"}),
    quarantined=frozenset({"1.5.4"}),
)


@pytest.mark.parametrize(
    ("again", "wanted"),
    [(False, ["1.5.3", "1.5.7"]), (True, ["1.5.2", "1.5.3", "1.5.4", "1.5.7"])],
)
def test_what_is_here_or_was_is_skipped(again: bool, wanted: list[str]) -> None:
    objects = [found("1.5", number) for number in range(1, 8)]
    objects.append(found("1.5", 8, str(CTImageStorage)))
    asked = Asked([FoundSeries(series_instance_uid="1.5", modality="US")], {"1.5": objects})

    plan = make_plan(asked, FoundStudy(study_instance_uid=STUDY), KNOWN, again=again)

    assert [one.sop_instance_uid for one in plan.objects] == wanted
    assert plan.report.wanted == len(wanted)
    assert (plan.report.own, plan.report.other) == (2, 1)
    assert plan.report.here == 5 - len(wanted)
    assert plan.sop_classes == (US,)


def test_series_of_ours_and_of_other_modalities_are_not_even_looked_into() -> None:
    series = [
        FoundSeries(series_instance_uid="1.1", modality="US"),
        FoundSeries(series_instance_uid="1.2", modality="SR"),
        FoundSeries(series_instance_uid="1.3", modality="US", manufacturer="echonode"),
        FoundSeries(
            series_instance_uid="1.4",
            modality="US",
            number=902,
            description="AI saliency (RESEARCH)",
        ),
        FoundSeries(series_instance_uid="1.6", modality="US"),
    ]
    asked = Asked(series, {"1.1": [found("1.1", 1)]})

    plan = make_plan(
        asked,
        FoundStudy(study_instance_uid=STUDY),
        held(made_series=frozenset({"1.6"})),
        modalities=("US",),
    )

    assert asked.listed == ["1.1"]
    assert [one.sop_instance_uid for one in plan.objects] == ["1.1.1"]


@pytest.mark.parametrize(
    ("count", "again", "wanted"),
    [(2, False, False), (3, False, True), (None, False, True), (2, True, True)],
)
def test_where_no_instances_are_listed_the_count_decides(
    count: int | None, again: bool, wanted: bool
) -> None:
    here = held(("1.5.1", FileState.KEPT), ("1.5.2", FileState.REMOVED))
    series = [FoundSeries(series_instance_uid="1.5", instances=count)]
    study = FoundStudy(study_instance_uid=STUDY, instances=count)

    by_series = make_plan(Asked(series, None), study, here, again=again)
    by_study = make_plan(Asked(None, None), study, here, again=again)

    assert by_series.series == (("1.5",) if wanted else ())
    assert by_study.whole is wanted
    expected = Outcome.WOULD_TAKE if wanted else Outcome.COMPLETE
    assert (by_series.report.outcome, by_study.report.outcome) == (expected, expected)


def test_requests_are_pieces_of_one_series() -> None:
    objects = {"1.5": [found("1.5", n) for n in range(5)], "1.6": [found("1.6", 1)]}
    series = [FoundSeries(series_instance_uid=uid) for uid in objects]

    plan = make_plan(Asked(series, objects), FoundStudy(study_instance_uid=STUDY), held())

    assert [(one.series_instance_uid, len(one.objects)) for one in plan.requests(2)] == [
        ("1.5", 2), ("1.5", 2), ("1.5", 1), ("1.6", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("classes", [(), (US,), tuple(map(str, STORAGE_CLASSES))])
def test_contexts_fit_into_an_association(classes: tuple[str, ...]) -> None:
    contexts = storage_contexts(classes)

    assert len(contexts) <= MOST_CONTEXTS - 2
    assert {one.abstract_syntax for one in contexts} == set(classes or STORAGE_CLASSES)
    for uid in set(ULTRASOUND_CLASSES) & {one.abstract_syntax for one in contexts}:
        # Each compressed syntax by itself: an archive chooses one of a context.
        of_class = [one.transfer_syntax for one in contexts if one.abstract_syntax == uid]
        assert sum(len(syntaxes) == 1 for syntaxes in of_class) >= (11 if classes == (US,) else 8)


class SlowLine:
    """An association on which an object comes in pieces; a wait brings the next one."""

    is_established = True

    class Dimse:
        """Gives a message when all its pieces have come."""

        def __init__(self, pieces: int) -> None:
            self.come, self.pieces = 0, pieces

        def get_msg(self, block: bool = False) -> tuple[int | None, str | None]:
            """One wait."""
            self.come += block
            return (1, "object") if self.come >= self.pieces else (None, None)

    def __init__(self, pieces: int) -> None:
        self.dimse = self.Dimse(pieces)


def test_an_object_on_a_slow_line_is_waited_for_while_it_comes() -> None:
    slow, dead, reactor = SlowLine(4), SlowLine(4), SlowLine(4)
    for line, progress in ((slow, lambda: slow.dimse.come), (dead, lambda: 7), (reactor, int)):
        _wait_while_it_comes(cast(Any, line), progress)

    assert slow.dimse.get_msg(block=True) == (1, "object")
    assert dead.dimse.get_msg(block=True) == (None, None)
    assert dead.dimse.come == 1
    assert reactor.dimse.get_msg(block=False) == (None, None)


# What holds it back.


class Empty:
    """An archive that has studies, and nothing in them."""

    name, way, batch = "empty", "get", 20
    peer = Peer(host="127.0.0.1")

    def __init__(self, *studies: str) -> None:
        self._studies = studies
        self.got = 0

    @contextmanager
    def asking(self) -> Iterator[Any]:
        yield self

    @contextmanager
    def getting(self, _classes: Any) -> Iterator[Any]:
        yield self

    def studies(self, question: Question) -> Answers[FoundStudy]:
        return studies_of([answer(StudyInstanceUID=uid) for uid in self._studies], question)

    def series(self, study: str) -> Answers[FoundSeries]:
        return Answers(found=(FoundSeries(series_instance_uid=f"{study}.5"),))

    def objects(self, _study: str, series: str) -> Answers[FoundObject]:
        return Answers(found=(found(series, 1),))

    def get(self, _request: Any) -> Any:
        self.got += 1
        raise KeyboardInterrupt  # far enough


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    with fetching_site(database, tmp_path) as opened:
        yield opened


def fetch_until_it_gets(site: Site, watch: Watch, node_runs: bool = True, **options: Any) -> Fetch:
    archive = Empty(STUDY)
    work = site.prepare(archive, watch, Rate(), **options.pop("terms", {}))
    work._node_runs = lambda: node_runs
    for name, value in options.items():
        setattr(work, f"_{name}", value)
    with pytest.raises(KeyboardInterrupt):
        work.run(Wish(studies=(STUDY,)))
    assert archive.got == 1
    return work


def test_it_waits_for_its_hours(site: Site) -> None:
    now = [datetime(2026, 1, 5, 19, 58, tzinfo=UTC)]
    watch = Watch()

    def sleep(pause_s: float) -> None:
        now[0] = datetime.fromtimestamp(now[0].timestamp() + pause_s, UTC)

    terms = {"hours": read_hours("20:00-06:00")}
    fetch_until_it_gets(site, watch, terms=terms, clock=lambda: now[0], sleep=sleep)

    assert watch.waited == [("until 20:00, when the hours begin", 120.0)]
    assert now[0].hour == 20


@pytest.mark.parametrize("node_runs", [True, False])
def test_it_waits_while_the_queue_is_long_and_somebody_works_it_off(
    site: Site, node_runs: bool
) -> None:
    for number in range(3):
        receive(site.database, clip(number + 1))
    watch = Watch()
    slept = []

    def sleep(pause_s: float) -> None:
        slept.append(pause_s)
        if len(slept) == 3:
            work_off(site.database)

    fetch_until_it_gets(site, watch, node_runs, terms={"queue_below": 3}, sleep=sleep)

    assert len(slept) == (3 if node_runs else 0)
    assert watch.waited == ([("clips wait here to be analysed: 3", None)] if node_runs else [])


def work_off(database: Database) -> None:
    from storage import catalog

    complete(database)
    with database.write() as session:
        claimed = catalog.claim_next(session, "worker")
        assert claimed is not None


def test_a_disk_that_refuses_is_waited_for_and_not_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(["the disk is nearly full"] * 4)
    disk = site.opened.disk
    monkeypatch.setattr(disk, "refusing", lambda: next(refusals, None))
    watch = Watch()
    fetch_until_it_gets(site, watch)
    assert watch.waited[0] == ("here the disk is nearly full", None)

    monkeypatch.setattr(disk, "refusing", lambda: "the disk is nearly full")
    archive = Empty(STUDY)
    with pytest.raises(Broken, match="the disk is nearly full"):
        site.fetch(archive, Wish(studies=(STUDY,)))
    assert archive.got == 0


def test_between_two_studies_there_is_a_pause_and_a_short_one_where_nothing_came(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fetch(Empty("1.2.3", "1.2.4"), Wish(), dry_run=True, pause_s=7)
    assert site.slept == [0.1]

    watch = Watch()
    work = site.prepare(Empty("1.2.3", "1.2.4"), watch, Rate(), pause_s=7)
    monkeypatch.setattr(work, "_take", lambda plan: take_nothing(work, plan))
    work.run(Wish())
    assert site.slept == [0.1, 7]
    assert [one.missing for one in watch.reports] == [1, 1]


def take_nothing(work: Fetch, plan: Plan) -> None:
    work._receiver.begin(plan.study.study_instance_uid, [])


def test_a_slow_pace_keeps_the_study_open(site: Site) -> None:
    receive(site.database, clip(1))
    uid = clip(1).study_instance_uid
    before = site.study(uid).last_image_at
    clock = Clock()
    work = site.prepare(Empty(), Watch(), Rate(objects=0.1))
    work._pace = Pace(Rate(objects=0.1), clock=clock, sleep=clock.sleep)
    work._pace.took(1)

    work._before_request(uid)

    assert len(clock.slept) >= 2
    assert site.study(uid).last_image_at > before


# The command line.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to fetch"),
        (["--study", "Geheim"], "is no UID"),
        (["--date", "yesterday"], "are no days"),
        (["--date", "2026-01-05..2026-01-01"], "ends before it begins"),
        (["--accession", "A*"], "given whole"),
        (["--study", "1.2", "--date", "2026-01-01"], "give one of the two"),
        (["--study", "1.2", "--modality", "us"], "is no modality"),
        (["--study", "1.2", "--rate", "fast"], "is no rate"),
        (["--study", "1.2", "--between", "night"], "are no hours"),
    ],
)
def test_a_wrong_wish_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text(f'data_dir = "{tmp_path}"\n')

    code = main(["--config", str(config), "fetch", "--from", "pacs", *arguments])

    assert code == ExitCode.USAGE
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--from", "nowhere"], ExitCode.NOT_FOUND, "name: old, pacs"),
        (["--from", "pacs", "--by", "move"], ExitCode.NOT_REACHABLE, "which does not run"),
        (["--from", "old", "--by", "get"], ExitCode.USAGE, "--by is for DIMSE"),
    ],
)
def test_an_archive_that_cannot_be_used_is_one_line(
    database: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: ExitCode,
    words: str,
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text(
        f'data_dir = "{tmp_path}"\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "pacs"\n'
        'port = 104\nae_title = "PACS"\n[[archives]]\nname = "old"\nkind = "dicomweb"\n'
        'url = "http://127.0.0.1:9/dicom-web"\n'
    )
    database.close()

    assert main(["--config", str(config), "fetch", "--study", "1.2", *more]) == code

    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.splitlines()) == 1


def test_two_fetches_at_once_are_no_gentle_one(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text(f'data_dir = "{tmp_path}"\n')
    database.close()
    command = ["--config", str(config), "fetch", "--from", "pacs", "--study", "1.2"]
    with (tmp_path / "fetch.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(command) == ExitCode.FAILED
        assert "another fetch runs here" in capsys.readouterr().err
        assert main([*command, "--dry-run"]) == ExitCode.NOT_FOUND  # of the archive
    assert main(command) == ExitCode.NOT_FOUND


def test_terms_are_gentle_by_themselves() -> None:
    assert Terms().pause_s > 0
    assert Terms().queue_below is not None
