"""A network against what its manifest says, and as readers call it: numbers out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.packs.checks import MANIFEST, STRUCTURES
from models.packs.errors import PackError
from models.packs.manifest import InputSpec, Manifest, PackKind, WaveformInput

if TYPE_CHECKING:
    import keras

Shape = tuple[int | None, ...]

_SIDES = ("rows, columns, window or channels", "samples or leads")


def fitted(folder: Path, manifest: Manifest, network: keras.Model) -> keras.Model:
    """The network as readers call it, if it is what the manifest says.

    Returns
    -------
    (n, rows, columns, 1) float32 to (n, numbers) or, for a tracing, (n, rows, columns, classes);
    of ECGs (n, samples, leads) to (n, numbers). A network of ECGs is returned as it is, and a
    network of one channel and one frame is returned as it is. For three channels the grey is
    repeated. For a window, frames are taken as consecutive: they are cut into windows, the last
    one filled with its last frame, and each frame gets what its window gave.

    Raises
    ------
    PackError
        If its input or output has another shape than the manifest says.
    """
    spec = manifest.input
    wanted = _input_shape(spec)
    given = network.input_shape
    if not _is_shape(given):
        raise PackError(
            f"pack {folder}: the network takes {len(given)} inputs; a recording gives one, its "
            "picture or its samples: save a network of one input"
        )
    if len(given) != len(wanted) or any(
        side not in (None, side_wanted) for side, side_wanted in zip(given, wanted, strict=True)
    ):
        raise PackError(
            f"pack {folder}: {MANIFEST}, input: it says {_words(wanted)}, and the network takes "
            f"{_words(given)}; correct {_SIDES[manifest.kind is PackKind.WAVEFORM]}"
        )
    _check_output(folder, manifest, _output_shape(folder, network, wanted))
    if isinstance(spec, WaveformInput):
        return network
    if spec.channels > 1:
        network = _grey_repeated(network, spec)
    return network if spec.window == 1 else _by_windows(network, spec)


def _input_shape(spec: InputSpec | WaveformInput) -> Shape:
    if isinstance(spec, WaveformInput):
        return (None, spec.samples, len(spec.leads))
    window = (spec.window,) if spec.window > 1 else ()
    return (None, *window, spec.rows, spec.columns, spec.channels)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(side is None or isinstance(side, int) for side in shape)


def _words(shape: Shape) -> str:
    return "(" + ", ".join("n" if side is None else str(side) for side in shape) + ")"


def _output_shape(folder: Path, network: keras.Model, wanted: Shape) -> Shape:
    """The shape of what the network gives for the manifest's input."""
    import numpy as np

    shape = network.output_shape
    if _is_shape(shape) and None not in shape[1:]:
        return tuple(shape)
    sides = [side or 1 for side in wanted[1:]]
    given = network(np.zeros((1, *sides), np.float32), training=False)
    if not hasattr(given, "shape"):
        raise PackError(
            f"pack {folder}: the network gives {len(given)} outputs; save one that gives all its "
            "numbers on one last axis"
        )
    return (None, *given.shape[1:])


def _check_output(folder: Path, manifest: Manifest, given: Shape) -> None:
    wanted: Shape
    match manifest.kind:
        case PackKind.REGRESSION | PackKind.WAVEFORM:
            place, wanted = "outputs", (None, _numbers(manifest, given))
            names = (
                f"{len(manifest.outputs)} outputs (where there are more numbers, each output's "
                "'head' says which is its)"
            )
        case PackKind.TRACING:
            spec = manifest.frames
            classes = len(manifest.classes) or max(len(STRUCTURES), given[-1] or 0)
            place, wanted = "classes", (None, spec.rows, spec.columns, classes)
            names = f"{classes} classes at each pixel"
        case PackKind.VIEW:
            classes = len(manifest.classes)
            place, wanted = "classes", (None, classes)
            names = f"{classes} classes"
    if given != wanted:
        raise PackError(
            f"pack {folder}: {MANIFEST}, {place}: the network gives {_words(given)}, and "
            f"{_words(wanted)} is wanted for {names}; correct the manifest or the last layer"
        )


def _numbers(manifest: Manifest, given: Shape) -> int:
    """How many numbers a regression's network must give: as many as it does, where heads fit."""
    heads = [output.head for output in manifest.outputs]
    if all(head is None for head in heads):
        return len(heads)
    least = 1 + max(place if head is None else head for place, head in enumerate(heads))
    last = given[-1] if len(given) > 1 else None
    return max(least, last or 0)


def _grey_repeated(network: keras.Model, spec: InputSpec) -> keras.Model:
    import keras

    shape = _input_shape(spec)[1:-1]
    grey = keras.Input((*shape, 1), dtype="float32")
    return keras.Model(grey, network(keras.layers.Concatenate()([grey] * spec.channels)))


def _by_windows(network: keras.Model, spec: InputSpec) -> keras.Model:
    import keras
    from keras import ops

    window, sides = spec.window, (spec.rows, spec.columns, 1)

    class Windows(keras.layers.Layer):  # type: ignore[misc]
        """Consecutive frames, a window at a time."""

        def __init__(self) -> None:
            super().__init__(name="windows")
            self.network = network

        def call(self, frames: Any) -> Any:
            count = ops.shape(frames)[0]
            windows = (count + window - 1) // window
            filled = ops.concatenate([frames, *[frames[-1:]] * (window - 1)])
            cut = ops.reshape(filled[: windows * window], (-1, window, *sides))
            numbers = self.network(cut, training=False)
            return ops.repeat(numbers, window, axis=0)[:count]

        def compute_output_shape(self, input_shape: Any) -> Any:
            return (input_shape[0], *self.network.output_shape[1:])

    frames = keras.Input(sides, dtype="float32")
    return keras.Model(frames, Windows()(frames))
