"""The benchmark of the way in still runs: its objects are whole, and a node takes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread

from node.web.users import Role, UserFile
from tests.benchmarks import receive
from tests.light_node import light_node


@contextmanager
def small_node(folder: Path) -> Iterator[receive.Target]:
    """A whole node but for its workers, in this process."""

    users = UserFile(folder / "users.json")
    users.add("bench", [Role.SEND], None)
    with (
        pytest.MonkeyPatch.context() as patch,
        light_node(patch, folder, study={"quiet_s": 3600, "released_quiet_s": 3600}) as (node, _),
    ):
        yield receive.Target(
            name="echonode",
            port=node.addresses.dimse_port,
            web=f"{node.addresses.http_url}/dicom-web",
            token=users.add_token("bench"),
            process=os.getpid(),
        )


def test_its_smallest_form_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "node_target", small_node)
    options = ["--rounds", "1", "--objects", "1", "--peers", "", "--large-bytes", "4000000"]
    receive.main([*options, "--folder", str(tmp_path / "kept")])

    rows = json.loads((tmp_path / "kept" / "receive.json").read_text())["rows"]
    assert len(rows) == 6
    assert all(row["ours"][0] >= 0 for row in rows)


def test_its_copies_differ_in_nothing_but_their_identity(tmp_path: Path) -> None:
    first, second = (dcmread(path) for path in receive.small().write(tmp_path, 2))

    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    second.SOPInstanceUID = first.SOPInstanceUID
    assert first == second
