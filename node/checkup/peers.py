"""What each destination takes of us, asked without leaving anything there.

DIMSE: one association proposes every class that we may send, each in each of its encodings; then
C-ECHO, and C-FIND for a study that nobody has. DICOMweb: a QIDO-RS search for one study, and a
STOW-RS request without an object in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import httpx
from pydicom import Dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.checkup.archives import look_at_archive
from node.checkup.findings import Finding, green, red, yellow
from node.delivery.association import Caller, Line
from node.delivery.web import WebCaller
from node.secrets import SecretError
from node.sections import Destination, DicomwebDestination, DimseDestination, Machine
from node.settings import Settings
from node.tls import TlsError

_PATIENCE_S = 10.0
_AT_ONCE = 8
_PENDING = (0xFF00, 0xFF01)
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_PICTURES = (JPEGBaseline8Bit, *_UNCOMPRESSED)
_BOUNDARY = "echonode-doctor"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """Something that we send: its class, and the class of the form that goes where that is not
    taken."""

    what: str
    sop_class: UID
    instead: UID | None
    words: str  #: what goes then


_REPORT = _Form(
    what="reports",
    sop_class=Comprehensive3DSRStorage,
    instead=ComprehensiveSRStorage,
    words="reports go as Comprehensive SR",
)
_CINE = _Form(
    what="pictures",
    sop_class=MultiFrameTrueColorSecondaryCaptureImageStorage,
    instead=SecondaryCaptureImageStorage,
    words="cines go as a few single frames",
)
_TEXT = _Form(
    what="text reports",
    sop_class=BasicTextSRStorage,
    instead=ComprehensiveSRStorage,
    words="text reports go as Comprehensive SR",
)
_KEY = _Form(
    what="key objects",
    sop_class=KeyObjectSelectionDocumentStorage,
    instead=None,
    words="",
)


def look_at_peers(settings: Settings) -> Iterator[Finding]:
    """Every destination, machine and archive of the settings, all at the same time."""
    ours = settings.dimse.ae_title
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [pool.submit(_destination, one, ours) for one in settings.destinations]
        found += [pool.submit(_machine, one, ours) for one in settings.machines]
        found += [pool.submit(look_at_archive, one, ours) for one in settings.archives]
        yield from chain.from_iterable(one.result() for one in found)
    if not settings.destinations:
        yield yellow(
            "destinations",
            "there are none: results stay here",
            "name the archive in a [[destinations]] section of the settings",
        )


def _destination(destination: Destination, ours: str) -> Sequence[Finding]:
    area = f"destination {destination.name}"
    try:
        if isinstance(destination, DicomwebDestination):
            return tuple(_web(area, destination))
        return tuple(_dimse(area, destination, ours))
    except (TlsError, SecretError) as error:
        return (red(area, str(error), "mend that file, or name another in the settings"),)


def _dimse(area: str, destination: DimseDestination, ours: str) -> Iterator[Finding]:
    caller = Caller(destination, ours, timeout_s=min(_PATIENCE_S, destination.timeout_s))
    forms = _forms_for(destination)
    with caller.call(_contexts(forms)) as line:
        if not line.open:
            yield red(area, line.why_not(), _way_out(line, ours))
            return
        yield _echo(area, line)
        for form in forms:
            yield _form(area, line, form)
        commits = bool(line.accepted(StorageCommitmentPushModel))
        yield from _promises(area, destination, ours, commits=commits, query=_query(line))


def _forms_for(destination: Destination) -> list[_Form]:
    forms = [_REPORT, _CINE]
    if destination.text_report:
        forms.append(_TEXT)
    if destination.key_object:
        forms.append(_KEY)
    return forms


def _contexts(forms: Sequence[_Form]) -> list[PresentationContext]:
    """One for each class and encoding: an archive chooses one of those in a context."""
    wanted: dict[tuple[UID, UID], None] = {}
    for form in forms:
        for sop_class in (form.sop_class, form.instead):
            for syntax in _PICTURES if form is _CINE else _UNCOMPRESSED:
                if sop_class is not None:
                    wanted[sop_class, syntax] = None
    return [
        build_context(Verification, list(_UNCOMPRESSED)),
        build_context(StorageCommitmentPushModel, list(_UNCOMPRESSED)),
        build_context(StudyRootQueryRetrieveInformationModelFind, list(_UNCOMPRESSED)),
        *(build_context(sop_class, [syntax]) for sop_class, syntax in wanted),
    ]


def _way_out(line: Line, ours: str) -> str:
    to = line.destination
    if line.rejections:
        return (
            f"compare the AE titles: it must be called {to.ae_title!r} there, and know us as "
            f"{ours!r} from this machine's address"
        )
    if line.took_no_context:
        return f"enable storage for {ours!r} at the archive"
    return (
        f"see that it runs and listens at {to.host}:{to.port}, that no firewall is in between, "
        "and that both sides speak TLS or neither does"
    )


def _echo(area: str, line: Line) -> Finding:
    if line.accepted(Verification):
        try:
            answer = line.association.send_c_echo()
        except (RuntimeError, ValueError):
            answer = Dataset()
        if answer.get("Status") == 0:
            return green(area, "it answers C-ECHO")
        return yellow(area, "it takes the association and does not answer C-ECHO")
    return yellow(area, "it offers no C-ECHO; the association itself is taken")


def _form(area: str, line: Line, form: _Form) -> Finding:
    first = line.accepted(form.sop_class)
    second = line.accepted(form.instead) if form.instead is not None else set()
    taken = first or second
    if not taken:
        classes = " or ".join(one.name for one in (form.sop_class, form.instead) if one)
        return red(
            area,
            f"it takes no {form.what}: neither class nor encoding of {classes}",
            f"enable {form.sop_class.name} for us at the archive",
        )
    if not first:
        return yellow(
            area,
            f"it does not take {form.sop_class.name}: {form.words}",
            f"enable {form.sop_class.name} at the archive for the better form",
        )
    if form is _CINE and JPEGBaseline8Bit not in taken:
        return yellow(
            area,
            f"it takes {form.what} uncompressed only: they are ten times as large there",
            "enable JPEG Baseline (1.2.840.10008.1.2.4.50) for secondary captures at the archive",
        )
    encodings = ", ".join(sorted(UID(syntax).name for syntax in first))
    return green(area, f"it takes {form.what}: {form.sop_class.name} ({encodings})")


def _query(line: Line) -> str | None:
    """Why C-FIND is of no use; None where it works. Asks for a study that nobody has."""
    model = StudyRootQueryRetrieveInformationModelFind
    if not line.accepted(model):
        return "it offers no C-FIND"
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = generate_uid()
    try:
        for status, _match in line.association.send_c_find(query, model):
            code = int(status.Status) if "Status" in status else None
            if code is None:
                return "it does not answer C-FIND"
            if code not in (0, *_PENDING):
                return f"it refuses C-FIND (0x{code:04X})"
    except (RuntimeError, ValueError):
        return "it ends the association at C-FIND"
    return None


def _promises(
    area: str, destination: DimseDestination, ours: str, *, commits: bool, query: str | None
) -> Iterator[Finding]:
    if destination.commitment == "off":
        yield green(area, "it is not asked for its promise: results count as delivered by status")
    elif commits:
        yield green(
            area,
            "it offers storage commitment; its reports come to us on that association or on one "
            f"of its own, for which it must know {ours!r}, our address and port",
        )
    elif destination.commitment == "required":
        yield red(
            area,
            'it offers no storage commitment, and commitment = "required"',
            'enable it at the archive, or set commitment = "auto"',
        )
    elif query is None:
        yield green(area, "it offers no storage commitment; it is asked by C-FIND instead")
    else:
        yield yellow(
            area,
            "it offers no storage commitment: results are believed by its status alone",
            f"let {ours!r} query the archive, or enable storage commitment there",
        )
    if query is None:
        yield green(area, "it answers C-FIND")
    elif destination.commitment != "off":
        yield yellow(area, query, f"let {ours!r} query the archive")


def _machine(machine: Machine, ours: str) -> Sequence[Finding]:
    area = f"machine {machine.ae_title}"
    as_destination = DimseDestination(
        name=machine.ae_title,
        kind="dimse",
        host=machine.host,
        port=machine.port,
        ae_title=machine.ae_title,
        tls=machine.tls,
    )
    try:
        caller = Caller(as_destination, ours, timeout_s=_PATIENCE_S)
    except TlsError as error:
        return (red(area, str(error), "mend that file, or name another in the settings"),)
    contexts = [
        build_context(Verification, list(_UNCOMPRESSED)),
        build_context(StorageCommitmentPushModel, list(_UNCOMPRESSED)),
    ]
    with caller.call(contexts) as line:
        if line.open:
            return (green(area, "it can be told of what we promised to keep"),)
        return (
            yellow(
                area,
                f"{line.why_not()}: our promises wait for it",
                "see whether it is switched on, and compare address, port and AE titles",
            ),
        )


def _web(area: str, destination: DicomwebDestination) -> Iterator[Finding]:
    caller = WebCaller(destination, timeout_s=min(_PATIENCE_S, destination.timeout_s))
    with caller.client() as client:
        try:
            searched = client.get(
                f"{destination.url}/studies",
                params={"limit": 1},
                headers={"Accept": "application/dicom+json"},
            )
        except httpx.HTTPError as error:
            yield red(
                area,
                f"{destination.url} cannot be reached: {error or type(error).__name__}",
                "see that it runs, that no firewall is in between, and compare its certificate "
                "with [destinations.tls]",
            )
            return
        yield _searched(area, destination, searched.status_code)
        try:
            stored = client.post(
                f"{destination.url}/studies",
                content=f"--{_BOUNDARY}--\r\n",
                headers={
                    "Accept": "application/dicom+json",
                    "Content-Type": 'multipart/related; type="application/dicom"; '
                    f"boundary={_BOUNDARY}",
                },
            )
        except httpx.HTTPError as error:
            yield red(
                area,
                f"it does not answer STOW-RS: {error or type(error).__name__}",
                "look at the archive's log",
            )
            return
        yield _stored(area, stored.status_code)


def _searched(area: str, destination: DicomwebDestination, status: int) -> Finding:
    if status in (httpx.codes.OK, httpx.codes.NO_CONTENT):
        return green(area, f"it answers QIDO-RS at {destination.url}")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return red(
            area,
            f"it does not let us in: HTTP {status} to a search",
            "see its token or user in the settings, and the rights that it has there",
        )
    words = f"it does not answer QIDO-RS: HTTP {status}; results are believed by status alone"
    return yellow(area, words, "compare the url with the archive's DICOMweb root")


def _stored(area: str, status: int) -> Finding:
    """What an archive says to a request to store nothing."""
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return red(
            area,
            f"it does not let us store: HTTP {status}",
            "ask for the right to store there (STOW-RS)",
        )
    if status in (404, 405, 501):
        return red(
            area,
            f"it has no STOW-RS there: HTTP {status}",
            "compare the url with the archive's DICOMweb root, and enable STOW-RS",
        )
    if status == httpx.codes.UNSUPPORTED_MEDIA_TYPE:
        return red(
            area,
            "it takes no DICOM by STOW-RS: HTTP 415",
            "enable application/dicom at the archive",
        )
    if status >= 500:
        return yellow(
            area,
            f"it answers HTTP {status} to a STOW-RS request without an object",
            "look at the archive's log",
        )
    return green(area, f"it has STOW-RS (HTTP {status} to a request without an object)")
