"""A fault in the making of a result, followed from the gate to the operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.cli import main
from node.results import capture, document
from node.results.objects import mark_as_own
from storage.database import Database
from storage.states import ResultKind, StudyState
from tests.integration.test_life_of_a_study import House, a4c, found


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


@pytest.fixture
def ask(
    house: House, database_url: str, capsys: pytest.CaptureFixture[str]
) -> Callable[..., object]:
    """`echonode … --json` on the house's rows and files."""
    config = house.folder / "echonode.toml"
    config.write_text(f'data_dir = "{house.files.root}"\ndatabase_url = "{database_url}"\n')

    def run(*arguments: str) -> object:
        capsys.readouterr()  # the log of what went before
        main(["--config", str(config), *arguments, "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def _analysed(house: House) -> str:
    """A study whose only clip has just been read."""
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    return uid


def _with_a_fault(kind: str) -> Callable[[Dataset, str], None]:
    """The last step of making an object, with one attribute lost on the way."""

    def mark(dataset: Dataset, said: str) -> None:
        mark_as_own(dataset, said)
        if said == kind:
            del dataset.Modality

    return mark


def test_a_faulty_report_is_not_sent_and_the_operator_sees_it_and_can_mend_and_retry(
    house: House, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = _analysed(house)
    with monkeypatch.context() as broken:
        broken.setattr(document, "mark_as_own", _with_a_fault("SR"))
        house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert detail.study.state is StudyState.FAILED
    assert "Modality: missing or empty [required]" in detail.study.reason
    assert f"echonode retry {uid}" in detail.study.next_step
    assert detail.deliveries == ()
    assert [result.kind for result in detail.results if result.current] == []

    (listed,) = ask("quarantine", "list")  # type: ignore[misc]
    assert listed == ask("quarantine", "show", str(listed["number"]))
    assert listed["made_here"]
    assert listed["status_sent"] is None
    assert listed["study_instance_uid"] == uid
    assert "the SR made here has 2 faults and is not sent: Modality: missing" in listed["reason"]
    status = ask("status")
    assert status["quarantined"] == 1  # type: ignore[index]
    assert "result-quarantined" in {error["kind"] for error in status["last_errors"]}  # type: ignore[index]
    timeline = ask("study", uid)["timeline"]  # type: ignore[index]
    assert [line["kind"] for line in timeline][-2:] == ["result-quarantined", "study-failed"]
    assert f"echonode quarantine show {listed['number']}" in timeline[-2]["message"]
    ask("quarantine", "export", str(listed["number"]), str(house.folder / "faulty.dcm"))
    assert "Modality" not in dcmread(house.folder / "faulty.dcm")

    ask("retry", uid)
    house.lifecycle.report_ready()
    assert house.state(uid) is StudyState.DELIVERING


def test_a_faulty_cine_is_not_sent_and_its_study_is_reported_without_it(
    house: House, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "mark_as_own", _with_a_fault("SC"))
    uid = _analysed(house)
    house.lifecycle.report_ready()

    detail = house.detail(uid)
    assert ResultKind.SR in {result.kind for result in detail.results}
    assert [result for result in detail.results if result.recording_id is not None] == []
    assert detail.study.state is StudyState.DELIVERING
    (listed,) = ask("quarantine")  # type: ignore[misc]
    assert "the SC made here has " in listed["reason"]
    assert any(event.kind == "result-quarantined" for event in detail.timeline)
