"""The journal keeps epochs, and never stands in the way."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.journal import Journal

EPOCHS = st.lists(st.tuples(st.sampled_from(["w-a", "w-b"]), st.integers(0, 50)), max_size=12)


@settings(max_examples=30)
@given(seen=EPOCHS)
def test_the_highest_epoch_is_kept_across_restarts(
    tmp_path_factory: object, seen: list[tuple[str, int]]
) -> None:
    """Whatever the order, what is read back is the highest of all."""
    path = _fresh(tmp_path_factory)
    journal = Journal(path, "n1")
    for workspace_id, epoch in seen:
        journal.see(workspace_id, epoch)
    again = Journal(path, "n1")
    for workspace_id in ("w-a", "w-b"):
        expected = max((epoch for name, epoch in seen if name == workspace_id), default=0)
        assert again.highest(workspace_id) == expected


@settings(max_examples=30)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_set_aside(tmp_path_factory: object, content: bytes) -> None:
    """A journal that cannot be read is kept for people to look at, and a new one begins."""
    path = _fresh(tmp_path_factory)
    path.write_bytes(content)
    journal = Journal(path, "n1")
    assert journal.highest("w-a") == 0
    assert path.with_name("journal.json.unreadable").read_bytes() == content
    journal.see("w-a", 3)
    assert Journal(path, "n1").highest("w-a") == 3


def test_another_nodes_journal_is_not_ours(tmp_path: Path) -> None:
    """A copied data directory does not bring another node's epochs with it."""
    path = tmp_path / "journal.json"
    Journal(path, "n1").see("w-a", 9)
    assert Journal(path, "n2").highest("w-a") == 0


def test_epochs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """True is not 1, and a text is no epoch."""
    path = tmp_path / "journal.json"
    for epoch in (True, "7", 1.5, None):
        path.write_text(json.dumps({"version": 1, "node": "n1", "epochs": {"w-a": epoch}}))
        assert Journal(path, "n1").highest("w-a") == 0


def _fresh(factory: object) -> Path:
    made: Path = factory.mktemp("journal") / "journal.json"  # type: ignore[attr-defined]
    return made
