"""Learners who come and go, and what follows from it: presence on the nodes, policies in the reconcilers.

Begun by a fault of the kind `visits`; from then on pods are stopped and archived for want of use, too.
"""

from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from node_agent.reporting import parse_time
from node_agent.runtime import Status
from state.lifecycle import LifeLimits
from state.model import Desired
from tests.sim.desks import Desk, Desks
from tests.sim.docker import SimDocker
from tests.sim.machine import SimContainer, at
from tests.sim.schedule import EXTEND, LIMIT, PODS, VISITS, Fault
from tests.sim.scheduler import Process

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

KINDS = (VISITS, EXTEND, LIMIT)
# Minutes of production are seconds here; what is told every 30 s, and how old it may be, is as it is there.
LIFE_LIMITS = LifeLimits(
    closed_grace=timedelta(seconds=20),
    idle_limit=timedelta(seconds=50),
    busy_max=timedelta(seconds=90),
    archive_after=timedelta(seconds=40),
    warning=timedelta(seconds=15),
)
# How long a press of "keep it running" lasts.
EXTENSION = timedelta(seconds=40)
AWAY_S = 40.0
PATIENCE_S = 40.0
STAYS_S = (5.0, 40.0, 160.0)
WORKS_S = (8.0, 60.0, 200.0)


def happen(fleet: "Fleet", fault: Fault) -> None:
    """The learners begin; somebody keeps a pod for `arg` seconds; a limit is set to as many, 0 for none."""
    kind, _, name = fault.kind.partition(":")
    policies = fleet.db.policies
    if kind == VISITS:
        fleet.begin_visits()
    elif kind == EXTEND:
        until = at(fleet.scheduler.now_s + fault.arg)
        fleet.wishes += policies.extend(fault.actor, until, "the course goes on") is not None
    elif fault.actor in PODS:
        fleet.wishes += policies.set_limit(fault.actor, name, int(fault.arg))
    else:
        policies.set_user_limit(fault.actor, name, int(fault.arg))


class Visitors:
    """One for each pod, who opens its link now and then."""

    def __init__(self, fleet: "Fleet", desks: Desks) -> None:
        self._fleet, self._desks, self._scheduler = fleet, desks, fleet.scheduler
        for pod_id in PODS:
            self._scheduler.spawn(Process("visitor"), f"visitor of {pod_id}", lambda p=pod_id: self._come(p))

    def _come(self, pod_id: str) -> None:
        random = Random(f"visitor of {pod_id} {self._scheduler.seed}")
        while not self._fleet.healing:
            self._scheduler.sleep(random.expovariate(1 / AWAY_S))
            if self._fleet.healing:
                return
            self._fleet.wish(pod_id, Desired.RUNNING)
            self._scheduler.wait_for(lambda: bool(self._running(pod_id)), PATIENCE_S)
            for docker, found in self._running(pod_id)[:1]:
                if not self._fleet.healing:
                    self._stay(random, docker, found)

    def _running(self, pod_id: str) -> list[tuple[SimDocker, SimContainer]]:
        now_s = self._scheduler.now_s
        return [
            (docker, found)
            for docker, found in self._fleet.truth.containers(pod_id)
            if found.status is Status.RUNNING and now_s >= found.answers_at_s
        ]

    def _stay(self, random: Random, docker: SimDocker, container: SimContainer) -> None:
        start, scheduler = container.started_at, self._scheduler
        desk = self._desks.of(container.pod_id, parse_time(start))
        desk.tells = random.random() < 0.8
        desk.open(scheduler.now_s)
        scheduler.tell(f"somebody comes to {container.pod_id}")
        leaves_at_s = scheduler.now_s + random.choice(STAYS_S)
        keen = random.random()
        while scheduler.now_s < leaves_at_s:
            scheduler.sleep(random.uniform(2.0, 12.0))
            if self._fleet.healing or (container.started_at, container.status) != (start, Status.RUNNING):
                break
            self._do(random, keen, desk, container)
        scheduler.tell(f"somebody leaves {container.pod_id}")
        desk.close(scheduler.now_s)

    def _do(self, random: Random, keen: float, desk: Desk, container: SimContainer) -> None:
        """A touch, work, or "keep it running"; some only sit there."""
        now_s = self._scheduler.now_s
        if random.random() < keen - 0.3:
            desk.touches.append(now_s)
        if random.random() < 0.15:
            desk.work(now_s, random.choice(WORKS_S))
        notice = self._desks.notices.get(container.session_dir)
        if notice is not None and notice.can_extend and random.random() < 0.4:
            desk.touches.append(now_s)
            desk.keep = notice.id
