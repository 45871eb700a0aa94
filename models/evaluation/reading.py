"""A pack reads the recordings of a data set: its answers, one by one, beside what is known.

They go the way that a hospital's go: clips through :class:`models.clip.Clip` and the reader of the
pack's kind, ECGs through :class:`models.ecg.reader.WaveformReader`. What cannot be read is an
answer too, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip, ClipError
from models.data.dataset import Case, Known
from models.data.ecgs import EcgCase
from models.ecg.reader import WaveformReader
from models.ecg.recording import EcgError
from models.evaluation.overlap import FrameOverlap, overlap
from models.finding import Finding, Refusal
from models.packs import Join, Pack, PackError, PackKind
from models.readers import RegressionReader, TracingReader, TracingReading
from models.readers.regression import joined
from models.views import View, ViewCall, ViewReader


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A value for a clip, with its interval where the pack gives one (else NaN)."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a pack said of one case.

    ``by_frames`` holds, for each output of a regression and for volumes and fraction of a tracing,
    the clip's value from the first 1, 2, … frames (k,), and from so many frames drawn at random
    (draws, k). ``chances`` is (frames,
    classes) for a view pack. ``problem`` says why a clip could not be read at all.
    """

    case: Known
    said: Mapping[str, Said] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    by_frames: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict
    )
    traced: tuple[FrameOverlap, ...] = ()
    call: ViewCall | None = None
    chances: NDArray[np.float64] | None = None
    problem: str = ""


Reads = Callable[[Case, Clip], Answer]
ReadsKnown = Callable[[Known], Answer]

RANDOM_DRAWS = 10
"""Choices of k frames at random, of each clip."""

_APART_MS, _MOST_FRAMES = 100.0, 20


def read_cases(
    pack: Pack,
    cases: Sequence[Known],
    *,
    on_case: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[Answer, ...]:
    """Read every case, in order. Imports TensorFlow.

    ``on_case`` is told how many are done, of how many.

    Raises
    ------
    models.packs.PackError
        If no reader can run the pack, or the cases are not of its kind.
    """
    read = reads(pack)
    answers = []
    for number, case in enumerate(cases, start=1):
        answers.append(read(case))
        on_case(number, len(cases))
    return tuple(answers)


def reads(pack: Pack) -> ReadsKnown:
    """How a case is read with this pack."""
    match pack.manifest.kind:
        case PackKind.VIEW:
            return _of_clips(pack, _reads_views(ViewReader(pack)))
        case PackKind.TRACING:
            return _of_clips(pack, _reads_tracings(TracingReader(pack)))
        case PackKind.REGRESSION:
            return _of_clips(pack, _reads_numbers(RegressionReader(pack)))
        case PackKind.WAVEFORM:
            return _reads_ecgs(WaveformReader(pack))


def view_of(case: Known) -> View | None:
    """The view of a clip, where it is known; an ECG has none."""
    return case.view if isinstance(case, Case) else None


def _of_clips(pack: Pack, read: Reads) -> ReadsKnown:
    def answer(case: Known) -> Answer:
        if not isinstance(case, Case):
            raise PackError(f"pack {pack.folder}: it reads clips, and {case.name} is none")
        try:
            return read(case, case.clip())
        except ClipError as error:
            return Answer(case=case, problem=str(error))

    return answer


def _reads_ecgs(reader: WaveformReader) -> ReadsKnown:
    def answer(case: Known) -> Answer:
        if not isinstance(case, EcgCase):
            raise PackError(f"pack {reader.pack.folder}: it reads ECGs, and {case.name} is none")
        try:
            reading = reader.read(case.ecg())
        except EcgError as error:
            return Answer(case=case, problem=str(error))
        return Answer(case=case, said=_said(reading.findings), refused=_refused(reading.refusals))

    return answer


def _reads_tracings(reader: TracingReader) -> Reads:
    def read(case: Case, clip: Clip) -> Answer:
        reading = reader.read(clip)
        traced: tuple[FrameOverlap, ...] = ()
        if case.tracings is not None:
            spacing = clip.spacing
            size = (spacing.row_mm, spacing.column_mm) if spacing.trusted else (None, None)
            masks = dict(zip(reading.frame_indices, reading.masks, strict=True))
            traced = tuple(
                overlap(
                    _as_traced(masks[index], labels, clip),
                    labels,
                    size,
                    reader.pack.manifest.classes,
                )
                for index, labels in sorted(case.tracings().items())
                if index in masks
            )
        return Answer(
            case=case,
            said=_said(reading.findings),
            refused=_refused(reading.refusals),
            by_frames=traced_by_frames(reading, clip),
            traced=traced,
        )

    return read


def traced_by_frames(
    reading: TracingReading, clip: Clip
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The ventricle from so few of the traced frames: their largest and smallest volume.

    Frames are taken as :class:`models.readers.RegressionReader` takes them, 100 ms apart from the
    first on, so that both kinds of pack stand beside each other.
    """
    curve = reading.volumes
    if curve is None:
        return {}
    there = {index: place for place, index in enumerate(reading.frame_indices)}
    places = [there[i] for i in clip.time_axis.sample(_APART_MS, _MOST_FRAMES) if i in there]
    volumes = np.asarray(curve, np.float64)[list(dict.fromkeys(places))]
    rng = np.random.default_rng(0)
    mixed = [volumes, *(rng.permutation(volumes) for _ in range(RANDOM_DRAWS))]
    largest, smallest = (
        np.array([run.accumulate(each) for each in mixed]) for run in (np.maximum, np.minimum)
    )
    each = {"ef": 100.0 * (1.0 - smallest / np.maximum(largest, 1e-9))}
    if reading.volumes_ml is not None:
        each |= {"edv": largest, "esv": smallest}
    said = {finding.output for finding in reading.findings}
    return {name: (values[0], values[1:]) for name, values in each.items() if name in said}


def _as_traced(mask: NDArray[np.uint8], labels: NDArray[np.uint8], clip: Clip) -> NDArray[np.uint8]:
    """The pack's mask where the expert traced: in the sector, or in the whole picture."""
    if mask.shape == labels.shape or labels.shape != (clip.rows, clip.columns):
        return mask
    whole = np.zeros_like(labels)
    sector = clip.sector
    whole[sector.top : sector.bottom, sector.left : sector.right] = mask
    return whole


def _reads_numbers(reader: RegressionReader) -> Reads:
    joins = {output.name: output.join for output in reader.pack.manifest.outputs}

    def read(case: Case, clip: Clip) -> Answer:
        reading = reader.read(clip)
        by_frames = {
            name: _by_frames(_once_each(reading.per_frame[name], reading.frames), joins[name])
            for name in _said(reading.findings)
        }
        return Answer(
            case=case,
            said=_said(reading.findings),
            refused=_refused(reading.refusals),
            by_frames=by_frames,
        )

    return read


def _reads_views(reader: ViewReader) -> Reads:
    def read(case: Case, clip: Clip) -> Answer:
        call = reader.read(clip)
        chances = reader.frame_chances(clip) if clip.sector.mask.any() else None
        return Answer(case=case, call=call, chances=chances)

    return read


def _once_each(values: NDArray[np.float64], frames: Sequence[int]) -> NDArray[np.float64]:
    """The values of distinct frames, in order.

    A clip shorter than the sampled time gives the same frame several times. A network that sees
    several frames at once has a value for each such window, and they are all kept.
    """
    if len(values) != len(frames):
        return values
    return values[np.sort(np.unique(frames, return_index=True)[1])]


def _by_frames(
    values: NDArray[np.float64], join: Join
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The clip's value from the first 1, 2, … frames, and from so many at random."""
    rng = np.random.default_rng(0)
    orders = [np.arange(len(values)), *(rng.permutation(len(values)) for _ in range(RANDOM_DRAWS))]
    each = np.array(
        [[joined(values[order[: k + 1]], join)[0] for k in range(len(values))] for order in orders]
    )
    return each[0], each[1:]


def view_classes(pack: Pack) -> tuple[View, ...]:
    """The classes of a view pack."""
    return tuple(View(name) for name in pack.manifest.classes)


def _said(findings: Sequence[Finding]) -> dict[str, Said]:
    nan = float("nan")
    return {
        finding.output: Said(
            value=finding.value,
            low=nan if finding.low is None else finding.low,
            high=nan if finding.high is None else finding.high,
        )
        for finding in findings
        if finding.value is not None
    }


def _refused(refusals: Sequence[Refusal]) -> dict[str, str]:
    return {refusal.output: refusal.reason for refusal in refusals}
