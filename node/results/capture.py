"""The saliency cine: a multi-frame true-colour secondary capture that plays in every viewer.

PS3.3 A.8.5. Frames come as JPEG baseline 4:2:2 and go in as they are. Only pictures without
identifying text come here (everything outside the sector is blanked before it is drawn), so
Burned In Annotation is NO. An archive that refuses the class gets single frames of it instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from models.explain.shown import Curve, FrameMark, MarkKind
from models.finding import Finding, PackRef
from node.results import codes
from node.results.cine import (
    CURVE_TIMES,
    CURVE_UNIT,
    CURVE_VALUES,
    TRACING_BOX,
    Cine,
    read_cine,
    values_of,
)
from node.results.content import plain
from node.results.document import reportable
from node.results.evidence import evidence_words
from node.results.header import add_equipment, add_times, concept_item, copy_patient_and_study
from node.results.jpeg import read_jpeg_layout
from node.results.objects import (
    PRIVATE_CREATOR,
    PRIVATE_GROUP,
    RESEARCH_WORDS,
    EncodedObject,
    ReportSettings,
    ResultError,
    content_uid,
    derive_uid,
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
_MARK_WORDS = {
    MarkKind.END_DIASTOLE: "End diastole, the cavity is largest",
    MarkKind.END_SYSTOLE: "End systole, the cavity is smallest",
    MarkKind.STRONGEST: "Frame whose map is strongest",
}
MOST_SINGLE_FRAMES = 5
"""So many single frames stand for a cine at most."""


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

    @property
    def poster_position(self) -> int:
        """The frame of the picture that tells most."""

    @property
    def marks(self) -> Sequence[FrameMark]:
        """The frames of the picture that are worth looking at alone."""

    @property
    def curve(self) -> Curve | None:
        """The cavity over time, where it was traced."""

    @property
    def tracing_box(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of the panel with the tracing."""


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
    check_frames(picture)
    _check_times(picture)
    shown = reportable(findings, settings)
    dataset = started(
        header,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
        CaptureSeries(
            kind="SC",
            number=settings.capture_series_number,
            description=settings.capture_series_description,
            modality=settings.capture_modality,
        ),
        settings,
    )
    dataset.InstanceNumber = instance_number
    dataset.DerivationDescription = derivation_words(picture.title, shown, packs)
    dataset.SourceImageSequence = [source_image(header, picture.source_frames)]
    add_equipment(dataset, settings, packs)
    _add_cine(dataset, picture)
    add_pixels(dataset, [header], picture.jpeg_frames, picture.rows, picture.columns)
    mark_as_own(dataset, "SC")
    dataset.SOPInstanceUID = capture_uid(dataset, shown)
    # After the UID: they are drawn too, and what is drawn may differ in a last bit.
    _add_frame_pointers(dataset, picture)
    _add_drawn(dataset, picture)
    add_times(dataset, header, created_at)
    return encode(dataset, JPEGBaseline8Bit)


def single_frames(capture: bytes, *, most: int = MOST_SINGLE_FRAMES) -> tuple[EncodedObject, ...]:
    """The frames of a cine that tell most, as Secondary Captures of one frame each.

    For archives that refuse the multi-frame class (PS3.3 A.8.1): end diastole and end systole of
    the beat that tells most, the frame with the strongest map, then other beats, in the order of
    the clip. Of the pages of an ECG all of them. Nothing is decoded or drawn again.

    Parameters
    ----------
    capture
        The Part-10 file that :func:`build_capture` or
        :func:`node.results.ecg_capture.build_ecg_capture` made.
    most
        How many frames of a cine at most, 1 or more.

    Returns
    -------
    tuple of EncodedObject
        JPEG Baseline, in the cine's series. The same bytes and UIDs whenever the same cine is
        given. Their instance numbers are a hundred times the cine's, plus 1, 2 and so on.

    Raises
    ------
    ResultError
        If the bytes are no multi-frame capture.
    """
    cine = read_cine(capture)
    chosen = _telling_frames(cine, most)
    return tuple(_single_frame(cine, number, place) for place, number in enumerate(chosen, start=1))


def _telling_frames(cine: Cine, most: int) -> list[int]:
    """The numbers, from 1, of the frames to keep."""
    if cine.of_pages:
        return list(range(1, cine.count + 1))
    kinds = [cine.nearest(kind) for kind in MarkKind]
    first = [numbers[0] for numbers in kinds if numbers]
    others = [number for numbers in kinds for number in numbers[1:]]
    wanted = dict.fromkeys((*first, *others)) or {cine.poster: None}
    return sorted(list(wanted)[: max(1, most)])


_OF_A_CINE = (
    "NumberOfFrames",
    "FrameIncrementPointer",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "RecommendedDisplayFrameRate",
    "RepresentativeFrameNumber",
    "FrameNumbersOfInterest",
    "FrameOfInterestDescription",
    "FrameOfInterestType",
    "PageNumberVector",
)
# Written anew: an element that two data sets share changes in both.
_OF_ONE_OBJECT = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "DerivationDescription",
    "SourceImageSequence",
    "LossyImageCompressionRatio",
    "PixelData",
)


def _single_frame(cine: Cine, number: int, place: int) -> EncodedObject:
    whole = cine.dataset
    frame = cine.frame(number)
    left_out = {Tag(keyword) for keyword in (*_OF_A_CINE, *_OF_ONE_OBJECT)}
    single = Dataset()  # raw items: what was copied from the source is not decoded
    single.update({tag: whole.get_item(tag) for tag in whole.keys() if tag not in left_out})  # noqa: SIM118
    single.SOPClassUID = SecondaryCaptureImageStorage
    single.SOPInstanceUID = derive_uid("single frame", str(whole.SOPInstanceUID), str(number))
    single.InstanceNumber = int(whole.InstanceNumber) * 100 + place
    words = f"{_which(cine, number)}. {whole.get('DerivationDescription') or ''}"
    single.DerivationDescription = words[:_MAX_ST].strip()
    if "SourceImageSequence" in whole:
        source = deepcopy(whole.SourceImageSequence[0])
        if cine.source_frames:
            source.ReferencedFrameNumber = cine.source_frames[number - 1]
        single.SourceImageSequence = [source]
    ratios = values_of(whole, "LossyImageCompressionRatio")[:-1]
    raw = int(whole.Rows) * int(whole.Columns) * _SAMPLES
    single.LossyImageCompressionRatio = [*ratios, round(raw / len(frame), 3)]
    _put_frames(single, [frame])
    return encode(single, JPEGBaseline8Bit)


def _which(cine: Cine, number: int) -> str:
    if cine.of_pages:
        return f"Page {number} of {cine.count}"
    kinds = [mark.kind for mark in cine.marks if mark.number == number]
    what = "; ".join(_MARK_WORDS[kind] for kind in kinds) or "the frame that tells most"
    return f"Frame {number} of {cine.count}: {what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureSeries:
    """The series of a sort of capture; ``kind`` is what its UID is made of."""

    kind: str
    number: int
    description: str
    modality: str


def started(
    header: Dataset, sop_class_uid: UID, series: CaptureSeries, settings: ReportSettings
) -> Dataset:
    """What every capture of a study says of patient, study, series and how it came about."""
    dataset = Dataset()
    copy_patient_and_study(header, dataset)
    dataset.SOPClassUID = sop_class_uid
    dataset.Modality = series.modality
    study = reference(header).study_instance_uid
    dataset.SeriesInstanceUID = series_uid(study, series.kind, settings)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.BodyPartExamined = "HEART"  # PS3.3 C.7.3.1: else Laterality would be asked for
    dataset.PatientOrientation = None
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "NO"
    return dataset


def check_frames(picture: EncodedPicture) -> None:
    """Refuse a picture without frames, or with others than it says.

    Raises
    ------
    ResultError
        With what is wrong with which frame.
    """
    if not picture.jpeg_frames:
        raise ResultError(f"picture {picture.title!r} has no frames")
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


def _check_times(picture: EncodedPicture) -> None:
    count = len(picture.jpeg_frames)
    if len(picture.frame_times_ms) != count:
        raise ResultError(
            f"picture {picture.title!r}: {count} frames, {len(picture.frame_times_ms)} frame times"
        )
    if any(interval <= 0 for interval in np.diff(picture.frame_times_ms)):
        raise ResultError(f"picture {picture.title!r}: the frame times do not increase")


def derivation_words(
    title: str, findings: Sequence[Finding], packs: Sequence[PackRef], *, seen: str = "clips"
) -> str:
    """What a picture shows, by whom, on which evidence, as far as the attribute can hold it."""
    by = ", ".join(f"{pack.name} {pack.version}" for pack in packs)
    words = f"{title}{f', by {by}' if by else ''}. {evidence_words(findings, seen=seen)}"
    if len(words) > _MAX_ST:  # what must be said goes before what may be
        words = f"{RESEARCH_WORDS}. {words}"
    return plain(words)[:_MAX_ST].strip()


def source_image(header: Dataset, frames: Sequence[int] = ()) -> Dataset:
    """Image SOP Instance Reference Macro (PS3.3 C.7.6.12) with its purpose.

    ``frames`` are zero-based; none stand for all of the clip.
    """
    item = Dataset()
    item.ReferencedSOPClassUID = str(header.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    if frames and int(header.get("NumberOfFrames") or 1) > 1:
        item.ReferencedFrameNumber = [frame + 1 for frame in sorted(set(frames))]
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


def _add_frame_pointers(dataset: Dataset, picture: EncodedPicture) -> None:
    """Which frames to look at alone (PS3.3 C.7.6.9). A single frame has no others."""
    count = len(picture.jpeg_frames)
    if count == 1:
        return
    dataset.RepresentativeFrameNumber = picture.poster_position + 1
    marks = sorted(picture.marks, key=lambda mark: (mark.position, mark.kind))
    if marks:
        dataset.FrameNumbersOfInterest = [mark.position + 1 for mark in marks]
        dataset.FrameOfInterestDescription = [_MARK_WORDS[mark.kind] for mark in marks]
        dataset.FrameOfInterestType = [mark.kind.value for mark in marks]


def _add_drawn(dataset: Dataset, picture: EncodedPicture) -> None:
    """The curve and the place of the tracing, so that a page can show them without a model."""
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    if picture.curve is not None:
        block.add_new(CURVE_TIMES, "FD", list(picture.curve.times_ms))
        block.add_new(CURVE_VALUES, "FD", list(picture.curve.values))
        block.add_new(CURVE_UNIT, "SH", picture.curve.unit)
    if picture.tracing_box is not None:
        block.add_new(TRACING_BOX, "US", list(picture.tracing_box))


def add_pixels(
    dataset: Dataset, headers: Sequence[Dataset], frames: Sequence[bytes], rows: int, columns: int
) -> None:
    """JPEG baseline 4:2:2 frames, labelled as what they are, and what was lost on the way."""
    dataset.SamplesPerPixel = _SAMPLES
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PlanarConfiguration = 0
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    raw = rows * columns * _SAMPLES * len(frames)
    ratios, methods = _source_compression(headers)
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = [
        *ratios,
        round(raw / sum(len(frame) for frame in frames), 3),
    ]
    dataset.LossyImageCompressionMethod = [*methods, _JPEG_METHOD]
    _put_frames(dataset, frames)


def _put_frames(dataset: Dataset, frames: Sequence[bytes]) -> None:
    dataset.PixelData = encapsulate(list(frames), has_bot=True)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _source_compression(headers: Sequence[Dataset]) -> tuple[list[float], list[str]]:
    """What was lost before us: one ratio for each method, or nothing where they do not match.

    Of several sources the one that lost most.
    """
    found: list[tuple[list[float], list[str]]] = []
    for header in headers:
        if str(header.get("LossyImageCompression") or "") != "01":
            continue
        try:
            ratios = [
                round(float(str(ratio)), 3)
                for ratio in values_of(header, "LossyImageCompressionRatio")
            ]
        except ValueError:
            continue
        methods = [str(method) for method in values_of(header, "LossyImageCompressionMethod")]
        if len(ratios) == len(methods):
            found.append((ratios, methods))
    return max(found, key=lambda each: max(each[0], default=0.0), default=([], []))


def capture_uid(dataset: Dataset, findings: Sequence[Finding]) -> UID:
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
