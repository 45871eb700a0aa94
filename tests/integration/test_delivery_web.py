"""What archives answer to STOW-RS, one by one; queries; and who we show ourselves as."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.uid import generate_uid

from node.delivery.asking import Kept, Reply
from node.delivery.sending import Answer, Outgoing
from node.delivery.stow import StowSender
from node.delivery.web_archive import WebArchive
from node.secrets import SecretError
from node.sections import DicomwebDestination
from storage.database import Database
from storage.states import DeliveryState, Silence
from tests.outbox_steps import Studies, small_object

TOKEN = "a-token-that-nobody-may-see"  # noqa: S105 - of a test
STUDY, SERIES = generate_uid(), generate_uid()


class Archive:
    """An HTTP server that answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Mapping[str, str], Any]] = []
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer("POST")

            def do_GET(self) -> None:
                self._answer("GET")

            def _answer(self, method: str) -> None:
                archive.requests.append((method, self.path, dict(self.headers)))
                status, headers, body = archive.answers.pop(0)
                content = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/dicom-web"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def will(self, status: int, body: Any = None, **headers: str) -> None:
        """Answer this to the next request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))


@pytest.fixture
def archive() -> Iterator[Archive]:
    server = Archive()
    yield server
    server.close()


def to(archive: Archive, **changes: Any) -> DicomwebDestination:
    values = {"name": "web", "kind": "dicomweb", "url": archive.url, "timeout_s": 10, **changes}
    return DicomwebDestination.model_validate(values)


@pytest.fixture(scope="module")
def outgoing(tmp_path_factory: pytest.TempPathFactory) -> Outgoing:
    path = small_object(tmp_path_factory.mktemp("made"), STUDY, SERIES)
    return Outgoing(
        delivery_id=1,
        path=path,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid=path.stem,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )


def body(uid: str, *, stored: bool, reason: int | None = None) -> dict[str, Any]:
    """A store response of one object (PS3.18 I.2)."""
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        tag = "00081196" if stored else "00081197"
        item[tag] = {"vr": "US", "Value": [reason]}
    return {"00081199" if stored else "00081198": {"vr": "SQ", "Value": [item]}}


def once(archive: Archive, outgoing: Outgoing) -> Answer:
    (answer,) = StowSender(to(archive)).send([outgoing])
    return answer


@pytest.mark.parametrize(
    ("status", "said", "accepted", "text"),
    [
        (200, {"stored": True}, True, "HTTP 200 stored"),
        (200, None, True, "HTTP 200 stored"),
        (202, {"stored": True, "reason": 0xB000}, True, "HTTP 202 stored, warning 0xB000"),
        (200, {"stored": False, "reason": 0xC000}, False, "200 refused, failure reason 0xC000"),
        (202, {"stored": False, "reason": 0xA700}, False, "202 refused, failure reason 0xA700"),
        (202, {"stored": False}, False, "failure reason 0x0110"),
        (202, None, False, "HTTP 202 refused"),
        (409, {"stored": False, "reason": 0x0122}, False, "409 refused, failure reason 0x0122"),
        (400, {"stored": False, "reason": 0xC122}, False, "400 refused, failure reason 0xC122"),
        (400, {"stored": True}, True, "HTTP 400 stored"),
        (401, None, False, "see token or user"),
        (403, None, False, "ask for the right"),
        (413, None, False, "raise its limit"),
        (415, None, False, "transfer syntax"),
        (500, None, False, "HTTP 500 refused"),
        (307, None, False, "HTTP 307 refused"),
    ],
)  # fmt: skip
def test_each_answer_is_read_by_what_it_says_of_the_object(
    archive: Archive,
    outgoing: Outgoing,
    status: int,
    said: dict[str, Any] | None,
    accepted: bool,
    text: str,
) -> None:
    archive.will(status, None if said is None else body(outgoing.sop_instance_uid, **said))
    answer = once(archive, outgoing)
    assert (answer.accepted, answer.status, answer.silence) == (accepted, status, None)
    assert text in answer.text
    assert answer.class_refused is (said is not None and said.get("reason") == 0x0122)


def test_a_failure_of_another_object_is_not_taken_for_ours(
    archive: Archive, outgoing: Outgoing
) -> None:
    both = body(outgoing.sop_instance_uid, stored=True) | body("1.2.3", stored=False, reason=1)
    archive.will(202, both)
    assert once(archive, outgoing).accepted


def test_an_archive_that_asks_to_be_left_alone_is_left_alone(
    archive: Archive, database: Database, tmp_path: Path
) -> None:
    studies = Studies(database, tmp_path)
    outbox = studies.outbox({"web": StowSender(to(archive))})
    uid = studies.add("web", results=3)
    archive.will(200)
    archive.will(429, Retry_After="1234")
    outbox.deliver_due("web")

    assert len(archive.requests) == 2  # the third object was not tried
    assert studies.states(uid) == [DeliveryState.DELIVERED] + [DeliveryState.WAITING] * 2
    left = studies.detail(uid).deliveries
    assert (left[1].next_attempt_at - studies.clock()).total_seconds() == 1234
    assert (left[2].next_attempt_at - studies.clock()).total_seconds() == 1234
    assert "fewer requests" in left[1].last_answer
    assert left[2].last_answer.startswith("not sent")

    studies.clock.pass_(seconds=1234)
    archive.will(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")  # long ago
    outbox.deliver_due("web")
    assert (
        1
        <= (studies.detail(uid).deliveries[1].next_attempt_at - studies.clock()).total_seconds()
        <= 60
    )
    studies.clock.pass_(seconds=60)
    archive.will(200)
    archive.will(200)
    outbox.deliver_due("web")
    assert studies.detail(uid).study.state == "done"


def test_an_archive_that_closes_without_an_answer_may_have_the_object(
    archive: Archive, outgoing: Outgoing
) -> None:
    answers = list(StowSender(to(archive, timeout_s=5)).send([outgoing, outgoing]))
    assert [answer.silence for answer in answers] == [Silence.NO_ANSWER, Silence.NOT_REACHED]
    assert "may have the object" in answers[0].text


def test_an_archive_that_is_down_has_nothing(archive: Archive, outgoing: Outgoing) -> None:
    archive.close()
    answers = list(StowSender(to(archive)).send([outgoing, outgoing]))
    assert {answer.silence for answer in answers} == {Silence.NOT_REACHED}


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_token_is_shown_and_read_anew_and_never_said(
    archive: Archive, outgoing: Outgoing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = private(tmp_path / "token", f"{TOKEN}\n")
    destination = to(archive, token_file=file)
    sender = StowSender(destination)
    archive.will(401)
    (answer,) = sender.send([outgoing])
    private(file, "another")
    archive.will(200)
    list(sender.send([outgoing]))

    shown = [headers["Authorization"] for _method, _path, headers in archive.requests]
    assert shown == [f"Bearer {TOKEN}", "Bearer another"]
    said = f"{answer}{destination!r}{destination.model_dump_json()}{capsys.readouterr()}"
    assert TOKEN not in said

    file.unlink()
    (answer,) = sender.send([outgoing])
    assert not answer.accepted
    assert "token of destination 'web'" in answer.text
    assert len(archive.requests) == 2


def test_a_password_comes_from_a_variable(
    archive: Archive, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACS_PASSWORD", "päss")
    archive.will(200)
    place = {"password_variable": "PACS_PASSWORD"}
    destination = to(archive, user="node", **place)
    list(StowSender(destination).send([outgoing]))
    (_method, _path, headers) = archive.requests[0]
    expected = base64.b64encode("node:päss".encode()).decode()
    assert headers["Authorization"] == f"Basic {expected}"


def test_a_secret_that_others_can_read_is_an_error_at_the_start(
    archive: Archive, tmp_path: Path
) -> None:
    file = private(tmp_path / "token", TOKEN)
    file.chmod(0o644)
    with pytest.raises(SecretError, match="chmod") as caught:
        StowSender(to(archive, token_file=file))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://pacs.example/dicom-web", "token_file": "/t"}, "by https alone"),
        ({"user": "node"}, "belong together"),
        ({"password_file": "/p"}, "belong together"),
        ({"token_file": "/t", "token_variable": "T"}, "one secret"),
        ({"token_file": "/t", "user": "u", "password_file": "/p"}, "one secret"),
        ({"commitment": "required"}, "'auto' or 'off'"),
    ],
)
def test_settings_that_would_not_do_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"name": "web", "kind": "dicomweb", "url": "https://pacs.example/web", **changes}
    with pytest.raises(ValidationError, match=message):
        DicomwebDestination.model_validate(values)


def look(archive: Archive, uid: str = "1.2.3.4") -> Any:
    item = Kept(
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    )
    return WebArchive(to(archive)).look([item])


def instance(uid: str) -> dict[str, Any]:
    return {"00080018": {"vr": "UI", "Value": [uid]}}


def test_a_query_that_shows_a_page_is_asked_for_the_object_itself(archive: Archive) -> None:
    archive.will(200, [instance("1.2.3.5")])
    archive.will(200, [instance("1.2.3.4")])
    seen = look(archive)
    assert (seen.reply, seen.found) == (Reply.TAKEN, {"1.2.3.4"})
    assert archive.requests[0][1] == f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances"
    assert archive.requests[1][1].endswith("/instances?SOPInstanceUID=1.2.3.4")


@pytest.mark.parametrize(
    ("answers", "reply"),
    [
        ([(204, None), (204, None)], Reply.TAKEN),
        ([(404, None), (200, []), (404, None), (200, [])], Reply.TAKEN),  # no such study
        ([(404, None), (404, None)], Reply.NOT_OFFERED),  # no query at all
        ([(501, None)], Reply.NOT_OFFERED),
        ([(403, None)], Reply.NOT_OFFERED),
        ([(200, {"error": "a page of a portal"})], Reply.NOT_OFFERED),
        ([(503, None)], Reply.NOT_NOW),
    ],
)
def test_each_answer_to_a_query_is_read_for_what_it_is(
    archive: Archive, answers: list[tuple[int, Any]], reply: Reply
) -> None:
    for status, said in answers:
        archive.will(status, said)
    seen = look(archive)
    assert (seen.reply, seen.found) == (reply, frozenset())
    assert archive.answers == []


def test_a_query_to_an_archive_that_is_down_is_not_taken_for_an_answer(archive: Archive) -> None:
    archive.close()
    assert look(archive).reply is Reply.NOT_REACHED
