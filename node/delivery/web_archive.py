"""Asking a DICOMweb archive what it keeps: QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from node.delivery.asking import Asked, Kept, Reply, Report, Seen
from node.delivery.lines import Lines
from node.delivery.web import WebCaller
from node.secrets import SecretError
from node.sections import DicomwebDestination

_SOP_INSTANCE_UID = "00080018"
_NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebArchive:
    """Asks by DICOMweb, which has no storage commitment; see :mod:`node.delivery.asking`.

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
        self._url = destination.url
        self._caller = WebCaller(destination, timeout_s=timeout_s, lines=lines)

    def ask(
        self,
        transaction_uid: str,  # noqa: ARG002 - as the protocol has it
        objects: Sequence[Kept],  # noqa: ARG002
        *,
        taken: Callable[[], None],  # noqa: ARG002
        report: Report,  # noqa: ARG002
    ) -> Asked:
        """There is nobody to ask."""
        return Asked(reply=Reply.NOT_OFFERED, text="DICOMweb offers no storage commitment")

    def look(self, objects: Sequence[Kept]) -> Seen:
        """QIDO-RS for the instances of each series, and one by one where that shows too few."""
        try:
            client = self._caller.client()
        except SecretError as error:
            return Seen(reply=Reply.NOT_NOW, text=str(error))
        series: dict[tuple[str, str], set[str]] = {}
        for item in objects:
            key = (item.study_instance_uid, item.series_instance_uid)
            series.setdefault(key, set()).add(item.sop_instance_uid)
        found: set[str] = set()
        with client:
            try:
                for (study, number), uids in series.items():
                    where = f"{self._url}/studies/{study}/series/{number}/instances"
                    found |= self._instances(client, where)
                    for uid in sorted(uids - found):
                        # A long series may be shown in pages.
                        found |= self._instances(client, where, uid)
            except httpx.HTTPError as error:
                return Seen(
                    reply=Reply.NOT_REACHED,
                    text=f"{self._name} cannot be reached: {type(error).__name__}",
                )
            except _QueryError as error:
                return Seen(reply=error.reply, text=str(error))
        wanted = frozenset(item.sop_instance_uid for item in objects)
        return Seen(reply=Reply.TAKEN, found=wanted & found)

    def _instances(self, client: httpx.Client, where: str, uid: str | None = None) -> set[str]:
        named = {} if uid is None else {"SOPInstanceUID": uid}
        response = client.get(where, params=named, headers={"Accept": "application/dicom+json"})
        status = response.status_code
        if status == httpx.codes.NOT_FOUND and self._queries(client):
            return set()  # it knows no such study or series
        if status == httpx.codes.NO_CONTENT:
            return set()
        if status != httpx.codes.OK:
            reply = Reply.NOT_NOW if status in _NOT_NOW else Reply.NOT_OFFERED
            raise _QueryError(reply, f"the query was answered HTTP {status}")
        try:
            return {str(item[_SOP_INSTANCE_UID]["Value"][0]) for item in _listed(response.json())}
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _QueryError(
                Reply.NOT_OFFERED, "the query was answered by something that is no list of objects"
            ) from error

    def _queries(self, client: httpx.Client) -> bool:
        """Whether a "not found" speaks of the object: an archive may have no query at all."""
        response = client.get(
            f"{self._url}/studies",
            params={"limit": 1},
            headers={"Accept": "application/dicom+json"},
        )
        return response.status_code in (httpx.codes.OK, httpx.codes.NO_CONTENT)


class _QueryError(Exception):
    """A query that did not come to its end."""

    def __init__(self, reply: Reply, text: str) -> None:
        super().__init__(text)
        self.reply = reply


def _listed(body: Any) -> list[Any]:
    if not isinstance(body, list):
        raise TypeError("not a list")
    return body
