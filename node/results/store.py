"""Keeping a result's bytes: written once, sent from there, however often."""

from __future__ import annotations

import hashlib

from node.results.objects import EncodedObject
from storage import catalog
from storage.files import Area, FileStore
from storage.states import ResultKind


def keep_result(
    files: FileStore, encoded: EncodedObject, *, kind: ResultKind, recording_id: int | None = None
) -> catalog.NewResult:
    """Write a result's file durably and describe it for its row."""
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
