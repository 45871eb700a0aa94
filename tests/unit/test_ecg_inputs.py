"""A recording as a network takes it, to the byte, and a map laid back on the recording."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file

from models.ecg.inputs import VERSION, from_input, input_span, to_input
from models.ecg.leads import OF_I_AND_II
from models.ecg.reading import read_dicom_ecg
from models.ecg.recording import INDEPENDENT, LEADS, EcgError, Strip

# The real recording as networks took it when VERSION became 1: mV of leads I, II, V1 and V5.
GOLDEN = [
    [0.09618, 0.11161, 0.04986, -0.07004],
    [0.05393, 0.04765, 0.06169, 0.02046],
    [0.08612, 0.14246, -0.01263, -0.00879],
    [0.04658, 0.01109, 0.06165, -0.13772],
    [0.02461, 0.13704, 0.03378, -0.14892],
]
GOLDEN_SPREAD = [
    0.10403,
    0.1688,
    0.08494,
    0.13361,
    0.04352,
    0.12308,
    0.1431,
    0.11592,
    0.25007,
    0.23218,
    0.2857,
    0.21509,
]
GOLDEN_STEADY = [
    [-0.00188, 0.00073, 0.0002],
    [-0.00723, -0.08855, -0.02439],
    [-0.03792, -0.00214, -0.15693],
    [-0.00314, -0.00268, 0.00562],
]


@dataclass(frozen=True)
class Shape:
    samples: int = 4096
    rate_hz: float = 400.0
    leads: tuple[str, ...] = LEADS
    highpass_hz: float | None = None


def waves(rate_hz: float, seconds: float, hertz: float = 3.0) -> Strip:
    """A sine in each lead that starts at the first sample, in the proportions of a heart."""
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    course = np.sin(2 * np.pi * hertz * times)
    gains = {"I": 0.5, "II": 1.0} | {f"V{chest}": 0.2 * chest for chest in range(1, 7)}
    rows = [
        gains[name] * course
        if name in gains
        else np.dot(OF_I_AND_II[name], (gains["I"], gains["II"])) * course
        for name in LEADS
    ]
    return Strip(millivolts=np.asarray(rows, np.float32), rate_hz=rate_hz)


@pytest.fixture(scope="module")
def real() -> Strip:
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    assert isinstance(path, str)
    return read_dicom_ecg(dcmread(path)).rhythm


def test_the_way_in_is_the_published_one(real: Strip) -> None:
    assert VERSION == 1
    values = to_input(real, Shape())
    assert values.shape == (4096, 12)
    assert values.dtype == np.float32
    assert not values[:48].any()
    assert not values[4048:].any()
    some = values[[48, 400, 1000, 2500, 4047]][:, [0, 1, 6, 10]]
    np.testing.assert_allclose(some, GOLDEN, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=0), GOLDEN_SPREAD, atol=1e-4)


def test_the_way_in_without_wander_is_the_published_one(real: Strip) -> None:
    shape = Shape(samples=5000, rate_hz=500.0, leads=INDEPENDENT, highpass_hz=0.5)
    values = to_input(real, shape)
    np.testing.assert_allclose(values[[0, 700, 1800, 4999]][:, [0, 3, 7]], GOLDEN_STEADY, atol=1e-4)
    assert abs(values.mean(axis=0)).max() < 0.01


@pytest.mark.parametrize("rate_hz", [250.0, 360.0, 400.0, 500.0, 1000.0, 257.3])
def test_whatever_the_rate_a_wave_stays_where_and_as_high_as_it_was(rate_hz: float) -> None:
    strip = waves(rate_hz, 8.0)
    shape = Shape()
    values = to_input(strip, shape)
    begin_ms, end_ms = input_span(strip, shape)
    assert end_ms - begin_ms == pytest.approx(4096 / 400 * 1000, rel=1e-4)
    times = (begin_ms + np.arange(4096) * 2.5) / 1000
    inside = (times > 0.5) & (times < 7.5)
    np.testing.assert_allclose(
        values[inside, 1], np.sin(2 * np.pi * 3.0 * times[inside]), atol=0.01
    )
    assert not values[times < -0.01].any()
    assert not values[times > 8.01].any()


def test_a_longer_recording_is_cut_at_both_ends() -> None:
    strip = waves(400.0, 20.0)
    values = to_input(strip, Shape())
    begin_ms, end_ms = input_span(strip, Shape())
    assert (begin_ms, end_ms) == (1952 * 2.5, (1952 + 4096) * 2.5)
    np.testing.assert_array_equal(values, strip.millivolts.T[1952 : 1952 + 4096])


def test_a_shorter_one_has_as_many_zeros_before_as_after() -> None:
    strip = waves(400.0, 1.2)
    shape = Shape(samples=601)
    values = to_input(strip, shape)
    np.testing.assert_array_equal(values[60:540], strip.millivolts.T)
    assert not values[:60].any()
    assert not values[540:].any()
    assert input_span(strip, shape) == (-60 * 2.5, 541 * 2.5)


def test_limb_leads_that_are_missing_come_from_the_first_two() -> None:
    strip = waves(400.0, 5.0)
    bare = strip.millivolts.copy()
    bare[2:6] = np.nan
    np.testing.assert_allclose(
        to_input(replace(strip, millivolts=bare), Shape()), to_input(strip, Shape()), atol=1e-6
    )


@pytest.mark.parametrize("lead", ["V3", "I"])
def test_a_lead_that_nothing_gives_is_an_error_that_names_it(lead: str) -> None:
    strip = waves(400.0, 5.0)
    bare = strip.millivolts.copy()
    bare[LEADS.index(lead)] = np.nan
    with pytest.raises(EcgError, match=f"lead {lead} is missing"):
        to_input(replace(strip, millivolts=bare), Shape())
    others = tuple(name for name in INDEPENDENT if name != lead)
    assert to_input(replace(strip, millivolts=bare), Shape(leads=others)).shape == (4096, 7)


def test_a_short_gap_is_bridged_and_a_long_one_is_empty() -> None:
    strip = waves(400.0, 10.24)
    holed = strip.millivolts.copy()
    holed[1, 1000:1010] = np.nan
    holed[1, 2000:2400] = np.nan
    values = to_input(replace(strip, millivolts=holed), Shape(highpass_hz=0.5))
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[1000:1010, 1], strip.millivolts[1, 1000:1010], atol=0.1)
    assert not values[2000:2400, 1].any()
    assert values[2000:2400, 0].any()


def test_wander_goes_and_waves_stay_in_their_place() -> None:
    strip = waves(500.0, 10.0)
    wander = 2.0 * np.sin(2 * np.pi * 0.1 * np.arange(5000) / 500.0)
    moved = replace(strip, millivolts=(strip.millivolts + wander).astype(np.float32))
    values = to_input(moved, Shape(samples=5000, rate_hz=500.0, highpass_hz=0.5))
    np.testing.assert_allclose(values[1000:4000, 1], strip.millivolts[1, 1000:4000], atol=0.06)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(EcgError, match="0 samples"):
        to_input(Strip(millivolts=np.zeros((12, 0), np.float32), rate_hz=500.0), Shape())


@pytest.mark.parametrize(("rate_hz", "seconds"), [(500.0, 10.0), (1000.0, 30.0), (250.0, 4.0)])
def test_a_map_comes_back_to_where_it_was(rate_hz: float, seconds: float) -> None:
    strip = waves(rate_hz, seconds)
    shape = Shape(leads=("V1", "II"))
    begin_ms, _ = input_span(strip, shape)
    marked_ms = seconds * 500.0  # the middle
    relevance = np.zeros((4096, 2), np.float32)
    relevance[round((marked_ms - begin_ms) / 2.5), 0] = -1.0
    back = from_input(relevance, strip, shape)
    assert back.shape == strip.millivolts.shape
    lead, sample = np.unravel_index(np.argmin(back), back.shape)
    assert LEADS[int(lead)] == "V1"
    assert sample / rate_hz * 1000 == pytest.approx(marked_ms, abs=2.5)
    assert not back[[at for at, name in enumerate(LEADS) if name != "V1"]].any()


def test_outside_of_what_the_network_saw_the_map_is_zero() -> None:
    strip = waves(400.0, 20.0)
    back = from_input(np.ones((4096, 12), np.float32), strip, Shape())
    np.testing.assert_array_equal(seen(back), np.arange(1952, 1952 + 4096))


def seen(back: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.flatnonzero(back.all(axis=0))


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="4096 samples and 12 leads"):
        from_input(np.zeros((4096, 8), np.float32), waves(400.0, 5.0), Shape())
