"""Everything between the heart and the file: skin, muscles, movement, mains, amplifier, converter.

Noise arises at the electrodes, so it stands in the leads as it does in real ones: what happens at
the right arm is in I, II and, by Wilson's terminal, a little in every chest lead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from models.ecg.simulator.leads import FROM_ELECTRODES

Floats = NDArray[np.float32]
_ELECTRODES = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Cart:
    """How a recording is made: what the file says of it, too.

    ``lowest_hz`` is the high-pass (``steady``: without shift in time, as where a recording is
    filtered forwards and backwards), ``highest_hz`` the low-pass, ``mains_hz`` what the sockets
    have, ``notch`` whether it is filtered out; ``step_mv`` is one unit of the converter.
    """

    lowest_hz: float
    steady: bool
    highest_hz: float
    mains_hz: float
    notch: bool
    gain: float
    step_mv: float


def draw_cart(rng: np.random.Generator) -> Cart:
    """A cart as hospitals have them."""
    lowest = float(rng.choice([0.05, 0.05, 0.15, 0.32, 0.5, 0.67]))
    return Cart(
        lowest_hz=lowest,
        steady=lowest > 0.2 or bool(rng.random() < 0.3),
        highest_hz=float(rng.choice([40, 100, 100, 150, 150, 150, 250])),
        mains_hz=float(rng.choice([50, 60])),
        notch=bool(rng.random() < 0.5),
        gain=float(1 + rng.normal(0, 0.015)),
        step_mv=float(rng.choice([0.001, 0.001, 0.00122, 0.0025, 0.00488, 0.005])),
    )


def recorded(
    rng: np.random.Generator, heart_mv: Floats, rate_hz: float, cart: Cart, noise: float
) -> Floats:
    """(8, samples): what the cart stores of (8, samples) mV.

    Both ends of what is given are bent to the line by the filters; give some more than is kept.
    """
    samples = heart_mv.shape[1]
    length = next_fast_len(samples, real=True)
    heard = FROM_ELECTRODES @ _electrode_noise(rng, samples, length, rate_hz, cart, noise)
    heard += heart_mv
    edge = min(int(0.5 * rate_hz), samples // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * np.arange(edge) / edge)).astype(np.float32)
    heard[:, :edge] *= ramp
    heard[:, -edge:] *= ramp[::-1]
    spectrum = rfft(heard, length, axis=1)
    spectrum *= cart.gain * _response(length, rate_hz, cart)
    filtered = irfft(spectrum, length, axis=1)[:, :samples]
    return stored(filtered, cart)


def stored(millivolts: Floats, cart: Cart) -> Floats:
    """To whole steps of the converter."""
    step = np.float32(cart.step_mv)
    return np.asarray(np.rint(millivolts / step) * step, np.float32)


def _response(length: int, rate_hz: float, cart: Cart) -> NDArray[np.complex64]:
    """(bins,) of the cart's filters."""
    hertz = rfftfreq(length, 1 / rate_hz)
    high = hertz / cart.lowest_hz
    if cart.steady:
        passed = (high**2 / (1 + high**2)).astype(np.complex128)
    else:
        passed = 1j * high / (1 + 1j * high)
    passed /= 1 + (hertz / cart.highest_hz) ** 4
    if cart.notch:
        passed *= 1 - np.exp(-0.5 * ((hertz - cart.mains_hz) / 0.7) ** 2)
    return np.asarray(passed, np.complex64)


def _electrode_noise(
    rng: np.random.Generator,
    samples: int,
    length: int,
    rate_hz: float,
    cart: Cart,
    noise: float,
) -> Floats:
    """(9, samples) mV at RA, LA, LL and V1 to V6."""
    hertz = rfftfreq(length, 1 / rate_hz).astype(np.float32)
    each = np.exp(rng.normal(0, 0.5, (_ELECTRODES, 1))).astype(np.float32)
    slow = _coloured(rng, _wander_spectrum(rng, hertz, rate_hz, length) * each, length)
    muscle = np.exp(rng.normal(np.log(0.006), 0.8)) * _burst(rng, samples, rate_hz)
    quick = _coloured(rng, _muscle_spectrum(rng, hertz, length) * each, length)
    summed = slow[:, :samples] + quick[:, :samples] * muscle
    times = np.arange(samples, dtype=np.float32) / np.float32(rate_hz)
    _add_breath(rng, summed, times)
    _add_mains(rng, summed, times, cart)
    _add_movement(rng, summed, times)
    return np.asarray(np.float32(noise) * summed, np.float32)


def _coloured(rng: np.random.Generator, spectrum: Floats, length: int) -> Floats:
    """Gaussian noise (electrodes, length) of a one-sided amplitude spectrum, mV per bin."""
    drawn = rng.standard_normal((*spectrum.shape, 2), np.float32).view(np.complex64)[..., 0]
    coloured: Floats = np.asarray(irfft(drawn * spectrum, length, axis=1), np.float32)
    return coloured


def _wander_spectrum(
    rng: np.random.Generator, hertz: Floats, rate_hz: float, length: int
) -> Floats:
    """Drift of the skin's voltage and the amplifier's own noise, as an amplitude in each bin."""
    size = np.exp(rng.normal(np.log(0.05), 0.8))
    slope = rng.uniform(1.2, 2.0)
    reach = np.maximum(hertz, 0.08)
    drift = reach**-slope / (1 + (hertz / 1.5) ** 2)
    drift *= size / np.sqrt(np.sum(drift**2) + 1e-12) * length / 2
    white = np.exp(rng.normal(np.log(0.0016), 0.6)) * np.sqrt(length) * np.sqrt(rate_hz / 500) / 1.4
    drift[0] = 0
    return np.asarray((drift + white)[None], np.float32)


def _muscle_spectrum(rng: np.random.Generator, hertz: Floats, length: int) -> Floats:
    """Of muscles, with a standard deviation of one, as an amplitude in each bin."""
    low, high = rng.uniform(8, 25), rng.uniform(60, 140)
    band = (hertz / low) ** 2 / (1 + (hertz / low) ** 2) / (1 + (hertz / high) ** 2)
    band *= length / 2 / np.sqrt(np.sum(band**2) + 1e-12)
    return np.asarray(band[None], np.float32)


def _burst(rng: np.random.Generator, samples: int, rate_hz: float) -> Floats:
    """(samples,) how tense the muscles are: steady in most, in bursts in some."""
    if rng.random() < 0.7:
        return np.ones(samples, np.float32)
    knots = np.exp(rng.normal(0, 0.9, int(samples / rate_hz * 1.5) + 3))
    where = np.linspace(0, len(knots) - 1, samples)
    return np.interp(where, np.arange(len(knots)), knots).astype(np.float32)


def _add_breath(rng: np.random.Generator, summed: Floats, times: Floats) -> None:
    size = np.exp(rng.normal(np.log(0.02), 0.9))
    for _ in range(3):
        hertz, turn = rng.uniform(0.08, 0.55), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * np.float32(hertz) * times + np.float32(turn))
        summed += (size * rng.normal(0, 1, (_ELECTRODES, 1))).astype(np.float32) * wave


def _add_mains(rng: np.random.Generator, summed: Floats, times: Floats, cart: Cart) -> None:
    if rng.random() < 0.35:
        return
    size = np.exp(rng.normal(np.log(0.004), 0.9))
    hertz = cart.mains_hz * (1 + rng.normal(0, 0.0006))
    for harmonic, share in ((1, 1.0), (2, 0.12), (3, 0.25)):
        turn = rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * np.float32(hertz * harmonic) * times + np.float32(turn))
        each = size * share * rng.normal(0.6, 0.7, (_ELECTRODES, 1))
        summed += each.astype(np.float32) * wave


def _add_movement(rng: np.random.Generator, summed: Floats, times: Floats) -> None:
    """Now and then an electrode is moved: a jump, and the slow way back."""
    if rng.random() > 0.2:
        return
    for _ in range(int(rng.integers(1, 4))):
        since = times - np.float32(rng.uniform(0, times[-1]))
        back = np.exp(-np.maximum(since, 0) / np.float32(rng.uniform(0.08, 1.2)))
        rise = 1 / (1 + np.exp(np.clip(-since / np.float32(rng.uniform(0.005, 0.06)), -30, 30)))
        electrode = int(rng.integers(_ELECTRODES))
        summed[electrode] += np.float32(rng.normal(0, 0.3)) * back * rise
