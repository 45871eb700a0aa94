"""The checks of a waveform pack's explanations, and the page that they fill.

Of each data set some recordings are asked; wave blocking, which takes four forward passes a
recording, asks more of them than what takes gradients. The page, its figures as JSON and a picture
of a simulated recording go into the pack's folder; no patient's recording is copied out of its
data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import special

from models.data.ecgs import EcgCase, EcgDataset
from models.ecg.beats import Waves, delineate
from models.ecg.explain import quality
from models.ecg.explain.explained import explain_ecg
from models.ecg.explain.gradients import integrated
from models.ecg.explain.lrp import ledger
from models.ecg.explain.methods import EcgMethod, relevance
from models.ecg.explain.paper import EcgShown, draw_ecg
from models.ecg.explain.waves import NEEDS, Need, Wave, without
from models.ecg.inputs import to_input
from models.ecg.reader import WaveformReader
from models.ecg.recording import Ecg, EcgError, Strip
from models.explain.integrated_gradients import TOLERANCE
from models.explain.quality import Measured, over_clips, shuffled
from models.explain.summary import FIGURES, PAGE
from models.explain.target import ExplainError
from models.finding import Evidence, Kind
from models.packs import Link, OutputSpec, Pack

RECORDS, BLOCKED, FEW = 12, 60, 4
"""Recordings whose maps are asked, whose waves are blocked, and that are asked what is costly."""

METHODS = (EcgMethod.INTEGRATED_GRADIENTS, EcgMethod.LRP, EcgMethod.GRAD_CAM)
STAGES = (0.25, 0.5, 0.75, 1.0)

MOVES = 0.5
"""An output has moved when it did by half of its held error: half the width of its interval."""

MOVES_SCORE = 0.1
"""Of scores: by a tenth."""

_PICTURE = "explanations.png"
_BLIND = 2  # orders of places that know nothing of the network
_PRESENT = 0.5  # of a truth or score
_LEAST_PRESENT = 3  # recordings with a finding, for a score that stays to say something


_Maps = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class MapChecks:
    """One output by one method.

    ``by_random`` and ``by_signal`` are of maps that know nothing of the network: smooth noise, and
    the signal's own height. ``randomised`` has, for each share of layers, the rank correlation of
    strengths and that of the maps with their signs. ``empty`` is the share of recordings whose map
    is zero everywhere: they count nowhere else.
    """

    output: str
    method: EcgMethod
    insertion: Measured
    deletion: Measured
    insertion_by_random: Measured
    deletion_by_random: Measured
    insertion_by_signal: Measured
    deletion_by_signal: Measured
    randomised: tuple[tuple[float, Measured, Measured], ...]
    noise: Measured
    shift: Measured
    empty: Measured


@dataclass(frozen=True, kw_only=True)
class SumChecks:
    """Whether parts add up, of one output: integrated gradients to the difference that they
    explain, LRP to the number. Shares are of all that LRP gives out, signs left aside."""

    output: str
    gap: Measured
    complete: Measured
    steps: Measured
    unaccounted: Measured
    by_biases: Measured
    by_epsilon: Measured


@dataclass(frozen=True, kw_only=True)
class WaveCheck:
    """What an output does without a wave.

    ``moved`` is in units of the held error; of scores by how much the score moves, the larger one
    of recordings with and without the finding. ``as_expected`` is None where nothing is expected,
    or nothing can be said: a score that stays, where too few recordings have the finding.
    """

    output: str
    wave: Wave
    need: Need
    moved: Measured
    limit: float
    as_expected: bool | None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """All checks on one data set."""

    name: str
    title: str
    evidence: Evidence
    split: str
    records: int
    blocked: int
    maps: tuple[MapChecks, ...]
    sums: tuple[SumChecks, ...]
    waves: tuple[WaveCheck, ...]
    citation: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WaveformReport:
    """All checks of a pack's explanations, on each data set."""

    pack: str
    version: str
    weights_sha256: str
    few: int
    stages: tuple[float, ...]
    seed: int
    on: tuple[Checked, ...]
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """Figures alone; what was not measured is null."""
        fields = {name: value for name, value in vars(self).items() if name != "picture"}
        return {"kind": "waveform", **{name: _plain(value) for name, value in fields.items()}}

    def as_markdown(self) -> str:
        """For a reader."""
        from models.ecg.explain.battery_page import page

        return "\n".join(page(self))


def check_waveform_pack(
    pack: Pack,
    datasets: Sequence[EcgDataset],
    *,
    methods: Sequence[EcgMethod] = METHODS,
    split: str = "valid",
    records: int = RECORDS,
    blocked: int = BLOCKED,
    few: int = FEW,
    seed: int = 1,
) -> WaveformReport:
    """Run the checks.

    Parameters
    ----------
    datasets
        Of each the first cases of ``split`` that can be read are asked.
    records, blocked, few
        See :data:`RECORDS`.

    Raises
    ------
    ExplainError
        If the pack's network cannot be explained, or no recording can be read.
    """
    reader = WaveformReader(pack)
    on: list[Checked] = []
    picture = None
    for dataset in datasets:
        checks = _Checks(reader, dataset, split, max(records, blocked), seed)
        on.append(checks.run(methods, records=records, blocked=blocked, few=few))
        if dataset.evidence is Evidence.SIMULATED and picture is None:
            picture = checks.picture(methods[0])
    return WaveformReport(
        pack=pack.manifest.name,
        version=pack.manifest.version,
        weights_sha256=pack.manifest.weights_sha256,
        few=few,
        stages=STAGES,
        seed=seed,
        on=tuple(on),
        picture=picture,
    )


def write_report(report: WaveformReport, folder: Path) -> tuple[Path, ...]:
    """Write the page, the figures and, of a simulated recording, a picture; returns the files."""
    page, figures, picture = (folder / name for name in (PAGE, FIGURES, _PICTURE))
    words = report.as_markdown()
    written = [page, figures]
    if report.picture is not None:
        Image.fromarray(report.picture).save(picture, "PNG", optimize=True)
        words += f"\n![A simulated recording]({_PICTURE})\n"
        written.append(picture)
    page.write_text(words)
    figures.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return tuple(written)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """A recording as the network sees it: ``signal`` (samples, leads), and its strip's waves."""

    ecg: Ecg
    strip: Strip
    signal: NDArray[np.float32]
    waves: Sequence[Waves]
    truths: Mapping[str, float]

    @classmethod
    def of(cls, case: EcgCase, reader: WaveformReader) -> _Asked:
        """Read a case; raises :class:`EcgError` where there is nothing to ask."""
        ecg = case.ecg()
        if ecg.unusable:
            raise EcgError(ecg.unusable)
        strip = reader.strip(ecg)
        waves = case.waves if strip is ecg.rhythm else None
        return cls(
            ecg=ecg,
            strip=strip,
            signal=to_input(strip, reader.spec),
            waves=delineate(strip) if waves is None else waves,
            truths=case.truths,
        )


class _Checks:
    """The checks on one data set."""

    def __init__(
        self, reader: WaveformReader, dataset: EcgDataset, split: str, count: int, seed: int
    ) -> None:
        self._reader, self._dataset, self._split, self._seed = reader, dataset, split, seed
        self._rate = reader.spec.rate_hz
        self._notes: list[str] = []
        self._asked: list[_Asked] = []
        for case in dataset.cases(split):
            if len(self._asked) == count:
                break
            try:
                self._asked.append(_Asked.of(case, reader))
            except EcgError as error:
                self._notes.append(f"{case.name} was left out: {error}")
        if not self._asked:
            raise ExplainError(
                f"pack {reader.pack.manifest.name}: no recording of {dataset.name}, split {split}, "
                "can be explained"
            )
        self._outputs = list(zip(reader.pack.manifest.outputs, reader.heads, strict=True))

    def run(self, methods: Sequence[EcgMethod], *, records: int, blocked: int, few: int) -> Checked:
        """All of them."""
        asked = self._asked[:records]
        signals = np.stack([one.signal for one in asked])
        found: dict[EcgMethod, _Maps] = {}
        for method in methods:
            try:
                found[method] = self._maps_of(method, signals)
            except ExplainError as error:
                self._notes.append(f"{method.value}: {error}")
        areas = self._areas(signals, found)
        maps = [
            check
            for method in found
            for check in self._map_checks(method, signals, found, areas, few)
        ]
        return Checked(
            name=self._dataset.name,
            title=self._dataset.title,
            evidence=self._dataset.evidence,
            split=self._split,
            records=len(asked),
            blocked=len(self._asked[:blocked]),
            maps=tuple(maps),
            sums=self._sum_checks(signals[:few]),
            waves=tuple(self._wave_checks(self._asked[:blocked])),
            citation=self._dataset.citation,
            licence=self._dataset.licence,
            notes=tuple(self._notes),
        )

    def picture(self, method: EcgMethod) -> NDArray[np.uint8]:
        """The recording and output that a page is drawn of: the one with the highest score."""
        best, found = self._asked[0].ecg, None
        for one in self._asked[:RECORDS]:
            for finding in self._reader.read(one.ecg).findings:
                if found is None or (finding.score or 0.0) > (found.score or 0.0):
                    best, found = one.ecg, finding
        if found is None:
            return draw_ecg(best, EcgShown())
        (explained,) = explain_ecg(self._reader, best, (found,), method)
        return draw_ecg(
            best,
            EcgShown(
                findings=self._reader.read(best).findings,
                cautions=("A simulated recording: nobody's heart.",),
                relevance=explained.relevance,
                relevance_of=explained.finding,
                method=method.words,
                unit=explained.unit,
                beat=explained.strip if explained.beat else None,
            ),
        )

    def _maps_of(self, method: EcgMethod, signals: NDArray[np.float32]) -> _Maps:
        """Of every output, by its place on the network's last axis."""
        network = self._reader.pack.network
        heads = tuple(head for _, head in self._outputs)
        if method is EcgMethod.INTEGRATED_GRADIENTS:
            # All outputs share the way's forward passes.
            return dict(zip(heads, integrated(network, signals, heads).maps, strict=True))
        return {head: relevance(network, signals, head, method) for head in heads}

    def _areas(
        self, signals: NDArray[np.float32], found: Mapping[EcgMethod, _Maps]
    ) -> NDArray[np.float64]:
        """(recordings, orders, 2, numbers): by chance, by height, by each method and output."""
        areas = []
        for number, signal in enumerate(signals):
            orders = [quality.random_map(signal.shape, self._rate, self._seed + number), signal]
            orders += [maps[head][number] for maps in found.values() for _, head in self._outputs]
            areas.append(quality.insertion_deletion(self._reader.run, signal, orders, self._rate))
        return np.stack(areas)

    def _map_checks(
        self,
        method: EcgMethod,
        signals: NDArray[np.float32],
        found: Mapping[EcgMethod, _Maps],
        areas: NDArray[np.float64],
        few: int,
    ) -> Iterator[MapChecks]:
        """Insertion, deletion, stability and randomisation, of every output."""
        some, rate = signals[:few], self._rate
        pairs = [
            quality.disturbed(one, rate, self._seed + number) for number, one in enumerate(some)
        ]
        noisy, later = (self._maps_of(method, np.stack(each)) for each in zip(*pairs, strict=True))
        stages = []
        for share in STAGES:
            with shuffled(self._reader.pack.network, share, seed=self._seed):
                stages.append(self._maps_of(method, some))
        first = _BLIND + list(found).index(method) * len(self._outputs)
        for place, (output, head) in enumerate(self._outputs):
            maps = found[method][head]
            by_chance, by_height, own = (
                areas[:, order, :, head] for order in (0, 1, first + place)
            )
            back = np.stack([quality.moved_back(one, rate) for one in later[head]])
            yield MapChecks(
                output=output.name,
                method=method,
                insertion=over_clips(own[:, 0].tolist()),
                deletion=over_clips(own[:, 1].tolist()),
                insertion_by_random=over_clips(by_chance[:, 0].tolist()),
                deletion_by_random=over_clips(by_chance[:, 1].tolist()),
                insertion_by_signal=over_clips(by_height[:, 0].tolist()),
                deletion_by_signal=over_clips(by_height[:, 1].tolist()),
                randomised=tuple(
                    (
                        share,
                        self._alike(maps, stage[head], some),
                        self._alike(maps, stage[head], some, signed=True),
                    )
                    for share, stage in zip(STAGES, stages, strict=True)
                ),
                noise=self._alike(maps, noisy[head], some),
                shift=self._alike(maps, back, some),
                empty=over_clips(float(not one.any()) for one in maps),
            )

    def _alike(
        self,
        ones: NDArray[np.float32],
        others: NDArray[np.float32],
        signals: NDArray[np.float32],
        *,
        signed: bool = False,
    ) -> Measured:
        triples = zip(ones, others, signals, strict=False)
        return over_clips(
            quality.likeness(*triple, self._rate, signed=signed) for triple in triples
        )

    def _sum_checks(self, signals: NDArray[np.float32]) -> tuple[SumChecks, ...]:
        network = self._reader.pack.network
        heads = tuple(head for _, head in self._outputs)
        found = integrated(network, signals, heads)
        checks = []
        for place, (output, head) in enumerate(self._outputs):
            gaps = found.gaps[place]
            unaccounted, biases, epsilon = self._ledger(signals, head)
            checks.append(
                SumChecks(
                    output=output.name,
                    gap=over_clips(gaps.tolist()),
                    complete=over_clips((gaps <= TOLERANCE).astype(float).tolist()),
                    steps=over_clips(found.steps.astype(float).tolist()),
                    unaccounted=unaccounted,
                    by_biases=biases,
                    by_epsilon=epsilon,
                )
            )
        return tuple(checks)

    def _ledger(
        self, signals: NDArray[np.float32], head: int
    ) -> tuple[Measured, Measured, Measured]:
        try:
            book = ledger(self._reader.pack.network, signals, head)
        except ExplainError as error:
            self._notes.append(f"{EcgMethod.LRP.value}: {error}")
            nothing = over_clips(())
            return nothing, nothing, nothing
        given = np.abs(book.signal) + np.abs(book.biases) + np.abs(book.epsilon)
        missed = np.abs(book.number - book.signal - book.biases - book.epsilon)
        given = np.maximum(given, 1e-12)
        return (
            over_clips((missed / given).tolist()),
            over_clips((np.abs(book.biases) / given).tolist()),
            over_clips((np.abs(book.epsilon) / given).tolist()),
        )

    def _wave_checks(self, asked: Sequence[_Asked]) -> list[WaveCheck]:
        """Every output without every wave."""
        spec = self._reader.spec
        whole = self._reader.run(np.stack([one.signal for one in asked]))
        checks = []
        for wave in Wave:
            blocked = self._reader.run(
                np.stack([to_input(without(one.strip, one.waves, wave), spec) for one in asked])
            )
            for output, head in self._outputs:
                before, after = (_values(each[:, head], output) for each in (whole, blocked))
                checks.append(_wave_check(output, wave, before, after, asked))
        order = [output.name for output, _ in self._outputs]
        return sorted(checks, key=lambda check: order.index(check.output))


def _wave_check(
    output: OutputSpec,
    wave: Wave,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    asked: Sequence[_Asked],
) -> WaveCheck:
    need = NEEDS.get(output.name, {}).get(wave, Need.MAYBE)
    few = False
    changes = np.abs(after - before)
    if output.kind is Kind.SCORE:
        limit = MOVES_SCORE
        truths = np.array([one.truths.get(output.name, np.nan) for one in asked])
        present = np.where(np.isnan(truths), before, truths) >= _PRESENT
        few = int(present.sum()) < _LEAST_PRESENT
        groups = [over_clips(changes[group].tolist()) for group in (present, ~present)]
        moved = max(groups, key=lambda one: one.value if one.n else -1.0)
    else:
        limit = MOVES
        # A value of what is not there, such as a PR interval in fibrillation, means nothing.
        known = np.array([not one.truths or output.name in one.truths for one in asked])
        known = known if known.any() else np.ones(len(asked), np.bool_)
        moved = over_clips((changes[known] / _held_error(output, before)).tolist())
    expected = None
    if need is not Need.MAYBE and moved.n and (moved.value >= limit or not few):
        expected = (moved.value >= limit) == (need is Need.NEEDED)
    return WaveCheck(
        output=output.name, wave=wave, need=need, moved=moved, limit=limit, as_expected=expected
    )


def _held_error(output: OutputSpec, values: NDArray[np.float64]) -> float:
    """Half the width of its interval; without one, how much the values differ among themselves."""
    if output.low_error is not None and output.high_error is not None:
        return max((output.high_error - output.low_error) / 2, 1e-9)
    return max(float(values.std()), 1e-9)


def _values(numbers: NDArray[np.floating], output: OutputSpec) -> NDArray[np.float64]:
    """Values, or scores, of the network's numbers."""
    scaled = np.asarray(numbers, np.float64) * output.scale + output.offset
    if output.kind is Kind.SCORE:
        return np.asarray(special.expit(scaled))
    return np.exp(np.clip(scaled, -50.0, 50.0)) if output.link is Link.LOG else scaled


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return _plain(asdict(value))
