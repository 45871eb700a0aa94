"""A node that is killed before the steps that matter: each result is at the archive once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.archive import counting_archive
from tests.faults.crashes import Crashes
from tests.faults.prepared import PreparedNodes
from tests.faults.steps import KillAt

pytestmark = pytest.mark.timeout(900)

#: What the process must not be able to die between without harm; `make soak` tries every step.
POINTS = (
    KillAt(pattern="^fsync incoming"),  # received, and not on disk
    KillAt(pattern="^commit .*add_plain"),  # the file is kept, and has no row
    KillAt(pattern="^send P-DATA"),  # kept, and the sender does not know
    KillAt(pattern="^commit .*record_analysis"),  # the cine is kept, the findings are not
    KillAt(pattern="^commit .*add_results"),  # results are kept, and are in no outbox
    KillAt(pattern="^commit .*record_stored"),  # the archive has said yes, we have no note
    KillAt(pattern="^commit .*record_stored", nth=3),  # the same of the last one
    KillAt(pattern="^commit .*commitment_taken"),  # asked to promise, and we have no note
    KillAt(pattern="^commit .*record_promised"),  # the promise was given, we have no note
)


def test_each_result_is_at_the_archive_once_wherever_the_node_is_killed(
    nodes: PreparedNodes, tmp_path: Path
) -> None:
    with counting_archive(tmp_path) as (archive, register):
        crashes = Crashes(nodes, tmp_path, archive, register)
        figures = crashes.run(POINTS, in_start=[KillAt(pattern="^commit")])

    assert figures.broken == ()
    assert figures.crashes == len(POINTS) + 1 == len(figures.steps)
    assert figures.sent_twice >= 2, "what the archive had and we had not noted went out again"
