"""The methods by name, and the face that they share: :func:`relevance`.

Methods disagree (Arun et al. 2021, Radiology: Artificial Intelligence 3(6)): look at more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ecg.explain.gradcam import gradcam
from models.ecg.explain.gradients import SAMPLES, SEED, SIGMA, gradient, integrated, smoothgrad
from models.ecg.explain.lrp import EPSILON, lrp


class EcgMethod(StrEnum):
    """How relevance is found, as the command line names it."""

    GRAD_CAM = "grad-cam"
    GRADIENT = "gradient"
    SMOOTHGRAD = "smoothgrad"
    INTEGRATED_GRADIENTS = "integrated-gradients"
    LRP = "lrp"

    @property
    def words(self) -> str:
        """For a reader, with what was set."""
        return {
            EcgMethod.GRAD_CAM: "Grad-CAM, last block: alike in all leads, only what raises",
            EcgMethod.GRADIENT: "Gradient",
            EcgMethod.SMOOTHGRAD: f"SmoothGrad, {SAMPLES} copies, noise of {100 * SIGMA:.0f} % SD",
            EcgMethod.INTEGRATED_GRADIENTS: "Integrated gradients from the isoelectric line",
            EcgMethod.LRP: f"LRP, epsilon {EPSILON:g} rms",
        }[self]

    @property
    def signed(self) -> bool:
        """Whether places have negative relevance, where the signal lowers the number."""
        return self is not EcgMethod.GRAD_CAM

    @property
    def additive(self) -> bool:
        """Whether a sample's relevance is its part of the number, so that sums mean something."""
        return self in (EcgMethod.INTEGRATED_GRADIENTS, EcgMethod.LRP)

    @property
    def of_leads(self) -> bool:
        """Whether leads are told apart."""
        return self is not EcgMethod.GRAD_CAM


def relevance(
    network: Callable[..., Any],
    inputs: NDArray[np.float32],
    output: int,
    method: EcgMethod,
    *,
    seed: int = SEED,
) -> NDArray[np.float32]:
    """What moves a number of the network, and which way.

    Parameters
    ----------
    network
        (n, samples, leads) to (n, numbers), run in inference mode. Grad-CAM and LRP need a
        ``keras.Model``; the others take any function that TensorFlow can differentiate.
    inputs
        (n, samples, leads), mV, as the network wants them.
    output
        Which number: an index of the network's last axis. A score's is its logit.
    seed
        Of SmoothGrad's noise; the others have none.

    Returns
    -------
    (n, samples, leads) float32, signed. Of the additive methods in units of the number, each
    sample's part of it; of gradients in units of the number per mV; Grad-CAM's has none.

    Raises
    ------
    ValueError
        If the inputs are not of three axes.
    ExplainError
        If the network is none that the method can explain.
    """
    if inputs.ndim != 3 or not len(inputs):
        raise ValueError(f"inputs must be (n, samples, leads) with n of 1 or more: {inputs.shape}")
    if method is EcgMethod.GRAD_CAM:
        return gradcam(network, inputs, output)
    if method is EcgMethod.LRP:
        return lrp(network, inputs, output)
    if method is EcgMethod.INTEGRATED_GRADIENTS:
        parts: NDArray[np.float32] = integrated(network, inputs, (output,)).maps[0]
        return parts
    if method is EcgMethod.GRADIENT:
        return gradient(network, inputs, output)
    return smoothgrad(network, inputs, output, seed=seed)
