"""The picture of an ECG: pages to turn, its source a waveform, and single pages where need be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    TwelveLeadECGWaveformStorage,
)

from node.results import EncodedObject, ResultError, build_key_object, check_object
from node.results.alternatives import form_for
from node.results.capture import single_frames
from tests.ecg_results_examples import (
    ecg_capture_of,
    ecg_header,
    ecg_picture,
    ecg_report,
    rhythm_findings,
    study_ecgs,
)
from tests.results_examples import CREATED_AT, SETTINGS, jpeg, read, study_clips

MULTI_FRAME = MultiFrameTrueColorSecondaryCaptureImageStorage


@pytest.fixture(scope="module")
def capture() -> Dataset:
    return read(ecg_capture_of(ecg_header(1)))


def test_pages_are_numbered_and_nothing_plays_them(capture: Dataset) -> None:
    assert capture.SOPClassUID == MULTI_FRAME
    assert capture.NumberOfFrames == 3
    assert capture.FrameIncrementPointer == 0x00182001
    assert [int(each) for each in capture.PageNumberVector] == [1, 2, 3]
    for keyword in ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"):
        assert keyword not in capture
    assert check_object(ecg_capture_of(ecg_header(1))) == ()


def test_its_source_is_a_waveform_and_no_image(capture: Dataset) -> None:
    assert "SourceImageSequence" not in capture
    (source,) = capture.SourceInstanceSequence
    assert source.ReferencedSOPClassUID == TwelveLeadECGWaveformStorage
    assert source.ReferencedSOPInstanceUID == ecg_header(1).SOPInstanceUID


def test_it_lies_in_the_study_of_the_ecg_in_a_series_of_its_own(capture: Dataset) -> None:
    header = ecg_header(1)
    assert capture.StudyInstanceUID == header.StudyInstanceUID
    assert capture.PatientID == header.PatientID
    assert (capture.SeriesNumber, capture.SeriesDescription) == (912, "AI ECG (RESEARCH)")
    assert capture.Modality == "OT"
    assert capture.BurnedInAnnotation == "NO"
    assert "Laterality" not in capture
    assert capture.BodyPartExamined == "HEART"
    assert "simulated ECGs" in capture.DerivationDescription
    assert "ecg-rhythm 0.1.0" in capture.DerivationDescription


def test_one_page_is_a_picture_of_one_frame() -> None:
    made = ecg_capture_of(ecg_header(1), ecg_picture(1))
    assert made.ref.sop_class_uid == SecondaryCaptureImageStorage
    assert check_object(made) == ()
    assert "NumberOfFrames" not in read(made)
    assert read(made).pixel_array.shape == (48, 64, 3)


def test_the_uid_is_of_what_is_shown_and_not_of_its_pixels() -> None:
    header, shown = ecg_header(1), ecg_picture()
    again = replace(shown, jpeg_frames=tuple(jpeg(seed=seed) for seed in (7, 8, 9)))
    first = ecg_capture_of(header, shown).ref
    assert ecg_capture_of(header, again, instance_number=4).ref == first
    fewer = ecg_capture_of(header, shown, findings=rhythm_findings()[:2]).ref
    other = ecg_capture_of(ecg_header(2), shown).ref
    assert len({each.sop_instance_uid for each in (first, fewer, other)}) == 3


def test_a_picture_without_pages_or_with_others_than_it_says_is_refused() -> None:
    with pytest.raises(ResultError, match="no frames"):
        ecg_capture_of(ecg_header(1), ecg_picture(0))
    with pytest.raises(ResultError, match="48 x 64 pixels instead of 50 x 64"):
        ecg_capture_of(ecg_header(1), replace(ecg_picture(), rows=50))


# For an archive that refuses the class of several frames.


@pytest.fixture(scope="module")
def pages() -> tuple[EncodedObject, ...]:
    made = form_for(ecg_capture_of(ecg_header(1)).data, {MULTI_FRAME})
    assert made is not None
    return made


def test_every_page_becomes_a_picture_of_its_own(pages: tuple[EncodedObject, ...]) -> None:
    whole = read(ecg_capture_of(ecg_header(1)))
    assert [check_object(each) for each in pages] == [(), (), ()]
    for number, each in enumerate(pages, start=1):
        single = read(each)
        assert single.SOPClassUID == SecondaryCaptureImageStorage
        assert single.DerivationDescription.startswith(f"Page {number} of 3. ")
        assert single.SourceInstanceSequence == whole.SourceInstanceSequence
        for keyword in ("NumberOfFrames", "FrameIncrementPointer", "PageNumberVector"):
            assert keyword not in single
        assert get_frame(single.PixelData, 0, number_of_frames=1) == get_frame(
            whole.PixelData, number - 1, number_of_frames=3
        )


def test_of_six_pages_none_is_left_out() -> None:
    made = single_frames(ecg_capture_of(ecg_header(1), ecg_picture(6)).data)
    assert len(made) == 6
    assert len({each.ref.sop_instance_uid for each in made}) == 6


@pytest.mark.parametrize("refused", [set(), {Comprehensive3DSRStorage}], ids=["3D SR", "SR"])
def test_the_report_then_points_at_the_page_that_explains_each_group(
    pages: tuple[EncodedObject, ...], refused: set[str]
) -> None:
    report, capture = ecg_report(), ecg_capture_of(ecg_header(1)).ref
    here = [each.ref for each in pages]
    made = form_for(report.data, refused, {capture.sop_instance_uid: here})
    assert made is not None
    (pointing,) = made
    assert check_object(pointing) == ()
    assert _pointed_at(read(pointing)) == [here[page].sop_instance_uid for page in (0, 1, 2, 0)]


def test_a_point_lies_on_one_page_also_where_the_report_names_none(
    pages: tuple[EncodedObject, ...],
) -> None:
    first, *_ = study_ecgs()
    report = ecg_report([replace(first, pages=())])
    capture = ecg_capture_of(ecg_header(1)).ref
    here = [each.ref for each in pages]
    (pointing,) = form_for(report.data, (), {capture.sop_instance_uid: here}) or ()
    assert check_object(pointing) == ()
    assert set(_pointed_at(read(pointing))) == {here[0].sop_instance_uid}


def _pointed_at(report: Dataset) -> list[str]:
    """The picture on which each group has its point."""
    found = []
    for container in report.ContentSequence:
        if container.ConceptNameCodeSequence[0].CodeMeaning != "Imaging Measurements":
            continue
        for group in container.ContentSequence:
            (point,) = (item for item in group.ContentSequence if item.ValueType == "SCOORD")
            (image,) = point.ContentSequence
            found.append(str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
    return found


# Key images.


def _key_object(clips: tuple[object, ...], ecgs: tuple[object, ...]) -> EncodedObject:
    return build_key_object(
        clips,  # type: ignore[arg-type]
        ecgs=ecgs,  # type: ignore[arg-type]
        revision=1,
        settings=SETTINGS,
        created_at=CREATED_AT,
    )


def test_key_images_are_the_ecg_that_was_read_and_its_picture() -> None:
    made = _key_object((), study_ecgs())
    assert check_object(made) == ()
    items = [
        (item.ValueType, str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
        for item in read(made).ContentSequence
        if "ReferencedSOPSequence" in item
    ]
    assert items == [
        ("WAVEFORM", ecg_header(1).SOPInstanceUID),
        ("IMAGE", ecg_capture_of(ecg_header(1)).ref.sop_instance_uid),
    ]
    dataset = read(made)
    assert (dataset.SeriesNumber, dataset.SeriesDescription) == (
        915,
        "AI ECG key images (RESEARCH)",
    )


def test_clips_and_ecgs_of_one_study_share_their_key_images_and_others_do_not() -> None:
    clips = study_clips()[:1]
    with pytest.raises(ResultError, match="several studies"):
        _key_object(clips, study_ecgs())
    first, *_ = study_ecgs()
    header = ecg_header(1, StudyInstanceUID=clips[0].header.StudyInstanceUID)
    both = _key_object(clips, (replace(first, header=header, capture=None),))
    assert check_object(both) == ()
    words = next(
        str(item.TextValue)
        for item in read(both).ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Key Object Description"
    )
    assert "1 clip and 1 ECG read by" in words
