"""The database's side of the loop, in memory: claims, worlds, plans written down under compare-and-set.

A small model of state.snapshot, state.outbox, state.leader and state.silence. Each method is one
transaction. That the SQL keeps to the same rules is tests/integration/test_loop_laws.py's to show, with the
real database; here the rules are what faults of everything around them are thrown at.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from state.leader import Leadership, LeadershipLost
from state.model import (
    RESERVED_PER_POD,
    ActionState,
    ArchiveRef,
    Desired,
    NodeView,
    Observed,
    Placement,
    PodView,
    Resources,
    Verb,
    WorkspaceObserved,
    WorkspaceView,
    World,
)
from state.outbox import REFUSED_RETRY, Recorded
from state.plan import Decision, Place, Plan, PlannedStep, Release
from state.wire import Action
from tests.sim.rows import ActionRow, NodeRow, PodRow, WorkspaceRow
from tests.sim.watch import Watch

LEASE = timedelta(seconds=15)
_UP = (Observed.STARTING, Observed.RUNNING, Observed.STOPPING)


class SimDatabase:
    """Rows and transactions. `clock` is the one that leases and graces are judged by."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.pods: dict[str, PodRow] = {}
        self.workspaces: dict[str, WorkspaceRow] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.actions: dict[str, ActionRow] = {}
        self.open: dict[str, ActionRow] = {}
        self.archives: dict[tuple[str, int], ArchiveRef] = {}
        self.damaged: set[tuple[str, int]] = set()
        self.attempts: dict[str, int] = {}
        self.holder = ""
        self.term = 0
        self.term_began_at = clock()
        self.lease_ends_at: datetime | None = None
        self.watch = Watch()
        # Until when each trouble lasts, and whose rows cannot be read.
        self.trouble: dict[str, float] = {}
        self.poisoned = ""

    # ---- wishes --------------------------------------------------------------------------------------------

    def set_desired(self, pod_id: str, desired: Desired) -> bool:
        """An UPDATE by the API or by hand, with the trigger's part. False when it changes nothing."""
        pod = self.pods[pod_id]
        if pod.desired in (desired, Desired.DELETED):
            return False
        pod.desired, pod.generation = desired, pod.generation + 1
        pod.desired_at = pod.due_at = self.clock()
        return True

    # ---- leading -------------------------------------------------------------------------------------------

    def lead(self, holder: str) -> Leadership | None:
        """Renew a term, or begin one when nobody's runs."""
        now = self.clock()
        running = self.lease_ends_at is not None and now < self.lease_ends_at
        if running and self.holder != holder:
            return None
        if not running:
            self.holder, self.term, self.term_began_at = holder, self.term + 1, now
        self.lease_ends_at = now + LEASE
        return Leadership(holder, self.term)

    def _assert_leading(self, leadership: Leadership) -> None:
        ours = (self.holder, self.term) == (leadership.holder, leadership.term)
        if not ours or self.lease_ends_at is None or self.clock() >= self.lease_ends_at:
            raise LeadershipLost(f"term {leadership.term} of {leadership.holder} is over")

    def note_silence(self, leading_since: datetime, silent_after: timedelta) -> None:
        """Wake the workspaces of nodes that went silent or came back."""
        now = self.clock()
        for node in self.nodes.values():
            heard = max(node.last_seen_at or leading_since, leading_since)
            silent = heard < now - silent_after
            if silent != node.silent:
                node.silent = silent
                self.wake_users_of(node.id)

    def wake_users_of(self, node_id: str) -> None:
        """Have all who are placed there looked at."""
        for workspace in self.workspaces.values():
            if workspace.placement and workspace.placement.node_id == node_id:
                workspace.due_at = self.clock()

    # ---- what is due ---------------------------------------------------------------------------------------

    def claim_due(self, limit: int, redeliver_after: timedelta) -> list[str]:
        """See state.snapshot."""
        now = self.clock()
        due: dict[str, datetime] = {}
        for workspace_id, due_at in self.due_times():
            if due_at <= now:
                due[workspace_id] = min(due_at, due.get(workspace_id, due_at))
        claimed = sorted(due, key=lambda key: (due[key], key))[:limit]
        for workspace_id in claimed:
            rows: list[PodRow | WorkspaceRow] = [self.workspaces[workspace_id]]
            for row in [*rows, *self._pods_of(workspace_id)]:
                if row.due_at is not None and row.due_at <= now:
                    row.due_at = now + redeliver_after
        return claimed

    def next_due_in(self) -> timedelta | None:
        """See state.snapshot."""
        times = [due_at for _, due_at in self.due_times()]
        return max(min(times) - self.clock(), timedelta(0)) if times else None

    def due_times(self) -> Iterable[tuple[str, datetime]]:
        """Of pods and workspaces, with the workspace's id."""
        for workspace in self.workspaces.values():
            if workspace.due_at is not None:
                yield workspace.id, workspace.due_at
        for pod in self.pods.values():
            if pod.due_at is not None:
                yield pod.workspace_id, pod.due_at

    def _pods_of(self, workspace_id: str) -> list[PodRow]:
        return [pod for pod in self.pods.values() if pod.workspace_id == workspace_id]

    # ---- the world -----------------------------------------------------------------------------------------

    def read_world(self, workspace_ids: Sequence[str], leading_since: datetime) -> World:
        """See state.snapshot."""
        return World(
            nodes={node.id: self._node_view(node) for node in self.nodes.values()},
            workspaces=tuple(self._workspace_view(self.workspaces[key]) for key in sorted(workspace_ids)),
            leading_since=leading_since,
        )

    def _node_view(self, node: NodeRow) -> NodeView:
        here = [row for row in self.open.values() if row.node_id == node.id]
        return NodeView(
            id=node.id,
            last_seen_at=node.last_seen_at,
            cordoned=node.cordoned,
            capacity=Resources(node.cpu_millis, node.memory_mib, pids=0),
            reserved=self._reserved(node.id),
            open_starts=sum(row.verb is Verb.START_POD for row in here),
            open_actions=len(here),
            engine_error=node.engine_error,
        )

    def _reserved(self, node_id: str) -> Resources:
        count = 0
        for pod in self.pods.values():
            placement = self.workspaces[pod.workspace_id].placement
            if placement is None or placement.node_id != node_id:
                continue
            seen = pod.observed_at(placement)
            count += pod.desired is Desired.RUNNING or (seen is not None and seen.state in _UP)
        return Resources(RESERVED_PER_POD.cpu_millis * count, RESERVED_PER_POD.memory_mib * count, 0)

    def _workspace_view(self, row: WorkspaceRow) -> WorkspaceView:
        pods = self._pods_of(row.id)
        open_action = self.open.get(row.id)
        return WorkspaceView(
            id=row.id,
            user_id=row.user_id,
            epoch=row.epoch,
            pods=tuple(view for pod in pods if (view := self._pod_view(pod, row)) is not None),
            placement=row.placement,
            observed=row.observed_here(),
            archive=row.archive,
            open_action=open_action.view() if open_action else None,
            failure=row.failure,
            archives_made=self.archives_made(row.id),
            wished_at=max((pod.desired_at for pod in pods if pod.desired_at), default=None),
        )

    def _pod_view(self, pod: PodRow, workspace: WorkspaceRow) -> PodView | None:
        seen = pod.observed_at(workspace.placement)
        open_action = self.open.get(pod.id)
        gone = seen is None or seen.state is Observed.ABSENT
        over = pod.desired is Desired.DELETED and pod.satisfied_generation == pod.generation
        if over and gone and open_action is None:
            return None
        return PodView(
            id=pod.id,
            name=pod.id,
            image="image:1",
            desired=pod.desired,
            generation=pod.generation,
            satisfied_generation=pod.satisfied_generation,
            image_id=pod.image_id,
            observed=seen,
            archive=pod.archive,
            open_action=open_action.view() if open_action else None,
            failure=pod.failure,
            archives_made=self.archives_made(pod.id),
        )

    # ---- writing a plan down -------------------------------------------------------------------------------

    def record(self, plan: Plan, leadership: Leadership, now: datetime, examined: Sequence[str]) -> Recorded:
        """See state.outbox: every line is checked again at the moment of its write."""
        self._assert_leading(leadership)
        self.watch.planned(plan)
        places = sum([self._place(line) for line in plan.places])
        releases = sum([self._release(line) for line in plan.releases])
        taken_back = [row for line in plan.take_backs if (row := self._take_back(line.action_id))]
        enqueued = {step.target for step in plan.steps if self._enqueue(step)}
        for decision in plan.decisions:
            self._decide(decision)
        self._wake_workspaces(plan, examined)
        refused = [step for step in plan.steps if step.target not in enqueued]
        for step in refused:
            self.workspaces[step.workspace_id].due_at = now + REFUSED_RETRY
        for row in (row for row in taken_back if row.state is not ActionState.OPEN):
            self.workspaces[row.action.workspace_id].due_at = now
        return Recorded(places, releases, len(enqueued), len(taken_back), 0, len(refused))

    def park(self, workspace_id: str, retry_at: datetime, leadership: Leadership) -> None:
        """See state.outbox: set aside until then, unless something is wished of it."""
        self._assert_leading(leadership)
        for row in (self.workspaces[workspace_id], *self._pods_of(workspace_id)):
            row.due_at = retry_at

    def _place(self, line: Place) -> bool:
        row = self.workspaces[line.workspace_id]
        if row.epoch != line.epoch_before or row.placement is not None:
            return False
        row.epoch += 1
        row.placement = Placement(line.node_id, row.epoch)
        self.watch.placed(line)
        for node in self.nodes.values():
            node.report = None
        return True

    def _release(self, line: Release) -> bool:
        row = self.workspaces[line.workspace_id]
        if row.placement != Placement(line.node_id, line.epoch):
            return False
        if any(action.action.workspace_id == row.id for action in self.open.values()):
            return False
        volume = row.observed_here()
        pods = [pod.observed_at(row.placement) for pod in self._pods_of(row.id)]
        if volume is not None and volume.state is not WorkspaceObserved.ABSENT:
            return False
        if any(seen is not None and seen.state is not Observed.ABSENT for seen in pods):
            return False
        row.placement = None
        self.watch.released(line)
        return True

    def _take_back(self, action_id: str) -> ActionRow | None:
        row = self.actions[action_id]
        if row.state is not ActionState.OPEN or row.taken_back:
            return None
        row.taken_back = True
        if not row.sent:
            self.close(row, ActionState.SUPERSEDED)
        return row

    def close(self, row: ActionRow, state: ActionState) -> None:
        """An open action ends."""
        row.state, row.finished_at = state, self.clock()
        del self.open[row.action.target]

    def _enqueue(self, step: PlannedStep) -> bool:
        workspace = self.workspaces[step.workspace_id]
        moved_on = step.pod_id is not None and self.pods[step.pod_id].generation != step.generation
        if workspace.placement != Placement(step.node_id, step.epoch) or moved_on or step.target in self.open:
            return False
        attempt = self.attempts[step.target] = self.attempts.get(step.target, 0) + 1
        action = Action(
            id=f"a{len(self.actions):06d}",
            workspace_id=step.workspace_id,
            user_id=step.user_id,
            pod_id=step.pod_id,
            epoch=step.epoch,
            generation=step.generation,
            attempt=attempt,
            step=step.step,
        )
        self.watch.enqueued(step)
        row = ActionRow(action, step.node_id, self.clock())
        self.actions[action.id] = self.open[step.target] = row
        return True

    def _decide(self, decision: Decision) -> None:
        pod = self.pods[decision.pod_id]
        if pod.generation != decision.generation:
            return
        pod.reason = decision.reason
        if decision.satisfied:
            pod.satisfied_generation = decision.generation
        if pod.due_at is None or pod.due_at > self.clock():
            pod.due_at = decision.wake_at

    def _wake_workspaces(self, plan: Plan, examined: Sequence[str]) -> None:
        now = self.clock()
        wakes: dict[str, datetime | None] = dict.fromkeys(sorted(examined))
        wakes |= {line.workspace_id: line.wake_at for line in plan.workspace_decisions}
        for workspace_id, wake_at in wakes.items():
            row = self.workspaces[workspace_id]
            if row.due_at is None or row.due_at > now:
                row.due_at = wake_at
        decided = {decision.pod_id for decision in plan.decisions}
        for workspace_id in examined:
            for pod in self._pods_of(workspace_id):
                if pod.id not in decided and pod.due_at is not None and pod.due_at > now:
                    pod.due_at = None

    # ---- archives ------------------------------------------------------------------------------------------

    def leave_archive(self, target: str, owner: PodRow | WorkspaceRow) -> None:
        """See state.generations: it is damaged, and what it was made of is there to be saved again."""
        assert owner.archive is not None
        self.damaged.add((target, owner.archive.number))
        earlier = [
            ref
            for (key, number), ref in self.archives.items()
            if key == target and number < owner.archive.number and (target, number) not in self.damaged
        ]
        owner.archive = max(earlier, key=lambda ref: ref.number, default=None)

    def archives_made(self, target: str) -> int:
        """The highest number that an archive of it ever had."""
        return max((number for key, number in self.archives if key == target), default=0)

    def commit_archive(self, row: ActionRow, archive: ArchiveRef) -> bool:
        """See state.archives: only at the live placement, and never behind a newer one."""
        action = row.action
        workspace = self.workspaces[action.workspace_id]
        if workspace.placement != Placement(row.node_id, action.epoch) or workspace.epoch != action.epoch:
            return False
        if any(target == action.target and number >= archive.number for target, number in self.archives):
            return False
        kept = replace(archive, id=f"archive-{len(self.archives)}")
        self.archives[action.target, archive.number] = kept
        owner = self.pods[action.pod_id] if action.pod_id else workspace
        owner.archive = kept
        return True
