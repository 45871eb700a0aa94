"""The headers of results: patient and study copied from the source, equipment of our own.

Patient and study are copied byte for byte with their character set, so that an archive files a
result where the source lies. What the source does not say is left empty, never filled in.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime, timedelta, timezone

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from models.finding import PackRef
from node.results import codes
from node.results.codes import Concept
from node.results.objects import MANUFACTURER, MODEL_NAME, ReportSettings, ResultError, derive_uid

# PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.2.3: all that belongs to patient and study.
PATIENT_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence",
    "GroupOfPatientsIdentificationSequence",
    "PatientBirthDate",
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
    "PatientAlternativeCalendar",
    "PatientSex",
    "ReferencedPatientPhotoSequence",
    "QualityControlSubject",
    "ReferencedPatientSequence",
    "PatientBirthTime",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "EthnicGroup",
    "EthnicGroupCodeSequence",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "StrainDescription",
    "StrainNomenclature",
    "StrainCodeSequence",
    "StrainAdditionalInformation",
    "StrainStockSequence",
    "GeneticModificationsSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "IssuerOfClinicalTrialProtocolID",
    "OtherClinicalTrialProtocolIDsSequence",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "IssuerOfClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "IssuerOfClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "IssuerOfClinicalTrialSubjectReadingID",
    "ClinicalTrialProtocolEthicsCommitteeName",
    "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
)
STUDY_ATTRIBUTES = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence",
    "RequestingService",
    "RequestingServiceCodeSequence",
    "ReferencedStudySequence",
    "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientBodyMassIndex",
    "MeasuredAPDimension",
    "MeasuredLateralDimension",
    "PatientSizeCodeSequence",
    "MedicalAlerts",
    "Allergies",
    "SmokingStatus",
    "PregnancyStatus",
    "LastMenstrualDate",
    "PatientState",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID",
    "IssuerOfServiceEpisodeIDSequence",
    "ServiceEpisodeDescription",
    "ReasonForVisit",
    "ReasonForVisitCodeSequence",
    "PatientSexNeutered",
    "ClinicalTrialTimePointID",
    "IssuerOfClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "ClinicalTrialTimePointTypeCodeSequence",
    "LongitudinalTemporalOffsetFromEvent",
    "LongitudinalTemporalEventType",
    "ConsentForClinicalTrialUseSequence",
)

_REQUIRED_EMPTY_IF_UNKNOWN = (  # type 2
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)

# Values that are the same bytes in every transfer syntax.
_BYTE_STRINGS = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT")
)


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Copy patient, study and character set exactly; leave empty what is not known."""
    for keyword in ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
        tag = BaseTag(_tag(keyword))
        if tag in source:
            _copy_exactly(source, target, tag)
    for keyword in _REQUIRED_EMPTY_IF_UNKNOWN:
        if keyword not in target:
            setattr(target, keyword, None)


def add_equipment(target: Dataset, settings: ReportSettings, packs: Iterable[PackRef]) -> None:
    """Say that this node made the object, and which packs took part (PS3.3 C.7.5.2, C.12.1).

    A pack's DeviceUID is derived from its weights: other weights are another device (IHE AIR).
    """
    target.Manufacturer = MANUFACTURER
    target.ManufacturerModelName = MODEL_NAME
    target.DeviceSerialNumber = settings.device_serial
    target.SoftwareVersions = settings.software_version
    if settings.institution:
        target.InstitutionName = settings.institution
    equipment = [_equipment(pack) for pack in packs]
    if equipment:
        target.ContributingEquipmentSequence = equipment


def add_times(target: Dataset, source: Dataset, created_at: datetime) -> None:
    """Date the object in the time zone of its study.

    Raises
    ------
    ResultError
        If ``created_at`` has no time zone.
    """
    if created_at.tzinfo is None:
        raise ResultError("created_at has no time zone")
    zone = _time_zone(source)
    local = created_at.astimezone(zone)  # None: the machine's own
    if zone is not None:
        target.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    target.ContentDate = target.InstanceCreationDate = local.strftime("%Y%m%d")
    target.ContentTime = target.InstanceCreationTime = local.strftime("%H%M%S")


def concept_item(concept: Concept) -> Dataset:
    """A code sequence item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = concept.scheme
    item.CodeMeaning = concept.meaning
    return item


def coding_scheme_items() -> list[Dataset]:
    """What the private scheme is (PS3.3 C.12.1.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return [item]


def _equipment(pack: PackRef) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [concept_item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = pack.name[:64]
    item.SoftwareVersions = pack.version[:64]
    item.DeviceUID = derive_uid("pack", pack.name, pack.weights_sha256)
    item.ContributionDescription = f"weights_sha256={pack.weights_sha256}"
    return item


def _copy_exactly(source: Dataset, target: Dataset, tag: BaseTag) -> None:
    element = source.get_item(tag)
    if isinstance(element, RawDataElement):
        vr = element.VR if element.VR not in (None, "UN") else dictionary_VR(tag)
        if vr in _BYTE_STRINGS and element.value is not None:
            # Undecoded, so that not even a wrongly encoded name changes.
            target[tag] = element._replace(
                VR=vr, is_implicit_VR=False, is_little_endian=True, length=len(element.value)
            )
            return
        element = source[tag]
    copied = deepcopy(element)
    if copied is not None and copied.VR == "SQ":
        for item in copied.value:
            for _ in item.iterall():  # decodes what is nested, so that any syntax can be written
                pass
    target[tag] = copied


def _time_zone(source: Dataset) -> timezone | None:
    offset = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    if minutes > 14 * 60:  # PS3.3 C.12.1: -1200 to +1400
        return None
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag
