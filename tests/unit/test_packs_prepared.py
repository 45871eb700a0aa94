"""Networks kept as they run: the same numbers, and nothing believed that is not whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.explain.gradient import gradient_step, input_gradient
from models.explain.target import explained
from models.packs import InputSpec, Pack, load_pack, prepared, write_pack
from models.readers import RegressionReader

_SHAPE = (10, 32, 32, 1)
_MANIFEST: dict[str, Any] = {
    "name": "tiny",
    "version": "0.0.1",
    "title": "for tests",
    "kind": "regression",
    "licence": "Apache-2.0",
    "trained_on": "nothing",
    "training_command": "none",
    "network": {"name": "view_cnn", "settings": {"classes": 2, "widths": [4, 4], "dense": [4]}},
    "input": {"rows": 32, "columns": 32, "frames": 4, "interval_ms": 100.0},
    "outputs": [
        {"name": name, "kind": "measurement", "unit": unit, "evidence": "patients",
         "low_error": -10, "high_error": 10, "tested_on": "nothing"}
        for name, unit in (("ef", "%"), ("age", "a"))
    ],
}  # fmt: skip


def _pack(folder: Path, seed: int) -> Path:
    import keras

    from models.networks import build_network

    folder.mkdir()
    keras.utils.set_random_seed(seed)
    network = _MANIFEST["network"]
    spec = InputSpec(**_MANIFEST["input"])
    write_pack(folder, _MANIFEST, build_network(network["name"], spec, network["settings"]))
    return folder


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packs of one name with other weights."""
    root = tmp_path_factory.mktemp("packs")
    return _pack(root / "one", 1), _pack(root / "two", 2)


@pytest.fixture(scope="module")
def frames() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=_SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def _kept_once(
    packs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, frames: NDArray[np.float32]
) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "prepared"
    _numbers(load_pack(packs[0], folder), frames)
    return folder


@pytest.fixture
def kept(_kept_once: Path, tmp_path: Path) -> Path:
    """The folder after the first pack has run once from it."""
    return Path(shutil.copytree(_kept_once, tmp_path / "prepared"))


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packs whose networks were built from here on."""
    built: list[str] = []
    build = Pack.settled.func  # type: ignore[attr-defined] # a cached property has it

    def counted(self: Pack) -> Callable[[Any], Any]:
        if "settled" not in self.__dict__:
            built.append(self.folder.name)
            self.__dict__["settled"] = build(self)
        return self.__dict__["settled"]  # type: ignore[no-any-return]

    monkeypatch.setattr(Pack, "settled", property(counted))
    return built


def _numbers(pack: Pack, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    return RegressionReader(pack).run(frames)


def test_a_kept_network_says_the_same_and_is_not_built(
    packs: tuple[Path, Path], kept: Path, frames: NDArray[np.float32], unbuilt: list[str]
) -> None:
    again = _numbers(load_pack(packs[0], kept), frames)
    assert unbuilt == []

    fresh = _numbers(load_pack(packs[0]), frames)
    assert unbuilt == ["one"]
    assert np.array_equal(again, fresh)


def test_a_kept_gradient_is_the_same_and_needs_no_network(
    packs: tuple[Path, Path], tmp_path: Path, frames: NDArray[np.float32], unbuilt: list[str]
) -> None:
    folder = tmp_path / "prepared"
    fresh, made, again = (
        input_gradient(explained(load_pack(packs[0], place), settled=True), frames, [1, 0])
        for place in (None, folder, folder)
    )

    assert unbuilt == ["one", "one"]
    assert fresh.any()
    assert np.array_equal(fresh, made)
    assert np.array_equal(fresh, again)


def test_gradients_of_other_outputs_are_other_graphs(
    packs: tuple[Path, Path], tmp_path: Path, frames: NDArray[np.float32]
) -> None:
    network = explained(load_pack(packs[0], tmp_path), settled=True)
    both = np.asarray(gradient_step(network, (0, 1), _SHAPE)(frames)[0])
    second = np.asarray(gradient_step(network, (1,), _SHAPE)(frames)[0])

    assert np.allclose(both[1], second[0], atol=1e-7)
    assert len(list(tmp_path.glob("*.graph"))) == 2


def test_other_weights_are_never_answered_for(
    packs: tuple[Path, Path], kept: Path, frames: NDArray[np.float32]
) -> None:
    (before,) = kept.iterdir()
    other = _numbers(load_pack(packs[1], kept), frames)

    assert np.array_equal(other, _numbers(load_pack(packs[1]), frames))
    assert not np.array_equal(other, _numbers(load_pack(packs[0]), frames))
    assert list(kept.iterdir()) == [before], "what is out of date is written over"


def _cut(data: bytes) -> bytes:
    return data[:-40]


def _flipped(data: bytes) -> bytes:
    return data[:-300] + bytes([data[-300] ^ 1]) + data[-299:]


def _headless(data: bytes) -> bytes:
    return data[30:]


def _nonsense(data: bytes) -> bytes:
    head, said, _ = data.split(b"\n", 2)
    graph = b"\xff" * 50
    said = json.dumps({**json.loads(said), "sha256": hashlib.sha256(graph).hexdigest()}).encode()
    return b"\n".join([head, said, graph])


def _wordless(data: bytes) -> bytes:
    head, said, graph = data.split(b"\n", 2)
    return b"\n".join([head, json.dumps({"key": json.loads(said)["key"]}).encode(), graph])


@pytest.mark.parametrize("harm", [_cut, _flipped, _headless, _nonsense, _wordless])
def test_what_is_damaged_is_made_again(
    harm: Callable[[bytes], bytes],
    packs: tuple[Path, Path],
    kept: Path,
    frames: NDArray[np.float32],
    unbuilt: list[str],
) -> None:
    (path,) = kept.iterdir()
    path.write_bytes(harm(path.read_bytes()))

    numbers = _numbers(load_pack(packs[0], kept), frames)
    assert unbuilt == ["one"]
    again = _numbers(load_pack(packs[0], kept), frames)
    assert unbuilt == ["one"], "it is whole again"

    assert np.array_equal(numbers, _numbers(load_pack(packs[0]), frames))
    assert np.array_equal(numbers, again)


def test_a_graph_that_would_write_a_file_is_not_run(
    packs: tuple[Path, Path],
    kept: Path,
    tmp_path: Path,
    frames: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import tensorflow as tf

    (path,) = kept.iterdir()
    head, line, data = path.read_bytes().split(b"\n", 2)
    graph = tf.compat.v1.GraphDef.FromString(data)
    trace = tmp_path / "written"
    with tf.Graph().as_default() as outer:
        tf.io.write_file(str(trace), "words")
    graph.node.extend(outer.as_graph_def().node)
    data = graph.SerializeToString()
    said = {**json.loads(line), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_bytes(b"\n".join([head, json.dumps(said).encode(), data]))

    numbers = _numbers(load_pack(packs[0], kept), frames)

    assert np.array_equal(numbers, _numbers(load_pack(packs[0]), frames))
    assert not trace.exists()
    assert "it holds WriteFile" in caplog.text


def test_where_nothing_can_be_kept_it_says_so_once_and_reads(
    packs: tuple[Path, Path],
    tmp_path: Path,
    frames: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    prepared._say_once.cache_clear()

    first = _numbers(load_pack(packs[0], blocked), frames)
    second = _numbers(load_pack(packs[0], blocked / "inside"), frames)

    assert np.array_equal(first, second)
    assert np.array_equal(first, _numbers(load_pack(packs[0]), frames))
    told = [record.getMessage() for record in caplog.records if "kept in" in record.getMessage()]
    assert len(told) == 2, "one for each folder"
    assert "the next start takes longer" in told[0]


def test_a_newer_library_makes_them_again(
    packs: tuple[Path, Path],
    kept: Path,
    frames: NDArray[np.float32],
    unbuilt: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "_here", lambda: ("99.0", "", "", "code"))

    _numbers(load_pack(packs[0], kept), frames)

    assert unbuilt == ["one"]


def test_what_a_kill_left_half_written_goes_with_the_next_writing(
    packs: tuple[Path, Path], kept: Path, frames: NDArray[np.float32]
) -> None:
    (path,) = kept.iterdir()
    old, young = (kept / f".{path.name}.{name}" for name in ("old", "young"))
    for half in (old, young):
        half.write_bytes(b"echonode gr")
    os.utime(old, (1e9, 1e9))

    _numbers(load_pack(packs[1], kept), frames)

    assert set(kept.iterdir()) == {path, young}, "another process may still be at the young one"
