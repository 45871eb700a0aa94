"""Whether what is only read can be fetched from: asked without fetching anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import httpx
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role
from pynetdicom.presentation import build_context

from node.checkup.findings import Finding, green, red, yellow
from node.delivery.association import Caller, Line
from node.delivery.web import WebCaller
from node.doors.contexts import ULTRASOUND_CLASSES
from node.fetching.dimse import FIND, GET, MOVE, storage_contexts
from node.secrets import SecretError
from node.sections import DicomwebPeer, DimsePeer, Source
from node.tls import TlsError

_PATIENCE_S = 10.0
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def look_at_archive(archive: Source, ours: str) -> Sequence[Finding]:
    """What an archive lets us do; ``ours`` is our AE title."""
    area = f"archive {archive.name}"
    try:
        if isinstance(archive, DicomwebPeer):
            return tuple(_web(area, archive))
        return tuple(_dimse(area, archive, ours))
    except (TlsError, SecretError) as error:
        return (red(area, str(error), "mend that file, or name another in the settings"),)


def _dimse(area: str, archive: DimsePeer, ours: str) -> Iterator[Finding]:
    classes = list(ULTRASOUND_CLASSES)
    contexts = [build_context(model, list(_PLAIN)) for model in (FIND, GET, MOVE)]
    caller = Caller(archive, ours, timeout_s=min(_PATIENCE_S, archive.timeout_s))
    with caller.call(
        contexts + storage_contexts(classes),
        roles=[build_role(uid, scp_role=True) for uid in classes],
    ) as line:
        if not line.open:
            yield red(
                area,
                line.why_not(),
                f"see that it runs, that it knows us as {ours!r}, and that no firewall is between",
            )
            return
        if line.accepted(FIND):
            yield green(area, "it can be queried (C-FIND)")
        else:
            yield red(area, "it offers no C-FIND (Study Root)", f"let {ours!r} query it")
        yield _sending(area, line, ours)


def _sending(area: str, line: Line, ours: str) -> Finding:
    sends = {
        str(context.transfer_syntax[0])
        for context in line.association.accepted_contexts
        if context.as_scp
    }
    if line.accepted(GET) and sends:
        return green(area, f"it sends ultrasound by C-GET, in {len(sends)} encodings")
    if line.accepted(MOVE):
        return yellow(
            area,
            "it offers no C-GET: a fetch is by C-MOVE, while the node runs",
            f"enter {ours!r} there with this machine's address and port, or enable C-GET",
        )
    return red(area, "it offers neither C-GET nor C-MOVE", f"enable one of them for {ours!r}")


def _web(area: str, archive: DicomwebPeer) -> Iterator[Finding]:
    caller = WebCaller(archive, timeout_s=min(_PATIENCE_S, archive.timeout_s))
    with caller.client() as client:
        try:
            status = client.get(
                f"{archive.url}/studies",
                params={"limit": 1},
                headers={"Accept": "application/dicom+json"},
            ).status_code
        except httpx.HTTPError as error:
            yield red(
                area,
                f"{archive.url} cannot be reached: {error or type(error).__name__}",
                "see that it runs, that no firewall is in between, and compare its certificate "
                f"with [{archive.section}.tls]",
            )
            return
    if status in (httpx.codes.OK, httpx.codes.NO_CONTENT):
        yield green(area, f"it answers QIDO-RS at {archive.url}")
    elif status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        yield red(
            area,
            f"it does not let us in: HTTP {status} to a search",
            "see its token or user in the settings, and the rights that it has there",
        )
    else:
        words = f"it does not answer QIDO-RS: HTTP {status}"
        yield red(area, words, "compare the url with the archive's DICOMweb root")
