"""The agent on the real engine: a pod is made, used, stopped, saved, removed and brought back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.runtime import Status
from state.wire import (
    ArchivePod,
    CreatePod,
    CreateWorkspace,
    PodSpec,
    RemovePod,
    RemoveWorkspace,
    RestorePod,
    RestoreWorkspace,
    StartPod,
    StepDone,
    StopPod,
    TombstoneProof,
)
from tests.support.docker_node import ONE, TWO, DockerNode, pod_image, proof_of, source_of


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DockerNode]:
    """A node of its own."""
    node = DockerNode(tmp_path)
    yield node
    node.clean_up()


def test_a_pod_comes_back_from_the_archive_with_everything_in_place(node: DockerNode) -> None:
    """Files in the workspace, the home directory and the system survive archive, removal and restore."""
    node.running_pod(ONE)
    node.run(ONE, "echo mine >/workspaces/notes; echo home >~/home-file")
    node.run(ONE, "touch -d '2020-01-02 03:04:05.678' /usr/local/tool; rm /etc/issue", user="root")
    node.stop(ONE)
    pod, workspace = node.saved(ONE), node.saved()
    node.done(RemovePod(proof=proof_of(pod)), ONE)
    node.done(RemoveWorkspace(proof=proof_of(workspace)))
    assert not node.has_container(ONE)

    node.done(RestoreWorkspace(archive=source_of(workspace)), epoch=2)
    spec = PodSpec(name="ide", image=pod_image(), image_id=pod.image_id)
    node.done(RestorePod(spec=spec, archive=source_of(pod)), ONE, epoch=2)
    node.done(StartPod(), ONE, epoch=2)

    said = node.run(ONE, "cat /workspaces/notes ~/home-file; stat -c %y /usr/local/tool", epoch=2)
    assert said.splitlines() == ["mine", "home", "2020-01-02 03:04:05.678000000 +0000"]
    assert node.run(ONE, "ls /etc/issue", epoch=2) == ""


def test_each_action_done_again_is_already_so(node: DockerNode) -> None:
    """Any action, delivered twice, leads to the same end (LAW 10)."""
    spec = PodSpec(name="ide", image=pod_image())
    for step, target in (
        (CreateWorkspace(), None),
        (CreatePod(spec=spec), ONE),
        (StartPod(), ONE),
        (StartPod(), ONE),
        (StopPod(), ONE),
    ):
        node.done(step, target)
        before = node.container(ONE) if target else None
        node.done(step, target)
        assert before is None or node.container(ONE).started_at == before.started_at
    saving = node.action(ArchivePod(number=1), ONE)
    made = node.executor.execute(saving)
    assert made == node.executor.execute(saving)
    assert isinstance(made, StepDone)
    assert made.archive is not None
    for _ in range(2):
        node.done(RemovePod(proof=proof_of(made.archive)), ONE)
    node.done(StopPod(), ONE)


def test_a_pod_has_its_limits_and_is_never_started_by_the_engine(node: DockerNode) -> None:
    """CPU, memory without swap, processes, an init; restart policy `no`: only the agent starts (LAW 14)."""
    node.stopped_pod(ONE, image="debian:bookworm-slim")
    host = node.host_config(ONE)
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["NanoCpus"] == 1_000_000_000
    assert host["Memory"] == host["MemorySwap"] == 2048 << 20
    assert host["PidsLimit"] == 512
    assert host["Init"] is True
    assert [binding["HostIp"] for binding in host["PortBindings"]["8080/tcp"]] == ["127.0.0.1"]


def test_every_start_has_a_secret_of_its_own(node: DockerNode) -> None:
    """A link to an earlier start leads nowhere."""
    container = node.running_pod(ONE)
    first = node.parts.host.read_session(container.session_dir)
    node.stop(ONE)
    node.done(StartPod(), ONE)
    second = node.parts.host.read_session(node.container(ONE).session_dir)
    assert first is not None
    assert second is not None
    assert first != second


def test_a_tombstone_stops_and_removes_a_running_pod_and_keeps_the_volume(node: DockerNode) -> None:
    """Deleting a pod takes its container, never the user's files in the workspace."""
    node.running_pod(ONE)
    node.run(ONE, "echo mine >/workspaces/notes")
    node.done(RemovePod(proof=TombstoneProof(generation=1)), ONE)
    assert not node.has_container(ONE)
    assert (node.files() / "notes").read_text() == "mine\n"


def test_two_pods_of_one_user_share_the_workspace(node: DockerNode) -> None:
    """What one pod writes under /workspaces, the other reads."""
    node.stopped_pod(ONE)
    node.stopped_pod(TWO)
    node.done(StartPod(), ONE)
    node.done(StartPod(), TWO)
    node.run(ONE, "echo shared >/workspaces/file")
    assert node.run(TWO, "cat /workspaces/file") == "shared\n"
    assert node.container(ONE).status is Status.RUNNING
