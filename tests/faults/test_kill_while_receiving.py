"""Acknowledged means kept: the node is killed while DCMTK sends, and nothing is missing."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.faults.books import not_kept, not_whole
from tests.faults.kills import Kills
from tests.faults.objects import Sender, make_object
from tests.faults.prepared import PreparedNode, PreparedNodes

pytestmark = pytest.mark.timeout(900)

KILLS = 20  # `make soak` has 200


def test_what_was_acknowledged_is_kept_whenever_the_node_is_killed(
    nodes: PreparedNodes, tmp_path: Path
) -> None:
    figures = Kills(nodes, tmp_path, count=KILLS, seed=5).run()

    assert figures.lost == ()
    assert figures.refused == 0
    assert figures.kills == KILLS
    assert figures.senders_interrupted >= KILLS / 2, "most kills fell into a sending"
    assert figures.acknowledged >= KILLS, "and not all of them before anything was kept"


def test_the_books_see_what_is_missing_half_or_changed(
    nodes: PreparedNodes, tmp_path: Path
) -> None:
    node = PreparedNode(folder=tmp_path, archives=[], nodes=nodes)
    random = Random(1)  # noqa: S311 - makes pixels
    objects = [make_object(tmp_path, random) for _ in range(4)]
    with node.serving():
        told = Sender(node.port, objects[:3], tmp_path / "storescu.txt").wait()
    assert list(told.values()) == ["Success"] * 3
    data = tmp_path / "data"
    assert not_kept(data, objects[:3]) == []
    assert not_whole(data, {item.uid: item for item in objects}) == []

    files = {path: path.read_bytes() for path in (data / "objects").rglob("*.dcm")}
    half, changed, gone = files
    half.write_bytes(files[half][:-500])
    changed.write_bytes(files[changed][:-1] + bytes([files[changed][-1] ^ 1]))
    gone.unlink()

    complaints = not_kept(data, objects)
    assert sum("has other bytes" in line for line in complaints) == 2
    assert sum("has no file" in line for line in complaints) == 1
    assert f"{objects[3].uid} was acknowledged and has no row" in complaints
    complaints = not_whole(data, {item.uid: item for item in objects})
    assert sum("no whole file" in line for line in complaints) == 3
    assert sum("shorter than anything" in line for line in complaints) == 1
