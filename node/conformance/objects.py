"""What stands in the objects that the node makes: rows of attribute tables, read from samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from node.results.faults import filled
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from node.results.iods import Iod, Module
from node.results.objects import PRIVATE_GROUP

_COPIED = frozenset(("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES))
_LONGEST_VALUE = 160

# What no sample can tell: where a value comes from.
_SOURCES: Mapping[str, str] = {
    "TimezoneOffsetFromUTC": "copied from the source where it is valid; times are then in it",
    "SOPInstanceUID": "derived from what the object says (2.25, PS3.5 B.2)",
    "SeriesInstanceUID": "derived from study, kind of result and node: the same for all revisions",
    "InstanceNumber": "of a picture the place of the clip or ECG in its study; else the revision",
    "DeviceSerialNumber": "drawn once for each node, kept with its data",
    "SoftwareVersions": "the node's version",
    "ContentDate": "when it was made",
    "ContentTime": "when it was made",
    "InstanceCreationDate": "when it was made",
    "InstanceCreationTime": "when it was made",
    "InstitutionName": "the site's, where it is set",
    "ContributingEquipmentSequence": "an item for each model pack that took part",
    "CurrentRequestedProcedureEvidenceSequence": "of a report every clip or ECG, and picture; "
    "else what it points at",
    "PredecessorDocumentsSequence": "the report of the revision before",
    "ContentSequence": "see the template below",
    "DerivationDescription": "what the picture shows, by which packs, their evidence",
    "SourceImageSequence": "the clip, and the frames of it that are shown",
    "SourceInstanceSequence": "the ECG",
    "PageNumberVector": "of an ECG's picture: 1, 2 and so on",
    "PixelData": "JPEG frames, a fragment each, with a Basic Offset Table",
    "Rows": "of the drawing",
    "Columns": "of the drawing",
    "NumberOfFrames": "of the cine, or pages of an ECG",
    "LossyImageCompressionRatio": "behind those of the source",
    "LossyImageCompressionMethod": "behind those of the source",
    "FrameTime": "where the source's frames are evenly spaced",
    "FrameTimeVector": "where they are not",
    "FrameIncrementPointer": "at one of the two above; of an ECG's picture at the page numbers",
    "CineRate": "from the source's frame times",
    "RecommendedDisplayFrameRate": "from the source's frame times",
    "RepresentativeFrameNumber": "the frame that tells most",
    "FrameNumbersOfInterest": "end diastole, end systole, the strongest map",
    "FrameOfInterestDescription": "the same in words",
    "FrameOfInterestType": "the same in codes of the node",
}
_ONE_OF_FEW = frozenset(  # by the kind of result
    ("Modality", "SeriesNumber", "SeriesDescription", "ConceptNameCodeSequence")
)
_PRIVATE = {
    0x01: "kind of result: by it the node knows its own objects again",
    0x02: "times of the traced cavity's curve, in ms",
    0x03: "values of the traced cavity's curve",
    0x04: "unit of these values (UCUM)",
    0x05: "left, top, width and height of the panel with the tracing, in pixels",
}

Row = tuple[str, str, str, str, str, str, str]


def attribute_rows(iod: Iod, objects: Sequence[Dataset]) -> Iterator[Row]:
    """Module, attribute, tag, VR, type, presence and value, in the order of the modules."""
    shown: set[str] = set()
    for module in iod.modules:
        rest = []
        for keyword, type_ in module.types.items():
            if keyword in shown:
                continue
            if type_ == "3" and keyword in _COPIED:
                rest.append(dictionary_description(Tag(keyword)))
            elif type_ in ("1", "2") or any(keyword in each for each in objects):
                shown.add(keyword)
                yield _row(module, keyword, type_, objects)
        if rest:
            yield (module.name, ", ".join(rest), "", "", "3", "ANAP", "copied from the source")


def private_rows(
    objects: Mapping[str, Sequence[Dataset]],
) -> Iterator[tuple[str, str, str, str]]:
    """Element, VR, classes and meaning of the private attributes.

    Raises
    ------
    KeyError
        If an object has one that is not described here.
    """
    found: dict[int, tuple[str, set[str]]] = {}
    for of_class in objects.values():
        for dataset in of_class:
            for element in dataset.group_dataset(PRIVATE_GROUP):
                if element.tag.element < 0x1000:
                    continue  # the creator
                number = element.tag.element & 0xFF
                _, kinds = found.setdefault(number, (element.VR, set()))
                kinds.add(str(dataset.Modality) if dataset.Modality == "SR" else "SC")
    for number, (vr, kinds) in sorted(found.items()):
        yield (f"xx{number:02X}", vr, ", ".join(sorted(kinds)), _PRIVATE[number])


def _row(module: Module, keyword: str, type_: str, objects: Sequence[Dataset]) -> Row:
    tag = Tag(keyword)
    return (
        module.name,
        dictionary_description(tag),
        _tag(tag),
        dictionary_VR(tag),
        type_,
        _presence(keyword, objects),
        _value(keyword, objects),
    )


def _tag(tag: BaseTag) -> str:
    return f"({tag.group:04X},{tag.element:04X})"


def _presence(keyword: str, objects: Sequence[Dataset]) -> str:
    """In the words of PS3.2: ALWAYS, VNAP (may be empty), ANAP (may be absent), EMPTY."""
    there = [each for each in objects if keyword in each]
    full = [each for each in there if filled(each, keyword)]
    if not full:
        return "EMPTY"
    if len(there) < len(objects):
        return "ANAP"
    return "ALWAYS" if len(full) == len(there) else "VNAP"


def _value(keyword: str, objects: Sequence[Dataset]) -> str:
    if keyword in _SOURCES:
        return _SOURCES[keyword]
    if keyword in _COPIED:
        return "copied from the source"
    values = {_written(each, keyword) for each in objects if filled(each, keyword)}
    if len(values) == 1:
        (value,) = values
        return value[:_LONGEST_VALUE]
    if values and keyword in _ONE_OF_FEW:
        return " or ".join(sorted(values))
    if values:
        return "generated"
    return "no item" if dictionary_VR(Tag(keyword)) == "SQ" else "empty"


def _written(dataset: Dataset, keyword: str) -> str:
    element = dataset[keyword]
    if element.VR == "SQ":
        return "; ".join(_item(item) for item in element.value)
    if element.VM > 1:
        return "\\".join(str(each) for each in element.value)
    return str(element.value)


def _item(item: Dataset) -> str:
    """A short item in a cell: a code as a triplet, else its attributes."""
    if "CodeValue" in item:
        return f'({item.CodeValue}, {item.CodingSchemeDesignator}, "{item.CodeMeaning}")'
    return ", ".join(f"{element.name} {element.value}" for element in item)
