"""A pack out of a user's network and a manifest: copied, fingerprinted, checked, tried."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.packs.errors import PackError
from models.packs.inspection import COMPANIONS, Inspection, inspect_pack, read_fields
from models.packs.loading import write_manifest, wrong_fields


def import_pack(network: Path, manifest: Path, out: Path) -> Inspection:
    """Make a pack of a ``.keras`` file or a SavedModel folder and a manifest.

    The manifest needs neither ``network`` nor checksum; where it has them, they must be right.
    Licence, model card and evaluation that lie beside the manifest come along. The pack is tried
    before it gets its name: ``out`` is there only if the inspection has no problems.

    Raises
    ------
    PackError
        If there is nothing to make a pack of, or ``out`` is there already.
    """
    fields = read_fields(manifest)
    if out.exists():
        raise PackError(f"pack {out}: it is there already; remove it, or name another folder")
    stated = fields.pop("weights_sha256", None)
    fields["network"] = _network(network, fields)
    fields.pop("weights", None)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        folder = Path(place, out.name)
        folder.mkdir()
        _copy(network, folder / str(fields["network"].get("file", "model")))
        for name in COMPANIONS:
            if (manifest.parent / name).is_file():
                shutil.copyfile(manifest.parent / name, folder / name)
        try:
            whole = write_manifest(folder, fields)
        except ValidationError as error:
            return _named(
                Inspection(
                    folder=folder,
                    manifest=None,
                    problems=tuple(wrong_fields(error)),
                    notes=(),
                    trial=None,
                ),
                out,
            )
        except PackError as error:
            raise PackError(str(error).replace(str(folder), str(out))) from error
        if stated not in (None, whole.weights_sha256):
            raise PackError(
                f"pack {out}: {network} has SHA-256 {whole.weights_sha256[:12]}…, the manifest "
                f"says {str(stated)[:12]}…; get the network again, or leave weights_sha256 out"
            )
        found = inspect_pack(folder)
        if not found.problems:
            folder.rename(out)
        return _named(found, out)


def _network(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """How the manifest names the network."""
    if path.is_dir():
        stated = fields.get("network")
        wanted = stated.get("output") if isinstance(stated, dict) else None
        return {"format": "saved_model", "folder": "model", "output": wanted}
    if not path.is_file():
        raise PackError(
            f"network {path}: no such file or folder; name a .keras file or a SavedModel folder"
        )
    if path.suffix != ".keras":
        raise PackError(
            f"network {path}: a .keras file or a SavedModel folder is wanted; load it where it "
            "was made, and save it with model.save('model.keras') or model.export('model')"
        )
    return {"format": "keras", "file": "model.keras"}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)  # a link stays one, and is refused
    else:
        shutil.copyfile(source, target)


def _named(found: Inspection, out: Path) -> Inspection:
    """The same findings of the folder that the user named, not of the one that it was tried in."""
    problems = tuple(line.replace(str(found.folder), str(out)) for line in found.problems)
    return Inspection(
        folder=out,
        manifest=found.manifest,
        problems=problems,
        notes=found.notes,
        trial=found.trial,
    )
