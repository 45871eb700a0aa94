"""Simulated clips as a data set, made when they are asked for.

    simulated
    simulated:clips=200,seed=7,views=a4c
    simulated:clips=50,views=a4c+a2c+other,frames=40,frame_time_ms=33,lead=0.5

Each case is a function of the options, the split and its number alone. A clip goes the way of a
hospital's: it is written as a DICOM object with JPEG frames, read back, and its sector is found.
The last clip made is kept, so that a clip and its tracings cost one drawing.

============= =========== =====================================================================
option        without it  meaning
============= =========== =====================================================================
clips         200         in each split
seed          0           another seed makes other hearts; no two splits share one
views         a4c         labels joined by "+", or "all"; the cases take turns among them
frames        20          of a moving picture
frame_time_ms 100         from a frame to the next: Ghorbani et al. 2020 read one each 100 ms
lead          as drawn    share of the hearts with a pacemaker lead (0 to 1)
size          as drawn    rows x columns of the screen, such as 300x400
============= =========== =====================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import models.simulator
from models.clip import Clip, read_clip
from models.data.camus import CLASSES
from models.data.dataset import SIMULATED, SPLITS, WALL, Case, DatasetError, LazyTruths
from models.data.options import Readers, number, read_options, whole
from models.finding import Evidence
from models.simulator import SimulatedClip, Structure, Truth, simulate
from models.simulator.dicom import to_bytes, to_dicom
from models.views import View

_STUDY = "1.2.826.0.1.3680043.8.498.2"  # of no patient; each clip has an instance UID of its own
_UNMOVED = (View.PW, View.CW, View.M_MODE, View.OTHER)  # stills, or as many frames as they like
_SMALL = (96, 128)
_TRACED = {
    Structure.LV_CAVITY: CLASSES.index("cavity"),
    Structure.MYOCARDIUM: CLASSES.index("myocardium"),
    Structure.LEFT_ATRIUM: CLASSES.index("atrium"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is behind the colon; see the module's table."""

    clips: int = 200
    seed: int = 0
    views: tuple[View, ...] = (View.A4C,)
    frames: int = 20
    frame_time_ms: float = 100.0
    lead: float | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class SimulatedDataset:
    """Clips of drawn hearts, whose truth is exact and whose look is a phantom's."""

    options: Options
    name: str = "simulated"
    evidence: Evidence = Evidence.SIMULATED
    licence: str = "free: no patient's picture is in it"
    citation: str = ""
    caveats: tuple[str, ...] = (
        "Simulated hearts: figures on them say nothing of patients.",
        "Each clip is a patient of its own.",
    )

    @property
    def title(self) -> str:
        """Which clips these are."""
        given = self.options
        views = ", ".join(view.value for view in given.views)
        return (
            f"Simulated clips ({views}): {given.clips} in each split, {given.frames} frames "
            f"{given.frame_time_ms:g} ms apart, seed {given.seed}"
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the options and of the simulator's source."""
        digest = hashlib.sha256(repr(self.options).encode())
        for source in sorted(Path(models.simulator.__path__[0]).glob("*.py")):
            digest.update(source.read_bytes())
        return digest.hexdigest()

    def cases(self, split: str) -> Sequence[Case]:
        """The cases of a split; nothing is drawn before a case is asked for it.

        Raises
        ------
        models.data.dataset.DatasetError
            If there is no such split.
        """
        if split not in SPLITS:
            raise DatasetError(f"{self.name}: no split {split!r}; there are {', '.join(SPLITS)}")
        return tuple(self._case(split, number) for number in range(self.options.clips))

    def _case(self, split: str, number: int) -> Case:
        given = self.options
        view = given.views[number % len(given.views)]
        seed = case_seed(given.seed, split, number)
        name = f"{split}-{number:05d}"
        return Case(
            patient=name,
            name=name,
            clip=partial(_clip, view, seed, given),
            truths=LazyTruths(partial(_truths, view, seed, given)),
            view=view,
            tracings=None if view in _UNMOVED else partial(_tracings, view, seed, given),
        )


def open_dataset(where: str) -> SimulatedDataset:
    """The data set of ``simulated`` or ``simulated:OPTION=VALUE,…``.

    Raises
    ------
    models.data.dataset.DatasetError
        If an option is unknown, given twice, or its value is none.
    """
    kind, _, rest = where.partition(":")
    if kind != SIMULATED:
        raise DatasetError(f"{where}: not a simulated data set")
    given = read_options(where, rest, _READERS)
    return SimulatedDataset(options=replace(Options(), **given))


def case_seed(seed: int, split: str, number: int) -> int:
    """The simulator's seed of a case: another one for every seed, split and number."""
    return ((seed * len(SPLITS) + SPLITS.index(split) + 1) << 32) + number


def _truths(view: View, seed: int, given: Options) -> dict[str, float]:
    """The heart is drawn before the picture: one small frame is enough to know it."""
    return truths_of(_drawn(view, seed, given, frames=1, size=_SMALL, masks=False).truth)


def truths_of(truth: Truth) -> dict[str, float]:
    """A simulated clip's truths by output name, in the units of :data:`models.tasks.TASKS`."""
    wall = {} if truth.wall_cm is None else {WALL: 10.0 * truth.wall_cm}
    return truth.labels() | wall


def _clip(view: View, seed: int, given: Options) -> Clip:
    return _made(view, seed, given)[1]


def _tracings(view: View, seed: int, given: Options) -> dict[int, NDArray[np.uint8]]:
    drawn, clip = _made(view, seed, given)
    if drawn.truth.masks is None:
        return {}
    sector = clip.sector
    table = np.zeros(256, np.uint8)
    for structure, index in _TRACED.items():
        table[structure] = index
    box = np.s_[sector.top : sector.bottom, sector.left : sector.right]
    return {index: table[mask[box]] for index, mask in enumerate(drawn.truth.masks)}


@lru_cache(maxsize=1)
def _made(view: View, seed: int, given: Options) -> tuple[SimulatedClip, Clip]:
    frames = None if view in _UNMOVED else given.frames
    drawn = _drawn(view, seed, given, frames=frames, size=given.size, masks=True)
    return drawn, read_clip(to_bytes(to_dicom(drawn, study_uid=_STUDY)))


def _drawn(
    view: View,
    seed: int,
    given: Options,
    *,
    frames: int | None,
    size: tuple[int, int] | None,
    masks: bool,
) -> SimulatedClip:
    lead = None
    if given.lead is not None:
        lead = bool(np.random.default_rng([seed, 1]).random() < given.lead)
    return simulate(
        view,
        seed=seed,
        frames=frames,
        lead=lead,
        size=size,
        frame_time_ms=given.frame_time_ms,
        colour_flow=False,
        masks=masks,
    )


def _views(text: str) -> tuple[View, ...]:
    if text == "all":
        return tuple(View)
    try:
        return tuple(dict.fromkeys(View(label) for label in text.split("+")))
    except ValueError:
        known = ", ".join(view.value for view in View)
        raise ValueError(f"'all' or labels joined by '+' are wanted, of {known}") from None


def _size(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise ValueError("ROWSxCOLUMNS is wanted, such as 300x400")
    if not (64 <= int(rows) <= 4096 and 64 <= int(columns) <= 4096):
        raise ValueError("64 to 4096 pixels a side are wanted")
    return int(rows), int(columns)


_READERS: Readers = {
    "clips": whole(1),
    "seed": whole(0),
    "views": _views,
    "frames": whole(1),
    "frame_time_ms": number(5.0, 200.0),
    "lead": number(0.0, 1.0),
    "size": _size,
}
