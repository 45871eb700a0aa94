"""Networks as TensorFlow runs them, kept on disk: a worker that starts again makes none anew.

Building a network layer by layer and finding its gradients, node by node, takes most of a worker's
start. What comes of it is a graph: arithmetic and constants. It is kept, and read the next time
where nothing that it was made of has changed: the pack, TensorFlow and Keras, the code of models/.

A kept graph is believed as a pack is: its SHA-256 must be right, for a flipped bit in a constant is
a wrong number in a report, and it may hold nothing but arithmetic (see
:mod:`models.packs.saved_model`). What is missing, older or damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.networks.graph import graph
from models.packs.saved_model import ALLOWED

if TYPE_CHECKING:
    from models.packs.manifest import Manifest

_log = logging.getLogger(__name__)

_HEAD = b"echonode graph 1\n"
_LARGEST = 1 << 30
_BROKEN_OFF_S = 3600.0  # nobody writes a graph for so long
_GRADIENTS = """
    AvgPoolGrad BiasAddGrad BroadcastGradientArgs Conv2DBackpropFilter DynamicStitch EluGrad
    FusedBatchNormGradV3 LeakyReluGrad MaxPoolGrad MirrorPadGrad ReciprocalGrad Relu6Grad ReluGrad
    ResizeBicubicGrad ResizeBilinearGrad ResizeNearestNeighborGrad RsqrtGrad SeluGrad SigmoidGrad
    SoftplusGrad SoftsignGrad SqrtGrad StridedSliceGrad TanhGrad
"""
_ALLOWED = (ALLOWED | frozenset(_GRADIENTS.split())) - {
    "AssignVariableOp",
    "ReadVariableOp",
    "VarHandleOp",
}


@dataclass(frozen=True, kw_only=True)
class PreparedGraphs:
    """Where the graphs of one pack lie.

    Parameters
    ----------
    folder
        Of the graphs of all packs. It need not be there; where it cannot be written, nothing is
        kept, and the log says so once.
    name
        The pack's, for the names of files.
    made_of
        A digest of all that the graphs follow from.
    """

    folder: Path
    name: str
    made_of: str

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> PreparedGraphs:
        """Those of a pack, made by the TensorFlow and the code that are here now."""
        parts = [manifest.model_dump_json(), *_here()]
        return cls(
            folder=folder,
            name=manifest.name,
            made_of=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
        )

    def function(
        self, purpose: str, make: Callable[[], Callable[..., Any]], shape: Sequence[int | None]
    ) -> Callable[[Any], Any]:
        """A compiled function of one float32 tensor: the one that is kept, or else made and kept.

        Parameters
        ----------
        purpose
            What it is for, with all that ``make`` follows besides the pack.
        make
            Gives a Python function of a tensor, which gives tensors; it is traced here.
        shape
            Of the tensor.

        Raises
        ------
        PackError
            Whatever ``make`` raises of a pack.
        """
        key = hashlib.sha256(json.dumps([self.made_of, purpose, list(shape)]).encode()).hexdigest()
        # The purpose alone stands for the file, so that what is out of date is written over.
        short = hashlib.sha256(json.dumps([purpose, list(shape)]).encode()).hexdigest()[:16]
        path = self.folder / f"{self.name}-{short}.graph"
        kept = _read(path, key)
        if kept is None:
            traced = graph(make(), shape)
            kept = _Graph.of(traced)
            if kept is None:  # it depends on more than its input
                return traced
            _write(path, key, kept)
        return kept.function(shape)


def compiled(
    graphs: PreparedGraphs | None,
    purpose: str,
    make: Callable[[], Callable[..., Any]],
    shape: Sequence[int | None],
) -> Callable[[Any], Any]:
    """:meth:`PreparedGraphs.function`, or the same without any that are kept."""
    if graphs is None:
        return graph(make(), shape)
    return graphs.function(purpose, make, shape)


@dataclass(frozen=True)
class _Graph:
    """A graph of one input, as TensorFlow writes it, and the names of what goes in and out."""

    data: bytes
    given: str
    wanted: tuple[str, ...]

    @classmethod
    def of(cls, traced: Any) -> _Graph | None:
        """The graph of a traced function; None where it holds more than arithmetic."""
        concrete = traced.get_concrete_function()
        if concrete.captured_inputs:
            return None
        definition = concrete.graph.as_graph_def()
        if definition.ByteSize() > _LARGEST or _strangers(definition):
            return None
        return cls(
            data=definition.SerializeToString(deterministic=True),
            given=concrete.inputs[0].name,
            wanted=tuple(output.name for output in concrete.outputs),
        )

    def function(self, shape: Sequence[int | None]) -> Callable[[Any], Any]:
        """What calls it: one tensor where it gives one, else a list of them."""
        import tensorflow as tf

        definition = tf.compat.v1.GraphDef.FromString(self.data)

        def run(inputs: Any) -> Any:
            given = tf.graph_util.import_graph_def(
                definition, {self.given: inputs}, list(self.wanted), name="network"
            )
            return given[0] if len(given) == 1 else given

        return graph(run, shape)


def _strangers(definition: Any) -> set[str]:
    """The operations of a graph that are no arithmetic."""
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    own = {function.signature.name for function in functions}
    return {node.op for node in nodes} - _ALLOWED - own


class _DamagedError(Exception):
    """A kept graph is not as it was written."""


def _read(path: Path, key: str) -> _Graph | None:
    """The kept graph, or None where there is none that is whole and of this key."""
    try:
        with path.open("rb") as file:
            head, line, data = file.read(len(_HEAD)), file.readline(1 << 16), file.read(_LARGEST)
        return _parsed(head, line, data, key)
    except FileNotFoundError:
        return None
    except (OSError, _DamagedError) as error:
        _log.warning("prepared network %s is made again: %s", path.name, error)
        return None


def _parsed(head: bytes, line: bytes, data: bytes, key: str) -> _Graph | None:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # has no types
    from tensorflow.core.framework.graph_pb2 import GraphDef

    try:
        said = json.loads(line)
        if head != _HEAD or said["key"] != key:
            return None
        checksum = said["sha256"]
        kept = _Graph(data, str(said["given"]), tuple(map(str, said["wanted"])))
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError("its head cannot be read") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise _DamagedError("its checksum is wrong")
    try:
        strangers = _strangers(GraphDef.FromString(data))
    except DecodeError as error:
        raise _DamagedError("it is no graph") from error
    if strangers:
        raise _DamagedError(f"it holds {', '.join(sorted(strangers))}")
    return kept


def _write(path: Path, key: str, kept: _Graph) -> None:
    said = {
        "key": key,
        "sha256": hashlib.sha256(kept.data).hexdigest(),
        "given": kept.given,
        "wanted": kept.wanted,
    }
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for broken_off in path.parent.glob(f".{path.name}.*"):  # by a kill in the midst of writing
            if time.time() - broken_off.stat().st_mtime > _BROKEN_OFF_S:
                broken_off.unlink()
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                file.write(_HEAD + json.dumps(said).encode() + b"\n" + kept.data)
                file.flush()
                os.replace(file.name, path)  # noqa: PTH105 # a name, not a Path
            except OSError:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        _say_once(path.parent, error.strerror or "cannot be written")


@cache
def _say_once(folder: Path, reason: str) -> None:
    _log.warning(
        "no prepared networks are kept in %s: %s; the next start takes longer", folder, reason
    )


@cache
def _here() -> tuple[str, ...]:
    """What makes graphs, besides a pack: the libraries, and the code of models/."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(file.read_bytes())
    return (
        *(_version(name) for name in ("tensorflow", "tensorflow-cpu", "keras")),
        code.hexdigest(),
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
