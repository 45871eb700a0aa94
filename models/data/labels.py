"""A table of reported values: one line for each study or clip, one column for each output.

The table is CSV with a line of names. One column is the key: ``StudyInstanceUID``,
``AccessionNumber`` or ``SOPInstanceUID``. Columns named as an output of :data:`models.tasks.TASKS`
are its labels, in its unit; a unit behind the name says that it is another: ``height_m``,
``ra_length_mm``, ``weight_lb``, ``ef_fraction``. Scores are 0 or 1 (or no, yes; ``sex`` also f, m).
``view`` is trusted where it is there; ``PatientID`` says who the patient is where the objects do
not. An empty cell is not known. What is wrong is told by line number, never by what stands there:
a report's line may say whom it is about.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pydicom.dataset import Dataset

from models.data.dataset import DatasetError
from models.finding import Kind
from models.tasks import TASKS, Task
from models.views import View

KEYS = ("SOPInstanceUID", "StudyInstanceUID", "AccessionNumber")


class _Reader(Protocol):
    """A reader of :mod:`csv`, which names no type of its own."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


_VOLUME = {"ml": 1.0, "l": 1000.0}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "ef": {"percent": 1.0, "pct": 1.0, "fraction": 100.0},
    "edv": _VOLUME,
    "esv": _VOLUME,
    "la_volume": _VOLUME,
    "la_area": {"cm2": 1.0, "mm2": 0.01},
    "ra_length": {"cm": 1.0, "mm": 0.1},
    "age": {"y": 1.0, "years": 1.0, "months": 1 / 12},
    "weight": {"kg": 1.0, "lb": 0.45359237, "g": 0.001},
    "height": {"cm": 1.0, "m": 100.0, "in": 2.54},
}
"""How many of the output's own unit one of these is."""

_UNKNOWN = ("", "na", "n/a", "nan", "null", "none", "-", "?")
_YES, _NO = ("1", "1.0", "yes", "y", "true"), ("0", "0.0", "no", "n", "false")
_MALE, _FEMALE = ("m", "male"), ("f", "female")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """What a line says: values by output name, in the output's unit."""

    line: int
    values: Mapping[str, float]
    view: View | None = None
    patient: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Rows by key, what was wrong (line by line, without values), and which columns were read.

    ``columns`` are outputs by column; ``ignored`` are columns that are no label.
    """

    key: str
    rows: Mapping[str, LabelRow]
    problems: tuple[str, ...]
    columns: Mapping[str, str]
    ignored: tuple[str, ...]

    def row_of(self, header: Dataset) -> LabelRow | None:
        """The line of an object, by its header; None where there is none."""
        return self.rows.get(str(header.get(self.key) or "").strip())


@dataclass(frozen=True, slots=True)
class _Column:
    task: Task
    factor: float

    def value(self, text: str, *, decimal_comma: bool) -> float:
        """The value in the output's unit; ValueError says in words what is wrong with it."""
        if self.task.kind is Kind.SCORE:
            return self._score(text.casefold())
        try:
            number = float(text.replace(",", ".") if decimal_comma else text)
        except ValueError:
            raise ValueError("is no number") from None
        value = number * self.factor
        if not (math.isfinite(value) and self.task.low <= value <= self.task.high):
            raise ValueError(
                f"is outside {self.task.low:g} to {self.task.high:g} {self.task.unit}; is it in "
                "another unit?"
            )
        return value

    def _score(self, word: str) -> float:
        sex = self.task.name == "sex"
        if word in _YES or (sex and word in _MALE):
            return 1.0
        if word in _NO or (sex and word in _FEMALE):
            return 0.0
        raise ValueError("is neither 0 nor 1")


def read_labels(path: Path, renamed: Mapping[str, str] = MappingProxyType({})) -> LabelTable:
    """Read a table.

    Parameters
    ----------
    path
        UTF-8; commas, semicolons or tabs between cells (a decimal comma where it is semicolons).
    renamed
        What a column is to be taken for: an output, an output with a unit, a key, "view" or
        "PatientID", by the column's own name.

    Raises
    ------
    DatasetError
        If it cannot be read, has no key or no label, or a name of ``renamed`` is not in it.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            first = lines.readline()
            delimiter = max(",;\t", key=first.count)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            columns = _columns(path, names, renamed)
            rows, problems = _rows(reader, columns, decimal_comma=delimiter == ";")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not UTF-8; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: line {reader.line_num}: {error}") from None
    labels = {columns.names[place]: one.task.name for place, one in columns.labels.items()}
    return LabelTable(
        key=columns.key,
        rows=rows,
        problems=tuple(problems),
        columns=labels,
        ignored=columns.ignored,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """Where in a line what stands."""

    names: Sequence[str]
    key: str
    key_place: int
    labels: Mapping[int, _Column]
    view: int | None
    patient: int | None
    ignored: tuple[str, ...]


def _columns(path: Path, names: Sequence[str], renamed: Mapping[str, str]) -> _Columns:
    for name in renamed:
        if name not in names:
            raise DatasetError(f"{path}: no column {name!r} to take for {renamed[name]!r}")
    keys: dict[str, int] = {}
    special: dict[str, int] = {}
    labels: dict[int, _Column] = {}
    ignored = []
    for place, name in enumerate(names):
        meant = renamed.get(name, name)
        word = meant.casefold()
        key = next((one for one in KEYS if one.casefold() == word), None)
        column = _label(word)
        if key is not None:
            keys.setdefault(key, place)
        elif word in ("view", "patientid"):
            special[word] = place
        elif column is None:
            if name in renamed:
                raise DatasetError(
                    f"{path}: {meant!r} is no output; there are {', '.join(TASKS)}, some with a "
                    "unit behind, such as height_m"
                )
            ignored.append(name)
        elif any(column.task is other.task for other in labels.values()):
            raise DatasetError(f"{path}: two columns are {column.task.name!r}; keep one")
        else:
            labels[place] = column
    if not keys:
        raise DatasetError(f"{path}: no key: one column must be {', '.join(KEYS)}")
    if not labels:
        raise DatasetError(
            f"{path}: no labels: no column is an output ({', '.join(TASKS)}); name yours with "
            "--map COLUMN=OUTPUT"
        )
    # The narrowest key: a clip's line says more than its study's.
    key = next(one for one in KEYS if one in keys)
    ignored += [names[place] for one, place in keys.items() if one != key]
    return _Columns(
        names=names,
        key=key,
        key_place=keys[key],
        labels=labels,
        view=special.get("view"),
        patient=special.get("patientid"),
        ignored=tuple(ignored),
    )


def _label(word: str) -> _Column | None:
    if word in TASKS:
        return _Column(TASKS[word], 1.0)
    name, _, unit = word.rpartition("_")
    factor = _UNITS.get(name, {}).get(unit)
    return None if factor is None else _Column(TASKS[name], factor)


def _rows(
    reader: _Reader, columns: _Columns, *, decimal_comma: bool
) -> tuple[dict[str, LabelRow], list[str]]:
    rows: dict[str, LabelRow] = {}
    problems = []
    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns.names):
            problems.append(
                f"line {line}: has {len(cells)} cells, and {len(columns.names)} are named: left out"
            )
            continue
        key = cells[columns.key_place].strip()
        if not key:
            problems.append(f"line {line}: has no {columns.key}: left out")
        elif key in rows:
            problems.append(
                f"line {line}: has the {columns.key} of line {rows[key].line} again: left out"
            )
        else:
            rows[key], wrong = _row(cells, line, columns, decimal_comma=decimal_comma)
            problems += wrong
    return rows, problems


def _row(
    cells: Sequence[str], line: int, columns: _Columns, *, decimal_comma: bool
) -> tuple[LabelRow, list[str]]:
    values, problems = {}, []
    for place, column in columns.labels.items():
        text = cells[place].strip()
        if text.casefold() in _UNKNOWN:
            continue
        try:
            values[column.task.name] = column.value(text, decimal_comma=decimal_comma)
        except ValueError as error:
            problems.append(f"line {line}: {columns.names[place]} {error}: not known")
    view: View | None = None
    if columns.view is not None and cells[columns.view].strip():
        try:
            view = View(cells[columns.view].strip().casefold())
        except ValueError:
            known = ", ".join(view.value for view in View)
            problems.append(f"line {line}: view is none of {known}: not known")
    patient = "" if columns.patient is None else cells[columns.patient].strip()
    return LabelRow(line=line, values=values, view=view, patient=patient), problems
