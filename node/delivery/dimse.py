"""To a PACS by C-STORE: one association for a batch, an answer for each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext, build_context

from node.delivery.sending import Answer, Outgoing, speaks_of_class
from node.sections import DimseDestination

log = structlog.get_logger(__name__)

# A file that is sent by its path goes out as it lies there, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True

_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
# PS3.4 Table B.2-1: the object is stored, and the archive changed or missed something.
_WARNINGS = {
    0xB000: "stored, some elements were coerced",
    0xB006: "stored, some elements were discarded",
    0xB007: "stored, the data set does not match its SOP class",
}


class DimseSender:
    """Sends by C-STORE.

    Parameters
    ----------
    destination
        Host, port and AE title of the PACS.
    ae_title
        Our own.
    timeout_s
        How long to wait for the network, an association and an answer.
    """

    def __init__(
        self, destination: DimseDestination, ae_title: str, *, timeout_s: float = 60.0
    ) -> None:
        self._destination = destination
        self._ae_title = ae_title
        self._timeout_s = timeout_s

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        """See :class:`node.delivery.sending.Sender`."""
        entity = AE(self._ae_title)
        entity.connection_timeout = self._timeout_s
        entity.network_timeout = self._timeout_s
        entity.acse_timeout = self._timeout_s
        entity.dimse_timeout = self._timeout_s
        rejections: list[A_ASSOCIATE_RJ] = []
        association = entity.associate(
            self._destination.host,
            self._destination.port,
            contexts=_contexts(objects),
            ae_title=self._destination.ae_title,
            evt_handlers=[(evt.EVT_PDU_RECV, _keep_rejection, [rejections])],
        )
        try:
            for outgoing in objects:
                yield self._send_one(association, outgoing, rejections)
        finally:
            if association.is_established:
                association.release()

    def _send_one(
        self, association: Association, outgoing: Outgoing, rejections: Sequence[A_ASSOCIATE_RJ]
    ) -> Answer:
        if not association.is_established:
            no_class = _took_no_context(association, rejections)
            why = self._why_not(association, rejections)
            if no_class:
                why += f"; enable SOP class {UID(outgoing.sop_class_uid).name} at the PACS"
            return _refused(outgoing, why, class_refused=no_class)
        accepted = _accepted_syntaxes(association, outgoing)
        if not accepted:
            return _refused(
                outgoing,
                f"{self._destination.name} accepts no transfer syntax for SOP class "
                f"{UID(outgoing.sop_class_uid).name}; enable the class at the PACS",
                class_refused=True,
            )
        try:
            if outgoing.transfer_syntax_uid in accepted:
                status = association.send_c_store(outgoing.path)  # the very bytes of the file
            else:
                status = association.send_c_store(_unpacked(outgoing))
        except (RuntimeError, ValueError, OSError) as error:
            # The association ended, or the data set cannot be encoded for it.
            return _refused(outgoing, f"not sent to {self._destination.name}: {error}")
        return _read_answer(outgoing, status)

    def _why_not(self, association: Association, rejections: Sequence[A_ASSOCIATE_RJ]) -> str:
        where = (
            f"{self._destination.name} ({self._destination.ae_title} at "
            f"{self._destination.host}:{self._destination.port})"
        )
        if rejections:
            return f"{where} rejected the association: {rejections[0].reason_str}"
        if _took_no_context(association, rejections):
            return f"{where} accepted none of our presentation contexts"
        return f"{where} cannot be reached, or ended the association"


def _keep_rejection(event: evt.Event, rejections: list[A_ASSOCIATE_RJ]) -> None:
    # A peer that rejects and closes at once is taken by pynetdicom 3.0 for one that never answered
    # when it closes before the requesting thread looks; the PDU itself is seen in every case.
    if isinstance(event.pdu, A_ASSOCIATE_RJ):
        rejections.append(event.pdu)


def _contexts(objects: Sequence[Outgoing]) -> list[PresentationContext]:
    """A context for each class in its own syntax, and one for each class uncompressed."""
    wanted: dict[tuple[str, tuple[str, ...]], None] = {}
    for outgoing in objects:
        wanted[outgoing.sop_class_uid, (outgoing.transfer_syntax_uid,)] = None
        wanted[outgoing.sop_class_uid, _UNCOMPRESSED] = None
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in wanted]


def _took_no_context(association: Association, rejections: Sequence[A_ASSOCIATE_RJ]) -> bool:
    """Whether the peer answered and would not have a single one of our classes."""
    answered = association.acceptor.primitive is not None
    return answered and not rejections and not association.accepted_contexts


def _accepted_syntaxes(association: Association, outgoing: Outgoing) -> set[str]:
    return {
        str(context.transfer_syntax[0])
        for context in association.accepted_contexts
        if context.abstract_syntax == outgoing.sop_class_uid
    }


def _unpacked(outgoing: Outgoing) -> Dataset:
    """The same object uncompressed, for an archive that does not take its encoding (PS3.5 A.4)."""
    dataset = dcmread(outgoing.path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.decompress(generate_instance_uid=False)
    return dataset


def _read_answer(outgoing: Outgoing, status: Dataset) -> Answer:
    if "Status" not in status:
        return _refused(outgoing, "no answer: the association was lost or timed out")
    code = int(status.Status)
    comment = str(status.get("ErrorComment", "")).strip()
    accepted = code == 0 or code in _WARNINGS
    words = "stored" if code == 0 else _WARNINGS.get(code, "refused")
    text = f"0x{code:04X} {words}" + (f": {comment}" if comment else "")
    return Answer(
        delivery_id=outgoing.delivery_id,
        accepted=accepted,
        status=code,
        text=text,
        class_refused=speaks_of_class(code),
    )


def _refused(outgoing: Outgoing, text: str, *, class_refused: bool = False) -> Answer:
    return Answer(
        delivery_id=outgoing.delivery_id,
        accepted=False,
        status=None,
        text=text,
        class_refused=class_refused,
    )
