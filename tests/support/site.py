"""A whole site: the real reconciler and the real agents of two nodes that share a store."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from node_agent import labels
from node_agent.readiness import ide_answers
from state import nodes, pods
from state.database import Database
from state.model import Desired, Resources
from tests.support.agent_process import AgentProcess
from tests.support.docker_node import DockerNode, pod_image
from tests.support.reconciler_process import ReconcilerProcess, reconciler_process

# For a harness that hangs, not for a machine that is slow: the latter is waited for, and told.
SETTLED_WITHIN_S = 600
TOLD_EVERY_S = 30
LOOK_EVERY_S = 0.05
IN_FLIGHT_S = 1.0


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
        until(lambda: holds(self.status(pod_id)), lambda: self.explain(pod_id))
        return self.status(pod_id)

    def explain(self, pod_id: str) -> str:
        """What a pod waits for, by all who know something of it."""
        with self.db.transaction() as conn:
            steps = conn.execute(
                "SELECT verb, target, node_id, attempt, created_at, sent_at FROM action WHERE state = 'open'"
            ).fetchall()
        said = [f"{agent.node.node_id}:\n{agent.log[-2000:]}" for agent in self.agents]
        return "\n".join([str(self.status(pod_id)), f"open steps: {steps}", *said])

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

    def run_as_root(self, pod_id: str, script: str) -> str:
        """Run a script inside the pod as root, wherever it is."""
        (container,) = self.agent_of(pod_id).node.parts.runtime.of_pod(pod_id)
        command = ["docker", "exec", "-i", "-u", "root", container.id, "bash", "-s"]
        return subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout

    def left_on_nodes(self) -> int:
        """How many containers and volumes all nodes have."""
        sights = [agent.node.parts.runtime.look() for agent in self.agents]
        return sum(len(sight.containers) + len(sight.volumes) for sight in sights)


@contextmanager
def two_nodes(
    db: Database,
    database_url: str,
    root: Path,
    environment: dict[str, str] | None = None,
    names: Sequence[str] = ("one", "two"),
    reconciler_environment: dict[str, str] | None = None,
    **settings: object,
) -> Iterator[Site]:
    """Nodes under one reconciler; `environment` is the agents', `settings` are the reconciler's."""
    given = {"archive_grace": 0.1, "backoff_first": 0.2} | settings
    with (
        reconciler_process(database_url, reconciler_environment, **given) as reconciler,
        ExitStack() as stack,
    ):
        agents = [
            stack.enter_context(_agent(db, root, name, reconciler.url, environment or {})) for name in names
        ]
        until(lambda: not any(node.silent for node in nodes.list_nodes(db)))
        yield Site(db, reconciler, agents)


@contextmanager
def _agent(
    db: Database, root: Path, name: str, gateway_url: str, environment: dict[str, str]
) -> Iterator[AgentProcess]:
    """Running; killed at the end, and nothing of its node is left."""
    node = DockerNode(root / name, store_dir=root / "store")
    token = f"token-of-{node.node_id}"
    nodes.register(db, node.node_id, token)
    agent = AgentProcess(node, gateway_url, token, root / f"{name}.log", **environment)
    try:
        agent.start()
        yield agent
    finally:
        agent.kill()
        node.clean_up()


def until(holds: Callable[[], bool], explain: Callable[[], str] = lambda: "") -> None:
    """Wait for something. Says now and then on standard error what it waits for; fails with the same."""
    began_at = told_at = time.monotonic()
    while not holds():
        now = time.monotonic()
        if now - told_at > TOLD_EVERY_S:
            told_at = now
            waited = (
                f"waited {now - began_at:.0f} of {SETTLED_WITHIN_S} s at a load of {os.getloadavg()[0]:.0f}"
            )
            print(f"{waited}: {explain()}", file=sys.stderr, flush=True)
            assert now - began_at < SETTLED_WITHIN_S, f"{waited}: {explain()}"
        time.sleep(LOOK_EVERY_S)


def age_lease(db: Database, node_id: str, silence: timedelta) -> None:
    """As if the node had been silent for that long already: nobody wants to wait for it here."""
    time.sleep(IN_FLIGHT_S)  # what it sent before it was paused must have been taken in
    with db.transaction() as conn:
        conn.execute(
            "UPDATE node_lease SET last_seen_at = last_seen_at - %s WHERE node_id = %s", (silence, node_id)
        )
