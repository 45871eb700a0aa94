"""Status, and the operator's buttons: the same as the commands, by the same functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from node.cli.catalog import known_study
from node.cli.output import ExitCode, Problem, plain
from node.cli.status import status_json
from node.web.callers import Caller
from node.web.site import needs, parts_of
from node.web.users import Role
from storage import catalog

router = APIRouter(prefix="/api", tags=["studies"])

StudyName = Annotated[
    str,
    Path(
        pattern=r"^([0-9.]{1,64}|[0-9a-f]{10})$",
        description="A Study Instance UID, or the short key of the logs.",
    ),
]
Reader = Annotated[Caller, needs(Role.READ)]
Operator = Annotated[Caller, needs(Role.OPERATE)]
Work = Callable[[Session, str], object]


class Hold(BaseModel):
    """Why a study is held."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=200, description="Why, for those who ask later.")


class Resend(BaseModel):
    """Where results go again."""

    model_config = ConfigDict(extra="forbid")

    to: str | None = Field(None, max_length=64, description="A destination; otherwise each.")


@router.get("/status")
def status(request: Request, _caller: Reader) -> dict[str, Any]:
    """The same as ``echonode status --json``."""
    parts = parts_of(request)
    with parts.database.read() as session:
        return status_json(parts.settings, session)


@router.post("/studies/{uid}/hold")
def hold(
    request: Request, uid: StudyName, caller: Operator, body: Hold | None = None
) -> dict[str, Any]:
    """Stop a study where it is, until it is released."""
    reason = body.reason if body is not None else ""
    return operate(request, caller, "hold", uid, lambda s, u: catalog.hold(s, u, reason))


@router.post("/studies/{uid}/release")
def release(request: Request, uid: StudyName, caller: Operator) -> dict[str, Any]:
    """Let a held study go on."""
    return operate(request, caller, "release", uid, catalog.release)


@router.post("/studies/{uid}/retry")
def retry(request: Request, uid: StudyName, caller: Operator) -> dict[str, Any]:
    """Try again what failed in a study."""
    return operate(request, caller, "retry", uid, catalog.retry)


@router.post("/studies/{uid}/resend")
def resend(
    request: Request, uid: StudyName, caller: Operator, body: Resend | None = None
) -> dict[str, Any]:
    """Send a study's results again, the very same bytes."""
    names = tuple(item.name for item in parts_of(request).settings.destinations)
    destination = body.to if body is not None else None
    if destination is not None and destination not in names:
        raise HTTPException(404, "there is no such destination in the settings")
    return operate(
        request,
        caller,
        "resend",
        uid,
        lambda s, u: catalog.resend(s, u, destination, destinations=names),
    )


def operate(request: Request, caller: Caller, action: str, uid: str, work: Work) -> dict[str, Any]:
    """Change a study's course and tell the audit, whether it went or not.

    Raises
    ------
    HTTPException
        404 for a study that is not there, 409 with the reason for what cannot be done.
    """
    parts = parts_of(request)
    known = uid
    try:
        with parts.database.write() as session:
            known = known_study(session, uid)
            work(session, known)
            session.flush()
            study = plain(catalog.find_study(session, known))
    except Problem as error:
        parts.audit.operated(caller.peer, action, known, refused="no such study")
        missing = error.code is ExitCode.NOT_FOUND
        raise HTTPException(404 if missing else 409, "no such study") from None
    except catalog.CatalogError as error:
        parts.audit.operated(caller.peer, action, known, refused=str(error))
        raise HTTPException(409, str(error)) from None
    parts.audit.operated(caller.peer, action, known)
    del study["id"]
    return {"study": study}
