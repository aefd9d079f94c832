"""Processes of a pod that its engine has lost: it says the pod does not run, and they write to its files."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from node_agent.ghosts import Ghosts
from state.wire import ArchivePod
from tests.support.docker_node import ONE, DockerNode
from tests.support.ghosts import ghost_of

LOST = "0123456789abcdef" * 4


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own on the machine's engine."""
    made = DockerNode(tmp_path)
    yield made
    made.clean_up()


def test_what_is_archived_has_no_process_left_whatever_its_engine_says(node: DockerNode) -> None:
    """The engine shows a container that does not run; its process is ended before anything is read."""
    container = node.stopped_pod(ONE)
    written = node.parts.ways.upper_dir(container) / "written"
    with ghost_of(container.id, written) as ghost:
        assert Ghosts().of(container.id)
        assert node.container(ONE).quiet
        node.saved(ONE)
        assert ghost.wait() == -9
    assert Ghosts().of(container.id) == ()


def test_nobody_is_ended_for_a_pod_that_runs(node: DockerNode) -> None:
    """Only what the engine says does not run has ghosts: a running pod is refused, and left alone."""
    container = node.running_pod(ONE)
    assert node.refused(ArchivePod(number=1), ONE).code == "pod_running"
    assert node.container(ONE).pid in Ghosts().of(container.id)


def shim(*words: str) -> subprocess.Popen[bytes]:
    """A process that looks like containerd's shim of a container; it ends when its input does."""
    argv = ["/usr/bin/containerd-shim-runc-v2", "-c", "read nothing", "-id", LOST, *words]
    return subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE)


def test_the_shim_of_a_lost_container_is_ended_and_the_engines_clearing_away_is_waited_for() -> None:
    """Ended in the middle of that, the engine keeps a folder for which it never starts the pod again."""
    with ExitStack() as stack:
        holding, clearing = (stack.enter_context(shim(*words)) for words in ((), ("delete",)))

        def end_by_itself() -> None:
            holding.wait()
            assert clearing.stdin is not None
            clearing.stdin.close()

        thread = threading.Thread(target=end_by_itself)
        thread.start()
        assert Ghosts().end(LOST, shim_too=True) == 1
        thread.join()
        assert (holding.returncode, clearing.wait()) == (-9, 1)
