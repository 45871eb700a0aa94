"""PS3.18, clause by clause: what is asked, and what must come.

Clauses are those of PS3.18 of 2024. Each row is a request against one node with these objects:
study 1.2.3 with two native clips (series 1.2.3.1) and a lossy JPEG clip (1.2.3.2), and study 1.2.4
of another patient with a clip compressed without loss.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import RLELossless

from storage.database import Database
from tests.dicomweb_site import Web, clip, multipart, part10, serving_dicomweb, split
from tests.ultrasound_files import jpeg_object, speckle, ybr_jpeg

STUDY, OTHER = "1.2.3", "1.2.4"
NATIVE = f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1"
LOSSY = f"/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.1"
LOSSLESS = f"/studies/{OTHER}/series/{OTHER}.1/instances/{OTHER}.1.1"
JPEG, PLAIN, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"
NATIVE_XML = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"

Check = Callable[[httpx.Response], object]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """A clause: an id, what is asked, and what must come."""

    id: str
    get: str
    status: int
    accept: str | None = None
    kind: str = ""  #: how the answer's content type begins
    check: Check = lambda _response: True


def lossless() -> Dataset:
    """A grey clip in RLE."""
    ds = clip(OTHER, PatientName="Roe^Richard", PatientID="P2", StudyDate="20250505")
    ds.AccessionNumber = "B7"
    ds.compress(RLELossless, generate_instance_uid=False)
    return ds


def lossy() -> Dataset:
    """A colour clip of 4 frames in JPEG."""
    return jpeg_object(
        speckle((4, 32, 48, 3)),
        ybr_jpeg,
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=f"{STUDY}.2",
        SOPInstanceUID=f"{STUDY}.2.1",
        PatientName="Doe^Jane",
    )


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, _empty_database: Path) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("dicomweb")
    shutil.copyfile(_empty_database, folder / "echonode.db")
    database = Database(f"sqlite:///{folder / 'echonode.db'}")
    with serving_dicomweb(folder, database) as web:
        stored = web.store(clip(), clip(number=2), lossy(), lossless())
        assert stored.status_code == 200, stored.text
        yield web
    database.close()


def names(response: httpx.Response) -> list[str]:
    """The patients of a search's answer."""
    return [item["00100010"]["Value"][0]["Alphabetic"] for item in response.json()]


def count(number: int) -> Check:
    """So many matches."""
    return lambda response: len(response.json()) == number


def has(*tags: str) -> Check:
    """Every match has these attributes."""
    return lambda response: all(set(tags) <= set(item) for item in response.json())


def parts(number: int, kind: str) -> Check:
    """So many parts, each of a type that begins so."""

    def check(response: httpx.Response) -> bool:
        found = split(response)
        return len(found) == number and all(
            header["content-type"].startswith(kind) for header, _ in found
        )

    return check


def warns(words: str) -> Check:
    """The answer has a warning with these words."""
    return lambda response: (
        response.headers.get("warning", "").startswith("299 ")
        and words in response.headers["warning"]
    )


def xml_parts(number: int) -> Check:
    """So many data sets of the Native DICOM Model."""

    def check(response: httpx.Response) -> bool:
        roots = [ElementTree.fromstring(body) for _, body in split(response)]  # noqa: S314 - ours
        return len(roots) == number and all(
            root.tag == f"{NATIVE_XML}NativeDicomModel" for root in roots
        )

    return check


def as_stored(syntax: str) -> Check:
    """One object in this transfer syntax, alone."""
    return lambda response: (
        dcmread(DicomBytesIO(response.content)).file_meta.TransferSyntaxUID == syntax
    )


def frame(*numbers: int) -> Check:
    """These frames of the native clip, in this order."""
    frames = speckle((3, 24, 32), seed=1)
    return lambda response: (
        [body for _, body in split(response)]
        == [frames[number - 1].tobytes() for number in numbers]
    )


RELATED = 'multipart/related; type="{}"'
ANY_SYNTAX = RELATED + "; transfer-syntax={}"
PATIENT, PATIENT_ID = "00100010", "00100020"

CLAUSES = [
    # 8.3.4 and 10.6: search.
    Clause(id="10.6.1-studies", get="/studies", status=200, kind="application/dicom+json",
           check=count(2)),
    Clause(id="10.6.1-series-of-study", get=f"/studies/{STUDY}/series", status=200, check=count(2)),
    Clause(id="10.6.1-instances-of-study", get=f"/studies/{STUDY}/instances", status=200,
           check=count(3)),
    Clause(id="10.6.1-instances-of-series",
           get=f"/studies/{STUDY}/series/{STUDY}.1/instances", status=200, check=count(2)),
    Clause(id="10.6.1-all-series", get="/series", status=200, check=count(3)),
    Clause(id="10.6.1-all-instances", get="/instances", status=200, check=count(4)),
    Clause(id="10.6.1.1-none", get="/studies?PatientID=nobody", status=200, check=count(0)),
    Clause(id="8.3.4.1-keyword", get="/studies?PatientID=P2", status=200, check=count(1)),
    Clause(id="8.3.4.1-tag", get="/studies?00100020=P2", status=200, check=count(1)),
    Clause(id="8.3.4.1-sequence",
           get="/series?00400275.00400009=none", status=200, check=count(0)),
    Clause(id="8.3.4.1-uid-list", get=f"/studies?StudyInstanceUID={STUDY},{OTHER}", status=200,
           check=count(2)),
    Clause(id="8.3-unknown-parameter", get="/studies?NoSuch=1&PatientID=P2", status=200,
           check=lambda r: count(1)(r) and warns("name no attribute")(r)),
    Clause(id="8.3.4.1-range", get="/studies?StudyDate=20250101-20251231", status=200,
           check=lambda r: names(r) == ["Roe^Richard"]),
    Clause(id="8.3.4.1-range-open", get="/studies?StudyDate=20260101-", status=200,
           check=lambda r: names(r) == ["Doe^Jane"]),
    Clause(id="8.3.4.1-no-range", get="/studies?StudyDate=May", status=400),
    Clause(id="8.3.4.1-wildcard", get="/studies?PatientName=R?e*", status=200,
           check=lambda r: names(r) == ["Roe^Richard"]),
    Clause(id="8.3.4.1-universal", get="/studies?PatientName=", status=200, check=count(2)),
    Clause(id="8.3.4.1-two", get="/studies?PatientName=*o*&AccessionNumber=B7", status=200,
           check=count(1)),
    Clause(id="8.3.4.2-fuzzy", get="/studies?PatientName=Roe&fuzzymatching=true", status=200,
           check=warns("The fuzzymatching parameter is not supported")),
    Clause(id="8.3.4.2-fuzzy-is-a-truth", get="/studies?fuzzymatching=perhaps", status=400),
    Clause(id="8.3.4.5-empty", get='/studies?StudyDescription=""&emptyvaluematching=true',
           status=200, check=count(2)),
    Clause(id="8.3.4.5-not-empty", get='/studies?PatientID=""&emptyvaluematching=true', status=200,
           check=count(0)),
    Clause(id="8.3.4.6-several", get="/studies?ModalitiesInStudy=CT\\US&multiplevaluematching=true",
           status=200, check=count(2)),
    Clause(id="8.3.4.3-includefield", get="/studies?includefield=StudyDescription", status=200),
    Clause(id="8.3.4.3-includefield-list", get="/instances?includefield=00280002,00280004",
           status=200, check=has("00280002", "00280004")),
    Clause(id="8.3.4.3-includefield-all",
           get=f"/studies/{STUDY}/instances?includefield=all", status=200, check=has("00280002")),
    Clause(id="8.3.4.3-includefield-unknown", get="/studies?includefield=NoSuch", status=200,
           check=lambda r: count(2)(r) and warns("name no attribute")(r)),
    Clause(id="8.3.4.4-limit", get="/studies?limit=1", status=200,
           check=lambda r: count(1)(r) and warns("additional results")(r)),
    Clause(id="8.3.4.4-offset", get="/studies?limit=1&offset=1", status=200,
           check=lambda r: names(r) == ["Doe^Jane"] and "warning" not in r.headers),
    Clause(id="8.3.4.4-beyond", get="/studies?offset=9", status=200, check=count(0)),
    Clause(id="8.3.4.4-negative", get="/studies?limit=-1", status=400),
    Clause(id="10.6.3.3-study-attributes", get="/studies", status=200,
           check=has("00080020", "00080030", "00080050", "00080061", "00080090", PATIENT,
                     PATIENT_ID, "00100030", "00100040", "0020000D", "00200010", "00201206",
                     "00201208", "00081190")),
    Clause(id="10.6.3.3-counts", get=f"/studies?StudyInstanceUID={STUDY}", status=200,
           check=lambda r: [r.json()[0][tag]["Value"] for tag in ("00201206", "00201208")]
           == [[2], [3]]),
    Clause(id="10.6.3.3-modalities", get="/studies?ModalitiesInStudy=US", status=200,
           check=count(2)),
    Clause(id="10.6.3.3-series-attributes", get=f"/studies/{STUDY}/series", status=200,
           check=has("00080060", "0020000E", "00200011", "00201209", "00081190")),
    Clause(id="10.6.3.3-instance-attributes", get=f"/studies/{STUDY}/instances", status=200,
           check=has("00080016", "00080018", "00200013", "00280010", "00280011", "00280100")),
    Clause(id="10.6.3.3-relational", get="/instances", status=200,
           check=has("0020000D", "0020000E", "00080018", PATIENT_ID, "00080060")),
    Clause(id="10.6.3-xml", get="/studies", accept=RELATED.format("application/dicom+xml"),
           status=200, kind="multipart/related", check=xml_parts(2)),
    Clause(id="10.6.3-json-plain", get="/studies", accept="application/json", status=200,
           kind="application/json"),
    Clause(id="10.6-not-acceptable", get="/studies", accept="image/jpeg", status=406),
    Clause(id="10.6-lower-level", get="/studies?Modality=US", status=400),
    # 10.4: retrieve objects.
    Clause(id="10.4.1.1.1-study", get=f"/studies/{STUDY}",
           accept=ANY_SYNTAX.format("application/dicom", "*"), status=200,
           kind='multipart/related; type="application/dicom"', check=parts(3, "application/dicom")),
    Clause(id="10.4.1.1.1-series", get=f"/studies/{STUDY}/series/{STUDY}.1", status=200,
           check=parts(2, f"application/dicom; transfer-syntax={PLAIN}")),
    Clause(id="10.4.1.1.1-instance", get=NATIVE, status=200, check=parts(1, "application/dicom")),
    Clause(id="10.4-unknown-study", get="/studies/9.9.9", status=404),
    Clause(id="10.4-unknown-series", get=f"/studies/{STUDY}/series/9.9", status=404),
    Clause(id="10.4-unknown-instance", get=f"/studies/{STUDY}/series/{STUDY}.1/instances/9",
           status=404),
    Clause(id="10.4-instance-of-another-study",
           get=f"/studies/{OTHER}/series/{STUDY}.1/instances/{STUDY}.1.1", status=404),
    Clause(id="10.4-no-uid", get="/studies/abc", status=400),
    Clause(id="8.6.1-single-part", get=LOSSY, accept="application/dicom; transfer-syntax=*",
           status=200, kind="application/dicom", check=as_stored(JPEG)),
    Clause(id="8.6.1-single-part-of-many", get=f"/studies/{STUDY}", accept="application/dicom",
           status=406),
    Clause(id="8.7.3.4-named", get=LOSSY, accept=f"application/dicom; transfer-syntax={JPEG}",
           status=200, check=as_stored(JPEG)),
    Clause(id="8.7.3.4-lossy-by-default", get=LOSSY, accept="application/dicom", status=200,
           check=as_stored(JPEG)),
    Clause(id="8.7.3.4-lossy-not-unpacked", get=LOSSY,
           accept=f"application/dicom; transfer-syntax={PLAIN}", status=406),
    Clause(id="8.7.3.4-lossless-unpacked", get=LOSSLESS, accept="application/dicom", status=200,
           check=as_stored(PLAIN)),
    Clause(id="8.7.3.4-lossless-as-stored", get=LOSSLESS,
           accept="application/dicom; transfer-syntax=*", status=200, check=as_stored(RLE)),
    Clause(id="8.7.3.4-other", get=NATIVE, accept=f"application/dicom; transfer-syntax={JPEG}",
           status=406),
    Clause(id="10.4.3-some", get=f"/studies/{STUDY}",
           accept=ANY_SYNTAX.format("application/dicom", JPEG), status=206,
           check=lambda r: parts(1, "application/dicom")(r) and warns("left out")(r)),
    Clause(id="8.3.3.1-accept-parameter", get=f"{NATIVE}?accept=application/dicom",
           accept="image/png", status=200, kind="application/dicom"),
    Clause(id="8.7.1-quality", get=f"{LOSSY}/frames/1",
           accept="image/jpeg;q=0.1, " + ANY_SYNTAX.format("application/octet-stream", "*"),
           status=200, kind='multipart/related; type="application/octet-stream"'),
    Clause(id="8.7.1-refused-by-quality", get=NATIVE, accept="application/dicom;q=0", status=406),
    Clause(id="8.7.1-nonsense", get=NATIVE, accept="application", status=400),
    # Metadata.
    Clause(id="10.4.1.1.2-metadata-study", get=f"/studies/{STUDY}/metadata", status=200,
           kind="application/dicom+json", check=count(3)),
    Clause(id="10.4.1.1.2-metadata-series", get=f"/studies/{STUDY}/series/{STUDY}.1/metadata",
           status=200, check=count(2)),
    Clause(id="10.4.1.1.2-metadata-instance", get=f"{LOSSY}/metadata", status=200,
           check=lambda r: r.json()[0]["7FE00010"]["BulkDataURI"].endswith("/bulkdata/7FE00010")
           and not any(tag.startswith("0002") for tag in r.json()[0])),
    Clause(id="10.4.1.1.2-metadata-xml", get=f"/studies/{STUDY}/metadata",
           accept=RELATED.format("application/dicom+xml"), status=200, check=xml_parts(3)),
    Clause(id="10.4.1.1.2-metadata-not-as-dicom", get=f"{NATIVE}/metadata",
           accept="application/dicom", status=406),
    # Frames and bulk data.
    Clause(id="10.4.1.1.6-frame", get=f"{NATIVE}/frames/2", status=200, check=frame(2)),
    Clause(id="10.4.1.1.6-frames", get=f"{NATIVE}/frames/3,1", status=200, check=frame(3, 1)),
    Clause(id="10.4.1.1.6-frame-alone", get=f"{NATIVE}/frames/1",
           accept="application/octet-stream", status=200, kind="application/octet-stream",
           check=lambda r: len(r.content) == 24 * 32),
    Clause(id="10.4.1.1.6-frames-alone", get=f"{NATIVE}/frames/1,2",
           accept="application/octet-stream", status=406),
    Clause(id="10.4.1.1.6-no-such-frame", get=f"{NATIVE}/frames/4", status=404),
    Clause(id="10.4.1.1.6-frame-0", get=f"{NATIVE}/frames/0", status=400),
    Clause(id="10.4.1.1.6-no-number", get=f"{NATIVE}/frames/first", status=400),
    Clause(id="8.7.3.3.2-jpeg", get=f"{LOSSY}/frames/1,4",
           accept=RELATED.format("image/jpeg"), status=200,
           kind='multipart/related; type="image/jpeg"',
           check=parts(2, f"image/jpeg; transfer-syntax={JPEG}")),
    Clause(id="8.7.3.3.2-jpeg-alone", get=f"{LOSSY}/frames/1", accept="image/jpeg", status=200,
           check=lambda r: r.content[:2] == b"\xff\xd8"),
    Clause(id="8.7.3.3.2-lossy-not-unpacked", get=f"{LOSSY}/frames/1",
           accept=RELATED.format("application/octet-stream"), status=406),
    Clause(id="8.7.3.3.2-rle", get=f"{LOSSLESS}/frames/1",
           accept=RELATED.format("image/dicom-rle"), status=200, check=parts(1, "image/dicom-rle")),
    Clause(id="8.7.3.3.2-lossless-unpacked", get=f"{LOSSLESS}/frames/2",
           accept=RELATED.format("application/octet-stream"), status=200, check=frame(2)),
    Clause(id="8.7.3.3.2-not-compressed-for-you", get=f"{NATIVE}/frames/1", accept="image/jpeg",
           status=406),
    Clause(id="10.4.1.1.5-bulk-data", get=f"{NATIVE}/bulkdata/7FE00010", status=200,
           kind="application/octet-stream", check=lambda r: len(r.content) == 3 * 24 * 32),
    Clause(id="10.4.1.1.5-bulk-data-in-parts", get=f"{NATIVE}/bulkdata/7FE00010",
           accept=RELATED.format("application/octet-stream"), status=200,
           check=parts(1, "application/octet-stream")),
    Clause(id="10.4.1.1.5-bulk-data-compressed", get=f"{LOSSY}/bulkdata/7FE00010", status=200,
           check=parts(4, "image/jpeg")),
    Clause(id="10.4.1.1.5-no-bulk-data", get=f"{NATIVE}/bulkdata/00100010", status=404),
    # Rendered.
    Clause(id="10.4.1.1.3-rendered", get=f"{NATIVE}/rendered", status=200, kind="image/jpeg",
           check=lambda r: r.content[:2] == b"\xff\xd8"),
    Clause(id="10.4.1.1.3-rendered-frame", get=f"{LOSSY}/frames/4/rendered", accept="image/png",
           status=200, kind="image/png", check=lambda r: r.content[:4] == b"\x89PNG"),
    Clause(id="8.7.4-gif", get=f"{LOSSY}/rendered", accept="image/gif", status=200,
           kind="image/gif"),
    Clause(id="8.7.4-other", get=f"{LOSSY}/rendered", accept="image/webp", status=406),
    Clause(id="8.3.5.1.2-quality", get=f"{NATIVE}/rendered?quality=5", status=200),
    Clause(id="8.3.5.1.2-no-quality", get=f"{NATIVE}/rendered?quality=0", status=400),
    Clause(id="8.3.5.1.3-viewport", get=f"{NATIVE}/rendered?viewport=16,16", status=200),
    Clause(id="8.3.5.1.3-no-viewport", get=f"{NATIVE}/rendered?viewport=16", status=400),
    Clause(id="8.3.5.1.4-window", get=f"{NATIVE}/rendered?window=100,10,linear", status=200),
    Clause(id="8.3.5.1.4-no-window", get=f"{NATIVE}/rendered?window=100", status=400),
    Clause(id="8.3.5.1.4-no-function", get=f"{NATIVE}/rendered?window=1,1,round", status=400),
    Clause(id="10.4.1.1.3-no-such-frame-rendered", get=f"{NATIVE}/frames/9/rendered", status=404),
]  # fmt: skip


@pytest.mark.parametrize("clause", [pytest.param(one, id=one.id) for one in CLAUSES])
def test_clause(web: Web, clause: Clause) -> None:
    response = web.get(clause.get, clause.accept)

    assert response.status_code == clause.status, response.text
    assert response.headers["content-type"].startswith(clause.kind)
    if clause.status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]
    assert clause.check(response), response.text[:2000]


def test_every_clause_has_its_own_id() -> None:
    ids = [clause.id for clause in CLAUSES]
    assert len(set(ids)) == len(ids)


# 10.5: store. Each row is sent to a store of its own identity, so that they do not meet.

OK, FAILED, KEPT, OTHERS = "00081190", "00081198", "00081199", "0008119A"


def reasons(response: httpx.Response, tag: str) -> list[int]:
    """The failure reasons of a sequence."""
    items = response.json().get(tag, {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


def test_10_5_3_all_stored_is_200_and_names_each(web: Web) -> None:
    response = web.store(clip("3.1"), clip("3.1", 2))

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    answer = response.json()
    assert answer[OK]["Value"] == [f"{web.root}/studies/3.1"]
    assert [item["00081155"]["Value"][0] for item in answer[KEPT]["Value"]] == [
        "3.1.1.1",
        "3.1.1.2",
    ]
    urls = [item["00081190"]["Value"][0] for item in answer[KEPT]["Value"]]
    assert all(web.client.get(url).status_code == 200 for url in urls)
    assert FAILED not in answer
    assert web.incoming() == []


def test_10_5_3_some_stored_is_202_with_the_reason_of_each(web: Web) -> None:
    wrong_class = clip("3.2", 2, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    wrong_class.file_meta.MediaStorageSOPClassUID = wrong_class.SOPClassUID

    response = web.store(clip("3.2"), wrong_class, b"no DICOM at all", clip("3.3"), study="3.2")

    assert response.status_code == 202
    assert reasons(response, FAILED) == [0x0122, 0xA900]
    assert reasons(response, OTHERS) == [0xC000]
    assert len(response.json()[KEPT]["Value"]) == 1
    assert response.headers["warning"].startswith("299 ")
    assert web.get("/studies/3.3").status_code == 404


def test_10_5_3_none_stored_is_409(web: Web) -> None:
    response = web.store(clip("3.4"), study="3.5")

    assert response.status_code == 409
    assert reasons(response, FAILED) == [0xA900]
    assert KEPT not in response.json()


def test_10_5_3_answers_come_in_xml_too(web: Web) -> None:
    response = web.store(clip("3.6"), accept="application/dicom+xml")

    assert response.headers["content-type"] == "application/dicom+xml"
    root = ElementTree.fromstring(response.content)  # noqa: S314 - ours
    assert {item.get("keyword") for item in root} == {"RetrieveURL", "ReferencedSOPSequence"}
    assert web.store(clip("3.6"), accept="text/html").status_code == 406


def test_10_5_3_the_same_again_is_success_and_another_content_is_not(web: Web) -> None:
    assert web.store(clip("3.7")).status_code == 200
    assert web.store(clip("3.7")).status_code == 200

    other = web.store(clip("3.7", PatientID="P9"))

    assert other.status_code == 409
    assert reasons(other, FAILED) == [0x0111]
    assert web.get("/studies/3.7/metadata").json()[0][PATIENT_ID]["Value"] == ["P1"]


def test_10_5_1_one_object_may_come_alone(web: Web) -> None:
    response = web.client.post(
        f"{web.root}/studies",
        content=part10(clip("3.8")),
        headers={"content-type": "application/dicom"},
    )

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("text", 415),
        ("", 415),
        ('multipart/related; type="application/dicom+json"; boundary=limit', 415),
        ("multipart/form-data; boundary=limit", 415),
        ('multipart/related; type="application/dicom"', 400),
        ('multipart/related; type="application/dicom"; boundary=another', 400),
        ('multipart/related; type="application/dicom"; boundary="' + "x" * 99 + '"', 400),
    ],
)
def test_10_5_1_what_is_no_upload_is_told(web: Web, content_type: str, status: int) -> None:
    before = web.kept()

    response = web.client.post(
        f"{web.root}/studies",
        content=multipart([clip("3.9")])[1],
        headers={"content-type": content_type},
    )

    assert response.status_code == status, response.text
    assert response.json()["detail"]
    assert (web.incoming(), web.kept()) == ([], before)


def test_10_5_1_parts_of_another_type_fail_alone(web: Web) -> None:
    _, first = multipart([b"{}"], kind="application/dicom+json")
    content_type, second = multipart([clip("3.10")])
    body = first.removesuffix(b"--limit--\r\n") + second

    response = web.client.post(
        f"{web.root}/studies", content=body, headers={"content-type": content_type}
    )

    assert response.status_code == 202
    assert reasons(response, OTHERS) == [0xC000]


def test_10_5_3_a_transfer_syntax_that_no_machine_here_sends_is_named(web: Web) -> None:
    ds = clip("3.11")
    data = bytearray(part10(ds))
    place = data.index(b"1.2.840.10008.1.2.1\0")
    data[place : place + 20] = b"1.2.840.10008.1.2.9\0"

    response = web.store(bytes(data))

    assert response.status_code == 409
    assert reasons(response, FAILED) == [0xC122]


def test_8_2_what_is_not_there_is_told(web: Web) -> None:
    assert web.get("/nothing").status_code == 404
    assert web.client.delete(f"{web.root}/studies/{STUDY}").status_code == 405
    described = web.client.get(f"{web.url}/api/openapi.json").json()
    assert "/dicom-web/studies/{study}/series/{series}/instances/{instance}" in described["paths"]
    assert json.dumps(described).count("/dicom-web/") > 15
