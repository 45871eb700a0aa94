"""The way of an ECG beside that of clips, with a stand-in for the models.

What they would say is scripted; rows, files, rules, reports and pictures are the real thing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, generate_uid

from models.finding import Evidence, Finding, Kind, Method, PackRef
from models.packs import Signal
from node.analysis import ClipAnalysis, EcgAnalysis, EcgRead
from node.executor import WorkerDied
from node.intake import Arrival
from node.sections import Rule
from storage.catalog import RecordingKind, ResultRecord
from storage.database import Database
from storage.states import RecordingState, ResultKind, StudyState
from tests.ecg_packs import real_ecg
from tests.integration.test_life_of_a_study import House, a4c, found, picture

PACK = PackRef(name="ecg-rhythm", version="1", weights_sha256="cd" * 32)
AF = Finding(
    output="atrial_fibrillation", kind=Kind.SCORE, value=0.91, unit="{score}", score=0.91,
    threshold=0.4, pack=PACK, evidence=Evidence.PATIENTS, method=Method.CLASSIFICATION,
    spans_ms=((1200.0, 1350.0),),
)  # fmt: skip
READ = EcgRead(
    pack=PACK, signal=Signal.RHYTHM, group=1, channels=tuple(range(1, 13)), begin_ms=0.0,
    end_ms=10_000.0,
)  # fmt: skip
SAID = EcgAnalysis(
    findings=(AF,),
    picture=picture(1),
    packs_run=(PACK,),
    troubles=("V6: no signal",),
    reads=(READ,),
    pages=("atrial_fibrillation",),
)


def analyse(_path: str, *, kind: RecordingKind, **_options: object) -> ClipAnalysis | EcgAnalysis:
    """The same of every clip, and the same of every ECG."""
    return SAID if kind is RecordingKind.ECG else found()


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path, ecg_packs=("ecg-rhythm",))


def receive_ecg(house: House, uid: str, **attributes: Any) -> None:
    number = generate_uid()
    ecg = real_ecg(StudyInstanceUID=uid, SOPInstanceUID=number, **attributes)
    ecg.SeriesInstanceUID = generate_uid()
    arriving = house.files.incoming_folder / f"ecg-{number}"
    ecg.save_as(arriving, enforce_file_format=True)
    assert house.intake.receive(Arrival(path=arriving, door="test", calling_ae="CART")).new


def run(house: House, uid: str, **options: Any) -> None:
    house.complete()
    house.run(uid, view=lambda _path: a4c(), **{"analyse": analyse, **options})
    house.lifecycle.report_ready()


def reports(house: House, uid: str, subject: RecordingKind) -> list[ResultRecord]:
    return [
        result
        for result in house.detail(uid).results
        if result.kind is ResultKind.SR and result.subject is subject
    ]


def opened(house: House, result: ResultRecord) -> Dataset:
    return dcmread(house.files.path(result.file_key))


def words(house: House, result: ResultRecord) -> str:
    return json.dumps(opened(house, result).to_json_dict())


def test_an_ecg_by_itself_becomes_a_report_and_a_picture_for_the_archive(house: House) -> None:
    uid = generate_uid()
    receive_ecg(house, uid)
    run(house, uid)

    detail = house.detail(uid)
    assert detail.study.state is StudyState.DELIVERING
    (recording,) = detail.recordings
    assert recording.state is RecordingState.DONE
    assert recording.troubles == ("V6: no signal",)
    assert recording.findings[0].spans_ms == ((1200.0, 1350.0),)
    assert recording.readings[0].channels == tuple(range(1, 13))
    assert [(one.kind, one.subject) for one in detail.results] == [
        (ResultKind.SC, RecordingKind.ECG),
        (ResultKind.SR, RecordingKind.ECG),
    ]
    report = opened(house, detail.results[1])
    assert report.SOPClassUID == Comprehensive3DSRStorage
    told = words(house, detail.results[1])
    assert "12-Lead ECG" in told
    assert "atrial fibrillation" in told
    assert "V6: no signal" in told
    assert detail.results[0].sop_instance_uid in told
    assert {item.destination for item in detail.deliveries} == {"pacs"}
    kinds = [event.kind for event in detail.timeline]
    assert "view-named" not in kinds
    assert "recording-done" in kinds


def test_an_ecg_in_an_echo_study_leaves_the_echos_report_as_it_was(house: House) -> None:
    alone, together = generate_uid(), generate_uid()
    told = []
    for uid in (alone, together):
        house.receive(uid)
        if uid == together:
            receive_ecg(house, uid)
        run(house, uid)
        (report,) = reports(house, uid, RecordingKind.ULTRASOUND)
        told.append(plain(opened(house, report)))
    assert told[0] == told[1]
    assert not reports(house, alone, RecordingKind.ECG)
    (of_ecg,) = reports(house, together, RecordingKind.ECG)
    assert of_ecg.series_instance_uid != report.series_instance_uid
    assert "Ejection" not in words(house, of_ecg)
    assert "atrial fibrillation" not in words(house, report)


def plain(report: Dataset) -> list[str]:
    """What a report says, without what names its own study and objects."""
    return [
        f"{element.tag} {element.value}"
        for element in report.iterall()
        if element.VR not in ("UI", "SQ", "TM", "DT", "DA")
    ]


def test_a_late_ecg_leaves_the_echos_report_and_a_late_clip_that_of_the_ecg(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    run(house, uid)
    receive_ecg(house, uid)
    run(house, uid)
    (echo,) = reports(house, uid, RecordingKind.ULTRASOUND)
    (ecg,) = reports(house, uid, RecordingKind.ECG)
    assert (echo.revision, ecg.revision) == (1, 2)
    assert echo.current
    sent = [item for item in house.detail(uid).deliveries if item.result_id == echo.id]
    assert len(sent) == 1

    house.receive(uid)
    run(house, uid)
    assert [one.revision for one in reports(house, uid, RecordingKind.ULTRASOUND)] == [1, 3]
    assert [one.revision for one in reports(house, uid, RecordingKind.ECG)] == [2]
    assert all(one.current for one in reports(house, uid, RecordingKind.ECG))
    new = opened(house, reports(house, uid, RecordingKind.ULTRASOUND)[1])
    named = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == echo.sop_instance_uid


def test_another_ecg_makes_the_next_report_of_ecgs_which_names_the_first(house: House) -> None:
    uid = generate_uid()
    for _ in range(2):
        receive_ecg(house, uid)
        run(house, uid)
    first, second = reports(house, uid, RecordingKind.ECG)
    named = opened(house, second).PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.sop_instance_uid
    assert second.series_instance_uid == first.series_instance_uid


def test_an_ecg_that_cannot_be_read_is_refused_and_the_echo_is_reported(house: House) -> None:
    uid = generate_uid()
    house.receive(uid)
    receive_ecg(house, uid)

    def says(_path: str, *, kind: RecordingKind, **_options: object) -> Any:
        refused = EcgAnalysis(refused="every lead is flat; look at the electrodes")
        return refused if kind is RecordingKind.ECG else found()

    run(house, uid, analyse=says)
    assert sorted(house.recordings(uid)) == [RecordingState.DONE, RecordingState.REFUSED]
    assert not reports(house, uid, RecordingKind.ECG)
    (report,) = reports(house, uid, RecordingKind.ULTRASOUND)
    said = "ECG, not analysed: every lead is flat; look at the electrodes."
    assert said in words(house, report)


def test_a_study_of_ecgs_that_cannot_be_read_says_so(house: House) -> None:
    uid = generate_uid()
    receive_ecg(house, uid)
    run(house, uid, analyse=lambda _path, **_options: EcgAnalysis(refused="it is flat"))
    study = house.detail(uid).study
    assert study.state is StudyState.IGNORED
    assert study.reason == "no ECG that a model can read: 1 x it is flat"


def test_a_worker_that_dies_of_an_ecg_is_tried_again_and_then_it_fails(house: House) -> None:
    uid = generate_uid()
    receive_ecg(house, uid)
    tries = []

    def dies(_path: str, **_options: object) -> EcgAnalysis:
        tries.append(1)
        raise WorkerDied("the worker process died by SIGSEGV")

    run(house, uid, analyse=dies)
    study = house.detail(uid).study
    assert len(tries) == 3
    assert study.state is StudyState.FAILED
    assert study.reason == "1 of 1 ECGs failed: the worker process died by SIGSEGV"


def test_ecgs_read_ahead_are_done_before_their_study_is_complete(house: House) -> None:
    uid = generate_uid()
    receive_ecg(house, uid)
    house.run(uid, view=lambda _path: a4c(), analyse=analyse, ahead=True)
    assert house.state(uid) is StudyState.RECEIVING
    assert house.recordings(uid) == [RecordingState.DONE]
    house.complete()
    house.lifecycle.report_ready()
    assert len(reports(house, uid, RecordingKind.ECG)) == 1


def rule(**keys: Any) -> Rule:
    return Rule.model_validate({"name": "a rule", **keys})


@pytest.mark.parametrize(
    ("keys", "skipped"),
    [
        ({"modality": "ECG", "analyse": False}, "rule 'a rule': not analysed"),
        ({"calling_ae": "CART", "analyse": False}, "rule 'a rule': not analysed"),
        (
            {"packs": ["lv"]},
            "rule 'a rule': not analysed, since lv is no pack in use here that reads ECGs",
        ),
        ({"view": ["psla"], "analyse": False}, None),
        ({"modality": "US", "analyse": False}, None),
        ({"packs": ["ecg-rhythm"]}, None),
    ],
)
def test_rules_hold_for_ecgs_but_for_those_that_ask_for_a_view(
    database: Database, tmp_path: Path, keys: dict[str, Any], skipped: str | None
) -> None:
    house = House(
        database, tmp_path, ecg_packs=("ecg-rhythm",), packs=("lv",), rules=(rule(**keys),)
    )
    uid = generate_uid()
    receive_ecg(house, uid)
    run(house, uid)
    (recording,) = house.detail(uid).recordings
    if skipped is None:
        assert recording.state is RecordingState.DONE
    else:
        assert (recording.state, recording.reason) == (RecordingState.SKIPPED, skipped)
        assert f"{skipped}: 1 of 1 ECGs" in house.detail(uid).study.reason


def test_rules_send_the_ecgs_report_elsewhere_than_the_echos(
    database: Database, tmp_path: Path
) -> None:
    rules = (rule(modality="ECG", destinations=["muse"]),)
    house = House(
        database, tmp_path, ecg_packs=("ecg-rhythm",), rules=rules, destinations=("pacs", "muse")
    )
    uid = generate_uid()
    house.receive(uid)
    receive_ecg(house, uid)
    run(house, uid)
    detail = house.detail(uid)
    subjects = {result.id: result.subject for result in detail.results}
    went = {(subjects[item.result_id], item.destination) for item in detail.deliveries}
    assert went == {
        (RecordingKind.ECG, "muse"),
        (RecordingKind.ULTRASOUND, "pacs"),
        (RecordingKind.ULTRASOUND, "muse"),
    }


def test_who_wants_text_and_key_images_gets_them_of_ecgs_too(
    database: Database, tmp_path: Path
) -> None:
    house = House(
        database,
        tmp_path,
        ecg_packs=("ecg-rhythm",),
        text_for=("ward",),
        key_object_for=("viewer",),
    )
    uid = generate_uid()
    receive_ecg(house, uid)
    run(house, uid)
    detail = house.detail(uid)
    sent = {(item.kind, item.destination) for item in detail.deliveries}
    assert {(ResultKind.TEXT, "ward"), (ResultKind.KEY, "viewer")} <= sent
    assert (ResultKind.TEXT, "pacs") not in sent
    assert {result.subject for result in detail.results} == {RecordingKind.ECG}
