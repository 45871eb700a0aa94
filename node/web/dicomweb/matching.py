"""Whether a value is the one that a search asks for (PS3.4 C.2.2.2, PS3.18 8.3.4.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword

_PATH = re.compile(r"[A-Za-z0-9]{1,64}(\.[A-Za-z0-9]{1,64}){0,3}")
_TIMES = frozenset({"DA", "DT", "TM"})
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_NO_VALUES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT", "SQ"})
_LONGEST = 1024

EMPTY = '""'
"""Asks for what has no value (PS3.18 8.3.4.5)."""


class CriterionError(ValueError):
    """What is asked for cannot be: the message says why, without the value."""


class UnknownAttributeError(CriterionError):
    """There is no such attribute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """An attribute and what it is to be. ``path``: tags, from a sequence to what is in it."""

    path: tuple[str, ...]
    vr: str
    value: str

    @property
    def is_exact(self) -> bool:
        """Whether it asks for one value, letter by letter."""
        return bool(self.value) and not set(self.value) & set('*?\\"')


def attribute_path(text: str) -> tuple[str, ...]:
    """Tags, from keywords or hexadecimal numbers with dots between.

    Raises
    ------
    CriterionError
        If there is no such attribute.
    """
    if not _PATH.fullmatch(text):
        raise UnknownAttributeError("an attribute is a keyword or eight hexadecimal digits")
    return tuple(_tag(part) for part in text.split("."))


def criterion(name: str, value: str) -> Criterion:
    """What a parameter of a search asks for.

    Raises
    ------
    CriterionError
        If there is no such attribute, or it cannot have such a value.
    """
    path = attribute_path(name)
    *above, last = (dictionary_VR(int(tag, 16)) for tag in path)
    vr = last.split(" ")[0]  # "US or SS" is about the sign alone
    if vr in _NO_VALUES or any(one != "SQ" for one in above):
        raise CriterionError(f"{name} cannot be searched by")
    if len(value) > _LONGEST or not value.isprintable():
        raise CriterionError(f"{name} has a value that is none")
    if value == EMPTY:
        return Criterion(path=path, vr=vr, value=value)
    if vr in _TIMES and value:
        _times(name, vr, value)
    if vr in _NUMBERS and value:
        _number(value, name)
    return Criterion(path=path, vr=vr, value=value)


def matches(model: Mapping[str, Any], asked: Criterion) -> bool:
    """Whether a data set of the JSON model is what is asked for."""
    if not asked.value:
        return True  # universal matching
    if asked.value == EMPTY:
        return not any(value not in (None, "") for value in _values(model, asked.path))
    return any(_is(value, asked) for value in _values(model, asked.path))


def dates_of(asked: Criterion) -> tuple[date | None, date | None]:
    """First and last date of a criterion on a date."""
    no_date = asked.value in ("", EMPTY)
    low, high = ("", "") if no_date else _times("", "DA", asked.value)
    return _date(low), _date(high)


def _tag(text: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", text):
        tag: int | None = int(text, 16)
    else:
        tag = tag_for_keyword(text)
    if tag is None or not dictionary_has_tag(tag):
        raise UnknownAttributeError(f"there is no attribute {text}")
    return f"{tag:08X}"


def _values(model: Mapping[str, Any], path: Sequence[str]) -> list[Any]:
    found = model.get(path[0], {}).get("Value", [])
    if len(path) == 1:
        return list(found)
    return [value for item in found for value in _values(item, path[1:])]


def _is(value: Any, asked: Criterion) -> bool:
    if value is None:
        return False
    if isinstance(value, Mapping):  # a person's name, in up to three writings
        wished = asked.value.casefold().rstrip("^ ")
        return any(_fits(str(name).casefold().rstrip("^ "), wished) for name in value.values())
    text = str(value).strip()
    if asked.vr == "UI":
        return text in re.split(r"[\\,]", asked.value)
    if asked.vr in _TIMES:
        return _is_between(text, *_times("", asked.vr, asked.value))
    if asked.vr in _NUMBERS:
        try:
            return float(text) == _number(asked.value, "")
        except ValueError:
            return False
    # A backslash stands between values of which one will do.
    return any(_fits(text, one) for one in asked.value.strip().split("\\"))


@lru_cache(maxsize=256)
def _pieces(text: str) -> tuple[re.Pattern[str], ...]:
    """What stands between the stars of a value, ``?`` for any character."""
    return tuple(
        re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL) for piece in text.split("*")
    )


def _fits(text: str, asked: str) -> bool:
    """Whether a text is the value asked for, ``*`` for anything and ``?`` for one character.

    Each piece is taken where it comes first: a pattern full of stars takes no longer than another.
    """
    first, *middle = _pieces(asked)
    if not middle:
        return first.fullmatch(text) is not None
    *middle, last = middle
    begin = first.match(text)
    if begin is None:
        return False
    place = begin.end()
    for piece in middle:
        found = piece.search(text, place)
        if found is None:
            return False
        place = found.end()
    rest = len(text) - len(asked.rpartition("*")[2])
    return rest >= place and last.fullmatch(text, rest) is not None


def _times(name: str, vr: str, value: str) -> tuple[str, str]:
    """Both ends of a range; equal for a single value, "" where it is open."""
    # A time zone of a DT begins like the second end of a range.
    low, dash, high = value.partition("-")
    ends = (low, high) if dash else (value, value)
    found = tuple(end.strip().replace(":", "").rstrip() for end in ends)
    digits = [end.replace(".", "", 1) for end in found]
    lengths = {"DA": (8, 8), "TM": (2, 12), "DT": (4, 20)}[vr]
    for end in digits:
        if end and not (end.isdecimal() and lengths[0] <= len(end) <= lengths[1]):
            raise CriterionError(f"{name} is not a date, a time, or a range of them: A-B, A-, -B")
        if end and vr == "DA" and _date(end) is None:
            raise CriterionError(f"{name} is not a date")
    if not any(digits):
        raise CriterionError(f"{name} is not a date, a time, or a range of them: A-B, A-, -B")
    return digits[0], digits[1]


def _is_between(text: str, low: str, high: str) -> bool:
    digits = text.replace(":", "").replace(".", "").replace("-", "")
    if not digits.isdecimal():
        return False
    # 10 hours are all of their minutes, at both ends.
    size = max(len(digits), len(low), len(high))
    value = digits.ljust(size, "0")
    if low == high:
        return value.startswith(low) or value == low.ljust(size, "0")
    return (not low or low.ljust(size, "0") <= value) and (
        not high or value <= high.ljust(size, "9")
    )


def _number(value: str, name: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise CriterionError(f"{name} is not a number") from None


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a date
    except ValueError:
        return None
