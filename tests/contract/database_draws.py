"""What may be asked of the database, drawn: the lines of plans, the messages of nodes, lawful or not."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from state import wire
from state.leader import Leadership, LeadershipLost
from state.model import ArchiveRef, Limits, Observed, TargetKind, Verb, WorkspaceObserved
from state.plan import (
    Abandon,
    Condition,
    Decision,
    GoBack,
    Place,
    Plan,
    PlannedStep,
    Proof,
    Release,
    TakeBack,
    WorkspaceDecision,
)
from tests.sim.postgres import SimServer
from tests.sim.rows import ActionRow
from tests.sim.twins import TwinDatabase, TwinIngest

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
codes = st.sampled_from(
    (wire.CANCELLED, "stale_epoch", "busy", "disk_full", "archive_corrupt", "restore_corrupt", "no_image")
)
told = st.sampled_from((None, None, "the engine is away"))
_NOT_REPORTED = (Observed.ABSENT, Observed.UNKNOWN)


class Draws(RuleBasedStateMachine):
    """Two nodes, three pods of two users on both databases, and things to do to them."""

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

    def _some(self, data: st.DataObject, one: Any) -> tuple[Any, ...]:
        lines = [one(data) for _ in range(data.draw(st.sampled_from((0, 0, 1, 2))))]
        # One line for each target, as the planner makes them.
        return tuple({_target(line): line for line in lines}.values())

    def _place(self, data: st.DataObject) -> Place:
        workspace = self.db.workspaces[data.draw(workspaces)]
        return Place(workspace.id, data.draw(nodes), workspace.epoch + data.draw(nearby), "test")

    def _go_back(self, data: st.DataObject) -> GoBack:
        """Nearly always of a wish that there is, and of what is there now."""
        rows = list(self.db.restorations.rows.values())
        workspace = self.db.workspaces[data.draw(workspaces)]
        if not rows or data.draw(st.integers(0, 4)) == 0:
            return GoBack(workspace.id, None, 1, None, "test")
        row = data.draw(st.sampled_from(rows))
        pod_id = row.target_id if row.target_kind == "pod" else None
        owner = self.db.pods[pod_id] if pod_id else self.db.workspaces[row.target_id]
        before = owner.archive.id if owner.archive else None
        return GoBack(row.workspace_id, pod_id, row.id, before if data.draw(nearby) == 0 else None, "test")

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

    def restoring_step(
        self, verb: Verb, target: str, ref: ArchiveRef
    ) -> wire.RestorePod | wire.RestoreWorkspace:
        """From this archive."""
        source = wire.ArchiveSource(manifest_key=ref.manifest_key, manifest_digest=ref.manifest_digest)
        if verb is Verb.RESTORE_WORKSPACE:
            return wire.RestoreWorkspace(archive=source)
        return wire.RestorePod(spec=wire.PodSpec(name=target, image="image:1"), archive=source)

    def _wire_step(self, data: st.DataObject, verb: Verb, target: str) -> Any:
        made = [ref for (of, _), ref in self.db.archives.items() if of == target]
        key, digest = "nowhere", "0"
        if made:
            ref = data.draw(st.sampled_from(made))
            key, digest = ref.manifest_key, ref.manifest_digest
        source = wire.ArchiveSource(manifest_key=key, manifest_digest=digest)
        proof = wire.ArchiveProof(manifest_key=key, manifest_digest=digest, fingerprint="f")
        number = max(1, self.db.archives_made(target) + 1 + data.draw(nearby))
        spec = wire.PodSpec(name=target, image="image:1")
        steps: dict[Verb, Any] = {
            Verb.CREATE_WORKSPACE: wire.CreateWorkspace(),
            Verb.RESTORE_WORKSPACE: wire.RestoreWorkspace(archive=source),
            Verb.ARCHIVE_WORKSPACE: wire.ArchiveWorkspace(number=number),
            Verb.REMOVE_WORKSPACE: wire.RemoveWorkspace(proof=proof),
            Verb.CREATE_POD: wire.CreatePod(spec=spec),
            Verb.RESTORE_POD: wire.RestorePod(spec=spec, archive=source),
            Verb.START_POD: wire.StartPod(),
            Verb.STOP_POD: wire.StopPod(),
            Verb.ARCHIVE_POD: wire.ArchivePod(number=number),
            Verb.REMOVE_POD: wire.RemovePod(proof=proof),
        }
        return steps[verb]

    def _in_hand(self, data: st.DataObject) -> tuple[str, ...]:
        ids = [NOBODYS, *self.db.actions][-6:]
        return tuple(sorted(data.draw(st.sets(st.sampled_from(ids), max_size=3))))

    def _report(self, data: st.DataObject, node_id: str) -> wire.Report:
        here = data.draw(st.sets(pods))
        volumes = data.draw(st.sets(workspaces))
        return wire.Report(
            pods=tuple(self._pod(data, pod_id) for pod_id in sorted(here)),
            workspaces=tuple(self._volume(data, workspace_id) for workspace_id in sorted(volumes)),
        )

    def _pod(self, data: st.DataObject, pod_id: str) -> wire.PodReport:
        workspace = self.db.workspaces[PODS[pod_id]]
        return wire.PodReport(
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

    def _volume(self, data: st.DataObject, workspace_id: str) -> wire.WorkspaceReport:
        workspace = self.db.workspaces[workspace_id]
        states = [state for state in WorkspaceObserved if state is not WorkspaceObserved.ABSENT]
        return wire.WorkspaceReport(
            workspace_id=workspace_id,
            user_id=workspace.user_id,
            epoch=max(1, workspace.epoch + data.draw(nearby)),
            state=data.draw(st.sampled_from(states)),
            volume="v1",
            fingerprint=data.draw(st.sampled_from((None, "f"))),
        )

    def _results(self, data: st.DataObject) -> tuple[wire.StepResult, ...]:
        rows = list(self.db.actions.values())[-5:]
        answered = data.draw(st.sets(st.sampled_from(range(len(rows))), max_size=2)) if rows else ()
        return tuple(self._result(data, rows[number]) for number in sorted(answered))

    def _result(self, data: st.DataObject, row: ActionRow) -> wire.StepResult:
        if data.draw(st.integers(0, 2)) == 0:
            permanent = data.draw(st.booleans())
            code = data.draw(codes)
            return wire.StepFailed(action_id=row.action.id, code=code, message="test", permanent=permanent)
        made = None
        if row.verb in (Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE):
            key = f"archives/{row.action.target}/{row.action.id}"
            made = wire.ArchiveMade(manifest_key=key, manifest_digest="d", fingerprint="f", size_bytes=1)
        return wire.StepDone(action_id=row.action.id, archive=made)


def _target(line: Any) -> str:
    if isinstance(line, PlannedStep):
        return line.target
    if isinstance(line, TakeBack):
        return line.action_id
    return line.pod_id if isinstance(line, Decision) else str(line.workspace_id)


def facts(cpu_millis: int) -> wire.NodeFacts:
    return wire.NodeFacts(
        address="10.0.0.1",
        cpu_millis=cpu_millis,
        memory_mib=16384,
        engine_version="28",
        api_version="1.48",
        storage_driver="overlay2",
        runtime="runc",
        agent_version="0",
    )
