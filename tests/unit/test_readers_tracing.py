"""What a tracing reader makes of tracings that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import special

from models import measure
from models.clip import Clip
from models.finding import Method
from models.packs import load_pack
from models.readers import TracingReader, tracing

_LV = Path(tracing.__file__).parents[1] / "packs" / "lv"
_SHAPE = (300, 260)


def _labels(cavity: float, atrium: float) -> np.ndarray:
    """A heart with a cavity and an atrium of these radii across, in pixels."""
    row, column = np.mgrid[: _SHAPE[0], : _SHAPE[1]]
    up, aside = 170 - row, column - _SHAPE[1] / 2
    labels = np.zeros(_SHAPE, np.uint8)
    labels[(up > 0) & ((up / 145) ** 2 + (aside / (cavity + 18)) ** 2 < 1)] = measure.MYOCARDIUM
    labels[(up > 0) & ((up / 130) ** 2 + (aside / cavity) ** 2 < 1)] = measure.CAVITY
    labels[(up <= 0) & ((up / 90) ** 2 + (aside / atrium) ** 2 < 1)] = measure.ATRIUM
    return labels


class _Planted(TracingReader):
    """Traces what it is told."""

    masks: np.ndarray

    def trace(self, clip: Clip) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
        times = np.asarray(clip.time_axis.times_ms, np.float64)
        return self.masks, tuple(range(len(self.masks))), times


def _read(masks: np.ndarray, outputs: tuple[str, ...]) -> tracing.TracingReading:
    pack = load_pack(_LV)
    known = {output.name: output for output in pack.manifest.outputs}
    area = known["la_area"]
    known["la_volume"] = area.model_copy(
        update={"name": "la_volume", "unit": "mL", "low_error": -9.0, "high_error": 12.0}
    )
    chosen = tuple(known[name] for name in outputs)
    reader = _Planted(
        type(pack)(
            folder=pack.folder, manifest=pack.manifest.model_copy(update={"outputs": chosen})
        )
    )
    reader.masks = masks
    frames = np.full((len(masks), *_SHAPE), 90, np.uint8)
    return reader.read(Clip.from_frames(frames, frame_time_ms=40.0, spacing_mm=0.5))


def _beat(frames: int = 26) -> np.ndarray:
    """One beat from its end diastole: the cavity from 44 to 33 pixels and back, the atrium
    largest at end systole."""
    share = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / (frames - 1))
    return np.stack([_labels(44 - 11 * one, 36 + 8 * one) for one in share])


def test_the_atrium_is_measured_where_it_is_largest() -> None:
    masks = _beat()
    found = {one.output: one for one in _read(masks, ("la_area", "la_volume")).findings}
    end_systole = len(masks) // 2
    largest = measure.measure_atrium(masks[end_systole], 0.5, 0.5)
    assert found["la_volume"].value == pytest.approx(largest.volume_ml, rel=0.02)
    assert found["la_area"].value == pytest.approx(largest.area_cm2, rel=0.02)
    assert abs(found["la_volume"].frames[0] - end_systole) <= 1
    assert found["la_volume"].method is Method.AREA_LENGTH
    assert found["la_area"].method is Method.AREA
    assert found["la_volume"].low == pytest.approx(found["la_volume"].value - 9.0)


def test_one_wild_frame_does_not_make_the_atrium_large() -> None:
    masks = _beat()
    calm = _read(masks, ("la_volume",)).findings[0].value
    masks[3] = _labels(43.9, 70)
    wild = _read(masks, ("la_volume",)).findings[0].value
    assert wild == pytest.approx(calm, rel=0.02)


def test_an_atrium_that_most_frames_cut_off_is_refused_with_the_reason() -> None:
    masks = _beat()
    masks[:, 200:204] = 0
    reading = _read(masks, ("ef", "la_volume"))
    assert [one.output for one in reading.findings] == ["ef"]
    assert reading.refusals[0].reason == "the traced atrium is in pieces"


def test_beats_are_those_of_the_tracing() -> None:
    masks = np.concatenate([_beat(), _beat()[1:], _beat()[1:]])
    reading = _read(masks, ("ef", "edv", "esv"))
    found = {one.output: one.value for one in reading.findings}
    big, small = (measure.measure_ventricle(_labels(r, 40), 0.5, 0.5).volume_ml for r in (44, 33))
    assert len(reading.ed_frames) == 3
    assert found["edv"] == pytest.approx(big, rel=0.03)
    assert found["esv"] == pytest.approx(small, rel=0.05)
    assert found["ef"] == pytest.approx(100 * (1 - small / big), abs=2.5)
    for one in reading.findings:
        assert len(one.per_beat) == 3
        assert one.value == pytest.approx(np.mean(one.per_beat))


def test_chances_by_planes_are_those_of_the_softmax() -> None:
    logits = np.random.default_rng(6).normal(scale=6.0, size=(5, 7, 4)).astype(np.float32)
    expected = np.moveaxis(special.softmax(logits, axis=-1), -1, 0)
    kept = logits.copy()
    np.testing.assert_allclose(tracing._chances(logits), expected, rtol=1e-6)
    np.testing.assert_array_equal(logits, kept)  # what the network gave stays as it is
