"""The report as DCMTK's `dsr2html` renders it for a reader without a viewer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydicom import Dataset

from tests.peers import require
from tests.results_examples import read, study_report

# DCMTK 3.6.7 cannot check strings in UTF-8; it renders them all the same.
_KNOWN = re.compile(r"W: The VR checker does not support this Specific Character Set: ISO_IR 192")


class _Text(HTMLParser):
    """The words of a page, a line for each of its blocks."""

    _BLOCKS = frozenset(("p", "div", "br", "tr", "h1", "h2", "h3", "h4", "small", "b"))

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the parser's
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        self._parts.append(data)

    def lines(self) -> list[str]:
        words = (" ".join(line.split()) for line in "".join(self._parts).splitlines())
        return [line for line in words if line]


@pytest.fixture(scope="module")
def report() -> Dataset:
    return read(study_report())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a reader sees, line by line."""
    file = tmp_path_factory.mktemp("rendered") / "report.dcm"
    file.write_bytes(study_report().data)
    return "\n".join(_rendered(file))


def _rendered(file: Path) -> list[str]:
    done = subprocess.run(
        [require("dsr2html"), "+U8", str(file)], capture_output=True, text=True, check=True
    )
    assert [line for line in done.stderr.splitlines() if not _KNOWN.match(line)] == []
    parser = _Text()
    parser.feed(done.stdout)
    return parser.lines()


def _items(parent: Dataset) -> Iterator[Dataset]:
    for item in parent.get("ContentSequence") or ():
        yield item
        yield from _items(item)


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def test_every_number_stands_with_its_name_and_unit(report: Dataset, page: str) -> None:
    numbers = [item for item in _items(report) if item.ValueType == "NUM"]
    assert numbers
    for item in numbers:
        measured = item.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
        # A measurement has a heading of its own; what is said of it follows in one line.
        shown = rf"{re.escape(_name(item))}( =|:\n) ?{measured.NumericValue} {re.escape(unit)}"
        assert re.search(shown, page), shown


def test_every_finding_and_sentence_stands_in_full(report: Dataset, page: str) -> None:
    spoken = [
        " ".join(str(item.TextValue).split())
        for item in _items(report)
        if item.ValueType == "TEXT" and item.RelationshipType == "CONTAINS"
    ]
    found = [
        f"{_name(item)}:\n{item.ConceptCodeSequence[0].CodeMeaning}"
        for item in _items(report)
        if item.ValueType == "CODE" and item.RelationshipType == "CONTAINS"
    ]
    assert spoken
    assert found
    assert [words for words in (*spoken, *found) if words not in page] == []
    assert "RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE" in page
    assert re.search(r"tested on patients", page)


def test_nothing_that_a_reader_needs_is_put_in_notes_at_the_end(page: str) -> None:
    body, _, notes = page.partition("\nAnnex\n")

    moved = set(re.findall(r"(?:: )?([^:\n]+) \[ ?(?:Annex|Footnote)", body))
    assert moved <= {"Algorithm Parameters"}  # the digest of the weights, for a machine to compare
    assert set(re.findall(r"\n([^:\n]+):\n", notes)) <= {"Algorithm Parameters"}


def test_each_group_says_what_it_is_in_its_first_lines(report: Dataset, page: str) -> None:
    groups = page.split("\nMeasurement Group\n")[1:]
    names = [
        str(item.TextValue)
        for item in _items(report)
        if item.ValueType == "TEXT" and _name(item) == "Tracking Identifier"
    ]

    assert len(groups) == len(names)
    for group, name in zip(groups, names, strict=True):
        assert f'Tracking Identifier = "{name}"' in group.splitlines()[0]
