"""The soak in small: its parts run, its books are kept, and its judgement can say no."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.prepared import PreparedNode, PreparedNodes
from tests.faults.samples import plot, trend
from tests.faults.soak import soak
from tests.peers import Archive, free_port

pytestmark = pytest.mark.timeout(600)


def test_a_short_soak_ends_with_books_that_agree(nodes: PreparedNodes, tmp_path: Path) -> None:
    port = free_port()
    node = PreparedNode(
        folder=tmp_path,
        archives=[Archive(ae_title="ARCHIVE", port=port)],
        nodes=nodes,
        quiet_s=1.0,
    )
    with node.serving():
        outcome, samples = soak(
            node, tmp_path, port, minutes=0.25, pace=10.0, every_s=0.5, quiet_within_s=120.0
        )
    plot(samples, tmp_path / "soak.png", title="a short soak")

    # What a quarter of a minute holds at its end says nothing about growth.
    assert [line for line in outcome.broken if "grows" not in line] == []
    assert outcome.acknowledged > 0
    assert outcome.results >= 3, "a clip became a report, a cine and a page"
    assert outcome.sent == outcome.acknowledged + sum(outcome.refused.values()) + sum(
        outcome.unanswered.values()
    )
    assert any(kind.startswith("nasty") for kind in outcome.counted)
    assert {line.name for line in outcome.trends} >= {"node_rss_mb", "node_files", "wal_mb"}
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_what_grows_is_told_from_what_only_wavers() -> None:
    chance = random.Random(2)  # noqa: S311 - noise
    times = [5.0 * number for number in range(360)]
    wavering = [300.0 + chance.gauss(0.0, 10.0) for _ in times]
    leaking = [held + at / 3600 * 100.0 for held, at in zip(wavering, times, strict=True)]
    filling = [held * min(1.0, 0.5 + at / 200) for held, at in zip(wavering, times, strict=True)]

    assert trend("rss", times, wavering).flat
    assert trend("rss", times, filling).flat, "what fills in the beginning does not leak"
    leak = trend("rss", times, leaking)
    assert not leak.flat
    assert abs(leak.slope_per_h - 100.0) < 4 * leak.standard_error
