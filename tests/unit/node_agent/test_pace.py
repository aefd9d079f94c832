"""How fast a step is, as people see it."""

from hypothesis import given
from hypothesis import strategies as st

from node_agent.pace import WINDOW_S, Pace


@given(rate=st.integers(0, 10**9), gap_ms=st.integers(100, 2000), notes=st.integers(30, 100))
def test_a_steady_step_has_its_own_rate(rate: int, gap_ms: int, notes: int) -> None:
    """Whatever the distance of the notes."""
    pace, found = Pace(), None
    for number in range(notes):
        now_s = number * gap_ms / 1000
        found = pace.at(now_s, "saving", int(rate * now_s))
    assert found is not None
    assert abs(found - rate) <= rate / 1000 + 10


def test_a_rate_follows_what_happened_last() -> None:
    """After the window has passed, nothing is left of an earlier, faster time."""
    pace = Pace()
    for second in range(10):
        pace.at(second, "saving", second * 1000)
    for second in range(10, 11 + int(WINDOW_S)):
        found = pace.at(second, "saving", 9000)
    assert found == 0


def test_each_phase_counts_for_itself() -> None:
    """The first note of a phase, and one that goes back, say no rate."""
    pace = Pace()
    pace.at(0, "fetching the image", 100)
    assert pace.at(2, "fetching the image", 300) == 100
    assert pace.at(3, "restoring", 5000) is None
    assert pace.at(4, "restoring", 6000) == 1000
    assert pace.at(5, "restoring", 10) is None
