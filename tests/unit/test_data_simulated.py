"""Simulated clips as a data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import measure
from models.data.dataset import SPLITS, WALL, DatasetError, open_dataset
from models.data.simulated import case_seed
from models.finding import Evidence
from models.tasks import CLIP_TASKS
from models.views import View


def test_the_same_words_make_the_same_clip_and_another_seed_another() -> None:
    words = "simulated:clips=2,seed=7,frames=2,size=150x200"
    one, same = (open_dataset(words).cases("held")[1] for _ in range(2))
    assert np.array_equal(one.clip().frames(), same.clip().frames())
    assert dict(one.truths) == dict(same.truths)
    other = open_dataset(words.replace("seed=7", "seed=8")).cases("held")[1]
    assert other.truths["edv"] != one.truths["edv"]


def test_a_clip_comes_the_way_of_a_hospital_with_its_truths_and_tracings() -> None:
    data = open_dataset("simulated:clips=1,seed=3,frames=3,frame_time_ms=40,size=300x400")
    (case,) = data.cases("train")
    clip = case.clip()
    assert data.evidence is Evidence.SIMULATED
    assert case.view is View.A4C
    assert clip.transfer_syntax_uid == "1.2.840.10008.1.2.4.50"
    assert clip.sector.source == "region"
    assert clip.spacing.trusted
    assert clip.time_axis.times_ms.tolist() == [0, 40, 80]
    assert set(case.truths) == {*CLIP_TASKS, WALL}  # this view shows every one
    for name, value in case.truths.items():
        if name != WALL:
            assert CLIP_TASKS[name].low <= value <= CLIP_TASKS[name].high
    assert case.tracings is not None
    tracings = case.tracings()
    assert set(tracings) == {0, 1, 2}
    for labels in tracings.values():
        assert labels.shape == clip.sector.mask.shape
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
    # The tracing lies where the picture shows blood: the cavity is darker than its wall.
    frame, labels = clip.frames([0])[0], tracings[0]
    assert frame[labels == measure.CAVITY].mean() < frame[labels == measure.MYOCARDIUM].mean()


def test_views_take_turns_and_stills_have_no_tracing() -> None:
    data = open_dataset("simulated:clips=3,views=a2c+pw,frames=2,size=150x200")
    cases = data.cases("valid")
    assert [case.view for case in cases] == [View.A2C, View.PW, View.A2C]
    assert "lead" not in cases[0].truths
    assert cases[1].tracings is None
    assert dict(cases[1].truths) == {}
    assert cases[1].clip().frame_count == 1


@pytest.mark.parametrize(("share", "leads"), [("0", {0.0}), ("1", {1.0})])
def test_the_share_of_leads_can_be_chosen(share: str, leads: set[float]) -> None:
    data = open_dataset(f"simulated:clips=3,lead={share}")
    assert {case.truths["lead"] for case in data.cases("train")} == leads


@given(
    st.tuples(st.integers(0, 10**6), st.sampled_from(SPLITS), st.integers(0, 10**6)),
    st.tuples(st.integers(0, 10**6), st.sampled_from(SPLITS), st.integers(0, 10**6)),
)
def test_no_two_cases_share_a_seed(one: tuple[int, str, int], other: tuple[int, str, int]) -> None:
    assert (case_seed(*one) == case_seed(*other)) == (one == other)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("simulated:clip=3", "no option 'clip'; there are clips"),
        ("simulated:clips=0", "at least 1"),
        ("simulated:clips=many", "at least 1"),
        ("simulated:clips", "needs a value"),
        ("simulated:seed=1,seed=2", "given twice"),
        ("simulated:views=a4c+heart", "a4c, "),
        ("simulated:frame_time_ms=nan", "from 5 to 200"),
        ("simulated:lead=2", "from 0 to 1"),
        ("simulated:size=9", "ROWSxCOLUMNS"),
        ("simulated:,", "no option ''"),
    ],
)
def test_wrong_options_are_named(words: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        open_dataset(words)
    assert words in str(caught.value)


def test_there_is_no_fourth_split() -> None:
    with pytest.raises(DatasetError, match="no split 'test'"):
        open_dataset("simulated").cases("test")
