"""The archives of docs/connect-a-pacs.md, set up by its very words."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.app import Node
from node.settings import Settings
from storage.database import Database
from storage.files import FolderStore
from storage.states import StudyState
from tests.faults.light import ThreadedWorkers
from tests.outbox_steps import Studies
from tests.peers import accepts_connections, free_port, require, running, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "connect-a-pacs.md").read_text()

pytestmark = [
    # The network library leaves the socket of a failed association to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]


def block(name: str) -> str:
    """What stands between the marks of a name, without the fence."""
    found = re.search(
        rf"<!-- {name}: begin -->\n```\w*\n(.*?)```\n<!-- {name}: end -->", PAGE, re.S
    )
    assert found is not None, name
    return found[1]


@pytest.fixture
def database(tmp_path: Path, _empty_database: Path) -> Iterator[Database]:
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copyfile(_empty_database, tmp_path / "data" / "echonode.db")
    opened = Database(f"sqlite:///{tmp_path / 'data' / 'echonode.db'}")
    yield opened
    opened.close()


@pytest.fixture
def studies(database: Database, tmp_path: Path) -> Studies:
    made = Studies(database, tmp_path)
    made.files = FolderStore(tmp_path / "data")  # the node's own
    return made


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.app.WorkerProcesses", ThreadedWorkers)


@contextmanager
def node_of_the_page(folder: Path, port: int, archive_port: int, **changes: Any) -> Iterator[Node]:
    """The page's settings, with the addresses and ports of this test."""
    written = tomllib.loads(block("echonode"))
    assert written["dimse"]["port"] == 11112
    (to,) = written["destinations"]
    local = Settings.model_validate(
        {
            **written,
            "data_dir": str(folder / "data"),
            "dimse": {
                **written["dimse"],
                "host": "127.0.0.1",
                "port": port,
                "allowed_addresses": [*written["dimse"]["allowed_addresses"][:1], "127.0.0.1"],
            },
            "http": {"enabled": False},
            "destinations": [{**to, "host": "127.0.0.1", "port": archive_port, **changes}],
        }
    )
    with Node(local) as node:
        yield node


def is_done(studies: Studies, uid: str) -> None:
    wait_until(
        lambda: studies.detail(uid).study.state is StudyState.DONE,
        what="the study is done",
        timeout_s=120,
    )


def test_orthanc_by_the_page_takes_results_and_promises_to_keep_them(
    studies: Studies, tmp_path: Path
) -> None:
    uid = studies.add("orthanc", results=3)
    node_port, port, http_port = free_port(), free_port(), free_port()
    configuration = json.loads(block("orthanc"))
    ours = configuration["DicomModalities"]["echonode"]
    assert (ours["AET"], ours["Port"]) == ("ECHONODE", 11112)
    ours |= {"Host": "127.0.0.1", "Port": node_port}
    configuration |= {
        "DicomPort": port,
        "HttpPort": http_port,
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
    }
    file = tmp_path / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with running([require("Orthanc"), str(file)], log=tmp_path / "orthanc.log"):
        wait_until(lambda: accepts_connections(port), what="Orthanc listens")
        with node_of_the_page(tmp_path, node_port, port):
            is_done(studies, uid)
        url = f"http://127.0.0.1:{http_port}"
        wait_until(lambda: accepts_connections(http_port), what="Orthanc's page")
        kept = httpx.get(f"{url}/statistics", timeout=10).json()
    assert {item.promise for item in studies.detail(uid).deliveries} == {"committed"}
    assert kept["CountInstances"] == 3


def test_the_configuration_that_ships_is_that_of_the_page() -> None:
    shipped = json.loads((Path(__file__).parents[2] / "deploy/container/orthanc.json").read_text())
    page = json.loads(block("orthanc"))
    for settings in (shipped, page):
        settings["DicomModalities"]["echonode"].pop("Host")
    assert {key: shipped[key] for key in page} == page


def test_dcmqrscp_by_the_page_takes_results_and_shows_them(
    studies: Studies, tmp_path: Path
) -> None:
    uid = studies.add("orthanc", results=2)
    port, kept = free_port(), tmp_path / "kept"
    kept.mkdir()
    file = tmp_path / "dcmqrscp.cfg"
    file.write_text(block("dcmqrscp").replace("4242", str(port)).replace("/srv/archive", str(kept)))
    with running([require("dcmqrscp"), "-c", str(file)], log=tmp_path / "dcmqrscp.log"):
        wait_until(lambda: accepts_connections(port), what="dcmqrscp listens")
        changes = {"ae_title": "QRSCP", "commitment": "auto", "commitment_timeout_s": 5}
        with node_of_the_page(tmp_path, free_port(), port, **changes):
            is_done(studies, uid)
    assert {item.promise for item in studies.detail(uid).deliveries} == {"found"}


def test_storescp_by_the_page_is_believed(studies: Studies, tmp_path: Path) -> None:
    (command,) = re.findall(r"^storescp (.+)$", PAGE, re.M)
    uid = studies.add("orthanc", results=2)
    port, kept = free_port(), tmp_path / "kept"
    kept.mkdir()
    words = [
        {"4242": str(port), "/srv/archive": str(kept)}.get(word, word) for word in command.split()
    ]
    with running([require("storescp"), *words], log=tmp_path / "storescp.log"):
        wait_until(lambda: accepts_connections(port), what="storescp listens")
        changes = {"ae_title": "ARCHIVE", "commitment": "auto", "commitment_timeout_s": 5}
        with node_of_the_page(tmp_path, free_port(), port, **changes):
            is_done(studies, uid)
    assert {item.promise for item in studies.detail(uid).deliveries} == {"status"}
    assert len(list(kept.iterdir())) == 2
