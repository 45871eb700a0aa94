"""End diastole and end systole are found beat by beat in the volume curve."""

from __future__ import annotations

import numpy as np
import pytest

from models.data.cines import phase_at
from models.measure import MeasureError, find_beats, heart_rate_bpm, smooth_curve, volume_curve


def beating(
    *,
    seconds: float = 3.0,
    fps: float = 40.0,
    bpm: float = 70.0,
    edv: float = 120.0,
    esv: float = 50.0,
    start: float = 0.0,
    noise: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Times in ms and volumes; ``start`` is the share of the beat at which the clip begins."""
    times = np.arange(round(seconds * fps)) * 1000 / fps
    phase = phase_at(times * bpm / 60_000 + start)
    noisy = np.random.default_rng(3).normal(0, noise, len(times))
    return times, edv - (edv - esv) * phase + noisy


@pytest.mark.parametrize("bpm", [40.0, 75.0, 130.0, 190.0])
@pytest.mark.parametrize("start", [0.0, 0.25, 0.6])
def test_every_beat_is_found_with_its_volumes(bpm: float, start: float) -> None:
    times, volumes = beating(bpm=bpm, start=start, seconds=4.0, fps=60.0, noise=1.0)
    curve = smooth_curve(times, volumes)
    beats = find_beats(curve)
    whole_beats = int(4.0 * bpm / 60)
    assert whole_beats - 1 <= len(beats) <= whole_beats + 1
    ef = np.mean([beat.ef_percent for beat in beats])
    assert ef == pytest.approx(100 * 70 / 120, abs=4.0)
    assert all(beat.ed < beat.es for beat in beats)
    if len(beats) > 1:
        assert heart_rate_bpm(curve, beats) == pytest.approx(bpm, rel=0.06)


def test_one_beat_cut_at_the_r_waves_is_enough() -> None:
    times, volumes = beating(seconds=60 / 70, fps=50)
    (beat,) = find_beats(smooth_curve(times, volumes))
    assert beat.ed == 0
    assert times[beat.es] == pytest.approx(0.33 * 60_000 / 70, abs=45)


def test_a_clip_that_begins_in_mid_contraction_does_not_count_that_half() -> None:
    times, volumes = beating(start=0.2, seconds=2.0)
    beats = find_beats(smooth_curve(times, volumes))
    assert all(beat.edv > 110 for beat in beats)


def test_a_single_bad_frame_moves_nothing() -> None:
    times, volumes = beating()
    spoilt = volumes.copy()
    spoilt[[20, 60]] = [400.0, np.nan]
    good = find_beats(smooth_curve(times, volumes))
    bad = find_beats(smooth_curve(times, spoilt))
    assert np.mean([b.ef_percent for b in bad]) == pytest.approx(
        np.mean([b.ef_percent for b in good]), abs=2.0
    )


def test_volumes_that_jump_about_are_refused() -> None:
    times, volumes = beating()
    volumes[::3] *= 2.2
    with pytest.raises(MeasureError, match="jumps from frame to frame"):
        smooth_curve(times, volumes)


def test_a_still_cannot_give_an_ejection_fraction() -> None:
    with pytest.raises(MeasureError, match="a still shows one moment"):
        find_beats(smooth_curve(np.zeros(1), np.array([100.0])))


@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_a_cavity_that_keeps_its_size_is_left_to_a_person(seconds: float) -> None:
    times, volumes = beating(seconds=seconds, edv=44.0, esv=43.0)
    with pytest.raises(MeasureError, match=r"keeps its size \(ejection of 2 %\)"):
        find_beats(smooth_curve(times, volumes))


def test_a_stored_pair_of_which_one_tracing_is_wrong_is_refused() -> None:
    with pytest.raises(MeasureError, match="keeps its size"):
        find_beats(smooth_curve(np.array([0.0, 400.0]), np.array([43.9, 43.2])))


def test_a_very_weak_heart_is_measured() -> None:
    times, volumes = beating(edv=106.5, esv=101.5)
    assert np.mean([beat.ef_percent for beat in find_beats(smooth_curve(times, volumes))]) < 6


def test_a_clip_of_a_tenth_of_a_second_is_too_short() -> None:
    times, volumes = beating(seconds=0.1)
    with pytest.raises(MeasureError, match="lasts 75 ms, too short"):
        find_beats(smooth_curve(times, volumes))


def test_a_stored_pair_is_no_moving_picture_whatever_its_frame_time_says() -> None:
    """No heart loses half its volume in 33 ms: such frames were picked."""
    (beat,) = find_beats(smooth_curve(np.array([0.0, 33.3]), np.array([60.0, 120.0])))
    assert (beat.ed, beat.es) == (1, 0)
    assert beat.ef_percent == pytest.approx(50)


def test_assumed_times_call_no_clip_too_short() -> None:
    curve = smooth_curve(np.array([0.0, 33.3]), np.array([120.0, 110.0]))
    with pytest.raises(MeasureError, match="too short"):
        find_beats(curve)
    (beat,) = find_beats(curve, trusted_times=False)
    assert beat.ef_percent == pytest.approx(100 / 12)


def test_filling_alone_is_no_beat() -> None:
    times = np.arange(20) * 20.0
    with pytest.raises(MeasureError, match="no contraction"):
        find_beats(smooth_curve(times, np.linspace(50, 120, 20)))


def test_too_many_frames_without_a_ventricle_refuse_the_clip() -> None:
    masks = np.zeros((12, 80, 80), np.uint8)
    with pytest.raises(MeasureError, match=r"no left-ventricular cavity.*12 of 12 frames"):
        volume_curve(masks, np.arange(12) * 33.0, 1.0, 1.0)
