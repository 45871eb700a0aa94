"""A user's own network through the whole of the node: imported, set, run, told in the report."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import pytest
from pydicom import Dataset, dcmread

import models.packs
from models.packs import PackError
from models.packs.files import fingerprint
from node import analysis
from node.analysis import worker
from node.cli import main, reading
from node.cli.output import ExitCode
from node.executor import WorkerStartFailed
from tests.running_node import REAL_CINE

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

_SIDE = 32
_TESTED = "our hospital, 120 patients of 2024 that training never saw"


def _manifest(name: str, **changes: Any) -> dict[str, Any]:
    """What a user writes: no network, no checksum, for these the command works out."""
    return {
        "name": name,
        "version": "2.3.1",
        "kind": "regression",
        "title": "Ejection fraction from single frames, A4C",
        "input": {"rows": _SIDE, "columns": _SIDE, "frames": 10, "interval_ms": 100.0},
        "outputs": [
            {
                "name": "ef",
                "kind": "measurement",
                "unit": "%",
                "scale": 10.0,
                "offset": 50.0,
                "low_error": -11.0,
                "high_error": 12.0,
                "evidence": "patients",
                "tested_on": _TESTED,
                "figures": {"patients": 120, "mae": [4.6, 4.0, 5.3]},
            }
        ],
        "licence": "in-house, research only",
        "trained_on": "our hospital",
        "training_command": "python train.py --seed 7",
        **changes,
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where a user has saved a network in both formats, with a manifest for each."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    frame = keras.Input((_SIDE, _SIDE, 1))
    seen = layers.Conv2D(4, 5, strides=3, activation="relu")(frame)
    network = keras.Model(frame, layers.Dense(1)(layers.GlobalAveragePooling2D()(seen)))
    folder = tmp_path_factory.mktemp("site")
    network.save(folder / "model.keras")
    network.export(folder / "exported", verbose=False)
    for name in ("my-ef", "my-exported-ef"):
        (folder / f"{name}.json").write_text(json.dumps(_manifest(name)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def imported(site: Path) -> tuple[Path, Path]:
    """Both as packs, by the command."""
    packs = site / "packs"
    for model, name in (("model.keras", "my-ef"), ("exported", "my-exported-ef")):
        words = ["packs", "import", str(site / model), "--manifest", f"{name}.json"]
        assert main([*words, "--out", str(packs / name)]) == ExitCode.OK
    return packs / "my-ef", packs / "my-exported-ef"


def _settings(site: Path, *packs: Path) -> str:
    file = site / "echonode.toml"
    listed = ", ".join(f'"{pack}"' for pack in packs)
    file.write_text(f'data_dir = "{site}"\n[analysis]\nworkers = 1\npacks = [{listed}]\n')
    return str(file)


class _Here:
    """A worker in this very process: a process of its own would start a second TensorFlow.

    :mod:`tests.integration.test_cli_analyze` runs the command with one.
    """

    def __init__(
        self, _count: int, *, initargs: tuple[Sequence[str], int, object], **_more: object
    ) -> None:
        self._failed: WorkerStartFailed | None = None
        try:
            analysis.load_packs(*initargs[:2])
        except PackError as error:
            self._failed = WorkerStartFailed(str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._failed is not None:
            future.set_exception(self._failed)
        else:
            future.set_result(call(*args, **more))
        return future


@pytest.fixture(scope="module", autouse=True)
def _one_process_and_few_packs() -> Iterator[None]:
    """Of the shipped packs only the one that names views: a clip must be known to be A4C."""
    views = tuple(folder for folder in models.packs.shipped_packs() if folder.name == "views")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_packs", None)
        patch.setattr(reading, "WorkerProcesses", _Here)
        patch.setattr(models.packs, "shipped_packs", lambda: views)
        yield


@pytest.fixture(scope="module")
def answer(site: Path, imported: tuple[Path, Path]) -> Any:
    """What ``analyze`` says of a real cine with both packs set."""
    words = ["--config", _settings(site, *imported), "analyze", str(REAL_CINE)]
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.cli.output.print_text", told.append)
        assert main([*words, "--out", str(site / "results"), "--json"]) == ExitCode.OK
    return json.loads("".join(told))


def _own(answer: Any, pack: str) -> dict[str, Any]:
    (clip,) = answer["clips"]
    (found,) = [one for one in clip["findings"] if one["pack"] == pack]
    return dict(found)


@pytest.mark.parametrize("name", ["my-ef", "my-exported-ef"])
def test_its_finding_stands_in_the_json_with_its_evidence_and_name(answer: Any, name: str) -> None:
    found = _own(answer, name)

    assert (found["output"], found["unit"], found["version"]) == ("ef", "%", "2.3.1")
    assert found["evidence"] == "patients"
    assert 0.0 < found["value"] < 95.0
    assert found["low"] == pytest.approx(found["value"] - 11.0)
    assert found["high"] == pytest.approx(found["value"] + 12.0)


def test_both_formats_of_one_network_say_the_same(answer: Any) -> None:
    one, two = (_own(answer, name)["value"] for name in ("my-ef", "my-exported-ef"))

    assert one == pytest.approx(two, abs=1e-3)


def test_it_stands_in_the_structured_report_with_its_value_name_and_evidence(answer: Any) -> None:
    (path,) = [one["path"] for one in answer["results"] if one["kind"] == "sr"]
    groups = [
        group
        for group in _items(dcmread(path))
        if group.ValueType == "CONTAINER"
        and any(_text(item) == "my-ef" for item in group.get("ContentSequence", ()))
    ]
    values = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for group in groups
        for item in _items(group)
        if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "18043-0"
    ]
    words = " ".join(_text(item) for group in groups for item in _items(group))

    assert values
    assert min(abs(_own(answer, "my-ef")["value"] - value) for value in values) < 0.1
    assert "2.3.1" in words
    assert _TESTED in words


def _items(part: Dataset) -> Iterator[Dataset]:
    """Every content item below, and the part itself."""
    if "ValueType" in part:
        yield part
    for item in part.get("ContentSequence", ()):
        yield from _items(item)


def _text(item: Dataset) -> str:
    return str(item.get("TextValue", ""))


def _lambda(pack: Path) -> None:
    """Put a function of the user's own into the network, and the right checksum beside it."""
    path = pack / "model.keras"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["class_name"] = "Lambda"
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    _change(pack, weights_sha256=fingerprint(path))


def _change(pack: Path, **fields: Any) -> None:
    path = pack / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _spoiled(pack: Path) -> None:
    with (pack / "model.keras").open("ab") as file:
        file.write(b"x")


def _of_another_shape(pack: Path) -> None:
    _change(pack, input={"rows": _SIDE - 1, "columns": _SIDE})


def _broken(pack: Path) -> None:
    text = (pack / "manifest.json").read_text()
    (pack / "manifest.json").write_text(text[: len(text) // 2])


def _of_a_wrong_kind(pack: Path) -> None:
    _change(pack, kind="magic")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_spoiled, "model.keras has SHA-256"),
        (_of_another_shape, "it says (n, 31, 32, 1), and the network takes (n, 32, 32, 1)"),
        (_broken, "manifest.json"),
        (_of_a_wrong_kind, "manifest.json, kind"),
        (_lambda, "Lambda"),
    ],
)
def test_what_cannot_be_used_ends_the_command_with_one_line(
    site: Path,
    imported: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    pack = tmp_path / "my-ef"
    shutil.copytree(imported[0], pack)
    spoil(pack)
    words = ["--config", _settings(site, pack), "analyze", str(REAL_CINE), "--json"]

    assert main([*words, "--out", str(tmp_path / "out")]) == ExitCode.FAILED

    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert str(pack) in line
    assert said in line
    assert not list((tmp_path / "out").iterdir())
