"""The safe way where there is no other: on a real engine whose storage driver is vfs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.facts import find_facts
from node_agent.ways import Way
from state.wire import CreateWorkspace, PodSpec, RestorePod
from tests.support.docker_node import DockerNode, own_pod, source_of
from tests.support.vfs_engine import IMAGE, docker, vfs_engine

POD = own_pod("vfs")
CHANGES = """set -e
rm -r /etc/gone /etc/deleted
rm /etc/replaced; mkdir /etc/replaced; echo in >/etc/replaced/file
mkdir -p /opt/new/a; echo one >/opt/new/a/x; ln /opt/new/a/x /opt/new/y; ln -s a/x /opt/new/link
chmod 4711 /opt/new/a/x
rm /usr/bin/id
"""
SEEN = (
    "cd /; ls -R etc opt usr/bin workspaces; cat opt/new/y etc/replaced/file; stat -c '%a %h %Y' opt/new/a/x"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine without overlay2."""
    with vfs_engine(tmp_path_factory.mktemp("vfs")) as url:
        yield url


@pytest.fixture
def node(engine: str, tmp_path: Path) -> Iterator[DockerNode]:
    """A node on it, which finds its way by itself."""
    node = DockerNode(tmp_path, docker_host=engine)
    yield node
    for container in docker(engine, "ps", "-aq").split():
        docker(engine, "rm", "-f", container)
    node.clean_up()


def seen_in(engine: str, container_id: str) -> str:
    """What a pod sees of itself; it runs for as long as it is looked at."""
    docker(engine, "start", container_id)
    seen = docker(engine, "exec", container_id, "sh", "-c", SEEN)
    docker(engine, "stop", "--time", "0", container_id)
    return seen


def test_a_pod_is_saved_and_restored_without_an_upper_directory(engine: str, node: DockerNode) -> None:
    """The probe finds the safe way by itself; deletions, links and modes come back, the workspace is kept."""
    facts = find_facts(node.parts)
    assert (facts.storage_driver, facts.archive_way) == ("vfs", Way.SAFE)
    pod = node.stopped_pod(POD, image=IMAGE)
    docker(engine, "start", pod.id)
    docker(engine, "exec", pod.id, "sh", "-c", CHANGES)
    before = seen_in(engine, pod.id)
    saved = node.saved(POD)
    assert saved.size_bytes < 100_000

    node.done(CreateWorkspace(), epoch=2)
    spec = PodSpec(name="ide", image=IMAGE, image_id=saved.image_id)
    node.done(RestorePod(spec=spec, archive=source_of(saved)), POD, epoch=2)
    restored = node.container(POD, epoch=2)
    assert restored.image_id == pod.image_id
    assert seen_in(engine, restored.id) == before
