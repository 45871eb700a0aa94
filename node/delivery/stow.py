"""To an archive by DICOMweb: STOW-RS, one request for each object (PS3.18 10.5)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from node.delivery.lines import Lines
from node.delivery.sending import Answer, Outgoing, speaks_of_class
from node.delivery.web import WebCaller, retry_after_s
from node.secrets import SecretError
from node.sections import DicomwebDestination
from storage.states import Silence

_FAILED_SOP_SEQUENCE = "00081198"
_FAILURE_REASON = "00081197"
_REFERENCED_SOP_SEQUENCE = "00081199"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_WARNING_REASON = "00081196"
_PROCESSING_FAILURE = 0x0110

#: What an operator can do about a status that does not speak of the object.
_NEXT_STEPS = {
    401: "it does not know who we are: see token or user of this destination in the settings",
    403: "it does not allow this to us: ask for the right to store there",
    404: "nothing takes objects there: see the url of this destination in the settings",
    413: "it takes no request of this size: raise its limit",
    415: "it does not take this transfer syntax",
    429: "it asks for fewer requests",
}
#: After these the other objects of a batch would hear the same.
_FOR_ALL = frozenset({401, 403, 429, 503})


class StowSender:
    """Sends by STOW-RS.

    One object a request: the answer then speaks of that object alone, also at archives that
    answer 400 to a request of which only a part failed.

    Parameters
    ----------
    timeout_s
        In place of the destination's.
    lines
        Where a stop finds the connections that are open.

    Raises
    ------
    TlsError, SecretError
        If a file that the settings name cannot be used.
    """

    def __init__(
        self,
        destination: DicomwebDestination,
        *,
        timeout_s: float | None = None,
        lines: Lines | None = None,
    ) -> None:
        self._name = destination.name
        self._url = f"{destination.url}/studies"
        self._caller = WebCaller(destination, timeout_s=timeout_s, lines=lines)

    def send(self, objects: Sequence[Outgoing]) -> Iterator[Answer]:
        """See :class:`node.delivery.sending.Sender`.

        Where an archive cannot be reached, or wants no request at all now, the rest of a batch is
        answered without asking it again.
        """
        try:
            client = self._caller.client()
        except SecretError as error:
            for outgoing in objects:
                yield _not_sent(outgoing, f"not sent to {self._name}: {error}")
            return
        with client:
            broken: Answer | None = None
            for outgoing in objects:
                if broken is not None:
                    yield replace(
                        broken,
                        delivery_id=outgoing.delivery_id,
                        status=None,
                        text=f"not sent to {self._name}, after: {broken.text}",
                        silence=Silence.NOT_REACHED,
                    )
                    continue
                answer = self._send_one(client, outgoing)
                yield answer
                if answer.silence is not None or answer.status in _FOR_ALL:
                    broken = answer

    def _send_one(self, client: httpx.Client, outgoing: Outgoing) -> Answer:
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
            response = client.post(self._url, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return _not_sent(outgoing, f"{self._name} cannot be reached: {error}")
        except httpx.HTTPError as error:
            return Answer(
                delivery_id=outgoing.delivery_id,
                accepted=False,
                status=None,
                text=f"no answer of {self._name} ({type(error).__name__}); it may have the object",
                silence=Silence.NO_ANSWER,
            )
        return _read_answer(outgoing, response)


def _not_sent(outgoing: Outgoing, text: str) -> Answer:
    return Answer(
        delivery_id=outgoing.delivery_id,
        accepted=False,
        status=None,
        text=text,
        silence=Silence.NOT_REACHED,
    )


def _read_answer(outgoing: Outgoing, response: httpx.Response) -> Answer:
    """Judge by the body where there is one: a status alone does not speak of an object."""
    outcome = _outcome(response, outgoing.sop_instance_uid)
    accepted = outcome.failure is None and (
        outcome.stored or response.status_code == httpx.codes.OK
    )
    words = f"HTTP {response.status_code} {'stored' if accepted else 'refused'}"
    if outcome.failure is not None:
        words += f", failure reason 0x{outcome.failure:04X}"
    if outcome.warning is not None:
        words += f", warning 0x{outcome.warning:04X}"
    if not accepted and response.status_code in _NEXT_STEPS:
        words += f": {_NEXT_STEPS[response.status_code]}"
    return Answer(
        delivery_id=outgoing.delivery_id,
        accepted=accepted,
        status=response.status_code,
        text=words,
        class_refused=not accepted and _speaks_of_class(response, outcome.failure),
        retry_after_s=None if accepted else retry_after_s(response),
    )


def _speaks_of_class(response: httpx.Response, failure: int | None) -> bool:
    """By the failure reason (PS3.18 I.2.2); 409 without one is for classes first (Table 10.5.3-1).

    An archive that meant something else takes the other form no more than this one, and says so.
    """
    if failure is None:
        return response.status_code == httpx.codes.CONFLICT
    return speaks_of_class(failure)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """What a store response says of the object (PS3.18 I.2)."""

    stored: bool = False
    failure: int | None = None
    warning: int | None = None


def _outcome(response: httpx.Response, sop_instance_uid: str) -> _Outcome:
    try:
        body: Any = response.json()
        answer = body[0] if isinstance(body, list) else body
        for item in _items(answer, _FAILED_SOP_SEQUENCE):
            if _first(item, _REFERENCED_SOP_INSTANCE_UID, sop_instance_uid) == sop_instance_uid:
                return _Outcome(failure=int(_first(item, _FAILURE_REASON, _PROCESSING_FAILURE)))
        for item in _items(answer, _REFERENCED_SOP_SEQUENCE):
            if _first(item, _REFERENCED_SOP_INSTANCE_UID, "") == sop_instance_uid:
                warning = _first(item, _WARNING_REASON, None)
                return _Outcome(stored=True, warning=None if warning is None else int(warning))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        pass  # no body, or none that can be read: the status alone counts
    return _Outcome()


def _items(answer: Any, tag: str) -> Any:
    return answer.get(tag, {}).get("Value", ())


def _first(item: Any, tag: str, otherwise: Any) -> Any:
    values = item.get(tag, {}).get("Value", ())
    return values[0] if values else otherwise
