"""A thousand broken objects through the intake and through reading: the same in every run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.campaign import Tally, campaign
from tests.fuzz.corpus import corpus
from tests.fuzz.draft import take_apart
from tests.fuzz.mutations import kinds
from tests.fuzz.trial import broken_object

OBJECTS = 1000
SEED = 20
MOST_GROWTH_MB = 64
"""What an allocator may keep; an object left behind in each trial would be more."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where whole objects lie."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def tally(folder: Path) -> Tally:
    """What became of them all."""
    return campaign(range(OBJECTS), SEED, folder)


@pytest.mark.timeout(900)  # the first to ask waits for all of them
def test_no_broken_object_crashes_hangs_or_is_refused_without_a_reason(tally: Tally) -> None:
    assert tally.complaints() == []
    assert tally.verdicts == OBJECTS


def test_memory_does_not_grow_with_the_objects(tally: Tally) -> None:
    assert tally.growth_mb < MOST_GROWTH_MB


def test_every_kind_of_damage_has_more_than_one_end(tally: Tally) -> None:
    """Otherwise the damage is none, or is all that anyone sees."""
    whole: Counter[str] = sum(tally.taken.values(), Counter())
    assert set(tally.taken) == set(kinds())
    for end in ("kept", "turned away", "read", "not read"):
        assert whole[end] > OBJECTS // 20, end
    assert len(tally.reasons) > 25


def test_an_object_is_the_same_whenever_it_is_made(folder: Path) -> None:
    bases = corpus(folder)
    for number in range(0, 200, 7):
        assert broken_object(bases, SEED, number) == broken_object(bases, SEED, number)


def test_a_whole_object_is_put_together_as_it_was(folder: Path) -> None:
    for base in corpus(folder):
        draft = take_apart(base.data)
        assert draft.deflated or draft.encode() == base.data, base.name
