"""Keeping a result's bytes: checked at our own gate, written once, sent from there ever after."""

from __future__ import annotations

import hashlib

from node.results.check import check_object
from node.results.objects import EncodedObject, ResultError
from storage import catalog
from storage.files import Area, FileStore
from storage.states import ResultKind


def keep_result(
    files: FileStore, encoded: EncodedObject, *, kind: ResultKind, recording_id: int | None = None
) -> catalog.NewResult:
    """Check a result, write its file durably and describe it for its row.

    Raises
    ------
    ResultError
        If the object has a fault: it must not reach an archive.
    FileStoreError
        If it cannot be kept.
    """
    faults = check_object(encoded)
    if faults:
        raise ResultError(
            f"the {kind} has {len(faults)} faults and is not sent: "
            + "; ".join(str(fault) for fault in faults[:3])
        )
    digest = hashlib.sha256(encoded.data).hexdigest()
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
