"""The states of a study, and what moves them.

receiving -> analysing -> reporting -> delivering -> done; beside them held, ignored and failed.
A state changes in one transaction together with a line of the study's timeline (the catalog does
both); this module decides when.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

import structlog

from node.reporting import Report, Reporter, StudyMaterial, study_material
from node.results import ResultError
from node.results.store import FaultyResultError
from node.sections import StudySettings
from node.watch import study_key
from storage import catalog
from storage.database import Database
from storage.files import FileStoreError

log = structlog.get_logger(__name__)


class Lifecycle:
    """Moves studies on.

    Parameters
    ----------
    reporter
        Makes a study's results when all its recordings have been looked at.
    destinations
        Where results go, by name.
    analysable
        Called when recordings were queued.
    refusing
        While it gives a reason, no results are made: they could not be kept.
    stage_took, ended
        Told how long steps took, and what came of studies.
    holder
        What this node's claims bear now: see :mod:`node.membership`.
    """

    def __init__(
        self,
        database: Database,
        settings: StudySettings,
        reporter: Reporter,
        destinations: Sequence[str],
        *,
        analysable: Callable[[], None] = lambda: None,
        refusing: Callable[[], str | None] = lambda: None,
        stage_took: Callable[[str, float], None] = lambda _stage, _seconds: None,
        ended: Callable[[str], None] = lambda _outcome: None,
        holder: Callable[[], str] = lambda: "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._settings = settings
        self._reporter = reporter
        self._destinations = tuple(destinations)
        self._analysable = analysable
        self._refusing = refusing
        self._stage_took = stage_took
        self._ended = ended
        self._holder = holder
        self._clock = clock
        self._reporting = threading.Lock()

    def released(self, study_uids: frozenset[str]) -> None:
        """An association that brought these studies has ended properly."""
        uids, at = sorted(study_uids), self._clock()
        self._database.together(lambda rows: catalog.note_release(rows, uids, at))

    def complete_quiet(self) -> int:
        """Begin the analysis of every study that has been quiet for long enough."""
        with self._database.read() as session:
            complete = catalog.studies_to_complete(
                session,
                self._clock(),
                quiet_s=self._settings.quiet_s,
                released_quiet_s=self._settings.released_quiet_s,
                max_age_s=self._settings.max_age_s,
            )
        for study in complete:
            key = study_key(study.study_instance_uid)
            try:
                with self._database.write() as session:
                    catalog.begin_analysis(session, study.study_id, study.reason)
            except catalog.CatalogError as error:
                # An operator held it a moment ago: it waits for the release.
                log.info("study-not-begun", study=key, reason=str(error))
                continue
            log.info("study-complete", study=key, reason=study.reason)
        if complete:
            self._analysable()
        return len(complete)

    def report_ready(self) -> int:
        """Report every study whose recordings have all been looked at."""
        if self._refusing() is not None:
            return 0
        tried: set[int] = set()
        with self._reporting:  # a study is reported by one thread, and by one node
            while ready := self._claim(tried):
                for study in ready:
                    tried.add(study.study_id)
                    if not self._report(study):
                        self._put_back(study)
        return len(tried)

    def _claim(self, but_not: Collection[int]) -> tuple[catalog.ReportableStudy, ...]:
        """Also those whose report a stop of a node interrupted."""
        holder = self._holder()
        with self._database.read() as session:
            if not catalog.anything_to_report(session, holder=holder):
                return ()
        with self._database.write() as session:
            return catalog.claim_reports(session, holder=holder, but_not=but_not)

    def _put_back(self, study: catalog.ReportableStudy) -> None:
        with self._database.write() as session:
            catalog.put_back_report(session, study.study_id, holder=study.holder)

    def _report(self, study: catalog.ReportableStudy) -> bool:
        """Make and keep a study's results; False where that has to wait."""
        key = study_key(study.study_instance_uid)
        began = time.monotonic()
        with self._database.read() as session:
            material = study_material(session, study)
            last_image_at = catalog.find_study(session, study.study_instance_uid).last_image_at
        try:
            report = self._reporter.report(material)
        except ResultError as error:
            log.error("report-refused", study=key, reason=str(error))  # noqa: TRY400 - says all
            report = Report(failed=f"the report could not be made: {error}")
            if isinstance(error, FaultyResultError):
                self._quarantine(error)
        except FileStoreError as error:
            # The disk is full, or not there: the study stays where it is, and the next turn comes.
            log.error("report-waits", study=key, reason=str(error))  # noqa: TRY400 - says all
            return False
        except Exception as error:
            # The edge of a study: one that cannot be reported must not keep others waiting.
            report = Report(failed=self._why_failed(material, error))
            if report.failed is None:
                log.warning("report-waits", study=key, reason="the store cannot be read")
                return False
            log.exception("report-failed", study=key, reason=report.failed)
        for faulty in report.faulty:
            self._quarantine(faulty)
        try:
            self._conclude(study, report)
        except catalog.RevisionSupersededError as error:
            # A late image came while the report was made: the next revision has all of it.
            log.info("report-superseded", study=key, reason=str(error))
            return True
        except catalog.ClaimLostError as error:
            log.warning("report-dropped", study=key, reason=str(error))
            return True
        self._count(report, time.monotonic() - began, last_image_at)
        log.info(
            "study-reported",
            study=key,
            revision=study.revision,
            results=len(report.results),
            ignored=report.ignored,
            failed=report.failed,
        )
        return True

    def _count(self, report: Report, took_s: float, last_image_at: datetime) -> None:
        if report.ignored is not None:
            self._ended("ignored")
        elif report.failed is not None:
            self._ended("failed")
        else:
            self._ended("reported")
            self._stage_took("report", took_s)
            self._stage_took("study", (self._clock() - last_image_at).total_seconds())

    def _why_failed(self, material: StudyMaterial, error: Exception) -> str | None:
        """Why a report could not be made; None where the store could not be read, and it waits."""
        try:
            gone = self._reporter.missing(material)
        except FileStoreError:
            return None
        if gone:
            return (
                f"the report could not be made: the files of {gone} of its {material.counted}s "
                "are gone; send the study again"
            )
        return f"the report could not be made: {type(error).__name__}; see the node's log"

    def _quarantine(self, error: FaultyResultError) -> None:
        """Let an operator see the object that was not sent; it can be exported and looked at."""
        with self._database.write() as session:
            catalog.quarantine_result(session, error.quarantined)

    def _conclude(self, study: catalog.ReportableStudy, report: Report) -> None:
        with self._database.write() as session:
            if report.ignored is not None:
                catalog.ignore_study(
                    session,
                    study.study_id,
                    report.ignored,
                    revision=study.revision,
                    holder=study.holder,
                )
            elif report.failed is not None:
                catalog.fail_study(
                    session,
                    study.study_id,
                    report.failed,
                    f"mend the reason, then `echonode retry {study.study_instance_uid}`",
                    revision=study.revision,
                    holder=study.holder,
                )
            else:
                catalog.add_results(
                    session,
                    study.study_id,
                    study.revision,
                    report.results,
                    [
                        name
                        for name in self._destinations
                        if report.destinations is None or name in report.destinations
                    ],
                    decided_by=report.decided_by,
                    holder=study.holder,
                )
