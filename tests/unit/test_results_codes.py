"""Every code of a report is a code of the standard, or an exception that says why."""

from __future__ import annotations

import re

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts as pydicom_concepts

from models.finding import Evidence, Method
from models.tasks import TASKS
from models.views import View
from node.results import codes
from node.results.codes import OUTPUTS, TABLE, UNITS, VIEWS, Concept


def _known_meanings(concept: Concept) -> set[str]:
    """What pydicom's tables, made from PS3.16, say that a code means."""
    return {
        # SNOMED CT's full names end in a semantic tag that its synonyms do not have.
        re.sub(r" \([a-z ]+\)$", "", known[concept.value][0])
        for known in pydicom_concepts.get(concept.scheme, {}).values()
        if concept.value in known
    }


@pytest.mark.parametrize("concept", TABLE.values(), ids=lambda c: f"{c.scheme}-{c.value}")
def test_a_code_means_what_the_standard_says_or_tells_why_it_is_not_there(
    concept: Concept,
) -> None:
    known = _known_meanings(concept)
    if concept.outside:
        assert not known, f"{concept} is in PS3.16 after all: take its reason away"
    else:
        assert concept.meaning in known


def test_the_codes_outside_of_the_standards_tables_are_these() -> None:
    outside = {key for key, concept in TABLE.items() if concept.outside}
    public = {(value, scheme) for value, scheme in outside if scheme != codes.PRIVATE_SCHEME}
    assert public == {
        ("en-US", "RFC5646"),
        ("C0034375", "UMLS"),
        ("mL", "UCUM"),
        ("kg", "UCUM"),
        ("{score}", "UCUM"),
        ("{beats}", "UCUM"),
        ("{clips}", "UCUM"),
        ("55827005", "SCT"),
        ("49710005", "SCT"),
        ("11092001", "SCT"),
        ("8625-6", "LN"),
        ("8633-0", "LN"),
        ("8634-8", "LN"),
        ("11524-6", "LN"),
    }


@pytest.mark.parametrize("concept", TABLE.values(), ids=lambda c: f"{c.scheme}-{c.value}")
def test_a_code_fits_into_its_attributes(concept: Concept) -> None:
    assert 0 < len(concept.value) <= 16
    assert 0 < len(concept.scheme) <= 16
    assert 0 < len(concept.meaning) <= 64
    assert f"{concept.value}{concept.scheme}{concept.meaning}".isascii()
    assert "\\" not in concept.meaning


def test_the_private_scheme_is_marked_as_private() -> None:
    assert codes.PRIVATE_SCHEME.startswith("99")


def test_no_concept_shares_its_code_with_another() -> None:
    named = [value for value in vars(codes).values() if isinstance(value, Concept)]
    assert len(named) == len(TABLE)


def test_every_output_has_its_codes_and_its_unit() -> None:
    assert set(OUTPUTS) == set(TASKS)
    assert {task.unit for task in TASKS.values()} <= set(UNITS)


def test_every_view_has_its_code() -> None:
    assert set(VIEWS) == set(View)


def test_the_codes_of_a_method_are_only_for_values_that_were_so_computed() -> None:
    ef = OUTPUTS["ef"]
    assert ef.name_of(Method.SINGLE_PLANE_DISCS).value == "79993-2"
    assert ef.name_of(Method.REGRESSION).value == "18043-0"


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_only_saw_the_simulator_has_a_name_that_says_so_and_no_public_code(
    output: str,
) -> None:
    known = OUTPUTS[output]
    names = [known.name_of(method, Evidence.SIMULATED) for method in Method]
    found = known.finding_of(Evidence.SIMULATED)
    assert (found is None) == (known.finding_of(Evidence.PATIENTS) is None)
    for concept in (*names, *([found] if found is not None else [])):
        assert concept.scheme == codes.PRIVATE_SCHEME
        assert concept.meaning.startswith("SIMULATED ONLY: ")


@pytest.mark.parametrize(
    "concept",
    [concept for concept in TABLE.values() if re.fullmatch(r"CID \d+", concept.source)],
    ids=lambda c: f"{c.scheme}-{c.value}",
)
def test_a_code_stands_in_the_context_group_that_it_names(concept: Concept) -> None:
    group = int(concept.source.removeprefix("CID "))
    if concept.outside:
        return
    members = {
        value
        for keyword in cid_concepts[group][concept.scheme]
        for value in pydicom_concepts[concept.scheme][keyword]
    }
    assert concept.value in members


def test_no_estimate_of_the_person_bears_a_demographic_code() -> None:
    for name, task in TASKS.items():
        if task.demographic:
            assert OUTPUTS[name].measured.scheme == codes.PRIVATE_SCHEME
            assert OUTPUTS[name].qualitative is None
    assert not codes.DEMOGRAPHIC_CODES & set(TABLE)


def test_no_group_asserts_a_disease_by_its_finding() -> None:
    for output in OUTPUTS.values():
        assert output.subject.finding != output.qualitative


def test_every_method_of_measuring_a_tracing_has_a_standard_code() -> None:
    found = {method: concept.value for method, concept in codes.METHODS.items()}
    assert found == {
        Method.SINGLE_PLANE_DISCS: "125208",
        Method.AREA_LENGTH: "125205",
        Method.AREA: "125220",
    }
