"""The real peers of the tests: programs of DCMTK, dicom3tools, PixelMed and Orthanc.

A peer that is not installed fails a test in continuous integration and skips it elsewhere, with
the package to install.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import httpx
import pytest

_PACKAGES = {
    "echoscu": "dcmtk",
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "dcmqrscp": "dcmtk",
    "dsrdump": "dcmtk",
    "dsr2html": "dcmtk",
    "dcmconv": "dcmtk",
    "dcmcrle": "dcmtk",
    "dcmdjpeg": "dcmtk",
    "dciodvfy": "dicom3tools",
    "dcentvfy": "dicom3tools",
    "Orthanc": "orthanc",
    "java": "pixelmed-apps",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "dcmdump": "dcmtk",
    "openssl": "openssl",
    "groff": "groff-base",
}


def require(program: str) -> str:
    """The path of a peer's program; without it the test fails in CI and skips elsewhere."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        _missing(f"{program} is not installed (Debian package {_PACKAGES[program]})")
    return path


def require_ohif() -> Path:
    """The folder of the OHIF viewer; without it the test fails in CI and skips elsewhere."""
    folder = next((Path(sys.prefix) / "share").glob("ohif-*"), None)
    if folder is None:
        _missing("the OHIF viewer is not installed (deploy/setup.sh --dev --peers)")
    return folder


def require_postgres() -> Path:
    """The folder of PostgreSQL's programs, which Debian keeps off the PATH; as :func:`require`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        _missing("postgres is not installed (Debian package postgresql)")
    return found[-1].parent


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A loopback port that nothing uses now, nor is likely to before it is listened on.

    It lies below those that Linux gives to who calls (32768 on), and among those of this worker of
    pytest: no other one's test takes it meanwhile.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    first = 15_000 + 2_000 * (int(worker.removeprefix("gw") or 0) % 8)
    while True:
        port = first + secrets.randbelow(2_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(
    condition: Callable[[], object], *, what: str, timeout_s: float = 60.0, pause_s: float = 0.1
) -> None:
    """Wait for a condition, or fail saying what did not happen."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(pause_s)


def accepts_connections(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: list[str], *, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours for the length of a test; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A DIMSE archive on loopback."""

    ae_title: str
    port: int
    folder: Path | None = None
    url: str | None = None

    def files(self) -> list[Path]:
        """What a `storescp` has kept, in order of arrival."""
        if self.folder is None:
            raise ValueError("this archive keeps no files that a test can see")
        whole = [path for path in self.folder.iterdir() if path.suffix == ".dcm"]
        return sorted(whole, key=lambda path: path.stat().st_mtime_ns)


@contextmanager
def storescp(
    folder: Path, *, port: int | None = None, options: tuple[str, ...] = ()
) -> Iterator[Archive]:
    """DCMTK's `storescp` as archive: accepts everything, keeps the bytes as sent."""
    program = require("storescp")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [
        program,
        "--accept-all",
        "--bit-preserving",
        *options,
        "-aet",
        "ARCHIVE",
        "-fe",
        ".dcm",
        "-od",
        str(folder),
        str(port),
    ]
    with running(command, log=folder.parent / f"{folder.name}.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        yield Archive(ae_title="ARCHIVE", port=port, folder=folder)


@contextmanager
def orthanc(
    folder: Path, *, modalities: Mapping[str, int] = MappingProxyType({})
) -> Iterator[Archive]:
    """Orthanc as archive, with its REST API on loopback.

    ``modalities`` are those that it knows, AE title and loopback port: it lets them query, and
    calls them there to report on storage commitment.
    """
    program = require("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    port, http_port = free_port(), free_port()
    plugins = Path("/usr/share/orthanc/plugins")
    configuration = {
        "Name": "archive",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomServerEnabled": True,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(path) for path in plugins.glob("libOrthancDicomWeb.so*")][:1],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomModalities": {
            title.lower(): [title, "127.0.0.1", called] for title, called in modalities.items()
        },
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    url = f"http://127.0.0.1:{http_port}"
    with running([program, str(path)], log=folder / "orthanc.log"):
        wait_until(lambda: _answers(f"{url}/system"), what="Orthanc answers", timeout_s=30)
        wait_until(lambda: accepts_connections(port), what="Orthanc listens", timeout_s=30)
        yield Archive(ae_title="ORTHANC", port=port, url=url)


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[Archive]:
    """DCMTK's `dcmqrscp` as archive: it stores and can be queried, and promises nothing."""
    program = require("dcmqrscp")
    kept = folder / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQRSCP {kept} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with running([program, "-c", str(configuration)], log=folder / "dcmqrscp.log"):
        wait_until(lambda: accepts_connections(port), what="dcmqrscp listens")
        yield Archive(ae_title="QRSCP", port=port, folder=kept)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def send(
    port: int, *paths: Path, options: tuple[str, ...] = (), ae_title: str = "ECHONODE"
) -> subprocess.CompletedProcess[str]:
    """Send files by an unmodified `storescu`, as an echo machine would."""
    command = [
        require("storescu"),
        "-v",
        "-aet",
        "ECHOCART",
        "-aec",
        ae_title,
        *options,
        "127.0.0.1",
        str(port),
        *(str(path) for path in paths),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
