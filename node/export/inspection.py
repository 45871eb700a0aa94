"""A copy, read again as a stranger would, and searched for what must not be in it.

It shares the table and the words to look for with what made the copy, and nothing else: the file
is read by pydicom and its bytes are searched, whatever the reader makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import JPEGBaseline8Bit
from scipy import ndimage

from models.blanked import BlankedFrames
from node.export.errors import NotClean
from node.export.identity import Identity
from node.export.profile import SET_HERE, Dates, may_stand

_PREAMBLE: Final = 128
_PIXEL_HEAD: Final = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
_END: Final = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_CHUNK: Final = 1 << 18
_RINGING_PX: Final = 16  # a JPEG's blocks of 8, of halved colour
_MOST_RINGING: Final = 2
_MOST_HEADER: Final = 16 << 20


def inspect(
    path: Path, identity: Identity, frames: BlankedFrames, patient: str, dates: Dates
) -> None:
    """Look through a copy that was written.

    Raises
    ------
    NotClean
        It must not be given away; the message says what was found where, and quotes nothing.
    """
    try:
        dataset = dcmread(path, stop_before_pixels=True)
        _check_statements(dataset, patient, dates)
        for element in _everything(dataset):
            _check_element(element, identity, dates)
        _check_bytes(path, dataset, identity)
        _check_pixels(path, dataset, frames)
    except (InvalidDicomError, ValueError, AttributeError, EOFError, RuntimeError) as error:
        raise NotClean(f"it cannot be read again ({type(error).__name__})") from error


def _check_statements(dataset: Dataset, patient: str, dates: Dates) -> None:
    changed = "MODIFIED" if dates is Dates.SHIFT else "REMOVED"
    stated = (
        dataset.get("PatientIdentityRemoved") == "YES",
        dataset.get("BurnedInAnnotation") == "NO",
        dataset.get("LongitudinalTemporalInformationModified") == changed,
        str(dataset.get("PatientName")) == patient == dataset.get("PatientID"),
        dataset.get("Modality") == "US",
        len(dataset.get("DeidentificationMethodCodeSequence") or ()) == 2 + (dates is Dates.SHIFT),
        "TransferSyntaxUID" in dataset.file_meta,
        dataset.file_meta.get("MediaStorageSOPInstanceUID") == dataset.get("SOPInstanceUID"),
        "SourceApplicationEntityTitle" not in dataset.file_meta,
    )
    if not all(stated):
        raise NotClean("it does not state what was done to it")


def _everything(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _everything(item)


def _check_element(element: DataElement, identity: Identity, dates: Dates) -> None:
    place = f"{element.tag} {element.name}"
    wrong = may_stand(element, dates)
    if wrong:
        raise NotClean(f"{place}: {wrong}")
    if int(element.tag) in SET_HERE or element.VR == "SQ":
        return
    if identity.is_in(element):
        raise NotClean(f"{place}: a word of the source's identity")


def _check_bytes(path: Path, dataset: Dataset, identity: Identity) -> None:
    exempt = " ".join(
        str(element.value) for element in dataset if int(element.tag) in SET_HERE
    ) + " ".join(str(element.value) for element in dataset.file_meta)
    wanted = identity.in_bytes(exempt)
    long = identity.in_pixels()
    with path.open("rb") as file:
        head, end = b"", -1
        while end < 0 and len(head) < _MOST_HEADER and (chunk := file.read(_CHUNK)):
            head += chunk
            end = head.find(_PIXEL_HEAD)
        if any(head[:_PREAMBLE]):
            raise NotClean("its preamble is not empty")
        if end < 0:
            raise NotClean("its pixels are not where they should be")
        if wanted is not None and wanted.search(head, 0, end):
            raise NotClean("bytes of the source's identity stand before its pixels")
        file.seek(-len(_END), 2)
        if file.read() != _END:
            raise NotClean("something stands after its pixels")
        file.seek(end)
        before = b""
        while chunk := file.read(_CHUNK):
            window = before + chunk
            if any(data in window for data in long):
                raise NotClean("bytes of the source's identity stand in its pixels")
            before = window[-max((len(data) for data in long), default=1) :]


def _check_pixels(path: Path, dataset: Dataset, frames: BlankedFrames) -> None:
    outside, most = ~frames.mask, 0
    if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
        outside, most = _beyond_ringing(frames.mask), _MOST_RINGING
    blank = np.array(frames.blank if frames.samples == 3 else frames.blank[0])
    if frames.samples == 3:
        outside = outside[..., np.newaxis]
    count = 0
    low = -(1 << (frames.bits_stored - 1)) if frames.signed else 0
    # As the bits stand: pydicom would hide those above the stored ones.
    for frame in iter_pixels(path, raw=True, correct_unused_bits=False):
        if frame.min() < low or frame.max() >= low + (1 << frames.bits_stored):
            raise NotClean(f"frame {count} has bits above the stored ones")
        wrong = frame != blank if not most else np.abs(frame.astype(np.int32) - blank) > most
        if (wrong & outside).any():
            raise NotClean(f"frame {count} is not blank outside the sector")
        count += 1
    if count != frames.frame_count:
        raise NotClean(f"it has {count} frames instead of {frames.frame_count}")


def _beyond_ringing(mask: Any) -> Any:
    return ~ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=_RINGING_PX)
