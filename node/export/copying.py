"""One object of the node, as a de-identified copy in a folder, or the reason why there is none."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from models.blanked import blanked_frames
from models.clip import Clip, ClipError, Mode, read_clip
from node.export.errors import LeftOut, NotClean
from node.export.identity import identity_of
from node.export.inspection import inspect
from node.export.pixels import Coding, write_copy
from node.export.profile import ACTIONS, Dates, clean_header
from node.export.pseudonyms import Pseudonyms
from node.results import is_own_object

_RETIRED: Final = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6")
CLASSES: Final = frozenset(
    (UltrasoundImageStorage, UltrasoundMultiFrameImageStorage, *map(UID, _RETIRED))
)
"""Objects of these classes are copied; no others."""

_CINE: Final = 4  # frames: in fewer nothing moves that would tell a heart from letters
_MOST_SHARE: Final = 0.95
_SPECTRA: Final = (Mode.PW, Mode.CW, Mode.M_MODE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """How copies are to be."""

    dates: Dates = Dates.REMOVE
    coding: Coding = Coding.LOSSLESS
    spectra: bool = False  #: Doppler and M-mode, too: all that their region shows
    sheets: bool = False
    findings: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """An object that is fit to be copied."""

    clip: Clip
    path: Path


def fit_source(path: Path, wishes: Wishes) -> Source:
    """Read an object and see whether a copy of it can be made.

    Raises
    ------
    LeftOut
        If not.
    """
    try:
        clip = read_clip(path)
    except ClipError as error:
        raise LeftOut(f"it cannot be read as a clip: {error}") from error
    if UID(clip.sop_class_uid) not in CLASSES:
        raise LeftOut(class_reason(clip.sop_class_uid))
    if is_own_object(clip.header):
        raise LeftOut("echonode made it")
    if clip.mode is Mode.UNKNOWN:
        raise LeftOut("it does not say how it was scanned: it may be a picture of a screen")
    if clip.mode in _SPECTRA:
        if not wishes.spectra:
            raise LeftOut("Doppler or M-mode, which has no sector (--spectra takes its region)")
        if clip.sector.source != "region":
            raise LeftOut("Doppler or M-mode without a region that fits the picture")
    elif not clip.sector.mask.any():
        raise LeftOut("no ultrasound sector is found in its pixels")
    elif clip.sector.source != "region" and clip.frame_count < _CINE:
        raise LeftOut("a still without a region that fits the picture: it may be one of a screen")
    if _share(clip) > _MOST_SHARE:
        raise LeftOut("nearly all of its pixels would stay: nothing tells the sector from a screen")
    return Source(clip=clip, path=path)


def _share(clip: Clip) -> float:
    """How much of a frame the sector takes."""
    return float(clip.sector.mask.sum()) / (clip.rows * clip.columns)


def class_reason(sop_class_uid: str) -> str:
    """Why objects of a class are not copied; "" where they are."""
    if UID(sop_class_uid) in CLASSES:
        return ""
    name = UID(sop_class_uid).name
    known = name if name != sop_class_uid else "a class that is not known"
    return f"not an ultrasound image: {known}"


def patient_identity(header: Dataset) -> tuple[str, ...]:
    """What tells a patient: the number and who gave it, else name and day of birth, else study."""
    number, issuer, name, born, study = (
        str(header.get(keyword) or "").strip()
        for keyword in (
            "PatientID",
            "IssuerOfPatientID",
            "PatientName",
            "PatientBirthDate",
            "StudyInstanceUID",
        )
    )
    if number:
        return ("number", number, issuer)
    # A name alone is nobody: many are called "Anonymized".
    return ("name", name, born) if name and born else ("study", study)


def copy_object(
    source: Source, names: Pseudonyms, patient: str, wishes: Wishes, folder: Path
) -> tuple[Path, int]:
    """Write a copy into a folder under its new UID, inspect it, and only then give it its name.

    Returns where it is, and how many values beyond the table were removed.

    Raises
    ------
    LeftOut
        The pixels are of a kind that is not copied, or broken.
    NotClean
        It was written and did not pass; it is gone again.
    OSError
        The disk does not take it.
    """
    with _quietly():
        return _copied(source, names, patient, wishes, folder)


def _copied(
    source: Source, names: Pseudonyms, patient: str, wishes: Wishes, folder: Path
) -> tuple[Path, int]:
    clip = source.clip
    identity = identity_of(clip.header, ACTIONS, dates=wishes.dates is Dates.REMOVE)
    clean = clean_header(clip.header, identity, names, patient, wishes.dates)
    final = folder / f"{names.uid(clip.sop_instance_uid)}.dcm"
    temporary = folder / f".{final.name}.part"
    try:
        frames = blanked_frames(clip)
        write_copy(
            temporary,
            clean.dataset,
            clip,
            frames,
            coding=wishes.coding,
            size=source.path.stat().st_size,
        )
        inspect(temporary, identity, frames, patient, wishes.dates)
        temporary.replace(final)
    except ClipError as error:
        raise LeftOut(f"its pixels cannot be copied: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return final, clean.scrubbed


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep pydicom's warnings in: they quote the values that they do not like."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


__all__ = [
    "CLASSES",
    "NotClean",
    "Source",
    "Wishes",
    "class_reason",
    "copy_object",
    "fit_source",
    "patient_identity",
]
