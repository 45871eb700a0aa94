"""The model beside what a real node did, in runs from which it has none of its figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.load import COURSES
from tests.scale.constants import Constants
from tests.scale.model import ClipLoad, Outcome, Plant, StudyLoad, Times, simulate

_A4C_FRAMES = 30
_WAITING = ("to_view", "queued", "received")
JUDGED = {"burst": "alone", "stream": "alone-stream"}
"""The runs that judge, each with the one from which the model has how fast a core was then."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One run: what was measured and what the model says of the same arrivals."""

    name: str
    words: str
    pace: float  #: of a worker's core in that hour, beside the processor time of work.json
    measured_waits_s: tuple[float, ...]
    simulated_waits_s: tuple[float, ...]
    traced_waits_s: tuple[float, ...]  #: simulated with the time that each clip really took
    measured_queue: tuple[tuple[float, float], ...]  #: (seconds, clips that wait)
    simulated_queue: tuple[tuple[float, float], ...]  #: at the same moments

    def figures(self) -> dict[str, tuple[float, float]]:
        """Measured and simulated, of each thing that is compared."""
        ours, theirs = self.measured_waits_s, self.simulated_waits_s
        queue = [number for _, number in self.measured_queue]
        other = [number for _, number in self.simulated_queue]
        return {
            "last image to report at the archive, median, s": (
                statistics.median(ours),
                statistics.median(theirs),
            ),
            "the same, 95 of 100, s": (percentile(ours, 95), percentile(theirs, 95)),
            "clips that wait, mean over the run": (
                statistics.fmean(queue),
                statistics.fmean(other),
            ),
            "clips that wait, most": (max(queue), max(other)),
        }


def times(constants: Constants) -> Times:
    """Of one machine with rows in SQLite."""
    return Times(
        association_s=constants.association_s,
        object_s=constants.object_s,
        byte_s=constants.byte_s,
        receiving_cores=constants.receiving_cores,
        claim_s=constants.dispatch_s,
        outcome_s=constants.dispatch_s,
        report_s=constants.report_s,
        delivery_s=constants.delivery_s,
    )


def machine(constants: Constants) -> Plant:
    """That which was measured: a worker a core, all on it."""
    return Plant(times=times(constants), cores=constants.cores, workers=constants.cores)


def judge(constants: Constants, name: str, courses: Path = COURSES) -> Judged:
    """One run."""
    course = json.loads((courses / f"{name}.json").read_text())
    scenario, studies = course["scenario"], course["studies"]
    loads = loads_of(constants, course)
    pace = pace_of(constants, json.loads((courses / f"{JUDGED[name]}.json").read_text()))
    outcome = simulate(replace(machine(constants), pace=pace), loads)
    measured_queue = tuple(
        (look["at_s"], sum(look.get(state, 0.0) for state in _WAITING))
        for look in course["waiting"]
    )
    return Judged(
        name=name,
        pace=pace,
        words=f"{len(studies)} studies of {scenario['a4c'] + scenario['others']} clips, "
        f"{scenario['a4c']} of them A4C, {scenario['words']}",
        measured_waits_s=tuple(each["at_archive_s"] - each["last_image_s"] for each in studies),
        simulated_waits_s=tuple(each.wait_s for each in outcome.studies),
        traced_waits_s=_traced(constants, course, pace),
        measured_queue=measured_queue,
        simulated_queue=at_moments(outcome, [at_s for at_s, _ in measured_queue]),
    )


def _traced(constants: Constants, course: Mapping[str, Any], pace: float) -> tuple[float, ...]:
    """The waits, where a worker is at each clip as long as it was; () where nobody noted that."""
    took = [each.get("analyses_s", ()) for each in course["studies"]]
    if not all(took):
        return ()
    loads = []
    for load, seconds in zip(loads_of(constants, course), took, strict=True):
        left = list(seconds)
        clips = tuple(
            replace(
                clip,
                view_s=clip.view_s / pace,
                analysis_s=left.pop(0) if clip.analysis_s and left else clip.analysis_s,
            )
            for clip in load.clips
        )
        loads.append(replace(load, clips=clips))
    plant = replace(machine(constants), workers_apart=True)
    return tuple(each.wait_s for each in simulate(plant, loads).studies)


def pace_of(constants: Constants, course: Mapping[str, Any]) -> float:
    """How fast a core was: so that studies that come one at a time are read as fast as they were.

    The machine had other work beside it, and no two hours were alike.
    """
    measured_s = statistics.median(
        each["analysed_s"] - each["last_image_s"] for each in course["studies"]
    )
    least, most = 0.1, 4.0
    for _ in range(20):
        pace = (least + most) / 2
        plant = replace(machine(constants), pace=pace)
        outcome = simulate(plant, loads_of(constants, course))
        took_s = statistics.median(each.analysed_s - each.last_image_s for each in outcome.studies)
        least, most = (pace, most) if took_s > measured_s else (least, pace)
    return round((least + most) / 2, 3)


def loads_of(constants: Constants, course: Mapping[str, Any]) -> list[StudyLoad]:
    """The studies of a run, as they came."""
    scenario, studies = course["scenario"], course["studies"]
    a4c, others = scenario["a4c"], scenario["others"]
    size = course["bytes"] // (len(studies) * (a4c + others))
    whole = small_a4c(constants, size)
    clips: list[ClipLoad] = [whole] * a4c
    for number in range(others):
        clips.insert((number * 7) % len(clips), small_other(constants, size))
    return [StudyLoad(at_s=max(0.0, each["opened_s"]), clips=tuple(clips)) for each in studies]


def small_a4c(constants: Constants, size: int) -> ClipLoad:
    """The real cine of thirty frames."""
    return ClipLoad(
        bytes=size,
        view_s=constants.small_view(_A4C_FRAMES),
        analysis_s=constants.analysis(_A4C_FRAMES),
        picture_s=constants.picture(_A4C_FRAMES),
    )


def small_other(constants: Constants, size: int) -> ClipLoad:
    """A simulated clip of another view."""
    return ClipLoad(bytes=size, view_s=constants.other_view_s)


def study_of_sixty(constants: Constants, pace: float, size: int = 660_000) -> Outcome:
    """What the benchmark of a study does: 60 clips on one association, four of them A4C."""
    clips = [small_a4c(constants, size)] * 4
    for number in range(56):
        clips.insert((number * 7) % len(clips), small_other(constants, size))
    plant = replace(machine(constants), pace=pace)
    return simulate(plant, [StudyLoad(at_s=0.0, clips=tuple(clips))])


def at_moments(outcome: Outcome, moments: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """How many clips waited at some moments, which are in order."""
    found, place = [], 0
    for moment in moments:
        while place + 1 < len(outcome.waiting) and outcome.waiting[place + 1][0] <= moment:
            place += 1
        found.append((moment, float(outcome.waiting[place][1])))
    return tuple(found)


def percentile(figures: Sequence[float], percent: float) -> float:
    """By rank, between the two nearest."""
    ordered = sorted(figures)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
