"""Results of invented clips and ECGs: what attribute tables and template trees are read from.

Two of each class at least: one from a source that says all, one from a source that says nothing
of patient and study, with other settings and at another time. What is the same in both is fixed,
what is missing from one depends on the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO

from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    TwelveLeadECGWaveformStorage,
    UltrasoundMultiFrameImageStorage,
)

from models.explain.panels import Curve, EncodedPicture, FrameMark, MarkKind
from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.packs.manifest import Signal
from models.tasks import CLIP_TASKS, ECG_TASKS, TASKS
from models.views import View, ViewCall
from node.results import (
    ClipResult,
    EcgReading,
    EcgResult,
    EncodedObject,
    ReportSettings,
    build_capture,
    build_ecg_capture,
    build_ecg_report,
    build_ecg_text_report,
    build_key_object,
    build_page,
    build_report,
)
from node.results.capture import single_frames
from node.results.codes import OUTPUTS
from node.results.text_report import build_text_report

_TRACING = PackRef(name="tracing", version="1", weights_sha256="a1" * 32)
_NETWORK = PackRef(name="network", version="2", weights_sha256="b2" * 32)
_MADE_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_SIDE = 16


Samples = Mapping[str, tuple[Dataset, ...]]
"""Results by SOP class UID, each as a reader gets it."""


@cache
def samples() -> Samples:
    """Those of clips and of ECGs."""
    of_clips, of_ecgs = clip_samples(), ecg_samples()
    return {
        sop_class: (*of_clips.get(sop_class, ()), *of_ecgs.get(sop_class, ()))
        for sop_class in dict.fromkeys((*of_clips, *of_ecgs))
    }


@cache
def clip_samples() -> Samples:
    """Results of clips."""
    return _made(_of_a_study, (_full_header(), _bare_header()))


@cache
def ecg_samples() -> Samples:
    """Results of ECGs."""
    return _made(_of_a_study_of_ecgs, (_as_ecg(_full_header()), _as_ecg(_bare_header())))


def _made(of_a_study: Callable[..., list[EncodedObject]], headers: Iterable[Dataset]) -> Samples:
    made: list[EncodedObject] = []
    for number, header in enumerate(headers):
        settings = ReportSettings(
            device_serial=f"serial {number}",
            software_version=f"version {number}",
            simulated_evidence=True,
            demographic_estimates=frozenset(("age", "sex", "weight", "height")),
        )
        at = _MADE_AT + timedelta(days=number, seconds=number)
        made += of_a_study(header, settings, at, revision=2 - number)
    found: dict[str, list[Dataset]] = {}
    for each in made:
        found.setdefault(each.ref.sop_class_uid, []).append(dcmread(BytesIO(each.data)))
    return {sop_class: tuple(objects) for sop_class, objects in found.items()}


def _of_a_study(
    header: Dataset, settings: ReportSettings, at: datetime, *, revision: int
) -> list[EncodedObject]:
    findings = _findings()
    capture = build_capture(
        header,
        _picture(frames=2 + revision),
        findings=findings,
        packs=(_TRACING, _NETWORK),
        instance_number=revision,
        settings=settings,
        created_at=at,
    )
    clips = [
        ClipResult(
            header=header,
            view=ViewCall(view=View.A4C, score=0.95, certain=True),
            findings=findings,
            refusals=(Refusal(output="edv", reason="no scale", pack=_NETWORK),),
            capture=capture.ref,
            packs=(_TRACING, _NETWORK),
        ),
        *_clips_of_other_views(header),
    ]
    reports = []
    for sop_class in (Comprehensive3DSRStorage, ComprehensiveSRStorage):
        of_class = replace(settings, sop_class_uid=sop_class)
        report = build_report(clips, revision=1, predecessor=None, settings=of_class, created_at=at)
        if revision > 1:
            report = build_report(
                clips,
                revision=revision,
                predecessor=report.ref,
                settings=of_class,
                created_at=at,
            )
        reports.append(report)
    text = build_text_report(
        clips, revision=revision, predecessor=None, settings=settings, created_at=at
    )
    page = build_page(
        clips,
        {capture.ref.sop_instance_uid: capture.data},
        revision=revision,
        settings=settings,
        created_at=at,
    )
    key_object = build_key_object(
        clips, [page.ref], revision=revision, settings=settings, created_at=at
    )
    return [*reports, text, capture, *single_frames(capture.data), page, key_object]


def _clips_of_other_views(header: Dataset) -> list[ClipResult]:
    clips = []
    for number, view in enumerate((View.IVC, View.PW), start=2):
        other = deepcopy(header)
        other.SOPInstanceUID = f"{header.SOPInstanceUID}.{number}"
        clips.append(
            ClipResult(
                header=other,
                view=ViewCall(view=view, score=0.9, certain=True),
                not_analysed="no model measures this view",
            )
        )
    return clips


def _findings() -> tuple[Finding, ...]:
    """A finding of every output, and traced ones beside them."""
    findings = [
        Finding(
            output=output,
            kind=Kind.MEASUREMENT,
            value=50.0,
            unit=TASKS[output].unit,
            low=40.0,
            high=60.0,
            pack=_TRACING,
            evidence=Evidence.PATIENTS,
            method=Method.SINGLE_PLANE_DISCS,
            frames=(1,),
            per_beat=(49.0, 51.0),
        )
        for output, written in OUTPUTS.items()
        if written.by_discs is not None
    ]
    return (*findings, *_by_network(CLIP_TASKS))


def _by_network(outputs: Iterable[str]) -> Iterator[Finding]:
    """A finding of each of these outputs, as a network gives it."""
    for number, output in enumerate(each for each in OUTPUTS if each in set(outputs)):
        score = TASKS[output].kind is Kind.SCORE
        yield (
            Finding(
                output=output,
                kind=TASKS[output].kind,
                value=None if score else 50.0,
                unit=TASKS[output].unit,
                score=(0.9, 0.1)[number % 2] if score else None,
                threshold=0.5 if score else None,
                pack=_NETWORK,
                evidence=Evidence.PATIENTS,
                method=Method.CLASSIFICATION if score else Method.REGRESSION,
                frames=(2,),
                outside_share=0.9 if output == "lead" else None,
            )
        )


def _of_a_study_of_ecgs(
    header: Dataset, settings: ReportSettings, at: datetime, *, revision: int
) -> list[EncodedObject]:
    findings = tuple(
        replace(finding, frames=(), spans_ms=((100.0, 200.0),), low=40.0, high=60.0)
        if finding.kind is Kind.MEASUREMENT
        else replace(finding, frames=())
        for finding in _by_network(ECG_TASKS)
    )
    captures = [
        build_ecg_capture(
            header,
            _picture(frames=pages),
            findings=findings,
            packs=(_NETWORK,),
            instance_number=revision,
            settings=settings,
            created_at=at,
        )
        for pages in (1, 1 + revision)
    ]
    read = EcgReading(
        pack=_NETWORK,
        signal=Signal.RHYTHM,
        group=1,
        channels=tuple(range(1, 13)),
        begin_ms=0.0,
        end_ms=10000.0,
    )
    ecg = EcgResult(
        header=header,
        findings=findings,
        capture=captures[-1].ref,
        pages=("heart_rate", "sex", "rbbb")[: 1 + revision],
        packs=(_NETWORK,),
        readings=(read,),
    )
    reports = []
    for sop_class in (Comprehensive3DSRStorage, ComprehensiveSRStorage):
        of_class = replace(settings, sop_class_uid=sop_class)
        reports += [
            build_ecg_report(
                [each], revision=revision, predecessor=None, settings=of_class, created_at=at
            )
            for each in (ecg, replace(ecg, capture=None, pages=(), readings=()))
        ]
    text = build_ecg_text_report(
        [ecg], revision=revision, predecessor=None, settings=settings, created_at=at
    )
    key_object = build_key_object(
        (), ecgs=[ecg], revision=revision, settings=settings, created_at=at
    )
    return [*reports, text, *captures, *single_frames(captures[-1].data), key_object]


def _picture(frames: int) -> EncodedPicture:
    buffer = BytesIO()
    Image.new("RGB", (_SIDE, _SIDE)).save(buffer, "JPEG", quality=90, subsampling=1)
    return EncodedPicture(
        jpeg_frames=(buffer.getvalue(),) * frames,
        rows=_SIDE,
        columns=_SIDE,
        # Unevenly where there are three frames, evenly where there are four.
        frame_times_ms=(0.0, 20.0, 50.0, 70.0)[:frames] if frames < 4 else (0.0, 20.0, 40.0, 60.0),
        source_frames=tuple(range(frames)),
        title="Saliency",
        marks=tuple(
            FrameMark(position=place, kind=kind)
            for place, kind in enumerate(MarkKind)
            if frames > 2
        )[:frames],
        curve=Curve(times_ms=(0.0, 20.0), values=(100.0, 50.0), unit="mL"),
        tracing_box=(0, 0, _SIDE, _SIDE),
    )


def _bare_header() -> Dataset:
    """A header that says what is needed to refer to it, and no more."""
    header = Dataset()
    header.SOPClassUID = UltrasoundMultiFrameImageStorage
    header.SOPInstanceUID = "1.2.3.4"
    header.StudyInstanceUID = "1.2.3.1"
    header.SeriesInstanceUID = "1.2.3.2"
    header.Modality = "US"
    header.Rows = header.Columns = _SIDE
    header.NumberOfFrames = 8
    return header


def _as_ecg(header: Dataset) -> Dataset:
    ecg = deepcopy(header)
    ecg.SOPClassUID = TwelveLeadECGWaveformStorage
    ecg.Modality = "ECG"
    for keyword in ("Rows", "Columns", "NumberOfFrames"):
        delattr(ecg, keyword)
    return ecg


def _full_header() -> Dataset:
    """A header with what a hospital says of patient and study."""
    header = _bare_header()
    header.SOPInstanceUID = "1.2.3.5"
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName, header.PatientID = "Name^Given", "ID"
    header.PatientBirthDate, header.PatientSex = "19500101", "O"
    header.StudyDate, header.StudyTime = "20260101", "101112"
    header.ReferringPhysicianName = "Referrer"
    header.StudyID, header.AccessionNumber = "1", "A1"
    header.TimezoneOffsetFromUTC = "+0100"
    return header
