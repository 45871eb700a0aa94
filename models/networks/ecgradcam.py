"""The ECGradCAM network: a recording or a median beat in, numbers out.

Hicks et al. 2021 (Scientific Reports 11:10949), Methods: convolutions of 64 filters over 8 samples
and of 32 over 3, an average pool by two, then eight residual units of two convolutions, 64 and 32
filters over 50 samples each, an average over all time and a dense layer: 1.65 million weights with
one number out. Since an average joins the moments, what a value follows from can be read off the
last unit's activations; see Grad-CAM in :mod:`models.ecg.explain`.
"""

from __future__ import annotations

import keras
from keras import layers

from models.networks import LAST_BLOCK
from models.packs.manifest import WaveformInput

UNITS, KERNEL = 8, 50
_WIDE, _NARROW = 64, 32


def ecgradcam(
    spec: WaveformInput, *, outputs: int, width: float = 1.0, kernel: int = KERNEL
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec
        8 or 12 leads; 5000 samples of a recording, or 600 of a median beat, at 500 Hz.
    outputs
        Length of the last axis.
    width
        Multiplies the filters of every convolution.
    kernel
        Samples that the units' convolutions see: 50 at 500 Hz, so 25 at 250 Hz for the same time.

    Returns
    -------
    (batch, samples, leads) to (batch, outputs) raw numbers, float32.

    Raises
    ------
    ValueError
        If the width leaves no filter.
    """
    wide, narrow = round(_WIDE * width), round(_NARROW * width)
    if narrow < 1:
        raise ValueError(f"width {width:g} leaves no filter of {_NARROW}")
    inputs = keras.Input((spec.samples, len(spec.leads)))
    x = _convolution(inputs, wide, 8)
    x = _convolution(x, narrow, 3)
    x = layers.AveragePooling1D(2)(x)
    for unit in range(UNITS):
        inner = _convolution(_convolution(x, wide, kernel), narrow, kernel, relu=False)
        name = LAST_BLOCK if unit == UNITS - 1 else None
        x = layers.Activation("relu", name=name)(layers.Add()([inner, x]))
    numbers = layers.Dense(outputs, dtype="float32", name="numbers")(
        layers.GlobalAveragePooling1D()(x)
    )
    return keras.Model(inputs, numbers, name="ecgradcam")


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, *, relu: bool = True
) -> keras.KerasTensor:
    x = layers.Conv1D(
        filters, kernel, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    return layers.Activation("relu")(x) if relu else x
