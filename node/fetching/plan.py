"""What of a study is to be fetched: what the archive has, less what is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from node.doors.contexts import STORAGE_CLASSES
from node.fetching.model import (
    Asker,
    FoundObject,
    FoundSeries,
    FoundStudy,
    Outcome,
    Request,
    StudyReport,
)
from node.results.objects import MANUFACTURER, ReportSettings
from storage.catalog import FileState, StudyHere

_OURS = ReportSettings(device_serial="")
_OUR_SERIES = {
    (_OURS.report_series_number, _OURS.report_series_description),
    (_OURS.text_series_number, _OURS.text_series_description),
    (_OURS.capture_series_number, _OURS.capture_series_description),
    (_OURS.page_series_number, _OURS.page_series_description),
    (_OURS.key_series_number, _OURS.key_series_description),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to ask for, and the report that it begins.

    ``objects`` are wanted one by one; ``series`` as a whole, since the archive does not list what
    is in them; ``whole``: it does not even list the series.
    """

    study: FoundStudy
    report: StudyReport
    objects: tuple[FoundObject, ...] = ()
    series: tuple[str, ...] = ()
    whole: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be fetched."""
        return not (self.objects or self.series or self.whole)

    @property
    def sop_classes(self) -> tuple[str, ...]:
        """Of what is wanted; none where one of them is not known."""
        if self.series or self.whole or any(one.sop_class_uid is None for one in self.objects):
            return ()
        return tuple(dict.fromkeys(one.sop_class_uid or "" for one in self.objects))

    def requests(self, batch: int) -> Iterator[Request]:
        """What to ask for, in pieces of so many instances."""
        study = self.study.study_instance_uid
        if self.whole:
            yield Request(study_instance_uid=study)
        for series in self.series:
            yield Request(study_instance_uid=study, series_instance_uid=series)
        by_series: dict[str, list[str]] = {}
        for one in self.objects:
            by_series.setdefault(one.series_instance_uid, []).append(one.sop_instance_uid)
        for series, uids in by_series.items():
            for first in range(0, len(uids), batch):
                yield Request(
                    study_instance_uid=study,
                    series_instance_uid=series,
                    objects=tuple(uids[first : first + batch]),
                )


def make_plan(
    asker: Asker,
    study: FoundStudy,
    here: StudyHere,
    *,
    modalities: Sequence[str] = (),
    again: bool = False,
) -> Plan:
    """Ask the archive what it has of a study, and leave out what is here.

    Parameters
    ----------
    modalities
        Of the series that are wanted; none: of all.
    again
        Also what was here and was given up or put into quarantine.

    Raises
    ------
    UnreachableError
        If the archive does not answer.
    """
    report = StudyReport(study=study)
    answers = asker.series(study.study_instance_uid)
    if answers is None or (not answers.found and study.instances):
        report.here = sum(not one.own for one in here.received.values())
        whole = study.instances is None or report.here < study.instances or again
        report.wanted, report.series = (None, 1) if whole else (0, 0)
        return _with_outcome(Plan(study=study, report=report, whole=whole))
    objects: list[FoundObject] = []
    series_whole: list[str] = []
    for series in answers.found:
        if modalities and series.modality and series.modality not in modalities:
            continue
        if is_own_series(series, here):
            report.own += series.instances or 0
            continue
        listed = asker.objects(study.study_instance_uid, series.series_instance_uid)
        if listed is None or (not listed.found and series.instances != 0):
            if _is_short(series, here, report, again=again):
                series_whole.append(series.series_instance_uid)
            continue
        wanted = [one for one in listed.found if _is_wanted(one, here, report, again=again)]
        report.series += bool(wanted)
        objects += wanted
    report.series += len(series_whole)
    report.wanted = None if series_whole else len(objects)
    plan = Plan(study=study, report=report, objects=tuple(objects), series=tuple(series_whole))
    return _with_outcome(plan)


def is_own_series(series: FoundSeries, here: StudyHere) -> bool:
    """Whether a series holds results of ours, by what the archive tells of it."""
    return (
        series.series_instance_uid in here.made_series
        or series.manufacturer == MANUFACTURER
        or (series.number, series.description) in _OUR_SERIES
    )


def _is_short(series: FoundSeries, here: StudyHere, report: StudyReport, *, again: bool) -> bool:
    """Whether fewer are here than the archive counts; where it does not count, it is asked."""
    uid = series.series_instance_uid
    count = sum(one.series_instance_uid == uid for one in here.received.values())
    report.here += count
    return again or series.instances is None or count < series.instances


def _is_wanted(one: FoundObject, here: StudyHere, report: StudyReport, *, again: bool) -> bool:
    uid = one.sop_instance_uid
    known = here.received.get(uid)
    if uid in here.made or (known is not None and known.own):
        report.own += 1
        return False
    if one.sop_class_uid is not None and one.sop_class_uid not in STORAGE_CLASSES:
        report.other += 1
        return False
    if known is not None and known.file_state is FileState.KEPT:
        report.here += 1
        return False
    given_up = known is not None and known.file_state is not FileState.LOST
    if (given_up or (known is None and uid in here.quarantined)) and not again:
        report.here += 1
        return False
    return True


def _with_outcome(plan: Plan) -> Plan:
    if not plan.is_empty:
        plan.report.outcome = Outcome.WOULD_TAKE
    return plan
