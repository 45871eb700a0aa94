"""The saliency cine plays at the source's pace, is labelled right and names its source."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit

from models.explain import panels
from node.results import ResultError, check_object
from node.results.jpeg import read_jpeg_layout
from tests.results_examples import (
    CAPTURE_CLASS,
    CREATED_AT,
    SETTINGS,
    capture_of,
    jpeg,
    network_findings,
    person_findings,
    picture,
    put_bytes,
    read,
    source_header,
    tracing_findings,
)


@pytest.fixture(scope="module")
def capture() -> Dataset:
    return read(capture_of(source_header(1)))


def test_it_is_a_derived_colour_cine_without_identifying_text(capture: Dataset) -> None:
    assert capture.SOPClassUID == CAPTURE_CLASS
    assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
    assert capture.ConversionType == "WSD"
    assert capture.BurnedInAnnotation == "NO"
    assert capture.BodyPartExamined == "HEART"
    assert (capture.SeriesNumber, capture.SeriesDescription) == (902, "AI saliency (RESEARCH)")
    assert "RESEARCH USE ONLY" in capture.DerivationDescription
    assert "lv 0.1.0" in capture.DerivationDescription


def test_the_frames_go_in_as_they_are_and_come_out_as_colour_pictures(capture: Dataset) -> None:
    assert capture.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert capture.PhotometricInterpretation == "YBR_FULL_422"
    frames = list(generate_frames(capture.PixelData, number_of_frames=4))
    assert [frame.rstrip(b"\x00") for frame in frames] == [
        frame.rstrip(b"\x00") for frame in picture().jpeg_frames
    ]
    assert capture.pixel_array.shape == (4, 48, 64, 3)
    assert capture.pixel_array.dtype == np.uint8


def test_the_drawing_rooms_own_encoding_fits() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 62, 3), dtype=np.uint8)
    drawn = panels.Picture(
        frames=frames,
        rows=40,
        columns=62,
        frame_times_ms=(33.3, 66.6, 99.9),
        source_frames=(1, 2, 3),
        title="SmoothGrad of the ejection fraction",
    )
    made = capture_of(source_header(1), panels.encode(drawn))
    assert check_object(made) == ()
    assert read(made).FrameTime == 33.3


def test_even_frame_times_are_one_frame_time(capture: Dataset) -> None:
    assert capture.FrameIncrementPointer == 0x00181063
    assert capture.FrameTime == 100.0
    assert capture.CineRate == capture.RecommendedDisplayFrameRate == 10


def test_uneven_frame_times_are_kept_as_a_vector() -> None:
    made = capture_of(source_header(1), picture((0.0, 20.0, 50.0, 70.0)))
    dataset = read(made)
    assert dataset.FrameIncrementPointer == 0x00181065
    assert [float(each) for each in dataset.FrameTimeVector] == [0.0, 20.0, 30.0, 20.0]
    assert "FrameTime" not in dataset
    assert dataset.CineRate == 43
    assert check_object(made) == ()


def test_a_single_picture_does_not_play() -> None:
    made = capture_of(source_header(1), picture((0.0,)))
    dataset = read(made)
    assert dataset.NumberOfFrames == 1
    assert "FrameIncrementPointer" not in dataset
    assert check_object(made) == ()


def test_it_names_the_frames_of_the_clip_that_it_shows(capture: Dataset) -> None:
    source = capture.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == source_header(1).SOPInstanceUID
    assert list(source.ReferencedFrameNumber) == [1, 3, 5, 7]
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_what_the_source_lost_before_is_told_before_what_was_lost_here() -> None:
    header = source_header(
        1, LossyImageCompression="01", LossyImageCompressionRatio=["12.5"],
        LossyImageCompressionMethod="ISO_15444_1",
    )  # fmt: skip
    dataset = read(capture_of(header))
    assert list(dataset.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]
    ratios = [float(each) for each in dataset.LossyImageCompressionRatio]
    size = sum(len(frame) for frame in picture().jpeg_frames)
    assert ratios == [12.5, round(4 * 48 * 64 * 3 / size, 3)]


def test_a_ratio_without_its_method_is_not_passed_on() -> None:
    header = source_header(
        1, LossyImageCompression="01", LossyImageCompressionRatio="9",
        LossyImageCompressionMethod=None,
    )  # fmt: skip
    dataset = read(capture_of(header))
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
    assert dataset["LossyImageCompressionRatio"].VM == 1


def test_a_ratio_that_is_no_number_is_not_passed_on() -> None:
    header = source_header(1, LossyImageCompression="01", LossyImageCompressionMethod="X")
    put_bytes(header, "LossyImageCompressionRatio", b"about 9 ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the value
        dataset = read(capture_of(header))
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"


def test_it_says_on_which_evidence_and_names_nothing_that_is_kept_back() -> None:
    everything = (*tracing_findings(), *network_findings(), *person_findings())
    header = source_header(1)
    open_words = read(capture_of(header, findings=everything)).DerivationDescription
    assert "Left ventricular ejection fraction" in open_words
    assert "FOR DEMONSTRATION" in open_words
    assert "Model estimate of age" not in open_words
    kept = replace(SETTINGS, simulated_evidence=False)
    words = read(capture_of(header, findings=everything, settings=kept)).DerivationDescription
    assert "FOR DEMONSTRATION" not in words
    assert "dilation" in open_words
    assert "dilation" not in words


def test_a_long_title_does_not_push_the_research_words_out() -> None:
    made = capture_of(source_header(1), replace(picture(), title="x" * 1200))
    words = read(made).DerivationDescription
    assert words.startswith("RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE.")
    assert len(words) <= 1024
    assert check_object(made) == ()


def test_the_uid_depends_on_what_is_shown_and_not_on_noise_or_time() -> None:
    first = capture_of(source_header(1)).ref
    again = capture_of(
        source_header(1), picture(seed=9), instance_number=4,
        created_at=CREATED_AT + timedelta(hours=1),
    )  # fmt: skip
    assert again.ref == first
    assert capture_of(source_header(2)).ref.sop_instance_uid != first.sop_instance_uid
    other = capture_of(source_header(1), findings=tracing_findings(40.0)).ref
    assert other.sop_instance_uid != first.sop_instance_uid
    assert other.series_instance_uid == first.series_instance_uid


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"jpeg_frames": (), "frame_times_ms": ()}, "no frames"),
        ({"frame_times_ms": (0.0, 1.0)}, "4 frames, 2 frame times"),
        ({"frame_times_ms": (0.0, 10.0, 10.0, 20.0)}, "do not increase"),
        ({"rows": 50}, "48 x 64 pixels instead of 50 x 64"),
        ({"jpeg_frames": (jpeg(subsampling=2),) * 4}, "4:2:2"),
        ({"jpeg_frames": (jpeg(mode="L"),) * 4}, "in colour"),
        ({"jpeg_frames": (b"no picture",) * 4}, "not JPEG"),
    ],
)
def test_a_picture_that_does_not_fit_together_is_refused(
    wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(ResultError, match=words):
        capture_of(source_header(1), replace(picture(), **wrong))  # type: ignore[arg-type]


def test_a_jpegs_layout_is_read_from_its_header() -> None:
    layout = read_jpeg_layout(jpeg(rows=40, columns=62))
    assert layout is not None
    assert (layout.rows, layout.columns, layout.is_baseline_422) == (40, 62, True)
    full = read_jpeg_layout(jpeg(subsampling=0))
    assert full is not None
    assert not full.is_baseline_422
    assert read_jpeg_layout(jpeg()[:-40]) is None
    assert read_jpeg_layout(b"\xff\xd8\xff\xd9") is None
