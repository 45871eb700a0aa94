"""The routes of the page. Each asks for the same roles as the route or command that it stands for.

What renews itself is a part of a page: asked with ``part`` and ``seen`` a route gives that part
alone, or 204 where it would say the same again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from sqlalchemy.orm import Session

from node.cli.catalog import known_study, running_nodes
from node.cli.output import Problem
from node.cli.status import status_json
from node.results.rendering import render_report
from node.watch import study_key
from node.watch.alerts import Tried, node_name, reaches, try_ways, ways_of
from node.watch.told import ToldError, told_of
from node.web.callers import Caller
from node.web.pages import charts, study
from node.web.pages.pictures import NoPictureError, Pictures, pictures_of
from node.web.pages.rendering import STATIC, Part, page, part, renewed
from node.web.pages.shelf import Shelf, picture_path, reports_of, shelf_of
from node.web.site import needs, parts_of
from node.web.studies import StudyName, operate
from node.web.users import Role
from storage import catalog
from storage.catalog import FileState, ResultKind, StudyState
from storage.files import FileStore, FileStoreError, open_store

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, needs(Role.READ)]
Operator = Annotated[Caller, needs(Role.OPERATE)]
Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]
PartName = Annotated[str | None, Query(alias="part", max_length=16)]
Seen = Annotated[str | None, Query(max_length=16)]
PageNumber = Annotated[int, Query(alias="page", ge=1, le=100_000)]

_STUDIES_A_PAGE = 25
_QUARANTINED_A_PAGE = 50
_LONGEST_FORM = 4096  # bytes
_SEARCHED = 200  # characters
_SOON_S, _LATER_S, _SELDOM_S = 5, 10, 60
_KINDS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "htmx.LICENSE": "text/plain; charset=utf-8",
}
_DONE = {
    "hold": "Held.",
    "release": "Released.",
    "retry": "Tried again.",
    "resend": "Sent again.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Site:
    """What a page needs of the request that asked for it."""

    request: Request
    caller: Caller

    @property
    def pictures(self) -> Pictures:
        return pictures_of(self.request.app.state, self.files)

    @property
    def files(self) -> FileStore:
        return files_of(self.request)

    @property
    def shelf(self) -> Shelf:
        return shelf_of(self.request.app.state, parts_of(self.request).settings)

    @property
    def context(self) -> dict[str, Any]:
        """What every page shows."""
        settings = parts_of(self.request).settings
        return {
            "user": self.caller.name,
            "ae_title": settings.dimse.ae_title,
            "zone": datetime.now().astimezone().tzname(),
        }

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        return page(template, status=status, **self.context, **context)


def files_of(request: Request) -> FileStore:
    """The node's file store."""
    parts = parts_of(request)
    return parts.files or open_store(parts.settings.store_url, parts.settings.data_dir)


# What the node does now.


@router.get("/")
def now(request: Request, caller: Reader, name: PartName = None, seen: Seen = None) -> Response:
    """The queue, the workers, and the last day."""
    site = _Site(request=request, caller=caller)
    makers: dict[str, Callable[[], Part]] = {
        "now": lambda: _now(request),
        "day": lambda: _day(request),
    }
    if name is not None:
        return renewed(_maker(makers, name)(), seen)
    return site.page("now.html", now=makers["now"](), day=makers["day"]())


def _now(request: Request) -> Part:
    parts = parts_of(request)
    try:
        with parts.database.read() as session:
            status = status_json(parts.settings, session)
            promises = catalog.promise_counts(session)
    except Problem as error:
        raise HTTPException(503, str(error)) from None
    named = [item.name for item in parts.settings.destinations]
    return part(
        "now",
        "/",
        every_s=_SOON_S,
        status=status,
        not_ready=parts.not_ready(),
        destinations=[
            (name, promises.get(name, catalog.PromiseCounts()))
            for name in dict.fromkeys((*named, *sorted(promises)))
        ],
        named=named,
    )


def _day(request: Request) -> Part:
    with parts_of(request).database.read() as session:
        hours = catalog.hours_of(session, charts.edges(datetime.now(UTC)))
    return part("day", "/", every_s=_SELDOM_S, hours=hours, charts=charts.charts(hours))


# The studies.


@router.get("/studies")
def studies(
    request: Request,
    caller: Reader,
    text: Annotated[str, Query(max_length=_SEARCHED)] = "",
    state: Annotated[str, Query(max_length=16)] = "",
    number: PageNumber = 1,
    name: PartName = None,
    seen: Seen = None,
) -> Response:
    """The studies, the newest first."""
    wanted = None if not state else _state(state)
    site = _Site(request=request, caller=caller)
    listed = _studies(request, text.strip(), wanted, number)
    if name is not None:
        return renewed(_maker({"studies": lambda: listed}, name)(), seen)
    # What was searched for may be an accession number, which the trail does not hold.
    asked = f"studies{f' in state {wanted.value}' if wanted else ''}{', by text' if text else ''}"
    parts_of(request).audit.queried(caller.peer, "http", asked)
    return site.page(
        "studies.html",
        listed=listed,
        text=text,
        state=state,
        states=[item.value for item in StudyState],
    )


def _studies(request: Request, text: str, state: StudyState | None, number: int) -> Part:
    with parts_of(request).database.read() as session:
        found = catalog.list_studies(
            session,
            state,
            _STUDIES_A_PAGE + 1,
            text or None,
            (number - 1) * _STUDIES_A_PAGE,
        )
        if not found and re.fullmatch(r"[0-9a-f]{10}", text):
            found = _by_key(session, text)
    query = {
        key: item for key, item in (("text", text), ("state", state.value if state else "")) if item
    }
    return part(
        "studies",
        "/studies",
        every_s=_LATER_S,
        query={**query, "page": str(number)},
        studies=[(study_key(item.study_instance_uid), item) for item in found[:_STUDIES_A_PAGE]],
        searched=bool(query),
        page_number=number,
        earlier=_address("/studies", query, number - 1) if number > 1 else None,
        later=_address("/studies", query, number + 1) if len(found) > _STUDIES_A_PAGE else None,
    )


def _by_key(session: Session, key: str) -> tuple[catalog.StudyRecord, ...]:
    try:
        return (catalog.find_study(session, known_study(session, key)),)
    except Problem:
        return ()


@router.get("/studies/{uid}")
def one_study(
    request: Request,
    uid: StudyName,
    caller: Reader,
    done: Annotated[str, Query(max_length=16)] = "",
    name: PartName = None,
    seen: Seen = None,
) -> Response:
    """A study: where it is, what was found, what was sent, and what happened to it."""
    site = _Site(request=request, caller=caller)
    known = _known(request, uid)
    if name is None:
        parts_of(request).audit.looked(caller.peer, known)
        return _study_page(site, known, done=_DONE.get(done, ""))
    return renewed(_maker(_study_parts(site, known), name)(), seen)


def _study_page(
    site: _Site, uid: str, *, status: int = 200, done: str = "", refused: str = ""
) -> Response:
    with parts_of(site.request).database.read() as session:
        found = catalog.find_study(session, uid)
        running = bool(running_nodes(session))
    return site.page(
        "study.html",
        status=status,
        uid=uid,
        key=study_key(uid),
        study=found,
        done=done,
        refused=refused,
        running=running,
        **{key: make() for key, make in _study_parts(site, uid).items()},
    )


def _study_parts(site: _Site, uid: str) -> dict[str, Callable[[], Part]]:
    """The parts of a study's page, all of one look into the database."""
    parts = parts_of(site.request)

    @cache
    def detail() -> catalog.StudyDetail:
        with parts.database.read() as session:
            return catalog.study_detail(session, uid)

    def made(name: str, *, every_s: int, careful: bool = False, **context: Any) -> Part:
        return part(name, f"/studies/{uid}", every_s=every_s, careful=careful, uid=uid, **context)

    def state() -> Part:
        return made("state", every_s=_SOON_S, study=detail().study)

    def buttons() -> Part:
        found = detail()
        return made(
            "buttons",
            every_s=_SOON_S,
            careful=True,
            buttons=study.buttons(found),
            state=found.study.state.value,
            # A stranger who may look is asked who he is when he presses one.
            may=Role.OPERATE in site.caller.roles or not site.caller.name,
            user=site.caller.name,
            destinations=[item.name for item in parts.settings.destinations],
        )

    def clips() -> Part:
        found, packs = detail(), site.shelf.packs()
        return made(
            "clips",
            every_s=_LATER_S,
            careful=True,
            headline=study.headline(found, parts.settings, packs, site.files),
            clips=study.clip_views(found, parts.settings, packs),
        )

    def sent() -> Part:
        found = detail()
        results = {item.id: item for item in found.results}
        return made(
            "sent",
            every_s=_LATER_S,
            results=[(item, study.result_words(item)) for item in found.results],
            deliveries=[
                (item, study.result_words(results[item.result_id]), study.promise_words(item))
                for item in found.deliveries
            ],
        )

    def events() -> Part:
        return made("events", every_s=_LATER_S, timeline=detail().timeline)

    return {"state": state, "buttons": buttons, "clips": clips, "sent": sent, "events": events}


# The buttons.


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form, as a browser sends it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in ("", "application/x-www-form-urlencoded"):
        raise HTTPException(415, "a form as a browser sends it is wanted")
    body = await request.body()
    if len(body) > _LONGEST_FORM:
        raise HTTPException(413, f"a form has {_LONGEST_FORM} bytes at most")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        raise HTTPException(422, "the form is not understood") from None
    return {key: values[-1] for key, values in fields.items()}


Form = Annotated[Mapping[str, str], Depends(_form)]


@router.post("/studies/{uid}/hold")
def hold(request: Request, uid: Uid, caller: Operator, form: Form) -> Response:
    """Stop a study where it is, until it is released."""
    reason = form.get("reason", "")[:200]
    return _press(request, caller, "hold", uid, lambda s, u: catalog.hold(s, u, reason))


@router.post("/studies/{uid}/release")
def release(request: Request, uid: Uid, caller: Operator) -> Response:
    """Let a held study go on."""
    return _press(request, caller, "release", uid, catalog.release)


@router.post("/studies/{uid}/retry")
def retry(request: Request, uid: Uid, caller: Operator) -> Response:
    """Try again what failed in a study."""
    return _press(request, caller, "retry", uid, catalog.retry)


@router.post("/studies/{uid}/resend")
def resend(request: Request, uid: Uid, caller: Operator, form: Form) -> Response:
    """Send a study's results again, the very same bytes."""
    names = tuple(item.name for item in parts_of(request).settings.destinations)
    destination = form.get("to") or None
    if destination is not None and destination not in names:
        raise HTTPException(404, "there is no such destination in the settings")
    return _press(
        request,
        caller,
        "resend",
        uid,
        lambda s, u: catalog.resend(s, u, destination, destinations=names),
    )


def _press(
    request: Request,
    caller: Caller,
    action: str,
    uid: str,
    work: Callable[[Session, str], object],
) -> Response:
    """Do it and show the study, or say on its page why it cannot be done."""
    try:
        operate(request, caller, action, uid, work)
    except HTTPException as error:
        if error.status_code != 409:
            raise
        site = _Site(request=request, caller=caller)
        return _study_page(site, uid, status=409, refused=str(error.detail))
    return RedirectResponse(f"/studies/{uid}?done={action}", 303)


# Pictures.


@router.get("/studies/{uid}/clips/{sop}/frames")
def film(request: Request, uid: Uid, sop: Uid, caller: Reader) -> JSONResponse:
    """How a clip is played: the numbers of its frames and their times."""
    found = _picture(request, caller, lambda pictures: pictures.film(_shown(request, uid, sop)))
    return JSONResponse(
        {
            "frames": found.frames,
            "times_ms": found.times_ms,
            "lasts_ms": found.lasts_ms,
            "poster": found.poster,
        }
    )


@router.get("/studies/{uid}/clips/{sop}/frames/{number}.jpg")
def frame(
    request: Request, uid: Uid, sop: Uid, number: Annotated[int, Path(ge=1)], caller: Reader
) -> Response:
    """A frame of a clip with tracing and saliency, or of the clip's sector alone."""
    shown = _shown(request, uid, sop)
    return _jpeg(_picture(request, caller, lambda pictures: pictures.frame(shown, number)))


@router.get("/studies/{uid}/clips/{sop}/poster.jpg")
def poster(request: Request, uid: Uid, sop: Uid, caller: Reader) -> Response:
    """The frame that stands for a clip."""
    shown = _shown(request, uid, sop)
    return _jpeg(_picture(request, caller, lambda pictures: pictures.poster(shown)))


@router.get("/studies/{uid}/results/{sop}")
def result(request: Request, uid: Uid, sop: Uid, caller: Reader) -> Response:
    """A result, as text or as a picture."""
    found = _result(request, uid, sop)
    parts_of(request).audit.looked(caller.peer, uid)
    site = _Site(request=request, caller=caller)
    return site.page(
        "result.html",
        uid=uid,
        key=study_key(uid),
        result=found,
        what=study.result_words(found),
        text=_text(site.files, found),
        picture=found.kind is ResultKind.SC and not study.is_cine(found),
    )


@router.get("/studies/{uid}/results/{sop}/picture.jpg")
def result_picture(request: Request, uid: Uid, sop: Uid, caller: Reader) -> Response:
    """The picture of a result that is one."""
    found = _result(request, uid, sop)
    if found.kind is not ResultKind.SC or study.is_cine(found):
        raise HTTPException(404, "this result is no single picture")
    return _jpeg(_picture(request, caller, lambda pictures: pictures.still(found.file_key)))


def _shown(request: Request, uid: str, sop: str) -> catalog.ShownRecording:
    try:
        with parts_of(request).database.read() as session:
            return catalog.shown_recording(session, uid, sop)
    except catalog.CatalogError as error:
        raise HTTPException(404, str(error)) from None


def _picture(request: Request, caller: Caller, make: Callable[[Pictures], Any]) -> Any:
    try:
        return make(_Site(request=request, caller=caller).pictures)
    except NoPictureError as error:
        raise HTTPException(404, str(error)) from None


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg")


def _result(request: Request, uid: str, sop: str) -> catalog.ResultRecord:
    with parts_of(request).database.read() as session:
        try:
            study_id = catalog.find_study(session, uid).id
        except catalog.CatalogError:
            raise HTTPException(404, "no such study") from None
        found = [
            item for item in catalog.results_of(session, study_id) if item.sop_instance_uid == sop
        ]
    if not found:
        raise HTTPException(404, "the study has no such result")
    return found[0]


def _text(files: FileStore, found: catalog.ResultRecord) -> str:
    """A report as text; empty where the result is none or its file is gone."""
    if found.kind not in (ResultKind.SR, ResultKind.TEXT) or found.file_state is not FileState.KEPT:
        return ""
    try:
        with files.open(found.file_key) as file:
            return render_report(file.read())
    except (FileStoreError, ValueError, OSError):
        return ""


# Packs.


@router.get("/packs")
def packs(request: Request, caller: Reader) -> Response:
    """The packs that the node would load."""
    site = _Site(request=request, caller=caller)
    return site.page("packs.html", shelved=site.shelf.all())


@router.get("/packs/{name}")
def pack(request: Request, name: Annotated[str, Path(max_length=100)], caller: Reader) -> Response:
    """A pack with its reports."""
    site = _Site(request=request, caller=caller)
    found = site.shelf.find(name)
    if found is None:
        raise HTTPException(404, "there is no such pack")
    return site.page(
        "pack.html", manifest=found.manifest, folder=found.folder, reports=reports_of(found)
    )


@router.get("/packs/{name}/pictures/{file}")
def pack_picture(
    request: Request,
    name: Annotated[str, Path(max_length=100)],
    file: Annotated[str, Path(max_length=110)],
    caller: Reader,
) -> Response:
    """A picture of a pack's reports."""
    found = _Site(request=request, caller=caller).shelf.find(name)
    path = None if found is None else picture_path(found, file)
    if path is None:
        raise HTTPException(404, "there is no such picture")
    return FileResponse(path, media_type="image/png")


# Quarantine.


@router.get("/quarantine")
def quarantine(
    request: Request,
    caller: Reader,
    number: PageNumber = 1,
    name: PartName = None,
    seen: Seen = None,
) -> Response:
    """What could not be taken or must not be sent, and why."""
    site = _Site(request=request, caller=caller)
    with parts_of(request).database.read() as session:
        found = catalog.list_quarantined(
            session, _QUARANTINED_A_PAGE + 1, (number - 1) * _QUARANTINED_A_PAGE
        )
    listed = part(
        "quarantine",
        "/quarantine",
        every_s=_LATER_S,
        query={"page": str(number)},
        objects=found[:_QUARANTINED_A_PAGE],
        page_number=number,
        earlier=_address("/quarantine", {}, number - 1) if number > 1 else None,
        later=(
            _address("/quarantine", {}, number + 1) if len(found) > _QUARANTINED_A_PAGE else None
        ),
    )
    if name is not None:
        return renewed(_maker({"quarantine": lambda: listed}, name)(), seen)
    return site.page("quarantine.html", listed=listed)


# Alerts.


@router.get("/alerts")
def alerts(request: Request, caller: Reader) -> Response:
    """Who is told of trouble, and of what they were told."""
    return _alerts_page(_Site(request=request, caller=caller))


@router.post("/alerts/test")
def test_alerts(request: Request, caller: Operator) -> Response:
    """Send a test by every way in the settings, and say what came of it."""
    settings = parts_of(request).settings
    tried = try_ways(settings.alerts, node_name(settings.dimse.ae_title))
    if not tried:
        raise HTTPException(409, "there is no way to tell anyone: see [alerts] in the settings")
    return _alerts_page(_Site(request=request, caller=caller), tried)


def _alerts_page(site: _Site, tried: tuple[Tried, ...] = ()) -> Response:
    settings = parts_of(site.request).settings
    fault, known = "", []
    try:
        known = told_of(settings.data_dir / "alerts.json")
    except ToldError as error:
        fault = str(error)
    return site.page(
        "alerts.html",
        status=502 if any(one.error for one in tried) else 200,
        tried=tried,
        ways=[(way.name, reaches(settings.alerts, way.name)) for way in ways_of(settings.alerts)],
        may=Role.OPERATE in site.caller.roles or not site.caller.name,
        known=known,
        fault=fault,
    )


# Files of ours: they hold nothing of anyone, and the page that asks who you are needs them.


@router.get("/static/{name}")
def static(name: Annotated[str, Path(max_length=40)]) -> Response:
    """Style, script and licence."""
    if name not in _KINDS:
        raise HTTPException(404, "there is no such file")
    return FileResponse(
        STATIC / name,
        media_type=_KINDS[name],
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )


def _known(request: Request, uid: str) -> str:
    with parts_of(request).database.read() as session:
        try:
            return known_study(session, uid)
        except Problem:
            raise HTTPException(404, f"there is no study {uid}") from None


def _maker(makers: Mapping[str, Callable[[], Part]], name: str) -> Callable[[], Part]:
    if name not in makers:
        raise HTTPException(404, "there is no such part")
    return makers[name]


def _state(text: str) -> StudyState:
    try:
        return StudyState(text)
    except ValueError:
        raise HTTPException(422, f"there is no state {text[:16]}") from None


def _address(path: str, query: Mapping[str, str], number: int) -> str:
    asked = {**query, **({"page": str(number)} if number > 1 else {})}
    return f"{path}?{urlencode(asked, quote_via=quote)}" if asked else path
