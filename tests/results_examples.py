"""Clips, findings and pictures for the tests of results: a real header, invented answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.examples import get_path
from pydicom.tag import Tag
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from models.explain.panels import Curve, FrameMark, MarkKind
from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.views import View, ViewCall
from node.results import (
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    build_capture,
    build_page,
    build_report,
)

CREATED_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LV = PackRef(name="lv", version="0.1.0", weights_sha256="a1" * 32)
ECHONET = PackRef(name="echonet", version="0.2.0", weights_sha256="b2" * 32)
VIEWS = PackRef(name="views", version="0.1.0", weights_sha256="c3" * 32)
SETTINGS = ReportSettings(device_serial="node-7", simulated_evidence=True)
PERSON = frozenset(("age", "sex", "weight", "height"))
A4C = ViewCall(view=View.A4C, score=0.93, certain=True)


def source_header(number: int = 1, **changes: Any) -> Dataset:
    """The header of pydicom's real cine, as one of several in its study; None removes."""
    header = dcmread(get_path("ybr_color"), stop_before_pixels=True)
    header.SOPInstanceUID = f"{header.SOPInstanceUID}.{number}"
    header.InstanceNumber = number
    for keyword, value in changes.items():
        if value is None:
            if keyword in header:
                delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    return header


def put_bytes(dataset: Dataset, keyword: str, value: bytes) -> None:
    """Give an attribute these bytes, as a file would: unchecked, not decoded."""
    tag = Tag(keyword)
    padded = value + b" " * (len(value) % 2)
    vr = dictionary_VR(tag)
    dataset[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)


def as_received(header: Dataset) -> Dataset:
    """The header after a way through a file: its values are bytes that nobody looked at."""
    buffer = BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()), stop_before_pixels=True)


def measurement(output: str, value: float, unit: str, **changes: Any) -> Finding:
    """A measurement by the tracing pack."""
    fields: dict[str, Any] = {
        "pack": LV, "evidence": Evidence.PATIENTS, "method": Method.SINGLE_PLANE_DISCS,
        "frames": (7,), **changes,
    }  # fmt: skip
    return Finding(output=output, kind=Kind.MEASUREMENT, value=value, unit=unit, **fields)


def score(output: str, value: float, **changes: Any) -> Finding:
    """A score by the frame pack."""
    fields: dict[str, Any] = {
        "pack": ECHONET, "evidence": Evidence.SIMULATED, "method": Method.CLASSIFICATION,
        "threshold": 0.5, "frames": (3,), **changes,
    }  # fmt: skip
    return Finding(
        output=output, kind=Kind.SCORE, value=None, unit="{score}", score=value, **fields
    )


def tracing_findings(ef: float = 58.237) -> tuple[Finding, ...]:
    """What the tracing pack says of a clip."""
    return (
        measurement("ef", ef, "%", low=50.1, high=66.2),
        measurement(
            "edv", 102.37, "mL", low=90.0, high=115.0, frames=(2, 20), per_beat=(101.0, 103.74)
        ),
        measurement("esv", 42.3, "mL", frames=(12,)),
        measurement("la_area", 17.31, "cm2", method=Method.AREA, frames=(12,)),
    )


def network_findings() -> tuple[Finding, ...]:
    """What the frame pack says of a clip."""
    direct = {"pack": ECHONET, "method": Method.REGRESSION, "evidence": Evidence.SIMULATED}
    return (
        measurement("ef", 61.0, "%", low=48.0, high=70.0, **direct),
        measurement("edv", 99.0, "mL", **direct),
        measurement("esv", 38.6, "mL", **direct),
        score("lvh", 0.123456, evidence=Evidence.PATIENTS),
        score("la_dilation", 0.71),
        score("lead", 0.02),
    )


def person_findings() -> tuple[Finding, ...]:
    """Estimates of age, sex, weight and height."""
    direct = {"pack": ECHONET, "method": Method.REGRESSION}
    return (
        measurement("age", 61.2, "a", **direct),
        measurement("weight", 78.4, "kg", **direct),
        measurement("height", 171.9, "cm", **direct),
        score("sex", 0.81, evidence=Evidence.PATIENTS),
    )


def study_clips() -> tuple[ClipResult, ...]:
    """A study: an A4C clip read by two packs, one that no model reads, one that is no heart."""
    header = source_header(1)
    return (
        ClipResult(
            header=header,
            view=A4C,
            findings=(*tracing_findings(), *network_findings()),
            refusals=(
                Refusal(output="la_volume", reason="the pixel spacing cannot be trusted", pack=LV),
            ),
            capture=capture_of(header).ref,
            packs=(VIEWS, LV, ECHONET),
        ),
        ClipResult(
            header=source_header(2),
            view=ViewCall(view=View.IVC, score=0.88, certain=True),
            not_analysed="no model measures this view",
        ),
        ClipResult(
            header=source_header(3),
            view=ViewCall(view=View.PSLA, score=0.31, certain=False),
            not_analysed="the view is uncertain",
        ),
        ClipResult(header=source_header(4), not_analysed="cannot be decoded"),
    )


def study_report(
    clips: Sequence[ClipResult] | None = None,
    *,
    revision: int = 1,
    predecessor: ObjectRef | None = None,
    settings: ReportSettings = SETTINGS,
    created_at: datetime = CREATED_AT,
) -> EncodedObject:
    """The report of these clips, by default of :func:`study_clips`."""
    return build_report(
        study_clips() if clips is None else clips,
        revision=revision,
        predecessor=predecessor,
        settings=settings,
        created_at=created_at,
        tested_on={(LV, "ef"): "CAMUS, 50 patients of the test split"},
    )


@dataclass(frozen=True)
class Picture:
    """A cine as the drawing room hands it over."""

    jpeg_frames: tuple[bytes, ...]
    rows: int
    columns: int
    frame_times_ms: tuple[float, ...]
    source_frames: tuple[int, ...]
    title: str = "SmoothGrad of the ejection fraction"
    poster_position: int = 0
    marks: tuple[FrameMark, ...] = ()
    curve: Curve | None = None
    tracing_box: tuple[int, int, int, int] | None = None


def jpeg(
    rows: int = 48, columns: int = 64, *, seed: int = 0, subsampling: int = 1, mode: str = "RGB"
) -> bytes:
    """A frame; ``subsampling`` 1 is 4:2:2."""
    pixels = np.random.default_rng(seed).integers(0, 255, (rows, columns, 3), dtype=np.uint8)
    buffer = BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    image.save(buffer, "JPEG", quality=90, subsampling=subsampling)
    return buffer.getvalue()


def picture(times_ms: Sequence[float] = (0.0, 100.0, 200.0, 300.0), *, seed: int = 0) -> Picture:
    """A cine of noise."""
    count = len(times_ms)
    return Picture(
        jpeg_frames=tuple(jpeg(seed=seed + index) for index in range(count)),
        rows=48,
        columns=64,
        frame_times_ms=tuple(times_ms),
        source_frames=tuple(range(0, 2 * count, 2)),
    )


def marked_picture() -> Picture:
    """A cine with end diastole, end systole and its strongest map marked, and a curve."""
    return replace(
        picture(),
        poster_position=1,
        marks=tuple(
            FrameMark(position=at, kind=kind) for at, kind in zip((1, 2, 2), MarkKind, strict=True)
        ),
        curve=Curve(times_ms=(0.0, 100.0, 200.0), values=(98.0, 55.5, 60.0), unit="mL"),
        tracing_box=(8, 8, 32, 24),
    )


def study_page() -> EncodedObject:
    """The summary page of :func:`study_clips`."""
    cine = capture_of(source_header(1), marked_picture())
    first, *others = study_clips()
    return build_page(
        (replace(first, capture=cine.ref), *others),
        {cine.ref.sop_instance_uid: cine.data},
        revision=1,
        settings=SETTINGS,
        created_at=CREATED_AT,
    )


def capture_of(
    header: Dataset,
    shown: Any = None,
    *,
    instance_number: int = 1,
    created_at: datetime = CREATED_AT,
    findings: Sequence[Finding] | None = None,
    settings: ReportSettings = SETTINGS,
) -> EncodedObject:
    """The saliency cine of a clip."""
    return build_capture(
        header,
        picture() if shown is None else shown,
        findings=tracing_findings() if findings is None else findings,
        packs=(LV,),
        instance_number=instance_number,
        settings=settings,
        created_at=created_at,
    )


def study_capture() -> EncodedObject:
    """The saliency cine of :func:`study_clips`."""
    return capture_of(source_header(1))


def read(made: EncodedObject) -> Dataset:
    """An object as a reader gets it."""
    return dcmread(BytesIO(made.data))


def rewritten(made: EncodedObject, change: Callable[[Dataset], None]) -> bytes:
    """The object's file after a change, written as it is, however wrong."""
    dataset = read(made)
    change(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


CAPTURE_CLASS = MultiFrameTrueColorSecondaryCaptureImageStorage
