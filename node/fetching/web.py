"""An archive by DICOMweb: QIDO-RS to ask it, WADO-RS to let it send (PS3.18 10.4, 10.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from node.delivery.web import WebCaller, retry_after_s
from node.doors.incoming import IncomingFile
from node.fetching.answers import (
    OBJECT_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    objects_of,
    series_of,
    studies_of,
)
from node.fetching.model import (
    Answers,
    FetchError,
    FoundObject,
    FoundSeries,
    FoundStudy,
    Getter,
    Got,
    Question,
    RefusedError,
    Request,
    UnreachableError,
)
from node.fetching.receiving import Receiver
from node.secrets import SecretError
from node.sections import DicomwebPeer
from node.tls import TlsError
from node.watch.transfers import Peer
from node.web.dicomweb.multipart import (
    MultipartError,
    MultipartReader,
    PartBegins,
    PartData,
    PartEnds,
)

_PAGE = 200
_MOST_ANSWERS = 100_000  # an archive may not talk without end
_PIECE_BYTES = 1 << 18
_MOST_QUERY_BYTES = 64 << 20
_TAGS = frozenset(
    f"{tag_for_keyword(keyword) or 0:08X}" for keyword in (*STUDY_KEYS, *SERIES_KEYS, *OBJECT_KEYS)
)
# As the archive keeps it; without the parameter it would have to unpack every clip (PS3.18 8.7.3).
_OBJECTS = (
    'multipart/related; type="application/dicom"; transfer-syntax=*',
    'multipart/related; type="application/dicom"',
)
# A piece of a packed answer may unpack to more than memory holds.
_UNPACKED = {"Accept-Encoding": "identity"}
_JSON = {"Accept": "application/dicom+json", **_UNPACKED}
_NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebArchive:
    """See :class:`node.fetching.model.Archive`.

    Raises
    ------
    FetchError
        If a certificate or secret of the settings cannot be used.
    """

    way = "wado"
    batch = 1

    def __init__(self, archive: DicomwebPeer) -> None:
        where = urlsplit(archive.url)
        port = where.port or (443 if where.scheme == "https" else 80)
        self.name = archive.name
        self.peer = Peer(host=where.hostname or "", port=port, user=archive.user or "")
        self.receiver: Receiver | None = None
        self._archive = archive
        self._accepts = list(_OBJECTS)
        try:
            self._caller = WebCaller(archive)
        except (TlsError, SecretError) as error:
            raise FetchError(f"{archive.section} {archive.name!r}: {error}") from error

    @contextmanager
    def asking(self) -> Iterator[_Asker]:
        """A client for queries."""
        with self._client() as client:
            yield _Asker(client, self._archive)

    @contextmanager
    def getting(self, sop_classes: Sequence[str]) -> Iterator[Getter]:  # noqa: ARG002
        """A client for objects, of whatever class."""
        if self.receiver is None:
            raise ValueError("nobody is there to receive")
        try:
            with self._client() as client:
                yield _Getter(client, self._archive, self.receiver, self._accepts)
        finally:
            self.receiver.drop_files()

    def _client(self) -> httpx.Client:
        try:
            return self._caller.client()
        except SecretError as error:
            raise FetchError(f"{self._archive.section} {self.name!r}: {error}") from error


class _Asker:
    def __init__(self, client: httpx.Client, archive: DicomwebPeer) -> None:
        self._client = client
        self._archive = archive

    def studies(self, question: Question) -> Answers[FoundStudy]:
        asked = {
            "StudyInstanceUID": question.study_instance_uid,
            "StudyDate": f"{question.day:%Y%m%d}" if question.day else None,
            "AccessionNumber": question.accession_number,
            "ModalitiesInStudy": question.modality,
        }
        named = {key: value for key, value in asked.items() if value is not None}
        return studies_of(self._find("/studies", STUDY_KEYS, named), question)

    def series(self, study_instance_uid: str) -> Answers[FoundSeries] | None:
        path = f"/studies/{study_instance_uid}/series"
        try:
            return series_of(self._find(path, SERIES_KEYS), study_instance_uid)
        except RefusedError:
            return None

    def objects(
        self, study_instance_uid: str, series_instance_uid: str
    ) -> Answers[FoundObject] | None:
        path = f"/studies/{study_instance_uid}/series/{series_instance_uid}/instances"
        try:
            answers = self._find(path, OBJECT_KEYS)
        except RefusedError:
            return None
        return objects_of(answers, study_instance_uid, series_instance_uid)

    def _find(
        self, path: str, keys: Sequence[str], named: dict[str, str] | None = None
    ) -> list[Dataset]:
        """All pages; an archive that knows no pages gives the same again, and that ends it."""
        found: list[Dataset] = []
        seen: set[str] = set()
        while True:
            page = self._page(path, keys, {**(named or {}), "offset": str(len(found))})
            new = [one for one in page if _uid(one, keys[0]) not in seen]
            seen.update(_uid(one, keys[0]) for one in new)
            found += new
            if not new or len(found) > _MOST_ANSWERS:
                return found

    def _page(self, path: str, keys: Sequence[str], named: dict[str, str]) -> list[Dataset]:
        name = self._archive.name
        params: list[tuple[str, str | int | float | bool | None]] = list(named.items())
        params += [("limit", str(_PAGE))]
        params += [("includefield", key) for key in keys]
        url = self._archive.url + path
        body = bytearray()
        try:
            with self._client.stream("GET", url, params=params, headers=_JSON) as response:
                status = response.status_code
                if status in (httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND):
                    if status == httpx.codes.NOT_FOUND and path == "/studies":
                        raise FetchError(
                            f"{name} has no QIDO-RS there (HTTP 404); see its url in the settings"
                        )
                    return []
                if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    _raise_for(name, response, "a query")
                for piece in response.iter_bytes(_PIECE_BYTES):
                    body += piece
                    if len(body) > _MOST_QUERY_BYTES:
                        raise UnreachableError(f"{name} answered a query without end")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unreachable(name, error) from error
        try:
            return _data_sets(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise RefusedError("the query was answered by something that is no list") from error


class _Getter:
    def __init__(
        self, client: httpx.Client, archive: DicomwebPeer, receiver: Receiver, accepts: list[str]
    ) -> None:
        self._client = client
        self._archive = archive
        self._receiver = receiver
        self._accepts = accepts

    def get(self, request: Request) -> Got:
        path = f"/studies/{request.study_instance_uid}"
        if request.series_instance_uid is not None:
            path += f"/series/{request.series_instance_uid}"
        troubles = [self._one(f"{path}/instances/{uid}", uid) for uid in request.objects] or [
            self._one(path, None)
        ]
        return Got(trouble=next(filter(None, troubles), ""))

    def _one(self, path: str, uid: str | None) -> str:
        """Take what lies under a path; what went wrong, in words."""
        name = self._archive.name
        url = self._archive.url + path
        try:
            headers = {"Accept": self._accepts[0], **_UNPACKED}
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code == httpx.codes.OK:
                    return self._stream(response, uid)
                if response.status_code != httpx.codes.NOT_ACCEPTABLE or len(self._accepts) == 1:
                    try:
                        _raise_for(name, response, "a request for an object")
                    except RefusedError as error:
                        return str(error)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unreachable(name, error) from error
        del self._accepts[0]  # it knows no wildcard
        return self._one(path, uid)

    def _stream(self, response: httpx.Response, uid: str | None) -> str:
        kind = Message()
        kind["content-type"] = response.headers.get("content-type", "")
        if response.headers.get("content-encoding", "identity") != "identity":
            return "it sent it packed, and was asked not to"
        pieces = response.iter_bytes(_PIECE_BYTES)
        if kind.get_content_type() == "application/dicom":
            return self._single(pieces, uid)
        if kind.get_content_type() != "multipart/related":
            return f"it sent {kind.get_content_type()} in place of an object"
        try:
            return self._parts(pieces, str(kind.get_param("boundary") or ""), uid)
        except MultipartError as error:
            raise UnreachableError(
                f"{self._archive.name}: what it sent broke off: {error}"
            ) from error

    def _single(self, pieces: Iterator[bytes], uid: str | None) -> str:
        file = self._receiver.new_file()
        for piece in pieces:
            file.write(piece)
            if file.problem is not None:
                break
        return self._taken(file, uid)

    def _parts(self, pieces: Iterator[bytes], boundary: str, uid: str | None) -> str:
        reader = MultipartReader(boundary)
        file: IncomingFile | None = None
        trouble = ""
        for piece in pieces:
            for event in reader.feed(piece):
                if isinstance(event, PartBegins):
                    file = self._receiver.new_file()
                elif isinstance(event, PartData) and file is not None:
                    file.write(event.data)
                    if file.problem is not None:
                        return self._taken(file, uid)
                elif isinstance(event, PartEnds) and file is not None:
                    trouble = self._taken(file, uid) or trouble
                    file = None
        reader.finish()
        return trouble

    def _taken(self, file: IncomingFile, uid: str | None) -> str:
        receipt = self._receiver.take(file, sop_instance_uid=uid)
        return "" if receipt.status == 0 else receipt.comment


def _data_sets(body: Any) -> list[Dataset]:
    if not isinstance(body, list):
        raise ValueError("not a list")  # noqa: TRY004 - as the reader of JSON says it
    found = []
    for item in body:
        answer = Dataset()
        for tag, element in item.items() if isinstance(item, dict) else ():
            if tag not in _TAGS:
                continue  # what says whose it is came unasked
            # One by one: what cannot be read of an answer does not spoil the rest.
            with suppress(Exception):
                answer.update(Dataset.from_json({tag: element}))
        found.append(answer)
    return found


def _uid(answer: Dataset, key: str) -> str:
    return str(answer.get(key, ""))


def _raise_for(name: str, response: httpx.Response, what: str) -> None:
    status = response.status_code
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise FetchError(
            f"{name} does not let us in (HTTP {status}): see its token or user in the settings, "
            "and what it may read there"
        )
    if status in _NOT_NOW:
        raise UnreachableError(
            f"{name} answered {what} with HTTP {status}", after_s=retry_after_s(response)
        )
    raise RefusedError(f"HTTP {status} to {what}")


def _unreachable(name: str, error: Exception) -> UnreachableError:
    return UnreachableError(f"{name} cannot be reached: {type(error).__name__}")
