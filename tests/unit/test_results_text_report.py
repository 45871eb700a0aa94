"""The text report says what the measurement report says, in sentences, and in a form for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage

from models.finding import Evidence
from node.results import (
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    build_text_report,
    check_object,
    render_report,
)
from node.results.alternatives import form_for
from tests.results_examples import (
    A4C,
    CREATED_AT,
    ECHONET,
    LV,
    PERSON,
    SETTINGS,
    measurement,
    person_findings,
    read,
    score,
    source_header,
    study_clips,
    study_report,
)


def text_report(
    clips: Sequence[ClipResult] | None = None,
    *,
    revision: int = 1,
    predecessor: ObjectRef | None = None,
    settings: ReportSettings = SETTINGS,
) -> EncodedObject:
    return build_text_report(
        study_clips() if clips is None else clips,
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=CREATED_AT,
        tested_on={(LV, "ef"): "CAMUS, 50 patients of the test split"},
    )


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _items(child)


def _texts(report: Dataset, chapter: str) -> list[str]:
    return [
        str(item.TextValue)
        for container in report.ContentSequence
        if container.ConceptNameCodeSequence[0].CodeMeaning == chapter
        for item in container.ContentSequence
    ]


@pytest.fixture(scope="module")
def report() -> Dataset:
    return read(text_report())


def test_it_is_an_echocardiography_report_whose_every_container_is_separate(
    report: Dataset,
) -> None:
    title = report.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("42148-7", "LN")
    assert report.SOPClassUID == BasicTextSRStorage
    containers = [item for item in _items(report) if item.ValueType == "CONTAINER"]
    assert len(containers) == 3
    assert {item.ContinuityOfContent for item in (report, *containers)} == {"SEPARATE"}
    assert check_object(text_report()) == ()


def test_what_to_read_first_is_a_sentence(report: Dataset) -> None:
    first, second = _texts(report, "Summary")
    assert first.startswith("RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE. Made by software")
    assert second == (
        "Left ventricular ejection fraction 58.2 % (95 % interval 50.1 to 66.2 %), from 1 clip. "
        "Left ventricular end-diastolic volume 102.4 mL (95 % interval 90.0 to 115.0 mL). "
        "Left ventricular end-systolic volume 42.3 mL. "
        "By single-plane discs (series 1 image 1; lv 0.1.0)."
    )


def test_a_mean_tells_of_what_and_how_far_apart() -> None:
    clips = [
        ClipResult(
            header=source_header(number),
            view=A4C,
            findings=(measurement("ef", value, "%", per_beat=(value - 1, value + 1)),),
            packs=(LV,),
        )
        for number, value in ((1, 50.0), (2, 60.0))
    ]
    said = _texts(read(text_report(clips)), "Summary")[1]
    assert said.startswith(
        "Left ventricular ejection fraction 55.0 %, mean of 4 beats in 2 clips, "
        "standard deviation 5.9 points."
    )


def test_findings_tell_value_interval_method_frame_and_pack(report: Dataset) -> None:
    traced, atrium, direct, dilated, lead = _texts(report, "Findings")
    assert traced.startswith(
        "Left ventricular ejection fraction 58.2 % (95 % interval 50.1 to 66.2 %); "
        "Left ventricular end-diastolic volume 102.4 mL"
    )
    assert "to 115.0 mL), mean of 2 beats; " in traced
    assert traced.endswith(
        "Read by single-plane discs from series 1 image 1, frame 8, 3, 13, by lv 0.1.0."
    )
    assert atrium.startswith("Largest left-atrial area 17.3 square cm. Read by tracing area from")
    assert direct.startswith("SIMULATED ONLY: Left ventricular ejection fraction 61.0 %")
    assert "Left ventricular hypertrophy: absent (score 0.123, threshold 0.5)" in direct
    assert dilated.startswith("SIMULATED ONLY: Severe left-atrial dilation: present (score 0.710")
    assert lead.startswith("SIMULATED ONLY: Pacemaker or defibrillator lead: absent")


def test_every_clip_is_told_of_and_the_evidence_too(report: Dataset) -> None:
    lines = _texts(report, "Current Procedure Descriptions")
    assert lines[0] == "Transthoracic echocardiography, 4 clips; 1 of them read by models."
    assert "subcostal inferior vena cava (ivc, score 0.88). Not analysed:" in lines[2]
    assert lines[5].startswith("Evidence. RESEARCH USE ONLY")
    assert "CAMUS, 50 patients of the test split" in lines[5]


def test_a_study_without_findings_says_so() -> None:
    made = read(text_report(study_clips()[1:]))
    assert _texts(made, "Summary")[1] == "No ejection fraction is given of this study."
    assert _texts(made, "Findings") == []


def test_a_network_that_looked_outside_the_sector_is_told_at_the_top() -> None:
    finding = score("lvh", 0.9, evidence=Evidence.PATIENTS, outside_share=0.7)
    clip = ClipResult(header=source_header(1), view=A4C, findings=(finding,), packs=(ECHONET,))
    made = read(text_report([clip]))
    assert any("DO NOT RELY ON" in line for line in _texts(made, "Summary"))
    assert "uncertain (score 0.900, threshold 0.5)" in _texts(made, "Findings")[0]


def test_estimates_of_the_person_are_called_so_and_off_by_default() -> None:
    clip = replace(study_clips()[0], findings=person_findings())
    assert "age" not in str(_texts(read(text_report([clip])), "Findings"))
    made = text_report([clip], settings=replace(SETTINGS, demographic_estimates=PERSON))
    said = " ".join(_texts(read(made), "Findings"))
    assert "Model estimate of age 61.2 years" in said
    assert "Model score for male sex: score 0.810" in said
    assert check_object(made) == ()


def test_it_has_a_series_and_revisions_of_its_own() -> None:
    first = text_report()
    second = text_report(revision=2, predecessor=first.ref)
    made = read(second)
    assert made.SeriesInstanceUID == first.ref.series_instance_uid
    assert made.SeriesInstanceUID != study_report().ref.series_instance_uid
    assert (made.SeriesNumber, made.InstanceNumber) == (903, 2)
    named = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.ref.sop_instance_uid


def test_an_archive_without_its_class_gets_it_in_the_one_of_the_reports() -> None:
    made = form_for(text_report().data, {BasicTextSRStorage, Comprehensive3DSRStorage})
    assert made is not None
    (other,) = made
    assert other.ref.sop_class_uid == ComprehensiveSRStorage
    assert check_object(other) == ()


def test_a_terminal_shows_its_sentences() -> None:
    shown = render_report(text_report().data)
    assert "  Finding: Left ventricular ejection fraction 58.2 %" in shown
