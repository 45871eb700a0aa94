"""What the routes of DICOMweb share: the node's parts, UIDs, and what the audit is told."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from node.watch.transfers import Direction, Transfer
from node.web.callers import Caller
from node.web.dicomweb.pixels import Pixels
from node.web.site import needs, parts_of
from node.web.users import Role
from storage import catalog
from storage.files import FileStore

DOOR = "dicomweb"
ROOT = "/dicom-web"
_PORTS = {"http": 80, "https": 443}
_TELL_AGAIN_S = 300.0
_REMEMBERED = 4096

Uid = Annotated[str, Path(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
Reader = Annotated[Caller, needs(Role.READ)]
Sender = Annotated[Caller, needs(Role.SEND)]


class DicomRoute(APIRoute):
    """A route that says 400 where a parameter is not as it should be (PS3.18 8.3)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route, with its errors turned."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                lines = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
                raise HTTPException(400, "; ".join(lines)[:1000]) from None

        return handle


def files_of(request: Request) -> FileStore:
    """Where objects and results lie."""
    files = parts_of(request).files
    if files is None:
        raise HTTPException(503, "the store is not there")
    return files


def pixels_of(request: Request) -> Pixels:
    """Who decodes what is compressed."""
    return parts_of(request).pixels


def base_url(request: Request) -> str:
    """Where this service is reached, as the caller reached it."""
    url = request.base_url
    _, port = request.scope.get("server") or ("", None)
    # Some clients leave the port out of Host. Of a proxy's port nothing is known.
    left_out = url.port is None and port != _PORTS.get(url.scheme)
    if left_out and not parts_of(request).settings.http.proxies:
        url = url.replace(port=port)
    return f"{str(url).rstrip('/')}{ROOT}"


class Told:
    """Who has looked at what lately: a viewer asks for each frame, the audit wants to know once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def is_new(self, *what: str) -> bool:
        """Whether this was not told in the last five minutes."""
        now = time.monotonic()
        with self._lock:
            before = self._times.pop(what, float("-inf"))
            self._times[what] = before if now - before < _TELL_AGAIN_S else now
            if len(self._times) > _REMEMBERED:
                self._times.popitem(last=False)
            return self._times.get(what) == now


_told = Told()


def tell_looked(request: Request, caller: Caller, study: str) -> None:
    """Someone looked at a study's pictures or data."""
    peer = caller.peer
    if _told.is_new(str(id(parts_of(request).audit)), peer.host, peer.user, study):
        parts_of(request).audit.looked(peer, study)


def tell_transferred(
    request: Request, caller: Caller, objects: tuple[catalog.HeldObject, ...]
) -> None:
    """Objects went out."""
    for study in dict.fromkeys(item.study_instance_uid for item in objects):
        of_study = [item for item in objects if item.study_instance_uid == study]
        parts_of(request).audit.transferred(
            Transfer(
                direction=Direction.OUT,
                peer=caller.peer,
                door=DOOR,
                study_instance_uid=study,
                sop_class_uids=tuple(dict.fromkeys(item.sop_class_uid for item in of_study)),
                count=len(of_study),
                accepted=True,
            )
        )
