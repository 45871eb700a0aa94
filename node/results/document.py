"""What the reports of clips and of ECGs share: their sources, their headers, their references."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from models.finding import Finding, PackRef, Refusal
from node.results.content import Item
from node.results.evidence import check_finding, withheld
from node.results.header import (
    add_equipment,
    add_times,
    coding_scheme_items,
    copy_patient_and_study,
)
from node.results.objects import (
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    content_uid,
    encode,
    mark_as_own,
    series_uid,
)


class Analysed(Protocol):
    """What is known of a clip, or of an ECG."""

    @property
    def header(self) -> Dataset:
        """The object's, without pixels and samples."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the packs found."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What they did not give, and why."""

    @property
    def capture(self) -> ObjectRef | None:
        """The picture made of it."""

    @property
    def packs(self) -> tuple[PackRef, ...]:
        """Those that ran on it."""


R = TypeVar("R", bound=Analysed)


@dataclass(frozen=True)
class Source(Generic[R]):
    """A clip or an ECG as a report speaks of it."""

    noun: ClassVar[str] = "image"

    result: R
    ref: ObjectRef
    findings: tuple[Finding, ...]  # those that may be reported
    left_out: tuple[str, ...]  # what may not, and why

    @cached_property
    def order(self) -> tuple[float, float, str]:
        header = self.result.header
        return (
            number_of(header, "SeriesNumber"),
            number_of(header, "InstanceNumber"),
            self.ref.sop_instance_uid,
        )

    @cached_property
    def title(self) -> str:
        series, instance, uid = self.order
        if math.isinf(instance):
            return f"{self.noun} {uid}"
        if math.isinf(series):
            return f"{self.noun} {instance:.0f}"
        return f"series {series:.0f} {self.noun} {instance:.0f}"

    @cached_property
    def short(self) -> str:
        """The title as viewers abbreviate it; readers of SR hide a label beyond 30 characters."""
        series, instance, _ = self.order
        known = [f"S{series:.0f}"] if not math.isinf(series) else []
        known += [f"I{instance:.0f}"] if not math.isinf(instance) else []
        return " ".join(known)


S = TypeVar("S", bound=Source[Any])


def reportable(findings: Sequence[Finding], settings: ReportSettings) -> tuple[Finding, ...]:
    """The findings that may be reported.

    What the site has switched off is no news to a reader: it is left out in silence.

    Raises
    ------
    ResultError
        If a finding contradicts itself.
    """
    for finding in findings:
        check_finding(finding)
    return tuple(finding for finding in findings if withheld(finding, settings) is None)


def in_order(sources: Sequence[S], noun: str) -> list[S]:
    """The sources of one report in their order.

    Raises
    ------
    ResultError
        If they are none, or of several studies, or one is given twice.
    """
    if not sources:
        raise ResultError(f"a report needs at least one {noun}")
    if len({source.ref.study_instance_uid for source in sources}) > 1:
        raise ResultError(f"the {noun}s belong to several studies; make a report for each")
    if len({source.ref.sop_instance_uid for source in sources}) < len(sources):
        raise ResultError(f"the same {noun} was given twice")
    return sorted(sources, key=lambda source: source.order)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The series of a sort of report, and the class of its objects."""

    sop_class_uid: str
    kind: str
    number: int
    description: str


def write_document(
    root: Item,
    sources: Sequence[Source[Any]],
    series: Series,
    *,
    revision: int,
    predecessor: ObjectRef | None,
    settings: ReportSettings,
    created_at: datetime,
) -> EncodedObject:
    """An SR document of this content: its header, its UID, its bytes. See :func:`build_report`."""
    if revision < 1:
        raise ResultError(f"revision {revision}: the first is 1")
    header = sources[0].result.header
    dataset = Dataset()
    copy_patient_and_study(header, dataset)
    dataset.SOPClassUID = series.sop_class_uid
    dataset.Modality = "SR"
    dataset.SeriesInstanceUID = series_uid(sources[0].ref.study_instance_uid, series.kind, settings)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.InstanceNumber = revision
    _add_state_and_evidence(dataset, sources, predecessor)
    add_equipment(dataset, settings, packs_of(sources))
    dataset.CodingSchemeIdentificationSequence = coding_scheme_items()
    for element in root:
        dataset[element.tag] = element
    mark_as_own(dataset, "SR")
    dataset.SOPInstanceUID = content_uid(dataset, leave_out=())
    add_times(dataset, header, created_at)
    return encode(dataset, ExplicitVRLittleEndian)


def _add_state_and_evidence(
    dataset: Dataset, sources: Sequence[Source[Any]], predecessor: ObjectRef | None
) -> None:
    """What a report says of itself and of what it rests on (PS3.3 C.17.2)."""
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.PerformedProcedureCodeSequence = []
    captures = [source.result.capture for source in sources]
    dataset.CurrentRequestedProcedureEvidenceSequence = hierarchy(
        [source.ref for source in sources] + [ref for ref in captures if ref is not None]
    )
    if predecessor is not None:
        dataset.PredecessorDocumentsSequence = hierarchy([predecessor])


def hierarchy(refs: Iterable[ObjectRef]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""

    def study(ref: ObjectRef) -> str:
        return ref.study_instance_uid

    def series(ref: ObjectRef) -> str:
        return ref.series_instance_uid

    studies = []
    for study_uid, of_study in groupby(sorted(set(refs), key=_order), key=study):
        study_item = Dataset()
        study_item.ReferencedSeriesSequence = []
        study_item.StudyInstanceUID = study_uid
        for the_series, of_series in groupby(of_study, key=series):
            series_item = Dataset()
            series_item.ReferencedSOPSequence = [_sop_item(ref) for ref in of_series]
            series_item.SeriesInstanceUID = the_series
            study_item.ReferencedSeriesSequence.append(series_item)
        studies.append(study_item)
    return studies


def _order(ref: ObjectRef) -> tuple[str, str, str]:
    return (ref.study_instance_uid, ref.series_instance_uid, ref.sop_instance_uid)


def _sop_item(ref: ObjectRef) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = ref.sop_class_uid
    item.ReferencedSOPInstanceUID = ref.sop_instance_uid
    return item


def packs_of(sources: Iterable[Source[Any]]) -> list[PackRef]:
    """Every pack that took part, by name."""
    packs = {
        pack
        for source in sources
        for pack in (
            *source.result.packs,
            *(finding.pack for finding in source.findings),
            *(refusal.pack for refusal in source.result.refusals),
        )
    }
    return sorted(packs, key=lambda pack: (pack.name, pack.version, pack.weights_sha256))


def number_of(header: Dataset, keyword: str) -> float:
    """An integer of the header; infinity where it has none."""
    try:
        return float(int(str(header.get(keyword))))
    except ValueError:
        return math.inf
