"""One message of the audit trail, as XML of the DICOM audit message schema (PS3.15 A.5.1).

The standard wants patients' IDs and names in these messages; ours have the study's UID alone (see
docs/security.md).
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from xml.etree import ElementTree as ET

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 1024  # of a value that a peer may have chosen


class Action(StrEnum):
    """What was done (PS3.15 A.5.1, EventActionCode)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """How it went (EventOutcomeIndicator)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value, of DICOM's own terms where nothing else is said."""

    value: str
    meaning: str
    scheme: str = "DCM"


# PS3.16 CID 400, 401, 402, 404 and Annex D.
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
EXPORT = Code("110106", "Export")
IMPORT = Code("110107", "Import")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
RECORDING_STOPPED = Code("110133", "Audit Recording Stopped")
USER_SECURITY_CHANGED = Code("110137", "User Security Attributes Changed")
APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
DESTINATION_MEDIA = Code("110154", "Destination Media")
STUDY_UID = Code("110180", "Study Instance UID")
CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
URI = Code("12", "URI", "RFC-3881")


@dataclass(frozen=True, kw_only=True, slots=True)
class Participant:
    """Someone or something that took part."""

    user_id: str
    requestor: bool
    ae_titles: tuple[str, ...] = ()
    user_name: str = ""
    host: str = ""  #: name or address
    roles: tuple[Code, ...] = ()
    media_type: Code | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyObject:
    """The objects of one study that it was about."""

    study_instance_uid: str
    key: str  #: the short one of our logs
    sop_classes: tuple[tuple[str, int], ...] = ()  #: class UID ("" if not known) and how many


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemObject:
    """Anything else that it was about: an address, a node, a kind of query."""

    identifier: str
    kind: Code
    name: str = ""
    query: str | None = None
    details: tuple[tuple[str, str], ...] = ()  #: type and value
    role: str = "13"  #: A.5.1.2.2; a security resource


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvent:
    """What happened."""

    kind: Code
    action: Action
    participants: Sequence[Participant]
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""
    types: tuple[Code, ...] = ()
    objects: Sequence[StudyObject | SystemObject] = ()


def audit_message(event: AuditEvent, *, source_id: str, at: datetime) -> str:
    """The message, on one line.

    Parameters
    ----------
    source_id
        Who reports it: this node.
    at
        When it happened.
    """
    message = ET.Element("AuditMessage")
    identification = ET.SubElement(
        message,
        "EventIdentification",
        EventActionCode=event.action.value,
        EventDateTime=at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        EventOutcomeIndicator=str(int(event.outcome)),
    )
    _coded(identification, "EventID", event.kind)
    for code in event.types:
        _coded(identification, "EventTypeCode", code)
    if event.description:
        described = ET.SubElement(identification, "EventOutcomeDescription")
        described.text = _clean(event.description)
    for participant in event.participants:
        _participant(message, participant)
    source = ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=_clean(source_id))
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server
    for about in event.objects:
        if isinstance(about, StudyObject):
            _study(message, about)
        else:
            _object(message, about)
    text: str = ET.tostring(message, encoding="unicode")
    return '<?xml version="1.0" encoding="UTF-8"?>' + text.replace("\n", " ").replace("\r", " ")


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {
        "csd-code": code.value,
        "codeSystemName": code.scheme,
        "displayName": code.meaning,
        "originalText": code.meaning,
    }
    ET.SubElement(parent, name, attributes)


def _participant(message: ET.Element, who: Participant) -> None:
    attributes = {
        "UserID": _clean(who.user_id) or "unknown",
        "UserIsRequestor": "true" if who.requestor else "false",
    }
    if who.ae_titles:  # A.5.2.2
        attributes["AlternativeUserID"] = _clean("AETITLES=" + ";".join(who.ae_titles))
    if who.user_name:
        attributes["UserName"] = _clean(who.user_name)
    if who.host:
        attributes["NetworkAccessPointID"] = _clean(who.host)
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_address(who.host) else "1"
    element = ET.SubElement(message, "ActiveParticipant", attributes)
    for role in who.roles:
        _coded(element, "RoleIDCode", role)
    if who.media_type is not None:
        _coded(ET.SubElement(element, "MediaIdentifier"), "MediaType", who.media_type)


def _study(message: ET.Element, about: StudyObject) -> None:
    element = ET.SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(about.study_instance_uid),
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    _coded(element, "ParticipantObjectIDTypeCode", STUDY_UID)
    # The schema wants a name or a query here: the key that stands for the study in our logs.
    ET.SubElement(element, "ParticipantObjectName").text = _clean(about.key)
    if about.sop_classes:
        description = ET.SubElement(element, "ParticipantObjectDescription")
        for uid, count in about.sop_classes:
            attributes = {"NumberOfInstances": str(count)}
            if uid:
                attributes["UID"] = _clean(uid)
            ET.SubElement(description, "SOPClass", attributes)


def _object(message: ET.Element, about: SystemObject) -> None:
    element = ET.SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(about.identifier) or "unknown",
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole=about.role,
    )
    _coded(element, "ParticipantObjectIDTypeCode", about.kind)
    if about.query is None:
        ET.SubElement(element, "ParticipantObjectName").text = _clean(about.name)
    else:
        ET.SubElement(element, "ParticipantObjectQuery").text = _base64(about.query)
    for kind, value in about.details:
        attributes = {"type": _clean(kind), "value": _base64(value)}
        ET.SubElement(element, "ParticipantObjectDetail", attributes)


def _clean(value: str) -> str:
    """What XML can hold, and not without end: a peer may have chosen it."""
    return _NOT_XML.sub("?", value)[:_LONGEST]


def _base64(value: str) -> str:
    return base64.b64encode(value.encode(errors="replace")[:_LONGEST]).decode("ascii")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
