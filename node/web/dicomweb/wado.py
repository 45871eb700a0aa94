"""WADO-RS: what is kept goes out (PS3.18 10.4).

What is stored is sent as it is wherever the caller takes its transfer syntax. It is turned into
Explicit VR Little Endian, the default of the standard, where nothing is lost or gained by that:
lossy pictures stay as they are (PS3.18 8.7.3.4), and who does not take them so hears 406.
Implicit VR and big endian are never sent (8.7.3).
"""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import structlog
from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from models.clip import ClipError
from models.frames import Frames, header_and_pixels
from node.kept import header_of
from node.results.rendering import render_report
from node.web.dicomweb.access import (
    ROOT,
    DicomRoute,
    Reader,
    Uid,
    base_url,
    files_of,
    pixels_of,
    tell_looked,
    tell_transferred,
)
from node.web.dicomweb.answers import Part, alone, data_sets, several
from node.web.dicomweb.media import (
    DICOM,
    JSON,
    OCTETS,
    PLAIN_JSON,
    XML,
    MediaError,
    Wanted,
    parse_accept,
    wanted,
)
from node.web.dicomweb.model import Json, json_of
from node.web.dicomweb.pixels import BusyError, Drawing, PictureError, Window
from node.web.dicomweb.problems import bad_request, not_acceptable, unknown
from node.web.site import parts_of
from storage import catalog
from storage.catalog import HeldObject
from storage.files import FileStore, FileStoreError

log = structlog.get_logger(__name__)

router = APIRouter(prefix=ROOT, tags=["DICOMweb: retrieve"], route_class=DicomRoute)

_CHUNK_BYTES = 1 << 20
_PLAIN = str(ExplicitVRLittleEndian)
_NATIVE = frozenset(map(str, (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)))
_NOT_SENT = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRBigEndian)))  # 8.7.3
_LOSSLESS = frozenset(
    map(str, (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless))
)
_IMAGES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_PICTURES = ("image/jpeg", "image/png", "image/gif")
_TEXTS = ("text/html", "text/plain")
_FRAME_LIST = r"^[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,9999}$"
_BULK_PATH = r"^[0-9A-Fa-f]{8}(/[0-9]{1,5}/[0-9A-Fa-f]{8}){0,16}$"
_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"

Accept = Annotated[
    str | None, Query(alias="accept", max_length=1000, description="In place of the header.")
]


@router.get(_STUDY)
def retrieve_study(request: Request, caller: Reader, study: Uid, accept: Accept = None) -> Response:
    """The objects of a study, received and made."""
    return _objects(request, caller, _held(request, study), accept)


@router.get(_SERIES)
def retrieve_series(
    request: Request, caller: Reader, study: Uid, series: Uid, accept: Accept = None
) -> Response:
    """The objects of a series."""
    return _objects(request, caller, _held(request, study, series), accept)


@router.get(_INSTANCE)
def retrieve_instance(
    request: Request, caller: Reader, study: Uid, series: Uid, instance: Uid, accept: Accept = None
) -> Response:
    """One object."""
    return _objects(request, caller, _held(request, study, series, instance), accept)


@router.get(_STUDY + "/metadata")
def study_metadata(request: Request, caller: Reader, study: Uid, accept: Accept = None) -> Response:
    """The data sets of a study without their bulk data."""
    return _metadata(request, caller, _held(request, study), accept)


@router.get(_SERIES + "/metadata")
def series_metadata(
    request: Request, caller: Reader, study: Uid, series: Uid, accept: Accept = None
) -> Response:
    """The data sets of a series without their bulk data."""
    return _metadata(request, caller, _held(request, study, series), accept)


@router.get(_INSTANCE + "/metadata")
def instance_metadata(
    request: Request, caller: Reader, study: Uid, series: Uid, instance: Uid, accept: Accept = None
) -> Response:
    """The data set of an object without its bulk data."""
    return _metadata(request, caller, _held(request, study, series, instance), accept)


@router.get(_INSTANCE + "/rendered")
def rendered_instance(
    request: Request,
    caller: Reader,
    study: Uid,
    series: Uid,
    instance: Uid,
    window: Annotated[str | None, Query(max_length=100)] = None,
    quality: Annotated[int, Query(ge=1, le=100)] = 90,
    viewport: Annotated[str | None, Query(max_length=100)] = None,
    accept: Accept = None,
) -> Response:
    """An object as a picture (of a clip its representative frame), a report as text."""
    item = _one(request, study, series, instance)
    header = _header(request, item)
    tell_looked(request, caller, study)
    if "Rows" not in header:
        return _text(item, header, _wanted(request, accept))
    number = int(header.get("RepresentativeFrameNumber") or 1)
    number = number if 1 <= number <= _frame_count(request, item) else 1
    drawing = _drawing(_wanted(request, accept), window, quality, viewport)
    return _picture(request, item, number, drawing)


@router.get(_INSTANCE + "/frames/{frames}/rendered")
def rendered_frames(
    request: Request,
    caller: Reader,
    study: Uid,
    series: Uid,
    instance: Uid,
    frames: str,
    window: Annotated[str | None, Query(max_length=100)] = None,
    quality: Annotated[int, Query(ge=1, le=100)] = 90,
    viewport: Annotated[str | None, Query(max_length=100)] = None,
    accept: Accept = None,
) -> Response:
    """One frame as a picture."""
    item = _one(request, study, series, instance)
    numbers = _numbers(frames)
    if len(numbers) != 1:
        raise bad_request("one frame is drawn at a time")
    drawing = _drawing(_wanted(request, accept), window, quality, viewport)
    tell_looked(request, caller, study)
    return _picture(request, item, numbers[0], drawing)


@router.get(_INSTANCE + "/frames/{frames}")
def retrieve_frames(
    request: Request,
    caller: Reader,
    study: Uid,
    series: Uid,
    instance: Uid,
    frames: str,
    accept: Accept = None,
) -> Response:
    """Frames by their numbers, from 1: ``1,2,7``."""
    item = _one(request, study, series, instance)
    numbers = _numbers(frames)
    kind, media, multipart, plain = _frame_form(
        item.transfer_syntax_uid, _wanted(request, accept), len(numbers)
    )
    count = _frame_count(request, item)
    if max(numbers) > count:
        raise unknown("frame", f"the object has {count}")
    bodies = _frame_bodies(request, item, [number - 1 for number in numbers], plain=plain)
    tell_looked(request, caller, study)
    url = f"{_url(request, item)}/frames"
    parts = (
        Part(media=media, body=[body], location=f"{url}/{number}")
        for number, body in zip(numbers, bodies, strict=True)
    )
    return several(parts, kind) if multipart else alone(next(parts))


@router.get(_INSTANCE + "/bulkdata/{path:path}")
def retrieve_bulk_data(
    request: Request,
    caller: Reader,
    study: Uid,
    series: Uid,
    instance: Uid,
    path: str,
    accept: Accept = None,
) -> Response:
    """A long value, by the URI that the metadata name."""
    if not re.fullmatch(_BULK_PATH, path):
        raise unknown("value")
    item = _one(request, study, series, instance)
    takes = _wanted(request, accept)
    tell_looked(request, caller, study)
    url = f"{_url(request, item)}/bulkdata/{path}"
    if path.upper() == "7FE00010":
        return _pixel_data(request, item, takes, url)
    value = _value(_header(request, item), path.upper())
    for want in takes:
        if want.takes(OCTETS) and want.syntax in (None, "*", _PLAIN):
            part = Part(media=OCTETS, body=[value], location=url)
            # A value alone is what the standard gives by default (8.7.3.3).
            if want.multipart and not want.anything:
                return several([part], OCTETS)
            return alone(part)
    raise not_acceptable(f"the value comes as {OCTETS}")


def _held(
    request: Request, study: str, series: str | None = None, instance: str | None = None
) -> tuple[HeldObject, ...]:
    with parts_of(request).database.read() as session:
        found = catalog.held_objects(
            session,
            studies=[study],
            series=None if series is None else [series],
            instances=None if instance is None else [instance],
        )
        known = bool(found) or catalog.was_held(
            session, study=study, series=series, instance=instance
        )
    what = "object" if instance else "series" if series else "study"
    if not known:
        raise unknown(what)
    if not found:
        raise HTTPException(410, f"the files of this {what} are not kept any more")
    return found


def _one(request: Request, study: str, series: str, instance: str) -> HeldObject:
    return _held(request, study, series, instance)[0]


def _wanted(request: Request, accept: str | None) -> list[Wanted]:
    try:
        text = request.headers.get("accept", "") if accept is None else accept
        return wanted(parse_accept(text))
    except MediaError as error:
        raise bad_request(f"Accept: {error}") from None


def _url(request: Request, item: HeldObject) -> str:
    return (
        f"{base_url(request)}/studies/{item.study_instance_uid}"
        f"/series/{item.series_instance_uid}/instances/{item.sop_instance_uid}"
    )


# Whole objects.


def _objects(
    request: Request, caller: Any, held: tuple[HeldObject, ...], accept: str | None
) -> Response:
    takes = [want for want in _wanted(request, accept) if want.takes(DICOM)]
    best: list[tuple[HeldObject, str]] = []
    multipart = True
    for want in takes:
        if not want.multipart and len(held) > 1:
            continue
        given = [(item, _object_syntax(item.transfer_syntax_uid, want.syntax)) for item in held]
        possible = [(item, syntax) for item, syntax in given if syntax is not None]
        if len(possible) > len(best):
            best, multipart = possible, want.multipart
        if len(best) == len(held):
            break
    if not best:
        raise not_acceptable(_what_there_is(held, DICOM))
    parts = _object_parts(request, best)
    first = next(parts)  # what cannot be read or converted is told before the first byte
    tell_transferred(request, caller, tuple(item for item, _ in best))
    if not multipart:
        return alone(first)
    left_out = len(held) - len(best)
    headers = {}
    if left_out:
        words = f"{left_out} objects are left out: {_what_there_is(held, DICOM)}"
        headers["warning"] = f'299 echonode "{words}"'
    return several(chain([first], parts), DICOM, 206 if left_out else 200, headers)


def _object_syntax(stored: str, asked: str | None) -> str | None:
    """The transfer syntax in which an object is given; None where it cannot be."""
    if stored in _NOT_SENT:
        return _PLAIN if asked in (None, "*", _PLAIN) else None
    if asked in ("*", stored):
        return stored
    if asked not in (None, _PLAIN):
        return None
    if stored in _NATIVE or stored in _LOSSLESS:
        return _PLAIN
    return stored if asked is None else None


def _object_parts(request: Request, given: list[tuple[HeldObject, str]]) -> Iterator[Part]:
    files = files_of(request)
    for item, syntax in given:
        url = _url(request, item)
        if syntax == item.transfer_syntax_uid:
            body = _opened(files, item)
        else:
            body = _converted(request, files, item)
        yield Part(media=f"{DICOM}; transfer-syntax={syntax}", body=body, location=url)


def _opened(files: FileStore, item: HeldObject) -> Iterator[bytes]:
    try:
        return _rest(files.open(item.file_key))
    except FileStoreError as error:
        raise _not_read(error) from None


def _converted(request: Request, files: FileStore, item: HeldObject) -> Iterator[bytes]:
    target = files.incoming_folder / f"plain-{uuid.uuid4().hex}.dcm"
    try:
        with _local(files, item) as path:
            pixels_of(request).write_plain(path, target)
    except PictureError as error:
        target.unlink(missing_ok=True)
        raise _not_given(
            error, f"ask for transfer-syntax=* or {item.transfer_syntax_uid}"
        ) from None
    opened = target.open("rb")
    target.unlink()  # it lasts as long as it is open
    return _rest(opened)


@contextmanager
def _local(files: FileStore, item: HeldObject) -> Iterator[Path]:
    """An object's file on this machine."""
    with ExitStack() as held:
        try:
            path = held.enter_context(files.local(item.file_key))
        except FileStoreError as error:
            raise _not_read(error) from None
        yield path


def _not_read(error: FileStoreError) -> HTTPException:
    if error.missing:
        return unknown("object", "its file was given up this moment")
    log.warning("store-not-read", reason=str(error))
    return HTTPException(503, "the store cannot be read now", {"retry-after": "30"})


def _not_given(error: PictureError, step: str = "") -> HTTPException:
    if isinstance(error, BusyError):
        return HTTPException(503, str(error), {"retry-after": "1"})
    return not_acceptable(f"{error}; {step}" if step else str(error))


def _rest(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _what_there_is(held: Iterable[HeldObject], kind: str) -> str:
    stored = (item.transfer_syntax_uid for item in held)
    syntaxes = sorted({_PLAIN if syntax in _NOT_SENT else syntax for syntax in stored})[:5]
    return f"what is kept comes as {kind}, transfer-syntax {', '.join(syntaxes)} or *"


# Metadata.


def _metadata(
    request: Request, caller: Any, held: tuple[HeldObject, ...], accept: str | None
) -> Response:
    kind = model_type(_wanted(request, accept))
    tell_looked(request, caller, held[0].study_instance_uid)
    return data_sets(_models(request, held), kind)


def model_type(takes: list[Wanted]) -> str:
    """In which form data sets are given: JSON, or XML in parts.

    Raises
    ------
    HTTPException
        If the caller takes neither.
    """
    for want in takes:
        if want.takes(JSON) and (not want.multipart or want.anything):
            return JSON
        if want.takes(PLAIN_JSON) and not want.multipart:
            return PLAIN_JSON
        if want.takes(XML) and want.multipart:
            return XML
    raise not_acceptable(f'data sets come as {JSON}, or as multipart/related; type="{XML}"')


def _models(request: Request, held: Iterable[HeldObject]) -> Iterator[Json]:
    files = files_of(request)
    for item in held:
        url = f"{_url(request, item)}/bulkdata"
        try:
            with files.open(item.file_key) as file:
                header, pixels = header_and_pixels(file)
        except (ClipError, FileStoreError):
            log.warning("metadata-not-read", sop_class=item.sop_class_uid)
            continue
        model = json_of(header, partial(_bulk_url, url))
        if pixels is not None:
            model["7FE00010"] = {"vr": pixels, "BulkDataURI": f"{url}/7FE00010"}
        syntax = item.transfer_syntax_uid
        model["00083002"] = {"vr": "UI", "Value": [_PLAIN if syntax in _NOT_SENT else syntax]}
        yield dict(sorted(model.items()))


def _bulk_url(url: str, place: tuple[str | int, ...]) -> str:
    return f"{url}/{'/'.join(map(str, place))}"


def _header(request: Request, item: HeldObject) -> Dataset:
    try:
        return header_of(files_of(request), item.file_key)
    except ClipError as error:
        raise not_acceptable(str(error)) from None
    except FileStoreError as error:
        raise _not_read(error) from None


# Frames and other bulk data.


@lru_cache(maxsize=16)
def _frames(path: Path) -> Frames:
    """Kept files never change, and a viewer asks for one frame after the other."""
    return Frames(path)


def _frame_count(request: Request, item: HeldObject) -> int:
    if item.transfer_syntax_uid != DeflatedExplicitVRLittleEndian:
        with suppress(ClipError), _local(files_of(request), item) as path:
            return _frames(path).count
    header = _header(request, item)
    if "Rows" not in header:
        raise unknown("frame", "the object has no pixels")
    return int(header.get("NumberOfFrames") or 1)


def _numbers(frames: str) -> list[int]:
    if not re.fullmatch(_FRAME_LIST, frames):
        raise bad_request("frames are asked for by their numbers, from 1: frames/1,2,7")
    return [int(number) for number in frames.split(",")]


def _frame_form(stored: str, takes: list[Wanted], count: int) -> tuple[str, str, bool, bool]:
    """The type, the type with its parameters, whether in parts, and whether to be decoded."""
    image = _IMAGES.get(stored)
    as_stored = f"{OCTETS}; transfer-syntax={stored}"
    as_plain = f"{OCTETS}; transfer-syntax={_PLAIN}"
    for want in takes:
        if not want.multipart and count > 1:
            continue
        if image is None:
            if want.takes(OCTETS) and want.syntax in (None, "*", _PLAIN):
                return OCTETS, as_plain, want.multipart, stored == DeflatedExplicitVRLittleEndian
            continue
        if want.takes(image) and want.syntax in (None, "*", stored):
            return image, f"{image}; transfer-syntax={stored}", want.multipart, False
        if want.takes(OCTETS) and want.syntax in ("*", stored):
            return OCTETS, as_stored, want.multipart, False
        if want.takes(OCTETS) and want.syntax in (None, _PLAIN) and stored in _LOSSLESS:
            return OCTETS, as_plain, want.multipart, True
    kinds = f'{OCTETS} or "{image}"' if image else OCTETS
    raise not_acceptable(
        f"frames of this object come as multipart/related of {kinds}, transfer-syntax "
        f"{stored if image else _PLAIN} or *; one frame also alone"
    )


def _frame_bodies(
    request: Request, item: HeldObject, indices: list[int], *, plain: bool
) -> Iterator[bytes]:
    """The frames, the first of them read at once: what is broken is told before the answer."""
    files = files_of(request)
    with _local(files, item) as path:
        if plain:
            try:
                return iter(pixels_of(request).plain_frames(path, indices))
            except PictureError as error:
                raise _not_given(error, "ask for transfer-syntax=*") from None
        try:
            found = _frames(path)
            first = found.stored(indices[0])
        except ClipError as error:
            raise not_acceptable(str(error)) from None
    return _with_rest(files, item, found, first, indices)


def _with_rest(
    files: FileStore, item: HeldObject, frames: Frames, first: bytes, indices: list[int]
) -> Iterator[bytes]:
    yield first
    for index in indices[1:]:
        with files.local(item.file_key):  # at the same place, also where it is fetched again
            body = frames.stored(index)
        yield body


def _pixel_data(request: Request, item: HeldObject, takes: list[Wanted], url: str) -> Response:
    """All frames: uncompressed ones as one value, others each as a part (8.7.3.3.2)."""
    count = _frame_count(request, item)
    stored = item.transfer_syntax_uid
    compressed = stored in _IMAGES
    kind, media, multipart, plain = _frame_form(stored, takes, count if compressed else 1)
    bodies = _frame_bodies(request, item, list(range(count)), plain=plain)
    if compressed:
        parts = (Part(media=media, body=[body], location=url) for body in bodies)
        return several(parts, kind) if multipart else alone(next(parts))
    part = Part(media=media, body=bodies, location=url)
    named = any(want.multipart and not want.anything for want in takes)
    return several([part], kind) if named else alone(part)


def _value(header: Dataset, path: str) -> bytes:
    """The value at a path of tags and item numbers."""
    place: Dataset = header
    *steps, last = path.split("/")
    try:
        for tag, number in zip(steps[::2], steps[1::2], strict=True):
            place = place[int(tag, 16)].value[int(number)]
        value = place[int(last, 16)].value
    except (KeyError, IndexError, TypeError, AttributeError):
        raise unknown("value") from None
    if not isinstance(value, bytes):
        raise unknown("value")
    return value


# Pictures.


def _drawing(
    takes: list[Wanted], window: str | None, quality: int, viewport: str | None
) -> Drawing:
    media = next(
        (name for want in takes if not want.multipart for name in _PICTURES if want.takes(name)),
        None,
    )
    if media is None:
        raise not_acceptable(f"pictures come as {', '.join(_PICTURES)}")
    size, region = _viewport(viewport)
    return Drawing(media=media, window=_window(window), quality=quality, size=size, region=region)


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    found = text.split(",")
    try:
        centre, width = float(found[0]), float(found[1])
        function = found[2].strip().lower() if len(found) > 2 else "linear"
    except (ValueError, IndexError):
        raise bad_request("window is CENTRE,WIDTH,FUNCTION: window=128,256,linear") from None
    known = function in ("linear", "linear-exact", "sigmoid")
    if not known or not 0 < width < 1e12 or not abs(centre) < 1e12 or len(found) > 3:
        raise bad_request("window has a width above 0, and linear, linear-exact or sigmoid")
    return Window(centre=centre, width=width, function=function)


def _viewport(
    text: str | None,
) -> tuple[tuple[int, int] | None, tuple[float, float, float, float] | None]:
    if text is None:
        return None, None
    found = text.split(",")
    try:
        width, height = int(found[0]), int(found[1])
        rest = [float(value) if value else None for value in found[2:]]
    except (ValueError, IndexError):
        raise bad_request("viewport is WIDTH,HEIGHT or WIDTH,HEIGHT,X,Y,WIDTH,HEIGHT") from None
    if not (0 < width <= 4096 and 0 < height <= 4096) or len(rest) not in (0, 4):
        raise bad_request("viewport has a width and a height of 1 to 4096, and 2 or 6 numbers")
    if not rest:
        return (width, height), None
    left, top = rest[0] or 0.0, rest[1] or 0.0
    across, down = rest[2] or 1e6, rest[3] or 1e6
    if not (0 <= left < 1e6 and 0 <= top < 1e6 and 1 <= across <= 1e6 and 1 <= down <= 1e6):
        raise bad_request("the viewport's region lies outside the picture")
    return (width, height), (left, top, across, down)


def _picture(request: Request, item: HeldObject, number: int, drawing: Drawing) -> Response:
    count = _frame_count(request, item)
    if not 1 <= number <= count:
        raise unknown("frame", f"the object has {count}")
    try:
        with _local(files_of(request), item) as path:
            body = pixels_of(request).draw(path, number - 1, drawing)
    except PictureError as error:
        raise _not_given(error) from None
    return Response(body, media_type=drawing.media)


def _text(item: HeldObject, header: Dataset, takes: list[Wanted]) -> Response:
    media = next(
        (name for want in takes if not want.multipart for name in _TEXTS if want.takes(name)), None
    )
    if media is None or "ContentSequence" not in header:
        name = UID(item.sop_class_uid).name
        raise not_acceptable(f"{name} is no picture; reports come as {', '.join(_TEXTS)}")
    try:
        text = render_report(header)
    except (ValueError, LookupError, AttributeError):
        raise not_acceptable("the report cannot be read") from None
    if media == "text/plain":
        return Response(text, media_type="text/plain; charset=utf-8")

    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><pre>{html.escape(text)}</pre>'
    return Response(page, media_type="text/html; charset=utf-8")
