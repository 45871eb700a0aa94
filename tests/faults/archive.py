"""An archive that writes down everything that reaches it, also what reaches it twice.

As a program it can be slow and say no:

    python -m tests.faults.archive PORT FILE [--delay 2.0] [--refuse 0.1]

It promises to keep what it has, on the association on which it was asked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from pynetdicom.transport import ThreadedAssociationServer

from tests.peers import Archive, accepts_connections, free_port, running, wait_until

_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", str(JPEGBaseline8Bit))
_OUT_OF_RESOURCES = 0xA700


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """An object that the archive took, as often as it came."""

    uid: str
    study_uid: str
    sha256: str


class Register:
    """What arrived, a line of a file for each object; read while another process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def add(self, arrived: Arrived) -> None:
        """Write one down, whole or not at all."""
        line = json.dumps([arrived.uid, arrived.study_uid, arrived.sha256]) + "\n"
        with self._lock:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(handle, line.encode())
            os.close(handle)

    def all(self) -> list[Arrived]:
        """Everything, in order of arrival."""
        if not self._path.exists():
            return []
        rows = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [Arrived(uid=uid, study_uid=study, sha256=sha256) for uid, study, sha256 in rows]

    def of(self, study_uid: str) -> dict[str, list[str]]:
        """A study's objects: the digests under which each UID came."""
        found: dict[str, list[str]] = {}
        for arrived in self.all():
            if arrived.study_uid == study_uid:
                found.setdefault(arrived.uid, []).append(arrived.sha256)
        return found


def serve(
    port: int, register: Register, *, delay_s: float = 0.0, refuse: float = 0.0
) -> ThreadedAssociationServer:
    """Listen for C-STORE; each answer comes after the delay, and some are "out of resources"."""

    def store(event: evt.Event) -> int:
        time.sleep(delay_s)
        if random.random() < refuse:  # noqa: S311 - a fault, not a secret
            return _OUT_OF_RESOURCES
        dataset = event.dataset
        register.add(
            Arrived(
                uid=str(event.request.AffectedSOPInstanceUID),
                study_uid=str(dataset.StudyInstanceUID),
                sha256=hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest(),
            )
        )
        return 0x0000

    def asked(event: evt.Event) -> tuple[int, None]:
        report = partial(_report, event.assoc, event.action_information, register)
        threading.Thread(target=report, daemon=True).start()
        return 0x0000, None

    entity = AE("ARCHIVE")
    entity.add_supported_context(StorageCommitmentPushModel)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, list(_SYNTAXES))
    entity.maximum_associations = 100
    return entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, asked)],
    )


def _report(association: Association, request: Dataset, register: Register) -> None:
    """Promise what is in the register; name what is not (PS3.4 J.3.3)."""
    time.sleep(0.05)  # after the answer to the request
    known = {arrived.uid for arrived in register.all()}
    information = Dataset()
    information.TransactionUID = request.TransactionUID
    kept, failed = [], []
    for item in request.ReferencedSOPSequence:
        if item.ReferencedSOPInstanceUID in known:
            kept.append(item)
        else:
            item.FailureReason = 0x0112  # no such object instance
            failed.append(item)
    if kept:
        information.ReferencedSOPSequence = kept
    if failed:
        information.FailedSOPSequence = failed
    with suppress(RuntimeError, ValueError):  # the association may have ended
        association.send_n_event_report(
            information,
            2 if failed else 1,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )


@contextmanager
def counting_archive(folder: Path) -> Iterator[tuple[Archive, Register]]:
    """The archive in this process, on a port of its own."""
    register = Register(folder / "arrived.jsonl")
    port = free_port()
    server = serve(port, register)
    try:
        yield Archive(ae_title="ARCHIVE", port=port), register
    finally:
        server.shutdown()


@contextmanager
def archive_process(
    port: int, register: Path, *, delay_s: float = 0.0, refuse: float = 0.0
) -> Iterator[None]:
    """The archive as a process, which can be taken away."""
    command = [sys.executable, "-m", "tests.faults.archive", str(port), str(register)]
    options = ["--delay", str(delay_s), "--refuse", str(refuse)]
    with running([*command, *options], log=register.with_suffix(".log")):
        wait_until(lambda: accepts_connections(port), what="the archive listens")
        yield


def main() -> None:
    """Listen until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("port", type=int)
    parser.add_argument("register", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--refuse", type=float, default=0.0, help="share that is refused")
    options = parser.parse_args()
    serve(options.port, Register(options.register), delay_s=options.delay, refuse=options.refuse)
    threading.Event().wait()


if __name__ == "__main__":
    main()
