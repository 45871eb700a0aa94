"""From received files to results in the outbox, with a stand-in for the models.

The executor is a thread pool and the models' answers are scripted; everything else is the real
thing: rows, files, reports, captures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.examples import get_path
from pydicom.uid import generate_uid

from models.clip import Mode
from models.explain.panels import EncodedPicture
from models.finding import Evidence, Finding, Kind, Method, PackRef
from models.views import View, ViewCall
from node.analysis import ClipAnalysis, ClipView, RecordingAnalysis
from node.dispatch import Dispatcher, DispatchSettings, Work
from node.executor import WorkerDied, WorkerStartFailed
from node.intake import Arrival, Intake
from node.lifecycle import Lifecycle
from node.reporting import Reporter
from node.results import ReportSettings
from node.results.store import new_result
from node.sections import Rule, StudySettings
from storage import catalog
from storage.database import Database, DatabaseError
from storage.files import FolderStore
from storage.states import RecordingState, ResultKind, StudyState
from tests.peers import wait_until
from tests.running_node import variant

PACK = PackRef(name="lv", version="1", weights_sha256="ab" * 32)


def a4c(score: float = 0.99, *, certain: bool = True, view: View = View.A4C) -> ClipView:
    return ClipView(
        view=ViewCall(view=view, score=score, certain=certain),
        refused=None,
        mode=Mode.TWO_D,
        frame_count=30,
    )


def picture(frames: int = 2) -> EncodedPicture:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), (90, 60, 30)).save(buffer, "JPEG", quality=90, subsampling=1)
    return EncodedPicture(
        jpeg_frames=(buffer.getvalue(),) * frames,
        rows=48,
        columns=64,
        frame_times_ms=tuple(33.3 * number for number in range(frames)),
        source_frames=tuple(range(frames)),
        title="SmoothGrad",
    )


def ef(value: float = 55.0, evidence: Evidence = Evidence.PATIENTS) -> Finding:
    return Finding(
        output="ef", kind=Kind.MEASUREMENT, value=value, unit="%", low=45.0, high=65.0,
        pack=PACK, evidence=evidence, method=Method.SINGLE_PLANE_DISCS, frames=(3, 12),
    )  # fmt: skip


def found(*findings: Finding) -> ClipAnalysis:
    return ClipAnalysis(findings=findings or (ef(),), picture=picture(), packs_run=(PACK,))


class House:
    """The parts of a node that move a study, without doors and without models."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        text_for: tuple[str, ...] = (),
        summary_page: bool = False,
        key_object_for: tuple[str, ...] = (),
        rules: tuple[Rule, ...] = (),
        packs: tuple[str, ...] = (),
        ecg_packs: tuple[str, ...] = (),
        destinations: tuple[str, ...] = ("pacs",),
    ) -> None:
        self.database = database
        self.folder = folder
        self.files = FolderStore(folder / "store")
        self.now = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
        self.rules = rules
        self.packs, self.ecg_packs = packs, ecg_packs
        self.intake = Intake(database, self.files, rules=rules, clock=lambda: self.now)
        settings = ReportSettings(device_serial="test")
        reporter = Reporter(
            self.files,
            settings,
            text_for=text_for,
            summary_page=summary_page,
            key_object_for=key_object_for,
            rules=rules,
            clock=lambda: self.now,
        )
        self.lifecycle = Lifecycle(
            database,
            StudySettings(),
            reporter,
            [*destinations, *text_for, *key_object_for],
            clock=lambda: self.now,
        )
        self.report_settings = settings

    def receive(self, study_uid: str, *, calling_ae: str = "", **attributes: str) -> None:
        source = variant(self.folder, study_uid=study_uid, **attributes)
        arriving = self.files.incoming_folder / source.name
        source.rename(arriving)
        receipt = self.intake.receive(Arrival(path=arriving, door="test", calling_ae=calling_ae))
        assert receipt.new, receipt

    def complete(self) -> None:
        self.now += timedelta(minutes=5)
        self.lifecycle.complete_quiet()

    def detail(self, study_uid: str) -> catalog.StudyDetail:
        with self.database.read() as session:
            return catalog.study_detail(session, study_uid)

    def state(self, study_uid: str) -> StudyState:
        return self.detail(study_uid).study.state

    def recordings(self, study_uid: str) -> list[RecordingState]:
        return [recording.state for recording in self.detail(study_uid).recordings]

    def run(
        self,
        study_uid: str,
        *,
        view: Callable[[str], ClipView],
        analyse: Callable[..., RecordingAnalysis],
        until: Callable[[], bool] | None = None,
        ahead: bool = False,
    ) -> None:
        """Let the dispatcher work until every recording of the study has an end."""
        ends = {
            RecordingState.DONE,
            RecordingState.SKIPPED,
            RecordingState.REFUSED,
            RecordingState.FAILED,
        }
        with ThreadPoolExecutor(1) as executor:
            dispatcher = Dispatcher(
                self.database,
                self.files,
                executor,
                DispatchSettings(
                    slots=1,
                    max_attempts=3,
                    allow_simulated_evidence=False,
                    rules=self.rules,
                    packs=self.packs,
                    ecg_packs=self.ecg_packs,
                    ahead=ahead,
                ),
                self.report_settings,
                work=Work(name_view=view, analyse=analyse),
            )
            dispatcher.start()
            try:
                wait_until(
                    until or (lambda: set(self.recordings(study_uid)) <= ends),
                    what="every recording has an end",
                    timeout_s=20,
                )
            finally:
                dispatcher.stop()


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


def never(*_arguments: object, **_options: object) -> ClipAnalysis:
    raise AssertionError("this clip was not to be analysed")


def test_an_a4c_clip_becomes_a_report_that_points_at_its_cine(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    assert house.state(uid) is StudyState.RECEIVING

    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert detail.study.state is StudyState.DELIVERING
    kinds = {result.kind: result for result in detail.results}
    report = dcmread(house.files.path(kinds[ResultKind.SR].file_key))
    cine = kinds[ResultKind.SC]
    assert cine.sop_instance_uid in report.to_json()
    assert [item.destination for item in detail.deliveries] == ["pacs", "pacs"]
    assert [finding.value for finding in detail.recordings[0].findings] == [55.0]


def test_clips_are_read_while_their_study_still_arrives_and_reported_once_it_is_complete(
    house: House,
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found(), ahead=True)
    assert house.recordings(uid) == [RecordingState.DONE]
    assert house.state(uid) is StudyState.RECEIVING
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.RECEIVING, "more of it may come"

    house.receive(uid)
    house.complete()
    assert house.recordings(uid) == [RecordingState.DONE, RecordingState.TO_VIEW]
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert detail.study.revision == 1
    kinds = [result.kind for result in detail.results]
    assert kinds.count(ResultKind.SR) == 1
    assert kinds.count(ResultKind.SC) == 2, "a cine each"


def test_nothing_is_read_ahead_of_what_waits_or_of_a_held_study(house: House) -> None:
    complete, arriving, held = generate_uid(), generate_uid(), generate_uid()
    house.receive(held)
    with house.database.write() as session:
        catalog.hold(session, held, "")
    house.receive(complete)
    house.complete()
    house.receive(arriving)
    seen: list[str] = []

    def view(path: str) -> ClipView:
        seen.append(str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID))
        return a4c()

    house.run(arriving, view=view, analyse=lambda _path, **_options: found(), ahead=True)

    assert seen == [complete, arriving]
    assert house.recordings(held) == [RecordingState.RECEIVED]


def test_results_that_come_back_by_routing_are_kept_and_start_nothing(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    before = house.detail(uid)

    for result in before.results:
        arriving = house.files.incoming_folder / f"back-{result.id}"
        shutil.copyfile(house.files.path(result.file_key), arriving)
        assert house.intake.receive(Arrival(path=arriving, door="test")).new

    after = house.detail(uid)
    assert after.recordings == before.recordings
    assert (after.study.state, after.study.revision) == (before.study.state, 1)
    with house.database.read() as session:
        kept = catalog.find_instance(session, before.results[0].sop_instance_uid)
    assert kept is not None
    assert kept.own


def test_two_machines_that_bring_other_content_under_one_uid_at_once_are_both_told_apart(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = variant(house.folder)
    second = dcmread(first)
    second.PatientComments = "changed"
    arrivals = []
    for number, dataset in enumerate((dcmread(first), second)):
        path = house.files.incoming_folder / f"arriving-{number}"
        dataset.save_as(path, enforce_file_format=True)
        arrivals.append(Arrival(path=path, door="test", calling_ae=f"CART{number}"))
    house.intake.receive(arrivals[0])
    monkeypatch.setattr(catalog, "is_known", lambda *_: False)  # not yet there
    receipt = house.intake.receive(arrivals[1])

    with house.database.read() as session:
        (quarantined,) = catalog.list_quarantined(session)
    assert not receipt.new
    assert quarantined.calling_ae == "CART1"
    assert len(list((house.files.root / "objects").rglob("*.dcm"))) == 1


def test_what_has_only_seen_the_simulator_is_kept_but_not_reported(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    lead = replace(
        ef(), output="lead", kind=Kind.SCORE, unit="{score}", value=None, low=None, high=None,
        score=0.93, threshold=0.5, evidence=Evidence.SIMULATED, method=Method.CLASSIFICATION,
    )  # fmt: skip
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found(ef(), lead))
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    report = next(item for item in detail.results if item.kind is ResultKind.SR)
    text = dcmread(house.files.path(report.file_key)).to_json()
    assert {finding.output for finding in detail.recordings[0].findings} == {"ef", "lead"}
    assert "jection" in text
    assert "acemaker" not in text


def test_a_study_without_an_a4c_clip_is_ignored_with_the_views_it_had(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(view=View.PSLA), analyse=never)
    house.lifecycle.report_ready()

    study = house.detail(uid).study
    assert study.state is StudyState.IGNORED
    assert "1 x psla" in study.reason


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (a4c(certain=False), "uncertain"),
        (replace(a4c(), mode=Mode.COLOUR), "colour"),
        (replace(a4c(), frame_count=1), "a still"),
        (a4c(view=View.PW), "pw"),
    ],
)
def test_a_clip_that_no_model_should_read_says_why(
    house: House, outcome: ClipView, word: str
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: outcome, analyse=never)

    (recording,) = house.detail(uid).recordings
    assert recording.state is RecordingState.SKIPPED
    assert word in recording.reason


def test_a_clip_whose_worker_dies_is_tried_three_times_then_failed_with_the_reason(
    house: House,
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    tries = []

    def dies(_path: str, **_options: object) -> ClipAnalysis:
        tries.append(1)
        raise WorkerDied("the worker process was killed by SIGKILL")

    house.run(uid, view=lambda _path: a4c(), analyse=dies)
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert len(tries) == 3
    assert detail.recordings[0].state is RecordingState.FAILED
    assert "SIGKILL" in detail.recordings[0].reason
    assert detail.study.state is StudyState.FAILED
    assert "retry" in detail.study.next_step


def test_a_clip_that_fails_does_not_take_its_study_with_it(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.receive(uid)
    house.complete()
    first = house.detail(uid).recordings[0].file_key

    def one_fails(path: str, **_options: object) -> ClipAnalysis:
        if path.endswith(first):
            raise ValueError("this clip is poison")
        return found()

    house.run(uid, view=lambda _path: a4c(), analyse=one_fails)
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    states = sorted(recording.state for recording in detail.recordings)
    assert states == [RecordingState.DONE, RecordingState.FAILED]
    assert detail.study.state is StudyState.DELIVERING


def test_workers_that_do_not_start_cost_the_clip_no_attempt(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    called = []

    def cannot_start(_path: str) -> ClipView:
        called.append(1)
        raise WorkerStartFailed("no packs")

    house.run(uid, view=cannot_start, analyse=never, until=lambda: bool(called))

    (recording,) = house.detail(uid).recordings
    assert (recording.state, recording.attempts) == (RecordingState.TO_VIEW, 0)
    assert recording.reason == "no packs"


def test_an_outcome_that_the_database_does_not_take_now_is_written_down_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    whole = catalog.record_analysis
    refused = []

    def locked_at_first(*arguments: object, **options: object) -> None:
        if not refused:
            refused.append(1)
            raise DatabaseError("the database is locked")
        whole(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "record_analysis", locked_at_first)
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())

    (recording,) = house.detail(uid).recordings
    assert refused
    assert (recording.state, recording.attempts) == (RecordingState.DONE, 1)


def test_a_late_image_opens_a_revision_whose_report_names_the_first(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    (first,) = [item for item in house.detail(uid).results if item.kind is ResultKind.SR]

    house.receive(uid)
    assert house.detail(uid).study.revision == 2
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found(ef(48.0)))
    house.lifecycle.report_ready()

    reports = [item for item in house.detail(uid).results if item.kind is ResultKind.SR]
    second = dcmread(house.files.path(reports[-1].file_key))
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert len(reports) == 2
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.sop_instance_uid
    assert second.SeriesInstanceUID == first.series_instance_uid


def test_an_ecg_in_the_study_is_told_of_with_the_reason_why_nobody_read_it(
    house: House,
) -> None:
    uid = generate_uid()
    house.receive(uid)
    ecg = dcmread(get_path("waveform"))
    ecg.StudyInstanceUID = uid
    arriving = house.files.incoming_folder / "ecg"
    ecg.save_as(arriving, enforce_file_format=True)
    assert house.intake.receive(Arrival(path=arriving, door="test")).new
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()

    (report,) = [item for item in house.detail(uid).results if item.kind is ResultKind.SR]
    said = dcmread(house.files.path(report.file_key)).to_json()
    assert "ECG, not analysed: no pack that is in use here reads 12-lead ECGs" in said


def test_a_destination_that_asks_for_it_gets_the_report_as_text_too_and_its_revisions(
    database: Database, tmp_path: Path
) -> None:
    house = House(database, tmp_path, text_for=("ward",))
    uid = generate_uid()
    for value in (55.0, 48.0):
        house.receive(uid)
        house.complete()
        answer = found(ef(value))
        house.run(
            uid,
            view=lambda _path: a4c(),
            analyse=lambda _path, *, answer=answer, **_options: answer,  # type: ignore[misc]
        )
        house.lifecycle.report_ready()

    detail = house.detail(uid)
    texts = [item for item in detail.results if item.kind is ResultKind.TEXT]
    first, second = (dcmread(house.files.path(item.file_key)) for item in texts)
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "ejection fraction 48.0 %" in second.to_json()
    sent = {(item.kind, item.destination) for item in detail.deliveries}
    assert (ResultKind.TEXT, "ward") in sent
    assert (ResultKind.TEXT, "pacs") not in sent
    assert {(ResultKind.SR, "pacs"), (ResultKind.SR, "ward")} <= sent


def test_what_an_archive_got_instead_is_neither_cine_nor_predecessor_of_a_next_report(
    house: House,
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    made = house.detail(uid).results
    (cine,) = [item.sop_instance_uid for item in made if item.recording_id is not None]
    (first,) = [item.sop_instance_uid for item in made if item.kind is ResultKind.SR]
    with house.database.write() as session:
        claimed = catalog.claim_due_deliveries(session, limit=9)
        assert len(claimed) == len(made)
        for due in claimed:
            other = replace(new_result(due.result), sop_instance_uid=generate_uid())
            catalog.send_instead(session, due.delivery_id, [other], "a test")

    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found(ef(48.0)))
    house.lifecycle.report_ready()

    newest = [item for item in house.detail(uid).results if item.kind is ResultKind.SR][-1]
    second = dcmread(house.files.path(newest.file_key))
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    (before,) = named.ReferencedSOPSequence
    assert before.ReferencedSOPInstanceUID == first
    assert cine in second.to_json()


def test_a_report_that_cannot_be_made_fails_its_study_and_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = generate_uid(), generate_uid()
    house.receive(bad)
    house.receive(good)
    house.complete()
    for uid in (bad, good):
        house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    whole = Reporter.report

    def breaks(self: Reporter, material):  # type: ignore[no-untyped-def]
        if material.study_instance_uid == bad:
            raise ArithmeticError("broken")
        return whole(self, material)

    monkeypatch.setattr(Reporter, "report", breaks)
    house.lifecycle.report_ready()

    assert house.state(bad) is StudyState.FAILED
    assert "ArithmeticError" in house.detail(bad).study.reason
    assert house.state(good) is StudyState.DELIVERING


def test_a_late_image_during_the_report_drops_it_for_the_next_revision(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    whole = Reporter.report

    def with_interruption(self: Reporter, material):  # type: ignore[no-untyped-def]
        house.receive(uid)
        return whole(self, material)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "report", with_interruption)
        house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert (detail.study.state, detail.study.revision) == (StudyState.RECEIVING, 2)
    assert [result for result in detail.results if result.kind is ResultKind.SR] == []


def test_a_stop_between_analysis_and_report_leaves_the_cine_made_and_the_study_reportable(
    house: House,
) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    with house.database.write() as session:
        (study,) = catalog.studies_to_report(session)
        catalog.begin_reporting(session, study.study_id)  # and here the power fails

    again = House(house.database, house.folder)
    again.now = house.now
    again.lifecycle.report_ready()

    assert again.state(uid) is StudyState.DELIVERING
    assert {result.kind for result in again.detail(uid).results} == {ResultKind.SR, ResultKind.SC}
