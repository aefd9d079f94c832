"""A fleet in one thread: nodes, agents, reconcilers, users, a store, and a schedule of what goes wrong.

`run(schedule)` is a safety phase with faults, then healing, then the demand that everything comes to what was
last wished, and that nothing is touched after that (I6).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from node_agent.labels import EPOCH, NODE, WORKSPACE, is_partial
from node_agent.runtime import Status, VolumeState
from state.model import Desired, Limits
from tests.sim.actors import AgentActor, ReconcilerActor
from tests.sim.database import SimDatabase
from tests.sim.docker import SimContainer, SimDocker, SimVolume, at
from tests.sim.host import SimTime
from tests.sim.ingest import Ingest
from tests.sim.rows import NodeRow, PodRow, WorkspaceRow
from tests.sim.schedule import NODES, PODS, RECONCILERS, ZOMBIE, Fault, Schedule
from tests.sim.scheduler import Armed, Process, Scheduler
from tests.sim.seams import installed
from tests.sim.store import SimStore
from tests.sim.trees import Trees
from tests.sim.truth import Truth, Violation

RESTART_S = 2.0
USED_S = 0.3
WRITE_EVERY_S = 0.8
# Healed, everything must be as wished within this much virtual time: several back-offs at their ceiling.
CONVERGES_S_MAX = 1800.0
CONVERGES_STEPS_MAX = 60_000
# And then nothing may be changed for this long: more than one resync.
QUIET_S = 130.0
# Faults after which something of a former placement may be left on a node, reported and untouched.
_LEAVES_STRAYS = frozenset({ZOMBIE})


@dataclass
class Outcome:
    """What a run came to."""

    schedule: Schedule
    steps: int
    digest: str
    marks: Counter[str]
    faults: Counter[str]
    checks: Counter[str]
    mutations: int
    violation: Violation | None = None
    last_lines: list[str] = field(default_factory=list)


class Fleet:
    """The world and all who act in it."""

    def __init__(self, seed: int, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.marks: Counter[str] = Counter()
        self.scheduler = Scheduler(seed, on_kill=self._killed, on_zombie=self._replace)
        self.db = SimDatabase(lambda: at(self.scheduler.now_s))
        self.truth = Truth(self.scheduler, self.db, self.limits, self.marks)
        self.db.watch = self.truth.planned
        self.store = self.truth.store = SimStore(self.scheduler, self.truth.store_changed)
        self.trees = Trees(self.scheduler)
        jitter = Random(f"jitter {seed}")
        self.ingest = Ingest(self.db, self.limits, jitter.random, self.marks)
        self.history: dict[str, set[int]] = {}
        self.births = 0
        self.healing = False
        self.agents: dict[str, AgentActor] = {}
        for node_id in NODES:
            self.db.nodes[node_id] = NodeRow(node_id)
            self.truth.dockers[node_id] = SimDocker(
                node_id, self.scheduler, self.trees, self.truth.engine_changed
            )
        for pod_id in PODS:
            user = pod_id.split("-")[1]
            self.db.workspaces.setdefault(f"w-{user}", WorkspaceRow(f"w-{user}", f"user-{user}"))
            self.db.pods[pod_id] = PodRow(pod_id, f"w-{user}")
        self.tokens = 0
        self._start_everybody()

    # ---- who acts ------------------------------------------------------------------------------------------

    def _start_everybody(self) -> None:
        for node_id in NODES:
            self._start_agent(node_id)
        for name in RECONCILERS:
            self._start_reconciler(name)
        self.scheduler.spawn(Process("users"), "users", self._users)

    def _process(self, name: str) -> Process:
        self.births += 1
        return Process(name, self.births)

    def _start_agent(self, node_id: str) -> None:
        process = self._process(node_id)
        cut_until_s = self.agents[node_id].gateway.cut_until_s if node_id in self.agents else 0.0
        actor = AgentActor(
            self.truth.dockers[node_id], self.store, self.ingest, process, self.history, self.marks
        )
        actor.gateway.cut_until_s = cut_until_s
        self.agents[node_id] = actor

    def _start_reconciler(self, name: str) -> None:
        ReconcilerActor(self.db, self.scheduler, self._process(name), self.limits)

    def _killed(self, process: Process) -> None:
        """Its supervisor starts it again after a while, unless another has taken its place."""
        if process.name in NODES and self.agents[process.name].process is process:
            self._later(RESTART_S, lambda: self._start_agent(process.name))
        elif process.name in RECONCILERS:
            self._later(RESTART_S, lambda: self._start_reconciler(process.name))

    def _replace(self, process: Process) -> None:
        """The agent hangs, and its supervisor has started another: the first is a zombie from now on."""
        if process.name in NODES and self.agents[process.name].process is process:
            self.marks["zombie"] += 1
            self._later(RESTART_S, lambda: self._start_agent(process.name))

    def _later(self, after_s: float, then: Callable[[], None]) -> None:
        def body() -> None:
            self.scheduler.sleep(after_s)
            then()

        self.scheduler.spawn(Process("supervisor"), "supervisor", body)

    def _users(self) -> None:
        random = Random(f"users {self.scheduler.seed}")
        while not self.healing:
            self.scheduler.sleep(random.expovariate(1 / WRITE_EVERY_S))
            running = [
                (docker, found)
                for pod_id in PODS
                for docker, found in self.truth.containers(pod_id)
                if found.status is Status.RUNNING
            ]
            if running and not self.healing:
                docker, container = random.choice(running)
                self.write(docker, container)

    def write(self, docker: SimDocker, container: SimContainer) -> None:
        """One user saves one file."""
        self.tokens += 1
        token = f"{self.tokens};".encode()
        self.scheduler.tell(f"user of {container.pod_id} writes {token.decode()} in {container.id}")
        self.truth.write(container, docker.volumes.get(container.volume), token)

    # ---- what happens to them ------------------------------------------------------------------------------

    def happen(self, fault: Fault) -> None:
        """A wish, or a fault of the world."""
        self.scheduler.tell(f"{fault.kind} {fault.actor} {fault.arg}")
        kind, _, detail = fault.kind.partition(":")
        if kind == "wish":
            if self.db.set_desired(fault.actor, Desired(detail)):
                self.truth.wished(fault.actor)
            return
        self.scheduler.fired[kind] += 1
        until_s = self.scheduler.now_s + fault.arg
        if kind.endswith("_pod"):
            self._by_hand(kind, fault.actor)
        elif kind in ("cordon", "uncordon"):
            self.db.nodes[fault.actor].cordoned = kind == "cordon"
        elif kind == "store_down":
            self.store.down_until_s = until_s
        elif kind == "engine_down":
            self.truth.dockers[fault.actor].down_until_s = until_s
        elif kind == "reboot":
            self._reboot(fault.actor)
        else:
            for node_id in NODES if kind == "partition_all" else (fault.actor,):
                self.agents[node_id].gateway.cut_until_s = until_s

    def _by_hand(self, kind: str, pod_id: str) -> None:
        for docker, found in self.truth.containers(pod_id):
            if kind == "exit_pod":
                docker.stop_now(found.id)
                return
            live = self.db.workspaces[found.labels[WORKSPACE]].placement
            if live is not None and live.epoch == int(found.labels[EPOCH]):
                docker.start_now(found.id)
                if kind == "use_pod":
                    self._use(docker, found)
                return

    def _use(self, docker: SimDocker, container: SimContainer) -> None:
        """Somebody writes in it for a moment, and stops it again."""

        def body() -> None:
            self.scheduler.sleep(USED_S)
            if container.status is Status.RUNNING and container.id in docker.containers:
                self.write(docker, container)
                docker.stop_now(container.id)

        self.scheduler.spawn(Process("hand"), "hand", body)

    def _reboot(self, node_id: str) -> None:
        self.truth.dockers[node_id].reboot()
        processes = [actor.process for actor in self.scheduler.actors if actor.process.name == node_id]
        for process in dict.fromkeys(processes):
            self.scheduler.kill(process)

    def heal(self) -> None:
        """No more faults; what is stopped goes on, what is cut is joined, what is cordoned is not."""
        self.scheduler.tell("healed")
        self.healing = True
        self.scheduler.armed.clear()
        self.store.down_until_s = 0.0
        for actor in self.scheduler.actors:
            actor.process.paused_until_s = 0.0
        for node_id in NODES:
            self.agents[node_id].gateway.cut_until_s = 0.0
            self.truth.dockers[node_id].down_until_s = 0.0
            self.db.nodes[node_id].cordoned = False
        # A supervisor does not leave two agents on one node for ever.
        for actor in list(self.scheduler.actors):
            if actor.process.name in NODES and self.agents[actor.process.name].process is not actor.process:
                self.scheduler.kill(actor.process)

    # ---- how it goes ---------------------------------------------------------------------------------------

    @property
    def mutations(self) -> int:
        """Everything that was changed on engines, in the store, or asked of nodes."""
        engines = sum(docker.mutations for docker in self.truth.dockers.values())
        return engines + self.store.mutations + len(self.db.actions)

    def step(self) -> None:
        """One step, and what it may have broken."""
        if not self.scheduler.step():
            raise Violation("I6", "nobody has anything to do any more")
        self.truth.check()

    def converge(self) -> None:
        """Healed: to what was last wished, and then to rest. Raises Violation (I6, I11)."""
        ends_at_s, last_step = (
            self.scheduler.now_s + CONVERGES_S_MAX,
            self.scheduler.steps + CONVERGES_STEPS_MAX,
        )
        while True:
            while (amiss := self.amiss()) is not None:
                if self.scheduler.now_s > ends_at_s or self.scheduler.steps > last_step:
                    raise Violation(
                        "I6", f"not as wished after {CONVERGES_S_MAX:.0f} s without faults: {amiss}"
                    )
                self.step()
            mutations, quiet_until_s = self.mutations, self.scheduler.now_s + QUIET_S
            while self.scheduler.now_s < quiet_until_s and self.mutations == mutations:
                self.step()
            if self.mutations == mutations:
                break
            if self.scheduler.now_s > ends_at_s:
                raise Violation("I6", "it is as wished, and something is still changed all the time")
        self.truth.checks["I6"] += 1
        if (amiss := self.amiss()) is not None:
            raise Violation("I6", f"came to rest, and is not as wished: {amiss}")
        self._check_leaks()

    def amiss(self) -> str | None:
        """The first pod that is not as wished, by what is on the nodes and in the store."""
        for pod in self.db.pods.values():
            if not self._is_as_wished(pod):
                here = [(d.node_id, c.id, c.status) for d, c in self.truth.containers(pod.id)]
                return f"{pod.id} is wished {pod.desired}; there is {here}; {pod.reason}"
        for node in self.db.nodes.values():
            if node.boot_id != (living := self.agents[node.id].boot_id):
                return f"{node.id} is believed as {node.boot_id}, and {living} is not"
        if self.db.open:
            return f"open actions: {sorted(self.db.open)}"
        for workspace in self.db.workspaces.values():
            wanted = any(self._live(pod) for pod in self.db.pods.values() if pod.workspace_id == workspace.id)
            if workspace.placement is not None and not wanted:
                return f"{workspace.id} is still placed on {workspace.placement.node_id}"
        return None

    def _live(self, pod: PodRow) -> list[SimContainer]:
        """Its containers at the live placement."""
        placement = self.db.workspaces[pod.workspace_id].placement
        if placement is None:
            return []
        return [
            found
            for docker, found in self.truth.containers(pod.id)
            if docker.node_id == placement.node_id and int(found.labels[EPOCH]) == placement.epoch
        ]

    def _is_as_wished(self, pod: PodRow) -> bool:
        live, written = self._live(pod), self.truth.written[pod.id]
        running = [found for _, found in self.truth.containers(pod.id) if found.status is Status.RUNNING]
        if pod.desired is Desired.RUNNING:
            return [found.id for found in running] == [found.id for found in live] and len(live) == 1
        if running:
            return False
        if pod.desired is Desired.STOPPED:
            return len(live) == 1 or (not written and pod.archive is None)
        return not live

    def _check_leaks(self) -> None:
        """I11: nothing half made, and nothing of a former placement without a zombie to blame it on."""
        self.truth.checks["I11"] += 1
        blamed = bool(_LEAVES_STRAYS & self.scheduler.fired.keys())
        for docker in self.truth.dockers.values():
            for container in docker.containers.values():
                if is_partial(container.name):
                    raise Violation("I11", f"{container.name} was left half made")
                self._check_stray(docker.node_id, container, container.name, blamed)
            for volume in docker.volumes.values():
                if volume.marker is not VolumeState.WHOLE and volume.labels.get(NODE):
                    raise Violation("I11", f"{volume.name} was left half made")
                self._check_stray(docker.node_id, volume, volume.name, blamed)

    def _check_stray(self, node_id: str, thing: SimContainer | SimVolume, name: str, blamed: bool) -> None:
        workspace = self.db.workspaces.get(thing.labels.get(WORKSPACE, ""))
        placement = workspace.placement if workspace else None
        if placement and (placement.node_id, placement.epoch) == (node_id, int(thing.labels[EPOCH])):
            return
        self.marks["stray_left"] += 1
        if not blamed:
            raise Violation("I11", f"{name} was left on {node_id}, where nobody is placed")


def run(schedule: Schedule, echo: Callable[[str], None] | None = None) -> Outcome:
    """Play a schedule; the outcome holds the violation, if any."""
    fleet = Fleet(schedule.seed)
    fleet.scheduler.echo = echo
    violation = None
    with installed(SimTime(fleet.scheduler), fleet.trees):
        try:
            _play(fleet, schedule)
            fleet.heal()
            fleet.converge()
        except Violation as found:
            violation = found
    scheduler = fleet.scheduler
    return Outcome(
        schedule,
        scheduler.steps,
        scheduler.digest,
        fleet.marks,
        scheduler.fired,
        fleet.truth.checks,
        fleet.mutations,
        violation,
        list(scheduler.last_lines),
    )


def _play(fleet: Fleet, schedule: Schedule) -> None:
    scheduler = fleet.scheduler
    waiting = [fault for fault in schedule.faults if not fault.at_call]
    scheduler.armed = [Armed(fault, fault.nth) for fault in schedule.faults if fault.at_call]
    while scheduler.steps < schedule.steps:
        while waiting and waiting[0].step <= scheduler.steps:
            fleet.happen(waiting.pop(0))
            fleet.truth.check()
        fleet.step()
