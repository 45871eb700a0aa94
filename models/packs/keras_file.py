"""A network in a ``.keras`` file: read as data, checked, and only then built.

What such a file can do to a reader who trusts it: a Lambda layer or a ``function`` entry carries
or names Python code (CVE-2024-3660, CVE-2025-8747, CVE-2025-9906); an entry names any module to be
imported (CVE-2025-1550); look-up layers read files (CVE-2025-12058), TFSMLayer loads a second
model with whatever it holds (CVE-2026-1462), and the layers around Torch, Flax and JAX unpickle;
the weights refer to other files by links, external or virtual data; archive and weights unfold to
more than memory holds (CVE-2026-0897).

So nothing is left to Keras's own precautions. Before Keras sees anything, the archive must hold
the three files that Keras writes and no more; every entry of its configuration must be on the
list below, a layer or an operation that does arithmetic; the weights must be plain numbers in
the file itself. What Keras then loads is a copy written from what was checked.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from models.packs.errors import PackError
from models.packs.files import LARGEST_BYTES

if TYPE_CHECKING:
    import keras

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LARGEST = {_CONFIG: 16 << 20, _METADATA: 1 << 16, _WEIGHTS: LARGEST_BYTES}
_DEEPEST = 60  # dicts and lists inside each other; a model in a model in a model takes some 40
_SPARE_WEIGHTS = 1 << 20  # numbers: a wrapper makes its layer twice, a random one keeps a seed
_LARGEST_VALUES = 1 << 27  # numbers that a layer may give for one input: half a GiB

_LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention Average AveragePooling1D AveragePooling2D
    AveragePooling3D BatchNormalization Bidirectional CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
    Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU
    EinsumDense Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity
    InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute
    RMSNormalization RNN RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation
    RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D
    SeparableConv2D SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D
    SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
"""
_ARITHMETIC = """
    Abs Absolute Add Amax Amin Argmax Argmin Average BroadcastTo Ceil Clip Concatenate Cos Cumsum
    Diff Divide DivideNoNan Dot Einsum Equal Exp ExpandDims Expm1 Flip Floor FloorDivide FullLike
    GetItem Greater GreaterEqual Less LessEqual Log Log10 Log1p Log2 LogicalAnd LogicalNot
    LogicalOr Matmul Max Maximum Mean Median Min Minimum Mod Moveaxis Multiply NanToNum Negative
    NotEqual OnesLike Pad Power Prod Ravel Reciprocal Repeat Reshape Roll Round Sign Sin Sinh
    Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh
    Tensordot Tile Transpose TrueDivide Var Vstack Hstack Where ZerosLike
"""
_NEURAL = """
    AveragePool BatchNorm Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention
    Elu Gelu Glu HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool
    Moments Normalize OneHot RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu Softmax Softplus
    Softsign SpaceToDepth Threshold
"""
_INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer
    LecunNormal LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform
    TruncatedNormal VarianceScaling Zeros
"""

ALLOWED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "keras": frozenset({"DTypePolicy", "Functional", "Model", "Sequential"}),
        "keras.models": frozenset({"Functional", "Model", "Sequential"}),
        "keras.src.models.functional": frozenset({"Functional"}),
        "keras.src.models.sequential": frozenset({"Sequential"}),
        "keras.layers": frozenset(_LAYERS.split()),
        "keras.initializers": frozenset(_INITIALIZERS.split()),
        "keras.regularizers": frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer"}),
        "keras.constraints": frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"}),
        "keras.dtype_policies": frozenset({"DTypePolicy"}),
        "keras.src.ops.numpy": frozenset(_ARITHMETIC.split()),
        "keras.src.ops.nn": frozenset(_NEURAL.split()),
        "keras.src.ops.core": frozenset({"Cast", "StopGradient"}),
        "keras.src.ops.image": frozenset({"Resize"}),
        "keras.src.ops.math": frozenset({"Erf", "Logsumexp", "Rsqrt"}),
    }
)
"""Every class that a configuration may name, by module: arithmetic on numbers and nothing else."""

_VALUES = frozenset({"__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"})
_MARKS = frozenset({"class_name", "module", "registered_name"})  # of an entry that is an object
_KEYS = _MARKS | {
    "build_config",
    "compile_config",
    "config",
    "inbound_nodes",
    "name",
    "shared_object_id",
}
_NUMBERS = """
    bool bfloat16 float16 float32 float64 int8 int16 int32 int64 mixed_bfloat16 mixed_float16
    uint8 uint16 uint32
"""
_DTYPES = frozenset(_NUMBERS.split())
_LAMBDA = "use layers of Keras alone (Rescaling, Activation and the like) and save it again"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file that passed: its configuration, written anew, and the bytes of its weights.

    ``values`` is how many numbers the weights hold.
    """

    config: dict[str, Any]
    keras_version: str
    weights: bytes
    values: int


def read_checked(path: Path) -> Checked:
    """Read a ``.keras`` file as data. Imports neither Keras nor TensorFlow.

    Raises
    ------
    PackError
        If there is anything in it but arithmetic and numbers.
    """
    parts = _archive(path)
    try:
        config = json.loads(parts[_CONFIG])
        metadata = json.loads(parts[_METADATA])
    except (ValueError, RecursionError) as error:
        raise _refused(path, _CONFIG, f"no JSON: {error}; save the model again") from error
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version.startswith("3."):
        raise _refused(
            path, _METADATA, f"saved by Keras {version}; load it in Keras 3 and save it again"
        )
    config = _Configuration(path).cleaned(config, "the model", 0)
    if not isinstance(config, dict) or config.get("class_name") not in (
        "Functional",
        "Model",
        "Sequential",
    ):
        raise _refused(path, _CONFIG, "no Functional or Sequential model; save the model as one")
    return Checked(
        config=config,
        keras_version=version,
        weights=parts[_WEIGHTS],
        values=_values(path, parts[_WEIGHTS]),
    )


def build_keras(path: Path) -> keras.Model:
    """Build the network of a ``.keras`` file that passes :func:`read_checked`.

    Raises
    ------
    PackError
        If it does not pass, or Keras cannot build it.
    """
    checked = read_checked(path)
    import keras
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="echonode-pack-") as place:
        copy = Path(place, "model.keras")
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr(_METADATA, json.dumps({"keras_version": checked.keras_version}))
            archive.writestr(_CONFIG, json.dumps(checked.config))
            archive.writestr(_WEIGHTS, checked.weights)
        try:
            with _no_more_weights_than(checked.values), _nothing_left_out():
                network = keras.saving.load_model(copy, compile=False, safe_mode=True)
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            MemoryError,
            NameError,
            OSError,
            RuntimeError,
            TypeError,
            UserWarning,
            ValueError,
            tf.errors.OpError,
        ) as error:
            words = str(error).strip().partition("\n")[0][:300]
            raise _refused(
                path, "the network", f"Keras cannot build it: {words}; save the model again"
            ) from error
    _check_sizes(path, network)
    network.trainable = False
    return network


def _refused(path: Path, place: str, words: str) -> PackError:
    return PackError(f"pack {path.parent}: {path.name}, {place}: {words}")


def _archive(path: Path) -> dict[str, bytes]:
    """The three files of the archive; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if sorted(names) != sorted(_LARGEST):
                odd = next((name for name in names if name not in _LARGEST), None)
                words = (
                    f"{odd!r} does not belong into it"
                    if odd is not None
                    else f"holds {', '.join(names) or 'nothing'}"
                )
                raise _refused(
                    path,
                    "the archive",
                    f"{words}; {', '.join(sorted(_LARGEST))} are wanted, each once: "
                    "save the model with model.save()",
                )
            parts = {}
            for entry in entries:
                most = _LARGEST[entry.filename]
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise _refused(
                        path,
                        entry.filename,
                        "compressed, as Keras never does; save the model again",
                    )
                with archive.open(entry) as file:
                    parts[entry.filename] = file.read(most + 1)
                if len(parts[entry.filename]) > most:
                    raise _refused(
                        path,
                        entry.filename,
                        f"unpacks to more than {most} bytes; ship a smaller one",
                    )
            return parts
    except OSError as error:
        raise PackError(
            f"pack {path.parent}: no readable {path.name}: {error.strerror or error}"
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise _refused(
            path, "the archive", f"no .keras file: {error}; save the model with model.save()"
        ) from error


class _Configuration:
    """Walks over a configuration and writes it anew from what is allowed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cleaned(self, value: Any, place: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self._refused(place, "nested too deeply; save a simpler model")
        match value:
            case dict() if _MARKS & value.keys():
                return self._object(value, place, depth)
            case dict():
                self._plain(value, place)
                return {
                    key: self.cleaned(inner, f"{place}, {key}", depth + 1)
                    for key, inner in value.items()
                }
            case list():
                return [self.cleaned(inner, place, depth + 1) for inner in value]
            case _:
                return value

    def _object(self, entry: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        class_name, module = entry.get("class_name"), entry.get("module")
        name = entry.get("name") or (
            entry["config"].get("name") if isinstance(entry.get("config"), dict) else None
        )
        if isinstance(name, str) and depth:
            place = f"{class_name} {name!r}"
        odd = sorted(str(key) for key in entry.keys() - _KEYS)
        if odd:
            raise self._refused(place, f"unknown entry {odd[0]!r}; save the model again")
        if class_name in _VALUES:
            if module is not None or entry.get("registered_name") is not None:
                raise self._refused(place, f"a {class_name} that names {module!r}; save it again")
        elif not isinstance(class_name, str) or not isinstance(module, str):
            raise self._refused(
                place, f"class {class_name!r} of module {module!r} is not Keras's own; {_LAMBDA}"
            )
        elif class_name in ("Lambda", "__lambda__", "function"):
            raise self._refused(place, f"a {class_name} carries or names code; {_LAMBDA}")
        elif class_name not in ALLOWED.get(module, ()):
            raise self._refused(
                place, f"{module}.{class_name} is not among what a pack may use; {_LAMBDA}"
            )
        elif entry.get("registered_name") not in (None, class_name):
            raise self._refused(
                place, f"registered as {entry['registered_name']!r}, not Keras's own; {_LAMBDA}"
            )
        config = entry.get("config")
        if class_name == "DTypePolicy" and isinstance(config, dict):
            self._plain({"dtype": config.get("name")}, place)
        # How it was compiled for training is left behind: losses and metrics may be anything.
        return {
            key: self.cleaned(inner, place, depth + 1)
            for key, inner in entry.items()
            if key != "compile_config"
        }

    def _plain(self, config: dict[str, Any], place: str) -> None:
        """Two keys whose very words make Keras do more than arithmetic on floats."""
        dtype = config.get("dtype")
        if isinstance(dtype, str) and dtype not in _DTYPES:
            raise self._refused(place, f"dtype {dtype!r} is none of numbers; save it as float32")
        if config.get("quantization_config") is not None:
            raise self._refused(place, "quantised; save the float32 model")

    def _refused(self, place: str, words: str) -> PackError:
        return _refused(self._path, f"{_CONFIG}, {place}", words)


def _values(path: Path, weights: bytes) -> int:
    """How many numbers the weights hold; every one of them lies in this file."""
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            return sum(_datasets(path, file, 0))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _refused(
            path, _WEIGHTS, f"no readable HDF5 file: {error}; save the model again"
        ) from error


def _datasets(path: Path, group: Any, depth: int) -> Iterator[int]:
    import h5py

    if depth > _DEEPEST:
        raise _refused(path, _WEIGHTS, "groups nested too deeply; save the model again")
    for name in group:
        place = f"{_WEIGHTS}, {group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _refused(path, place, "a link to elsewhere; save the model again")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(path, item, depth + 1)
            continue
        words = ""
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
            words = "no array of numbers"
        elif item.external or item.is_virtual:
            words = "its numbers lie in another file"
        elif item.id.get_create_plist().get_nfilters():
            words = "it is compressed"
        elif item.nbytes > item.id.get_storage_size():
            words = f"{item.shape} numbers are promised, and fewer are there"
        if words:
            raise _refused(path, place, f"{words}; save the model again")
        yield int(item.size)


@contextmanager
def _no_more_weights_than(values: int) -> Iterator[None]:
    """Stop a build that would make far more weights than the file has numbers for."""
    import keras

    layer, left = keras.layers.Layer, 2 * values + _SPARE_WEIGHTS
    plain = layer.add_weight

    def add_weight(self: Any, shape: Any = None, *rest: Any, **more: Any) -> Any:
        nonlocal left
        left -= math.prod(shape or ())
        if left < 0:
            raise ValueError(f"it asks for more weights than the {values} numbers of the file")
        return plain(self, shape, *rest, **more)

    layer.add_weight = add_weight
    try:
        yield
    finally:
        layer.add_weight = plain


@contextmanager
def _nothing_left_out() -> Iterator[None]:
    """Make an error of what Keras only warns of: a layer that keeps its random first weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning, module=r"keras\.src\.saving")
        yield


def _check_sizes(path: Path, network: Any) -> None:
    """Refuse a network that swells a picture beyond what memory holds."""
    for part in getattr(network, "operations", network.layers):
        if hasattr(part, "layers"):
            _check_sizes(path, part)
        outputs = getattr(part, "output", None)
        for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
            shape = getattr(output, "shape", ())
            if math.prod(side or 1 for side in shape) > _LARGEST_VALUES:
                raise _refused(
                    path,
                    f"{type(part).__name__} {part.name!r}",
                    f"gives {shape}, more than memory holds; use a smaller one",
                )
