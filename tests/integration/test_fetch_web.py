"""A DICOMweb archive that knows no pages, no wildcard, breaks off, or has too much to do."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydicom.dataset import FileDataset

from node.fetching import web as fetching_web
from node.fetching.model import FetchError, Outcome, Wish
from node.fetching.run import Broken
from node.fetching.web import WebArchive
from node.sections import DicomwebSource
from storage.database import Database
from tests.fetch_steps import Site, Watch, fetching_site, study_of, uids

BOUNDARY = "cut-here"


@dataclass
class Web:
    """What it has and how it fails."""

    clips: list[FileDataset]
    knows_wildcard: bool = True
    packed: bool = False  #: packs objects, asked or not
    single: bool = False  #: sends the object alone, without parts
    breaks_off: int = 0  #: so many times in the middle of an object
    busy: int = 0  #: answers so many requests with 503
    status: int = 200
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to a request."""
        self.asked.append(path)
        if self.busy:
            self.busy -= 1
            return 503, "text/plain", b""
        if self.status != 200:
            return self.status, "text/plain", b""
        parts = path.strip("/").split("/")
        if len(parts) == 6:
            return self._object(parts[5], accept)
        keys = {1: "0020000D", 3: "0020000E", 5: "00080018"}
        values = {
            1: [clip.StudyInstanceUID for clip in self.clips],
            3: [clip.SeriesInstanceUID for clip in self.clips],
            5: [clip.SOPInstanceUID for clip in self.clips],
        }[len(parts)]
        listed = [
            {
                keys[len(parts)]: {"vr": "UI", "Value": [str(value)]},
                "00100010": {"vr": "PN", "Value": ["not even of the right form"]},
            }
            for value in dict.fromkeys(values)
        ]
        return 200, "application/dicom+json", json.dumps(listed).encode()

    def _object(self, uid: str, accept: str) -> tuple[int, str, bytes]:
        if "transfer-syntax=*" in accept and not self.knows_wildcard:
            return 406, "text/plain", b""
        (clip,) = (one for one in self.clips if one.SOPInstanceUID == uid)
        buffer = io.BytesIO()
        clip.save_as(buffer, enforce_file_format=True)
        if self.single:
            return 200, "application/dicom", buffer.getvalue()
        body = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body += buffer.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()
        if self.breaks_off:
            self.breaks_off -= 1
            body = body[: len(body) // 2]
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return 200, kind, body

    @contextmanager
    def serving(self) -> Iterator[Web]:
        """Serve until the end of the block."""
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                status, kind, body = web.answer(path, self.headers.get("Accept", ""))
                packed = web.packed and not kind.endswith("json")
                if packed:
                    body = gzip.compress(body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if packed:
                    self.send_header("Content-Encoding", "gzip")
                if status == 503:
                    self.send_header("Retry-After", "77")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def archive(self) -> WebArchive:
        """As the fetch sees it."""
        return WebArchive(DicomwebSource(name="web", kind="dicomweb", url=self.url))


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    with fetching_site(database, tmp_path) as opened:
        yield opened


CLIPS = study_of(3)
WISH = Wish(studies=(str(CLIPS[0].StudyInstanceUID),))


@pytest.mark.parametrize("options", [{"knows_wildcard": False}, {"single": True}])
def test_it_sends_in_the_form_that_it_knows(site: Site, options: dict[str, Any]) -> None:
    with Web(clips=CLIPS, **options).serving() as web:
        (report,) = site.fetch(web.archive(), WISH).studies

    assert (report.outcome, report.taken) == (Outcome.TAKEN, 3)
    assert set(site.here(WISH.studies[0]).received) == uids(CLIPS)


def test_an_archive_without_pages_is_asked_twice_and_not_for_ever(site: Site) -> None:
    with Web(clips=CLIPS).serving() as web:
        summary = site.fetch(web.archive(), WISH, dry_run=True)

    assert [one.wanted for one in summary.studies] == [3]
    assert [len(path.strip("/").split("/")) for path in web.asked] == [1, 1, 3, 3, 5, 5]


def test_an_object_that_breaks_off_is_asked_for_once_more(site: Site) -> None:
    watch = Watch()
    with Web(clips=CLIPS, breaks_off=1).serving() as web:
        (report,) = site.fetch(web.archive(), WISH, watch=watch).studies

    assert (report.outcome, report.taken) == (Outcome.TAKEN, 3)
    assert "broke off" in watch.waited[0][0]
    assert site.left_over() == []


def test_an_object_that_always_breaks_off_is_told_and_the_rest_comes_next_time(site: Site) -> None:
    with Web(clips=CLIPS, breaks_off=2).serving() as web:
        summary = site.fetch(web.archive(), WISH)
        assert not summary.is_whole
        assert "broke off" in summary.studies[0].reasons[0]
        assert site.fetch(web.archive(), WISH).is_whole
    assert set(site.here(WISH.studies[0]).received) == uids(CLIPS)
    assert site.left_over() == []


def test_what_would_unpack_to_more_than_memory_holds_is_not_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Web(clips=CLIPS, packed=True).serving() as web:
        (report,) = site.fetch(web.archive(), WISH).studies
        assert (report.taken, report.missing) == (0, 3)
        assert report.reasons == ["it sent it packed, and was asked not to"]

        monkeypatch.setattr(fetching_web, "_MOST_QUERY_BYTES", 100)
        with pytest.raises(Broken, match="without end"):
            site.fetch(web.archive(), WISH)


def test_one_that_has_too_much_to_do_is_left_alone_as_long_as_it_says(site: Site) -> None:
    watch = Watch()
    with Web(clips=CLIPS, busy=1).serving() as web:
        assert site.fetch(web.archive(), WISH, watch=watch).is_whole
    assert watch.waited == [("web answered a query with HTTP 503", 77.0)]

    with Web(clips=CLIPS, busy=99).serving() as web, pytest.raises(Broken, match="HTTP 503"):
        site.fetch(web.archive(), WISH)


@pytest.mark.parametrize(("status", "words"), [(401, "does not let us in"), (404, "no QIDO-RS")])
def test_one_that_will_never_answer_is_not_asked_again(site: Site, status: int, words: str) -> None:
    with Web(clips=CLIPS, status=status).serving() as web:
        with pytest.raises(FetchError, match=words):
            site.fetch(web.archive(), WISH)
        assert len(web.asked) == 1
