"""The model of many nodes loses no study, agrees with formulas, and its page with its files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import simpy

from tests.benchmarks.load import COURSES
from tests.scale import answers, arrivals, constants, judging, page
from tests.scale.assumptions import Assumptions, shares
from tests.scale.model import ClipLoad, Outcome, Plant, StudyLoad, Times, simulate
from tests.scale.sharing import Cores

TIMES = Times(
    association_s=0.1,
    object_s=0.01,
    byte_s=1e-8,
    receiving_cores=1.2,
    claim_s=0.005,
    outcome_s=0.005,
    report_s=0.9,
    delivery_s=0.4,
    turn_s=0.004,
)
A4C = ClipLoad(bytes=4_000_000, view_s=0.1, analysis_s=6.0, picture_s=0.05)
OTHER = ClipLoad(bytes=4_000_000, view_s=0.1)
SITES = 3


def day(studies: int, seed: int = 1, within_s: float = 600.0) -> list[StudyLoad]:
    draw = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    return [
        StudyLoad(
            at_s=draw.uniform(0, within_s),
            clips=tuple(draw.sample([A4C] * 3 + [OTHER] * 9, 12)),
            site=number % SITES,
        )
        for number in range(studies)
    ]


PLANTS = [
    Plant(times=TIMES, sites=SITES),
    Plant(times=TIMES, sites=SITES, nodes=3, workers=5, workers_apart=True, shared_database=True),
    Plant(times=TIMES, sites=SITES, workers=4, workers_apart=True, losses=((60.0, 3),)),
]


@pytest.mark.parametrize("plant", PLANTS)
def test_every_study_ends_and_all_work_is_done_once(plant: Plant) -> None:
    loads = day(30)
    outcome = simulate(plant, loads)

    assert len(outcome.studies) == len(loads)
    assert all(study.wait_s >= plant.quiet_s for study in outcome.studies)
    assert outcome.waiting[-1][1] == 0
    work_s = sum(clip.view_s + clip.analysis_s for load in loads for clip in load.clips)
    assert outcome.waits == 30 * (12 + 3)  # each clip for its view, and A4C clips again
    if plant.workers_apart:
        assert outcome.worker_busy_s == pytest.approx(work_s)
    else:
        assert outcome.worker_busy_s >= work_s * 0.999  # cores are shared


@pytest.mark.parametrize("plant", PLANTS)
def test_as_many_wait_as_come_times_how_long_they_wait(plant: Plant) -> None:
    outcome = simulate(plant, day(30))

    area = sum(number * (end - at) for (at, number), (end, _) in pairwise(outcome.waiting))
    assert area == pytest.approx(outcome.waited_s)


def one_server(mean_gap_s: float, mean_work_s: float, number: int) -> tuple[Outcome, list[float]]:
    """Studies of one clip for one worker, and how long each waits by Lindley's recursion."""
    draw = random.Random(7)  # noqa: S311 - as above
    at_s, waits, wait_s, loads = 0.0, [], 0.0, []
    for _ in range(number):
        work_s, gap_s = draw.expovariate(1 / mean_work_s), draw.expovariate(1 / mean_gap_s)
        loads.append(StudyLoad(at_s=at_s, clips=(ClipLoad(bytes=0, view_s=work_s),)))
        waits.append(wait_s)
        wait_s = max(0.0, wait_s + work_s - gap_s)
        at_s += gap_s
    plant = Plant(times=Times(), workers=1, workers_apart=True, quiet_s=0.0)
    return simulate(plant, loads), waits


def test_one_worker_is_the_queue_of_the_text_books() -> None:
    outcome, waits = one_server(mean_gap_s=50.0, mean_work_s=30.0, number=2500)

    mean_s = outcome.waited_s / outcome.waits
    assert mean_s == pytest.approx(sum(waits) / len(waits), abs=1.0)  # the dispatcher's tick
    busy = 30.0 / 50.0
    assert mean_s == pytest.approx(30.0 * busy / (1 - busy), rel=0.15)  # M/M/1


def done_at(number: float, jobs: Sequence[tuple[float, float, float]]) -> list[float]:
    env = simpy.Environment()
    cores = Cores(env, number)
    ended = [0.0] * len(jobs)

    def run(
        place: int, seconds: float, most: float, weight: float
    ) -> simpy.events.ProcessGenerator:
        yield cores.work(seconds, most=most, weight=weight)
        ended[place] = env.now

    for place, job in enumerate(jobs):
        env.process(run(place, *job))
    env.run()
    assert cores.busy_s == pytest.approx(sum(seconds for seconds, _, _ in jobs))
    return ended


def test_cores_are_shared_by_weight_and_what_one_cannot_use_goes_to_the_others() -> None:
    assert done_at(2, [(3, 1, 1), (3, 1, 1)]) == pytest.approx([3, 3])
    assert done_at(1, [(1, 1, 3), (1, 1, 1)]) == pytest.approx([4 / 3, 2])
    assert done_at(2, [(2, 1, 1), (2, 1, 0.1), (2, 1, 0.1)]) == pytest.approx([2, 3, 3])
    assert done_at(2, [(3, 1.5, 1), (1, 1, 0.1)]) == pytest.approx([2, 2])


def test_who_has_more_workers_waits_less_and_who_loses_some_waits_longer() -> None:
    plant = Plant(times=TIMES, sites=SITES, workers=4, workers_apart=True)
    loads = day(40)

    def worst(plant: Plant) -> float:
        return max(study.wait_s for study in simulate(plant, loads).studies)

    assert worst(replace(plant, workers=8)) < worst(plant)
    assert worst(plant) < worst(replace(plant, losses=((60.0, 2),)))


def test_a_day_has_the_studies_that_are_assumed_and_a_sharper_one_as_many() -> None:
    figures, assumed = constants.read(), Assumptions()
    loads = arrivals.studies(assumed, figures, 20, grain=60)

    assert len(loads) == pytest.approx(20 * assumed.studies_a_day, rel=0.1)
    assert sum(shares(replace(assumed, peak=2.0))) == pytest.approx(1)
    assert max(shares(replace(assumed, peak=2.0))) > max(shares(assumed))
    clips = sum(clip.number for load in loads for clip in load.clips) / len(loads)
    a4c = sum(clip.analysis_s > 0 for load in loads for clip in load.clips) / len(loads)
    assert clips == pytest.approx(assumed.clips, rel=0.05)
    assert a4c == pytest.approx(assumed.a4c, rel=0.05)


def test_the_figures_are_there_and_of_the_right_kind() -> None:
    figures = constants.read()

    assert 0 < figures.byte_s < 1e-6
    assert 0 <= figures.object_s < 1
    assert figures.analysis(120) > figures.analysis(10) > 0
    assert 0 < figures.turn_s < 1
    assert all(part.holds_an_hour > 0 for part in answers.parts(Assumptions(), figures))


def test_the_model_does_what_a_real_node_did_under_a_burst() -> None:
    for measured, simulated in judging.judge(constants.read(), "burst").figures().values():
        assert simulated == pytest.approx(measured, rel=0.3)


def test_the_page_is_what_the_files_make() -> None:
    results = json.loads((COURSES / "results.json").read_text())
    assert page.PAGE.read_text() == page.page(results), "run `make scale`"
