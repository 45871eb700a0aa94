"""The benchmark of the database measures everything, at its smallest."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import catalog, rounds


def test_the_benchmark_of_the_database_runs(tmp_path: Path) -> None:
    catalog.main(
        ["--rounds=1", "--calls=1", "--instances=1000", "--against=900", f"--folder={tmp_path}"]
    )

    kept = json.loads((tmp_path / "catalog.json").read_text())["rows"]
    rows = [rounds.row_of(entry) for entry in kept]
    assert len(rows) == len(catalog.MEASURED)
    assert all(row.ours[0] > 0 and row.theirs[0] > 0 for row in rows)
