"""The page of a study with ECGs: what is said of each, and its picture page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from models.finding import Evidence
from node.analysis import EcgAnalysis
from node.sections import HttpSettings
from node.web.users import Role
from storage.database import Database
from storage.states import RecordingKind
from tests.integration.test_life_of_a_study import House, a4c, found, picture
from tests.integration.test_life_of_ecgs import AF, SAID, receive_ecg, run
from tests.web_site import PASSWORD, Site, basic, serving

RATE = replace(
    AF, output="sinus_tachycardia", value=0.2, score=0.2, evidence=Evidence.SIMULATED, spans_ms=()
)


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path, ecg_packs=("ecg-rhythm",))


@pytest.fixture
def site(house: House) -> Iterator[Site]:
    with serving(house.files.root, house.database, HttpSettings(port=0)) as site:
        site.users.add("read", [Role.READ], PASSWORD)
        yield site


def ask(site: Site, path: str) -> httpx.Response:
    return site.client(headers={"accept": "text/html", **basic("read", PASSWORD)}).get(path)


def made(house: House, outcome: EcgAnalysis, *, clip: bool = False) -> tuple[str, str]:
    """A study with an ECG of which this was said; gives its UID and the ECG's."""
    uid = generate_uid()
    receive_ecg(house, uid)
    if clip:
        house.receive(uid)
    run(
        house,
        uid,
        analyse=lambda _path, *, kind, **_options: (
            outcome if kind is RecordingKind.ECG else found()
        ),
    )
    (ecg,) = [one for one in house.detail(uid).recordings if one.kind is RecordingKind.ECG]
    return uid, ecg.sop_instance_uid


def test_a_study_of_an_ecg_shows_its_findings_doubts_and_pages(house: House, site: Site) -> None:
    both = replace(
        SAID,
        findings=(AF, RATE),
        picture=picture(2),
        pages=("atrial_fibrillation", "sinus_tachycardia"),
    )
    uid, ecg = made(house, both)
    page = ask(site, f"/studies/{uid}").text
    assert '<h2 id="h-clips">ECGs</h2>' in page
    assert "12-lead ECG" in page
    assert "view not named" not in page
    assert "Atrial fibrillation" in page
    assert "0.91" in page
    assert "Not to be trusted: V6: no signal" in page
    assert "ecg-rhythm: the rhythm from 0.0 to 10.0 s" in page
    assert page.count('<figure class="page">') == 2
    assert "0.20" not in page  # it only saw the simulator
    for number in (1, 2):
        answer = ask(site, f"/studies/{uid}/clips/{ecg}/frames/{number}.jpg")
        assert Image.open(BytesIO(answer.content)).size == (64, 48)
    assert ask(site, f"/studies/{uid}/clips/{ecg}/frames/3.jpg").status_code == 404
    assert ask(site, f"/studies/{uid}/clips/{ecg}/poster.jpg").status_code == 200
    assert ask(site, f"/studies/{uid}/clips/{ecg}/frames").status_code == 404  # no film


def test_the_results_of_ecgs_are_named_and_shown(house: House, site: Site) -> None:
    uid, _ = made(house, SAID, clip=True)
    page = ask(site, f"/studies/{uid}").text
    assert '<h2 id="h-clips">Clips and ECGs</h2>' in page
    for what in ("Structured Report, of ECGs", "Explained ECG", "Saliency cine"):
        assert what in page
    by_words = {
        (result.kind.value, result.subject.value): result.sop_instance_uid
        for result in house.detail(uid).results
    }
    report = ask(site, f"/studies/{uid}/results/{by_words['sr', 'ecg']}").text
    assert "12-Lead ECG" in report
    shown = f"/studies/{uid}/results/{by_words['sc', 'ecg']}"
    assert "picture.jpg" in ask(site, shown).text
    assert ask(site, f"{shown}/picture.jpg").headers["content-type"] == "image/jpeg"


def test_an_ecg_with_one_page_is_shown_as_one_with_several(house: House, site: Site) -> None:
    uid, ecg = made(house, SAID)
    answer = ask(site, f"/studies/{uid}/clips/{ecg}/frames/1.jpg")
    assert Image.open(BytesIO(answer.content)).size == (64, 48)


def test_the_studys_values_are_those_of_its_clips(house: House, site: Site) -> None:
    uid, _ = made(house, SAID, clip=True)
    page = ask(site, f"/studies/{uid}").text
    headline = page[page.index("The study’s values") : page.index('id="h-clips"')]
    assert "ejection fraction" in headline
    assert "fibrillation" not in headline


def test_an_ecg_that_nobody_could_read_says_why(house: House, site: Site) -> None:
    uid, ecg = made(house, EcgAnalysis(refused="every lead is flat"), clip=True)
    page = ask(site, f"/studies/{uid}").text
    assert "every lead is flat" in page
    assert ask(site, f"/studies/{uid}/clips/{ecg}/frames/1.jpg").status_code == 404


def test_a_clip_is_still_played(house: House, site: Site) -> None:
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    house.run(uid, view=lambda _path: a4c(), analyse=lambda _path, **_options: found())
    clip = house.detail(uid).recordings[0].sop_instance_uid
    film = ask(site, f"/studies/{uid}/clips/{clip}/frames").json()
    assert film["frames"] == [1, 2]
