"""The real agent under the real reconciler: desired rows become containers, whatever is killed on the way."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent import labels
from node_agent.readiness import ide_answers
from state import nodes, pods
from state.database import Database
from state.model import Desired, Resources
from tests.support.agent_process import AgentProcess
from tests.support.docker_node import DockerNode, pod_image
from tests.support.reconciler_process import ReconcilerProcess, reconciler_process

SETTLED_WITHIN_S = 90
LOOK_EVERY_S = 0.05


@dataclass
class Site:
    """A control plane and the agents of two nodes that share a store."""

    db: Database
    reconciler: ReconcilerProcess
    agents: list[AgentProcess]

    def open(self, user: str = "alice", *, image: str | None = None) -> str:
        """A pod that is wanted running."""
        row, _ = pods.create_or_open(
            self.db,
            user_id=user,
            name="ide",
            image=image or pod_image(),
            lab=None,
            resources=Resources(),
            desired=Desired.RUNNING,
            actor="test",
            reason="opened",
        )
        return row.id

    def want(self, pod_id: str, desired: Desired) -> None:
        """Change what is wanted."""
        pods.set_desired(self.db, pod_id, desired, actor="test", reason="a test wants it")

    def status(self, pod_id: str) -> pods.PodStatus:
        """What the database knows of a pod."""
        status = pods.get_pod(self.db, pod_id)
        assert status is not None
        return status

    def until(self, pod_id: str, holds: Callable[[pods.PodStatus], bool]) -> pods.PodStatus:
        """Wait for a pod."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while time.monotonic() < deadline:
            status = self.status(pod_id)
            if holds(status):
                return status
            time.sleep(LOOK_EVERY_S)
        logs = "\n".join(agent.log[-3000:] for agent in self.agents)
        raise AssertionError(f"{self.status(pod_id)}\n{logs}")

    def until_is(self, pod_id: str, actual: str) -> pods.PodStatus:
        """Wait until a pod is in a state, and the reconciler is content with it."""
        return self.until(
            pod_id,
            lambda status: status.actual == actual and status.satisfied_generation == status.generation,
        )

    def answers(self, pod_id: str) -> bool:
        """The IDE serves pages to the holder of the session secret that the database has."""
        access = pods.access_of(self.db, pod_id)
        if access is None:
            return False
        host, _, port = access.upstream.rpartition(":")
        return ide_answers(host, int(port), access.session_secret)

    def agent_of(self, pod_id: str) -> AgentProcess:
        """The agent of the node that the pod is on."""
        node_id = self.status(pod_id).node_id
        return next(agent for agent in self.agents if agent.node.node_id == node_id)

    def run(self, pod_id: str, script: str) -> str:
        """Run a script inside the pod, wherever it is."""
        node = self.agent_of(pod_id).node
        (container,) = node.parts.runtime.of_pod(pod_id)
        epoch = labels.read_pod(container.labels).epoch
        return node.run(pod_id, script, epoch=epoch)

    def left_on_nodes(self) -> int:
        """How many containers and volumes all nodes have."""
        sights = [agent.node.parts.runtime.look() for agent in self.agents]
        return sum(len(sight.containers) + len(sight.volumes) for sight in sights)


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under one reconciler."""
    with reconciler_process(database_url, archive_grace=0.1, backoff_first=0.2) as reconciler:
        agents = [_agent(db, tmp_path, name, reconciler.url) for name in ("one", "two")]
        _until(lambda: not any(node.silent for node in nodes.list_nodes(db)))
        yield Site(db, reconciler, agents)
        for agent in agents:
            agent.kill()
            agent.node.clean_up()


def _agent(db: Database, root: Path, name: str, gateway_url: str) -> AgentProcess:
    node = DockerNode(root / name, store_dir=root / "store")
    token = f"token-of-{node.node_id}"
    nodes.register(db, node.node_id, token)
    agent = AgentProcess(node, gateway_url, token, root / f"{name}.log")
    agent.start()
    return agent


def test_a_pod_is_opened_put_away_and_brought_back_on_the_other_node(site: Site) -> None:
    """Desired states alone move a learner's work from one node to another."""
    pod_id = site.open()
    first = site.until_is(pod_id, "running")
    assert site.answers(pod_id)
    site.run(pod_id, "echo mine >~/file; echo ours >/workspaces/file")
    site.want(pod_id, Desired.STOPPED)
    site.until_is(pod_id, "stopped")
    site.want(pod_id, Desired.ARCHIVED)
    site.until_is(pod_id, "archived")
    assert first.node_id is not None
    nodes.set_cordoned(site.db, first.node_id, True, actor="test")
    site.until(pod_id, lambda status: status.node_id is None)
    assert site.left_on_nodes() == 0

    site.want(pod_id, Desired.RUNNING)
    second = site.until_is(pod_id, "running")
    assert second.node_id != first.node_id
    assert site.answers(pod_id)
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "mine\nours\n"
    site.want(pod_id, Desired.DELETED)
    site.until_is(pod_id, "deleted")
    _until(lambda: site.left_on_nodes() == 0)


@pytest.mark.parametrize("seed", range(2))
def test_agents_killed_at_any_moment_lose_nothing(site: Site, seed: int) -> None:
    """kill -9 of every agent again and again through the cycle: it converges, with the same bytes."""
    chance = random.Random(seed)
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo mine >~/file; echo ours >/workspaces/file")
    for desired in (Desired.STOPPED, Desired.ARCHIVED, Desired.RUNNING):
        site.want(pod_id, desired)
        for _ in range(3):
            time.sleep(chance.uniform(0.01, 0.4))
            for agent in site.agents:
                agent.kill()
                agent.start()
        site.until_is(pod_id, desired)
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "mine\nours\n"
    assert site.answers(pod_id)
    assert site.left_on_nodes() == 2


def test_a_running_pod_does_not_notice_that_the_control_plane_is_gone(
    site: Site, tmp_path: Path, database_url: str
) -> None:
    """Without a gateway pods keep running; an agent that restarts meanwhile reports them when it is back."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    access = pods.access_of(site.db, pod_id)
    agent = site.agent_of(pod_id)
    started_at = agent.node.parts.runtime.of_pod(pod_id)[0].started_at
    site.reconciler.kill()
    agent.kill()
    agent.start()
    assert site.answers(pod_id)
    with reconciler_process(database_url) as reconciler:
        for each in site.agents:
            each.kill()
            each.start(reconciler.url)
        site.until(pod_id, lambda _: site.answers(pod_id) and pods.access_of(site.db, pod_id) == access)
    assert agent.node.parts.runtime.of_pod(pod_id)[0].started_at == started_at


def test_a_pod_of_an_image_that_is_nowhere_says_so_and_holds_up_nobody(site: Site) -> None:
    """The bad pod's failure is in its row; another user's pod runs."""
    bad = site.open("bob", image="127.0.0.1:1/no/such-image:1")
    good = site.open("carol")
    site.until_is(good, "running")
    status = site.until(bad, lambda status: status.failure is not None)
    assert status.failure is not None
    assert status.failure.code == "image_not_found"


def test_a_pod_stopped_by_hand_is_started_again(site: Site) -> None:
    """The engine's event makes the agent look sooner; the difference makes the reconciler act."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    runtime = site.agent_of(pod_id).node.parts.runtime
    before = runtime.of_pod(pod_id)[0]
    runtime.stop(before.id, 5)
    _until(lambda: runtime.of_pod(pod_id)[0].started_at != before.started_at)
    site.until(pod_id, lambda _: site.answers(pod_id))


def test_an_agent_that_is_asked_to_end_leaves_its_pods_running(site: Site) -> None:
    """SIGTERM ends the agent with exit code 0, not the pods."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    assert site.agent_of(pod_id).stop() == 0
    assert site.answers(pod_id)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(LOOK_EVERY_S)
