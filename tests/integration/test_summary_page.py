"""The summary page in the life of a study: made with the report, and never in its way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from node import reporting
from storage.catalog import ResultRecord
from storage.database import Database, migrate
from storage.states import ResultKind, StudyState
from tests.integration.test_life_of_a_study import House, a4c, found


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    url = f"sqlite:///{tmp_path}/page.db"
    migrate(url)
    database = Database(url)
    yield House(database, tmp_path, summary_page=True, key_object_for=("archive",))
    database.close()


def _run(house: House) -> str:
    uid = str(generate_uid())
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    house.lifecycle.report_ready()
    return uid


def _pages(house: House, uid: str) -> list[ResultRecord]:
    return [
        result
        for result in house.detail(uid).results
        if result.sop_class_uid == SecondaryCaptureImageStorage
    ]


def test_a_study_gets_one_page_beside_its_report_and_its_cine(house: House) -> None:
    uid = _run(house)
    (page,) = _pages(house, uid)
    assert page.kind is ResultKind.SC
    assert page.recording_id is None
    dataset = dcmread(house.files.path(page.file_key))
    assert dataset.StudyInstanceUID == uid
    assert dataset.InstanceNumber == 1
    # The cine, the page and the report.
    sent = [item.destination for item in house.detail(uid).deliveries]
    assert sent.count("pacs") == 3


def test_a_key_object_goes_only_where_it_is_wanted(house: House) -> None:
    uid = _run(house)
    detail = house.detail(uid)
    (made,) = [result for result in detail.results if result.kind is ResultKind.KEY]
    dataset = dcmread(house.files.path(made.file_key))
    (page,) = _pages(house, uid)
    pointed = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in dataset.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert page.sop_instance_uid in pointed
    assert len(pointed) == 3
    sent = [item.destination for item in detail.deliveries]
    assert (sent.count("pacs"), sent.count("archive")) == (3, 4)


@pytest.mark.parametrize(
    ("maker", "left"),
    [
        ("build_page", {ResultKind.SC, ResultKind.SR, ResultKind.TEXT, ResultKind.KEY}),
        ("build_text_report", {ResultKind.SC, ResultKind.SR, ResultKind.KEY}),
        ("build_key_object", {ResultKind.SC, ResultKind.SR, ResultKind.TEXT}),
    ],
)
def test_what_goes_beside_the_report_does_not_keep_it_back(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    maker: str,
    left: set[ResultKind],
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(reporting, maker, broken)
    house = House(
        database, tmp_path, summary_page=True, text_for=("ward",), key_object_for=("archive",)
    )
    uid = _run(house)
    assert {result.kind for result in house.detail(uid).results} == left
    assert bool(_pages(house, uid)) is (maker != "build_page")
    assert house.detail(uid).study.state is StudyState.DELIVERING
