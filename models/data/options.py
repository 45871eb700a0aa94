"""Options behind a data set's name on a command line: ``NAME=VALUE,NAME=VALUE``, read strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models.data.dataset import DatasetError

Readers = Mapping[str, Callable[[str], Any]]
"""How the text of each option becomes its value; they raise ValueError with what is wanted."""


def read_options(where: str, text: str, readers: Readers) -> dict[str, Any]:
    """The options of ``text`` by name; ``where`` is the whole word, for messages.

    Raises
    ------
    DatasetError
        If an option is unknown, given twice, without a value, or its value is none.
    """
    given: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if name not in readers:
            raise DatasetError(f"{where}: no option {name!r}; there are {', '.join(readers)}")
        if not equals or name in given:
            wrong = "is given twice" if name in given else "needs a value"
            raise DatasetError(f"{where}: option {name} {wrong}")
        try:
            given[name] = readers[name](value)
        except ValueError as error:
            raise DatasetError(f"{where}: {name}={value}: {error}") from None
    return given


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least ``least``."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise ValueError(f"a whole number of at least {least} is wanted")
        return int(text)

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """Reads a number from ``low`` to ``high``."""

    def read(text: str) -> float:
        wanted = f"a number from {low:g} to {high:g} is wanted"
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high:
            raise ValueError(wanted)
        return value

    return read


def span(low: float, high: float) -> Callable[[str], tuple[float, float]]:
    """Reads ``LOW..HIGH`` or one number, both from ``low`` to ``high``."""
    one = number(low, high)

    def read(text: str) -> tuple[float, float]:
        first, dots, last = text.partition("..")
        values = (one(first), one(last if dots else first))
        if values[0] > values[1]:
            raise ValueError("LOW..HIGH is wanted, the lower number first")
        return values

    return read
