"""Keeping a result's bytes: checked at our own gate, written once, sent from there ever after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from node.results.check import Fault, check_object
from node.results.objects import EncodedObject, ResultError
from storage import catalog
from storage.files import Area, FileStore
from storage.states import ResultKind

_FAULTS_SAID = 3


class FaultyResultError(ResultError):
    """A result that must not reach an archive. Its bytes are kept in quarantine.

    ``quarantined`` is for the row that tells an operator of it: see
    :func:`storage.catalog.quarantine_result`.
    """

    def __init__(self, quarantined: catalog.NewQuarantined, faults: Sequence[Fault]) -> None:
        super().__init__(quarantined.reason)
        self.quarantined = quarantined
        self.faults = tuple(faults)


def keep_result(
    files: FileStore, encoded: EncodedObject, *, kind: ResultKind, recording_id: int | None = None
) -> catalog.NewResult:
    """Check a result, write its file durably and describe it for its row.

    Raises
    ------
    FaultyResultError
        If the object has a fault. Its file lies in quarantine then.
    FileStoreError
        If it cannot be kept.
    """
    digest = hashlib.sha256(encoded.data).hexdigest()
    faults = check_object(encoded)
    if faults:
        raise FaultyResultError(
            catalog.NewQuarantined(
                received_at=datetime.now(UTC),
                reason=_words(kind, faults),
                status_sent=0,
                sop_class_uid=encoded.ref.sop_class_uid,
                sop_instance_uid=encoded.ref.sop_instance_uid,
                study_instance_uid=encoded.ref.study_instance_uid,
                file_key=files.write(Area.QUARANTINE, digest, encoded.data),
                size_bytes=len(encoded.data),
                sha256=digest,
            ),
            faults,
        )
    return catalog.NewResult(
        kind=kind,
        recording_id=recording_id,
        sop_class_uid=encoded.ref.sop_class_uid,
        sop_instance_uid=encoded.ref.sop_instance_uid,
        series_instance_uid=encoded.ref.series_instance_uid,
        transfer_syntax_uid=encoded.transfer_syntax_uid,
        file_key=files.write(Area.RESULTS, digest, encoded.data),
        sha256=digest,
        size_bytes=len(encoded.data),
    )


def new_result(result: catalog.ResultRecord) -> catalog.NewResult:
    """A kept result as it was handed in, to be named or sent again."""
    return catalog.NewResult(
        kind=result.kind,
        subject=result.subject,
        recording_id=result.recording_id,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        file_key=result.file_key,
        sha256=result.sha256,
        size_bytes=result.size_bytes,
    )


def _words(kind: ResultKind, faults: Sequence[Fault]) -> str:
    said = "; ".join(str(fault) for fault in faults[:_FAULTS_SAID])
    more = len(faults) - _FAULTS_SAID
    counted = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"the {kind.upper()} made here has {counted} and is not sent: {said}" + (
        f"; and {more} more" if more > 0 else ""
    )
