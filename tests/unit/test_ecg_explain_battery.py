"""The checks of a waveform pack's explanations: what they find in a network that is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.data.ecgs import open_ecgs
from models.ecg.beats import Waves
from models.ecg.explain import quality
from models.ecg.explain.battery import WaveformReport, check_waveform_pack, write_report
from models.ecg.explain.explained import explain_ecg, output_of
from models.ecg.explain.methods import EcgMethod
from models.ecg.explain.waves import NEEDS, Need, Wave, without
from models.ecg.reader import WaveformReader
from models.ecg.recording import LEADS, Strip
from models.explain.summary import read_summary
from models.explain.target import ExplainError
from models.packs import Pack, load_pack, write_manifest
from models.tasks import ECG_TASKS
from tests.unit.pack_makers import manifest, output

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RATE, SAMPLES = 100.0, 512
V5 = LEADS.index("V5")
HELD = {"low_error": -0.3, "high_error": 0.3}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """It knows the highest voltage of V5, and calls it R and, wrongly, T."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("pack")
    given = keras.Input((SAMPLES, 12))
    x = layers.Conv1D(1, 1, use_bias=False)(given)
    x = layers.Activation("relu", name="last_block")(x)
    x = layers.Flatten()(layers.MaxPooling1D(SAMPLES)(x))
    network = keras.Model(given, layers.Dense(2)(x))
    kernel = np.zeros((1, 12, 1), np.float32)
    kernel[0, V5] = 1.0
    network.set_weights([kernel, np.ones((1, 2), np.float32), np.zeros(2, np.float32)])
    network.save(folder / "model.keras")
    write_manifest(
        folder,
        manifest(
            name="known",
            kind="waveform",
            input={"samples": SAMPLES, "rate_hz": RATE},
            outputs=[output("r_amplitude", "mV", **HELD), output("t_amplitude", "mV", **HELD)],
        ),
    )
    return load_pack(folder)


@pytest.fixture(scope="module")
def report(pack: Pack) -> WaveformReport:
    dataset = open_ecgs("simulated-ecg:records=8,seed=3,rate_hz=100,duration_s=6,noise=0")
    return check_waveform_pack(pack, [dataset], records=4, blocked=8, few=2)


def test_blocking_a_wave_tells_what_an_output_needs(report: WaveformReport) -> None:
    checks = {(one.output, one.wave): one for one in report.on[0].waves}
    assert all(checks["r_amplitude", wave].as_expected for wave in Wave)
    assert checks["r_amplitude", Wave.QRS].moved.value > 0.5
    assert checks["r_amplitude", Wave.P].moved.value < 0.2
    # What is called T here is R: it stays without T, and moves without the QRS complex.
    assert checks["t_amplitude", Wave.T].as_expected is False
    assert checks["t_amplitude", Wave.QRS].as_expected is False


def test_sums_and_maps_of_a_simple_network_pass(report: WaveformReport) -> None:
    on = report.on[0]
    for sums in on.sums:
        assert sums.complete.value == 1.0
        assert sums.unaccounted.value < 1e-5
    by_lrp = next(one for one in on.maps if one.method is EcgMethod.LRP)
    assert by_lrp.insertion.value > by_lrp.insertion_by_random.value
    assert by_lrp.deletion.value < by_lrp.deletion_by_random.value
    assert by_lrp.shift.value > 0.9
    assert [share for share, *_ in by_lrp.randomised] == list(report.stages)
    # Shuffling moves the one weight to another lead.
    assert by_lrp.randomised[-1][2].value < 0.5


def test_a_report_is_a_page_figures_and_a_picture_and_is_told_in_short(
    report: WaveformReport, tmp_path: Path
) -> None:
    files = write_report(report, tmp_path)
    assert {file.name for file in files} == {
        "explanations.md", "explanations.json", "explanations.png",
    }  # fmt: skip
    page = (tmp_path / "explanations.md").read_text()
    assert "**not as expected**" in page
    assert "nothing here was tested on patients" in page
    figures = json.loads((tmp_path / "explanations.json").read_text())
    assert figures["kind"] == "waveform"
    short = read_summary(tmp_path)
    assert short is not None
    assert [len(row) for row in short.rows] == [len(short.columns)] * 2
    assert short.rows[0][2] == "3 of 3"
    assert any("t_amplitude" in words and "without T" in words for words in short.remarks)


def test_an_explained_finding_bears_where_it_came_from(pack: Pack) -> None:
    reader = WaveformReader(pack)
    case = open_ecgs("simulated-ecg:records=1,rate_hz=200,duration_s=6,noise=0").cases("valid")[0]
    ecg = case.ecg()
    finding = next(one for one in reader.read(ecg).findings if one.output == "r_amplitude")
    (explained,) = explain_ecg(reader, ecg, [finding], EcgMethod.LRP)
    assert explained.relevance.shape == ecg.rhythm.millivolts.shape
    assert not explained.beat
    row, column = np.unravel_index(np.argmax(explained.relevance), explained.relevance.shape)
    assert row == V5
    ((begin, end),) = explained.finding.spans_ms
    assert begin <= 1000 * column / 200 <= end
    assert explained.unit == "mV a sample"
    with pytest.raises(ExplainError, match="no output 'rbbb'"):
        output_of(reader, "rbbb")


def test_a_blocked_wave_is_a_straight_line_between_its_borders() -> None:
    millivolts = np.tile(np.sin(np.arange(100) / 7.0), (12, 1)).astype(np.float32)
    strip = Strip(millivolts=millivolts, rate_hz=100.0)
    waves = (Waves(p=None, qrs=(20, 30), t=(95, 100)),)
    flat = without(strip, waves, Wave.QRS).millivolts
    assert np.array_equal(flat[:, :20], millivolts[:, :20])
    assert np.array_equal(flat[:, 30:], millivolts[:, 30:])
    assert np.allclose(np.diff(flat[:, 19:31], n=2), 0, atol=1e-6)
    assert np.array_equal(without(strip, waves, Wave.P).millivolts, millivolts)
    assert without(strip, waves, Wave.T).millivolts.shape == millivolts.shape


def test_what_needs_what_is_said_of_every_output() -> None:
    assert set(NEEDS) == set(ECG_TASKS)
    assert NEEDS["pr_interval"][Wave.T] is Need.NOT_NEEDED
    assert NEEDS["qt_interval"][Wave.T] is Need.NEEDED


def test_likeness_knows_the_same_map_and_a_strange_one() -> None:
    rng = np.random.default_rng(0)
    signal = np.ones((400, 3), np.float32)
    signal[:50] = 0.0
    one = rng.normal(size=(400, 3))
    assert quality.likeness(one, -one, signal, 100.0) == pytest.approx(1.0)
    assert abs(quality.likeness(one, rng.normal(size=(400, 3)), signal, 100.0)) < 0.4
    assert quality.likeness(one, -one, signal, 100.0, signed=True) == pytest.approx(-1.0)
    assert quality.likeness(one, np.zeros((400, 3)), signal, 100.0) == 0.0
    assert np.isnan(quality.likeness(np.zeros((400, 3)), one, signal, 100.0))
