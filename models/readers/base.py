"""What every reader of clips shares: a pack of the right kind, its network as a function, words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip
from models.finding import Finding, Kind, Method, Refusal
from models.packs import InputSpec, OutputSpec, Pack, PackError, PackKind
from models.packs.prepared import compiled
from models.preprocess import VERSION
from models.tasks import TASKS
from models.threads import side_by_side

if TYPE_CHECKING:
    import keras

BATCH = 10
"""Frames in one call of a network: a fixed shape, so that it is compiled once. A network that sees
a window of frames gets as many whole windows as fit, and at least one."""

MOST_FRAMES = 300
"""A reader looks at no more frames of a clip than this."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a pack says of a clip."""

    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...]


class Reader:
    """What both readers share: a pack of the right kind, and its network as a function."""

    _kind: PackKind

    def __init__(self, pack: Pack) -> None:
        manifest = pack.manifest
        if manifest.kind is not self._kind:
            raise PackError(
                f"pack {pack.folder}: kind is {manifest.kind.value!r}, and {type(self).__name__} "
                f"reads {self._kind.value!r}"
            )
        if manifest.preprocessing != VERSION:
            raise PackError(
                f"pack {pack.folder}: made for preprocessing version {manifest.preprocessing}, "
                f"and this echonode has version {VERSION}; use the matching release of the pack"
            )
        for output in manifest.outputs:
            if output.name not in TASKS:
                raise PackError(
                    f"pack {pack.folder}: output {output.name!r} is not in models.tasks"
                )
        self.pack = pack

    @property
    def network(self) -> keras.Model:
        """The pack's network, (n, rows, columns, 1) in; see :attr:`Pack.network`. Imports Keras."""
        return self.pack.network

    @property
    def spec(self) -> InputSpec:
        """What the network sees."""
        return self.pack.manifest.frames

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the network's last axis for a regression."""
        return tuple(output.name for output in self.pack.manifest.outputs)

    @cached_property
    def _compiled(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        import tensorflow as tf

        shape = (self.batch, self.spec.rows, self.spec.columns, 1)
        run = compiled(self.pack.prepared, "forward", lambda: self.pack.settled, shape)
        return lambda batch: np.asarray(run(tf.constant(batch)).numpy(), np.float32)

    @property
    def batch(self) -> int:
        """Frames in one call of this network: whole windows of them."""
        return self.spec.window * max(1, BATCH // self.spec.window)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network on (n, rows, columns, 1), in batches of one fixed shape.

        A network that sees a window of frames takes them as they follow each other: frames 0 to
        window - 1, window to 2 * window - 1 and so on, the last window filled by repeating the
        last frame. What it gives for a window stands for each frame of it.
        """
        run = self._compiled

        def answers(begin: int) -> NDArray[np.float32]:
            part = inputs[begin : begin + self.batch]
            short = self.batch - len(part)
            return run(np.concatenate([part, np.repeat(part[-1:], short, axis=0)]))[: len(part)]

        return np.concatenate([*side_by_side(answers, range(0, len(inputs), self.batch))])

    def refuse(self, output: OutputSpec, reason: str) -> Refusal:
        return Refusal(output=output.name, reason=reason, pack=self.pack.ref)

    def speak(
        self,
        output: OutputSpec,
        value: float,
        method: Method,
        frames: tuple[int, ...],
        per_beat: tuple[float, ...] = (),
    ) -> Finding | Refusal:
        """A finding, or a refusal where the value is not believable; see :func:`speak_of`."""
        return speak_of(self.pack, output, value, method, frames=frames, per_beat=per_beat)


def speak_of(
    pack: Pack,
    output: OutputSpec,
    value: float,
    method: Method,
    *,
    frames: tuple[int, ...] = (),
    per_beat: tuple[float, ...] = (),
) -> Finding | Refusal:
    """A finding, or a refusal where the value is not believable.

    A score whose output bears a caution has no threshold: what was not shown to be better than
    chance, or was tested on a few patients alone, gives no verdict.
    """
    task = TASKS[output.name]
    lowest, highest = output.range or (task.low, task.high)
    if not lowest <= value <= highest:
        return Refusal(
            output=output.name,
            reason=f"{value:.3g} {task.unit} is outside the plausible range of {lowest:g} to "
            f"{highest:g} {task.unit}",
            pack=pack.ref,
        )
    score = output.kind is Kind.SCORE
    return Finding(
        output=output.name,
        kind=output.kind,
        value=value,
        unit=output.unit,
        low=_bound(value, output.low_error, lowest, highest),
        high=_bound(value, output.high_error, lowest, highest),
        score=value if score else None,
        threshold=output.threshold if score and not output.caution else None,
        pack=pack.ref,
        evidence=output.evidence,
        method=Method.CLASSIFICATION if score else method,
        frames=frames,
        per_beat=per_beat,
    )


def spread(frames: int, count: int) -> tuple[int, ...]:
    """``count`` of so many frames, evenly, the first and the last among them."""
    return tuple(int(index) for index in np.linspace(0, frames - 1, count).round())


def pixel_mm(clip: Clip) -> tuple[float, float, bool]:
    """Height and width of a sector pixel, and whether they are millimetres or only a ratio."""
    spacing = clip.spacing
    if spacing.row_mm is None or spacing.column_mm is None:
        return 1.0, 1.0, False
    return spacing.row_mm, spacing.column_mm, spacing.trusted


def _bound(value: float, error: float | None, low: float, high: float) -> float | None:
    return None if error is None else min(max(value + error, low), high)


def by_kind(
    said: list[Finding | Refusal],
) -> tuple[tuple[Finding, ...], tuple[Refusal, ...]]:
    findings = tuple(item for item in said if isinstance(item, Finding))
    return findings, tuple(item for item in said if isinstance(item, Refusal))
