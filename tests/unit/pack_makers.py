"""Packs from outside for tests: tiny networks in files, and manifests for them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.packs import Pack, PackError, load_pack, write_manifest

PARTS = ("metadata.json", "config.json", "model.weights.h5")


def manifest(**changes: Any) -> dict[str, Any]:
    """A regression of the ejection fraction on 16 x 16 pixels in model.keras."""
    return {
        "name": "outside",
        "version": "1.0.0",
        "kind": "regression",
        "title": "From outside",
        "network": {"format": "keras", "file": "model.keras"},
        "input": {"rows": 16, "columns": 16},
        "outputs": [output("ef", "%", offset=55.0)],
        "licence": "none",
        "trained_on": "nothing",
        "training_command": "none",
        **changes,
    }


def output(name: str, unit: str, **more: Any) -> dict[str, Any]:
    fields = {"kind": "measurement", "evidence": "simulated", "tested_on": "nothing"}
    return {"name": name, "unit": unit, **fields, **more}


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_parts(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def change_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the configuration in a .keras file."""
    parts = parts_of(path)
    config = json.loads(parts["config.json"])
    change(config)
    write_parts(path, {**parts, "config.json": json.dumps(config).encode()})


def refused(folder: Path, words: str, **changes: Any) -> str:
    """The one line by which a pack with a right checksum is refused, loading or building."""
    write_manifest(folder, manifest(**changes))
    with pytest.raises(PackError, match=words) as caught:
        _ = load_pack(folder).network
    line = str(caught.value)
    assert line.startswith(f"pack {folder}: "), "it names the pack"
    assert "; " in line or ": save " in line, "it says what to do"
    assert "\n" not in line
    return line


def loaded(folder: Path, **changes: Any) -> Pack:
    write_manifest(folder, manifest(**changes))
    return load_pack(folder)
