"""The simulation's mirror of the database and PostgreSQL itself keep one contract.

Whatever is done in whatever order, lawful or not (late plans, foreign epochs, answers of nodes that were
never asked), both give the same answers and have the same rows after each transaction.
"""

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from reconciler.plan import plan
from state.leader import Leadership, LeadershipLost
from state.model import Desired, Failover, Limits, Observed, TargetKind, Verb, WorkspaceObserved
from state.plan import (
    Abandon,
    Condition,
    Decision,
    Place,
    Plan,
    PlannedStep,
    Proof,
    Release,
    TakeBack,
    WorkspaceDecision,
)
from state.wire import (
    CANCELLED,
    ArchiveMade,
    ArchivePod,
    ArchiveProof,
    ArchiveSource,
    ArchiveWorkspace,
    CreatePod,
    CreateWorkspace,
    NodeFacts,
    PodReport,
    PodSpec,
    RemovePod,
    RemoveWorkspace,
    Report,
    RestorePod,
    RestoreWorkspace,
    StartPod,
    StepDone,
    StepFailed,
    StepResult,
    StopPod,
    SyncRequest,
    WorkspaceReport,
)
from tests.sim.postgres import SimServer
from tests.sim.rows import ActionRow
from tests.sim.twins import TwinDatabase, TwinIngest

LONG = os.environ.get("CODEPODS_CHAOS") == "long"
EXAMPLES = 300 if LONG else 20
STEPS = 60 if LONG else 40
BEGAN = datetime(2026, 5, 1, tzinfo=UTC)
LEASE = timedelta(seconds=15)
NODES = ("node-0", "node-1")
PODS = {"p-0-0": "w-0", "p-0-1": "w-0", "p-1-0": "w-1"}
WORKSPACES = ("w-0", "w-1")
NOBODYS = str(UUID(int=10**9))
LIMITS = Limits()

# As it is, or one too few or too many.
nearby = st.sampled_from((0, 0, 0, 0, -1, 1))
waits = st.none() | st.sampled_from((-1.0, 0.0, 2.0, 90.0))
nodes = st.sampled_from(NODES)
pods = st.sampled_from(sorted(PODS))
workspaces = st.sampled_from(WORKSPACES)
codes = st.sampled_from((CANCELLED, "busy", "disk_full", "archive_corrupt", "restore_corrupt", "no_image"))
told = st.sampled_from((None, None, "the engine is away"))


class Twins(RuleBasedStateMachine):
    """Two nodes, three pods of two users, and everything that programs and people may ask of the database."""

    server: SimServer
    compared: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGAN
        self.db = TwinDatabase(lambda: self.now, self.server)
        self.gateway = TwinIngest(self.db, LIMITS, 1, Counter())
        for node_id in NODES:
            self.db.add_node(node_id)
        for pod_id, workspace_id in PODS.items():
            self.db.add_pod(pod_id, workspace_id, f"user-of-{workspace_id}")
        self.terms = [Leadership("nobody", 0)]
        self.since = self.now
        self.held: list[Plan] = []
        self.sequences = dict.fromkeys(NODES, 0)
        self._begin("first")

    def teardown(self) -> None:
        """Disconnect, and count what was done."""
        self.compared.update(self.db.compared)
        self.db.disconnect()

    def _begin(self, holder: str) -> None:
        found = self.db.try_lead(holder, LEASE)
        if found is not None:
            self.terms.append(found)

    def _record(self, plan: Plan, examined: tuple[str, ...] = ()) -> None:
        """Under the newest term, begun again where it is over."""
        try:
            self.db.record(plan, self.terms[-1], self.now, examined)
        except LeadershipLost:
            self._begin("again")

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

    def _some(self, data: st.DataObject, one: Any) -> tuple[Any, ...]:
        lines = [one(data) for _ in range(data.draw(st.sampled_from((0, 0, 1, 2))))]
        # One line for each target, as the planner makes them.
        return tuple({_target(line): line for line in lines}.values())

    def _place(self, data: st.DataObject) -> Place:
        workspace = self.db.workspaces[data.draw(workspaces)]
        return Place(workspace.id, data.draw(nodes), workspace.epoch + data.draw(nearby), "test")

    def _release(self, data: st.DataObject) -> Release:
        workspace = self.db.workspaces[data.draw(workspaces)]
        return Release(workspace.id, self._node_of(data, workspace.id), workspace.epoch, "test")

    def _abandon(self, data: st.DataObject) -> Abandon:
        workspace = self.db.workspaces[data.draw(workspaces)]
        return Abandon(
            workspace.id,
            self._node_of(data, workspace.id),
            max(1, workspace.epoch + data.draw(nearby)),
            data.draw(st.sampled_from(Proof)),
            timedelta(seconds=data.draw(st.sampled_from((0.0, 20.0, 120.0)))),
            "test",
        )

    def _node_of(self, data: st.DataObject, workspace_id: str) -> str:
        placement = self.db.workspaces[workspace_id].placement
        return placement.node_id if placement and data.draw(st.integers(0, 5)) else data.draw(nodes)

    def _take_back(self, data: st.DataObject) -> TakeBack:
        return TakeBack(data.draw(st.sampled_from([NOBODYS, *self.db.actions])), "test")

    def _decision(self, data: st.DataObject) -> Decision:
        pod = self.db.pods[data.draw(pods)]
        condition = data.draw(
            st.sampled_from((Condition.SETTLED, Condition.WAITING_FOR_CAPACITY, Condition.BUSY))
        )
        return Decision(
            pod.id, pod.workspace_id, self._generation(data, pod.id), condition, "test", self._wake(data)
        )

    def _workspace_decision(self, data: st.DataObject) -> WorkspaceDecision:
        return WorkspaceDecision(data.draw(workspaces), "test", self._wake(data))

    def _wake(self, data: st.DataObject) -> datetime | None:
        wait_s = data.draw(waits)
        return None if wait_s is None else self.now + timedelta(seconds=wait_s)

    def _generation(self, data: st.DataObject, pod_id: str) -> int:
        return max(1, self.db.pods[pod_id].generation + data.draw(nearby))

    def _step(self, data: st.DataObject) -> PlannedStep:
        verb = data.draw(st.sampled_from(Verb))
        pod_id = None if verb.endswith("workspace") else data.draw(pods)
        workspace = self.db.workspaces[PODS[pod_id] if pod_id else data.draw(workspaces)]
        return PlannedStep(
            kind=TargetKind.POD if pod_id else TargetKind.WORKSPACE,
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            pod_id=pod_id,
            node_id=self._node_of(data, workspace.id),
            epoch=max(1, workspace.epoch + data.draw(nearby)),
            generation=self._generation(data, pod_id) if pod_id else 0,
            step=self._wire_step(data, verb, pod_id or workspace.id),
            reason="test",
        )

    def _wire_step(self, data: st.DataObject, verb: Verb, target: str) -> Any:
        made = [ref for (of, _), ref in self.db.archives.items() if of == target]
        key, digest = "nowhere", "0"
        if made:
            ref = data.draw(st.sampled_from(made))
            key, digest = ref.manifest_key, ref.manifest_digest
        source = ArchiveSource(manifest_key=key, manifest_digest=digest)
        proof = ArchiveProof(manifest_key=key, manifest_digest=digest, fingerprint="f")
        number = max(1, self.db.archives_made(target) + 1 + data.draw(nearby))
        spec = PodSpec(name=target, image="image:1")
        steps: dict[Verb, Any] = {
            Verb.CREATE_WORKSPACE: CreateWorkspace(),
            Verb.RESTORE_WORKSPACE: RestoreWorkspace(archive=source),
            Verb.ARCHIVE_WORKSPACE: ArchiveWorkspace(number=number),
            Verb.REMOVE_WORKSPACE: RemoveWorkspace(proof=proof),
            Verb.CREATE_POD: CreatePod(spec=spec),
            Verb.RESTORE_POD: RestorePod(spec=spec, archive=source),
            Verb.START_POD: StartPod(),
            Verb.STOP_POD: StopPod(),
            Verb.ARCHIVE_POD: ArchivePod(number=number),
            Verb.REMOVE_POD: RemovePod(proof=proof),
        }
        return steps[verb]

    # ---- a node --------------------------------------------------------------------------------------------

    @rule(data=st.data(), node_id=nodes, boot=st.sampled_from(("b1", "b1", "b1", "b2", "b3")), late=nearby)
    def sync(self, data: st.DataObject, node_id: str, boot: str, late: int) -> None:
        """All that a node may say, of what it has and of what it was never asked."""
        self.sequences[node_id] += 1
        error = data.draw(told)
        request = SyncRequest(
            node_id=node_id,
            boot_id=boot,
            sequence=self.sequences[node_id] + late,
            facts=_facts(data.draw(st.sampled_from((8000, 8000, 300)))),
            report=None if error and data.draw(st.booleans()) else self._report(data, node_id),
            engine_error=error,
            results=self._results(data),
            in_hand=self._in_hand(data),
            ending=self._in_hand(data),
        )
        taken = self.gateway.ingest(request)
        if taken.current:
            self.gateway.news(request, taken.accepted)

    def _in_hand(self, data: st.DataObject) -> tuple[str, ...]:
        ids = [NOBODYS, *self.db.actions][-6:]
        return tuple(sorted(data.draw(st.sets(st.sampled_from(ids), max_size=3))))

    def _report(self, data: st.DataObject, node_id: str) -> Report:
        here = data.draw(st.sets(pods))
        volumes = data.draw(st.sets(workspaces))
        return Report(
            pods=tuple(self._pod(data, pod_id) for pod_id in sorted(here)),
            workspaces=tuple(self._volume(data, workspace_id) for workspace_id in sorted(volumes)),
        )

    def _pod(self, data: st.DataObject, pod_id: str) -> PodReport:
        workspace = self.db.workspaces[PODS[pod_id]]
        return PodReport(
            pod_id=pod_id,
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            epoch=max(1, workspace.epoch + data.draw(nearby)),
            generation=self.db.pods[pod_id].generation,
            state=data.draw(st.sampled_from([state for state in Observed if state not in _NOT_REPORTED])),
            container_id=data.draw(st.sampled_from(("c1", "c2"))),
            image_id=data.draw(st.sampled_from(("sha256:1", "sha256:2"))),
            started_at=data.draw(st.sampled_from((None, BEGAN, BEGAN + timedelta(seconds=1)))),
            exit_code=data.draw(st.sampled_from((None, 0, 137))),
            fingerprint=data.draw(st.sampled_from((None, "f"))),
        )

    def _volume(self, data: st.DataObject, workspace_id: str) -> WorkspaceReport:
        workspace = self.db.workspaces[workspace_id]
        states = [state for state in WorkspaceObserved if state is not WorkspaceObserved.ABSENT]
        return WorkspaceReport(
            workspace_id=workspace_id,
            user_id=workspace.user_id,
            epoch=max(1, workspace.epoch + data.draw(nearby)),
            state=data.draw(st.sampled_from(states)),
            volume="v1",
            fingerprint=data.draw(st.sampled_from((None, "f"))),
        )

    def _results(self, data: st.DataObject) -> tuple[StepResult, ...]:
        rows = list(self.db.actions.values())[-5:]
        answered = data.draw(st.sets(st.sampled_from(range(len(rows))), max_size=2)) if rows else ()
        return tuple(self._result(data, rows[number]) for number in sorted(answered))

    def _result(self, data: st.DataObject, row: ActionRow) -> StepResult:
        if data.draw(st.integers(0, 2)) == 0:
            permanent = data.draw(st.booleans())
            code = data.draw(codes)
            return StepFailed(action_id=row.action.id, code=code, message="test", permanent=permanent)
        made = None
        if row.verb in (Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE):
            key = f"archives/{row.action.target}/{row.action.id}"
            made = ArchiveMade(manifest_key=key, manifest_digest="d", fingerprint="f", size_bytes=1)
        return StepDone(action_id=row.action.id, archive=made)


_NOT_REPORTED = (Observed.ABSENT, Observed.UNKNOWN)


def _target(line: Any) -> str:
    if isinstance(line, PlannedStep):
        return line.target
    if isinstance(line, TakeBack):
        return line.action_id
    return line.pod_id if isinstance(line, Decision) else str(line.workspace_id)


def _facts(cpu_millis: int) -> NodeFacts:
    return NodeFacts(
        address="10.0.0.1",
        cpu_millis=cpu_millis,
        memory_mib=16384,
        engine_version="28",
        api_version="1.48",
        storage_driver="overlay2",
        runtime="runc",
        agent_version="0",
    )


@pytest.mark.timeout(0 if LONG else 300)
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
