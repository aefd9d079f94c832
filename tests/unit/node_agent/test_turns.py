"""Turns at compressing: never more at a time than there are, and nobody waits who is not wanted any more."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.archive.turns import Turns
from node_agent.errors import TakenBack


def wanted() -> None:
    """Nobody has taken it back."""


@given(turns=st.integers(1, 3), archives=st.integers(1, 8), failing=st.sets(st.integers(0, 7)))
def test_never_more_have_a_turn_than_there_are_and_each_gets_one(
    turns: int, archives: int, failing: set[int]
) -> None:
    """Also when some of them fail in their turn: theirs goes on to the next."""
    shared, having, most, lock = Turns(turns), set[int](), [0], threading.Lock()

    def archive(number: int) -> None:
        with shared.one(wanted):
            with lock:
                having.add(number)
                most[0] = max(most[0], len(having))
            with lock:
                having.remove(number)
            if number in failing:
                raise ValueError(number)

    with ThreadPoolExecutor(archives) as pool:
        ends = [pool.submit(archive, number) for number in range(archives)]
    assert most[0] <= turns
    assert {number for number, end in enumerate(ends) if end.exception()} == failing & set(range(archives))


@pytest.mark.parametrize("at_once_max", [1, 2, 3])
def test_who_is_taken_back_stops_waiting_and_takes_no_turn(at_once_max: int) -> None:
    """All turns are had by others all the while."""
    turns = Turns(at_once_max)

    def taken_back() -> None:
        raise TakenBack

    with ExitStack() as others:
        for _ in range(at_once_max):
            others.enter_context(turns.one(taken_back))
        with pytest.raises(TakenBack), turns.one(taken_back):
            pytest.fail("more had a turn than there are")
    with turns.one(taken_back):
        pass
