"""ECG packs are trained on recordings, resume, and say on what they were tested."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from models.data.ecgs import EcgCase, SimulatedEcgs, open_ecgs  # noqa: E402
from models.ecg.inputs import to_input  # noqa: E402
from models.ecg.reader import strip_for  # noqa: E402
from models.ecg.recording import INDEPENDENT, LEADS  # noqa: E402
from models.evaluation import ecg as words  # noqa: E402
from models.finding import Evidence  # noqa: E402
from models.networks import build_network  # noqa: E402
from models.packs import Pack, WaveformInput  # noqa: E402
from models.training import ecg_training, loop  # noqa: E402
from models.training.ecg_evidence import EcgPacking, pack_ecg  # noqa: E402
from models.training.ecg_intervals import PROTOCOLS  # noqa: E402
from models.training.ecg_rhythm import PROTOCOL  # noqa: E402
from models.training.ecg_signals import (  # noqa: E402
    AMPLITUDES,
    RHYTHM,
    SignalBatches,
    Signals,
    Varied,
    as_leads,
    crop,
    move,
    stored_signals,
)
from models.training.ecg_training import EcgProtocol, Targets, known_loss, train  # noqa: E402
from models.training.recipe import RecipeError, Trial, load_recipe  # noqa: E402

_SPEC = WaveformInput(samples=1024, rate_hz=100.0, leads=LEADS, highpass_hz=0.5)
_PLAIN = Varied(gain=0.0, lead_gain=0.0, noisy=0.0)
_TINY = EcgProtocol(
    network="ribeiro",
    settings={"outputs": 3, "width": 0.0625},
    spec=_SPEC,
    outputs=("atrial_fibrillation", "heart_rate", "pr_interval"),
    varied=RHYTHM,
    epochs=2,
    epoch_batches=3,
    batch=8,
)


@pytest.fixture(scope="module")
def simulated() -> SimulatedEcgs:
    given = open_ecgs("simulated-ecg:records=24,seed=5,rate_hz=250,duration_s=10")
    assert isinstance(given, SimulatedEcgs)
    return given


def _signals(
    count: int = 6, samples: int = 50, outputs: Sequence[str] = ("r_amplitude",)
) -> Signals:
    rng = np.random.default_rng(2)
    return Signals(
        millivolts=rng.normal(size=(count, samples, 8)).astype(np.float16),
        truths=rng.uniform(0.5, 2.0, (count, len(outputs))).astype(np.float32),
        outputs=tuple(outputs),
    )


def test_signals_are_what_the_reader_would_show_the_network(
    simulated: SimulatedEcgs, tmp_path: Path
) -> None:
    cases = simulated.cases("train")[:2]
    signals = stored_signals(tmp_path, {"of": 1}, cases, _SPEC, ("heart_rate", "pr_interval"))
    wanted = to_input(strip_for(cases[1].ecg(), _SPEC), _SPEC)
    np.testing.assert_allclose(signals.inputs(slice(1, 2), LEADS)[0], wanted, atol=4e-3)
    assert signals.truths[1, 0] == pytest.approx(cases[1].truths["heart_rate"])


def test_signals_are_made_once_for_a_key(simulated: SimulatedEcgs, tmp_path: Path) -> None:
    cases = simulated.cases("train")[:2]
    stored_signals(tmp_path, {"of": 1}, cases, _SPEC, ("heart_rate",))
    again = stored_signals(tmp_path, {"of": 1}, (), _SPEC, ("heart_rate",))
    other = stored_signals(tmp_path, {"of": 2}, cases[:1], _SPEC, ("heart_rate",))
    assert (len(again), len(other)) == (2, 1)


def test_all_leads_follow_from_those_that_are_measured() -> None:
    measured = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    leads = dict(zip(LEADS, as_leads(measured, LEADS).T, strict=True))
    np.testing.assert_allclose(leads["I"] + leads["III"], leads["II"], atol=1e-6)
    np.testing.assert_allclose(leads["aVR"] + leads["aVL"] + leads["aVF"], 0, atol=1e-6)
    np.testing.assert_array_equal(leads["V6"], measured[:, INDEPENDENT.index("V6")])


def test_batches_are_the_same_again_and_take_each_recording_before_any_again() -> None:
    signals = _signals(count=8)
    spec = WaveformInput(samples=50, rate_hz=50.0, leads=INDEPENDENT)

    def batches() -> SignalBatches:
        return SignalBatches(signals, spec, RHYTHM, batch=4, epoch_batches=1, seed=3)

    one, two = batches(), batches()
    shown = []
    for epoch in range(2):
        one.begin(epoch)
        shown.append(one[0])
    two.begin(1)
    np.testing.assert_array_equal(two[0][0], shown[1][0])
    plain = SignalBatches(signals, spec, _PLAIN, batch=4, epoch_batches=1, seed=3)
    seen = []
    for epoch in range(2):
        plain.begin(epoch)
        seen += plain[0][1][:, 0].tolist()
    np.testing.assert_allclose(sorted(seen), np.sort(signals.truths[:, 0]))


def test_amplitudes_grow_with_the_gain_and_times_do_not() -> None:
    signals = _signals(outputs=(*AMPLITUDES, "qt_interval"))
    spec = WaveformInput(samples=50, rate_hz=50.0, leads=INDEPENDENT)
    varied = replace(_PLAIN, gain=0.5)
    batches = SignalBatches(signals, spec, varied, batch=6, epoch_batches=1, seed=1)
    inputs, truths = batches[0]
    gains = inputs[:, 0, 0] / np.asarray(signals.millivolts[:, 0, 0], np.float32)
    assert np.ptp(gains) > 0.2
    for place in range(len(AMPLITUDES)):
        np.testing.assert_allclose(truths[:, place] / signals.truths[:, place], gains, rtol=1e-3)
    np.testing.assert_array_equal(truths[:, -1], signals.truths[:, -1])


def test_a_cropped_recording_lies_in_the_middle_and_lasts_five_seconds_at_least() -> None:
    row = np.ones((1000, 2), np.float32)
    rng = np.random.default_rng(4)
    for _ in range(20):
        cropped = row.copy()
        crop(cropped, rng, 100.0)
        there = np.flatnonzero(cropped[:, 0])
        assert len(there) >= 500
        assert abs(there[0] - (999 - there[-1])) <= 1


def test_a_moved_beat_goes_on_at_its_edge_and_a_moved_recording_ends() -> None:
    row = np.arange(1, 6, dtype=np.float32)[:, None]
    beat, rhythm = row.copy(), row.copy()
    move(beat, 2, fill=True)
    move(rhythm, -2, fill=False)
    assert beat[:, 0].tolist() == [1, 1, 1, 2, 3]
    assert rhythm[:, 0].tolist() == [3, 4, 5, 0, 0]


def test_what_is_not_known_counts_nothing_in_the_loss() -> None:
    targets = Targets(
        mean=np.array([0, 70, 160], np.float32), spread=np.array([1, 10, 20], np.float32)
    )
    loss = known_loss(_TINY, targets)
    number = np.array([[0.0, 1.0, 9.0], [0.0, 1.0, 9.0]], np.float32)
    truth = np.array([[1.0, 75.0, np.nan], [np.nan, np.nan, np.nan]], np.float32)
    given = np.asarray(loss(truth, number))
    # log 2 of the score that says nothing, and half of a half squared.
    np.testing.assert_allclose(given, [(np.log(2) + 0.125) / 3, 0.0], rtol=1e-5)


def test_a_training_goes_on_where_it_was_broken_off(
    simulated: SimulatedEcgs, tmp_path: Path
) -> None:
    whole = train(_TINY, [simulated], Trial(seed=1, work=tmp_path / "a"))
    lines = loop.records(tmp_path / "a")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"atrial_fibrillation_auc", "heart_rate_mae"} <= set(lines[-1])
    again = train(_TINY, [simulated], Trial(seed=1, work=tmp_path / "a"))
    inputs = np.random.default_rng(1).normal(size=(2, 1024, 12)).astype(np.float32)
    np.testing.assert_array_equal(
        np.asarray(again.network(inputs)), np.asarray(whole.network(inputs))
    )
    assert whole.recordings == 24
    assert {layer.compute_dtype for layer in whole.network.layers} == {"float32"}


@pytest.mark.parametrize("protocol", [PROTOCOL, *PROTOCOLS.values()], ids=lambda one: one.network)
def test_what_learns_says_what_is_run(protocol: EcgProtocol) -> None:
    """Eight and twelve channels, and the kernels of the papers: bfloat16 must only round."""
    spec = protocol.spec.model_copy(update={"samples": 256})
    small = replace(protocol, spec=spec, settings={**protocol.settings, "width": 0.5})
    plain = build_network(small.network, spec, small.settings)
    learns = ecg_training.learning(small)
    learns.set_weights(plain.get_weights())
    inputs = np.random.default_rng(1).normal(size=(4, 256, len(spec.leads))).cumsum(axis=1)
    inputs = (inputs / inputs.std()).astype(np.float32)
    wanted = np.asarray(plain(inputs, training=False))
    given = np.asarray(learns(inputs, training=False))
    assert learns.layers[2].compute_dtype == "bfloat16"
    np.testing.assert_allclose(given, wanted, atol=0.05 * np.abs(wanted).max())


@dataclass(frozen=True, kw_only=True)
class _Real:
    """Simulated hearts that stand for patients: six with fibrillation, six without."""

    of: SimulatedEcgs
    name: str = "real"
    title: str = "12 real ECGs"
    evidence: Evidence = Evidence.PATIENTS
    licence: str = "CC BY 4.0"
    citation: str = "somebody"
    caveats: tuple[str, ...] = ("few",)
    fingerprint: str = "0" * 64

    def cases(self, split: str) -> Sequence[EcgCase]:
        if split != "valid":
            return ()
        return tuple(
            replace(case, truths={"atrial_fibrillation": float(place % 2)})
            for place, case in enumerate(self.of.cases("valid")[:12])
        )


def test_the_recipes_are_the_papers_networks() -> None:
    assert (PROTOCOL.spec.samples, PROTOCOL.spec.rate_hz) == (4096, 400.0)
    assert PROTOCOL.spec.leads == LEADS
    assert PROTOCOL.settings["width"] == 0.5
    median, rhythm = PROTOCOLS["ecg-intervals-median"], PROTOCOLS["ecg-intervals"]
    assert (median.spec.samples, median.spec.rate_hz) == (600, 500.0)
    assert "heart_rate" not in median.outputs
    assert rhythm.settings["kernel"] / rhythm.spec.rate_hz == pytest.approx(0.1)


def test_a_recipe_wants_recordings_to_train_on(simulated: SimulatedEcgs, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"12 real ECGs: no ECG that can be read in split train"):
        load_recipe("ecg-rhythm").fit([_Real(of=simulated)], Trial(seed=1, work=tmp_path))


@pytest.fixture(scope="module")
def packed(simulated: SimulatedEcgs, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("ecg")
    trial = Trial(seed=1, work=folder / "work", command="echonode train tiny")
    packing = EcgPacking(
        name="tiny", version="0.1.0", title="tiny", citations=("paper",), card="# tiny\n"
    )
    return pack_ecg(packing, _TINY, [_Real(of=simulated), simulated], trial, folder / "pack")


def test_a_pack_says_on_what_it_was_trained_and_how_to_repeat_it(packed: Pack) -> None:
    manifest = packed.manifest
    assert manifest.trained_on.startswith("24 simulated recordings and no patient")
    assert manifest.training_command == "echonode train tiny"
    assert manifest.citations == ("paper", "somebody")
    assert manifest.licence == "free: no patient's recording is in it"
    assert "12 real ECGs" not in (packed.folder / "LICENSE").read_text()


def test_a_network_that_knows_nothing_is_not_called_tested_on_patients(packed: Pack) -> None:
    score, rate, pr = packed.manifest.outputs
    assert score.evidence is Evidence.SIMULATED
    few = "on 6 real recordings with the finding and 6 without: AUC"
    assert f"not shown to be better than chance {few}" in score.caution
    assert set(score.figures) == {"real", "simulated-ecg"}
    assert rate.low_error is not None
    assert rate.high_error is not None
    assert rate.low_error < rate.high_error
    assert rate.caution.startswith("learned from and tested on simulated ECGs alone")
    assert pr.caution.endswith("means nothing in atrial fibrillation")


def test_a_heart_rate_says_how_far_it_was_from_r_peaks_of_real_recordings(packed: Pack) -> None:
    rate = packed.manifest.outputs[1]
    found = {"mae": [3.2, 2.1, 4.4], "recordings": 47}
    peaks = words.Section(name="heart_rate", title="", lines=(), data=found)
    assert list(words.cautions(rate, None, peaks)) == [
        "learned from and tested on simulated ECGs alone",
        "3 a minute beside a detector's R peaks on 47 real ones",
    ]
    unknown = replace(peaks, data={"mae": None, "recordings": 0})
    assert len(list(words.cautions(rate, None, unknown))) == 1


def test_the_report_names_every_real_recording(packed: Pack) -> None:
    page = (packed.folder / "evaluation.md").read_text()
    held: dict[str, Any] = json.loads((packed.folder / "evaluation.json").read_text())
    assert {"one_by_one", "heart_rate", "cart", "papers", "stored"} <= set(held["sections"])
    by_name = held["sections"]["one_by_one"]
    assert len(by_name) == 12
    assert all(f"| {name} |" in page for name in by_name)
    assert "| Atrial fibrillation | F1 0.870 |" in page
    assert "clips" not in page
    assert list(packed.folder.glob("evaluation-real-*.png"))
    assert ecg_training.MOST_HELD >= 1000
