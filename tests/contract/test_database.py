"""The simulation's mirror of the database and PostgreSQL itself keep one contract.

Whatever is done in whatever order, lawful or not (late plans, foreign epochs, answers of nodes that were
never asked), both give the same answers and have the same rows after each transaction.
"""

import os
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from reconciler.plan import plan
from state.boots import boot_id
from state.leader import LeadershipLost
from state.model import Desired, Failover
from state.plan import Plan
from state.wire import SyncRequest
from tests.contract.database_draws import (
    LEASE,
    LIMITS,
    PODS,
    Draws,
    facts,
    nearby,
    nodes,
    pods,
    told,
    workspaces,
)
from tests.sim.postgres import SimServer

LONG = os.environ.get("CODEPODS_CHAOS") == "long"
EXAMPLES = 100 if LONG else 20
STEPS = 60 if LONG else 40


# Of one machine, of another, and of an agent that does not say.
boots = st.sampled_from((boot_id(1, "a"), boot_id(1, "a"), boot_id(2, "a"), boot_id(3, "b"), "b1"))


class Twins(Draws):
    """Two nodes, three pods of two users, and everything that programs and people may ask of the database."""

    # ---- time, people, leaders -----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.001, 0.5, 3.0, 20.0, 50.0, 400.0)))
    def time_passes(self, seconds: float) -> None:
        """On the clock of both."""
        self.now += timedelta(seconds=seconds)

    @rule(pod_id=pods, desired=st.sampled_from(Desired))
    def wish(self, pod_id: str, desired: Desired) -> None:
        """An UPDATE; tombstones stay."""
        self.db.set_desired(pod_id, desired)

    @rule(node_id=nodes, cordoned=st.booleans())
    def cordon(self, node_id: str, cordoned: bool) -> None:
        """Or not any more."""
        self.db.set_cordoned(node_id, cordoned)

    @rule(pod_id=pods, failover=st.sampled_from(Failover))
    def wish_failover(self, pod_id: str, failover: Failover) -> None:
        """To go on from the last archive when its node is silent, or to wait for it."""
        self.db.set_failover(pod_id, failover)

    @rule(node_id=nodes)
    def declare_lost(self, node_id: str) -> None:
        """One that is silent; one that is heard of is not lost."""
        self.db.declare_lost(node_id, LIMITS.node_silent_after)

    @rule(holder=st.sampled_from(("first", "second")))
    def lead(self, holder: str) -> None:
        """Or be told that somebody else does."""
        self._begin(holder)

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A term that is ours, or one that is long over."""
        self.db.renew(data.draw(st.sampled_from(self.terms)), LEASE)

    @rule(data=st.data())
    def note_silence(self, data: st.DataObject) -> None:
        """By whoever leads, or did."""
        try:
            self.db.note_silence(data.draw(st.sampled_from(self.terms)), self.since, LIMITS.node_silent_after)
        except LeadershipLost:
            self._begin("again")

    # ---- a pass --------------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        """What is due, all of it: of what is due at one time, a smaller claim may take any."""
        self.db.next_due_in()
        self.db.claim_due(len(PODS), timedelta(seconds=30))
        self.db.page_workspaces("w-0", 1)

    @rule(examined=st.sets(workspaces), hold=st.booleans())
    def plan_a_pass(self, examined: set[str], hold: bool) -> None:
        """By production's planner; written down now, or when it is much too late."""
        world = self.db.read_world(sorted(examined), self.since)
        made = plan(world, self.now, LIMITS)
        if hold:
            self.held.append(made)
        else:
            self._record(made, tuple(sorted(examined)))

    @rule(data=st.data())
    def late_plan(self, data: st.DataObject) -> None:
        """Of a reconciler that slept."""
        if self.held:
            self._record(data.draw(st.sampled_from(self.held)))

    @rule(data=st.data())
    def any_plan(self, data: st.DataObject) -> None:
        """Lines that no planner would put together."""
        made = Plan(
            places=self._some(data, self._place),
            releases=self._some(data, self._release),
            abandons=self._some(data, self._abandon),
            steps=self._some(data, self._step),
            take_backs=self._some(data, self._take_back),
            decisions=self._some(data, self._decision),
            workspace_decisions=self._some(data, self._workspace_decision),
        )
        self._record(made, tuple(sorted(data.draw(st.sets(workspaces)))))

    @rule(workspace_id=workspaces, after=st.sampled_from((1.0, 300.0)))
    def park(self, workspace_id: str, after: float) -> None:
        """One whose rows cannot be read."""
        try:
            self.db.park(workspace_id, "unreadable", self.now + timedelta(seconds=after), self.terms[-1])
        except LeadershipLost:
            self._begin("again")

    # ---- a node --------------------------------------------------------------------------------------------

    @rule(data=st.data(), node_id=nodes, boot=boots, late=nearby)
    def sync(self, data: st.DataObject, node_id: str, boot: str, late: int) -> None:
        """All that a node may say, of what it has and of what it was never asked."""
        self.sequences[node_id] += 1
        error = data.draw(told)
        request = SyncRequest(
            node_id=node_id,
            boot_id=boot,
            sequence=self.sequences[node_id] + late,
            facts=facts(data.draw(st.sampled_from((8000, 8000, 300)))),
            report=None if error and data.draw(st.booleans()) else self._report(data, node_id),
            engine_error=error,
            results=self._results(data),
            in_hand=self._in_hand(data),
            ending=self._in_hand(data),
        )
        taken = self.gateway.ingest(request)
        if taken.current:
            self.gateway.news(request, taken.accepted)


@pytest.mark.timeout(1200 if LONG else 900)
def test_the_mirror_and_postgresql_do_the_same(sim_server: SimServer) -> None:
    """Every operation of the port, in any order and with any arguments: one answer, and one state."""
    Twins.server, Twins.compared = sim_server, Counter()
    run_state_machine_as_test(
        Twins,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Twins.compared.total()} transactions compared: {dict(Twins.compared)}")
    assert {"record", "ingest", "news", "claim_due", "read_world", "park", "renew"} <= Twins.compared.keys()
    assert {"declare_lost", "set_failover"} <= Twins.compared.keys()
