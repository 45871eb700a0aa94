"""Between the models' records and the store's: the two rooms do not know each other."""

from __future__ import annotations

from models.finding import Evidence, Finding, Kind, Method, PackRef, Refusal
from models.packs import Signal
from node.analysis.model import EcgRead
from node.results import EcgReading
from storage import catalog


def finding_to_row(finding: Finding) -> catalog.FindingRecord:
    """A finding as it is kept."""
    return catalog.FindingRecord(
        output=finding.output,
        kind=finding.kind.value,
        value=finding.value,
        unit=finding.unit,
        low=finding.low,
        high=finding.high,
        score=finding.score,
        threshold=finding.threshold,
        method=finding.method.value,
        evidence=finding.evidence.value,
        pack=finding.pack.name,
        pack_version=finding.pack.version,
        weights_sha256=finding.pack.weights_sha256,
        frames=finding.frames,
        per_beat=finding.per_beat,
        outside_share=finding.outside_share,
        spans_ms=finding.spans_ms,
    )


def finding_from_row(row: catalog.FindingRecord) -> Finding:
    """A kept finding as the models gave it."""
    return Finding(
        output=row.output,
        kind=Kind(row.kind),
        value=row.value,
        unit=row.unit,
        low=row.low,
        high=row.high,
        score=row.score,
        threshold=row.threshold,
        method=Method(row.method),
        evidence=Evidence(row.evidence),
        pack=PackRef(name=row.pack, version=row.pack_version, weights_sha256=row.weights_sha256),
        frames=tuple(row.frames),
        per_beat=tuple(row.per_beat),
        outside_share=row.outside_share,
        spans_ms=row.spans_ms,
    )


def refusal_to_row(refusal: Refusal) -> catalog.RefusalRecord:
    """A refusal as it is kept."""
    return catalog.RefusalRecord(
        output=refusal.output,
        reason=refusal.reason,
        pack=refusal.pack.name,
        pack_version=refusal.pack.version,
        weights_sha256=refusal.pack.weights_sha256,
    )


def refusal_from_row(row: catalog.RefusalRecord) -> Refusal:
    """A kept refusal as the models gave it."""
    return Refusal(
        output=row.output,
        reason=row.reason,
        pack=PackRef(name=row.pack, version=row.pack_version, weights_sha256=row.weights_sha256),
    )


def pack_to_row(pack: PackRef) -> catalog.PackRunRecord:
    """A pack that ran, as it is kept."""
    return catalog.PackRunRecord(
        pack=pack.name, version=pack.version, weights_sha256=pack.weights_sha256
    )


def pack_from_row(row: catalog.PackRunRecord) -> PackRef:
    """A kept run as the models know the pack."""
    return PackRef(name=row.pack, version=row.version, weights_sha256=row.weights_sha256)


def read_to_row(read: EcgRead) -> catalog.ReadingRecord:
    """What a pack read of an ECG, as it is kept."""
    return catalog.ReadingRecord(
        pack=read.pack.name,
        signal=read.signal.value,
        group=read.group,
        channels=read.channels,
        begin_ms=read.begin_ms,
        end_ms=read.end_ms,
    )


def reading_from_row(row: catalog.ReadingRecord, pack: PackRef) -> EcgReading:
    """What a pack read of an ECG, as reports speak of it."""
    return EcgReading(
        pack=pack,
        signal=Signal(row.signal),
        group=row.group,
        channels=row.channels,
        begin_ms=row.begin_ms,
        end_ms=row.end_ms,
    )
