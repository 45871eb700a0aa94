"""A simulated clip as a DICOM object, as an echo machine would send it.

Single frames become Ultrasound Image Storage, others Ultrasound Multi-frame Image Storage
(PS3.3 A.6, A.7). Compressed objects carry JPEG baseline as machines do, YBR_FULL_422.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from models.simulator.clip import Region, RegionFormat, SimulatedClip
from models.views import View

MANUFACTURER = "echonode simulator"
SUPPORTED_SYNTAXES = (
    JPEGBaseline8Bit,
    RLELossless,
    JPEG2000Lossless,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
)

_PREFIX = "1.2.826.0.1.3680043.8.498."  # pydicom's root: simulated objects need none of their own
_CM, _SECONDS, _CM_PER_SECOND = 3, 4, 7  # PS3.3 C.8.5.5.1.15


def to_dicom(
    clip: SimulatedClip,
    *,
    study_uid: str,
    series_uid: str | None = None,
    sop_instance_uid: str | None = None,
    transfer_syntax: str = JPEGBaseline8Bit,
    patient_name: str = "SIMULATED^PATIENT",
    patient_id: str = "SIM0001",
    accession_number: str = "",
    acquired: dt.datetime = dt.datetime(2024, 1, 1, 12, 0),  # noqa: DTZ001 - DICOM local time
    instance_number: int = 1,
    with_regions: bool = True,
    jpeg_quality: int = 90,
) -> Dataset:
    """Build the object.

    Parameters
    ----------
    clip
        Its pixels, frame time and regions.
    study_uid
        Study Instance UID.
    series_uid, sop_instance_uid
        Made from the study's UID and the clip where not given, so that the same clip of the same
        study has the same UIDs.
    transfer_syntax
        One of :data:`SUPPORTED_SYNTAXES`.
    with_regions
        Whether the object says where its regions lie; older machines' do not.

    Raises
    ------
    ValueError
        If the transfer syntax is not one of :data:`SUPPORTED_SYNTAXES`.
    """
    if transfer_syntax not in SUPPORTED_SYNTAXES:
        raise ValueError(
            f"transfer syntax {transfer_syntax} cannot be written; give one of "
            + ", ".join(SUPPORTED_SYNTAXES)
        )
    multi = len(clip.frames) > 1
    sop_class = UltrasoundMultiFrameImageStorage if multi else UltrasoundImageStorage
    series = series_uid or _uid(study_uid, "series")
    instance = sop_instance_uid or _uid(
        study_uid, series, clip.view.value, str(clip.seed), str(instance_number), _digest(clip)
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series
    _describe(dataset, acquired, patient_name, patient_id, accession_number, instance_number)
    _describe_image(dataset, clip, multi=multi)
    if with_regions and clip.regions:
        dataset.SequenceOfUltrasoundRegions = [_region(region) for region in clip.regions]
    _set_pixels(dataset, clip.frames, transfer_syntax, jpeg_quality)
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    """The object as a Part 10 file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _describe(
    dataset: Dataset,
    acquired: dt.datetime,
    patient_name: str,
    patient_id: str,
    accession_number: str,
    instance_number: int,
) -> None:
    date, time = acquired.strftime("%Y%m%d"), acquired.strftime("%H%M%S")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = time
    dataset.AcquisitionDateTime = date + time
    dataset.AccessionNumber = accession_number
    dataset.Modality = "US"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "simulated echo machine"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Simulated echocardiogram"
    dataset.PatientName = patient_name
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = instance_number
    dataset.PatientOrientation = ""
    dataset.BodyPartExamined = "HEART"
    dataset.BurnedInAnnotation = "NO"


def _describe_image(dataset: Dataset, clip: SimulatedClip, *, multi: bool) -> None:
    # ImageType value 4 is a sum of modes, in hexadecimal: PS3.3 C.8.5.6.1.1.
    mode = {View.PW: 0x8, View.CW: 0x4, View.M_MODE: 0x2}.get(clip.view, 0x1)
    if clip.colour_flow:
        mode |= 0x10
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "TTE", f"{mode:04X}"]
    if clip.truth.heart_rate_bpm:
        dataset.HeartRate = round(clip.truth.heart_rate_bpm)
    if multi:
        dataset.NumberOfFrames = len(clip.frames)
        dataset.FrameTime = f"{clip.frame_time_ms:.3f}"
        dataset.FrameIncrementPointer = Tag(0x0018, 0x1063)
        rate = max(1, round(1000 / clip.frame_time_ms))
        dataset.CineRate = rate
        dataset.RecommendedDisplayFrameRate = rate


def _region(region: Region) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat = int(region.format)
    item.RegionDataType = int(region.type)
    item.RegionFlags = 0
    item.RegionLocationMinX0 = region.left
    item.RegionLocationMinY0 = region.top
    item.RegionLocationMaxX1 = region.right - 1
    item.RegionLocationMaxY1 = region.bottom - 1
    if region.reference_row is not None:
        item.ReferencePixelX0 = (region.right - region.left) // 2
        item.ReferencePixelY0 = region.reference_row - region.top
    x, y = {
        RegionFormat.TWO_D: (_CM, _CM),
        RegionFormat.M_MODE: (_SECONDS, _CM),
        RegionFormat.SPECTRAL: (_SECONDS, _CM_PER_SECOND),
        RegionFormat.WAVEFORM: (_SECONDS, 0),
    }[region.format]
    item.PhysicalUnitsXDirection = x
    item.PhysicalUnitsYDirection = y
    item.PhysicalDeltaX = region.delta_x
    item.PhysicalDeltaY = region.delta_y
    return item


def _set_pixels(
    dataset: Dataset, frames: NDArray[np.uint8], transfer_syntax: str, quality: int
) -> None:
    colour = frames.ndim == 4
    if transfer_syntax == JPEGBaseline8Bit and not colour:
        # Machines send cines as YBR_FULL_422, grey or not.
        frames = np.repeat(frames[..., None], 3, axis=-1)
        colour = True
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "00"
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if transfer_syntax == JPEGBaseline8Bit:
        _set_jpeg(dataset, frames, quality)
    elif transfer_syntax in (RLELossless, JPEG2000Lossless):
        uid = dataset.SOPInstanceUID
        if transfer_syntax == JPEG2000Lossless and colour:
            dataset.PhotometricInterpretation = "YBR_RCT"
        dataset.compress(
            transfer_syntax,
            arr=frames if len(frames) > 1 else frames[0],
            generate_instance_uid=False,
        )
        dataset.SOPInstanceUID = uid
    else:
        raw = frames.tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB"
        if transfer_syntax == ImplicitVRLittleEndian:
            dataset["PixelData"].VR = "OW"  # PS3.5 A.1


def _set_jpeg(dataset: Dataset, frames: NDArray[np.uint8], quality: int) -> None:
    encoded = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality, subsampling=1)
        encoded.append(buffer.getvalue())
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.LossyImageCompressionRatio = f"{frames.nbytes / sum(map(len, encoded)):.3f}"
    dataset.PixelData = encapsulate(encoded)
    dataset["PixelData"].VR = "OB"


def _uid(*parts: str) -> str:
    # generate_uid joins its sources without a mark between them.
    return str(generate_uid(prefix=_PREFIX, entropy_srcs=["|".join(parts)]))


def _digest(clip: SimulatedClip) -> str:
    return hashlib.sha256(np.ascontiguousarray(clip.frames).tobytes()).hexdigest()
