"""The methods by name, and the face that they share: :func:`map_of` describes it once for all.

Methods disagree (Arun et al. 2021, Radiology: Artificial Intelligence 3(6)): look at more than one.
Guided backpropagation is not among them, since it fails the checks of Adebayo et al. 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.explain.gradcam import gradcam
from models.explain.gradient import input_gradient
from models.explain.integrated_gradients import integrated_gradients
from models.explain.occlusion import occlusion
from models.explain.smoothgrad import SAMPLES, SEED, SIGMA, smoothgrad
from models.explain.target import BATCH, Explained

if TYPE_CHECKING:
    import keras


class MapMethod(StrEnum):
    """How a map is made, as the command line names it."""

    SMOOTHGRAD = "smoothgrad"
    GRADIENT = "gradient"
    INTEGRATED_GRADIENTS = "integrated-gradients"
    GRAD_CAM = "grad-cam"
    OCCLUSION = "occlusion"

    @property
    def words(self) -> str:
        """For a reader, with what was set."""
        return {
            MapMethod.SMOOTHGRAD: f"SmoothGrad, {SAMPLES} samples, sigma {100 * SIGMA:.0f} %",
            MapMethod.GRADIENT: "Gradient",
            MapMethod.INTEGRATED_GRADIENTS: "Integrated gradients from the blurred sector",
            MapMethod.GRAD_CAM: "Grad-CAM",
            MapMethod.OCCLUSION: "Occlusion by the blurred sector",
        }[self]

    @property
    def signed(self) -> bool:
        """Whether maps have negative places, where the picture lowers the output."""
        return self in (MapMethod.INTEGRATED_GRADIENTS, MapMethod.OCCLUSION)

    @property
    def alarms(self) -> bool:
        """Whether a large share of a map outside the sector is an alarm.

        The limit was set on gradients. Grad-CAM's few coarse places reach over the sector's edge,
        so that half of all ordinary maps would be flagged; parts and falls are zero outside, where
        picture and baseline are the same.
        """
        return self in (MapMethod.SMOOTHGRAD, MapMethod.GRADIENT)

    @property
    def of_what(self) -> str:
        """What a map's number is, after "the output's ..."; empty where it has no unit."""
        return {
            MapMethod.SMOOTHGRAD: "change per grey level",
            MapMethod.GRADIENT: "change per grey level",
            MapMethod.INTEGRATED_GRADIENTS: "part per pixel",
            MapMethod.GRAD_CAM: "",
            MapMethod.OCCLUSION: "fall when covered",
        }[self]


def map_of(
    method: MapMethod,
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: Sequence[int],
    *,
    sector: NDArray[np.bool_] | None = None,
    seed: int = SEED,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """Explain several outputs of a network for every frame.

    Parameters
    ----------
    network
        (n, rows, columns, 1) to (n, numbers); run in inference mode.
    inputs
        (n, rows, columns, 1), normalised as the network wants them.
    outputs
        Which numbers: indices of the network's last axis.
    sector
        (rows, columns), where the frames show the sector. Where None, pixels that have the
        smallest value in every frame are taken to lie outside.
    seed
        Of SmoothGrad's noise; the others have none.
    batch
        Inputs that go through the network at once. It bounds the memory and changes no answer.

    Returns
    -------
    (outputs, n, rows, columns) float32: never negative, or signed, see :attr:`MapMethod.signed`.
    Gradients are per unit of input.

    Raises
    ------
    ExplainError
        If the network is none that the method can explain.
    """
    if method is MapMethod.GRADIENT:
        return input_gradient(network, inputs, outputs, batch=batch)
    if method is MapMethod.INTEGRATED_GRADIENTS:
        return integrated_gradients(network, inputs, outputs, sector=sector, batch=batch)
    if method is MapMethod.GRAD_CAM:
        return gradcam(network, inputs, outputs, batch=batch)
    if method is MapMethod.OCCLUSION:
        return occlusion(network, inputs, outputs, sector=sector, batch=batch)
    return smoothgrad(network, inputs, tuple(outputs), seed=seed, sector=sector, batch=batch)
