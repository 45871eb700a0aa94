"""What happens to one broken object: in a process of its own, since a codec may end that process.

:func:`prepare` makes a store and a database, :func:`try_object` takes an object in, as a door
does, and reads it, as a worker does. What must never happen is a fault in the verdict.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import pickle
import random
import re
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from sqlalchemy import text

from models.clip import Clip, ClipError, read_clip, read_header
from models.ecg.explain.spans import spans_ms
from models.ecg.inputs import from_input, to_input
from models.ecg.reader import strip_for
from models.ecg.reading import is_ecg_file, read_ecg
from models.ecg.recording import EcgError
from models.packs import InputSpec, Signal, WaveformInput
from models.preprocess import fit_frames
from node import analysis
from node.analysis import worker
from node.intake import Arrival, Intake, Receipt, Status
from node.kept import without_samples
from node.sections import LogSettings
from node.watch import set_up_logging
from storage.database import Database, migrate
from storage.files import Area, FolderStore
from tests.fuzz.corpus import Base, corpus
from tests.fuzz.draft import take_apart
from tests.fuzz.mutations import break_object, kinds

MOST_PEAK_MB = 300
"""An object of less than a megabyte may take no more than this for a moment."""
MOST_CPU_S = 8.0
_END_AFTER_CPU_S = 40.0
"""Then the process ends by SIGPROF: the object has hung."""
_ADDRESS_SPACE = 3 * 1024**3  # over what the process has when it is prepared
_SPEC = InputSpec(rows=96, columns=96, frames=20, interval_ms=100.0)
_RHYTHM = WaveformInput(samples=4096, rate_hz=400.0, highpass_hz=0.5)
_BEAT = WaveformInput(samples=600, rate_hz=500.0, signal=Signal.MEDIAN)
_CHECK_EVERY = 250
_NOT_PLAIN = re.compile(r"Error\b|Exception|Traceback|0x[0-9a-f]{6,}|<[a-z]")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of an object.

    ``taken`` and ``read`` are "kept" and "read", or the reason in words. ``faults`` are what may
    never happen; empty for a good end.
    """

    seed: int
    number: int
    base: str
    kind: str
    taken: str
    read: str
    faults: tuple[str, ...]
    peak_mb: float
    rss_mb: float
    cpu_s: float


class _Bench:
    """A node's intake, with a store and a database of its own."""

    def __init__(self, folder: Path, bases: tuple[Base, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.bases = bases
        self.files = FolderStore(folder / "data")
        url = f"sqlite:///{folder / 'fuzz.db'}"
        migrate(url)
        self.database = Database(url)
        self.intake = Intake(self.database, self.files)
        self.log = io.StringIO()
        self.tried = 0
        self.rss_mb = 0.0  #: after every hundredth object


_bench: _Bench | None = None


def prepare(folder: str) -> None:
    """Set up this process. Another store each time: a process that died left its own as it was."""
    global _bench
    root = Path(folder)
    number = len(list(root.glob("bench-*")))
    _bench = _Bench(root / f"bench-{number}", corpus(root))
    set_up_logging(LogSettings(format="json"), _bench.log)
    worker._packs = worker.Packs.read(())
    for base in _bench.bases:  # whatever is loaded late is loaded now
        _read(base.data)
    used = _status("VmSize") * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE, resource.RLIM_INFINITY))


def broken_object(bases: tuple[Base, ...], seed: int, number: int) -> tuple[str, str, bytes]:
    """The base, the kind of damage and the bytes of one object; the same in every process."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - to be repeated, no secret
    kind = kinds()[number % len(kinds())]
    base = rng.choice(bases)
    draft = take_apart(base.data)
    if rng.random() < 0.8:  # otherwise the same UIDs come again and again
        for tag, uid in ((0x00080018, f"1.2.{seed}.{number}"), (0x0020000D, f"1.2.{number // 40}")):
            part = draft.get(tag)
            if part is not None:
                part.value = uid.encode() + b"\0" * (len(uid) % 2)
    return base.name, kind, break_object(rng, draft, kind)


def try_object(seed: int, number: int) -> Verdict:
    """Make an object, take it in, read it."""
    assert _bench is not None
    name, kind, data = broken_object(_bench.bases, seed, number)
    return try_bytes(data, seed=seed, number=number, base=name, kind=kind)


def try_bytes(
    data: bytes, *, seed: int = 0, number: int = 0, base: str = "", kind: str = ""
) -> Verdict:
    """Take an object in and read it."""
    bench = _bench
    assert bench is not None
    faults: list[str] = []
    signal.setitimer(signal.ITIMER_PROF, _END_AFTER_CPU_S)
    _forget_peak()
    before, start = _status("VmRSS"), time.process_time()
    taken = _guarded(lambda: _take(bench, data, faults), "intake", faults)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        in_file = number % 2 == 0
        place = bench.folder / "reading.dcm"
        if in_file:
            place.write_bytes(data)
        read = _guarded(lambda: _read(place if in_file else data), "reading", faults)
    peak_mb, cpu_s = (_status("VmHWM") - before) / 1024, time.process_time() - start
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    if peak_mb > MOST_PEAK_MB + 8 * len(data) / 2**20:
        faults.append(f"took {peak_mb:.0f} MB")
    if cpu_s > MOST_CPU_S:
        faults.append(f"took {cpu_s:.1f} s")
    faults += [
        f"no plain words: {reason[:200]}"
        for reason in (taken, read)
        if _NOT_PLAIN.search(reason) or len(reason) > 400
    ]
    bench.tried += 1
    if bench.tried % 100 == 0:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is no growth
        bench.rss_mb = _status("VmRSS") / 1024
    if bench.tried % _CHECK_EVERY == 0:
        faults += _unmatched(bench)
    bench.log.seek(0)
    bench.log.truncate()
    return Verdict(
        seed=seed,
        number=number,
        base=base,
        kind=kind,
        taken=taken,
        read=read,
        faults=tuple(faults),
        peak_mb=peak_mb,
        rss_mb=bench.rss_mb,
        cpu_s=cpu_s,
    )


def check_store() -> tuple[str, ...]:
    """Files without a row and rows without a file."""
    assert _bench is not None
    return tuple(_unmatched(_bench))


def _guarded(call: Callable[[], str], what: str, faults: list[str]) -> str:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        trace = traceback.extract_tb(error.__traceback__)
        at = "; ".join(f"{Path(f.filename).name}:{f.lineno}" for f in trace[-4:])
        faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]} at {at}")
        return "fault"


def _take(bench: _Bench, data: bytes, faults: list[str]) -> str:
    path = bench.files.incoming_folder / "object"
    path.write_bytes(data)
    receipt: Receipt = bench.intake.receive(Arrival(path=path, door="fuzz", peer_host="127.0.0.1"))
    if receipt.status in (Status.OUT_OF_RESOURCES, Status.PROCESSING_FAILURE):
        faults.append(f"intake: answered {receipt.status:#06x}: {bench.log.getvalue()[:300]}")
    if path.exists() and receipt.comment != "already kept":
        faults.append("intake: the file was left in the incoming folder")
    if receipt.status != Status.SUCCESS and not receipt.comment:
        faults.append("intake: refused without a reason")
    path.unlink(missing_ok=True)
    if any(bench.files.incoming_folder.iterdir()):
        faults.append("intake: half a file is left in the incoming folder")
    return "kept" if receipt.status == Status.SUCCESS else receipt.comment


def _read(source: Path | bytes) -> str:
    """All that a worker does with a clip before a network sees it."""
    try:
        clip = read_clip(source)
        _walk(clip.header)
        _look(clip)
        frames = sorted({0, clip.frame_count // 2, clip.frame_count - 1})
        prepared, _ = fit_frames(clip.frames(frames), _SPEC)
        sampled = clip.time_axis.sample(100.0, 20)
        clip.frames(sampled[:5])
        if not np.isfinite(prepared).all():
            raise AssertionError("what a network gets is not finite")
    except ClipError as error:
        refusal = str(error)
        with contextlib.suppress(ClipError):
            _walk(read_header(source))
        if isinstance(source, Path) and is_ecg_file(source):
            return _read_ecg(source)
        return refusal
    if isinstance(source, Path) and clip.frame_count > 3:  # it reads twice more
        pickle.dumps((analysis.name_view(str(source)), analysis.analyse(str(source))))
    return "read"


def _read_ecg(source: Path) -> str:
    """All that a worker does with an ECG before and after a network sees it."""
    try:
        ecg = read_ecg(source)
        if ecg.unusable is not None:
            return ecg.unusable
        for spec in (_RHYTHM, _BEAT):
            strip = strip_for(ecg, spec)
            inputs = to_input(strip, spec)
            if not np.isfinite(inputs).all():
                raise AssertionError("what a network gets is not finite")
            spans_ms(from_input(inputs, strip, spec), strip.rate_hz)
        without_samples(read_header(source))
    except EcgError as error:
        return str(error)
    return "read"


def _walk(header: Dataset) -> None:
    for element in header.iterall():
        if element.VR != "SQ":
            str(element.value)


def _look(clip: Clip) -> None:
    times = clip.time_axis.times_ms
    assert len(times) == clip.frame_count
    assert np.isfinite(times).all()
    assert (np.diff(times) >= 0).all()
    sector = clip.sector
    assert 0 <= sector.top <= sector.bottom <= clip.rows
    assert 0 <= sector.left <= sector.right <= clip.columns
    assert sector.mask.shape == (sector.bottom - sector.top, sector.right - sector.left)
    pickle.dumps((clip.mode, clip.spacing, clip.heart_rate_bpm, times))


def _unmatched(bench: _Bench) -> list[str]:
    with bench.database.read() as session:
        rows: set[Any] = set()
        for table in ("instance", "quarantined_object"):
            rows |= set(session.scalars(text(f"SELECT file_key FROM {table}")))  # noqa: S608
    files = {
        path.relative_to(bench.files.root).as_posix()
        for area in (Area.OBJECTS, Area.QUARANTINE)
        for path in (bench.files.root / area).rglob("*.dcm")
    }
    faults = []
    if files - rows:
        faults.append(f"{len(files - rows)} files without a row")
    if rows - files:
        faults.append(f"{len(rows - files)} rows without a file")
    return faults


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    """A line of /proc/self/status, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)
