"""How fast objects are taken in, beside DCMTK's `storescp` and Orthanc, in turn.

    python -m tests.benchmarks.receive [--rounds 5] [--only cines,small] [--peers storescp,orthanc]

The node is a whole one (`echonode serve`): each object is synced and committed before the sender
hears "success". `storescp` syncs nothing; Orthanc is as it is configured by default. Senders are
unmodified `storescu`s; by the web it is one request with all objects. Before each figure the disk
is given time to write what the last one left.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian

from node.web.users import Role, UserFile
from tests.benchmarks import rounds
from tests.benchmarks.rounds import Row
from tests.peers import Archive, free_port, orthanc, require, storescp, wait_until
from tests.running_node import LONG_CINE, RunningNode

TITLE = "Taking objects in"
_UID_ROOT = "1.2.826.0.1.3680043.8.498"
_NUMBERS = count(1)
_LARGE_BYTES = 1 << 30
_SMALL_QUALITY = 46
_FRAME = 1024  # rows and columns of the large object


@dataclass(kw_only=True)
class Target:
    """Who takes objects."""

    name: str
    port: int
    web: str = ""  #: where objects are stored by the web
    token: str = ""
    clear: Callable[[], None] = field(default=lambda: None)
    process: int = 0


class Objects:
    """Copies of an object, each under a UID of its own."""

    def __init__(self, dataset: Dataset) -> None:
        self._uids = [_uid(), _uid()]
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = self._uids
        dataset.file_meta.MediaStorageSOPInstanceUID = self._uids[1]
        with tempfile.SpooledTemporaryFile(max_size=1 << 28) as file:
            dcmwrite(file, dataset, enforce_file_format=True)
            file.seek(0)
            self._bytes = file.read()

    @property
    def size_bytes(self) -> int:
        """Of one."""
        return len(self._bytes)

    def write(self, folder: Path, number: int) -> list[Path]:
        """So many files of one study in a folder."""
        study = self._bytes.replace(self._uids[0].encode(), _uid().encode())
        paths = []
        for place in range(number):
            path = folder / f"{place:04d}.dcm"
            path.write_bytes(study.replace(self._uids[1].encode(), _uid().encode()))
            paths.append(path)
        return paths


def cine() -> Objects:
    """A real one of 120 frames, JPEG."""
    return Objects(dcmread(LONG_CINE))


def small() -> Objects:
    """One frame of it, compressed further: with the header, which is long, 50 kB."""
    dataset = dcmread(LONG_CINE)
    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    picture = BytesIO()
    with Image.open(BytesIO(next(frames))) as frame:
        frame.save(picture, "JPEG", quality=_SMALL_QUALITY, subsampling="4:2:2")
    dataset.PixelData = encapsulate([picture.getvalue()])
    dataset.NumberOfFrames = 1
    return Objects(dataset)


def write_large(path: Path, size_bytes: int) -> None:
    """An uncompressed cine of about so many bytes; it is never whole in memory."""
    dataset = dcmread(LONG_CINE, stop_before_pixels=True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = _FRAME
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames = size_bytes // _FRAME**2
    dataset.StudyInstanceUID, dataset.SOPInstanceUID = _uid(), _uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    del dataset.PlanarConfiguration
    dataset.save_as(path, enforce_file_format=True)
    length = int(dataset.NumberOfFrames) * _FRAME**2
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OB\x00\x00" + length.to_bytes(4, "little"))
        frame = os.urandom(_FRAME**2)
        for _ in range(int(dataset.NumberOfFrames)):
            file.write(frame)


def seconds(
    target: Target, objects: Objects, number: int, associations: int, *, each: bool = False
) -> float:
    """Wall-clock time until every `storescu` of so many at once has ended.

    ``each``: so many objects of a study of its own on each association, not in all.
    """
    with tempfile.TemporaryDirectory() as name:
        loads = []
        if each:
            for place in range(associations):
                folder = Path(name) / str(place)
                folder.mkdir()
                loads.append(objects.write(folder, number))
        else:
            paths = objects.write(Path(name), number)
            loads = [paths[place::associations] for place in range(associations)]
        _settle()
        start = time.perf_counter()
        senders = [_storescu(target.port, paths) for paths in loads if paths]
        for sender in senders:
            said = sender.communicate(timeout=600)[1]
            if sender.returncode != 0:
                sys.exit(f"storescu to {target.name} failed: {said[-500:]!r}")
        elapsed = time.perf_counter() - start
    target.clear()
    return elapsed


def seconds_by_web(target: Target, objects: Objects, number: int) -> float:
    """Wall-clock time of one STOW-RS request, from its first byte to its answer."""
    boundary = "the-next-object"
    with tempfile.TemporaryDirectory() as name:
        body = Path(name) / "body"
        with body.open("wb") as file:
            for path in objects.write(Path(name), number):
                head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
                file.write(head.encode() + path.read_bytes() + b"\r\n")
                path.unlink()
            file.write(f"--{boundary}--\r\n".encode())
        _settle()
        start = time.perf_counter()
        status = _post(target, body, boundary)
        elapsed = time.perf_counter() - start
    if status != b"200":
        sys.exit(f"{target.name} answers {status!r}")
    target.clear()
    return elapsed


def growth_mb(target: Target, large: Path) -> float:
    """By how much the memory of the node's process rises while a large object arrives."""
    before = _memory_kb(target.process, "VmRSS")
    Path(f"/proc/{target.process}/clear_refs").write_text("5")  # the peak begins anew
    sender = _storescu(target.port, [large], options=())
    said = sender.communicate(timeout=600)[1]
    if sender.returncode != 0:
        sys.exit(f"storescu to {target.name} failed: {said[-500:]!r}")
    return (_memory_kb(target.process, "VmHWM") - before) / 1000


@contextmanager
def node_target(folder: Path) -> Iterator[Target]:
    """A whole node whose workers have started: what they cost at the start is no part of this."""
    port = free_port()
    node = RunningNode(
        folder=folder,
        archives=[],
        quiet_s=36000,  # only the way in is measured
        settings=(f"[http]\nport = {port}\n[disk]\nkeep_free_bytes = 0\n"),
        dimse="max_associations = 60\nmax_associations_per_peer = 60\n",
    )
    users = UserFile(folder / "data" / "users.json")
    users.add("bench", [Role.SEND], None)
    with node.serving():
        wait_until(
            lambda: {each["state"] for each in node.ask("status")["workers"]} == {"idle"},
            what="the worker is ready",
            timeout_s=180,
        )
        assert node.process is not None
        yield Target(
            name="echonode",
            port=node.port,
            web=f"http://127.0.0.1:{port}/dicom-web",
            token=users.add_token("bench"),
            process=node.process.pid,
        )


@contextmanager
def storescp_target(folder: Path, *, fork: bool) -> Iterator[Target]:
    """DCMTK's, one association after another or a process for each."""
    with storescp(folder / "kept", options=("--fork",) if fork else ()) as peer:

        def clear() -> None:
            for path in (folder / "kept").iterdir():
                path.unlink()

        yield Target(name="DCMTK storescp" + " --fork" * fork, port=peer.port, clear=clear)


@contextmanager
def orthanc_target(folder: Path) -> Iterator[Target]:
    """Orthanc with its DICOMweb plug-in."""
    with orthanc(folder) as peer:
        yield Target(name="Orthanc", port=peer.port, web=f"{_url(peer)}/dicom-web")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is sent, and what is wanted against whom."""

    what: str
    measure: Callable[[Target], float]
    wanted: dict[str, str]


def comparisons(objects: int) -> dict[str, Comparison]:
    """The table; ``objects`` is the number of cines."""
    long, short = cine(), small()
    cines = f"{objects} JPEG cines of {long.size_bytes / 1e6:.1f} MB"
    few = max(1, objects * 500 // 60)
    many = min(50, objects)
    return {
        "cines": Comparison(
            what=f"{cines}, one association",
            measure=lambda target: seconds(target, long, objects, 1),
            wanted={"storescp": ">= 4x", "orthanc": ">= 6x"},
        ),
        "four": Comparison(
            what=f"{cines}, four associations",
            measure=lambda target: seconds(target, long, objects, 4),
            wanted={"storescp --fork": ">= 1x", "orthanc": ">= 2x"},
        ),
        "small": Comparison(
            what=f"{few} objects of {short.size_bytes / 1e3:.0f} kB, one association",
            measure=lambda target: seconds(target, short, few, 1),
            wanted={"storescp": ">= 15x", "orthanc": ">= 15x"},
        ),
        "fifty": Comparison(
            what=f"{many} associations at once, each a study of 3 objects of "
            f"{short.size_bytes / 1e3:.0f} kB",
            measure=lambda target: seconds(target, short, 3, many, each=True),
            wanted={"storescp --fork": ">= 1x", "orthanc": ">= 1x"},
        ),
        "stow": Comparison(
            what=f"{cines} by STOW-RS, one request",
            measure=lambda target: seconds_by_web(target, long, objects),
            wanted={"orthanc": ">= 4x"},
        ),
    }


def memory_row(node: Target, folder: Path, size_bytes: int, number: int) -> Row:
    """How the node's memory grows with a large object."""
    figures = []
    for _ in range(number):
        large = folder / "large.dcm"
        write_large(large, size_bytes)
        figures.append(growth_mb(node, large))
        large.unlink()
    return Row(
        what=f"memory while an object of {size_bytes / 1e9:.1f} GB arrives: growth",
        against="",
        wanted="<= 64 MB",
        ours=tuple(figures),
        theirs=(),
        unit="MB",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparisons and keep their figures."""
    parser = rounds.parser(__doc__)
    parser.add_argument("--objects", type=int, default=60, help="cines in a round")
    parser.add_argument("--only", default="", help="some of cines,four,small,fifty,stow,memory")
    parser.add_argument("--peers", default="storescp,orthanc", help="'' for none")
    parser.add_argument("--large-bytes", type=int, default=_LARGE_BYTES)
    parser.add_argument("--conditions", default="", help="what else the machine did")
    parser.add_argument(
        "--before-others", action="store_true", help="senders, node and peers first (needs root)"
    )
    options = parser.parse_args(arguments)
    table = comparisons(options.objects)
    chosen = options.only.split(",") if options.only else [*table, "memory"]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "node").mkdir()
        node = stack.enter_context(node_target(folder / "node"))
        peers: dict[str, Target] = {}
        for peer, make in (
            ("storescp", lambda at: storescp_target(at, fork=False)),
            ("storescp --fork", lambda at: storescp_target(at, fork=True)),
            ("orthanc", orthanc_target),
        ):
            if peer.partition(" ")[0] in options.peers.split(","):
                (folder / peer).mkdir()
                peers[peer] = stack.enter_context(make(folder / peer))
        if options.before_others:
            _go_first()
        for one in (table[name] for name in chosen if name in table):
            one.measure(node)  # to warm up
            wanted = {peer: ratio for peer, ratio in one.wanted.items() if peer in peers}
            for peer, ratio in wanted.items():
                _keep(_compared(one, node, peers[peer], ratio, options.rounds), options)
            if not wanted:
                _keep(_alone(one, node, options.rounds), options)
        if "memory" in chosen:
            number = min(3, options.rounds)
            _keep(memory_row(node, folder, options.large_bytes, number), options)


def _keep(row: Row, options: Namespace) -> None:
    beside = {"beside it": options.conditions} if options.conditions else {}
    rounds.keep("receive", TITLE, [row], conditions=peer_versions() | beside, folder=options.folder)


def peer_versions() -> dict[str, str]:
    """Those that are installed."""
    found = {}
    for name, command in (("DCMTK", "storescu"), ("Orthanc", "Orthanc")):
        program = shutil.which(command) or shutil.which(command, path="/usr/sbin")
        if program is not None:
            said = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=False
            )
            version = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
            found[name] = version[0] if version else "unknown"
    return found


def _compared(one: Comparison, node: Target, peer: Target, wanted: str, number: int) -> Row:
    ours, theirs = rounds.alternate(
        lambda: one.measure(node), lambda: one.measure(peer), rounds=number
    )
    print(f"{one.what}: {ours}, {peer.name} {theirs}", file=sys.stderr)  # noqa: T201 - as it comes
    return Row(what=one.what, against=peer.name, wanted=wanted, ours=ours, theirs=theirs)


def _alone(one: Comparison, node: Target, number: int) -> Row:
    ours = tuple(one.measure(node) for _ in range(number))
    return Row(what=one.what, against="", wanted="", ours=ours, theirs=())


def _uid() -> str:
    """Always of the same length, so that one can take another's place in a file."""
    return f"{_UID_ROOT}.{time.time_ns():019d}.1{next(_NUMBERS):08d}"


def _storescu(
    port: int, paths: Sequence[Path], options: tuple[str, ...] = ("-xy",)
) -> subprocess.Popen[bytes]:
    command = [require("storescu"), "-aet", "ECHOCART", "-aec", "ECHONODE", *options]
    return subprocess.Popen(
        [*command, "127.0.0.1", str(port), *map(str, paths)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _post(target: Target, body: Path, boundary: str) -> bytes:
    """The status of the answer. The kernel sends the file: the client takes next to no time."""
    there = urlsplit(f"{target.web}/studies")
    media = f'multipart/related; type="application/dicom"; boundary={boundary}'
    head = (
        f"POST {there.path} HTTP/1.1\r\nHost: {there.netloc}\r\nAccept: application/dicom+json\r\n"
        f"Content-Type: {media}\r\nContent-Length: {body.stat().st_size}\r\n"
        f"Authorization: Bearer {target.token}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((str(there.hostname), int(there.port or 80))) as connection:
        connection.sendall(head.encode())
        with body.open("rb") as file:
            connection.sendfile(file)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    return answer.partition(b" ")[2][:3]


def _settle() -> None:
    os.sync()


def _go_first() -> None:
    """Let this process and those it started run before all others, ours and the peers' alike.

    Each has a session of its own, and Linux shares the processor among sessions first.
    """
    parent = f"PPid:\t{os.getpid()}\n"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.name == str(os.getpid()) or parent in (process / "status").read_text():
                (process / "autogroup").write_text("-18")


def _memory_kb(process: int, name: str) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


def _url(peer: Archive) -> str:
    assert peer.url is not None
    return peer.url


if __name__ == "__main__":
    main()
