"""The HTTP door on a network: with TLS, with certificates, behind a proxy, or not at all."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.sections import HttpSettings
from node.tls import client_context
from node.web.exposure import ExposureError, check_exposure
from node.web.gate import Gate
from node.web.server import HttpError, HttpServer
from node.web.users import Role, UserFile
from storage.database import Database
from tests.certificates import Certificates
from tests.web_site import add_users, bearer, serving


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_it_speaks_tls_and_nothing_older_or_plain(
    tmp_path: Path, database: Database, certificates: Certificates
) -> None:
    http = HttpSettings(port=0, tls=certificates.server_tls())
    with serving(tmp_path, database, http) as site:
        tokens = add_users(site.users)
        site.verify = client_context(certificates.client_tls())
        answer = site.client().get("/api/status", headers=bearer(tokens["read"]))
        old = client_context(certificates.client_tls())
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        site.verify = old
        with pytest.raises(httpx.TransportError):
            site.client().get("/healthz")
        with pytest.raises(httpx.TransportError):
            httpx.get(site.url.replace("https", "http") + "/healthz", trust_env=False)

    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_a_certificate_is_a_way_in_where_it_is_asked_for(
    tmp_path: Path, database: Database, certificates: Certificates
) -> None:
    http = HttpSettings(
        port=0,
        tls=certificates.server_tls(ask_for_client=True),
        certificate_roles=("read",),
    )
    with serving(tmp_path, database, http) as site:
        tokens = add_users(site.users)
        site.verify = client_context(certificates.client_tls(show=certificates.client))
        known = site.client()
        seen = known.get("/api/status")
        button = known.post("/api/studies/1.2.3/hold")
        with_token = known.post("/api/studies/1.2.3/hold", headers=bearer(tokens["operate"]))
        for show in (None, certificates.stranger):
            site.verify = client_context(certificates.client_tls(show=show))
            with pytest.raises(httpx.TransportError):
                site.client().get("/healthz")
        told = site.audit()

    assert [seen.status_code, button.status_code, with_token.status_code] == [200, 403, 404]
    assert sum("110114" in line and 'UserID="ECHOCART"' in line for line in told) == 1


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("it is not served")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    key = tmp_path / "server.key"
    key.write_bytes(certificates.server.private_key.read_bytes())
    key.chmod(0o644)
    tls = certificates.server_tls().model_copy(update={"private_key": key})

    with pytest.raises(HttpError, match=f"chmod 600 {key}"):
        HttpServer(HttpSettings(port=0, tls=tls), UserFile(tmp_path / "users.json")).start(nothing)


def exposure(tmp_path: Path, **settings: Any) -> str | None:
    """What keeps these settings from being used, or None."""
    users = UserFile(tmp_path / "users.json")
    try:
        check_exposure(HttpSettings(**settings), users)
    except ExposureError as error:
        return str(error)
    return None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "node.example"])  # noqa: S104
def test_it_does_not_open_to_the_network_by_itself(
    tmp_path: Path, certificates: Certificates, host: str
) -> None:
    tls = certificates.server_tls()
    asking = certificates.server_tls(ask_for_client=True)
    proxies = ("10.0.0.1",)

    clear = exposure(tmp_path, host=host)
    unknown = exposure(tmp_path, host=host, tls=tls)

    assert "without TLS passwords would go there in the clear" in (clear or "")
    for way_out in ("[http.tls]", "proxies", 'host = "127.0.0.1"', "enabled = false"):
        assert way_out in (clear or "")
    assert "there are no users" in (unknown or "")
    for way_out in ("echonode user add", "client_authorities", "anyone_may_look = true"):
        assert way_out in (unknown or "")
    assert exposure(tmp_path, host=host, anyone_may_look=True) == clear
    assert exposure(tmp_path, host=host, proxies=proxies) is not None
    assert exposure(tmp_path, host=host, tls=asking) is None
    assert exposure(tmp_path, host=host, tls=tls, anyone_may_look=True) is None
    UserFile(tmp_path / "users.json").add("anna", [Role.READ], None)
    assert exposure(tmp_path, host=host, tls=tls) is None
    assert exposure(tmp_path, host=host, proxies=proxies) is None
    assert exposure(tmp_path, host=host) == clear


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_on_its_own_machine_it_opens(tmp_path: Path, host: str) -> None:
    assert exposure(tmp_path, host=host) is None


async def answered(settings: HttpSettings, client: str, **headers: str) -> tuple[int, Any]:
    """The status that the gate gives to a caller, and whom the site saw, or None."""
    seen: list[Any] = []
    sent: list[Any] = []

    async def site(scope: Any, _receive: Any, send: Any) -> None:
        seen.append((scope["client"][0], scope["scheme"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "scheme": "http",
        "client": (client, 5),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }
    await Gate(site, settings)(scope, receive, send)
    return sent[0]["status"], seen[0] if seen else None


@pytest.mark.parametrize(
    ("client", "forwarded", "status", "seen"),
    [
        ("10.0.0.1", "198.51.100.7", 200, ("198.51.100.7", "https")),
        ("::ffff:10.0.0.1", "198.51.100.7", 200, ("198.51.100.7", "https")),
        # The last is the proxy's word; what the caller wrote before it counts for nothing.
        ("10.0.0.1", "127.0.0.1, 198.51.100.7", 200, ("198.51.100.7", "https")),
        ("10.0.0.1", "nonsense", 200, ("10.0.0.1", "https")),
        ("127.0.0.1", "198.51.100.7", 200, ("127.0.0.1", "http")),
        ("10.0.0.2", "127.0.0.1", 403, None),
        ("nonsense", "127.0.0.1", 403, None),
    ],
)
def test_without_tls_only_the_named_proxies_come_in(
    client: str, forwarded: str, status: int, seen: Any
) -> None:
    settings = HttpSettings(host="10.0.0.9", proxies=("10.0.0.1/32",))

    got = asyncio.run(answered(settings, client, host="node.example", x_forwarded_for=forwarded))

    assert got == (status, seen)
