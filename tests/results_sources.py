"""Sources of every kind for the tests of results: real machines' files, and headers that hospitals
write: missing fields, other alphabets, odd dates, all that patient and study may say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from pydicom import dcmread, examples
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from tests.results_examples import as_received, put_bytes, source_header

_SHARED = Path(
    os.environ.get("ECHONODE_SHARED_DATA", Path(__file__).parent.parent.parent / "shared" / "data")
)


def _with_text(charset: str | list[str] | None, **texts: str) -> Callable[[], Dataset]:
    """The cine's header in a character set, these attributes given as text."""

    def read() -> Dataset:
        return as_received(source_header(1, SpecificCharacterSet=charset, **texts))

    return read


def _with_bytes(**values: bytes) -> Callable[[], Dataset]:
    """The cine's header with these very bytes, however wrong."""

    def read() -> Dataset:
        header = source_header(1)
        for keyword, value in values.items():
            put_bytes(header, keyword, value)
        return as_received(header)

    return read


def _without(*keywords: str) -> Callable[[], Dataset]:
    def read() -> Dataset:
        return as_received(source_header(1, **dict.fromkeys(keywords)))

    return read


def _with_everything() -> Dataset:
    """All that a hospital's worklist may put beside the name."""
    header = source_header(
        1,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller-Lüdenscheidt^Änne^^Dr.^",
        IssuerOfPatientID="HOSPITAL",
        OtherPatientIDs=["A-1", "B-2"],
        PatientSize="1.712",
        PatientWeight="70.5",
        PatientAge="061Y",
        EthnicGroup="",
        PatientComments="Zwei Zeilen\r\nmit Umlaut: ä",
        StudyDescription="x" * 64,
        ReferringPhysicianName="Referrer^Ruth",
        PhysiciansOfRecord=["One^Physician", "Two^Physician"],
        NameOfPhysiciansReadingStudy="Reader^Rita",
        AdmittingDiagnosesDescription=["Dyspnoea", "Ödeme"],
        AdmissionID="ADM-7",
        TimezoneOffsetFromUTC="+0200",
    )
    other = Dataset()
    other.PatientID = "ÄLTER-9"
    other.IssuerOfPatientID = "FORMER"
    header.OtherPatientIDsSequence = [other]
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "433236007", "SCT"
    procedure.CodeMeaning = "Transthoracic echocardiography"
    header.ProcedureCodeSequence = [procedure]
    return as_received(header)


_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "SpecificCharacterSet",
    "StudyDescription",
)  # fmt: skip

HEADERS: Mapping[str, Callable[[], Dataset]] = MappingProxyType(
    {
        "nothing of patient and study": _without(*_PATIENT_AND_STUDY),
        "no name": _without("PatientName", "PatientID"),
        "empty name and accession number": _with_bytes(PatientName=b"", AccessionNumber=b""),
        "no study ID, no accession number": _without("StudyID", "AccessionNumber"),
        "Japanese": _with_text(
            ["", "ISO 2022 IR 87"],
            PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
            StudyDescription="心臓超音波検査",
        ),
        "Japanese half-width": _with_text(
            ["ISO 2022 IR 13", "ISO 2022 IR 87"], PatientName="ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"
        ),
        "Korean": _with_text(["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=洪^吉洞=홍^길동"),
        "Chinese": _with_text("GB18030", PatientName="Wang^XiaoDong=王^小东="),
        "Cyrillic": _with_text(
            "ISO_IR 144", PatientName="Люксембург^Роза", StudyDescription="Эхокардиография"
        ),
        "Cyrillic in UTF-8": _with_text(
            "ISO_IR 192",
            PatientName="Люксембург^Роза",
            StudyDescription="Трансторакальная эхокардиография покоя, с контрастом, полная ТТЭ",
        ),
        "Greek": _with_text("ISO_IR 126", PatientName="Διονυσιος"),
        "Latin-1 without a character set": _with_bytes(
            SpecificCharacterSet=b"", PatientName="Müller^Änne".encode("latin-1")
        ),
        "bytes that are no UTF-8": _with_bytes(
            SpecificCharacterSet=b"ISO_IR 192", PatientName="Müller^Änne".encode("latin-1")
        ),
        "unknown character set": _with_bytes(SpecificCharacterSet=b"ISO_IR 999"),
        "descriptions of 64 characters": _with_text(
            "ISO_IR 100", StudyDescription="é" * 64, PatientID="i" * 64
        ),
        "descriptions that are too long": _with_bytes(
            StudyDescription=b"d" * 90, PatientID=b"i" * 70, AccessionNumber=b"a" * 20
        ),
        "odd dates": _with_bytes(
            StudyDate=b"2016.05.03", StudyTime=b"10:20:30", PatientBirthDate=b"0000"
        ),
        "dates in words": _with_bytes(
            StudyDate=b"3 May", StudyTime=b"noon", PatientBirthDate=b"19450231", PatientAge=b"old"
        ),
        "odd numbers": _with_bytes(
            PatientSize=b"1,71", PatientWeight=b"70.123456789012345", PatientSex=b"female"
        ),
        "two values where one belongs": _with_bytes(
            PatientID=b"A\\B", StudyID=b"1\\2", PatientName=b"One^Name\\Two^Name"
        ),
        "everything": _with_everything,
    }
)
"""What hospitals write into the header of pydicom's real cine."""


def real_files() -> dict[str, Path]:
    """Image objects that ship with pydicom, and real machines' where their folder is present."""
    names = ("ybr_color", "palette_color", "rgb_color", "jpeg2k", "overlay", "ct", "mr")
    found = {f"pydicom {name}": Path(examples.get_path(name)) for name in names}
    found["pydicom big endian"] = Path(str(get_testdata_file("ExplVR_BigEnd.dcm", download=False)))
    for path in sorted((_SHARED / "ultrasound").rglob("*.dcm")):
        found[path.stem] = path
    return found


def image_header(path: Path) -> Dataset | None:
    """The header of a file; None where it holds no image."""
    try:
        header = dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, EOFError):
        return None
    return header if header.get("Rows") and header.get("StudyInstanceUID") else None
