"""A fleet in one thread: nodes, agents, reconcilers, users, a store, and a schedule of what goes wrong.

`run(schedule)` is a safety phase with faults, then healing, then the demand that everything comes to what was
last wished, and that nothing is touched after that (I6).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from node_agent.runtime import Status
from node_agent.sweep import INSTALLATION_KEY
from state.model import Desired, Limits, What
from tests.sim import copied, decay, forgetting, happenings, visits
from tests.sim.actors import AgentActor
from tests.sim.care import STORE_ID
from tests.sim.conduct import Conduct
from tests.sim.database import SimDatabase
from tests.sim.desks import Desks
from tests.sim.docker import SimDocker
from tests.sim.host import SimTime
from tests.sim.ingest import Ingest
from tests.sim.machine import SimContainer, at
from tests.sim.postgres import SimServer
from tests.sim.reconcilers import ReconcilerActor
from tests.sim.rest import Rest
from tests.sim.schedule import (
    BESIDE,
    COMMITS_LOST,
    GO_BACK,
    IN_PLACE,
    NODES,
    PODS,
    RECONCILERS,
    Fault,
    Schedule,
)
from tests.sim.scheduler import Armed, Process, Scheduler
from tests.sim.seams import installed
from tests.sim.store import SimStore
from tests.sim.trees import Trees
from tests.sim.truth import Truth, Violation
from tests.sim.twins import Drift, TwinDatabase, TwinIngest
from tests.sim.usage import Usage
from tests.sim.visits import Visitors

RESTART_S = 2.0
WRITE_EVERY_S = 0.8
# A stopped pod is saved while it rests after so long: within a run, and before a fleet counts as at rest.
# What is days there is a minute here; a sweep's age is longer than any upload takes, where nobody sleeps for
# longer than 5 s in the middle of one.
LIMITS = replace(
    Limits(),
    warm_after=timedelta(seconds=60),
    checkpoint_every=timedelta(seconds=15),
    archives_kept=1,
    archive_days_kept=0,
    deleted_pods_kept=timedelta(seconds=60),
    sweep_age=timedelta(seconds=60),
    sweep_confirm_after=timedelta(seconds=20),
    sweep_share_max=1.0,
    scrub_every=timedelta(seconds=120),
)


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

    def __init__(self, seed: int, limits: Limits | None = None, server: SimServer | None = None) -> None:
        self.limits = limits or LIMITS
        self.marks: Counter[str] = Counter()
        self.scheduler = Scheduler(
            seed,
            on_kill=self._killed,
            on_zombie=self._replace,
            on_touch=lambda process, key: happenings.touch(self, process.name, key),
        )
        self.db, self.ingest = self._database(server)
        self.truth = Truth(self.scheduler, self.db)
        self.conduct = self.truth.conduct = Conduct(self.truth, self.db, self.limits, self.marks)
        self.db.watch, self.db.marks = self.conduct, self.marks
        self.store = self.truth.store = SimStore(self.scheduler, self.truth.store_changed)
        self.trees = Trees(self.scheduler)
        self.trees.is_full = self.truth.is_full
        self.ingest.looked = self.conduct.looked
        self.history: dict[str, set[int]] = {}
        self.births = 0
        self.healing = False
        self.agents: dict[str, AgentActor] = {}
        for node_id in NODES:
            self.db.add_node(node_id)
            self.truth.dockers[node_id] = SimDocker(
                node_id, self.scheduler, self.trees, self.truth.engine_changed
            )
        for pod_id in PODS:
            user = pod_id.split("-")[1]
            self.db.add_pod(pod_id, f"w-{user}", f"user-{user}")
        self.tokens = 0
        self.wishes = 0
        # Until when a node's agent is not started after a boot of its machine.
        self.late_agents: dict[str, float] = {}
        # Of chores, once there are any.
        self.care: Limits | None = None
        self.desks = Desks(self.scheduler)
        self.visitors: Visitors | None = None
        self.reconcilers: dict[str, ReconcilerActor] = {}
        self._start_everybody()

    def _database(self, server: SimServer | None) -> tuple[SimDatabase, Ingest]:
        """The mirror of PostgreSQL, and PostgreSQL beside it if there is one."""

        def clock() -> datetime:
            return at(self.scheduler.now_s)

        if server is not None:
            twins = TwinDatabase(clock, server)
            return twins, TwinIngest(twins, self.limits, self.scheduler.seed, self.marks)
        db = SimDatabase(clock)
        return db, Ingest(db, self.limits, Random(f"jitter {self.scheduler.seed}").random, self.marks)

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
        if self.care is not None:
            actor.caretaker.begin()
        if self.visitors is not None:
            actor.begin_presence()

    def begin_visits(self) -> None:
        """From now on learners come and go, nodes look who is there, and policies act on it."""
        self.conduct.usage = Usage(self)
        self.visitors = Visitors(self, self.desks)
        for actor in self.agents.values():
            actor.begin_presence()
        for reconciler in self.reconcilers.values():
            reconciler.begin_policies()

    def begin_chores(self, archives_kept: int) -> None:
        """From now on, what chores are due is done: nodes clear away, compact, read back and copy."""
        self.care = replace(self.limits, archives_kept=archives_kept)
        self.store.objects[INSTALLATION_KEY] = STORE_ID.encode()
        for actor in self.agents.values():
            actor.caretaker.begin()
        for reconciler in self.reconcilers.values():
            reconciler.begin_chores(self._care_limits)

    def _care_limits(self) -> Limits:
        """Once everything is to come to rest, nobody is copied while they write."""
        assert self.care is not None
        return replace(self.care, checkpoint_every=timedelta(0)) if self.healing else self.care

    def _start_reconciler(self, name: str) -> None:
        actor = ReconcilerActor(self.db, self.scheduler, self._process(name), self.limits)
        self.reconcilers[name] = actor
        if self.visitors is not None:
            actor.begin_policies()
        if self.care is not None:
            actor.begin_chores(self._care_limits)

    def _killed(self, process: Process) -> None:
        """Its supervisor starts it again after a while, unless another has taken its place."""
        if process.name in NODES and self.agents[process.name].process is process:
            late_s = self.late_agents.pop(process.name, 0.0) - self.scheduler.now_s
            self._later(max(RESTART_S, late_s), lambda: self._start_agent(process.name))
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
                for pod_id in self.db.pods
                for docker, found in self.truth.containers(pod_id)
                if found.status is Status.RUNNING and self.truth.is_reached(docker, found)
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
            self.wish(fault.actor, Desired(detail))
            return
        self.scheduler.fired[kind] += 1
        if kind in decay.KINDS:
            decay.happen(self, fault)
        elif kind == COMMITS_LOST:
            forgetting.happen(self, fault)
        elif kind in (BESIDE, IN_PLACE):
            copied.happen(self, fault)
        elif kind == GO_BACK:
            happenings.go_back(self, fault, What(detail))
        elif kind in visits.KINDS:
            visits.happen(self, fault)
        else:
            happenings.happen(self, fault)

    def wish(self, pod_id: str, desired: Desired) -> None:
        """By the API, or by hand."""
        if pod_id in self.db.pods and self.db.set_desired(pod_id, desired):
            self.wishes += 1
            self.truth.wished(pod_id)

    def heal(self) -> None:
        """No more faults; what is stopped goes on, what is cut is joined, what is cordoned is not."""
        self.scheduler.tell("healed")
        self.healing = True
        self.scheduler.armed.clear()
        self.desks.leave_all()
        self.late_agents.clear()
        self.store.trouble.clear()
        self.db.trouble.clear()
        for actor in self.scheduler.actors:
            actor.process.paused_until_s = 0.0
        for node_id in NODES:
            gateway, docker = self.agents[node_id].gateway, self.truth.dockers[node_id]
            gateway.cut_until_s = gateway.deaf_until_s = 0.0
            docker.trouble.clear()
            docker.cpu_millis = 8000
            self.db.set_cordoned(node_id, False)
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


def run(
    schedule: Schedule, echo: Callable[[str], None] | None = None, server: SimServer | None = None
) -> Outcome:
    """Play a schedule, with `server` on PostgreSQL too; the outcome holds the violation, if any."""
    fleet = Fleet(schedule.seed, server=server)
    fleet.scheduler.echo = echo
    violation = None
    with installed(SimTime(fleet.scheduler), fleet.trees, fleet.desks):
        try:
            _play(fleet, schedule)
            fleet.heal()
            Rest(fleet).converge()
        except Violation as found:
            violation = found
        except Drift as found:
            violation = Violation("drift", str(found))
        finally:
            fleet.db.disconnect()
    scheduler = fleet.scheduler
    fleet.marks["swept_while_running"] += fleet.truth.swept
    fleet.marks["paused"] += sum(docker.pauses for docker in fleet.truth.dockers.values())
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
