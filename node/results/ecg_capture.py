"""The picture of an explained ECG: a secondary capture whose frames are pages to turn.

PS3.3 A.8.5, and A.8.1 where there is one page. A viewer must not play pages as a cine: Frame
Increment Pointer points at the numbers of the pages (C.8.6.4), and no frame has a time. No name is
drawn on ECG paper of ours, so Burned In Annotation is NO. The waveform is no image, so it is the
source in Source Instance Sequence (C.12.4), and not in Source Image Sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from models.finding import Finding, PackRef
from node.results.capture import (
    CaptureSeries,
    EncodedPicture,
    add_pixels,
    capture_uid,
    check_frames,
    derivation_words,
    started,
)
from node.results.document import reportable
from node.results.header import add_equipment, add_times
from node.results.objects import EncodedObject, ReportSettings, encode, mark_as_own


def build_ecg_capture(
    header: Dataset,
    picture: EncodedPicture,
    *,
    findings: Sequence[Finding],
    packs: Sequence[PackRef],
    instance_number: int,
    settings: ReportSettings,
    created_at: datetime,
) -> EncodedObject:
    """The secondary capture of one ECG.

    Parameters
    ----------
    header
        The ECG's header, without samples.
    picture
        The pages. Times, curve and marks of a cine are passed over.
    findings, packs
        What the picture explains, and who said it. Findings that ``settings`` keep back are
        not named.

    Returns
    -------
    EncodedObject
        JPEG Baseline; of one page in the class of one frame. Its SOP Instance UID does not depend
        on pixel values, as that of :func:`node.results.capture.build_capture`.

    Raises
    ------
    ResultError
        If the picture is empty, its pages do not fit together or are not JPEG baseline 4:2:2,
        or a finding contradicts itself.
    """
    check_frames(picture)
    shown = reportable(findings, settings)
    pages = len(picture.jpeg_frames)
    dataset = started(
        header,
        MultiFrameTrueColorSecondaryCaptureImageStorage
        if pages > 1
        else SecondaryCaptureImageStorage,
        CaptureSeries(
            kind="ECG SC",
            number=settings.ecg_capture_series_number,
            description=settings.ecg_capture_series_description,
            modality=settings.ecg_capture_modality,
        ),
        settings,
    )
    dataset.InstanceNumber = instance_number
    dataset.DerivationDescription = derivation_words(picture.title, shown, packs, seen="ECGs")
    dataset.SourceInstanceSequence = [_source(header)]
    add_equipment(dataset, settings, packs)
    if pages > 1:
        dataset.NumberOfFrames = pages
        dataset.FrameIncrementPointer = Tag("PageNumberVector")
        dataset.PageNumberVector = list(range(1, pages + 1))
    add_pixels(dataset, [], picture.jpeg_frames, picture.rows, picture.columns)
    mark_as_own(dataset, "SC")
    dataset.SOPInstanceUID = capture_uid(dataset, shown)
    add_times(dataset, header, created_at)
    return encode(dataset, JPEGBaseline8Bit)


def _source(header: Dataset) -> Dataset:
    """SOP Instance Reference Macro (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = str(header.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    return item
