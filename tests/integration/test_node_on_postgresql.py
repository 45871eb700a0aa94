"""A node that keeps its rows in PostgreSQL: the same way through, and what happens without it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from node.app import Node, NodeError
from node.cli import main
from storage import catalog
from storage.database import Database
from tests.light_node import light_node
from tests.peers import send, storescp, wait_until
from tests.postgres import Postgres
from tests.running_node import variant

pytestmark = [
    pytest.mark.timeout(120),
    # pynetdicom leaves the socket open of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]


def get(node: Node, path: str) -> httpx.Response:
    return httpx.get(f"{node.addresses.http_url}{path}", trust_env=False, timeout=20)


def state_of(database: Database, uid: str) -> str:
    with database.read() as session:
        try:
            return catalog.find_study(session, uid).state.value
        except catalog.CatalogError:
            return ""


def test_a_study_goes_its_way_and_a_server_that_was_away_is_waited_for(
    postgres_server: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = postgres_server.without_tables()
    first, second = variant(tmp_path), variant(tmp_path)
    uids = [str(dcmread(path).StudyInstanceUID) for path in (first, second)]
    with storescp(tmp_path / "archive") as archive:
        to = {
            "name": "pacs", "kind": "dimse", "host": "127.0.0.1", "port": archive.port,
            "ae_title": "ARCHIVE", "commitment": "off",
        }  # fmt: skip
        data = tmp_path / "data"
        with light_node(monkeypatch, data, database_url=url, destinations=[to]) as (node, settings):
            database = Database(settings.database_url)
            assert send(node.addresses.dimse_port, first, options=("-xy",)).returncode == 0
            wait_until(lambda: state_of(database, uids[0]) == "done", what="the study is done")
            assert len(archive.files()) == 3
            date = str(dcmread(first).StudyDate)
            found = get(node, f"/dicom-web/studies?StudyDate={date}").json()
            assert [item["0020000D"]["Value"] for item in found] == [[uids[0]]]
            for page in ("/", "/studies?text=echo", f"/studies/{uids[0]}", "/metrics", "/readyz"):
                assert get(node, page).status_code == 200, page

            config = tmp_path / "echonode.toml"
            config.write_text(f'data_dir = "{data}"\ndatabase_url = "{url}"\n')
            for command in (("status",), ("studies",), ("study", uids[0]), ("db", "check")):
                assert main(["--config", str(config), *command, "--json"]) == 0, command
            assert uids[0] in capsys.readouterr().out
            with (
                pytest.raises(NodeError, match="works on this database already"),
                light_node(monkeypatch, tmp_path / "other", database_url=url),
            ):
                pytest.fail("two nodes of one name")

            postgres_server.stop()
            wait_until(lambda: get(node, "/readyz").status_code == 503, what="it says so")
            assert send(node.addresses.dimse_port, second, options=("-xy",)).returncode != 0
            postgres_server.start()
            wait_until(lambda: get(node, "/readyz").status_code == 200, what="it goes on")
            assert send(node.addresses.dimse_port, second, options=("-xy",)).returncode == 0
            wait_until(lambda: state_of(database, uids[1]) == "done", what="the second is done")
            assert state_of(database, uids[0]) == "done"
            assert len(archive.files()) == 6
            database.close()
