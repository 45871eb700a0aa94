"""The command line on a database with rows, beside a node or without one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.cli import main
from node.cli.output import ExitCode
from node.watch import study_key
from storage import catalog
from storage.database import Database
from storage.files import Area, FolderStore
from tests.unit.storage_steps import STUDY, clip, complete, deliver, receive, until_delivering

COMMANDS = (
    "serve",
    "demo",
    "simulate",
    "analyze",
    "fetch",
    "backfill",
    "backfill status",
    "backfill end",
    "explain",
    "status",
    "studies",
    "study",
    "retry",
    "hold",
    "release",
    "resend",
    "destinations",
    "destinations list",
    "destinations forget",
    "quarantine",
    "quarantine list",
    "quarantine show",
    "quarantine remove",
    "quarantine export",
    "packs",
    "packs list",
    "packs show",
    "packs import",
    "packs check",
    "dataset build",
    "dataset show",
    "evaluate",
    "train",
    "config check",
    "config show",
    "db path",
    "db upgrade",
    "db check",
    "retention",
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with settings, and the data folder that they name."""
    (tmp_path / "data").mkdir()
    (tmp_path / "echonode.toml").write_text(
        f'data_dir = "{tmp_path / "data"}"\n[[destinations]]\nname = "pacs"\nkind = "dimse"\n'
        'host = "127.0.0.1"\nport = 104\nae_title = "PACS"\n'
    )
    return tmp_path


@pytest.fixture
def rows(site: Path, _empty_database: Path) -> Iterator[Database]:
    file = site / "data" / "echonode.db"
    shutil.copyfile(_empty_database, file)
    database = Database(f"sqlite:///{file}")
    yield database
    database.close()


class Shell:
    """Runs commands in this process; keeps what they said."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        code = main(["--config", str(self._config), *arguments])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str) -> Any:
        code = self(*arguments, "--json")
        assert code == ExitCode.OK, self.err
        return json.loads(self.out)


@pytest.fixture
def echonode(site: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(site / "echonode.toml", capsys)


def beat(database: Database, at: datetime) -> None:
    with database.write() as session:
        catalog.join(
            session,
            "node-1",
            pid=77,
            started_at=at,
            details={
                "addresses": {
                    "ae_title": "ECHONODE",
                    "dimse_host": "127.0.0.1",
                    "dimse_port": 11112,
                },
                "associations": 2,
                "turned_away": 3,
                "workers": [{"pid": 78, "state": "idle", "jobs_done": 5, "restarts": 0}],
            },
            now=at,
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_has_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == ExitCode.OK

    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["status", "studies", f"study {STUDY}", f"retry {STUDY}", "quarantine", "db check"],
)
def test_without_a_database_there_is_one_line_and_nothing_is_made(
    echonode: Shell, site: Path, command: str
) -> None:
    assert echonode(*command.split()) == ExitCode.NOT_REACHABLE

    assert echonode.err.startswith(f"echonode: no database at {site}/data/echonode.db")
    assert len(echonode.err.splitlines()) == 1
    assert echonode.out == ""
    assert list((site / "data").iterdir()) == []


@pytest.mark.parametrize("command", ["study", "retry", "hold", "release", "resend"])
def test_an_unknown_study_is_one_line(echonode: Shell, rows: Database, command: str) -> None:
    receive(rows, clip(1))

    assert echonode(command, "1.2.3.4") == ExitCode.NOT_FOUND

    assert (
        echonode.err
        == "echonode: no study 1.2.3.4; `echonode studies` lists those that are there\n"
    )
    assert echonode.out == ""


def test_settings_that_are_wrong_end_every_command(echonode: Shell, site: Path) -> None:
    (site / "echonode.toml").write_text("[dimse]\nprot = 1\nport = -1\n")

    assert echonode("status") == ExitCode.USAGE

    first, second = echonode.err.splitlines()
    assert first.startswith("echonode: ")
    assert "dimse.port" in first
    assert "dimse.prot: unknown key" in second


@pytest.mark.parametrize("arguments", [["nothing"], ["study"], ["studies", "--limit", "0"]])
def test_a_wrong_command_line_is_one_line(echonode: Shell, arguments: list[str]) -> None:
    assert echonode(*arguments) == ExitCode.USAGE

    assert len(echonode.err.splitlines()) == 1


def test_status_counts_and_says_that_no_node_runs(echonode: Shell, rows: Database) -> None:
    until_delivering(rows)

    assert echonode("status", "--json") == ExitCode.NOT_REACHABLE

    shown = json.loads(echonode.out)
    assert shown["running"] is False
    assert shown["studies"]["delivering"] == 1
    assert shown["recordings"]["done"] == 1
    assert shown["deliveries"]["waiting"] == 1
    assert shown["oldest_delivery"]["study_instance_uid"] == STUDY
    assert shown["disk"]["free_bytes"] > 0
    assert "no node is running" in echonode.err


def test_status_shows_the_node_that_runs_and_its_workers(echonode: Shell, rows: Database) -> None:
    beat(rows, datetime.now(UTC))

    shown = echonode.json("status")

    assert shown["running"] is True
    assert shown["nodes"][0]["pid"] == 77
    assert shown["workers"] == [{"pid": 78, "state": "idle", "jobs_done": 5, "restarts": 0}]
    assert echonode("status") == ExitCode.OK
    assert "3 callers turned away" in echonode.out
    assert "ECHONODE on 127.0.0.1:11112, 2 associations open" in echonode.out


def test_a_node_that_fell_silent_does_not_run(echonode: Shell, rows: Database) -> None:
    beat(rows, datetime.now(UTC) - timedelta(minutes=5))

    assert echonode("status") == ExitCode.NOT_REACHABLE


def test_status_tells_of_the_last_errors(echonode: Shell, rows: Database) -> None:
    beat(rows, datetime.now(UTC))
    until_delivering(rows)
    deliver(rows, fails=["pacs"])

    (trouble, *_) = echonode.json("status")["last_errors"]

    assert trouble["study_instance_uid"] == STUDY
    assert "refused: no space" in trouble["message"]


def test_studies_are_listed_and_filtered(echonode: Shell, rows: Database) -> None:
    until_delivering(rows)
    receive(rows, clip(9, study_instance_uid="1.9", sop_instance_uid="1.9.1"))

    listed = echonode.json("studies")
    receiving = echonode.json("studies", "--state", "receiving")

    assert {study["study_instance_uid"] for study in listed} == {STUDY, "1.9"}
    assert [study["study_instance_uid"] for study in receiving] == ["1.9"]
    assert receiving[0]["key"] == study_key("1.9")
    assert "id" not in receiving[0]
    assert echonode("studies", "--state", "lost") == ExitCode.USAGE
    assert "receiving, analysing" in echonode.err


def test_a_study_is_shown_whole(echonode: Shell, rows: Database, site: Path) -> None:
    until_delivering(rows)

    shown = echonode.json("study", STUDY)

    assert shown["study"]["state"] == "delivering"
    (only,) = shown["clips"]
    assert only["view"] == {"label": "a4c", "score": 0.97, "certain": True}
    assert only["findings"] == [
        {
            "output": "ef",
            "value": 55.0,
            "unit": "%",
            "low": 48.0,
            "high": 62.0,
            "score": None,
            "pack": "lv",
            "version": "1.0",
            "evidence": "patients",
            "per_beat": [53.5, 56.5],
            "outside_share": 0.25,
            "spans_ms": [],
        }
    ]
    assert only["not_given"] == [{"output": "edv", "reason": "no scale", "pack": "lv"}]
    assert only["refused"] is None
    assert shown["results"][0]["kind"] == "sr"
    assert shown["results"][0]["path"].startswith(str(site / "data"))
    assert shown["deliveries"][0]["destination"] == "pacs"
    assert shown["timeline"][0]["kind"] == "study-opened"


def test_a_study_is_found_by_the_key_of_the_logs(echonode: Shell, rows: Database) -> None:
    until_delivering(rows)

    assert echonode.json("study", study_key(STUDY))["study"]["study_instance_uid"] == STUDY


def test_a_study_can_be_read_as_text(echonode: Shell, rows: Database) -> None:
    until_delivering(rows)

    assert echonode("study", STUDY) == ExitCode.OK

    for words in ("delivering", "a4c", "55.0 %", "48.0 to 62.0 %", "patients", "not for diagnosis"):
        assert words in echonode.out


def test_what_has_only_seen_the_simulator_is_withheld_until_switched_on(
    echonode: Shell, rows: Database, site: Path
) -> None:
    from dataclasses import replace

    from tests.unit.storage_steps import EF, analyse, name_views

    receive(rows, clip(1))
    complete(rows)
    name_views(rows)
    analyse(rows, [EF, replace(EF, output="lvh", unit="{score}", evidence="simulated")])

    withheld = echonode.json("study", STUDY)["clips"][0]["findings"]
    with (site / "echonode.toml").open("a") as file:
        file.write("[analysis]\nallow_simulated_evidence = true\n")
    given = echonode.json("study", STUDY)["clips"][0]["findings"]

    assert [finding["output"] for finding in withheld] == ["ef"]
    assert [(finding["output"], finding["evidence"]) for finding in given] == [
        ("ef", "patients"),
        ("lvh", "simulated"),
    ]


def test_a_study_is_held_and_released(echonode: Shell, rows: Database) -> None:
    receive(rows, clip(1))

    held = echonode.json("hold", STUDY, "--reason", "wrong patient")
    assert echonode("hold", STUDY) == ExitCode.FAILED
    assert "only a study on its way can be held" in echonode.err
    released = echonode.json("release", STUDY)

    assert (held["study"]["state"], held["study"]["reason"]) == ("held", "wrong patient")
    assert released["study"]["state"] == "receiving"
    assert "no node is running" in echonode.err


def test_a_failed_delivery_is_tried_again(echonode: Shell, rows: Database) -> None:
    until_delivering(rows)
    assert echonode("retry", STUDY) == ExitCode.FAILED
    assert "nothing in it failed" in echonode.err
    deliver(rows, fails=["pacs"])

    assert echonode.json("retry", STUDY)["study"]["state"] == "delivering"


def test_results_are_sent_again_to_a_known_destination_only(
    echonode: Shell, rows: Database
) -> None:
    until_delivering(rows)
    deliver(rows)

    assert echonode("resend", STUDY, "--to", "elsewhere") == ExitCode.NOT_FOUND
    assert "there are: pacs" in echonode.err
    assert echonode.json("resend", STUDY, "--to", "pacs")["study"]["state"] == "delivering"


def quarantined(rows: Database, site: Path, data: bytes) -> int:
    key = FolderStore(site / "data").write(Area.QUARANTINE, "ab" * 32, data)
    with rows.write() as session:
        return catalog.add_quarantined(
            session,
            catalog.NewQuarantined(
                received_at=datetime.now(UTC),
                reason="not a DICOM data set",
                status_sent=0xC001,
                calling_ae="CART",
                file_key=key,
                size_bytes=len(data),
            ),
        ).id


def test_quarantine_is_listed_exported_and_emptied(
    echonode: Shell, rows: Database, site: Path
) -> None:
    number = quarantined(rows, site, b"not DICOM")

    (listed,) = echonode.json("quarantine")
    assert (listed["number"], listed["reason"]) == (number, "not a DICOM data set")
    assert echonode.json("quarantine", "list") == [listed]
    assert echonode.json("quarantine", "show", str(number)) == listed

    echonode.json("quarantine", "export", str(number), str(site / "bytes"))
    assert (site / "bytes").read_bytes() == b"not DICOM"
    assert echonode("quarantine", "export", str(number), str(site / "bytes")) == ExitCode.USAGE

    echonode.json("quarantine", "remove", str(number))
    assert echonode.json("quarantine") == []
    assert not any((site / "data" / "quarantine").rglob("*.dcm"))
    assert echonode("quarantine", "show", str(number)) == ExitCode.NOT_FOUND


def test_the_check_of_the_database_finds_a_missing_file(
    echonode: Shell, rows: Database, site: Path
) -> None:
    key = FolderStore(site / "data").write(Area.OBJECTS, "cd" * 32, b"clip")
    receive(rows, clip(1, file_key=key, size_bytes=4))
    assert echonode.json("db", "check") == {"ok": True, "problems": [], "faults": []}

    (site / "data" / key).unlink()

    assert echonode("db", "check", "--json") == ExitCode.FAILED
    assert json.loads(echonode.out)["problems"] == [f"study {STUDY}: {key}: its file is missing"]


def test_a_database_is_made_and_named(echonode: Shell, site: Path) -> None:
    assert echonode.json("db", "upgrade")["revision"]
    assert echonode.json("db", "path") == {"database_url": f"sqlite:///{site}/data/echonode.db"}
    assert echonode.json("studies") == []


def test_the_settings_are_checked_and_shown(echonode: Shell, site: Path) -> None:
    assert echonode.json("config", "check")["ok"] is True
    shown = echonode.json("config", "show")
    assert shown["settings"]["destinations"][0]["ae_title"] == "PACS"
    assert shown["sources"]["destinations[1].ae_title"] == str(site / "echonode.toml")

    (site / "echonode.toml").write_text("[dimse]\nport = 'x'\n")

    assert echonode("config", "check", "--json") == ExitCode.USAGE
    (line,) = json.loads(echonode.out)["problems"]
    assert "dimse.port: 'x' will not do" in line


def test_an_unknown_pack_is_one_line(echonode: Shell) -> None:
    assert echonode("packs", "show", "nothing") == ExitCode.NOT_FOUND
    assert echonode.err == "echonode: no pack 'nothing'; `echonode packs` lists them\n"


def test_a_missing_file_is_one_line(echonode: Shell, tmp_path: Path) -> None:
    missing = tmp_path / "none.dcm"

    assert echonode("analyze", str(missing), "--json") == ExitCode.NOT_FOUND
    assert echonode.err == f"echonode: {missing}: no such file\n"
    assert echonode.out == ""


def test_commands_of_operators_never_load_tensorflow(site: Path, rows: Database) -> None:
    until_delivering(rows)
    program = (
        "import sys\nfrom node.cli import main\n"
        f"for command in (['status'], ['study', {STUDY!r}], ['studies'], ['packs'],"
        " ['quarantine'], ['config', 'show']):\n"
        f"    main(['--config', {str(site / 'echonode.toml')!r}, *command])\n"
        "print('LOADED', [name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_what_a_destination_refuses_is_shown_and_forgotten_on_an_operators_word(
    echonode: Shell, rows: Database
) -> None:
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    with rows.write() as session:
        catalog.note_refused_class(
            session, "pacs", "1.2.840.10008.5.1.4.1.1.88.34", "not supported", at
        )
        catalog.note_refused_class(session, "gone", "1.2.3", "no", at)
    (shown,) = echonode.json("destinations")
    assert (shown["name"], shown["where"], shown["text_report"]) == (
        "pacs", "PACS at 127.0.0.1:104", False,
    )  # fmt: skip
    (refused,) = shown["refuses"]
    assert refused["name"] == "Comprehensive 3D SR Storage"
    assert refused["answer"] == "not supported"
    assert refused["asked_again_at"] == "2026-01-09T03:04:00+00:00"
    assert echonode("destinations", "list") == ExitCode.OK
    assert "Comprehensive 3D SR" in echonode.out
    assert echonode.json("destinations", "forget", "pacs") == {
        "destination": "pacs", "forgotten": 1,
    }  # fmt: skip
    assert echonode.json("destinations", "list")[0]["refuses"] == []
    assert echonode.json("destinations", "forget", "gone")["forgotten"] == 1
    assert echonode("destinations", "forget", "nowhere") == ExitCode.NOT_FOUND
    assert "there are: pacs" in echonode.err
