"""Explain a clip: which frames, what the pack says of each, and the maps over them.

Frames are those that a pack reads: all that a regressor averages, those that vote on a view, and of
a tracing those that its findings came from (end diastole and end systole of the telling beat).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip
from models.explain.methods import MapMethod, map_of
from models.explain.sector import outside_shares, sector_in_network
from models.explain.smoothgrad import SEED
from models.explain.target import Explained, Target, numbers_of
from models.finding import Finding
from models.packs import InputSpec, Pack, PackKind
from models.preprocess import Fit, fit_frames
from models.readers import RegressionReader, TracingReader
from models.readers.base import pixel_mm, spread
from models.views import FRAMES, ViewCall, ViewReader

MOST_FRAMES = 20
"""So many frames of a clip are explained; where a clip has more, evenly spread ones."""

_SLOW = {MapMethod.INTEGRATED_GRADIENTS: 4, MapMethod.OCCLUSION: 2}


@dataclass(frozen=True, kw_only=True)
class ExplainedOutput:
    """One output of a pack over a clip.

    ``maps`` is (m, rows, columns) over the sector frames ``frames``, in the units of
    :func:`unit_of` where it names one. ``finding`` is what a report would say, None for what no
    report says (views, structures). ``numbers`` (m,) are the network's own.
    """

    target: Target
    maps: NDArray[np.float32]
    frames: tuple[int, ...]
    numbers: NDArray[np.float32]
    unit: str
    outside_share: float
    finding: Finding | None = None


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a pack said of a clip before it is asked why."""

    findings: tuple[Finding, ...]
    frames: tuple[int, ...]
    reasons: dict[str, str]
    view: ViewCall | None = None


def read_for_maps(pack: Pack, clip: Clip, method: MapMethod) -> Read:
    """Read a clip and choose the frames to explain.

    Raises
    ------
    models.clip.ClipError
        If the clip's pixels cannot be decoded.
    PackError
        If the pack cannot be used.
    """
    most = _SLOW.get(method, MOST_FRAMES)
    findings: tuple[Finding, ...] = ()
    reasons: dict[str, str] = {}
    view = None
    if pack.manifest.kind is PackKind.VIEW:
        view = ViewReader(pack).read(clip)
        count = min(clip.frame_count, pack.manifest.frames.frames or FRAMES)
        frames: Sequence[int] = spread(clip.frame_count, count)
    elif pack.manifest.kind is PackKind.REGRESSION:
        reader = RegressionReader(pack)
        reading = reader.read(clip)
        findings = reading.findings
        reasons = {refusal.output: refusal.reason for refusal in reading.refusals}
        frames = sorted(set(reading.frames))
    else:
        tracing = TracingReader(pack).read(clip)
        findings = tracing.findings
        reasons = {refusal.output: refusal.reason for refusal in tracing.refusals}
        told = sorted({frame for finding in findings for frame in finding.frames})
        frames = told or spread(clip.frame_count, min(clip.frame_count, 2))
    if len(frames) > most:
        frames = [frames[place] for place in spread(len(frames), most)]
    return Read(findings=findings, frames=tuple(frames), reasons=reasons, view=view)


def explain_clip(
    pack: Pack,
    numbers: Explained,
    clip: Clip,
    read: Read,
    names: Sequence[str],
    *,
    method: MapMethod = MapMethod.SMOOTHGRAD,
    seed: int = SEED,
) -> tuple[ExplainedOutput, ...]:
    """The maps of some outputs over a clip.

    Raises
    ------
    ExplainError
        If there is no such output, or the method cannot explain the network.
    """
    spec = pack.manifest.frames
    places = [numbers.place_of(name) for name in names]
    inputs, fit = fit_frames(clip.frames(read.frames), spec)
    sector = sector_in_network(clip, spec)
    said = numbers_of(numbers, inputs)
    maps = map_of(method, numbers, inputs, places, sector=sector, seed=seed)
    shares = outside_shares(maps, sector)
    found = {finding.output: finding for finding in read.findings}
    explained = []
    for name, place, of_output, share in zip(names, places, maps, shares, strict=True):
        target = numbers.targets[place]
        factor, unit = _in_units(target, method, spec, clip, fit)
        explained.append(
            ExplainedOutput(
                target=target,
                maps=fit.map_to_source(of_output) * np.float32(factor),
                frames=read.frames,
                numbers=said[:, place],
                unit=unit,
                outside_share=float(share),
                finding=found.get(name),
            )
        )
    return tuple(explained)


def _in_units(
    target: Target, method: MapMethod, spec: InputSpec, clip: Clip, fit: Fit
) -> tuple[float, str]:
    """What a map is multiplied by, and the unit that it has then."""
    if not method.of_what:
        return 1.0, ""
    row_mm, column_mm, scaled = pixel_mm(clip)
    factor, unit = target.scale, target.unit
    if target.power and scaled:
        side = float(np.sqrt(row_mm / fit.scale_row * column_mm / fit.scale_column))
        factor *= side**target.power
    elif target.power:
        factor, unit = 1.0, f"px{target.power}"
    if unit == "%/100":
        factor, unit = factor * 100.0, "% of size"
    if method in (MapMethod.SMOOTHGRAD, MapMethod.GRADIENT):
        factor /= 255.0 * spec.std  # a grey level is so much of the network's input
    return factor, unit
