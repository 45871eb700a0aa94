"""A pack reads an ECG: what it is shown, what it says, and what it leaves unsaid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

keras = pytest.importorskip("keras")

from models.ecg.reader import WaveformReader, strip_for  # noqa: E402
from models.ecg.recording import INDEPENDENT, LEADS, Doubt, Ecg, EcgError, Strip, Trouble  # noqa: E402
from models.ecg.simulator import EcgWanted, Rhythm, simulate_ecg  # noqa: E402
from models.finding import Kind  # noqa: E402
from models.packs import (  # noqa: E402
    InputSpec,
    Pack,
    PackError,
    PackKind,
    Signal,
    WaveformInput,
    load_pack,
    write_manifest,
)
from models.readers import RegressionReader  # noqa: E402
from models.readers.base import Reading  # noqa: E402
from tests.unit.pack_makers import output  # noqa: E402

# Keras saves a network with words of an older NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_SPEC = WaveformInput(samples=1024, rate_hz=100.0, leads=INDEPENDENT, highpass_hz=0.5)
_MEDIAN = WaveformInput(samples=120, rate_hz=100.0, leads=INDEPENDENT, signal=Signal.MEDIAN)
_SCORE = {"kind": "score", "threshold": 0.4, "caution": "on few"}
_OUTPUTS = [
    output("heart_rate", "/min", offset=75.0, low_error=-10.0, high_error=500.0),
    output("pr_interval", "ms", offset=160.0),
    output("rbbb", "{score}", **_SCORE),
    output("r_amplitude", "mV", offset=1.5),
]


def _saying(spec: WaveformInput, numbers: list[float]) -> keras.Model:
    """A network that says the same of everything, and a little of what it sees."""
    inputs = keras.Input((spec.samples, len(spec.leads)))
    seen = keras.layers.GlobalAveragePooling1D()(inputs)
    given = keras.layers.Dense(len(numbers), kernel_initializer="zeros")(seen)
    network = keras.Model(inputs, given)
    network.layers[-1].bias.assign(np.array(numbers, np.float32))
    return network


def _pack(
    folder: Path,
    spec: WaveformInput = _SPEC,
    numbers: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
    **changes: Any,
) -> Pack:
    folder.mkdir(parents=True)
    network = _saying(spec, list(numbers))
    network.save(folder / "model.keras")
    write_manifest(
        folder,
        {
            "name": "tiny",
            "version": "1.0.0",
            "kind": "waveform",
            "title": "tiny",
            "network": {"format": "keras", "file": "model.keras"},
            "input": spec.model_dump(),
            "outputs": _OUTPUTS,
            "licence": "none",
            "trained_on": "nothing",
            "training_command": "none",
            **changes,
        },
    )
    return load_pack(folder)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return _pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture(scope="module")
def sinus() -> Ecg:
    return simulate_ecg(EcgWanted(heart_rate_bpm=70, noise=0.3), seed=4).ecg


def _reasons(reading: Reading) -> dict[str, str]:
    return {refusal.output: refusal.reason for refusal in reading.refusals}


def _with(ecg: Ecg, *troubles: Trouble) -> Ecg:
    return replace(ecg, troubles=troubles)


def _cut(strip: Strip, seconds: float) -> Strip:
    return replace(strip, millivolts=strip.millivolts[:, : round(seconds * strip.rate_hz)])


def test_a_recording_gets_values_with_intervals_and_no_verdict_on_few_patients(
    pack: Pack, sinus: Ecg
) -> None:
    reading = WaveformReader(pack).read(sinus)
    assert not reading.refusals
    rate, pr, block, amplitude = reading.findings
    assert (rate.value, rate.low, rate.high) == (75.0, 65.0, 300.0)
    assert (pr.value, amplitude.value) == (160.0, 1.5)
    assert (block.kind, block.score, block.threshold) == (Kind.SCORE, 0.5, None)


def test_inputs_and_run_are_what_read_uses(pack: Pack, sinus: Ecg) -> None:
    reader = WaveformReader(pack)
    inputs = reader.inputs(sinus)
    assert inputs.shape == (1, 1024, 8)
    many = np.repeat(inputs, 19, axis=0)
    assert reader.run(many).shape == (19, 4)
    assert reader.output_names == ("heart_rate", "pr_interval", "rbbb", "r_amplitude")


def test_a_value_that_cannot_be_is_refused(tmp_path: Path, sinus: Ecg) -> None:
    pack = _pack(tmp_path / "odd", numbers=(1000.0, 0.0, 0.0, 0.0))
    refused = _reasons(WaveformReader(pack).read(sinus))
    assert refused == {
        "heart_rate": "1.08e+03 /min is outside the plausible range of 20 to 300 /min"
    }


def test_there_is_no_pr_interval_in_atrial_fibrillation(pack: Pack) -> None:
    wanted = EcgWanted(
        rhythm=Rhythm.ATRIAL_FIBRILLATION, heart_rate_bpm=90, noise=0.3, fibrillation_mv=0.05
    )
    reading = WaveformReader(pack).read(simulate_ecg(wanted, seed=2).ecg)
    assert set(_reasons(reading)) == {"pr_interval"}
    assert _reasons(reading)["pr_interval"].startswith("no P wave was found before")


def test_what_cannot_be_used_gets_nothing_but_the_reason(pack: Pack, sinus: Ecg) -> None:
    fatal = Trouble(doubt=Doubt.FLAT, words="no lead shows a heart", fatal=True)
    reading = WaveformReader(pack).read(_with(sinus, fatal))
    assert not reading.findings
    assert set(_reasons(reading).values()) == {"no lead shows a heart"}


@pytest.mark.parametrize(
    ("doubt", "leads", "refused"),
    [
        (Doubt.CLIPPED, ("V5",), {"r_amplitude"}),
        (Doubt.NOISY, ("V1",), {"rbbb"}),
        (Doubt.FLAT, ("V2",), set()),
        (Doubt.FLAT, ("V2", "V3"), {"heart_rate", "pr_interval", "rbbb", "r_amplitude"}),
        (Doubt.FLAT, ("III", "aVL"), set()),  # this network sees neither
        (Doubt.SCALE, (), {"r_amplitude"}),
        (Doubt.REVERSED, ("I",), {"pr_interval", "rbbb", "r_amplitude"}),
        (Doubt.IDENTITY, (), {"pr_interval", "rbbb", "r_amplitude"}),
    ],
)
def test_what_rests_on_a_doubtful_lead_is_left_unsaid(
    pack: Pack, sinus: Ecg, doubt: Doubt, leads: tuple[str, ...], refused: set[str]
) -> None:
    trouble = Trouble(doubt=doubt, words="the electrode came off", leads=leads)
    reasons = _reasons(WaveformReader(pack).read(_with(sinus, trouble)))
    assert set(reasons) == refused


def test_short_coarse_and_incomplete_recordings_are_refused_with_what_to_do(
    pack: Pack, sinus: Ecg
) -> None:
    reader = WaveformReader(pack)
    short = replace(sinus, rhythm=_cut(sinus.rhythm, 4.0))
    assert _reasons(reader.read(short))["rbbb"] == (
        "the recording lasts 4.0 s, and 5 s are wanted; record ten seconds"
    )
    coarse = replace(sinus, rhythm=replace(sinus.rhythm, rate_hz=50.0))
    assert "50 samples a second are too few" in _reasons(reader.read(coarse))["rbbb"]
    without = sinus.rhythm.millivolts.copy()
    without[LEADS.index("V3")] = np.nan
    missing = replace(sinus, rhythm=replace(sinus.rhythm, millivolts=without))
    assert "lead V3 is missing" in _reasons(reader.read(missing))["rbbb"]


def _beat(seconds: float, rate_hz: float) -> Strip:
    rng = np.random.default_rng(1)
    values: NDArray[np.float32] = rng.normal(size=(12, round(seconds * rate_hz))).astype(np.float32)
    return Strip(millivolts=values, rate_hz=rate_hz, group=2)


def test_the_carts_median_beat_goes_before_ours(sinus: Ecg) -> None:
    cart = _beat(1.2, 500.0)
    assert strip_for(replace(sinus, median=cart), _MEDIAN) is cart
    assert strip_for(replace(sinus, median=cart), _SPEC) is sinus.rhythm
    ours = strip_for(sinus, _MEDIAN)
    assert ours.duration_s == pytest.approx(1.2)
    stump = strip_for(replace(sinus, median=_beat(0.4, 500.0)), _MEDIAN)
    np.testing.assert_array_equal(stump.millivolts, ours.millivolts)


def test_a_median_is_not_made_of_a_recording_without_beats(sinus: Ecg) -> None:
    flat = replace(
        sinus, rhythm=replace(sinus.rhythm, millivolts=np.zeros_like(sinus.rhythm.millivolts))
    )
    with pytest.raises(EcgError, match="no heartbeat was found"):
        strip_for(flat, _MEDIAN)


def test_a_pack_of_ecgs_is_read_by_this_reader_alone(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="kind is 'waveform', and RegressionReader reads"):
        RegressionReader(pack)
    clips = Pack(
        folder=tmp_path,
        manifest=pack.manifest.model_copy(
            update={"kind": PackKind.REGRESSION, "input": InputSpec(rows=4, columns=4)}
        ),
    )
    with pytest.raises(PackError, match="WaveformReader reads 'waveform'"):
        WaveformReader(clips)
