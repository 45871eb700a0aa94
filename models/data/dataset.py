"""What every data set looks like to training, to evaluation and to the checks of explanations.

A data set gives cases, split by patient. A case is one clip with what is known of it: the values
of outputs (:mod:`models.tasks`), its view, an expert's tracings. What is not known is left out.

:func:`open_dataset` opens them by what a command line names:

- a folder of CAMUS (``index.tsv`` and ``volumes.tsv``): :mod:`models.data.camus`;
- ``DIR:cines`` or ``DIR:cines,frames=40,strength=0.6..1.2``: cines made from the patients of such
  a folder, :mod:`models.data.cines`;
- a folder that ``echonode dataset build`` made (``dataset.json``): :mod:`models.data.built`;
- ``simulated`` or ``simulated:clips=200,seed=7,views=a4c``: :mod:`models.data.simulated`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.clip import Clip
from models.finding import Evidence
from models.views import View

SPLITS = ("train", "held", "valid")
"""For weights; for choices and the width of intervals; for the one report at the end."""

SIMULATED = "simulated"
CINES = ":cines"

WALL = "wall"
"""A truth that is no output: thickness of the left ventricle's wall at end diastole, in mm."""


class DatasetError(Exception):
    """A data set cannot be used; the message names it, the place and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One clip with its truths.

    ``patient`` is the same for all clips of a patient, and no name. ``truths`` are values by
    output name, in the unit of :data:`models.tasks.TASKS`; 0.0 or 1.0 for scores. ``clip`` makes
    or reads the clip (it raises :class:`models.clip.ClipError`); ``tracings`` gives, for some of
    its frames, class indices in sector coordinates, (sector rows, sector columns) uint8.
    """

    patient: str
    name: str
    clip: Callable[[], Clip] = field(repr=False)
    truths: Mapping[str, float] = field(default_factory=dict)
    view: View | None = None
    tracings: Callable[[], Mapping[int, NDArray[np.uint8]]] | None = field(default=None, repr=False)


class Known(Protocol):
    """What evaluation needs of a case, of a clip or of an ECG: whose it is, and what is true."""

    @property
    def patient(self) -> str:
        """The same for all recordings of a patient, and no name."""

    @property
    def name(self) -> str:
        """To find it again."""

    @property
    def truths(self) -> Mapping[str, float]:
        """Values by output name."""


class Source(Protocol):
    """Cases by split, of clips or of ECGs; no patient is in two splits."""

    @property
    def name(self) -> str:
        """Short, for file names."""

    @property
    def title(self) -> str:
        """For a reader: which recordings, of where."""

    @property
    def evidence(self) -> Evidence:
        """Whether these are patients."""

    @property
    def licence(self) -> str:
        """What may be done with it and with weights that saw it."""

    @property
    def citation(self) -> str:
        """How to cite it; empty where there is nothing to cite."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of figures on this data must know."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of what the cases are made from."""

    def cases(self, split: str) -> Sequence[Known]:
        """The cases of a split of :data:`SPLITS`, in a fixed order.

        Raises
        ------
        DatasetError
            If there is no such split.
        """


class LazyTruths(Mapping[str, float]):
    """Truths that are measured or drawn when the first of them is asked for."""

    def __init__(self, measure: Callable[[], Mapping[str, float]]) -> None:
        self._measure = measure

    @cached_property
    def _known(self) -> Mapping[str, float]:
        return self._measure()

    def __getitem__(self, name: str) -> float:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return repr(dict(self._known))


class Dataset(Source, Protocol):
    """A data set of clips."""

    def cases(self, split: str) -> Sequence[Case]: ...  # narrower than :class:`Source`'s


def open_dataset(where: str) -> Dataset:
    """Open the data set that a command line names.

    Raises
    ------
    DatasetError
        If it is none, or a wrong one.
    """
    if where.split(":", maxsplit=1)[0] == SIMULATED:
        return _open("simulated", where)
    folder = Path(where)
    if is_camus(folder):
        return _open("camus", where)
    if is_camus(Path(where.rpartition(CINES)[0])):
        return _open("cines", where)
    if (folder / "dataset.json").is_file():
        return _open("built", where)
    raise DatasetError(
        f"{where}: no data set: it is neither a folder with dataset.json (make one with "
        f"`echonode dataset build`) nor one of CAMUS (DIR or DIR{CINES}), nor '{SIMULATED}:…'"
    )


def is_camus(folder: Path) -> bool:
    """Whether the tables of CAMUS lie there."""
    return (folder / "volumes.tsv").is_file() and (folder / "index.tsv").is_file()


def _open(kind: str, where: str) -> Dataset:
    # Each kind of data set is a module with open_dataset(where); only the one asked for is read.
    opened: Dataset = import_module(f"models.data.{kind}").open_dataset(where)
    return opened
