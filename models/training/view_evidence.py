"""What is measured of a view classifier beside the report that every pack has.

:class:`ViewClips` makes a data set of the frames of a training, so that a view pack is evaluated by
the same road as the others. What only this pack has comes as sections of its report: patients'
pixels bent into stand-ins for other views, machines' own files, and what all of it does not show.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.examples import get_path

from models.clip import Clip, ClipError, Mode, Sector, read_clip
from models.data.camus import CITATION, LICENCE
from models.data.dataset import SPLITS, Case, DatasetError
from models.evaluation import metrics
from models.evaluation.page import percent
from models.evaluation.reading import Answer, read_cases, view_of
from models.evaluation.report import add_section
from models.finding import Evidence
from models.packs import Pack
from models.packs.manifest import Manifest
from models.training.view_set import CLASSES, ViewSet
from models.views import View, ViewReader

_EXAMPLES = {
    "rgb_color": "a small organ, two panels with power Doppler",
    "palette_color": "convex probe, nearly blank",
    "jpeg2k": "the same organ, larger, two panels with power Doppler",
    "ybr_color": "A4C 30 frames",
}
"""pydicom's own ultrasound examples, and what they show."""

_PARTS = {"train": "train", "held": "held", "valid": "test"}  # a data set's splits, a ViewSet's
_FRAME_TIME_MS = 100.0  # the time between frames says nothing to a vote


@dataclass(frozen=True, kw_only=True)
class ViewClips:
    """The clips that a training was made with, as a data set.

    Only their frames are kept, as the network sees them: the sector, fitted to its input, and what
    the object's header said of the mode. ``lent`` chooses patients' pixels bent into other views,
    otherwise the simulated clips.
    """

    data: ViewSet
    lent: bool = False
    name: str = "simulated-views"
    evidence: Evidence = Evidence.SIMULATED
    licence: str = LICENCE
    citation: str = CITATION

    @property
    def title(self) -> str:
        """Which clips these are."""
        if self.lent:
            return "Pixels of patients of CAMUS bent into stand-ins for several views"
        return f"Simulated clips of {len(CLASSES)} views on the screens of many makers"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of figures on these clips must know."""
        return (
            "Most simulated clips carry the grain and the grey levels of a patient's frame.",
            (
                "The files of three fifths of these clips declare their mode (Doppler, M-mode or "
                "two-dimensional), which goes before the picture; by the picture alone it does not."
            ),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of frames and labels."""
        digest = hashlib.sha256(self.data.grey.tobytes())
        digest.update(self.data.label.astype("<i8").tobytes())
        return digest.hexdigest()

    def cases(self, split: str) -> tuple[Case, ...]:
        """The clips of a split, each of a patient of its own.

        Raises
        ------
        models.data.dataset.DatasetError
            If there is no such split.
        """
        if split not in _PARTS:
            raise DatasetError(f"{self.name}: no split {split!r}; there are {', '.join(SPLITS)}")
        part = self.data.part(_PARTS[split], lent=self.lent)
        numbers, first = np.unique(part.clip, return_index=True)
        edges = [*first.tolist(), len(part.clip)]  # the frames of a clip follow each other
        return tuple(
            _case(part, int(number), slice(*pair))
            for number, pair in zip(numbers, pairwise(edges), strict=True)
        )


def _case(part: ViewSet, number: int, frames: slice) -> Case:
    view = CLASSES[int(part.label[frames.start])]
    name = f"{view.value}-{number}"
    return Case(
        patient=name,
        name=name,
        clip=partial(_clip, part.grey[frames], Mode(str(part.mode[frames.start]))),
        view=view,
    )


def _clip(grey: NDArray[np.uint8], mode: Mode) -> Clip:
    rows, columns = grey.shape[1:]
    whole = np.ones((rows, columns), np.bool_)
    sector = Sector(top=0, left=0, bottom=rows, right=columns, mask=whole, source="pixels")
    return Clip.from_frames(grey, frame_time_ms=_FRAME_TIME_MS, mode=mode, sector=sector)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFile:
    """A machine's file: what it shows, and what the reader called it."""

    name: str
    shows: str
    said: str  #: the view; or why there is none
    score: float
    certain: bool


def name_files(reader: ViewReader, sources: Path | None) -> tuple[NamedFile, ...]:
    """Name machines' files: pydicom's examples and those of a folder.

    ``sources`` is a table (tab-separated) beside the files, with the columns "file" and "what".
    """
    listed = [(Path(get_path(name)), name, shows) for name, shows in _EXAMPLES.items()]
    if sources is not None:
        with sources.open(newline="") as table:
            for row in csv.DictReader(table, delimiter="\t"):
                path = sources.parent / row["file"]
                listed.append((path, path.stem, row["what"]))
    named = []
    for path, name, shows in listed:
        try:
            call = reader.read(read_clip(path))
        except ClipError as error:
            named.append(
                NamedFile(name=name, shows=shows, said=str(error), score=0.0, certain=False)
            )
            continue
        said = call.view.value + (f" ({call.reason})" if call.reason else "")
        named.append(
            NamedFile(
                name=name, shows=shows, said=said, score=round(call.score, 3), certain=call.certain
            )
        )
    return tuple(named)


def add_view_sections(pack: Pack, data: ViewSet, *, files: Path | None) -> None:
    """Add to a pack's report what only a view pack has.

    Parameters
    ----------
    data
        What the pack was trained with: its lent clips of split "test" are read.
    files
        As for :func:`name_files`.
    """
    lent = read_cases(pack, ViewClips(data=data, lent=True).cases("valid"))
    _add_stand_ins(pack.folder, lent)
    _add_files(pack.folder, name_files(ViewReader(pack), files))
    add_section(
        pack.folder,
        "limits",
        title="What this does not show",
        lines=_LIMITS.splitlines(),
        data={"certain_from": pack.manifest.certain_from, "temperature": pack.manifest.temperature},
    )


def stand_in_figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """How many of patients' bent pixels are called A4C because their pixels are real."""
    calls = [(view_of(one.case), one.call) for one in answers if one.call is not None]
    is_a4c = np.array([view is View.A4C for view, _ in calls], np.bool_)
    said_a4c = np.array([call.view is View.A4C for _, call in calls], np.bool_)
    certain = np.array([call.certain for _, call in calls], np.bool_)
    as_meant = np.array([view is call.view for view, call in calls], np.bool_)

    def of(which: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "clips": int(which.sum()),
            "called_a4c": int(said_a4c[which].sum()),
            "called_a4c_share": _three(said_a4c[which]),
            "certain_and_called_a4c": int((said_a4c & certain)[which].sum()),
            "called_as_meant": _three(as_meant[which]),
        }

    return {"bent": of(~is_a4c), "disguised_a4c": of(is_a4c)}


def _add_stand_ins(folder: Path, answers: Sequence[Answer]) -> None:
    figures = stand_in_figures(answers)
    named = (
        ("their A4C frames, restyled, on other screens", figures["disguised_a4c"]),
        ("their pixels bent into other views, or into none", figures["bent"]),
    )
    rows = [
        (
            what,
            one["clips"],
            f"{one['called_a4c']}, {_share(one['called_a4c_share'])}",
            one["certain_and_called_a4c"],
            _share(one["called_as_meant"]),
        )
        for what, one in named
    ]
    add_section(
        folder,
        "stand_ins",
        title="Patients' pixels where they mean something else",
        lines=[
            (
                "All labelled patients here are A4C, so a network might take real pixels for a "
                "sign of it. These stills are made of patients that training never saw, their "
                "grey bent along another anatomy: what is not A4C should not be called so."
            ),
            "",
            *_table(("stills", "n", "called A4C", "and certain", "called what is meant"), rows),
        ],
        data=figures,
    )


def _add_files(folder: Path, files: Sequence[NamedFile]) -> None:
    rows = [
        (one.name, one.shows, one.said, f"{one.score:.2f}", "yes" if one.certain else "no")
        for one in files
    ]
    add_section(
        folder,
        "files",
        title="Machines' files",
        lines=[
            "What is not an apical four-chamber view should not be called so.",
            "",
            *_table(("file", "what it shows", "called", "score", "certain"), rows),
        ],
        data={"files": [asdict(one) for one in files]},
    )


_LIMITS = """\
No patient's picture of any view but A4C was at hand with a label. The accuracy over views is that
of a simulator on itself: it is not the accuracy on patients, and must not be set beside the
97.8 % that Madani et al. measured on patients' clips. Patients' A4C frames are of one data set.
That real pixels are not taken as a sign of A4C rests on stand-ins made from such frames, and on a
few files of machines. The long cines among those had been seen by those who made the first version.

The threshold is the lowest score from which on, of held-out two-dimensional clips, 99 % of the
labels of simulated ones are right and 99 % of the A4C labels of all, patients' pixels included.
Both shares were raised from 98 % and 97 % after a look at held-out clips and at the files above: a
colour Doppler clip named a short axis by its file was called A4C with a score of 0.91. The same
look made labels under colour Doppler uncertain whatever their score; such clips and stills are
never measured. So the column "certain" of these files is no evidence for the rule."""


def model_card(manifest: Manifest) -> str:
    """The card of the pack, in Markdown."""
    settings = manifest.network.settings
    network = ", ".join(f"{key} {value}" for key, value in settings.items())
    strided = ", the first of them 4x4 with stride two" if settings.get("strided") else ""
    return f"""# views {manifest.version}

{manifest.title}. Research use only, not for diagnosis.

## What it does
Up to {manifest.frames.frames} frames spread over a clip, cropped to the sector and fitted to
{manifest.frames.rows} x {manifest.frames.columns}; the mean of their calibrated probabilities; the
most probable of {len(manifest.classes)} classes (the 15 views of Madani et al. 2018 and "other").
A label below {manifest.certain_from}, or under colour Doppler, is given as uncertain. A header
that declares Doppler or M-mode goes before the picture.

## Network
`{manifest.network.name}` ({network}): the six convolutions of Madani et al. with filters of our
own choice{strided}, and an average pool before dense layers of 256 and 128 in place of 1028 and
512, to keep the pack small and quick. It returns logits; they are divided by
{manifest.temperature} before the softmax.

## Trained on
{manifest.trained_on}.

`{manifest.training_command}`

How good it is, on what, and what that does not show: `evaluation.md`.

## Licence
{manifest.licence}. Cite: {manifest.citations[0]}.
"""


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(str(cell) for cell in line) + " |"


def _three(was_so: NDArray[np.bool_]) -> list[float] | None:
    if not len(was_so):
        return None
    one = metrics.share(was_so)
    return [round(number, 4) for number in (one.value, one.low, one.high)]


def _share(three: Sequence[float] | None) -> str:
    if three is None:
        return "none"
    value, low, high = three
    return percent(metrics.Estimate(value=value, low=low, high=high))
