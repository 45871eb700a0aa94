"""What goes to an archive that does not take a result's class says the same in another form."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from node.results import (
    EncodedObject,
    ObjectRef,
    ResultError,
    build_key_object,
    check_object,
)
from node.results.alternatives import form_for, has_other_forms
from tests.results_examples import (
    CREATED_AT,
    SETTINGS,
    read,
    study_capture,
    study_clips,
    study_report,
)

MULTI_FRAME = MultiFrameTrueColorSecondaryCaptureImageStorage


def _referred(report: Dataset) -> set[str]:
    """Every object that the document's tree refers to."""
    found = {
        str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence") or ()
    }
    for child in report.get("ContentSequence") or ():
        found |= _referred(child)
    return found


def _listed(report: Dataset, keyword: str) -> dict[str, str]:
    return {
        str(item.ReferencedSOPInstanceUID): str(item.ReferencedSOPClassUID)
        for study in report.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


@pytest.fixture(scope="module")
def report() -> EncodedObject:
    return study_report()


@pytest.fixture(scope="module")
def frames() -> tuple[EncodedObject, ...]:
    made = form_for(study_capture().data, {MULTI_FRAME})
    assert made is not None
    return made


def test_a_report_in_the_older_class_is_what_would_have_been_made_in_it(
    report: EncodedObject,
) -> None:
    made = form_for(report.data, {Comprehensive3DSRStorage})
    assert made is not None
    (older,) = made
    built = study_report(settings=replace(SETTINGS, sop_class_uid=ComprehensiveSRStorage))
    assert older.data == built.data
    assert older.ref.sop_instance_uid != report.ref.sop_instance_uid
    assert older.ref.series_instance_uid == report.ref.series_instance_uid


def test_what_an_archive_takes_goes_as_it_is(report: EncodedObject) -> None:
    assert form_for(report.data, ()) == ()
    assert form_for(report.data, {MULTI_FRAME}) == ()
    assert form_for(study_capture().data, {Comprehensive3DSRStorage}) == ()


def test_an_archive_that_takes_no_form_is_told_apart(report: EncodedObject) -> None:
    assert form_for(report.data, {Comprehensive3DSRStorage, ComprehensiveSRStorage}) is None
    captures = {MULTI_FRAME, SecondaryCaptureImageStorage}
    assert form_for(study_capture().data, captures) is None
    assert form_for(form_for(study_capture().data, {MULTI_FRAME})[0].data, captures) is None  # type: ignore[index]


def test_a_cine_becomes_single_frames_that_pass_the_gate(
    frames: tuple[EncodedObject, ...],
) -> None:
    assert frames
    for frame in frames:
        assert frame.ref.sop_class_uid == SecondaryCaptureImageStorage
        assert check_object(frame) == ()
    again = form_for(study_capture().data, {MULTI_FRAME})
    assert again is not None
    assert [frame.data for frame in again] == [frame.data for frame in frames]


@pytest.mark.parametrize("refused", [set(), {Comprehensive3DSRStorage}], ids=["3D SR", "SR"])
def test_a_report_points_at_the_pictures_that_its_archive_has(
    report: EncodedObject, frames: tuple[EncodedObject, ...], refused: set[str]
) -> None:
    cine = study_capture().ref.sop_instance_uid
    # Two objects for one, whatever the cine of the example gives.
    here = [frames[0].ref, replace(frames[0].ref, sop_instance_uid="2.25.7")]
    made = form_for(report.data, refused, {cine: here})
    assert made is not None
    (pointing,) = made
    assert check_object(pointing) == ()
    dataset = read(pointing)
    assert cine in _referred(read(report))
    assert _referred(dataset) == _referred(read(report)) - {cine} | {
        ref.sop_instance_uid for ref in here
    }
    listed = _listed(dataset, "CurrentRequestedProcedureEvidenceSequence")
    assert listed.keys() == _referred(dataset)
    assert listed["2.25.7"] == SecondaryCaptureImageStorage
    assert pointing.ref.sop_instance_uid != report.ref.sop_instance_uid
    for ref in here:  # and another archive, which has other pictures, gets another object
        other = form_for(report.data, refused, {cine: [ref]})
        assert other is not None
        assert other[0].ref.sop_instance_uid != pointing.ref.sop_instance_uid


def test_a_key_object_points_at_the_pictures_that_its_archive_has(
    frames: tuple[EncodedObject, ...],
) -> None:
    cine = study_capture().ref.sop_instance_uid
    key = build_key_object(study_clips(), [], revision=1, settings=SETTINGS, created_at=CREATED_AT)
    made = form_for(key.data, {MULTI_FRAME}, {cine: [frames[0].ref]})
    assert made is not None
    (pointing,) = made
    assert check_object(pointing) == ()
    assert cine in _referred(read(key))
    assert cine not in _referred(read(pointing))
    assert frames[0].ref.sop_instance_uid in _referred(read(pointing))


def test_a_revision_names_the_predecessor_that_its_archive_has(report: EncodedObject) -> None:
    second = study_report(revision=2, predecessor=report.ref)
    (first_there,) = form_for(report.data, {Comprehensive3DSRStorage}) or ()
    made = form_for(
        second.data,
        {Comprehensive3DSRStorage},
        {report.ref.sop_instance_uid: [first_there.ref]},
    )
    assert made is not None
    (second_there,) = made
    assert check_object(second_there) == ()
    dataset = read(second_there)
    assert _listed(dataset, "PredecessorDocumentsSequence") == {
        first_there.ref.sop_instance_uid: ComprehensiveSRStorage
    }
    assert dataset.InstanceNumber == 2
    assert second_there.ref.series_instance_uid == report.ref.series_instance_uid


def test_the_classes_that_have_other_forms_are_these() -> None:
    assert has_other_forms(Comprehensive3DSRStorage)
    assert has_other_forms(BasicTextSRStorage)
    assert has_other_forms(MULTI_FRAME)
    assert not has_other_forms(ComprehensiveSRStorage)


def test_bytes_that_are_no_result_are_refused() -> None:
    with pytest.raises(ResultError, match="cannot be read back"):
        form_for(b"no DICOM", {MULTI_FRAME}, {"1.2": [_ref()]})


def _ref() -> ObjectRef:
    return ObjectRef(
        sop_class_uid="1.2", sop_instance_uid="1.2.3", series_instance_uid="1.2.4",
        study_instance_uid="1.2.5",
    )  # fmt: skip
