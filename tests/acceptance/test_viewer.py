"""What the cardiologist meets: the node's results in an archive and in a real viewer.

The pictures that OHIF showed are kept in the folder that ``ECHONODE_SCREENSHOTS`` names, else in
pytest's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import combinations
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread

from tests.peers import Archive, orthanc, require_ohif, send
from tests.running_node import RunningNode, variant
from tests.viewer.browser import chromium
from tests.viewer.ohif import Label, Ohif
from tests.viewer.site import viewer_site

pytestmark = pytest.mark.timeout(900)

# Errors in the console that are none of ours, each with the reason. None is known.
_ALLOWED_ERRORS: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A study that has gone all the way, and where its results now are."""

    study_uid: str
    source: Dataset = field(repr=False)
    kept: dict[str, bytes] = field(repr=False)
    by_store: Archive
    by_stow: Archive

    def results(self, *modalities: str) -> list[Dataset]:
        """The results, of some modalities only where they are named, by series and number."""
        read = [dcmread(BytesIO(data)) for data in self.kept.values()]
        found = [one for one in read if not modalities or one.Modality in modalities]
        return sorted(found, key=lambda one: (one.SeriesNumber, one.InstanceNumber))

    def series(self) -> set[str]:
        """The series of the results."""
        return {str(dataset.SeriesInstanceUID) for dataset in self.results()}


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    """A real A4C cine goes to the archive and to the node, which sends its results to two."""
    folder = tmp_path_factory.mktemp("study")
    clip = variant(folder)
    source = dcmread(clip)
    with orthanc(folder / "store") as by_store, orthanc(folder / "stow") as by_stow:
        stow = f'[[destinations]]\nname = "web"\nkind = "dicomweb"\nurl = "{by_stow.url}/dicom-web"'
        node = RunningNode(folder=folder, archives=[by_store], settings=stow)
        with node.serving():
            for port in (by_store.port, node.port):
                sent = send(port, clip, options=("-xy",))
                assert sent.returncode == 0, sent.stdout + sent.stderr
            shown = node.wait_for(
                source.StudyInstanceUID, "done", "failed", "ignored", timeout_s=600
            )
        assert shown["study"]["state"] == "done", shown["timeline"]
        files = (folder / "data" / "results").rglob("*.dcm")
        kept = {str(dcmread(file).SOPInstanceUID): file.read_bytes() for file in files}
        assert set(kept) == {result["sop_instance_uid"] for result in shown["results"]}
        yield Delivered(
            study_uid=source.StudyInstanceUID,
            source=source,
            kept=kept,
            by_store=by_store,
            by_stow=by_stow,
        )


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("ECHONODE_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def ohif(
    delivered: Delivered, screenshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ohif]:
    """The viewer with the study open."""
    files = require_ohif()
    profile = tmp_path_factory.mktemp("profile")
    url = delivered.by_store.url
    assert url is not None
    with viewer_site(files, url) as site, chromium(profile, screenshots) as browser:
        viewer = Ohif(browser, site)
        viewer.open_study(delivered.study_uid, series=1 + len(delivered.series()))
        yield viewer


@pytest.mark.parametrize("way", ["by_store", "by_stow"])
def test_an_archive_gives_every_result_back_byte_for_byte(delivered: Delivered, way: str) -> None:
    archive = getattr(delivered, way)

    assert len(delivered.kept) == 3  # report, cine and summary page
    for uid, kept in delivered.kept.items():
        header = dcmread(BytesIO(kept), stop_before_pixels=True)
        returned = _retrieve(archive, header)
        assert _data_set(returned) == _data_set(kept), uid
        # C-STORE carries no file meta information; by STOW the file itself travels.
        if way == "by_stow":
            assert returned == kept, uid


@pytest.mark.parametrize("way", ["by_store", "by_stow"])
def test_a_query_finds_report_and_pictures_by_study_and_modality(
    delivered: Delivered, way: str
) -> None:
    archive = getattr(delivered, way)
    for modality in ("SR", "US"):
        series = _query(archive, f"studies/{delivered.study_uid}/series", Modality=modality)
        wanted = {one.SeriesInstanceUID for one in delivered.results(modality)}
        assert wanted
        assert wanted <= {one.SeriesInstanceUID for one in series}, modality
    studies = _query(archive, "studies", ModalitiesInStudy="SR", PatientID=_patient(delivered))
    assert [one.StudyInstanceUID for one in studies] == [delivered.study_uid]


def test_the_viewer_lists_clip_pictures_and_report(ohif: Ohif, delivered: Delivered) -> None:
    listed = {one.number: one for one in ohif.series()}

    for result in delivered.results():
        entry = listed[int(result.SeriesNumber)]
        assert (entry.modality, entry.description) == (result.Modality, result.SeriesDescription)
    clip = listed[int(delivered.source.SeriesNumber)]
    assert (clip.modality, clip.count) == ("US", delivered.source.NumberOfFrames)


def test_the_viewer_shows_each_value_of_the_report_on_its_frame(
    ohif: Ohif, delivered: Delivered
) -> None:
    (report,) = delivered.results("SR")
    ohif.open_series(int(report.SeriesNumber))
    groups = _groups(report)
    assert any("jection fraction" in name for group in groups for name, _, _ in group.numbers)

    for number, group in enumerate(groups, start=1):
        if number > 1:
            ohif.click("viewport-action-arrows-right")
        labels = _labels(ohif, group)
        ohif.browser.screenshot(f"report-{number}")
        assert all(label.whole for label in labels), [label for label in labels if not label.whole]
        assert not any(one.overlaps(other) for one, other in combinations(labels, 2)), labels


def test_the_summary_page_opens(ohif: Ohif, delivered: Delivered) -> None:
    (page,) = (one for one in delivered.results("US") if "NumberOfFrames" not in one)
    ohif.open_series(int(page.SeriesNumber))
    ohif.browser.wait(lambda: ohif.shows(page.SeriesDescription), what="show the summary page")
    ohif.browser.screenshot("summary")


def test_the_cine_plays_at_its_own_speed(ohif: Ohif, delivered: Delivered) -> None:
    (cine,) = (one for one in delivered.results("US") if "NumberOfFrames" in one)
    ohif.open_series(int(cine.SeriesNumber))
    ohif.browser.wait(lambda: ohif.shows(cine.SeriesDescription), what="show the cine")
    ohif.browser.screenshot("cine")
    assert ohif.frame() == (1, cine.NumberOfFrames)
    assert ohif.speed() == pytest.approx(1000 / cine.FrameTime, abs=1)

    frames = min(5, int(cine.NumberOfFrames))
    ohif.watch_frames()
    ohif.click("cine-player-play-pause")
    ohif.browser.wait(lambda: len(ohif.frames_shown()) >= frames, what="play the cine")
    ohif.click("cine-player-play-pause")


def test_the_viewer_never_met_an_error(ohif: Ohif) -> None:
    errors = [
        error
        for error in ohif.browser.console_errors()
        if not any(known in error for known in _ALLOWED_ERRORS)
    ]
    assert errors == []


@dataclass(frozen=True, kw_only=True)
class Group:
    """A measurement group as the report holds it: name, value and unit of each number."""

    frame: int
    numbers: list[tuple[str, float, str]]


def _groups(report: Dataset) -> list[Group]:
    groups = []
    for item in _with_code(_with_code([report], "126010"), "125007"):
        numbers = [
            (
                child.ConceptNameCodeSequence[0].CodeMeaning,
                float(child.MeasuredValueSequence[0].NumericValue),
                child.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
            )
            for child in item.ContentSequence
            if child.ValueType == "NUM"
        ]
        point = next(child for child in item.ContentSequence if child.ValueType == "SCOORD")
        reference = point.ContentSequence[0].ReferencedSOPSequence[0]
        groups.append(Group(frame=int(reference.ReferencedFrameNumber), numbers=numbers))
    return groups


def _with_code(items: list[Dataset], code: str) -> list[Dataset]:
    return [
        child
        for item in items
        for child in item.ContentSequence
        if "ConceptNameCodeSequence" in child and child.ConceptNameCodeSequence[0].CodeValue == code
    ]


def _says(label: Label, group: Group) -> bool:
    """Whether a label has a line for each number, rounded as the viewer rounds."""
    if len(label.lines) < len(group.numbers):
        return False
    for line, (name, value, unit) in zip(label.lines, group.numbers, strict=False):
        meaning, _, shown = line.rpartition(": ")
        number, _, code = shown.partition(" ")
        if (meaning, code) != (name, unit) or abs(float(number) - value) > 0.00501:
            return False
    return True


def _labels(ohif: Ohif, group: Group) -> list[Label]:
    """The labels on the group's frame once its own is among them."""

    def there() -> bool:
        shown = ohif.frame()
        return shown is not None and shown[0] == group.frame

    def labelled() -> bool:
        return there() and any(_says(label, group) for label in ohif.labels())

    ohif.browser.wait(there, what=f"go to frame {group.frame}")
    if not ohif.browser.comes(labelled, timeout_s=5):
        ohif.show_labels()
        ohif.browser.wait(labelled, what=f"show {group}")
    return ohif.labels()


def _patient(delivered: Delivered) -> str:
    return str(delivered.source.PatientID)


def _query(archive: Archive, path: str, **keys: str) -> list[Dataset]:
    found = httpx.get(
        f"{archive.url}/dicom-web/{path}",
        params=keys,
        headers={"Accept": "application/dicom+json"},
        timeout=30,
    )
    found.raise_for_status()
    return [Dataset.from_json(one) for one in found.json()]


def _retrieve(archive: Archive, header: Dataset) -> bytes:
    """The one file of a WADO-RS answer, as it is stored (PS3.18 10.4)."""
    found = httpx.get(
        f"{archive.url}/dicom-web/studies/{header.StudyInstanceUID}"
        f"/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}",
        headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
        timeout=60,
    )
    found.raise_for_status()
    boundary = found.headers["Content-Type"].partition("boundary=")[2].split(";")[0].strip('"')
    part = found.content.split(f"--{boundary}".encode())[1]
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _data_set(file: bytes) -> bytes:
    """What follows the file meta information, whose first element says its length (PS3.10 7.1)."""
    begin = 128 + len("DICM") + 12
    return file[begin + int.from_bytes(file[begin - 4 : begin], "little") :]
