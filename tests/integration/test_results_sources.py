"""Results are valid whatever the source is like, and say of patient and study what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.doors.contexts import RETIRED_KEYWORDS
from node.results import ClipResult, EncodedObject, check_object
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from tests.results_examples import A4C, LV, capture_of, read, study_report, tracing_findings
from tests.results_judges import Allowances, dcentvfy, dciodvfy, errors, read_allowances
from tests.results_sources import HEADERS, image_header, real_files

# Values that pydicom warns of are what these sources are for.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

_REAL = real_files()
_COPIED = ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES)
# What PS3.3 asks for even where nothing is known (type 2): empty then.
_EMPTY_WHERE_UNKNOWN = frozenset(
    ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
     "ReferringPhysicianName", "StudyID", "AccessionNumber")
)  # fmt: skip


@pytest.fixture(scope="module")
def allowed() -> Allowances:
    return read_allowances()


def _results(header: Dataset) -> Mapping[str, EncodedObject]:
    capture = capture_of(header)
    clip = ClipResult(
        header=header,
        view=A4C,
        findings=tuple(replace(finding, frames=(0,)) for finding in tracing_findings()),
        packs=(LV,),
        capture=capture.ref,
    )
    return {"sr": study_report([clip]), "sc": capture}


def _check(header: Dataset, folder: Path, allowed: Allowances) -> None:
    said_before = _patient_and_study(header)
    results = _results(header)
    source = folder / "source.dcm"
    header.save_as(source, enforce_file_format=True)
    paths = [source]
    # The faults of the source's own patient, study and UIDs stay: they are not ours to mend.
    theirs = set(dciodvfy(source))
    uids = (header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID)
    for name, made in results.items():
        assert check_object(made) == ()
        _assert_copied_exactly(said_before, _patient_and_study(read(made)))
        paths.append(folder / f"{name}.dcm")
        paths[-1].write_bytes(made.data)
        said = [
            line
            for line in dciodvfy(paths[-1])
            if line not in theirs and not any(f'"{uid}"' in line for uid in uids)
        ]
        assert errors(said) == [], name
        assert allowed.unlisted("dciodvfy", said) == [], name
    if header.SOPClassUID in RETIRED_KEYWORDS:
        paths.remove(source)  # of a class that the tool does not know
    assert allowed.unlisted("dcentvfy", dcentvfy(*paths)) == []


def _patient_and_study(dataset: Dataset) -> dict[str, object]:
    """What it says of patient and study: bytes as in the file, without their padding."""
    return {keyword: _content(dataset, keyword) for keyword in _COPIED if keyword in dataset}


def _content(dataset: Dataset, keyword: str) -> object:
    tag = Tag(keyword)
    raw = dataset.get_item(tag)
    if dictionary_VR(tag) == "SQ":
        return dataset[tag].to_json_dict(None, 0)
    if isinstance(raw, RawDataElement):
        return (raw.value or b"").rstrip(b" \0")
    value = dataset[tag].value  # read already: a character set, or a UID
    values = value if dataset[tag].VM > 1 else [value]
    return "\\".join(str(each or "") for each in values).encode().rstrip()


def _assert_copied_exactly(source: dict[str, object], result: dict[str, object]) -> None:
    for keyword, said in source.items():
        assert result[keyword] == said, keyword
    for keyword in set(result) - set(source):
        assert keyword in _EMPTY_WHERE_UNKNOWN, f"{keyword} is invented"
        assert result[keyword] == b"", f"{keyword} is invented"


@pytest.mark.parametrize("name", HEADERS)
def test_results_are_valid_and_of_the_same_patient_whatever_a_header_says(
    name: str, allowed: Allowances, tmp_path: Path
) -> None:
    _check(HEADERS[name](), tmp_path, allowed)


@pytest.mark.parametrize("name", _REAL)
def test_results_are_valid_and_of_the_same_patient_for_real_files(
    name: str, allowed: Allowances, tmp_path: Path
) -> None:
    header = image_header(_REAL[name])
    if header is None:
        pytest.skip("holds no image: no clip, no results")
    _check(header, tmp_path, allowed)


def test_the_real_machines_files_are_among_them(shared_data: Path) -> None:
    files = {path.stem for path in (shared_data / "ultrasound").rglob("*.dcm")}
    assert files
    assert files <= set(_REAL)
