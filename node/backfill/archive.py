"""A backfill out of an archive: asked and fetched as :mod:`node.fetching` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

from node.backfill.model import Came
from node.fetching.model import FoundStudy, Outcome, Question, StudyReport
from node.fetching.plan import Plan
from node.fetching.run import Fetch, Terms
from storage.catalog import BackfilledStudy

#: Over weeks an archive is away now and then, and our disk is full: both are waited for.
PATIENT = Terms(tries=None, refusal_s=None, queue_below=None, pause_s=0.0)


class ArchiveSource:
    """See :class:`node.backfill.model.Source`.

    Parameters
    ----------
    fetch
        On :data:`PATIENT` terms: hours and queue are heeded between studies, by the backfill.
    modalities
        Of the series that are wanted; none: of all.
    """

    def __init__(self, fetch: Fetch, modalities: tuple[str, ...]) -> None:
        self._fetch = fetch
        self._modalities = modalities

    def look_through(self) -> None:
        """Nothing: an archive is asked day by day."""

    def find(self, day: date | None) -> Mapping[str, int | None]:
        """The studies of a day; one question for each modality."""
        found: dict[str, int | None] = {}
        for modality in self._modalities or (None,):
            answers = self._fetch.find(Question(day=day, modality=modality))
            for study in answers.found:
                found.setdefault(study.study_instance_uid, study.instances)
        return found

    def take(self, study: BackfilledStudy) -> Came:
        """What is missing here, as `echonode fetch` would."""
        wanted = FoundStudy(
            study_instance_uid=study.study_instance_uid,
            study_date=study.day,
            instances=study.listed,
        )
        report = self._fetch.study(wanted, self._modalities)
        return Came(
            whole=report.outcome in (Outcome.TAKEN, Outcome.COMPLETE),
            reason="; ".join(report.reasons),
            taken=report.taken,
            sop_classes=report.sop_classes,
        )


class Listener:
    """What a fetch tells, for whoever watches the backfill.

    Parameters
    ----------
    says, waits
        Told what goes on, and why nothing does.
    """

    def __init__(self, says: Callable[[str], None], waits: Callable[[str], None]) -> None:
        self._says = says
        self._waits = waits
        self._name = ""
        self._taken = self._bytes = 0

    def asked(self, question: str, found: int) -> None:
        """A query was answered."""
        self._says(f"{question}: {found} studies")

    def begins(self, plan: Plan) -> None:
        """A study is fetched now."""
        self._name = f"{plan.report.study.study_date or 'no date'}"
        self._taken = self._bytes = 0

    def took(self, size_bytes: int) -> None:
        """An object was taken."""
        self._taken += 1
        self._bytes += size_bytes
        self._says(
            f"fetches a study of {self._name}: {self._taken} objects, {self._bytes / 1e6:.1f} MB"
        )

    def ended(self, report: StudyReport) -> None:
        """The backfill says so itself."""

    def waits(self, why: str, wait_s: float | None) -> None:
        """The fetch holds itself back."""
        self._waits(why if wait_s is None else f"{why} (again in {wait_s:.0f} s)")
