"""Messages of the audit trail follow the schema of PS3.15 A.5.1, whatever a peer calls itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from node.sections import AuditSettings
from node.watch.audit import Audit
from node.watch.audit_file import audit_files
from node.watch.transfers import Direction, Peer, Transfer, TurnedAway
from tests.audit_schema import faults_of, parsed

UID = "1.2.826.0.1.3680043.8.498.1"
CLASS = "1.2.840.10008.5.1.4.1.1.3.1"
CART = Peer(host="10.1.2.3", ae_title="CART", port=40000)
CALLER = Peer(host="10.1.2.9", user="anna")


def transfer(direction: Direction, **changed: object) -> Transfer:
    values: dict[str, object] = {
        "direction": direction,
        "peer": CART,
        "door": "dimse",
        "study_instance_uid": UID,
        "sop_class_uids": (CLASS,),
        "count": 7,
        "accepted": True,
    }
    return Transfer(**{**values, **changed})  # type: ignore[arg-type]


EVENTS: dict[str, tuple[Callable[[Audit], None], str, str]] = {
    "in": (lambda audit: audit.transferred(transfer(Direction.IN)), "110104", "0"),
    "partly": (
        lambda audit: audit.transferred(transfer(Direction.IN, accepted=False)),
        "110104",
        "4",
    ),
    "out": (
        lambda audit: audit.transferred(
            transfer(Direction.OUT, sop_class_uids=(CLASS, CLASS + ".1"))
        ),
        "110104",
        "0",
    ),
    "imported": (
        lambda audit: audit.transferred(transfer(Direction.IN, door="folder")),
        "110107",
        "0",
    ),
    "begins": (lambda audit: audit.begins_transfer(CART, UID), "110102", "0"),
    "turned away": (
        lambda audit: audit.turned_away(TurnedAway(peer=CART, door="dimse", reason="not listed")),
        "110113",
        "8",
    ),
    "login": (lambda audit: audit.authenticated(CALLER, "http"), "110114", "0"),
    "no login": (
        lambda audit: audit.not_authenticated(CALLER, "http", "wrong password"),
        "110114",
        "4",
    ),
    "forbidden": (lambda audit: audit.forbidden(CALLER, "http", "needs operate"), "110113", "8"),
    "query": (lambda audit: audit.queried(CALLER, "/studies", "limit=5"), "110112", "0"),
    "query by class": (
        lambda audit: audit.queried(CALLER, "dimse", "StudyDate", sop_class_uid="1.2.840.10008.1"),
        "110112",
        "0",
    ),
    "looked": (lambda audit: audit.looked(CALLER, UID), "110103", "0"),
    "operated": (lambda audit: audit.operated(CALLER, "hold", UID), "110103", "0"),
    "refused": (
        lambda audit: audit.operated(CALLER, "retry", UID, refused="nothing failed"),
        "110103",
        "4",
    ),
    "deleted": (
        lambda audit: audit.deleted(UID, sop_classes=((CLASS, 3),), why="older than 30 days"),
        "110103",
        "0",
    ),
    "exported": (
        lambda audit: audit.exported("root", "object 3 of quarantine", UID),
        "110106",
        "0",
    ),
    "users": (lambda audit: audit.users_changed("root", "added: read", "anna"), "110113", "0"),
    "start": (lambda audit: audit.start(), "110100", "0"),
}


def written(folder: Path, tell: Callable[[Audit], None]) -> str:
    audit = Audit(AuditSettings(), folder, "ECHONODE")
    tell(audit)
    audit.close()
    (file,) = audit_files(folder / "audit")
    return file.read_text().splitlines()[0]


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_makes_a_message_of_the_schema(tmp_path: Path, name: str) -> None:
    tell, event_id, outcome = EVENTS[name]

    message = written(tmp_path, tell)

    assert faults_of(message) == []
    identification = parsed(message).find("EventIdentification")
    assert identification is not None
    event = identification.find("EventID")
    assert event is not None
    assert (event.get("csd-code"), event.get("codeSystemName")) == (event_id, "DCM")
    assert identification.get("EventOutcomeIndicator") == outcome


def test_what_came_in_names_both_sides_and_the_study(tmp_path: Path) -> None:
    root = parsed(written(tmp_path, EVENTS["in"][0]))

    source, destination = root.findall("ActiveParticipant")
    assert source.get("UserIsRequestor") == "true"
    assert source.get("AlternativeUserID") == "AETITLES=CART"
    assert (source.get("NetworkAccessPointID"), source.get("NetworkAccessPointTypeCode")) == (
        "10.1.2.3",
        "2",
    )
    assert [role.get("csd-code") for role in source.findall("RoleIDCode")] == ["110153"]
    assert destination.get("AlternativeUserID") == "AETITLES=ECHONODE"
    assert [role.get("csd-code") for role in destination.findall("RoleIDCode")] == ["110152"]
    (study,) = root.findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == UID
    sop_class = study.find("ParticipantObjectDescription/SOPClass")
    assert sop_class is not None
    assert (sop_class.get("UID"), sop_class.get("NumberOfInstances")) == (CLASS, "7")


def test_there_is_no_patient_in_any_message(tmp_path: Path) -> None:
    for number, (tell, _, _) in enumerate(EVENTS.values()):
        root = parsed(written(tmp_path / str(number), tell))
        for found in root.findall("ParticipantObjectIdentification"):
            assert found.get("ParticipantObjectTypeCode") != "1", "a person"


@pytest.mark.parametrize(
    "title", ["<\"&'>", "A\0B\x1b[31m", "line\nbreak\r", "\udcff", "é日本", "x" * 5000, ""]
)
def test_no_peer_can_break_a_line_or_the_xml(tmp_path: Path, title: str) -> None:
    peer = Peer(host="", ae_title=title, user=title)

    def tell(audit: Audit) -> None:
        audit.turned_away(TurnedAway(peer=peer, door="dimse", reason=title))

    message = written(tmp_path, tell)

    assert faults_of(message) == []
    assert len(message) < 10_000
    assert (tmp_path / "audit").exists()
    assert len(next((tmp_path / "audit").glob("*.log")).read_text().splitlines()) == 1


def test_the_checks_find_faults(tmp_path: Path) -> None:
    message = written(tmp_path, EVENTS["in"][0])

    assert faults_of(message.replace('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'))
    assert faults_of(message.replace("csd-code", "code"))
    assert faults_of(message.replace("UserIsRequestor", "Requestor"))
    assert faults_of(message.replace('UserIsRequestor="false"', 'UserIsRequestor="true"'))
    assert faults_of(message.replace("ParticipantObjectName", "ParticipantName"))
    assert faults_of(message[:-5])
