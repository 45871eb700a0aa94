"""The S3 protocol, through fsspec: a bucket's objects, with a limit to every wait.

s3fs is imported when a bucket is first spoken to: a node with a folder needs neither it nor the
half second that it takes.
"""

from __future__ import annotations

import asyncio
import base64
import configparser
import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from storage.files.address import Address
from storage.files.store import FileStoreError

PART_BYTES = 8 << 20  #: what is held in memory of an object on its way; 10,000 parts are allowed
_CONNECT_S = 5.0
_SILENCE_S = 600.0  # of a server that puts many parts together; what follows ends other waits
_SHORT_S = 8.0  # for what moves no bytes, tries included
_LONG_S = 40.0  # for what does, and in addition ...
_SLOWEST_BYTES_S = 1_000_000.0  # ... the time that these bytes take at this rate
_TRIES = 3
_FIRST_BYTES, _MOST_BYTES = 256 << 10, 8 << 20  # of a file that is read here and there
_CHUNK_BYTES = 1 << 20
_LONGEST_CREDENTIALS = 16_384
_FULL = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientStorage",
        "QuotaExceeded",
        "ServiceQuotaExceeded",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
_STEPS = {
    "NoSuchBucket": "make the bucket, or name another in store_url",
    "AccessDenied": "see that its credentials may read, write, delete and list there",
    "InvalidAccessKeyId": "see to the credentials that the server knows",
    "SignatureDoesNotMatch": "see to the secret key in the credentials",
    "ExpiredToken": "renew the credentials",
    "RequestTimeTooSkewed": "set this machine's clock, or the server's",
}

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a bucket says of one object."""

    name: str
    size_bytes: int
    changed_at: datetime


class Bucket:
    """One bucket. Any thread may use it.

    Every failure is a :class:`FileStoreError`: ``missing`` where the bucket is there and the
    object is not, ``disk_full`` where the server has no room.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    def put(self, name: str, data: BinaryIO, size_bytes: int) -> None:
        """Upload an object and compare the server's checksum with ours before returning.

        It is there whole or not at all; one of that name is replaced.
        """
        what = f"cannot keep {name}"
        if size_bytes <= PART_BYTES:
            content = data.read(PART_BYTES + 1)
            self._check_length(what, len(content), size_bytes)
            tag = self._run(what, self._put(name, content), size_bytes)
            if tag == _md5(content).hexdigest():
                return
        elif self._put_in_parts(what, name, data, size_bytes):
            return
        # Keys of the server's own make tags that are no MD5: then what is there itself is read.
        ours = sha256_of(data)
        there = hashlib.sha256()
        try:
            self.fetch(name, there.update)
        except FileStoreError as error:
            if error.missing:
                raise self._error(what, "the server has not kept it") from error
            raise
        if there.digest() != ours:
            self.delete(name)
            raise FileStoreError(
                f"{self}: {what}: the server has kept other bytes than were sent; see to it and "
                "the way to it, then send the object again"
            )

    async def _put(self, name: str, content: bytes) -> str:
        answer = await self._call(
            "put_object",
            Key=name,
            Body=content,
            ContentMD5=base64.b64encode(_md5(content).digest()).decode(),
            ContentType="application/dicom",
        )
        return _tag(answer)

    def _put_in_parts(self, what: str, name: str, data: BinaryIO, size_bytes: int) -> bool:
        """Upload part by part; tells whether every checksum is the server's, too."""
        begun = self._run(what, self._call("create_multipart_upload", Key=name))
        ticket = {"Key": name, "UploadId": begun["UploadId"]}
        parts: list[dict[str, Any]] = []
        digests, same = b"", True
        try:
            while content := data.read(PART_BYTES):
                digest = _md5(content).digest()
                part = self._call(
                    "upload_part",
                    **ticket,
                    PartNumber=len(parts) + 1,
                    Body=content,
                    ContentMD5=base64.b64encode(digest).decode(),
                )
                tag = _tag(self._run(what, part, len(content)))
                same &= tag == digest.hex()
                digests += digest
                parts.append({"PartNumber": len(parts) + 1, "ETag": f'"{tag}"'})
            self._check_length(what, data.tell(), size_bytes)
            all_parts = {"Parts": parts}
            done = self._call("complete_multipart_upload", **ticket, MultipartUpload=all_parts)
            whole = self._completed(what, done, size_bytes)
        except BaseException:
            # The first error says what is wrong; what stays behind, the bucket's own rule clears.
            with suppress(FileStoreError):
                self._run(what, self._call("abort_multipart_upload", **ticket))
            raise
        return same and whole == f"{_md5(digests).hexdigest()}-{len(parts)}"

    def _completed(self, what: str, done: Coroutine[Any, Any, Any], size_bytes: int) -> str:
        """The tag of all parts together; empty where the answer was lost and it may be done."""
        try:
            return _tag(self._run(what, done, size_bytes))
        except FileStoreError as error:
            code = _answer(error).get("Error", {}).get("Code")
            if code in (None, "NoSuchUpload"):
                return ""
            raise

    def _check_length(self, what: str, read: int, wanted: int) -> None:
        if read != wanted:
            raise FileStoreError(f"{self}: {what}: it changes while it is read; send it again")

    def fetch(self, name: str, take: Callable[[bytes], object]) -> None:
        """Read an object from end to end; where it is cut off, go on from there."""
        what = f"cannot read {name}"
        place, began = 0, time.monotonic()
        for left in reversed(range(_TRIES)):
            body = self._run(what, self._get(name, place))["Body"]
            try:
                while chunk := self._run(what, body.read(_CHUNK_BYTES), cut_off=True):
                    take(chunk)
                    place += len(chunk)
                    if time.monotonic() - began > _LONG_S + place / _SLOWEST_BYTES_S:
                        raise self._error(what, f"{place} bytes in {_LONG_S:.0f} s and more")
            except _CutOffError as cut:
                if not left:
                    raise self._error(what, str(cut)) from cut
            else:
                return
            finally:
                self._opened().loop.call_soon_threadsafe(body.close)

    async def _get(self, name: str, place: int) -> dict[str, Any]:
        wanted = {"Range": f"bytes={place}-"} if place else {}
        answer: dict[str, Any] = await self._call("get_object", Key=name, **wanted)
        return answer

    def piece(self, name: str, begin: int, count: int) -> tuple[bytes, int]:
        """Some bytes of an object, as many as there are, and how long it is in all."""

        async def read() -> tuple[bytes, int]:
            wanted = f"bytes={begin}-{begin + count - 1}"
            answer = await self._call("get_object", Key=name, Range=wanted)
            content = await answer["Body"].read()
            whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
            return content, int(whole) if whole.isdecimal() else len(content)

        async def read_again() -> tuple[bytes, int]:
            try:
                return await read()
            except Exception as error:
                code = _answer(error).get("Error", {}).get("Code")
                if code == "InvalidRange":
                    return b"", begin  # an empty object has no first byte
                if code is not None:
                    raise
                return await read()  # the body was cut off

        return self._run(f"cannot read {name}", read_again(), count)

    def open(self, name: str) -> BinaryIO:
        """An object to be read here and there: bytes come when they are asked for."""
        return io.BufferedReader(_Ranged(self, name), 64 << 10)

    def size_bytes(self, name: str) -> int | None:
        """How long an object is; None where it is not there."""
        what = f"cannot look at {name}"
        try:
            return int(self._run(what, self._call("head_object", Key=name))["ContentLength"])
        except FileStoreError as error:
            if error.missing:
                self.reach()  # the answer to this question has no room for "no such bucket"
                return None
            raise

    def delete(self, name: str) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            self._run(f"cannot delete {name}", self._call("delete_object", Key=name))
        except FileStoreError as error:
            if not error.missing:
                raise

    def listed(self, prefix: str) -> Iterator[Listed]:
        """All objects whose names begin so, sorted by name."""
        what, last = f"cannot list {prefix}", ""
        more: dict[str, str] = {}
        while True:
            page = self._run(
                what, self._call("list_objects_v2", Prefix=prefix, **more), 10 * _SLOWEST_BYTES_S
            )
            for item in page.get("Contents", ()):
                if item["Key"] <= last:
                    raise FileStoreError(
                        f"{self}: {what}: the server lists in no order; use another bucket"
                    )
                last = item["Key"]
                yield Listed(
                    name=last, size_bytes=int(item["Size"]), changed_at=item["LastModified"]
                )
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def reach(self) -> None:
        """Ask whether the bucket is there."""
        try:
            self._run("cannot be reached", self._call("head_bucket"))
        except FileStoreError as error:
            if error.missing:
                raise self._error("cannot be used", "no such bucket", "NoSuchBucket") from error
            raise

    def __str__(self) -> str:
        folder = self.address.folder.rstrip("/")
        place = f"s3://{self.address.bucket}/{folder}".rstrip("/")
        at = f" at {self.address.endpoint}" if self.address.endpoint else ""
        return f"file store {place}{at}"

    # What speaks.

    async def _call(self, method: str, **words: Any) -> Any:
        return await self._opened()._call_s3(method, Bucket=self.address.bucket, **words)

    def _run(
        self,
        what: str,
        work: Coroutine[Any, Any, Made],
        size_bytes: float = 0,
        *,
        cut_off: bool = False,
    ) -> Made:
        """Do something within its time; what goes wrong is told in our words."""
        limit_s = _SHORT_S if not size_bytes else _LONG_S + size_bytes / _SLOWEST_BYTES_S

        async def limited() -> Made:
            return await asyncio.wait_for(work, limit_s)

        try:
            system = self._opened()
        except BaseException:
            work.close()
            raise
        try:
            return asyncio.run_coroutine_threadsafe(limited(), system.loop).result()
        except TimeoutError as error:
            words = f"no answer within {limit_s:.0f} s"
            if cut_off:
                raise _CutOffError(words) from error
            raise self._error(what, words) from error
        except Exception as error:
            # The edge of a library: it raises errors of three others.
            if cut_off:
                raise _CutOffError(_plain(error)) from error
            raise self._explained(what, error) from error

    def _opened(self) -> Any:
        try:
            with _opening:
                return _system(
                    os.getpid(),
                    self.address.endpoint,
                    self.address.region,
                    self.address.credentials,
                    self.address.authorities,
                )
        except ImportError as error:
            raise FileStoreError(
                f"{self}: s3fs is not installed; install echonode[objects], or leave store_url out"
            ) from error

    def _explained(self, what: str, error: Exception) -> FileStoreError:
        answer = _answer(error)
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _FULL or status == 507:
            words = f"the server has no room ({status} {code})".replace(" )", ")")
            return self._error(what, words, "full", disk_full=True)
        if code in ("NoSuchKey", "404", "NotFound"):
            return self._error(what, "no such object", "missing", missing=True)
        if status == 403 and code not in _STEPS:
            code = "AccessDenied"
        if code:
            said = f"{status} {code}" if code != str(status) else code
            return self._error(what, f"the server answers {said}", code)
        return self._error(what, _plain(error))

    def _error(
        self,
        what: str,
        words: str,
        code: str = "",
        *,
        disk_full: bool = False,
        missing: bool = False,
    ) -> FileStoreError:
        steps = {
            **_STEPS,
            "full": "make room there, or raise its quota",
            "missing": "restore it from a backup",
        }
        step = steps.get(code, "see to the server and the way to it")
        return FileStoreError(
            f"{self}: {what}: {words}; {step}", disk_full=disk_full, missing=missing
        )


_opening = threading.Lock()


@cache
def _system(
    _process: int,
    endpoint: str | None,
    region: str | None,
    credentials: Path | None,
    authorities: Path | None,
) -> Any:
    """One client for all buckets that are reached in the same way: it takes long to make.

    Its thread stays behind where a process is forked, so each process has its own.
    """
    import s3fs

    given = {} if credentials is None else _credentials(credentials)
    made = s3fs.S3FileSystem(
        **given,
        endpoint_url=endpoint,
        client_kwargs={
            "region_name": region or ("us-east-1" if endpoint else None),
            "verify": str(authorities) if authorities else None,
        },
        config_kwargs={
            "connect_timeout": _CONNECT_S,
            "read_timeout": _SILENCE_S,
            "retries": {"total_max_attempts": _TRIES, "mode": "standard"},
            "max_pool_connections": 64,
            "s3": {"addressing_style": "path" if endpoint else "auto"},
            # Content-MD5 is understood everywhere, the newer ways are not.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    made.retries = 1  # the client below tries again by itself
    return made


class _CutOffError(Exception):
    """A body that ended too early."""


class _Ranged(io.RawIOBase):
    """An object that is read where it is looked at; the more in one go, the more at once."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        super().__init__()
        self._bucket = bucket
        self._name = name
        self._place = self._begin = 0
        self._next = _FIRST_BYTES
        self._held, self._size = bucket.piece(name, 0, _FIRST_BYTES)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning of the file")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._size or not len(buffer):
            return 0
        ahead = self._place - self._begin
        if not 0 <= ahead < len(self._held):
            in_line = ahead == len(self._held)
            self._next = min(2 * self._next, _MOST_BYTES) if in_line else _FIRST_BYTES
            self._held, self._size = self._bucket.piece(self._name, self._place, self._next)
            self._begin, ahead = self._place, 0
        found = self._held[ahead : ahead + len(buffer)]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)


def sha256_of(file: BinaryIO) -> bytes:
    """The digest of a file from its beginning, where it stands afterwards."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.digest()


def _md5(content: bytes) -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _tag(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"').lower()


def _answer(error: BaseException | None) -> dict[str, Any]:
    """What the server said, if it was the server: s3fs makes other errors of its words."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return answer
        error = error.__cause__
    return {}


def _plain(error: BaseException) -> str:
    """What went wrong, without the addresses and headers that libraries put into their words."""
    names = []
    while error is not None:
        names.append(type(error).__name__)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    for name in names:
        if "Credential" in name:
            return "no credentials are given"
        if "SSL" in name or "Certificate" in name:
            return "its certificate is not one that is trusted"
        if "ConnectTimeout" in name or "ReadTimeout" in name or "ServerTimeout" in name:
            return "no answer in time"
        if "Connect" in name:
            return "no connection"
    return f"no whole answer ({names[0]})"


def _credentials(file: Path) -> dict[str, str]:
    """Key and secret from a file as Amazon's tools write it, which others must not read."""
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            text = opened.read(_LONGEST_CREDENTIALS).decode()
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FileStoreError(
            f"the credentials of the file store in {file} cannot be read: {words}"
        ) from None
    # What another owns, root mostly, may be for our group to read: so services are given secrets.
    ours = status.st_uid == os.geteuid()
    if status.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if ours else stat.S_IWGRP)):
        raise FileStoreError(
            f"the credentials of the file store in {file} are open to others; chmod 600 {file}"
        )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        section = parser["default"]
        given = {"key": section["aws_access_key_id"], "secret": section["aws_secret_access_key"]}
        token = section.get("aws_session_token")
    except (configparser.Error, KeyError):
        # The parser's words quote the file.
        raise FileStoreError(
            f"{file} holds no credentials: write [default] with aws_access_key_id and "
            "aws_secret_access_key"
        ) from None
    return given if token is None else {**given, "token": token}
