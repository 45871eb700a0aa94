"""Studies on their way through nodes, in simulated time.

What a node does by a tick is done by a tick here, what it does in one thread is done one after
another, and who goes first is who goes first there: clips whose study is complete before those
that are read ahead, and of equals the one that waits longest. Random is only what comes in.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import simpy

from tests.scale.sharing import Cores

_TICK_S = 1.0  # of the node's clock, and of the dispatcher where nobody wakes it
_BATCH = 4  # studies that a node claims at once to report them
Process = simpy.events.ProcessGenerator


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipLoad:
    """One clip, or several alike that are handled as one (``number``)."""

    bytes: int
    view_s: float  #: core seconds of a worker, for all of them
    analysis_s: float = 0.0  #: of those that are A4C; 0 for none
    picture_s: float = 0.0  #: of the node's dispatcher
    number: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyLoad:
    """A study, and when its association opens."""

    at_s: float
    clips: tuple[ClipLoad, ...]
    site: int = 0  #: whose archive gets the report


@dataclass(frozen=True, kw_only=True)
class Times:
    """What the steps take on the machine that was measured."""

    association_s: float = 0.0  #: to open one
    object_s: float = 0.0  #: of one association at its own pace, for an object
    byte_s: float = 0.0  #: and for each byte
    receiving_cores: float = 1.0  #: that sender and node use together meanwhile
    claim_s: float = 0.0  #: of the dispatcher's thread
    outcome_s: float = 0.0  #: the same, but for the turn of a shared database
    report_s: float = 0.0  #: of one thread of the node
    delivery_s: float = 0.0  #: of one study's results, from their being due to the report's arrival
    turn_s: float = 0.0  #: of a shared database, for a transaction: it does one after the other


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What there is."""

    times: Times
    nodes: int = 1
    cores: float = 2.0  #: of each node
    workers: int = 2
    workers_apart: bool = False  #: a core of its own for each, not the node's
    worker_weight: float = 110 / 1024  #: workers step back (nice 10) where they share cores
    pace: float = 1.0  #: how many times as fast as the measured core a worker's is
    quiet_s: float = 10.0
    line_bytes_s: float = math.inf  #: of one association
    shared_database: bool = False
    sites: int = 1  #: archives
    losses: tuple[tuple[float, int], ...] = ()  #: when how many workers are gone for good


@dataclass(slots=True)
class Course:
    """How far a study came, in seconds; NaN where it did not."""

    opened_s: float
    clips: int
    a4c: int
    last_image_s: float = math.nan
    analysed_s: float = math.nan
    reported_s: float = math.nan
    at_archive_s: float = math.nan

    @property
    def wait_s(self) -> float:
        """From the last image to the report in the archive."""
        return self.at_archive_s - self.last_image_s


@dataclass
class Outcome:
    """What came of it."""

    studies: list[Course]
    until_s: float  #: when the last report was at its archive
    waiting: list[tuple[float, int]]  #: when so many clips waited
    waited_s: float  #: of all clips together
    waits: int  #: how many clips waited, each time they did
    worker_busy_s: float
    node_busy_s: float  #: core seconds of all nodes, their own workers' not counted
    turn_busy_s: float
    turns: int
    longest_turn_queue: int
    dispatch_busy_s: float
    report_busy_s: float
    delivery_busy_s: float


@dataclass(eq=False, slots=True)
class _Clip:
    study: _Study
    load: ClipLoad
    analyse: bool = False
    queued_s: float = 0.0
    key: int = 0  # of its place in the queue; an older place is void
    ended: bool = False
    busy: bool = False


@dataclass(eq=False, slots=True)
class _Study:
    load: StudyLoad
    course: Course
    clips: list[_Clip] = field(default_factory=list)
    open_clips: int = 0
    complete: bool = False


class _Queue:
    """The rows, in their order."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._heap: list[tuple[bool, float, int, _Clip]] = []
        self._keys = count(1)
        self.length = 0
        self.seen: list[tuple[float, int]] = [(0.0, 0)]
        self.waited_s = 0.0
        self.waits = 0

    def put(self, clip: _Clip) -> None:
        """A clip waits from now on."""
        clip.queued_s = self._env.now
        self._push(clip)
        self._count(clip.load.number)

    def promote(self, clip: _Clip) -> None:
        """Its study is complete: it is no longer read ahead but in its turn."""
        self._push(clip)

    def take(self) -> _Clip | None:
        """The next one."""
        while self._heap:
            _, _, key, clip = heapq.heappop(self._heap)
            if clip.key == key:
                clip.key = 0
                self._count(-clip.load.number)
                self.waited_s += clip.load.number * (self._env.now - clip.queued_s)
                self.waits += clip.load.number
                return clip
        return None

    def _push(self, clip: _Clip) -> None:
        clip.key = next(self._keys)
        ahead = not clip.study.complete and not clip.analyse
        heapq.heappush(self._heap, (ahead, self._env.now, clip.key, clip))

    def _count(self, number: int) -> None:
        self.length += number
        if self.seen[-1][0] == self._env.now:
            self.seen[-1] = (self._env.now, self.length)
        else:
            self.seen.append((self._env.now, self.length))


class Simulation:
    """Nodes, their workers, a database and archives, and studies that come."""

    def __init__(self, plant: Plant, loads: Sequence[StudyLoad]) -> None:
        self.env = simpy.Environment()
        self._plant = plant
        self._times = plant.times
        self._loads = sorted(loads, key=lambda load: load.at_s)
        self._queue = _Queue(self.env)
        self._writer = simpy.Resource(self.env)
        self._nodes = [_Node(self, number) for number in range(plant.nodes)]
        self._free = plant.workers
        self._lost = 0
        self._to_report: deque[_Study] = deque()
        self._due: list[list[_Study]] = [[] for _ in range(plant.sites)]
        self._sending = [False] * plant.sites
        self._left = len(self._loads)
        self._over = self.env.event()
        self._studies: list[_Study] = []
        self._worker_busy_s = self._delivery_busy_s = 0.0
        self._turns = self._longest = 0

    def run(self) -> Outcome:
        """Until every study's report is at its archive."""
        for number, load in enumerate(self._loads):
            self.env.process(self._bring(load, self._nodes[number % len(self._nodes)]))
        for when, number in self._plant.losses:
            self.env.process(self._lose(when, number))
        if self._loads:
            self.env.run(self._over)
        return Outcome(
            studies=[study.course for study in self._studies],
            until_s=self.env.now,
            waiting=self._queue.seen,
            waited_s=self._queue.waited_s,
            waits=self._queue.waits,
            worker_busy_s=self._worker_busy_s,
            node_busy_s=sum(node.busy_s for node in self._nodes),
            turn_busy_s=self._turns * self._times.turn_s,
            turns=self._turns,
            longest_turn_queue=self._longest,
            dispatch_busy_s=sum(node.dispatch_busy_s for node in self._nodes),
            report_busy_s=sum(node.report_busy_s for node in self._nodes),
            delivery_busy_s=self._delivery_busy_s,
        )

    def write(self, transactions: int = 1) -> Process:
        """Wait for the shared database, and have it."""
        if not self._plant.shared_database or self._times.turn_s <= 0:
            return
        self._longest = max(self._longest, len(self._writer.queue))
        with self._writer.request() as turn:
            yield turn
            yield self.env.timeout(transactions * self._times.turn_s)
        self._turns += transactions

    def _lose(self, when_s: float, number: int) -> Process:
        yield self.env.timeout(when_s)
        self._lost += number
        self._free -= number

    def _bring(self, load: StudyLoad, node: _Node) -> Process:
        """An association, from its opening to the study's completion."""
        yield self.env.timeout(load.at_s)
        course = Course(
            opened_s=load.at_s,
            clips=sum(clip.number for clip in load.clips),
            a4c=sum(clip.number for clip in load.clips if clip.analysis_s > 0),
        )
        study = _Study(load, course, open_clips=len(load.clips))
        self._studies.append(study)
        yield node.receive(self._times.association_s)
        for clip_load in load.clips:
            pace_s = clip_load.number * self._times.object_s + clip_load.bytes * self._times.byte_s
            line = self.env.timeout(clip_load.bytes / self._plant.line_bytes_s)
            yield self.env.all_of([node.receive(pace_s), line])
            yield from self.write(clip_load.number)
            clip = _Clip(study, clip_load)
            study.clips.append(clip)
            self._queue.put(clip)
        course.last_image_s = self.env.now
        yield from self.write()  # that it was released
        yield from _tick(self.env, course.last_image_s + self._plant.quiet_s, node.phase_s)
        yield from self.write()
        study.complete = True
        for clip in study.clips:
            if clip.key and not clip.analyse:
                self._queue.promote(clip)
        for each in self._nodes:
            each.wake()
        self._looked_at(study)

    # What a dispatcher asks for.

    def claim(self) -> _Clip | None:
        """The next clip where a worker is free."""
        if self._free <= 0:
            return None
        clip = self._queue.take()
        if clip is not None:
            self._free -= 1
        return clip

    def at_work(self, clip: _Clip, node: _Node) -> Process:
        """A worker has it."""
        seconds = (clip.load.analysis_s if clip.analyse else clip.load.view_s) / self._plant.pace
        began = self.env.now
        if self._plant.workers_apart:
            yield self.env.timeout(seconds)
        else:
            yield node.cores.work(seconds, weight=self._plant.worker_weight)
        self._worker_busy_s += self.env.now - began
        node.finished.append(clip)
        node.wake()

    def freed(self) -> None:
        """A worker's outcome is written down."""
        self._free += 1

    def outcome(self, clip: _Clip) -> None:
        """What comes of a clip whose job has ended."""
        if not clip.analyse and clip.load.analysis_s > 0:
            clip.analyse = True
            self._queue.put(clip)
            return
        clip.study.open_clips -= 1
        self._looked_at(clip.study)

    def _looked_at(self, study: _Study) -> None:
        if study.complete and study.open_clips == 0:
            study.course.analysed_s = self.env.now
            self._to_report.append(study)
            for node in self._nodes:
                node.look()

    def next_to_report(self) -> list[_Study]:
        """What a node may report now."""
        taken = min(_BATCH, len(self._to_report))
        return [self._to_report.popleft() for _ in range(taken)]

    def reported(self, study: _Study) -> None:
        """Its results are in the outbox."""
        study.course.reported_s = self.env.now
        site = study.load.site
        self._due[site].append(study)
        if not self._sending[site]:
            self._sending[site] = True
            self.env.process(self._deliver(site))

    def _deliver(self, site: int) -> Process:
        """One archive gets one study's results after the other."""
        phase_s = self._nodes[site % len(self._nodes)].phase_s
        while self._due[site]:
            yield from _tick(self.env, self.env.now, phase_s)
            batch, self._due[site] = self._due[site], []
            for study in batch:
                yield self.env.timeout(self._times.delivery_s)
                self._delivery_busy_s += self._times.delivery_s
                yield from self.write(2 + study.course.a4c)
                study.course.at_archive_s = self.env.now
                self._left -= 1
                if self._left == 0:
                    self._over.succeed()
        self._sending[site] = False


class _Node:
    """A node's own threads and cores."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self._simulation = simulation
        self._env = simulation.env
        self._times = simulation._plant.times
        self.phase_s = _TICK_S * (number * 0.618 % 1.0)  #: clocks of nodes tick apart
        self.cores = Cores(self._env, simulation._plant.cores)
        self.finished: deque[_Clip] = deque()
        self._woken = self._env.event()
        self._reporting = False
        self.dispatch_busy_s = self.report_busy_s = self.busy_s = 0.0
        self._env.process(self._dispatch())

    def receive(self, pace_s: float) -> simpy.Event:
        """So much of an association at its own pace."""
        cores = self._times.receiving_cores
        self.busy_s += pace_s * cores
        return self.cores.work(pace_s * cores, most=cores)

    def wake(self) -> None:
        """The dispatcher has something to do."""
        if not self._woken.triggered:
            self._woken.succeed()

    def _dispatch(self) -> Process:
        while True:
            self._woken = self._env.event()
            while self.finished:
                done = self.finished.popleft()
                picture_s = done.load.picture_s if done.analyse else 0.0
                yield from self._step(done.load.number * self._times.outcome_s + picture_s)
                yield from self._simulation.write(done.load.number)
                self._simulation.freed()
                self._simulation.outcome(done)
            while (clip := self._simulation.claim()) is not None:
                yield from self._step(clip.load.number * self._times.claim_s)
                # A claim needs no turn among writers, but its part of what the server can do.
                yield from self._simulation.write(clip.load.number)
                self._env.process(self._simulation.at_work(clip, self))
            if not self.finished:
                yield self._woken | _next_tick(self._env, self.phase_s)

    def _step(self, seconds: float) -> Process:
        """What the dispatcher's one thread does for a clip."""
        if seconds <= 0:
            return
        began = self._env.now
        yield self.cores.work(seconds)
        self.busy_s += seconds
        self.dispatch_busy_s += self._env.now - began

    def look(self) -> None:
        """There is a study to report."""
        if not self._reporting:
            self._reporting = True
            self._env.process(self._report())

    def _report(self) -> Process:
        """At the next tick all that is there, one after another."""
        yield from _tick(self._env, self._env.now, self.phase_s)
        while studies := self._simulation.next_to_report():
            yield from self._simulation.write()
            for study in studies:
                began = self._env.now
                yield self.cores.work(self._times.report_s)
                self.busy_s += self._times.report_s
                yield from self._simulation.write()
                self.report_busy_s += self._env.now - began
                self._simulation.reported(study)
        self._reporting = False


def _next_tick(env: simpy.Environment, phase_s: float) -> simpy.Event:
    ticks = math.floor((env.now - phase_s) / _TICK_S + 1e-9) + 1
    return env.timeout(max(0.0, phase_s + ticks * _TICK_S - env.now))


def _tick(env: simpy.Environment, not_before_s: float, phase_s: float) -> Process:
    """Wait for the clock's first tick from a moment on."""
    ticks = math.ceil((not_before_s - phase_s) / _TICK_S)
    yield env.timeout(max(0.0, phase_s + ticks * _TICK_S - env.now))


def simulate(plant: Plant, loads: Sequence[StudyLoad]) -> Outcome:
    """What comes of so many studies in such a plant."""
    return Simulation(plant, loads).run()


__all__ = ["ClipLoad", "Course", "Outcome", "Plant", "StudyLoad", "Times", "simulate"]
