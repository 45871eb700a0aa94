"""The checks of :mod:`models.explain.quality` on a pack, and the page that they fill.

One frame of each of some twenty clips is asked, which is what a core can do in minutes; two methods
are compared. The page, its figures as JSON and a picture of examples go into the pack's folder. The
picture is drawn of simulated clips only: no patient's picture is copied out of its data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.clip import ClipError
from models.data.camus import CLASSES
from models.data.dataset import Case, Dataset
from models.explain import quality
from models.explain.integrated_gradients import TOLERANCE, integrate
from models.explain.methods import MapMethod, map_of
from models.explain.quality import LeadCheck, Measured, over_clips
from models.explain.sector import outside_shares, sector_in_network
from models.explain.target import Explained, ExplainError, Quantity, Target, explained
from models.finding import Evidence
from models.packs import Pack, PackKind
from models.preprocess import fit_frames, fit_grey

CLIPS, FEW = 20, 4
"""Clips that are asked; and those of them on which the costly checks D4 and D6 run."""

METHODS = (MapMethod.SMOOTHGRAD, MapMethod.GRAD_CAM)
MOST_OUTPUTS = 4
STAGES = (0.25, 0.5, 0.75, 1.0)

_LEAD_CLIPS, _LEAD_FRAMES = 12, 4
_EXAMPLE_CLIPS = 4
_PAGE, _FIGURES, _EXAMPLES = "explanations.md", "explanations.json", "explanations.png"
_VENTRICLE, _HEART = ("cavity", "myocardium"), ("cavity", "myocardium", "atrium")
_WHERE: Mapping[str, tuple[str, ...]] = {
    "ef": _VENTRICLE, "edv": _VENTRICLE, "esv": _VENTRICLE, "cavity": ("cavity",),
    "lvh": ("myocardium",), "myocardium": ("myocardium",), "atrium": ("atrium",),
    "la_dilation": ("atrium",), "la_volume": ("atrium",), "la_area": ("atrium",), "a4c": _HEART,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MapChecks:
    """D1, D2, D4, D5 and D7 of one output by one method. ``insertion`` and the like are areas;
    ``by_random`` and ``by_centre`` are those of maps that know nothing of the network."""

    output: str
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
    on_text: Measured


@dataclass(frozen=True, kw_only=True)
class OutputChecks:
    """D3 and D6, which are of an output and no method of maps. ``covering_wins`` is the share of
    clips in which covering the structure moves the output more than covering elsewhere."""

    output: str
    structure: str
    by_structure: Measured
    by_elsewhere: Measured
    covering_wins: Measured
    completeness_gap: Measured
    complete: Measured


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """All checks of a pack's maps on a data set."""

    pack: str
    version: str
    weights_sha256: str
    dataset: str
    evidence: Evidence
    clips: int
    few: int
    stages: tuple[float, ...]
    seed: int
    maps: tuple[MapChecks, ...]
    outputs: tuple[OutputChecks, ...]
    notes: tuple[str, ...] = ()
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
    dataset: Dataset,
    *,
    methods: Sequence[MapMethod] = METHODS,
    split: str = "held",
    clips: int = CLIPS,
    seed: int = 1,
) -> QualityReport:
    """Run the checks.

    Parameters
    ----------
    dataset
        Of which the first ``clips`` cases of ``split`` are asked, one frame each: a traced one
        where there are tracings. Choices were made on "held"; "valid" is for a last report.

    Raises
    ------
    ExplainError
        If the pack's network cannot be explained, or no clip can be read.
    """
    numbers = explained(pack)
    asked, notes = [], []
    for case in dataset.cases(split)[:clips]:
        try:
            asked.append(_Frame.of(case, pack))
        except ClipError as error:
            notes.append(f"{case.name} was left out: {error}")
    if not asked:
        raise ExplainError(f"pack {pack.manifest.name}: no clip of {dataset.name} can be explained")
    outputs = _outputs(pack, numbers, asked)
    kept = []
    for method in methods:
        try:
            kept += _check_method(pack, numbers, asked, outputs, method, seed)
        except ExplainError as error:
            notes.append(f"{method.value}: {error}")
    lead = None
    if any(output.name == "lead" for output in pack.manifest.outputs):
        lead = check_lead(pack, seed=seed)
    return QualityReport(
        pack=pack.manifest.name,
        version=pack.manifest.version,
        weights_sha256=pack.manifest.weights_sha256,
        dataset=dataset.title,
        evidence=dataset.evidence,
        clips=len(asked),
        few=FEW,
        stages=STAGES,
        seed=seed,
        maps=tuple(kept),
        outputs=_check_outputs(numbers, asked, outputs, seed),
        notes=tuple(notes),
        lead=lead,
        examples=_examples(numbers, asked, outputs, methods[0], seed)
        if dataset.evidence is Evidence.SIMULATED
        else (),
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
    page, figures, examples = (folder / name for name in (_PAGE, _FIGURES, _EXAMPLES))
    words = report.as_markdown()
    written = [page, figures]
    if report.examples:
        from models.explain.examples import draw_examples

        draw_examples(report.examples, examples)
        words += f"\n![Examples, simulated clips]({_EXAMPLES})\n"
        written.append(examples)
    page.write_text(words)
    figures.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    return tuple(written)


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """One frame of a case as the network sees it, and what is known of it."""

    inputs: NDArray[np.float32]  # (1, rows, columns, 1)
    sector: NDArray[np.bool_]
    grey: NDArray[np.uint8]  # (rows, columns)
    labels: NDArray[np.uint8] | None
    view: str | None

    @classmethod
    def of(cls, case: Case, pack: Pack) -> _Frame:
        clip = case.clip()
        spec = pack.manifest.input
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
            view=None if case.view is None else case.view.value,
        )

    def mask(self, output: str) -> NDArray[np.bool_] | None:
        """Where the output's structure lies, if that is known."""
        if self.labels is None or output not in _WHERE:
            return None
        return np.isin(self.labels, [CLASSES.index(name) for name in _WHERE[output]])


def _outputs(pack: Pack, numbers: Explained, asked: Sequence[_Frame]) -> list[int]:
    """What is checked: each number of the network once; of a view pack the labels shown."""
    if pack.manifest.kind is PackKind.VIEW:
        shown = [frame.view for frame in asked if frame.view is not None]
        labels = [name for name in dict.fromkeys(shown) if name in pack.manifest.classes]
        return [numbers.place_of(name) for name in labels[:MOST_OUTPUTS]]
    chosen: dict[tuple[str, int], int] = {}
    for place, target in enumerate(numbers.targets):
        chosen.setdefault((target.quantity.value, target.place), place)
    return list(chosen.values())[:MOST_OUTPUTS]


def _of_output(asked: Sequence[_Frame], target: Target) -> list[int]:
    """Which frames an output is asked of: a label of those that show it."""
    if target.quantity is not Quantity.LOG_ODDS:
        return list(range(len(asked)))
    return [place for place, frame in enumerate(asked) if frame.view in (None, target.name)]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A frame's maps by one method: (outputs, rows, columns) each."""

    true: NDArray[np.float32]
    noisy: NDArray[np.float32]
    moved: NDArray[np.float32]
    texted: NDArray[np.float32]
    letters: NDArray[np.bool_]


def _check_method(
    pack: Pack,
    numbers: Explained,
    asked: Sequence[_Frame],
    outputs: Sequence[int],
    method: MapMethod,
    seed: int,
) -> list[MapChecks]:
    """All outputs together: a network is compiled once for all of them, which takes longest."""
    maps = []
    for number, frame in enumerate(asked):
        noisy, moved = quality.disturbed(frame.inputs[0], frame.sector, seed=seed + number)
        texted, letters = quality.with_text(frame.inputs, frame.sector)
        four = np.concatenate([frame.inputs, noisy[None], moved[None], texted])
        of_four = map_of(method, numbers, four, outputs, sector=frame.sector, seed=seed)
        true, by_noise, by_move, by_text = np.moveaxis(of_four, 1, 0)
        maps.append(
            _Asked(true=true, noisy=by_noise, moved=by_move, texted=by_text, letters=letters)
        )
    shuffled = _shuffled(pack, numbers, asked[:FEW], outputs, method, seed)
    return [
        _check_maps(numbers, asked, maps, shuffled, place, output, method, seed)
        for place, output in enumerate(outputs)
    ]


def _shuffled(
    pack: Pack,
    numbers: Explained,
    asked: Sequence[_Frame],
    outputs: Sequence[int],
    method: MapMethod,
    seed: int,
) -> list[list[NDArray[np.float32]]]:
    """For each stage of shuffling the maps (outputs, rows, columns) of some frames."""
    try:
        copy = quality.randomised(numbers.network, 0.0)
    except ExplainError:
        return []
    other = Explained(copy, numbers.targets, temperature=pack.manifest.temperature)
    weights = copy.get_weights()
    stages = []
    for share in STAGES:
        copy.set_weights(weights)
        quality.shuffle_last(copy, share, seed=seed)
        stages.append(
            [
                map_of(method, other, frame.inputs, outputs, sector=frame.sector, seed=seed)[:, 0]
                for frame in asked
            ]
        )
    return stages


def _check_maps(
    numbers: Explained,
    asked: Sequence[_Frame],
    maps: Sequence[_Asked],
    shuffled: Sequence[Sequence[NDArray[np.float32]]],
    place: int,
    output: int,
    method: MapMethod,
    seed: int,
) -> MapChecks:
    target = numbers.targets[output]
    areas: list[list[quality.InsertionDeletion]] = []
    points: list[quality.Pointing] = []
    noise, shift, outside, on_text = [], [], [], []
    for number in _of_output(asked, target):
        frame, found = asked[number], maps[number]
        sector, strength = frame.sector, found.true[place]
        blind = quality.random_map(frame.grey.shape, seed + number)
        orders = [strength, blind, quality.centre_map(sector)]
        areas.append(quality.insertion_deletion(numbers, frame.inputs[0], output, orders, sector))
        mask = frame.mask(target.name)
        point = None if mask is None else quality.pointing(strength, mask, sector)
        points += [] if point is None else [point]
        noise.append(quality.similarity(strength, found.noisy[place], sector)[0])
        back = quality.moved_back(found.moved[place])
        shift.append(quality.similarity(strength, back, sector)[0])
        outside.append(float(outside_shares(strength[None, None], sector)[0]))
        texted = np.abs(found.texted[place])
        if found.letters.any() and texted.any():
            on_text.append(float(texted[found.letters].sum() / texted.sum()))
    each = [
        (over_clips(a[k].insertion for a in areas), over_clips(a[k].deletion for a in areas))
        for k in range(3)
    ]
    stages = []
    for share, again in zip(STAGES, shuffled, strict=False):
        alike = [
            quality.similarity(maps[n].true[place], again[n][place], asked[n].sector)
            for n in _of_output(asked[: len(again)], target)
        ]
        ranks, ssims = [rank for rank, _ in alike], [ssim for _, ssim in alike]
        stages.append((share, over_clips(ranks), over_clips(ssims)))
    return MapChecks(
        output=target.name,
        method=method,
        insertion=each[0][0],
        deletion=each[0][1],
        insertion_by_random=each[1][0],
        deletion_by_random=each[1][1],
        insertion_by_centre=each[2][0],
        deletion_by_centre=each[2][1],
        pointing=over_clips(float(point.hit) for point in points),
        energy=over_clips(point.energy for point in points),
        energy_by_chance=over_clips(point.chance for point in points),
        randomised=tuple(stages),
        noise=over_clips(noise),
        shift=over_clips(shift),
        outside=over_clips(outside),
        outside_most=max(outside, default=float("nan")),
        on_text=over_clips(on_text),
    )


def _check_outputs(
    numbers: Explained, asked: Sequence[_Frame], outputs: Sequence[int], seed: int
) -> tuple[OutputChecks, ...]:
    gaps = [
        integrate(numbers, frame.inputs, outputs, sector=frame.sector).gaps[:, 0]
        for frame in asked[:FEW]
    ]
    checked = []
    for place, output in enumerate(outputs):
        target = numbers.targets[output]
        found = []
        for number in _of_output(asked, target):
            frame = asked[number]
            mask = frame.mask(target.name)
            if mask is not None:
                one = quality.covering(
                    numbers, frame.inputs[0], output, mask, frame.sector, seed=seed + number
                )
                found += [] if one is None else [one]
        missed = [float(gaps[n][place]) for n in _of_output(asked[:FEW], target)]
        checked.append(
            OutputChecks(
                output=target.name,
                structure=" and ".join(_WHERE.get(target.name, ())),
                by_structure=over_clips(one.structure for one in found),
                by_elsewhere=over_clips(one.elsewhere for one in found),
                covering_wins=over_clips(float(one.structure > one.elsewhere) for one in found),
                completeness_gap=over_clips(missed),
                complete=over_clips(float(gap <= TOLERANCE) for gap in missed),
            )
        )
    return tuple(checked)


def _examples(
    numbers: Explained,
    asked: Sequence[_Frame],
    outputs: Sequence[int],
    method: MapMethod,
    seed: int,
) -> tuple[Any, ...]:
    """Frame, map and mask for the picture: the first clips of each output."""
    found = []
    some = asked[:_EXAMPLE_CLIPS]
    maps = [
        map_of(method, numbers, frame.inputs, outputs, sector=frame.sector, seed=seed)[:, 0]
        for frame in some
    ]
    for place, output in enumerate(outputs):
        target = numbers.targets[output]
        for number in _of_output(some, target)[:2]:
            frame = some[number]
            mask = frame.mask(target.name)
            found.append((target.title, method.words, frame.grey, maps[number][place], mask))
    return tuple(found)


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
