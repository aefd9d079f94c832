"""When a program that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from compose.supervisor import (
    HEALTHY_AFTER_S,
    RESTART_FIRST_S,
    RESTART_MAX_S,
    deaths_in_a_row,
    restart_delay_s,
)


@given(st.integers(1, 10**6))
def test_the_wait_grows_and_is_bounded(deaths: int) -> None:
    """Never sooner than the first wait, never later than the bound, never shorter after more deaths."""
    assert RESTART_FIRST_S <= restart_delay_s(deaths) <= restart_delay_s(deaths + 1) <= RESTART_MAX_S


def test_a_program_that_ran_well_starts_at_once() -> None:
    """A death after a healthy life counts as the first."""
    assert deaths_in_a_row(7, HEALTHY_AFTER_S) == 1
    assert deaths_in_a_row(7, HEALTHY_AFTER_S - 1) == 8
    assert restart_delay_s(1) == RESTART_FIRST_S
