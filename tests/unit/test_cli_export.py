"""``echonode export``: which studies, where to, with which key, and again."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import TwelveLeadECGWaveformStorage

from node.cli import main
from node.cli.output import ExitCode
from node.export import exporter
from node.export.copying import Wishes, copy_object
from node.export.errors import ExportError, NotClean
from node.export.exporter import open_export
from node.export.pixels import Coding
from node.export.profile import Dates
from node.export.pseudonyms import Pseudonyms
from storage.catalog import FileState
from storage.database import Database
from storage.files import Area, FolderStore
from storage.tables import Instance, Study
from tests.export_sources import NUMBER, ROOT, leaks, planted_file
from tests.unit.storage_steps import EF, NOW, analyse, clip, complete, name_views, receive

STUDIES = (f"{ROOT}.10", f"{ROOT}.11", f"{ROOT}.12")


class Site:
    """A node's settings, its store, and what an export of it said."""

    def __init__(self, folder: Path, options: list[str], capsys: Any) -> None:
        self.folder, self.options, self._capsys = folder, options, capsys
        self.out, self.key = folder / "copies", folder / "keys" / "key.json"
        self.err = ""

    def export(self, *words: str, to: Path | None = None, code: int = 0) -> dict[str, Any]:
        """Run the command; what it printed as JSON."""
        options = ["export", "--to", str(to or self.out), *words, "--json"]
        found = main([*self.options, *options])
        out, self.err = self._capsys.readouterr()
        assert found == code, self.err
        assert leaks((out + self.err).encode()) == []
        return dict(json.loads(out)) if out else {}

    def copies(self, to: Path | None = None) -> list[Path]:
        """The copies, by their places in the export."""
        folder = to or self.out
        return sorted(one.relative_to(folder) for one in folder.rglob("*.dcm"))


@pytest.fixture
def site(
    tmp_path: Path, database: Database, database_url: str, capsys: pytest.CaptureFixture[str]
) -> Site:
    """Three studies of two patients; the first has two clips and an ECG."""
    file = tmp_path / "echonode.toml"
    file.write_text(
        f'data_dir = "{tmp_path / "data"}"\ndatabase_url = "{database_url}"\n', encoding="utf-8"
    )
    files = FolderStore(tmp_path / "data")
    for number, (study, patient) in enumerate(
        ((0, NUMBER), (0, NUMBER), (1, NUMBER), (2, "PLT7730042-B")), start=1
    ):
        data = planted_file(
            number=number,
            StudyInstanceUID=STUDIES[study],
            PatientID=patient,
            StudyDate=f"202402{10 + study}",
        )
        key = files.write(Area.OBJECTS, f"{number:064x}", data)
        changes = {"study_instance_uid": STUDIES[study], "file_key": key, "received_at": NOW}
        changes["sop_instance_uid"] = f"{ROOT}.3.{number}"
        changes["study_date"] = NOW.date().replace(year=2024, month=2, day=10 + study)
        receive(database, clip(number, **changes))
    ecg = {"sop_class_uid": TwelveLeadECGWaveformStorage, "recording_kind": None}
    receive(database, clip(99, study_instance_uid=STUDIES[0], **ecg))
    for study in STUDIES[:2]:
        complete(database, study)
    (tmp_path / "keys").mkdir()
    return Site(tmp_path, ["--config", str(file)], capsys)


def test_studies_are_copied_under_new_names_and_again_only_what_is_new(
    site: Site, database: Database
) -> None:
    told = site.export("--all", "--key", str(site.key))
    assert (told["written"], told["failed"]) == (4, {})
    assert told["left_out"] == {"not an ultrasound image: 12-lead ECG Waveform Storage": 1}
    copies = site.copies()
    assert len({one.parts[0] for one in copies}) == 2, "two patients"
    assert len({one.parts[1] for one in copies}) == 3, "three studies"
    for path in site.out.rglob("*"):
        assert leaks(str(path.relative_to(site.out)).encode()) == []
        assert path.is_dir() or leaks(path.read_bytes()) == []
    content = json.loads(site.key.read_text())
    assert stat.S_IMODE(site.key.stat().st_mode) == 0o600
    patient = dcmread(site.out / copies[0]).PatientID
    assert content["patients"][patient]["patient_id"].startswith(NUMBER)
    assert set(content["studies"].values()) == set(STUDIES)

    times = {one: (site.out / one).stat().st_mtime_ns for one in copies}
    (site.out / copies[0]).unlink()
    left = site.out / copies[1].parent / ".2.25.1.dcm.part"
    left.write_bytes(b"of a run that was killed")
    again = site.export("--all", "--key", str(site.key))
    assert (again["written"], again["there"]) == (1, 3)
    assert site.copies() == copies
    assert not left.exists()
    assert all((site.out / one).stat().st_mtime_ns == times[one] for one in copies[1:])

    other = site.folder / "other"
    site.export("--all", "--key", str(site.key), to=other)
    assert site.copies(other) == copies
    forgotten = site.folder / "forgotten"
    site.export("--all", to=forgotten)
    assert "nobody can go back" in site.err
    assert not {one.parts[0] for one in site.copies(forgotten)} & {one.parts[0] for one in copies}

    with database.write() as session:
        for row in session.query(Instance).filter(Instance.study_id == 2):
            row.file_state = FileState.REMOVED
    gone = site.export("--all", "--key", str(site.key))
    assert gone["left_out"]["its file is no longer kept"] == 1


def test_a_dry_run_says_what_would_be_copied_and_writes_nothing(
    site: Site, database: Database
) -> None:
    for words, studies in (
        ([STUDIES[1]], 1),
        (["--since", "2024-02-10", "--until", "2024-02-11"], 2),
        (["--since", "2024-02-11", "--limit", "1"], 1),
    ):
        told = site.export(*words, "--dry-run", "--key", str(site.key))
        assert len(told["studies"]) == studies
        assert told["written"] >= studies
    with database.write() as session:
        session.query(Study).filter_by(id=3).one().last_image_at = datetime.now(UTC)
    told = site.export("--all", "--dry-run")
    assert told["left_out"]["its study is still being received"] == 1
    assert not site.out.exists()
    assert not site.key.exists()
    site.export("1.2.3", code=ExitCode.NOT_FOUND)
    assert not site.out.exists()


def test_findings_sheets_and_dates_go_by_the_new_names_and_the_trail_tells_of_it(
    site: Site, database: Database
) -> None:
    complete(database, STUDIES[2])
    name_views(database)
    analyse(database, [EF])
    words = ("--findings", "--contact-sheet", "--keep-dates", "shift")
    told = site.export("--all", "--key", str(site.key), *words)
    assert told["findings"] == 4
    with (site.out / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    copies = {one.stem: one for one in site.copies()}
    for row in rows:
        assert copies[row["clip"]].parts[0] == row["patient"]
        assert dcmread(site.out / copies[row["clip"]]).StudyInstanceUID == row["study"]
        assert (row["view"], row["output"], row["value"], row["unit"]) == ("a4c", "ef", "55", "%")
        assert (row["evidence"], row["pack"], row["pack_version"]) == ("patients", "lv", "1.0")
    assert leaks((site.out / "findings.csv").read_bytes()) == []
    sheets = sorted(one.stem for one in (site.out / "contact-sheets").glob("*.png"))
    assert sheets == sorted(copies)
    _check_dates(site)
    trail = b"".join(one.read_bytes() for one in (site.folder / "data" / "audit").iterdir())
    assert trail.count(b"de-identified copies") == 3
    assert b"110106" in trail, "Export"
    assert leaks(trail.replace(ROOT.encode(), b"")) == []


def _check_dates(site: Site) -> None:
    """Dates of a patient go back by the same days, and what lies between them stays."""
    names = Pseudonyms(bytes.fromhex(json.loads(site.key.read_text())["secret"]))
    patient = names.patient("number", NUMBER, "")
    dates = sorted(dcmread(one).StudyDate for one in (site.out / patient).rglob("*.dcm"))
    first, last = (datetime.strptime(one, "%Y%m%d") for one in (dates[0], dates[-1]))  # noqa: DTZ007
    assert len(dates) == 3
    assert (last - first).days == 1
    assert (datetime(2024, 2, 10) - first).days == names.days(patient)  # noqa: DTZ001


def test_what_does_not_go_together_is_refused(site: Site, database: Database) -> None:
    for words, said in (
        (["--all", "--key", f"{site.out}/key.json"], "would lie in the export folder"),
        (["--all", STUDIES[0]], "one of them"),
        (["--all", "--keep-dates", "some"], "--keep-dates some"),
    ):
        site.export(*words, code=ExitCode.USAGE)
        assert said in site.err
        assert not site.out.exists()

    files = FolderStore(site.folder / "data")

    def opened(
        key: Path | None = site.key, to: Path = site.out, *, dry_run: bool = False, **wishes: Any
    ) -> None:
        with open_export(database, files, to, key, Wishes(**wishes), dry_run=dry_run):
            pass

    def refused(said: str, *places: Any, **wishes: Any) -> None:
        with pytest.raises(ExportError, match=said):
            opened(*places, **wishes)

    refused("there is no folder", Path("/nowhere/key.json"))
    refused("lies in the node's own data", None, files.root / "copies")
    refused("holds no export", None, site.folder)
    opened()
    before = site.key.read_bytes()
    opened()
    assert site.key.read_bytes() == before
    refused("another key", None)
    refused("other dates", dates=Dates.SHIFT)
    refused("other pixels", coding=Coding.JPEG, dry_run=True)
    with (site.key.parent / ".key.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused("used by another export")
    site.key.chmod(0o644)
    refused("chmod 600")
    site.key.chmod(0o600)
    for damaged in (b"{}", before[:60], before.replace(b'"secret": "', b'"secret": "x')):
        site.key.write_bytes(damaged)
        refused("damaged")
        assert site.key.read_bytes() == damaged


def test_what_fails_is_told_and_the_others_go_on_unless_the_disk_is_full(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(source: Any, *rest: Any) -> Any:
        if source.clip.sop_instance_uid.endswith(".1"):
            raise NotClean("(0010,1010) Patient's Age: an attribute to be removed")
        if source.clip.sop_instance_uid.endswith(".2"):
            raise ValueError(f"a value of {NUMBER}")
        return copy_object(source, *rest)

    monkeypatch.setattr(exporter, "copy_object", careless)
    told = site.export("--all", "--key", str(site.key), code=ExitCode.FAILED)
    assert told["written"] == 2
    assert list(told["failed"].values()) == [1, 1]
    assert "did not pass the inspection" in site.err

    def full(*_args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporter, "copy_object", full)
    site.key.unlink()
    site.export("--all", "--key", str(site.key), to=site.folder / "full", code=ExitCode.FAILED)
    assert "No space left" in site.err
    assert "start the same command again" in site.err
    assert len(json.loads(site.key.read_text())["patients"]) == 1
