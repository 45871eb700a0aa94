"""Load and write packs. Nothing in a pack is ever executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from models.finding import PackRef
from models.packs.manifest import Manifest

if TYPE_CHECKING:
    import keras

_MANIFEST = "manifest.json"


class PackError(Exception):
    """A pack cannot be used; the message names the pack, the place and what to do."""


@dataclass(frozen=True)
class Pack:
    """A pack on disk whose manifest is valid and whose weights have the right checksum."""

    folder: Path
    manifest: Manifest

    @property
    def ref(self) -> PackRef:
        """Which pack this is, for findings."""
        return PackRef(
            name=self.manifest.name,
            version=self.manifest.version,
            weights_sha256=self.manifest.weights_sha256,
        )

    @cached_property
    def network(self) -> keras.Model:
        """The network with its weights, built once. Imports Keras: call it in a worker only.

        Raises
        ------
        PackError
            If the network is unknown or the weights do not fit it.
        """
        from models.networks import build_network

        spec = self.manifest.network
        try:
            network = build_network(spec.name, self.manifest.input, spec.settings)
        except (KeyError, TypeError, ValueError) as error:
            raise PackError(
                f"pack {self.folder}: network {spec.name!r} cannot be built: {error}; "
                f"correct 'network' in {_MANIFEST}"
            ) from error
        _set_weights(network, self.folder / self.manifest.weights)
        return network


def load_pack(folder: Path) -> Pack:
    """Read and check a pack.

    Raises
    ------
    PackError
        If the manifest is missing or wrong, or the weights do not have its checksum.
    """
    path = folder / _MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PackError(f"pack {folder}: no readable {_MANIFEST}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PackError(f"pack {folder}: {_MANIFEST}, {where}: {first['msg']}") from error
    weights = folder / manifest.weights
    if not _lies_in(weights, folder):
        raise PackError(
            f"pack {folder}: weights must be a file in the pack, not {manifest.weights!r}"
        )
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise PackError(
            f"pack {folder}: no readable {manifest.weights}: {error.strerror}"
        ) from error
    if digest != manifest.weights_sha256:
        raise PackError(
            f"pack {folder}: {manifest.weights} has SHA-256 {digest[:12]}…, the manifest says "
            f"{manifest.weights_sha256[:12]}…; copy the pack again from its source"
        )
    return Pack(folder=folder, manifest=manifest)


def shipped_packs() -> tuple[Path, ...]:
    """The folders of the packs that ship with echonode, by name."""
    here = Path(__file__).parent
    return tuple(sorted(path.parent for path in here.glob(f"*/{_MANIFEST}")))


def write_pack(
    folder: Path, manifest: Mapping[str, Any], network: keras.Model, *, half: bool = True
) -> Pack:
    """Write a pack: weights first, then the manifest with their checksum.

    Parameters
    ----------
    folder
        Made if it is not there; its ``manifest.json`` and weights are replaced.
    manifest
        The fields of :class:`Manifest` without ``weights_sha256``.
    half
        Store float16. Check that answers agree before shipping such a pack.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.float16 if half else np.float32
    weights = folder / str(manifest.get("weights", "weights.safetensors"))
    save_file(
        {
            _key(index): np.ascontiguousarray(np.asarray(variable.numpy()).astype(dtype))
            for index, variable in enumerate(network.weights)
        },
        weights,
    )
    weights.chmod(0o644)  # safetensors leaves it to its owner alone
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    whole = Manifest.model_validate({**manifest, "weights_sha256": digest})
    (folder / _MANIFEST).write_text(whole.model_dump_json(indent=2) + "\n")
    return load_pack(folder)


def _lies_in(weights: Path, folder: Path) -> bool:
    """Whether this is a plain name in the folder, and no link that leads out of it."""
    name = weights.name
    if weights != folder / name or name in ("", "..") or name.startswith("."):
        return False
    return weights.resolve().parent == folder.resolve()


def _key(index: int) -> str:
    # Layer names may repeat or be renumbered; order and shape are what count.
    return f"{index:04d}"


def _set_weights(network: keras.Model, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PackError(f"weights {path}: not a safetensors file: {error}") from error
    arrays = [stored[key] for key in sorted(stored)]
    shapes = [tuple(variable.shape) for variable in network.weights]
    if [array.shape for array in arrays] != shapes:
        raise PackError(
            f"weights {path}: {_misfit([array.shape for array in arrays], shapes)} do not fit the "
            "network: the manifest names another network or other settings than training used"
        )
    network.set_weights([array.astype(np.float32) for array in arrays])


def _misfit(stored: list[tuple[int, ...]], wanted: list[tuple[int, ...]]) -> str:
    if len(stored) != len(wanted):
        return f"{len(stored)} arrays, where {len(wanted)} are wanted,"
    place = next(place for place, shape in enumerate(stored) if shape != wanted[place])
    return f"array {place} of shape {stored[place]}, where {wanted[place]} is wanted,"
