"""How a worker process is made ready: its logs, then the packs."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.analysis import load_packs
from node.sections import LogSettings
from node.watch import set_up_logging

NICE = 10  #: how far workers step back, of 19


def prepare_worker(
    folders: Sequence[str], workers: int, log: LogSettings, prepared: Path | None = None
) -> None:
    """Set up logs as in the node, so that no library's warning quotes a patient; load the packs.

    The process steps behind all others: a machine that sends and a person who asks come first.

    Parameters
    ----------
    folders, workers, prepared
        As for :func:`node.analysis.load_packs`.

    Raises
    ------
    PackError
        If a pack cannot be used.
    """
    os.nice(NICE)
    set_up_logging(log)
    gc.disable()  # nothing of all that is made here is garbage: looking for it takes a tenth more
    try:
        with _native_messages_dropped():
            load_packs(folders, workers, prepared)
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """TensorFlow's C++ code greets on stderr before any setting of it can say not to."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
