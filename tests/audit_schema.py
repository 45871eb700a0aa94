"""The DICOM audit message schema (PS3.15 A.5.1.1), as checks: what is wrong with a message."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from xml.etree import ElementTree as ET

_CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"})
#: Element: attributes that must be there, those that may; children in their order with "", "?", "+"
#: or "*", and several that exclude each other with "|".
_GRAMMAR: dict[str, tuple[set[str], set[str], list[str]]] = {
    "AuditMessage": (
        set(),
        set(),
        [
            "EventIdentification",
            "ActiveParticipant+",
            "AuditSourceIdentification",
            "ParticipantObjectIdentification*",
        ],
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        ["EventID", "EventTypeCode*", "EventOutcomeDescription?"],
    ),
    "EventID": (*_CODED, []),
    "EventTypeCode": (*_CODED, []),
    "EventOutcomeDescription": (set(), set(), []),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        ["RoleIDCode*", "MediaIdentifier?"],
    ),
    "RoleIDCode": (*_CODED, []),
    "MediaIdentifier": (set(), set(), ["MediaType"]),
    "MediaType": (*_CODED, []),
    "AuditSourceIdentification": (
        {"AuditSourceID"},
        {"AuditEnterpriseSiteID"},
        ["AuditSourceTypeCode*"],
    ),
    "AuditSourceTypeCode": (
        {"csd-code"},
        {"codeSystemName", "displayName", "originalText"},
        [],
    ),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
            "ParticipantObjectDataLifeCycle",
            "ParticipantObjectSensitivity",
        },
        [
            "ParticipantObjectIDTypeCode",
            "ParticipantObjectName|ParticipantObjectQuery",
            "ParticipantObjectDetail*",
            "ParticipantObjectDescription*",
        ],
    ),
    "ParticipantObjectIDTypeCode": (*_CODED, []),
    "ParticipantObjectName": (set(), set(), []),
    "ParticipantObjectQuery": (set(), set(), []),
    "ParticipantObjectDetail": ({"type", "value"}, set(), []),
    "ParticipantObjectDescription": (
        set(),
        set(),
        [
            "MPPS*",
            "Accession*",
            "SOPClass*",
            "ParticipantObjectContainsStudy?",
            "Encrypted?",
            "Anonymized?",
        ],
    ),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, ["Instance*"]),
}
_VALUES = {
    "EventActionCode": "[CRUDE]",
    "EventOutcomeIndicator": "0|4|8|12",
    "UserIsRequestor": "true|false",
    "NetworkAccessPointTypeCode": "[1-5]",
    "ParticipantObjectTypeCode": "[1-4]",
    "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]",
    "NumberOfInstances": "[0-9]+",
    "UID": r"[0-2]((\.0)|(\.[1-9][0-9]*))*",
}


def parsed(message: str) -> ET.Element:
    """A message of ours."""
    return ET.fromstring(message)  # noqa: S314 - our own


def faults_of(message: str) -> list[str]:
    """What is wrong with a message, a line each."""
    try:
        root = parsed(message)
    except ET.ParseError as error:
        return [f"is not XML: {error}"]
    if root.tag != "AuditMessage":
        return [f"is a {root.tag}"]
    faults = list(_element(root))
    # A.5.2: one requestor at most.
    asking = [
        part for part in root.iter("ActiveParticipant") if part.get("UserIsRequestor") == "true"
    ]
    if len(asking) > 1:
        faults.append("has more than one requestor")
    return faults


def _element(element: ET.Element) -> Iterator[str]:
    if element.tag not in _GRAMMAR:
        yield f"{element.tag} is unknown"
        return
    must, may, children = _GRAMMAR[element.tag]
    for name in sorted(must - set(element.keys())):
        yield f"{element.tag} has no {name}"
    for name in sorted(set(element.keys()) - must - may):
        yield f"{element.tag} has an unknown {name}"
    for name, value in element.attrib.items():
        if name in _VALUES and not re.fullmatch(_VALUES[name], value):
            yield f"{element.tag} {name}={value!r}"
    yield from _contents(element)
    names = "".join(f"{child.tag} " for child in element)
    pattern = "".join(_pattern(part) for part in children)
    if not re.fullmatch(pattern, names):
        yield f"{element.tag} has {names or 'nothing'}"
    for child in element:
        yield from _element(child)


def _pattern(part: str) -> str:
    name, times = (part[:-1], part[-1]) if part[-1] in "?+*" else (part, "")
    return f"(?:(?:{name}) ){times}"


def _contents(element: ET.Element) -> Iterator[str]:
    if element.tag == "EventIdentification":
        at = datetime.fromisoformat(element.get("EventDateTime", ""))
        if at.tzinfo is None:
            yield "EventDateTime has no zone"
    encoded = None
    if element.tag == "ParticipantObjectDetail":
        encoded = element.get("value", "")
    if element.tag == "ParticipantObjectQuery":
        encoded = element.text or ""
    if encoded is not None:
        try:
            base64.b64decode(encoded, validate=True)
        except binascii.Error:
            yield f"{element.tag} is not base64"
