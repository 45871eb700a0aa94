"""The page, asked as a browser asks it: what stands on it, who may see it, what its buttons do."""

from __future__ import annotations

import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from html import unescape
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute
from PIL import Image

from models.clip import read_clip
from node.sections import DimseDestination, HttpSettings
from node.web.pages import routes
from node.web.pages.pictures import MOST_FRAMES
from node.web.pages.shelf import picture_path, reports_of, shelf_of
from node.web.users import Role, UserFile
from storage import catalog
from storage.catalog import StudyState
from storage.database import Database, migrate
from tests.page_examples import (
    DONE,
    FAILED,
    FRAMES,
    HELD,
    IGNORED,
    NAME,
    NUMBER,
    RECEIVING,
    Example,
    heartbeat,
    many,
    named_screen,
    prepare,
)
from tests.web_site import PASSWORD, Site, basic, serving

_BROWSER = "text/html,application/xhtml+xml"
HTML = {"accept": _BROWSER}
PAGES = ("/", "/studies", f"/studies/{DONE}", "/packs", "/packs/lv", "/quarantine", "/alerts")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Example]:
    """A data folder with a day's work, to be copied by each test that changes it."""
    folder = tmp_path_factory.mktemp("filled")
    url = f"sqlite:///{folder / 'echonode.db'}"
    migrate(url)
    database = Database(url)
    example = prepare(database, folder)
    database.close()
    users = UserFile(folder / "users.json")
    for role in Role:
        users.add(role.value, [role], PASSWORD)
    users.add("both", [Role.READ, Role.OPERATE], PASSWORD)
    return folder, example


@pytest.fixture(scope="module")
def example(filled: tuple[Path, Example]) -> Example:
    return filled[1]


def _served(folder: Path) -> Iterator[Site]:
    database = Database(f"sqlite:///{folder / 'echonode.db'}")
    heartbeat(database)
    archives = tuple(
        DimseDestination(name=name, kind="dimse", host="127.0.0.1", port=104, ae_title="PACS")
        for name in ("pacs", "research")
    )
    analysis = {"allow_simulated_evidence": True}
    with serving(
        folder, database, HttpSettings(port=0), destinations=archives, analysis=analysis
    ) as site:
        yield site
    database.close()


@pytest.fixture(scope="module")
def site(filled: tuple[Path, Example]) -> Iterator[Site]:
    """One site for the tests that only look."""
    yield from _served(filled[0])


@pytest.fixture
def own(filled: tuple[Path, Example], tmp_path: Path) -> Iterator[Site]:
    """A site for a test that presses buttons."""
    folder = tmp_path / "own"
    shutil.copytree(filled[0], folder, ignore=shutil.ignore_patterns("audit"))
    yield from _served(folder)


def ask(site: Site, path: str, user: str = "read", **options: object) -> httpx.Response:
    return _client(site, user).get(path, **options)  # type: ignore[arg-type]


def press(site: Site, uid: str, action: str, user: str = "both", **fields: str) -> httpx.Response:
    headers = {"origin": site.url}
    return _client(site, user).post(f"/studies/{uid}/{action}", data=fields, headers=headers)


def _client(site: Site, user: str) -> httpx.Client:
    """One for each user: a new one costs more than most pages."""
    value = basic(user, PASSWORD)["authorization"]
    for client in site.clients:
        if (client.headers.get("authorization"), client.headers["accept"]) == (value, _BROWSER):
            return client
    return site.client(headers={**HTML, "authorization": value})


def words(answer: httpx.Response) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", answer.text)))


def state_of(site: Site, uid: str) -> StudyState:
    database = Database(f"sqlite:///{site.folder / 'echonode.db'}")
    try:
        with database.read() as session:
            return catalog.find_study(session, uid).state
    finally:
        database.close()


# Who may see it, and what a browser may load for it.


@pytest.mark.parametrize("path", [*PAGES, f"/studies/{DONE}/clips/{DONE}.1.1/poster.jpg"])
def test_every_page_is_for_readers_alone(site: Site, path: str) -> None:
    nobody = site.client(headers=HTML).get(path)

    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith('Basic realm="echonode"')
    assert ask(site, path, "read").status_code == 200
    assert ask(site, path, "send").status_code == 403
    assert ask(site, path, "operate").status_code == 403


def test_no_route_but_that_of_its_own_files_answers_a_stranger(site: Site) -> None:
    client = site.client(headers=HTML)
    values = {"uid": DONE, "sop": "1.2", "number": "1", "name": "lv", "file": "a.png"}
    open_to_all = []
    for route in routes.router.routes:
        assert isinstance(route, APIRoute)
        for method in route.methods:
            status = client.request(method, route.path.format(**values)).status_code
            if status != 401:
                open_to_all.append(route.path)

    assert len(routes.router.routes) > 10
    assert open_to_all == ["/static/{name}"]


@pytest.mark.parametrize("path", [*PAGES, "/nothing"])
def test_a_page_loads_nothing_but_its_own_files_and_runs_nothing_written_into_it(
    site: Site, path: str
) -> None:
    answer = ask(site, path)

    policy = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {
        "'self'"
    }
    assert "<style" not in answer.text
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", answer.text)
    assert re.findall(r"<script(?![^>]*\bsrc=)", answer.text) == []
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]+)"', answer.text)
    assert loaded
    for address in loaded:
        assert address.startswith("/"), address
        assert ask(site, address).status_code == 200, address


def test_its_own_files_need_nobody_and_others_are_not_there(site: Site) -> None:
    client = site.client()

    for name, kind in (("page.css", "text/css"), ("htmx.min.js", "text/javascript")):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "immutable" in answer.headers["cache-control"]
    assert "Zero-Clause BSD" in client.get("/static/htmx.LICENSE").text
    for name in ("..%2frouting.py", "routes.py", "%2e%2e%2frendering.py"):
        assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_one_heading_landmarks_and_names_for_its_fields(site: Site, path: str) -> None:
    html = ask(site, path, "both").text

    assert html.count("<h1") == 1
    assert html.count("<main") == html.count("<footer") == 1
    assert html.startswith("<!doctype html>\n<html lang=")
    assert 'aria-live="polite"' in html
    levels = [int(level) for level in re.findall(r"<h([1-6])", html)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    identifiers = re.findall(r'\sid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    labelled = set(re.findall(r'<label for="([^"]+)"', html))
    for field in re.findall(r"<(?:input|select)[^>]*>", html):
        name = re.search(r'\sid="([^"]+)"', field)
        assert "aria-label=" in field or (name and name[1] in labelled), field
    assert all("alt=" in picture for picture in re.findall(r"<img[^>]*>", html))


@pytest.mark.parametrize("path", PAGES)
def test_no_page_names_the_patient(site: Site, path: str) -> None:
    html = ask(site, path, "both").text

    for part in (*NAME.split("^"), NUMBER):
        assert part not in html


# What stands on it.


def test_the_first_page_says_what_waits_who_works_and_what_went_wrong(site: Site) -> None:
    said = words(ask(site, "/"))

    assert "4711 busy 12 0" in said
    assert "it ended with signal 9" in said
    assert "No clip waits" in said
    assert "2 in quarantine" in said
    assert "pacs 3" in said
    assert "0xA700 out of resources" in said
    assert "Research use only, not for diagnosis" in said


def test_the_first_page_says_why_nothing_is_taken_in(site: Site) -> None:
    site.refusing = "the disk is nearly full; free some"
    try:
        said = words(ask(site, "/"))
    finally:
        site.refusing = None

    assert "Nothing is taken in : the disk is nearly full; free some" in said


def test_the_day_is_drawn_and_told(site: Site) -> None:
    html = ask(site, "/").text

    assert html.count('<svg class="chart"') == 3
    assert html.count("<rect") >= 5
    said = re.sub(r"\s+", " ", unescape(html))
    assert "Clips analysed: 1 in 24 hours, most 1 in the hour from" in said
    assert "slowest 4 min" in said
    assert "Median of an hour 1 min to 4 min" in said


def test_studies_are_listed_searched_and_filtered(site: Site) -> None:
    listed = ask(site, "/studies").text

    for uid in (DONE, FAILED, HELD, RECEIVING, IGNORED):
        assert f'href="/studies/{uid}"' in listed
    held = ask(site, "/studies", params={"state": "held"}).text
    assert HELD in held
    assert DONE not in held
    found = ask(site, "/studies", params={"text": "transthoracic"}).text
    assert f'href="/studies/{DONE}"' in found
    assert HELD not in found
    key = re.search(r'id="s-([0-9a-f]{10})" href="/studies/' + re.escape(HELD), listed)
    assert key is not None
    assert HELD in ask(site, "/studies", params={"text": key[1]}).text
    nothing = ask(site, "/studies", params={"text": "<script>"})
    assert "No study fits" in nothing.text
    assert "<script>" not in nothing.text
    assert ask(site, "/studies", params={"state": "gone"}).status_code == 422


def test_studies_are_paged(own: Site) -> None:
    database = Database(f"sqlite:///{own.folder / 'echonode.db'}")
    uids = many(database, 50)
    database.close()

    def page(number: int) -> list[str]:
        html = ask(own, "/studies", params={"text": "ACC-", "page": number}).text
        assert ("Older →" in html) == (number == 1)
        assert ("← Newer" in html) == (number > 1)
        return re.findall(r'<a id="s-[0-9a-f]+" href="/studies/([0-9.]+)"', html)

    assert page(1) + page(2) == uids
    assert page(3) == []


def test_a_study_shows_all_that_is_known_of_it(site: Site) -> None:
    answer = ask(site, f"/studies/{DONE}", "both")
    said = words(answer)

    assert "view a4c , score 0.97" in said
    assert "view psla , score 0.61, uncertain" in said
    assert "every lead is flat" in said
    assert "Left ventricular ejection fraction 58.2 % 95 % interval 42.5 to 74.0 %" in said
    assert "mean of 2 beats in 1 clip" in said
    assert "SIMULATED ONLY: Right-atrial major axis length" in said
    assert "FOR DEMONSTRATION: has only seen simulated clips" in said
    assert "DO NOT RELY ON: Left ventricular ejection fraction (61 %)" in said
    assert "by echonet was not shown to be better" in said
    assert "the atrium is cut by the edge of the sector" in said
    assert "SIMULATED ONLY: Simulated clips (a4c): 200 in each split" in said
    for what in ("Saliency cine", "Summary page", "Structured Report"):
        assert what in said
    assert "pacs delivered promised 1" in said
    assert "research delivered by status alone 1" in said
    assert "0x0000 stored" in said
    for kind in ("study-opened", "recording-done", "results-made", "delivered"):
        assert kind in said


def test_what_may_not_be_said_is_not_shown(filled: tuple[Path, Example], tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(filled[0], folder, ignore=shutil.ignore_patterns("audit"))
    database = Database(f"sqlite:///{folder / 'echonode.db'}")
    with serving(folder, database, HttpSettings(port=0, anyone_may_look=True)) as site:
        stranger = site.client(headers=HTML)
        said = words(stranger.get(f"/studies/{DONE}"))
        pressed = stranger.post(f"/studies/{DONE}/resend", headers={"origin": site.url})
    database.close()

    assert "Resend" in said, "a browser asks who he is when he presses it"
    assert pressed.status_code == 401
    assert "SIMULATED ONLY" not in said
    assert "Left ventricular ejection fraction 58.2 %" in said


def test_a_study_is_found_by_its_short_key_too(site: Site) -> None:
    html = ask(site, "/studies").text
    key = re.search(r'id="s-([0-9a-f]{10})" href="/studies/' + re.escape(DONE), html)
    assert key is not None

    assert DONE in ask(site, f"/studies/{key[1]}").text


def test_what_others_wrote_is_text_and_nothing_else(site: Site) -> None:
    quarantined = ask(site, "/quarantine").text
    failed = ask(site, f"/studies/{FAILED}").text

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in quarantined
    assert "<script>alert" not in quarantined
    assert "&lt;b&gt;broken&lt;/b&gt;" in failed


def test_quarantine_says_who_sent_what_and_why_not(site: Site) -> None:
    said = words(ask(site, "/quarantine"))

    assert re.search(r"no SOP Instance UID.* [-0-9]+ [:0-9]+ CART1 0xA900", said)
    assert re.search(r"the SR made here has a fault.* [-0-9]+ [:0-9]+ this node –", said)


def test_results_can_be_read(site: Site, example: Example) -> None:
    report = ask(site, f"/studies/{DONE}/results/{example.report}")
    summary = ask(site, f"/studies/{DONE}/results/{example.summary}")
    picture = ask(site, f"/studies/{DONE}/results/{example.summary}/picture.jpg")

    assert "95 % interval 42.5 to 74" in words(report)
    assert NAME.split("^", maxsplit=1)[0] not in report.text
    assert f"/studies/{DONE}/results/{example.summary}/picture.jpg" in summary.text
    assert Image.open(BytesIO(picture.content)).size[0] == 1300
    assert ask(site, f"/studies/{DONE}/results/{example.cine}/picture.jpg").status_code == 404
    assert ask(site, f"/studies/{HELD}/results/{example.report}").status_code == 404


def test_looking_at_a_study_is_told_to_the_audit_once_and_not_each_time_it_renews(
    own: Site,
) -> None:
    html = ask(own, f"/studies/{DONE}").text
    for address in re.findall(r'hx-get="([^"]+)"', html):
        ask(own, unescape(address))
    ask(own, "/studies", params={"text": "ACC-SECRET"})

    told = [line for line in own.audit() if DONE in line]
    assert len(told) == 1
    told = " ".join(own.audit())
    assert "ACC-SECRET" not in told
    assert b64encode(b"ACC-SECRET").decode() not in told
    query = b64encode(b"studies, by text").decode()
    assert any(query in line for line in own.audit())


# It renews itself.


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/", ["day"]),
        ("/studies", ["studies"]),
        (f"/studies/{DONE}", ["state", "buttons", "clips", "sent", "events"]),
        ("/quarantine", ["quarantine"]),
    ],
)
def test_a_part_comes_again_only_where_it_has_changed(
    site: Site, path: str, parts: list[str]
) -> None:
    asked = {
        re.search(r"part=([a-z]+)", address)[1]: unescape(address)  # type: ignore[index]
        for address in re.findall(r'hx-get="([^"]+)"', ask(site, path, "both").text)
    }

    assert set(asked) >= set(parts)
    for name in parts:
        same = ask(site, asked[name], "both")
        assert (same.status_code, same.content) == (204, b""), name
        other = ask(site, re.sub(r"seen=[0-9a-f]+", "seen=0", asked[name]), "both")
        assert other.status_code == 200
        assert other.text.startswith(f'<div id="part-{name}"')
        assert f'hx-get="{asked[name].replace("&", "&amp;")}"' in other.text
    assert ask(site, path, params={"part": "nothing"}).status_code == 404


def test_a_part_that_has_changed_comes(own: Site) -> None:
    html = ask(own, f"/studies/{HELD}", "both").text
    asked = [
        unescape(address)
        for address in re.findall(r'hx-get="([^"]+)"', html)
        if "part=state" in address or "part=buttons" in address
    ]
    assert press(own, HELD, "release").status_code == 303

    state, buttons = (ask(own, address, "both") for address in asked)

    assert "receiving" in words(state)
    assert 'id="hold"' in buttons.text
    assert 'id="release"' not in buttons.text


# Its buttons.


def test_hold_and_release(own: Site) -> None:
    held = press(own, RECEIVING, "hold", reason="wait for the rest & more")
    shown = ask(own, held.headers["location"], "both")

    assert held.status_code == 303
    assert state_of(own, RECEIVING) is StudyState.HELD
    assert "Held. It is held now: wait for the rest & more" in words(shown)
    released = press(own, RECEIVING, "release")
    assert released.headers["location"] == f"/studies/{RECEIVING}?done=release"
    assert state_of(own, RECEIVING) is StudyState.RECEIVING
    assert any("operated" in line or "hold" in line for line in own.audit())


def test_retry_and_resend(own: Site) -> None:
    folder = own.folder / "results" / "cd"
    folder.mkdir(exist_ok=True)
    (folder / f"{'0' * 62}.dcm").write_bytes(b"DICM")

    assert press(own, FAILED, "retry").status_code == 303
    assert state_of(own, FAILED) is StudyState.DELIVERING
    assert press(own, DONE, "resend", to="pacs").status_code == 303
    assert state_of(own, DONE) is StudyState.DELIVERING
    assert press(own, DONE, "resend", to="nowhere").status_code == 404
    assert press(own, DONE, "resend", to="").status_code == 303


def test_what_cannot_be_done_is_said_in_the_words_of_the_command(own: Site) -> None:
    refused = press(own, DONE, "release")

    assert refused.status_code == 409
    assert f"study {DONE} is done, not held" in words(refused)
    assert "<h1>Study" in refused.text
    assert state_of(own, DONE) is StudyState.DONE
    assert press(own, "1.2.3", "hold").status_code == 404


def test_buttons_are_for_operators_and_for_pages_of_this_site(own: Site) -> None:
    assert press(own, RECEIVING, "hold", user="read").status_code == 403
    assert state_of(own, RECEIVING) is StudyState.RECEIVING
    client = own.client(headers={**HTML, **basic("both", PASSWORD)})
    path = f"/studies/{RECEIVING}/hold"
    for foreign in ({"origin": "http://elsewhere"}, {"sec-fetch-site": "cross-site"}):
        assert client.post(path, headers=foreign).status_code == 403
    assert client.post(path, json={"reason": "x"}).status_code == 415
    assert client.post(path, data={"reason": "x" * 9000}).status_code == 413
    assert state_of(own, RECEIVING) is StudyState.RECEIVING
    assert 'id="hold"' not in ask(own, f"/studies/{RECEIVING}", "read").text
    assert "Buttons need the role operate" in words(ask(own, f"/studies/{RECEIVING}", "read"))


# Pictures.


def test_a_cine_plays_as_it_was_made(site: Site, example: Example) -> None:
    address = f"/studies/{DONE}/clips/{example.cine_clip}"
    film = ask(site, f"{address}/frames").json()

    assert film["frames"] == list(range(1, FRAMES + 1))
    assert film["times_ms"][:3] == pytest.approx([0, 33.3, 66.6], abs=0.1)
    assert film["lasts_ms"] == pytest.approx(FRAMES * 33.3, abs=1)
    first = ask(site, f"{address}/frames/1.jpg")
    assert first.headers["content-type"] == "image/jpeg"
    assert first.headers["cache-control"] == "no-store"
    assert Image.open(BytesIO(first.content)).size[0] == 1300
    assert ask(site, f"{address}/poster.jpg").content == (
        ask(site, f"{address}/frames/{film['poster']}.jpg").content
    )
    for number in ("0", str(FRAMES + 1), "x"):
        assert ask(site, f"{address}/frames/{number}.jpg").status_code in (404, 422)


def test_a_clip_without_a_cine_shows_its_sector_and_nothing_outside(
    site: Site, example: Example
) -> None:
    address = f"/studies/{DONE}/clips/{example.plain_clip}"
    film = ask(site, f"{address}/frames").json()
    shown = np.asarray(
        Image.open(BytesIO(ask(site, f"{address}/frames/2.jpg").content)).convert("L")
    ).astype(int)

    clip = read_clip(named_screen(DONE, 2))
    outside = ~clip.sector.mask
    assert film["frames"] == [1, 2, 3, 4, 5, 6]
    assert shown.shape == clip.sector.mask.shape
    assert np.abs(shown - clip.frames([1])[0]).mean() < 8
    deep = outside & ~_grown(clip.sector.mask, 16)  # JPEG rings into the blocks at its edge
    assert deep.any()
    assert shown[deep].max() <= 3


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=by))


def test_what_is_no_two_dimensional_clip_has_no_picture(site: Site, example: Example) -> None:
    answer = ask(site, f"/studies/{DONE}/clips/{example.ecg}/poster.jpg")
    page = ask(site, f"/studies/{DONE}").text

    assert answer.status_code == 404
    assert f"clips/{example.ecg}" not in page
    assert ask(site, f"/studies/{HELD}/clips/{example.plain_clip}/frames").status_code == 404


def test_a_long_clip_is_thinned() -> None:
    from node.web.pages.pictures import _film

    film = _film([10.0 * at for at in range(1000)], poster=400)

    assert len(film.frames) <= MOST_FRAMES
    assert film.frames[0] == 1
    assert film.times_ms[1] == pytest.approx(10.0 * (film.frames[1] - 1))
    assert film.lasts_ms == pytest.approx(10_000)


# Packs.


def test_packs_are_listed_with_their_evidence_and_licence(site: Site) -> None:
    said = words(ask(site, "/packs"))

    for name in ("lv", "views", "echonet", "echonet-simulated"):
        assert f" {name} " in said
    assert "sex, weight, height simulated only" in said
    assert "non-commercial" in said


def test_a_pack_shows_its_reports_with_their_pictures(site: Site) -> None:
    answer = ask(site, "/packs/lv")

    assert "<h3>lv 0.4.0: evaluation</h3>" in answer.text
    assert "Left ventricular ejection fraction, points" in answer.text
    pictures = re.findall(r'src="(/packs/lv/pictures/[^"]+)"', answer.text)
    assert len(pictures) > 10
    found = ask(site, pictures[0])
    assert found.headers["content-type"] == "image/png"
    assert found.content.startswith(b"\x89PNG")
    for other in ("manifest.json", "weights.safetensors", "..%2fviews%2floss.png", "no.png"):
        assert ask(site, f"/packs/lv/pictures/{other}").status_code == 404
    assert ask(site, "/packs/nothing").status_code == 404


def test_a_report_of_a_pack_from_outside_can_do_nothing(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from node.web.pages import shelf

    (tmp_path / "evaluation.md").write_text(
        "# Title <script>alert(1)</script>\n\n<img src=x onerror=alert(2)>\n\n"
        "[a](javascript:alert(3)) [b](../../etc) [c](explanations.md) [d](https://example.org/)\n\n"
        '![e](https://example.org/x.png) ![f](../secret.png) ![g" onload="h](plot.png)\n'
    )
    (tmp_path / "secret.png").symlink_to("/etc/hostname")
    pack = SimpleNamespace(folder=tmp_path, manifest=SimpleNamespace(name="mine"))

    (report,) = reports_of(pack)  # type: ignore[arg-type]

    assert re.findall(r"<(?!/)([a-z0-9]+)", report.html) == [
        "h3", "p", "p", "a", "a", "a", "p", "img",
    ]  # fmt: skip
    assert "javascript:" not in "".join(re.findall(r'(?:href|src)="([^"]*)"', report.html))
    assert re.findall(r'src="([^"]*)"', report.html) == ["/packs/mine/pictures/plot.png"]
    assert re.findall(r'href="([^"]*)"', report.html) == [
        "#evaluation", "#explanations", "https://example.org/",
    ]  # fmt: skip
    assert "noreferrer" in report.html
    assert picture_path(pack, "secret.png") is None  # type: ignore[arg-type]
    assert shelf_of is shelf.shelf_of


def test_a_pack_that_cannot_be_used_is_named_with_the_reason(
    filled: tuple[Path, Example], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    database = Database(f"sqlite:///{filled[0] / 'echonode.db'}")
    with serving(
        tmp_path,
        database,
        HttpSettings(port=0, anyone_may_look=True),
        analysis={"packs": (broken,)},
    ) as site:
        said = words(site.client(headers=HTML).get("/packs"))
    database.close()

    assert "no readable manifest.json" in said
    assert " views " in said


# Errors.


def test_an_error_is_a_page_for_a_browser_and_problem_json_for_others(site: Site) -> None:
    for path, status in (("/nothing", 404), ("/studies/1.2.3", 404), ("/studies?page=0", 422)):
        browser, program = ask(site, path), site.client(headers=basic("read", PASSWORD)).get(path)
        assert browser.status_code == program.status_code == status, path
        assert browser.headers["content-type"].startswith("text/html")
        assert browser.text.count("<h1>") == 1
        assert str(status) in words(browser)
        assert program.headers["content-type"] == "application/problem+json"
        assert program.json()["status"] == status
    forbidden = ask(site, "/", "send")
    assert "this needs the role read, which send does not have" in words(forbidden)
    nobody = site.client(headers=HTML).get("/")
    assert "echonode user add" in nobody.text
    assert nobody.headers["content-type"].startswith("text/html")


def test_what_nobody_expected_is_a_page_without_anything_of_the_inside(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError(f"{NAME} broke it")

    monkeypatch.setattr(catalog, "list_quarantined", broken)

    answer = ask(site, "/quarantine")

    assert answer.status_code == 500
    assert "Internal Server Error" in answer.text
    assert "broke it" not in answer.text
    assert NAME not in answer.text


def test_a_part_that_fails_is_no_page(site: Site) -> None:
    client = site.client(headers={"accept": "text/html, */*", "hx-request": "true"})

    answer = client.get("/?part=now&seen=0")

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
