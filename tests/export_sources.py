"""Ultrasound objects full of planted identifiers, at every place where one may hide."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as DicomSequence

from tests.ultrasound_files import as_file, fan_mask, region, speckle, ultrasound, with_regions

ROWS, COLUMNS = 120, 160
SURNAME, GIVEN = "Zwetschge", "Balthasara"
NUMBER, ACCESSION, BORN, STUDIED = "PLT7730042", "ACCZ99123", "19310728", "20240229"
HOSPITAL, PHYSICIAN, STATION = "Quittenspital Nord", "Mirabellus", "KARREN17XQ"
UMLAUT, KANJI = "Öhmdgräßer", "梅干"
ROOT = "1.2.826.0.1.3680043.8.498.7730042"
PLANTED = (
    SURNAME,
    GIVEN,
    NUMBER,
    ACCESSION,
    BORN,
    STUDIED,
    HOSPITAL,
    PHYSICIAN,
    STATION,
    UMLAUT,
    KANJI,
    ROOT,
)


def cine(frames: int = 6, *, seed: int = 0, coloured: bool = False) -> NDArray[np.uint8]:
    """A moving fan on black, with a name in letters beside it."""
    mask = fan_mask(ROWS, COLUMNS)
    grey = np.where(mask, speckle((frames, ROWS, COLUMNS), seed), np.uint8(0)).astype(np.uint8)
    for place, frame in enumerate(grey):
        canvas = Image.fromarray(frame)
        ImageDraw.Draw(canvas).text((2, 2), SURNAME[:6], fill=255, font_size=10)
        grey[place] = np.asarray(canvas)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1) if coloured else grey


def item(**values: Any) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def planted(pixels: NDArray[Any] | None = None, *, number: int = 1, **changes: Any) -> FileDataset:
    """An object with an identifier wherever one can be put."""
    made = ultrasound(cine() if pixels is None else pixels)
    made.SpecificCharacterSet = ["ISO_IR 100", "ISO 2022 IR 87"]
    made.ImageType = ["ORIGINAL", "PRIMARY", SURNAME.upper(), "0001"]
    made.SOPInstanceUID = f"{ROOT}.3.{number}"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.SourceApplicationEntityTitle = STATION
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.2"
    made.FrameOfReferenceUID = f"{ROOT}.4"
    made.PatientName = f"{SURNAME}^{GIVEN}={KANJI}^{KANJI}"
    made.OtherPatientNames = f"{UMLAUT}^{GIVEN}"
    made.PatientID, made.PatientBirthDate, made.PatientSex = NUMBER, BORN, "F"
    made.PatientAge, made.PatientWeight, made.PatientSize = "092Y", "61", "1.63"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = STUDIED
    made.StudyTime = made.AcquisitionTime = made.ContentTime = "101112"
    made.AcquisitionDateTime = f"{STUDIED}101112.5+0100"
    made.AccessionNumber, made.StudyID = ACCESSION, ACCESSION
    made.SeriesNumber, made.InstanceNumber = 3, number
    made.InstitutionName, made.StationName = HOSPITAL, STATION
    made.ReferringPhysicianName = f"{PHYSICIAN}^{UMLAUT}"
    made.PerformingPhysicianName = [f"{PHYSICIAN}^A", f"{PHYSICIAN}^B"]
    made.Manufacturer, made.ManufacturerModelName = "Philips Medical Systems", "EPIQ 7C"
    made.SoftwareVersions = ["1.7", f"licensed to {HOSPITAL}"]
    made.DeviceSerialNumber = STATION
    made.StudyDescription = f"Echo of {SURNAME}"
    made.ImageComments = f"{GIVEN} moved"
    made.TransducerData = ["S5-1", STATION]
    made.StageName = f"rest {SURNAME}"
    made.HeartRate = 71
    made.RequestAttributesSequence = [
        item(RequestedProcedureID=ACCESSION, RequestingPhysician=PHYSICIAN)
    ]
    made.AnatomicRegionSequence = [
        item(CodeValue="80891009", CodingSchemeDesignator="SCT", CodeMeaning="Heart")
    ]
    made.ViewCodeSequence = [
        item(CodeValue="99", CodingSchemeDesignator="SCT", CodeMeaning=f"view of {SURNAME}")
    ]
    made.ProcedureCodeSequence = [
        item(CodeValue=NUMBER, CodingSchemeDesignator="99LOCAL", CodeMeaning=HOSPITAL)
    ]
    made.SourceImageSequence = [
        item(
            ReferencedSOPClassUID=made.SOPClassUID,
            ReferencedSOPInstanceUID=f"{ROOT}.3.77",
            PurposeOfReferenceCodeSequence=[
                item(CodeValue="121320", CodingSchemeDesignator="DCM", CodeMeaning=SURNAME)
            ],
        )
    ]
    made.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=f"{ROOT}.2",
            OperatorsName=f"{SURNAME}^{GIVEN}",
            InstitutionalDepartmentName=HOSPITAL,
            StudyDate=STUDIED,
        )
    ]
    icon = item(Rows=1, Columns=1, BitsAllocated=8)
    icon.add_new(0x7FE00010, "OB", SURNAME.encode() + b"\0")
    made.IconImageSequence = [icon]
    made.OriginalAttributesSequence = [item(ModifiedAttributesSequence=[item(PatientID=NUMBER)])]
    made.add_new(0x04000020, "OB", SURNAME.encode() + b"\0")
    made.add_new(0x00080FFF, "UN", SURNAME.encode() + b"\0")  # in no dictionary
    _plant_private(made)
    _plant_graphics(made)
    box = region()
    box.add_new(0x00186999, "LO", SURNAME)
    _plant_private(box)
    with_regions(made, box)
    made.add_new(0xFFFCFFFC, "OB", NUMBER.encode())
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def planted_file(pixels: NDArray[Any] | None = None, **changes: Any) -> bytes:
    """The same as a file, with a name in its preamble."""
    data = as_file(planted(pixels, **changes))
    return (SURNAME.encode() * 15)[:128] + data[128:]


def _plant_private(dataset: Dataset) -> None:
    for group in (0x0009, 0x0029, 0x7FE1):
        block = dataset.private_block(group, f"MAKER OF {SURNAME}"[:16], create=True)
        block.add_new(0x01, "LO", NUMBER)
        block.add_new(0x02, "SQ", DicomSequence([item(PatientName=SURNAME)]))


def _plant_graphics(dataset: Dataset) -> None:
    for group in (0x6000, 0x6002):
        dataset.add_new(group << 16 | 0x0010, "US", 8)
        dataset.add_new(group << 16 | 0x0011, "US", 8)
        dataset.add_new(group << 16 | 0x0022, "LO", SURNAME)
        dataset.add_new(group << 16 | 0x0040, "CS", "G")
        dataset.add_new(group << 16 | 0x0050, "SS", [1, 1])
        dataset.add_new(group << 16 | 0x0100, "US", 1)
        dataset.add_new(group << 16 | 0x0102, "US", 0)
        dataset.add_new(group << 16 | 0x1500, "LO", NUMBER)
        dataset.add_new(group << 16 | 0x3000, "OB", struct.pack("8B", *range(8)))
    dataset.add_new(0x50000022, "LO", SURNAME)
    dataset.add_new(0x50003000, "OB", NUMBER.encode())


def forms(word: str) -> set[bytes]:
    """A word as it may stand in a file."""
    found = set()
    for codec in ("utf-8", "latin-1", "iso2022_jp", "shift_jis", "utf-16-le"):
        for variant in (word, word.upper(), word.lower(), word.title()):
            try:
                data = variant.encode(codec)
            except UnicodeEncodeError:
                continue
            found.add(data.removeprefix(b"\x1b$B").removesuffix(b"\x1b(B"))
    return found


def leaks(data: bytes) -> list[str]:
    """Which of the planted words stand in some bytes."""
    return [word for word in PLANTED if any(form in data for form in forms(word))]
