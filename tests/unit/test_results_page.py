"""The summary page: what stands on it, what never does, and that viewers and judges take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from models.explain import panels
from models.explain.panels import Shown, ShownTracing
from models.finding import Finding
from models.views import View, ViewCall
from node.results import ClipResult, EncodedObject, ResultError, build_page, check_object
from node.results import page as page_module
from node.results.cine import read_cine
from node.results.page_drawing import WIDTH, Page, draw_page
from tests.results_examples import (
    A4C,
    CREATED_AT,
    ECHONET,
    LV,
    SETTINGS,
    capture_of,
    network_findings,
    read,
    source_header,
    study_clips,
    tracing_findings,
)


def _clip(
    number: int = 1, findings: Sequence[Finding] | None = None, **changes: Any
) -> tuple[ClipResult, EncodedObject]:
    """An A4C clip with a cine that a painter drew: three beats of a square heart."""
    header = source_header(number, SeriesNumber=2, NumberOfFrames=12, **changes)
    frames = np.full((12, 60, 80), 90, np.uint8)
    masks = np.zeros(frames.shape, np.uint8)
    masks[:, 20:40, 30:50] = 1
    given = tracing_findings() if findings is None else tuple(findings)
    shown = Shown(
        frame_times_ms=tuple(50.0 * at for at in range(12)),
        source_frames=tuple(range(12)),
        clip_frames=12,
        findings=given,
        tracing=ShownTracing(
            masks=masks,
            frames=tuple(range(12)),
            classes=("background", "cavity"),
            ed_frames=(2,),
            es_frames=(7,),
            volumes_ml=np.linspace(110, 60, 12),
        ),
    )
    cine = capture_of(header, panels.encode(panels.draw_clip(frames, shown)), findings=given)
    clip = ClipResult(header=header, view=A4C, findings=given, capture=cine.ref, packs=(LV,))
    return clip, cine


def _made(clips: Sequence[ClipResult], *cines: EncodedObject, **changes: Any) -> EncodedObject:
    settings: dict[str, Any] = {
        "revision": 1, "settings": SETTINGS, "created_at": CREATED_AT, **changes,
    }  # fmt: skip
    return build_page(clips, {cine.ref.sop_instance_uid: cine.data for cine in cines}, **settings)


def _pixels(page: EncodedObject) -> NDArray[np.uint8]:
    frame = get_frame(read(page).PixelData, 0, number_of_frames=1)
    return np.asarray(Image.open(BytesIO(frame)))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """The pages that are drawn, with their words."""
    pages: list[Page] = []

    def draw(page: Page) -> NDArray[np.uint8]:
        pages.append(page)
        return draw_page(page)

    monkeypatch.setattr(page_module, "draw_page", draw)
    return pages


def test_it_is_one_frame_in_a_series_of_its_own_and_names_the_clips_it_came_from() -> None:
    clip, cine = _clip()
    made = _made([clip, *study_clips()[1:]], cine)
    assert check_object(made) == ()
    page = read(made)
    assert page.SOPClassUID == SecondaryCaptureImageStorage
    assert made.transfer_syntax_uid == JPEGBaseline8Bit
    assert page.BurnedInAnnotation == "NO"
    assert page.SeriesInstanceUID != read(cine).SeriesInstanceUID
    assert "RESEARCH" in page.SeriesDescription
    assert [item.ReferencedSOPInstanceUID for item in page.SourceImageSequence] == [
        clip.header.SOPInstanceUID
    ]
    assert _pixels(made).shape == (page.Rows, page.Columns, 3)
    assert page.Columns == WIDTH


def test_value_interval_evidence_clips_and_what_was_not_analysed_stand_on_it(
    drawn: list[Page],
) -> None:
    clip, cine = _clip(1, (*tracing_findings(), *network_findings()))
    others = [
        ClipResult(
            header=source_header(number),
            view=ViewCall(view=View.IVC, score=0.9, certain=True),
            not_analysed="the models read apical four-chamber clips, not ivc",
        )
        for number in (2, 3)
    ]
    broken = ClipResult(header=source_header(4), not_analysed="cannot be decoded")
    tested = {
        (LV, "ef"): "CAMUS, 50 patients: mean absolute error 6",
        (ECHONET, "lvh"): "CAMUS, 50 patients: HARDLY BETTER THAN CHANCE",
    }
    _made([clip, *others, broken], cine, tested_on=tested)
    page = drawn[0]
    assert (page.headline.name, page.headline.value) == ("LV ejection fraction", "58 %")
    words = "\n".join(page.words)
    for wanted in (
        "95 % interval 50 to 66 %",
        "Tested on patients: CAMUS, 50 patients",
        "On CAMUS, 50 patients",
        "LV hypertrophy by echonet 0.2.0: HARDLY BETTER THAN CHANCE",
        "End-diastolic volume 102 mL (90 to 115)",
        "58 % (50 to 66)",
        "SIMULATED ONLY",
        "Series 2 image 1: apical four-chamber, score 0.93",
        "2 clips of views that no model measures: subcostal inferior vena cava 2",
        "1 clip: cannot be decoded",
    ):
        assert wanted in words
    assert {row.by for row in page.rows} == {"lv 0.1.0", "echonet 0.2.0"}


def test_the_curve_and_the_stills_come_from_the_cine(drawn: list[Page]) -> None:
    clip, cine = _clip()
    _made([clip], cine)
    page = drawn[0]
    assert [still.title for still in page.stills] == [
        "End diastole · Series 2 image 1 · frame 3",
        "End systole · Series 2 image 1 · frame 8",
    ]
    film = read_cine(cine.data)
    for still, number in zip(page.stills, (3, 8), strict=True):
        expected = film.tracing(number)
        assert expected is not None
        np.testing.assert_array_equal(still.pixels, expected)
        assert still.pixels.shape[1] / still.pixels.shape[0] == pytest.approx(80 / 60, rel=0.02)
    (curve,) = page.curves
    assert curve.curve.values == tuple(np.linspace(110, 60, 12).round(3))
    assert curve.diastoles_ms == pytest.approx((100.0,))
    assert curve.systoles_ms == pytest.approx((350.0,))


def test_without_a_cine_or_a_value_there_is_a_page_of_words(drawn: list[Page]) -> None:
    clip, _ = _clip()
    assert check_object(_made([clip])) == ()
    nothing = ClipResult(header=source_header(1), view=A4C, packs=(LV,))
    assert check_object(_made([nothing])) == ()
    assert drawn[1].headline.value == "not given"
    assert (drawn[0].stills, drawn[0].curves) == ((), ())


def test_what_is_kept_back_is_not_on_it(drawn: list[Page]) -> None:
    clip, cine = _clip(1, network_findings())
    _made([clip], cine, settings=replace(SETTINGS, simulated_evidence=False))
    words = " ".join(drawn[0].words)
    assert "hypertrophy" in words
    assert "dilation" not in words
    assert "SIMULATED" not in words


def test_the_same_study_gives_one_uid_and_another_answer_another() -> None:
    clip, cine = _clip()
    first = _made([clip], cine).ref
    again = _made([clip], cine, created_at=CREATED_AT + timedelta(hours=2)).ref
    assert again == first
    other, other_cine = _clip(1, tracing_findings(40.0))
    assert _made([other], other_cine).ref.sop_instance_uid != first.sop_instance_uid
    assert _made([clip], cine, revision=2).ref.sop_instance_uid != first.sop_instance_uid
    assert _made([clip], cine, revision=2).ref.series_instance_uid == first.series_instance_uid


def test_a_name_in_a_header_or_in_a_reason_is_not_drawn(drawn: list[Page]) -> None:
    named = {"PatientName": "Zebulon^Quux", "PatientID": "MRN-77123", "AccessionNumber": "A4711"}
    broken = ClipResult(
        header=source_header(2, **named),
        not_analysed="cannot be decoded: what of Zebulon, MRN-77123 (A4711)?",
    )
    pages = []
    for names in (named, {"PatientName": "Other^Name", "PatientID": "1", "AccessionNumber": ""}):
        clip, cine = _clip(1, **names)
        pages.append(_pixels(_made([clip], cine)))
        _made([clip, broken], cine)
    # The same page, pixel by pixel, whoever the patient is.
    np.testing.assert_array_equal(*pages)
    words = " ".join(drawn[1].words)
    assert "cannot be decoded: what of [...], [...] ([...])" in words
    for part in ("Zebulon", "Quux", "77123", "4711"):
        assert all(part not in " ".join(page.words) for page in drawn)


def test_many_clips_are_counted_and_the_page_stays_on_a_screen(drawn: list[Page]) -> None:
    clips = [
        ClipResult(header=source_header(number), view=A4C, findings=tracing_findings())
        for number in range(1, 9)
    ]
    reasons = [
        ClipResult(header=source_header(number), not_analysed=f"reason {number} " * 30)
        for number in range(10, 50)
    ]
    made = _made([*clips, *reasons])
    assert check_object(made) == ()
    assert len(drawn[0].clips) == page_module.MOST_CLIPS
    assert "4 more clips: see the report" in " ".join(drawn[0].words)
    assert read(made).Rows <= 2050


def test_bad_material_is_refused() -> None:
    clip, _ = _clip()
    with pytest.raises(ResultError, match="revision 0"):
        _made([clip], revision=0)
    with pytest.raises(ResultError):
        _made([])


def test_headers_in_bytes_that_nobody_can_read_do_not_matter() -> None:
    header: Dataset = source_header(1, SpecificCharacterSet="ISO_IR 100", PatientName="Ä^Ö")
    clip = ClipResult(header=header, view=A4C, findings=tracing_findings(), packs=(LV,))
    assert check_object(_made([clip])) == ()
