"""The pods of `bench.archive`: a node with the agent's own executor, on the real engine."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

from node_agent.archive.memory import Memory
from node_agent.archives import Archives
from node_agent.parts import Parts
from node_agent.readiness import POLL_EVERY_S, ide_answers
from node_agent.runtime import Container
from node_agent.store import Store
from state.wire import ArchiveMade, CreatePod, CreateWorkspace, PodSpec, RestorePod, StartPod, StopPod
from tests.support.docker_node import DockerNode, pod_image, source_of

TIMEOUT_S = 60


class BenchNode(DockerNode):
    """A node whose archives go to the bench's store."""

    def __init__(self, root: Path, store: Store) -> None:
        self._bench_store = store
        super().__init__(root, store_dir=root / "unused")
        self._epoch = 1

    def _parts(self) -> Parts:
        return replace(
            super()._parts(),
            archives=Archives(self._bench_store, Memory(self.settings.data_dir / "archives")),
        )

    def upper(self, pod_id: str) -> Path:
        """Where the pod's changes lie."""
        upper_dir = self.container(pod_id).upper_dir
        assert upper_dir is not None
        return Path(upper_dir)

    def open_archived(self, pod_id: str, saved: ArchiveMade) -> None:
        """A container of the next epoch from the archive, until its page answers."""
        self._epoch += 1
        self.done(CreateWorkspace(), epoch=self._epoch)
        spec = PodSpec(name="ide", image=pod_image(), image_id=saved.image_id)
        self.done(RestorePod(spec=spec, archive=source_of(saved)), pod_id, epoch=self._epoch)
        self.done(StartPod(), pod_id, epoch=self._epoch)

    def plain_start(self, pod_id: str) -> None:
        """`docker start` of the first epoch's container, until its page answers."""
        container = self.container(pod_id)
        subprocess.run(["docker", "start", container.id], check=True, capture_output=True)
        started = self.container(pod_id)
        secret = self.parts.host.read_session(container.session_dir)
        assert secret is not None
        assert started.host_port is not None
        deadline = time.monotonic() + TIMEOUT_S
        while not ide_answers("127.0.0.1", started.host_port, secret):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pod_id} did not answer within {TIMEOUT_S} s")
            time.sleep(POLL_EVERY_S)

    def stop_started(self) -> None:
        """Stop what runs on this node."""
        for container in self.parts.runtime.look().containers:
            if container.live:
                subprocess.run(["docker", "stop", container.id], check=True, capture_output=True)


def pod_with(node: BenchNode, pod_id: str, tree: Path) -> Container:
    """A stopped pod that has run once, with the tree in its home directory."""
    node.done(CreateWorkspace())
    node.done(CreatePod(spec=PodSpec(name="ide", image=pod_image())), pod_id)
    node.done(StartPod(), pod_id)
    node.done(StopPod(), pod_id)
    container = node.container(pod_id)
    subprocess.run(
        ["docker", "cp", f"{tree}/.", f"{container.id}:/home/coder/work"], check=True, capture_output=True
    )
    return container
