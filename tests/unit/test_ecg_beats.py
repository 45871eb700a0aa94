"""R peaks, the usual beat and the waves, against a cart's own marks and a simulator's truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from scipy.signal import resample_poly

from models.ecg.beats import Waves, delineate, heart_rate_bpm, median_beat, r_peaks
from models.ecg.reading import read_dicom_ecg
from models.ecg.recording import LEADS, EcgError, Strip
from models.ecg.simulator import EcgWanted, Rhythm, SimulatedEcg, draw_wanted, simulate_ecg


@pytest.fixture(scope="module")
def cart() -> Dataset:
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    assert isinstance(path, str)
    return dcmread(path)


@pytest.fixture(scope="module")
def real(cart: Dataset) -> Strip:
    return read_dicom_ecg(cart).rhythm


@pytest.fixture(scope="module")
def marks(cart: Dataset) -> list[dict[str, int]]:
    """The cart's own marks, in ms, of each beat."""
    beats: dict[int, dict[str, int]] = {}
    for note in cart.WaveformAnnotationSequence:
        if note.AnnotationGroupNumber >= 100:
            name = note.ConceptNameCodeSequence[0].CodeMeaning
            # The first sample is number 1 (PS3.3 C.10.10).
            place = note.ReferencedSamplePositions - 1
            beats.setdefault(note.AnnotationGroupNumber, {})[name] = place
    return list(beats.values())


def simulated(count: int) -> Iterator[SimulatedEcg]:
    for seed in range(count):
        yield simulate_ecg(draw_wanted(np.random.default_rng([11, seed])), seed)


# R peaks


def test_every_beat_is_found_where_the_cart_found_it(
    real: Strip, marks: list[dict[str, int]]
) -> None:
    peaks = r_peaks(real)
    assert len(peaks) == len(marks) == 10
    away = peaks - np.asarray([mark["Fiducial Point"] for mark in marks])
    assert abs(away).max() <= 3
    assert heart_rate_bpm(peaks, real.rate_hz) == pytest.approx(60_000 / 982, abs=1.0)


@pytest.mark.parametrize("rate_hz", [250, 360, 400, 500])
def test_the_rate_of_sampling_does_not_matter(real: Strip, rate_hz: int) -> None:
    slower = resample_poly(real.millivolts, rate_hz, 1000, axis=1, padtype="line")
    peaks = r_peaks(replace(real, millivolts=slower.astype(np.float32), rate_hz=float(rate_hz)))
    np.testing.assert_allclose(peaks / rate_hz, r_peaks(real) / 1000, atol=0.006)


def test_neither_polarity_nor_size_nor_wander_nor_noise_hides_a_beat(real: Strip) -> None:
    rng = np.random.default_rng(3)
    times = np.arange(real.millivolts.shape[1]) / real.rate_hz
    worse = -0.5 * real.millivolts + 1.5 * np.sin(2 * np.pi * 0.25 * times)
    worse += rng.normal(0, 0.05, worse.shape)
    peaks = r_peaks(replace(real, millivolts=worse.astype(np.float32)))
    np.testing.assert_allclose(peaks, r_peaks(real), atol=10)


def test_tall_t_waves_are_no_beats(real: Strip) -> None:
    taller = real.millivolts.copy()
    for peak in r_peaks(real):
        taller[:, peak + 120 : peak + 340] *= 3.0
    np.testing.assert_allclose(r_peaks(replace(real, millivolts=taller)), r_peaks(real), atol=5)


def test_a_lead_full_of_noise_does_not_drown_the_others(real: Strip) -> None:
    noisy = real.millivolts.copy()
    noisy[7] += np.random.default_rng(5).normal(0, 1.0, noisy.shape[1])
    peaks = r_peaks(replace(real, millivolts=noisy))
    assert len(peaks) == 10
    np.testing.assert_allclose(peaks, r_peaks(real), atol=25)


def test_nothing_is_found_in_a_flat_line_or_a_moment(real: Strip) -> None:
    assert len(r_peaks(replace(real, millivolts=np.zeros((12, 5000), np.float32)))) == 0
    assert len(r_peaks(replace(real, millivolts=real.millivolts[:, :100]))) == 0
    assert heart_rate_bpm(np.asarray([400]), 500.0) is None


def test_hearts_of_every_rhythm_give_up_their_beats() -> None:
    beats = found = extra = 0
    for one in simulated(40):
        strip = one.ecg.rhythm
        peaks = r_peaks(strip)
        near = np.abs(peaks[:, None] - one.r_peaks[None]) <= 0.08 * strip.rate_hz
        beats += len(one.r_peaks)
        found += int(near.any(axis=0).sum())
        # The simulator does not count a beat that the recording's end cuts through.
        inside = (peaks > 0.25 * strip.rate_hz) & (
            peaks < strip.millivolts.shape[1] - 0.25 * strip.rate_hz
        )
        extra += int((~near.any(axis=1) & inside).sum())
    assert beats > 400
    assert found >= 0.99 * beats
    assert extra <= 0.01 * beats


# The usual beat


def test_the_usual_beat_is_the_carts(cart: Dataset, real: Strip) -> None:
    median = read_dicom_ecg(cart).median
    assert median is not None
    beat = median_beat(real)
    assert beat.millivolts.shape == (12, 1200)
    theirs = median.millivolts - median.millivolts[:, 440:450].mean(axis=1, keepdims=True)
    apart = [
        # R is sample 500 of theirs, and 400 of ours; both know it to some ms.
        np.sqrt(np.square(theirs[:, 300 + off : 950 + off] - beat.millivolts[:, 200:850]).mean(1))
        for off in range(-4, 5)
    ]
    assert min(leads.max() for leads in apart) < 0.02


def test_what_does_not_look_alike_is_left_out(real: Strip) -> None:
    peaks = r_peaks(real)
    odd = real.millivolts.copy()
    for peak in peaks[[3, 6, 8]]:
        odd[:, peak - 100 : peak + 150] *= -2.0
    beat = median_beat(replace(real, millivolts=odd), peaks)
    np.testing.assert_allclose(beat.millivolts, median_beat(real, peaks).millivolts, atol=0.08)


def test_a_missing_lead_stays_missing_in_the_usual_beat(real: Strip) -> None:
    bare = real.millivolts.copy()
    bare[8] = np.nan
    beat = median_beat(replace(real, millivolts=bare), before_s=0.3, after_s=0.5)
    assert beat.millivolts.shape == (12, 800)
    assert np.isnan(beat.millivolts[8]).all()
    assert np.isfinite(np.delete(beat.millivolts, 8, axis=0)).all()


def test_without_a_beat_there_is_no_usual_one(real: Strip) -> None:
    flat = replace(real, millivolts=np.zeros((12, 5000), np.float32))
    with pytest.raises(EcgError, match="no heartbeat"):
        median_beat(flat)
    with pytest.raises(EcgError, match="no heartbeat"):
        delineate(flat, np.asarray([500, 1500]))
    with pytest.raises(EcgError, match="no heartbeat"):
        delineate(flat)


# Waves


def test_waves_begin_and_end_where_the_cart_has_them(
    real: Strip, marks: list[dict[str, int]]
) -> None:
    waves = delineate(real)
    assert len(waves) == len(marks)
    for wave, mark in zip(waves, marks, strict=True):
        assert wave.p is not None
        assert wave.t is not None
        assert wave.p[0] == pytest.approx(mark["P Onset"], abs=12)
        assert wave.p[1] == pytest.approx(mark["P Offset"], abs=16)
        assert wave.qrs[0] == pytest.approx(mark["QRS Onset"], abs=6)
        assert wave.qrs[1] == pytest.approx(mark["QRS Offset"], abs=6)
        assert wave.t[1] == pytest.approx(mark["T Offset"], abs=12)


def test_waves_of_simulated_hearts_are_where_they_were_put() -> None:
    qrs, t_ends, p_begins = [], [], []
    for one in simulated(25):
        for found, truth, ms in pairs(one):
            qrs.append((found.qrs[0] - truth.qrs[0]) * ms)
            qrs.append((found.qrs[1] - truth.qrs[1]) * ms)
            if found.t and truth.t:
                t_ends.append((found.t[1] - truth.t[1]) * ms)
            if found.p and truth.p:
                p_begins.append((found.p[0] - truth.p[0]) * ms)
    assert usual_error(qrs) < 8
    assert usual_error(t_ends) < 15
    assert usual_error(p_begins) < 15


def pairs(one: SimulatedEcg) -> Iterator[tuple[Waves, Waves, float]]:
    """Usual beats: the waves found, the true ones, and ms a sample."""
    strip = one.ecg.rhythm
    found = delineate(strip, one.r_peaks)
    for wave, truth, origin in zip(found, one.waves, one.origins, strict=True):
        if origin == 0:
            yield wave, truth, 1000 / strip.rate_hz


def usual_error(errors: list[float]) -> float:
    assert len(errors) > 100
    return float(np.percentile(np.abs(errors), 80))


def test_fibrillation_has_no_p_waves_and_sinus_rhythm_has() -> None:
    with_p: dict[Rhythm, list[bool]] = {Rhythm.SINUS: [], Rhythm.ATRIAL_FIBRILLATION: []}
    for seed in range(12):
        for rhythm, seen in with_p.items():
            one = simulate_ecg(EcgWanted(rhythm=rhythm, heart_rate_bpm=60.0 + 4 * seed), seed)
            share = np.mean([wave.p is not None for wave in delineate(one.ecg.rhythm)])
            seen.append(bool(share > 0.5))
    assert sum(with_p[Rhythm.ATRIAL_FIBRILLATION]) <= 1
    assert sum(with_p[Rhythm.SINUS]) >= 11


def test_waves_do_not_leave_the_recording(real: Strip) -> None:
    peaks = r_peaks(real)
    cut = real.millivolts[:, peaks[0] - 20 : peaks[3] + 100]
    waves = delineate(replace(real, millivolts=cut))
    assert waves[0].qrs[0] >= 0
    assert waves[0].p is None
    assert waves[-1].t is None or waves[-1].t[1] <= cut.shape[1]


def test_an_odd_beat_is_measured_on_itself(real: Strip) -> None:
    peaks = r_peaks(real)
    odd = real.millivolts.astype(np.float64)
    peak = int(peaks[5])
    odd[:, peak - 250 : peak + 450] = wide_beat(len(LEADS), 700, 250)
    waves = delineate(replace(real, millivolts=odd.astype(np.float32)), peaks)
    assert waves[5].qrs[1] - waves[5].qrs[0] > 110
    assert waves[5].p is None
    assert all(w.qrs[1] - w.qrs[0] < 85 for at, w in enumerate(waves) if at != 5)


def wide_beat(leads: int, samples: int, r: int) -> NDArray[np.float64]:
    """A ventricular beat: broad, and T against it."""
    times = np.arange(samples) - r
    course = 1.5 * np.exp(-0.5 * np.square(times / 40)) - 0.5 * np.exp(
        -0.5 * np.square((times - 240) / 50)
    )
    return np.outer(np.linspace(-1, 1, leads), course)


def test_two_calls_say_the_same(real: Strip) -> None:
    assert delineate(real) == delineate(real)
    np.testing.assert_array_equal(median_beat(real).millivolts, median_beat(real).millivolts)
