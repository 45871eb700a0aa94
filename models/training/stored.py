"""Whether a pack as it is stored answers as the network that was trained.

Weights ship as float16. The stored pack and the float32 network in memory read the same clips, by
the same road; what differs is told in the unit of each output, and too much of it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.clip import ClipError
from models.data.dataset import Case, Known
from models.data.ecgs import EcgCase
from models.ecg.reader import WaveformReader
from models.ecg.recording import EcgError
from models.evaluation.page import unit_words
from models.evaluation.reading import Answer, read_cases
from models.finding import Kind
from models.packs import Agreement, OutputSpec, Pack, PackError, PackKind, agree
from models.packs.loading import answering_as
from models.preprocess import fit_frames
from models.tasks import TASKS

if TYPE_CHECKING:
    import keras

MOST_CLIPS, MOST_CLIPS_OF_VIEWS = 24, 200
"""Clips that both read, spread over those that there are; a view takes little time."""

OF_RANGE = 0.005
"""A measurement may differ by this part of what the task believes: half a point of a fraction."""

OF_SCORE = 0.01
"""A score, or the chance of a view, may differ by this much."""

SAME_CLASS = 0.99
"""Share of pixels, or of frames, that must get the same class."""

NAME, TITLE = "stored", "As it is stored"
_FRAMES = 4  # of a clip, for the networks' own numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The largest difference of an output over the clips, in its unit, and what is allowed.

    ``one_only`` counts clips for which one gave a value and the other none: what stands near the
    edge of a plausible value may fall on either side.
    """

    output: str
    unit: str
    largest: float
    allowed: float
    one_only: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The stored pack against the network that was trained."""

    as_type: str  #: float16 or float32
    split: str
    clips: int
    raw: Agreement
    what: str = "clips"  #: that were read; the manifest's kind says which
    outputs: tuple[Difference, ...]

    def as_figures(self) -> dict[str, Any]:
        """For ``evaluation.json``."""
        return {
            "stored_as": self.as_type,
            "split": self.split,
            "clips": self.clips,
            "raw": self.raw.as_figures(),
            "outputs": {
                one.output: {
                    "unit": one.unit,
                    "largest_difference": float(f"{one.largest:.3g}"),
                    "allowed": float(f"{one.allowed:.3g}"),
                    "one_only": one.one_only,
                }
                for one in self.outputs
            },
        }

    def lines(self) -> list[str]:
        """For ``evaluation.md``."""
        raw = self.raw
        words = [
            (
                f"Weights are stored as {self.as_type}. {self.clips} {self.what} of the split "
                f'"{self.split}" were read by the stored pack and by the float32 network that was '
                "trained: the largest difference of a value."
            ),
            "",
            f"| output | largest difference | allowed | {self.what} with a value by one only |",
            "|---|---|---|---|",
            *(
                f"| {one.output}, {_unit(one.unit)} | {one.largest:.2g} | {one.allowed:.2g} | "
                f"{one.one_only} |"
                for one in self.outputs
            ),
            "",
            (
                f"The networks' own numbers on {raw.inputs} inputs: largest difference "
                f"{raw.largest:.2g}, mean {raw.mean:.2g}."
            ),
        ]
        if raw.same_class is not None:
            words[-1] += f" The same class for {100 * raw.same_class:.3f} % of them."
        return words


def compare_stored(
    pack: Pack, network: keras.Model, cases: Sequence[Known], *, split: str, as_type: str
) -> Stored:
    """Read recordings with a pack from disk and with the network that it was written from.

    Parameters
    ----------
    network
        As trained, with its float32 weights.
    cases
        Of the data that the pack is evaluated on; so many as are allowed for are read.

    Raises
    ------
    models.packs.PackError
        If a stored weight is not finite; if an output differs by more than is allowed; if more
        than one in twenty clips (and more than one) get a value by one of them only; if more than
        one in a hundred pixels or frames get another class; or if no clip can be read.
    """
    if not all(np.isfinite(array).all() for array in pack.network.get_weights()):
        raise PackError(
            f"pack {pack.folder}: stored as {as_type} some of its weights are not finite: float16 "
            "ends at 65504; pack it with half=False"
        )
    views = pack.manifest.kind is PackKind.VIEW
    some = _spread(cases, MOST_CLIPS_OF_VIEWS if views else MOST_CLIPS)
    inputs = list(_inputs(pack, some))
    if not inputs:
        raise PackError(
            f"pack {pack.folder}: nothing to compare the stored weights with the network on"
        )
    raw = agree(network, pack, np.concatenate(inputs))
    stored, trained = read_cases(pack, some), read_cases(answering_as(pack, network), some)
    ecgs = pack.manifest.kind is PackKind.WAVEFORM
    found = Stored(
        what="recordings" if ecgs else "clips",
        as_type=as_type,
        split=split,
        clips=len(some),
        raw=raw,
        outputs=tuple(_differences(pack, stored, trained)),
    )
    for words in _too_far(found):
        raise PackError(
            f"pack {pack.folder}: stored as {as_type} it {words}; pack it with half=False"
        )
    return found


def _too_far(found: Stored) -> Iterator[str]:
    for one in found.outputs:
        if one.one_only > max(1, found.clips // 20):
            yield (
                f"gives {one.output} for {one.one_only} of {found.clips} {found.what} where the "
                "network that was trained gives none, or the other way round"
            )
        if not one.largest <= one.allowed:  # NaN too is refused
            yield (
                f"says {one.output} otherwise than the network that was trained: by "
                f"{one.largest:.2g} {_unit(one.unit)}, where {one.allowed:.2g} are allowed"
            )
    same = found.raw.same_class
    if same is not None and not same >= SAME_CLASS:
        yield (
            f"names {100 * (1 - same):.1f} % otherwise than the network that was trained, where "
            f"{100 * (1 - SAME_CLASS):.0f} % are allowed"
        )


def allowed(output: OutputSpec) -> float:
    """How far an output may be apart, in its unit."""
    if output.kind is Kind.SCORE:
        return OF_SCORE
    task = TASKS[output.name]
    return OF_RANGE * (task.high - task.low)


def _spread(cases: Sequence[Known], most: int) -> list[Known]:
    if len(cases) <= most:
        return list(cases)
    places = np.linspace(0, len(cases) - 1, most).round().astype(int)
    return [cases[place] for place in places.tolist()]


def _inputs(pack: Pack, cases: Sequence[Known]) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    for case in cases:
        if isinstance(case, EcgCase):
            with suppress(EcgError):  # counted in the report itself
                yield WaveformReader(pack).inputs(case.ecg())
            continue
        if not isinstance(case, Case):
            continue
        try:
            clip = case.clip()
            places = np.linspace(0, clip.frame_count - 1, min(_FRAMES, clip.frame_count))
            frames = clip.frames([int(place) for place in places.round()])
        except ClipError:
            continue  # counted in the report itself
        yield fit_frames(frames, pack.manifest.frames)[0]


def _differences(
    pack: Pack, stored: Sequence[Answer], trained: Sequence[Answer]
) -> Iterator[Difference]:
    pairs = list(zip(stored, trained, strict=True))
    if pack.manifest.kind is PackKind.VIEW:
        apart = [
            np.abs(one.chances.mean(axis=0) - two.chances.mean(axis=0)).max()
            for one, two in pairs
            if one.chances is not None and two.chances is not None
        ]
        largest = float(np.max(apart, initial=0.0))
        yield Difference(
            output="view", unit="{score}", largest=largest, allowed=OF_SCORE, one_only=0
        )
    for output in pack.manifest.outputs:
        values = [
            (_value(one.said, output.name), _value(two.said, output.name)) for one, two in pairs
        ]
        both = [(one, two) for one, two in values if one is not None and two is not None]
        yield Difference(
            output=output.name,
            unit=output.unit,
            largest=float(np.max([abs(one - two) for one, two in both], initial=0.0)),
            allowed=allowed(output),
            one_only=sum((one is None) != (two is None) for one, two in values),
        )


def _value(said: Mapping[str, Any], name: str) -> float | None:
    return float(said[name].value) if name in said else None


def _unit(unit: str) -> str:
    return "score" if unit == "{score}" else unit_words(unit)
