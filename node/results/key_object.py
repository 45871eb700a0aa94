"""A Key Object Selection of a study: what was read of it, and the pictures made of that.

For viewers that gather key images in one place. TID 2010, titled "For Research"; in a series of
its own (PS3.3 A.35.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from node.results import codes, content
from node.results.content import Item
from node.results.document import Source, hierarchy
from node.results.ecg_report import EcgSource, ecg_sources_of
from node.results.groups import counted, observer_items
from node.results.header import add_equipment, add_times, copy_patient_and_study
from node.results.iods import WAVEFORM_CLASSES
from node.results.objects import (
    RESEARCH_WORDS,
    ClipResult,
    EcgResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    content_uid,
    encode,
    mark_as_own,
    series_uid,
)
from node.results.report import sources_of


def build_key_object(
    clips: Sequence[ClipResult],
    pages: Sequence[ObjectRef] = (),
    *,
    ecgs: Sequence[EcgResult] = (),
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
    ecgs
        Every ECG of the study, of which the same holds. Without a clip the selection has a
        series of its own, beside that of the study's clips.
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
        If clips and ECGs are of several studies, or if no model read any.
    """
    if revision < 1:
        raise ResultError(f"revision {revision}: the first is 1")
    clip_sources = sources_of(clips, settings) if clips else []
    ecg_sources = ecg_sources_of(ecgs, settings) if ecgs else []
    sources: list[Source[Any]] = [*clip_sources, *ecg_sources]
    read = [source for source in sources if source.result.not_analysed is None]
    if not read:
        raise ResultError("nothing was read: there is nothing to point at")
    if len({source.ref.study_instance_uid for source in read}) > 1:
        raise ResultError("clips and ECGs belong to several studies; make a selection for each")
    refs = _refs(read, pages)
    header = read[0].result.header
    dataset = Dataset()
    copy_patient_and_study(header, dataset)
    dataset.SOPClassUID = KeyObjectSelectionDocumentStorage
    dataset.Modality = "KO"
    kind = "KO" if clips else "ECG KO"  # two of one number would be taken for two revisions
    dataset.SeriesInstanceUID = series_uid(read[0].ref.study_instance_uid, kind, settings)
    dataset.SeriesNumber = settings.key_series_number if clips else settings.ecg_key_series_number
    dataset.SeriesDescription = (
        settings.key_series_description if clips else settings.ecg_key_series_description
    )
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
    dataset.ContentSequence = [*dataset.ContentSequence, *map(_pointer, refs)]
    mark_as_own(dataset, "KO")
    dataset.SOPInstanceUID = content_uid(dataset, leave_out=())
    add_times(dataset, header, created_at)
    return encode(dataset, ExplicitVRLittleEndian)


def _refs(read: Sequence[Source[Any]], pages: Sequence[ObjectRef]) -> list[ObjectRef]:
    """What to look at, in order: the pages, then each source and what was made of it."""
    refs = list(pages)
    for source in read:
        refs.append(source.ref)
        if source.result.capture is not None:
            refs.append(source.result.capture)
    return list(dict.fromkeys(refs))


def _root(read: Sequence[Source[Any]], settings: ReportSettings) -> Item:
    ecgs = sum(isinstance(source, EcgSource) for source in read)
    counts = ((len(read) - ecgs, "clip"), (ecgs, "ECG"))
    what = " and ".join(counted(count, noun) for count, noun in counts if count)
    words = (
        f"{RESEARCH_WORDS}. {what} read by echonode "
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


def _pointer(ref: ObjectRef) -> Dataset:
    """Row 5 or 6 of TID 2010: an image or a waveform without a concept name."""
    sop = Dataset()
    sop.ReferencedSOPClassUID = ref.sop_class_uid
    sop.ReferencedSOPInstanceUID = ref.sop_instance_uid
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "WAVEFORM" if ref.sop_class_uid in WAVEFORM_CLASSES else "IMAGE"
    item.ReferencedSOPSequence = [sop]
    return item
