"""A network as a TensorFlow SavedModel: read as data, checked, and only then loaded.

A SavedModel is a program: its graph may name any operation that TensorFlow knows. Some read and
write files (ReadFile, WriteFile, SaveV2, PrintV2 with an output stream, the readers, the
summaries), some call Python or load more code, some open sockets (the RPC and the data service).
Lists of forbidden operations have always missed some. So this is a list of what is allowed:
arithmetic, shapes, the flow of a loop, reading a variable. An asset's file name can lead anywhere
on the machine (TensorFlow joins it to the folder unchecked), so there may be none; nor tables,
nor other resources, whose making is code too.

TensorFlow is then given a copy, which holds the functions that the network consists of, its
constants and its variables. What else the file had, its main graph and the functions that save
and restore, is checked too but is not in the copy. Of the copy the signature ``serving_default``
alone is called.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.packs.errors import PackError
from models.packs.files import own_folder

if TYPE_CHECKING:
    import keras

SIGNATURE = "serving_default"
_GRAPH = "saved_model.pb"
_LARGEST_GRAPH = 512 << 20
_KNOWN_FILES = ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb")

_ARITHMETIC = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin AvgPool AvgPool3D BatchMatMul BatchMatMulV2
    BatchMatMulV3 BatchToSpaceND BiasAdd BroadcastArgs BroadcastTo Cast Ceil ClipByValue Concat
    ConcatOffset ConcatV2 Const Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh
    CropAndResize Cumsum DepthToSpace DepthwiseConv2dNative Div DivNoNan Einsum Elu EnsureShape
    Equal Erf Erfc Exp ExpandDims Expm1 ExtractImagePatches Fill Floor FloorDiv FloorMod
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater
    GreaterEqual Identity IdentityN If InvertPermutation IsFinite IsInf IsNan L2Loss LRN
    LeakyRelu Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr
    MatMul MatrixBandPart Max MaxPool MaxPool3D MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mul
    MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
    PlaceholderWithDefault Pow PreventGradient Prod Range Rank ReadVariableOp RealDiv Reciprocal
    Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2
    Roll Round Rsqrt ScatterNd Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size
    Slice Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square
    SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessWhile StopGradient
    StridedSlice Sub Sum Tan Tanh TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGetItem TensorListLength TensorListReserve TensorListSetItem TensorListStack
    TensorScatterUpdate Tile TopKV2 Transpose TruncateDiv TruncateMod Unpack VarHandleOp Where
    While Xdivy Xlogy ZerosLike
"""
_SAVING = """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename
    StaticRegexFullMatch StringJoin VarIsInitializedOp
"""

ALLOWED = frozenset(_ARITHMETIC.split())
"""Operations that a network may consist of: they see their inputs and nothing else."""

_KEEPING = frozenset(_SAVING.split())  # how every SavedModel keeps its variables; never in the copy

_OBJECTS = frozenset(
    {
        "_generic_user_object",
        "signature_map",
        "trackable_dict_wrapper",
        "trackable_list_wrapper",
        "trackable_tuple_wrapper",
    }
)
_KERAS_2 = "_tf_keras_"  # identifiers of objects that tf.keras wrote; they are plain ones here
_KINDS = frozenset(
    {"bare_concrete_function", "captured_tensor", "constant", "function", "user_object", "variable"}
)
_EXPORT = "export it again with model.export(), of arithmetic alone"


def build_saved_model(folder: Path, name: str, output: str | None = None) -> keras.Model:
    """The network of a SavedModel as a Keras model, (n, ...) in and (n, ...) out.

    Parameters
    ----------
    folder, name
        The pack, and the folder in it.
    output
        Which of the signature's numbers, where it gives several.

    Raises
    ------
    PackError
        If its graph holds anything but arithmetic, or it cannot be loaded or called.
    """
    import keras
    import tensorflow as tf

    place = own_folder(folder, name)
    copy_of = _checked(place)
    with tempfile.TemporaryDirectory(prefix="echonode-pack-") as temporary:
        copy = Path(temporary)
        (copy / _GRAPH).write_bytes(copy_of.SerializeToString())
        shutil.copytree(place / "variables", copy / "variables", symlinks=True)
        try:
            loaded = tf.saved_model.load(str(copy), tags=["serve"])
            signature = loaded.signatures[SIGNATURE]
        except (
            AttributeError,
            AssertionError,
            LookupError,
            MemoryError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
            tf.errors.OpError,
        ) as error:
            words = str(error).strip().partition("\n")[0][:300]
            raise _refused(
                place, "the network", f"TensorFlow cannot load it: {words}; {_EXPORT}"
            ) from error
    (wanted,) = _one(place, "input", signature.structured_input_signature[1], None)
    (given,) = _one(place, "output", signature.structured_outputs, output)
    spec = signature.structured_input_signature[1][wanted]
    if spec.dtype != tf.float32 or spec.shape.rank is None or spec.shape[0] is not None:
        raise _refused(
            place,
            f"signature {SIGNATURE}, input {wanted!r}",
            f"takes {spec.dtype.name} {spec.shape}, and float32 with a first axis of any length is "
            "wanted; export it so",
        )

    class Signature(keras.layers.Layer):  # type: ignore[misc]
        """Calls the signature."""

        def __init__(self) -> None:
            super().__init__(name="signature", trainable=False)
            self._held = [loaded]  # its variables live as long as it does

        def call(self, inputs: Any) -> Any:
            return signature(**{wanted: inputs})[given]

        def compute_output_shape(self, input_shape: Any) -> Any:
            shape = signature.structured_outputs[given].shape
            return (input_shape[0], *shape.as_list()[1:]) if shape.rank else (input_shape[0],)

    inputs = keras.Input(tuple(spec.shape[1:]), dtype="float32")
    return keras.Model(inputs, Signature()(inputs), name="saved_model")


def _refused(place: Path, where: str, words: str) -> PackError:
    return PackError(f"pack {place.parent}: {place.name}, {where}: {words}")


def _one(place: Path, what: str, names: Iterable[str], wanted: str | None) -> tuple[str]:
    """The one name that is there, or the one that the manifest names."""
    there = sorted(names)
    if wanted is not None and wanted in there:
        return (wanted,)
    if wanted is None and len(there) == 1:
        return (there[0],)
    words = ", ".join(there) or "none"
    step = (
        "name one of them in the manifest, network.output"
        if what == "output"
        else "one picture is all that a clip has; export it with one input"
    )
    raise _refused(place, f"signature {SIGNATURE}", f"its {what}s are {words}; {step}")


def _checked(place: Path) -> Any:
    """The SavedModel without whatever is not called, once it has passed every check."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    _check_files(place)
    path = place / _GRAPH
    model = saved_model_pb2.SavedModel()
    try:
        if path.stat().st_size > _LARGEST_GRAPH:
            raise _refused(
                place, _GRAPH, f"more than {_LARGEST_GRAPH >> 20} MiB; keep weights in variables"
            )
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise _refused(place, _GRAPH, f"no readable SavedModel: {error}; {_EXPORT}") from error
    if len(model.meta_graphs) != 1 or list(model.meta_graphs[0].meta_info_def.tags) != ["serve"]:
        raise _refused(place, _GRAPH, f"one graph with the tag 'serve' is wanted; {_EXPORT}")
    graph = model.meta_graphs[0]
    if graph.asset_file_def:
        name = graph.asset_file_def[0].filename
        raise _refused(place, _GRAPH, f"it wants to read the asset {name!r}; {_EXPORT}")
    _check_objects(place, graph.object_graph_def)
    kept = _check_operations(place, graph)
    return _without_the_rest(graph, kept)


def _check_files(place: Path) -> None:
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_dir() and name in ("assets", "variables"):
            continue
        if path.is_file() and (name in _KNOWN_FILES or name.startswith("variables/variables.")):
            continue
        raise _refused(place, name, f"does not belong into a SavedModel of arithmetic; {_EXPORT}")
    if not (place / "variables").is_dir():
        raise _refused(place, "variables", f"no such folder; {_EXPORT}")


def _check_objects(place: Path, objects: Any) -> None:
    """Only variables, constants, functions and what groups them: nothing that is made by code."""
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        words = ""
        if kind not in _KINDS:
            words = f"an object of kind {kind}"
        elif node.registered_name or node.registered_saver or node.saveable_objects:
            words = f"an object that brings its own way of loading {node.registered_name}".rstrip()
        elif kind == "user_object":
            identifier = node.user_object.identifier
            if identifier not in _OBJECTS and not identifier.startswith(_KERAS_2):
                words = f"an object of class {identifier!r}"
        if words:
            raise _refused(place, _GRAPH, f"{words}; {_EXPORT}")
        for child in node.children:
            inner = child.local_name
            if inner.startswith("__") and inner != "__call__":
                raise _refused(place, _GRAPH, f"an object named {inner!r}; {_EXPORT}")


def _check_operations(place: Path, graph: Any) -> set[str]:
    """Check every operation of the file; the names of the functions that may be called."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    callable_ones = _reached(graph.object_graph_def.concrete_functions, functions)
    for name, function in functions.items():
        called = name in callable_ones
        for node in function.node_def:
            if node.op == "VarHandleOp":
                raise _refused(place, name, f"operation VarHandleOp inside a function; {_EXPORT}")
            _check_operation(place, f"function {name}", node, functions, called=called)
    for node in graph.graph_def.node:
        _check_operation(place, "the graph", node, functions, called=False)
    return callable_ones


def _check_operation(
    place: Path, where: str, node: Any, functions: dict[str, Any], *, called: bool
) -> None:
    if node.op not in ALLOWED and (called or node.op not in _KEEPING):
        raise _refused(
            place,
            f"{where}, {node.name}",
            f"operation {node.op} is not among what a pack may use; {_EXPORT}",
        )
    for name in _calls(node):
        if name not in functions:
            raise _refused(
                place, f"{where}, {node.name}", f"calls {name!r}, which is not there; {_EXPORT}"
            )


def _reached(roots: Iterable[str], functions: dict[str, Any]) -> set[str]:
    """The functions that can be called, beginning with these."""
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in functions and name not in reached:
            reached.add(name)
            for node in functions[name].node_def:
                waiting += _calls(node)
    return reached


def _calls(node: Any) -> Iterator[str]:
    """The functions that a node names."""
    for value in node.attr.values():
        if value.WhichOneof("value") == "func":
            yield value.func.name
        yield from (each.name for each in value.list.func)


def _without_the_rest(graph: Any, kept: set[str]) -> Any:
    """A SavedModel of these functions, the constants and the objects; no main graph, no savers."""
    from tensorflow.core.protobuf import saved_model_pb2

    copy = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = copy.meta_graphs.add()
    meta.meta_info_def.CopyFrom(graph.meta_info_def)
    meta.meta_info_def.ClearField("stripped_op_list")
    meta.graph_def.versions.CopyFrom(graph.graph_def.versions)
    meta.graph_def.node.extend(node for node in graph.graph_def.node if node.op == "Const")
    meta.object_graph_def.CopyFrom(graph.object_graph_def)
    library = graph.graph_def.library
    meta.graph_def.library.function.extend(
        function for function in library.function if function.signature.name in kept
    )
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            if "config_proto" in node.attr:
                node.attr["config_proto"].s = b""  # how to run it is for this process to say
    return copy
