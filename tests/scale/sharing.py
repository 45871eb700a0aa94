"""A machine's cores, shared by what runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import simpy

_DONE_S = 1e-9  # what is left of a job by rounding


@dataclass(eq=False, slots=True)
class _Job:
    done: simpy.Event
    left_s: float  # core seconds
    most: float  # cores that it can use at once
    weight: float
    rate: float = 0.0


class Cores:
    """So many cores; jobs share them by weight, none uses more than it can.

    Parameters
    ----------
    number
        Of cores; a fraction is one that other work has a part of.
    """

    def __init__(self, env: simpy.Environment, number: float) -> None:
        self._env = env
        self._number = number
        self._jobs: list[_Job] = []
        self._seen_s = 0.0
        self._turn = 0
        self.busy_s = 0.0  #: core seconds that were used

    def work(self, seconds: float, *, most: float = 1.0, weight: float = 1.0) -> simpy.Event:
        """An event at the end of so many core seconds of work."""
        done = self._env.event()
        if seconds <= 0:
            return done.succeed()
        self._advance()
        self._jobs.append(_Job(done=done, left_s=seconds, most=most, weight=weight))
        self._plan()
        return done

    def _advance(self) -> None:
        passed_s = self._env.now - self._seen_s
        self._seen_s = self._env.now
        for job in self._jobs:
            job.left_s -= job.rate * passed_s
            self.busy_s += job.rate * passed_s

    def _plan(self) -> None:
        if not self._jobs:
            return
        share(self._jobs, self._number)
        self._turn += 1
        next_s = min(job.left_s / job.rate for job in self._jobs)
        self._env.process(self._wait(max(0.0, next_s), self._turn))

    def _wait(self, seconds: float, turn: int) -> simpy.events.ProcessGenerator:
        yield self._env.timeout(seconds)
        if turn != self._turn:
            return  # something came or ended meanwhile
        self._advance()
        ended = [job for job in self._jobs if job.left_s <= _DONE_S]
        self._jobs = [job for job in self._jobs if job.left_s > _DONE_S]
        for job in ended:
            job.done.succeed()
        self._plan()


def share(jobs: Sequence[_Job], number: float) -> None:
    """Give each job its part: by weight, and what one cannot use goes to the others."""
    if sum(job.most for job in jobs) <= number:
        for job in jobs:
            job.rate = job.most
        return
    open_jobs = list(jobs)
    left = number
    while open_jobs:
        each = left / sum(job.weight for job in open_jobs)
        full = [job for job in open_jobs if each * job.weight >= job.most]
        if not full:
            for job in open_jobs:
                job.rate = each * job.weight
            return
        for job in full:
            job.rate = job.most
            left -= job.most
        open_jobs = [job for job in open_jobs if each * job.weight < job.most]


__all__ = ["Cores", "share"]
