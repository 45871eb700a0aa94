"""The HTTP door: who gets in, what he may do, and what is told of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.sections import HttpSettings
from node.settings import load_settings
from node.web import gate
from node.web import server as server_module
from node.web.server import HttpError, HttpServer
from node.web.users import Role, UserFile
from storage import catalog
from storage.database import Database
from tests.audit_schema import faults_of
from tests.peers import wait_until
from tests.unit.storage_steps import clip
from tests.web_site import PASSWORD, Site, add_users, basic, bearer, serving

STUDY = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture
def study(database: Database) -> str:
    with database.write() as session:
        catalog.add_instance(session, clip(1, study_instance_uid=STUDY))
    return STUDY


@pytest.fixture
def site(tmp_path: Path, database: Database, study: str) -> Iterator[Site]:
    assert study == STUDY
    with serving(tmp_path, database, HttpSettings(port=0)) as site:
        yield site


ROUTES = [
    ("GET", "/api/status", Role.READ),
    ("GET", "/api/openapi.json", Role.READ),
    ("GET", "/api/docs", Role.READ),
    ("GET", "/metrics", Role.READ),
    ("POST", f"/api/studies/{STUDY}/hold", Role.OPERATE),
    ("POST", f"/api/studies/{STUDY}/release", Role.OPERATE),
    ("POST", f"/api/studies/{STUDY}/retry", Role.OPERATE),
    ("POST", f"/api/studies/{STUDY}/resend", Role.OPERATE),
]


def test_every_route_wants_its_role_and_no_other(site: Site) -> None:
    tokens = add_users(site.users)
    client = site.client()

    for method, path, role in ROUTES:
        nobody = client.request(method, path)
        assert nobody.status_code == 401, path
        assert nobody.headers["www-authenticate"].startswith('Basic realm="echonode"')
        assert nobody.headers["content-type"] == "application/problem+json"
        wrong = client.request(method, path, headers=bearer("en_00000000_x")).status_code
        assert wrong in (401, 429), path
        for name, token in tokens.items():
            status = client.request(method, path, headers=bearer(token)).status_code
            assert (status not in (401, 403)) == (name == role), f"{name} at {path}: {status}"
    known = json.loads(client.get("/api/openapi.json", headers=bearer(tokens["read"])).content)[
        "paths"
    ]
    listed = {path.replace(STUDY, "{uid}") for _, path, _ in ROUTES} | {"/healthz", "/readyz"}
    assert set(known) == listed, "a route is not in this test"


def test_no_one_needs_to_be_known_to_ask_whether_the_node_is_well(site: Site) -> None:
    client = site.client()

    assert client.get("/healthz").json() == {"alive": True}
    assert client.get("/readyz").json() == {"ready": True}


def test_an_answer_does_not_wait_for_the_callers_acknowledgement(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    connected = server_module.H11Protocol.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        accepted = transport.get_extra_info("socket")
        at_once.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        connected(self, transport)

    monkeypatch.setattr(server_module.H11Protocol, "connection_made", connection_made)
    site.client().get("/healthz")

    assert at_once == [1]


def test_why_it_is_not_ready_is_for_readers(site: Site) -> None:
    tokens = add_users(site.users)
    client = site.client()
    site.refusing = "the disk is nearly full"

    nobody = client.get("/readyz")
    reader = client.get("/readyz", headers=bearer(tokens["read"]))
    sender = client.get("/readyz", headers=bearer(tokens["send"]))

    assert (nobody.status_code, nobody.json()) == (503, {"ready": False})
    assert sender.json() == {"ready": False}
    assert reader.json() == {"ready": False, "reason": "the disk is nearly full"}


def test_a_password_does_as_a_token_does_and_both_end_at_once(site: Site) -> None:
    site.users.add("anna", [Role.READ], PASSWORD)
    token = site.users.add_token("anna")
    client = site.client()

    assert client.get("/api/status", headers=basic("anna", PASSWORD)).status_code == 200
    assert client.get("/api/status", headers=basic("anna", PASSWORD)).status_code == 200
    assert client.get("/api/status", headers=bearer(token)).status_code == 200
    site.users.set_password("anna", PASSWORD + " 2")
    assert client.get("/api/status", headers=basic("anna", PASSWORD)).status_code == 401
    assert client.get("/api/status", headers=basic("anna", PASSWORD + " 2")).status_code == 200
    site.users.remove("anna")
    assert client.get("/api/status", headers=basic("anna", PASSWORD + " 2")).status_code == 401
    assert client.get("/api/status", headers=bearer(token)).status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Basic YQ==", "Digest x", "Bearer", "Bearer \xff" + "x" * 999],
)
def test_what_is_no_credential_is_refused(site: Site, header: str) -> None:
    answer = site.client().get("/api/status", headers={"authorization": header.encode("latin-1")})

    assert answer.status_code == 401


def test_who_guesses_is_not_heard_for_a_while_and_others_are(site: Site) -> None:
    site.users.add("anna", [Role.READ], PASSWORD)
    tokens = add_users(site.users)
    client = site.client()

    answers = [
        client.get("/api/status", headers=basic("anna", f"guess number {number}")).status_code
        for number in range(6)
    ]

    assert answers == [401] * 5 + [429]
    # The right password does not help now either: else guessing would go on.
    late = client.get("/api/status", headers=basic("anna", PASSWORD))
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) >= 1
    assert client.get("/api/status", headers=bearer(tokens["read"])).status_code == 200
    told = [line for line in site.audit() if "110114" in line]
    assert sum('EventOutcomeIndicator="4"' in line for line in told) == 4
    assert sum('EventOutcomeIndicator="8"' in line for line in told) == 1
    assert any("110113" in line and "110126" in line for line in site.audit())


def test_a_file_of_users_that_others_can_read_lets_nobody_in(site: Site) -> None:
    tokens = add_users(site.users)
    site.users.path.chmod(0o644)

    assert site.client().get("/api/status", headers=bearer(tokens["read"])).status_code == 401


def test_a_study_is_held_and_released_as_by_the_command(
    site: Site, database: Database, study: str
) -> None:
    tokens = add_users(site.users)
    client = site.client(headers=bearer(tokens["operate"]))

    held = client.post(f"/api/studies/{study}/hold", json={"reason": "wrong patient"})
    again = client.post(f"/api/studies/{study}/hold")
    released = client.post(f"/api/studies/{study}/release")
    nothing = client.post(f"/api/studies/{study}/retry")
    unknown = client.post("/api/studies/1.2.3/hold")

    assert (held.status_code, held.json()["study"]["state"]) == (200, "held")
    assert held.json()["study"]["reason"] == "wrong patient"
    assert again.status_code == 409
    assert "only a study on its way can be held" in again.json()["detail"]
    assert released.json()["study"]["state"] == "receiving"
    assert nothing.status_code == 409
    assert unknown.status_code == 404
    with database.read() as session:
        kinds = [event.kind for event in catalog.study_detail(session, study).timeline]
    assert kinds[-2:] == ["held", "released"]
    told = [line for line in site.audit() if "110103" in line]
    assert [('EventOutcomeIndicator="0"' in line) for line in told] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert all('UserID="operate"' in line and "99ECHOAI" in line for line in told)


def test_a_destination_that_is_none_is_said(site: Site, study: str) -> None:
    tokens = add_users(site.users)

    answer = site.client(headers=bearer(tokens["operate"])).post(
        f"/api/studies/{study}/resend", json={"to": "nowhere"}
    )

    assert answer.status_code == 404


def test_refusals_are_told_to_the_audit_and_every_message_is_of_the_schema(site: Site) -> None:
    tokens = add_users(site.users)
    client = site.client()

    client.post(f"/api/studies/{STUDY}/hold", headers=bearer(tokens["read"]))

    (line,) = [line for line in site.audit() if "110132" in line]
    assert 'UserID="read"' in line
    assert [fault for line in site.audit() for fault in faults_of(line)] == []


def test_errors_say_nothing_of_the_inside(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens = add_users(site.users)
    client = site.client(headers=bearer(tokens["operate"]))

    def broken(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("DOE^JANE is in the way")

    monkeypatch.setattr(catalog, "hold", broken)
    answer = client.post(f"/api/studies/{STUDY}/hold")
    invalid = client.post(f"/api/studies/{STUDY}/hold", json={"reason": 5, "DOE^JANE": 1})
    odd = client.post("/api/studies/DOE%5EJANE/hold")
    missing = client.get("/nothing")

    assert (answer.status_code, answer.json()["title"]) == (500, "Internal Server Error")
    assert [invalid.status_code, odd.status_code, missing.status_code] == [422, 422, 404]
    for one in (answer, invalid, odd, missing):
        assert one.headers["content-type"] == "application/problem+json"
        assert "DOE" not in one.text.replace("body.DOE^JANE", "")
    logged = capfd.readouterr()
    assert "RuntimeError" in logged.out + logged.err
    assert "DOE^JANE is" not in logged.out + logged.err


def test_answers_carry_what_keeps_a_browser_safe(site: Site) -> None:
    for path in ("/healthz", "/api/status", "/nothing"):
        headers = site.client().get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_a_page_of_another_site_can_press_no_button(site: Site, study: str) -> None:
    tokens = add_users(site.users)
    client = site.client(headers=bearer(tokens["operate"]))
    path = f"/api/studies/{study}/hold"

    assert client.post(path, headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post(path, headers={"origin": "null"}).status_code == 403
    assert client.post(path, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
    assert client.post(path, headers={"origin": site.url}).status_code == 200


def test_a_body_that_is_too_long_is_refused_however_it_comes(
    tmp_path: Path, database: Database
) -> None:
    with serving(tmp_path, database, HttpSettings(port=0, max_request_bytes=2000)) as site:
        tokens = add_users(site.users)
        client = site.client(headers=bearer(tokens["operate"]))
        path = f"/api/studies/{STUDY}/hold"

        told = client.post(path, content=b"x" * 3000)
        chunked = client.post(
            path, content=iter([b"x" * 1500] * 3), headers={"content-type": "application/json"}
        )

    assert told.status_code == 413
    assert chunked.status_code == 413


def test_slow_and_many_callers_hold_up_nobody(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_HEADER_S", 0.5)
    monkeypatch.setattr(gate, "_SILENCE_S", 0.5)
    with serving(tmp_path, database, HttpSettings(port=0, max_connections=5)) as site:
        tokens = add_users(site.users)
        port = int(httpx.URL(site.url).port or 0)
        address = ("127.0.0.1", port)
        slow = socket.create_connection(address, timeout=30)
        slow.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        half = socket.create_connection(address, timeout=30)
        half.sendall(
            f"POST /api/studies/{STUDY}/hold HTTP/1.1\r\nhost: localhost\r\n"
            f"authorization: Bearer {tokens['operate']}\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
        )
        assert slow.recv(1000) == b""
        assert b" 408 " in half.recv(100)
        many = [socket.create_connection(address, timeout=30) for _ in range(12)]
        wait_until(
            lambda: sum(_is_closed(one) for one in many) >= 6, what="those too many are closed"
        )
        for one in (*many, slow, half):
            one.close()
        wait_until(lambda: _answers(f"{site.url}/healthz"), what="others are served", timeout_s=10)


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_anyone_may_look_where_the_settings_say_so_and_do_nothing_else(
    tmp_path: Path, database: Database, study: str
) -> None:
    with serving(tmp_path, database, HttpSettings(port=0, anyone_may_look=True)) as site:
        client = site.client()

        assert client.get("/api/status").status_code == 200
        assert client.post(f"/api/studies/{study}/hold").status_code == 401


def test_the_default_port_gives_way_and_a_port_in_the_settings_does_not(
    tmp_path: Path, database: Database
) -> None:
    (tmp_path / "echonode.toml").write_text("")
    by_default = load_settings(tmp_path / "echonode.toml").http
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        http = HttpSettings.model_construct(set(), **{**dict(by_default), "port": port})
        with serving(tmp_path, database, http) as site:
            assert httpx.URL(site.url).port != port
        with pytest.raises(HttpError, match=f"cannot listen on 127.0.0.1:{port} for HTTP"):
            HttpServer(HttpSettings(port=port), UserFile(tmp_path / "users.json"))._bound()


def test_status_is_that_of_the_command(site: Site) -> None:
    tokens = add_users(site.users)

    shown = site.client().get("/api/status", headers=bearer(tokens["read"])).json()

    assert shown["studies"]["receiving"] == 1
    assert {"nodes", "workers", "disk", "quarantined", "running"} <= set(shown)
