"""A simulated clip as a DICOM object, as an echo machine would send it.

Single frames become Ultrasound Image Storage, others Ultrasound Multi-frame Image Storage
(PS3.3 A.6, A.7). JPEG baseline comes as YBR_FULL_422, grey or not, as most machines send it; what
else a machine may do is asked for by ``photometric``.

Name and ID of the patient say that there is none. Whom the simulator drew (age, sex, weight,
height) stands in no patient's attribute: the truth lies as JSON in Image Comments.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.tag import Tag
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from models.simulator.clip import Region, RegionFormat, SimulatedClip
from models.simulator.jpeg_lossless import encode_lossless
from models.views import View

MANUFACTURER = "echonode simulator"
SYNTAXES: Mapping[str, str] = MappingProxyType(
    {
        "jpeg": JPEGBaseline8Bit,
        "jpeg-extended": JPEGExtended12Bit,
        "jpeg-lossless": JPEGLosslessSV1,
        "jpeg-ls": JPEGLSLossless,
        "jpeg-ls-near": JPEGLSNearLossless,
        "jpeg2000": JPEG2000Lossless,
        "jpeg2000-lossy": JPEG2000,
        "rle": RLELossless,
        "explicit": ExplicitVRLittleEndian,
        "implicit": ImplicitVRLittleEndian,
        "big-endian": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
    }
)
"""Every transfer syntax that can be written, by a short name."""

SUPPORTED_SYNTAXES = tuple(SYNTAXES.values())
LOSSY_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)

_DCT = (JPEGBaseline8Bit, JPEGExtended12Bit)
_NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_PHOTOMETRIC = ("MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR")
_COMMENT = "Simulated, of no patient. Truth: "

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
    photometric: str | None = None,
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
    photometric
        MONOCHROME2 (of grey clips), RGB, YBR_FULL (RLE alone), YBR_FULL_422 (JPEG alone) or
        PALETTE COLOR (256 colours, the nearest ones); None takes what is usual.

    Raises
    ------
    ValueError
        If the transfer syntax is not one of :data:`SUPPORTED_SYNTAXES`, or cannot carry the
        photometric interpretation, or that is grey and the clip is not.
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
    _set_truth(dataset, clip)
    _set_pixels(dataset, clip.frames, transfer_syntax, jpeg_quality, photometric)
    return dataset


def read_truth(dataset: Dataset) -> dict[str, object] | None:
    """What :func:`to_dicom` wrote of the truth; None in an object that is no simulated one."""
    comment = str(dataset.get("ImageComments") or "")
    if not comment.startswith(_COMMENT):
        return None
    found: dict[str, object] = json.loads(comment[len(_COMMENT) :])
    return found


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


def _set_truth(dataset: Dataset, clip: SimulatedClip) -> None:
    truth = clip.truth
    said = {
        "view": clip.view.value,
        "kind": truth.kind,
        "seed": clip.seed,
        "heart_rate_bpm": truth.heart_rate_bpm,
        "wall_cm": truth.wall_cm,
        "lead_kind": truth.lead_kind,
        **truth.labels(),
    }
    known = {name: value for name, value in said.items() if value is not None}
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in known.items()}
    dataset.ImageComments = _COMMENT + json.dumps(rounded)


def _set_pixels(
    dataset: Dataset,
    frames: NDArray[np.uint8],
    transfer_syntax: str,
    quality: int,
    photometric: str | None,
) -> None:
    shown = _photometric(frames, transfer_syntax, photometric)
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "00"
    if shown == "PALETTE COLOR":
        frames = _set_palette(dataset, frames)
    elif shown != "MONOCHROME2" and frames.ndim == 3:
        frames = np.repeat(frames[..., None], 3, axis=-1)
    if shown == "YBR_FULL":
        frames = _ybr(frames)
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    dataset.PhotometricInterpretation = shown
    if frames.ndim == 4:
        dataset.PlanarConfiguration = 0
    if transfer_syntax in _DCT:
        _set_jpeg(dataset, frames, transfer_syntax, quality, shown)
    elif transfer_syntax == JPEGLosslessSV1:
        _set_encoded(dataset, [encode_lossless(frame) for frame in frames])
    elif transfer_syntax in _NATIVE:
        raw = frames.tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB"
        if transfer_syntax == ImplicitVRLittleEndian:
            dataset["PixelData"].VR = "OW"  # PS3.5 A.1
    else:
        _compress(dataset, frames, transfer_syntax)


def _photometric(frames: NDArray[np.uint8], transfer_syntax: str, asked: str | None) -> str:
    colour = frames.ndim == 4
    if asked is None:
        if transfer_syntax in _DCT:
            return "YBR_FULL_422"
        return "RGB" if colour else "MONOCHROME2"
    if asked not in _PHOTOMETRIC:
        raise ValueError(
            f"photometric interpretation {asked!r} cannot be written; give one of "
            + ", ".join(_PHOTOMETRIC)
        )
    if asked == "MONOCHROME2" and colour:
        raise ValueError("the clip has colours: it cannot be written as MONOCHROME2")
    # PS3.3 C.8.5.6.1.2; and indices into a palette must come back as they were.
    if transfer_syntax in _DCT:
        carried = asked in ("MONOCHROME2", "YBR_FULL_422")
    elif asked == "YBR_FULL":
        carried = transfer_syntax == RLELossless
    elif asked == "PALETTE COLOR":
        carried = transfer_syntax not in LOSSY_SYNTAXES
    else:
        carried = asked != "YBR_FULL_422"
    if not carried:
        raise ValueError(f"{UID(transfer_syntax).name} does not carry {asked}")
    return asked


def _set_palette(dataset: Dataset, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames as indices; the table of their 256 colours is set."""
    if frames.ndim == 3:
        table = np.repeat(np.arange(256, dtype=np.uint16)[:, None], 3, axis=1)
        indices = frames
    else:
        first = Image.fromarray(np.concatenate(list(frames[:: max(1, len(frames) // 8)])))
        chosen = first.quantize(256, dither=Image.Dither.NONE)
        indices = np.stack(
            [
                np.asarray(Image.fromarray(f).quantize(palette=chosen, dither=Image.Dither.NONE))
                for f in frames
            ]
        )
        colours = np.array(chosen.getpalette(), np.uint16).reshape(-1, 3)
        table = np.zeros((256, 3), np.uint16)
        table[: len(colours)] = colours
    big = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    for name, column in zip(("Red", "Green", "Blue"), (table * 257).T, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        words = column.astype(">u2" if big else "<u2").tobytes()
        setattr(dataset, f"{name}PaletteColorLookupTableData", words)
    return np.asarray(indices, np.uint8)


def _ybr(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB as YBR_FULL, PS3.3 C.7.6.3.1.2."""
    weights = np.array(
        [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32
    )
    ybr = frames.astype(np.float32) @ weights.T + np.array([0, 128, 128], np.float32)
    return np.asarray(np.clip(np.rint(ybr), 0, 255), np.uint8)


def _compress(dataset: Dataset, frames: NDArray[np.uint8], transfer_syntax: str) -> None:
    if transfer_syntax in (JPEG2000Lossless, JPEG2000) and frames.ndim == 4:
        lossless = transfer_syntax == JPEG2000Lossless
        dataset.PhotometricInterpretation = "YBR_RCT" if lossless else "YBR_ICT"
    uid = dataset.SOPInstanceUID
    dataset.compress(
        transfer_syntax,
        arr=frames if len(frames) > 1 else frames[0],
        generate_instance_uid=False,
        j2k_cr=[10.0] if transfer_syntax == JPEG2000 else None,
        jls_error=2 if transfer_syntax == JPEGLSNearLossless else None,
    )
    dataset.SOPInstanceUID = uid
    if dataset.PhotometricInterpretation == "YBR_FULL":
        dataset.PlanarConfiguration = 1  # PS3.3 C.8.5.6.1.16; RLE keeps planes in any case
    if transfer_syntax in LOSSY_SYNTAXES:
        method = "ISO_15444_1" if transfer_syntax == JPEG2000 else "ISO_14495_1"
        _set_lossy(dataset, method, frames.nbytes / len(dataset.PixelData))


def _set_jpeg(
    dataset: Dataset, frames: NDArray[np.uint8], transfer_syntax: str, quality: int, shown: str
) -> None:
    encoded = []
    for frame in frames:
        buffer = io.BytesIO()
        options = {"subsampling": 1} if shown == "YBR_FULL_422" else {}
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality, **options)
        stream = buffer.getvalue()
        if transfer_syntax == JPEGExtended12Bit:
            # A baseline scan is a valid extended one of 8 bits; only its frame header says which.
            place = stream.index(b"\xff\xc0")
            stream = stream[:place] + b"\xff\xc1" + stream[place + 2 :]
        encoded.append(stream)
    _set_encoded(dataset, encoded)
    _set_lossy(dataset, "ISO_10918_1", frames.nbytes / sum(map(len, encoded)))


def _set_encoded(dataset: Dataset, encoded: list[bytes]) -> None:
    dataset.PixelData = encapsulate(encoded)
    dataset["PixelData"].VR = "OB"


def _set_lossy(dataset: Dataset, method: str, ratio: float) -> None:
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = method
    dataset.LossyImageCompressionRatio = f"{ratio:.3f}"


def _uid(*parts: str) -> str:
    # generate_uid joins its sources without a mark between them.
    return str(generate_uid(prefix=_PREFIX, entropy_srcs=["|".join(parts)]))


def _digest(clip: SimulatedClip) -> str:
    return hashlib.sha256(np.ascontiguousarray(clip.frames).tobytes()).hexdigest()
