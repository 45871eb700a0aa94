"""``echonode backup`` and ``restore``: a copy of all that the node keeps, and the way back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.catalog import open_catalog
from node.cli.options import JsonOption
from node.cli.output import ExitCode, Problem, config_file, print_json, print_text, settings_of
from node.settings import Settings
from node.settings_file import settings_file
from node.window import SOCKET_NAME

if TYPE_CHECKING:
    from storage.backup import BackupRecord

#: What in the node's own folder is no part of a backup, or is one by its rows.
_NOT_BESIDE = frozenset(
    {
        "incoming",
        "objects",
        "results",
        "quarantine",
        "copies",
        "node.lock",
        SOCKET_NAME,
        "restore-begun",
    }
)
_FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the backup.")]


def backup(context: typer.Context, folder: _FolderArgument, as_json: JsonOption = False) -> None:
    """Copy rows, files, users and audit trail into DIR, also while the node runs.

    The copy is of one moment. A DIR that holds an earlier backup is brought up to date: only what
    is new is copied. It holds patients' images and names, as the node's own folder does.
    """
    from importlib.metadata import version

    from node.cli.telling import audit_of
    from storage.backup import BackupError, back_up

    settings = settings_of(context)
    os.umask(0o077)
    with open_catalog(settings) as database:
        from storage.files import open_store

        try:
            made = back_up(
                database,
                open_store(settings.store_url, settings.data_dir),
                folder,
                beside=_beside(settings, config_file(context)),
                made_by=f"echonode {version('echonode')}",
            )
        except BackupError as error:
            raise Problem(f"no backup: {error}") from error
    with audit_of(settings) as told:
        if told is not None:
            audit, user = told
            audit.exported(user, f"a backup of {made.files} files")
    _say(made, f"the backup in {folder}", as_json=as_json)
    if made.missing:
        raise Problem(
            f"the backup is made, but {len(made.missing)} files that rows name were not there; "
            "`echonode db check` tells which"
        )


def restore(context: typer.Context, folder: _FolderArgument, as_json: JsonOption = False) -> None:
    """Lay a backup back where the settings say: data_dir and database_url. The node must not run.

    Nothing is overwritten: move what is left of the old data_dir away first. Run it as the
    service user. Afterwards `echonode db check --deep` compares every file with its row.
    """
    from sqlalchemy.engine import make_url

    from storage.backup import BackupError, bring_back
    from storage.database import DatabaseError
    from storage.files import FileStoreError, open_store

    settings = settings_of(context)
    os.umask(0o077)
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise Problem("database_url names no SQLite file: restore its rows by its own tools")
    with _alone(settings.data_dir):
        try:
            brought = bring_back(
                folder,
                settings.data_dir,
                Path(url.database),
                places={
                    "echonode.toml": None,  # the settings are there, or this would not run
                    "users.json": settings.http.users_file or settings.data_dir / "users.json",
                    "audit": settings.audit.folder or settings.data_dir / "audit",
                },
                open_files=lambda: open_store(settings.store_url, settings.data_dir),
            )
        except (BackupError, DatabaseError, FileStoreError) as error:
            raise Problem(f"not restored: {error}") from error
    _say(brought, f"restored from {folder}", as_json=as_json)
    if brought.missing:
        raise Problem(
            f"restored, but {len(brought.missing)} files are missing in the backup; "
            "`echonode db check --repair` marks them"
        )


def _beside(settings: Settings, config: Path | None) -> dict[str, Path]:
    """What lies in the node's own folder besides, and what the settings keep elsewhere."""
    from sqlalchemy.engine import make_url

    database = Path(make_url(settings.database_url).database or "-").name
    found = {
        path.name: path
        for path in sorted(settings.data_dir.iterdir())
        if path.name not in _NOT_BESIDE and not path.name.startswith((".", database))
    }
    if settings.http.users_file is not None:
        found["users.json"] = settings.http.users_file
    if settings.audit.folder is not None and settings.audit.folder.is_dir():
        found["audit"] = settings.audit.folder
    written = settings_file(config)
    if written is not None:
        found["echonode.toml"] = written
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep any node out of the folder, and refuse where one runs or it is another user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise Problem(
            f"{folder} belongs to another user (number {owner}): run this command as that user",
            ExitCode.USAGE,
        )
    with (folder / "node.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(f"a node runs on {folder}: stop it, then restore") from None
        yield


def _say(record: BackupRecord, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    print_text(
        f"{what} is of {record.made_at.astimezone():%Y-%m-%d %H:%M:%S}: {record.files} files, "
        f"{record.size_bytes / 1e6:.0f} MB; {record.copied} copied now"
        if what.startswith("the backup")
        else f"{what}, made {record.made_at.astimezone():%Y-%m-%d %H:%M:%S}: {record.files} files, "
        f"{record.size_bytes / 1e6:.0f} MB"
    )
