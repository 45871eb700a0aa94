"""What is explained: a number that a network says of a frame.

Each output of a pack becomes a :class:`Target`, and a pack's network an :class:`Explained`, which
gives one number for each target and frame. All methods of this package explain such numbers, so
that they work for every kind of pack:

- a regression's output is the network's own number for it. It is what the link is applied to: a
  score's is the log odds, a size's of the logarithmic link is its logarithm;
- a view's is the log odds of its label against all others together. Unlike the probability it
  does not flatten where the network is sure, and unlike the logit it counts what speaks for others;
- a tracing's is measured on the chances that the network gives to each pixel, since labels have no
  gradient. Areas are their sum. A volume is that of discs one network row high, as wide as the row
  is filled: an apical view stands nearly upright, so this rises and falls with the volume by
  discs along the long axis, which the report gives. An ejection fraction belongs to two frames, and
  what each of them brings to it is the logarithm of its volume.

Where the clip's number is joined from frames' numbers, it is the frames' that are explained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.finding import Kind
from models.packs import Link, Pack, PackKind
from models.tasks import TASKS

if TYPE_CHECKING:
    import keras

    from models.packs.prepared import PreparedGraphs

BATCH = 10
"""Inputs that go through a network at once: this alone bounds the memory."""


class ExplainError(Exception):
    """Something cannot be explained; the message says what and why."""


class Quantity(StrEnum):
    """How a target's number comes from what the network gives."""

    NUMBER = "number"  #: the number at its place
    LOG_ODDS = "log odds"  #: of the class at its place against all others
    AREA = "area"  #: network pixels that the class at its place fills
    VOLUME = "volume"  #: of discs by network rows, in cubed network pixels
    LOG_VOLUME = "log volume"  #: the natural logarithm of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One number to explain.

    ``place`` is the index on the network's last axis. The number times ``scale``, and times the
    side of a network pixel in mm to the ``power``, is in ``unit`` but for a constant.
    """

    name: str
    quantity: Quantity
    place: int
    unit: str = ""
    scale: float = 1.0
    power: int = 0

    @property
    def source(self) -> tuple[str, int]:
        """The same of targets whose maps are the same but for a factor."""
        volume = self.quantity is Quantity.LOG_VOLUME
        return (Quantity.VOLUME if volume else self.quantity).value, self.place

    @property
    def title(self) -> str:
        """For a reader."""
        return TASKS[self.name].title if self.name in TASKS else self.name

    @property
    def words(self) -> str:
        """What exactly is explained."""
        return _WORDS.get((self.quantity, self.unit), f"the network's number, in {self.unit}")


_WORDS = {
    (Quantity.NUMBER, "log odds"): "the score's log odds",
    (Quantity.NUMBER, "%/100"): "the logarithm of the frame's size",
    (Quantity.LOG_ODDS, "log odds"): "the label's log odds against all others",
    (Quantity.AREA, "cm2"): "the area of the structure",
    (Quantity.VOLUME, "mL"): "the volume of discs by rows",
    (Quantity.LOG_VOLUME, "%/100"): "the logarithm of the frame's volume",
}

_EMPTY = 1.0  # cubed network pixels: the logarithm of an empty tracing is that of one


class Explained:
    """A network as the numbers of some targets; compared and hashed by identity.

    Parameters
    ----------
    network
        (n, rows, columns, 1) to (n, numbers), or to (n, rows, columns, classes) of a tracing.
    targets
        What is asked of it.
    temperature
        Divides the logits of classes.
    settled
        The pack that the network is of, where its weights stay as they are: it runs faster so, and
        is not even built where its graphs are kept. ``network`` may then be None.
    """

    def __init__(
        self,
        network: keras.Model | None,
        targets: Sequence[Target],
        *,
        temperature: float = 1.0,
        settled: Pack | None = None,
    ) -> None:
        self._network = network
        self.targets = tuple(targets)
        self._temperature = temperature
        self._settled = settled

    @property
    def network(self) -> keras.Model:
        """The network itself."""
        if self._network is None:
            assert self._settled is not None, "one of the two is given"  # noqa: S101
            self._network = self._settled.network
        return self._network

    @property
    def prepared(self) -> PreparedGraphs | None:
        """Where graphs of it are kept."""
        return None if self._settled is None else self._settled.prepared

    def build(self) -> Explained:
        """Build the network, which cannot be done while a graph of it is traced."""
        if self._settled is not None:
            _ = self._settled.settled
        return self

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """(n, rows, columns, 1) to (n, targets), differentiable by TensorFlow."""
        if self._settled is not None and not training:
            return self.numbers(self._settled.settled(inputs))
        return self.numbers(self.network(inputs, training=training))

    def numbers(self, raw: Any) -> Any:
        """The targets' numbers, (n, targets), of what the network gave."""
        import tensorflow as tf

        return tf.stack([self._number(raw, target) for target in self.targets], axis=-1)

    def _number(self, raw: Any, target: Target) -> Any:
        import tensorflow as tf

        place = target.place
        if target.quantity is Quantity.NUMBER:
            return raw[:, place]
        if target.quantity is Quantity.LOG_ODDS:
            logits = raw / self._temperature
            others = tf.concat([logits[:, :place], logits[:, place + 1 :]], axis=-1)
            return logits[:, place] - tf.reduce_logsumexp(others, axis=-1)
        chances = tf.nn.softmax(raw, axis=-1)[..., place]
        if target.quantity is Quantity.AREA:
            return tf.reduce_sum(chances, axis=(1, 2))
        widths = tf.reduce_sum(chances, axis=2)
        volume = np.pi / 4 * tf.reduce_sum(widths**2, axis=1)
        if target.quantity is Quantity.VOLUME:
            return volume
        return tf.math.log(volume + _EMPTY)

    def kin(self, output: int) -> int | None:
        """The target whose gradient is this one's but for :meth:`factor`, if there is one.

        A volume's is that of its logarithm: their numbers rise and fall by the same pixels.
        """
        asked = self.targets[output]
        if asked.quantity is not Quantity.LOG_VOLUME:
            return None
        for place, target in enumerate(self.targets):
            if target.quantity is Quantity.VOLUME and target.place == asked.place:
                return place
        return None

    def factor(self, output: int, numbers: Any) -> Any:
        """What the gradient of its kin is multiplied by, (n,), where these are the numbers."""
        kin = self.kin(output)
        if kin is None:
            raise ExplainError(f"{self.targets[output].name} is like no other number")
        return 1.0 / (numbers[:, kin] + _EMPTY)

    def place_of(self, name: str) -> int:
        """Which number a target is.

        Raises
        ------
        ExplainError
            If there is none of this name.
        """
        names = [target.name for target in self.targets]
        if name not in names:
            raise ExplainError(f"there is no {name!r} to explain; there are {', '.join(names)}")
        return names.index(name)


def explained(pack: Pack, *, settled: bool = False) -> Explained:
    """A pack's network with everything of it that can be explained. Imports Keras.

    Where nobody will change its weights, it is quicker ``settled``.

    Raises
    ------
    ExplainError
        If the network sees several frames at once: what moves its numbers is no map over a frame.
    PackError
        If the network cannot be built.
    """
    if pack.manifest.frames.window > 1:
        raise ExplainError(
            f"pack {pack.manifest.name}: its network sees {pack.manifest.frames.window} frames at "
            "once; only networks that see one frame are explained"
        )
    return Explained(
        None if settled else pack.network,
        targets_of(pack),
        temperature=pack.manifest.temperature,
        settled=pack if settled else None,
    )


def targets_of(pack: Pack) -> tuple[Target, ...]:
    """All that a pack can be asked to explain: outputs, labels of views, traced structures."""
    manifest = pack.manifest
    if manifest.kind is PackKind.VIEW:
        return tuple(
            Target(name=name, quantity=Quantity.LOG_ODDS, place=place, unit="log odds")
            for place, name in enumerate(manifest.classes)
        )
    if manifest.kind is PackKind.TRACING:
        return _of_tracing(pack)
    targets = []
    for place, output in enumerate(manifest.outputs):
        head = place if output.head is None else output.head
        unit, scale, power = output.unit, output.scale, output.pixel_power
        if output.kind is Kind.SCORE:
            unit, scale, power = "log odds", 1.0, 0
        elif output.link is Link.LOG:
            unit, power = "%/100", 0
        targets.append(
            Target(
                name=output.name,
                quantity=Quantity.NUMBER,
                place=head,
                unit=unit,
                scale=scale,
                power=power,
            )
        )
    return tuple(targets)


_TRACED = {
    "ef": ("cavity", Quantity.LOG_VOLUME),
    "edv": ("cavity", Quantity.VOLUME),
    "esv": ("cavity", Quantity.VOLUME),
    "la_volume": ("atrium", Quantity.VOLUME),
    "la_area": ("atrium", Quantity.AREA),
}
_SIZES = {
    Quantity.AREA: ("cm2", 1e-2, 2),
    Quantity.VOLUME: ("mL", 1e-3, 3),
    Quantity.LOG_VOLUME: ("%/100", 1.0, 0),
}


def _of_tracing(pack: Pack) -> tuple[Target, ...]:
    classes = pack.manifest.classes
    asked = [
        (output.name, *_TRACED[output.name])
        for output in pack.manifest.outputs
        if output.name in _TRACED
    ]
    asked += [(name, name, Quantity.AREA) for name in classes[1:]]
    targets = []
    for name, structure, quantity in asked:
        unit, scale, power = _SIZES[quantity]
        targets.append(
            Target(
                name=name,
                quantity=quantity,
                place=classes.index(structure),
                unit=unit,
                scale=scale,
                power=power,
            )
        )
    return tuple(targets)


def numbers_of(
    network: keras.Model | Explained, inputs: NDArray[np.float32], *, batch: int = BATCH
) -> NDArray[np.float32]:
    """What a network says of (n, rows, columns, 1): (n, numbers), in inference mode."""
    run = _compiled(network, (batch, *inputs.shape[1:]))
    return np.concatenate(
        [run(inputs[places]).numpy()[:real] for places, real in in_batches(len(inputs), batch)]
    )


def in_batches(count: int, batch: int = BATCH) -> Iterator[tuple[NDArray[np.int64], int]]:
    """0 to ``count`` - 1 in batches of one size, for which a graph is compiled once.

    Each with how many of it are real: the last one is filled up with the last index.
    """
    for start in range(0, count, batch):
        yield np.minimum(np.arange(start, start + batch), count - 1), min(batch, count - start)


@lru_cache(maxsize=8)
def _compiled(
    network: keras.Model | Explained, shape: tuple[int, ...]
) -> Callable[[NDArray[np.float32]], Any]:
    from models.networks.graph import graph

    if isinstance(network, Explained):
        network.build()
    return graph(lambda inputs: network(inputs, training=False), shape)
