"""Many simulated recordings as a network takes them, for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.ecg.beats import median_beat
from models.ecg.inputs import InputShape, to_input
from models.ecg.recording import Ecg, Strip
from models.ecg.simulator.simulate import SimulatedEcg, simulate_ecg
from models.ecg.simulator.wanted import draw_wanted
from models.tasks import ECG_TASKS

OUTPUTS = tuple(ECG_TASKS)
"""The columns of the truths."""

MEDIAN = "median"
_MEDIAN_OF_S = 10.0


def generate_inputs(
    rng_seed: int, count: int, spec: InputShape
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``count`` recordings: (count, samples, leads) mV and (count, outputs) truths.

    The outputs are :data:`OUTPUTS`; NaN where a truth is not known. The recordings have the
    network's rate from the start, and fill its input, or fall short of it by up to a third, as
    shorter ones do; where it takes the median beat it is made as :func:`median_beat` makes it. The
    same seed gives the same recordings.
    """
    inputs = np.empty((count, spec.samples, len(spec.leads)), np.float32)
    truths = np.full((count, len(OUTPUTS)), np.nan, np.float32)
    for number in range(count):
        one = _draw(rng_seed, number, spec)
        inputs[number] = to_input(_strip(one, spec), spec)
        for column, name in enumerate(OUTPUTS):
            truths[number, column] = one.truths.get(name, np.nan)
    return inputs, truths


def _draw(rng_seed: int, number: int, spec: InputShape) -> SimulatedEcg:
    rng = np.random.default_rng([rng_seed, number])
    longest = _MEDIAN_OF_S if _median(spec) else spec.samples / spec.rate_hz
    duration = longest if rng.random() < 0.6 else longest * float(rng.uniform(0.66, 1.0))
    wanted = draw_wanted(rng, rate_hz=spec.rate_hz, duration_s=max(duration, 2.0))
    return simulate_ecg(wanted, int(rng.integers(2**62)))


def _median(spec: InputShape) -> bool:
    return getattr(spec, "signal", "") == MEDIAN


def _strip(one: SimulatedEcg, spec: InputShape) -> Strip:
    ecg: Ecg = one.ecg
    return median_beat(ecg.rhythm, one.r_peaks) if _median(spec) else ecg.rhythm
