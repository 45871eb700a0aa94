"""ECGs that are no DICOM objects: WFDB records of PhysioNet, and tables of text (CSV).

A table has one line of names and then one line a sample. Names are those of the leads, in any order
and case, with the unit behind them where it is not mV for all (``II [uV]``); a column ``time_s`` or
``time_ms`` gives the rate, or a line before the names does::

    # rate_hz=500
    # unit=mV
    I,II,V1,V2,V3,V4,V5,V6

An empty field, or ``nan``, is a gap.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models._header import UNREADABLE, shown
from models.ecg.leads import lead_of_code, lead_of_words, millivolts_of, with_derived
from models.ecg.recording import LEADS, LOWEST_RATE_HZ, EcgError, Strip

MOST_TABLE_BYTES: Final = 256 * 1024**2
"""A table longer than this is not read: an hour of twelve leads is shorter."""

_MOST_SAMPLES: Final = 2**24
_UNIT_BEHIND: Final = re.compile(r"^(.*?)[\s_]*[\[(]?\s*([nuµμm]?v)\s*[\])]?$", re.IGNORECASE)
_TIME: Final = re.compile(r"^t(?:ime)?[\s_]*[\[(]?\s*(ms|s|sec|seconds?|milliseconds?)?\s*[\])]?$")
_COMMENT: Final = re.compile(r"^#\s*(\w+)\s*[=:]\s*(\S+)")
_DELIMITERS: Final = "\t;,"


def read_wfdb(header: Path) -> Strip:
    """A record of WFDB by its ``.hea`` file, as physical values (PhysioNet, header(5)).

    Raises:
        EcgError: the package ``wfdb`` is not installed, the record cannot be read, or names no
            lead of the twelve.
    """
    wfdb = _wfdb()
    name = header.name
    if not header.is_file():
        raise EcgError(f"{name} is missing: a WFDB record needs its header beside the samples")
    try:
        record = wfdb.rdrecord(str(header.with_suffix("")), physical=True)
    except UNREADABLE as error:
        raise EcgError(
            f"the WFDB record of {name} cannot be read ({type(error).__name__}): check that its "
            "files lie together and are whole"
        ) from error
    columns = np.asarray(record.p_signal, np.float64)
    return _strip(
        columns.T,
        [_lead_name(label) for label in record.sig_name],
        [str(unit) for unit in record.units],
        _rate(float(record.fs), name),
        name,
    )


def read_table(path: Path) -> Strip:
    """A table of text as the module tells.

    Raises:
        EcgError: it cannot be read, with the line, what was expected, and what to do.
    """
    lines = _lines(path)
    settings, first = _settings(lines)
    if first >= len(lines):
        raise EcgError(f"{path.name} holds no line with the names of the leads")
    names_line = lines[first]
    delimiter = max(_DELIMITERS, key=names_line.count)
    names = [
        name.strip().strip('"') for name in next(csv.reader([names_line], delimiter=delimiter))
    ]
    body = [line for line in lines[first + 1 :] if line.strip()]
    if not body:
        raise EcgError(f"{path.name} holds no samples after the line with the names of the leads")
    values = _values(body, delimiter, len(names), path.name, first + 2)
    leads, units, time = _columns(names, settings.get("unit", "mV"))
    return _strip(
        values,
        leads,
        units,
        _table_rate(settings, values, time, path.name),
        path.name,
    )


def names_leads(path: Path) -> bool:
    """Whether a table's first lines name two leads at least: whether it can be an ECG at all."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            lines = [stream.readline(4096) for _ in range(20)]
    except OSError:
        return False
    _, first = _settings(lines)
    if first >= len(lines):
        return False
    delimiter = max(_DELIMITERS, key=lines[first].count)
    leads, _, _ = _columns(lines[first].strip().split(delimiter), "mV")
    return sum(lead is not None for lead in leads) >= 2


# WFDB


def _wfdb() -> Any:
    try:
        import wfdb
    except ImportError as error:
        raise EcgError(
            "WFDB records are read by the package wfdb, which is not installed: "
            "pip install echonode[ecg-files]"
        ) from error
    return wfdb


def _lead_name(label: str) -> str | None:
    coded = lead_of_code(label)
    return coded[0] if coded is not None and coded[1] == 1 else lead_of_words(label)


# Tables


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_TABLE_BYTES:
            raise EcgError(
                f"{path.name} is larger than {MOST_TABLE_BYTES // 1024**2} MiB: store long "
                "recordings as WFDB or DICOM"
            )
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise EcgError(f"{path.name} is no text in UTF-8: store the table as UTF-8") from error
    except OSError as error:
        raise EcgError(f"{path.name} cannot be opened: {error.strerror}") from error


def _settings(lines: Sequence[str]) -> tuple[dict[str, str], int]:
    """What the lines before the names say, and which line has the names."""
    said: dict[str, str] = {}
    for place, line in enumerate(lines):
        if line.strip() and not line.startswith("#"):
            return said, place
        found = _COMMENT.match(line)
        if found:
            said[found[1].lower()] = found[2]
    return said, len(lines)


def _columns(
    names: Sequence[str], unit: str
) -> tuple[list[str | None], list[str], tuple[int, float] | None]:
    """Lead and unit of each column, and (column, seconds of a unit) of the time; 0: no unit."""
    leads: list[str | None] = []
    units: list[str] = []
    time: tuple[int, float] | None = None
    for place, written in enumerate(names):
        name = written.strip().strip('"')
        behind = _UNIT_BEHIND.match(name)
        lead = lead_of_words(behind[1]) if behind else None
        leads.append(lead or lead_of_words(name))
        units.append(behind[2] if behind and lead else unit)
        clock = _TIME.match(name.lower())
        if clock and time is None:
            word = clock[1] or ""
            time = place, {"": 0.0, "m": 1e-3}.get(word[:1], 1.0)
    return leads, units, time


def _values(
    body: Sequence[str], delimiter: str, columns: int, name: str, first_line: int
) -> NDArray[np.float64]:
    """(columns, samples) of the fields, NaN where they are empty."""
    comma = delimiter == ";"  # then 0,12 is how a German spreadsheet writes 0.12
    rows = []
    for number, fields in enumerate(csv.reader(body, delimiter=delimiter), start=first_line):
        if len(fields) != columns:
            raise EcgError(
                f"line {number} of {name} has {len(fields)} fields where the line of names has "
                f"{columns}: each line must hold one sample of every column"
            )
        try:
            rows.append(
                [
                    float((field.replace(",", ".") if comma else field) or "nan")
                    for field in map(str.strip, fields)
                ]
            )
        except ValueError:
            raise EcgError(
                f"line {number} of {name} holds a field that is no number: only numbers may follow "
                "the line of names; leave a field empty where there is no sample"
            ) from None
    values = np.asarray(rows, np.float64).T
    values[np.isinf(values)] = np.nan
    return values


def _table_rate(
    settings: Mapping[str, str],
    values: NDArray[np.float64],
    time: tuple[int, float] | None,
    name: str,
) -> float:
    """Samples a second, from the comment or from the column of times."""
    stated = settings.get("rate_hz")
    if stated is not None:
        try:
            return _rate(float(stated), name)
        except ValueError:
            raise EcgError(f"{name} says rate_hz={shown(stated)}, which is no number") from None
    if time is None:
        raise EcgError(
            f"{name} does not say how quickly it was sampled: begin it with a line like "
            "# rate_hz=500, or add a column time_s"
        )
    column, seconds = time
    if seconds == 0:
        raise EcgError(f"the column {name} has for time says no unit: call it time_s or time_ms")
    steps = np.diff(values[column]) * seconds
    step = float(np.median(steps)) if len(steps) else math.nan
    # Times are rounded when they are written, so steps differ; a line left out makes a double one.
    if not step > 0 or not (steps.min() > 0.5 * step and steps.max() < 1.5 * step):
        raise EcgError(
            f"the times in {name} do not go up by even steps: sample the recording evenly, "
            "and leave fields empty where there is a gap"
        )
    whole = float(values[column, -1] - values[column, 0]) * seconds
    return _rate(len(steps) / whole, name)


# Both


def _rate(rate_hz: float, name: str) -> float:
    if not LOWEST_RATE_HZ <= rate_hz <= 1e6:
        raise EcgError(
            f"{name} says {rate_hz:g} samples a second: no ECG is sampled so "
            f"({LOWEST_RATE_HZ:g} are the least)"
        )
    rounded = round(rate_hz, 3)
    return float(rounded)


def _strip(
    values: NDArray[np.float64],
    leads: Sequence[str | None],
    units: Sequence[str],
    rate_hz: float,
    name: str,
) -> Strip:
    """(columns, samples) in their units as a strip."""
    if values.shape[1] > _MOST_SAMPLES:
        raise EcgError(
            f"{name} holds {values.shape[1]} samples of a lead, and no more than {_MOST_SAMPLES} "
            "are read: cut it into shorter stretches"
        )
    millivolts = np.full((len(LEADS), values.shape[1]), np.nan, np.float32)
    channels = [0] * len(LEADS)
    for place, (lead, unit) in enumerate(zip(leads, units, strict=True)):
        if lead is None:
            continue
        row = LEADS.index(lead)
        if channels[row]:
            raise EcgError(f"{name} names lead {lead} twice: name each lead once")
        factor = millivolts_of(unit)
        if factor is None:
            raise EcgError(
                f"{name} has lead {lead} in {shown(unit) or 'no unit'}, which is no voltage: "
                "say mV or uV"
            )
        millivolts[row] = values[place] * factor
        channels[row] = place + 1
    if not any(channels):
        raise EcgError(f"{name} names none of the twelve leads: call them {', '.join(LEADS)}")
    filled, derived = with_derived(millivolts)
    return Strip(millivolts=filled, rate_hz=rate_hz, derived=derived, channels=tuple(channels))
