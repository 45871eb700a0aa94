"""TLS on the way out: DCMTK's and pynetdicom's archives, certificates, and what is refused."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from node.delivery.dimse import DimseSender
from node.delivery.sending import Answer, Outgoing
from node.delivery.stow import StowSender
from node.delivery.ways import WayError, ways_to
from node.sections import ClientTls, DicomwebDestination, DimseDestination
from node.tls import server_context
from storage.states import Silence
from tests.certificates import Certificate, Certificates
from tests.outbox_steps import small_object
from tests.peers import Archive, accepts_connections, free_port, require, running, wait_until

pytestmark = [
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]


@contextmanager
def storescp_with_tls(
    folder: Path, certificates: Certificates, shown: Certificate, *, asks: bool = False
) -> Iterator[Archive]:
    """DCMTK's `storescp` behind TLS; ``asks``: callers must show a certificate."""
    kept = folder / "kept"
    kept.mkdir()
    port = free_port()
    command = [
        require("storescp"), "--accept-all", "-fe", ".dcm", "-od", str(kept),
        "+tls", str(shown.private_key), str(shown.certificate),
        "+cf", str(certificates.authority),
        "-rc" if asks else "-ic", str(port),
    ]  # fmt: skip
    with running(command, log=folder / "storescp.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        yield Archive(ae_title="ARCHIVE", port=port, folder=kept)


@pytest.fixture(scope="module")
def outgoing(tmp_path_factory: pytest.TempPathFactory) -> Outgoing:
    path = small_object(tmp_path_factory.mktemp("made"), generate_uid(), generate_uid())
    return Outgoing(
        delivery_id=1,
        path=path,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid=path.stem,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )


def sent(archive: Archive, outgoing: Outgoing, tls: ClientTls | None, **changes: Any) -> Answer:
    destination = DimseDestination(
        name="pacs",
        kind="dimse",
        host=changes.get("host", "localhost"),
        port=archive.port,
        ae_title=archive.ae_title,
        tls=tls,
    )
    (answer,) = DimseSender(destination, "ECHONODE", timeout_s=5).send([outgoing])
    return answer


def test_dcmtk_takes_results_by_tls_and_a_wrong_certificate_is_refused_in_words(
    certificates: Certificates, outgoing: Outgoing, tmp_path: Path
) -> None:
    with storescp_with_tls(tmp_path, certificates, certificates.server) as archive:
        assert sent(archive, outgoing, certificates.client_tls()).accepted
        assert len(archive.files()) == 1

        strange = sent(archive, outgoing, ClientTls(authorities=certificates.other_authority))
        assert (strange.accepted, strange.silence) == (False, Silence.NOT_REACHED)
        assert "its certificate is not believed: " in strange.text
        assert "certificate in certificate chain" in strange.text
        in_the_clear = sent(archive, outgoing, None)
        assert not in_the_clear.accepted
        assert len(archive.files()) == 1


def test_an_archive_under_another_name_is_refused(
    certificates: Certificates, outgoing: Outgoing, tmp_path: Path
) -> None:
    with storescp_with_tls(tmp_path, certificates, certificates.elsewhere) as archive:
        answer = sent(archive, outgoing, certificates.client_tls())
        assert archive.files() == []
    assert not answer.accepted
    assert "Hostname mismatch" in answer.text
    assert "localhost" in answer.text


def test_dcmtk_that_asks_for_our_certificate_gets_it(
    certificates: Certificates, outgoing: Outgoing, tmp_path: Path
) -> None:
    with storescp_with_tls(tmp_path, certificates, certificates.server, asks=True) as archive:
        shown = certificates.client_tls(show=certificates.client)
        assert sent(archive, outgoing, shown).accepted
        without = sent(archive, outgoing, certificates.client_tls())
        assert not without.accepted
        assert "no TLS: " in without.text
        stranger = sent(archive, outgoing, certificates.client_tls(show=certificates.stranger))
        assert not stranger.accepted
        assert len(archive.files()) == 1


def test_an_archive_that_speaks_no_tls_is_not_spoken_to_in_the_clear(
    certificates: Certificates, outgoing: Outgoing, tmp_path: Path
) -> None:
    port = free_port()
    command = [require("storescp"), "--accept-all", "-od", str(tmp_path), str(port)]
    with running(command, log=tmp_path / "storescp.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        archive = Archive(ae_title="ARCHIVE", port=port, folder=tmp_path)
        assert not sent(archive, outgoing, certificates.client_tls()).accepted
        assert archive.files() == []


@contextmanager
def https(certificates: Certificates, shown: Certificate, *, asks: bool = False) -> Iterator[int]:
    """An archive that takes everything by HTTPS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps({}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_arguments: object) -> None:
            pass  # a handshake that was broken off

    server = Server(("127.0.0.1", 0), Handler)
    tls = certificates.server_tls(ask_for_client=asks).model_copy(
        update={"certificate": shown.certificate, "private_key": shown.private_key}
    )
    context = server_context(tls)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stored(port: int, outgoing: Outgoing, tls: ClientTls) -> Answer:
    destination = DicomwebDestination(
        name="web", kind="dicomweb", url=f"https://localhost:{port}/dicom-web", tls=tls
    )
    (answer,) = StowSender(destination, timeout_s=5).send([outgoing])
    return answer


def test_stow_by_https_with_the_same_certificates(
    certificates: Certificates, outgoing: Outgoing
) -> None:
    with https(certificates, certificates.server) as port:
        assert stored(port, outgoing, certificates.client_tls()).accepted
        strange = stored(port, outgoing, ClientTls(authorities=certificates.other_authority))
        assert (strange.accepted, strange.silence) == (False, Silence.NOT_REACHED)
        assert "certificate verify failed" in strange.text
    with https(certificates, certificates.elsewhere) as port:
        assert "Hostname mismatch" in stored(port, outgoing, certificates.client_tls()).text
    with https(certificates, certificates.server, asks=True) as port:
        shown = certificates.client_tls(show=certificates.client)
        assert stored(port, outgoing, shown).accepted
        assert not stored(port, outgoing, certificates.client_tls()).accepted


def test_a_certificate_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    destination = DimseDestination(
        name="pacs",
        kind="dimse",
        host="localhost",
        port=104,
        ae_title="PACS",
        tls=ClientTls(authorities=broken),
    )
    with pytest.raises(WayError, match=r"destination 'pacs': authorities .*broken\.pem"):
        ways_to([destination], "ECHONODE")
