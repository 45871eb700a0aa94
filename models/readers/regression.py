"""EchoNet's way: some frames of a clip, numbers for each, and one value for each output.

Ghorbani et al. 2020 (npj Digital Medicine 3:10, Methods): frames 100 ms apart, and the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.clip import Clip
from models.finding import Finding, Kind, Method, Refusal
from models.packs import Join, Link, OutputSpec, PackKind
from models.preprocess import Fit, fit_frames
from models.readers.base import MOST_FRAMES, Reader, Reading, by_kind, pixel_mm, spread

_FEWEST = 5  # frames that are averaged at least, where the clip has them
_STILL = "a still shows one moment, and this needs the heart in motion"


@dataclass(frozen=True, kw_only=True)
class RegressionReading(Reading):
    """``frames`` are the source frames that were read; ``per_frame`` the value of each output
    for each of them, (n,), in the output's unit (NaN where no spacing can be trusted); for an
    output that is joined to a fraction, the size that it is a fraction of."""

    frames: tuple[int, ...]
    per_frame: Mapping[str, NDArray[np.float64]]


class RegressionReader(Reader):
    """A frame regressor: the clip's value is the mean over its frames, or another join of them.

    Raises
    ------
    PackError
        If the pack is not a regression, or was made for another preprocessing.
    """

    _kind = PackKind.REGRESSION

    def inputs(self, clip: Clip) -> tuple[NDArray[np.float32], Fit, tuple[int, ...]]:
        """The network's input for a clip: (n, rows, columns, 1), the fit, the source frames.

        The frames are those of the pack's interval. A clip so short that it has fewer than five
        of them gives five, evenly spread over it, or all that it has.
        """
        spec = self.spec
        if spec.interval_ms is None or spec.frames is None:
            indices = tuple(range(min(clip.frame_count, spec.frames or MOST_FRAMES)))
        else:
            indices = clip.time_axis.sample(spec.interval_ms, spec.frames)
        if len(indices) < min(_FEWEST, clip.frame_count):
            indices = spread(clip.frame_count, min(_FEWEST, clip.frame_count))
        inputs, fit = fit_frames(clip.frames(indices), spec)
        return inputs, fit, indices

    def read(self, clip: Clip) -> RegressionReading:
        """Read a clip.

        Raises
        ------
        models.clip.ClipError
            If the clip's pixels cannot be decoded.
        """
        inputs, fit, indices = self.inputs(clip)
        raw = self.run(inputs).astype(np.float64)
        side_mm = _network_pixel_mm(clip, fit)
        said: list[Finding | Refusal] = []
        per_frame: dict[str, NDArray[np.float64]] = {}
        for output, head in zip(self.pack.manifest.outputs, self.heads, strict=True):
            values = _values(raw[:, head], output, side_mm)
            per_frame[output.name] = values
            if output.needs_motion and len(set(indices)) < 2:
                said.append(self.refuse(output, _STILL))
            elif np.isnan(values).any():
                said.append(self.refuse(output, clip.spacing.reason))
            else:
                value, order = joined(values, output.join)
                frames = tuple(dict.fromkeys(indices[place] for place in order))
                said.append(self.speak(output, value, Method.REGRESSION, frames))
        findings, refusals = by_kind(said)
        return RegressionReading(
            findings=findings, refusals=refusals, frames=indices, per_frame=per_frame
        )

    @property
    def heads(self) -> tuple[int, ...]:
        """The place on the network's last axis that each output comes from."""
        return tuple(
            place if output.head is None else output.head
            for place, output in enumerate(self.pack.manifest.outputs)
        )


def joined(values: NDArray[np.float64], join: Join) -> tuple[float, NDArray[np.intp]]:
    """The clip's value of frames' values (n,), and the frames' places, the most telling first."""
    order = np.argsort(values, kind="stable")
    tenth = max(1, round(len(values) / 10))
    lowest, highest = order[:tenth], order[::-1][:tenth]
    match join:
        case Join.HIGHEST:
            return float(values[highest].mean()), highest
        case Join.LOWEST:
            return float(values[lowest].mean()), lowest
        case Join.EJECTION:
            ends = np.concatenate([highest[:1], lowest[:1], highest[1:], lowest[1:]])
            top = float(values[highest].mean())
            return 100.0 * (1.0 - float(values[lowest].mean()) / top), ends
        case Join.MEAN:
            mean = float(values.mean())
            return mean, np.argsort(np.abs(values - mean), kind="stable")


def _values(
    raw: NDArray[np.float64], output: OutputSpec, side_mm: float | None
) -> NDArray[np.float64]:
    """Each frame's value; NaN where it would need a pixel spacing and has none."""
    numbers = raw * output.scale + output.offset
    if output.kind is Kind.SCORE:
        return np.asarray(special.expit(numbers), np.float64)
    if output.link is Link.LOG:
        numbers = np.exp(np.clip(numbers, -50.0, 50.0))
    if output.pixel_power == 0:
        return numbers
    if side_mm is None:
        return np.full(len(raw), np.nan)
    return numbers * side_mm**output.pixel_power


def _network_pixel_mm(clip: Clip, fit: Fit) -> float | None:
    """Side of a square with the area of a network pixel; None without a trusted spacing."""
    row_mm, column_mm, scaled = pixel_mm(clip)
    if not scaled:
        return None
    return float(np.sqrt(row_mm / fit.scale_row * column_mm / fit.scale_column))
