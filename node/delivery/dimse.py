"""To a PACS by C-STORE: one association for a batch, an answer for each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.presentation import PresentationContext, build_context

from node.delivery.association import Caller, Line
from node.delivery.lines import Lines
from node.delivery.sending import Answer, Outgoing, speaks_of_class
from node.sections import DimseDestination
from storage.states import Silence

# A file that is sent by its path goes out as it lies there, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True

_SLOWEST_BYTES_PER_S = 100_000  # of a line on which an object's way does not count as silence
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
        Host, port, AE title, TLS and patience of the PACS.
    ae_title
        Our own.
    timeout_s
        In place of the destination's.
    lines
        Where a stop finds the associations that are open.

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
        lines: Lines | None = None,
    ) -> None:
        self._name = destination.name
        self._caller = Caller(destination, ae_title, timeout_s=timeout_s, lines=lines)

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        """See :class:`node.delivery.sending.Sender`."""
        with self._caller.call(_contexts(objects)) as line:
            why = ""
            for outgoing in objects:
                if line.open:
                    yield self._send_one(line, outgoing)
                else:
                    why = why or line.why_not()
                    yield _not_sent(line, outgoing, why)

    def _send_one(self, line: Line, outgoing: Outgoing) -> Answer:
        accepted = line.accepted(outgoing.sop_class_uid)
        if not accepted:
            return _refused(
                outgoing,
                f"{self._name} accepts no transfer syntax for SOP class "
                f"{UID(outgoing.sop_class_uid).name}; enable the class at the PACS",
                class_refused=True,
            )
        association = line.association
        try:
            size_bytes = outgoing.path.stat().st_size
            association.dimse_timeout = self._caller.timeout_s + size_bytes / _SLOWEST_BYTES_PER_S
            if outgoing.transfer_syntax_uid in accepted:
                status = association.send_c_store(outgoing.path)  # the very bytes of the file
            else:
                status = association.send_c_store(_unpacked(outgoing))
        except RuntimeError as error:
            # The association ended before anything of this object went out.
            return _refused(
                outgoing, f"not sent to {self._name}: {error}", silence=Silence.NOT_REACHED
            )
        except (ValueError, OSError) as error:
            # The file cannot be read, or the data set cannot be encoded for it.
            return _refused(outgoing, f"not sent to {self._name}: {error}")
        return _read_answer(outgoing, status)


def _not_sent(line: Line, outgoing: Outgoing, why: str) -> Answer:
    if line.took_no_context:
        why += f"; enable SOP class {UID(outgoing.sop_class_uid).name} at the PACS"
        return _refused(outgoing, why, class_refused=True)
    return _refused(outgoing, why, silence=Silence.NOT_REACHED)


def _contexts(objects: Sequence[Outgoing]) -> list[PresentationContext]:
    """A context for each class in its own syntax, and one for each class uncompressed."""
    wanted: dict[tuple[str, tuple[str, ...]], None] = {}
    for outgoing in objects:
        wanted[outgoing.sop_class_uid, (outgoing.transfer_syntax_uid,)] = None
        wanted[outgoing.sop_class_uid, _UNCOMPRESSED] = None
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in wanted]


def _unpacked(outgoing: Outgoing) -> Dataset:
    """The same object uncompressed, for an archive that does not take its encoding (PS3.5 A.4)."""
    dataset = dcmread(outgoing.path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.decompress(generate_instance_uid=False)
    return dataset


def _read_answer(outgoing: Outgoing, status: Dataset) -> Answer:
    if "Status" not in status:
        return _refused(
            outgoing,
            "no answer: the association was lost or timed out; it may have the object",
            silence=Silence.NO_ANSWER,
        )
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


def _refused(
    outgoing: Outgoing,
    text: str,
    *,
    class_refused: bool = False,
    silence: Silence | None = None,
) -> Answer:
    return Answer(
        delivery_id=outgoing.delivery_id,
        accepted=False,
        status=None,
        text=text,
        class_refused=class_refused,
        silence=silence,
    )
