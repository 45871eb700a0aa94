"""How a picture looks, apart from what it shows: gain, compression, grain, haze, shadows.

A :class:`Look` is drawn at random, or partly taken from a real frame (:func:`borrow_look`), so
that grain, grey levels and shading of patients' pictures can lie on any view. A network that is to
name views must find nothing in the look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.simulator.sector import BEAMS, DEPTHS


@dataclass(frozen=True, kw_only=True)
class Borrowed:
    """What a real frame lends, as beam pictures of (DEPTHS, BEAMS).

    ``grain`` is what is left of the frame without its slow part, in units of its own local
    spread; ``grain_spread`` that spread by grey level (16 bins); ``levels`` the 256 quantiles of
    its grey values (0 to 1); ``shade`` its very slow part over its mean.
    """

    grain: NDArray[np.float32]
    grain_spread: NDArray[np.float32]
    levels: NDArray[np.float32]
    shade: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything about a picture but its content."""

    dynamic_range_db: float = 55.0
    gain_db: float = 0.0
    gamma: float = 1.0
    attenuation_db_per_cm: float = 0.3
    noise: float = 0.004  #: of the receiver, against an echo of 1
    haze: float = 0.02  #: veil over everything
    near_clutter: float = 0.3
    axial_blur: float = 1.2  #: in depth samples
    lateral_blur: float = 1.8  #: in beams
    edge_echo: float = 0.5  #: extra brightness of borders that face the probe
    uneven_db: float = 3.0  #: spread of a slow random field over the picture
    shadows: int = 1  #: beams darkened by ribs or lung
    looks: int = 1  #: speckle pictures averaged (spatial compounding)
    smooth: float = 0.0  #: extra blur of the finished beams, as machines' filters do
    borrowed: Borrowed | None = None
    borrow_grain: float = 0.0  #: 0 own speckle, 1 all from the real frame
    borrow_levels: float = 0.0
    borrow_shade: float = 0.0


def random_look(rng: np.random.Generator, borrowed: Borrowed | None = None) -> Look:
    """A look between a perfect and a barely readable picture."""
    bad = float(rng.beta(1.6, 2.2))  # how poor the window is
    look = Look(
        dynamic_range_db=float(rng.uniform(40, 72)),
        gain_db=float(rng.normal(2, 4)),
        gamma=float(rng.uniform(0.75, 1.5)),
        attenuation_db_per_cm=float(rng.normal(0.25, 0.45)),
        noise=float(10 ** rng.uniform(-3.2, -1.6)),
        haze=float(0.005 + 0.16 * bad**1.5 * rng.random()),
        near_clutter=float(rng.uniform(0.0, 1.0)),
        axial_blur=float(rng.uniform(0.8, 1.9)),
        lateral_blur=float(rng.uniform(1.0, 3.0)),
        edge_echo=float(rng.uniform(0.0, 1.2)),
        uneven_db=float(1.0 + 7.0 * bad),
        shadows=int(rng.integers(0, 4)),
        looks=int(rng.integers(1, 3)),
        smooth=float(rng.choice([0.0, 0.0, 0.7, 1.2])),
    )
    if borrowed is None:
        return look
    return replace(
        look,
        borrowed=borrowed,
        borrow_grain=float(rng.choice([0.0, 1.0, rng.random()])),
        borrow_levels=float(rng.choice([0.0, 1.0, 1.0, rng.random()])),
        borrow_shade=float(rng.choice([0.0, 0.6, rng.random()])),
    )


def borrow_look(beams: NDArray[np.float32]) -> Borrowed:
    """Take grain, grey levels and shading from a real frame.

    Parameters
    ----------
    beams
        (DEPTHS, BEAMS), grey 0 to 1, as :meth:`models.simulator.sector.Sector.beams_of` gives it.
    """
    slow = gaussian_filter(beams, (4.0, 3.0), mode="nearest")
    rest = beams - slow
    spread = np.sqrt(gaussian_filter(rest * rest, (8.0, 6.0), mode="nearest")) + 1e-3
    level = np.clip((slow * 16).astype(np.intp), 0, 15)
    count = np.bincount(level.ravel(), minlength=16)
    total = np.bincount(level.ravel(), weights=spread.ravel(), minlength=16)
    known = np.flatnonzero(count)
    by_level = np.interp(np.arange(16), known, total[known] / count[known])
    shade = gaussian_filter(beams, (45.0, 25.0), mode="nearest") + 0.02
    return Borrowed(
        grain=(rest / spread).astype(np.float32),
        grain_spread=by_level.astype(np.float32),
        levels=np.quantile(beams, np.linspace(0, 1, 256)).astype(np.float32),
        shade=(shade / shade.mean()).astype(np.float32),
    )


def slow_field(
    rng: np.random.Generator, *, depth_scale: float = 30.0, beam_scale: float = 16.0
) -> NDArray[np.float32]:
    """A smooth random field of mean 0 and spread 1, (DEPTHS, BEAMS); scales in samples."""
    rows = max(3, round(DEPTHS / depth_scale) + 2)
    columns = max(3, round(BEAMS / beam_scale) + 2)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return stretch(coarse)


def stretch(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear enlargement of a small array to (DEPTHS, BEAMS), smoothed at the knots."""
    rows = _smooth_weights(coarse.shape[0], DEPTHS)
    columns = _smooth_weights(coarse.shape[1], BEAMS)
    return np.asarray(rows @ coarse @ columns.T, dtype=np.float32)


def _smooth_weights(knots: int, samples: int) -> NDArray[np.float32]:
    place = np.linspace(0, knots - 1, samples)
    left = np.minimum(place.astype(np.intp), knots - 2)
    share = place - left
    share = share * share * (3 - 2 * share)
    weights = np.zeros((samples, knots), np.float32)
    weights[np.arange(samples), left] = 1 - share
    weights[np.arange(samples), left + 1] = share
    return weights
