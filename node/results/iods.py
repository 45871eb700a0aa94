"""What PS3.3 asks of the objects that the node makes: a frozen table of IODs and modules.

Types 1 and 2 of every mandatory module, and those attributes of type 1C, 2C and 3 that our
objects bear. The gate (:mod:`node.results.check`) holds each object to it, and the conformance
statement prints it. A test holds it to the tables that highdicom ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.uid import (
    UID,
    AmbulatoryECGWaveformStorage,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    TwelveLeadECGWaveformStorage,
)

from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """A module: its attributes with their types, by keyword. ``clause`` is of PS3.3."""

    name: str
    clause: str
    types: Mapping[str, str]

    def of_type(self, type_: str) -> tuple[str, ...]:
        """The attributes of one type."""
        return tuple(keyword for keyword, each in self.types.items() if each == type_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Iod:
    """An object that we make: its class, and the modules that it has."""

    name: str
    sop_class: UID
    clause: str
    modules: tuple[Module, ...]


def _module(name: str, clause: str, **types: str) -> Module:
    return Module(name=name, clause=clause, types=MappingProxyType(types))


def _optional(keywords: tuple[str, ...], required: Mapping[str, str]) -> dict[str, str]:
    """The attributes that are copied where the source has them, behind the required ones."""
    return {**required, **{each: "3" for each in keywords if each not in required}}


PATIENT = _module(
    "Patient",
    "C.7.1.1",
    **_optional(
        PATIENT_ATTRIBUTES,
        {"PatientName": "2", "PatientID": "2", "PatientBirthDate": "2", "PatientSex": "2"},
    ),
)
STUDY = _module(
    "General Study, Patient Study",
    "C.7.2.1, C.7.2.2",
    **_optional(
        STUDY_ATTRIBUTES,
        {
            "StudyInstanceUID": "1",
            "StudyDate": "2",
            "StudyTime": "2",
            "ReferringPhysicianName": "2",
            "StudyID": "2",
            "AccessionNumber": "2",
        },
    ),
)
DOCUMENT_SERIES = _module(
    "SR Document Series",
    "C.17.1",
    Modality="1",
    SeriesInstanceUID="1",
    SeriesNumber="1",
    ReferencedPerformedProcedureStepSequence="2",
    SeriesDescription="3",
)
KEY_OBJECT_SERIES = _module(
    "Key Object Document Series",
    "C.17.6.1",
    Modality="1",
    SeriesInstanceUID="1",
    SeriesNumber="1",
    ReferencedPerformedProcedureStepSequence="2",
    SeriesDescription="3",
)
IMAGE_SERIES = _module(
    "General Series",
    "C.7.3.1",
    Modality="1",
    SeriesInstanceUID="1",
    SeriesNumber="2",
    SeriesDescription="3",
    BodyPartExamined="3",
)
EQUIPMENT = _module(
    "General Equipment",
    "C.7.5.1",
    Manufacturer="2",
    InstitutionName="3",
    ManufacturerModelName="3",
    DeviceSerialNumber="3",
    SoftwareVersions="3",
)
CAPTURE_EQUIPMENT = _module("SC Equipment", "C.8.6.1", ConversionType="1")
DOCUMENT = _module(
    "SR Document General",
    "C.17.2",
    InstanceNumber="1",
    CompletionFlag="1",
    VerificationFlag="1",
    PreliminaryFlag="3",
    ContentDate="1",
    ContentTime="1",
    PredecessorDocumentsSequence="1C",
    IdenticalDocumentsSequence="1C",
    PerformedProcedureCodeSequence="2",
    CurrentRequestedProcedureEvidenceSequence="1C",
)
KEY_OBJECT = _module(
    "Key Object Document",
    "C.17.6.2",
    InstanceNumber="1",
    ContentDate="1",
    ContentTime="1",
    CurrentRequestedProcedureEvidenceSequence="1",
)
CONTENT = _module(
    "SR Document Content",
    "C.17.3",
    ValueType="1",
    ConceptNameCodeSequence="1C",
    ContinuityOfContent="1",
    ContentTemplateSequence="1C",
    ContentSequence="1C",
)
IMAGE = _module(
    "General Image, General Reference",
    "C.7.6.1, C.12.4",
    InstanceNumber="2",
    PatientOrientation="2C",
    ContentDate="2C",
    ContentTime="2C",
    ImageType="3",
    DerivationDescription="3",
    SourceImageSequence="3",
    SourceInstanceSequence="3",
    BurnedInAnnotation="3",
    RecognizableVisualFeatures="3",
    LossyImageCompression="3",
    LossyImageCompressionRatio="3",
    LossyImageCompressionMethod="3",
)
PIXELS = _module(
    "Image Pixel",
    "C.7.6.3",
    SamplesPerPixel="1",
    PhotometricInterpretation="1",
    Rows="1",
    Columns="1",
    BitsAllocated="1",
    BitsStored="1",
    HighBit="1",
    PixelRepresentation="1",
    PlanarConfiguration="1C",
    PixelData="1C",
)
CINE = _module(
    "Cine",
    "C.7.6.5",
    FrameTime="1C",
    FrameTimeVector="1C",
    CineRate="3",
    RecommendedDisplayFrameRate="3",
)
# Frame Increment Pointer is type 1 of this module, and 1C (more than one frame) of the next,
# which PS3.3 C.8.6.3 puts in its place for secondary captures.
MULTI_FRAME = _module("Multi-frame", "C.7.6.6", NumberOfFrames="1")
CAPTURE_FRAMES = _module(
    "SC Multi-frame Image", "C.8.6.3", BurnedInAnnotation="1", FrameIncrementPointer="1C"
)
CAPTURE_VECTOR = _module("SC Multi-frame Vector", "C.8.6.4", PageNumberVector="1C")
FRAME_POINTERS = _module(
    "Frame Pointers",
    "C.7.6.9",
    RepresentativeFrameNumber="3",
    FrameNumbersOfInterest="3",
    FrameOfInterestDescription="1C",
    FrameOfInterestType="3",
)
COMMON = _module(
    "SOP Common",
    "C.12.1",
    SOPClassUID="1",
    SOPInstanceUID="1",
    SpecificCharacterSet="1C",
    InstanceCreationDate="3",
    InstanceCreationTime="3",
    TimezoneOffsetFromUTC="3",
    CodingSchemeIdentificationSequence="3",
    ContributingEquipmentSequence="3",
)

_REPORT = (PATIENT, STUDY, DOCUMENT_SERIES, EQUIPMENT, DOCUMENT, CONTENT, COMMON)
_CAPTURE = (PATIENT, STUDY, IMAGE_SERIES, EQUIPMENT, CAPTURE_EQUIPMENT, IMAGE, PIXELS)

IODS: Mapping[str, Iod] = MappingProxyType(
    {
        iod.sop_class: iod
        for iod in (
            Iod(
                name="Comprehensive 3D SR",
                sop_class=Comprehensive3DSRStorage,
                clause="A.35.13",
                modules=_REPORT,
            ),
            Iod(
                name="Comprehensive SR",
                sop_class=ComprehensiveSRStorage,
                clause="A.35.3",
                modules=_REPORT,
            ),
            Iod(
                name="Basic Text SR",
                sop_class=BasicTextSRStorage,
                clause="A.35.1",
                modules=_REPORT,
            ),
            Iod(
                name="Multi-frame True Color Secondary Capture Image",
                sop_class=MultiFrameTrueColorSecondaryCaptureImageStorage,
                clause="A.8.5",
                modules=(
                    *_CAPTURE,
                    CINE,
                    MULTI_FRAME,
                    CAPTURE_FRAMES,
                    CAPTURE_VECTOR,
                    FRAME_POINTERS,
                    COMMON,
                ),
            ),
            Iod(
                name="Secondary Capture Image",
                sop_class=SecondaryCaptureImageStorage,
                clause="A.8.1",
                modules=(*_CAPTURE, COMMON),
            ),
            Iod(
                name="Key Object Selection Document",
                sop_class=KeyObjectSelectionDocumentStorage,
                clause="A.35.4",
                modules=(PATIENT, STUDY, KEY_OBJECT_SERIES, EQUIPMENT, KEY_OBJECT, CONTENT, COMMON),
            ),
        )
    }
)
"""The objects that the gate knows, by SOP class."""

_SOP_REFERENCE = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")
_HIERARCHY = ("StudyInstanceUID", "ReferencedSeriesSequence")

ITEMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ContentSequence": ("RelationshipType", "ValueType"),
        "ContentTemplateSequence": ("MappingResource", "TemplateIdentifier"),
        "MeasuredValueSequence": ("NumericValue", "MeasurementUnitsCodeSequence"),
        "ReferencedSOPSequence": _SOP_REFERENCE,
        "SourceImageSequence": _SOP_REFERENCE,
        "SourceInstanceSequence": _SOP_REFERENCE,
        "ReferencedSeriesSequence": ("SeriesInstanceUID", "ReferencedSOPSequence"),
        "CurrentRequestedProcedureEvidenceSequence": _HIERARCHY,
        "PredecessorDocumentsSequence": _HIERARCHY,
        "IdenticalDocumentsSequence": _HIERARCHY,
        "ContributingEquipmentSequence": ("PurposeOfReferenceCodeSequence", "Manufacturer"),
        "CodingSchemeIdentificationSequence": ("CodingSchemeDesignator",),
    }
)
"""Type 1 of the items of sequences that our objects have; every one has an item at least."""

WAVEFORM_CLASSES = frozenset(
    (
        TwelveLeadECGWaveformStorage,
        GeneralECGWaveformStorage,
        AmbulatoryECGWaveformStorage,
        General32bitECGWaveformStorage,
    )
)
"""The classes of what our reports refer to as a waveform (PS3.4 B.5)."""

CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
"""Type 1 of every item of a code sequence with a short code (PS3.3 8.8)."""

ONE_ITEM = frozenset(
    (
        "ConceptNameCodeSequence",
        "ConceptCodeSequence",
        "ContentTemplateSequence",
        "MeasuredValueSequence",
        "MeasurementUnitsCodeSequence",
    )
)
"""Sequences that have a single item (PS3.3 C.17.3, C.18)."""
