"""The gate: what an object of ours must be before it may leave, checked without any tool.

It holds what the public validators do not notice (a wrong code, a group without tracking or
coordinates, a picture called original), what PS3.3 and PS3.5 ask (:mod:`node.results.iods`,
:mod:`node.results.check_values`), and what an archive or a viewer would stumble over. An object
with a fault goes to quarantine with the fault's words. Nothing here judges what was copied from
the source: its patient and study stay as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from types import MappingProxyType

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from node.results import codes
from node.results.check_capture import check_capture
from node.results.check_tree import check_key_object, check_report, speaks_for_a_model
from node.results.check_values import check_values
from node.results.faults import Fault, fault, filled, is_code
from node.results.iods import IODS
from node.results.objects import MANUFACTURER, EncodedObject, is_own_object

__all__ = ["RULES_OF", "Fault", "check_object"]

RULES_OF: Mapping[str, Callable[[Dataset], Iterator[Fault]]] = MappingProxyType(
    {
        Comprehensive3DSRStorage: check_report,
        ComprehensiveSRStorage: check_report,
        BasicTextSRStorage: check_report,
        MultiFrameTrueColorSecondaryCaptureImageStorage: check_capture,
        SecondaryCaptureImageStorage: check_capture,
        KeyObjectSelectionDocumentStorage: check_key_object,
    }
)
"""The rules of each SOP class that the node makes, beside those for all."""

_CAPTURES = frozenset(
    (MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage)
)


def check_object(made: EncodedObject | bytes) -> tuple[Fault, ...]:
    """All faults of a result; empty where it may leave.

    Parameters
    ----------
    made
        An object, or the bytes of its Part-10 file.
    """
    data = made.data if isinstance(made, EncodedObject) else made
    try:
        dataset = dcmread(BytesIO(data))
    except (InvalidDicomError, EOFError, ValueError, KeyError, OSError) as error:
        return (fault("readable", "file", f"cannot be read back: {error}"),)
    faults = list(_check_common(dataset))
    if isinstance(made, EncodedObject):
        faults += _check_reference(dataset, made)
    rules = RULES_OF.get(str(dataset.get("SOPClassUID")))
    if rules is None:
        faults.append(
            fault("class", "SOPClassUID", f"{dataset.get('SOPClassUID')} is no class that we make")
        )
    else:
        faults += _check_types(dataset)
        faults += rules(dataset)
    return tuple(dict.fromkeys(faults))


def _check_types(dataset: Dataset) -> Iterator[Fault]:
    """Types 1 and 2 of the IOD's modules (PS3.5 7.4)."""
    for module in IODS[str(dataset.SOPClassUID)].modules:
        for keyword in module.of_type("1"):
            if not filled(dataset, keyword):
                yield fault("required", keyword, "missing or empty")
        for keyword in module.of_type("2"):
            if keyword not in dataset:
                yield fault("required", keyword, "missing (it may be empty)")


# What is optional by PS3.3 but never missing in an object of ours.
_NEVER_EMPTY = (
    "SeriesNumber",
    "InstanceNumber",
    "SeriesDescription",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ContentDate",
    "ContentTime",
)
_FILE_META = (
    "TransferSyntaxUID",
    "ImplementationClassUID",
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
)


def _check_common(dataset: Dataset) -> Iterator[Fault]:
    for keyword in _NEVER_EMPTY:
        if not filled(dataset, keyword):
            yield fault("required", keyword, "missing or empty")
    for keyword in _FILE_META:
        if not filled(dataset.file_meta, keyword):
            yield fault("meta", keyword, "missing or empty")
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if dataset.get(keyword) != dataset.file_meta.get(f"MediaStorage{keyword}"):
            yield fault("meta", f"MediaStorage{keyword}", f"differs from {keyword}")
    if "RESEARCH" not in str(dataset.get("SeriesDescription") or ""):
        yield fault("research", "SeriesDescription", "does not say RESEARCH")
    if not is_own_object(dataset):
        yield fault("own", "Manufacturer", "the node would not know its own object")
    yield from _check_equipment(dataset)
    yield from check_values(dataset)


def _check_equipment(dataset: Dataset) -> Iterator[Fault]:
    if str(dataset.get("Manufacturer") or "") != MANUFACTURER:
        yield fault("equipment", "Manufacturer", f"is not {MANUFACTURER}")
    items = dataset.get("ContributingEquipmentSequence")
    # A picture, or a measurement, was made by a model that must be named.
    needed = dataset.get("SOPClassUID") in _CAPTURES or speaks_for_a_model(dataset)
    if not items and (needed or "ContributingEquipmentSequence" in dataset):
        yield fault("equipment", "ContributingEquipmentSequence", "missing or empty")
    for index, item in enumerate(items or (), start=1):
        where = f"ContributingEquipmentSequence item {index}"
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not filled(item, keyword):
                yield fault("equipment", where, f"no {keyword}")
        purpose = item.get("PurposeOfReferenceCodeSequence")
        if not purpose or not is_code(purpose[0], codes.PROCESSING_EQUIPMENT):
            yield fault("equipment", where, "its purpose is not Processing Equipment")


def _check_reference(dataset: Dataset, made: EncodedObject) -> Iterator[Fault]:
    for keyword, said in (
        ("SOPClassUID", made.ref.sop_class_uid),
        ("SOPInstanceUID", made.ref.sop_instance_uid),
        ("SeriesInstanceUID", made.ref.series_instance_uid),
        ("StudyInstanceUID", made.ref.study_instance_uid),
    ):
        if str(dataset.get(keyword)) != said:
            yield fault("reference", keyword, "differs from the object's reference")
    if dataset.file_meta.get("TransferSyntaxUID") != made.transfer_syntax_uid:
        yield fault("reference", "TransferSyntaxUID", "differs from the object's reference")
