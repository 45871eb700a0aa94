"""A clip on its way to a worker, and what is done with it there.

The scheduler and the worker's own process import this module and nothing that it takes to read a
clip: what is to be called travels packed, and is unpacked in the process that reads.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.executor import packed_answer
from storage.files import FileStoreError, local

CANNOT_READ = b"cannot read the source"  #: the answer of a worker that cannot reach the store


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A call with a clip: Dask's logs and pages may show it, so it shows nothing itself.

    ``call`` is the packed function with its arguments after the first, which is the clip's file.
    ``clip`` are the bytes of that file, or ``source`` says where a worker finds it. ``fingerprint``
    is of the card that the worker must have.
    """

    fingerprint: str
    call: bytes = field(repr=False)
    clip: bytes | None = field(default=None, repr=False)
    source: str | None = field(default=None, repr=False)


def pack_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """A call without its first argument; what cannot be packed raises what it likes."""
    return pickle.dumps((function, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)


async def run_job(job: Job) -> bytes:
    """What Dask runs: have the worker's processes read the clip."""
    from distributed import get_worker

    answer: bytes = await get_worker().machine.read(job)
    return answer


def read_here(call: bytes, clip: bytes | None, source: str | None) -> bytes:
    """Make the call in the process that reads; gives what :func:`node.executor.unpacked` takes."""
    if clip is not None:
        return _read_bytes(call, clip)
    if source is None:
        raise ValueError("a job has neither a clip nor a source")
    try:
        with local(source) as path:
            with path.open("rb"):
                pass
            return _call(call, path)
    except (OSError, FileStoreError):
        return CANNOT_READ  # whoever sent the job has a look for himself


def _read_bytes(call: bytes, clip: bytes) -> bytes:
    # A file in memory, without a name on any disk: it is gone with the process, however that ends.
    handle = os.memfd_create("clip")
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(clip)
        return _call(call, Path(f"/proc/self/fd/{handle}"))
    finally:
        os.close(handle)


def _call(call: bytes, path: Path) -> bytes:
    return packed_answer(_unpack_and_call, (call, str(path)), {})[1]


def _unpack_and_call(call: bytes, path: str) -> Any:
    function, args, kwargs = pickle.loads(call)  # noqa: S301 - of a node of our cluster
    return function(path, *args, **kwargs)
