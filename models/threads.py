"""Work on many frames side by side, on the threads that a process says it has.

Decoding, networks, resizing and JPEG leave Python's lock while they calculate, so threads of one
process do them at once. A batch for each thread is quicker than a batch whose every step is shared
out: steps of small networks take some ten microseconds, and so does sharing them out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
MadeT = TypeVar("MadeT")

MOST_LANES = 4
"""Of one clip: each takes a batch's memory. Threads beyond them go to the steps of the networks."""

_lanes = 1


def use_lanes(count: int) -> None:
    """Let this process do so many things at once; one until it says so."""
    global _lanes
    _lanes = max(1, count)


def lanes() -> int:
    """How many things this process does at once."""
    return _lanes


def side_by_side(
    work: Callable[[ItemT], MadeT], items: Iterable[ItemT]
) -> Generator[MadeT, None, None]:
    """``map(work, items)``, in its order, with as much of it at once as this process has lanes.

    No more is made ahead of what was taken than each lane has in hand and one more.
    """
    count = _lanes
    if count == 1 or (isinstance(items, Sized) and len(items) < 2):
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="lane") as pool:
        ahead: deque[Future[MadeT]] = deque()
        try:
            for item in items:
                if len(ahead) > count:
                    yield ahead.popleft().result()
                ahead.append(pool.submit(work, item))
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


__all__ = ["MOST_LANES", "lanes", "side_by_side", "use_lanes"]
