"""A whole node, its disk full, read-only, its database locked and gone, and DCMTK as the sender.

Every test leaves the node as it found it, and going on by itself is a part of each.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from node.cli.app import main
from node.cli.output import ExitCode
from tests.peers import require, send, wait_until
from tests.running_node import RunningNode
from tests.small_disk import read_only, small_disk

_DISK_MB = 24
_MARK_BYTES = 8_000_000
_GO_ON_BYTES = 10_000_000
_IMAGE_BYTES = 250_000


@dataclass
class SmallNode:
    """A node on a small disk, the images that it acknowledged, and those that it did not."""

    node: RunningNode
    disk: Path
    images: Path
    acknowledged: set[str] = field(default_factory=set)

    def new_images(self, count: int) -> list[Path]:
        return [_image(self.images) for _ in range(count)]

    def send(self, *images: Path) -> tuple[int, str]:
        """Send by an unmodified storescu; returns how many it heard "success" for, and its words.

        It goes on after a refusal, so its answers come in the order of the files.
        """
        done = send(self.node.port, *images, options=("--no-halt",))
        words = done.stdout + done.stderr
        answers = [line for line in words.splitlines() if "Received Store Response" in line]
        took = ["Success" in line for line in answers]
        self.acknowledged |= {
            image.stem for image, taken in zip(images, took, strict=False) if taken
        }
        return sum(took), words

    def free(self) -> int:
        space = os.statvfs(self.disk)
        return space.f_bavail * space.f_frsize

    def send_until_taken(self, *images: Path) -> None:
        """Send again and again, as a machine does, until all were taken."""
        wait_until(
            lambda: self.send(*images)[0] == len(images), what="it takes them", timeout_s=120
        )

    def status(self, code: int = ExitCode.OK) -> Any:
        """What `echonode status` says; in this process, which spares it the start."""
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            assert main(["--config", str(self.node.config), "status", "--json"]) == code
        return json.loads(said.getvalue())

    def has_word(self) -> bool:
        """Whether `echonode status` can tell of the node without its database."""
        try:
            return bool(self.status(ExitCode.NOT_REACHABLE)["disk"]["refusing"])
        except json.JSONDecodeError:
            return False

    def wait_for_trouble(self, kind: str | None) -> Any:
        """Wait until status tells of a trouble, or of none."""

        def told() -> bool:
            kinds = [item["kind"] for item in self.status()["disk"]["troubles"]]
            return kind in kinds if kind else not kinds

        wait_until(told, what=f"status tells of {kind}", timeout_s=120, pause_s=0.3)
        return self.status()

    def log(self) -> str:
        return (self.node.folder / "node.log").read_text()

    def kept(self) -> set[str]:
        """The UIDs whose row is there and whose file is whole."""
        with sqlite3.connect(f"file:{self.disk / 'echonode.db'}?mode=ro", uri=True) as rows:
            found = rows.execute("SELECT sop_instance_uid, file_key FROM instance").fetchall()
        rows.close()
        for uid, key in found:
            assert dcmread(self.disk / key).SOPInstanceUID == uid
        return {uid for uid, _ in found}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallNode]:
    require("storescu")
    folder = tmp_path_factory.mktemp("small")
    settings = f"[disk]\nkeep_free_bytes = {_MARK_BYTES}\n[log]\nformat = 'json'\n"
    with small_disk(folder / "data", _DISK_MB) as disk:
        node = RunningNode(folder=folder, archives=(), settings=settings)
        (folder / "images").mkdir()
        with node.serving():
            yield SmallNode(node=node, disk=disk, images=folder / "images")


def test_a_full_disk_refuses_and_goes_on_when_there_is_space(small: SmallNode) -> None:
    assert small.send(*small.new_images(2))[0] == 2
    ballast = small.disk / "ballast"
    ballast.write_bytes(bytes(small.free() - _MARK_BYTES - 3_000_000))
    images = small.new_images(24)

    took, words = small.send(*images)

    assert 0 < took < 24
    assert "OutOfResources" in words
    assert small.free() > 1_000_000, "what is kept free is kept free"
    assert small.acknowledged == small.kept()
    told = small.wait_for_trouble("disk-full")["disk"]
    assert told["refusing"] == "the disk is nearly full"
    assert (told["mark_bytes"], told["go_on_bytes"]) == (_MARK_BYTES, _GO_ON_BYTES)
    # The object that met the mark half-way is gone again: more may be free now than then.
    assert told["free_bytes"] < _GO_ON_BYTES
    took, words = small.send(*images)
    assert took == 0
    assert "Transient" in words
    assert "congestion" in words.lower()

    # Just over the mark it does not go on yet.
    os.truncate(ballast, ballast.stat().st_size - (_MARK_BYTES + 500_000 - small.free()))
    assert _MARK_BYTES < small.free() < _GO_ON_BYTES
    assert small.send(*images)[0] == 0
    ballast.unlink()

    small.send_until_taken(*images)
    assert small.acknowledged == small.kept()
    assert small.wait_for_trouble(None)["disk"]["refusing"] is None
    assert '"event": "trouble"' in small.log()
    assert '"event": "trouble-over"' in small.log()


def test_a_store_that_can_only_be_read_takes_nothing_until_it_can_be_written(
    small: SmallNode,
) -> None:
    images = small.new_images(2)
    before = small.kept()
    with read_only(small.disk):
        told = small.wait_for_trouble("store-read-only")["disk"]
        assert told["refusing"] == "the store cannot be written"
        assert small.send(*images)[0] == 0
    assert small.kept() == before
    small.wait_for_trouble(None)
    small.send_until_taken(*images)
    assert small.acknowledged == small.kept()


def test_a_locked_database_acknowledges_nothing_and_status_tells(small: SmallNode) -> None:
    images = small.new_images(2)
    before = small.kept()
    other = sqlite3.connect(small.disk / "echonode.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        told = small.wait_for_trouble("database")
        assert told["running"] is True
        assert told["disk"]["refusing"] == "the database takes no rows"
        what = told["disk"]["troubles"][0]["what"]
        assert "locked" in what or "waited" in what, what
        assert small.send(*images)[0] == 0
        assert small.kept() == before
    finally:
        other.execute("ROLLBACK")
        other.close()
    small.wait_for_trouble(None)
    small.send_until_taken(*images)
    assert small.acknowledged == small.kept()


def test_a_database_that_is_moved_away_and_back_loses_nothing(small: SmallNode) -> None:
    images = small.new_images(2)
    place, away = small.disk / "echonode.db", small.disk / "away.db"
    place.rename(away)
    try:
        wait_until(lambda: "unable to open database" in small.log(), what="the node has noticed")
        assert small.send(*images)[0] == 0
        # Another part of the node may have noticed first; until the watch has, status has no word.
        wait_until(small.has_word, what="the node has left word that it refuses")
        shown = small.status(ExitCode.NOT_REACHABLE)
        assert shown["running"] is True
        assert shown["disk"]["refusing"] == "the database takes no rows"
    finally:
        away.rename(place)
    small.wait_for_trouble(None)
    small.send_until_taken(*images)
    assert small.acknowledged == small.kept()


def test_a_store_that_is_not_there_takes_nothing_until_it_is_back(small: SmallNode) -> None:
    images = small.new_images(1)
    place, away = small.disk / "objects", small.disk / "elsewhere"
    place.rename(away)
    try:
        assert "is not there" in str(small.wait_for_trouble("store-gone")["disk"]["troubles"])
        assert small.send(*images)[0] == 0
    finally:
        away.rename(place)
    small.wait_for_trouble(None)
    small.send_until_taken(*images)
    assert small.acknowledged == small.kept()


def _image(folder: Path) -> Path:
    """A secondary capture that no model looks at."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.Modality = "OT"
    image.Rows = image.Columns = 500
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = os.urandom(_IMAGE_BYTES)
    path = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path
