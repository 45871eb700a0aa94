"""Files as they lie in folders and on media: objects, archives, a DICOMDIR."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from tests.ultrasound_files import speckle, ultrasound

#: pydicom's own medium: three patients, 31 files, several DICOMDIRs.
MEDIUM = Path(str(get_testdata_file("DICOMDIR"))).parent


def clip(study: str = "1.2.3", number: int = 1, **changes: Any) -> Dataset:
    """A small native clip of a study: 3 grey frames, another in each number."""
    ds = ultrasound(speckle((3, 24, 32), seed=number))
    given: dict[str, Any] = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "SOPInstanceUID": f"{study}.1.{number}",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "StudyID": "1",
        "StudyDate": "20260102",
        "StudyTime": "101112",
        "Modality": "US",
        "SeriesNumber": 1,
        "InstanceNumber": number,
        **changes,
    }
    for keyword, value in given.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def part10(ds: Dataset) -> bytes:
    """A data set as a file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def data_set(file: bytes) -> bytes:
    """What stands behind the file meta information."""
    (length,) = struct.unpack("<I", file[140:144])
    return file[144 + length :]


def put(path: Path, study: str = "1.2.3", number: int = 1, **changes: Any) -> Path:
    """Write a clip to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(part10(clip(study, number, **changes)))
    return path


def archive(path: Path, **members: bytes) -> Path:
    """A zip archive with these members; ``__`` in a name is a slash."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name.replace("__", "/"), content)
    return path


def medium(folder: Path, count: int = 3) -> Path:
    """A medium with a DICOMDIR and so many clips; gives the DICOMDIR."""
    made = FileSet()
    for number in range(1, count + 1):
        made.add(clip(number=number))
    made.write(folder)
    made._stage["t"].cleanup()  # where it staged them: the library leaves that to the collector
    return folder / "DICOMDIR"


def tree(source: Path, target: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    return target
