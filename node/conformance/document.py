"""A text with tables between marks, and how the tables are put in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_PART = re.compile(
    r"<!-- table: (?P<name>[a-z0-9-]+) -->\n(?P<body>.*?)<!-- end of table -->\n", re.DOTALL
)


class DocumentError(ValueError):
    """The marks of a document do not fit the tables; the message says which."""


def renewed(text: str, tables: Mapping[str, Callable[[], str]]) -> tuple[str, tuple[str, ...]]:
    """The text with every table as it is today, and the names of those that were not.

    Raises
    ------
    DocumentError
        If the text has a mark for a table that is not there, or lacks one, or has one twice.
    """
    names = [part["name"] for part in _PART.finditer(text)]
    for name in sorted({*names, *tables}):
        if names.count(name) != 1:
            raise DocumentError(f"the table {name} has {names.count(name)} places instead of one")
        if name not in tables:
            raise DocumentError(f"there is no table {name}")
    changed = []

    def put_in(part: re.Match[str]) -> str:
        name = part["name"]
        body = tables[name]()
        if body != part["body"]:
            changed.append(name)
        return f"<!-- table: {name} -->\n{body}<!-- end of table -->\n"

    return _PART.sub(put_in, text), tuple(changed)
