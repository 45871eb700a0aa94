"""What `/metrics` says after a study went through a node, and the rules that its names keep."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from node.app import Node
from node.watch.metrics import Metrics, Watched
from storage.database import Database
from tests.light_node import light_node
from tests.peers import free_port, send, storescp, wait_until
from tests.running_node import variant

pytestmark = [
    pytest.mark.timeout(120),
    # pynetdicom leaves the socket open of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
NAME_OF_PATIENT = "METRICS^NEVER"
JPEG = ("-xy",)
DOWN = "a place that does not answer"

NOT_IN_A_NAME = {
    *("gauge", "counter", "histogram", "summary", "total", "count", "sum"),
    *("ms", "s", "sec", "milliseconds", "minutes", "hours", "days"),
    *("kb", "mb", "gb", "kilobytes", "megabytes", "percent"),
}


class Scrape:
    """One look at a node's metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [s for family in self.families.values() for s in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        found = [s.value for s in self.samples if s.name == name and _has(s, labels)]
        assert found, f"{name} {labels} is not there"
        return sum(found)

    def labels(self, name: str, label: str) -> set[str]:
        return {s.labels[label] for s in self.samples if s.name == name}


def _has(sample: Sample, labels: dict[str, str]) -> bool:
    return all(sample.labels.get(name) == value for name, value in labels.items())


def scrape(node: Node) -> Scrape:
    answer = httpx.get(f"{node.addresses.http_url}/metrics", trust_env=False, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.text)


@pytest.fixture(scope="module")
def after_a_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Scrape]]:
    """A node through which a study went, with an object that was no good and one sent twice."""
    folder = tmp_path_factory.mktemp("metrics")
    clip = variant(folder, PatientName=NAME_OF_PATIENT, PatientID="METRICS-ID")
    stranger = variant(folder)
    broken = variant(folder, SeriesInstanceUID="")
    with (
        pytest.MonkeyPatch.context() as patch,
        storescp(folder / "archive") as archive,
        light_node(
            patch,
            folder / "data",
            dimse={"port": 0, "allowed_calling_aes": ["ECHOCART", "STRANGER"]},
            machines=[{"ae_title": "ECHOCART", "host": "127.0.0.1", "port": free_port()}],
            destinations=[
                {
                    "name": "archive", "kind": "dimse", "host": "127.0.0.1",
                    "port": archive.port, "ae_title": "ARCHIVE", "commitment": "off",
                },
                {
                    "name": DOWN, "kind": "dimse", "host": "127.0.0.1",
                    "port": free_port(), "ae_title": "NOBODY", "commitment": "off",
                },
            ],
        ) as (node, _),
    ):  # fmt: skip
        port = node.addresses.dimse_port
        assert send(port, clip, options=JPEG).returncode == 0
        assert send(port, clip, options=JPEG).returncode == 0
        send(port, broken, options=JPEG)
        assert send(port, stranger, options=(*JPEG, "-aet", "NOBODY-KNOWN")).returncode != 0

        def through() -> bool:
            now = scrape(node)
            return now.value(
                "echonode_queue_deliveries", state="delivered"
            ) >= 3 and "not-reached" in now.labels("echonode_delivery_answers_total", "answer")

        wait_until(through, what="the results are in the archive", pause_s=0.3)
        yield node, scrape(node)


def test_every_step_of_the_study_was_counted(after_a_study: tuple[Node, Scrape]) -> None:
    _, seen = after_a_study

    assert seen.value("echonode_received_objects_total", door="dimse", peer="ECHOCART") == 1
    assert seen.value("echonode_received_bytes_total", peer="ECHOCART") > 100_000
    assert seen.value("echonode_repeated_objects_total", door="dimse") == 1
    assert seen.value("echonode_refused_objects_total", door="dimse") == 1
    assert seen.labels("echonode_refused_objects_total", "reason") == {"does-not-match"}
    assert seen.value("echonode_turned_away_callers_total", reason="calling-ae") == 1
    for stage in ("keep", "view", "analyse", "report", "study"):
        assert seen.value("echonode_stage_duration_seconds_count", stage=stage) == 1, stage
    assert seen.value("echonode_stage_duration_seconds_count", stage="queue") == 2
    assert seen.value("echonode_inference_duration_seconds_count", pack="light") == 2
    assert seen.value("echonode_clip_outcomes_total", outcome="view-named") == 1
    assert seen.value("echonode_clip_outcomes_total", outcome="analysed") == 1
    assert seen.value("echonode_study_outcomes_total", outcome="reported") == 1
    stored = seen.value("echonode_delivery_answers_total", destination="archive", answer="stored")
    assert stored == 3
    assert seen.value("echonode_stage_duration_seconds_count", stage="deliver") == stored


def test_what_is_now_is_read_now(after_a_study: tuple[Node, Scrape]) -> None:
    node, seen = after_a_study

    assert seen.value("echonode_queue_studies", state="delivering") == 1
    assert seen.value("echonode_queue_studies") == 1
    assert seen.value("echonode_queue_clips", state="done") == 1
    assert seen.value("echonode_destination_waiting_deliveries", destination=DOWN) > 0
    assert seen.value("echonode_destination_oldest_waiting_seconds", destination=DOWN) > 0
    assert seen.value("echonode_quarantined_objects") == 1
    assert seen.value("echonode_disk_free_bytes", volume="data") > 0
    assert seen.value("echonode_refusing") == 0
    assert seen.value("echonode_trouble", kind="disk-full") == 0
    assert seen.value("echonode_database_up") == 1
    assert seen.value("echonode_process_resident_memory_bytes") > 1e6
    assert seen.value("echonode_build_info") == 1
    with socket.create_connection(("127.0.0.1", node.addresses.dimse_port)):
        assert scrape(node).value("echonode_associations_open") == 0, "it asked for nothing"


def test_no_label_names_a_patient_or_an_object_or_a_stranger(
    after_a_study: tuple[Node, Scrape],
) -> None:
    _, seen = after_a_study

    for word in (NAME_OF_PATIENT, "METRICS-ID", "NOBODY-KNOWN", "/"):
        values = [value for s in seen.samples for value in s.labels.values()]
        assert not any(word in value for value in values), word
    assert not re.search(r'"[0-9]+\.[0-9]+\.[0-9.]{6,}"', seen.text), "a UID"
    assert seen.labels("echonode_received_objects_total", "peer") <= {
        "ECHOCART",
        "STRANGER",
        "other",
    }


def test_the_names_keep_the_rules_of_promtool_and_stand_in_the_page(
    after_a_study: tuple[Node, Scrape],
) -> None:
    """As `promtool check metrics` would say."""
    _, seen = after_a_study
    documented = set(re.findall(r"`(echonode_\w+)`", PAGE.read_text()))

    for family in seen.families.values():
        name = family.name
        assert re.fullmatch(r"echonode_[a-z][a-z0-9_]*", name), name
        assert family.documentation.endswith("."), f"{name} has no help text"
        assert "__" not in name
        words = set(name.split("_"))
        assert not words & {"gauge", "counter", "histogram", "summary", "total", "count", "sum"}, (
            name
        )
        assert not words & {"ms", "s", "sec", "milliseconds", "minutes", "hours", "days"}, name
        assert not words & {"kb", "mb", "gb", "kilobytes", "megabytes", "percent"}, name
        for unit in words & {"seconds", "bytes"}:
            assert name.endswith(unit), name
        full = f"{name}_total" if family.type == "counter" else name
        assert name.endswith("_info") == (name == "echonode_build_info")
        if not name.startswith("echonode_process_"):
            assert full in documented, f"{full} is not in docs/metrics.md"
        for sample in family.samples:
            assert ("le" in sample.labels) == (sample.name.endswith("_bucket")), sample
            assert (family.type == "counter") == sample.name.endswith("_total"), sample
    exposed = {f"{n}_total" if f.type == "counter" else n for n, f in seen.families.items()}
    others = {name for name in documented - exposed if not name.startswith("echonode_process_")}
    assert others == {"echonode_alerts_total"} - exposed, "the page names what is not there"


def test_a_database_that_cannot_be_read_fails_no_scrape(tmp_path: Path, database: Database) -> None:
    metrics = Metrics()
    metrics.watch(Watched(database=database))
    assert Scrape(metrics.shown()[0].decode()).value("echonode_database_up") == 1

    (tmp_path / "echonode.db").rename(tmp_path / "away.db")
    seen = Scrape(metrics.shown()[0].decode())

    assert seen.value("echonode_database_up") == 0
    assert "echonode_queue_studies" not in seen.families
    assert seen.value("echonode_associations_open") == 0


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    text, content_type = Metrics().shown("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
