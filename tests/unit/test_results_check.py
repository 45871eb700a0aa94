"""The gate lets whole results through and stops each listed fault."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, KeyObjectSelectionDocumentStorage

from node.results import EncodedObject, check_object
from node.results.capture import single_frames
from node.results.text_report import build_text_report
from tests.ecg_results_examples import ecg_capture_of, ecg_header, ecg_report
from tests.results_examples import (
    CREATED_AT,
    PERSON,
    SETTINGS,
    person_findings,
    put_bytes,
    read,
    rewritten,
    study_capture,
    study_clips,
    study_report,
)
from tests.results_faults import (
    CAPTURE_DAMAGES,
    ECG_CAPTURE_DAMAGES,
    ECG_REPORT_DAMAGES,
    REPORT_DAMAGES,
    Damage,
)


@pytest.fixture(scope="module")
def report() -> EncodedObject:
    return study_report()


@pytest.fixture(scope="module")
def capture() -> EncodedObject:
    return study_capture()


def _rules_broken(made: EncodedObject, damage: Damage) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the values put in wrong on purpose
        return {fault.rule for fault in check_object(rewritten(made, damage.do))}


def test_a_report_passes(report: EncodedObject) -> None:
    assert check_object(report) == ()


def test_a_capture_passes(capture: EncodedObject) -> None:
    assert check_object(capture) == ()


@pytest.mark.parametrize("damage", REPORT_DAMAGES, ids=lambda damage: damage.name)
def test_a_fault_in_a_report_is_noticed(report: EncodedObject, damage: Damage) -> None:
    assert damage.rule in _rules_broken(report, damage)


@pytest.mark.parametrize("damage", CAPTURE_DAMAGES, ids=lambda damage: damage.name)
def test_a_fault_in_a_capture_is_noticed(capture: EncodedObject, damage: Damage) -> None:
    assert damage.rule in _rules_broken(capture, damage)


@pytest.mark.parametrize("damage", ECG_REPORT_DAMAGES, ids=lambda damage: damage.name)
def test_a_fault_in_the_report_of_an_ecg_is_noticed(damage: Damage) -> None:
    assert damage.rule in _rules_broken(ecg_report(), damage)


@pytest.mark.parametrize("damage", ECG_CAPTURE_DAMAGES, ids=lambda damage: damage.name)
def test_a_fault_in_the_picture_of_an_ecg_is_noticed(damage: Damage) -> None:
    assert damage.rule in _rules_broken(ecg_capture_of(ecg_header(1)), damage)


def test_bytes_that_are_no_object_are_a_fault_and_not_an_error(report: EncodedObject) -> None:
    assert [fault.rule for fault in check_object(b"not DICOM")] == ["readable"]
    assert check_object(report.data[: len(report.data) // 2])


def test_an_object_of_another_class_is_none_of_ours(report: EncodedObject) -> None:
    def as_ultrasound(dataset: Dataset) -> None:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"

    assert "class" in {fault.rule for fault in check_object(rewritten(report, as_ultrasound))}


def test_a_reference_that_is_not_the_objects_is_a_fault(
    report: EncodedObject, capture: EncodedObject
) -> None:
    mixed = EncodedObject(
        ref=capture.ref, transfer_syntax_uid=report.transfer_syntax_uid, data=report.data
    )
    assert {fault.rule for fault in check_object(mixed)} == {"reference"}


def test_what_came_from_the_source_is_never_held_against_a_result() -> None:
    clip = study_clips()[0]
    put_bytes(clip.header, "PatientID", b"x" * 70)
    put_bytes(clip.header, "StudyDate", b"3 May 2016")
    assert check_object(study_report([clip])) == ()


def test_a_fault_tells_where_it_is_and_what_is_wrong(report: EncodedObject) -> None:
    def no_modality(dataset: Dataset) -> None:
        del dataset.Modality

    faults = check_object(rewritten(report, no_modality))
    assert str(faults[0]) == "Modality: missing or empty [required]"


def test_estimates_of_the_person_pass_without_demographic_codes() -> None:
    clip = study_clips()[0]
    made = study_report(
        [replace(clip, findings=(*clip.findings, *person_findings()))],
        settings=replace(SETTINGS, demographic_estimates=PERSON),
    )
    assert check_object(made) == ()
    assert "PatientAge" not in read(made)


def test_a_report_for_people_passes_and_must_say_that_it_is_for_research() -> None:
    text = build_text_report(
        study_clips(), revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
    )

    def silent(dataset: Dataset) -> None:
        for chapter in dataset.ContentSequence:
            for item in chapter.get("ContentSequence") or ():
                item.TextValue = "A text"

    assert check_object(text) == ()
    assert {fault.rule for fault in check_object(rewritten(text, silent))} == {"research"}


def test_measurements_in_the_class_of_texts_are_a_fault(report: EncodedObject) -> None:
    def as_text(dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage

    assert {fault.rule for fault in check_object(rewritten(report, as_text))} == {"class"}


def test_single_frames_of_a_cine_pass(capture: EncodedObject) -> None:
    frames = single_frames(capture.data)
    assert frames
    assert [check_object(frame) for frame in frames] == [()] * len(frames)


def test_a_report_in_the_class_of_key_objects_is_a_fault(report: EncodedObject) -> None:
    def as_key_object(dataset: Dataset) -> None:
        dataset.SOPClassUID = KeyObjectSelectionDocumentStorage
        dataset.file_meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage

    assert {fault.rule for fault in check_object(rewritten(report, as_key_object))} == {
        "modality",
        "template",
    }
