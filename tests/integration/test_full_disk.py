"""The node's own disk is full: what the agent keeps is old or new, never half."""

from contextlib import suppress
from pathlib import Path

import pytest

from node_agent.journal import Journal
from tests.support.filling import full
from tests.support.small_disk import small_disk

PAGE_BYTES = 4096
EPOCHS = {f"w-{number:08}": 1 for number in range(1000)}


@pytest.mark.parametrize("pages_left", range(1, 8))
def test_a_journal_on_a_full_disk_is_old_or_new(tmp_path: Path, pages_left: int) -> None:
    """However little room there is: what was seen before is still known after the next start."""
    with small_disk(tmp_path / "disk", 1) as disk:
        Journal(disk / "journal", "node").see("w-first", 7)
        with full(disk, left_bytes=pages_left * PAGE_BYTES), suppress(OSError):
            Journal(disk / "journal", "node").see_all(EPOCHS)
        assert Journal(disk / "journal", "node").highest("w-first") == 7
        assert [path.name for path in disk.iterdir()] == ["journal"]
