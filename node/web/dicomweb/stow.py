"""STOW-RS: objects come in (PS3.18 10.5).

The body goes to the disk part by part, each part into a file of its own in the store's incoming
folder, and each whole file through the intake as from an echo machine. Where the body breaks off,
what was whole is kept and what was not is gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from models.clip import ClipError, read_header
from node.doors.contexts import TRANSFER_SYNTAXES
from node.doors.glance import glance, glance_of
from node.doors.incoming import IncomingFile
from node.intake import Arrival, Intake, Status, data_set_start
from node.watch.transfers import Direction, Peer, Transfer
from node.web.dicomweb.access import DOOR, ROOT, DicomRoute, Sender, Uid, base_url, files_of
from node.web.dicomweb.media import (
    DICOM,
    JSON,
    PLAIN_JSON,
    RELATED,
    XML,
    Media,
    MediaError,
    parse_accept,
    parse_media,
    wanted,
)
from node.web.dicomweb.model import Json, xml_of
from node.web.dicomweb.multipart import MultipartError, MultipartReader, PartBegins, PartData
from node.web.dicomweb.problems import bad_request, not_acceptable
from node.web.site import Parts, parts_of

log = structlog.get_logger(__name__)

router = APIRouter(prefix=ROOT, tags=["DICOMweb: store"], route_class=DicomRoute)

_CHUNK_BYTES = 1 << 20  # what is gathered before the disk is asked
_MAGIC_AT, _MAGIC = 128, b"DICM"
_HEAD_BYTES = _MAGIC_AT + len(_MAGIC)
_META_BYTES = 8192  # in which the file meta information ends
_META_BEGINS = b"\x02\x00\x00\x00UL\x04\x00"
_OTHER_TYPE = "a part has a content type that is not application/dicom"
_NO_DICOM = "a part is no DICOM file (PS3.10)"
_TRY_AGAIN = {"retry-after": "60", "connection": "close"}

# Failure reasons beside those of the intake (PS3.18 I.2.2, PS3.7 C.5).
_SYNTAX_NOT_SUPPORTED = 0xC122
_DUPLICATE = 0x0111
_NOT_UNDERSTOOD = 0xC000

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            'multipart/related; type="application/dicom"': {
                "schema": {"type": "string", "format": "binary"}
            },
            DICOM: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one part. ``failure`` None: it is kept."""

    failure: int | None = None
    words: str = ""
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None


class Upload:
    """Takes a body, part by part. Not for more than one thread at a time.

    Parameters
    ----------
    parts, intake, incoming
        Who takes the objects, and the folder where they are written before.
    peer
        Who sends.
    study
        All objects must be of it, where it is named.
    media
        The content type of the body.

    Raises
    ------
    HTTPException
        If a body of this type is not taken.
    """

    def __init__(
        self,
        parts: Parts,
        intake: Intake,
        incoming: Path,
        peer: Peer,
        study: str | None,
        media: Media,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._parts = parts
        self._intake = intake
        self._incoming = incoming
        self._peer = peer
        self._study = study
        self._file: IncomingFile | None = None
        self._head: bytearray | None = None  # a part's first bytes, until they can be judged
        self._fault = ""  # why a part is no object
        self._reader: MultipartReader | None = None
        if media.name == DICOM:
            self._begin({})
        elif media.name != RELATED or media.parameters.get("type", DICOM).lower() != DICOM:
            raise HTTPException(
                415,
                'objects come as multipart/related; type="application/dicom", or one alone as '
                "application/dicom",
                {"accept": f'{RELATED}; type="{DICOM}", {DICOM}', "connection": "close"},
            )
        else:
            try:
                self._reader = MultipartReader(media.parameters.get("boundary", ""))
            except MultipartError as error:
                raise bad_request(str(error)) from None

    def take(self, data: bytes) -> None:
        """The next bytes of the body.

        Raises
        ------
        MultipartError
            If they cannot belong to it.
        """
        if self._reader is None:
            self._write(data)
            return
        for event in self._reader.feed(data):
            if isinstance(event, PartBegins):
                self._begin(event.header)
            elif isinstance(event, PartData):
                self._write(event.data)
            else:
                self._end()

    def finish(self) -> None:
        """The body has ended.

        Raises
        ------
        MultipartError
            If it should not have.
        """
        if self._reader is None:
            self._end()
        else:
            self._reader.finish()

    def discard(self) -> None:
        """Remove what was begun and is not whole."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _begin(self, header: Mapping[str, str]) -> None:
        stated = header.get("content-type", DICOM)
        try:
            name = parse_media(stated).name
        except MediaError:
            name = "one that cannot be read"
        self._fault = "" if name == DICOM else _OTHER_TYPE
        if not self._fault:
            self._file = IncomingFile(self._incoming, self._parts.not_ready, DOOR)
            self._head = bytearray()

    def _write(self, data: bytes | memoryview) -> None:
        if self._file is None:
            return
        if self._head is None:
            self._file.write(data)
            return
        self._head += data
        if len(self._head) < _HEAD_BYTES:
            return
        # The sender's preamble may hold a program (PS3.10 7.5); some leave it out.
        if self._head[_MAGIC_AT:_HEAD_BYTES] == _MAGIC:
            self._head[:_MAGIC_AT] = bytes(_MAGIC_AT)
        elif self._head.startswith(_META_BEGINS):
            self._head[:0] = bytes(_MAGIC_AT) + _MAGIC
        else:
            self._fault = _NO_DICOM
            self.discard()
            self._head = None
            return
        if len(self._head) >= _META_BYTES:
            self._write_head(self._file, self._head)

    def _write_head(self, file: IncomingFile, head: bytearray) -> None:
        self._head = None
        start = data_set_start(BytesIO(head))
        if start:
            file.write_head(bytes(head[:start]))
        file.write(bytes(head[start:]))

    def _end(self) -> None:
        if self._head is not None and self._file is not None:
            if self._head.startswith(bytes(_MAGIC_AT) + _MAGIC):
                self._write_head(self._file, self._head)  # a small one
            else:
                self._fault = _NO_DICOM
                self.discard()
            self._head = None
        if self._fault:
            self._count("cannot-be-read")
            self.outcomes.append(Outcome(failure=_NOT_UNDERSTOOD, words=self._fault))
            self._fault = ""
            return
        file = self._file
        if file is None:
            return
        try:
            file.close()
            self.outcomes.append(self._receive(file))
        finally:
            self.discard()

    def _receive(self, file: IncomingFile) -> Outcome:
        reason = file.problem or self._parts.not_ready()
        if reason is not None:
            log.warning("object-refused", reason=reason, peer=self._peer.host)
            self._count("not-kept" if file.problem else "node-refuses")
            return Outcome(failure=Status.OUT_OF_RESOURCES, words="cannot be kept now, try again")
        try:
            return self._hand_over(file)
        except Exception:
            # The edge of an object: the sender gets a failure and keeps its copy.
            log.exception("intake-failed", peer=self._peer.host)
            self._count("internal-error")
            return Outcome(failure=Status.PROCESSING_FAILURE, words="internal error")

    def _count(self, reason: str) -> None:
        """An object that the intake does not hear of; see docs/metrics.md."""
        if self._parts.metrics is not None:
            self._parts.metrics.refused(DOOR, reason)

    def _hand_over(self, file: IncomingFile) -> Outcome:
        announced_class = announced_instance = None
        known = Outcome()
        try:
            header = glance(file.begin, file.written_bytes) or glance_of(read_header(file.path))
        except ClipError:
            pass  # the intake says so, and keeps it for the operator
        else:
            known = Outcome(
                sop_class_uid=_uid(header.get("SOPClassUID")),
                sop_instance_uid=_uid(header.get("SOPInstanceUID")),
                study_instance_uid=_uid(header.get("StudyInstanceUID")),
                series_instance_uid=_uid(header.get("SeriesInstanceUID")),
            )
            announced_class = _uid(header.get("MediaStorageSOPClassUID"))
            announced_instance = _uid(header.get("MediaStorageSOPInstanceUID"))
            if header.get("TransferSyntaxUID") not in TRANSFER_SYNTAXES:
                self._count("cannot-be-read")
                return _failed(known, _SYNTAX_NOT_SUPPORTED, "its transfer syntax is not taken")
        receipt = self._intake.receive(
            Arrival(
                path=file.path,
                door=DOOR,
                peer_host=self._peer.host,
                announced_class_uid=announced_class,
                announced_instance_uid=announced_instance,
                announced_study_uid=self._study,
                begin=file.begin,
                content_sha256=file.content_sha256,
            )
        )
        if receipt.refused == "other-content":
            words = "its UID is kept already with other content; the first was left as it is"
            return _failed(known, _DUPLICATE, words)
        if receipt.status == Status.SUCCESS:
            return known
        # What a reader says of a broken object may quote it: such words are for the quarantine.
        unread = receipt.status == Status.CANNOT_UNDERSTAND
        words = "it cannot be read" if unread else receipt.comment
        return _failed(known, int(receipt.status), words)


@router.post("/studies", openapi_extra=_BODY)
async def store(request: Request, caller: Sender) -> Response:
    """Store objects of any study (STOW-RS); the answer speaks of each."""
    return await _store(request, caller.peer, None)


@router.post("/studies/{study}", openapi_extra=_BODY)
async def store_in_study(request: Request, caller: Sender, study: Uid) -> Response:
    """Store objects of this study (STOW-RS); those of another are refused."""
    return await _store(request, caller.peer, study)


async def _store(request: Request, peer: Peer, study: str | None) -> Response:
    parts = parts_of(request)
    files = files_of(request)
    if parts.intake is None:
        raise HTTPException(503, "nothing is taken here")
    answer_type = _answer_type(request)
    try:
        media = parse_media(request.headers.get("content-type", ""))
    except MediaError:
        raise HTTPException(415, "say in Content-Type what the body is") from None
    if parts.not_ready() is not None:
        raise HTTPException(503, "nothing can be taken now; try again", _TRY_AGAIN)
    upload = Upload(parts, parts.intake, files.incoming_folder, peer, study, media)
    broken = ""
    try:
        await _take_body(request, upload)
    except MultipartError as error:
        broken = str(error)
    except ClientDisconnect:
        log.warning("upload-cut-off", peer=peer.host, kept=len(_kept(upload.outcomes)))
        return Response(status_code=400)  # nobody hears it
    finally:
        await run_in_threadpool(upload.discard)
        _tell(parts, peer, upload.outcomes)
    outcomes = upload.outcomes
    if not _kept(outcomes) and (broken or not outcomes):
        raise HTTPException(400, broken or "the body holds no object", {"connection": "close"})
    if broken:
        outcomes = [*outcomes, Outcome(failure=_NOT_UNDERSTOOD, words=broken)]
    return _response(request, outcomes, answer_type, cut=bool(broken))


async def _take_body(request: Request, upload: Upload) -> None:
    """Have a body taken: while one piece of it is written, the next is read."""
    gathered: list[bytes] = []
    size = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for chunk in request.stream():
            gathered.append(chunk)
            size += len(chunk)
            if size >= _CHUNK_BYTES:
                if writing is not None:
                    await writing
                data = b"".join(gathered)
                writing = asyncio.create_task(run_in_threadpool(upload.take, data))
                gathered, size = [], 0
    finally:  # also of a body that is cut off: what is whole is kept
        if writing is not None:
            await writing
        if gathered:
            await run_in_threadpool(upload.take, b"".join(gathered))
    await run_in_threadpool(upload.finish)


def _answer_type(request: Request) -> str:
    try:
        accept = wanted(parse_accept(request.headers.get("accept", "")))
    except MediaError as error:
        raise bad_request(f"Accept: {error}") from None
    for item in accept:
        for name in (JSON, PLAIN_JSON, XML):
            if item.takes(name) and (not item.multipart or item.anything):
                return name
    raise not_acceptable(f"the answer comes as {JSON} or {XML}")


def _response(
    request: Request, outcomes: list[Outcome], answer_type: str, *, cut: bool
) -> Response:
    kept = _kept(outcomes)
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    status = 202 if kept else 409
    headers = {"connection": "close"} if cut else {}
    if not failed:
        status = 200
    elif not kept and all(outcome.failure == Status.OUT_OF_RESOURCES for outcome in failed):
        status = 503
        headers |= {"retry-after": _TRY_AGAIN["retry-after"]}
    if failed:
        words = "; ".join(dict.fromkeys(outcome.words for outcome in failed))
        plain = words.encode("ascii", "replace").decode().replace('"', "'")[:500]
        headers["warning"] = f'299 echonode "{plain}"'
    model = _store_response(base_url(request), kept, failed)
    if answer_type == XML:
        return Response(xml_of(model), status, headers, XML)

    return Response(json.dumps(model), status, headers, answer_type)


def _store_response(root: str, kept: list[Outcome], failed: list[Outcome]) -> Json:
    """The Store Instances Response Module (PS3.18 I.2)."""
    model: Json = {}
    studies = {outcome.study_instance_uid for outcome in kept}
    if len(studies) == 1:
        model["00081190"] = {"vr": "UR", "Value": [f"{root}/studies/{studies.pop()}"]}
    named = [outcome for outcome in failed if outcome.sop_class_uid and outcome.sop_instance_uid]
    if named:
        model["00081198"] = _sequence(
            {**_reference(outcome), "00081197": _number(outcome.failure)} for outcome in named
        )
    if kept:
        model["00081199"] = _sequence(
            {**_reference(outcome), "00081190": {"vr": "UR", "Value": [_url(root, outcome)]}}
            for outcome in kept
        )
    others = [outcome for outcome in failed if outcome not in named]
    if others:
        model["0008119A"] = _sequence({"00081197": _number(outcome.failure)} for outcome in others)
    return model


def _sequence(items: Iterable[Json]) -> Json:
    return {"vr": "SQ", "Value": list(items)}


def _number(value: int | None) -> Json:
    return {"vr": "US", "Value": [int(value or 0)]}


def _reference(outcome: Outcome) -> Json:
    return {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _url(root: str, outcome: Outcome) -> str:
    return (
        f"{root}/studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
        f"/instances/{outcome.sop_instance_uid}"
    )


def _kept(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.failure is None]


def _failed(known: Outcome, failure: int, words: str) -> Outcome:
    return Outcome(
        failure=failure,
        words=words,
        sop_class_uid=known.sop_class_uid,
        sop_instance_uid=known.sop_instance_uid,
        study_instance_uid=known.study_instance_uid,
        series_instance_uid=known.series_instance_uid,
    )


def _uid(value: object) -> str | None:
    """A value that can stand in an answer as a UID; anything else might be a name."""
    text = str(value) if value else ""
    plain = len(text) <= 64 and text.replace(".", "").isdecimal() and text.isascii()
    return text if plain else None


def _tell(parts: Parts, peer: Peer, outcomes: list[Outcome]) -> None:
    for study in dict.fromkeys(outcome.study_instance_uid or "" for outcome in outcomes):
        of_study = [item for item in outcomes if (item.study_instance_uid or "") == study]
        parts.audit.transferred(
            Transfer(
                direction=Direction.IN,
                peer=peer,
                door=DOOR,
                study_instance_uid=study,
                sop_class_uids=tuple(dict.fromkeys(item.sop_class_uid or "" for item in of_study)),
                count=len(of_study),
                accepted=len(_kept(of_study)) == len(of_study),
            )
        )
