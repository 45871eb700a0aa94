"""A Key Object Selection of a study: the clips that were read, and the pictures made of them.

For viewers that gather key images in one place. TID 2010, titled "For Research"; in a series of
its own (PS3.3 A.35.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from node.results import codes, content
from node.results.content import Item
from node.results.document import hierarchy
from node.results.groups import counted, observer_items
from node.results.header import add_equipment, add_times, copy_patient_and_study
from node.results.objects import (
    RESEARCH_WORDS,
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    content_uid,
    encode,
    mark_as_own,
    series_uid,
)
from node.results.report import ClipSource, sources_of


def build_key_object(
    clips: Sequence[ClipResult],
    pages: Sequence[ObjectRef] = (),
    *,
    revision: int,
    settings: ReportSettings,
    created_at: datetime,
) -> EncodedObject:
    """The Key Object Selection of a study.

    Parameters
    ----------
    clips
        Every clip of the study, in any order. Those that a model read are pointed at, with
        their cines.
    pages
        Further pictures: the summary page.
    revision
        That of the report beside it; becomes the Instance Number.
    created_at
        When it was made, with a time zone. It is in the object, but not in its UID.

    Returns
    -------
    EncodedObject
        Explicit VR Little Endian. The same inputs give the same SOP Instance UID.

    Raises
    ------
    ResultError
        If the clips are none, of several studies, or if no model read any.
    """
    if revision < 1:
        raise ResultError(f"revision {revision}: the first is 1")
    read = [source for source in sources_of(clips, settings) if source.result.not_analysed is None]
    if not read:
        raise ResultError("no clip was read: there is nothing to point at")
    refs = _refs(read, pages)
    header = read[0].result.header
    dataset = Dataset()
    copy_patient_and_study(header, dataset)
    dataset.SOPClassUID = KeyObjectSelectionDocumentStorage
    dataset.Modality = "KO"
    dataset.SeriesInstanceUID = series_uid(read[0].ref.study_instance_uid, "KO", settings)
    dataset.SeriesNumber = settings.key_series_number
    dataset.SeriesDescription = settings.key_series_description
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.InstanceNumber = revision
    dataset.CurrentRequestedProcedureEvidenceSequence = hierarchy(refs)
    packs = sorted(
        {pack for source in read for pack in source.result.packs},
        key=lambda pack: (pack.name, pack.version, pack.weights_sha256),
    )
    add_equipment(dataset, settings, packs)
    for element in _root(read, settings):
        dataset[element.tag] = element
    dataset.ContentSequence = [*dataset.ContentSequence, *map(_image, refs)]
    mark_as_own(dataset, "KO")
    dataset.SOPInstanceUID = content_uid(dataset, leave_out=())
    add_times(dataset, header, created_at)
    return encode(dataset, ExplicitVRLittleEndian)


def _refs(read: Sequence[ClipSource], pages: Sequence[ObjectRef]) -> list[ObjectRef]:
    """What to look at, in order: the pages, then each clip and what was made of it."""
    refs = list(pages)
    for source in read:
        refs.append(source.ref)
        if source.result.capture is not None:
            refs.append(source.result.capture)
    return list(dict.fromkeys(refs))


def _root(read: Sequence[ClipSource], settings: ReportSettings) -> Item:
    words = (
        f"{RESEARCH_WORDS}. {counted(len(read), 'clip')} read by echonode "
        f"{settings.software_version}, and the pictures made of them."
    )
    return content.container(
        codes.FOR_RESEARCH,
        [
            *observer_items(settings),
            content.text(codes.KEY_OBJECT_DESCRIPTION, words),
        ],
        relationship=None,
        template="2010",
    )


def _image(ref: ObjectRef) -> Dataset:
    """Row 5 of TID 2010: an image without a concept name."""
    sop = Dataset()
    sop.ReferencedSOPClassUID = ref.sop_class_uid
    sop.ReferencedSOPInstanceUID = ref.sop_instance_uid
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE"
    item.ReferencedSOPSequence = [sop]
    return item
