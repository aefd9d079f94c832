"""Which of two runs of an agent came later."""

from pathlib import Path

import pytest

from node_agent import boot
from node_agent.boot import new_boot_id


def test_a_later_run_is_later_although_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the gateway takes its messages for those of a run that is over."""
    first = new_boot_id(tmp_path / "boot")
    monkeypatch.setattr(boot.time, "time_ns", lambda: 1)
    second = new_boot_id(tmp_path / "boot")
    assert first < second < new_boot_id(tmp_path / "boot")


@pytest.mark.parametrize("content", [b"", b"?", b"-5", bytes(100)])
def test_a_file_that_says_nothing_is_no_hindrance(tmp_path: Path, content: bytes) -> None:
    """The wall clock does then."""
    (tmp_path / "boot").write_bytes(content)
    assert new_boot_id(tmp_path / "boot") < new_boot_id(tmp_path / "boot")


def test_a_place_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    """The agent runs all the same."""
    (tmp_path / "file").write_bytes(b"")
    assert new_boot_id(tmp_path / "file" / "boot")
