"""The view classifier's network: a frame in, a logit for each view out.

Madani et al. 2018 (npj Digital Medicine 1:6), Methods: 60 x 80 pixels, one channel, six 3x3
convolutions with 2x2 max pools, dense layers of 1028 and 512, softmax over 15 views; batch
normalisation before each activation, dropout. Their filters are unpublished: 32, 32, pool, 64, 64,
pool, 128, 128, pool is our reading.

Two things differ here by default, for size. The dense layers of 1028 and 512 over 7 x 10 x 128
values would be 9.7 of 10 million weights; here they are narrower, and the last pool is followed
by an average over the picture's quarters (``pooled``), which keeps where something lies. And
there is a sixteenth class, "other". With ``strided`` the first convolution is a 4x4 one of stride
two and the last pool falls away: four times less to compute for filters twice as many, and nothing
is lost, for its 32 filters see all 16 pixels beneath them. ``view_cnn(spec, classes=15,
dense=(1028, 512), pooled=None, widths=(32, 64, 128))`` is the published network.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from models.packs.manifest import InputSpec


def view_cnn(
    spec: InputSpec,
    *,
    classes: int,
    widths: Sequence[int] = (32, 64, 128),
    dense: Sequence[int] = (256, 128),
    pooled: int | None = 2,
    strided: bool = False,
    dropout: float = 0.4,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec
        60 x 80 in the paper.
    classes
        Length of the last axis.
    widths
        Filters of each pair of convolutions; a 2x2 max pool follows each pair.
    dense
        Units of the dense layers.
    pooled
        Average the last features over windows of this many rows and columns; None keeps all.
    strided
        Whether the first convolution halves the picture, and no pool follows the last pair.
    dropout
        Share of units dropped after each dense layer in training.

    Returns
    -------
    (batch, rows, columns, 1) to (batch, classes) logits, float32: no softmax, so that a
    temperature can be applied.
    """
    if min(spec.rows, spec.columns) < 2 ** len(widths):
        raise ValueError(f"{len(widths)} pools leave nothing of {spec.rows} x {spec.columns}")
    inputs = keras.Input((spec.rows, spec.columns, 1))
    x = inputs
    for place, width in enumerate(widths):
        first = strided and place == 0
        x = _conv(x, width, side=4, stride=2) if first else _conv(x, width)
        x = _conv(x, width)
        if not (strided and place == len(widths) - 1):
            x = layers.MaxPooling2D()(x)
    if pooled is not None:
        x = layers.AveragePooling2D(pooled, padding="same")(x)
    x = layers.Flatten()(x)
    for units in dense:
        x = layers.Dense(units, use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization(momentum=0.98)(x)
        x = layers.Activation("relu")(x)
        x = layers.Dropout(dropout)(x)
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="view_cnn")


def _conv(x: keras.KerasTensor, width: int, *, side: int = 3, stride: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(
        width,
        side,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    return layers.Activation("relu")(x)
