"""An explained ECG's picture: a page of ECG paper with relevance along the traces."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models.ecg.explain import trace
from models.ecg.explain.paper import MOST_PAGES, EcgShown, draw_ecg, encode_pages
from models.ecg.explain.spans import MOST_SPANS, spans_ms
from models.ecg.recording import Doubt, Ecg, Strip, Trouble
from models.explain.panels import PictureSettings
from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal

RATE = 400.0
PACK = PackRef(name="ecg-rhythm", version="0.1", weights_sha256="0" * 64)
AF = Finding(
    output="atrial_fibrillation",
    kind=Kind.SCORE,
    value=0.93,
    score=0.93,
    threshold=0.5,
    unit="{score}",
    pack=PACK,
    evidence=Evidence.SIMULATED,
    method=Method.CLASSIFICATION,
    spans_ms=((400.0, 480.0),),
)


def _strip(seconds: float = 10.0, high_mv: float = 1.0) -> Strip:
    """A spike each second, in every lead."""
    times = np.arange(round(seconds * RATE)) / RATE
    beat = high_mv * np.exp(-(((times % 1.0) - 0.4) ** 2) / (2 * 0.01**2))
    return Strip(millivolts=np.tile(beat, (12, 1)).astype(np.float32), rate_hz=RATE)


def _relevance(strip: Strip, sign: float = 1.0) -> np.ndarray:
    strengths = np.arange(1, 13)[:, np.newaxis] / 12
    return (sign * strengths * strip.millivolts).astype(np.float32)


def _near(page: np.ndarray, colour: tuple[int, int, int], within: int = 24) -> int:
    """Pixels of about this colour."""
    return int((np.abs(page.astype(int) - colour).max(axis=-1) <= within).sum())


def test_a_page_has_even_sides_and_no_relevance_has_no_colour() -> None:
    page = draw_ecg(Ecg(rhythm=_strip()), EcgShown(findings=(AF,)))
    assert page.dtype == np.uint8
    assert page.shape[0] % 2 == 0
    assert page.shape[1:] == (1600, 3)
    assert 900 <= page.shape[0] <= 1300
    assert _near(page, trace.RAISES) == 0
    assert _near(page, trace.LOWERS) == 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_raises_and_what_lowers_have_their_own_colours(sign: float) -> None:
    strip = _strip()
    shown = EcgShown(relevance=_relevance(strip, sign), relevance_of=AF, method="LRP")
    paper = draw_ecg(Ecg(rhythm=strip), shown)[90:770]
    full, other = (trace.RAISES, trace.LOWERS) if sign > 0 else (trace.LOWERS, trace.RAISES)
    assert _near(paper, full) > 500
    assert _near(paper, other) == 0


def test_the_sign_can_be_told_in_grey_and_the_strength_by_thickness() -> None:
    def grey(colour: tuple[int, int, int]) -> float:
        return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]

    for strength in (0.3, 0.6, 1.0):
        assert grey(trace.colour_of(strength)) > grey(trace.colour_of(-strength)) + 15
    assert trace.thickness_of(0.01) == 0.0
    widths = [trace.thickness_of(s) for s in (0.1, 0.4, 0.7, 1.0)]
    assert widths == sorted(set(widths))
    assert trace.thickness_of(-0.7) == trace.thickness_of(0.7)


def test_relevance_of_one_sample_lies_where_that_sample_is() -> None:
    strip = _strip()
    relevance = np.zeros((12, 4000), np.float32)
    relevance[1, 2160:2170] = 1.0  # lead II at 5.4 s: only in the rhythm strip
    shown = EcgShown(relevance=relevance, relevance_of=AF)
    page = draw_ecg(Ecg(rhythm=strip), shown)[84:768]
    rows, columns = np.nonzero(np.abs(page.astype(int) - trace.RAISES).max(axis=-1) <= 24)
    assert len(rows)
    assert rows.min() > 3 * 160  # the fourth row
    middle = 20 + 54 + 5.41 * 25 * trace.PIXELS_PER_MM
    assert abs(columns.mean() - middle) < 4


def test_a_trace_is_as_high_and_as_wide_as_its_scale_says() -> None:
    paper = trace.Paper(400, 300, mm_per_s=25.0, mm_per_mv=10.0)
    values = np.zeros(800, np.float32)
    values[400:] = 1.0  # a step of 1 mV after a second
    paper.lead(values, RATE, 0.0, 200.0)
    dark = np.asarray(paper.picture()).max(axis=-1) < 60
    assert dark[199:202, 20].any()
    assert dark[139:142, 250].any()  # 10 mm higher
    assert not dark[160:180, 250].any()
    assert dark[170, 148:153].any()  # 25 mm further


def test_high_waves_are_drawn_at_half_the_gain() -> None:
    usual = draw_ecg(Ecg(rhythm=_strip()), EcgShown())
    high = draw_ecg(Ecg(rhythm=_strip(high_mv=6.0)), EcgShown())
    pulses = [page[84:768, 20:60].max(axis=-1) < 60 for page in (usual, high)]
    heights = [int(np.ptp(np.flatnonzero(one[:190].any(axis=1)))) for one in pulses]
    assert heights[0] == pytest.approx(60, abs=3)
    assert heights[1] == pytest.approx(30, abs=3)


def test_deep_waves_stay_on_the_paper_and_rows_keep_apart() -> None:
    strip = _strip()
    millivolts = strip.millivolts.copy()
    millivolts[1] *= -2.0  # lead II, the lowest row
    page = draw_ecg(Ecg(rhythm=replace(strip, millivolts=millivolts)), EcgShown())
    paper = page[84 : 84 + 114 * trace.PIXELS_PER_MM]
    columns = slice(20 + 54, 1580)
    assert not (paper[-6:, columns].max(axis=-1) < 60).any()
    lowest = np.flatnonzero((paper[:, columns].max(axis=-1) < 60).any(axis=1)).max()
    assert lowest > 600


def test_every_lead_of_a_short_recording_is_drawn() -> None:
    page = draw_ecg(Ecg(rhythm=_strip(4.0)), EcgShown())
    wide = round(2.5 * 25 * trace.PIXELS_PER_MM)
    for column in range(4):
        left = 20 + 54 + column * wide
        assert (page[84:500, left + 60 : left + wide - 10].max(axis=-1) < 60).any()


def test_missing_leads_short_and_long_recordings_and_troubles_are_drawn() -> None:
    strip = _strip()
    millivolts = strip.millivolts.copy()
    millivolts[[2, 11]] = np.nan
    missing = replace(strip, millivolts=millivolts)
    trouble = Trouble(doubt=Doubt.NOISY, words="more noise than waves", leads=("V1",))
    pages = [
        draw_ecg(Ecg(rhythm=missing, troubles=(trouble,)), EcgShown(relevance=_relevance(strip))),
        draw_ecg(Ecg(rhythm=_strip(3.3)), EcgShown(cautions=("few patients",))),
        draw_ecg(Ecg(rhythm=_strip(31.0)), EcgShown()),
        draw_ecg(
            Ecg(rhythm=replace(strip, millivolts=np.full_like(strip.millivolts, np.nan))),
            EcgShown(refusals=(Refusal(output="rbbb", reason="flat", pack=PACK),)),
        ),
    ]
    for page in pages:
        assert page.shape[1] == 1600
    # After its 3.3 s the rhythm strip of the short one is empty paper.
    end = 20 + 54 + round(3.4 * 25 * trace.PIXELS_PER_MM)
    assert not (pages[1][640:740, end:1570].max(axis=-1) < 60).any()
    assert (pages[2][640:740, end:1570].max(axis=-1) < 60).any()


def test_a_median_beat_takes_the_place_of_the_rhythm() -> None:
    beat = _strip(1.2)
    shown = EcgShown(relevance=_relevance(beat), relevance_of=AF, beat=beat)
    page = draw_ecg(Ecg(rhythm=_strip()), shown)
    assert _near(page[90:760], trace.RAISES) > 200
    with pytest.raises(ValueError, match=r"relevance is \(12, 480\)"):
        draw_ecg(Ecg(rhythm=_strip()), EcgShown(relevance=_relevance(beat)))


def test_pages_are_jpeg_of_one_size_and_no_more_than_six() -> None:
    strip = _strip()
    few = EcgShown(findings=(AF,), relevance=_relevance(strip), relevance_of=AF)
    long = replace(few, cautions=tuple(f"{n} " + "something to be known " * 12 for n in range(6)))
    picture = encode_pages(Ecg(rhythm=strip), [few, long], PictureSettings(quality=70))
    sizes = {Image.open(io.BytesIO(frame)).size for frame in picture.jpeg_frames}
    assert sizes == {(picture.columns, picture.rows)}
    assert picture.rows % 2 == 0
    assert list(np.diff(picture.frame_times_ms) > 0) == [True]
    assert picture.source_frames == ()
    assert len(encode_pages(Ecg(rhythm=strip), [few] * 8).jpeg_frames) == MOST_PAGES
    with pytest.raises(ValueError, match="at least one page"):
        encode_pages(Ecg(rhythm=strip), [])


def test_compression_keeps_traces_dark_and_signs_apart() -> None:
    strip = _strip()
    relevance = _relevance(strip)
    relevance[:, : 5 * 400] *= -1
    shown = EcgShown(relevance=relevance, relevance_of=AF)
    plain = draw_ecg(Ecg(rhythm=strip), shown)
    frame = encode_pages(Ecg(rhythm=strip), [shown]).jpeg_frames[0]
    coded = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB"))
    dark = plain.max(axis=-1) < 30
    assert coded[dark].mean() < 45
    for colour in (trace.RAISES, trace.LOWERS):
        there = np.abs(plain.astype(int) - colour).max(axis=-1) <= 4
        assert np.abs(coded[there].astype(int).mean(axis=0) - colour).max() < 20


def test_spans_are_where_relevance_is_the_most_telling_first() -> None:
    relevance = np.zeros((12, 4000), np.float32)
    for number, at in enumerate((500, 900, 1300, 1700, 2100, 2500, 2900)):
        relevance[3, at : at + 40] = (1.0 + 0.1 * number) * (-1) ** number
    relevance[5, 3500:3540] = 0.1  # too weak to be named
    spans = spans_ms(relevance, RATE)
    assert len(spans) == MOST_SPANS
    begins = [begin for begin, _ in spans]
    assert np.allclose(begins, [at * 2.5 for at in (2900, 2500, 2100, 1700, 1300)], atol=20)
    assert all(60 < end - begin < 160 for begin, end in spans)
    assert spans_ms(np.zeros((12, 100)), RATE) == ()
    assert spans_ms(np.full((12, 100), np.nan), RATE) == ()
