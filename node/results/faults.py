"""What the gate says of an object, and the questions that all its parts ask."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass

from pydicom.dataset import Dataset

from node.results.codes import Concept


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing wrong. ``rule`` is a short name that does not change, for counting."""

    rule: str
    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem} [{self.rule}]"


def fault(rule: str, where: str, problem: str) -> Fault:
    """One thing wrong."""
    return Fault(rule=rule, where=where, problem=problem)


def filled(item: Dataset, keyword: str) -> bool:
    """Whether an attribute is there and has a value."""
    value = item.get(keyword)
    return value is not None and (not isinstance(value, Sized) or len(value) > 0)


def is_code(item: Dataset, concept: Concept) -> bool:
    """Whether a code sequence item is this concept."""
    return (item.get("CodeValue"), item.get("CodingSchemeDesignator")) == (
        concept.value,
        concept.scheme,
    )


def is_named(item: Dataset, name: Concept) -> bool:
    """Whether a content item has this concept name."""
    sequence = item.get("ConceptNameCodeSequence")
    return bool(sequence) and is_code(sequence[0], name)


def child_named(item: Dataset, name: Concept) -> Dataset | None:
    """The first content item below with this concept name."""
    for each in item.get("ContentSequence") or ():
        if is_named(each, name):
            found: Dataset = each
            return found
    return None


def walk(item: Dataset) -> Iterator[Dataset]:
    """A content item and all below it."""
    yield item
    for each in item.get("ContentSequence") or ():
        yield from walk(each)
