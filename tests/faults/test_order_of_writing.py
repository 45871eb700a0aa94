"""What a kill cannot show, a power cut does: nothing is answered before it is on the disk."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.books import opened
from tests.faults.objects import Sender, make_object
from tests.faults.prepared import PreparedNode, PreparedNodes
from tests.peers import wait_until


def test_a_writers_connection_syncs_each_commit(nodes: PreparedNodes, tmp_path: Path) -> None:
    node = PreparedNode(folder=tmp_path, archives=[], nodes=nodes)
    with node.serving():
        pass
    with opened(tmp_path / "data") as database, database.write() as session:
        connection = session.connection()
        full = 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == full


def test_an_object_is_synced_named_synced_committed_and_only_then_acknowledged(
    nodes: PreparedNodes, tmp_path: Path
) -> None:
    node = PreparedNode(folder=tmp_path, archives=[], nodes=nodes)
    node.write_config()
    node.start(steps=True)
    node.wait_listening()
    before = len(node.step_log.read_text().splitlines())
    send_one(node, tmp_path)
    steps = node.step_log.read_text().splitlines()[before:]
    node.kill()

    others = "audit|heartbeat|renew|ASSOCIATE|unlink"
    taken = [step for step in steps if not re.search(others, step)]
    assert taken[: taken.index("send P-DATA")] == [
        "fsync incoming/…",
        "fsync objects",  # the folder's own name
        "replace objects/…/…",
        "fsync objects/…",
        "commit is_known+add_plain",
    ]


def test_the_kernel_is_told_to_write_before_the_sender_hears_success(
    nodes: PreparedNodes, tmp_path: Path
) -> None:
    """The same, seen from below Python: what SQLite does is in it."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (Debian package strace)")
    node = PreparedNode(folder=tmp_path, archives=[], nodes=nodes)
    trace = tmp_path / "trace.txt"
    with node.serving():
        calls = "trace=fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"
        command = [strace, "-f", "-yy", "-e", calls, "-o", str(trace), "-p", str(node.pid)]
        said = tmp_path / "strace.log"
        with said.open("wb") as output:
            tracer = subprocess.Popen(command, stderr=output)
        try:
            wait_until(
                lambda: b"attached" in said.read_bytes() or tracer.poll(),
                what="strace has attached",
            )
            if tracer.poll() is not None:
                pytest.skip(f"strace may not trace here: {said.read_text()}")
            send_one(node, tmp_path)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)

    lines = [line for line in trace.read_text().splitlines() if "resumed" not in line]
    after = first(lines, r"f(data)?sync\(.*/data/incoming/", 0)
    after = first(lines, r"rename.*/data/incoming/.*/data/objects/", after)
    after = first(lines, r"fsync\(.*/data/objects/[0-9a-f]{2}>", after)
    after = first(lines, r"f(data)?sync\(.*/echonode\.db-wal>", after)
    answered = first(lines, r"send(to|msg)\(.*TCP.*\"\\4", after)
    synced = first(lines, r"f(data)?sync\(.*/data/incoming/", 0)
    between = [
        line for line in lines[synced : answered - 1] if re.search(r"send(to|msg)\(.*TCP", line)
    ]
    assert between == [], "nothing was said to the sender before"


def send_one(node: PreparedNode, folder: Path) -> None:
    sent = make_object(folder, random.Random(3))  # noqa: S311 - makes UIDs and pixels
    assert Sender(node.port, [sent], folder / "storescu.txt").wait() == {sent.uid: "Success"}


def first(lines: list[str], pattern: str, after: int) -> int:
    """The place of the first line like this, after another."""
    for number, line in enumerate(lines[after:], after):
        if re.search(pattern, line):
            return number + 1
    pytest.fail(f"no call like {pattern!r} after line {after} of:\n" + "\n".join(lines[-60:]))
