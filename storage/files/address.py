"""The address of an object store: ``s3://bucket/folder?endpoint=https://host:port``.

It holds no secret, so that it may stand in settings, logs and jobs.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from storage.files.store import check_key

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FOLDERS = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*")
_WORDS = ("endpoint", "region", "credentials", "authorities")


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where an object store is, and how to be let in."""

    bucket: str
    folder: str = ""  #: before each key; empty, or ending with a stroke
    endpoint: str | None = None  #: URL of the server; None: Amazon's, by region
    region: str | None = None
    credentials: Path | None = None  #: a file; None: the environment's
    authorities: Path | None = None  #: PEM: who may vouch for the server; None: the system's

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Raises
        ------
        ValueError
            If it is none; the message says why.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
            # What is wrong may hold a secret, so it is not quoted.
            raise ValueError(
                "an object store is written s3://bucket/folder?endpoint=https://host:port, without "
                "name or password: see ?credentials=/path"
            )
        folder = unquote(parts.path).strip("/")
        folder = f"{folder}/" if folder else ""
        if not _FOLDERS.fullmatch(folder):
            raise ValueError("a folder in a bucket has letters, digits, dots, dashes, underscores")
        words = dict(parse_qsl(parts.query, keep_blank_values=True))
        for word, value in words.items():
            if word not in _WORDS or not value:
                raise ValueError(f"of an object store may be named: {', '.join(_WORDS)}, each once")
        for word in ("credentials", "authorities"):
            if word in words and not Path(words[word]).is_absolute():
                raise ValueError(f"{word} is the absolute path of a file")
        endpoint = words.get("endpoint")
        return cls(
            bucket=parts.netloc,
            folder=folder,
            endpoint=None if endpoint is None else _endpoint(endpoint),
            region=words.get("region"),
            credentials=Path(words["credentials"]) if "credentials" in words else None,
            authorities=Path(words["authorities"]) if "authorities" in words else None,
        )

    @classmethod
    def of_source(cls, source: str) -> tuple[Self, str]:
        """The store and the key of what :meth:`source` made.

        Raises
        ------
        ValueError
            If it is none.
        """
        path, mark, query = source.partition("?")
        store, key = path.rsplit("/", 3)[0], "/".join(path.rsplit("/", 3)[1:])
        check_key(key)
        return cls.parse(store + mark + query), key

    def source(self, key: str) -> str:
        """The URL of one file."""
        path, mark, query = str(self).partition("?")
        return f"{path.rstrip('/')}/{key}{mark}{query}"

    def __str__(self) -> str:
        values = {word: getattr(self, word) for word in _WORDS}
        query = urlencode({word: str(value) for word, value in values.items() if value}, safe=":/")
        path = f"s3://{self.bucket}/{quote(self.folder.rstrip('/'))}".rstrip("/")
        return f"{path}?{query}" if query else path

    @property
    def is_in_the_clear(self) -> bool:
        """Whether images go to another machine without TLS."""
        host = urlsplit(self.endpoint or "").hostname or ""
        return str(self.endpoint).startswith("http:") and not _is_loopback(host)


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    plain = value.rstrip("/") == f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        raise ValueError("endpoint is the server's URL without a path: https://host:port")
    if parts.username is not None:
        raise ValueError("endpoint carries no name or password: see ?credentials=/path")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
