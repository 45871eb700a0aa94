"""A header after the profile, against the table itself; and what makes the new names."""

from __future__ import annotations

import copy

import pytest
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_dict
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.export.identity import identity_of
from node.export.profile import ACTIONS, EDITION, Dates, clean_header, may_stand
from node.export.pseudonyms import Pseudonyms, new_secret, shifted
from tests.export_sources import KANJI, NUMBER, ROOT, STUDIED, SURNAME, item

NAMES = Pseudonyms(bytes(range(32)))
PATIENT = NAMES.patient("number", NUMBER, "")
VALUES = {
    "AE": SURNAME,
    "AS": "092Y",
    "CS": "PLANTED",
    "DA": STUDIED,
    "DS": "77.5",
    "DT": f"{STUDIED}101112",
    "IS": "7730042",
    "OB": b"planted!",
    "OW": b"planted!",
    "PN": f"{SURNAME}^X",
    "TM": "101112",
    "UI": f"{ROOT}.9",
    "UR": f"http://{SURNAME}.test",
}


def full_table() -> Dataset:
    """Every attribute of the table with a value of its kind."""
    made = Dataset()
    for tag in ACTIONS:
        # The table knows attributes that are newer than pydicom's dictionary.
        vr = dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else "LO"
        if tag >> 16 < 8:
            continue  # of messages, not of objects
        if vr == "SQ":
            inner = item(PatientName=SURNAME, ReferencedSOPInstanceUID=f"{ROOT}.8")
            made.add(DataElement(tag, "SQ", Sequence([inner])))
        elif vr in ("US", "SS", "UL", "SL", "FL", "FD"):
            made.add(DataElement(tag, vr, 77))
        else:
            made.add(DataElement(tag, vr, VALUES.get(vr, f"{SURNAME} 1")))
    return made


def cleaned(header: Dataset, dates: Dates = Dates.REMOVE) -> Dataset:
    """A header after the profile."""
    identity = identity_of(header, ACTIONS, dates=dates is Dates.REMOVE)
    return clean_header(header, identity, NAMES, PATIENT, dates).dataset


def values_of(dataset: Dataset) -> list[str]:
    """All values at every depth."""
    return [str(one.value) for one in dataset.iterall() if one.VR != "SQ" and one.value]


def test_the_table_is_that_of_the_edition_that_is_named() -> None:
    assert f"dicomfields_{EDITION}" == "dicomfields_2026c"
    assert len(ACTIONS) == 652
    assert ACTIONS[keyword_dict["PatientName"]] == "empty"
    assert ACTIONS[keyword_dict["PatientAge"]] == "delete"
    assert ACTIONS[keyword_dict["SOPInstanceUID"]] == "replace_UID"
    assert ACTIONS[keyword_dict["SeriesDate"]] == "delete_or_replace"
    assert keyword_dict["SequenceOfUltrasoundRegions"] not in ACTIONS


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dates", list(Dates))
def test_every_attribute_of_the_table_goes_or_changes(nested: bool, dates: Dates) -> None:
    before = full_table()
    header = item(SequenceOfUltrasoundRegions=[before]) if nested else before
    after = cleaned(header, dates)
    if nested:
        after = after.SequenceOfUltrasoundRegions[0]
    wrong = [(str(one.tag), may_stand(one, dates)) for one in after.iterall()]
    assert not [one for one in wrong if one[1]]
    moved = 0
    for tag, action in ACTIONS.items():
        if tag not in before or tag in (keyword_dict["PatientName"], keyword_dict["PatientID"]):
            continue
        old, new = before[tag], after.get(tag)
        if old.VR in ("DA", "DT") and dates is Dates.SHIFT and new is not None and new.value:
            days = NAMES.days(PATIENT)
            assert new.value == shifted(old.value, days)
            moved += 1
        elif old.VR == "TM" and dates is Dates.SHIFT:
            continue
        elif action == "delete":
            assert new is None or not new.value, old
        elif new is not None and new.VR == "SQ":
            assert action == "delete_or_empty_or_replace_UID", old
            assert new.value[0].ReferencedSOPInstanceUID == NAMES.uid(f"{ROOT}.8")
            assert "PatientName" not in new.value[0] or not new.value[0].PatientName
        elif new is not None:
            assert new.value != old.value, old
    assert (moved > 60) is (dates is Dates.SHIFT)
    assert not any(word in value for value in values_of(after) for word in (SURNAME, ROOT))


def test_another_pass_of_the_library_finds_nothing_more() -> None:
    once = cleaned(full_table())
    again = copy.deepcopy(once)
    anonymize_dataset(again, base_rules_gen=lambda: initialize_actions(f"dicomfields_{EDITION}"))
    # It draws UIDs anew, takes away the names that stand for others, and where an attribute may be
    # empty or hold a dummy it wants the dummy.
    ours = {"PatientName", "PatientID"}
    for one in once:
        if again.get(one.tag) == one or one.VR in ("UI", "DA", "TM") or one.keyword in ours:
            continue
        action = ACTIONS[int(one.tag)]
        assert action in ("empty_or_replace", "delete_or_empty_or_replace_UID"), one


def test_what_the_table_does_not_name_stays_only_where_it_can_hide_nothing() -> None:
    header = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1",
        HeartRate=71,
        FrameTime="33.3",
        TransducerData="S5-1",
        Manufacturer="Philips",
        SeriesNumber=4,
        NumberOfFrames=30,
        SequenceOfUltrasoundRegions=[item(PhysicalDeltaX=0.04, ViewName="of whom")],
        PatientOrientation=["L", "F"],
    )
    header.add_new(0x00282000, "OB", b"profile!")
    header.add_new(0x00080FFF, "LO", "in no dictionary")
    after = cleaned(header)
    assert after.HeartRate == 71
    assert after.FrameTime == 33.3
    assert after.SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.04
    assert after.Manufacturer == "Philips"
    assert after.SOPClassUID == header.SOPClassUID
    gone = ("TransducerData", 0x00282000, 0x00080FFF)
    assert not any(one in after for one in gone)
    assert "ViewName" not in after.SequenceOfUltrasoundRegions[0]
    assert "TransducerData" in header, "the source's header must stay as it is"


def test_words_of_the_identity_go_wherever_they_stand() -> None:
    header = item(
        PatientName=f"{SURNAME}^Anna={KANJI}",
        PatientID="7730042",
        ImageType=["ORIGINAL", SURNAME.upper()],
        SeriesNumber=7730042,
        Manufacturer=f"made for {KANJI} & co",
        HeartRate=71,
    )
    identity = identity_of(header, ACTIONS, dates=True)
    clean = clean_header(header, identity, NAMES, PATIENT, Dates.REMOVE)
    assert clean.scrubbed == 3
    assert not clean.dataset.SeriesNumber
    assert clean.dataset.Manufacturer == ""
    assert list(clean.dataset.ImageType) == ["ORIGINAL", ""]
    for text in (
        "mus (zwetschge) 1",
        "ZWETSCHGE0",
        "xZwetschgenmus",
        "of anna",
        "ANNA7",
        "X7730042",
    ):
        assert identity.is_in_text(text), text
    for text in ("EPIQ 7C", "Susannah", "Annals", "zwetsch", "773004", "277300429"):
        assert not identity.is_in_text(text), text


@pytest.mark.parametrize(
    ("dates", "stated", "codes"),
    [
        (Dates.REMOVE, "REMOVED", ["113100", "113101"]),
        (Dates.SHIFT, "MODIFIED", ["113100", "113101", "113107"]),
    ],
)
def test_it_states_what_was_done_and_no_more(dates: Dates, stated: str, codes: list[str]) -> None:
    after = cleaned(item(StudyDate=STUDIED, PatientBirthDate="19310728"), dates)
    assert after.PatientIdentityRemoved == "YES"
    assert after.BurnedInAnnotation == "NO"
    assert after.LongitudinalTemporalInformationModified == stated
    assert [one.CodeValue for one in after.DeidentificationMethodCodeSequence] == codes
    assert all(len(words) <= 64 for words in after.DeidentificationMethod)
    assert after.PatientBirthDate == ""
    assert bool(after.StudyDate) is (dates is Dates.SHIFT)


def test_names_come_from_the_secret_alone() -> None:
    other = Pseudonyms(new_secret())
    assert NAMES.patient("number", "ab", "c") != NAMES.patient("number", "a", "bc")
    for make in (lambda n: n.patient("number", "1", ""), lambda n: n.uid("1.2"), _folder):
        assert make(NAMES) == make(Pseudonyms(bytes(range(32)))) != make(other)
    uid = NAMES.uid("1.2.3")
    assert uid.startswith("2.25.")
    assert int(uid[5:]) < 1 << 128
    assert 1 <= NAMES.days(PATIENT) <= 3650
    with pytest.raises(ValueError, match="32"):
        Pseudonyms(b"short")


def _folder(names: Pseudonyms) -> str:
    return names.folder("1.2")


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        ("20240301", "20240229"),
        ("20240101120000.5+0100", "20231231120000.5+0100"),
        ("2024.03.01", None),
        ("202403", None),
        ("00010101", None),
        ("", None),
    ],
)
def test_dates_move_by_whole_days(value: str, moved: str | None) -> None:
    assert shifted(value, 1) == moved
