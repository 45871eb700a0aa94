"""Burned In Annotation says NO: whatever stands on the screen or in the header, it is not drawn."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.examples import get_path
from pydicom.uid import ExplicitVRLittleEndian

from models.clip import read_clip, read_header
from models.explain import ink, panels
from models.explain.panels import Shown, ShownTracing
from node.results import ClipResult, EncodedObject, build_page
from node.results.capture import single_frames
from tests.results_examples import (
    A4C,
    CREATED_AT,
    LV,
    SETTINGS,
    capture_of,
    read,
    tracing_findings,
)

NAME, NUMBER = "ZEBULON QUUX", "MRN-77123"
FRAMES = 6


def _source(name: str, number: str) -> bytes:
    """pydicom's real cine, with this name in its header and, in every frame, beside the sector."""
    source = dcmread(get_path("ybr_color"))
    frames = source.pixel_array[:FRAMES]
    drawn = []
    for frame in frames:
        image = Image.fromarray(frame)
        draw = ImageDraw.Draw(image)
        ink.write(draw, (6, 12), f"{name} {number}", size=15, colour=(255, 255, 255))
        ink.write(draw, (6, 226), f"{number} {name}", size=15, colour=(255, 255, 255))
        drawn.append(np.asarray(image))
    source.PatientName, source.PatientID = name.replace(" ", "^"), number
    source.PhotometricInterpretation = "RGB"
    source.NumberOfFrames = FRAMES
    for keyword in ("FrameTimeVector", "LossyImageCompressionRatio"):
        if keyword in source:
            delattr(source, keyword)
    source.FrameTime = 33.3
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source.PixelData = np.stack(drawn).tobytes()
    source["PixelData"].VR = "OB"
    source["PixelData"].is_undefined_length = False
    buffer = BytesIO()
    source.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _results(data: bytes) -> list[EncodedObject]:
    """The cine, its single frames and the page of a source; a box stands for what models trace."""
    clip, header = read_clip(data), read_header(data)
    frames = clip.frames(range(FRAMES))
    masks = np.zeros(frames.shape, np.uint8)
    masks[:, 40:90, 100:150] = 1
    findings = tracing_findings()
    shown = Shown(
        frame_times_ms=tuple(33.3 * at for at in range(FRAMES)),
        source_frames=tuple(range(FRAMES)),
        clip_frames=FRAMES,
        findings=findings,
        tracing=ShownTracing(
            masks=masks,
            frames=tuple(range(FRAMES)),
            classes=("background", "cavity"),
            ed_frames=(1,),
            es_frames=(4,),
        ),
    )
    cine = capture_of(header, panels.encode(panels.draw_clip(frames, shown)), findings=findings)
    study = ClipResult(header=header, view=A4C, findings=findings, capture=cine.ref, packs=(LV,))
    page = build_page(
        [study],
        {cine.ref.sop_instance_uid: cine.data},
        revision=1,
        settings=SETTINGS,
        created_at=CREATED_AT,
    )
    return [cine, *single_frames(cine.data), page]


def _drawn(made: EncodedObject) -> list[NDArray[np.uint8]]:
    dataset = read(made)
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = generate_frames(dataset.PixelData, number_of_frames=count)
    return [np.asarray(Image.open(BytesIO(frame))) for frame in frames]


@pytest.fixture(scope="module")
def named() -> list[EncodedObject]:
    return _results(_source(NAME, NUMBER))


def test_a_name_on_the_screen_and_in_the_header_changes_no_pixel_of_any_picture(
    named: list[EncodedObject],
) -> None:
    other = _results(_source("", ""))
    assert len(named) == len(other) == 4
    for ours, theirs in zip(named, other, strict=True):
        for one, two in zip(_drawn(ours), _drawn(theirs), strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_header_has_the_name_and_the_words_of_ours_have_not(
    named: list[EncodedObject],
) -> None:
    for made in named:
        dataset = read(made)
        assert dataset.PatientName == "ZEBULON^QUUX"
        assert dataset.BurnedInAnnotation == "NO"
        for keyword in ("DerivationDescription", "SeriesDescription"):
            assert NAME.split()[0] not in str(dataset[keyword].value)


def test_the_screen_did_show_the_name() -> None:
    pixels = [dcmread(BytesIO(_source(*who))).pixel_array for who in ((NAME, NUMBER), ("", ""))]
    assert np.abs(pixels[0].astype(int) - pixels[1]).max() > 200
