"""Relevance over many recordings: the three summaries of Bender et al. 2024.

IEEE J. Biomedical and Health Informatics 28(4):1848, arXiv:2211.01738. One recording's relevance is
a picture; that of a set tells what a network has learned. For each output:

1. the mean relevance of a recording against the score that it got, by what is true of it,
2. the mean relevance of each lead,
3. the average beat, aligned at R, with its relevance.

:mod:`models.ecg.explain.claims` holds what the paper found against what is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from models.data.ecgs import EcgCase, EcgDataset
from models.ecg.beats import Waves, delineate, r_peaks
from models.ecg.explain.gradients import integrated
from models.ecg.explain.methods import EcgMethod, relevance
from models.ecg.inputs import input_span, to_input
from models.ecg.reader import WaveformReader
from models.ecg.recording import LEADS, Ecg, EcgError, Strip
from models.explain.quality import Measured, over_clips
from models.explain.target import ExplainError
from models.finding import Evidence, Kind
from models.packs import OutputSpec, Signal
from models.tasks import TASKS

BEFORE_S, AFTER_S = 0.4, 0.8
"""Of the average beat, around R."""

MOST = 200
"""Recordings that are asked, unless told otherwise."""

_AT_ONCE = 10  # recordings in memory with all their maps
_DRAWS = 1000

OnRecord = Callable[[int, int], None]


class Outcome(StrEnum):
    """What a score was, against what is true."""

    TRUE_POSITIVE = "true positives"
    FALSE_POSITIVE = "false positives"
    FALSE_NEGATIVE = "false negatives"
    TRUE_NEGATIVE = "true negatives"
    UNKNOWN = "truth not known"


RIGHT = (Outcome.TRUE_POSITIVE, Outcome.TRUE_NEGATIVE)
WRONG = (Outcome.FALSE_POSITIVE, Outcome.FALSE_NEGATIVE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One output's relevance over one recording.

    ``mean`` is over all samples and leads of the signal without its padding, ``by_lead`` (leads,)
    over its samples. ``beat`` and ``beat_relevance`` are (leads, samples) around R, None where no
    beat was found. ``in_p`` is the mean relevance in P waves, and ``in_t`` (leads,) in T waves;
    ``concordant`` (leads,) says where T points as the QRS complex does. NaN, or None, where there
    are no such waves.
    """

    name: str
    score: float
    outcome: Outcome
    mean: float
    by_lead: NDArray[np.float64] = field(repr=False)
    beat: NDArray[np.float64] | None = field(repr=False, default=None)
    beat_relevance: NDArray[np.float64] | None = field(repr=False, default=None)
    in_p: float = float("nan")
    in_t: NDArray[np.float64] | None = field(repr=False, default=None)
    concordant: NDArray[np.bool_] | None = field(repr=False, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """Of mean relevance and score: by ranks, with an interval by drawing recordings."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "not measured"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputSummary:
    """All recordings of one output. ``unit`` says what relevance is in."""

    output: str
    kind: Kind
    threshold: float
    unit: str
    records: tuple[Recorded, ...] = field(repr=False)

    def of(self, *outcomes: Outcome) -> tuple[Recorded, ...]:
        """Those with such an outcome."""
        return tuple(one for one in self.records if one.outcome in outcomes)

    @property
    def groups(self) -> Mapping[str, tuple[Recorded, ...]]:
        """What is told apart: outcomes of a score; of a measurement all recordings."""
        if self.kind is not Kind.SCORE:
            return {"all recordings": self.records}
        return {outcome.value: self.of(outcome) for outcome in Outcome if self.of(outcome)}

    @property
    def correlation(self) -> Correlation:
        """Of mean relevance with the score."""
        return _correlation(
            np.array([one.score for one in self.records]),
            np.array([one.mean for one in self.records]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Summaries:
    """What relevance of a pack says over a data set. ``leads`` are those that the network sees."""

    pack: str
    version: str
    weights_sha256: str
    dataset: str
    title: str
    evidence: Evidence
    split: str
    method: EcgMethod
    leads: tuple[str, ...]
    rate_hz: float
    outputs: tuple[OutputSummary, ...]
    citation: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()


def summarise(
    reader: WaveformReader,
    dataset: EcgDataset,
    method: EcgMethod,
    *,
    split: str = "valid",
    outputs: Sequence[str] = (),
    most: int = MOST,
    on_record: OnRecord | None = None,
) -> Summaries:
    """Find the relevance of every recording and sum it up.

    Parameters
    ----------
    method
        An additive one: only parts of a number have a mean that means something.
    outputs
        Which; without them the scores, of a pack that gives none all.
    most
        The first so many recordings of the split that can be read.

    Raises
    ------
    ExplainError
        If the method is none that sums up, there is no such output, or no recording can be read.
    """
    if not method.additive:
        raise ExplainError(
            f"{method.value} gives no parts that add up to a number; take "
            f"{EcgMethod.INTEGRATED_GRADIENTS.value} or {EcgMethod.LRP.value}"
        )
    chosen = _chosen(reader, outputs)
    found: dict[str, list[Recorded]] = {output.name: [] for output, _ in chosen}
    notes: list[str] = []
    cases = dataset.cases(split)
    done = 0
    for some in _readable(cases, reader, most, notes):
        for output, records in _of_some(reader, some, chosen, method):
            found[output].extend(records)
        done += len(some)
        if on_record is not None:
            on_record(done, min(most, len(cases)))
    if not done:
        raise ExplainError(
            f"no recording of {dataset.name}, split {split}, can be read by pack "
            f"{reader.pack.manifest.name}"
        )
    manifest = reader.pack.manifest
    return Summaries(
        pack=manifest.name,
        version=manifest.version,
        weights_sha256=manifest.weights_sha256,
        dataset=dataset.name,
        title=dataset.title,
        evidence=dataset.evidence,
        split=split,
        method=method,
        leads=reader.spec.leads,
        rate_hz=reader.spec.rate_hz,
        outputs=tuple(
            OutputSummary(
                output=output.name,
                kind=output.kind,
                threshold=_threshold(output),
                unit="log odds" if output.kind is Kind.SCORE else output.unit,
                records=tuple(found[output.name]),
            )
            for output, _ in chosen
        ),
        citation=dataset.citation,
        licence=dataset.licence,
        notes=tuple(notes),
    )


def mean_by_lead(records: Sequence[Recorded]) -> tuple[Measured, ...]:
    """(leads,): the mean over recordings of each lead's mean relevance."""
    if not records:
        return ()
    table = np.stack([one.by_lead for one in records])
    return tuple(over_clips(column.tolist()) for column in table.T)


def average_beat(
    records: Sequence[Recorded],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The mean beat and its mean relevance, (leads, samples) each; None where there is no beat."""
    beats = [one.beat for one in records if one.beat is not None]
    maps = [one.beat_relevance for one in records if one.beat_relevance is not None]
    if not beats:
        return None
    return np.mean(beats, axis=0), np.mean(maps, axis=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """A recording that can be read: its strip, what the network sees, where its waves are."""

    name: str
    truths: Mapping[str, float]
    strip: Strip
    signal: NDArray[np.float32]
    peaks: NDArray[np.int64]
    waves: Sequence[Waves]


def _chosen(reader: WaveformReader, names: Sequence[str]) -> list[tuple[OutputSpec, int]]:
    pairs = list(zip(reader.pack.manifest.outputs, reader.heads, strict=True))
    missing = [name for name in names if name not in reader.output_names]
    if missing:
        raise ExplainError(
            f"pack {reader.pack.manifest.name} has no output {missing[0]!r}; it has "
            f"{', '.join(reader.output_names)}"
        )
    if names:
        return [pair for pair in pairs if pair[0].name in names]
    scores = [
        pair for pair in pairs if pair[0].kind is Kind.SCORE and not TASKS[pair[0].name].demographic
    ]
    return scores or pairs


def _threshold(output: OutputSpec) -> float:
    return 0.5 if output.threshold is None else output.threshold


def _readable(
    cases: Sequence[EcgCase], reader: WaveformReader, most: int, notes: list[str]
) -> Iterator[list[_Asked]]:
    """Recordings that can be read, some at a time; why others cannot goes into the notes."""
    some: list[_Asked] = []
    count = 0
    for case in cases:
        if count == most:
            break
        try:
            some.append(_asked(case, reader))
        except EcgError as error:
            notes.append(f"{case.name} was left out: {error}")
            continue
        count += 1
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _asked(case: EcgCase, reader: WaveformReader) -> _Asked:
    ecg: Ecg = case.ecg()
    if ecg.unusable:
        raise EcgError(ecg.unusable)
    strip = reader.strip(ecg)
    of_rhythm = strip is ecg.rhythm
    peaks = r_peaks(strip)
    waves: Sequence[Waves] = ()
    if of_rhythm and case.waves is not None:
        waves = case.waves
    elif len(peaks):
        waves = delineate(strip, peaks)
    return _Asked(
        name=case.name,
        truths=case.truths,
        strip=strip,
        signal=to_input(strip, reader.spec),
        peaks=peaks,
        waves=waves,
    )


def _of_some(
    reader: WaveformReader,
    some: Sequence[_Asked],
    chosen: Sequence[tuple[OutputSpec, int]],
    method: EcgMethod,
) -> Iterator[tuple[str, list[Recorded]]]:
    signals = np.stack([one.signal for one in some])
    numbers = np.asarray(reader.run(signals), np.float64)
    heads = tuple(head for _, head in chosen)
    network = reader.pack.network
    if method is EcgMethod.INTEGRATED_GRADIENTS:
        maps = integrated(network, signals, heads).maps  # all outputs share the forward passes
    else:
        maps = np.stack([relevance(network, signals, head, method) for head in heads])
    for (output, head), of_output in zip(chosen, maps, strict=True):
        raw = numbers[:, head] * output.scale + output.offset
        yield (
            output.name,
            [
                _recorded(one, of_one * output.scale, float(number), output, reader)
                for one, of_one, number in zip(some, of_output, raw, strict=True)
            ],
        )


def _recorded(
    asked: _Asked,
    relevance_: NDArray[np.float32],
    number: float,
    output: OutputSpec,
    reader: WaveformReader,
) -> Recorded:
    parts = np.asarray(relevance_, np.float64).T  # (leads, samples)
    there = asked.signal.any(axis=-1)
    by_lead = parts[:, there].mean(axis=1) if there.any() else np.zeros(len(parts))
    score = float(special.expit(number)) if output.kind is Kind.SCORE else number
    beat = _beat(asked, parts, reader)
    p, t = _in_waves(asked, parts, reader)
    return Recorded(
        name=asked.name,
        score=score,
        outcome=_outcome(score, asked.truths.get(output.name), output),
        mean=float(by_lead.mean()),
        by_lead=by_lead,
        beat=None if beat is None else beat[0],
        beat_relevance=None if beat is None else beat[1],
        in_p=float(p.mean()) if p is not None else float("nan"),
        in_t=t,
        concordant=None if t is None else _concordant(asked, reader),
    )


def _outcome(score: float, truth: float | None, output: OutputSpec) -> Outcome:
    if truth is None or output.kind is not Kind.SCORE:
        return Outcome.UNKNOWN
    said = score >= _threshold(output)
    if truth >= 0.5:
        return Outcome.TRUE_POSITIVE if said else Outcome.FALSE_NEGATIVE
    return Outcome.FALSE_POSITIVE if said else Outcome.TRUE_NEGATIVE


def _places(
    samples: NDArray[np.integer] | Sequence[int], strip: Strip, reader: WaveformReader
) -> NDArray[np.int64]:
    """Samples of a strip as samples of the network's input; they may lie outside it."""
    begin_ms, end_ms = input_span(strip, reader.spec)
    sample_ms = (end_ms - begin_ms) / reader.spec.samples
    times = np.asarray(samples, np.float64) * 1000.0 / strip.rate_hz
    return np.rint((times - begin_ms) / sample_ms).astype(np.int64)


def _beat(
    asked: _Asked, parts: NDArray[np.float64], reader: WaveformReader
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The mean of all beats that lie whole within the input, and of their relevance.

    Of a median beat it is the beat itself.
    """
    signal = asked.signal.T.astype(np.float64)
    if reader.spec.signal is Signal.MEDIAN:
        return signal, parts
    before, after = (round(each * reader.spec.rate_hz) for each in (BEFORE_S, AFTER_S))
    begins = _places(asked.peaks, asked.strip, reader) - before
    whole = begins[(begins >= 0) & (begins + before + after <= signal.shape[1])]
    if not len(whole):
        return None
    windows = whole[:, np.newaxis] + np.arange(before + after)
    beats, maps = (each[:, windows].mean(axis=1) for each in (signal, parts))
    # Wander is no part of a beat: its level before P is taken for zero.
    level = np.median(beats[:, : max(1, before // 4)], axis=1, keepdims=True)
    return beats - level, maps


def _in_waves(
    asked: _Asked, parts: NDArray[np.float64], reader: WaveformReader
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """(leads,) mean relevance in P waves and in T waves; None where there are none."""
    means = []
    for windows in (
        [beat.p for beat in asked.waves if beat.p is not None],
        [beat.t for beat in asked.waves if beat.t is not None],
    ):
        inside = _inside(windows, asked, reader)
        means.append(parts[:, inside].mean(axis=1) if inside.any() else None)
    return means[0], means[1]


def _inside(
    windows: Sequence[tuple[int, int]], asked: _Asked, reader: WaveformReader
) -> NDArray[np.bool_]:
    """(samples,) of the network's input that lie in one of these windows of the strip."""
    inside = np.zeros(reader.spec.samples, np.bool_)
    for begin, end in np.clip(
        _places(np.asarray(windows).reshape(-1, 2), asked.strip, reader), 0, len(inside)
    ):
        inside[begin:end] = True
    return inside


def _concordant(asked: _Asked, reader: WaveformReader) -> NDArray[np.bool_]:
    """(leads,): whether T points as the QRS complex does, by their areas, in most beats."""
    votes = np.zeros(len(reader.spec.leads))
    rows = [LEADS.index(name) for name in reader.spec.leads]
    for beat in asked.waves:
        if beat.t is None:
            continue
        level = asked.strip.millivolts[rows, max(beat.qrs[0] - 1, 0)][:, np.newaxis]
        qrs, t = (
            (asked.strip.millivolts[rows, begin:end] - level).sum(axis=1)
            for begin, end in (beat.qrs, beat.t)
        )
        votes += np.nan_to_num(np.sign(qrs * t))
    return np.asarray(votes > 0)


def _correlation(ones: NDArray[np.float64], others: NDArray[np.float64]) -> Correlation:
    nothing = float("nan")
    if len(ones) < 3 or np.ptp(ones) == 0 or np.ptp(others) == 0:
        return Correlation(value=nothing, low=nothing, high=nothing, n=len(ones))
    rng = np.random.default_rng(1)
    ranks = [stats.rankdata(each) for each in (ones, others)]
    drawn = []
    for _ in range(_DRAWS):
        places = rng.integers(0, len(ones), len(ones))
        one, two = (each[places] for each in ranks)
        if np.ptp(one) and np.ptp(two):
            drawn.append(np.corrcoef(one, two)[0, 1])
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Correlation(
        value=float(np.corrcoef(*ranks)[0, 1]), low=float(low), high=float(high), n=len(ones)
    )
