"""Presence and policies: the simulation's mirror of them and PostgreSQL itself keep one contract.

Looks of any age of any start, wishes in between, verdicts that are written down much too late, answers to
warnings that were never given: both say the same, and have the same rows after each transaction.
"""

import os
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from reconciler.policy import decide
from state.leader import LeadershipLost
from state.lifecycle import LifeLimits, Move
from state.model import Desired, Observed
from state.plan import Place, Plan
from state.policies import Decided
from state.presence_wire import PodPresence, PresenceUp
from state.wire import PodReport, Report, SyncRequest
from tests.contract.database_draws import (
    BEGAN,
    NODES,
    PODS,
    Draws,
    facts,
    nearby,
    nodes,
    pods,
    workspaces,
)
from tests.sim.policies import LIMITS
from tests.sim.postgres import SimServer

LONG = os.environ.get("CODEPODS_CHAOS") == "long"
EXAMPLES = 100 if LONG else 12
STEPS = 80 if LONG else 40
LIFE = LifeLimits(
    closed_grace=timedelta(seconds=30),
    idle_limit=timedelta(seconds=60),
    busy_max=timedelta(seconds=90),
    archive_after=timedelta(seconds=45),
    warning=timedelta(seconds=10),
)
AGAIN = timedelta(seconds=30)
ages = st.none() | st.sampled_from((0.0, 0.25, 5.0, 40.0, 100.0))
starts = st.sampled_from((BEGAN, BEGAN, BEGAN, BEGAN + timedelta(seconds=1), None))
states = st.sampled_from(
    (Observed.RUNNING, Observed.RUNNING, Observed.RUNNING, Observed.STOPPED, Observed.STARTING)
)
keeps = st.sampled_from(("", "soon", "2026-05-01", "9999-12-31T23:59:59.999999"))


class Lives(Draws):
    """Three pods that run where they are placed, or do not, and all that is said of who is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.decided: list[Decided] = []
        self.db.renew(self.terms[-1], timedelta(hours=1))
        for workspace_id, node_id in zip(sorted(set(PODS.values())), NODES, strict=True):
            place = Place(workspace_id, node_id, 0, "test")
            self.db.record(Plan(places=(place,)), self.terms[-1], self.now, (workspace_id,))
        for pod_id in PODS:
            self.db.set_desired(pod_id, Desired.RUNNING)

    @rule(seconds=st.sampled_from((0.001, 0.5, 3.0, 12.0, 30.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        """On the clock of both."""
        self.now += timedelta(seconds=seconds)

    # ---- people --------------------------------------------------------------------------------------------

    @rule(pod_id=pods, desired=st.sampled_from((*[Desired.RUNNING] * 3, *Desired)))
    def wish(self, pod_id: str, desired: Desired) -> None:
        """An UPDATE; tombstones stay."""
        self.db.set_desired(pod_id, desired)

    @rule(pod_id=pods, name=st.sampled_from(LIMITS), seconds=st.sampled_from((None, 0, 5, 300)))
    def limit(self, pod_id: str, name: str, seconds: int | None) -> None:
        """One pod's own."""
        self.db.policies.set_limit(pod_id, name, seconds)

    @rule(workspace_id=workspaces, name=st.sampled_from(LIMITS), seconds=st.sampled_from((None, 0, 5, 300)))
    def limit_of_user(self, workspace_id: str, name: str, seconds: int | None) -> None:
        """Of all of a user's pods."""
        self.db.policies.set_user_limit(workspace_id, name, seconds)

    @rule(pod_id=pods, seconds=st.sampled_from((-5.0, 20.0, 200.0)))
    def extend(self, pod_id: str, seconds: float) -> None:
        """Keep it running; or not, where it is not wanted so."""
        self.db.policies.extend(pod_id, self.now + timedelta(seconds=seconds), "the course goes on")

    # ---- a node --------------------------------------------------------------------------------------------

    @rule(data=st.data(), node_id=nodes, late=nearby)
    def sync(self, data: st.DataObject, node_id: str, late: int) -> None:
        """What runs there, and who is in it, of this placement and start or of others."""
        self.sequences[node_id] += 1
        here = sorted(data.draw(st.sets(pods)))
        request = SyncRequest(
            node_id=node_id,
            boot_id="b1",
            sequence=self.sequences[node_id] + late,
            facts=facts(8000),
            report=None if data.draw(st.integers(0, 9)) == 0 else self._runs(data, node_id),
            presence=PresenceUp(pods=tuple(self._look(data, pod_id) for pod_id in here)),
        )
        taken = self.gateway.ingest(request)
        if taken.current:
            self.gateway.news(request, taken.accepted)

    def _runs(self, data: st.DataObject, node_id: str) -> Report:
        """Nearly always of the pods that are placed there."""
        there = [pod_id for pod_id in sorted(PODS) if self._is_placed(pod_id, node_id)]
        told = there if data.draw(st.integers(0, 4)) else sorted(data.draw(st.sets(pods)))
        return Report(pods=tuple(self._runs_one(data, pod_id) for pod_id in told), workspaces=())

    def _is_placed(self, pod_id: str, node_id: str) -> bool:
        placement = self.db.workspaces[PODS[pod_id]].placement
        return placement is not None and placement.node_id == node_id

    def _runs_one(self, data: st.DataObject, pod_id: str) -> PodReport:
        said = self._pod(data, pod_id)
        epoch = self.db.workspaces[PODS[pod_id]].epoch
        started_at = data.draw(starts)
        return said.model_copy(
            update={"epoch": max(1, epoch), "state": data.draw(states), "started_at": started_at}
        )

    def _look(self, data: st.DataObject, pod_id: str) -> PodPresence:
        epoch = self.db.workspaces[PODS[pod_id]].epoch + data.draw(nearby)
        busy_age_s = data.draw(ages)
        return PodPresence(
            pod_id=pod_id,
            epoch=max(1, epoch),
            started_at=data.draw(starts) or BEGAN,
            age_s=data.draw(ages) or 0.0,
            connections=data.draw(st.integers(0, 2)),
            connected_for_s=data.draw(ages),
            gone_for_s=data.draw(ages),
            heartbeat_age_s=data.draw(ages),
            active_age_s=data.draw(ages),
            busy_age_s=busy_age_s,
            busy_with="" if busy_age_s is None else "a build",
            cpu_millis=data.draw(st.sampled_from((0, 900))),
        )

    @rule(
        node_id=nodes,
        connections=st.sampled_from((0, 2)),
        gone_for_s=st.sampled_from((None, 40.0)),
        busy=st.booleans(),
        waits=st.sampled_from((0.0, 12.0, 70.0, 100.0)),
    )
    def nobody_touches(
        self, node_id: str, connections: int, gone_for_s: float | None, busy: bool, waits: float
    ) -> None:
        """All pods of a node run or rest as they are wanted, nobody does anything, and they are looked at."""
        self._say_all(node_id, connections, gone_for_s, busy)
        self.now += timedelta(seconds=waits)
        self._say_all(node_id, connections, None if gone_for_s is None else gone_for_s + waits, busy)
        self._decide(sorted(PODS), frozenset(NODES))

    def _say_all(self, node_id: str, connections: int, gone_for_s: float | None, busy: bool) -> None:
        self.sequences[node_id] += 2
        pods = [self._as_wanted(pod_id) for pod_id in sorted(PODS) if self._is_placed(pod_id, node_id)]
        looks = [
            PodPresence(
                pod_id=pod.pod_id,
                epoch=pod.epoch,
                started_at=BEGAN,
                connections=connections,
                gone_for_s=gone_for_s if connections == 0 else None,
                active_age_s=30.0 if connections else None,
                busy_age_s=0.0 if busy else None,
            )
            for pod in pods
        ]
        request = SyncRequest(
            node_id=node_id,
            boot_id="b1",
            sequence=self.sequences[node_id],
            facts=facts(8000),
            report=Report(pods=tuple(pods), workspaces=()),
            presence=PresenceUp(pods=tuple(looks)),
        )
        self.gateway.ingest(request)

    def _as_wanted(self, pod_id: str) -> PodReport:
        pod, workspace = self.db.pods[pod_id], self.db.workspaces[PODS[pod_id]]
        runs = pod.desired is Desired.RUNNING
        return PodReport(
            pod_id=pod_id,
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            epoch=max(1, workspace.epoch),
            generation=pod.generation,
            state=Observed.RUNNING if runs else Observed.STOPPED,
            container_id="c1",
            image_id="sha256:1",
            started_at=BEGAN,
        )

    @rule(data=st.data(), node_id=nodes, told=st.booleans(), pod_id=pods, words=keeps)
    def answer(self, data: st.DataObject, node_id: str, told: bool, pod_id: str, words: str) -> None:
        """To a warning that was given, also lately, or to what nobody was ever warned of."""
        given = sorted(self.db.policies.told, key=str)
        if told and given:
            pod_id, stops_at, _ = data.draw(st.sampled_from(given))
            words = stops_at.isoformat() if stops_at else ""
        elif (row := self.db.policies.rows[pod_id]).stops_at is not None:
            words = row.stops_at.isoformat()
        seconds = data.draw(st.sampled_from((5.0, 600.0)))
        self.db.policies.answer(pod_id, node_id, words, timedelta(seconds=seconds))

    @rule(data=st.data(), node_id=nodes)
    def ask_and_tell(self, data: st.DataObject, node_id: str) -> None:
        """Looks that are asked for, and what the node is told."""
        self.db.policies.ask_to_look(sorted(data.draw(st.sets(pods))))
        asked = self.db.policies.looks_asked()
        self.db.policies.for_node(node_id, asked.get(node_id, ()))

    # ---- a pass --------------------------------------------------------------------------------------------

    @rule(known=st.sets(nodes), hold=st.booleans(), all_of_them=st.booleans())
    def look(self, known: set[str], hold: bool, all_of_them: bool) -> None:
        """By production's policy; written down now, or when it is much too late."""
        policies = self.db.policies
        policies.next_due_in()
        due = policies.claim_due(len(PODS), AGAIN)
        self._decide(sorted(PODS) if all_of_them else due, frozenset(known or NODES), hold=hold)

    def _decide(self, pod_ids: list[str], known: frozenset[str], *, hold: bool = False) -> None:
        lives = self.db.policies.read_lives(pod_ids, LIFE, known)
        decided = [(life, decide(life, self.now)) for life in lives]
        self.decided += decided
        if not hold:
            self._write_down(decided)

    @rule(data=st.data())
    def late_verdict(self, data: st.DataObject) -> None:
        """Of a reconciler that slept."""
        if self.decided:
            self._write_down([data.draw(st.sampled_from(self.decided))])

    def _write_down(self, decided: list[Decided]) -> None:
        loud = (Move.WARN, Move.STOP, Move.ARCHIVE)
        try:
            quiet = [one for one in decided if one[1].move not in loud]
            self.db.policies.record_quiet(self.terms[-1], quiet, self.now)
            for one in decided:
                if one[1].move in loud:
                    self.moves[one[1].move] += self.db.policies.record(self.terms[-1], one, self.now)
        except LeadershipLost:
            self._begin("first")

    moves: Counter[str]


@pytest.mark.timeout(1200 if LONG else 300)
def test_the_mirror_and_postgresql_have_the_same_policies(sim_server: SimServer) -> None:
    """Every operation of presence and policies, in any order: one answer, and one state."""
    Lives.server, Lives.compared, Lives.moves = sim_server, Counter(), Counter()
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Lives.compared.total()} transactions compared: {dict(Lives.compared)}; {dict(Lives.moves)}")
    wanted = {"record_verdict", "record_quiet", "read_lives", "answer", "ask_to_look", "for_node", "extend"}
    assert wanted <= Lives.compared.keys()
    assert {Move.WARN, Move.STOP, Move.ARCHIVE} <= Lives.moves.keys()
