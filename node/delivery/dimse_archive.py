"""Asking a PACS what it keeps: storage commitment, and C-FIND where it does not offer that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from node.delivery.asking import Asked, Kept, Reply, Report, Seen
from node.delivery.association import Caller, Line
from node.delivery.lines import Lines
from node.sections import DimseDestination
from node.watch.transfers import Peer

log = structlog.get_logger(__name__)

_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_LINGER_S = 5.0  # archives that report on the same association do it at once or not at all
_REQUEST_COMMITMENT = 1  # PS3.4 Table J.3-1, action type ID
_NO_SERVICE = (0x0118, 0x0122, 0x0211)  # no such class, class not supported, unrecognised operation
_OUT_OF_RESOURCES = range(0xA700, 0xA800)  # PS3.4 Table C.4-1
_PENDING = (0xFF00, 0xFF01)
_MOST_MATCHES = 10_000  # a series of ours has far fewer; an archive may not talk without end


class DimseArchive:
    """Asks by DIMSE; see :class:`node.delivery.asking.Archive`.

    Parameters
    ----------
    linger_s
        How long an association stays open for the report after the request was taken.

    Raises
    ------
    TlsError
        If a certificate or key of the settings cannot be used.
    """

    def __init__(
        self,
        destination: DimseDestination,
        ae_title: str,
        *,
        timeout_s: float | None = None,
        linger_s: float = _LINGER_S,
        lines: Lines | None = None,
    ) -> None:
        self._destination = destination
        self._caller = Caller(destination, ae_title, timeout_s=timeout_s, lines=lines)
        self._linger_s = linger_s

    def ask(
        self,
        transaction_uid: str,
        objects: Sequence[Kept],
        *,
        taken: Callable[[], None],
        report: Report,
    ) -> Asked:
        """N-ACTION; a report that comes soon is taken on the same association."""
        heard = threading.Event()
        hearing: list[threading.Thread] = []

        def reported(event: evt.Event) -> tuple[int, Dataset | None]:
            hearing.append(threading.current_thread())
            try:
                return report(self._peer, int(event.event_type or 0), event.event_information), None
            finally:
                heard.set()

        context = build_context(StorageCommitmentPushModel, list(_SYNTAXES))
        with self._caller.call([context], [(evt.EVT_N_EVENT_REPORT, reported)]) as line:
            if not line.open:
                return Asked(reply=_not_open(line), text=line.why_not())
            try:
                status, _reply = line.association.send_n_action(
                    _request(transaction_uid, objects),
                    _REQUEST_COMMITMENT,
                    StorageCommitmentPushModel,
                    StorageCommitmentPushModelInstance,
                )
            except (RuntimeError, ValueError) as error:
                return Asked(reply=Reply.NOT_REACHED, text=f"the association ended: {error}")
            if "Status" not in status:
                return Asked(reply=Reply.NOT_NOW, text="no answer to the request")
            code = int(status.Status)
            if code in _NO_SERVICE:
                return Asked(reply=Reply.NOT_OFFERED, text=f"0x{code:04X} to the request")
            if code != 0:
                comment = str(status.get("ErrorComment", "")).strip()
                text = f"0x{code:04X} to the request" + (f": {comment}" if comment else "")
                return Asked(reply=Reply.NOT_NOW, text=text)
            taken()
            heard.wait(self._linger_s)
            for thread in hearing:
                thread.join(self._caller.timeout_s)  # until its answer is on the way
        return Asked(reply=Reply.TAKEN)

    def look(self, objects: Sequence[Kept]) -> Seen:
        """C-FIND at the image level, series by series."""
        context = build_context(StudyRootQueryRetrieveInformationModelFind, list(_SYNTAXES))
        with self._caller.call([context]) as line:
            if not line.open:
                return Seen(reply=_not_open(line), text=line.why_not())
            found: set[str] = set()
            for (study, series), uids in _by_series(objects).items():
                try:
                    found |= _find(line.association, study, series, uids)
                    if not uids <= found:
                        # Some match no list of UIDs; the series alone, they all match.
                        found |= _find(line.association, study, series, frozenset())
                except _QueryError as error:
                    return Seen(reply=error.reply, text=str(error))
        return Seen(
            reply=Reply.TAKEN,
            found=frozenset(item.sop_instance_uid for item in objects) & found,
        )

    @property
    def _peer(self) -> Peer:
        return Peer(
            host=self._destination.host,
            port=self._destination.port,
            ae_title=self._destination.ae_title,
        )


class _QueryError(Exception):
    """A query that did not come to its end."""

    def __init__(self, reply: Reply, text: str) -> None:
        super().__init__(text)
        self.reply = reply


def _not_open(line: Line) -> Reply:
    return Reply.NOT_OFFERED if line.took_no_context else Reply.NOT_REACHED


def _request(transaction_uid: str, objects: Sequence[Kept]) -> Dataset:
    """The action information of a storage commitment request (PS3.4 Table J.3-2)."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for item in objects:
        reference = Dataset()
        reference.ReferencedSOPClassUID = item.sop_class_uid
        reference.ReferencedSOPInstanceUID = item.sop_instance_uid
        request.ReferencedSOPSequence.append(reference)
    return request


def _by_series(objects: Sequence[Kept]) -> dict[tuple[str, str], frozenset[str]]:
    series: dict[tuple[str, str], frozenset[str]] = {}
    for item in objects:
        key = (item.study_instance_uid, item.series_instance_uid)
        series[key] = series.get(key, frozenset()) | {item.sop_instance_uid}
    return series


def _find(association: Association, study: str, series: str, uids: frozenset[str]) -> set[str]:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study
    query.SeriesInstanceUID = series
    query.SOPInstanceUID = sorted(uids) if uids else ""
    found: set[str] = set()
    try:
        for number, (status, match) in enumerate(_answers(association, query)):
            code = int(status.Status) if "Status" in status else None
            if code in _PENDING:
                found.add(str(match.get("SOPInstanceUID", "")) if match is not None else "")
                if number >= _MOST_MATCHES:
                    raise _QueryError(Reply.NOT_NOW, "the query was answered without end")
            elif code is None:
                # It was reached, and has no words for callers that it does not know.
                raise _QueryError(Reply.NOT_NOW, "the query was not answered")
            elif code != 0:
                raise _QueryError(_failed(code), f"the query was answered 0x{code:04X}")
    except (RuntimeError, ValueError) as error:
        raise _QueryError(Reply.NOT_REACHED, f"the association ended: {error}") from error
    return found


def _answers(association: Association, query: Dataset) -> Iterator[tuple[Dataset, Any]]:
    yield from association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)


def _failed(code: int) -> Reply:
    return Reply.NOT_NOW if code in _OUT_OF_RESOURCES else Reply.NOT_OFFERED
