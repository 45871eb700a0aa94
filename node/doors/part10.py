"""How DICOM files begin, also those that do not begin as PS3.10 7.1 says.

Exports of real systems leave out the preamble, or all of the file meta information, or write it for
another object than the one behind it. What the door keeps begins as the standard says; the data set
behind it is never touched.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import MediaStorageDirectoryStorage

from node.results.objects import IMPLEMENTATION_CLASS_UID

_PREAMBLE = bytes(128)
_MAGIC = b"DICM"
_META_BEGINS = b"\x02\x00\x00\x00UL\x04\x00"  # (0002,0000) stands first
_DATA_BEGINS = b"\x08\x00"  # a data set begins with group 8, little endian
_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV")
_FIRST_BYTES = 4096
_MOST_META_BYTES = 1 << 20
_CLASS, _INSTANCE, _SYNTAX = b"\x02\x00", b"\x03\x00", b"\x10\x00"  # elements of group 2


class NotDicomError(Exception):
    """The bytes are no DICOM file."""


class _TooShortError(Exception):
    """More bytes are needed to go on."""


class _BrokenError(Exception):
    """The file meta information cannot be walked through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What stands before a data set, and what it states; "" where it states nothing."""

    head: bytes  #: what is to stand there instead
    data_set_at: int  #: where the data set begins in what was read
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    has_mark: bool = True  #: it says that it is DICOM; otherwise that is still to be seen
    is_whole: bool = True  #: its file meta information could be walked through

    @property
    def is_directory(self) -> bool:
        """Whether this is a DICOMDIR: it lists a medium's objects and is none to keep."""
        return self.sop_class_uid == MediaStorageDirectoryStorage

    def speaks_of(self, header: Dataset) -> bool:
        """Whether it is the file meta information of this object."""
        return bool(self.transfer_syntax_uid) and (
            (self.sop_class_uid, self.sop_instance_uid)
            == (str(header.get("SOPClassUID")), str(header.get("SOPInstanceUID")))
        )


def read_beginning(stream: BinaryIO) -> tuple[Beginning, bytes]:
    """How the file begins, and the bytes of its data set that were read along.

    The preamble may hold a program or the header of another format (PS3.10 7.5): it is emptied.

    Raises
    ------
    NotDicomError
        If it is no DICOM file.
    OSError
        If it cannot be read.
    """
    read = stream.read(_FIRST_BYTES)
    mark = len(_PREAMBLE)
    if read[mark : mark + len(_MAGIC)] == _MAGIC:
        start = mark + len(_MAGIC)
    elif read.startswith(_MAGIC + _META_BEGINS):
        start = len(_MAGIC)
    elif read.startswith(_META_BEGINS):
        start = 0
    elif read.startswith(_DATA_BEGINS):
        return Beginning(head=_PREAMBLE + _MAGIC, data_set_at=0, has_mark=False), read
    else:
        raise NotDicomError("it is no DICOM file")
    while True:
        try:
            found = _walk(read, start)
        except _TooShortError:
            more = stream.read(len(read)) if len(read) < _MOST_META_BYTES else b""
            if more:
                read += more
                continue
            found = None
        except _BrokenError:
            found = None
        break
    if found is None:  # the intake says what is wrong with it, and keeps it for the operator
        whole = Beginning(head=_PREAMBLE + _MAGIC, data_set_at=start, is_whole=False)
        return whole, read[start:]
    return found, read[found.data_set_at :]


def _walk(read: bytes, start: int) -> Beginning:
    """The elements of group 2 from ``start`` on; their length is stated as it is."""
    place, elements, stated = start, b"", {}
    while len(read) < place + 12 or read[place : place + 2] == b"\x02\x00":
        if len(read) < place + 12:
            raise _TooShortError
        element, vr = read[place + 2 : place + 4], read[place + 4 : place + 6]
        if not vr.isalpha():
            raise _BrokenError
        value = place + (12 if vr in _LONG else 8)
        size = read[place + 8 : value] if vr in _LONG else read[place + 6 : value]
        end = value + int.from_bytes(size, "little")
        if end - start > _MOST_META_BYTES:
            raise _BrokenError
        if end > len(read):
            raise _TooShortError
        stated[element] = read[value:end].rstrip(b"\x00 ").decode("latin-1")
        if element != b"\x00\x00":
            elements += read[place:end]
        place = end
    length = _META_BEGINS + struct.pack("<I", len(elements)) if elements else b""
    return Beginning(
        head=_PREAMBLE + _MAGIC + length + elements,
        data_set_at=place,
        sop_class_uid=stated.get(_CLASS, ""),
        sop_instance_uid=stated.get(_INSTANCE, ""),
        transfer_syntax_uid=stated.get(_SYNTAX, ""),
    )


def head_for(header: Dataset) -> bytes:
    """What is to stand before the data set that this is the header of."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    written = DicomBytesIO()
    write_file_meta_info(written, meta)
    return _PREAMBLE + _MAGIC + written.getvalue()
