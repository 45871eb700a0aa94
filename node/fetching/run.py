"""The fetch itself: study after study, gently, and to its end whatever happens in between."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

import structlog

from node.delivery.pauses import growing_pause
from node.doors.taking import OpenIntake
from node.fetching.limits import Hours, Pace
from node.fetching.model import (
    Answers,
    Archive,
    Asker,
    FoundStudy,
    Got,
    Outcome,
    Question,
    RefusedError,
    Request,
    StudyReport,
    UnreachableError,
    Wish,
)
from node.fetching.plan import Plan, make_plan
from node.fetching.receiving import Receiver
from node.sections import DeliverySettings
from node.watch import study_key
from storage import catalog
from storage.database import DatabaseError

log = structlog.get_logger(__name__)

_TRIES = 4  # at an archive that cannot be reached
_PASSING_S = 0.1  # after a study of which nothing was fetched
_LOOK_EVERY_S = 5.0  # at what holds the fetch back; far below the quiet time of a study
_LONGEST_REFUSAL_S = 3600.0  # of our own disk
_IN_VAIN = 3  # single instances, one after another, after which the rest of a study is left
_REASONS_SAID = 3
Result = TypeVar("Result")


class Broken(Exception):  # noqa: N818 - what it says is not always an error
    """The fetch has come to an end before its time: the archive is down, or our disk is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How gently, how much, and when.

    ``limit``: studies that are fetched; ``queue_below``: clips that may wait here; ``pause_s``:
    between two studies; ``tries``: at an archive that cannot be reached, and ``refusal_s``: how
    long our own disk may refuse, None: for ever.
    """

    limit: int | None = None
    hours: Hours | None = None
    queue_below: int | None = 500
    pause_s: float = 2.0
    again: bool = False
    dry_run: bool = False
    tries: int | None = _TRIES
    refusal_s: float | None = _LONGEST_REFUSAL_S


class Watcher(Protocol):
    """Is told how it goes."""

    def asked(self, question: str, found: int) -> None:
        """A query was answered."""
        ...  # pragma: no cover

    def begins(self, plan: Plan) -> None:
        """A study is fetched now."""
        ...  # pragma: no cover

    def took(self, size_bytes: int) -> None:
        """An object was taken."""
        ...  # pragma: no cover

    def ended(self, report: StudyReport) -> None:
        """A study has come to its end."""
        ...  # pragma: no cover

    def waits(self, why: str, wait_s: float | None) -> None:
        """The fetch holds itself back; None: until something changes."""
        ...  # pragma: no cover


@dataclass(kw_only=True, slots=True)
class Summary:
    """What the fetch did."""

    studies: list[StudyReport] = field(default_factory=list)
    questions: int = 0
    dropped: int = 0  #: answers that were none to the question
    not_there: list[str] = field(default_factory=list)  #: studies that the archive does not have
    troubles: list[str] = field(default_factory=list)  #: questions that were not answered
    cut_short: bool = False  #: by the limit

    @property
    def reasons(self) -> Counter[str]:
        """Why something did not come, each with the number of studies."""
        return Counter(reason for one in self.studies for reason in set(one.reasons))

    @property
    def is_whole(self) -> bool:
        """Whether all came that was to come."""
        return not self.troubles and not any(one.outcome is Outcome.PARTLY for one in self.studies)


class Fetch:
    """A fetch from one archive.

    Parameters
    ----------
    archive
        Where from; its ``receiver`` is set here.
    opened
        The way in.
    receiver, pace
        What takes the objects, and how fast.
    node_runs
        Whether a node works off what waits: without one, nobody waits for the queue.
    pauses
        Of tries at an archive that cannot be reached.
    sleep, clock
        For tests; the clock gives the time here, with its zone.
    """

    def __init__(
        self,
        archive: Archive,
        opened: OpenIntake,
        receiver: Receiver,
        pace: Pace,
        terms: Terms,
        watcher: Watcher,
        *,
        node_runs: Callable[[], bool] = lambda: True,
        pauses: DeliverySettings | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
    ) -> None:
        self._archive = archive
        self._opened = opened
        self._receiver = receiver
        self._pace = pace
        self._terms = terms
        self._watcher = watcher
        self._node_runs = node_runs
        self._pauses = pauses or DeliverySettings()
        self._sleep = sleep
        self._clock = clock
        self._in_vain = 0
        self.summary = Summary()

    def run(self, wish: Wish) -> Summary:
        """Fetch what is wished for. What was done until an exception is in ``summary``.

        Raises
        ------
        Broken
            If the archive cannot be reached after some tries, or nothing can be kept here.
        FetchError
            If there is no way to fetch from it.
        DatabaseError, FileStoreError
            If the node's own rows or files cannot be used.
        """
        for study in self._studies(wish):
            if self._terms.limit is not None and self._fetched() >= self._terms.limit:
                self.summary.cut_short = True
                break
            if self.summary.studies:
                self._sleep(self._pause_s(self.summary.studies[-1]))
            self.study(study, wish.modalities)
        return self.summary

    def find(self, question: Question) -> Answers[FoundStudy]:
        """What the archive answers, once it can be reached.

        Raises
        ------
        RefusedError
            If it will not answer.
        Broken, FetchError
            As with :meth:`run`.
        """
        return self._persist(partial(_studies_for, question))

    def _pause_s(self, last: StudyReport) -> float:
        """A fetch that goes on passes over what is here without the whole pause."""
        moved = last.outcome in (Outcome.TAKEN, Outcome.PARTLY)
        return self._terms.pause_s if moved else min(self._terms.pause_s, _PASSING_S)

    def _fetched(self) -> int:
        return sum(one.outcome is not Outcome.COMPLETE for one in self.summary.studies)

    def _studies(self, wish: Wish) -> Iterator[FoundStudy]:
        """The studies wished for, each once, asked for as they are needed."""
        seen: set[str] = set()
        for question in wish.questions():
            self._hold_back(queue=False)
            try:
                answers = self.find(question)
            except RefusedError as error:
                self.summary.troubles.append(f"{question}: {error}")
                log.warning("question-refused", archive=self._archive.name, reason=str(error))
                continue
            self.summary.questions += 1
            self.summary.dropped += answers.dropped
            self._watcher.asked(str(question), len(answers.found))
            if question.study_instance_uid is not None and not answers.found:
                self.summary.not_there.append(question.study_instance_uid)
            for study in answers.found:
                if study.study_instance_uid not in seen:
                    seen.add(study.study_instance_uid)
                    yield study

    def _persist(self, ask: Callable[[Asker], Result]) -> Result:
        """Ask, with growing pauses where the archive cannot be reached, a few times."""
        while True:
            try:
                with self._archive.asking() as asker:
                    answer = ask(asker)
            except UnreachableError as error:
                self._wait_after(error)
            else:
                self._in_vain = 0
                return answer

    def _wait_after(self, error: UnreachableError) -> None:
        self._in_vain += 1
        log.warning("archive-not-reached", archive=self._archive.name, reason=str(error))
        tries = self._terms.tries
        if tries is not None and self._in_vain >= tries:
            raise Broken(f"{error}; given up after {tries} tries") from error
        pause_s = growing_pause(self._pauses, self._in_vain).total_seconds()
        pause_s = max(pause_s, error.after_s or 0.0)
        self._watcher.waits(str(error), pause_s)
        self._sleep(pause_s)

    def study(self, study: FoundStudy, modalities: Sequence[str] = ()) -> StudyReport:
        """Fetch what is missing of one study; raises as :meth:`run` does."""
        uid = study.study_instance_uid
        with self._opened.database.read() as session:
            here = catalog.study_here(session, uid)
        plan = self._persist(
            lambda asker: make_plan(
                asker, study, here, modalities=modalities, again=self._terms.again
            )
        )
        report = plan.report
        self.summary.studies.append(report)
        if not plan.is_empty and not self._terms.dry_run:
            report.outcome = Outcome.PARTLY  # until it is known that it is not
            self._hold_back()
            self._watcher.begins(plan)
            to_its_end = False
            try:
                self._take(plan)
                to_its_end = True
            finally:
                self._count(plan, to_its_end=to_its_end)
        self._watcher.ended(report)
        return report

    def _take(self, plan: Plan) -> None:
        """All of a study in pieces, and what did not come once more, one by one."""
        wanted = None if plan.series or plan.whole else [o.sop_instance_uid for o in plan.objects]
        self._receiver.begin(plan.study.study_instance_uid, wanted)
        failed = self._attempt(plan, plan.requests(self._archive.batch))
        left = [one for one in plan.objects if one.sop_instance_uid not in self._receiver.settled]
        again = [
            Request(
                study_instance_uid=plan.study.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                objects=(one.sop_instance_uid,),
            )
            for one in left
        ]
        if again or failed:
            plan.report.reasons.clear()  # told anew where they stay
            self._attempt(plan, [*again, *failed])

    def _attempt(self, plan: Plan, requests: Iterable[Request]) -> list[Request]:
        """Ask for pieces. Gives what is worth asking for again where no instances are listed."""
        report, again = plan.report, list[Request]()
        requests = list(requests)
        done = in_vain = 0
        try:
            with self._archive.getting(plan.sop_classes) as getter:
                self._in_vain = 0
                for request in requests:
                    self._before_request(plan.study.study_instance_uid)
                    before = len(self._receiver.settled)
                    got = getter.get(request)
                    done += 1
                    if got.trouble:
                        report.reasons.append(got.trouble)
                        if not request.objects:
                            again.append(_failed_ones(request, got))
                    in_vain = 0 if len(self._receiver.settled) > before else in_vain + 1
                    if in_vain >= _IN_VAIN:
                        break
        except UnreachableError as error:
            report.reasons.append(str(error))
            self._wait_after(error)
            again += [one for one in requests[done:] if not one.objects]
        return again

    def _before_request(self, study_instance_uid: str) -> None:
        """Wait for what the pace owes and the disk allows, with the study kept open meanwhile."""
        refused_s = 0.0
        while True:
            refusing = self._opened.refusing()
            if refusing is not None:
                if refused_s == 0.0:
                    self._watcher.waits(f"here {refusing}", None)
                self._check_patience(refused_s, refusing)
                refused_s += _LOOK_EVERY_S
                self._sleep(_LOOK_EVERY_S)
            elif self._pace.owed_s > 0:
                self._pace.wait(_LOOK_EVERY_S)
            else:
                return
            with suppress(DatabaseError), self._opened.database.write() as session:
                catalog.more_to_come(session, study_instance_uid, datetime.now(UTC))

    def _check_patience(self, refused_s: float, refusing: str) -> None:
        if self._terms.refusal_s is not None and refused_s >= self._terms.refusal_s:
            raise Broken(self._why_refused(refusing))

    def _why_refused(self, refusing: str) -> str:
        trouble = self._opened.trouble()
        return f"here {refusing}" if trouble is None else f"{trouble.words}; {trouble.next_step}"

    def _hold_back(self, *, queue: bool = True) -> None:
        """Wait between two studies: for the hours, for our own queue, for our own disk."""
        told, refused_s = "", 0.0
        while (why := self._why_not_now(queue=queue)) is not None:
            words, wait_s = why
            if words.partition(":")[0] != told:
                told = words.partition(":")[0]
                self._watcher.waits(words, wait_s)
            if wait_s is None:
                refused_s += _LOOK_EVERY_S
                if self._opened.refusing() is not None:
                    self._check_patience(refused_s, words)
            self._sleep(min(wait_s or _LOOK_EVERY_S, 60.0))

    def _why_not_now(self, *, queue: bool) -> tuple[str, float | None] | None:
        if self._terms.dry_run:
            return None
        if self._terms.hours is not None:
            wait_s = self._terms.hours.wait_s(self._clock())
            if wait_s > 0:
                return f"until {self._terms.hours.begin:%H:%M}, when the hours begin", wait_s
        refusing = self._opened.refusing()
        if refusing is not None:
            return f"here {refusing}", None
        if queue and self._terms.queue_below is not None and self._node_runs():
            with self._opened.database.read() as session:
                waiting = catalog.count_waiting(session)
            if waiting >= self._terms.queue_below:
                return f"clips wait here to be analysed: {waiting}", None
        return None

    def _count(self, plan: Plan, *, to_its_end: bool) -> None:
        """What came of a study, and what did not."""
        report, receiver = plan.report, self._receiver
        report.taken = len(receiver.kept) - receiver.repeated
        report.refused = len(receiver.refused)
        report.size_bytes = receiver.size_bytes
        report.sop_classes = tuple(receiver.classes)
        report.reasons += [f"in quarantine: {why}" for why in set(receiver.refused.values())]
        if not to_its_end:
            report.reasons.append("it was stopped in the middle")
        if receiver.unasked:
            report.reasons.append("it sent what was not asked for")
        if report.wanted is not None:
            listed = {one.sop_instance_uid for one in plan.objects}
            report.missing = len(listed - receiver.settled)
            if report.missing and not report.reasons:
                report.reasons.append("it did not send what it lists")
            whole = not report.missing and not report.refused
        else:
            whole = not report.reasons
        report.reasons = list(dict.fromkeys(report.reasons))[:_REASONS_SAID]
        if whole and to_its_end:
            report.reasons = []
            report.outcome = Outcome.TAKEN
            self._opened.released([plan.study.study_instance_uid])
        log.info(
            "study-fetched",
            study=study_key(plan.study.study_instance_uid),
            archive=self._archive.name,
            way=self._archive.way,
            taken=report.taken,
            missing=report.missing,
            size_bytes=report.size_bytes,
        )


def _studies_for(question: Question, asker: Asker) -> Answers[FoundStudy]:
    return asker.studies(question)


def _failed_ones(request: Request, got: Got) -> Request:
    """What to ask for again of a series or study: where the archive names them, these alone."""
    if request.series_instance_uid is None or not got.failed:
        return request
    return replace(request, objects=got.failed)
