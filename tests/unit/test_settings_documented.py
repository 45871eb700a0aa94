"""The page on settings says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from node.sections import (
    AlertsSettings,
    AnalysisSettings,
    AuditSettings,
    CaptureSettings,
    ClientTls,
    ClusterTls,
    DeliverySettings,
    DicomwebDestination,
    DicomwebSettings,
    DicomwebSource,
    DimseDestination,
    DimseSettings,
    DimseSource,
    DiskSettings,
    HttpSettings,
    LogSettings,
    Machine,
    MailSettings,
    NodeSettings,
    RetentionSettings,
    Rule,
    ServerTls,
    StudySettings,
    SyslogSettings,
    WatchedFolder,
    WebhookSettings,
)
from node.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SECTIONS = {
    "node": [NodeSettings],
    "dimse": [DimseSettings],
    "machines": [Machine],
    "http": [HttpSettings, ServerTls],
    "dicomweb": [DicomwebSettings],
    "folders": [WatchedFolder],
    "disk": [DiskSettings],
    "retention": [RetentionSettings],
    "study": [StudySettings],
    "destinations": [DimseDestination, DicomwebDestination, ClientTls],
    "archives": [DimseSource, DicomwebSource],
    "rules": [Rule],
    "analysis": [AnalysisSettings, ClusterTls],
    "capture": [CaptureSettings],
    "delivery": [DeliverySettings],
    "audit": [AuditSettings, SyslogSettings],
    "alerts": [AlertsSettings, WebhookSettings, MailSettings],
    "log": [LogSettings],
}


def documented() -> dict[str, set[str]]:
    """Each section of the page with the keys in its table; the first has no name."""
    found: dict[str, set[str]] = {}
    section = ""
    for line in PAGE.read_text().splitlines():
        if heading := re.match(r"## `\[+(\w+)\]+`", line):
            section = heading[1]
        elif line.startswith("| `"):
            keys = re.findall(r"`(\w+)`", line.split("|")[1])
            found.setdefault(section, set()).update(keys)
    return found


def test_the_page_has_every_section_and_key_and_no_other() -> None:
    known = {
        name: {field for model in models for field in model.model_fields}
        for name, models in SECTIONS.items()
    }
    known[""] = set(Settings.model_fields) - set(SECTIONS)

    assert documented() == known
