"""Processes of a pod that its engine has lost: it says the pod does not run, and they write to its files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.ghosts import Ghosts
from state.wire import ArchivePod
from tests.support.docker_node import DockerNode
from tests.support.ghosts import ghost_of

POD = "p-one"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own on the machine's engine."""
    made = DockerNode(tmp_path)
    yield made
    made.clean_up()


def test_what_is_archived_has_no_process_left_whatever_its_engine_says(node: DockerNode) -> None:
    """The engine shows a container that does not run; its process is ended before anything is read."""
    container = node.stopped_pod(POD)
    written = node.parts.ways.upper_dir(container) / "written"
    with ghost_of(container.id, written) as ghost:
        assert Ghosts().of(container.id)
        assert node.container(POD).quiet
        node.saved(POD)
        assert ghost.wait() == -9
    assert Ghosts().of(container.id) == ()


def test_nobody_is_ended_for_a_pod_that_runs(node: DockerNode) -> None:
    """Only what the engine says does not run has ghosts: a running pod is refused, and left alone."""
    container = node.running_pod(POD)
    assert node.refused(ArchivePod(number=1), POD).code == "pod_running"
    assert node.container(POD).pid in Ghosts().of(container.id)
