"""The checks of :mod:`models.explain.quality` on a pack, and the page that they fill.

One frame of each of some twenty clips is asked, which is what a core can do in minutes; two methods
are compared. A pack is checked on one data set or several, simulated clips and patients say. The
page, its figures as JSON and a picture of examples go into the pack's folder. The picture is drawn
of simulated clips only: no patient's picture is copied out of its data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.clip import ClipError
from models.data.camus import CLASSES
from models.data.dataset import Case, Dataset
from models.explain import quality
from models.explain.integrated_gradients import TOLERANCE, integrate
from models.explain.methods import MapMethod, map_of
from models.explain.quality import LeadCheck, Mask, Measured, over_clips
from models.explain.sector import outside_shares, sector_in_network
from models.explain.summary import FIGURES, PAGE
from models.explain.target import Explained, ExplainError, explained, numbers_of
from models.finding import MOST_OUTSIDE, Evidence
from models.packs import Pack, PackKind
from models.preprocess import fit_frames, fit_grey

CLIPS, FEW = 20, 4
"""Clips that are asked; and those of them on which the costly checks run: D4, D5, D6 and the
letters of D7."""

METHODS = (MapMethod.SMOOTHGRAD, MapMethod.GRAD_CAM)
MOST_OUTPUTS = 8
STAGES = (0.25, 0.5, 0.75, 1.0)

_LEAD_CLIPS, _LEAD_FRAMES = 12, 4
_EXAMPLES = 8  # pictures, shared among the outputs
_EXAMPLES_FILE = "explanations.png"
_VENTRICLE, _HEART = ("cavity", "myocardium"), ("cavity", "myocardium", "atrium")
_WHERE: Mapping[str, tuple[str, ...]] = {
    "ef": _VENTRICLE, "edv": _VENTRICLE, "esv": _VENTRICLE, "cavity": ("cavity",),
    "lvh": ("myocardium",), "myocardium": ("myocardium",), "atrium": ("atrium",),
    "la_dilation": ("atrium",), "la_volume": ("atrium",), "la_area": ("atrium",),
}  # fmt: skip
_NO_SECTOR = (MapMethod.GRADIENT, MapMethod.GRAD_CAM)  # they need none, so clips share batches

Maps = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MapChecks:
    """D1, D2, D4, D5 and D7 of outputs that share a map, by one method. ``insertion`` and the like
    are areas; ``by_random`` and ``by_centre`` are those of maps that know nothing of the network.
    ``flagged`` is the share of clips above :data:`models.finding.MOST_OUTSIDE`."""

    outputs: tuple[str, ...]
    method: MapMethod
    insertion: Measured
    deletion: Measured
    insertion_by_random: Measured
    deletion_by_random: Measured
    insertion_by_centre: Measured
    deletion_by_centre: Measured
    pointing: Measured
    energy: Measured
    energy_by_chance: Measured
    randomised: tuple[tuple[float, Measured, Measured], ...]  #: share, rank correlation, SSIM
    noise: Measured
    shift: Measured
    outside: Measured
    outside_most: float
    flagged: Measured
    on_text: Measured


@dataclass(frozen=True, kw_only=True)
class OutputChecks:
    """D3 and D6, which are of outputs and no method of maps. ``covering_wins`` is the share of
    clips in which covering the structure moves the output more than covering elsewhere, and
    ``by_text`` by how much letters burned in outside the sector move it."""

    outputs: tuple[str, ...]
    structure: str
    by_structure: Measured
    by_elsewhere: Measured
    covering_wins: Measured
    by_text: Measured
    completeness_gap: Measured
    complete: Measured
    straight: Measured
    steps: Measured


@dataclass(frozen=True, kw_only=True)
class Checked:
    """All checks on one data set."""

    name: str
    title: str
    evidence: Evidence
    split: str
    clips: int
    maps: tuple[MapChecks, ...]
    outputs: tuple[OutputChecks, ...]
    citation: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """All checks of a pack's maps, on each data set."""

    pack: str
    version: str
    weights_sha256: str
    few: int
    stages: tuple[float, ...]
    seed: int
    most_outside: float
    on: tuple[Checked, ...]
    lead: LeadCheck | None = None
    examples: tuple[Any, ...] = field(default=(), repr=False)

    def as_json(self) -> dict[str, Any]:
        """Figures alone; what was not measured is null."""
        fields = {k: v for k, v in self.__dict__.items() if k != "examples"}
        return {key: _plain(value) for key, value in fields.items()}

    def as_markdown(self) -> str:
        """For a reader."""
        from models.explain.quality_page import page

        return "\n".join(page(self))


def check_pack(
    pack: Pack,
    datasets: Sequence[Dataset],
    *,
    methods: Sequence[MapMethod] = METHODS,
    split: str = "held",
    clips: int = CLIPS,
    few: int = FEW,
    seed: int = 1,
) -> QualityReport:
    """Run the checks.

    Parameters
    ----------
    datasets
        Of each the first ``clips`` cases of ``split`` are asked, one frame each: a traced one
        where there are tracings. Choices were made on "held"; "valid" is for a last report.
    few
        Of these clips so many are asked what is costly, see :data:`FEW`.

    Raises
    ------
    ExplainError
        If the pack's network cannot be explained, or no clip can be read.
    """
    numbers = explained(pack)
    on: list[Checked] = []
    examples: tuple[Any, ...] = ()
    for dataset in datasets:
        checks = _Checks(pack, numbers, dataset, split, clips=clips, few=few, seed=seed)
        on.append(checks.run(methods))
        if dataset.evidence is Evidence.SIMULATED and not examples:
            examples = checks.examples(methods[0])
    lead = None
    if any(output.name == "lead" for output in pack.manifest.outputs):
        lead = check_lead(pack, seed=seed)
    return QualityReport(
        pack=pack.manifest.name,
        version=pack.manifest.version,
        weights_sha256=pack.manifest.weights_sha256,
        few=few,
        stages=STAGES,
        seed=seed,
        most_outside=MOST_OUTSIDE,
        on=tuple(on),
        lead=lead,
        examples=examples,
    )


def check_lead(pack: Pack, *, clips: int = _LEAD_CLIPS, seed: int = 1) -> LeadCheck:
    """:func:`models.explain.quality.lead_check` of a pack with an output "lead"."""
    from models.readers import RegressionReader
    from models.simulator import simulate
    from models.views import View

    reader = RegressionReader(pack)
    spec = next(output for output in pack.manifest.outputs if output.name == "lead")

    def score(clip: Any) -> float:
        found = {finding.output: finding for finding in reader.read(clip).findings}
        return found["lead"].score or 0.0

    drawn = (
        simulate(
            View.A4C, seed=(1 << 40) + (seed << 20) + number, lead=True, colour_flow=False,
            frames=_LEAD_FRAMES, frame_time_ms=100.0, masks=True,
        )
        for number in range(clips)
    )  # fmt: skip
    threshold = 0.5 if spec.threshold is None else spec.threshold
    return quality.lead_check(score, threshold, drawn, seed=seed)


def write_report(report: QualityReport, folder: Path) -> tuple[Path, ...]:
    """Write the page, the figures and, of simulated clips, the examples; returns the files."""
    page, figures, examples = (folder / name for name in (PAGE, FIGURES, _EXAMPLES_FILE))
    words = report.as_markdown()
    written = [page, figures]
    if report.examples:
        from models.explain.examples import draw_examples

        draw_examples(report.examples, examples)
        words += f"\n![Examples, simulated clips]({_EXAMPLES_FILE})\n"
        written.append(examples)
    page.write_text(words)
    figures.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return tuple(written)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One frame of a case as the network sees it, and what is known of it.

    ``inputs`` is (1, rows, columns, 1), normalised; ``sector`` and ``labels``, which index
    :data:`models.data.camus.CLASSES`, are (rows, columns).
    """

    inputs: NDArray[np.float32]
    sector: Mask
    grey: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None

    @classmethod
    def of(cls, case: Case, pack: Pack) -> Asked:
        """The first traced frame of a case, or its first frame."""
        clip = case.clip()
        spec = pack.manifest.frames
        traced = dict(case.tracings()) if case.tracings is not None else {}
        place = min(traced) if traced else 0
        frames = clip.frames([place])
        inputs, _ = fit_frames(frames, spec)
        labels = None
        if traced:
            labels = np.zeros((spec.rows, spec.columns), np.uint8)
            for index in range(1, len(CLASSES)):
                layer = (traced[place] == index)[np.newaxis].astype(np.uint8) * 255
                labels[fit_grey(layer, spec)[0][0] > 127] = index
        return cls(
            inputs=inputs,
            sector=sector_in_network(clip, spec),
            grey=fit_grey(frames, spec)[0][0],
            labels=labels,
        )

    def mask(self, structures: Sequence[str]) -> Mask | None:
        """Where these structures lie, if that is known."""
        if self.labels is None or not structures:
            return None
        return np.isin(self.labels, [CLASSES.index(name) for name in structures])


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What is asked of each frame: a line of the page.

    ``targets`` says for each frame which number of the network. It is the same one for all but of
    views, where it is the label that the network gives the frame.
    """

    outputs: tuple[str, ...]
    structures: tuple[str, ...]
    targets: tuple[int, ...]


def _questions(pack: Pack, numbers: Explained, asked: Sequence[Asked]) -> list[_Question]:
    """Each map once: the same number of the network is several outputs', and a volume's map is
    that of its logarithm but for a factor."""
    if pack.manifest.kind is PackKind.VIEW:
        said = numbers_of(numbers, np.concatenate([frame.inputs for frame in asked]))
        labels = tuple(said.argmax(axis=1).tolist())
        return [_Question(outputs=("view",), structures=_HEART, targets=labels)]
    spoken = [output.name for output in pack.manifest.outputs]
    sharing: dict[tuple[str, int], list[int]] = {}
    for place, target in enumerate(numbers.targets):
        if target.name in spoken or not spoken:
            sharing.setdefault(target.source, []).append(place)
    return [
        _Question(
            outputs=tuple(numbers.targets[place].name for place in places),
            structures=_WHERE.get(numbers.targets[places[0]].name, ()),
            targets=(places[0],) * len(asked),
        )
        for places in list(sharing.values())[:MOST_OUTPUTS]
    ]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Maps of a frame, (outputs, rows, columns), and of the frame disturbed, if it was."""

    true: Maps
    noisy: Maps | None = None
    moved: Maps | None = None
    texted: Maps | None = None


class _Checks:
    """The checks on one data set: what is asked of the network is asked for all together."""

    def __init__(
        self,
        pack: Pack,
        numbers: Explained,
        dataset: Dataset,
        split: str,
        *,
        clips: int,
        few: int,
        seed: int,
    ) -> None:
        self._numbers, self._dataset, self._split, self._seed = numbers, dataset, split, seed
        self._notes: list[str] = []
        asked: list[Asked] = []
        for case in dataset.cases(split)[:clips]:
            try:
                asked.append(Asked.of(case, pack))
            except ClipError as error:
                self._notes.append(f"{case.name} was left out: {error}")
        if not asked:
            raise ExplainError(
                f"pack {pack.manifest.name}: no clip of {dataset.name} can be explained"
            )
        self._asked, self._few = asked, min(few, len(asked))
        self._questions = _questions(pack, numbers, asked)
        self._outputs = sorted({place for one in self._questions for place in one.targets})
        self._letters: list[Mask] = []
        self._found: dict[MapMethod, list[_Found]] = {}

    def run(self, methods: Sequence[MapMethod]) -> Checked:
        """All of them."""
        for method in methods:
            try:
                self._found[method] = self._maps_of(method)
            except ExplainError as error:
                self._notes.append(f"{method.value}: {error}")
        areas, stages = self._areas(), self._stages()
        maps = [
            self._map_checks(method, question, number, areas, stages)
            for method in self._found
            for number, question in enumerate(self._questions)
        ]
        return Checked(
            name=self._dataset.name,
            title=self._dataset.title,
            evidence=self._dataset.evidence,
            split=self._split,
            clips=len(self._asked),
            maps=tuple(maps),
            outputs=self._output_checks(),
            citation=self._dataset.citation,
            licence=self._dataset.licence,
            notes=tuple(self._notes),
        )

    def examples(self, method: MapMethod) -> tuple[Any, ...]:
        """Title, method, frame, map and mask for the picture, of the first clips."""
        drawn = []
        for question in self._questions:
            each = max(1, _EXAMPLES // len(self._questions))
            if len(self._questions) > 1:
                each = min(each, 2)
            for number in range(min(each, len(self._asked))):
                frame, target = self._asked[number], question.targets[number]
                strength = self._found[method][number].true[self._outputs.index(target)]
                title = self._numbers.targets[target].title
                mask = frame.mask(question.structures)
                if mask is not None:  # one outline: between two structures lies a seam of neither
                    mask = ndimage.binary_closing(mask, iterations=max(1, len(mask) // 48))
                drawn.append((title, method.words, frame.grey, strength, mask))
        return tuple(drawn)

    def _maps_of(self, method: MapMethod) -> list[_Found]:
        pictures = []
        self._letters = []
        for number, frame in enumerate(self._asked):
            several = [frame.inputs]
            if number < self._few:
                noisy, moved = quality.disturbed(
                    frame.inputs[0], frame.sector, seed=self._seed + number
                )
                texted, letters = quality.with_text(frame.inputs, frame.sector)
                self._letters.append(letters)
                several += [noisy[np.newaxis], moved[np.newaxis], texted]
            pictures.append((np.concatenate(several), frame.sector))
        found = []
        for maps in self._ask(method, pictures):
            each = [np.ascontiguousarray(one) for one in np.moveaxis(maps, 1, 0)]
            if len(each) == 1:
                found.append(_Found(true=each[0]))
            else:
                found.append(_Found(true=each[0], noisy=each[1], moved=each[2], texted=each[3]))
        return found

    def _ask(
        self, method: MapMethod, pictures: Sequence[tuple[NDArray[np.float32], Mask]]
    ) -> list[Maps]:
        """(outputs, n, rows, columns) for each clip's n pictures."""
        if method in _NO_SECTOR:
            together = np.concatenate([inputs for inputs, _ in pictures])
            maps = map_of(method, self._numbers, together, self._outputs)
            ends = np.cumsum([len(inputs) for inputs, _ in pictures])[:-1]
            return list(np.split(maps, ends, axis=1))
        return [
            map_of(method, self._numbers, inputs, self._outputs, sector=sector, seed=self._seed)
            for inputs, sector in pictures
        ]

    def _areas(self) -> list[quality.InsertionDeletion]:
        """For each frame: a random map's, the centre's, then each method's of each question."""
        areas = []
        for number, frame in enumerate(self._asked):
            orders = [
                quality.random_map(frame.grey.shape, self._seed + number),
                quality.centre_map(frame.sector),
            ]
            for found in self._found.values():
                orders += [
                    found[number].true[self._outputs.index(question.targets[number])]
                    for question in self._questions
                ]
            areas.append(
                quality.insertion_deletion(self._numbers, frame.inputs[0], orders, frame.sector)
            )
        return areas

    def _stages(self) -> list[dict[MapMethod, list[Maps]]]:
        """At each stage of shuffling the maps (outputs, rows, columns) of some frames."""
        pictures = [(frame.inputs, frame.sector) for frame in self._asked[: self._few]]
        stages = []
        try:
            for share in STAGES:
                with quality.shuffled(self._numbers.network, share, seed=self._seed):
                    stages.append(
                        {
                            method: [maps[:, 0] for maps in self._ask(method, pictures)]
                            for method in self._found
                        }
                    )
        except ExplainError as error:
            self._notes.append(f"D4: {error}")
        return stages

    def _map_checks(
        self,
        method: MapMethod,
        question: _Question,
        number: int,
        areas: Sequence[quality.InsertionDeletion],
        stages: Sequence[Mapping[MapMethod, Sequence[Maps]]],
    ) -> MapChecks:
        own = 2 + list(self._found).index(method) * len(self._questions) + number
        points, noise, shift, outside, on_text = [], [], [], [], []
        alike: list[list[tuple[float, float]]] = [[] for _ in stages]
        for place, (frame, found) in enumerate(zip(self._asked, self._found[method], strict=True)):
            column = self._outputs.index(question.targets[place])
            strength, sector = found.true[column], frame.sector
            mask = frame.mask(question.structures)
            points.append(None if mask is None else quality.pointing(strength, mask, sector))
            outside.append(float(outside_shares(strength[None, None], sector)[0]))
            if found.noisy is None or found.moved is None or found.texted is None:
                continue
            noise.append(quality.similarity(strength, found.noisy[column], sector)[0])
            back = quality.moved_back(found.moved[column])
            shift.append(quality.similarity(strength, back, sector)[0])
            texted, letters = np.abs(found.texted[column]), self._letters[place]
            if letters.any() and texted.any():
                on_text.append(float(texted[letters].sum() / texted.sum()))
            for again, stage in zip(alike, stages, strict=True):
                other = stage[method][place][column]
                again.append(quality.similarity(strength, other, sector))
        hits = [point for point in points if point is not None]

        def area(order: int, which: str) -> Measured:
            return over_clips(
                getattr(one, which)[order, target]
                for one, target in zip(areas, question.targets, strict=True)
            )

        return MapChecks(
            outputs=question.outputs,
            method=method,
            insertion=area(own, "insertion"),
            deletion=area(own, "deletion"),
            insertion_by_random=area(0, "insertion"),
            deletion_by_random=area(0, "deletion"),
            insertion_by_centre=area(1, "insertion"),
            deletion_by_centre=area(1, "deletion"),
            pointing=over_clips(float(point.hit) for point in hits),
            energy=over_clips(point.energy for point in hits),
            energy_by_chance=over_clips(point.chance for point in hits),
            randomised=tuple(
                (share, over_clips(rank for rank, _ in one), over_clips(ssim for _, ssim in one))
                for share, one in zip(STAGES, alike, strict=False)
            ),
            noise=over_clips(noise),
            shift=over_clips(shift),
            outside=over_clips(outside),
            outside_most=max(outside),
            flagged=over_clips(float(share > MOST_OUTSIDE) for share in outside),
            on_text=over_clips(on_text),
        )

    def _output_checks(self) -> tuple[OutputChecks, ...]:
        integrated = [
            integrate(self._numbers, frame.inputs, self._outputs, sector=frame.sector)
            for frame in self._asked[: self._few]
        ]
        covered, by_text = self._covered(), self._moved_by_text()
        checked = []
        for question in self._questions:
            moved = [
                covered[number, question.structures][:, target]
                for number, target in enumerate(question.targets)
                if (number, question.structures) in covered
            ]
            asked = [
                (one, self._outputs.index(target))
                for one, target in zip(integrated, question.targets, strict=False)
            ]
            gaps = [float(one.gaps[column, 0]) for one, column in asked]
            *others, last = question.structures or ("",)
            checked.append(
                OutputChecks(
                    outputs=question.outputs,
                    structure=f"{', '.join(others)} and {last}" if others else last,
                    by_structure=over_clips(float(one) for one, _ in moved),
                    by_elsewhere=over_clips(float(other) for _, other in moved),
                    covering_wins=over_clips(float(one > other) for one, other in moved),
                    by_text=over_clips(by_text[range(len(by_text)), question.targets]),
                    completeness_gap=over_clips(gaps),
                    complete=over_clips(float(gap <= TOLERANCE) for gap in gaps),
                    straight=over_clips(float(one.straight[column, 0]) for one, column in asked),
                    steps=over_clips(float(one.steps[0]) for one in integrated),
                )
            )
        return tuple(checked)

    def _covered(self) -> dict[tuple[int, tuple[str, ...]], NDArray[np.float64]]:
        """By frame and structures: by how much every number moves when these are covered, and when
        an equal patch elsewhere is, (2, targets)."""
        pictures = [frame.inputs for frame in self._asked]
        keys: list[tuple[int, tuple[str, ...]]] = []
        for number, frame in enumerate(self._asked):
            for structures in dict.fromkeys(one.structures for one in self._questions):
                mask = frame.mask(structures)
                if mask is None:
                    continue
                both = quality.covered_both(
                    frame.inputs[0], mask, frame.sector, seed=self._seed + number
                )
                if both is not None:
                    keys.append((number, structures))
                    pictures.append(both)
        numbers = numbers_of(self._numbers, np.concatenate(pictures)).astype(np.float64)
        whole, rest = (
            numbers[: len(self._asked)],
            numbers[len(self._asked) :].reshape(len(keys), 2, numbers.shape[1]),
        )
        return {key: np.abs(both - whole[key[0]]) for key, both in zip(keys, rest, strict=True)}

    def _moved_by_text(self) -> NDArray[np.float64]:
        """(clips, targets): by how much letters outside the sector move every number; NaN where
        there is no room for any."""
        pictures, room = [], []
        for frame in self._asked:
            texted, letters = quality.with_text(frame.inputs, frame.sector)
            pictures += [frame.inputs, texted]
            room.append(letters.any())
        numbers = numbers_of(self._numbers, np.concatenate(pictures)).astype(np.float64)
        moved = np.abs(numbers[1::2] - numbers[::2])
        moved[~np.array(room)] = np.nan
        return np.asarray(moved)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return _plain(asdict(value))
