"""The gate's rules for pictures: what they say of themselves, and whether the pixels are so."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from node.results import codes
from node.results.cine import values_of
from node.results.faults import Fault, fault, filled, is_code
from node.results.iods import WAVEFORM_CLASSES
from node.results.jpeg import read_jpeg_layout
from node.results.objects import RESEARCH_WORDS

_CAPTURE_VALUES: dict[str, object] = {
    "ImageType": ["DERIVED", "SECONDARY"],
    "ConversionType": "WSD",
    "BurnedInAnnotation": "NO",
    "BodyPartExamined": "HEART",
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "YBR_FULL_422",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
    "LossyImageCompression": "01",
}


def check_capture(dataset: Dataset) -> Iterator[Fault]:
    """A secondary capture: a cine, or a single picture."""
    if dataset.get("Modality") not in ("US", "OT"):
        yield fault("modality", "Modality", f"{dataset.get('Modality')} is neither US nor OT")
    for keyword, value in _CAPTURE_VALUES.items():
        said = dataset.get(keyword)
        plain = list(said) if isinstance(value, list) and said is not None else said
        if plain != value:
            yield fault("image", keyword, f"is {plain!r} instead of {value!r}")
    if "PatientOrientation" not in dataset:
        yield fault("required", "PatientOrientation", "missing (it may be empty)")
    if RESEARCH_WORDS not in str(dataset.get("DerivationDescription") or ""):
        yield fault("research", "DerivationDescription", f"does not say {RESEARCH_WORDS!r}")
    if dataset.file_meta.get("TransferSyntaxUID") != JPEGBaseline8Bit:
        yield fault("syntax", "TransferSyntaxUID", "is not JPEG Baseline")
    yield from _check_source(dataset)
    yield from _check_compression(dataset)
    yield from _check_cine(dataset)
    yield from _check_frames(dataset)


def _check_source(dataset: Dataset) -> Iterator[Fault]:
    """It comes from an image or, where it shows an ECG, from what is no image."""
    images = dataset.get("SourceImageSequence") or ()
    others = dataset.get("SourceInstanceSequence") or ()
    if not images and not others:
        where = "SourceImageSequence"
        yield fault("source", where, "missing: the picture would come from nowhere")
    for where, items in (("SourceImageSequence", images), ("SourceInstanceSequence", others)):
        for item in items:
            for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"):
                if not filled(item, keyword):
                    yield fault("source", where, f"no {keyword}")
    for item in images:
        purpose = item.get("PurposeOfReferenceCodeSequence")
        if not purpose or not is_code(purpose[0], codes.SOURCE_IMAGE):
            yield fault(
                "source", "SourceImageSequence", "its purpose is not that of a source image"
            )
        if item.get("ReferencedSOPClassUID") in WAVEFORM_CLASSES:
            yield fault("source", "SourceImageSequence", "an ECG is no image")


def _check_compression(dataset: Dataset) -> Iterator[Fault]:
    keywords = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    counts = [dataset[keyword].VM if keyword in dataset else 0 for keyword in keywords]
    if 0 in counts or counts[0] != counts[1]:
        yield fault("compression", keywords[0], "not one ratio for each method")


def _check_cine(dataset: Dataset) -> Iterator[Fault]:
    if dataset.get("SOPClassUID") == SecondaryCaptureImageStorage:
        for keyword in ("NumberOfFrames", "FrameIncrementPointer"):
            if keyword in dataset:
                yield fault("cine", keyword, "stands in a class of one frame")
        return
    count = int(dataset.get("NumberOfFrames") or 0)
    if count < 1:
        yield fault("cine", "NumberOfFrames", "missing")
    if count <= 1:
        return
    pointer = dataset.get("FrameIncrementPointer")
    keyword = "" if pointer is None else keyword_for_tag(pointer)
    if keyword == "FrameTime":
        if not float(dataset.get("FrameTime") or 0.0) > 0.0:
            yield fault("cine", "FrameTime", "missing or not positive")
    elif keyword == "FrameTimeVector":
        times = dataset["FrameTimeVector"].VM if "FrameTimeVector" in dataset else 0
        if times != count:
            yield fault("cine", "FrameTimeVector", "not one time for each frame")
    elif keyword == "PageNumberVector":
        yield from _check_pages(dataset, count)
    else:
        yield fault("cine", "FrameIncrementPointer", "points at no frame times and no pages")


def _check_pages(dataset: Dataset, count: int) -> Iterator[Fault]:
    """Pages are turned: what has times would be played."""
    pages = [int(str(each)) for each in values_of(dataset, "PageNumberVector")]
    if pages != list(range(1, count + 1)):
        yield fault("cine", "PageNumberVector", "does not number the frames from 1 on")
    for keyword in ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"):
        if keyword in dataset:
            yield fault("cine", keyword, "would play pages as a cine")


def _check_frames(dataset: Dataset) -> Iterator[Fault]:
    """Whether the pixels are what their labels say."""
    count = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset:
        yield fault("pixels", "PixelData", "missing")
        return
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    except (ValueError, EOFError) as error:
        yield fault("pixels", "PixelData", f"cannot be taken apart: {error}")
        return
    if len(frames) != count:
        yield fault("pixels", "PixelData", f"{len(frames)} frames instead of {count}")
    size = (dataset.get("Rows"), dataset.get("Columns"))
    for number, frame in enumerate(frames, start=1):
        layout = read_jpeg_layout(frame)
        if layout is None or not layout.is_baseline_422:
            yield fault("pixels", f"frame {number}", "is not JPEG baseline in colour, 4:2:2")
        elif (layout.rows, layout.columns) != size:
            yield fault("pixels", f"frame {number}", f"is {layout.rows} x {layout.columns} pixels")
