"""A manifest agrees with tasks, codes and network, or is refused at the very key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.finding import Method
from models.networks import build_network
from models.packs import (
    InputSpec,
    Pack,
    PackError,
    PackKind,
    WaveformInput,
    agree,
    load_pack,
    write_pack,
)
from models.packs.checks import STRUCTURES
from models.packs.codes import code_of
from models.packs.fitting import fitted
from models.packs.inspection import inspect_pack
from models.readers import RegressionReader
from models.tasks import TASKS
from node.results.codes import OUTPUTS
from tests.unit.pack_makers import output

SPEC = InputSpec(rows=60, columns=80, mean=0.2, std=0.2)
SETTINGS = {"classes": 3, "widths": [4, 4], "dense": [4]}


def _manifest(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "1.0.0",
        "kind": "regression",
        "title": "tiny",
        "network": {"name": "view_cnn", "settings": SETTINGS},
        "input": SPEC.model_dump(),
        "outputs": [
            output("ef", "%", offset=55.0),
            output("edv", "mL", pixel_power=3),
            output("lvh", "{score}", kind="score", threshold=0.5),
        ],
        "licence": "none",
        "trained_on": "nothing",
        "training_command": "none",
        **changes,
    }


@pytest.fixture(scope="module")
def network() -> Any:
    import keras

    keras.utils.set_random_seed(1)  # now and then one by chance says the same of every picture
    return build_network("view_cnn", SPEC, SETTINGS)


@pytest.fixture
def pack(network: Any, tmp_path: Path) -> Pack:
    return write_pack(tmp_path / "tiny", _manifest(), network, half=False)


def _change(pack: Pack, **fields: Any) -> None:
    path = pack.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_is_written_states_code_and_range_of_each_output(pack: Pack) -> None:
    ef, edv, lvh = pack.manifest.outputs
    assert ef.code is not None
    assert (ef.code.value, ef.code.scheme) == ("18043-0", "LN")
    assert ef.range == (0.0, 95.0)
    assert edv.range == (10.0, 500.0)
    assert lvh.code is not None
    assert lvh.code.scheme == "99ECHOAI"


@pytest.mark.parametrize("kind", list(PackKind))
def test_a_packs_codes_are_those_that_a_report_writes(kind: PackKind) -> None:
    discs = kind is PackKind.TRACING
    for name, codes in OUTPUTS.items():
        method = Method.SINGLE_PLANE_DISCS if discs else Method.REGRESSION
        if discs and name == "la_volume":
            method = Method.AREA_LENGTH
        written, stated = codes.name_of(method), code_of(name, kind)
        assert stated is not None
        assert (stated.value, stated.scheme, stated.meaning) == (
            written.value,
            written.scheme,
            written.meaning,
        )
    assert set(OUTPUTS) == set(TASKS)


SUBJECT_AGE = {"scheme": "DCM", "value": "121033", "meaning": "Subject Age"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"outputs": [output("tapse", "cm")]}, r"outputs.0.name: 'tapse' is not in models\.tasks"),
        ({"outputs": [output("ef", "mL")]}, r"outputs.0.unit: ef is given in '%'; scale it"),
        ({"outputs": [output("lvh", "{score}")]}, r"outputs.0.kind: lvh is a score, not a meas"),
        (
            {"outputs": [output("ef", "%", range=[0.0, 120.0])]},
            r"outputs.0.range: 0 to 120 is wider than what can be, 0 to 95 %; narrow it",
        ),
        ({"outputs": [output("ef", "%", range=[60.0, 40.0])]}, r"outputs.0.range: .* comes first"),
        (
            {"outputs": [output("age", "a", code=SUBJECT_AGE)]},
            r"outputs.0.code: \(121033, DCM\) is not what age means in a report, \(AI-AGE",
        ),
        ({"outputs": [output("ef", "%")] * 2}, r"outputs: 'ef' is there 2 times; keep one"),
        ({"outputs": []}, r"outputs: a regression without an output says nothing"),
        ({"preprocessing": 99}, r"preprocessing version 99, and this echonode has version 1"),
        ({"kind": "view"}, r"classes: a view pack needs them"),
        ({"kind": "tracing", "classes": STRUCTURES[::-1]}, r"in this order"),
        (
            {"kind": "tracing", "input": {"rows": 60, "columns": 80, "window": 2}},
            r"input.window: kind 'tracing' reads a frame at a time",
        ),
        ({"network": {"format": "onnx", "file": "x"}}, r"network: format must be 'keras' or"),
        ({"network": {"format": "keras", "file": "../x.keras"}}, r"network.file: String should"),
        (
            {"network": {"format": "keras", "file": "x.keras"}, "weights": "y.keras"},
            r"weights must be 'x.keras', the network itself",
        ),
    ],
)
def test_a_wrong_manifest_is_refused_at_the_key(
    pack: Pack, fields: dict[str, Any], words: str
) -> None:
    _change(pack, **fields)
    with pytest.raises(PackError, match=rf"^pack {pack.folder}: .*{words}"):
        load_pack(pack.folder)


def test_all_that_is_wrong_is_told_at_once(pack: Pack) -> None:
    _change(pack, outputs=[output("ef", "mL"), output("mood", "%")], preprocessing=3)
    (pack.folder / "weights.safetensors").write_bytes(b"")
    problems = inspect_pack(pack.folder).problems
    assert len(problems) == 4
    assert problems[0].startswith("made for preprocessing version 3, and this echonode has")
    assert problems[1].startswith("manifest.json, outputs.0.unit: ")
    assert problems[2].startswith("manifest.json, outputs.1.name: ")
    assert problems[3].startswith("weights.safetensors has SHA-256 e3b0c44298fc…, the manifest")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"outputs": [output("ef", "%")]},
            r"outputs: the network gives \(n, 3\), and \(n, 1\) is wanted for 1 outputs .*'head'",
        ),
        ({"outputs": [output("ef", "%", head=3)]}, r"gives \(n, 3\), and \(n, 4\) is wanted"),
        (
            {"kind": "view", "classes": ["a4c", "other"], "outputs": []},
            r"classes: the network gives \(n, 3\), and \(n, 2\) is wanted for 2 classes; correct",
        ),
        (
            {"kind": "tracing", "outputs": [], "classes": STRUCTURES},
            r"gives \(n, 3\), and \(n, 60, 80, 4\) is wanted for 4 classes at each pixel",
        ),
        (
            {"input": {"rows": 60, "columns": 80, "channels": 3}},
            r"input: it says \(n, 60, 80, 3\), and the network takes \(n, 60, 80, 1\); correct",
        ),
    ],
)
def test_a_network_that_is_not_what_its_manifest_says_is_refused(
    pack: Pack, fields: dict[str, Any], words: str
) -> None:
    _change(pack, **fields)
    with pytest.raises(PackError, match=words):
        _ = load_pack(pack.folder).network


def test_an_output_may_be_one_of_many_numbers(pack: Pack) -> None:
    _change(pack, outputs=[output("ef", "%", head=2)])
    reader = RegressionReader(load_pack(pack.folder))
    assert reader.heads == (2,)
    assert reader.network.output_shape == (None, 3)


def test_a_value_outside_the_packs_own_range_is_refused(pack: Pack) -> None:
    ef = pack.manifest.outputs[0].model_copy(update={"range": (20.0, 40.0), "high_error": 9.0})
    reader = RegressionReader(pack)
    refusal = reader.speak(ef, 55.0, Method.REGRESSION, (0,))
    assert refusal.reason == "55 % is outside the plausible range of 20 to 40 %"
    assert reader.speak(ef, 35.0, Method.REGRESSION, (0,)).high == 40.0


def test_how_far_float16_answers_are_apart_is_measured(network: Any, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(12, 60, 80, 1)).astype(np.float32)
    whole = write_pack(tmp_path / "whole", _manifest(), network, half=False)
    assert agree(network, whole, inputs).largest == 0.0
    half = agree(network, write_pack(tmp_path / "half", _manifest(), network), inputs)
    assert 0.0 < half.mean <= half.largest < 0.05
    assert half.same_class is None
    assert len(half.by_output) == 3
    viewer = _manifest(kind="view", classes=["a4c", "a2c", "other"], outputs=[])
    views = agree(network, write_pack(tmp_path / "views", viewer, network), inputs)
    assert views.same_class is not None
    assert views.as_figures()["inputs"] == 12
    assert 0.9 < views.as_figures()["same_class"] <= 1.0
    other = build_network("view_cnn", SPEC, SETTINGS)
    assert agree(other, whole, inputs).largest > half.largest
    with pytest.raises(ValueError, match="no inputs"):
        agree(network, whole, inputs[:0])


ECG = {"samples": 256, "rate_hz": 100.0, "leads": ["I", "II", "V5"]}


def _of_ecgs(**changes: Any) -> dict[str, Any]:
    return _manifest(
        **{
            "kind": "waveform",
            "network": {"name": "ribeiro", "settings": {"outputs": 2, "width": 0.125}},
            "input": ECG,
            "outputs": [
                output("qrs_duration", "ms", offset=90.0),
                output("rbbb", "{score}", kind="score", threshold=0.5),
            ],
            **changes,
        }
    )


def _ecg_network() -> Any:
    spec = WaveformInput.model_validate(ECG)
    return build_network("ribeiro", spec, {"outputs": 2, "width": 0.125})


def test_a_pack_of_ecgs_is_written_and_read_by_the_same_road(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "tiny", _of_ecgs(), _ecg_network(), half=False)
    assert pack.manifest.waveform.leads == ("I", "II", "V5")
    assert pack.manifest.waveform.duration_s == pytest.approx(2.56)
    assert pack.network.input_shape == (None, 256, 3)
    with pytest.raises(PackError, match="tiny: it reads ECGs, and a pack for clips is wanted"):
        _ = pack.manifest.frames


def test_a_pack_of_clips_is_none_of_ecgs(pack: Pack) -> None:
    assert pack.manifest.frames == SPEC
    with pytest.raises(PackError, match="tiny: it reads clips, and a pack for ECGs is wanted"):
        _ = pack.manifest.waveform


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": {**ECG, "leads": ["I", "V9"]}}, r"input.leads: .*no lead 'V9'"),
        ({"input": {**ECG, "leads": ["I", "I"]}}, r"input.leads: .*a lead is there twice"),
        ({"input": {**ECG, "rows": 60}}, r"manifest.json, input.rows: Extra inputs"),
        ({"input": {**ECG, "highpass_hz": 50.0}}, r"input: .*below half of rate_hz"),
        ({"input": SPEC.model_dump()}, r"kind 'waveform' takes an ECG's samples and rate_hz"),
        ({"kind": "regression"}, r"kind 'regression' takes a picture's rows and columns"),
        ({"outputs": []}, r"outputs: a waveform without an output says nothing"),
        ({"preprocessing": 99}, r"preprocessing version 99, and this echonode has version 1"),
        (
            {"outputs": [output("ef", "%")]},
            r"outputs.0.name: ef is no output of a pack of kind 'waveform'",
        ),
        (
            {"outputs": [output("qrs_duration", "ms", pixel_power=1)]},
            r"outputs.0.pixel_power: an ECG has no frames and no pixels",
        ),
        (
            {"input": {**ECG, "samples": 512}},
            r"input: it says \(n, 512, 3\), and the network takes \(n, 256, 3\); correct samples",
        ),
        (
            {"outputs": [output("qrs_duration", "ms")]},
            r"outputs: the network gives \(n, 2\), and \(n, 1\) is wanted",
        ),
    ],
)
def test_what_a_pack_of_ecgs_gets_wrong_is_named(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    pack = write_pack(tmp_path / "tiny", _of_ecgs(), _ecg_network(), half=False)
    _change(pack, **fields)
    with pytest.raises(PackError, match=words):
        fitted(pack.folder, load_pack(pack.folder).manifest, _ecg_network())


def test_an_output_of_an_ecg_is_none_of_a_clip(pack: Pack) -> None:
    _change(pack, outputs=[output("qrs_duration", "ms")])
    with pytest.raises(PackError, match="qrs_duration is no output of a pack of kind 'regression'"):
        load_pack(pack.folder)
