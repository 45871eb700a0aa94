"""Load and write packs. Nothing in a pack is ever executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from models.finding import PackRef
from models.packs.checks import MANIFEST, problems_of
from models.packs.codes import code_of
from models.packs.errors import PackError
from models.packs.files import fingerprint, own_file, own_folder
from models.packs.fitting import fitted
from models.packs.keras_file import build_keras, read_checked
from models.packs.manifest import (
    INPUT_FORMS,
    KerasFile,
    Manifest,
    NetworkSpec,
    OutputSpec,
    PackKind,
    SavedModelFolder,
)
from models.packs.prepared import PreparedGraphs
from models.packs.saved_model import build_saved_model
from models.tasks import TASKS

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Pack:
    """A pack on disk whose manifest is valid and whose weights have the right checksum.

    ``prepared`` is where its graphs are kept as they run, if they are kept anywhere.
    """

    folder: Path
    manifest: Manifest
    prepared: PreparedGraphs | None = field(default=None, compare=False, repr=False)

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

        It takes (n, rows, columns, 1), whatever channels and window the pack's own network has;
        of ECGs (n, samples, leads);
        see :func:`models.packs.fitting.fitted`.

        Raises
        ------
        PackError
            If the network is unknown, may not be loaded, or is not what the manifest says.
        """
        return fitted(self.folder, self.manifest, _build(self.folder, self.manifest))

    @cached_property
    def settled(self) -> Callable[[Any], Any]:
        """The network as it runs fastest, tensor in, tensor out; :mod:`models.networks.folding`.

        Raises
        ------
        PackError
            As :attr:`network`.
        """
        from models.networks.folding import settled

        return settled(self.network)


def answering_as(pack: Pack, network: keras.Model) -> Pack:
    """The pack with this network in memory instead of its weights on disk: to compare the two.

    Raises
    ------
    PackError
        If the network is not what the manifest says.
    """
    other = Pack(folder=pack.folder, manifest=pack.manifest)
    other.__dict__["network"] = fitted(pack.folder, pack.manifest, network)
    return other


def load_pack(folder: Path, prepared: Path | None = None) -> Pack:
    """Read and check a pack. Imports no TensorFlow.

    Parameters
    ----------
    folder
        The pack.
    prepared
        Where graphs of packs are kept as they run; see :mod:`models.packs.prepared`.

    Raises
    ------
    PackError
        If the manifest is missing or wrong, the weights do not have its checksum, or a ``.keras``
        file holds more than arithmetic.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise PackError(f"pack {folder}: no readable {MANIFEST}: {error.strerror}") from error
    except ValidationError as error:
        raise PackError(f"pack {folder}: {wrong_fields(error)[0]}") from error
    for words in problems_of(manifest):
        raise PackError(f"pack {folder}: {words}")
    path = check_weights(folder, manifest)
    if isinstance(manifest.network, KerasFile):
        read_checked(path)
    graphs = None if prepared is None else PreparedGraphs.of(prepared, manifest)
    return Pack(folder=folder, manifest=manifest, prepared=graphs)


def wrong_fields(error: ValidationError) -> list[str]:
    """Every fault of a manifest's schema: the file, the key, what is wrong with it."""
    lines = []
    for fault in error.errors():
        # The form of a network, or of an input, is no key that anyone wrote.
        forms = ("named", "keras", "saved_model", *INPUT_FORMS)
        loc = [part for part in fault["loc"] if part not in forms]
        where = ".".join(str(part) for part in loc) or "the file"
        lines.append(f"{MANIFEST}, {where}: {fault['msg']}")
    return lines


def check_weights(folder: Path, manifest: Manifest) -> Path:
    """The weights' file or folder, if it is the pack's own and has the manifest's checksum.

    Raises
    ------
    PackError
        If it is missing, lies elsewhere, or is not what the manifest says.
    """
    name = manifest.weights
    if isinstance(manifest.network, SavedModelFolder):
        path = own_folder(folder, name)
    else:
        path = own_file(folder, name)
    try:
        digest = fingerprint(path)
    except OSError as error:
        raise PackError(f"pack {folder}: no readable {name}: {error.strerror}") from error
    if digest != manifest.weights_sha256:
        raise PackError(
            f"pack {folder}: {name} has SHA-256 {digest[:12]}…, the manifest says "
            f"{manifest.weights_sha256[:12]}…; copy the pack again from its source"
        )
    return path


def _build(folder: Path, manifest: Manifest) -> keras.Model:
    """The network as it is in the pack, with its weights."""
    match manifest.network:
        case KerasFile(file=file):
            return build_keras(own_file(folder, file))
        case SavedModelFolder(folder=inner, output=output):
            return build_saved_model(folder, inner, output)
        case NetworkSpec(name=name, settings=settings):
            from models.networks import build_network

            try:
                network = build_network(name, manifest.input, settings)
            except (KeyError, TypeError, ValueError) as error:
                raise PackError(
                    f"pack {folder}: network {name!r} cannot be built: {error}; "
                    f"correct 'network' in {MANIFEST}"
                ) from error
            _set_weights(network, folder / manifest.weights)
            return network


def shipped_packs() -> tuple[Path, ...]:
    """The folders of the packs that ship with echonode, by name."""
    here = Path(__file__).parent
    return tuple(sorted(path.parent for path in here.glob(f"*/{MANIFEST}")))


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
    write_manifest(folder, manifest)
    return load_pack(folder)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> Manifest:
    """Write ``manifest.json`` beside weights that are there, with their checksum.

    Each output gets the code and the range of its task where it states none, so that whoever
    reads the file knows what is meant.

    Raises
    ------
    pydantic.ValidationError
        If a field is missing or wrong.
    PackError
        If the weights are not the pack's own.
    """
    draft = Manifest.model_validate({**manifest, "weights_sha256": "0" * 64})
    path = (own_folder if isinstance(draft.network, SavedModelFolder) else own_file)(
        folder, draft.weights
    )
    whole = draft.model_copy(
        update={
            "weights_sha256": fingerprint(path),
            "outputs": tuple(_stated(output, draft.kind) for output in draft.outputs),
        }
    )
    (folder / MANIFEST).write_text(whole.model_dump_json(indent=2) + "\n")
    return whole


def _stated(output: OutputSpec, kind: PackKind) -> OutputSpec:
    task = TASKS.get(output.name)
    spans = output.range or (None if task is None else (task.low, task.high))
    return output.model_copy(
        update={"code": output.code or code_of(output.name, kind), "range": spans}
    )


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
