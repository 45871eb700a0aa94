"""Commands tell the audit trail what an operator did, by the name that he has on this machine."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from node.cli.output import say
from node.settings import Settings

if TYPE_CHECKING:
    from node.watch.audit import Audit


@contextmanager
def audit_of(settings: Settings) -> Iterator[tuple[Audit, str] | None]:
    """The trail and who we are; None where it cannot be written, which stops no command."""
    from node.watch.audit import Audit
    from node.watch.audit_file import AuditFileError

    try:
        audit = Audit(settings.audit, settings.data_dir, settings.dimse.ae_title, node=False)
    except AuditFileError as error:
        say(f"note: {error}")
        yield None
        return
    try:
        yield audit, _whoever()
    finally:
        audit.close()


def tell_operated(settings: Settings, action: str, study_instance_uid: str) -> None:
    """An operator changed a study's course."""
    from node.watch.transfers import Peer

    with audit_of(settings) as told:
        if told is not None:
            audit, user = told
            audit.operated(Peer(host="localhost", user=user), action, study_instance_uid)


def _whoever() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container's user may have a number and no name
