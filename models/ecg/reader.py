"""A pack reads an ECG: what it sees of it, what it says, and what it leaves unsaid.

:func:`strip_for` chooses what a network sees, for training and for patients alike: the recording
itself, or a median beat; the cart's own where it sent one, for that is the one that it measured,
and otherwise ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.ecg.beats import delineate, median_beat, r_peaks
from models.ecg.inputs import VERSION, to_input
from models.ecg.recording import Doubt, Ecg, EcgError, Strip
from models.finding import Finding, Kind, Method, Refusal
from models.packs import Link, OutputSpec, Pack, PackError, PackKind, Signal, WaveformInput
from models.packs.prepared import compiled
from models.readers.base import Reading, by_kind, speak_of

LEAST_RHYTHM_S: Final = 5.0
"""Of a recording: in less, too few beats tell a rhythm, and training saw nothing shorter."""

LEAST_BEAT_S: Final = 0.6
"""Of a cart's median beat: less does not hold P, QRS and T."""

LEAST_RATE_HZ: Final = 100.0
"""Below it the QRS complex is not in the recording: most of its power lies below 40 Hz."""

MOST_FLAT: Final = 1
"""Leads that may show nothing: training takes one away at times, and no more."""

_BATCH = 8
_LEAST_SHARE = 0.5  # of beats with a P wave; fewer, and there is no PR interval to speak of
_BY_V5: Final = ("j_amplitude", "r_amplitude", "t_amplitude")
_BY_V1: Final = ("rbbb", "lbbb")
_SWAPPED: Final = (Doubt.IDENTITY, Doubt.REVERSED)


def strip_for(ecg: Ecg, spec: WaveformInput) -> Strip:
    """What a network of this input sees of a recording.

    Raises
    ------
    EcgError
        If it is too short or too coarse, or no beat can be found for a median.
    """
    rhythm = ecg.rhythm
    if rhythm.rate_hz < LEAST_RATE_HZ:
        raise EcgError(
            f"{rhythm.rate_hz:g} samples a second are too few to see a QRS complex: "
            f"{LEAST_RATE_HZ:g} are wanted; send the recording as the cart took it"
        )
    if spec.signal is Signal.MEDIAN and ecg.median is not None:
        cart = ecg.median
        if cart.duration_s >= LEAST_BEAT_S and cart.rate_hz >= LEAST_RATE_HZ:
            return cart
    if rhythm.duration_s < LEAST_RHYTHM_S:
        raise EcgError(
            f"the recording lasts {rhythm.duration_s:.1f} s, and {LEAST_RHYTHM_S:g} s are wanted; "
            "record ten seconds"
        )
    return rhythm if spec.signal is Signal.RHYTHM else median_beat(rhythm)


class WaveformReader:
    """A pack of kind ``waveform`` and its network as a function.

    Raises
    ------
    PackError
        If the pack is of another kind, or was made for another way into the network.
    """

    def __init__(self, pack: Pack) -> None:
        manifest = pack.manifest
        if manifest.kind is not PackKind.WAVEFORM:
            raise PackError(
                f"pack {pack.folder}: kind is {manifest.kind.value!r}, and {type(self).__name__} "
                f"reads {PackKind.WAVEFORM.value!r}"
            )
        if manifest.preprocessing != VERSION:
            raise PackError(
                f"pack {pack.folder}: made for preprocessing version {manifest.preprocessing}, "
                f"and this echonode has version {VERSION}; use the matching release of the pack"
            )
        self.pack = pack

    @property
    def spec(self) -> WaveformInput:
        """What the network sees."""
        return self.pack.manifest.waveform

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the manifest's order; see :attr:`heads`."""
        return tuple(output.name for output in self.pack.manifest.outputs)

    @property
    def heads(self) -> tuple[int, ...]:
        """The place on the network's last axis that each output comes from."""
        return tuple(
            place if output.head is None else output.head
            for place, output in enumerate(self.pack.manifest.outputs)
        )

    def strip(self, ecg: Ecg) -> Strip:
        """What the network sees of this recording; see :func:`strip_for`."""
        return strip_for(ecg, self.spec)

    def inputs(self, ecg: Ecg) -> NDArray[np.float32]:
        """The network's input: (1, samples, leads), mV.

        Raises
        ------
        EcgError
            If the recording is too short or too coarse, or leads are missing.
        """
        return to_input(self.strip(ecg), self.spec)[None]

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network on (n, samples, leads): (n, numbers), in batches of at most eight."""
        run = self._compiled
        parts = [run(inputs[begin : begin + _BATCH]) for begin in range(0, len(inputs), _BATCH)]
        return np.concatenate(parts)

    def read(self, ecg: Ecg) -> Reading:
        """What the pack says of a recording.

        Nothing is said of a recording that cannot be used; where there is doubt about the limb
        leads or V5, what rests on these alone is left unsaid. All reasons stand in the refusals.
        """
        if ecg.unusable:
            return self._nothing(ecg.unusable)
        try:
            seen = self.strip(ecg)
            numbers = self.run(to_input(seen, self.spec)[None])[0].astype(np.float64)
        except EcgError as error:
            return self._nothing(str(error))
        unsaid = _unsaid(ecg, seen, self.spec, self.output_names)
        said: list[Finding | Refusal] = []
        for output, head in zip(self.pack.manifest.outputs, self.heads, strict=True):
            if output.name in unsaid:
                said.append(self._refuse(output, unsaid[output.name]))
            else:
                value = _value(float(numbers[head]), output)
                said.append(speak_of(self.pack, output, value, Method.REGRESSION))
        findings, refusals = by_kind(said)
        return Reading(findings=findings, refusals=refusals)

    def _refuse(self, output: OutputSpec, reason: str) -> Refusal:
        return Refusal(output=output.name, reason=reason, pack=self.pack.ref)

    def _nothing(self, reason: str) -> Reading:
        refused = tuple(self._refuse(output, reason) for output in self.pack.manifest.outputs)
        return Reading(findings=(), refusals=refused)

    @cached_property
    def _compiled(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        import tensorflow as tf

        shape = (None, self.spec.samples, len(self.spec.leads))
        run = compiled(self.pack.prepared, "forward", lambda: self.pack.settled, shape)
        return lambda batch: np.asarray(run(tf.constant(batch)).numpy(), np.float32)


def _value(number: float, output: OutputSpec) -> float:
    scaled = number * output.scale + output.offset
    if output.kind is Kind.SCORE:
        return float(special.expit(scaled))
    return float(np.exp(np.clip(scaled, -50.0, 50.0))) if output.link is Link.LOG else scaled


def _unsaid(ecg: Ecg, seen: Strip, spec: WaveformInput, outputs: Sequence[str]) -> dict[str, str]:
    """Why some outputs are not given for this recording, though others are."""
    reasons: dict[str, str] = {}
    if "pr_interval" in outputs:
        reason = _no_pr(ecg, seen)
        reasons |= {} if reason is None else {"pr_interval": reason}
    for trouble in ecg.troubles:
        if "V5" in trouble.leads or trouble.doubt is Doubt.SCALE:
            what = "lead V5" if "V5" in trouble.leads else "scale"
            reasons |= dict.fromkeys(_BY_V5, f"the {what} cannot be trusted: {trouble.words}")
        if "V1" in trouble.leads:
            reasons |= dict.fromkeys(_BY_V1, f"lead V1 cannot be trusted: {trouble.words}")
        if trouble.doubt in _SWAPPED:
            words = f"the limb leads cannot be trusted: {trouble.words}"
            reasons |= {name: words for name in outputs if name != "heart_rate"}
    flat = _flat(ecg, spec)
    if len(flat) > MOST_FLAT:
        words = (
            f"leads {', '.join(flat)} show nothing, and training never saw more than one so; "
            "check the electrodes and record again"
        )
        reasons |= dict.fromkeys(outputs, words)
    return reasons


def _flat(ecg: Ecg, spec: WaveformInput) -> tuple[str, ...]:
    """The leads without a signal, of those that the network sees."""
    flat = {
        lead for trouble in ecg.troubles if trouble.doubt is Doubt.FLAT for lead in trouble.leads
    }
    return tuple(lead for lead in spec.leads if lead in flat)


def _no_pr(ecg: Ecg, seen: Strip) -> str | None:
    """Why there is no PR interval: a network gives a number for whatever it is shown."""
    try:
        if ecg.rhythm.duration_s >= LEAST_RHYTHM_S:
            waves = delineate(ecg.rhythm, r_peaks(ecg.rhythm))
        else:
            waves = delineate(seen)
    except EcgError as error:
        return str(error)
    with_p = sum(beat.p is not None for beat in waves)
    if with_p >= _LEAST_SHARE * len(waves):
        return None
    return f"no P wave was found before {len(waves) - with_p} of {len(waves)} QRS complexes"
