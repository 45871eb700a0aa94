"""Ribeiro's network for 12-lead ECGs: a recording in, a logit for each of six findings out.

Ribeiro et al. 2020 (Nature Communications 11:1760), Fig. 3 and Methods: 4096 samples of 12 leads at
400 Hz; a convolution of 64 filters, then four residual units of two convolutions each, kernels of
16 samples, batch normalisation, ReLU and dropout; at each unit the signal gets four times shorter
(1024, 256, 64, 16 samples) and the filters more (128, 196, 256, 320); the way past a unit is a max
pool and a convolution of one sample. A dense layer reads the last unit's 16 moments one by one, so
that the network may tell a recording's beginning from its end.
"""

from __future__ import annotations

import keras
from keras import layers

from models.networks import LAST_BLOCK
from models.packs.manifest import WaveformInput

FILTERS = (128, 196, 256, 320)
KERNEL, STRIDE = 16, 4
_FIRST = 64


def ribeiro(
    spec: WaveformInput, *, outputs: int = 6, width: float = 1.0, dropout: float = 0.2
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec
        4096 samples of 12 leads in the paper; the samples must be a multiple of 256.
    outputs
        Length of the last axis.
    width
        Multiplies the filters of every convolution.
    dropout
        Share of values dropped within each unit in training.

    Returns
    -------
    (batch, samples, leads) to (batch, outputs) logits, float32.

    Raises
    ------
    ValueError
        If the samples cannot be divided so often, or the width leaves no filter.
    """
    shortest = STRIDE ** len(FILTERS)
    if spec.samples % shortest:
        raise ValueError(
            f"ribeiro divides the signal {len(FILTERS)} times by {STRIDE}: samples must be a "
            f"multiple of {shortest}, not {spec.samples}"
        )
    if round(_FIRST * width) < 1:
        raise ValueError(f"width {width:g} leaves no filter of {_FIRST}")
    inputs = keras.Input((spec.samples, len(spec.leads)))
    x = _convolution(round(_FIRST * width))(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    passed = x
    for place, filters in enumerate(FILTERS):
        last = place == len(FILTERS) - 1
        x, passed = _unit(x, passed, round(filters * width), dropout, last=last)
    logits = layers.Dense(outputs, kernel_initializer="he_normal", dtype="float32", name="numbers")(
        layers.Flatten()(x)
    )
    return keras.Model(inputs, logits, name="ribeiro")


def _convolution(filters: int, kernel: int = KERNEL, stride: int = 1) -> layers.Layer:
    return layers.Conv1D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )


def _unit(
    x: keras.KerasTensor, passed: keras.KerasTensor, filters: int, dropout: float, *, last: bool
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """One residual unit: what the next one reads, and what goes past it."""
    passed = layers.MaxPooling1D(STRIDE, padding="same")(passed)
    passed = _convolution(filters, kernel=1)(passed)
    x = layers.Activation("relu")(layers.BatchNormalization()(_convolution(filters)(x)))
    x = layers.Dropout(dropout)(x)
    passed = layers.Add()([_convolution(filters, stride=STRIDE)(x), passed])
    x = layers.BatchNormalization()(passed)
    x = layers.Activation("relu", name=LAST_BLOCK if last else None)(x)
    return layers.Dropout(dropout)(x), passed
