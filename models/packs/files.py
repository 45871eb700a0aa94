"""The files of a pack: only its own, and known by their checksum."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from models.packs.errors import PackError

LARGEST_BYTES = 2 * 1024**3
"""A network's file, or all files of its folder together, may be no larger than this."""

_MOST_FILES = 1000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def own_file(folder: Path, name: str) -> Path:
    """A plain file that lies in the pack itself, by the name that the manifest gives.

    Raises
    ------
    PackError
        If the name leads elsewhere, by a path or by a link, or the file is too large.
    """
    path = folder / name
    if not _is_plain(folder, name) or path.resolve().parent != folder.resolve():
        raise PackError(f"pack {folder}: weights must be a file in the pack, not {name!r}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise PackError(f"pack {folder}: no readable {name}: {error.strerror}") from error
    if size > LARGEST_BYTES:
        raise PackError(
            f"pack {folder}: {name} has {size / 1e9:.1f} GB, and {LARGEST_BYTES / 1e9:.1f} GB is "
            "the most; ship a smaller network"
        )
    return path


def own_folder(folder: Path, name: str) -> Path:
    """A folder that lies in the pack itself and holds plain files only.

    Raises
    ------
    PackError
        As for :func:`own_file`; also where anything in the folder is a link or an odd name.
    """
    path = folder / name
    if not _is_plain(folder, name) or path.is_symlink() or not path.is_dir():
        raise PackError(f"pack {folder}: network must be a folder in the pack, not {name!r}")
    _files_in(path, folder)
    return path


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file; of a folder that of its files' names and checksums.

    For a folder it is the SHA-256 of what this prints in it:
    ``find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs sha256sum``.

    Raises
    ------
    PackError
        If a folder holds anything but plain files.
    OSError
        If a file cannot be read.
    """
    if not path.is_dir():
        return _sha256(path)
    lines = "".join(f"{_sha256(path / name)}  {name}\n" for name in _files_in(path, path.parent))
    return hashlib.sha256(lines.encode()).hexdigest()


def _is_plain(folder: Path, name: str) -> bool:
    """Whether this is a plain name in the folder; one that begins with a dot is not."""
    path = folder / name
    return path == folder / path.name and path.name not in ("", "..") and name[:1] not in (".", "")


def _files_in(path: Path, folder: Path) -> list[str]:
    """Relative names of all files in a folder, in the order of their bytes."""
    found: list[str] = []
    total = 0
    for place, folders, names in os.walk(path):
        for name in (*folders, *names):
            inner = Path(place, name)
            shown = inner.relative_to(path).as_posix()
            if inner.is_symlink() or not (inner.is_dir() or inner.is_file()):
                raise PackError(
                    f"pack {folder}: {path.name}/{shown} is a link or no plain file; "
                    "put the file itself in its place"
                )
            if not _PLAIN.fullmatch(name):
                raise PackError(
                    f"pack {folder}: {path.name}/{shown!r}: a name of letters, digits, '.', '_' "
                    "and '-' is wanted; save the model again"
                )
        found += [Path(place, name).relative_to(path).as_posix() for name in names]
        total += sum(Path(place, name).stat().st_size for name in names)
        if len(found) > _MOST_FILES or total > LARGEST_BYTES:
            raise PackError(
                f"pack {folder}: {path.name} holds more than {_MOST_FILES} files or "
                f"{LARGEST_BYTES / 1e9:.1f} GB; ship a smaller network"
            )
    return sorted(found, key=str.encode)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
