"""The header of a clip by PS3.15 Annex E: the Basic Application Level Confidentiality Profile.

What happens to an attribute is said by Table E.1-1 as the library `dicom-anonymizer` has it
(edition 2026c), and done by its functions. Beyond what that library does, here

- every sequence is gone through to its bottom, not the top level alone;
- UIDs come from a secret and not from chance, and every UID is replaced that the standard does not
  define, in attributes outside the table, too;
- of "remove, or empty where the IOD wants it" (X/Z, X/D ...) the first is done, but for what an
  ultrasound image must have, and dates are removed or emptied, never set to the year 1;
- what the table does not name is kept only where it cannot hold free text or hidden bytes: numbers,
  code words, codes of standard schemes, maker and model;
- whatever still holds a word of the source's identity is removed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import Final

from dicomanonymizer.simpledicomanonymizer import empty_element, initialize_actions, replace_element
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_dict
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from node.export.identity import Identity
from node.export.pseudonyms import Pseudonyms, shifted

EDITION: Final = "2026c"


class Dates(StrEnum):
    """What becomes of dates."""

    REMOVE = "remove"
    SHIFT = "shift"  #: all of a patient by so many days: what lies between them stays


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(keyword_dict[keyword] for keyword in keywords)


_TABLE: Final[dict[tuple[int, ...], Callable[..., None]]] = initialize_actions(
    f"dicomfields_{EDITION}"
)
ACTIONS: Final = {
    tag[0] << 16 | tag[1]: function.__name__ for tag, function in _TABLE.items() if len(tag) == 2
}
"""Table E.1-1 without its repeating groups: an attribute's tag to what the library calls it."""

_TYPE_2: Final = _tags(
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
)
"""An ultrasound image must have them, with or without a value (PS3.3 A.6, A.7)."""
_EMPTIED: Final = _TYPE_2 | _tags("PositionReferenceIndicator")
_NEVER_SHIFTED: Final = _tags("PatientBirthDate", "PatientBirthTime", "GPSTimeStamp")
"""Times that the option with modified dates does not keep."""
_CODE: Final = _tags(
    "CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"
)
_TEXT_KEPT: Final = _CODE | _tags("Manufacturer", "ManufacturerModelName", "SoftwareVersions")
_STANDARD_SCHEMES: Final = frozenset(("DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "FMA"))
_FREE_TEXT: Final = frozenset(("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_BYTES: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_TIMES: Final = frozenset(("DA", "DT", "TM"))
_PIXELS: Final = _tags(
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "PixelAspectRatio",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PlanarConfiguration",
)
"""Said of pixels as they were; what is true of the new ones is set anew."""
_REFERENCES: Final = "delete_or_empty_or_replace_UID"
_GRAPHICS: Final = 0x5000  # curves; the groups of overlays and of pixels follow
_IMAGE_TYPE: Final = _tags("ImageType")
_SIGNATURES: Final = 0x0400  # of what is no longer as it was signed
SET_HERE: Final = _tags(
    "SOPClassUID",
    "SpecificCharacterSet",
    "Modality",
    "PatientName",
    "PatientID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "BurnedInAnnotation",
    "LongitudinalTemporalInformationModified",
    "PhotometricInterpretation",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
)
"""Attributes whose values are this module's, or one of a few that the standard names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanHeader:
    """A header without identity. ``scrubbed``: values beyond the table that held some of it."""

    dataset: Dataset
    scrubbed: int


def clean_header(
    header: Dataset, identity: Identity, names: Pseudonyms, patient: str, dates: Dates
) -> CleanHeader:
    """A clip's header after the profile; its pixels are :mod:`node.export.pixels`'s part.

    ``header`` is what :func:`models.clip.read_clip` reads, and stays as it is.
    """
    dataset = Dataset()
    dataset.update(copy.deepcopy(dict(header.items())))
    _clean(dataset, names, names.days(patient) if dates is Dates.SHIFT else None, top=True)
    scrubbed = _scrub(dataset, identity, top=True)
    for tag in _TYPE_2:
        if tag not in dataset:
            dataset.add(DataElement(tag, dictionary_VR(tag), ""))
    # Every text has been decoded by now, of whatever character set it was.
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Modality = "US"
    dataset.PatientName = dataset.PatientID = patient
    _state(dataset, dates)
    return CleanHeader(dataset=dataset, scrubbed=scrubbed)


def may_stand(element: DataElement, dates: Dates) -> str:
    """What is wrong with an attribute of a cleaned object, by the table; "" for nothing."""
    tag = int(element.tag)
    if tag in SET_HERE:
        return ""
    if element.tag.is_private:
        return "a private attribute"
    if _GRAPHICS <= element.tag.group < 0x7000:
        return "an overlay or a curve"
    if element.VR in _BYTES:
        return "hidden bytes"
    action = ACTIONS.get(tag)
    empty = element.value in (None, "") or not len(str(element.value))
    if action is None:
        free = element.VR in _FREE_TEXT and tag not in _TEXT_KEPT
        return "free text" if (free or element.VR in _TIMES) and not empty else ""
    if element.VR == "SQ":
        return "" if action == _REFERENCES else "a sequence to be removed"
    if element.VR == "UI":
        values = [element.value] if isinstance(element.value, str) else element.value
        old = [v for v in values if v and not str(v).startswith("2.25.")]
        return "a UID that was not replaced" if old else ""
    if element.VR in _TIMES:
        kept = dates is Dates.SHIFT and tag not in _NEVER_SHIFTED
        return "" if empty or kept else "a date or time"
    if action == "delete":
        return "an attribute to be removed"
    return "" if empty or _is_dummy(element) else "a value to be replaced"


def _clean(dataset: Dataset, names: Pseudonyms, days: int | None, *, top: bool) -> None:
    for tag in list(dataset.keys()):
        element = dataset[tag]
        becomes = _treated(element, names, days, top=top)
        if becomes is None:
            del dataset[tag]
        else:
            dataset[tag] = becomes


def _treated(
    element: DataElement, names: Pseudonyms, days: int | None, *, top: bool
) -> DataElement | None:
    """An attribute after the profile; None where it goes."""
    tag = int(element.tag)
    if (
        element.tag.is_private
        or not 0x0008 <= element.tag.group < _GRAPHICS
        or element.tag.group == _SIGNATURES
        or not dictionary_has_tag(tag)
        or (top and tag in _PIXELS)
    ):
        return None
    action = ACTIONS.get(tag)
    emptied = DataElement(tag, dictionary_VR(tag), "") if top and tag in _EMPTIED else None
    if element.VR == "UI":
        return emptied if action == "delete" else _new_uids(element, names)
    if element.VR in _TIMES:
        if action is None or days is None or tag in _NEVER_SHIFTED:
            return emptied
        return _moved(element, days) or emptied
    if element.VR == "SQ":
        # Of the sequences with an action, those of references to objects stay, with other UIDs.
        if action not in (None, _REFERENCES):
            return None
        return _cleaned_items(element, names, days)
    if element.VR in _BYTES:
        return None
    if action is None:
        return _not_in_table(element) or emptied
    return _by_action(element, action) or emptied


def _by_action(element: DataElement, action: str) -> DataElement | None:
    """What the table says, done by the library; what may go, goes."""
    if action in ("empty", "empty_or_replace"):
        empty_element(element)
        return element
    if action == "replace":
        try:
            replace_element(element)
        except NotImplementedError:
            return None
        return element
    return None


def _not_in_table(element: DataElement) -> DataElement | None:
    tag = int(element.tag)
    hides = element.VR == "AS" or (element.VR in _FREE_TEXT and tag not in _TEXT_KEPT)
    return None if hides else element


def _cleaned_items(element: DataElement, names: Pseudonyms, days: int | None) -> DataElement | None:
    for item in element.value:
        coded = any(tag in item for tag in _CODE)
        if coded and str(item.get("CodingSchemeDesignator")) not in _STANDARD_SCHEMES:
            return None  # a code of the site's own may be its name
        _clean(item, names, days, top=False)
    return element if any(len(item) for item in element.value) else None


def _new_uids(element: DataElement, names: Pseudonyms) -> DataElement | None:
    value = element.value
    if not value:
        return None
    new = [
        uid if uid in UID_dictionary else names.uid(uid)
        for uid in ([str(value)] if isinstance(value, str) else [str(one) for one in value])
    ]
    return DataElement(element.tag, "UI", new if len(new) > 1 else new[0])


def _moved(element: DataElement, days: int) -> DataElement | None:
    value = element.value
    values = [str(value)] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    if element.VR == "TM":
        return element
    moved = [shifted(str(one).strip(), days) for one in values]
    if not moved or None in moved:
        return None
    return DataElement(element.tag, element.VR, moved if len(moved) > 1 else moved[0])


def _scrub(dataset: Dataset, identity: Identity, *, top: bool) -> int:
    """Remove what still holds a word of the source's identity; returns how many attributes."""
    count = 0
    for tag in list(dataset.keys()):
        element = dataset[tag]
        if top and int(tag) in SET_HERE:
            continue
        if element.VR == "SQ":
            codes = [len(_CODE & set(item.keys())) for item in element.value]
            count += sum(_scrub(item, identity, top=False) for item in element.value)
            if codes != [len(_CODE & set(item.keys())) for item in element.value]:
                del dataset[tag]  # what is left of a code is none
        elif identity.is_in(element):
            count += 1
            if int(tag) in _IMAGE_TYPE and element.VM > 1:
                # Its first values are needed, and its fourth tells how was scanned.
                element.value = ["" if identity.is_in_text(v) else v for v in element.value]
            else:
                del dataset[tag]
    return count


def _state(dataset: Dataset, dates: Dates) -> None:
    """Say what was done (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1)."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [
        f"PS3.15 {EDITION} Basic Profile, pixels outside the sector blanked",
        f"echonode {version('echonode')}, dicom-anonymizer {version('dicom-anonymizer')}"[:64],
    ]
    codes = [
        ("113100", "Basic Application Confidentiality Profile"),
        ("113101", "Clean Pixel Data Option"),
    ]
    if dates is Dates.SHIFT:
        codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    dataset.DeidentificationMethodCodeSequence = [_code(*code) for code in codes]
    dataset.BurnedInAnnotation = "NO"
    dataset.LongitudinalTemporalInformationModified = (
        "MODIFIED" if dates is Dates.SHIFT else "REMOVED"
    )


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _is_dummy(element: DataElement) -> bool:
    dummy = DataElement(element.tag, element.VR, copy.deepcopy(element.value))
    try:
        replace_element(dummy)
    except NotImplementedError:
        return False
    return bool(dummy.value == element.value)
