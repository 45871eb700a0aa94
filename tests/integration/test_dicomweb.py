"""DICOMweb as callers meet it: a client library, pages in a browser, and bodies that break."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.sections import DicomwebSettings
from node.web.dicomweb import qido
from node.web.dicomweb.pixels import Pixels
from node.web.users import Role, UserFile
from storage import catalog
from storage.database import Database
from storage.files import Area
from storage.tables import Instance, Result, Study
from tests.dicomweb_site import Web, clip, multipart, part10, serving_dicomweb, split
from tests.light_node import light_node
from tests.peers import wait_until
from tests.results_examples import study_report
from tests.ultrasound_files import speckle

JSON = "application/dicom+json"
FRAMES = speckle((3, 24, 32), seed=1)


@pytest.fixture(scope="module")
def pixels() -> Iterator[Pixels]:
    """One process that decodes, for all tests: it takes seconds to start."""
    made = Pixels()
    yield made
    made.stop()


@pytest.fixture
def web(tmp_path: Path, database: Database, pixels: Pixels) -> Iterator[Web]:
    with serving_dicomweb(tmp_path, database, pixels=pixels) as web:
        yield web


def test_the_client_library_stores_finds_and_gets_back(web: Web) -> None:
    client = DICOMwebClient(web.root, headers={"authorization": f"Bearer {web.token}"})
    sent = [clip(number=number) for number in (1, 2)]

    stored = client.store_instances(sent)
    found = client.search_for_studies(
        search_filters={"PatientName": "doe*", "StudyDate": "20260101-20260131"},
        fields=["StudyDescription"],
    )
    series = client.search_for_series("1.2.3")
    listed = client.search_for_instances("1.2.3", limit=1, offset=1)
    objects = client.retrieve_study("1.2.3")
    metadata = client.retrieve_instance_metadata("1.2.3", "1.2.3.1", "1.2.3.1.1")
    frames = client.retrieve_instance_frames("1.2.3", "1.2.3.1", "1.2.3.1.1", [1, 3])
    bulk = client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])
    picture = client.retrieve_instance_rendered("1.2.3", "1.2.3.1", "1.2.3.1.1")

    assert [len(stored.ReferencedSOPSequence), "FailedSOPSequence" in stored] == [2, False]
    assert [item["0020000D"]["Value"] for item in found] == [["1.2.3"]]
    assert [item["0020000E"]["Value"] for item in series] == [["1.2.3.1"]]
    assert [item["00080018"]["Value"] for item in listed] == [["1.2.3.1.2"]]
    assert [ds.PixelData for ds in objects] == [ds.PixelData for ds in sent]
    assert frames == [FRAMES[0].tobytes(), FRAMES[2].tobytes()]
    assert b"".join(bulk) == FRAMES.tobytes()
    assert np.asarray(Image.open(BytesIO(picture))).shape[:2] == (24, 32)


def test_results_are_found_and_given_like_what_was_received(web: Web) -> None:
    report = study_report().data
    made = dcmread(DicomBytesIO(report))
    study = made.StudyInstanceUID
    web.store(clip(study))
    keep_result(web, study, report)

    modalities = web.get(f"/studies?StudyInstanceUID={study}").json()[0]["00080061"]["Value"]
    path = f"/studies/{study}/series/{made.SeriesInstanceUID}/instances/{made.SOPInstanceUID}"
    text = web.get(f"{path}/rendered", "text/plain")
    page = web.get(f"{path}/rendered")

    assert modalities == ["US", "SR"]
    assert web.get(path, "application/dicom").content == report
    assert "Ejection fraction" in text.text or "ejection" in text.text.lower()
    assert page.headers["content-type"].startswith("text/html")
    assert web.get(f"{path}/frames/1").status_code == 404
    assert web.get(f"{path}/rendered", "image/png").status_code == 406


def keep_result(web: Web, study: str, report: bytes) -> None:
    """A result of the node itself, as its row and its file are."""
    made = dcmread(DicomBytesIO(report))

    with web.database.write() as session:
        row = session.query(Study).filter(Study.study_instance_uid == study).one()
        session.add(
            Result(
                study_id=row.id,
                revision=1,
                kind=catalog.ResultKind.SR,
                sop_class_uid=made.SOPClassUID,
                sop_instance_uid=made.SOPInstanceUID,
                series_instance_uid=made.SeriesInstanceUID,
                transfer_syntax_uid=made.file_meta.TransferSyntaxUID,
                file_key=web.files.write(Area.RESULTS, "ab" * 32, report),
                sha256="ab" * 32,
                size_bytes=len(report),
                created_at=catalog.utc_now(),
            )
        )


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_what_the_web_does_not_send_is_turned_and_says_the_same(web: Web, syntax: UID) -> None:
    grey16 = speckle((3, 24, 32), seed=1).astype(np.uint16) * 16
    ds = clip("5.5")
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    big = syntax == ExplicitVRBigEndian
    ds.PixelData = grey16.astype(">u2" if big else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = DicomBytesIO()
    dcmwrite(buffer, ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big)
    data = buffer.getvalue()
    assert web.store(data if data[128:132] == b"DICM" else bytes(128) + b"DICM" + data).is_success
    path = "/studies/5.5/series/5.5.1/instances/5.5.1.1"

    given = dcmread(DicomBytesIO(web.get(path, "application/dicom").content))
    frame = web.get(f"{path}/frames/2", "application/octet-stream")

    assert given.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert given.PixelData == grey16.tobytes()
    assert given.PatientName == "Doe^Jane"
    assert frame.content == grey16[1].tobytes()


def test_a_window_makes_of_values_what_it_should(web: Web) -> None:
    web.store(clip())
    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1/frames/1/rendered"

    drawn = web.get(f"{path}?window=100.5,2,linear", "image/png")
    small = web.get(f"{path}?viewport=8,100", "image/png")
    corner = web.get(f"{path}?viewport=4,4,2,1,4,4", "image/png")

    seen = np.asarray(Image.open(BytesIO(drawn.content)))
    source = FRAMES[0]
    assert set(seen[source <= 99]) == {0}
    assert set(seen[source >= 101]) == {255}
    assert Image.open(BytesIO(small.content)).size == (8, 6)
    assert np.array_equal(np.asarray(Image.open(BytesIO(corner.content))), source[1:5, 2:6])


def test_a_part_without_preamble_is_taken_and_a_preamble_is_blanked(web: Web) -> None:
    whole = part10(clip())
    program = b"MZ" + bytes(126) + part10(clip(number=2))[128:]

    answer = web.store(whole[132:], program)

    assert answer.status_code == 200, answer.text
    for item in web.get("/studies/1.2.3/instances").json():
        url = item["00081190"]["Value"][0]
        given = web.client.get(url, headers={"accept": "application/dicom; transfer-syntax=*"})
        assert given.content[:132] == bytes(128) + b"DICM"


# Bodies that break, and those that are long.


def test_a_body_that_is_cut_off_leaves_what_was_whole_and_nothing_half(web: Web) -> None:
    long = clip(number=2, Rows=1000, Columns=1000)
    long.PixelData = bytes(3_000_000)
    content_type, body = multipart([clip(), long])
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {web.token}\r\nContent-Type: {content_type}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(web.url.rsplit(":", 1)[1])), 20) as peer:
        peer.sendall(head.encode() + body[:-1000])
        wait_until(lambda: web.kept() == 1 and web.incoming(), what="one is kept, one half there")

    wait_until(lambda: web.incoming() == [], what="the half object is removed")
    assert len(web.get("/studies/1.2.3/instances").json()) == 1


def test_a_body_without_its_last_boundary_is_told(web: Web) -> None:
    content_type, body = multipart([clip(), clip(number=2)])
    url = f"{web.root}/studies"

    some = web.client.post(url, content=body[:-400], headers={"content-type": content_type})
    none = web.client.post(url, content=body[:400], headers={"content-type": content_type})

    assert some.status_code == 202
    assert len(some.json()["00081199"]["Value"]) == 1
    assert some.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC000]
    assert none.status_code == 400
    assert "cut off" in none.json()["detail"]
    assert (web.incoming(), web.kept()) == ([], 1)


def test_a_part_with_a_huge_header_is_told(web: Web) -> None:
    content_type, body = multipart([clip()])
    huge = body.replace(b"Content-Type", b"X: " + b"x" * 100_000 + b"\r\nContent-Type", 1)

    answer = web.client.post(
        f"{web.root}/studies", content=huge, headers={"content-type": content_type}
    )
    request = web.client.get(f"{web.root}/studies", headers={"accept": "x/y," * 10_000})

    assert answer.status_code == 400
    assert "16384" in answer.json()["detail"]
    assert request.status_code in (400, 431)
    assert (web.incoming(), web.kept()) == ([], 0)


def test_a_body_longer_than_allowed_is_refused(tmp_path: Path, database: Database) -> None:
    settings = DicomwebSettings(max_request_bytes=2000)
    with serving_dicomweb(tmp_path, database, settings) as web:
        _, body = multipart([clip()])

        stated = web.store(clip())
        chunked = web.client.post(
            f"{web.root}/studies",
            content=iter([body[:1500], body[1500:]]),
            headers={"content-type": multipart([])[0]},
        )

        assert (stated.status_code, chunked.status_code) == (413, 413)
        assert (web.incoming(), web.kept()) == ([], 0)


def test_a_long_body_goes_to_the_disk_and_not_into_memory(web: Web) -> None:
    start, end = _resident_bytes(), 0
    ds = clip(Rows=1000, Columns=1000, NumberOfFrames=200)
    ds.PixelData = b"\0" * 8
    head, _, _ = part10(ds).rpartition(b"\0" * 8)
    data = head[:-4] + (200_000_000).to_bytes(4, "little")
    frame = os.urandom(1_000_000)
    peak = 0

    def body() -> Iterator[bytes]:
        nonlocal peak
        yield multipart([b""])[1].partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + data
        for _ in range(200):
            yield frame
            peak = max(peak, _resident_bytes())
        yield b"\r\n--limit--\r\n"

    answer = web.client.post(
        f"{web.root}/studies", content=body(), headers={"content-type": multipart([])[0]}
    )
    end = max(peak, _resident_bytes())

    assert answer.status_code == 200, answer.text
    assert end - start < 64 << 20
    with web.client.stream(
        "GET", f"{web.root}/studies/1.2.3", headers={"accept": "*/*"}
    ) as response:
        size = 0
        for chunk in response.iter_raw():
            size += len(chunk)
            end = max(end, _resident_bytes())
    assert size > 200_000_000
    assert end - start < 64 << 20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_nothing_is_taken_while_the_node_refuses(web: Web) -> None:
    web.refusing = "the disk is nearly full"

    answer = web.store(clip())

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "60"
    assert (web.incoming(), web.kept()) == ([], 0)


def test_an_object_that_meets_a_full_disk_fails_alone(web: Web) -> None:
    answers: list[httpx.Response] = []
    _, body = multipart([clip(), clip(number=2)])
    half = len(body) // 2
    waiting = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:half]
        waiting.wait(10)
        yield body[half:]

    def send() -> None:
        answers.append(
            httpx.post(
                f"{web.root}/studies",
                content=slowly(),
                headers={
                    "content-type": multipart([])[0],
                    "authorization": f"Bearer {web.token}",
                },
                trust_env=False,
            )
        )

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: web.client.get(f"{web.url}/readyz").status_code == 200, what="it answers")
    web.refusing = "the disk is nearly full"
    waiting.set()
    sender.join(20)

    assert answers[0].status_code == 503
    reasons = answers[0].json().get("0008119A", answers[0].json().get("00081198"))
    if reasons is not None:
        assert {item["00081197"]["Value"][0] for item in reasons["Value"]} == {0xA700}
    assert (web.incoming(), web.kept()) == ([], 0)


# Who may, from where, and what is told.


def test_each_role_may_what_is_its_own(web: Web) -> None:
    web.store(clip())
    content_type, body = multipart([clip()])

    for role, token in web.tokens.items():
        headers = {"authorization": f"Bearer {token}"}
        read = httpx.get(f"{web.root}/studies", headers=headers, trust_env=False)
        send = httpx.post(
            f"{web.root}/studies",
            content=body,
            headers={**headers, "content-type": content_type},
            trust_env=False,
        )
        assert (read.status_code == 200) == (role == "read"), role
        assert (send.status_code == 200) == (role == "send"), role
    assert httpx.get(f"{web.root}/studies", trust_env=False).status_code == 401
    assert httpx.post(f"{web.root}/studies", trust_env=False).status_code == 401


def test_pages_of_other_sites_only_where_the_settings_name_them(
    tmp_path: Path, database: Database
) -> None:
    viewer, other = "https://viewer.example", "https://other.example"
    settings = DicomwebSettings(allowed_origins=(viewer,))
    content_type, body = multipart([clip()])
    with serving_dicomweb(tmp_path, database, settings) as web:

        def ask(method: str, origin: str, **headers: str) -> httpx.Response:
            return web.client.request(
                method,
                f"{web.root}/studies",
                content=body if method == "POST" else None,
                headers={"origin": origin, "content-type": content_type, **headers},
            )

        preflight = ask("OPTIONS", viewer, **{"access-control-request-method": "GET"})
        refused = httpx.get(f"{web.root}/studies", headers={"origin": viewer}, trust_env=False)

        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == viewer
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in preflight.headers
        assert ask("GET", viewer).headers["access-control-allow-origin"] == viewer
        assert ask("POST", viewer, **{"sec-fetch-site": "cross-site"}).status_code == 200
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == viewer
        assert "access-control-allow-origin" not in ask("GET", other).headers
        assert ask("OPTIONS", other).status_code == 405
        assert ask("POST", other).status_code == 403
        elsewhere = web.client.get(f"{web.url}/readyz", headers={"origin": viewer})
        assert "access-control-allow-origin" not in elsewhere.headers


def test_no_name_reaches_the_audit_and_every_way_is_told(web: Web) -> None:
    web.store(clip(PatientName="Plantedname^Zora", PatientID="PLANTID"))
    web.get("/studies?PatientName=Plantedname*&StudyDate=20260102")
    web.get("/studies/1.2.3")
    for number in (1, 2, 3):
        web.get(f"/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1/frames/{number}")

    told = web.audit()

    assert "Planted" not in told
    assert "PLANTID" not in told
    assert told.count('csd-code="110104"') == 2  # instances transferred: in and out
    assert told.count('csd-code="110112"') == 1  # the query
    assert told.count('csd-code="110103"') == 1  # frames: once, not for each


def test_a_search_reads_so_many_files_and_remembers_them(
    tmp_path: Path, database: Database
) -> None:
    with serving_dicomweb(tmp_path, database, DicomwebSettings(search_reads=10)) as web:
        objects = [clip(f"7.{number}", PatientID=f"M{number}") for number in range(15)]
        assert web.store(*objects).status_code == 200

        first = web.get("/studies?PatientID=M3")
        second = web.get("/studies?PatientID=M3")

        assert first.status_code == 503
        assert first.headers["retry-after"] == "1"
        assert [item["0020000D"]["Value"] for item in second.json()] == [["7.3"]]
        assert len(web.get("/studies?StudyDate=20260102").json()) == 15


def test_a_search_that_could_never_end_is_told_to_be_narrower(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qido, "REMEMBERED", 3)
    with serving_dicomweb(tmp_path, database, DicomwebSettings(search_reads=10)) as web:
        web.store(*(clip(f"9.{number}", PatientID=f"M{number}") for number in range(12)))

        wide = web.get("/studies?PatientID=M3")
        narrow = web.get("/studies?PatientID=M3&StudyInstanceUID=9.3")

        assert wide.status_code == 413
        assert "12 studies" in wide.text
        assert "retry-after" not in wide.headers
        assert len(narrow.json()) == 1


def test_more_matches_than_are_given_at_once_are_told(tmp_path: Path, database: Database) -> None:
    with serving_dicomweb(tmp_path, database, DicomwebSettings(search_results=2)) as web:
        web.store(*(clip(f"8.{number}") for number in range(3)))

        first = web.get("/studies?limit=100")
        rest = web.get("/studies?limit=100&offset=2")

        assert (len(first.json()), len(rest.json())) == (2, 1)
        assert "additional results" in first.headers["warning"]
        assert "warning" not in rest.headers


def test_what_was_given_up_is_gone_and_no_longer_found(web: Web) -> None:
    web.store(clip(), clip(number=2))
    with web.database.write() as session:
        row = session.query(Instance).filter(Instance.sop_instance_uid == "1.2.3.1.1").one()
        row.file_state = catalog.FileState.REMOVED

    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
    assert web.get(path).status_code == 410
    assert len(web.get("/studies/1.2.3/instances").json()) == 1
    assert len(split(web.get("/studies/1.2.3"))) == 1


def test_long_values_are_named_by_address_wherever_they_stand(web: Web) -> None:
    ds = clip(ICCProfile=os.urandom(2000))
    item = Dataset()
    item.ICCProfile = os.urandom(3000)
    ds.OpticalPathSequence = [item]
    ds.CurrentPatientLocation = "ü"
    ds.SpecificCharacterSet = "ISO_IR 100"
    web.store(ds)

    model = web.get("/studies/1.2.3/metadata").json()[0]
    inner = model["00480105"]["Value"][0]["00282000"]

    assert web.client.get(model["00282000"]["BulkDataURI"]).content == ds.ICCProfile
    assert inner["BulkDataURI"].endswith("/bulkdata/00480105/0/00282000")
    assert web.client.get(inner["BulkDataURI"]).content == item.ICCProfile
    assert model["00080005"]["Value"] == ["ISO_IR 192"]
    assert model["00380300"]["Value"] == ["ü"]
    wrong = inner["BulkDataURI"].replace("/0/", "/1/")
    assert web.client.get(wrong).status_code == 404


def test_objects_that_cannot_be_drawn_hurt_nobody(web: Web) -> None:
    ds = clip(NumberOfFrames=30_000)
    assert web.store(ds).status_code == 200
    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"

    for way in ("/frames/1", "/frames/30000", "/rendered", "/frames/5/rendered"):
        answer = web.get(path + way)
        assert answer.status_code == 406, way
        assert answer.json()["detail"]
    assert web.get(f"{path}/metadata").json()[0]["00280008"]["Value"] == [30_000]
    assert json.loads(web.get("/studies").content)


def test_a_node_takes_what_is_uploaded_as_it_takes_what_a_machine_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = UserFile(tmp_path / "data" / "users.json")
    (tmp_path / "data").mkdir(mode=0o700)
    tokens.add("cart", [Role.SEND], None)
    token = tokens.add_token("cart")
    content_type, body = multipart([clip("9.1")])
    with light_node(monkeypatch, tmp_path / "data") as (node, _):
        root = f"{node.addresses.http_url}/dicom-web"
        headers = {"authorization": f"Bearer {token}", "content-type": content_type}

        answer = httpx.post(f"{root}/studies", content=body, headers=headers, trust_env=False)
        found = httpx.get(f"{root}/studies", trust_env=False).json()

        assert answer.status_code == 200, answer.text
        assert [item["00201208"]["Value"] for item in found] == [[1]]
        database = Database(f"sqlite:///{tmp_path / 'data' / 'echonode.db'}")

        def state() -> catalog.StudyState:
            with database.read() as session:
                return catalog.find_study(session, "9.1").state

        wait_until(lambda: state() is not catalog.StudyState.RECEIVING, what="it is complete")
        database.close()
