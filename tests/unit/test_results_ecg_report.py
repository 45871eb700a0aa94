"""The report of an ECG says what was found, by what, and in which stretch of the recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    TwelveLeadECGWaveformStorage,
)

from models.finding import Evidence
from models.packs.manifest import Signal
from models.tasks import ECG_TASKS
from node.results import (
    EcgResult,
    ResultError,
    build_ecg_report,
    build_ecg_text_report,
    check_object,
    render_report,
)
from node.results.alternatives import form_for
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from tests.ecg_results_examples import (
    INTERVALS,
    PAGES,
    RHYTHM,
    TROUBLE,
    ecg_capture_of,
    ecg_header,
    ecg_number,
    ecg_of,
    ecg_readings,
    ecg_report,
    ecg_score,
    interval_findings,
    rhythm_findings,
    study_ecgs,
)
from tests.results_examples import CREATED_AT, SETTINGS, put_bytes, read, study_report


def _below(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _below(child)


def _named(item: Dataset, meaning: str) -> list[Dataset]:
    return [each for each in _below(item) if each.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def _group(report: Dataset, tracking: str) -> Dataset:
    return next(
        group
        for group in _named(report, "Measurement Group")
        if _named(group, "Tracking Identifier")[0].TextValue == tracking
    )


def _offsets(item: Dataset) -> tuple[float, ...]:
    return tuple(float(each) for each in item.ReferencedTimeOffsets)


def _channels(stretch: Dataset) -> list[int]:
    (waveform,) = stretch.ContentSequence
    assert waveform.ValueType == "WAVEFORM"
    return list(waveform.ReferencedSOPSequence[0].ReferencedWaveformChannels)


@pytest.fixture(scope="module")
def report() -> Dataset:
    return read(ecg_report())


def test_it_reports_a_12_lead_ecg_in_a_series_of_its_own(report: Dataset) -> None:
    (procedure,) = _named(report, "Procedure reported")
    assert procedure.ConceptCodeSequence[0].CodeValue == "268400002"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert _named(report, "Image Library") == []  # an ECG is no image
    assert (report.SeriesNumber, report.SeriesDescription) == (911, "AI ECG SR (RESEARCH)")
    assert check_object(ecg_report()) == ()


def test_an_ecg_in_the_study_of_an_echo_leaves_its_report_alone() -> None:
    clip = read(study_report())
    header = ecg_header(StudyInstanceUID=clip.StudyInstanceUID)
    made = read(ecg_report([ecg_of(header, ecg_capture_of(header).ref)]))
    assert made.StudyInstanceUID == clip.StudyInstanceUID
    assert made.SeriesInstanceUID != clip.SeriesInstanceUID
    assert made.SeriesNumber != clip.SeriesNumber


def test_every_number_stands_with_the_code_the_unit_and_the_digits_of_its_output(
    report: Dataset,
) -> None:
    found = {
        item.ConceptNameCodeSequence[0].CodeValue: (
            str(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for group in _named(report, "Measurement Group")
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    assert found == {
        "AI-AF-SCORE": ("0.71", "{score}"),
        "AI-SB-SCORE": ("0.046", "{score}"),
        "AI-SIM-ST-SC": ("0.001", "{score}"),
        "AI-1DAVB-SCORE": ("0.034", "{score}"),
        "AI-RBBB-SCORE": ("0.911", "{score}"),
        "AI-LBBB-SCORE": ("0.012", "{score}"),
        "8867-4": ("61", "/min"),
        "8625-6": ("161", "ms"),
        "8633-0": ("92", "ms"),
        "8634-8": ("368", "ms"),
        "AI-SIM-J-V5": ("0.01", "mV"),
        "AI-R-V5": ("1.23", "mV"),
        "AI-T-V5": ("0.31", "mV"),
    }


def test_a_score_is_held_against_its_threshold_as_a_finding_in_snomed(report: Dataset) -> None:
    decided = {
        item.ConceptNameCodeSequence[0].CodeValue: item.ConceptCodeSequence[0].CodeMeaning
        for group in _named(report, "Measurement Group")
        for item in group.ContentSequence
        if item.ValueType == "CODE" and item.ConceptCodeSequence[0].CodeMeaning.endswith("ent")
    }
    assert decided == {
        "49436004": "Present",
        "49710005": "Absent",
        "AI-SIM-ST": "Absent",
        "270492004": "Absent",
        "59118001": "Present",
        "63467002": "Absent",
    }


def test_a_group_tells_which_stretch_of_which_channels_was_read(report: Dataset) -> None:
    rhythm = _named(_group(report, "Rhythm S1 I1, ecg-rhythm"), "Source of Measurement")
    (read_in,) = (item for item in rhythm if item.ValueType == "TCOORD")
    assert (read_in.TemporalRangeType, _offsets(read_in)) == ("SEGMENT", (0.0, 10.0))
    assert _channels(read_in) == [number for lead in range(1, 13) for number in (1, lead)]
    beat = _named(_group(report, "Intervals S1 I1, ecg-intervals"), "Source of Measurement")
    (read_in,) = (item for item in beat if item.ValueType == "TCOORD")
    assert _offsets(read_in) == (0.0, 1.2)
    assert _channels(read_in)[:6] == [2, 1, 2, 2, 2, 7]


def test_below_a_number_stand_the_stretches_that_moved_it_the_most_telling_first(
    report: Dataset,
) -> None:
    (number,) = _named(report, "Score for atrial fibrillation")
    stretches = _named(number, "Stretch of the ECG that moved the value most")
    assert [_offsets(item) for item in stretches] == [(2.31, 2.48), (0.0, 0.12)]
    for item in stretches:
        assert (item.ValueType, item.RelationshipType) == ("TCOORD", "INFERRED FROM")
        reference = item.ContentSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPClassUID == TwelveLeadECGWaveformStorage
        assert reference.ReferencedSOPInstanceUID == ecg_header(1).SOPInstanceUID
    assert _named(_named(report, "Score for sinus bradycardia")[0], stretches[0].ValueType) == []


def test_a_strip_that_stands_in_no_object_has_no_stretch_in_one() -> None:
    rhythm, beat = ecg_readings()
    made_here = replace(beat, group=0, channels=())
    header = ecg_header(1)
    made = ecg_report([ecg_of(header, ecg_capture_of(header).ref, readings=(rhythm, made_here))])
    assert check_object(made) == ()
    group = _group(read(made), "Intervals S1 I1, ecg-intervals")
    assert not any(item.ValueType == "TCOORD" for item in _below(group))
    (waveform,) = (item for item in _below(group) if item.ValueType == "WAVEFORM")
    assert "ReferencedWaveformChannels" not in waveform.ReferencedSOPSequence[0]
    assert "ecg-intervals 0.1.0 (a median beat)" in render_report(made.data)


def test_what_lies_outside_of_the_recording_or_in_no_channel_is_not_pointed_at() -> None:
    rhythm, beat = ecg_readings()
    header = ecg_header(1)
    spans = ((-40.0, 120.0), (-90.0, -10.0), (500.2, 500.4))
    made = ecg_report(
        [
            ecg_of(
                header,
                ecg_capture_of(header).ref,
                findings=(
                    ecg_score("rbbb", 0.9, spans_ms=spans),
                    ecg_number("qt_interval", 400.0, "ms"),
                ),
                readings=(
                    replace(rhythm, begin_ms=-1119.0, channels=(1, 2, 0, 0, 5)),
                    replace(beat, end_ms=0.0, channels=(0,)),
                ),
            )
        ]
    )
    assert check_object(made) == ()
    found = [item for item in _below(read(made)) if item.ValueType == "TCOORD"]
    assert [_offsets(item) for item in found] == [(0.0, 0.12), (0.0, 10.0)]
    assert _channels(found[0]) == [1, 1, 1, 2, 1, 5]


def test_each_group_has_a_point_on_the_page_that_explains_it_for_ohif(report: Dataset) -> None:
    pages: dict[str, int] = {}
    points = []
    for group in _named(report, "Measurement Group"):
        (point,) = (item for item in _below(group) if item.ValueType == "SCOORD")
        pointed = point.ContentSequence[0].ReferencedSOPSequence[0]
        subject = _named(group, "Tracking Identifier")[0].TextValue.split()[0]
        pages[subject] = int(pointed.ReferencedFrameNumber)
        points.append((pages[subject], *point.GraphicData))
        shown = [
            int(item.ReferencedSOPSequence[0].ReferencedFrameNumber)
            for item in _named(group, "Visual explanation")
        ]
        # No page explains an amplitude: its numbers stand on one, but nothing explains them.
        assert shown == ([] if subject == "Amplitudes" else [pages[subject]])
    assert pages == {"Rhythm": 1, "Conduction": 2, "Intervals": 3, "Amplitudes": 1}
    assert len(set(points)) == len(points)


def test_groups_that_no_page_explains_are_spread_over_the_pages() -> None:
    header = ecg_header(1)
    capture = ecg_capture_of(header).ref
    dataset = read(ecg_report([ecg_of(header, capture, pages=("qt_interval", "sex", "age"))]))
    frames = [
        int(item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber)
        for item in _below(dataset)
        if item.ValueType == "SCOORD"
    ]
    assert sorted(frames[:2]) == [2, 3]
    assert frames[2] == 1  # the intervals, on the page of the QT interval
    assert max(frames.count(page) for page in (1, 2, 3)) == 2


def test_a_picture_of_one_page_is_pointed_at_without_a_frame() -> None:
    header = ecg_header(1)
    made = ecg_report([ecg_of(header, ecg_capture_of(header).ref, pages=PAGES[:1])])
    for item in _named(read(made), "Visual explanation"):
        assert "ReferencedFrameNumber" not in item.ReferencedSOPSequence[0]


def test_without_a_picture_it_is_an_ecg_report_that_no_viewer_fails_on() -> None:
    made = ecg_report(study_ecgs(pictured=False))
    assert check_object(made) == ()
    dataset = read(made)
    assert dataset.ConceptNameCodeSequence[0].CodeMeaning == "EKG study"
    assert "ContentTemplateSequence" not in dataset
    assert not any(item.ValueType == "SCOORD" for item in _below(dataset))
    assert len(_named(dataset, "Measurement Group")) == len(
        _named(read(ecg_report()), "Measurement Group")
    )


def test_an_ecg_that_nobody_read_needs_no_picture_and_is_told_with_its_reason() -> None:
    made = ecg_report([EcgResult(header=ecg_header(2), not_analysed="it is shorter than 5 s")])
    assert check_object(made) == ()
    dataset = read(made)
    assert dataset.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"
    assert _named(dataset, "Imaging Measurements") == []
    (line,) = _named(dataset, "ECG")
    assert line.TextValue == "Series 1 ECG 2. Not analysed: it is shorter than 5 s."


def test_a_line_of_words_tells_what_was_read_what_to_mind_and_what_is_not_given(
    report: Dataset,
) -> None:
    first, second = (str(item.TextValue) for item in _named(report, "ECG"))
    assert first == (
        "Series 1 ECG 1. Read by ecg-rhythm 0.1.0 (0.0 to 10.0 s of the rhythm), "
        f"ecg-intervals 0.1.0 (the cart's median beat). Mind: {TROUBLE}. "
        "Not given: Model score for male sex by ecg-intervals 0.1.0: lead V3 is missing from it."
    )
    assert second.startswith("Series 1 ECG 2. Not analysed")


def test_the_words_of_evidence_speak_of_ecgs_and_not_of_clips(report: Dataset) -> None:
    words = " ".join(str(item.get("TextValue")) for item in _below(report))
    assert "50 real records, 9 of them with it" in words
    assert "has only seen simulated ECGs" in words
    assert "clip" not in words
    assert "RESEARCH USE ONLY" in words


def test_an_output_of_the_simulator_stays_out_where_the_site_does_not_want_it() -> None:
    made = read(ecg_report(settings=replace(SETTINGS, simulated_evidence=False)))
    names = {item.ConceptNameCodeSequence[0].CodeMeaning for item in _below(made)}
    assert "Score for atrial fibrillation" in names
    assert not any(name.startswith("SIMULATED") for name in names)


def test_sex_is_an_estimate_that_must_be_asked_for() -> None:
    header = ecg_header(1)
    sex = ecg_score("sex", 0.8, pack=INTERVALS)
    ecgs = [ecg_of(header, ecg_capture_of(header).ref, findings=(sex,))]
    assert _named(read(ecg_report(ecgs)), "Measurement Group") == []
    asked = replace(SETTINGS, demographic_estimates=frozenset(("sex",)))
    made = ecg_report(ecgs, settings=asked)
    assert check_object(made) == ()
    assert len(_named(read(made), "AI score for male sex")) == 1


def test_every_output_of_an_ecg_can_be_written_in_groups_of_at_most_five() -> None:
    header = ecg_header(1)
    findings = [
        ecg_score(name, 0.5)
        if task.unit == "{score}"
        else ecg_number(name, task.low, task.unit, pack=RHYTHM)
        for name, task in ECG_TASKS.items()
    ]
    made = ecg_report(
        [ecg_of(header, ecg_capture_of(header).ref, findings=tuple(findings))],
        settings=replace(SETTINGS, demographic_estimates=frozenset(("sex",))),
    )
    assert check_object(made) == ()
    numbers = [
        sum(item.ValueType == "NUM" for item in group.ContentSequence)
        for group in _named(read(made), "Measurement Group")
    ]
    assert sum(numbers) == len(ECG_TASKS)
    assert max(numbers) <= 5


def test_patient_and_study_are_the_ecgs_own_byte_for_byte() -> None:
    header = ecg_header(1)
    put_bytes(header, "PatientName", b"M\xfcller^J\xf6rg")
    made = read(ecg_report([ecg_of(header, ecg_capture_of(header).ref)]))
    assert made.get_item("PatientName").value.rstrip() == b"M\xfcller^J\xf6rg"
    for keyword in (*PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
        if keyword in header:
            assert made.get(keyword) == header.get(keyword), keyword


def test_the_evidence_lists_recordings_and_pictures(report: Dataset) -> None:
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert listed == {
        ecg_header(1).SOPInstanceUID,
        ecg_header(2).SOPInstanceUID,
        ecg_capture_of(ecg_header(1)).ref.sop_instance_uid,
    }


def test_the_same_ecgs_give_the_same_object_and_another_stretch_another() -> None:
    header = ecg_header(1)
    capture = ecg_capture_of(header).ref

    def made(**changes: object) -> str:
        built = build_ecg_report(
            [ecg_of(header, capture, **changes)],
            revision=1,
            predecessor=None,
            settings=SETTINGS,
            created_at=CREATED_AT + timedelta(days=len(changes)),
        )
        return built.ref.sop_instance_uid

    assert made() == made()
    moved = tuple(replace(each, spans_ms=((1.0, 2.0),)) for each in rhythm_findings())
    assert made(findings=moved) != made(findings=rhythm_findings())


def test_a_later_revision_takes_the_place_of_the_first_in_its_series() -> None:
    first = ecg_report()
    later = read(ecg_report(revision=2, predecessor=first.ref))
    assert check_object(ecg_report(revision=2, predecessor=first.ref)) == ()
    assert later.SeriesInstanceUID == first.ref.series_instance_uid
    assert later.InstanceNumber == 2
    replaced = later.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.ref.sop_instance_uid


def test_the_older_class_passes_too() -> None:
    older = ecg_report(settings=replace(SETTINGS, sop_class_uid=ComprehensiveSRStorage))
    assert older.ref.sop_class_uid == ComprehensiveSRStorage
    assert check_object(older) == ()


@pytest.mark.parametrize("pictured", [True, False], ids=["with a picture", "without one"])
def test_an_archive_without_the_class_gets_the_same_in_an_older_one(pictured: bool) -> None:
    report = ecg_report(study_ecgs(pictured=pictured))
    (older,) = form_for(report.data, {Comprehensive3DSRStorage}) or ()
    assert older.ref.sop_class_uid == ComprehensiveSRStorage
    assert check_object(older) == ()
    assert render_report(older.data) == render_report(report.data)


def test_an_archive_without_text_reports_gets_the_text_in_an_older_class() -> None:
    text = build_ecg_text_report(
        study_ecgs(), revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
    )
    (older,) = form_for(text.data, {BasicTextSRStorage}) or ()
    assert older.ref.sop_class_uid == ComprehensiveSRStorage
    assert check_object(older) == ()


def test_what_cannot_be_one_report_is_refused() -> None:
    with pytest.raises(ResultError, match="at least one ECG"):
        ecg_report([])
    with pytest.raises(ResultError, match="the same ECG was given twice"):
        ecg_report([study_ecgs()[1], study_ecgs()[1]])
    other = EcgResult(header=ecg_header(3, StudyInstanceUID="1.2.3"), not_analysed="short")
    with pytest.raises(ResultError, match="several studies"):
        ecg_report([study_ecgs()[1], other])


# For people.


def _text() -> Dataset:
    return read(
        build_ecg_text_report(
            study_ecgs(), revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
        )
    )


def test_the_text_begins_with_what_lies_above_its_threshold_and_the_doubts() -> None:
    conclusions = [str(item.TextValue) for item in _named(_text(), "Conclusion")]
    assert "not verified by a physician" in conclusions[0]
    assert conclusions[1] == (
        "Series 1 ECG 1: Right bundle branch block (score 0.911), "
        f"Atrial fibrillation (score 0.710). Mind: {TROUBLE}."
    )
    assert conclusions[2] == "Series 1 ECG 2: nothing was found out."


def test_the_text_gives_every_value_and_passes_the_gate() -> None:
    made = build_ecg_text_report(
        study_ecgs(), revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
    )
    assert check_object(made) == ()
    words = render_report(made.data)
    assert "Heart rate 61 per minute (95 % interval 58 to 65 per minute)" in words
    assert "PR interval 161 ms" in words
    assert "R-wave amplitude in lead V5 1.23 mV" in words
    assert len(interval_findings()) == 7
    assert made.ref.series_instance_uid != ecg_report().ref.series_instance_uid


def test_a_reading_of_the_rhythm_is_told_in_seconds() -> None:
    rhythm, _ = ecg_readings()
    assert rhythm.signal is Signal.RHYTHM
    assert "(0.0 to 10.0 s of the rhythm)" in render_report(ecg_report().data)


def test_a_rendered_report_tells_what_moved_a_value_and_where_it_was_read() -> None:
    lines = [line.strip() for line in render_report(ecg_report().data).splitlines()]
    uid = ecg_header(1).SOPInstanceUID
    assert (
        "Score for atrial fibrillation: 0.71 (moved most by 2.31 to 2.48 s, 0 to 0.12 s)" in lines
    )
    assert f"From: 0 to 10 s of {uid}, 12 channels" in lines


def test_evidence_of_the_simulator_alone_is_named_in_every_line() -> None:
    header = ecg_header(1)
    findings = (ecg_score("lbbb", 0.9, evidence=Evidence.SIMULATED),)
    made = ecg_report([ecg_of(header, ecg_capture_of(header).ref, findings=findings)])
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in _below(read(made))]
    assert "SIMULATED ONLY: left bundle branch block" in names
    assert "Left bundle branch block" not in names
