"""OHIF with the node itself as its archive: an ECG, its picture and its reports open.

The pictures that OHIF showed are kept in the folder that ``ECHONODE_SCREENSHOTS`` names, else in
pytest's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.examples import get_path

from node.results import ClipResult, EcgResult, build_ecg_text_report
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from storage.database import Database
from tests.dicomweb_site import serving_dicomweb
from tests.ecg_results_examples import (
    ecg_capture_of,
    ecg_object,
    ecg_of,
    ecg_picture,
    ecg_report,
)
from tests.peers import require_ohif
from tests.results_examples import (
    A4C,
    CREATED_AT,
    LV,
    SETTINGS,
    capture_of,
    source_header,
    study_report,
    tracing_findings,
)
from tests.viewer.browser import chromium
from tests.viewer.ohif import Ohif
from tests.viewer.site import viewer_site

pytestmark = pytest.mark.timeout(600)


@contextmanager
def _viewing(
    folder: Path, database: Database, objects: Sequence[Dataset | bytes]
) -> Iterator[Ohif]:
    """The viewer in a browser, with these objects in a node."""
    files = require_ohif()
    screenshots = Path(os.environ.get("ECHONODE_SCREENSHOTS", folder))
    with serving_dicomweb(folder, database, anyone_may_look=True) as web:
        stored = web.store(*objects)
        assert stored.status_code == 200, stored.text
        with viewer_site(files, web.url) as site, chromium(folder / "p", screenshots) as browser:
            yield Ohif(browser, site)


def _text_report(ecgs: Sequence[EcgResult]) -> bytes:
    return build_ecg_text_report(
        ecgs, revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
    ).data


def _turn_to(ohif: Ohif, page: int, words: str, *, of: int = 3) -> None:
    """Wait for a page, and for a label on it that says these words."""

    def there() -> bool:
        return ohif.frame() == (page, of)

    def labelled() -> bool:
        return there() and any(words in label.lines for label in ohif.labels())

    ohif.browser.wait(there, what=f"turn to page {page}")
    if not ohif.browser.comes(labelled, timeout_s=5):
        ohif.show_labels()
        ohif.browser.wait(labelled, what=f"say {words!r}")


def _echo() -> tuple[Dataset, list[Dataset | bytes]]:
    """A clip of an echocardiogram, and all that is to be stored of it."""
    clip = dcmread(get_path("ybr_color"))
    header = source_header(1)
    clip.SOPInstanceUID = clip.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    cine = capture_of(header)
    echo = ClipResult(
        header=header, view=A4C, packs=(LV,), findings=tracing_findings(), capture=cine.ref
    )
    return clip, [clip, cine.data, study_report([echo]).data]


def test_the_viewer_opens_an_ecg_its_picture_and_reports_beside_an_echo_from_the_node(
    tmp_path: Path, database: Database
) -> None:
    clip, echo = _echo()
    ecg = ecg_object()
    ecg.SeriesNumber = 7
    for keyword in (*PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES):
        if keyword in clip:
            setattr(ecg, keyword, clip.get(keyword))
    pages = ecg_capture_of(ecg, ecg_picture(rows=1100, columns=1600))
    ecgs = [ecg_of(ecg, pages.ref)]
    objects = [*echo, ecg, pages.data, ecg_report(ecgs).data, _text_report(ecgs)]
    with _viewing(tmp_path, database, objects) as ohif:
        browser = ohif.browser
        ohif.open_study(ecg.StudyInstanceUID, series=7)
        listed = {one.number: (one.modality, one.count) for one in ohif.series()}
        assert listed == {
            1: ("US", 30),
            7: ("ECG", 1),
            901: ("SR", 1),
            902: ("US", 4),
            911: ("SR", 1),
            912: ("OT", 3),
            913: ("SR", 1),
        }

        ohif.open_series(901)
        _turn_to(
            ohif, 8, "Left ventricular ejection fraction single plane 4C (MOD): 58.20 %", of=30
        )
        ohif.open_series(7)
        browser.wait(ohif.traced, what="draw the ECG")
        browser.screenshot("ecg")

        ohif.open_series(912)
        browser.wait(lambda: ohif.shows("AI ECG (RESEARCH)"), what="show the picture")
        assert ohif.frame() == (1, 3)
        browser.screenshot("ecg-picture")

        ohif.open_series(911)
        for page, words in (
            (1, "Score for atrial fibrillation: 0.71 {score}"),
            (2, "Score for right bundle branch block: 0.91 {score}"),
            (3, "P-R Interval: 161.00 ms"),
        ):
            _turn_to(ohif, page, words)
            browser.screenshot(f"ecg-report-{page}")
            assert all(label.whole for label in ohif.labels())
            ohif.click("viewport-action-arrows-right")

        ohif.open_series(913)
        browser.wait(lambda: "EKG study" in ohif.text(), what="show the report as text")
        assert "Right bundle branch block (score 0.911)" in ohif.text()
        assert browser.console_errors() == []


def test_a_report_without_a_picture_opens_as_text(tmp_path: Path, database: Database) -> None:
    ecg = ecg_object()
    ecg.SeriesNumber = 1
    report = ecg_report([ecg_of(ecg, None)])
    with _viewing(tmp_path, database, [ecg, report.data]) as ohif:
        ohif.open_study(ecg.StudyInstanceUID, series=2, first_is_image=False)
        ohif.open_series(911)
        ohif.browser.wait(lambda: "EKG study" in ohif.text(), what="show the report as text")
        ohif.browser.screenshot("ecg-report-without-picture")
        for words in ("P-R Interval: 161 ms", "Heart rate: 61 /min"):
            assert words in ohif.text()
        assert ohif.browser.console_errors() == []
