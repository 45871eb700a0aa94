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
from pydicom.dataset import Dataset

from node.results import EcgResult, build_ecg_text_report
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
from tests.results_examples import CREATED_AT, SETTINGS
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


def _turn_to(ohif: Ohif, page: int, words: str) -> None:
    """Wait for a page, and for a label on it that says these words."""

    def there() -> bool:
        return (ohif.frame() or (0, 0))[0] == page

    def labelled() -> bool:
        return there() and any(words in label.lines for label in ohif.labels())

    ohif.browser.wait(there, what=f"turn to page {page}")
    if not ohif.browser.comes(labelled, timeout_s=5):
        ohif.show_labels()
        ohif.browser.wait(labelled, what=f"say {words!r}")


def test_the_viewer_opens_ecg_picture_and_reports_from_the_node(
    tmp_path: Path, database: Database
) -> None:
    ecg = ecg_object()
    ecg.SeriesNumber = 1
    pages = ecg_capture_of(ecg, ecg_picture(rows=1100, columns=1600))
    ecgs = [ecg_of(ecg, pages.ref)]
    report = ecg_report(ecgs)
    with _viewing(tmp_path, database, [ecg, pages.data, report.data, _text_report(ecgs)]) as ohif:
        browser = ohif.browser
        ohif.open_study(ecg.StudyInstanceUID, series=4, first_is_image=False)
        listed = {one.number: (one.modality, one.count) for one in ohif.series()}
        assert listed == {1: ("ECG", 1), 911: ("SR", 1), 912: ("OT", 3), 913: ("SR", 1)}

        ohif.open_series(1)
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
