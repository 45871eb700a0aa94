"""A training set made from a hospital's own clips and a table of reported values.

After Ghorbani et al. 2020: labels come from existing reports; of each clip twenty frames are kept,
100 ms apart from the first on, blanked outside the scanning sector; patients are split, not clips.

The folder
    ``dataset.json``
        what it is: format, title, licence, splits, counts, labels, how it was made, fingerprint;
        written last, so a folder without it is not finished
    ``cases.jsonl``
        a clip a line: patient, split, truths, view, size, times, spacing, checksum of its frames
    ``frames/*.npz``
        ``frames`` (n, rows, columns) uint8, zero outside ``mask`` (rows, columns) bool
    ``DATASHEET.md``, ``*.png``
        the same for a reader (:mod:`models.data.sheet`)

Frames are kept as compressed NumPy arrays: lossless, the sector's mask beside them, no metadata
that could carry a name, and nothing to decode. A clip comes back with its mask, spacing and mode,
so a reader of frames 100 ms apart sees the very pixels that it would have seen in the object.

Nothing that identifies is kept. Patients, studies and clips are named by a keyed hash
(HMAC-SHA256) whose key is thrown away when the folder is finished: nobody can try identifiers
against it, we neither. No date, no UID, no text of a header is written; makers are those of a
list. What stands inside the scanning sector stays: look at the frames before you hand them on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset as Header

from models.clip import Clip, ClipError, Mode, PixelSpacing, Sector, read_clip, read_header
from models.data.dataset import SPLITS, Case, DatasetError
from models.data.labels import LabelRow, LabelTable
from models.finding import Evidence
from models.preprocess import VERSION
from models.readers.base import spread
from models.simulator.dicom import MANUFACTURER as SIMULATOR
from models.tasks import TASKS
from models.views import View, ViewCall

FORMAT = 1
FRAMES, INTERVAL_MS = 20, 100.0
"""Ghorbani et al. 2020, Methods."""

_FEWEST = 5  # as models.readers.regression: of a short clip, so many frames spread over it
_STATE, _JOURNAL, _CASES = "building.json", "building.jsonl", "cases.jsonl"
_DATASET, _PART = "dataset.json", ".part"
_MAKERS = {
    "philips": "Philips",
    "atl": "Philips",
    "ge ": "GE",
    "gems": "GE",
    "vingmed": "GE",
    "siemens": "Siemens",
    "acuson": "Siemens",
    "sonosite": "SonoSite",
    "fujifilm": "Fujifilm",
    "toshiba": "Canon",
    "canon": "Canon",
    "hitachi": "Hitachi",
    "aloka": "Hitachi",
    "esaote": "Esaote",
    "mindray": "Mindray",
    "samsung": "Samsung",
    "medison": "Samsung",
    SIMULATOR: "simulator",
}
"""By the beginning of Manufacturer in lower case: the words of a header are not kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a data set is made.

    ``views`` empty takes every view and names none. ``shares`` are those of :data:`SPLITS`.
    """

    title: str = "Clips with reported values"
    licence: str = "not stated: ask whom you have it from"
    views: tuple[View, ...] = (View.A4C,)
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    allow_uncertain_view: bool = False

    def __post_init__(self) -> None:
        """Raise DatasetError where the shares are none."""
        if len(self.shares) != len(SPLITS) or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise DatasetError(
                f"splits are {len(SPLITS)} shares ({', '.join(SPLITS)}), such as 0.8,0.1,0.1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An object that may be taken; ``call`` is its view where somebody has named it already."""

    path: Path
    call: ViewCall | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """What came of it. ``unreadable`` are paths and reasons, for the terminal and no file."""

    folder: Path
    description: Mapping[str, Any]
    unreadable: tuple[tuple[Path, str], ...] = ()


class _LeftOut(Exception):  # noqa: N818 - it is no error
    """An object is not taken; the message is the reason, and names nobody."""


def build_dataset(
    candidates: Iterable[Candidate],
    labels: LabelTable,
    out: Path,
    recipe: Recipe,
    *,
    name_view: Callable[[Clip], ViewCall] | None = None,
    refuse: Callable[[Header], str | None] = lambda _header: None,
    progress: Callable[[int], None] = lambda _count: None,
) -> Built:
    """Make a data set in a new folder, or go on with one that was interrupted.

    Parameters
    ----------
    candidates
        The objects, in an order that stays.
    name_view
        Names views where neither the table nor the candidate does.
    refuse
        Why an object must not be taken, by its header; None where it may.
    progress
        Is told after each object how many were looked at.

    Raises
    ------
    DatasetError
        If the folder holds something else, no clip is left, or a view must be named and
        ``name_view`` is missing.
    """
    builder = _Builder(labels, out, recipe, name_view, refuse)
    for count, candidate in enumerate(candidates, start=1):
        builder.take(candidate, count)
        progress(count)
    return builder.finish()


def split_patients(orders: Mapping[str, str], shares: Sequence[float]) -> dict[str, str]:
    """The split of each patient: sorted by their order, the first share is for training, and so on.

    Rounded to whole patients; a split with a share gets at least one where there are enough.
    """
    patients = sorted(orders, key=lambda patient: (orders[patient], patient))
    wanted = [index for index, share in enumerate(shares) if share > 0]
    counts = [0] * len(shares)
    for index in wanted[: len(patients)]:
        counts[index] = 1
    total = sum(shares)
    while sum(counts) < len(patients):
        lacking = [shares[index] / total * len(patients) - counts[index] for index in wanted]
        counts[wanted[int(np.argmax(lacking))]] += 1
    names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(patients, names, strict=True))


class _Builder:
    """Takes objects one by one; what is done is in the journal, so that nothing is done twice."""

    def __init__(
        self,
        labels: LabelTable,
        out: Path,
        recipe: Recipe,
        name_view: Callable[[Clip], ViewCall] | None,
        refuse: Callable[[Header], str | None],
    ) -> None:
        self._labels, self._out, self._recipe = labels, out, recipe
        self._name_view, self._refuse = name_view, refuse
        self._key = _begin(out, recipe, labels)
        self._done = _read_lines(out / _JOURNAL)
        self._seen: set[str] = set()
        self._left: Counter[str] = Counter()
        self._unreadable: list[tuple[int, Path, str]] = []
        self._used: set[int] = set()

    def take(self, candidate: Candidate, number: int) -> None:
        """Look at an object: journal it as a case or as left out."""
        try:
            header = read_header(candidate.path)
            name = self._hash("clip", _text(header, "SOPInstanceUID") or str(candidate.path))
            if name in self._seen:
                self._left["it has the SOP Instance UID of another"] += 1
                return
            self._seen.add(name)
            row = self._labels.row_of(header)
            if row is not None:
                self._used.add(row.line)
            if name not in self._done:
                self._write(self._line(candidate, header, row, name))
            if "left_out" in self._done[name]:
                self._left[self._done[name]["left_out"]] += 1
        except ClipError as error:
            self._unreadable.append((number, candidate.path, _without_values(str(error))))

    def _line(
        self, candidate: Candidate, header: Header, row: LabelRow | None, name: str
    ) -> dict[str, Any]:
        """What the journal says of an object that could be read."""
        try:
            return self._case(candidate, header, row, name)
        except _LeftOut as reason:
            return {"case": name, "left_out": str(reason)}

    def _case(
        self, candidate: Candidate, header: Header, row: LabelRow | None, name: str
    ) -> dict[str, Any]:
        refused = self._refuse(header)
        if refused:
            raise _LeftOut(refused)
        if row is None:
            raise _LeftOut(f"no line of the table has its {self._labels.key}")
        if not row.values:
            raise _LeftOut("its line of the table has no value")
        clip = read_clip(candidate.path)
        if clip.frame_count == 1:
            raise _LeftOut("it is a still")
        if clip.mode not in (Mode.TWO_D, Mode.UNKNOWN):
            raise _LeftOut(f"its mode is {clip.mode.value}")
        if not clip.sector.mask.any():
            raise _LeftOut("no ultrasound picture is seen in it")
        call = self._view(clip, candidate, row)
        indices = sampled(clip)
        frames = clip.frames(indices)
        target = self._out / "frames" / f"{name}.npz"
        _save(target, frames, clip.sector.mask)
        who = row.patient or _patient_of(header)
        study = _text(header, "StudyInstanceUID") or _text(header, "SOPInstanceUID")
        return {
            "case": name,
            "patient": self._hash("patient", who or study),
            "study": self._hash("study", study),
            "order": _order(self._recipe.seed, who or study),
            "truths": dict(row.values),
            "view": None if call is None else call.view.value,
            "view_score": None if call is None else round(call.score, 4),
            "maker": _maker(header),
            "mode": clip.mode.value,
            "frames_per_second": _rate(clip),
            "source_frames": clip.frame_count,
            "frames": len(indices),
            "rows": frames.shape[1],
            "columns": frames.shape[2],
            "times_ms": [round(float(clip.time_axis.times_ms[index]), 3) for index in indices],
            "row_mm": clip.spacing.row_mm,
            "column_mm": clip.spacing.column_mm,
            "spacing_trusted": clip.spacing.trusted,
            "spacing_reason": clip.spacing.reason,
            "heart_rate_bpm": clip.heart_rate_bpm,
            "lossy": clip.lossy,
            "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        }

    def _view(self, clip: Clip, candidate: Candidate, row: LabelRow) -> ViewCall | None:
        views = self._recipe.views
        if row.view is not None:
            call = ViewCall(view=row.view, score=1.0, certain=True, reason="the table says so")
        elif candidate.call is not None:
            call = candidate.call
        elif not views:
            return None
        elif self._name_view is None:
            raise DatasetError("no view is known, and nothing is there to name it")
        else:
            call = self._name_view(clip)
        if views and call.view not in views:
            raise _LeftOut(f"its view is {call.view.value}")
        if views and not call.certain and not self._recipe.allow_uncertain_view:
            raise _LeftOut("its view is uncertain")
        return call

    def _hash(self, kind: str, word: str) -> str:
        return hmac.new(self._key, f"{kind}|{word}".encode(), hashlib.sha256).hexdigest()[:20]

    def _write(self, line: dict[str, Any]) -> None:
        handle = os.open(self._out / _JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")
        self._done[line["case"]] = line

    def finish(self) -> Built:
        """Split, count, write the sheet, and last of all ``dataset.json``."""
        from models.data.sheet import write_sheet

        lines = [
            line
            for line in self._done.values()
            if line["case"] in self._seen and "left_out" not in line
        ]
        unreadable = tuple((path, reason) for _, path, reason in self._unreadable)
        left = Counter(self._left)
        left.update(f"it cannot be read: {reason}" for _, _, reason in self._unreadable)
        if not lines:
            _give_up(self._out)
            reasons = "; ".join(f"{count}: {reason}" for reason, count in left.most_common(5))
            raise DatasetError(
                f"{self._out}: no clip is left to train on ({reasons or 'none was'})"
            )
        splits = split_patients(
            {line["patient"]: line["order"] for line in lines}, self._recipe.shares
        )
        cases = [
            {"split": splits[line["patient"]], **{k: v for k, v in line.items() if k != "order"}}
            for line in lines
        ]
        cases.sort(key=lambda one: (SPLITS.index(one["split"]), one["patient"], one["case"]))
        kept = {case["case"] for case in cases}
        for file in (self._out / "frames").iterdir():
            if file.stem not in kept:
                file.unlink()
        text = "".join(json.dumps(case) + "\n" for case in cases)
        _replace(self._out / _CASES, text.encode())
        description = self._describe(cases, left, hashlib.sha256(text.encode()).hexdigest())
        write_sheet(
            self._out,
            description,
            cases,
            unreadable=[(number, reason) for number, _, reason in self._unreadable],
        )
        # The key of the hashes goes first: no finished folder holds it. What is killed here finds
        # the folder finished by the next run: see _begin.
        text = json.dumps(description, indent=2) + "\n"
        last = _write_beside(self._out / _DATASET, text.encode())
        (self._out / _JOURNAL).unlink()
        (self._out / _STATE).unlink()
        last.replace(self._out / _DATASET)
        return Built(folder=self._out, description=description, unreadable=unreadable)

    def _describe(
        self, cases: Sequence[Mapping[str, Any]], left: Counter[str], fingerprint: str
    ) -> dict[str, Any]:
        recipe, table = self._recipe, self._labels
        by_split = {split: [one for one in cases if one["split"] == split] for split in SPLITS}
        simulated = any(case["maker"] == "simulator" for case in cases)
        without = len(table.rows) - len(self._used)
        return {
            "format": FORMAT,
            "title": recipe.title,
            "licence": recipe.licence,
            "evidence": (Evidence.SIMULATED if simulated else Evidence.PATIENTS).value,
            "fingerprint": fingerprint,
            "seed": recipe.seed,
            "shares": list(recipe.shares),
            "views": [view.value for view in recipe.views],
            "allow_uncertain_view": recipe.allow_uncertain_view,
            "preprocessing": VERSION,
            "sampling": {"frames": FRAMES, "interval_ms": INTERVAL_MS},
            "splits": {split: _counts(lines) for split, lines in by_split.items()},
            "labels": {
                name: {
                    "title": TASKS[name].title,
                    "unit": TASKS[name].unit,
                    "known": {
                        split: sum(name in case["truths"] for case in lines)
                        for split, lines in by_split.items()
                    },
                }
                for name in TASKS
                if name in table.columns.values()
            },
            "left_out": dict(left.most_common()),
            "table": {
                "key": table.key,
                "lines": len(table.rows),
                "lines_without_object": without,
                "problems": list(table.problems),
            },
        }


def _counts(cases: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "patients": len({case["patient"] for case in cases}),
        "studies": len({case["study"] for case in cases}),
        "clips": len(cases),
        "frames": sum(case["frames"] for case in cases),
    }


def sampled(clip: Clip) -> tuple[int, ...]:
    """The frames of a clip that are kept, by the rule of the reader that will see them."""
    indices = clip.time_axis.sample(INTERVAL_MS, FRAMES)
    if len(indices) < min(_FEWEST, clip.frame_count):
        return spread(clip.frame_count, min(_FEWEST, clip.frame_count))
    return indices


@dataclass(frozen=True, kw_only=True)
class BuiltDataset:
    """A finished folder as a data set."""

    folder: Path
    description: Mapping[str, Any] = field(repr=False)
    name: str = "built"
    citation: str = ""

    @property
    def title(self) -> str:
        """As given when it was made."""
        return str(self.description["title"])

    @property
    def licence(self) -> str:
        """As given when it was made."""
        return str(self.description["licence"])

    @property
    def evidence(self) -> Evidence:
        """Patients, unless a simulator's clip is among them."""
        return Evidence(self.description["evidence"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``cases.jsonl``, which holds the checksum of every clip's frames."""
        return str(self.description["fingerprint"])

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of figures on it must know."""
        return (
            "Truth is what reports say of a study; not every clip of it shows it.",
            "Who is a patient is told by the identifier in the objects or the table.",
        )

    @cached_property
    def _lines(self) -> tuple[Mapping[str, Any], ...]:
        text = _read(self.folder / _CASES)
        if hashlib.sha256(text).hexdigest() != self.fingerprint:
            raise DatasetError(f"{self.folder}: {_CASES} is not the one that was made; make it new")
        return tuple(json.loads(line) for line in text.splitlines())

    def cases(self, split: str) -> tuple[Case, ...]:
        """The clips of a split.

        Raises
        ------
        models.data.dataset.DatasetError
            If there is no such split, or the folder was changed.
        """
        if split not in SPLITS:
            raise DatasetError(f"{self.folder}: no split {split!r}; there are {', '.join(SPLITS)}")
        return tuple(
            Case(
                patient=line["patient"],
                name=line["case"],
                clip=partial(_clip, self.folder, line),
                truths=line["truths"],
                view=None if line["view"] is None else View(line["view"]),
            )
            for line in self._lines
            if line["split"] == split
        )


def open_dataset(where: str) -> BuiltDataset:
    """The data set in a folder.

    Raises
    ------
    models.data.dataset.DatasetError
        If it is not finished, broken, or of another format.
    """
    folder = Path(where)
    try:
        description = json.loads(_read(folder / _DATASET))
        if description["format"] != FORMAT:
            raise DatasetError(
                f"{where}: format {description['format']}, and this echonode reads {FORMAT}; "
                "make it new"
            )
        opened = BuiltDataset(folder=folder, description=description)
        _ = opened.title, opened.licence, opened.evidence, opened.fingerprint
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{where}: dataset.json is broken; make it new") from error
    return opened


def _clip(folder: Path, line: Mapping[str, Any]) -> Clip:
    path = folder / "frames" / f"{line['case']}.npz"
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != line["sha256"]:
            raise ClipError(f"{path}: not the frames that were kept; make the data set new")
        with np.load(path, allow_pickle=False) as arrays:
            frames, mask = arrays["frames"], arrays["mask"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ClipError(f"{path}: cannot be read; make the data set new") from error
    rows, columns = mask.shape
    clip = Clip.from_frames(
        frames,
        frame_time_ms=INTERVAL_MS,
        mode=Mode(line["mode"]),
        heart_rate_bpm=line["heart_rate_bpm"],
        sector=Sector(top=0, left=0, bottom=rows, right=columns, mask=mask, source="pixels"),
    )
    spacing = PixelSpacing(
        row_mm=line["row_mm"],
        column_mm=line["column_mm"],
        trusted=line["spacing_trusted"],
        reason=line["spacing_reason"],
    )
    return replace(clip, spacing=spacing, lossy=line["lossy"])


def _without_values(reason: str) -> str:
    """A reason why an object cannot be read, without what its header says there."""
    return re.sub(r"'[^']*'|(?<=transfer syntax )\S+(?= is not known)", "…", reason)


def _begin(out: Path, recipe: Recipe, labels: LabelTable) -> bytes:
    """Make the folder, or find it half made by the same recipe; return the key of its hashes."""
    wanted = hashlib.sha256(
        repr((FORMAT, VERSION, recipe, labels.key, sorted(labels.rows.items()))).encode()
    ).hexdigest()
    state = out / _STATE
    try:
        last = out / (_DATASET + _PART)
        if last.exists() and not state.exists():
            last.replace(out / _DATASET)
        if (out / _DATASET).exists():
            raise DatasetError(f"{out}: a data set is there already; name another folder")
        if state.is_file():
            known = json.loads(state.read_bytes())
            if known["recipe"] != wanted:
                raise DatasetError(
                    f"{out}: was begun with another table or other options; name another folder, "
                    "or delete it"
                )
            return bytes.fromhex(known["key"])
        if out.is_dir() and any(out.iterdir()):
            raise DatasetError(f"{out}: is not empty; name another folder")
        (out / "frames").mkdir(parents=True, exist_ok=True)
        key = secrets.token_bytes(32)
        _replace(state, json.dumps({"recipe": wanted, "key": key.hex()}).encode(), mode=0o600)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be made: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise DatasetError(f"{out}: {_STATE} is broken; delete the folder") from error
    return key


def _give_up(out: Path) -> None:
    """Leave nothing of a data set without a clip."""
    for file in (*(out / "frames").iterdir(), out / _STATE, out / _JOURNAL):
        file.unlink(missing_ok=True)
    (out / "frames").rmdir()
    out.rmdir()


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The journal; a last line that a kill cut short is not there."""
    lines: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return lines
    whole = b"".join(line for line in path.read_bytes().splitlines(True) if line.endswith(b"\n"))
    path.write_bytes(whole)
    for text in whole.splitlines():
        line = json.loads(text)
        lines[line["case"]] = line
    return lines


def _save(path: Path, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    partial_path = path.with_suffix(_PART)
    with partial_path.open("wb") as file:
        np.savez_compressed(file, frames=frames, mask=mask)
    partial_path.replace(path)


def _replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    _write_beside(path, data, mode=mode).replace(path)


def _write_beside(path: Path, data: bytes, *, mode: int = 0o644) -> Path:
    """Write what is to take the file's place, for good, and say where it lies."""
    temporary = path.with_name(path.name + _PART)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error


def _text(header: Header, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()


def _patient_of(header: Header) -> str:
    """Who it is: the identifier and who gave it, or else name and date of birth; "" if nothing."""
    number = _text(header, "PatientID")
    if number:
        return f"{_text(header, 'IssuerOfPatientID')}|{number}"
    words = _text(header, "PatientName"), _text(header, "PatientBirthDate")
    return "|".join(words) if all(words) else ""


def _order(seed: int, who: str) -> str:
    """Where a patient stands when patients are split: the same in every run with this seed."""
    return hashlib.sha256(f"{seed}|{who}".encode()).hexdigest()


def _maker(header: Header) -> str:
    stated = _text(header, "Manufacturer").casefold() + " "
    return next((name for start, name in _MAKERS.items() if stated.startswith(start)), "other")


def _rate(clip: Clip) -> float | None:
    step = clip.time_axis.frame_time_ms
    return round(1000.0 / step, 1) if clip.time_axis.trusted and step > 0 else None
