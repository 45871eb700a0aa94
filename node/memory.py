"""How the processes of the node allocate memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of mallopt(3)


def leave_no_holes() -> None:
    """Keep large objects from leaving holes in memory, where glibc does the allocating.

    It gives each thread an arena of its own, up to eight a core, and puts large blocks there, too,
    once some of their size have been freed; what small ones come to lie behind them then keeps the
    space from going back. The node grew by some megabytes with every report. So all threads share
    two arenas, and a block of a megabyte is always a mapping of its own. Call it before threads
    are started.
    """
    with suppress(OSError, AttributeError):  # another C library: it has its own ways
        set_up = ctypes.CDLL(None).mallopt
        set_up(_M_ARENA_MAX, 2)
        set_up(_M_MMAP_THRESHOLD, 1 << 20)
