"""The page of alerts: who is told, of what, and the button that sends a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.sections import HttpSettings
from node.web.users import Role
from storage.database import Database
from tests.web_site import PASSWORD, Site, basic, serving
from tests.webhook import SECRET, webhook

TOLD = {
    "alarm": {
        "kind": "disk",
        "words": "1 <b>GB</b> free",
        "next_step": "free space",
        "subject": "",
    },
    "since": "2026-11-22T08:00:00+00:00",
}


def asked(site: Site, method: str, path: str, user: str) -> tuple[int, str]:
    client = site.client(
        headers={**basic(user, PASSWORD), "accept": "text/html", "origin": site.url}
    )
    answer = client.request(method, path)
    return answer.status_code, answer.text


@pytest.fixture
def users() -> dict[str, list[Role]]:
    return {"look": [Role.READ], "both": [Role.READ, Role.OPERATE]}


def test_a_test_goes_out_by_the_button_and_the_page_says_what_came_of_it(
    tmp_path: Path, database: Database, users: dict[str, list[Role]]
) -> None:
    (tmp_path / "alerts.json").write_text(json.dumps([TOLD]))
    with webhook() as hook:
        alerts = {"webhook": {"url": hook.url}}
        with serving(tmp_path, database, HttpSettings(port=0), alerts=alerts) as site:
            for name, roles in users.items():
                site.users.add(name, roles, PASSWORD)
            _, seen = asked(site, "GET", "/alerts", "both")
            _, only_seen = asked(site, "GET", "/alerts", "look")
            refused, _ = asked(site, "POST", "/alerts/test", "look")
            heard_before = len(hook.heard)
            sent, said = asked(site, "POST", "/alerts/test", "both")
            hook.status = 500
            failed, why = asked(site, "POST", "/alerts/test", "both")

    assert "webhook: 127.0.0.1" in seen
    assert "1 &lt;b&gt;GB&lt;/b&gt; free" in seen
    assert 'id="test"' in seen
    assert 'id="test"' not in only_seen
    assert (refused, heard_before) == (403, 0)
    assert (sent, failed) == (200, 502)
    assert "Test by webhook to 127.0.0.1: sent." in said
    assert "not sent" in why
    assert "500" in why
    assert hook.heard[0][0]["state"] == "test"
    assert all(SECRET not in text for text in (seen, said, why))


def test_where_nobody_is_told_the_page_says_so(
    tmp_path: Path, database: Database, users: dict[str, list[Role]]
) -> None:
    (tmp_path / "alerts.json").write_text("no list")
    with serving(tmp_path, database, HttpSettings(port=0)) as site:
        site.users.add("both", users["both"], PASSWORD)
        _, seen = asked(site, "GET", "/alerts", "both")
        pressed, why = asked(site, "POST", "/alerts/test", "both")

    assert "Nobody: [alerts] in the settings" in seen
    assert "alerts.json in data_dir cannot be read" in seen
    assert 'id="test"' not in seen
    assert pressed == 409
    assert "there is no way to tell anyone" in why
