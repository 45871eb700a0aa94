"""The page in Debian's Chromium: it renews itself, plays, takes keys, fits a phone and the dark.

The pictures are kept in the folder that ``ECHONODE_SCREENSHOTS`` names, else in pytest's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.sections import DimseDestination, HttpSettings
from node.web.users import Role
from storage import catalog
from storage.catalog import StudyState
from storage.database import Database, migrate
from tests.page_examples import DONE, FAILED, HELD, RECEIVING, Example, heartbeat, many, prepare
from tests.viewer.browser import Browser, chromium
from tests.web_site import PASSWORD, Site, serving
from tests.webhook import Hook, webhook

pytestmark = pytest.mark.timeout(300)

_SOON_S = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    url = f"sqlite:///{folder / 'echonode.db'}"
    migrate(url)
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def example(database: Database, folder: Path) -> Example:
    many(database, 30)
    heartbeat(database)
    return prepare(database, folder)


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    with webhook() as hook:
        yield hook


@pytest.fixture(scope="module")
def site(database: Database, folder: Path, example: Example, hook: Hook) -> Iterator[Site]:
    assert example
    archives = tuple(
        DimseDestination(name=name, kind="dimse", host="127.0.0.1", port=104, ae_title="PACS")
        for name in ("pacs", "research")
    )
    with serving(
        folder,
        database,
        HttpSettings(port=0),
        destinations=archives,
        analysis={"allow_simulated_evidence": True},
        alerts={"webhook": {"url": hook.url}},
    ) as site:
        site.users.add("both", [Role.READ, Role.OPERATE], PASSWORD)
        site.users.add("send", [Role.SEND], PASSWORD)
        yield site


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all: a browser costs seconds to start."""
    kept = os.environ.get("ECHONODE_SCREENSHOTS")
    screenshots = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")
    with chromium(tmp_path_factory.mktemp("profile"), screenshots) as browser:
        yield browser


@pytest.fixture(autouse=True)
def _fresh(browser: Browser) -> Iterator[None]:
    """Each begins on a desk by day, and ends without a word on the console."""
    browser.look(width=1280, height=900)
    yield
    refused = [line for line in browser.console_errors() if "Content Security Policy" in line]
    assert refused == []


def _open(browser: Browser, site: Site, path: str, user: str = "both") -> None:
    browser.sign_in(user, PASSWORD)
    browser.open(f"{site.url}{path}")


def _text(browser: Browser, selector: str) -> str:
    found = browser.script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join(' ')",
        selector,
    )
    return str(found)


def _too_wide(browser: Browser, width: int) -> list[str]:
    """What reaches over the window's edge and does not scroll in itself."""
    found = browser.script(
        "return [...document.querySelectorAll('body *')]"
        ".filter((e) => !e.closest('.wide *, svg, .skip, .unseen') && e.checkVisibility())"
        ".filter((e) => e.getBoundingClientRect().right > arguments[0] + 1)"
        ".map((e) => `${e.tagName} ${e.id} ${e.className}`)",
        width,
    )
    return list(found)


def _state(database: Database, uid: str) -> StudyState:
    with database.read() as session:
        return catalog.find_study(session, uid).state


PAGES = {
    "now": "/",
    "studies": "/studies",
    "study": f"/studies/{DONE}",
    "pack": "/packs/lv",
    "packs": "/packs",
    "quarantine": "/quarantine",
    "alerts": "/alerts",
    "error": "/studies/1.2.3",
}


@pytest.mark.parametrize("name", [*PAGES, "report", "summary"])
def test_a_page_fits_a_desk_a_phone_and_the_dark(
    browser: Browser, site: Site, example: Example, name: str
) -> None:
    of_result = {"report": example.report, "summary": example.summary}.get(name)
    _open(browser, site, PAGES.get(name) or f"/studies/{DONE}/results/{of_result}")
    assert _too_wide(browser, 1280) == []
    browser.whole_screenshot(f"page-{name}")
    light = browser.script("return getComputedStyle(document.body).backgroundColor")
    browser.look(width=1280, height=900, dark=True)
    dark = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert light != dark
    browser.whole_screenshot(f"page-{name}-dark")
    browser.look(width=360, height=740)
    assert _too_wide(browser, 360) == []
    browser.whole_screenshot(f"page-{name}-phone")


def test_no_words_are_too_faint(browser: Browser, site: Site) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), by day and in the dark."""
    for dark in (False, True):
        for path in ("/", f"/studies/{DONE}", f"/studies/{FAILED}"):
            browser.look(width=1280, height=900, dark=dark)
            _open(browser, site, path)
            assert browser.script(_FAINT) == [], f"{path}, dark: {dark}"


_FAINT = """
const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest("svg, option")) continue;
  const [one, two] = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (ratio < 4.5) found.push(`${element.tagName} ${element.className} ${ratio.toFixed(2)}`);
}
return found;
"""


def test_the_page_renews_itself_and_leaves_the_focus_where_it_is(
    browser: Browser, site: Site, database: Database
) -> None:
    _open(browser, site, "/")
    browser.script("document.getElementById('to-failed').focus()")
    before = _text(browser, "#part-now .counts")
    many_before = before.count("\n")

    with database.write() as session:
        catalog.hold(session, RECEIVING, "a test")
    try:
        browser.wait(
            lambda: _text(browser, "#part-now .counts") != before,
            what="show that a study is held",
            timeout_s=_SOON_S,
        )
    finally:
        with database.write() as session:
            catalog.release(session, RECEIVING)

    assert many_before
    assert browser.script("return document.activeElement.id") == "to-failed"
    browser.wait(
        lambda: "studies on their way" in _text(browser, "#announce"),
        what="say aloud that the number of studies on their way has changed",
        timeout_s=_SOON_S,
    )


def test_updates_can_be_paused(browser: Browser, site: Site) -> None:
    _open(browser, site, f"/studies/{RECEIVING}")
    browser.script("document.getElementById('pause').click()")
    assert browser.script("return document.getElementById('pause').ariaPressed") == "true"
    browser.script(
        "window.asked = 0;"
        "document.addEventListener('htmx:configRequest', () => { window.asked += 1; });"
        "window.sent = 0; const send = XMLHttpRequest.prototype.send;"
        "XMLHttpRequest.prototype.send = function (...a) "
        "{ window.sent += 1; return send.apply(this, a); };"
    )
    browser.wait(lambda: browser.script("return window.asked > 1"), what="come to ask again")
    assert browser.script("return window.sent") == 0
    browser.script("document.getElementById('pause').click()")
    browser.wait(lambda: browser.script("return window.sent > 0"), what="ask again")


def test_a_cine_plays_and_stops_and_is_moved_by_keys(browser: Browser, site: Site) -> None:
    _open(browser, site, f"/studies/{DONE}")
    for number in (1, 2):
        player = f"#clip-{number} .player"

        def shown(at: str = player) -> object:
            return browser.script("return document.querySelector(arguments[0]).dataset.shown", at)

        browser.script("document.querySelector(arguments[0]).focus()", f"{player} .play")
        browser.press("Enter")
        browser.wait(lambda at=shown: at() is not None, what="play", timeout_s=_SOON_S)
        first = shown()
        browser.wait(lambda at=shown, was=first: at() != was, what="go on", timeout_s=_SOON_S)
        assert _text(browser, f"{player} .play") == "Pause"
        browser.press("Enter")
        assert _text(browser, f"{player} .play") == "Play"
        browser.press("Tab")
        browser.press("Home")
        assert shown() == "1"
        browser.press("ArrowRight")
        assert shown() == "2"
        painted = browser.script(
            "const c = document.querySelector(arguments[0] + ' canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return d.some((v, i) => i % 4 < 3 && v > 60)",
            player,
        )
        assert painted
        browser.screenshot(f"page-playing-{number}")
    assert browser.script("return document.querySelector('#clip-3 .player')") is None


def test_whoever_plays_a_clip_is_not_disturbed(browser: Browser, site: Site) -> None:
    _open(browser, site, f"/studies/{DONE}")
    browser.script("document.querySelector('#clip-1 .play').click()")
    browser.wait(
        lambda: browser.script("return document.querySelector('#clip-1 canvas') !== null"),
        what="play",
        timeout_s=_SOON_S,
    )
    left = browser.script(
        "const part = document.getElementById('part-clips');"
        "const event = new CustomEvent('htmx:beforeRequest', {bubbles: true, cancelable: true});"
        "return part.dispatchEvent(event)"
    )
    assert left is False


def test_every_button_works_by_the_keyboard(
    browser: Browser, site: Site, database: Database, folder: Path
) -> None:
    kept = folder / "results" / "cd"
    kept.mkdir(exist_ok=True)
    (kept / f"{'0' * 62}.dcm").write_bytes(b"DICM")

    def pressed(uid: str, button: str, becomes: StudyState) -> None:
        _open(browser, site, f"/studies/{uid}")
        browser.script("document.getElementById(arguments[0]).focus()", button)
        browser.press("Enter")
        browser.wait(
            lambda: _state(database, uid) is becomes, what=f"do {button}", timeout_s=_SOON_S
        )
        browser.wait(
            lambda: browser.script("return document.querySelector('main .done') !== null"),
            what="say that it is done",
            timeout_s=_SOON_S,
        )
        assert becomes.value in _text(browser, ".done")

    pressed(HELD, "release", StudyState.RECEIVING)
    pressed(HELD, "hold", StudyState.HELD)
    browser.screenshot("page-held")
    assert browser.script("return document.activeElement.classList.contains('done')")
    pressed(FAILED, "retry", StudyState.DELIVERING)
    pressed(DONE, "resend", StudyState.DELIVERING)


def test_a_test_alert_is_sent_by_the_keyboard(browser: Browser, site: Site, hook: Hook) -> None:
    _open(browser, site, "/alerts")
    browser.script("document.getElementById('test').focus()")
    browser.press("Enter")
    browser.wait(
        lambda: "sent." in _text(browser, "main .done"),
        what="say that it is sent",
        timeout_s=_SOON_S,
    )
    assert len(hook.heard) == 1
    assert browser.script("return document.activeElement.classList.contains('done')")


def test_the_first_key_leads_past_the_head_of_the_page(browser: Browser, site: Site) -> None:
    _open(browser, site, "/studies")
    browser.press("Tab")
    assert browser.script("return document.activeElement.className") == "skip"
    browser.screenshot("page-skip")
    browser.press("Enter")
    browser.press("Tab")
    assert browser.script("return document.activeElement.id") == "text"
    outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    browser.type("ACC-007")
    browser.press("Enter")
    browser.wait(
        lambda: _text(browser, "tbody").count("ACC-") == 1, what="search", timeout_s=_SOON_S
    )


def test_who_may_not_is_told_so_on_a_page(browser: Browser, site: Site) -> None:
    _open(browser, site, "/", user="send")
    assert "this needs the role read" in _text(browser, "main")
    browser.screenshot("page-forbidden")


def test_a_node_that_is_gone_is_said(browser: Browser, site: Site) -> None:
    _open(browser, site, "/")
    browser.script("document.dispatchEvent(new CustomEvent('htmx:sendError'))")
    assert "does not answer" in _text(browser, "#lost")
    browser.script(
        "document.dispatchEvent(new CustomEvent('htmx:afterRequest', {detail: {successful: true}}))"
    )
    assert _text(browser, "#lost") == ""
