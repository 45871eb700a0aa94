"""Public validators and readers on our results: no complaint beyond the listed ones."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ComprehensiveSRStorage

from models.views import View, ViewCall
from node.results import ClipResult, EncodedObject, check_object
from tests.peers import require
from tests.results_examples import (
    A4C,
    ECHONET,
    LV,
    PERSON,
    SETTINGS,
    capture_of,
    network_findings,
    person_findings,
    picture,
    rewritten,
    source_header,
    study_capture,
    study_report,
    tracing_findings,
)
from tests.results_faults import CAPTURE_DAMAGES, REPORT_DAMAGES, Damage

_ALLOWED = Path(__file__).parent.parent / "judges" / "allowed.toml"
_PIXELMED_JAR = Path("/usr/share/java/pixelmed.jar")


@dataclass
class Allowances:
    """The listed complaints, and which of them were needed."""

    entries: Mapping[str, list[dict[str, str]]]
    needed: set[tuple[str, str]] = field(default_factory=set)

    def unlisted(self, judge: str, lines: list[str]) -> list[str]:
        """The lines that no entry allows."""
        left = []
        for line in lines:
            matching = [
                entry["says"]
                for entry in self.entries[judge]
                if re.fullmatch(entry["says"].strip(), line.strip())
            ]
            self.needed.update((judge, says) for says in matching)
            if not matching:
                left.append(line)
        return left

    def unneeded(self, judge: str) -> list[str]:
        """The entries that no line needed."""
        return [
            entry["says"]
            for entry in self.entries[judge]
            if (judge, entry["says"]) not in self.needed
        ]


@pytest.fixture
def allowed() -> Allowances:
    return Allowances(tomllib.loads(_ALLOWED.read_text()))


_JAPANESE = {
    "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
}
_CYRILLIC = {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люксембург^Роза"}
_BARE = dict.fromkeys(
    ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
     "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "SpecificCharacterSet")
)  # fmt: skip


def _one_clip(**changes: object) -> ClipResult:
    return ClipResult(
        header=source_header(1, **changes), view=A4C, packs=(LV,), findings=tracing_findings()
    )


def _every_view() -> list[ClipResult]:
    return [
        ClipResult(
            header=source_header(number),
            view=ViewCall(view=view, score=0.9, certain=True),
            not_analysed="no model measures this view",
        )
        for number, view in enumerate(View, start=1)
    ]


def _reports() -> dict[str, EncodedObject]:
    first = study_report()
    everything = ClipResult(
        header=source_header(1),
        view=A4C,
        findings=(*tracing_findings(), *network_findings(), *person_findings()),
        packs=(LV, ECHONET),
    )
    return {
        "first": first,
        "revision": study_report(revision=2, predecessor=first.ref),
        "comprehensive": study_report(
            settings=replace(SETTINGS, sop_class_uid=ComprehensiveSRStorage)
        ),
        "everything": study_report(
            [everything, *_every_view()[1:]],
            settings=replace(SETTINGS, demographic_estimates=PERSON, institution="Test Hospital"),
        ),
        "several-clips": study_report([_one_clip(), replace(_one_clip(), header=source_header(2))]),
        "words-only": study_report(_every_view()),
        "japanese": study_report([_one_clip(**_JAPANESE)]),
        "cyrillic": study_report([_one_clip(**_CYRILLIC)]),
        "bare": study_report([_one_clip(**_BARE)]),
    }


def _captures() -> dict[str, EncodedObject]:
    return {
        "even": study_capture(),
        "uneven": capture_of(source_header(1), picture((0.0, 20.0, 50.0))),
        "single": capture_of(source_header(1), picture((0.0,))),
        "lossy-source": capture_of(
            source_header(
                1,
                LossyImageCompression="01",
                LossyImageCompressionRatio="10",
                LossyImageCompressionMethod="ISO_10918_1",
            )
        ),
        "japanese": capture_of(source_header(1, **_JAPANESE)),
        "bare": capture_of(source_header(1, **_BARE)),
    }


def _written(objects: Mapping[str, EncodedObject], folder: Path) -> dict[str, Path]:
    paths = {}
    for name, made in objects.items():
        assert check_object(made) == ()
        paths[name] = folder / f"{name}.dcm"
        paths[name].write_bytes(made.data)
    return paths


def _dciodvfy(path: Path) -> list[str]:
    done = subprocess.run(
        [require("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    return done.stderr.splitlines()


def _dsrdump(path: Path) -> list[str]:
    """What DCMTK's reader complains of."""
    done = subprocess.run(
        [require("dsrdump"), str(path)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if re.match(r"[WEF]: ", line)]


def _dcentvfy(*paths: Path) -> list[str]:
    done = subprocess.run(
        [require("dcentvfy"), *map(str, paths)], capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    return done.stderr.splitlines()


def _pixelmed(path: Path) -> list[str]:
    java = require("java")
    if not _PIXELMED_JAR.exists():
        reason = f"no {_PIXELMED_JAR} (Debian package pixelmed-apps)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # The packaged wrapper meets Java 17's limits on the size of an expression.
    # The first compiler only: a run is too short to win back what the second one costs.
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
    done = subprocess.run(
        [java, *quick, *limits, "-cp", str(_PIXELMED_JAR), "com.pixelmed.validate.DicomSRValidator",
         str(path)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert any("IOD validation complete" in line for line in lines), lines
    return lines


def test_dciodvfy_finds_no_fault(allowed: Allowances, tmp_path: Path) -> None:
    (tmp_path / "sr").mkdir()
    (tmp_path / "sc").mkdir()
    paths = [
        *_written(_reports(), tmp_path / "sr").values(),
        *_written(_captures(), tmp_path / "sc").values(),
    ]
    for path in paths:
        said = _dciodvfy(path)
        assert not [line for line in said if line.startswith("Error")], path.name
        assert allowed.unlisted("dciodvfy", said) == [], path.name
    assert allowed.unneeded("dciodvfy") == []


def test_dsrdump_reads_every_report(allowed: Allowances, tmp_path: Path) -> None:
    for name, path in _written(_reports(), tmp_path).items():
        assert allowed.unlisted("dsrdump", _dsrdump(path)) == [], name
    assert allowed.unneeded("dsrdump") == []


@pytest.mark.slow
def test_pixelmed_finds_the_templates_followed(allowed: Allowances, tmp_path: Path) -> None:
    reports = _reports()
    path = _written({"everything": reports["everything"]}, tmp_path)["everything"]
    assert allowed.unlisted("pixelmed", _pixelmed(path)) == []
    assert allowed.unneeded("pixelmed") == []


def test_dcentvfy_finds_patient_and_study_the_same(allowed: Allowances, tmp_path: Path) -> None:
    for index, changes in enumerate(
        ({}, _JAPANESE, _CYRILLIC, {"PatientSize": "1.7", "PatientWeight": "70"})
    ):
        header = source_header(1, **changes)
        folder = tmp_path / str(index)
        folder.mkdir()
        source = folder / "source.dcm"
        header.save_as(source, enforce_file_format=True)
        capture = capture_of(header)
        clip = ClipResult(header=header, view=A4C, findings=tracing_findings(), capture=capture.ref)
        paths = _written({"sr": study_report([clip]), "sc": capture}, folder)
        assert allowed.unlisted("dcentvfy", _dcentvfy(source, *paths.values())) == []
    assert allowed.unneeded("dcentvfy") == []


# The judges see what they are said to see, or else they guard nothing.


def _noticed(made: EncodedObject, damage: Damage, path: Path, judge: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the values put in wrong on purpose
        path.write_bytes(rewritten(made, damage.do))
    if judge == "dciodvfy":
        return any(line.startswith("Error") for line in _dciodvfy(path))
    return any(line.startswith(("E:", "F:")) for line in _dsrdump(path))


@pytest.mark.slow
def test_faults_against_the_templates_are_noticed_by_pixelmed(
    allowed: Allowances, tmp_path: Path
) -> None:
    def do_all(report: Dataset) -> None:
        for damage in REPORT_DAMAGES:
            if "pixelmed" in damage.judges:
                damage.do(report)

    path = tmp_path / "report.dcm"
    path.write_bytes(rewritten(study_report(), do_all))
    said = "\n".join(allowed.unlisted("pixelmed", _pixelmed(path)))
    assert "illegal relationship HAS PROPERTIES" in said  # wrong relationship
    assert "[Row 10c] SCOORD */[Row 10d] IMAGE" in said  # coordinates without an image


@pytest.mark.parametrize(
    ("damage", "judge"),
    [
        (damage, judge)
        for damage in REPORT_DAMAGES
        for judge in sorted(damage.judges - {"pixelmed"})
    ],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_a_fault_in_a_report_is_noticed_outside(damage: Damage, judge: str, tmp_path: Path) -> None:
    assert _noticed(study_report(), damage, tmp_path / "report.dcm", judge)


@pytest.mark.parametrize(
    "damage", [each for each in CAPTURE_DAMAGES if each.judges], ids=lambda each: each.name
)
def test_a_fault_in_a_capture_is_noticed_outside(damage: Damage, tmp_path: Path) -> None:
    assert _noticed(study_capture(), damage, tmp_path / "capture.dcm", "dciodvfy")


# Real machines' files.


def _headers(folder: Path) -> list[Dataset]:
    headers = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                header = dcmread(path, stop_before_pixels=True)
            except (InvalidDicomError, EOFError):
                continue
            if header.get("Rows") and header.get("StudyInstanceUID"):
                headers.append(header)
    return headers


# Values that pydicom warns of are what these files are for.
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_results_for_every_real_machines_file_are_valid(
    shared_data: Path, allowed: Allowances, tmp_path: Path
) -> None:
    headers = _headers(shared_data / "ultrasound")
    assert headers
    for number, header in enumerate(headers):
        folder = tmp_path / str(number)
        folder.mkdir()
        findings = tuple(replace(finding, frames=(0,)) for finding in tracing_findings())
        capture = capture_of(header)
        clip = ClipResult(
            header=header, view=A4C, findings=findings, packs=(LV,), capture=capture.ref
        )
        paths = _written({"sr": study_report([clip]), "sc": capture}, folder)
        source = folder / "source.dcm"
        header.save_as(source, enforce_file_format=True)
        # The faults of the source's own patient, study and UIDs stay.
        copied = set(_dciodvfy(source))
        uids = (header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID)
        for path in paths.values():
            said = [
                line
                for line in _dciodvfy(path)
                if line not in copied and not any(f'"{uid}"' in line for uid in uids)
            ]
            assert allowed.unlisted("dciodvfy", said) == [], f"{header.Manufacturer}: {path.name}"
