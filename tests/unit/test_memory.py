"""The node's memory: large objects leave no holes in it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, sys, threading
from node.memory import leave_no_holes
if sys.argv[1:] == ["asked"]:
    leave_no_holes()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.free.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()]
    _fields_ += [("rest", ctypes.c_size_t * 5)]
libc.mallinfo2.restype = Info
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblks
libc.malloc(4 << 20)
mapped = libc.mallinfo2().hblks - before
together = threading.Barrier(12)
def take():
    together.wait()
    libc.malloc(50_000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
print(mapped, file=sys.stderr)
"""


def arenas_and_mapped(*arguments: str) -> tuple[int, int]:
    """The arenas of twelve threads that allocate at once; whether 4 MB lie outside of them."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.count("<heap nr="), int(done.stderr.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_threads_share_two_arenas_and_large_blocks_lie_outside() -> None:
    arenas, mapped = arenas_and_mapped()
    assert arenas > 2
    assert mapped == 0
    assert arenas_and_mapped("asked") == (2, 1)
