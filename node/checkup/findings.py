"""What a check-up finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Light(StrEnum):
    """How it is."""

    GREEN = "green"  #: it is well
    YELLOW = "yellow"  #: the node works, and someone should look
    RED = "red"  #: the node cannot do its work as this is
    UNKNOWN = "unknown"  #: nothing here can tell


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of a check-up: of what, how it is, in words, and what to do."""

    area: str
    light: Light
    words: str
    next_step: str = ""

    def __post_init__(self) -> None:
        if self.light is Light.RED and not self.next_step:
            raise ValueError(f"{self.area}: a red line says what to do")


def green(area: str, words: str) -> Finding:
    """It is well."""
    return Finding(area=area, light=Light.GREEN, words=words)


def yellow(area: str, words: str, next_step: str = "") -> Finding:
    """Someone should look."""
    return Finding(area=area, light=Light.YELLOW, words=words, next_step=next_step)


def red(area: str, words: str, next_step: str) -> Finding:
    """The node cannot do its work as this is."""
    return Finding(area=area, light=Light.RED, words=words, next_step=next_step)


def unknown(area: str, words: str) -> Finding:
    """Nothing here can tell."""
    return Finding(area=area, light=Light.UNKNOWN, words=words)
