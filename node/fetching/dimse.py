"""An archive by DIMSE: C-FIND to ask it, C-GET or C-MOVE to let it send (PS3.4 Annex C)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.delivery.association import Caller, Line, place
from node.doors.contexts import (
    CAPTURE_CLASSES,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    ULTRASOUND_CLASSES,
)
from node.doors.transport import receive_into
from node.fetching.answers import (
    OBJECT_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    objects_of,
    series_of,
    studies_of,
)
from node.fetching.model import (
    Answers,
    FetchError,
    FoundObject,
    FoundSeries,
    FoundStudy,
    Getter,
    Got,
    Question,
    RefusedError,
    Request,
    UnreachableError,
    is_uid,
)
from node.fetching.receiving import Receiver
from node.sections import DimsePeer
from node.tls import TlsError
from node.watch.transfers import Peer

FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: IDs are odd, 1 to 255

By = Literal["auto", "get", "move"]

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_OTHER_SYNTAXES = tuple(syntax for syntax in TRANSFER_SYNTAXES if syntax not in _PLAIN)
_PENDING = (0xFF00, 0xFF01)
_MOST_ANSWERS = 100_000  # an archive may not talk without end
_BATCH = 20  # instances in a request
_REJECTED_FOR_GOOD = 1  # PS3.8 9.3.4
_NO_SERVICE = (0x0118, 0x0122, 0x0211)  # no such class, class not supported, unrecognised operation
_UNKNOWN_DESTINATION = 0xA801
_WORDS = {
    0xA701: "it is out of resources: it cannot count the matches",
    0xA702: "it is out of resources: it cannot send",
    0xA801: "it does not know where to send",
    0xA900: "the request does not fit its model",
    0xB000: "some of its sub-operations failed",
    0xFE00: "it cancelled",
    0x0124: "we are not authorised",
}


def storage_contexts(sop_classes: Sequence[str]) -> list[PresentationContext]:
    """Contexts for what an archive is to send, at most 126: two are for its services.

    An archive chooses one syntax in each context. So each compressed one has a context of its
    own: with all in one, clips would come unpacked, or not at all. What an ultrasound machine
    writes goes first, and what has no pixels is asked for uncompressed alone.
    """
    classes = [UID(uid) for uid in sop_classes or STORAGE_CLASSES if uid in STORAGE_CLASSES]
    pictures = [uid for uid in classes if uid in ULTRASOUND_CLASSES or uid in CAPTURE_CLASSES]
    pictures += [uid for uid in classes if uid.startswith("1.2.840.10008.5.1.4.1.1.6.")]
    contexts = [build_context(uid, list(_PLAIN)) for uid in classes]
    contexts += [
        build_context(uid, [syntax])
        for syntax in _OTHER_SYNTAXES
        for uid in dict.fromkeys(pictures)
    ]
    return contexts[: MOST_CONTEXTS - 2]


class DimseArchive:
    """See :class:`node.fetching.model.Archive`.

    Parameters
    ----------
    place
        The archive, of the settings.
    ae_title
        Our own: who asks, and where a C-MOVE goes.
    by
        How it is to send. "auto": by C-GET where it offers that, otherwise by C-MOVE.
    door
        Where our own door listens, for messages; None where no node runs, and nothing can be
        moved to it.

    Raises
    ------
    FetchError
        If a certificate of the settings cannot be used.
    """

    batch = _BATCH

    def __init__(
        self, archive: DimsePeer, ae_title: str, *, by: By = "auto", door: str | None = None
    ) -> None:
        self.name = archive.name
        self.way: str = "get or move" if by == "auto" else by
        self.peer = Peer(host=archive.host, port=archive.port, ae_title=archive.ae_title)
        self.receiver: Receiver | None = None
        self._archive = archive
        self._ae_title = ae_title
        self._door = door
        try:
            self._caller = Caller(archive, ae_title)
        except TlsError as error:
            raise FetchError(f"{archive.section} {archive.name!r}: {error}") from error

    @contextmanager
    def asking(self) -> Iterator[_Asker]:
        """An association for queries."""
        with self._open([build_context(FIND, list(_PLAIN))]) as line:
            if not line.accepted(FIND):
                raise FetchError(f"{place(self._archive)} offers no C-FIND (Study Root); enable it")
            yield _Asker(line)

    @contextmanager
    def getting(self, sop_classes: Sequence[str]) -> Iterator[Getter]:
        """An association on which the archive sends, or is told to send to our door."""
        receiver = self.receiver
        if receiver is None:
            raise ValueError("nobody is there to receive")
        services = {"get": [GET], "move": [MOVE]}.get(self.way, [GET, MOVE])
        contexts = [build_context(service, list(_PLAIN)) for service in services]
        storage = storage_contexts(sop_classes) if GET in services else []
        roles = {str(one.abstract_syntax): one.abstract_syntax for one in storage}
        try:
            with self._open(
                contexts + storage,
                [(evt.EVT_C_STORE, receiver.on_store)],
                [build_role(uid, scp_role=True) for uid in roles.values() if uid is not None],
            ) as line:
                self.way = self._chosen(line)
                if self.way == "move":
                    _wait_while_it_comes(line.association, receiver.count_here)
                    yield _Mover(line, receiver, self._ae_title, self._door or "")
                else:
                    receive_into(line.association, receiver.new_file)
                    _wait_while_it_comes(line.association, lambda: receiver.progress_bytes)
                    yield _Getter(line)
        finally:
            receiver.drop_files()

    def _chosen(self, line: Line) -> str:
        where = place(self._archive)
        sends = any(context.as_scp for context in line.association.accepted_contexts)
        if line.accepted(GET) and sends and self.way != "move":
            return "get"
        if self.way == "get":
            raise FetchError(f"{where} offers no C-GET to us; enable it there, or use --by move")
        if not line.accepted(MOVE):
            raise FetchError(f"{where} offers neither C-GET nor C-MOVE to us; enable one of them")
        if self._door is None:
            raise FetchError(
                f"{where} offers no C-GET, and a C-MOVE sends to the node, which does not run; "
                "start it, or enable C-GET at the archive"
            )
        return "move"

    @contextmanager
    def _open(self, contexts: Sequence[PresentationContext], *more: Any) -> Iterator[Line]:
        with self._caller.call(contexts, *more) as line:
            if not line.open:
                if any(one.result == _REJECTED_FOR_GOOD for one in line.rejections):
                    raise FetchError(
                        f"{line.why_not()}; see that it knows us as {self._ae_title!r}, and its AE "
                        "title in the settings"
                    )
                if line.took_no_context:
                    raise FetchError(f"{line.why_not()}; let {self._ae_title!r} query it")
                raise UnreachableError(line.why_not())
            try:
                yield line
            except BaseException:
                # Whoever leaves in the middle does not wait until all was sent.
                if line.association.is_established:
                    line.association.abort()
                raise


def _wait_while_it_comes(association: Association, progress: Callable[[], int]) -> None:
    """An object that takes its time on a slow line is no silence."""
    dimse = association.dimse

    def get_msg(block: bool = False) -> Any:
        while True:
            before = progress()
            message = type(dimse).get_msg(dimse, block)
            if message[1] is not None or not block or not association.is_established:
                return message
            if progress() == before:
                return message

    setattr(dimse, "get_msg", get_msg)  # noqa: B010 - a method of this one


class _Asker:
    def __init__(self, line: Line) -> None:
        self._line = line

    def studies(self, question: Question) -> Answers[FoundStudy]:
        query = _query("STUDY", STUDY_KEYS)
        query.StudyInstanceUID = question.study_instance_uid or ""
        query.AccessionNumber = question.accession_number or ""
        query.StudyDate = f"{question.day:%Y%m%d}" if question.day else ""
        query.ModalitiesInStudy = question.modality or ""
        return studies_of(self._find(query), question)

    def series(self, study_instance_uid: str) -> Answers[FoundSeries] | None:
        query = _query("SERIES", SERIES_KEYS)
        query.StudyInstanceUID = study_instance_uid
        try:
            return series_of(self._find(query), study_instance_uid)
        except RefusedError:
            return None

    def objects(
        self, study_instance_uid: str, series_instance_uid: str
    ) -> Answers[FoundObject] | None:
        query = _query("IMAGE", OBJECT_KEYS)
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = series_instance_uid
        try:
            return objects_of(self._find(query), study_instance_uid, series_instance_uid)
        except RefusedError:
            return None

    def _find(self, query: Dataset) -> list[Dataset]:
        where = place(self._line.destination)
        found: list[Dataset] = []
        try:
            for status, answer in self._line.association.send_c_find(query, FIND):
                code = _code(status)
                if code is None:
                    raise UnreachableError(f"{where} did not answer a query")
                if code in _PENDING:
                    if answer is not None:
                        found.append(answer)
                    if len(found) > _MOST_ANSWERS:
                        raise UnreachableError(f"{where} answered a query without end")
                elif 0xA700 <= code < 0xA800:
                    raise UnreachableError(f"{where} is out of resources ({_words(status)})")
                elif code != 0:
                    raise RefusedError(f"the query was answered {_words(status)}")
        except (RuntimeError, ValueError) as error:
            raise UnreachableError(f"{where} ended the association at a query") from error
        return found


class _Getter:
    def __init__(self, line: Line) -> None:
        self._line = line

    def get(self, request: Request) -> Got:
        return _sent(
            self._line, lambda: self._line.association.send_c_get(_identifier(request), GET)
        )


class _Mover:
    def __init__(self, line: Line, receiver: Receiver, ae_title: str, door: str) -> None:
        self._line = line
        self._receiver = receiver
        self._ae_title = ae_title
        self._door = door

    def get(self, request: Request) -> Got:
        before = self._receiver.count_here()
        try:
            got = _sent(
                self._line,
                lambda: self._line.association.send_c_move(
                    _identifier(request), self._ae_title, MOVE
                ),
            )
        except _UnknownDestinationError as error:
            raise FetchError(
                f"{place(self._line.destination)} does not know where {self._ae_title!r} is "
                f"(0xA801): enter this AE title there with this machine's address and port "
                f"{self._door.rpartition(':')[2]}, or use --by get"
            ) from error
        self._receiver.look(request.objects or None, before)
        return got


class _UnknownDestinationError(Exception):
    """Status A801."""


def _sent(line: Line, send: Callable[[], Iterator[tuple[Dataset, Dataset | None]]]) -> Got:
    """Let an archive send, to its last word."""
    where = place(line.destination)
    last, names = Dataset(), None
    try:
        for status, answer in send():
            last, names = status, answer
    except (RuntimeError, ValueError) as error:
        raise UnreachableError(f"{where} ended the association before it sent") from error
    code = _code(last)
    if code is None or code in _PENDING:
        raise UnreachableError(f"{where} fell silent, or ended the association, while it sent")
    if code == _UNKNOWN_DESTINATION:
        raise _UnknownDestinationError
    if code in _NO_SERVICE:
        raise FetchError(f"{where} does not do what it offered ({_words(last)})")
    failed = int(last.get("NumberOfFailedSuboperations") or 0)
    if code == 0 and not failed:
        return Got()
    counted = f", {failed} not sent" if failed else ""
    return Got(trouble=f"{_words(last)}{counted}", failed=_named(names))


def _named(names: Dataset | None) -> tuple[str, ...]:
    value = None if names is None else names.get("FailedSOPInstanceUIDList")
    if not value:
        return ()
    many = [value] if isinstance(value, str) else list(value)
    return tuple(str(uid) for uid in many if is_uid(str(uid)))


def _query(level: str, keys: Sequence[str]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for key in keys:
        setattr(query, key, None)
    return query


def _identifier(request: Request) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = request.level
    identifier.StudyInstanceUID = request.study_instance_uid
    if request.series_instance_uid is not None:
        identifier.SeriesInstanceUID = request.series_instance_uid
    if request.objects:
        identifier.SOPInstanceUID = list(request.objects)
    return identifier


def _code(status: Dataset) -> int | None:
    return int(status.Status) if "Status" in status else None


def _words(status: Dataset) -> str:
    code = int(status.Status)
    return f"0x{code:04X}" + (f": {_WORDS[code]}" if code in _WORDS else "")
