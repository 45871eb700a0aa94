"""OHIF on loopback: its prebuilt files, our settings for it, and a way through to the archive.

Browser, viewer and archive talk through one address, as behind a hospital's reverse proxy, so
that no request crosses an origin.
"""

from __future__ import annotations

import json
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

_DICOMWEB = "/dicom-web"

# The viewer's own settings for one DICOMweb source; what is not named has its default.
_CONFIG: dict[str, Any] = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showErrorDetails": "always",
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "archive",
                "name": "archive",
                "wadoUriRoot": _DICOMWEB,
                "qidoRoot": _DICOMWEB,
                "wadoRoot": _DICOMWEB,
                "qidoSupportsIncludeField": True,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}

# The file that the viewer reads its settings from. It marks the tour for newcomers as seen too,
# which would lie over everything.
_APP_CONFIG = f"""window.config = {json.dumps(_CONFIG)};
localStorage.setItem("shownTours", '["basicViewerTour"]');
"""

# What must not be handed from one connection to the next (RFC 9110 7.6.1), or httpx sets itself.
_OF_ONE_CONNECTION = {
    "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length",
    "content-encoding",
}  # fmt: skip


@contextmanager
def viewer_site(files: Path, archive_url: str) -> Iterator[str]:
    """Serve the viewer's files against an archive; gives the site's address.

    Parameters
    ----------
    files
        The ``dist`` folder of OHIF.
    archive_url
        Where the archive's HTTP server is; its DICOMweb service lies at ``/dicom-web``.
    """
    # A connection for each request: one that is kept open may be closed by the archive just as it
    # is used again.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=archive_url, timeout=60.0, limits=limits) as archive:
        handler = type("_Handler", (_Site,), {"files": files.resolve(), "archive": archive})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="viewer site", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Path
    archive: httpx.Client

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"{_DICOMWEB}/"):
            self._from_archive()
        elif path == "/app-config.js":
            self._answer(_APP_CONFIG.encode(), "text/javascript")
        else:
            self._file(path)

    def _from_archive(self) -> None:
        # The archive makes its bulk data's addresses from the Host that it was asked by.
        asked = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        try:
            found = self.archive.get(self.path, headers={**asked, "Accept-Encoding": "identity"})
        except httpx.HTTPError as error:
            self.send_error(HTTPStatus.BAD_GATEWAY, str(error))
            return
        kept = {
            key: value
            for key, value in found.headers.items()
            if key.lower() not in _OF_ONE_CONNECTION
        }
        self._send(found.status_code, found.content, kept)

    def _file(self, path: str) -> None:
        file = (self.files / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.files) or not file.is_file():
            file = self.files / "index.html"  # an address inside the one-page application
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._answer(file.read_bytes(), kind)

    def _answer(self, body: bytes, kind: str) -> None:
        self._send(HTTPStatus.OK, body, {"Content-Type": kind})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        # Its threads of decoding share memory, which a page gets only in isolation.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the browser says what went wrong."""
