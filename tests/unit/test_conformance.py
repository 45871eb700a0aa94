"""The conformance statement says what the code does."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from node.conformance import TABLES, DocumentError, renewed
from node.conformance.__main__ import main
from node.conformance.samples import samples
from node.doors.contexts import STORAGE_CLASSES
from node.results import codes
from node.results.check import RULES_OF
from node.results.iods import IODS
from node.sections import DimseDestination, DimseSettings

STATEMENT = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_the_statement_is_up_to_date() -> None:
    text, changed = renewed(STATEMENT.read_text(), TABLES)
    assert changed == (), "write it anew with `python -m node.conformance`"
    assert text == STATEMENT.read_text()


def test_a_stale_table_is_found_and_renewed(tmp_path: Path) -> None:
    stale = tmp_path / "conformance.md"
    stale.write_text(STATEMENT.read_text().replace("| 1 | JPEG Baseline", "| 1 | JPEG Bassline"))
    assert main(["--check", str(stale)]) == 1
    assert main([str(stale)]) == 0
    assert stale.read_text() == STATEMENT.read_text()


def test_a_table_without_a_place_and_a_place_without_a_table_are_refused() -> None:
    place = "<!-- table: one -->\n<!-- end of table -->\n"
    assert renewed(place, {"one": lambda: "x\n"})[1] == ("one",)
    for text, tables in (
        ("", {"one": str}),
        (place, {}),
        (place + place, {"one": str}),
    ):
        with pytest.raises(DocumentError):
            renewed(text, tables)


def test_every_class_that_is_made_has_its_rules_and_its_iod() -> None:
    assert set(samples()) <= set(RULES_OF)
    assert set(RULES_OF) == set(IODS)


def test_every_code_of_a_tree_is_in_the_statement() -> None:
    text = STATEMENT.read_text()
    missing = [
        concept
        for concept in codes.TABLE.values()
        if f"| {concept.value} |" not in text or concept.meaning not in text
    ]
    assert missing == []


def test_what_the_prose_denies_is_not_there() -> None:
    # No Query/Retrieve as SCP, no user identity: the sections on services and security say so.
    assert not any("Retrieve" in name for name in STORAGE_CLASSES.values())
    for model in (DimseSettings, DimseDestination):
        keys = " ".join(model.model_fields)
        assert not any(word in keys for word in ("password", "token", "user"))


# Our table of types against the one that highdicom ships, made from the standard's own text.


def _shipped(name: str) -> Any:
    data = pkgutil.get_data("highdicom", f"_standard/{name}.json")
    assert data is not None
    return json.loads(data)


# Modules whose types depend on the value type of a content item, or are of another module.
_ELSEWHERE = {
    "sr-document-content": frozenset(
        ("ReferencedSOPSequence", "TemporalRangeType", "ConceptCodeSequence", "GraphicData",
         "MeasuredValueSequence", "TabulatedValuesSequence", "GraphicType",
         "ReferencedFrameOfReferenceUID")
    ),
    "multi-frame": frozenset(("FrameIncrementPointer",)),
}  # fmt: skip


def test_the_types_of_attributes_are_those_of_the_standard() -> None:
    class_to_iod = _shipped("sop_class_iod_map")
    iod_to_modules = _shipped("iod_module_map")
    attributes = _shipped("module_attribute_map")
    for sop_class, iod in IODS.items():
        ours = {
            (keyword, type_)
            for module in iod.modules
            for keyword, type_ in module.types.items()
            if type_ in ("1", "2")
        }
        modules = iod_to_modules[class_to_iod[sop_class]]
        assert _types(attributes, modules, usages="M") <= ours, iod.name
        assert ours <= _types(attributes, modules, usages="MUC"), iod.name


def _types(
    attributes: dict[str, Any], modules: list[dict[str, str]], *, usages: str
) -> set[tuple[str, str]]:
    return {
        (each["keyword"], each["type"])
        for module in modules
        if module["usage"] in usages
        for each in attributes[module["key"]]
        if not each["path"]
        and each["type"] in ("1", "2")
        and each["keyword"] not in _ELSEWHERE.get(module["key"], ())
    }
