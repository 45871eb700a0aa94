"""The database as commands use it: beside a running node, in short transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from node.cli.output import ExitCode, Problem

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from node.settings import Settings
    from storage.catalog import NodeRecord
    from storage.database import Database


@contextmanager
def open_catalog(settings: Settings) -> Iterator[Database]:
    """The database of these settings; what it cannot do ends the command with one line."""
    from storage.catalog import CatalogError
    from storage.database import DatabaseError, open_database
    from storage.files import FileStoreError

    try:
        database = open_database(settings.database_url)
        try:
            yield database
        finally:
            database.close()
    except DatabaseError as error:
        raise Problem(str(error), ExitCode.NOT_REACHABLE) from error
    except (CatalogError, FileStoreError) as error:
        raise Problem(str(error)) from error


def known_study(session: Session, uid: str) -> str:
    """The UID of a study that is there; ``uid`` may also be the short key that logs show."""
    from node.watch import study_key
    from storage import catalog

    try:
        return catalog.find_study(session, uid).study_instance_uid
    except catalog.CatalogError as error:
        if len(uid) == len(study_key("")) and "." not in uid:
            for known in catalog.held_studies(session):
                if study_key(known) == uid:
                    return known
        raise Problem(
            f"no study {uid}; `echonode studies` lists those that are there", ExitCode.NOT_FOUND
        ) from error


def running_nodes(session: Session) -> tuple[NodeRecord, ...]:
    """The nodes that gave a sign of life a moment ago, and are past their start."""
    from storage import catalog

    return tuple(node for node in catalog.read_nodes(session) if node.alive and node.details)
