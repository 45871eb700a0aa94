"""Things done at once come in their order, and no more of them than was said."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from models import threads
from models.threads import side_by_side, use_lanes

WAIT_S = 20.0


@pytest.fixture
def two_lanes() -> Iterator[None]:
    before = threads.lanes()
    use_lanes(2)
    yield
    use_lanes(before)


@pytest.mark.usefixtures("two_lanes")
def test_two_are_done_at_once_and_come_in_their_order() -> None:
    both = threading.Barrier(2, timeout=WAIT_S)

    def meet(number: int) -> int:
        both.wait()  # alone, this one would wait for nobody
        return number * number

    assert list(side_by_side(meet, range(6))) == [0, 1, 4, 9, 16, 25]


@pytest.mark.usefixtures("two_lanes")
def test_little_is_made_ahead_of_what_is_taken() -> None:
    begun: list[int] = []

    def begin(number: int) -> int:
        begun.append(number)
        return number

    made = side_by_side(begin, iter(range(100)))
    assert next(made) == 0
    assert len(begun) <= 4
    made.close()
    assert len(begun) <= 4


@pytest.mark.usefixtures("two_lanes")
def test_the_first_failure_is_told() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        list(side_by_side(fail, range(10)))


def test_with_one_lane_all_is_done_by_who_asks() -> None:
    before = threads.lanes()
    use_lanes(0)  # a share of the cores may come to none
    try:
        assert threads.lanes() == 1
        by = set(side_by_side(lambda _: threading.current_thread().name, range(3)))
    finally:
        use_lanes(before)
    assert by == {threading.current_thread().name}
