"""A save that nobody wants any more ends where it is, and is made again from what is there."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.errors import TakenBack
from state.wire import ArchiveWorkspace, CreateWorkspace, StepDone
from tests.support.docker_node import DockerNode

MIB = 1 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


@pytest.mark.parametrize("phase_bytes", [0, 100 * MIB], ids=["at its start", "while it is read back"])
def test_a_save_that_is_taken_back_ends_at_the_next_chunk(node: DockerNode, phase_bytes: int) -> None:
    """A start does not wait for an upload: it ends in the middle, and no archive shows."""
    node.done(CreateWorkspace())
    for number in range(4):
        (node.files() / f"large-{number}").write_bytes(os.urandom(25 * MIB))
    taken_back, heard = threading.Event(), []

    def note(_phase: str, done_bytes: int, _total_bytes: int | None) -> None:
        heard.append(done_bytes)
        if done_bytes > phase_bytes:
            taken_back.set()

    action = node.action(ArchiveWorkspace(number=1))
    with pytest.raises(TakenBack):
        node.executor.execute(action, taken_back, note)

    assert not [key for key in node.store.list("") if key.endswith("manifest.json")]
    assert heard[-1] < phase_bytes + 10 * MIB
    again = node.executor.execute(node.action(ArchiveWorkspace(number=1)))
    assert isinstance(again, StepDone), again
