"""Whether a value is the one that a search asks for."""

from __future__ import annotations

from typing import Any

import pytest

from node.web.dicomweb.matching import CriterionError, criterion, dates_of, matches

NAME = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Ideographic": "山田^花子"}]}}
MODEL: dict[str, Any] = {
    **NAME,
    "00100020": {"vr": "LO", "Value": ["a.b(c"]},
    "00080020": {"vr": "DA", "Value": ["20260102"]},
    "00080030": {"vr": "TM", "Value": ["101500.5"]},
    "0008002A": {"vr": "DT", "Value": ["20260102101500"]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00280010": {"vr": "US", "Value": [24]},
    "00201206": {"vr": "IS", "Value": [2]},
    "00080061": {"vr": "CS", "Value": ["US", "SR"]},
    "00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["S1"]}}]},
    "00080050": {"vr": "SH"},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", "Doe^Jane"),
        ("PatientName", "doe^jane"),
        ("PatientName", "DOE*"),
        ("PatientName", "*jane"),
        ("PatientName", "D?e^J*e"),
        ("PatientName", "Doe^Jane^^"),
        ("PatientName", "山田*"),
        ("PatientName", ""),
        ("PatientID", "a.b(c"),
        ("PatientID", "a.*"),
        ("StudyDate", "20260102"),
        ("StudyDate", "20260101-20260103"),
        ("StudyDate", "20260102-"),
        ("StudyDate", "-20260102"),
        ("StudyTime", "1015"),
        ("StudyTime", "10:15"),
        ("StudyTime", "10-11"),
        ("StudyTime", "0900-10"),
        ("AcquisitionDateTime", "20260102"),
        ("AcquisitionDateTime", "2026-2027"),
        ("StudyInstanceUID", "1.2.3"),
        ("StudyInstanceUID", "9.9,1.2.3"),
        ("StudyInstanceUID", "9.9\\1.2.3"),
        ("Rows", "24"),
        ("NumberOfStudyRelatedSeries", "2"),
        ("ModalitiesInStudy", "SR"),
        ("ModalitiesInStudy", "CT\\US"),
        ("00400275.00400009", "S1"),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "S*"),
        ("AccessionNumber", ""),
    ],
)
def test_what_is_asked_for_is_found(name: str, value: str) -> None:
    assert matches(MODEL, criterion(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", "Doe"),
        ("PatientName", "*x*"),
        ("PatientID", "axb(c"),
        ("PatientID", "A.B(C"),
        ("StudyDate", "20260103-"),
        ("StudyDate", "-20260101"),
        ("StudyTime", "1016"),
        ("StudyTime", "11-12"),
        ("StudyInstanceUID", "1.2"),
        ("StudyInstanceUID", "1.2.*"),
        ("Rows", "25"),
        ("ModalitiesInStudy", "CT"),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "S2"),
        ("AccessionNumber", "*x"),
        ("StudyID", "1"),
    ],
)
def test_other_values_are_not(name: str, value: str) -> None:
    assert not matches(MODEL, criterion(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NoSuchThing", "1"),
        ("99990000", "1"),
        ("Patient Name", "1"),
        ("PixelData", "1"),
        ("RequestAttributesSequence", "1"),
        ("PatientName.PatientID", "1"),
        ("StudyDate", "2026"),
        ("StudyDate", "20261301"),
        ("StudyDate", "-"),
        ("StudyTime", "noon"),
        ("Rows", "many"),
        ("PatientID", "x" * 2000),
        ("PatientID", "a\x00b"),
    ],
)
def test_what_cannot_be_asked_is_told_without_its_value(name: str, value: str) -> None:
    with pytest.raises(CriterionError) as told:
        criterion(name, value)

    assert value not in str(told.value) or len(value) == 1


def test_a_pattern_full_of_stars_takes_no_time() -> None:
    model = {"00100020": {"vr": "LO", "Value": ["a" * 64]}}

    assert not matches(model, criterion("PatientID", "*a" * 20 + "*b"))
    assert matches(model, criterion("PatientID", "*" * 500))


def test_a_range_of_dates_is_what_the_rows_are_asked_for() -> None:
    low, high = dates_of(criterion("StudyDate", "20260101-20260131"))
    assert (str(low), str(high)) == ("2026-01-01", "2026-01-31")
    assert dates_of(criterion("StudyDate", "-20260131"))[0] is None
