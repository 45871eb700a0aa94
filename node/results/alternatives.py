"""What an archive gets that does not take the class of a result: the same, in another form.

A report goes as Comprehensive SR instead of Comprehensive 3D SR with the very same content, a
text report as Comprehensive SR instead of Basic Text SR, a cine as a few single frames. Whatever
refers to other results refers to what that archive has of them. Each form is an object of its
own: class and references are in the hash of its SOP Instance UID, so the same result and the same
archive always give the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from node.results.capture import single_frames
from node.results.document import hierarchy
from node.results.objects import EncodedObject, ObjectRef, ResultError, content_uid, encode

Instead = Mapping[str, Sequence[ObjectRef]]
"""By the SOP Instance UID of a result: the objects that an archive has in its place."""

NOTHING_INSTEAD: Instead = MappingProxyType({})

_DATED = (  # when it was made is no part of what it says
    "ContentDate",
    "ContentTime",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "TimezoneOffsetFromUTC",
)
_REFERENCES = ("CurrentRequestedProcedureEvidenceSequence", "PredecessorDocumentsSequence")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """Another class for a result, and how it is made. ``make`` None: only the class changes."""

    sop_class_uid: UID
    make: Callable[[bytes], tuple[EncodedObject, ...]] | None = None


_FORMS: Mapping[str, tuple[_Form, ...]] = MappingProxyType(
    {
        Comprehensive3DSRStorage: (_Form(sop_class_uid=ComprehensiveSRStorage),),
        BasicTextSRStorage: (_Form(sop_class_uid=ComprehensiveSRStorage),),
        MultiFrameTrueColorSecondaryCaptureImageStorage: (
            _Form(sop_class_uid=SecondaryCaptureImageStorage, make=single_frames),
        ),
    }
)
"""By class: what to send instead, the best first. The one place to add a form."""


def has_other_forms(sop_class_uid: str) -> bool:
    """Whether a result of this class can go in another."""
    return sop_class_uid in _FORMS


def form_for(
    data: bytes, refused: Collection[str], instead: Instead = NOTHING_INSTEAD
) -> tuple[EncodedObject, ...] | None:
    """A result in the form for an archive.

    Parameters
    ----------
    data
        The Part-10 file of the result as it was first made.
    refused
        The SOP classes that the archive does not take.
    instead
        What the archive has in place of other results of the study.

    Returns
    -------
    tuple of EncodedObject or None
        The objects to send in its place, one or more; empty where the result itself is to go;
        None where the archive takes no form of it.

    Raises
    ------
    ResultError
        If the bytes are no result, or a form cannot be made of it.
    """
    try:
        dataset = dcmread(BytesIO(data))
    except (InvalidDicomError, EOFError, ValueError, KeyError) as error:
        raise ResultError(f"a result cannot be read back: {error}") from error
    own = _Form(sop_class_uid=UID(str(dataset.SOPClassUID)))
    form = next(
        (
            form
            for form in (own, *_FORMS.get(own.sop_class_uid, ()))
            if form.sop_class_uid not in refused
        ),
        None,
    )
    if form is None:
        return None
    if form.make is not None:
        return form.make(data)
    if form is own and not _refers_to(dataset, instead):
        return ()
    return (_as_document(dataset, form.sop_class_uid, instead),)


def _refers_to(dataset: Dataset, instead: Instead) -> bool:
    return any(
        str(item.ReferencedSOPInstanceUID) in instead
        for keyword in _REFERENCES
        for study in dataset.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    )


def _as_document(dataset: Dataset, sop_class_uid: UID, instead: Instead) -> EncodedObject:
    """The same document in a class, with the references that hold at the archive."""
    document = Dataset()
    document.update({tag: dataset.get_item(tag) for tag in dataset.keys()})  # noqa: SIM118 (raw)
    for keyword in _REFERENCES:
        if keyword in dataset:
            setattr(document, keyword, _references(dataset[keyword].value, instead))
    if "ContentSequence" in dataset:
        document.ContentSequence = _items(dataset.ContentSequence, instead)
    document.SOPClassUID = sop_class_uid
    del document.SOPInstanceUID
    document.SOPInstanceUID = content_uid(document, leave_out=("SOPInstanceUID", *_DATED))
    return encode(document, dataset.file_meta.TransferSyntaxUID)


def _references(studies: Sequence[Dataset], instead: Instead) -> list[Dataset]:
    refs: list[ObjectRef] = []
    for study in studies:
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                ref = ObjectRef(
                    sop_class_uid=str(item.ReferencedSOPClassUID),
                    sop_instance_uid=str(item.ReferencedSOPInstanceUID),
                    series_instance_uid=str(series.SeriesInstanceUID),
                    study_instance_uid=str(study.StudyInstanceUID),
                )
                refs += instead.get(ref.sop_instance_uid, (ref,))
    return hierarchy(refs)


def _items(
    items: Sequence[Dataset], instead: Instead, *, of_a_point: bool = False
) -> list[Dataset]:
    """Content items, with one for each object that an archive has in place of an image.

    A point lies in one image alone.
    """
    kept: list[Dataset] = []
    for item in items:
        changed = deepcopy(item)
        if "ContentSequence" in item:
            changed.ContentSequence = _items(
                item.ContentSequence, instead, of_a_point=item.get("ValueType") == "SCOORD"
            )
        reference = (item.get("ReferencedSOPSequence") or [None])[0]
        uid = str(reference.ReferencedSOPInstanceUID) if reference is not None else ""
        if uid not in instead:
            kept.append(changed)
            continue
        refs = _meant(reference, instead[uid])
        for ref in refs[:1] if of_a_point else refs:
            other = deepcopy(changed)
            pointer = Dataset()
            pointer.ReferencedSOPClassUID = ref.sop_class_uid
            pointer.ReferencedSOPInstanceUID = ref.sop_instance_uid
            other.ReferencedSOPSequence = [pointer]
            kept.append(other)
    return kept


def _meant(reference: Dataset, refs: Sequence[ObjectRef]) -> Sequence[ObjectRef]:
    """Of the objects in place of a picture those that hold the frame that is pointed at.

    Where a reference names a frame, there is an object for each frame, in their order.
    """
    number = reference.get("ReferencedFrameNumber")
    if number is None or not 1 <= int(number) <= len(refs):
        return refs
    return [refs[int(number) - 1]]
