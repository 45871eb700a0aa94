"""The report says what was found, where, by what and on which evidence, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import highdicom as hd
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from models.finding import Evidence, Method
from models.views import View, ViewCall
from node.results import ClipResult, ObjectRef, ResultError, check_object, codes
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from tests.results_examples import (
    A4C,
    CREATED_AT,
    ECHONET,
    LV,
    SETTINGS,
    as_received,
    capture_of,
    measurement,
    network_findings,
    person_findings,
    put_bytes,
    read,
    score,
    source_header,
    study_clips,
    study_report,
    tracing_findings,
)


def _below(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield child
        yield from _below(child)


def _named(item: Dataset, meaning: str) -> list[Dataset]:
    return [each for each in _below(item) if each.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def _groups(report: Dataset) -> list[Dataset]:
    return _named(report, "Measurement Group")


def _texts(item: Dataset, meaning: str) -> list[str]:
    return [str(each.TextValue) for each in _named(item, meaning)]


def _coded(item: Dataset, meaning: str) -> list[str]:
    return [str(each.ConceptCodeSequence[0].CodeMeaning) for each in _named(item, meaning)]


def _number(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def _group_of(report: Dataset, tracking: str) -> Dataset:
    return next(
        group for group in _groups(report) if _texts(group, "Tracking Identifier") == [tracking]
    )


@pytest.fixture(scope="module")
def report() -> Dataset:
    return read(study_report())


LV_GROUP = "LV function S1 I1, lv"


# What it says.


def test_a_tracing_gives_numbers_by_the_method_of_discs(report: Dataset) -> None:
    group = _group_of(report, LV_GROUP)
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    assert [
        (
            item.ConceptNameCodeSequence[0].CodeValue,
            _number(item),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in numbers
    ] == [("79993-2", 58.2, "%"), ("79999-9", 102.4, "mL"), ("80004-5", 42.3, "mL")]
    for item in numbers:
        assert _coded(item, "Measurement Method") == ["Method of Disks, Single Plane"]
    # Only the end-diastolic volume is a mean, of two beats.
    assert [_coded(item, "Derivation") for item in numbers] == [
        ["Estimated"],
        ["Mean"],
        ["Estimated"],
    ]
    assert _coded(group, "Finding Site") == ["Left ventricle"]


def test_what_each_beat_gave_stands_in_the_comment(report: Dataset) -> None:
    words = _texts(_group_of(report, LV_GROUP), "Comment")[0]
    assert "mean of 2 beats (101.0, 103.7 mL)" in words
    assert words.count("mean of") == 1


def test_a_network_that_looked_outside_the_sector_is_told_beside_its_value_and_of_its_clip() -> (
    None
):
    header = source_header(1)
    findings = (
        measurement("ef", 58.0, "%", outside_share=0.62),
        measurement("edv", 102.0, "mL", outside_share=0.31),
    )
    encoded = study_report([ClipResult(header=header, view=A4C, findings=findings, packs=(LV,))])
    report = read(encoded)
    flag = "DO NOT RELY ON: Left ventricular ejection fraction (62 %). The network looked outside"
    assert check_object(encoded) == ()
    for group in _groups(report):
        assert any(flag in text for text in _texts(group, "Comment"))
    (said,) = _texts(report, "Clip")
    assert flag in said
    assert "(31 %)" not in said


def test_a_regression_claims_no_method(report: Dataset) -> None:
    group = _group_of(report, "LV function S1 I1, echonet")
    assert _number(_named(group, "SIMULATED ONLY: left ventricular ejection fraction")[0]) == 61.0
    assert _coded(group, "Measurement Method") == []
    assert "nothing was traced" in _texts(group, "Comment")[0]


def test_an_interval_stands_below_its_number_in_the_same_unit_and_in_words(
    report: Dataset,
) -> None:
    group = _group_of(report, LV_GROUP)
    ef = _named(group, "Left ventricular ejection fraction single plane 4C (MOD)")[0]
    low = _named(ef, "Lower bound of 95 % prediction interval")[0]
    high = _named(ef, "Upper bound of 95 % prediction interval")[0]
    assert (_number(low), _number(high)) == (50.1, 66.2)
    assert low.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%"
    assert _texts(group, "95 % prediction interval")[0] == (
        "Left ventricular ejection fraction: 50.1 to 66.2 %"
    )


def test_a_score_is_a_number_of_its_own_and_present_or_absent_by_its_threshold(
    report: Dataset,
) -> None:
    assert _coded(report, "Left ventricular hypertrophy") == ["Absent"]
    assert _coded(report, "SIMULATED ONLY: markedly enlarged left atrium") == ["Present"]
    lvh = _named(report, "Score for left ventricular hypertrophy")[0]
    assert _number(lvh) == 0.123
    assert lvh.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "{score}"
    assert "decision_threshold.lvh=0.5" in _texts(report, "Algorithm Parameters")


def test_a_finding_tells_how_severe_it_would_be(report: Dataset) -> None:
    (dilated,) = _named(report, "SIMULATED ONLY: markedly enlarged left atrium")
    assert _coded(dilated, "Severity") == ["Severe"]
    (thick,) = _named(report, "Left ventricular hypertrophy")
    assert _coded(thick, "Severity") == []  # the model does not grade it


def test_a_network_that_looked_outside_the_sector_calls_nothing_present_or_absent() -> None:
    finding = score("lvh", 0.9, evidence=Evidence.PATIENTS, outside_share=0.7)
    clip = ClipResult(header=source_header(1), view=A4C, findings=(finding,), packs=(ECHONET,))
    encoded = study_report([clip])
    assert check_object(encoded) == ()
    assert _coded(read(encoded), "Left ventricular hypertrophy") == ["Indeterminate"]


_INTERVAL = "95 % prediction interval"
_EVERY = {
    "ef": "%", "edv": "mL", "esv": "mL", "la_volume": "mL", "la_area": "cm2", "ra_length": "cm",
    "age": "a", "weight": "kg", "height": "cm",
}  # fmt: skip
_SCORES = ("lvh", "la_dilation", "lead", "sex")


def test_every_line_of_a_model_that_only_saw_the_simulator_says_so() -> None:
    findings = [
        measurement(
            output,
            50.0,
            unit,
            low=40.0,
            high=60.0,
            pack=ECHONET,
            evidence=Evidence.SIMULATED,
            method=Method.REGRESSION,
        )
        for output, unit in _EVERY.items()
    ] + [score(output, 0.7) for output in _SCORES]
    clip = ClipResult(header=source_header(1), view=A4C, findings=tuple(findings), packs=(ECHONET,))
    settings = replace(
        SETTINGS, demographic_estimates=frozenset(("age", "sex", "weight", "height"))
    )
    encoded = study_report([clip], settings=settings)
    assert check_object(encoded) == ()
    report = read(encoded)
    said = [
        item
        for group in _groups(report)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
        or (
            item.ValueType == "CODE"
            and item.ConceptNameCodeSequence[0].CodeValue != "121071"
            and item.RelationshipType == "CONTAINS"
        )
    ]
    # With the scores' three findings, and the summary's three means.
    assert len(said) == len(_EVERY) + len(_SCORES) + 3 + 3
    for item in said:
        name = item.ConceptNameCodeSequence[0]
        assert name.CodeMeaning.startswith("SIMULATED ONLY: ")
        assert name.CodingSchemeDesignator == "99ECHOAI"
    for group in _groups(report):
        assert "FOR DEMONSTRATION: has only seen simulated clips" in " ".join(
            _texts(group, "Comment")
        )
        assert _coded(group, "Finding Site")
    assert all(words.startswith("SIMULATED ONLY: ") for words in _texts(report, _INTERVAL))


def test_a_group_names_its_algorithm_and_the_digest_of_its_weights(report: Dataset) -> None:
    group = _group_of(report, LV_GROUP)
    assert _texts(group, "Algorithm Name") == ["lv"]
    assert _texts(group, "Algorithm Version") == ["0.1.0"]
    assert f"weights_sha256={LV.weights_sha256}" in _texts(group, "Algorithm Parameters")


def test_every_group_says_for_research_and_on_which_evidence(report: Dataset) -> None:
    for group in _groups(report):
        assert any(
            "RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE" in text
            for text in _texts(group, "Comment")
        )
    traced = " ".join(_texts(_group_of(report, LV_GROUP), "Comment"))
    assert "tested on patients that training never saw (CAMUS, 50 patients of the test" in traced
    simulated = _group_of(report, "LV function S1 I1, echonet")
    assert "FOR DEMONSTRATION: has only seen simulated clips" in _texts(simulated, "Comment")[0]


def test_coordinates_lie_on_the_frames_that_the_findings_came_from(report: Dataset) -> None:
    group = _group_of(report, LV_GROUP)
    points = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    frames = [
        int(point.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber)
        for point in points
    ]
    assert frames == [8, 3, 13]  # findings count frames from zero, DICOM from one
    assert {tuple(point.GraphicData) for point in points} == {(40.0, 60.0)}


def test_a_still_is_referred_to_without_a_frame_number() -> None:
    header = source_header(1, NumberOfFrames=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
    clip = ClipResult(
        header=header, view=A4C, packs=(LV,), findings=(measurement("ef", 50.0, "%", frames=()),)
    )
    for item in _below(read(study_report([clip]))):
        for reference in item.get("ReferencedSOPSequence") or ():
            assert "ReferencedFrameNumber" not in reference


def test_the_saliency_cine_is_the_visual_explanation(report: Dataset) -> None:
    group = _group_of(report, LV_GROUP)
    shown = _named(group, "Visual explanation")[0].ReferencedSOPSequence[0]
    capture = study_clips()[0].capture
    assert capture is not None
    assert shown.ReferencedSOPInstanceUID == capture.sop_instance_uid


def test_no_group_has_more_than_five_measurements() -> None:
    clip = ClipResult(
        header=source_header(1),
        view=A4C,
        findings=(*network_findings(), *tracing_findings(), *tracing_findings(40.0)),
        packs=(LV, ECHONET),
    )
    groups = _groups(read(study_report([clip])))
    counts = [sum(item.ValueType == "NUM" for item in group.ContentSequence) for group in groups]
    assert max(counts) == 5
    assert sum(counts) == 5 + 6 + 8  # the summary, the frame pack, the tracing pack twice


def test_the_view_of_every_clip_is_told_in_codes_and_in_the_models_words(
    report: Dataset,
) -> None:
    entries = _named(report, "Image Library Group")[0].ContentSequence
    assert len(entries) == 4
    assert _coded(entries[0], "Image View") == ["Apical four chamber"]
    assert _texts(entries[0], "View label by model") == ["a4c"]
    assert _number(_named(entries[0], "View score")[0]) == 0.93
    assert _coded(entries[1], "Image View") == ["Subcostal IVC"]
    assert _coded(entries[1], "Finding Site") == ["Inferior vena cava"]


def test_an_uncertain_view_is_told_in_words_only(report: Dataset) -> None:
    entry = _named(report, "Image Library Group")[0].ContentSequence[2]
    assert _coded(entry, "Image View") == []
    assert _texts(entry, "View label by model") == ["psla"]
    assert "uncertain, perhaps parasternal long axis" in _texts(report, "Clip")[2]


def test_doppler_is_a_mode_and_not_a_view() -> None:
    clip = ClipResult(
        header=source_header(1), view=ViewCall(view=View.CW, score=0.99, certain=True),
        not_analysed="no model measures this view",
    )  # fmt: skip
    made = read(study_report([clip]))
    assert _coded(made, "Image mode") == ["Doppler Continuous Wave"]
    assert _coded(made, "Image View") == []


def test_a_clip_that_no_model_read_is_told_with_the_reason(report: Dataset) -> None:
    lines = _texts(report, "Clip")
    assert lines[1] == (
        "Series 1 image 2: subcostal inferior vena cava (ivc, score 0.88). "
        "Not analysed: no model measures this view."
    )
    assert lines[3] == "Series 1 image 4: view not determined. Not analysed: cannot be decoded."


def test_a_refusal_is_told_with_its_reason(report: Dataset) -> None:
    assert (
        "Not given: Left-atrial volume by lv 0.1.0: the pixel spacing cannot be trusted."
        in _texts(report, "Clip")[0]
    )


def test_a_study_without_a_finding_has_a_report_of_words() -> None:
    made = study_report(study_clips()[1:])
    assert _groups(read(made)) == []
    assert len(_texts(read(made), "Clip")) == 3
    assert check_object(made) == ()


# What it must not say.


def test_what_only_saw_the_simulator_stays_out_unless_it_is_let_in() -> None:
    made = read(study_report(settings=replace(SETTINGS, simulated_evidence=False)))
    assert _named(made, "SIMULATED ONLY: left ventricular ejection fraction") == []
    assert "SIMULATED" not in str(made)
    assert "Ejection" not in _texts(made, "Clip")[0]


def test_estimates_of_the_person_stay_out_unless_they_are_let_in_by_name() -> None:
    clip = study_clips()[0]
    person = [replace(clip, findings=(*clip.findings, *person_findings()))]
    assert _named(read(study_report(person)), "Model estimates of the person") == []
    assert _named(read(study_report(person)), "AI-estimated age") == []
    allowed = study_report(
        person, settings=replace(SETTINGS, demographic_estimates=frozenset(("age", "sex")))
    )
    assert check_object(allowed) == ()
    made = read(allowed)
    assert _number(_named(made, "AI-estimated age")[0]) == 61.2
    assert _number(_named(made, "AI score for male sex")[0]) == 0.81
    assert _named(made, "AI-estimated weight") == []
    assert "PatientAge" not in made
    codes_said = {
        (each.CodeValue, each.CodingSchemeDesignator)
        for item in _below(made)
        for sequence in ("ConceptNameCodeSequence", "ConceptCodeSequence")
        for each in item.get(sequence) or ()
    }
    assert not codes_said & codes.DEMOGRAPHIC_CODES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": None}, "without its number"),
        ({"value": float("nan")}, "not a number to report"),
        ({"unit": "furlong"}, "no code for the unit"),
        ({"output": "charm"}, "no codes for this output"),
        ({"frames": (30,)}, "the clip has 30"),
    ],
)
def test_a_finding_that_contradicts_itself_stops_the_report(
    change: dict[str, object], words: str
) -> None:
    finding = replace(measurement("ef", 50.0, "%"), **change)  # type: ignore[arg-type]
    clip = ClipResult(header=source_header(1), findings=(finding,), packs=(LV,))
    with pytest.raises(ResultError, match=words):
        study_report([clip])


def test_clips_of_two_studies_are_not_one_report() -> None:
    other = source_header(2, StudyInstanceUID="1.2.3")
    with pytest.raises(ResultError, match="several studies"):
        study_report([ClipResult(header=source_header(1)), ClipResult(header=other)])


def test_a_report_of_nothing_or_of_a_clip_twice_is_refused() -> None:
    with pytest.raises(ResultError, match="at least one clip"):
        study_report([])
    with pytest.raises(ResultError, match="twice"):
        study_report([ClipResult(header=source_header(1)), ClipResult(header=source_header(1))])


# The summary.


def _clips_with_ef(*values: float, **changes: object) -> list[ClipResult]:
    return [
        ClipResult(
            header=source_header(number, **changes),
            view=A4C,
            findings=(measurement("ef", value, "%"),),
            packs=(LV,),
        )
        for number, value in enumerate(values, start=1)
    ]


def _summary(report: Dataset) -> Dataset | None:
    groups = _groups(report)
    first = groups[0] if groups else None
    if first is None or "Study summary" not in _texts(first, "Tracking Identifier")[0]:
        return None
    return first


def test_the_value_to_read_first_is_the_mean_over_clips() -> None:
    summary = _summary(read(study_report(_clips_with_ef(50.0, 56.0, 59.0))))
    assert summary is not None
    ef = _named(summary, "Left ventricular ejection fraction single plane 4C (MOD)")[0]
    assert _number(ef) == 55.0
    assert _coded(ef, "Derivation") == ["Mean"]
    assert "Mean of 3 clips" in _texts(summary, "Comment")[0]
    assert "range 50.0 to 59.0 %, standard deviation 4.6" in _texts(summary, "Comment")[0]
    assert _number(_named(summary, "Standard deviation of the ejection fraction")[0]) == 4.6
    assert _number(_named(summary, "Clips averaged")[0]) == 3
    assert sum(item.ValueType == "SCOORD" for item in summary.ContentSequence) == 3


def test_the_summary_comes_from_patients_evidence_before_the_simulators(
    report: Dataset,
) -> None:
    summary = _summary(report)
    assert summary is not None
    assert _texts(summary, "Algorithm Name") == ["lv"]
    ef = _named(summary, "Left ventricular ejection fraction single plane 4C (MOD)")[0]
    assert _coded(ef, "Derivation") == ["Estimated"]  # one clip and one beat: no mean of anything
    assert _named(summary, "Standard deviation of the ejection fraction") == []


def test_the_value_to_read_first_counts_every_beat_once_and_comes_with_spread_and_volumes() -> None:
    clips = [
        ClipResult(
            header=source_header(number),
            view=A4C,
            findings=(
                measurement("ef", 55.0, "%", low=40.0, high=70.0, per_beat=(53.0, 57.0)),
                measurement("edv", 100.0 + number, "mL", low=80.0, high=120.0, frames=(2,)),
                measurement("esv", 45.0, "mL", frames=(12,)),
                # Another source's numbers stay out of the mean.
                measurement("edv", 300.0, "mL", pack=ECHONET, method=Method.REGRESSION),
            ),
            capture=capture_of(source_header(number)).ref,
            packs=(LV,),
        )
        for number in (1, 2)
    ]
    clips[1] = replace(
        clips[1],
        findings=(
            measurement("ef", 61.0, "%", low=46.0, high=76.0, per_beat=(61.0,)),
            *clips[1].findings[1:],
        ),
    )
    encoded = study_report(clips)
    assert check_object(encoded) == ()
    summary = _summary(read(encoded))
    assert summary is not None
    numbers = [item for item in summary.ContentSequence if item.ValueType == "NUM"]
    assert [(item.ConceptNameCodeSequence[0].CodeMeaning, _number(item)) for item in numbers] == [
        ("Left ventricular ejection fraction single plane 4C (MOD)", 57.0),
        ("Standard deviation of the ejection fraction", 4.0),
        ("Beats averaged", 3),
        ("Left ventricular end diastolic volume single plane 4C (MOD)", 101.5),
        ("Left ventricular end systolic volume single plane 4C (MOD)", 45.0),
    ]
    assert str(numbers[2].MeasuredValueSequence[0].NumericValue) == "3"
    assert _coded(numbers[0], "Derivation") == ["Mean"]
    assert _coded(numbers[1], "Derivation") == ["Standard Deviation"]
    low = _named(numbers[0], "Lower bound of 95 % prediction interval")[0]
    assert _number(low) == 42.0  # the first clip's bound twice, once for each of its beats
    assert _texts(summary, "Comment")[0].startswith("Mean of 3 beats in 2 clips")
    assert "standard deviation 4.0 percentage points" in _texts(summary, "Comment")[0]
    assert len(_named(summary, "Visual explanation")) == 2
    frames = {
        int(point.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber)
        for point in summary.ContentSequence
        if point.ValueType == "SCOORD"
    }
    assert frames == {8, 3, 13}


def test_a_measurement_without_an_interval_says_so(report: Dataset) -> None:
    words = _texts(_group_of(report, LV_GROUP), "Comment")[0]
    assert "No interval is known of: Left ventricular end-systolic volume." in words


def test_evidence_counts_more_than_method() -> None:
    tracing = measurement("ef", 40.0, "%", evidence=Evidence.SIMULATED)
    direct = measurement("ef", 60.0, "%", pack=ECHONET, method=Method.REGRESSION)
    clip = ClipResult(header=source_header(1), view=A4C, findings=(tracing, direct))
    summary = _summary(read(study_report([clip])))
    assert summary is not None
    assert _number(_named(summary, "Left Ventricular Ejection Fraction by US")[0]) == 60.0


def test_rest_and_stress_are_not_averaged() -> None:
    clips = _clips_with_ef(60.0, 70.0)
    clips[1].header.StageName = "PEAK"
    assert _summary(read(study_report(clips))) is None
    assert _summary(read(study_report(_clips_with_ef(60.0, NumberOfStages=4)))) is None


# The document.


def test_the_header_says_complete_unverified_preliminary_and_research(report: Dataset) -> None:
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert report.Modality == "SR"
    assert report.SeriesNumber == 901
    assert "RESEARCH" in report.SeriesDescription
    assert (report.ContentDate, report.ContentTime) == ("20260304", _local_time())


def _local_time() -> str:
    return CREATED_AT.astimezone().strftime("%H%M%S")


def test_times_are_told_in_the_time_zone_of_the_study() -> None:
    clip = ClipResult(header=source_header(1, TimezoneOffsetFromUTC="-0930"))
    made = read(study_report([clip]))
    assert (made.ContentDate, made.ContentTime) == ("20260303", "193607")
    assert made.TimezoneOffsetFromUTC == "-0930"


def test_every_clip_and_cine_is_listed_as_evidence(report: Dataset) -> None:
    listed = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    clips = study_clips()
    assert clips[0].capture is not None
    assert listed == {
        *(str(clip.header.SOPInstanceUID) for clip in clips),
        clips[0].capture.sop_instance_uid,
    }


def test_each_pack_is_a_contributing_device_of_its_own(report: Dataset) -> None:
    models = {
        item.ManufacturerModelName: (item.SoftwareVersions, item.DeviceUID)
        for item in report.ContributingEquipmentSequence
    }
    assert {name: value[0] for name, value in models.items()} == {
        "echonet": "0.2.0", "lv": "0.1.0", "views": "0.1.0",
    }  # fmt: skip
    assert len({value[1] for value in models.values()}) == 3


def test_other_weights_are_another_device(report: Dataset) -> None:
    def device(made: Dataset) -> str:
        return next(
            str(item.DeviceUID)
            for item in made.ContributingEquipmentSequence
            if item.ManufacturerModelName == "lv"
        )

    retrained = replace(LV, weights_sha256="d4" * 32)
    clip = ClipResult(header=source_header(1), view=A4C, packs=(retrained,))
    assert device(read(study_report([clip]))) != device(report)


def test_every_container_is_separate(report: Dataset) -> None:
    containers = [item for item in _below(report) if item.ValueType == "CONTAINER"]
    assert containers
    assert {item.ContinuityOfContent for item in (report, *containers)} == {"SEPARATE"}


def test_a_number_fits_its_attribute() -> None:
    clips = _clips_with_ef(100.0 / 3.0)
    for item in _below(read(study_report(clips))):
        if item.ValueType == "NUM":
            written = item.MeasuredValueSequence[0].NumericValue.original_string
            assert len(written) <= 16


def test_words_from_packs_and_models_are_written_in_plain_ascii() -> None:
    clip = ClipResult(header=source_header(1), not_analysed="zu groß – kein Bild\\Ton ≥ 5 µm 心")
    text = _texts(read(study_report([clip])), "Clip")[0]
    assert text.endswith("Not analysed: zu gross - kein Bild/Ton >= 5 um ?.")


def test_highdicom_reads_it_back() -> None:
    made = hd.sr.srread(BytesIO(study_report().data))
    groups = made.content.get_image_measurement_groups()
    values = {
        measured.name.meaning: measured.value
        for group in groups
        for measured in group.get_measurements()
    }
    assert values["Left ventricular end diastolic volume single plane 4C (MOD)"] == 102.4
    assert len({group.tracking_uid for group in groups}) == len(groups)


# Revisions and UIDs.


def test_the_same_inputs_give_the_same_uids_at_any_time_and_in_any_order() -> None:
    clips = study_clips()
    first = study_report(clips)
    later = study_report(clips[::-1], created_at=CREATED_AT + timedelta(days=1))
    assert later.ref == first.ref
    assert [_named(group, "Tracking Unique Identifier")[0].UID for group in _groups(read(first))
            ] == [
        _named(group, "Tracking Unique Identifier")[0].UID for group in _groups(read(later))
    ]  # fmt: skip


def test_another_answer_is_another_object_in_the_same_series() -> None:
    first = study_report(_clips_with_ef(50.0)).ref
    other = study_report(_clips_with_ef(50.2)).ref
    assert first.sop_instance_uid != other.sop_instance_uid
    assert first.series_instance_uid == other.series_instance_uid


def test_a_revision_names_its_predecessor_and_keeps_series_and_tracking() -> None:
    first = study_report()
    second = study_report(revision=2, predecessor=first.ref)
    made = read(second)
    assert made.InstanceNumber == 2
    named = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == first.ref.series_instance_uid == made.SeriesInstanceUID
    assert (
        named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == first.ref.sop_instance_uid
        != second.ref.sop_instance_uid
    )
    assert [str(item.UID) for item in _named(made, "Tracking Unique Identifier")] == [
        str(item.UID) for item in _named(read(first), "Tracking Unique Identifier")
    ]


def test_the_same_content_in_another_class_has_another_uid() -> None:
    older = study_report(settings=replace(SETTINGS, sop_class_uid=ComprehensiveSRStorage))
    assert older.ref.sop_class_uid == ComprehensiveSRStorage
    assert older.ref.sop_instance_uid != study_report().ref.sop_instance_uid
    assert check_object(older) == ()


def test_two_nodes_make_two_reports() -> None:
    other = study_report(settings=replace(SETTINGS, device_serial="node-8"))
    assert other.ref.series_instance_uid != study_report().ref.series_instance_uid


# Patient and study.

_JAPANESE = {
    "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "StudyDescription": "心エコー",
}
_CYRILLIC = {
    "SpecificCharacterSet": "ISO_IR 144",
    "PatientName": "Люкceмбypг",
    "ReferringPhysicianName": "Иванов^Пётр",
}
_UNICODE = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Wang^XiaoDong=王^小东="}


@pytest.mark.parametrize("names", [_JAPANESE, _CYRILLIC, _UNICODE], ids=["ja", "ru", "zh"])
@pytest.mark.parametrize("received", [True, False], ids=["from a file", "in memory"])
def test_names_in_any_script_are_copied_byte_for_byte(
    names: dict[str, object], received: bool
) -> None:
    header = source_header(1, **names)
    if received:
        header = as_received(header)
    made = read(study_report([ClipResult(header=header)]))
    for keyword in names:
        wanted = as_received(source_header(1, **names)).get_item(keyword)
        assert wanted is not None
        said = made.get_item(keyword)
        assert said is not None
        assert said.value == wanted.value
    assert str(made.PatientName) == str(header.PatientName)


def test_a_name_in_the_wrong_character_set_is_copied_unchanged() -> None:
    header = source_header(1)
    put_bytes(header, "PatientName", "Müller^Jörg".encode())  # UTF-8, called Latin 1
    made = read(study_report([ClipResult(header=header)]))
    raw = made.get_item("PatientName")
    assert raw is not None
    assert raw.value.rstrip() == "Müller^Jörg".encode()


def test_what_the_source_does_not_say_stays_empty() -> None:
    header = source_header(
        1, PatientID=None, PatientName=None, AccessionNumber=None, StudyID=None, StudyDate=None,
        StudyTime=None, ReferringPhysicianName=None, PatientBirthDate=None, PatientSex=None,
        SpecificCharacterSet=None,
    )  # fmt: skip
    made = study_report([ClipResult(header=header)])
    dataset = read(made)
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate"):
        assert keyword in dataset
        assert not dataset.get(keyword)
    assert "StudyDescription" not in dataset or not dataset.StudyDescription
    assert check_object(made) == ()


def test_what_belongs_to_the_study_is_copied_with_its_sequences() -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "433236007", "SCT"
    procedure.CodeMeaning = "Transthoracic echocardiography"
    header = source_header(
        1, PatientSize="1.72", PatientWeight="70", StudyDescription="Echo", AccessionNumber="A1",
        ProcedureCodeSequence=[procedure], IssuerOfPatientID="HOSP",
    )  # fmt: skip
    made = read(study_report([ClipResult(header=as_received(header))]))
    assert (made.PatientSize, made.PatientWeight) == (1.72, 70)
    assert made.ProcedureCodeSequence[0].CodeValue == "433236007"
    assert (made.IssuerOfPatientID, made.AccessionNumber) == ("HOSP", "A1")


def test_the_carts_own_equipment_and_private_groups_are_not_copied() -> None:
    header = source_header(1, StationName="ROOM 5", OperatorsName="Someone")
    block = header.private_block(0x0019, "ACME", create=True)
    block.add_new(0x01, "LO", "secret")
    made = read(study_report([ClipResult(header=header)]))
    assert "StationName" not in made
    assert "OperatorsName" not in made
    assert (0x0019, 0x0010) not in made


def test_the_attributes_of_patient_and_study_are_those_of_the_standard() -> None:
    from highdicom._standard_utils import get_module_attribute_map

    modules = get_module_attribute_map()
    standard = {
        attribute["keyword"]
        for module in (
            "patient", "clinical-trial-subject", "general-study", "patient-study",
            "clinical-trial-study",
        )
        for attribute in modules[module]
        if not attribute["path"]
    }  # fmt: skip
    ours = {*PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES}
    assert standard - ours == set()
    assert ours - standard == {"EthnicGroup", "OtherPatientIDs"}  # retired, still sent


def test_a_predecessor_in_another_series_is_named_there() -> None:
    before = ObjectRef(
        sop_class_uid=ComprehensiveSRStorage, sop_instance_uid="1.2.3.4",
        series_instance_uid="1.2.3", study_instance_uid=str(source_header().StudyInstanceUID),
    )  # fmt: skip
    made = read(study_report(revision=3, predecessor=before))
    series = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.3"
