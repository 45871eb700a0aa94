"""How a tracing lies on an expert's: Dice, and how far apart the outlines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.evaluation.metrics import dice

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureOverlap:
    """One structure in one frame. Distances in mm; NaN without a scale or without a tracing."""

    dice: float
    surface_mm: float
    hausdorff_mm: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameOverlap:
    """Every structure of one frame, and the size of the expert's cavity in pixels."""

    structures: Mapping[str, StructureOverlap]
    cavity_pixels: int


def overlap(
    mask: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    pixel_mm: tuple[float | None, float | None],
    classes: Sequence[str],
) -> FrameOverlap:
    """Compare a tracing with an expert's.

    Parameters
    ----------
    mask, labels
        (rows, columns) class indices: the pack's and the expert's.
    pixel_mm
        Height and width of a pixel; None where the scale is not known.
    classes
        Their names; the first is the background.
    """
    row_mm, column_mm = pixel_mm
    found = {}
    for index, name in enumerate(classes[1:], start=1):
        one, two = mask == index, labels == index
        surface = hausdorff = float("nan")
        if row_mm is not None and column_mm is not None:
            surface, hausdorff = surface_distances(one, two, (row_mm, column_mm))
        found[name] = StructureOverlap(
            dice=dice(one, two), surface_mm=surface, hausdorff_mm=hausdorff
        )
    return FrameOverlap(structures=found, cavity_pixels=int((labels == 1).sum()))


def surface_distances(one: Mask, two: Mask, pixel_mm: tuple[float, float]) -> tuple[float, float]:
    """Mean distance between two outlines and their 95 % Hausdorff distance, in mm.

    Each point of one outline to the nearest of the other, both ways: the mean of the two means,
    and the larger of the two 95 % quantiles. NaN where a mask is empty.
    """
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (one, two)]
    if not edges[0].any() or not edges[1].any():
        return float("nan"), float("nan")
    away = [ndimage.distance_transform_edt(~edge, sampling=pixel_mm) for edge in edges]
    ways = away[1][edges[0]], away[0][edges[1]]
    mean = float(np.mean([way.mean() for way in ways]))
    return mean, float(max(np.percentile(way, 95) for way in ways))
