"""ECGs, findings and pictures for the tests of results: pydicom's real ECG, invented answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.packs.manifest import Signal
from node.results import (
    EcgReading,
    EcgResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    build_ecg_capture,
    build_ecg_report,
)
from tests.results_examples import CREATED_AT, SETTINGS, Picture, jpeg

RHYTHM = PackRef(name="ecg-rhythm", version="0.1.0", weights_sha256="d4" * 32)
INTERVALS = PackRef(name="ecg-intervals", version="0.1.0", weights_sha256="e5" * 32)
PAGES = ("atrial_fibrillation", "rbbb", "qt_interval")
"""The outputs that the pages of :func:`ecg_picture` explain."""
TROUBLE = "lead V3 is flat: its electrode was off"


def ecg_object() -> Dataset:
    """pydicom's real ECG: ten seconds at 1000 Hz, and the cart's median beat."""
    return dcmread(str(get_testdata_file("waveform_ecg.dcm")))


def ecg_header(number: int = 1, **changes: Any) -> Dataset:
    """Its header, as one of several in its study; None removes."""
    header = ecg_object()
    del header.WaveformSequence
    header.SOPInstanceUID = f"{header.SOPInstanceUID}.{number}"
    header.SeriesNumber, header.InstanceNumber = 1, number
    for keyword, value in changes.items():
        if value is None:
            if keyword in header:
                delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    return header


def ecg_score(output: str, value: float, **changes: Any) -> Finding:
    """A score by the pack of rhythms."""
    fields: dict[str, Any] = {
        "pack": RHYTHM, "evidence": Evidence.PATIENTS, "method": Method.CLASSIFICATION,
        "threshold": 0.4, **changes,
    }  # fmt: skip
    return Finding(
        output=output, kind=Kind.SCORE, value=None, unit="{score}", score=value, **fields
    )


def ecg_number(output: str, value: float, unit: str, **changes: Any) -> Finding:
    """A number by the pack of intervals."""
    fields: dict[str, Any] = {
        "pack": INTERVALS, "evidence": Evidence.PATIENTS, "method": Method.REGRESSION, **changes,
    }  # fmt: skip
    return Finding(output=output, kind=Kind.MEASUREMENT, value=value, unit=unit, **fields)


def rhythm_findings() -> tuple[Finding, ...]:
    """What the pack of rhythms says of an ECG."""
    return (
        ecg_score("first_degree_av_block", 0.034),
        ecg_score("rbbb", 0.911, spans_ms=((1640.0, 1720.0),)),
        ecg_score("lbbb", 0.012),
        ecg_score("sinus_bradycardia", 0.0456),
        ecg_score("atrial_fibrillation", 0.71, spans_ms=((2310.4, 2480.0), (0.0, 120.0))),
        ecg_score("sinus_tachycardia", 0.001, evidence=Evidence.SIMULATED),
    )


def interval_findings() -> tuple[Finding, ...]:
    """What the pack of intervals says of an ECG."""
    return (
        ecg_number("heart_rate", 61.4, "/min", low=58.0, high=65.0),
        ecg_number("pr_interval", 161.2, "ms", low=140.0, high=182.0),
        ecg_number("qrs_duration", 91.7, "ms"),
        ecg_number("qt_interval", 368.4, "ms", spans_ms=((420.0, 560.0),)),
        ecg_number("j_amplitude", 0.012, "mV", evidence=Evidence.SIMULATED),
        ecg_number("r_amplitude", 1.234, "mV", low=0.9, high=1.5),
        ecg_number("t_amplitude", 0.309, "mV"),
    )


def ecg_readings() -> tuple[EcgReading, ...]:
    """The rhythm in all leads, and eight leads of the cart's median beat."""
    return (
        EcgReading(
            pack=RHYTHM, signal=Signal.RHYTHM, group=1, channels=tuple(range(1, 13)),
            begin_ms=0.0, end_ms=10000.0,
        ),
        EcgReading(
            pack=INTERVALS, signal=Signal.MEDIAN, group=2, channels=(1, 2, 7, 8, 9, 10, 11, 12),
            begin_ms=0.0, end_ms=1200.0,
        ),
    )  # fmt: skip


def ecg_picture(pages: int = len(PAGES), *, rows: int = 48, columns: int = 64) -> Picture:
    """Pages of noise."""
    return Picture(
        jpeg_frames=tuple(jpeg(rows, columns, seed=page) for page in range(pages)),
        rows=rows,
        columns=columns,
        frame_times_ms=(0.0,) * pages,
        source_frames=(),
        title="Grad-CAM of an ECG",
    )


def ecg_capture_of(
    header: Dataset,
    shown: Any = None,
    *,
    instance_number: int = 1,
    settings: ReportSettings = SETTINGS,
    findings: Sequence[Finding] | None = None,
) -> EncodedObject:
    """The picture of an ECG, by default of three pages."""
    return build_ecg_capture(
        header,
        ecg_picture() if shown is None else shown,
        findings=(*rhythm_findings(), *interval_findings()) if findings is None else findings,
        packs=(RHYTHM, INTERVALS),
        instance_number=instance_number,
        settings=settings,
        created_at=CREATED_AT,
    )


def ecg_of(header: Dataset, capture: ObjectRef | None, **changes: Any) -> EcgResult:
    """An ECG that two packs read."""
    fields: dict[str, Any] = {
        "findings": (*rhythm_findings(), *interval_findings()),
        "pages": PAGES,
        "packs": (RHYTHM, INTERVALS),
        "readings": ecg_readings(),
        **changes,
    }
    return EcgResult(header=header, capture=capture, **fields)


def study_ecgs(*, pictured: bool = True) -> tuple[EcgResult, ...]:
    """A study: an ECG that two packs read, with a doubt, and one that none could read."""
    header = ecg_header(1)
    capture = ecg_capture_of(header).ref if pictured else None
    return (
        ecg_of(
            header,
            capture,
            troubles=(TROUBLE,),
            refusals=(Refusal(output="sex", reason="lead V3 is missing from it", pack=INTERVALS),),
        ),
        EcgResult(header=ecg_header(2), not_analysed="it is shorter than 5 seconds"),
    )


def ecg_report(
    ecgs: Sequence[EcgResult] | None = None,
    *,
    revision: int = 1,
    predecessor: ObjectRef | None = None,
    settings: ReportSettings = SETTINGS,
) -> EncodedObject:
    """The report of these ECGs, by default of :func:`study_ecgs`."""
    return build_ecg_report(
        study_ecgs() if ecgs is None else ecgs,
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=CREATED_AT,
        tested_on={(RHYTHM, "atrial_fibrillation"): "50 real records, 9 of them with it"},
    )
