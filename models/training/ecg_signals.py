"""ECGs for training: what a network sees of each, on disk, and batches in which each differs.

Recordings go the way that a patient's go, :func:`models.ecg.reader.strip_for` and
:func:`models.ecg.inputs.to_input`; only the leads that are measured are kept, in float16 (steps of
at most 1 uV up to 2 mV), for the others follow from them. What batches then change is what differs
from cart to cart and says nothing of the heart: how much of it was recorded, where in the window
it lies, the gain, noise, a lead that is off.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ecg.inputs import to_input
from models.ecg.reader import LEAST_RHYTHM_S, strip_for
from models.ecg.recording import INDEPENDENT, LEADS, EcgError
from models.ecg.simulator.leads import FROM_INDEPENDENT
from models.packs import Signal, WaveformInput
from models.training import loop

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

FORMAT = 1
"""Of the signals on disk: another number makes them anew."""

AMPLITUDES = ("j_amplitude", "r_amplitude", "t_amplitude")
"""Outputs that grow with the gain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """Recordings as a network takes them.

    ``millivolts`` is (n, samples, 8), the leads of :data:`models.ecg.recording.INDEPENDENT`;
    ``truths`` (n, outputs), NaN where something is not known, and ``outputs`` their names.
    """

    millivolts: NDArray[np.float16]
    truths: Floats
    outputs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.millivolts)

    def inputs(self, places: NDArray[np.intp] | slice, leads: Sequence[str]) -> Floats:
        """(k, samples, leads) of some, as they are."""
        return as_leads(np.asarray(self.millivolts[places], np.float32), leads)


def as_leads(measured: Floats, leads: Sequence[str]) -> Floats:
    """(..., leads) from (..., 8), by the identities of Einthoven and Goldberger."""
    if tuple(leads) == INDEPENDENT:
        return measured
    return np.asarray(measured @ FROM_INDEPENDENT[[LEADS.index(lead) for lead in leads]].T)


def stored_signals(
    folder: Path,
    key: Mapping[str, Any],
    cases: Iterable[Any],
    spec: WaveformInput,
    outputs: Sequence[str],
) -> Signals:
    """The signals of a split, read from ``folder`` where they are of this key, else made there.

    Parameters
    ----------
    key
        What the signals follow from; ready for JSON.
    cases
        :class:`models.data.ecgs.EcgCase`; one that cannot be read is left out and logged.
    """
    about, signals_at = folder / "about.json", folder / "millivolts.f16"
    wanted = json.dumps({**key, "format": FORMAT, "input": spec.model_dump()}, sort_keys=True)
    if not about.is_file() or about.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        about.unlink(missing_ok=True)
        truths, unread = [], 0
        measured = spec.model_copy(update={"leads": INDEPENDENT})
        with signals_at.open("wb") as file:
            for case in cases:
                try:
                    ecg = case.ecg()
                    signal = to_input(strip_for(ecg, measured), measured)
                except EcgError as error:
                    log.debug("%s is left out: %s", case.name, error)
                    unread += 1
                    continue
                file.write(signal.astype(np.float16).tobytes())
                truths.append([case.truths.get(name, np.nan) for name in outputs])
        rows = np.asarray(truths, np.float32).reshape(-1, len(outputs))
        np.save(folder / "truths.npy", rows)
        about.write_text(wanted)
        log.info("%d recordings in %s; %d could not be read", len(rows), folder, unread)
    rows = np.load(folder / "truths.npy")
    shape = (len(rows), spec.samples, len(INDEPENDENT))
    return Signals(
        millivolts=np.memmap(signals_at, np.float16, "r", shape=shape)
        if len(rows)
        else np.zeros(shape, np.float16),
        truths=rows,
        outputs=tuple(outputs),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Varied:
    """How much a recording differs each time that it is shown.

    ``cropped`` is the chance that only a part of it was recorded, 5 s at least; ``shift_s`` how far
    it lies from the middle of its window; ``gain`` and ``lead_gain`` the spread of the logarithm of
    all leads' and of each lead's gain; ``noisy`` the chance, and ``noise_mv`` the middle size, of
    white noise; ``off`` the chance that a lead is off. Of a median beat, ``slope_mv`` is how far
    its line may be tilted or lie beside zero.
    """

    cropped: float = 0.0
    shift_s: float = 0.0
    gain: float = 0.1
    lead_gain: float = 0.03
    noisy: float = 0.4
    noise_mv: float = 0.01
    off: float = 0.0
    slope_mv: float = 0.0


RHYTHM = Varied(cropped=0.3, shift_s=0.5, off=0.1)
BEAT = Varied(shift_s=0.1, noisy=0.3, noise_mv=0.004, slope_mv=0.02)


class SignalBatches(loop.Batches):
    """Batches of (inputs, truths): (k, samples, leads), and (k, outputs) with NaN.

    An epoch is so many batches, of recordings drawn without repetition while there are others.
    """

    def __init__(
        self,
        signals: Signals,
        spec: WaveformInput,
        varied: Varied,
        *,
        batch: int,
        epoch_batches: int,
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        self._signals, self._spec, self._varied = signals, spec, varied
        self._batch, self._count = batch, epoch_batches

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        places = self._places(index)
        rng = self.random(index)
        measured = np.asarray(self._signals.millivolts[places], np.float32)
        truths = self._signals.truths[places].copy()
        for row, truth in zip(measured, truths, strict=True):
            self._vary(row, truth, rng)
        return as_off(as_leads(measured, self._spec.leads), self._varied.off, rng), truths

    def _places(self, index: int) -> NDArray[np.intp]:
        """Which recordings: one long row of permutations, cut into epochs and batches."""
        count, rows = len(self._signals), []
        begin = (self.epoch * self._count + index) * self._batch
        for at in range(begin, begin + self._batch):
            around, place = divmod(at, count)
            rows.append(self._order(around)[place])
        return np.sort(np.array(rows, np.intp))

    def _order(self, around: int) -> NDArray[np.intp]:
        if getattr(self, "_kept", (-1, None))[0] != around:
            order = np.random.default_rng((self.seed, around, 7)).permutation(len(self._signals))
            self._kept = (around, order)
        return self._kept[1]

    def _vary(self, row: Floats, truth: Floats, rng: np.random.Generator) -> None:
        varied, rate_hz = self._varied, self._spec.rate_hz
        if rng.random() < varied.cropped:
            crop(row, rng, rate_hz)
        if varied.shift_s:
            reach = round(varied.shift_s * rate_hz)
            move(row, int(rng.integers(-reach, reach + 1)), fill=self._spec.signal is Signal.MEDIAN)
        gain = float(np.exp(rng.normal(0.0, varied.gain)))
        row *= gain * np.exp(rng.normal(0.0, varied.lead_gain, row.shape[1])).astype(np.float32)
        for name in AMPLITUDES:
            if name in self._signals.outputs:
                truth[self._signals.outputs.index(name)] *= gain
        if rng.random() < varied.noisy:
            size = varied.noise_mv * float(np.exp(rng.normal(0.0, 0.7)))
            row += size * rng.standard_normal(row.shape, np.float32) * (row != 0)
        if varied.slope_mv:
            ends = rng.normal(0.0, varied.slope_mv, (2, row.shape[1])).astype(np.float32)
            along = np.linspace(0, 1, len(row), dtype=np.float32)[:, None]
            row += ends[0] * (1 - along) + ends[1] * along


def crop(row: Floats, rng: np.random.Generator, rate_hz: float) -> None:
    """Keep a part of the recording (samples, leads), in the middle of the window."""
    there = np.flatnonzero(row.any(axis=1))
    if not len(there):
        return
    first, last = int(there[0]), int(there[-1]) + 1
    least = min(last - first, round(LEAST_RHYTHM_S * rate_hz))
    length = int(rng.integers(least, last - first + 1))
    begin = int(rng.integers(first, last - length + 1))
    kept = row[begin : begin + length].copy()
    row[:] = 0.0
    at = (len(row) - length) // 2
    row[at : at + length] = kept


def move(row: Floats, by: int, *, fill: bool) -> None:
    """Move a recording (samples, leads) in its window; ``fill`` repeats its end, else zeros."""
    if by == 0:
        return
    moved = np.roll(row, by, axis=0)
    gap = slice(0, by) if by > 0 else slice(by, None)
    moved[gap] = (row[0] if by > 0 else row[-1]) if fill else 0.0
    row[:] = moved


def as_off(inputs: Floats, chance: float, rng: np.random.Generator) -> Floats:
    """Some recordings of a batch (k, samples, leads) with one lead of nothing but zeros."""
    if chance:
        for row in inputs:
            if rng.random() < chance:
                row[:, rng.integers(row.shape[1])] = 0.0
    return inputs
