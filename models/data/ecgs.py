"""Data sets of ECGs: what training, evaluation and the checks of explanations take by one word.

    simulated-ecg
    simulated-ecg:records=200,seed=7,rate_hz=500,duration_s=10,noise=1
    DIR                a folder of WFDB records with ``index.tsv`` (diagnoses as SNOMED CT codes)
    DIR                a folder with ``ecgs.csv``: a recording a line, with what is known of it

A simulated case is a function of the options, the split and its number alone. Records with codes
are never trained on: all of them are of split "valid".

=========== ========= =======================================================================
option      without   meaning
=========== ========= =======================================================================
records     200       in each split
seed        0         another seed makes other hearts; no two splits share one
rate_hz     as drawn  samples a second
duration_s  as drawn  length
noise       as drawn  times the usual; 0: the heart alone
=========== ========= =======================================================================
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Protocol, overload

import numpy as np

import models.ecg.simulator
from models.data.dataset import SPLITS, DatasetError, LazyTruths, Source
from models.data.options import Readers, number, read_options, whole
from models.ecg.beats import Waves
from models.ecg.reading import read_ecg
from models.ecg.recording import Ecg
from models.ecg.simulator import SimulatedEcg, draw_wanted, simulate_ecg
from models.finding import Evidence, Kind
from models.tasks import ECG_TASKS

SIMULATED = "simulated-ecg"
CODED = "index.tsv"
LISTED = "ecgs.csv"

AGE = "age"
"""A truth that no ECG pack gives yet: years."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EcgCase:
    """One recording with its truths.

    ``patient`` is the same for all recordings of a patient, and no name. ``truths`` are values by
    output name (:data:`models.tasks.ECG_TASKS`), 0.0 or 1.0 for scores; what is not known is left
    out. ``ecg`` makes or reads the recording (it raises :class:`models.ecg.recording.EcgError`);
    ``waves`` are exact windows of its beats, None where nobody knows them.
    """

    patient: str
    name: str
    ecg: Callable[[], Ecg] = field(repr=False)
    truths: Mapping[str, float] = field(default_factory=dict)
    waves: Sequence[Waves] | None = field(default=None, repr=False)


class EcgDataset(Source, Protocol):
    """A data set of ECGs."""

    def cases(self, split: str) -> Sequence[EcgCase]: ...  # narrower than a source's


def open_ecgs(words: str) -> EcgDataset:
    """Open the data set that a command line names.

    Raises
    ------
    models.data.dataset.DatasetError
        If it is none, or a wrong one.
    """
    kind, _, rest = words.partition(":")
    if kind == SIMULATED:
        given = read_options(words, rest, _READERS)
        return SimulatedEcgs(options=replace(Options(), **given))
    folder = Path(words)
    if (folder / LISTED).is_file():
        return ListedEcgs(folder=folder)
    if (folder / CODED).is_file() and _CODES_COLUMN in _header(folder / CODED, "\t"):
        return CodedEcgs(folder=folder)
    raise DatasetError(
        f"{words}: no data set of ECGs: it is neither a folder with {LISTED}, nor one of WFDB "
        f"records with {CODED} (columns record, sex, {_CODES_COLUMN}), nor '{SIMULATED}:…'"
    )


def _check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise DatasetError(f"{name}: no split {split!r}; there are {', '.join(SPLITS)}")


# --- Simulated -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is behind the colon; see the module's table."""

    records: int = 200
    seed: int = 0
    rate_hz: float | None = None
    duration_s: float | None = None
    noise: float | None = None


_READERS: Readers = {
    "records": whole(1),
    "seed": whole(0),
    "rate_hz": number(100, 4000),
    "duration_s": number(2, 120),
    "noise": number(0, 5),
}


@dataclass(frozen=True, kw_only=True)
class SimulatedEcgs:
    """Recordings of drawn hearts, whose truth is exact."""

    options: Options
    name: str = SIMULATED
    evidence: Evidence = Evidence.SIMULATED
    licence: str = "free: no patient's recording is in it"
    citation: str = ""
    caveats: tuple[str, ...] = (
        "Simulated hearts: figures on them say nothing of patients.",
        "Each recording is a patient of its own.",
    )

    @property
    def title(self) -> str:
        """Which recordings these are."""
        given = self.options
        return f"Simulated ECGs: {given.records} in each split, seed {given.seed}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the options and of the simulator's source."""
        digest = hashlib.sha256(repr(self.options).encode())
        for source in sorted(Path(models.ecg.simulator.__path__[0]).glob("*.py")):
            digest.update(source.read_bytes())
        return digest.hexdigest()

    def cases(self, split: str) -> Sequence[EcgCase]:
        """The cases of a split; nothing is drawn before a case is asked for it."""
        _check_split(self.name, split)
        return tuple(self._case(split, one) for one in range(self.options.records))

    def _case(self, split: str, one: int) -> EcgCase:
        name = f"{split}-{one:05d}"
        seed = ((self.options.seed * len(SPLITS) + SPLITS.index(split) + 1) << 32) + one
        return EcgCase(
            patient=name,
            name=name,
            ecg=partial(_drawn_ecg, seed, self.options),
            truths=LazyTruths(lambda: _drawn(seed, self.options).truths),
            waves=_LazyWaves(lambda: _drawn(seed, self.options).waves),
        )


class _LazyWaves(Sequence[Waves]):
    """Waves of a recording that is drawn when the first of them is asked for."""

    def __init__(self, draw: Callable[[], tuple[Waves, ...]]) -> None:
        self._draw = draw

    @cached_property
    def _known(self) -> tuple[Waves, ...]:
        return self._draw()

    @overload
    def __getitem__(self, index: int) -> Waves: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Waves, ...]: ...
    def __getitem__(self, index: int | slice) -> Waves | tuple[Waves, ...]:
        return self._known[index]

    def __iter__(self) -> Iterator[Waves]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _drawn_ecg(seed: int, given: Options) -> Ecg:
    return _drawn(seed, given).ecg


@lru_cache(maxsize=4)
def _drawn(seed: int, given: Options) -> SimulatedEcg:
    rng = np.random.default_rng(seed)
    wanted = draw_wanted(rng, rate_hz=given.rate_hz, duration_s=given.duration_s)
    if given.noise is not None:
        wanted = replace(wanted, noise=given.noise)
    return simulate_ecg(wanted, seed)


# --- WFDB records with SNOMED CT codes -------------------------------------------------------

_CODES_COLUMN = "snomed_dx"

#: Which codes say yes; which leave it open, being less exact, or something that looks alike.
#: Names and codes: the tables of the PhysioNet/Computing in Cardiology Challenge 2021.
_SAID_BY: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    # A prolonged PR interval, or an AV block of no named degree, may be one.
    "first_degree_av_block": (frozenset({"270492004"}), frozenset({"164947007", "233917008"})),
    # A bundle branch block of no named side is one of the two.
    "rbbb": (frozenset({"59118001", "713427006"}), frozenset({"6374002"})),
    "lbbb": (frozenset({"164909002", "733534002"}), frozenset({"6374002"})),
    "sinus_bradycardia": (frozenset({"426177001"}), frozenset({"426627000"})),
    # Flutter is neither.
    "atrial_fibrillation": (
        frozenset({"164889003", "195080001", "282825002", "314208002", "426749004"}),
        frozenset({"164890007"}),
    ),
    "sinus_tachycardia": (frozenset({"427084000"}), frozenset({"3424008"})),
}

#: Outputs that a collection's list of labels has no word for: there a missing code says nothing.
#: CPSC2018 knows nine: normal, AF, 1dAVb, LBBB, RBBB, premature beats and ST changes (Liu et al.
#: 2018, J Med Imaging Health Inform 8:1368).
_NO_WORD_FOR: Mapping[str, frozenset[str]] = {
    "CPSC2018": frozenset({"sinus_bradycardia", "sinus_tachycardia"}),
}

_SEXES = {"male": 1.0, "m": 1.0, "female": 0.0, "f": 0.0}


def truths_of_codes(codes: Sequence[str], collection: str = "") -> dict[str, float]:
    """What a list of SNOMED CT codes says of the six scores: 1, 0, or left out.

    A missing code says no, since such lists name all that was found; left out is a score where a
    code leaves it open (flutter, for fibrillation), or that the collection has no label for.
    """
    given = frozenset(codes)
    truths = {}
    for output, (yes, open_) in _SAID_BY.items():
        if given & yes:
            truths[output] = 1.0
        elif not given & open_ and output not in _NO_WORD_FOR.get(collection, ()):
            truths[output] = 0.0
    return truths


@dataclass(frozen=True, kw_only=True)
class CodedEcgs:
    """A folder of WFDB records; ``index.tsv`` has record, sex, snomed_dx, and may have more."""

    folder: Path
    evidence: Evidence = Evidence.PATIENTS
    licence: str = "as the collections say: CC BY 4.0 for those of the Challenge 2021"
    citation: str = (
        "M. Reyna, N. Sadr, E. Perez Alday, et al., Will Two Do? Varying Dimensions in "
        "Electrocardiography: The PhysioNet/Computing in Cardiology Challenge 2021, Computing in "
        "Cardiology 48, 2021"
    )
    caveats: tuple[str, ...] = (
        "A code that is missing counts as no: the lists name what was found.",
        "CPSC2018 has no label for sinus bradycardia and tachycardia: there they are not known.",
        "Atrial flutter counts neither for nor against atrial fibrillation.",
        "The lists do not say which records are of one patient; each counts as a patient.",
    )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def title(self) -> str:
        """Which recordings these are."""
        lines = self._lines
        collections = dict.fromkeys(line.get("collection") or "unnamed" for line in lines)
        return f"{len(lines)} real 12-lead ECGs ({', '.join(collections)})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the table and of every file of its records."""
        digest = hashlib.sha256((self.folder / CODED).read_bytes())
        for line in self._lines:
            for file in sorted(self.folder.glob(f"{line['record']}.*")):
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def cases(self, split: str) -> Sequence[EcgCase]:
        """All of them in "valid", in the table's order; none in the others."""
        _check_split(self.name, split)
        if split != "valid":
            return ()
        return tuple(self._case(line) for line in self._lines)

    @cached_property
    def _lines(self) -> list[dict[str, str]]:
        lines = _table(self.folder / CODED, "\t", ("record", _CODES_COLUMN))
        for line in lines:
            _check_inside(self.folder, CODED, f"{line['record']}.hea")
        return lines

    def _case(self, line: Mapping[str, str]) -> EcgCase:
        codes = [code.strip() for code in line[_CODES_COLUMN].split(",") if code.strip()]
        truths = truths_of_codes(codes, line.get("collection") or "")
        sex = _SEXES.get((line.get("sex") or "").strip().lower())
        if sex is not None:
            truths["sex"] = sex
        age = _number_or_none(line.get("age") or "")
        if age is not None:
            truths[AGE] = age
        record = line["record"]
        return EcgCase(
            patient=record,
            name=record,
            ecg=partial(read_ecg, self.folder / f"{record}.hea"),
            truths=truths,
        )


# --- A table of one's own --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ListedEcgs:
    """A folder with ``ecgs.csv``: columns file, and as known patient, split and outputs by name.

    Files are DICOM, WFDB headers or CSV, named from the folder on. Without ``split`` a line is of
    "valid", without ``patient`` its file is a patient. An empty cell is not known.
    """

    folder: Path
    evidence: Evidence = Evidence.PATIENTS
    licence: str = "not said: ask whoever keeps the folder"
    citation: str = ""
    caveats: tuple[str, ...] = ("Truths are what the folder's table says; nobody checked them.",)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def title(self) -> str:
        """Which recordings these are."""
        return f"{len(self._lines)} ECGs of {self.folder.name}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the table and of every file that it names."""
        digest = hashlib.sha256((self.folder / LISTED).read_bytes())
        for line in self._lines:
            digest.update((self.folder / line["file"]).read_bytes())
        return digest.hexdigest()

    def cases(self, split: str) -> Sequence[EcgCase]:
        """The cases of a split, in the table's order."""
        _check_split(self.name, split)
        return tuple(
            EcgCase(
                patient=_patient(line),
                name=line["file"],
                ecg=partial(read_ecg, self.folder / line["file"]),
                truths=_listed_truths(self.folder, place, line),
            )
            for place, line in enumerate(self._lines, start=2)
            if _split(line) == split
        )

    @cached_property
    def _lines(self) -> list[dict[str, str]]:
        lines = _table(self.folder / LISTED, ",", ("file",))
        where: dict[str, str] = {}
        for place, line in enumerate(lines, start=2):
            _check_inside(self.folder, LISTED, line["file"])
            _check_split(f"{self.folder / LISTED}, line {place}", _split(line))
            if where.setdefault(_patient(line), _split(line)) != _split(line):
                raise DatasetError(
                    f"{self.folder / LISTED}, line {place}: its patient is already in another "
                    "split; put all recordings of a patient into one"
                )
        return lines


def _split(line: Mapping[str, str]) -> str:
    return (line.get("split") or "").strip() or "valid"


def _patient(line: Mapping[str, str]) -> str:
    return (line.get("patient") or "").strip() or line["file"]


def _listed_truths(folder: Path, place: int, line: Mapping[str, str]) -> dict[str, float]:
    truths = {}
    for output, task in ECG_TASKS.items():
        text = (line.get(output) or "").strip()
        if not text:
            continue
        value = _number_or_none(text)
        score = task.kind is Kind.SCORE
        if value is None or not task.low <= value <= task.high or (score and value not in (0, 1)):
            wanted = "0 or 1" if score else f"{task.low:g} to {task.high:g} {task.unit}"
            raise DatasetError(f"{folder / LISTED}, line {place}: {output}: give {wanted}")
        truths[output] = value
    return truths


def _number_or_none(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _header(file: Path, separator: str) -> list[str]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader(stream, delimiter=separator), [])


def _table(file: Path, separator: str, needed: Sequence[str]) -> list[dict[str, str]]:
    missing = [name for name in needed if name not in _header(file, separator)]
    if missing:
        raise DatasetError(f"{file}: no column {', '.join(missing)}")
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.DictReader(stream, delimiter=separator))
    for place, line in enumerate(lines, start=2):
        if any(line[name] is None for name in needed):
            raise DatasetError(f"{file}, line {place}: too few cells")
    return lines


def _check_inside(folder: Path, table: str, file: str) -> None:
    if not (folder / file).resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{folder / table}: {file} lies outside the folder")
    if not (folder / file).is_file():
        raise DatasetError(f"{folder / table}: {file} is not there")
