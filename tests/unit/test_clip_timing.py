"""When frames were taken, and which of them a model gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from models._timing import TimeAxis, time_axis


def header(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("values", "source", "frame_time_ms"),
    [
        ({"FrameTimeVector": ["0", "40", "40", "40"], "FrameTime": "20"}, "FrameTimeVector", 40.0),
        ({"FrameTimeVector": ["40", "40", "40"], "FrameTime": "20"}, "FrameTimeVector", 40.0),
        ({"FrameTimeVector": ["0", "40"], "FrameTime": "20"}, "FrameTime", 20.0),
        ({"FrameTimeVector": ["0", "-40", "40", "40"], "FrameTime": "20"}, "FrameTime", 20.0),
        ({"FrameTimeVector": ["0", "0", "0", "0"], "FrameTime": "20"}, "FrameTime", 20.0),
        ({"FrameTime": "33.333", "CineRate": "25"}, "FrameTime", 33.333),
        ({"FrameTime": "0", "CineRate": "25"}, "CineRate", 40.0),
        ({"FrameTime": "0.033", "CineRate": "25"}, "CineRate", 40.0),
        ({"FrameTime": "1000", "RecommendedDisplayFrameRate": "50"},
         "RecommendedDisplayFrameRate", 20.0),
        ({"CineRate": "0", "RecommendedDisplayFrameRate": "50"},
         "RecommendedDisplayFrameRate", 20.0),
        ({"CineRate": "500", "EffectiveDuration": "0.1"}, "EffectiveDuration", 25.0),
        ({"EffectiveDuration": "60"}, "assumed", 1000 / 30),
        ({}, "assumed", 1000 / 30),
    ],
)  # fmt: skip
def test_the_first_source_that_makes_sense_gives_the_time(
    values: dict[str, Any], source: str, frame_time_ms: float
) -> None:
    axis = time_axis(header(**values), 4)
    assert axis.source == source
    assert axis.trusted is (source != "assumed")
    assert axis.frame_time_ms == pytest.approx(frame_time_ms)
    assert len(axis.times_ms) == 4
    assert axis.times_ms[0] == 0.0


def test_the_increment_before_the_first_frame_does_not_count() -> None:
    axis = time_axis(header(FrameTimeVector=["33", "50", "40"]), 3)
    assert axis.times_ms.tolist() == [0.0, 50.0, 90.0]


def test_a_still_needs_no_rate() -> None:
    axis = time_axis(header(FrameTime="33"), 1)
    assert (axis.source, axis.frame_time_ms, axis.trusted) == ("still", 0.0, True)
    assert axis.sample(100.0, 20) == (0,)


def test_times_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        time_axis(header(FrameTime="33"), 5).times_ms[0] = 1.0


def test_twenty_frames_a_tenth_of_a_second_apart_as_in_the_paper() -> None:
    axis = time_axis(header(FrameTime="33.333"), 120)
    assert axis.sample(100.0, 20) == tuple(range(0, 60, 3))


def test_a_short_clip_gives_only_the_frames_that_it_has() -> None:
    axis = time_axis(header(FrameTime="33.333"), 30)
    assert axis.sample(100.0, 20) == tuple(range(0, 30, 3))


def test_a_slow_clip_gives_no_frame_twice() -> None:
    assert time_axis(header(FrameTime="200"), 4).sample(100.0, 20) == (0, 1, 2, 3)


def test_instants_follow_uneven_frames() -> None:
    axis = time_axis(header(FrameTimeVector=["0", "20", "20", "70", "20", "80"]), 6)
    # The frames stand at 0, 20, 40, 110, 130 and 210 ms.
    assert axis.sample(100.0, 3) == (0, 3, 5)


@pytest.mark.parametrize(("interval_ms", "count"), [(0.0, 5), (-1.0, 5), (float("nan"), 5), (1, 0)])
def test_a_sample_of_nothing_is_refused(interval_ms: float, count: int) -> None:
    with pytest.raises(ValueError, match="cannot take"):
        time_axis(header(), 5).sample(interval_ms, count)


@given(
    steps=st.lists(st.floats(0.0, 250.0), max_size=60),
    interval_ms=st.floats(1.0, 500.0),
    count=st.integers(1, 40),
)
def test_each_frame_sampled_is_the_nearest_to_its_instant(
    steps: list[float], interval_ms: float, count: int
) -> None:
    times = np.concatenate([[0.0], np.cumsum(steps)])
    axis = TimeAxis(times_ms=times, source="FrameTimeVector", trusted=True)
    sampled = axis.sample(interval_ms, count)
    assert sampled[0] == 0 or times[sampled[0]] == 0.0
    assert 1 <= len(sampled) <= count
    assert list(sampled) == sorted(set(sampled))
    instants = np.arange(count) * interval_ms
    for frame in sampled:
        distances = np.abs(times[:, None] - instants)
        assert (distances[frame] <= distances.min(axis=0) + 1e-9).any()
