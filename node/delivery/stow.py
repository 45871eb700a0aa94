"""To an archive by DICOMweb: STOW-RS, one request for each object (PS3.18 10.5)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from node.delivery.sending import Answer, Outgoing, speaks_of_class
from node.sections import DicomwebDestination

_FAILED_SOP_SEQUENCE = "00081198"
_FAILURE_REASON = "00081197"
_REFERENCED_SOP_SEQUENCE = "00081199"


class StowSender:
    """Sends by STOW-RS.

    One object a request: the answer then speaks of that object alone, also at archives that
    answer 400 to a request of which only a part failed.
    """

    def __init__(self, destination: DicomwebDestination, *, timeout_s: float = 60.0) -> None:
        self._destination = destination
        self._timeout_s = timeout_s

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        """See :class:`node.delivery.sending.Sender`."""
        url = f"{self._destination.url}/studies"
        with httpx.Client(timeout=self._timeout_s) as client:
            for outgoing in objects:
                yield self._send_one(client, url, outgoing)

    def _send_one(self, client: httpx.Client, url: str, outgoing: Outgoing) -> Answer:
        boundary = uuid.uuid4().hex
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                outgoing.path.read_bytes(),
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        try:
            response = client.post(url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return Answer(
                delivery_id=outgoing.delivery_id,
                accepted=False,
                status=None,
                text=f"{self._destination.name} cannot be reached: {error}",
            )
        return _read_answer(outgoing, response)


def _read_answer(outgoing: Outgoing, response: httpx.Response) -> Answer:
    """Judge by the body where there is one: a status alone does not speak of an object."""
    stored, failure = _outcome(response, outgoing.sop_instance_uid)
    accepted = failure is None and (stored or response.status_code == httpx.codes.OK)
    words = "stored" if accepted else "refused"
    reason = "" if failure is None else f", failure reason 0x{failure:04X}"
    return Answer(
        delivery_id=outgoing.delivery_id,
        accepted=accepted,
        status=response.status_code,
        text=f"HTTP {response.status_code} {words}{reason}",
        class_refused=not accepted and _speaks_of_class(response, failure),
    )


def _speaks_of_class(response: httpx.Response, failure: int | None) -> bool:
    """By the failure reason (PS3.18 I.2.2); 409 without one is for classes first (Table 10.5.3-1).

    An archive that meant something else takes the other form no more than this one, and says so.
    """
    if failure is None:
        return response.status_code == httpx.codes.CONFLICT
    return speaks_of_class(failure)


def _outcome(response: httpx.Response, sop_instance_uid: str) -> tuple[bool, int | None]:
    """Whether the store response names the object as stored, and the failure reason if any."""
    try:
        body: Any = response.json()
        answer = body[0] if isinstance(body, list) else body
        for item in answer.get(_FAILED_SOP_SEQUENCE, {}).get("Value", ()):
            return False, int(item.get(_FAILURE_REASON, {}).get("Value", [0x0110])[0])
        stored = {
            item["00081155"]["Value"][0]
            for item in answer.get(_REFERENCED_SOP_SEQUENCE, {}).get("Value", ())
        }
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False, None
    return sop_instance_uid in stored, None
