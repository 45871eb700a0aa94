"""What nobody measured: each with its reason, and to be changed by an option of ``make scale``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any


def _assumed(value: float, unit: str, what: str, why: str) -> Any:
    return field(default=value, metadata={"unit": unit, "what": what, "why": why})


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """A day, a study, a site."""

    studies_a_day: float = _assumed(
        40, "", "studies of one hospital on a working day", "assumed: a large echo laboratory"
    )
    network_hospitals: int = _assumed(50, "", "hospitals of the network", "the question")
    country_hospitals: int = _assumed(
        400,
        "",
        "such hospitals in a country",
        "assumed: 80 million people, 50 studies a year for each 1,000 of them: 4 million a year",
    )
    working_days: int = _assumed(250, "", "working days a year", "assumed")
    peak: float = _assumed(
        1.0, "", "sharpness of the day", "assumed: 1 gives the hours below; each is raised to it"
    )
    clips: float = _assumed(60, "", "clips a study, on average", "the benchmark's study")
    clips_spread: float = _assumed(
        15, "", "standard deviation of it", "assumed; never under 10 clips"
    )
    a4c: float = _assumed(
        3.2,
        "",
        "A4C clips a study, on average",
        "EchoNet's patients (Ghorbani et al. 2020); at least one, the rest by Poisson",
    )
    least_frames: float = _assumed(
        40, "frames", "shortest clip", "assumed: a beat and a half at 30 a second"
    )
    most_frames: float = _assumed(
        120, "frames", "longest clip", "the real long cine of the benchmarks; even in between"
    )
    line_mbit_s: float = _assumed(1000, "Mbit/s", "line of an echo machine", "assumed")
    target_s: float = _assumed(
        60,
        "s",
        "95 of 100 reports of the peak hour are at the archive so soon after the last image",
        "assumed: before the reader opens the study",
    )
    retention_days: float = _assumed(
        365, "days", "received files are kept", "assumed; without a setting they stay"
    )
    pace: float = _assumed(
        1.0, "x", "a worker's core, beside the one that was measured", "assumed: the same core"
    )
    seed: int = _assumed(1, "", "of all draws", "any")


#: Of a working day's studies, how many begin their sending in each hour, before it is sharpened.
HOURS = (
    *(0.2,) * 6, 0.6, 3, 9, 13, 14, 12, 7, 10, 12, 9, 5, 2, 1, 0.6, 0.4, 0.4, 0.3, 0.3,
)  # fmt: skip


def shares(assumed: Assumptions) -> tuple[float, ...]:
    """Of a day's studies, in each hour."""
    raised = [hour**assumed.peak for hour in HOURS]
    return tuple(hour / sum(raised) for hour in raised)


def described(assumed: Assumptions) -> Iterator[tuple[str, Any, str, str, str]]:
    """Option, value, unit, what it is, and why."""
    for each in fields(assumed):
        told = each.metadata
        yield _option(each), getattr(assumed, each.name), told["unit"], told["what"], told["why"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """One for each."""
    for each in fields(Assumptions):
        kind = int if isinstance(each.default, int) and each.type == "int" else float
        parser.add_argument(
            _option(each), type=kind, default=each.default, help=each.metadata["what"]
        )


def given(options: argparse.Namespace) -> Assumptions:
    """As the options say."""
    return Assumptions(**{each.name: getattr(options, each.name) for each in fields(Assumptions)})


def _option(one: Field[Any]) -> str:
    return "--" + one.name.replace("_", "-")
