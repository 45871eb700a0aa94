"""A file, or a DICOM object, read as an ECG: millivolts in a fixed order, with what is doubtful.

DICOM is told by its content; WFDB records by ``.hea`` (``.mat`` and ``.dat`` beside it), tables of
text by ``.csv`` (see :mod:`models.ecg.files`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from models._header import UNREADABLE, ClipError, open_object, quietly, settle, text
from models.ecg.dicom import ECG_CLASSES, read_dicom
from models.ecg.files import names_leads, read_table, read_wfdb
from models.ecg.quality import troubles_of
from models.ecg.recording import Ecg, EcgError, Trouble

__all__ = ["is_ecg_file", "read_dicom_ecg", "read_ecg"]

MOST_FILE_BYTES: Final = 1024**3
"""A larger DICOM file is not read."""

_WFDB_SAMPLES: Final = (".mat", ".dat")
_TABLES: Final = (".csv", ".tsv")


def read_ecg(path: Path) -> Ecg:
    """The recording in a file: DICOM, WFDB (``.hea``, or the samples beside one) or a table.

    Raises:
        EcgError: it cannot be read as an ECG; the message says which part, why, and what to do.
    """
    suffix = path.suffix.lower()
    if suffix == ".hea" or (suffix in _WFDB_SAMPLES and path.with_suffix(".hea").exists()):
        return _judged(Ecg(rhythm=read_wfdb(path.with_suffix(".hea"))), ())
    if suffix in _TABLES:
        return _judged(Ecg(rhythm=read_table(path)), ())
    return read_dicom_ecg(_opened(path))


def read_dicom_ecg(dataset: Dataset) -> Ecg:
    """The recording in a DICOM object of one of the four ECG classes.

    Raises:
        EcgError: it is no ECG, or cannot be read; with the tag, where it stands, and what to do.
    """
    with quietly():
        ecg, troubles = read_dicom(dataset)
    return _judged(ecg, troubles)


def is_ecg_file(path: Path) -> bool:
    """Whether a file is an ECG that :func:`read_ecg` may read; its signal is not looked at.

    Of the files of a WFDB record only the header is one, so that a folder has each once.
    """
    suffix = path.suffix.lower()
    if suffix == ".hea":
        return True
    if suffix in _TABLES:
        return names_leads(path)
    try:
        return text(open_object(path, with_pixels=False).header, "SOPClassUID") in ECG_CLASSES
    except ClipError:
        return False


def _judged(ecg: Ecg, troubles: tuple[Trouble, ...]) -> Ecg:
    """The recording with what is doubtful about it."""
    return replace(ecg, troubles=(*troubles, *troubles_of(ecg.rhythm)))


def _opened(path: Path) -> Dataset:
    try:
        header = open_object(path, with_pixels=False).header
    except ClipError as error:
        raise EcgError(
            f"{path.name} is no ECG that can be read: {error}; give a DICOM ECG, a WFDB header "
            "(.hea) or a table (.csv)"
        ) from error
    if "WaveformSequence" in header or text(header, "SOPClassUID") not in ECG_CLASSES:
        return header
    return _long_recording(path)


def _long_recording(path: Path) -> Dataset:
    """An ECG whose waveforms are longer than headers may be."""
    if path.stat().st_size > MOST_FILE_BYTES:
        raise EcgError(
            f"{path.name} is larger than {MOST_FILE_BYTES // 1024**2} MiB: send a shorter stretch "
            "of the recording"
        )
    wanted = ["SOPClassUID", "WaveformSequence", "WaveformAnnotationSequence"]
    try:
        with quietly():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(wanted))
            settle(dataset)
    except (*UNREADABLE, MemoryError) as error:  # a length that lies asks for any memory
        raise EcgError(
            f"Waveform Sequence (5400,0100) of {path.name} cannot be read: the file is broken; "
            "send it again from the cart"
        ) from error
    return dataset
