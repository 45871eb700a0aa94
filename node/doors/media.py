"""Finds objects in folders, zip archives and on media with a DICOMDIR.

What is found is told one at a time and opened only when it is taken: an archive is never unpacked
to the disk and never held in memory, and a name in it is never used as a path.
"""

from __future__ import annotations

import errno
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import dcmread
from pydicom.uid import MediaStorageDirectoryStorage

from node.doors.part10 import NotDicomError, read_beginning
from node.doors.taking import open_source

MOST_ENTRIES = 2_000_000  #: of one folder
MOST_MEMBERS = 200_000  #: of an archive
MOST_DIRECTORY_BYTES = 32 << 20  #: an archive's own list: held in memory some ten times as large
MOST_MEMBER_BYTES = 8 << 30  #: one object of an archive, unpacked
MOST_ARCHIVE_BYTES = 1 << 40  #: all that is unpacked of an archive
MOST_GROWTH = 100  #: that much larger than the archive is what comes out of it ...
FREE_GROWTH_BYTES = 1 << 30  #: ... beyond the first GiB
MOST_DICOMDIR_BYTES = 64 << 20

_A_LIST = "it lists the files of a medium"
_ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_END = b"PK\x05\x06"
_ZIP64_END = b"PK\x06\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A file that may be an object: to be opened before the next one is asked for.

    ``name`` is for the person who named its place.
    """

    name: str
    opened: Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that should be there and cannot be read."""

    name: str
    reason: str
    may_pass: bool = False  #: it may be readable at another time
    too_many: bool = False  #: a folder holds more than is looked at


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that is no file to be read."""

    name: str
    reason: str


Find = Found | Fault | Skipped


def shown(name: str | Path) -> str:
    """A file's name as it may stand on a terminal: its bytes may be anything."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def walk(
    root: Path,
    *,
    follow_links: bool = True,
    leave_out: Collection[Path] = (),
    most: int = MOST_ENTRIES,
) -> Iterator[Path | Fault | Skipped]:
    """Every regular file under a folder, by name, each folder once, wherever links lead.

    Parameters
    ----------
    leave_out
        Folders that are not looked into.
    most
        So many entries of a folder are looked at.
    """
    seen = {_identity(one) for one in leave_out}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            identity = _identity(folder)
            if identity is None or identity in seen:
                if identity is not None and folder != root:
                    yield Skipped(name=shown(folder), reason="it was looked into already")
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                listed = sorted(islice(entries, most + 1), key=lambda entry: entry.name)
        except OSError as error:
            yield Fault(name=shown(folder), reason=_words(error))
            continue
        if len(listed) > most:
            reason = f"more than {most} entries lie in it; what is beyond is not looked at"
            yield Fault(name=shown(folder), reason=reason, too_many=True)
        below = []
        for entry in listed[:most]:
            try:
                about = entry.stat(follow_symlinks=follow_links)
            except OSError as error:
                yield Fault(name=shown(entry.path), reason=_words(error))
                continue
            if stat.S_ISDIR(about.st_mode):
                below.append(Path(entry.path))
            elif stat.S_ISREG(about.st_mode):
                yield Path(entry.path)
            else:
                reason = "it is a link" if stat.S_ISLNK(about.st_mode) else "it is no regular file"
                yield Skipped(name=shown(entry.path), reason=reason)
        waiting.extend(reversed(below))


def objects_in(
    path: Path, *, named: bool = False, follow_links: bool = True, read_lists: bool = True
) -> Iterator[Find]:
    """What a regular file is, or holds.

    Parameters
    ----------
    named
        The user named this very file: of a DICOMDIR, the files that it lists are meant. Otherwise
        they are found beside it, and only those that are missing are told.
    follow_links
        Whether the file may be a link to one.
    read_lists
        Whether a DICOMDIR is read at all.
    """
    opened = partial(open_source, path, follow_links=follow_links)
    try:
        with opened() as stream:
            is_zip = stream.read(4) in _ZIP_BEGINS
            stream.seek(0)
            is_directory = not is_zip and _is_directory(stream)
    except OSError as error:
        yield Fault(name=shown(path), reason=_words(error), may_pass=True)
        return
    if is_zip:
        yield from _members(path, opened)
    elif not is_directory:
        yield Found(name=shown(path), opened=opened)
    elif read_lists:
        yield from _listed(path, named=named)
    else:
        yield Skipped(name=shown(path), reason=_A_LIST)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        about = folder.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _is_directory(stream: BinaryIO) -> bool:
    try:
        return read_beginning(stream)[0].is_directory
    except NotDicomError:
        return False


# A medium's DICOMDIR (PS3.3 Annex F, PS3.10 8).


def _listed(path: Path, *, named: bool) -> Iterator[Find]:
    """The files that a DICOMDIR lists: found on the medium, or missing."""
    try:
        references = _references(path)
    except OSError as error:
        yield Fault(name=shown(path), reason=_words(error))
        return
    base = path.parent
    inside = base.resolve()
    folders: dict[Path, dict[str, Path]] = {}
    if not named:
        yield Skipped(name=shown(path), reason=_A_LIST)
    for parts in references:
        place = _resolve(base, parts, folders)
        name = shown(base.joinpath(*(part.replace("/", "_") or "_" for part in parts)))
        if place is None:
            yield Fault(name=name, reason=f"{shown(path.name)} lists it, and it is not there")
        elif not place.resolve().is_relative_to(inside):
            yield Fault(name=name, reason=f"{shown(path.name)} lists it, and it lies elsewhere")
        elif named:
            yield Found(name=shown(place), opened=partial(open_source, place))


def _references(path: Path) -> list[tuple[str, ...]]:
    """The parts of each file ID that a DICOMDIR refers to, each file once."""
    if path.stat().st_size > MOST_DICOMDIR_BYTES:
        raise OSError(0, "this DICOMDIR is too large to be read; name its folder instead")
    try:
        with open_source(path) as stream:
            return references_of(stream)
    except OSError:
        raise
    except Exception as error:
        # A foreign data set may fail in any way.
        raise OSError(0, "this DICOMDIR cannot be read; name its folder instead") from error


def references_of(stream: BinaryIO) -> list[tuple[str, ...]]:
    """The same of an open one."""
    directory = dcmread(stream, force=True)
    found: dict[tuple[str, ...], None] = {}
    for record in directory.get("DirectoryRecordSequence") or ():
        if record.get("ReferencedSOPClassUIDInFile") == MediaStorageDirectoryStorage:
            continue
        file_id = record.get("ReferencedFileID")
        if file_id:
            parts = [file_id] if isinstance(file_id, str) else file_id
            found[tuple(str(part) for part in parts)] = None
    return list(found)


def _resolve(
    base: Path, parts: tuple[str, ...], folders: dict[Path, dict[str, Path]]
) -> Path | None:
    """A file ID on the disk: media are written and copied with small and large letters."""
    place = base
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\0" in part:
            return None
        if place not in folders:
            folders[place] = _entries(place)
        exact = place / part
        if not os.path.lexists(exact):
            found = folders[place].get(plain_name(part))
            if found is None:
                return None
            exact = found
        place = exact
    return place if place.is_file() else None


def _entries(folder: Path) -> dict[str, Path]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(islice(entries, MOST_ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return {}
    return {plain_name(entry.name): Path(entry.path) for entry in reversed(listed)}


def plain_name(name: str) -> str:
    """A name without what ISO 9660 and those who copy from it make of it: ``im0001.;1``."""
    return name.casefold().removesuffix(";1").rstrip(".")


# Archives.


class _Budget:
    """How much an archive may still unpack to."""

    def __init__(self, archive_bytes: int) -> None:
        self.most = min(MOST_ARCHIVE_BYTES, FREE_GROWTH_BYTES + MOST_GROWTH * archive_bytes)
        self.spent = 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing more is read."""
        return self.spent > self.most


class _Member(io.RawIOBase):
    """A member of an archive, read within bounds; whatever is wrong with it is an OSError."""

    def __init__(self, inner: BinaryIO, budget: _Budget) -> None:
        self._inner = inner
        self._budget = budget
        self._read = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, fewer only at the end."""
        if size < 0:
            raise ValueError("a member is never read at once")
        with _as_os_error():
            data = self._inner.read(size)
        self._read += len(data)
        self._budget.spent += len(data)
        if self._read > MOST_MEMBER_BYTES or self._budget.is_spent:
            raise OSError(errno.EFBIG, "it unpacks to more than is taken from an archive")
        return data


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # An offset or a packed stream that is none; what is wrong with the disk has other numbers.
        if error.strerror and error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EIO, "it is broken there") from error
    except _BROKEN as error:
        # The library's words name the member again, or are for programmers.
        unknown = isinstance(error, NotImplementedError)
        words = "it is packed in a way that is not known here" if unknown else "it is broken there"
        raise OSError(errno.EIO, words) from error


def _members(path: Path, opened: Callable[[], AbstractContextManager[BinaryIO]]) -> Iterator[Find]:
    name = shown(path)
    try:
        with opened() as stream, _as_os_error():
            size = os.fstat(stream.fileno()).st_size
            _check_list(stream, size)
            with zipfile.ZipFile(stream) as archive:
                yield from _of_archive(archive, name, _Budget(size))
    except OSError as error:
        yield Fault(name=name, reason=f"the archive cannot be read: {_words(error)}")


def _of_archive(archive: zipfile.ZipFile, name: str, budget: _Budget) -> Iterator[Find]:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise OSError(errno.EFBIG, f"it has more than {MOST_MEMBERS} members")
    for listed in _not_in_archive(archive, members, budget):
        yield Fault(name=f"{name}!{shown(listed)}", reason="the DICOMDIR lists it; it is missing")
    for info in members:
        member = f"{name}!{shown(info.filename)}"
        if budget.is_spent:
            reason = f"it unpacks to more than {MOST_GROWTH} times its size: the rest is not read"
            raise OSError(errno.EFBIG, reason)
        if info.filename.endswith("/"):
            continue
        if info.flag_bits & 0x1:
            yield Fault(name=member, reason="it is encrypted; unpack the archive first")
            continue
        yield Found(name=member, opened=partial(_opened_member, archive, info, budget))


def _not_in_archive(
    archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], budget: _Budget
) -> Iterator[str]:
    """What a DICOMDIR in an archive lists and the archive does not hold."""
    there: set[str] | None = None
    for info in members:
        folder, _, last = info.filename.rpartition("/")
        encrypted = info.flag_bits & 0x1
        if plain_name(last) != "dicomdir" or info.file_size > MOST_DICOMDIR_BYTES or encrypted:
            continue
        if there is None:
            there = {_plain_path(one.filename) for one in members}
        references: list[tuple[str, ...]] = []
        with suppress(Exception):  # a foreign data set; the members come in all the same
            with _opened_member(archive, info, budget) as stream:
                held = io.BytesIO(stream.read(MOST_DICOMDIR_BYTES))
            references = references_of(held)
        for parts in references:
            listed = "/".join((folder, *parts) if folder else parts)
            if _plain_path(listed) not in there:
                yield listed


def _plain_path(name: str) -> str:
    return "/".join(plain_name(part) for part in name.split("/"))


@contextmanager
def _opened_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget
) -> Iterator[BinaryIO]:
    with _as_os_error():
        inner = archive.open(info)
    with inner:
        yield cast(BinaryIO, _Member(cast(BinaryIO, inner), budget))


def _check_list(stream: BinaryIO, size: int) -> None:
    """An archive's list of members is read whole by the library: not where it is absurd."""
    tail_at = max(0, size - (1 << 16) - 22 - 20)
    stream.seek(tail_at)
    tail = stream.read(size - tail_at)
    end = tail.rfind(_ZIP_END)
    if end < 0 or len(tail) < end + 22:
        raise OSError(errno.EIO, "it was not written to its end")
    count, list_bytes = struct.unpack("<HI", tail[end + 10 : end + 16])
    if end >= 20 and tail[end - 20 : end - 16] == _ZIP64_LOCATOR:
        stream.seek(int.from_bytes(tail[end - 12 : end - 4], "little"))
        large = stream.read(56)
        if large[:4] == _ZIP64_END:
            count, list_bytes = struct.unpack("<QQ", large[32:48])
    if count > MOST_MEMBERS or list_bytes > MOST_DIRECTORY_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_MEMBERS} members")
    stream.seek(0)
