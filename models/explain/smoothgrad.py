"""SmoothGrad: the gradient with its noise averaged out.

Smilkov et al. 2017 (arXiv:1706.03825): the mean of the gradient over copies of the input with
Gaussian noise. Ghorbani et al. 2020 (npj Digital Medicine 3:10) explain EchoNet with it, since it
shows structures where the plain gradient shows speckle. The absolute gradient is averaged, as is
usual for pictures without a meaning of sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.explain.gradient import mean_gradient
from models.explain.sector import sector_of
from models.explain.target import BATCH, Explained

if TYPE_CHECKING:
    import keras

SAMPLES = 10
"""Noisy copies of each frame. The paper's N is unpublished; Smilkov et al. use 50 on one picture.
Here 20 frames of a clip are seen one after another, and 10 copies each keep three outputs within
some ten seconds on two cores; the mean over the clip has 200."""

SIGMA = 0.15
"""Standard deviation of the noise as a share of the input's range: the middle of the 10 to 20 %
that Smilkov et al. found best."""

SEED = 20200124


def smoothgrad(
    network: keras.Model | Explained,
    inputs: NDArray[np.float32],
    outputs: int | Sequence[int],
    *,
    samples: int = SAMPLES,
    sigma: float = SIGMA,
    seed: int = SEED,
    sector: NDArray[np.bool_] | None = None,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """The mean of |dF/dx| over ``samples`` noisy copies of each frame, never negative.

    As :func:`models.explain.methods.map_of`, and besides:

    Parameters
    ----------
    inputs
        The frames of one clip.
    outputs
        Of one index the answer is (n, rows, columns).
    sigma
        Of the noise, as a share of the range of ``inputs`` (largest minus smallest value).
    seed
        The same seed gives the same noise, whatever the batch, the frames and the machine.
    sector
        Only there is noise added. Values outside it are left as they are, for they tell how much
        a network minds what it should not.
    """
    if samples < 1 or sigma < 0:
        raise ValueError(f"samples must be at least 1 and sigma not negative: {samples}, {sigma}")
    if sector is None:
        sector = sector_of(inputs)
    noise = _noise((samples, *inputs.shape[1:]), seed)
    noise *= np.float32(sigma * float(np.ptp(inputs))) * sector[..., np.newaxis]
    several = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    maps = mean_gradient(network, inputs, noise, several, batch=batch)
    return maps[0] if isinstance(outputs, int) else maps


def _noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    # Every frame gets the same draws: the maps of neighbours then differ by what they show and
    # not by chance, and the cine does not flicker. Stateless: the same on every machine.
    import tensorflow as tf

    draws: NDArray[np.float32] = tf.random.stateless_normal(shape, seed=(seed, 0)).numpy().copy()
    return draws
