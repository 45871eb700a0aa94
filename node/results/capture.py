"""The saliency cine: a multi-frame true-colour secondary capture that plays in every viewer.

PS3.3 A.8.5. Frames come as JPEG baseline 4:2:2 and go in as they are. Only pictures without
identifying text come here (everything outside the sector is blanked before it is drawn), so
Burned In Annotation is NO.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGBaseline8Bit, MultiFrameTrueColorSecondaryCaptureImageStorage

from models.finding import Finding, PackRef
from node.results import codes
from node.results.content import plain
from node.results.evidence import check_finding, evidence_words, withheld
from node.results.header import add_equipment, add_times, concept_item, copy_patient_and_study
from node.results.jpeg import read_jpeg_layout
from node.results.objects import (
    RESEARCH_WORDS,
    EncodedObject,
    ReportSettings,
    ResultError,
    content_uid,
    encode,
    mark_as_own,
    reference,
    series_uid,
)

_JPEG_METHOD = "ISO_10918_1"  # PS3.3 C.7.6.1.1.5.1
_SAMPLES = 3
_MAX_ST = 1024  # PS3.5 6.2
# Frame times within this of each other are the same: carts round to whole microseconds.
_EVEN_WITHIN_MS = 0.05


class EncodedPicture(Protocol):
    """A cine that is ready to go in: see :mod:`models.explain.panels`."""

    @property
    def jpeg_frames(self) -> Sequence[bytes]:
        """Each frame as a JPEG baseline 4:2:2 file."""

    @property
    def rows(self) -> int:
        """Height in pixels."""

    @property
    def columns(self) -> int:
        """Width in pixels."""

    @property
    def frame_times_ms(self) -> Sequence[float]:
        """When each frame is shown, from the first one on."""

    @property
    def source_frames(self) -> Sequence[int]:
        """The zero-based frames of the source that are shown."""

    @property
    def title(self) -> str:
        """What the picture shows, in words."""


def build_capture(
    header: Dataset,
    picture: EncodedPicture,
    *,
    findings: Sequence[Finding],
    packs: Sequence[PackRef],
    instance_number: int,
    settings: ReportSettings,
    created_at: datetime,
) -> EncodedObject:
    """The secondary capture of one clip.

    Parameters
    ----------
    header
        The clip's header, without pixels.
    findings, packs
        What the picture explains, and who said it. Findings that ``settings`` keep back are
        not named.

    Returns
    -------
    EncodedObject
        JPEG Baseline. Its SOP Instance UID depends on the clip, the picture's outline, findings,
        packs and software, not on pixel values, time or instance number: where a run differs
        in a last bit, an archive still gets one cine and not two.

    Raises
    ------
    ResultError
        If the picture is empty, its frames do not fit together or are not JPEG baseline 4:2:2,
        or a finding contradicts itself.
    """
    _check_picture(picture)
    source = reference(header)
    for finding in findings:
        check_finding(finding)
    shown = [finding for finding in findings if withheld(finding, settings) is None]
    dataset = Dataset()
    copy_patient_and_study(header, dataset)
    dataset.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.Modality = settings.capture_modality
    dataset.SeriesInstanceUID = series_uid(source.study_instance_uid, "SC", settings)
    dataset.SeriesNumber = settings.capture_series_number
    dataset.SeriesDescription = settings.capture_series_description
    dataset.BodyPartExamined = "HEART"  # PS3.3 C.7.3.1: else Laterality would be asked for
    dataset.PatientOrientation = None
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.InstanceNumber = instance_number
    dataset.DerivationDescription = _derivation(picture, shown, packs)
    dataset.SourceImageSequence = [_source_image(header, picture)]
    add_equipment(dataset, settings, packs)
    _add_cine(dataset, picture)
    _add_pixels(dataset, header, picture)
    mark_as_own(dataset, "SC")
    dataset.SOPInstanceUID = _instance_uid(dataset, shown)
    add_times(dataset, header, created_at)
    return encode(dataset, JPEGBaseline8Bit)


def _check_picture(picture: EncodedPicture) -> None:
    count = len(picture.jpeg_frames)
    if count == 0:
        raise ResultError(f"picture {picture.title!r} has no frames")
    if len(picture.frame_times_ms) != count:
        raise ResultError(
            f"picture {picture.title!r}: {count} frames, {len(picture.frame_times_ms)} frame times"
        )
    if any(interval <= 0 for interval in np.diff(picture.frame_times_ms)):
        raise ResultError(f"picture {picture.title!r}: the frame times do not increase")
    for index, frame in enumerate(picture.jpeg_frames):
        layout = read_jpeg_layout(frame)
        if layout is None or not layout.is_baseline_422:
            raise ResultError(
                f"picture {picture.title!r}, frame {index}: not JPEG baseline in colour, 4:2:2"
            )
        if (layout.rows, layout.columns) != (picture.rows, picture.columns):
            raise ResultError(
                f"picture {picture.title!r}, frame {index}: {layout.rows} x {layout.columns} "
                f"pixels instead of {picture.rows} x {picture.columns}"
            )


def _derivation(
    picture: EncodedPicture, findings: Sequence[Finding], packs: Sequence[PackRef]
) -> str:
    by = ", ".join(f"{pack.name} {pack.version}" for pack in packs)
    words = f"{picture.title}{f', by {by}' if by else ''}. {evidence_words(findings)}"
    if len(words) > _MAX_ST:  # what must be said goes before what may be
        words = f"{RESEARCH_WORDS}. {words}"
    return plain(words)[:_MAX_ST].strip()


def _source_image(header: Dataset, picture: EncodedPicture) -> Dataset:
    """Image SOP Instance Reference Macro (PS3.3 C.7.6.12) with its purpose."""
    item = Dataset()
    item.ReferencedSOPClassUID = str(header.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    if int(header.get("NumberOfFrames") or 1) > 1:
        item.ReferencedFrameNumber = [frame + 1 for frame in sorted(set(picture.source_frames))]
    item.PurposeOfReferenceCodeSequence = [concept_item(codes.SOURCE_IMAGE)]
    return item


def _add_cine(dataset: Dataset, picture: EncodedPicture) -> None:
    """How fast it plays (PS3.3 C.7.6.5). A single frame does not."""
    dataset.NumberOfFrames = len(picture.jpeg_frames)
    if len(picture.jpeg_frames) == 1:
        return
    intervals = np.diff(picture.frame_times_ms)
    frame_time = float(intervals.mean())
    if float(intervals.max() - intervals.min()) <= _EVEN_WITHIN_MS:
        dataset.FrameIncrementPointer = Tag("FrameTime")
        dataset.FrameTime = round(frame_time, 4)
    else:
        dataset.FrameIncrementPointer = Tag("FrameTimeVector")
        dataset.FrameTimeVector = [0.0, *(round(float(each), 4) for each in intervals)]
    rate = max(1, round(1000.0 / frame_time))
    dataset.CineRate = rate
    dataset.RecommendedDisplayFrameRate = rate


def _add_pixels(dataset: Dataset, header: Dataset, picture: EncodedPicture) -> None:
    dataset.SamplesPerPixel = _SAMPLES
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PlanarConfiguration = 0
    dataset.Rows = picture.rows
    dataset.Columns = picture.columns
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    size = sum(len(frame) for frame in picture.jpeg_frames)
    raw = picture.rows * picture.columns * _SAMPLES * len(picture.jpeg_frames)
    ratios, methods = _source_compression(header)
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = [*ratios, round(raw / size, 3)]
    dataset.LossyImageCompressionMethod = [*methods, _JPEG_METHOD]
    dataset.PixelData = encapsulate(list(picture.jpeg_frames), has_bot=True)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _source_compression(header: Dataset) -> tuple[list[float], list[str]]:
    """What was lost before us: one ratio for each method, or nothing where they do not match."""
    if str(header.get("LossyImageCompression") or "") != "01":
        return [], []
    ratios = _values(header, "LossyImageCompressionRatio")
    methods = _values(header, "LossyImageCompressionMethod")
    try:
        numbers = [round(float(str(ratio)), 3) for ratio in ratios]
    except ValueError:
        return [], []
    if len(numbers) != len(methods):
        return [], []
    return numbers, [str(method) for method in methods]


def _values(header: Dataset, keyword: str) -> list[object]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    if isinstance(value, str | float | int):
        return [value]
    return list(value)


def _instance_uid(dataset: Dataset, findings: Sequence[Finding]) -> UID:
    """From all but the pixels; the findings' values stand for what the pixels show."""
    shown = Dataset()
    shown.update(dataset)
    shown.ImageComments = ";".join(
        f"{finding.pack.weights_sha256}:{finding.output}:"
        f"{_shown(finding, finding.value)}:{_shown(finding, finding.score)}"
        f"{':outside' if finding.looked_outside else ''}"
        for finding in findings
    )
    return content_uid(
        shown,
        leave_out=("PixelData", "LossyImageCompressionRatio", "InstanceNumber"),
    )


def _shown(finding: Finding, value: float | None) -> str:
    return "" if value is None else f"{value:.{codes.OUTPUTS[finding.output].decimals}f}"
