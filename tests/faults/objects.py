"""Objects to send by the hundred, and what `storescu` says became of each.

Every object is the header of a real cine with pixels of its own, so that no two are alike and a
byte that is lost, swapped or taken from another object is seen.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from tests.peers import require
from tests.running_node import REAL_CINE

_INSTANCE, _STUDY, _SERIES = ("2.25." + digit * 39 for digit in "789")
_SAMPLES = 32 * 32
_SENDING = re.compile(r"^I: Sending file: (?P<path>.+)$")
_ANSWER = re.compile(r"^I: Received Store Response \((?P<words>.+)\)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """An object as its sender has it: its UID, and its data set by length and SHA-256.

    Without a SHA-256 its values are compared with those of the file at ``path``: `storescu` writes
    the lengths of sequences in its own way.
    """

    path: Path
    uid: str
    study_uid: str
    length: int
    sha256: str

    def is_whole_in(self, file: Path) -> bool:
        """Whether a kept file holds exactly this data set after its own file meta information."""
        if not self.sha256:
            return bool(dcmread(file) == dcmread(self.path))
        data = file.read_bytes()
        if data[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
            return False
        start = 144 + int.from_bytes(data[140:144], "little")
        return (
            len(data) - start == self.length
            and hashlib.sha256(data[start:]).hexdigest() == self.sha256
        )


def new_uid(random_: random.Random) -> str:
    """A UID of 44 characters, as all that are made here."""
    return f"2.25.{random_.randint(10**38, 2**128 - 1)}"


def make_object(
    folder: Path,
    random_: random.Random,
    *,
    study_uid: str | None = None,
    frames: int = 1,
    megabytes: float = 0.0,
    ultrasound: bool = True,
) -> Sent:
    """Write an object under new UIDs: a still, or a clip of some frames, or a large clip.

    What is no ultrasound is kept like the rest, and is nothing for a model.
    """
    uid, study_uid = new_uid(random_), study_uid or new_uid(random_)
    count = max(frames, round(megabytes * 1e6 / _SAMPLES))
    meta, head = _template(count, ultrasound)
    names = ((_INSTANCE, uid), (_STUDY, study_uid), (_SERIES, f"{study_uid[:-1]}8"))
    for placeholder, name in names:
        meta = meta.replace(placeholder.encode(), name.encode())
        head = head.replace(placeholder.encode(), name.encode())
    dataset = head + random_.randbytes(count * _SAMPLES)
    path = folder / f"{uid}.dcm"
    path.write_bytes(meta + dataset)
    return Sent(
        path=path,
        uid=uid,
        study_uid=study_uid,
        length=len(dataset),
        sha256=hashlib.sha256(dataset).hexdigest(),
    )


def as_sent(path: Path) -> Sent:
    """A file of another make, as its sender has it."""
    header = dcmread(path, stop_before_pixels=True)
    return Sent(
        path=path,
        uid=str(header.SOPInstanceUID),
        study_uid=str(header.StudyInstanceUID),
        length=path.stat().st_size,
        sha256="",
    )


@cache
def _template(frames: int, ultrasound: bool) -> tuple[bytes, bytes]:
    """File meta information and data set up to the pixels, with placeholders for the UIDs."""
    real = dcmread(REAL_CINE, stop_before_pixels=True)
    still = frames == 1
    dataset = Dataset()
    for element in real:
        if element.VR != "SQ" and element.tag.group != 0x0028:
            dataset.add(element)
    dataset.SOPClassUID = UltrasoundImageStorage if still else UltrasoundMultiFrameImageStorage
    if not ultrasound:
        dataset.SOPClassUID, dataset.Modality = SecondaryCaptureImageStorage, "OT"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = _INSTANCE, _STUDY
    dataset.SeriesInstanceUID = _SERIES
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if not still:
        dataset.NumberOfFrames = frames
        dataset.FrameIncrementPointer = 0x00181063  # Frame Time
    dataset.Rows = dataset.Columns = 32
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = b"\0" * (frames * _SAMPLES)
    dataset["PixelData"].VR = "OB"
    whole, meta = BytesIO(), BytesIO()
    dataset.save_as(whole, implicit_vr=False, little_endian=True)
    real.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    real.file_meta.MediaStorageSOPInstanceUID = _INSTANCE
    real.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    write_file_meta_info(meta, real.file_meta)
    head = whole.getvalue()[: -frames * _SAMPLES]
    return b"\0" * 128 + b"DICM" + meta.getvalue(), head


class Sender:
    """An unmodified `storescu` that sends objects in order on one association."""

    def __init__(
        self, port: int, objects: Sequence[Sent], log: Path, *, ae_title: str = "ECHOCART"
    ) -> None:
        self.objects = tuple(objects)
        self._log = log
        command = [require("storescu"), "-v", "-xe", "-aet", ae_title, "-aec", "ECHONODE"]
        paths = [str(sent.path) for sent in objects]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "127.0.0.1", str(port), *paths],
                stdout=output,
                stderr=subprocess.STDOUT,
                # Without it each small object waits 40 ms for a delayed TCP acknowledgement.
                env={**os.environ, "TCP_NODELAY": "1"},
            )

    def answered(self) -> int:
        """How many answers it has received so far."""
        return self._log.read_bytes().count(b"Received Store Response")

    def wait(self, timeout_s: float = 60.0) -> dict[str, str]:
        """Wait for its end; gives the words of every answer that it received, by UID."""
        try:
            self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        return answers(self._log.read_text(errors="replace"), self.objects)


def answers(log: str, objects: Sequence[Sent]) -> dict[str, str]:
    """What `storescu -v` was told of each object: "Success", or the words of a failure."""
    by_path = {str(sent.path): sent.uid for sent in objects}
    told: dict[str, str] = {}
    current = ""
    # Its progress dots stand before what comes next on their line.
    for line in re.sub(r"XMIT: \.*", "\n", log).splitlines():
        if match := _SENDING.match(line):
            current = by_path[match["path"]]
        elif (match := _ANSWER.match(line)) and current:
            told[current] = match["words"]
            current = ""
    return told
