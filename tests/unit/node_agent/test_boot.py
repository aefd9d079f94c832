"""Which of two runs of an agent came later, and on which machine it was."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent import boot
from node_agent.boot import Boots
from state.boots import NUMBER_DIGITS, boot_id, is_other_machine, number_of

numbers = st.integers(0, 10**NUMBER_DIGITS - 1)
machines = st.from_regex("[0-9a-z]{1,12}", fullmatch=True)


@given(numbers, numbers, machines, machines)
def test_names_are_in_the_order_of_their_numbers(low: int, high: int, one: str, other: str) -> None:
    """As text, which is how the database compares them; and they say which machine they are of."""
    first, second = boot_id(low, one), boot_id(high, other)

    assert (number_of(first), number_of(second)) == (low, high)
    assert low == high or (first < second) == (low < high)
    assert is_other_machine(first, second) == (one != other)


@pytest.mark.parametrize("name", ["", "boot-1", f"{7:020d}-5f3a9c01", f"{7:020d}-m"])
def test_a_name_without_a_machine_is_of_no_other_machine(name: str) -> None:
    """Agents of earlier versions had chance in its place: they are not made to wait."""
    assert not is_other_machine(name, boot_id(1, "a"))


def test_a_later_run_is_later_although_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the gateway takes its messages for those of a run that is over."""
    first = Boots(tmp_path / "boot").begin()
    monkeypatch.setattr(boot.time, "time_ns", lambda: 1)
    second = Boots(tmp_path / "boot").begin()
    assert first < second < Boots(tmp_path / "boot").begin()
    assert not is_other_machine(first, second)


def test_a_run_begins_after_the_one_that_was_believed(tmp_path: Path) -> None:
    """Also where the clock and the file know nothing of that; and the next run knows of both."""
    believed = boot_id(4 * 10**18, "other")
    again = Boots(tmp_path / "boot").begin(believed)

    assert believed < again < Boots(tmp_path / "boot").begin()


@pytest.mark.parametrize("content", [b"", b"?", b"-5", bytes(100)])
def test_a_file_that_says_nothing_is_no_hindrance(tmp_path: Path, content: bytes) -> None:
    """The wall clock does then."""
    (tmp_path / "boot").write_bytes(content)
    assert Boots(tmp_path / "boot").begin() < Boots(tmp_path / "boot").begin()


def test_a_place_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    """The agent runs all the same."""
    (tmp_path / "file").write_bytes(b"")
    assert Boots(tmp_path / "file" / "boot").begin()
