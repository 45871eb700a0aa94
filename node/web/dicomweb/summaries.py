"""What a search says of an object, read from its file: the database holds no identity.

What was read is remembered in memory, packed, for as many files as :data:`REMEMBERED`; nothing of
it is written anywhere.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict

from pydicom.datadict import tag_for_keyword

from models.clip import ClipError
from node.kept import header_of
from node.web.dicomweb.model import Json, json_of
from storage.files import FileStore

REMEMBERED = 50_000  #: files


def _tags(*keywords: str) -> tuple[str, ...]:
    return tuple(f"{tag_for_keyword(keyword) or 0:08X}" for keyword in keywords)


# What a search gives back (PS3.18 Tables 10.6.3-3 to 10.6.3-5), and in the second list of each what
# it also gives where it is asked for.
STUDY = _tags(
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
    "TimezoneOffsetFromUTC", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyID",
)  # fmt: skip
STUDY_TOO = _tags(
    "StudyDescription", "InstitutionName", "IssuerOfPatientID", "PatientAge", "PatientSize",
    "PatientWeight", "OtherPatientIDs", "PatientComments", "NameOfPhysiciansReadingStudy",
)  # fmt: skip
SERIES = _tags(
    "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
    "RequestAttributesSequence",
)  # fmt: skip
SERIES_TOO = _tags(
    "SeriesDate", "SeriesTime", "Manufacturer", "ManufacturerModelName", "StationName",
    "BodyPartExamined", "Laterality", "ProtocolName", "OperatorsName",
    "PerformingPhysicianName", "PerformedProcedureStepDescription",
)  # fmt: skip
INSTANCE = _tags(
    "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated",
    "NumberOfFrames",
)  # fmt: skip
INSTANCE_TOO = _tags(
    "ImageType", "InstanceCreationDate", "InstanceCreationTime", "AcquisitionDateTime",
    "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "AcquisitionNumber",
    "PhotometricInterpretation",
)  # fmt: skip
_ALL = frozenset((*STUDY, *STUDY_TOO, *SERIES, *SERIES_TOO, *INSTANCE, *INSTANCE_TOO))


class TooManyFilesError(Exception):
    """A search would read more files than it may."""


class Summaries:
    """Of every object what a search wants; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def find(self, key: str) -> Json | None:
        """What is remembered of a file."""
        with self._lock:
            packed = self._held.get(key)
            if packed is not None:
                self._held.move_to_end(key)
        return None if packed is None else dict(json.loads(packed))

    def keep(self, key: str, model: Json) -> Json:
        """Remember a file."""
        summary = {tag: model[tag] for tag in _ALL if tag in model}
        packed = json.dumps(summary, separators=(",", ":")).encode()
        with self._lock:
            self._held[key] = packed
            while len(self._held) > REMEMBERED:
                self._held.popitem(last=False)
        return summary


class Reading:
    """The reading of one search, which may read ``most`` files anew; None: as many as it likes.

    Raises
    ------
    TooManyFilesError
        From both methods.
    """

    def __init__(self, summaries: Summaries, files: FileStore, most: int | None) -> None:
        self._summaries = summaries
        self._files = files
        self.most = most
        self._read = 0

    def summary(self, key: str) -> Json:
        """What a search wants of an object; nothing where it cannot be read."""
        found = self._summaries.find(key)
        return self._summaries.keep(key, self.whole(key)) if found is None else found

    def whole(self, key: str) -> Json:
        """All of an object but what is long; nothing where it cannot be read."""
        if self.most is not None and self._read >= self.most:
            raise TooManyFilesError
        self._read += 1
        try:
            return json_of(header_of(self._files, key))
        except ClipError:
            return {}
