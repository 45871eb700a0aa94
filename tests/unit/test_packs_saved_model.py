"""A SavedModel from outside loads when it is arithmetic, and is refused before any of it runs."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.packs import PackError, load_pack, write_manifest
from models.packs.saved_model import ALLOWED
from tests.unit.pack_makers import loaded, manifest, refused

NETWORK = {"format": "saved_model", "folder": "model"}
READERS_AND_WRITERS = """
    ReadFile WriteFile PrintV2 Print PyFunc PyFuncStateless EagerPyFunc Save SaveV2 RestoreV2
    MatchingFiles WholeFileReaderV2 ReaderReadV2 TextLineDataset TensorSummary WriteSummary Assert
    LoadAndRemapMatrix HashTableV2 XlaCallModule RemoteCall RpcCall DataServiceDataset Batch
    AssignVariableOp StringFormat DecodeJpeg ParseExample LoadLibrary
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def _save(folder: Path, call: Callable[[Any], Any], rows: int | None = 16, **held: Any) -> None:
    """A SavedModel whose serving signature is this; ``held`` are attributes of its module."""
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable([[0.5]])
    for name, value in held.items():
        setattr(module, name, value)
    module.serve = tf.function(
        lambda picture: {"ef": call(picture) * module.weight},
        input_signature=[tf.TensorSpec((None, rows, 16, 1), tf.float32, name="picture")],
    )
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)


def _mean(picture: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(picture, axis=(1, 2))


def test_an_exported_network_answers_as_it_did(folder: Path) -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    made = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(2, 3),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ]
    )
    made.export(folder / "model", verbose=False)
    network = loaded(folder, network=NETWORK).network
    frames = tf.constant(np.random.default_rng(0).normal(size=(3, 16, 16, 1)), tf.float32)
    assert np.allclose(network(frames), made(frames), atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(frames)
        total = tf.reduce_sum(network(frames, training=False))
    assert np.any(tape.gradient(total, frames).numpy()), "its answer can be explained"


def test_its_fingerprint_is_that_of_two_lines_of_shell(folder: Path) -> None:
    _save(folder, _mean)
    script = r"find . -type f | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum"
    lines = subprocess.run(
        ["bash", "-c", script], cwd=folder / "model", capture_output=True, check=True
    ).stdout
    assert write_manifest(folder, manifest(network=NETWORK)).weights_sha256 == (
        hashlib.sha256(lines).hexdigest()
    )
    (folder / "model" / "fingerprint.pb").write_bytes(b"another")
    with pytest.raises(PackError, match=r"model has SHA-256 .*; copy the pack again"):
        load_pack(folder)


def _writes(canary: Path) -> Callable[[Any], Any]:
    import tensorflow as tf

    def call(picture: Any) -> Any:
        tf.io.write_file(str(canary), "sings")
        return _mean(picture)

    return call


def _writes_in_a_branch(canary: Path) -> Callable[[Any], Any]:
    import tensorflow as tf

    call = _writes(canary)
    return lambda picture: tf.cond(
        tf.reduce_mean(picture) < 1e9, lambda: call(picture), lambda: _mean(picture)
    )


def _prints(canary: Path) -> Callable[[Any], Any]:
    import tensorflow as tf

    def call(picture: Any) -> Any:
        tf.print("sings", output_stream=f"file://{canary}")
        return _mean(picture)

    return call


def _calls_python(canary: Path) -> Callable[[Any], Any]:
    import tensorflow as tf

    def sing(numbers: Any) -> Any:
        canary.touch()
        return numbers

    return lambda picture: tf.py_function(sing, [_mean(picture)], tf.float32)


@pytest.mark.parametrize(
    ("evil", "operation"),
    [
        (_writes, "WriteFile"),
        (_writes_in_a_branch, "WriteFile"),
        (_prints, "StringFormat|PrintV2"),
        (_calls_python, "EagerPyFunc"),
    ],
)
def test_an_operation_that_reaches_out_is_refused_by_its_name_and_never_run(
    folder: Path, tmp_path: Path, evil: Callable[[Path], Any], operation: str
) -> None:
    import tensorflow as tf

    canary = tmp_path / "canary"
    _save(folder, evil(canary))
    line = refused(folder, rf"operation ({operation}) is not among", network=NETWORK)
    assert "model, function " in line
    assert not canary.exists()
    trusted = tf.saved_model.load(str(folder / "model"))
    trusted.serve(np.zeros((1, 16, 16, 1), np.float32))
    assert canary.exists(), "whoever trusts the folder hears the bird"


def test_code_that_no_signature_calls_is_refused_too(folder: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    canary = tmp_path / "canary"

    def sing() -> None:
        tf.io.write_file(str(canary), "sings")

    _save(folder, _mean, other=tf.function(sing, input_signature=[]))
    refused(folder, "operation WriteFile is not among", network=NETWORK)


def test_a_file_is_not_read_into_the_answer(folder: Path) -> None:
    import tensorflow as tf

    _save(folder, lambda picture: _mean(picture) + _length(tf.io.read_file("/etc/hostname")))
    refused(folder, "operation (ReadFile|StringLength) is not among", network=NETWORK)


def _length(words: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tf.strings.length(words), tf.float32)


def test_assets_and_tables_are_refused(folder: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("one\ntwo\n")
    _save(folder, _mean, words=tf.saved_model.Asset(str(vocabulary)))
    refused(folder, r"model, assets/words.txt: does not belong into", network=NETWORK)
    (folder / "model" / "assets" / "words.txt").unlink()
    refused(folder, r"saved_model.pb: it wants to read the asset 'words.txt'", network=NETWORK)


def test_an_object_that_is_made_by_code_is_refused(folder: Path) -> None:
    import tensorflow as tf

    keys = tf.lookup.KeyValueTensorInitializer(["a"], [1])
    _save(folder, _mean, table=tf.lookup.StaticHashTable(keys, 0))
    refused(folder, "saved_model.pb: an object of kind resource; export it again", network=NETWORK)


def test_links_and_foreign_files_in_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    _save(folder, _mean)
    write_manifest(folder, manifest(network=NETWORK))
    index = folder / "model" / "variables" / "variables.index"
    index.rename(tmp_path / "elsewhere")
    index.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackError, match=r"model/variables/variables.index is a link or no plain"):
        load_pack(folder)
    index.unlink()
    (tmp_path / "elsewhere").rename(index)
    (folder / "model" / "custom_op.so").write_bytes(b"\x7fELF")
    refused(folder, r"model, custom_op.so: does not belong into a SavedModel", network=NETWORK)
    (folder / "model").rename(tmp_path / "whole")
    (folder / "model").symlink_to(tmp_path / "whole")
    with pytest.raises(PackError, match=r"must be a folder in the pack, not 'model'"):
        load_pack(folder)


def test_a_folder_that_is_no_saved_model_is_refused(folder: Path) -> None:
    _save(folder, _mean)
    graph = folder / "model" / "saved_model.pb"
    whole = graph.read_bytes()
    graph.write_bytes(b"\xff" * 100)
    refused(folder, r"model, saved_model.pb: no readable SavedModel", network=NETWORK)
    graph.write_bytes(whole + whole)
    refused(folder, "one graph with the tag 'serve' is wanted", network=NETWORK)


def test_a_signature_of_another_shape_is_refused(folder: Path) -> None:
    import tensorflow as tf

    _save(folder, _mean, rows=24)
    refused(
        folder,
        r"it says \(n, 16, 16, 1\), and the network takes \(n, 24, 16, 1\); correct rows",
        network=NETWORK,
    )
    module = tf.Module()
    both = [tf.TensorSpec((None, 16, 16, 1), tf.float32, name=name) for name in ("picture", "age")]
    module.serve = tf.function(
        lambda picture, age: {"ef": _mean(picture), "edv": _mean(age)}, input_signature=both
    )
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    refused(folder, "its inputs are age, picture; one picture is all that a clip", network=NETWORK)


def test_one_of_several_outputs_is_named_by_the_manifest(folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda picture: {"ef": _mean(picture), "edv": 2 * _mean(picture)},
        input_signature=[tf.TensorSpec((None, 16, 16, 1), tf.float32, name="picture")],
    )
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    refused(folder, "its outputs are edv, ef; name one of them in the manifest", network=NETWORK)
    network = loaded(folder, network={**NETWORK, "output": "edv"}).network
    assert np.allclose(network(np.ones((1, 16, 16, 1), np.float32)), 2.0)


def test_the_list_holds_no_operation_with_a_state_but_variables_and_calls() -> None:
    from tensorflow.python.framework import op_def_registry

    assert not ALLOWED & set(READERS_AND_WRITERS.split())
    known = {name: op_def_registry.get(name) for name in ALLOWED}
    assert all(known.values()), "each is one that TensorFlow knows"
    stateful = {name for name, operation in known.items() if operation.is_stateful}
    assert stateful == {"If", "ReadVariableOp", "StatefulPartitionedCall", "VarHandleOp", "While"}
