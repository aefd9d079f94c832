"""How fast a caller may ask."""

from hypothesis import given
from hypothesis import strategies as st

from api.pace import NAMES_MAX, Pace

PAUSES = st.lists(st.floats(0, 5, allow_nan=False), max_size=200)


@given(per_s=st.integers(1, 20), burst_s=st.integers(1, 5), pauses=PAUSES)
def test_never_more_than_the_rate_and_the_burst(per_s: int, burst_s: int, pauses: list[float]) -> None:
    """Whatever the rhythm: in any time at most what has come to fill the bucket, and what was in it."""
    pace, now_s, allowed = Pace(per_s, burst_s), 0.0, 0
    for pause in pauses:
        now_s += pause
        allowed += pace.wait_s("token", now_s) == 0

    assert allowed <= per_s * burst_s + per_s * now_s + 1e-6


@given(per_s=st.integers(1, 1000), burst_s=st.integers(1, 10))
def test_who_waits_as_long_as_told_is_let_in(per_s: int, burst_s: int) -> None:
    """After the burst each refusal says when."""
    pace = Pace(per_s, burst_s)
    assert all(pace.wait_s("token", 0) == 0 for _ in range(per_s * burst_s))

    wait_s = pace.wait_s("token", 0)

    assert 0 < wait_s <= 1 / per_s
    assert pace.wait_s("token", wait_s + 1e-6) == 0


def test_one_caller_does_not_slow_another_and_few_are_remembered() -> None:
    """Each name has a bucket of its own; made-up names do not fill the memory."""
    pace = Pace(1, 1)
    assert [pace.wait_s("one", 0) == 0 for _ in range(2)] == [True, False]
    assert pace.wait_s("other", 0) == 0

    for number in range(NAMES_MAX):
        pace.wait_s(str(number), 0)
    assert pace.wait_s("one", 0) == 0
