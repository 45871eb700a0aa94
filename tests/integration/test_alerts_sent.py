"""Alerts on their way: to a web server and to a mail server, and what may go wrong there."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from pydantic import ValidationError

from node.cli.app import main
from node.sections import ClientTls, MailSettings, WebhookSettings
from node.watch.alerts import AlertError, Mail, Webhook, trial_alert
from tests.certificates import Certificates
from tests.light_node import light_node
from tests.peers import free_port, wait_until
from tests.webhook import SECRET, webhook

pytestmark = pytest.mark.timeout(120)

TRIAL = trial_alert("ECHONODE on test")


class Box:
    """A mailbox."""

    def __init__(self) -> None:
        self.letters: list[Envelope] = []

    async def handle_DATA(  # noqa: N802 - the library's name
        self, _server: Any, _session: Any, envelope: Envelope
    ) -> str:
        self.letters.append(envelope)
        return "250 taken"


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[tuple[Box, int]]:
    box, port = Box(), free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, tls_context=tls, **options)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


def server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.private_key)
    return context


def secret_file(folder: Path, text: str = SECRET) -> Path:
    file = folder / "secret"
    file.write_text(text)
    file.chmod(0o600)
    return file


def mail(port: int, **settings: Any) -> Mail:
    whole = {
        "host": "127.0.0.1", "port": port, "security": "none",
        "sender": "node@hospital.example", "to": ("pacs@hospital.example",), **settings,
    }  # fmt: skip
    return Mail(MailSettings(**whole))


def test_a_webhook_gets_json_with_the_token(tmp_path: Path) -> None:
    with webhook() as hook:
        Webhook(WebhookSettings(url=hook.url, token_file=secret_file(tmp_path))).send(TRIAL)

    ((content, token),) = hook.heard
    assert token == f"Bearer {SECRET}"
    assert content["text"].startswith("ECHONODE on test: test test. This is a test")
    assert (content["state"], content["kind"]) == ("test", "test")
    assert set(content) == {
        "text", "node", "state", "kind", "subject", "what", "next_step", "since", "at",
    }  # fmt: skip


def test_a_webhook_speaks_tls_with_whom_it_believes_alone(certificates: Certificates) -> None:
    with webhook(server_context(certificates)) as hook:
        url = f"https://localhost:{hook.port}/"
        Webhook(WebhookSettings(url=url, tls=certificates.client_tls())).send(TRIAL)
        stranger = ClientTls(authorities=certificates.other_authority)
        with pytest.raises(AlertError, match="the webhook cannot be reached: ConnectError"):
            Webhook(WebhookSettings(url=url, tls=stranger)).send(TRIAL)

    assert len(hook.heard) == 1


def test_what_a_webhook_does_not_take_is_an_error_without_its_address(tmp_path: Path) -> None:
    with webhook() as hook:
        hook.status = 500
        address = secret_file(tmp_path, hook.url)
        with pytest.raises(AlertError) as refused:
            Webhook(WebhookSettings(url_file=address)).send(TRIAL)
    with pytest.raises(AlertError) as away:
        Webhook(WebhookSettings(url=hook.url)).send(TRIAL)

    far = secret_file(tmp_path, "http://hooks.example/x")
    with pytest.raises(AlertError, match="alerts go by https alone"):
        Webhook(WebhookSettings(url_file=far)).check()
    assert str(refused.value) == "the webhook answered HTTP 500"
    assert str(away.value) == "the webhook cannot be reached: ConnectError"
    assert len(hook.heard) == 1


def test_a_secret_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    file = secret_file(tmp_path)
    file.chmod(0o644)

    with pytest.raises(AlertError, match="run: chmod 600"):
        Webhook(WebhookSettings(url="http://127.0.0.1:1/", token_file=file)).send(TRIAL)


def test_a_mail_arrives_with_starttls_and_a_password(
    certificates: Certificates, tmp_path: Path
) -> None:
    shown: list[Any] = []

    def let_in(_server: Any, _session: Any, _envelope: Any, _mechanism: Any, data: Any) -> Any:
        shown.append(data)
        return AuthResult(success=data.password == SECRET.encode(), handled=False)

    context = server_context(certificates)
    with mail_server(context, require_starttls=True, authenticator=let_in, auth_required=True) as (
        box,
        port,
    ):
        options = {
            "host": "localhost", "security": "starttls", "tls": certificates.client_tls(),
            "user": "node",
        }  # fmt: skip
        mail(port, **options, password_file=secret_file(tmp_path)).send(TRIAL)
        with pytest.raises(AlertError, match="it answered 535"):
            mail(port, **options, password_file=secret_file(tmp_path, "wrong")).send(TRIAL)
        strange = {**options, "tls": ClientTls(authorities=certificates.other_authority)}
        with pytest.raises(AlertError, match="no TLS with the mail server"):
            mail(port, **strange, password_file=secret_file(tmp_path)).send(TRIAL)

    (letter,) = box.letters
    assert letter.mail_from == "node@hospital.example"
    assert letter.rcpt_tos == ["pacs@hospital.example"]
    text = bytes(letter.content or b"").decode()
    assert "Subject: [echonode] ECHONODE on test: test test" in text
    assert "Auto-Submitted: auto-generated" in text
    assert "This is a test" in text


def test_without_security_only_on_this_machine(tmp_path: Path) -> None:
    with mail_server() as (box, port):
        mail(port).send(TRIAL)
    assert len(box.letters) == 1
    with pytest.raises(AlertError, match="the mail server cannot be reached: Connection refused"):
        mail(port).send(TRIAL)
    with pytest.raises(ValidationError, match='security = "none" is for a server on this machine'):
        mail(25, host="mail.example")
    with pytest.raises(ValidationError, match="https alone"):
        WebhookSettings(url="http://hooks.example/x")
    with pytest.raises(ValidationError, match="name url or url_file"):
        WebhookSettings(url="https://hooks.example/x", url_file=tmp_path / "x")


def test_the_test_button_says_what_came_of_each_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "echonode.toml"
    with webhook() as hook, mail_server() as (box, port):
        config.write_text(
            f'data_dir = "data"\n[alerts.webhook]\nurl = "{hook.url}"\n[alerts.mail]\n'
            f'host = "127.0.0.1"\nport = {port}\nsecurity = "none"\n'
            'sender = "node@hospital.example"\nto = ["pacs@hospital.example"]\n'
        )
        command = ["--config", str(config), "alerts", "test"]
        assert main(command) == 0
        all_well = capsys.readouterr()
        hook.status = 503
        assert main([*command, "--json"]) == 1
        told = capsys.readouterr()
        assert main([*command, "--way", "mail"]) == 0

    assert all_well.out.splitlines() == [
        "webhook to 127.0.0.1: sent",
        "mail to pacs@hospital.example: sent",
    ]
    assert [(one["way"], one["sent"]) for one in json.loads(told.out)] == [
        ("webhook", False),
        ("mail", True),
    ]
    assert "HTTP 503" in told.out
    assert SECRET not in all_well.out + told.out + told.err
    assert (len(hook.heard), len(box.letters)) == (2, 3)


def test_without_a_way_the_test_button_says_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text('data_dir = "data"\n')

    assert main(["--config", str(config), "alerts", "test"]) == 1
    assert "write [alerts.webhook] or [alerts.mail]" in capsys.readouterr().err
    assert main(["--config", str(config), "alerts", "list"]) == 0


def test_a_node_tells_of_its_disk_and_a_dead_webhook_does_not_disturb_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        mail_server() as (box, port),
        light_node(
            monkeypatch,
            tmp_path / "data",
            disk={"keep_free_bytes": 1 << 60},
            alerts={
                "webhook": {"url": f"http://127.0.0.1:{free_port()}/"},
                "mail": {
                    "host": "127.0.0.1", "port": port, "security": "none",
                    "sender": "node@hospital.example", "to": ["pacs@hospital.example"],
                },
            },
        ) as (node, _),
    ):  # fmt: skip
        memory = tmp_path / "data" / "alerts.json"
        wait_until(memory.exists, what="a turn of the alerts", pause_s=0.05)
        url = node.addresses.http_url
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        counted = httpx.get(f"{url}/metrics", trust_env=False).text

    assert "disk-full begun" in bytes(box.letters[0].content or b"").decode()
    assert 'echonode_alerts_total{kind="disk-full",outcome="failed",way="webhook"} 1.0' in counted
    assert 'echonode_alerts_total{kind="disk-full",outcome="sent",way="mail"} 1.0' in counted
    (known,) = json.loads(memory.read_text())
    assert (known["alarm"]["kind"], known["untold"]) == ("disk-full", ["webhook"])
