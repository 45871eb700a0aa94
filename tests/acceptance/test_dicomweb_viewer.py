"""OHIF with the node itself as its archive: the clip, the report and the saliency cine open.

The pictures that OHIF showed are kept in the folder that ``ECHONODE_SCREENSHOTS`` names, else in
pytest's own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from storage.database import Database
from tests.dicomweb_site import serving_dicomweb
from tests.peers import require_ohif
from tests.results_examples import (
    capture_of,
    marked_picture,
    source_header,
    study_clips,
    study_report,
)
from tests.viewer.browser import chromium
from tests.viewer.ohif import Ohif
from tests.viewer.site import viewer_site

pytestmark = pytest.mark.timeout(600)


def test_the_viewer_opens_clip_report_and_cine_from_the_node(
    tmp_path: Path, database: Database
) -> None:
    files = require_ohif()
    screenshots = Path(os.environ.get("ECHONODE_SCREENSHOTS", tmp_path))
    source = dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    source.SOPInstanceUID = source_header(1).SOPInstanceUID
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    cine = capture_of(source_header(1), marked_picture())
    first, *others = study_clips()
    report = study_report((replace(first, capture=cine.ref), *others))
    with serving_dicomweb(tmp_path, database, anyone_may_look=True) as web:
        stored = web.store(source, cine.data, report.data)
        assert stored.status_code == 200, stored.text
        with viewer_site(files, web.url) as site, chromium(tmp_path / "p", screenshots) as browser:
            ohif = Ohif(browser, site)
            ohif.open_study(source.StudyInstanceUID, series=3)
            saliency = next(one for one in ohif.series() if "saliency" in one.description)
            text = next(one for one in ohif.series() if one.modality == "SR")
            ohif.open_series(saliency.number)
            browser.wait(lambda: ohif.shows("saliency"), what="show the saliency cine")
            browser.screenshot("node-saliency")
            ohif.open_series(text.number)
            browser.wait(
                lambda: ohif.frame() not in (None, (1, 4)), what="go to the report's frame"
            )
            ohif.show_labels()
            browser.wait(lambda: len(ohif.labels()) > 0, what="label the report's frame")
            said = [line for label in ohif.labels() for line in label.lines]
            browser.screenshot("node-report")

            assert any("jection fraction" in line for line in said), said
            assert (ohif.frame() or (0, 0))[1] == source.NumberOfFrames
            assert saliency.count == 4
            assert browser.console_errors() == []
