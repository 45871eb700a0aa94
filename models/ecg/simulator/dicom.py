"""A simulated ECG as a DICOM object, as a cart would send it.

A rhythm group of twelve leads (PS3.3 A.34.3, C.10.9), on request a derived group with the median
beat, and the cart's own measurements and marks as annotations (C.10.10), in either of the two code
schemes that carts use: MDC (ISO/IEEE 11073-10101) or SCPECG (EN 1064).

Name and ID of the patient say that there is none, and nothing of whom the simulator drew stands in
a patient's attribute.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    AmbulatoryECGWaveformStorage,
    ExplicitVRLittleEndian,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    TwelveLeadECGWaveformStorage,
    generate_uid,
)

from models.ecg.beats import Waves, median_beat
from models.ecg.recording import LEADS, Strip
from models.ecg.simulator.simulate import SimulatedEcg

MANUFACTURER = "echonode simulator"

_PREFIX = "1.2.826.0.1.3680043.8.498."  # pydicom's root: simulated objects need none of their own
_BEFORE_R_S = 0.4
_MEASURED, _MARKED = 1, 2  # annotation groups


class EcgClass(StrEnum):
    """What kind of object is written."""

    TWELVE_LEAD = "12-lead"  #: up to 16384 samples, 200 to 1000 Hz
    GENERAL = "general"  #: as long as it likes, 200 to 1000 Hz
    AMBULATORY = "ambulatory"  #: 50 to 1000 Hz; one group, so no median beat
    GENERAL_32 = "general-32"  #: samples of 32 bits


class Scheme(StrEnum):
    """Which codes name leads and measurements."""

    MDC = "mdc"
    SCPECG = "scpecg"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limits:
    """What an object's definition allows (PS3.3 A.34.3 to A.34.5)."""

    sop_class: UID
    rates_hz: tuple[float, float]
    most_samples: int | None = None
    groups: int = 2
    bits: int = 16


_LIMITS: Mapping[EcgClass, _Limits] = MappingProxyType(
    {
        EcgClass.TWELVE_LEAD: _Limits(
            sop_class=TwelveLeadECGWaveformStorage, rates_hz=(200, 1000), most_samples=16384
        ),
        EcgClass.GENERAL: _Limits(sop_class=GeneralECGWaveformStorage, rates_hz=(200, 1000)),
        EcgClass.AMBULATORY: _Limits(
            sop_class=AmbulatoryECGWaveformStorage, rates_hz=(50, 1000), groups=1
        ),
        EcgClass.GENERAL_32: _Limits(
            sop_class=General32bitECGWaveformStorage, rates_hz=(200, 4000), bits=32
        ),
    }
)

#: Number of each lead, the same in MDC (partition 2) and SCPECG; PS3.16 CID 3001.
_LEAD_NUMBERS = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
_LEAD_MEANINGS = {
    "aVR": "aVR, augmented voltage, right",
    "aVL": "aVL, augmented voltage, left",
    "aVF": "aVF, augmented voltage, foot",
}
_VERSIONS = {"SCPECG": "1.3", "UCUM": "1.4"}

#: Truth: code and meaning in MDC (PS3.16 CID 3228), and in SCPECG as carts write them.
_INTERVALS: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "pr_interval": (("2:15872", "PR interval global"), ("5.13.5-7", "PR Interval")),
    "qrs_duration": (("2:16156", "QRS duration global"), ("5.13.5-9", "QRS Duration")),
    "qt_interval": (("2:16160", "QT interval global"), ("5.13.5-11", "QT Interval")),
}
_RR = (("2:16168", "RR interval global"), ("5.10.2.1-3", "RR Interval"))

_WAVE_CODES = {  # PS3.16 CID 3335
    "p": ("10:256", "P wave"),
    "qrs": ("10:1600", "Entire QRS (excluding P, T and U)"),
    "t": ("10:1024", "T wave"),
}
_EDGE_CODES = {
    "p": (("5.10.3-1", "P Onset"), ("5.10.3-2", "P Offset")),
    "qrs": (("5.10.3-3", "QRS Onset"), ("5.10.3-4", "QRS Offset")),
    "t": (None, ("5.10.3-5", "T Offset")),
}


def to_dicom(
    simulated: SimulatedEcg,
    *,
    study_uid: str,
    series_uid: str | None = None,
    sop_instance_uid: str | None = None,
    ecg_class: EcgClass = EcgClass.TWELVE_LEAD,
    scheme: Scheme = Scheme.MDC,
    with_median: bool = False,
    with_annotations: bool = False,
    patient_name: str = "SIMULATED^PATIENT",
    patient_id: str = "SIM0001",
    accession_number: str = "",
    acquired: dt.datetime = dt.datetime(2024, 1, 1, 12, 0),  # noqa: DTZ001 - DICOM local time
    instance_number: int = 1,
) -> Dataset:
    """Build the object.

    Parameters
    ----------
    simulated
        Its samples, and what the annotations say.
    study_uid
        Study Instance UID.
    series_uid, sop_instance_uid
        Made from the study's UID and the recording where not given, so that the same recording of
        the same study has the same UIDs.
    ecg_class, scheme
        What kind of object, with codes of which scheme.
    with_median
        Whether a second, derived group holds the median beat: 1.2 s, R at 0.4 s.
    with_annotations
        Whether PR, QRS, QT and RR, and where the waves begin and end, stand in it as a cart's own.

    Raises
    ------
    ValueError
        If the kind of object allows neither the rate, nor the length, nor the median beat.
    """
    limits = _LIMITS[ecg_class]
    strip = simulated.ecg.rhythm
    _check(strip, ecg_class, limits, with_median=with_median)
    series = series_uid or _uid(study_uid, "ecg series")
    dataset = _header(
        limits.sop_class,
        study_uid,
        series,
        sop_instance_uid or _uid(study_uid, series, str(simulated.seed), repr(simulated.wanted)),
    )
    _describe(dataset, acquired, patient_name, patient_id, accession_number, instance_number)
    dataset.AcquisitionContextSequence = [_placement()]
    groups = [_group(simulated, strip, "RHYTHM", scheme, limits.bits, original=True)]
    if with_median:
        beat = median_beat(strip, simulated.r_peaks, before_s=_BEFORE_R_S)
        groups.append(_group(simulated, beat, "MEDIAN BEAT", scheme, limits.bits, original=False))
        # The trigger counts from 1 on: PS3.3 C.10.9.1.2.
        groups[1].TriggerSamplePosition = round(_BEFORE_R_S * strip.rate_hz) + 1
    dataset.WaveformSequence = groups
    if with_annotations:
        dataset.WaveformAnnotationSequence = [
            _statement("SIMULATED ECG, OF NO PATIENT"),
            *_measurements(simulated, scheme),
            *_marks(simulated.waves, scheme),
        ]
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    """The object as a Part 10 file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _check(strip: Strip, ecg_class: EcgClass, limits: _Limits, *, with_median: bool) -> None:
    low, high = limits.rates_hz
    if not low <= strip.rate_hz <= high:
        raise ValueError(
            f"{strip.rate_hz:g} Hz cannot be written as {ecg_class}: give {low:g} to {high:g} Hz"
        )
    samples = strip.millivolts.shape[1]
    if limits.most_samples is not None and samples > limits.most_samples:
        raise ValueError(
            f"{samples} samples cannot be written as {ecg_class}: give at most "
            f"{limits.most_samples}, or write it as {EcgClass.GENERAL}"
        )
    if with_median and limits.groups < 2:
        raise ValueError(f"{ecg_class} holds one group: it cannot have a median beat")


# --- Header ----------------------------------------------------------------------------------


def _header(sop_class: UID, study_uid: str, series_uid: str, sop_instance_uid: str) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    return dataset


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
    dataset.Modality = "ECG"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "simulated ECG cart"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Simulated ECG"
    dataset.SeriesDescription = "Simulated 12-lead ECG"
    dataset.PatientName = patient_name
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = instance_number


def _placement() -> Dataset:
    """Where the electrodes were: PS3.16 TID 3401, CID 3263."""
    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = [_code("5.4.5-33-1", "SCPECG", "Electrode Placement")]
    item.ConceptCodeSequence = [
        _code(
            "5.4.5-33-1-1",
            "SCPECG",
            "Standard 12-lead positions: limb leads placed at extremities",
        )
    ]
    return item


# --- Samples ---------------------------------------------------------------------------------


def _group(
    simulated: SimulatedEcg, strip: Strip, label: str, scheme: Scheme, bits: int, *, original: bool
) -> Dataset:
    step_uv = simulated.cart.step_mv * 1000
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL" if original else "DERIVED"
    group.NumberOfWaveformChannels = len(LEADS)
    group.NumberOfWaveformSamples = strip.millivolts.shape[1]
    group.SamplingFrequency = f"{strip.rate_hz:g}"
    group.MultiplexGroupLabel = label
    group.ChannelDefinitionSequence = [
        _channel(simulated, number, lead, scheme, bits, step_uv)
        for number, lead in zip(_LEAD_NUMBERS, LEADS, strict=True)
    ]
    group.WaveformBitsAllocated = bits
    group.WaveformSampleInterpretation = "SL" if bits == 32 else "SS"
    group.WaveformData = _samples(strip, step_uv, bits).T.tobytes()
    group["WaveformData"].VR = "OW"
    return group


def _samples(strip: Strip, step_uv: float, bits: int) -> NDArray[np.signedinteger]:
    """(12, samples) in steps of the converter, which ends where its bits do."""
    steps = np.rint(np.nan_to_num(strip.millivolts) * (1000 / step_uv))
    most = 2 ** (bits - 1) - 1
    return np.asarray(np.clip(steps, -most, most), np.dtype("<i4" if bits == 32 else "<i2"))


def _channel(
    simulated: SimulatedEcg, number: int, lead: str, scheme: Scheme, bits: int, step_uv: float
) -> Dataset:
    cart = simulated.cart
    meaning = _LEAD_MEANINGS.get(lead, f"Lead {lead}")
    channel = Dataset()
    if scheme is Scheme.MDC:
        source = _code(f"2:{number}", "MDC", meaning)
    else:
        source = _code(f"5.6.3-9-{number}", "SCPECG", meaning)
    channel.ChannelSourceSequence = [source]
    channel.ChannelLabel = lead
    channel.ChannelSensitivity = f"{step_uv:g}"
    channel.ChannelSensitivityUnitsSequence = [_code("uV", "UCUM", "microvolt")]
    channel.ChannelSensitivityCorrectionFactor = 1
    channel.ChannelBaseline = 0
    channel.ChannelSampleSkew = 0
    channel.WaveformBitsStored = bits
    if simulated.wanted.noise > 0:
        channel.FilterLowFrequency = f"{cart.lowest_hz:g}"
        channel.FilterHighFrequency = f"{cart.highest_hz:g}"
        if cart.notch:
            channel.NotchFilterFrequency = f"{cart.mains_hz:g}"
    return channel


# --- Annotations -----------------------------------------------------------------------------


def _statement(words: str) -> Dataset:
    note = _note(0)
    note.UnformattedTextValue = words
    return note


def _measurements(simulated: SimulatedEcg, scheme: Scheme) -> list[Dataset]:
    truths = simulated.truths
    notes = []
    if "heart_rate" in truths:
        notes.append(_interval(_RR, 60000 / truths["heart_rate"], scheme))
    for name, codes in _INTERVALS.items():
        if name in truths:
            notes.append(_interval(codes, truths[name], scheme))
    return notes


def _interval(
    codes: tuple[tuple[str, str], tuple[str, str]], value_ms: float, scheme: Scheme
) -> Dataset:
    note = _note(_MEASURED)
    note.ConceptNameCodeSequence = [_of_scheme(codes[scheme is Scheme.SCPECG], scheme)]
    note.MeasurementUnitsCodeSequence = [_code("ms", "UCUM", "milliseconds")]
    note.NumericValue = f"{value_ms:.0f}"
    return note


def _marks(waves: Sequence[Waves], scheme: Scheme) -> list[Dataset]:
    """Each wave as a segment (MDC), or its edges as points, as in EN 1064."""
    notes = []
    for beat in waves:
        for kind, window in (("p", beat.p), ("qrs", beat.qrs), ("t", beat.t)):
            if window is None:
                continue
            # Samples count from 1 on: PS3.3 C.10.10.1.2.
            first, last = window[0] + 1, window[1]
            if scheme is Scheme.MDC:
                notes.append(_mark(_WAVE_CODES[kind], [first, last], scheme))
                continue
            for code, place in zip(_EDGE_CODES[kind], (first, last), strict=True):
                if code is not None:
                    notes.append(_mark(code, [place], scheme))
    return notes


def _mark(code: tuple[str, str], places: list[int], scheme: Scheme) -> Dataset:
    note = _note(_MARKED)
    note.ConceptNameCodeSequence = [_of_scheme(code, scheme)]
    note.TemporalRangeType = "SEGMENT" if len(places) > 1 else "POINT"
    note.ReferencedSamplePositions = places
    return note


def _note(group: int) -> Dataset:
    note = Dataset()
    note.ReferencedWaveformChannels = [1, 0]  # all of the first group
    note.AnnotationGroupNumber = group
    return note


def _of_scheme(code: tuple[str, str], scheme: Scheme) -> Dataset:
    value, meaning = code
    return _code(value, scheme.name, meaning)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    if scheme in _VERSIONS:
        item.CodingSchemeVersion = _VERSIONS[scheme]
    item.CodeMeaning = meaning
    return item


def _uid(*parts: str) -> str:
    # generate_uid joins its sources without a mark between them.
    return str(generate_uid(prefix=_PREFIX, entropy_srcs=["|".join(parts)]))
