"""A schedule that the simulation once failed, done to the real parts.

    python -m tests.sim --replay FILE --real

Real agents and a real reconciler as processes, real Docker, PostgreSQL and store; faults at calls are named
failpoints. Users write whenever their pods run; in the end every pod must be as last wished, with every byte.
"""

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from state import nodes, pods
from state.database import Database
from state.embedded import EmbeddedPostgres
from state.migrate import migrate
from state.model import Desired, Resources
from tests.chaos.learners import Learner
from tests.sim.realwards import Deed, deeds_of
from tests.sim.schedule import NODES, Schedule
from tests.support.agent_process import AgentProcess
from tests.support.docker_node import pod_image
from tests.support.pod_tree import differences, pod_tree
from tests.support.ports import free_port
from tests.support.site import Site, two_nodes, until

LOOK_EVERY_S = 0.1
# The simulation's minutes of waiting show nothing new on real parts.
PAUSE_S_MAX = 20.0
# How long an agent that came to a stop at a failpoint is left there.
STOPPED_S = 5.0
MET_WITHIN_S = 90.0
# Two pods of one user share a workspace, and only their own files are theirs alone.
OWN_TOPS = ("/home", "/opt", "/root", "/srv")


class Witness(Learner):
    """A user who writes when the pod runs, and looks at the end."""

    def write_if_running(self, rng: random.Random) -> None:
        """And remember how all of it looks; a pod that goes away meanwhile has lost nothing that was said."""
        if self.site.status(self.pod_id).actual != "running":
            return
        with suppress(subprocess.CalledProcessError, ValueError):
            self.write(rng)
            self.tree = pod_tree(self._container(), OWN_TOPS)

    def look(self) -> None:
        """It runs, and every file is as it was."""
        self.site.until_is(self.pod_id, "running")
        if self.tree:
            assert differences(self.tree, pod_tree(self._container(), OWN_TOPS)) == {}, self.pod_id


@dataclass
class Replay:
    """The deeds of one schedule on one site."""

    site: Site
    witnesses: dict[str, Witness] = field(default_factory=dict)
    wished: dict[str, Desired] = field(default_factory=dict)
    resumes: list[tuple[float, AgentProcess]] = field(default_factory=list)
    # Failpoints that nobody has come to yet.
    armed: list[Deed] = field(default_factory=list)
    died: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def play(self, deeds: list[Deed]) -> None:
        """All of them, in order and in time; then heal, and look."""
        began_at = time.monotonic()
        ahead_s = 0.0
        for deed in deeds:
            self._await_met([armed for armed in self.armed if armed.met_at_s <= deed.at_s])
            # What the simulation waits for long is not waited for here.
            ahead_s = max(ahead_s, deed.at_s - PAUSE_S_MAX - (time.monotonic() - began_at))
            while time.monotonic() - began_at + ahead_s < deed.at_s:
                self._attend()
            print(f"{deed.at_s:8.2f} s {deed.what} {deed.who} {deed.detail}", flush=True)
            self._do(deed)
        self._await_met(list(self.armed))
        self._heal()
        self._judge()

    def _await_met(self, deeds: list[Deed]) -> None:
        """What is done next came after these calls; not for ever, for the calls may go elsewhere here."""
        ends_at = time.monotonic() + MET_WITHIN_S
        for deed in deeds:
            while not self._is_met(deed) and time.monotonic() < ends_at:
                self._attend()
            print(f"         {deed.detail} {'was met' if self._is_met(deed) else 'was not met'}", flush=True)
            self.armed.remove(deed)

    def _is_met(self, deed: Deed) -> bool:
        if deed.detail.endswith("=crash"):
            return self.died > 0
        if deed.detail.endswith("=stop"):
            return any(agent.is_stopped() for agent in self.site.agents)
        return any(f"failpoint {deed.detail.split(':')[0]}" in agent.log for agent in self.site.agents)

    def _attend(self) -> None:
        time.sleep(LOOK_EVERY_S)
        for witness in self.witnesses.values():
            if not witness.tree:
                witness.write_if_running(self.rng)
        for agent in self.site.agents:
            if agent.revive():
                self.died += 1
                print(f"         {agent.node.node_id} has died, and was started again", flush=True)
        now = time.monotonic()
        resuming = [agent for _, agent in self.resumes]
        for agent in self.site.agents:
            if agent.is_stopped() and agent not in resuming:
                self.resumes.append((now + STOPPED_S, agent))
        for at, agent in [line for line in self.resumes if line[0] <= now]:
            self.resumes.remove((at, agent))
            agent.go_on()

    def _agent(self, who: str) -> AgentProcess:
        return self.site.agents[NODES.index(who)]

    def _do(self, deed: Deed) -> None:
        doers: dict[str, Callable[[Deed], None]] = {
            "wish": self._wish,
            "failpoint": self._failpoint,
            "kill_agent": lambda deed: self._begin_anew(self._agent(deed.who)),
            "kill_reconciler": lambda _deed: self._kill_reconciler(),
            "pause_agent": lambda deed: self._pause(self._agent(deed.who), deed.lasts_s),
            "pause_agents": self._pause_all,
            "cordon": lambda deed: self._cordon(deed.who, cordoned=True),
            "uncordon": lambda deed: self._cordon(deed.who, cordoned=False),
            "exit_pod": lambda deed: self._by_hand("kill", deed.who),
            "start_pod": lambda deed: self._by_hand("start", deed.who),
        }
        doers[deed.what](deed)

    def _wish(self, deed: Deed) -> None:
        desired, user = Desired(deed.detail), f"user-{deed.who.split('-')[1]}"
        if deed.who not in self.witnesses:
            witness = Witness(self.site, user)
            witness.pod_id = _new_pod(self.site.db, user, deed.who, desired)
            self.witnesses[deed.who] = witness
        elif self.wished[deed.who] is not Desired.DELETED:
            self.witnesses[deed.who].write_if_running(self.rng)
            self.site.want(self.witnesses[deed.who].pod_id, desired)
        if self.wished.get(deed.who) is not Desired.DELETED:
            self.wished[deed.who] = desired

    def _failpoint(self, deed: Deed) -> None:
        """On every node: where a pod is placed is not the simulation's to say."""
        self.armed.append(deed)
        self.died = 0
        points = ";".join(armed.detail for armed in self.armed)
        for agent in self.site.agents:
            self._begin_anew(agent, points)

    def _begin_anew(self, agent: AgentProcess, failpoints: str = "") -> None:
        self.resumes = [line for line in self.resumes if line[1] is not agent]
        agent.begin_anew(failpoints=failpoints)

    def _pause(self, agent: AgentProcess, lasts_s: float) -> None:
        if not agent.has_died():
            agent.pause()
            self.resumes.append((time.monotonic() + min(lasts_s, PAUSE_S_MAX), agent))

    def _pause_all(self, deed: Deed) -> None:
        for agent in self.site.agents:
            self._pause(agent, deed.lasts_s)

    def _kill_reconciler(self) -> None:
        self.site.reconciler.kill()
        self.site.reconciler.start()

    def _cordon(self, who: str, *, cordoned: bool) -> None:
        nodes.set_cordoned(self.site.db, self._agent(who).node.node_id, cordoned, actor="test")

    def _by_hand(self, command: str, who: str) -> None:
        if who not in self.witnesses:
            return
        for agent in self.site.agents:
            for container in agent.node.parts.runtime.of_pod(self.witnesses[who].pod_id):
                subprocess.run(["docker", command, container.id], capture_output=True, check=False)

    def _heal(self) -> None:
        self.resumes.clear()
        for agent in self.site.agents:
            nodes.set_cordoned(self.site.db, agent.node.node_id, False, actor="test")
            self._begin_anew(agent)

    def _judge(self) -> None:
        """As last wished; and then each runs again, with every byte."""
        for who, witness in self.witnesses.items():
            self._until_as_wished(witness.pod_id, self.wished[who])
        for who, witness in self.witnesses.items():
            if self.wished[who] is not Desired.DELETED:
                witness.want(Desired.RUNNING)
                witness.look()

    def _until_as_wished(self, pod_id: str, desired: Desired) -> None:
        def holds() -> bool:
            self._attend()
            status = self.site.status(pod_id)
            return status.condition == "settled" and status.satisfied_generation == status.generation

        until(holds, lambda: f"{pod_id} is not {desired}: {self.site.explain(pod_id)}")


def _new_pod(db: Database, user: str, name: str, desired: Desired) -> str:
    row, _ = pods.create_or_open(
        db,
        user_id=user,
        name=name,
        image=pod_image(),
        lab=None,
        resources=Resources(),
        desired=desired,
        actor="test",
        reason="a replayed wish",
    )
    return row.id


def replay(schedule: Schedule) -> int:
    """On a site of its own; 0 if every pod came to what was wished, with every byte, else AssertionError."""
    deeds, left_out = deeds_of(schedule)
    for line in left_out:
        print(f"left out: {line}")
    root = Path(tempfile.mkdtemp(prefix="codepods-replay-"))
    root.chmod(0o711)
    postgres = EmbeddedPostgres(root / "postgres", port=free_port())
    try:
        postgres.start()
        migrate(postgres.url)
        db = Database(postgres.url, "test")
        with two_nodes(db, postgres.url, root, names=NODES) as site:
            Replay(site).play(deeds)
        db.close()
    finally:
        postgres.stop()
        shutil.rmtree(root)
    print(f"{len(deeds)} deeds done, {len(left_out)} left out: as last wished, every byte is there")
    return 0
