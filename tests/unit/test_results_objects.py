"""UIDs are derived without ambiguity, and the node knows its own objects again."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from node.results import is_own_object
from node.results.objects import derive_uid, series_uid
from tests.results_examples import SETTINGS, read, source_header, study_capture, study_report


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_parts_give_different_uids(one: list[str], other: list[str]) -> None:
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)


@given(st.lists(st.text(max_size=9)))
def test_a_derived_uid_is_valid_and_made_from_a_uuid(parts: list[str]) -> None:
    uid = derive_uid(*parts)
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert len(uid) <= 44


def test_parts_are_not_run_together() -> None:
    assert derive_uid("ab", "c") != derive_uid("a", "bc")


def test_derived_uids_never_change() -> None:
    # A change here would make new copies of every result that archives already have.
    assert derive_uid("tracking", "1.2.3", "lv") == ("2.25.185098851356625805294309511664379619460")


def test_series_differ_by_study_kind_and_node() -> None:
    uids = {
        series_uid(study, kind, SETTINGS) for study, kind in product(("1.2", "1.3"), ("SR", "SC"))
    }
    assert len(uids) == 4


def test_reports_and_captures_are_known_as_our_own() -> None:
    assert is_own_object(read(study_report()))
    assert is_own_object(read(study_capture()))


def test_an_echo_machines_object_is_not_our_own() -> None:
    assert not is_own_object(source_header(1))
    assert not is_own_object(Dataset())


def test_our_own_are_known_after_an_archive_has_been_at_them() -> None:
    made = read(study_report())
    del made[0x4EC1, 0x0010]
    del made[0x4EC1, 0x1001]
    assert is_own_object(made), "private attributes stripped"
    made.Manufacturer = "ARCHIVE"
    assert is_own_object(made), "equipment coerced"
    made = read(study_capture())
    made.Manufacturer = "ECHONODE "
    del made.ContributingEquipmentSequence
    del made[0x4EC1, 0x0010]
    assert is_own_object(made), "upper case and padding"


def test_a_file_that_this_node_only_received_is_not_its_own() -> None:
    header = source_header(1)
    header.file_meta.ImplementationClassUID = read(study_report()).file_meta.ImplementationClassUID
    assert not is_own_object(header)
