"""A .keras file from outside loads when it is arithmetic, and is refused before any of it runs."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.packs import PackError, load_pack, write_manifest
from tests.unit.pack_makers import (
    PARTS,
    change_config,
    loaded,
    manifest,
    parts_of,
    refused,
    write_parts,
)

# Keras 3.15 saves by np.array(a TensorFlow tensor), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as a user would make one, compiled and saved."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    picture = keras.Input((16, 16, 1))
    each = layers.Conv2D(2, 3, activation="relu", name="first")(picture * 2.0)
    each = layers.BatchNormalization()(each)
    pooled = layers.GlobalAveragePooling2D()(each)
    network = keras.Model(picture, layers.Dense(1, name="last")(layers.Dropout(0.2)(pooled)))
    network.compile("sgd", "mse")
    path = tmp_path_factory.mktemp("made") / "model.keras"
    network.save(path)
    return path


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    shutil.copy(plain, folder / "model.keras")
    return folder


def test_it_answers_as_it_did_where_it_was_made(plain: Path, folder: Path) -> None:
    import keras

    frames = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)
    network = loaded(folder).network
    made = keras.saving.load_model(plain, compile=False)
    assert np.array_equal(network(frames), made(frames))
    assert load_pack(folder).ref.weights_sha256 == load_pack(folder).manifest.weights_sha256


def test_its_manifest_is_read_without_waking_keras(folder: Path) -> None:
    write_manifest(folder, manifest())
    program = (
        "import sys; from pathlib import Path; from models.packs import load_pack, shipped_packs\n"
        f"for folder in (Path({str(folder)!r}), *shipped_packs()): load_pack(folder)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def _layer(config: dict[str, Any], place: int = 1) -> dict[str, Any]:
    layer: dict[str, Any] = config["config"]["layers"][place]
    return layer


def _activation(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        (layer,) = (one for one in config["config"]["layers"] if one["name"] == "first")
        layer["config"]["activation"] = value

    return change


def _class(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        (layer,) = (one for one in config["config"]["layers"] if one["name"] == "last")
        layer.update(fields)

    return change


POLICY = {"module": "keras", "class_name": "DTypePolicy", "registered_name": None}


def _in_a_call(config: dict[str, Any]) -> None:
    command = {"module": "os", "class_name": "function", "config": "system"}
    _layer(config)["inbound_nodes"][0]["kwargs"] = {"training": command}


def _nested(config: dict[str, Any]) -> None:
    for _ in range(200):
        config["config"] = {"config": config["config"]}


def _build(config: dict[str, Any]) -> None:
    _layer(config)["build_config"] = {"class_name": "run", "config": {}, "module": "subprocess"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_class(module="os", class_name="system"), "os.system is not among what a pack may use"),
        (_class(module="subprocess", class_name="run"), r"Dense 'last'|run 'last': subprocess.run"),
        (_class(module="keras.src.saving.saving_lib"), r"saving_lib.Dense is not among"),
        (_class(module=None, registered_name="my>Dense"), "is not Keras's own"),
        (_class(registered_name="my>Dense"), "registered as 'my>Dense'"),
        (_class(class_name="TFSMLayer"), "keras.layers.TFSMLayer is not among"),
        (_class(class_name="TorchModuleWrapper"), "TorchModuleWrapper is not among"),
        (_class(class_name="StringLookup"), "StringLookup is not among"),
        (_class(class_name="Lambda"), "a Lambda carries or names code; use layers of Keras alone"),
        (_class(module="keras.utils", class_name="get_file"), "keras.utils.get_file is not among"),
        (_class(spec_name="TensorSpec"), "unknown entry 'spec_name'"),
        (_class(class_name="__typespec__", module="os"), "__typespec__ is not among"),
        (_class(class_name="__numpy__", module="os"), "a __numpy__ that names 'os'"),
        (
            _activation({"class_name": "__lambda__", "module": "builtins", "config": {}}),
            "a __lambda__ carries or names code",
        ),
        (
            _activation({"class_name": "function", "module": "keras.models", "config": "x"}),
            "a function carries or names code",
        ),
        (_activation({"class_name": "__numpy__", "config": {"dtype": "object"}}), "dtype 'object'"),
        (
            _class(config={"dtype": {**POLICY, "config": {"name": "int8_from_float32"}}}),
            "dtype 'int8_from_float32' is none of numbers",
        ),
        (_in_a_call, "a function carries or names code"),
        (_build, "subprocess.run is not among"),
        (_nested, "nested too deeply"),
        (_class(class_name="Functional", module="keras.layers"), "Functional is not among"),
        (lambda config: config.update(class_name="MyModel", module="mine"), "mine.MyModel is not"),
        (lambda config: config.update(_layer(config, 0)), "no Functional or Sequential model"),
    ],
)
def test_whatever_could_run_code_is_refused_by_its_name(
    folder: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    change_config(folder / "model.keras", change)
    assert "model.keras, config.json" in refused(folder, words)


def test_the_code_in_a_lambda_never_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    layer = keras.layers.Lambda(
        lambda numbers: (
            __import__("pathlib").Path(__import__("os").environ["CANARY"]).touch(),
            numbers,
        )[1],
        name="sing",
    )
    keras.Sequential([keras.Input((16, 16, 1)), layer]).save(folder / "model.keras")
    canary.unlink()
    refused(folder, r"Lambda 'sing': a Lambda carries or names code")
    assert not canary.exists()
    keras.saving.load_model(folder / "model.keras", safe_mode=False)
    assert canary.exists(), "the bird is alive: whoever trusts the file hears it"


def test_how_it_was_compiled_is_left_behind(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["compile_config"] = {"loss": {"module": "os", "class_name": "system", "config": {}}}

    change_config(folder / "model.keras", change)
    assert not loaded(folder).network.compiled


def test_a_network_of_another_keras_is_sent_back_to_it(folder: Path) -> None:
    parts = parts_of(folder / "model.keras")
    write_parts(folder / "model.keras", {**parts, "metadata.json": b'{"keras_version": "2.15.0"}'})
    refused(folder, r"metadata.json: saved by Keras 2.15.0; load it in Keras 3 and save it again")


def _link(file: Any) -> None:
    import h5py

    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft(file: Any) -> None:
    import h5py

    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers/dense/vars/1")


def _replaced(**settings: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"].create_dataset("0", **settings)

    return change


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((2, 1), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2, 1))
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_virtual_dataset("0", layout)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_link, "layers/dense/vars/0: a link to elsewhere; save the model again"),
        (_soft, "a link to elsewhere"),
        (
            _replaced(shape=(2, 1), dtype="f4", external=[("/etc/passwd", 0, 8)]),
            "its numbers lie in another file",
        ),
        (_virtual, "its numbers lie in another file"),
        (_replaced(shape=(1 << 20, 1 << 18), dtype="f4"), "numbers are promised, and fewer"),
        (_replaced(data=np.zeros((2, 1), "f4"), compression="gzip"), "it is compressed"),
        (_replaced(data=["a text"]), "no array of numbers"),
        (_replaced(data=np.zeros((5, 1), "f4")), "Keras cannot build it: "),
        (lambda file: file["layers"].pop("dense"), "Keras cannot build it: "),
    ],
)
def test_weights_are_numbers_of_the_file_itself(
    folder: Path, change: Callable[[Any], None], words: str
) -> None:
    import h5py

    parts = parts_of(folder / "model.keras")
    weights = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(file)
    write_parts(folder / "model.keras", {**parts, "model.weights.h5": weights.getvalue()})
    refused(folder, words)


def test_weights_that_are_no_hdf5_are_refused(folder: Path) -> None:
    parts = parts_of(folder / "model.keras")
    pickle = b"\x80\x04cos\nsystem\n(S'false'\ntR."
    write_parts(folder / "model.keras", {**parts, "model.weights.h5": pickle})
    refused(folder, "model.weights.h5: no readable HDF5 file")


def test_an_archive_holds_the_three_files_of_keras_and_no_more(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "model.keras"
    parts = parts_of(path)
    assert set(parts) == set(PARTS)
    write_parts(path, {**parts, "../../canary": b"out of the nest"})
    refused(folder, r"the archive: '../../canary' does not belong into it")
    assert not list(tmp_path.rglob("canary"))
    write_parts(path, {**parts, "assets/vocabulary.txt": b""})
    refused(folder, "'assets/vocabulary.txt' does not belong into it")
    write_parts(path, {name: parts[name] for name in PARTS[:2]})
    refused(folder, r"the archive: holds metadata.json, config.json; .* are wanted")
    write_parts(path, parts)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", parts["config.json"])
    refused(folder, "each once")
    bomb = {**parts, "model.weights.h5": bytes(1 << 20)}
    write_parts(path, bomb, zipfile.ZIP_DEFLATED)
    refused(folder, "compressed, as Keras never does")
    path.write_bytes(b"no archive")
    refused(folder, "no .keras file: ")


def test_a_link_to_a_network_elsewhere_is_not_followed(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, manifest())
    (folder / "model.keras").rename(tmp_path / "elsewhere")
    (folder / "model.keras").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackError, match=r"weights must be a file in the pack, not 'model.keras'"):
        load_pack(folder)


def test_a_file_with_another_checksum_is_refused(folder: Path) -> None:
    write_manifest(folder, manifest())
    with (folder / "model.keras").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PackError, match=r"model.keras has SHA-256 .*; copy the pack again"):
        load_pack(folder)


def test_a_network_that_would_fill_the_memory_is_never_built(folder: Path) -> None:
    path = folder / "model.keras"
    whole = path.read_bytes()

    def grow(config: dict[str, Any]) -> None:
        (layer,) = (one for one in config["config"]["layers"] if one["name"] == "last")
        layer["config"]["units"] = 1 << 40

    change_config(path, grow)
    refused(folder, "it asks for more weights than the .* numbers of the file; save the model")
    path.write_bytes(whole)

    def swell(config: dict[str, Any]) -> None:
        # Keras numbers what has no name, by all that was built before in this process.
        layers = config["config"]["layers"]
        (layer,) = (one for one in layers if one["class_name"] == "Dropout")
        layer.update(module="keras.layers", class_name="RepeatVector")
        layer["config"] = {"name": layer["name"], "n": 1 << 28}
        layer["inbound_nodes"][0]["kwargs"] = {}

    change_config(path, swell)
    refused(folder, "RepeatVector 'dropout.*': gives .* more than memory holds")


def test_a_network_of_layers_in_layers_loads(folder: Path) -> None:
    import keras
    from keras import layers, ops

    clip = keras.Input((4, 16, 16, 1))
    one = keras.Sequential([layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()])
    each = layers.TimeDistributed(one)(layers.Rescaling(0.5, offset=-1)(clip))
    told = layers.Bidirectional(layers.LSTM(3))(ops.relu(each))
    seen = layers.MultiHeadAttention(2, 3)(each, each)[:, -1]
    both = layers.Concatenate()([told, layers.LayerNormalization()(seen)])
    network = keras.Model(clip, layers.Dense(1, kernel_regularizer="l2")(both))
    network.save(folder / "model.keras")
    spec = {"rows": 16, "columns": 16, "window": 4}
    answer = loaded(folder, input=spec).network(np.zeros((9, 16, 16, 1), np.float32))
    assert answer.shape == (9, 1)
