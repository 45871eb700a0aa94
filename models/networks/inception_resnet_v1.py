"""Inception-ResNet-v1, the network of EchoNet.

Szegedy et al. 2017 (AAAI, Inception-v4), layers as in its public TensorFlow form; Ghorbani et al.
2020 (npj Digital Medicine 3:10, Methods) train it from a random start, a number or a score out.
With one grey channel in, one dense layer out, and a width multiplier on every convolution.
"""

from __future__ import annotations

import keras
from keras import layers

from models.packs.manifest import InputSpec

EARLY, MIDDLE = "early", "middle"
"""Names of the layers after the first and second stage (35 x 35 and 17 x 17 at 299), for those
who look inside."""

_SMALLEST = 75  # below this a valid convolution of the reductions has nothing left


def inception_resnet_v1(
    spec: InputSpec,
    *,
    outputs: int,
    width: float = 1.0,
    dropout: float = 0.2,
    weight_decay: float = 0.0,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec
        299 x 299 in the paper; at least 75 x 75.
    outputs
        Numbers given for a frame, linear.
    width
        Multiplies the channels of every convolution, rounded to a multiple of 4.
    dropout
        Share dropped before the dense layer in training (the public form keeps 0.8).
    weight_decay
        L2 penalty on every kernel.

    Returns
    -------
    (batch, rows, columns, 1) to (batch, outputs) float32.
    """
    if width <= 0 or min(spec.rows, spec.columns) < _SMALLEST:
        raise ValueError(
            f"width must be positive and the input at least {_SMALLEST} x {_SMALLEST}, "
            f"not width {width} and {spec.rows} x {spec.columns}"
        )
    build = _Builder(width, weight_decay)
    inputs = keras.Input((spec.rows, spec.columns, 1))
    x = build.stem(inputs)
    for _ in range(5):
        x = build.block35(x)
    x = layers.Identity(name=EARLY)(x)
    x = build.reduction_a(x)
    for _ in range(10):
        x = build.block17(x)
    x = layers.Identity(name=MIDDLE)(x)
    x = build.reduction_b(x)
    for _ in range(5):
        x = build.block8(x, scale=0.20, activate=True)
    x = build.block8(x, scale=1.0, activate=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    numbers = layers.Dense(outputs, dtype="float32", name="numbers")(x)
    return keras.Model(inputs, numbers, name="inception_resnet_v1")


class _Builder:
    """The blocks, sharing width and weight decay."""

    def __init__(self, width: float, weight_decay: float) -> None:
        self._width = width
        self._decay = weight_decay

    def _channels(self, full: int) -> int:
        return max(4, round(full * self._width / 4) * 4)

    def _regulariser(self) -> keras.regularizers.Regularizer | None:
        return keras.regularizers.L2(self._decay) if self._decay else None

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int | tuple[int, int],
        *,
        strides: int = 1,
        padding: str = "same",
    ) -> keras.KerasTensor:
        """Convolution, batch normalisation without scale, ReLU."""
        x = layers.Conv2D(
            self._channels(filters),
            size,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self._regulariser(),
        )(x)
        # The public form's 0.995 wants more steps than small data sets give.
        x = layers.BatchNormalization(momentum=0.98, epsilon=1e-3, scale=False)(x)
        return layers.Activation("relu")(x)

    def stem(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """299 x 299 x 1 to 35 x 35 x 256."""
        x = self.conv(x, 32, 3, strides=2, padding="valid")
        x = self.conv(x, 32, 3, padding="valid")
        x = self.conv(x, 64, 3)
        x = layers.MaxPooling2D(3, strides=2)(x)
        x = self.conv(x, 80, 1)
        x = self.conv(x, 192, 3, padding="valid")
        return self.conv(x, 256, 3, strides=2, padding="valid")

    def block35(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Inception-ResNet-A, scale 0.17."""
        one = self.conv(x, 32, 1)
        two = self.conv(self.conv(x, 32, 1), 32, 3)
        three = self.conv(self.conv(self.conv(x, 32, 1), 32, 3), 32, 3)
        return self._residual(x, [one, two, three], scale=0.17, activate=True)

    def reduction_a(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """35 x 35 x 256 to 17 x 17 x 896."""
        one = self.conv(x, 384, 3, strides=2, padding="valid")
        two = self.conv(self.conv(x, 192, 1), 192, 3)
        two = self.conv(two, 256, 3, strides=2, padding="valid")
        pooled = layers.MaxPooling2D(3, strides=2)(x)
        return layers.Concatenate()([one, two, pooled])

    def block17(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Inception-ResNet-B, scale 0.10."""
        one = self.conv(x, 128, 1)
        two = self.conv(self.conv(self.conv(x, 128, 1), 128, (1, 7)), 128, (7, 1))
        return self._residual(x, [one, two], scale=0.10, activate=True)

    def reduction_b(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """17 x 17 x 896 to 8 x 8 x 1792."""
        one = self.conv(self.conv(x, 256, 1), 384, 3, strides=2, padding="valid")
        two = self.conv(self.conv(x, 256, 1), 256, 3, strides=2, padding="valid")
        three = self.conv(self.conv(x, 256, 1), 256, 3)
        three = self.conv(three, 256, 3, strides=2, padding="valid")
        pooled = layers.MaxPooling2D(3, strides=2)(x)
        return layers.Concatenate()([one, two, three, pooled])

    def block8(self, x: keras.KerasTensor, *, scale: float, activate: bool) -> keras.KerasTensor:
        """Inception-ResNet-C."""
        one = self.conv(x, 192, 1)
        two = self.conv(self.conv(self.conv(x, 192, 1), 192, (1, 3)), 192, (3, 1))
        return self._residual(x, [one, two], scale=scale, activate=activate)

    def _residual(
        self,
        x: keras.KerasTensor,
        branches: list[keras.KerasTensor],
        *,
        scale: float,
        activate: bool,
    ) -> keras.KerasTensor:
        up = layers.Conv2D(x.shape[-1], 1, kernel_regularizer=self._regulariser())(
            layers.Concatenate()(branches)
        )
        x = layers.Add()([x, layers.Rescaling(scale)(up)])
        return layers.Activation("relu")(x) if activate else x
