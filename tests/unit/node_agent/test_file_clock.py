"""The tick that is waited for before a tree is taken down: it tells earlier writes from later ones."""

import os
from pathlib import Path

from node_agent.archive.records import await_tick


def test_a_tick_parts_what_was_written_before_it_from_what_is_written_after(tmp_path: Path) -> None:
    """Whatever is written after it has no earlier time, and cannot pass for what was there; what was written
    before it has an earlier one, unless the clock stood still."""
    file, parted = tmp_path / "file", 0
    for number in range(50):
        file.write_bytes(os.urandom(number))
        before_ns = file.stat().st_ctime_ns
        tick_ns = await_tick()
        # A new one: where nobody has looked at a file's times, it gets one of the coarse clock.
        later = tmp_path / f"later-{number}"
        later.touch()
        assert tick_ns <= later.stat().st_ctime_ns
        parted += before_ns < tick_ns
    assert parted > 0
