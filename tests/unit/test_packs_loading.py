"""A pack is data: it loads when everything fits, and is refused with a clear line when not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.networks import build_network
from models.packs import (
    InputSpec,
    Pack,
    PackError,
    load_pack,
    shipped_packs,
    write_pack,
)

MANIFEST: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0.0",
    "kind": "tracing",
    "title": "A tiny tracing",
    "network": {"name": "unet", "settings": {"classes": 4, "widths": [4, 8]}},
    "input": {"rows": 32, "columns": 32, "mean": 0.2, "std": 0.2},
    "classes": ["background", "cavity", "myocardium", "atrium"],
    "outputs": [
        {
            "name": "ef",
            "kind": "measurement",
            "unit": "%",
            "evidence": "simulated",
            "tested_on": "nothing",
        }
    ],
    "licence": "none",
    "trained_on": "nothing",
    "training_command": "none",
}


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    spec = InputSpec(**MANIFEST["input"])
    network = build_network("unet", spec, MANIFEST["network"]["settings"])
    return write_pack(tmp_path / "tiny", MANIFEST, network)


def _change(folder: Path, **fields: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_was_written_is_read_back_to_float16(pack: Pack) -> None:
    spec = pack.manifest.input
    network = build_network("unet", spec, MANIFEST["network"]["settings"])
    write_pack(pack.folder, MANIFEST, network)
    again = load_pack(pack.folder).network
    for one, two in zip(network.get_weights(), again.get_weights(), strict=True):
        assert np.allclose(one, two, atol=1e-3, rtol=1e-3)
    frames = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    assert np.allclose(network(frames), again(frames), atol=2e-2)


def test_weights_that_were_changed_are_refused(pack: Pack) -> None:
    path = pack.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(PackError, match=r"weights.safetensors has SHA-256 .* copy the pack again"):
        load_pack(pack.folder)


def test_a_folder_without_a_manifest_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no readable manifest.json"):
        load_pack(tmp_path)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"kind": "magic"}, r"manifest.json, kind"),
        ({"run_this": "rm"}, r"manifest.json, run_this: Extra inputs"),
        ({"name": "../up"}, r"manifest.json, name"),
        ({"input": {"rows": 0, "columns": 32}}, r"manifest.json, input.rows"),
        ({"weights_sha256": "abc"}, r"manifest.json, weights_sha256"),
    ],
)
def test_a_wrong_manifest_is_refused_at_the_very_key(
    pack: Pack, fields: dict[str, Any], where: str
) -> None:
    _change(pack.folder, **fields)
    with pytest.raises(PackError, match=where):
        load_pack(pack.folder)


def test_a_manifest_that_is_no_json_is_refused(pack: Pack) -> None:
    (pack.folder / "manifest.json").write_text("{")
    with pytest.raises(PackError, match=r"manifest.json, the file: Invalid JSON"):
        load_pack(pack.folder)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", ".hidden", "..", "", "inner/weights"]
)
def test_weights_outside_the_pack_are_never_read(pack: Pack, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes((pack.folder / "weights.safetensors").read_bytes())
    _change(pack.folder, weights=name)
    with pytest.raises(PackError, match="weights must be a file in the pack"):
        load_pack(pack.folder)


def test_weights_that_are_a_link_out_of_the_pack_are_never_read(pack: Pack, tmp_path: Path) -> None:
    inside = pack.folder / "weights.safetensors"
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackError, match="weights must be a file in the pack"):
        load_pack(pack.folder)


def test_missing_weights_are_named(pack: Pack) -> None:
    (pack.folder / "weights.safetensors").unlink()
    with pytest.raises(PackError, match=r"no readable weights.safetensors"):
        load_pack(pack.folder)


def test_weights_of_another_network_are_refused(pack: Pack) -> None:
    _change(pack.folder, network={"name": "unet", "settings": {"classes": 3, "widths": [4, 8]}})
    with pytest.raises(PackError, match=r"array 30 of shape .* do not fit the network"):
        _ = load_pack(pack.folder).network


@pytest.mark.parametrize(
    "network",
    [
        {"name": "os.system", "settings": {}},
        {"name": "unet", "settings": {"classes": 4, "shell": "true"}},
        {"name": "unet", "settings": {"classes": 4, "widths": [4] * 9}},
    ],
)
def test_a_network_that_cannot_be_built_is_refused(pack: Pack, network: dict[str, Any]) -> None:
    _change(pack.folder, network=network)
    with pytest.raises(PackError, match="cannot be built"):
        _ = load_pack(pack.folder).network


def test_a_file_that_is_no_safetensors_is_refused(pack: Pack) -> None:
    """A pickle, say: its checksum may be right, and still it is never opened as one."""
    weights = pack.folder / "weights.safetensors"
    weights.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    _change(pack.folder, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(PackError, match="not a safetensors file"):
        _ = load_pack(pack.folder).network


def test_shipped_packs_load_and_carry_licence_card_and_evidence() -> None:
    folders = shipped_packs()
    assert {"lv", "echonet"} <= {folder.name for folder in folders}
    for folder in folders:
        manifest = load_pack(folder).manifest
        assert manifest.name == folder.name
        assert manifest.training_command.startswith(
            ("python -m models.training.", "echonode train ")
        )
        for name in ("LICENSE", "MODEL_CARD.md", "evaluation.json", "evaluation.md"):
            assert (folder / name).stat().st_size > 100, f"{folder.name} has no {name}"
    assert sum((one / "weights.safetensors").stat().st_size for one in folders) < 25e6


def test_packs_that_saw_camus_carry_its_licence_and_citation() -> None:
    for folder in shipped_packs():
        manifest = load_pack(folder).manifest
        if "CAMUS" in manifest.trained_on:
            assert "CC BY-NC-SA 4.0" in manifest.licence
            assert "10.1109/TMI.2019.2900516" in " ".join(manifest.citations)
            assert "CC BY-NC-SA 4.0" in (folder / "LICENSE").read_text()
