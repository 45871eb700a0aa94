"""`echonode doctor` against real archives, against nobody, and on machines that are not well."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from node.checkup import Finding, look_at_peers, look_here
from node.cli.app import main
from node.settings import Settings
from storage import catalog
from storage.database import Database, migrate
from storage.files import FolderStore
from tests.peers import Archive, free_port, orthanc, storescp
from tests.unit.storage_steps import clip, receive

pytestmark = [
    pytest.mark.timeout(120),
    # The network library leaves the socket of a failed or rejected association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]


@dataclass(frozen=True)
class Peers:
    """Archives of the tests, and what a doctor found of them, by destination."""

    found: dict[str, list[Finding]]

    def lights(self, name: str) -> dict[str, str]:
        return {one.words: one.light.value for one in self.found[f"destination {name}"]}


def dimse(name: str, port: int, title: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": "dimse", "host": "127.0.0.1", "port": port, "ae_title": title, **more
    }  # fmt: skip


def by_area(findings: Iterator[Finding]) -> dict[str, list[Finding]]:
    areas: dict[str, list[Finding]] = {}
    for one in findings:
        areas.setdefault(one.area, []).append(one)
    return areas


@pytest.fixture(scope="module")
def sparing() -> Iterator[Archive]:
    """An archive that takes single frames and plain reports, uncompressed, and nothing else."""
    entity = AE("SPARING")
    for sop_class in (Verification, SecondaryCaptureImageStorage, ComprehensiveSRStorage):
        entity.add_supported_context(sop_class)
    entity.require_called_aet = True
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield Archive(ae_title="SPARING", port=server.server_address[1])
    server.shutdown()


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory, sparing: Archive) -> Iterator[Peers]:
    """One look at all of them."""
    folder = tmp_path_factory.mktemp("doctor")
    with (
        orthanc(folder / "orthanc", modalities={"ECHONODE": free_port()}) as pacs,
        storescp(folder / "plain") as plain,
    ):
        web = {"name": "web", "kind": "dicomweb", "url": f"{pacs.url}/dicom-web"}
        nowhere = f"http://127.0.0.1:{free_port()}/dicom-web"
        settings = Settings(
            data_dir=folder / "data",
            destinations=[
                dimse("pacs", pacs.port, "ORTHANC"),
                dimse("plain", plain.port, "ARCHIVE", key_object=True, text_report=True),
                dimse("strict", plain.port, "ARCHIVE", commitment="required"),
                dimse("sparing", sparing.port, "SPARING"),
                dimse("misnamed", sparing.port, "OTHER"),
                dimse("nobody", free_port(), "NOBODY"),
                web,
                {**web, "name": "elsewhere", "url": f"{pacs.url}/nothing-here"},
                {**web, "name": "web-nobody", "url": nowhere},
            ],
            machines=[{"ae_title": "CART", "host": "127.0.0.1", "port": free_port()}],
        )
        yield Peers(found=by_area(look_at_peers(settings)))


def test_an_archive_that_can_all_is_green(peers: Peers) -> None:
    seen = peers.lights("pacs")

    assert set(seen.values()) == {"green"}, seen
    assert "it answers C-ECHO" in seen
    assert any(words.startswith("it takes reports: Comprehensive 3D SR") for words in seen)
    assert any(words.startswith("it takes pictures: Multi-frame True Color") for words in seen)
    assert any(words.startswith("it offers storage commitment") for words in seen)
    assert "it answers C-FIND" in seen


def test_an_archive_that_only_stores_is_yellow_where_it_cannot_be_asked(peers: Peers) -> None:
    seen = peers.lights("plain")

    assert "red" not in seen.values(), seen
    assert seen["it offers no C-FIND"] == "yellow"
    assert seen["it offers no storage commitment: results are believed by its status alone"] == (
        "yellow"
    )
    assert sum(words.startswith("it takes ") for words in seen) == 4, "text and key objects too"
    strict = peers.lights("strict")
    assert strict['it offers no storage commitment, and commitment = "required"'] == "red"


def test_an_archive_that_takes_little_says_what_goes_instead(peers: Peers) -> None:
    seen = peers.lights("sparing")

    assert "red" not in seen.values(), seen
    yellow = {words for words, light in seen.items() if light == "yellow"}
    assert "it does not take Comprehensive 3D SR Storage: reports go as Comprehensive SR" in yellow
    assert any("cines go as a few single frames" in words for words in yellow)


def test_who_does_not_answer_is_red_with_a_way_out(peers: Peers) -> None:
    for name in ("nobody", "misnamed", "web-nobody"):
        (only,) = peers.found[f"destination {name}"]
        assert only.light == "red", name
        assert only.next_step
    assert "compare the AE titles" in peers.found["destination misnamed"][0].next_step
    assert "firewall" in peers.found["destination nobody"][0].next_step
    (machine,) = peers.found["machine CART"]
    assert machine.light == "yellow", "a machine may be switched off"


def test_a_web_archive_is_asked_for_its_search_and_its_store(peers: Peers) -> None:
    seen = peers.lights("web")
    assert set(seen.values()) == {"green"}, seen
    assert {words.split(" (")[0] for words in seen} == {
        next(words for words in seen if words.startswith("it answers QIDO-RS at ")),
        "it has STOW-RS",
    }
    elsewhere = peers.lights("elsewhere")
    assert elsewhere["it has no STOW-RS there: HTTP 404"] == "red"


def look(settings: Settings) -> dict[str, list[Finding]]:
    return by_area(look_here(settings))


def lights(found: list[Finding]) -> list[str]:
    return [one.light.value for one in found]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        dimse={"port": free_port()},
        http={"port": free_port()},
        disk={"keep_free_bytes": 0},
    )


@pytest.fixture
def rows(settings: Settings) -> Iterator[Database]:
    FolderStore(settings.data_dir)
    migrate(settings.database_url)
    database = Database(settings.database_url)
    yield database
    database.close()


def test_a_machine_on_which_no_node_ever_ran_has_nothing_red(settings: Settings) -> None:
    found = look(settings)

    assert not [one for findings in found.values() for one in findings if one.light == "red"]
    assert found["database"][0].words == "it is not there yet; the first start makes it"
    assert lights(found["ports"]) == ["green", "green"]
    assert found["packs"][0].words.startswith("checksums are right: ")
    assert lights(found["users"]) == lights(found["alerts"]) == ["yellow"]
    assert not settings.data_dir.exists(), "a doctor changes nothing"


def test_a_port_of_others_is_red_and_one_of_ours_is_not(settings: Settings, rows: Database) -> None:
    with socket.create_server(("127.0.0.1", settings.dimse.port)):
        taken = look(settings)["ports"][0]
        with rows.write() as session:
            catalog.join(
                session,
                socket.gethostname(),
                pid=1,
                started_at=catalog.utc_now(),
                details={"addresses": {"dimse_port": settings.dimse.port}},
            )
        ours = look(settings)

    assert (taken.light, taken.next_step) == (
        "red",
        "stop what uses it, or choose another port in [dimse]",
    )
    assert "Address already in use" in taken.words
    assert ours["ports"][0].light == "green"
    assert ours["node"][0].light == "green"


def test_disk_clock_and_database_are_looked_at(
    settings: Settings, rows: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(rows, clip(1, received_at=catalog.utc_now().replace(year=2090)))
    full = settings.model_copy(
        update={"disk": settings.disk.model_copy(update={"keep_free_bytes": 1 << 60})}
    )

    found = look(full)

    assert lights(found["database"]) == ["green"]
    assert found["clock"][0].light == "red"
    assert "timedatectl set-ntp" in found["clock"][0].next_step
    assert found["disk"][0].light == "red"
    assert "set [disk] keep_free_bytes lower" in found["disk"][0].next_step
    monkeypatch.setattr("node.checkup.here._MOST_LOOKED_THROUGH_BYTES", 1)
    assert lights(look(settings)["database"]) == ["yellow"]


@pytest.mark.parametrize(
    ("statement", "light", "words"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", "yellow", "at revision 0001, this"),
        ("UPDATE alembic_version SET version_num = '9999'", "red", "at revision 9999, which this"),
    ],
)
def test_older_tables_are_yellow_and_newer_ones_red(
    settings: Settings, rows: Database, statement: str, light: str, words: str
) -> None:
    rows.close()
    with sqlite3.connect(settings.data_dir / "echonode.db") as connection:
        connection.execute(statement)
    connection.close()

    (found,) = look(settings)["database"]

    assert found.light == light
    assert words in found.words
    assert found.next_step


def test_alerts_that_could_not_be_sent_are_red(settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    secret.chmod(0o644)
    mail = {
        "host": "127.0.0.1", "security": "none", "sender": "a@b.example", "to": ["c@d.example"],
    }  # fmt: skip
    told = Settings(
        **{
            **settings.model_dump(),
            "alerts": {
                "webhook": {"url": "https://chat.example/x", "token_file": secret},
                "mail": mail,
            },
        }
    )

    webhook, by_mail = look(told)["alerts"]

    assert (webhook.light, by_mail.light) == ("red", "green")
    assert "run: chmod 600" in webhook.words


def test_a_pack_whose_weights_were_changed_is_red(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    broken = settings.model_copy(
        update={"analysis": settings.analysis.model_copy(update={"packs": (tmp_path / "pack",)})}
    )

    found = look(broken)["packs"]

    assert lights(found) == ["red", "green"]


def test_the_command_ends_with_one_where_something_is_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text(
        f'data_dir = "data"\n[dimse]\nport = {free_port()}\n[http]\nport = {free_port()}\n'
        '[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\n'
        f'port = {free_port()}\nae_title = "NOBODY"\n'
    )
    command = ["--config", str(config), "doctor"]

    assert main([*command, "--offline"]) == 0
    assert main(command) == 1
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.startswith("red ")]
    assert "destination pacs: pacs (NOBODY at 127.0.0.1:" in line
    assert " -> see that it runs" in line
    assert said.err.splitlines()[-1].startswith("echonode: 1 of ")
    assert main([*command, "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] is False
    assert {"area", "light", "words", "next_step"} == set(shown["checks"][0])


def test_settings_that_cannot_be_read_are_a_red_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text("[dimse]\nport = 99999\nnonsense = 1\n")

    assert main(["--config", str(config), "doctor", "--json"]) == 1

    shown = json.loads(capsys.readouterr().out)
    assert [one["light"] for one in shown["checks"]] == ["red", "red"]
    assert all(one["area"] == "settings" and one["next_step"] for one in shown["checks"])
