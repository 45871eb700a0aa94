"""What an operator sees of promises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.cli.app import main
from node.delivery.asking import Asked, Reply
from node.delivery.commitment import Terms
from storage import catalog
from storage.database import Database
from tests.integration.test_commitment import PACS, Scripted, no, report
from tests.outbox_steps import Studies, Taking


@pytest.fixture
def database(tmp_path: Path, _empty_database: Path) -> Iterator[Database]:
    file = tmp_path / "data" / "echonode.db"
    file.parent.mkdir()
    shutil.copyfile(_empty_database, file)
    opened = Database(f"sqlite:///{file}")
    yield opened
    opened.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "echonode.toml"
    lines = [f'data_dir = "{tmp_path / "data"}"']
    for name in ("pacs", "old", "new"):
        lines += ["[[destinations]]", f'name = "{name}"', 'kind = "dimse"', 'host = "127.0.0.1"']
        lines += ["port = 104", f'ae_title = "{name.upper()}"']
    path.write_text("\n".join(lines) + '\ncommitment = "off"\n')
    return path


def test_destinations_and_studies_show_what_is_promised_and_what_is_waited_for(
    database: Database, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*arguments: str) -> Any:
        capsys.readouterr()
        assert main(["--config", str(config), *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def read(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["--config", str(config), *arguments]) == 0
        return capsys.readouterr().out

    studies = Studies(database, tmp_path)
    pacs, old = Scripted(), Scripted(Asked(reply=Reply.NOT_OFFERED, text="no such context"))
    terms = {
        "pacs": Terms(archive=pacs, ae_title="PACS"),
        "old": Terms(archive=old, ae_title="OLD"),
    }
    outbox = studies.outbox({"pacs": Taking(), "old": Taking()}, terms)
    promises = studies.promises(terms)
    assert [item["commitment"]["offered"] for item in ask("destinations")] == [None] * 3

    uid = studies.add("pacs", "old", results=3)
    one, two, _three = studies.results(uid)
    old.has = set(studies.results(uid))
    for name in ("pacs", "old"):
        outbox.deliver_due(name)
        outbox.ask_due(name)
    promises.reported(PACS, 2, report(pacs.transactions[0], [one], **no(two, 0x0112)))

    by_name = {item["name"]: item["commitment"] for item in ask("destinations")}
    assert by_name["pacs"] == {
        "setting": "auto", "offered": True, "promised": 1, "found": 0, "by_status": 0,
        "waiting": 1, "refused": 1, "overdue": 0, "failed": 0,
    }  # fmt: skip
    assert (by_name["old"]["offered"], by_name["old"]["found"]) == (False, 3)
    assert (by_name["new"]["setting"], by_name["new"]["offered"]) == ("off", None)
    shown = read("destinations")
    for words in ("auto, offered", "auto, not offered", "1 promised", "3 shown by a query", "off"):
        assert words in " ".join(shown.split()), shown

    deliveries = [item for item in ask("study", uid)["deliveries"] if item["destination"] == "pacs"]
    assert [(item["state"], item["promise"]) for item in deliveries] == [
        ("delivered", "committed"), ("waiting", None), ("sent", None),
    ]  # fmt: skip
    text = read("study", uid)
    assert "awaited" in text
    assert "promised" in text

    with database.write() as session:
        assert catalog.forget_refused_classes(session, "old") == 1
    assert ask("destinations")[1]["commitment"]["offered"] is None
