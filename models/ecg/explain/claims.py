"""What Bender et al. 2024 found on Ribeiro's network, held against what is found here.

Each finding is a rule with numbers, so that it can fail. Where there are fewer than
:data:`LEAST` recordings of a sort that it speaks of, nothing is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from models.ecg.explain.methods import EcgMethod
from models.ecg.explain.summaries import (
    WRONG,
    Outcome,
    OutputSummary,
    Recorded,
    Summaries,
    mean_by_lead,
)
from models.explain.quality import Measured, over_clips
from models.finding import Kind

LEAST = 5
"""Recordings of each sort that a verdict needs."""

GUIDELINE_LEADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "atrial_fibrillation": ("II", "V1"),
        "lbbb": ("I", "aVL", "V1", "V5", "V6"),
    }
)
"""Leads that guidelines name for a finding, as in the paper."""

_NEAR_ZERO = 0.5  # of true positives' mean relevance
_RISES = 0.5  # rank correlation
_AMONG = 6  # no more leads than half of them are "the foremost"
_MOST_OF = 0.8  # of the named leads


class Verdict(StrEnum):
    """What is said of a finding of the paper."""

    HOLDS = "holds"
    HOLDS_NOT = "does not hold"
    NOT_JUDGED = "cannot be judged here"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A finding of the paper, the numbers here, and what they say of it."""

    claim: str
    output: str
    numbers: str
    verdict: Verdict


def claims(summaries: Summaries) -> tuple[Claim, ...]:
    """Every finding that speaks of an output of these summaries, one by one."""
    found: list[Claim] = []
    for one in summaries.outputs:
        if one.kind is not Kind.SCORE:
            continue
        found += [_rises(one, summaries.method), _near_zero(one)]
        if one.output in GUIDELINE_LEADS:
            found.append(_leads(one, summaries.leads))
        if one.output == "atrial_fibrillation":
            found.append(_p_waves(one))
        if one.output == "lbbb":
            found += _t_waves(one)
    return tuple(found)


def _rises(one: OutputSummary, method: EcgMethod) -> Claim:
    found = one.correlation
    numbers = f"rank correlation {found} over {found.n} recordings"
    if method is EcgMethod.INTEGRATED_GRADIENTS:
        # Completeness: the sum over the recording is the logit less the flat line's.
        numbers += "; with integrated gradients it must, since the parts add up to the log odds"
    verdict = Verdict.NOT_JUDGED
    if found.n >= 2 * LEAST and np.isfinite(found.value):
        verdict = _verdict(found.value >= _RISES and found.low > 0)
    return Claim(
        claim="the mean relevance of a recording rises with its probability",
        output=one.output,
        numbers=numbers,
        verdict=verdict,
    )


def _near_zero(one: OutputSummary) -> Claim:
    wrong, right = one.of(*WRONG), one.of(Outcome.TRUE_POSITIVE)
    of_wrong, of_right = (_size(records) for records in (wrong, right))
    numbers = (
        f"mean size {_small(of_wrong)} in {len(wrong)} mistakes, {_small(of_right)} in "
        f"{len(right)} true positives"
    )
    verdict = Verdict.NOT_JUDGED
    if min(len(wrong), len(right)) >= LEAST:
        verdict = _verdict(of_wrong.value <= _NEAR_ZERO * of_right.value)
    return Claim(
        claim="the mean relevance is near zero for mistakes (half of true positives' or less)",
        output=one.output,
        numbers=numbers,
        verdict=verdict,
    )


def _leads(one: OutputSummary, leads: tuple[str, ...]) -> Claim:
    named = [lead for lead in GUIDELINE_LEADS[one.output] if lead in leads]
    records = one.of(Outcome.TRUE_POSITIVE)
    means = mean_by_lead(records)
    order = [leads[place] for place in np.argsort([-mean.value for mean in means], kind="stable")]
    among = min(2 * len(named), _AMONG)
    hits = [lead for lead in order[:among] if lead in named]
    numbers = f"no true positives among {len(one.records)} recordings"
    if order:
        numbers = (
            f"in {len(records)} true positives the leads come {', '.join(order)}; "
            f"{len(hits)} of {len(named)} named ones are among the first {among}"
        )
    verdict = Verdict.NOT_JUDGED
    if len(records) >= LEAST and named:
        verdict = _verdict(len(hits) >= _MOST_OF * len(named))
    return Claim(
        claim=f"relevance lies in the leads that guidelines name: {', '.join(named)}",
        output=one.output,
        numbers=numbers,
        verdict=verdict,
    )


def _p_waves(one: OutputSummary) -> Claim:
    records = [record for record in one.of(Outcome.TRUE_NEGATIVE) if np.isfinite(record.in_p)]
    inside = over_clips(record.in_p for record in records)
    around = over_clips(record.mean for record in records)
    numbers = (
        f"mean relevance {_small(inside)} in P waves of {len(records)} recordings without "
        f"fibrillation, {_small(around)} over all of them"
    )
    verdict = Verdict.NOT_JUDGED
    if len(records) >= LEAST:
        verdict = _verdict(inside.high < 0 and inside.value < around.value)
    return Claim(
        claim="visible P waves speak against atrial fibrillation",
        output=one.output,
        numbers=numbers,
        verdict=verdict,
    )


def _t_waves(one: OutputSummary) -> Iterator[Claim]:
    """In recordings with the block, as in the paper, and in all."""
    with_block = one.of(Outcome.TRUE_POSITIVE, Outcome.FALSE_NEGATIVE)
    for records, whom in ((with_block, "with the block"), (one.records, "of all sorts")):
        agree = [_t_mean(record, concordant=True) for record in records]
        differ = [_t_mean(record, concordant=False) for record in records]
        of_agree, of_differ = over_clips(agree), over_clips(differ)
        numbers = (
            f"recordings {whom}: mean relevance {_small(of_agree)} in concordant T waves "
            f"(leads of {of_agree.n} recordings), {_small(of_differ)} in discordant ones "
            f"({of_differ.n})"
        )
        verdict = Verdict.NOT_JUDGED
        if of_agree.n >= LEAST:
            verdict = _verdict(of_agree.high < 0)
        yield Claim(
            claim="concordant T waves speak against left bundle branch block",
            output=one.output,
            numbers=numbers,
            verdict=verdict,
        )


def _t_mean(record: Recorded, *, concordant: bool) -> float:
    """Mean relevance in T waves over those leads where they are, or are not, concordant."""
    if record.in_t is None or record.concordant is None:
        return float("nan")
    chosen = record.in_t[record.concordant == concordant]
    return float(chosen.mean()) if len(chosen) else float("nan")


def _size(records: tuple[Recorded, ...]) -> Measured:
    return over_clips(abs(record.mean) for record in records)


def _verdict(holds: bool) -> Verdict:
    return Verdict.HOLDS if holds else Verdict.HOLDS_NOT


def _small(one: Measured) -> str:
    """Relevance of a sample is small: three figures that count."""
    if not one.n:
        return "not measured"
    return f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})"
