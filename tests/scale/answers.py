"""What is needed: for a hospital, a network, a country; and what breaks first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.scale import arrivals
from tests.scale.assumptions import Assumptions, shares
from tests.scale.constants import Constants
from tests.scale.judging import percentile, times
from tests.scale.model import Outcome, Plant, StudyLoad, simulate

_FULL = 0.7  # of what one can do is planned with: the rest is for what comes at random
_DAYS = 12  # that are simulated for a hospital: one peak hour has too few studies
_STUDY_DATABASE_BYTES = 1.3e9 / 14_925  # docs/benchmarks/catalog.md: 14,925 studies, 1.3 GB
_HOUR_S = arrivals.HOUR_S


@dataclass(frozen=True, kw_only=True)
class MeanStudy:
    """The study of which the averages are reckoned."""

    clips: float
    a4c: float
    bytes: float
    result_bytes: float
    worker_s: float  #: core seconds
    analysis_s: float  #: of them for A4C clips
    picture_s: float
    transactions: float
    forward_gflop: float  #: of the forward passes of its A4C clips, nothing else

    @classmethod
    def of(cls, assumed: Assumptions, constants: Constants) -> MeanStudy:
        """By the averages of what comes."""
        frames = (assumed.least_frames + assumed.most_frames) / 2
        size = constants.cine_bytes_frame * frames
        analysis_s = assumed.a4c * constants.analysis(frames)
        return cls(
            clips=assumed.clips,
            a4c=assumed.a4c,
            bytes=assumed.clips * size,
            result_bytes=assumed.a4c * constants.picture_bytes(frames),
            worker_s=assumed.clips * constants.view_s(size, frames) + analysis_s,
            analysis_s=analysis_s,
            picture_s=assumed.a4c * constants.picture(frames),
            # An object, a claim and an outcome for each clip; the benchmark's study has 60.
            transactions=constants.transactions + 3 * (assumed.clips - 60) + 3 * (assumed.a4c - 4),
            forward_gflop=assumed.a4c * constants.forward_gflop(frames),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of something, and how many studies an hour it can take."""

    what: str
    holds_an_hour: float
    how: str


def parts(assumed: Assumptions, constants: Constants) -> list[Part]:
    """One of each, alone."""
    study = MeanStudy.of(assumed, constants)
    dispatch_s = 2 * (study.clips + study.a4c) * constants.transaction_s + study.picture_s
    delivery_s = constants.delivery_s + (2 + study.a4c) * constants.transaction_s
    report_s = constants.report_s + 2 * constants.transaction_s
    line_s = study.bytes / (assumed.line_mbit_s * 125_000)

    def part(what: str, seconds: float, how: str) -> Part:
        return Part(what=what, holds_an_hour=_HOUR_S / seconds, how=how)

    return [
        part(
            "a worker's core",
            study.worker_s / assumed.pace,
            f"{study.worker_s:.0f} core seconds a study",
        ),
        part(
            f"a receiver ({constants.cores} cores, senders beside it)",
            study.bytes / constants.receiver_bytes_s,
            f"{constants.receiver_bytes_s / 1e6:.0f} MB/s of {study.bytes / 1e6:.0f} MB a study",
        ),
        part(f"a line of {assumed.line_mbit_s:g} Mbit/s", line_s, f"{study.bytes / 1e6:.0f} MB"),
        part(
            "a database",
            study.transactions * constants.turn_s,
            f"{constants.commits_s:.0f} transactions a second, {study.transactions:.0f} a study",
        ),
        part(
            "a node's dispatcher (one thread)",
            dispatch_s,
            f"{1000 * constants.transaction_s:.1f} ms for each of two transactions a clip, and its "
            "picture",
        ),
        part("a node's reports (one thread)", report_s, f"{constants.report_s:.2f} s a study"),
        part(
            "an archive (one sender)",
            delivery_s,
            f"{constants.delivery_s:.2f} s a study and its rows",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A place with so many hospitals, and how it is built."""

    name: str
    hospitals: int
    grain: int
    own_machine: bool  #: a node whose workers are its own processes
    days: int


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Of the studies that begin in the peak hour, from the last image to the report."""

    studies: int
    median_s: float
    p95_s: float
    p99_s: float
    most_waiting: int  #: clips
    worker_use: float  #: of the workers, over the simulated hours
    turn_use: float
    drained_min: float  #: from the end of the peak hour until all of its studies are reported


def scales(assumed: Assumptions) -> list[Scale]:
    """The three that are asked for."""
    return [
        Scale(name="a hospital", hospitals=1, grain=1, own_machine=True, days=_DAYS),
        Scale(
            name=f"a network of {assumed.network_hospitals}",
            hospitals=assumed.network_hospitals,
            grain=6,
            own_machine=False,
            days=1,
        ),
        Scale(
            name="a country",
            hospitals=assumed.country_hospitals,
            grain=20,
            own_machine=False,
            days=1,
        ),
    ]


def loads_of(scale: Scale, assumed: Assumptions, constants: Constants) -> list[list[StudyLoad]]:
    """The hours before and of the peak, and the one after, of each day."""
    peak = arrivals.peak_hour(assumed)
    hours = (peak - 1, peak, peak + 1) if scale.days > 1 else (peak - 1, peak)
    return [
        arrivals.studies(
            replace(assumed, seed=assumed.seed + day),
            constants,
            scale.hospitals,
            hours=hours,
            grain=scale.grain,
        )
        for day in range(scale.days)
    ]


def plant_of(
    scale: Scale, assumed: Assumptions, constants: Constants, *, workers: int, nodes: int = 1
) -> Plant:
    """So many workers, on their node's machine with a core more, or apart."""
    plant = Plant(
        times=times(constants),
        nodes=nodes,
        workers=workers,
        pace=assumed.pace,
        line_bytes_s=assumed.line_mbit_s * 125_000,
        sites=scale.hospitals,
    )
    if scale.own_machine:
        return replace(plant, cores=workers + 1)
    return replace(
        plant,
        cores=constants.cores,
        workers_apart=True,
        shared_database=True,
        times=replace(
            plant.times,
            claim_s=0.0,  # both wait for the database, which the model has by itself
            outcome_s=0.0,
            turn_s=constants.turn_s,
        ),
    )


def waits(plant: Plant, days: Sequence[Sequence[StudyLoad]], peak: int) -> Waits:
    """What those of the peak hour meet."""
    found: list[float] = []
    outcomes: list[Outcome] = []
    drained: list[float] = []
    for loads in days:
        begin_s = (peak - 1) * _HOUR_S  # nothing comes before: simulated time begins there
        shifted = [replace(load, at_s=load.at_s - begin_s) for load in loads]
        losses = tuple((when_s - begin_s, number) for when_s, number in plant.losses)
        outcome = simulate(replace(plant, losses=losses), shifted)
        outcomes.append(outcome)
        of_peak = [s for s in outcome.studies if _HOUR_S <= s.opened_s < 2 * _HOUR_S]
        found += [study.wait_s for study in of_peak]
        last_s = max((study.at_archive_s for study in of_peak), default=0.0)
        drained.append(max(0.0, last_s - 2 * _HOUR_S))
    simulated_s = sum(outcome.until_s for outcome in outcomes)
    return Waits(
        studies=len(found),
        median_s=statistics.median(found),
        p95_s=percentile(found, 95),
        p99_s=percentile(found, 99),
        most_waiting=max(number for each in outcomes for _, number in each.waiting),
        worker_use=sum(each.worker_busy_s for each in outcomes) / simulated_s / plant.workers,
        turn_use=sum(each.turn_busy_s for each in outcomes) / simulated_s,
        drained_min=max(drained) / 60,
    )


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a place needs."""

    scale: Scale
    studies_a_day: float
    studies_peak_hour: float
    clips_a_second: float
    mbytes_a_second: float
    writes_a_second: float
    worker_cores_busy: float
    use: dict[str, float]  #: of one of each part, in the peak hour
    regions: int  #: each with a database, nodes and workers of its own
    nodes: int  #: of all regions
    workers: int
    waits: Waits  #: in one region
    tried: list[tuple[int, Waits]]  #: with other numbers of workers, of all regions
    store_tb_year: float
    store_tb_kept: float
    results_tb_year: float
    database_gb_year: float


def need(scale: Scale, assumed: Assumptions, constants: Constants) -> Need:
    """Reckoned by averages, with as many workers as the simulation asks for."""
    study = MeanStudy.of(assumed, constants)
    a_day = scale.hospitals * assumed.studies_a_day
    peak_hour = a_day * max(shares(assumed))
    rate = peak_hour / _HOUR_S
    use = {part.what: peak_hour / part.holds_an_hour for part in parts(assumed, constants)}
    regions = 1 if scale.own_machine else math.ceil(use["a database"] / _FULL)
    region = replace(scale, hospitals=math.ceil(scale.hospitals / regions))
    nodes = max(1, math.ceil(_of_a_node(use, constants) / regions / _FULL))
    busy = rate * study.worker_s / assumed.pace
    days = loads_of(region, assumed, constants)
    peak = arrivals.peak_hour(assumed)
    tried: list[tuple[int, Waits]] = []
    for workers in _candidates(busy / regions):
        plant = plant_of(region, assumed, constants, workers=workers, nodes=nodes)
        tried.append((regions * workers, waits(plant, days, peak)))
        if tried[-1][1].p95_s <= assumed.target_s:
            break
    workers, best = tried[-1]
    a_year = a_day * assumed.working_days
    return Need(
        scale=scale,
        studies_a_day=a_day,
        studies_peak_hour=peak_hour,
        clips_a_second=rate * study.clips,
        mbytes_a_second=rate * study.bytes / 1e6,
        writes_a_second=rate * study.transactions,
        worker_cores_busy=busy,
        use=use,
        regions=regions,
        nodes=regions * nodes,
        workers=workers,
        waits=best,
        tried=tried,
        store_tb_year=a_year * study.bytes / 1e12,
        store_tb_kept=a_year * study.bytes / 1e12 * min(1.0, assumed.retention_days / 365),
        results_tb_year=a_year * study.result_bytes / 1e12,
        database_gb_year=a_year * _STUDY_DATABASE_BYTES / 1e9,
    )


def _of_a_node(use: Mapping[str, float], constants: Constants) -> float:
    """Of one node's cores: receiving takes all of them at its most, each thread one."""
    threads = sum(used for what, used in use.items() if what.startswith("a node's"))
    receiver = next(used for what, used in use.items() if what.startswith("a receiver"))
    return receiver + threads / constants.cores


def _candidates(busy: float) -> list[int]:
    """Numbers of workers, from what is just enough to many more."""
    least = max(1, math.ceil(busy))
    found = [math.ceil(least * factor) for factor in (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)]
    return sorted({*found, *range(least, least + 3)} if least < 8 else set(found))


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The same place where something is otherwise."""

    what: str
    workers: int
    waits: Waits


def sensitivity(base: Need, assumed: Assumptions, constants: Constants) -> list[Changed]:
    """What if, in the network: with the workers that it has."""
    scale, peak = base.scale, arrivals.peak_hour(assumed)
    plant = plant_of(scale, assumed, constants, workers=base.workers, nodes=base.nodes)
    days = loads_of(scale, assumed, constants)

    def changed(what: str, plant: Plant, days: Sequence[Sequence[StudyLoad]]) -> Changed:
        return Changed(what=what, workers=plant.workers, waits=waits(plant, days, peak))

    gone = max(1, base.workers // 2)
    sharper = replace(assumed, peak=2.0)
    double = replace(assumed, studies_a_day=2 * assumed.studies_a_day)
    at_peak_s = (peak + 0.25) * _HOUR_S
    return [
        Changed(what="as above", workers=base.workers, waits=base.waits),
        changed("clips take twice as long", replace(plant, pace=plant.pace / 2), days),
        changed(
            f"the peak is sharper ({100 * max(shares(sharper)):.0f} % of the day in its hour, not "
            f"{100 * max(shares(assumed)):.0f} %)",
            plant,
            loads_of(scale, sharper, constants),
        ),
        changed("twice as many studies", plant, loads_of(scale, double, constants)),
        changed(
            "one worker is lost a quarter of an hour into the peak, for good",
            replace(plant, losses=((at_peak_s, 1),)),
            days,
        ),
        changed(
            f"half of the workers ({gone}) are",
            replace(plant, losses=((at_peak_s, gone),)),
            days,
        ),
        changed(
            "a commit takes ten times as long",
            replace(plant, times=replace(plant.times, turn_s=10 * plant.times.turn_s)),
            days,
        ),
        changed("one node in place of all", replace(plant, nodes=1), days)
        if base.nodes > 1
        else changed("two nodes in place of one", replace(plant, nodes=2), days),
        changed("lines of 100 Mbit/s", replace(plant, line_bytes_s=100 * 125_000), days),
    ]


def overload(country: Need, assumed: Assumptions, constants: Constants) -> list[dict[str, Any]]:
    """The country on one node and one database, with workers enough: what stands still."""
    scale = replace(country.scale, grain=3 * country.scale.grain)
    found = []
    for times_as_many in (0.5, 1.0, 1.5):
        more = replace(assumed, studies_a_day=times_as_many * assumed.studies_a_day)
        workers = math.ceil(2 * times_as_many * country.worker_cores_busy)
        plant = plant_of(scale, more, constants, workers=workers, nodes=1)
        said = waits(plant, loads_of(scale, more, constants), arrivals.peak_hour(assumed))
        found.append({"times": times_as_many, "workers": workers, **asdict(said)})
    return found
