"""A whole node with planted names: they are in the files it keeps and nowhere else.

The log (at debug level, as JSON and for a console), the audit trail, HTTP answers, what commands
say, file names, the database, and what is answered to the sender are searched for each of them.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydicom import Dataset, config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom import _config as network_config

from node.cli import main
from tests.audit_schema import faults_of
from tests.peers import free_port, storescp, wait_until
from tests.running_node import REAL_CINE, RunningNode
from tests.web_site import basic

pytestmark = pytest.mark.timeout(900)

#: What must not be found. They are in each object's header.
NAMES = {
    "PatientName": "Plantedname^Plantzora^Middleplant",
    "PatientID": "PLANTPID4711",
    "OtherPatientNames": "Plantmaiden^Plantzora",
    "PatientAddress": "Plantstreet 12",
    "PatientTelephoneNumbers": "555-7713-19",
    "PatientMotherBirthName": "Plantmother",
    "PatientComments": "Plantcomment",
    "ReferringPhysicianName": "Plantreferring^Planthouse",
    "PerformingPhysicianName": "Plantperforming",
    "OperatorsName": "Plantoperator",
    "NameOfPhysiciansReadingStudy": "Plantreader",
    "StudyID": "PLANTSTUDYID",
    "InstitutionalDepartmentName": "Plantward",
}
FRAMES = 8
BIRTH_DATE = "19340217"
PRIVATE = "Plantprivate"
#: These are kept in the database, for the operator to find a study by; see docs/security.md.
KEPT = {"AccessionNumber": "PLANTACC99", "StudyDescription": "Plantdescription"}
#: Values that are no values of their kind: libraries warn of them and quote them.
BAD = {
    "PatientBirthDate": ("DA", "Plantbaddate"),
    "PatientAge": ("AS", "Plantbadage"),
    "PatientWeight": ("DS", "Plantbadweight"),
    "StudyDate": ("DA", "Plantbadstudydate"),
    "HeartRate": ("IS", "Plantbadrate"),
}
BAD_FOR_READING = {
    "FrameTime": ("DS", "Plantbadframetime"),
    "NumberOfFrames": ("IS", "Plantbadframes"),
    "PhotometricInterpretation": ("CS", "PLANTBADPHOTO"),
    "Modality": ("CS", "PLANTBADMODALITY"),
    "PixelSpacing": ("DS", "Plantbadspacing"),
}

TOKENS = {
    part
    for value in (
        *NAMES.values(),
        BIRTH_DATE,
        PRIVATE,
        *(value for _, value in (BAD | BAD_FOR_READING).values()),
        "Plantuid",
    )
    for part in value.split("^")
}


def encodings(token: str) -> Iterator[bytes]:
    """A token as it may stand in a text, in a URL, in base64, in hex, in two bytes a character."""
    for text in {token, token.upper(), token.lower()}:
        plain = text.encode()
        yield plain
        yield text.encode("utf-16-le")
        yield plain.hex().encode()
        yield quote(text).encode()
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + plain + b"\0\0")
            # Without the characters that depend on what stands around it.
            inner = encoded[4 if shift else 0 : -4]
            if len(inner) >= 8:
                yield inner


def found_in(content: bytes, tokens: set[str]) -> set[str]:
    return {token for token in tokens if any(form in content for form in encodings(token))}


def planted(folder: Path, name: str, **wrong: Any) -> Path:
    """A real cine with planted values; ``wrong`` are elements by keyword, or a whole UID."""
    dataset: Dataset = dcmread(REAL_CINE)
    dataset.remove_private_tags()
    # A few frames: enough to be read and measured.
    frames = list(generate_frames(dataset.PixelData, number_of_frames=30))[:FRAMES]
    dataset.PixelData = encapsulate(frames)
    dataset.NumberOfFrames = FRAMES
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for keyword, value in (NAMES | KEPT | {"PatientBirthDate": BIRTH_DATE}).items():
        setattr(dataset, keyword, value)
    block = dataset.private_block(0x0013, "PLANTMAKER", create=True)
    block.add_new(0x01, "LO", PRIVATE)
    block.add_new(0x02, "UN", b"\x00" + PRIVATE.encode())
    for keyword, value in wrong.items():
        vr, text = value if isinstance(value, tuple) else ("UI", value)
        content = text.encode() + b" " * (len(text) % 2)
        tag = Tag(keyword)
        dataset[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
    path = folder / f"{name}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process write what no machine should."""
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    monkeypatch.setattr(network_config, "STORE_SEND_CHUNKED_DATASET", True)


def store(port: int, *paths: Path, calling: str = "CART") -> list[bytes]:
    """Send files byte for byte, whatever is in them; gives what was answered to each."""
    entity = AE(ae_title=calling)
    meta = [dcmread(path, stop_before_pixels=True, force=True).file_meta for path in paths]
    for item in meta:
        entity.add_requested_context(item.MediaStorageSOPClassUID, item.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="ECHONODE")
    if not association.is_established:
        return []
    answers = [str(association.send_c_store(path)).encode() for path in paths]
    association.release()
    return answers


def broken_file(folder: Path) -> Path:
    """A file whose data set ends in the middle of a name."""
    path = planted(folder, "broken")
    content = path.read_bytes()
    place = content.index(b"Plantedname") + 5
    path.write_bytes(content[:place] + b"\xff\xff\xff\x7f" + content[place:][:60])
    return path


def everything_said(node: RunningNode, answers: list[bytes], told: list[Any]) -> dict[str, bytes]:
    """Every place that somebody may read, but for the files that hold the objects themselves."""
    data = node.folder / "data"
    dump = sqlite3.connect(f"file:{data / 'echonode.db'}?mode=ro", uri=True)
    places = {
        "answers to the sender": b"\n".join(answers),
        "what commands and HTTP said": json.dumps(told, ensure_ascii=False).encode(),
        "file names": "\n".join(str(path) for path in node.folder.rglob("*")).encode(),
        "database": "\n".join(dump.iterdump()).encode(),
    }
    dump.close()
    for path in node.folder.glob("*.log"):
        places[path.name] = path.read_bytes()
    objects = {data / "objects", data / "results", data / "quarantine", data / "incoming"}
    for path in data.rglob("*"):
        if path.is_file() and not objects & set(path.parents):
            places[str(path.relative_to(data))] = path.read_bytes()
    return places


class Commands:
    """Commands in this process, which start at once."""

    def __init__(self, node: RunningNode, capsys: pytest.CaptureFixture[str]) -> None:
        self._node = node
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Any:
        self._capsys.readouterr()
        assert main(["--config", str(self._node.config), *arguments, "--json"]) == 0
        return json.loads(self._capsys.readouterr().out)

    def deliveries(self, study: str, destination: str) -> list[Any]:
        return [
            item
            for item in self("study", study)["deliveries"]
            if item["destination"] == destination
        ]


@dataclass
class Sent:
    """A node, what is sent to it, and what it has answered."""

    node: RunningNode
    ask: Commands
    http: int
    good: Path
    study: str
    others: list[Path]  #: not to be read, not to be taken, or changed under a known UID
    answers: list[bytes] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)

    def places(self) -> dict[str, bytes]:
        """What has been said, with no name in it."""
        places = everything_said(self.node, self.answers, self.told)
        leaks = {name: found for name, text in places.items() if (found := found_in(text, TOKENS))}
        assert leaks == {}
        # What the operator finds a study by is in the database, and what shows its rows.
        allowed = {"database", "echonode.db", "echonode.db-wal", "what commands and HTTP said"}
        kept = {name for name, text in places.items() if found_in(text, set(KEPT.values()))}
        assert kept <= allowed
        return places

    def trail(self) -> list[str]:
        """The lines of the audit trail, all of the schema."""
        lines = [
            line
            for path in sorted((self.node.folder / "data" / "audit").glob("*.log"))
            for line in path.read_text().splitlines()
        ]
        assert [fault for line in lines for fault in faults_of(line)] == []
        return lines


@pytest.fixture
def sent(tmp_path: Path, capsys: pytest.CaptureFixture[str], unchecked: None) -> Sent:
    assert unchecked is None
    inbox = tmp_path / "inbox"
    work = tmp_path / "node"
    inbox.mkdir()
    work.mkdir()
    good = planted(inbox, "good", **BAD)
    others = [
        planted(inbox, f"unreadable-{keyword}", **{keyword: value})
        for keyword, value in BAD_FOR_READING.items()
    ]
    others += [
        planted(inbox, "no-uid", StudyInstanceUID="Plantuid^Doe"),
        planted(inbox, "no-series", SeriesInstanceUID=NAMES["PatientID"]),
        broken_file(inbox),
    ]
    other = dcmread(good)
    other.PatientName = NAMES["OtherPatientNames"]
    others.append(inbox / "changed.dcm")
    other.save_as(others[-1], enforce_file_format=True)
    node = RunningNode(folder=work, archives=[])
    return Sent(
        node=node,
        ask=Commands(node, capsys),
        http=free_port(),
        good=good,
        study=str(other.StudyInstanceUID),
        others=others,
    )


def test_what_is_refused_changed_or_unreadable_is_told_without_a_name(sent: Sent) -> None:
    node = sent.node
    node.settings = f'[http]\nport = {sent.http}\n[log]\nlevel = "debug"\nformat = "console"\n'
    with node.serving():
        token = _operator(sent.ask)
        sent.answers += store(node.port, sent.good, *sent.others)
        # The same again, from another.
        sent.answers += store(node.port, sent.good, calling="STRANGER")
        sent.told += _asked(sent.http, token, sent.study)
        sent.told += _commands(sent.ask, sent.study)

    places = sent.places()
    log = places["node.log"].decode()
    for event in ("object-kept", "object-quarantined", "node-started", "http-request"):
        assert event in log, event
    assert len(sent.answers) == 2 + len(sent.others)
    for code in ("110100", "110104", "110103", "110114"):
        assert any(f'csd-code="{code}"' in line for line in sent.trail()), code
    _all_private(node.folder / "data")


def test_a_study_goes_its_whole_way_without_a_name(sent: Sent, tmp_path: Path) -> None:
    node = sent.node
    with storescp(tmp_path / "kept" / "archive") as archive:
        node.archives = [archive]
        node.settings = (
            f'[http]\nport = {sent.http}\n[log]\nlevel = "debug"\nformat = "json"\n'
            '[[destinations]]\nname = "gone"\nkind = "dimse"\nhost = "127.0.0.1"\n'
            f'port = {free_port()}\nae_title = "GONE"\n'
        )
        with node.serving():
            token = _operator(sent.ask)
            # One that no model can read goes its way, too.
            sent.answers += store(node.port, sent.good, sent.others[1])
            wait_until(
                lambda: any(
                    item["state"] in ("delivered", "sent")
                    for item in sent.ask.deliveries(sent.study, "archive")
                ),
                what="results are at the archive",
                timeout_s=600,
                pause_s=3,
            )
            wait_until(
                lambda: any(
                    item["last_answer"] for item in sent.ask.deliveries(sent.study, "gone")
                ),
                what="the other archive was tried",
                pause_s=3,
            )
            sent.told += _asked(sent.http, token, sent.study)
            sent.told += [sent.ask("status"), sent.ask("study", sent.study)]

    assert '"object-kept"' in sent.places()["node.log"].decode()
    went = [line for line in sent.trail() if sent.study in line and 'csd-code="110104"' in line]
    assert len(went) >= 2, "it came in, and its results went out"
    _all_private(node.folder / "data")


def test_the_search_finds_what_is_there(sent: Sent) -> None:
    planted_names = {"Plantedname", "PLANTPID4711", "Plantbaddate", "Plantprivate"}

    assert found_in(sent.good.read_bytes(), TOKENS) >= planted_names
    assert found_in(base64.b64encode(b"a patient, Plantedname, was here"), TOKENS) == {
        "Plantedname"
    }
    assert found_in("Plantmother".encode("utf-16-le"), TOKENS) == {"Plantmother"}
    assert found_in(b"PATIENT PLANTREADER", TOKENS) == {"Plantreader"}


def _operator(ask: Commands) -> str:
    ask("user", "add", "anna", "--role", "read,operate", "--no-password")
    return str(ask("user", "token", "anna")["token"])


def _asked(port: int, token: str, study: str) -> list[Any]:
    """What HTTP answers, to a good caller and to a bad one."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        shown = {"authorization": f"Bearer {token}"}
        answers = [
            client.get("/healthz"),
            client.get("/readyz", headers=shown),
            client.get("/api/status", headers=shown),
            client.get("/api/status", headers=basic("anna", "a wrong password")),
            client.post(f"/api/studies/{study}/hold", headers=shown),
            client.post(f"/api/studies/{study}/release", headers=shown),
            client.post(f"/api/studies/{study}/retry", headers=shown),
            client.post("/api/studies/1.2.3/retry", headers=shown),
        ]
    assert answers[2].status_code == 200
    assert answers[3].status_code in (401, 429)
    return [[str(answer.headers), answer.text] for answer in answers]


def _commands(ask: Commands, study: str) -> list[Any]:
    quarantine = ask("quarantine")
    assert len(quarantine) >= 4, quarantine
    return [
        ask("status"),
        ask("studies"),
        ask("study", study),
        quarantine,
        [ask("quarantine", "show", str(item["number"])) for item in quarantine],
        ask("config", "show"),
    ]


def _all_private(data: Path) -> None:
    """Nobody but the service user may read, write or enter anything."""
    open_ones = [
        f"{path.relative_to(data)} {path.stat().st_mode & 0o777:03o}"
        for path in (data, *data.rglob("*"))
        if path.stat().st_mode & 0o077
    ]
    assert open_ones == []
    names = {path.name for path in data.rglob("*")}
    assert {"echonode.db", "node.lock", "device-serial", "users.json", "audit"} <= names
