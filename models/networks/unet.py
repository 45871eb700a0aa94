"""U-Net: a frame in, a probability of each structure for each pixel out.

Ronneberger et al. 2015, with batch normalisation before each activation. The first convolution
halves the resolution and the logits are doubled again, bilinear: outlines of chambers are smooth,
and full resolution is where most of the arithmetic would be. Leclerc et al. 2019 (IEEE TMI 38(9))
compare such networks on CAMUS.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from models.packs.manifest import InputSpec


def unet(
    spec: InputSpec,
    *,
    classes: int,
    widths: Sequence[int] = (24, 48, 96, 128, 160),
    dropout: float = 0.2,
    members: int = 1,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec
        Rows and columns must be divisible by 2 to the power ``len(widths)``.
    classes
        Length of the last axis, background included.
    widths
        Channels of each level, half resolution first.
    dropout
        Share of channels dropped at the lowest level in training.
    members
        Networks that look at the same frame; the logits are their mean. Trained apart, from other
        random starts, they err apart. Their weights stand one member after the other.

    Returns
    -------
    (batch, rows, columns, 1) to (batch, rows, columns, classes) logits, float32.
    """
    step = 2 ** len(widths)
    if len(widths) < 2 or spec.rows % step or spec.columns % step:
        raise ValueError(
            f"{len(widths)} levels need rows and columns divisible by {step}, "
            f"not {spec.rows} x {spec.columns}"
        )
    if members < 1:
        raise ValueError(f"a network has at least one member, not {members}")
    if members > 1:
        inputs = keras.Input((spec.rows, spec.columns, 1))
        each = [unet(spec, classes=classes, widths=widths, dropout=dropout) for _ in range(members)]
        for number, member in enumerate(each):
            member.name = f"member_{number}"
        mean = layers.Average(name="logits")([member(inputs) for member in each])
        return keras.Model(inputs, mean, name="unets")
    inputs = keras.Input((spec.rows, spec.columns, 1))
    x = _conv(inputs, widths[0], size=4, strides=2)
    x = _conv(x, widths[0])
    skips = []
    for width in widths[1:]:
        skips.append(x)
        x = _block(layers.MaxPooling2D()(x), width)
    x = layers.SpatialDropout2D(dropout)(x)
    for width, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = _block(x, width)
    x = layers.Conv2D(classes, 1, dtype="float32")(x)
    logits = layers.UpSampling2D(interpolation="bilinear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="unet")


def _block(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    return _conv(_conv(x, width), width)


def _conv(
    x: keras.KerasTensor, width: int, *, size: int = 3, strides: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(
        width,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    return layers.Activation("relu")(x)
