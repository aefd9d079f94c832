"""The database's side of the loop, in memory: claims, worlds, plans written down under compare-and-set.

A small model of state.snapshot, state.outbox, state.leader and state.silence. Each method is one
transaction. That the SQL keeps to the same rules is tests/contract/test_database.py's to show, where both do
the same; here the rules are what faults of everything around them are thrown at.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from state.generations import SUSPECTS_PER_HOUR_MAX
from state.leader import Leadership, LeadershipLost
from state.model import (
    ActionState,
    ArchiveRef,
    Desired,
    Failover,
    Observed,
    Placement,
    WorkspaceObserved,
    World,
)
from state.outbox import REFUSED_RETRY, Recorded
from state.plan import Abandon, Condition, Decision, Place, Plan, PlannedStep, Proof, Release
from state.wire import Action
from tests.sim.rows import ActionRow, NodeRow, PodRow, WorkspaceRow, action_id, archive_id
from tests.sim.views import world_of
from tests.sim.watch import Watch


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
        self.damaged: dict[tuple[str, int], datetime] = {}
        self.given_up = 0
        self.attempts: dict[str, int] = {}
        self.holder = ""
        self.term = 0
        self.term_began_at = clock()
        self.lease_ends_at: datetime | None = None
        self.watch = Watch()
        # Until when each trouble lasts, and whose rows cannot be read.
        self.trouble: dict[str, float] = {}
        self.poisoned = ""
        self.drawn = 0
        self._committed_archives = 0
        self._placed: dict[str, set[str]] = {}
        self._room_made = False

    def disconnect(self) -> None:
        """Nothing is connected."""

    # ---- who there is --------------------------------------------------------------------------------------

    def add_node(self, node_id: str) -> None:
        """A node is registered."""
        self.nodes[node_id] = NodeRow(node_id)

    def add_pod(self, pod_id: str, workspace_id: str, user_id: str) -> None:
        """A pod is opened for a user, with the trigger's part, and is not to run yet."""
        self.workspaces.setdefault(workspace_id, WorkspaceRow(workspace_id, user_id))
        now = self.clock()
        self.pods[pod_id] = PodRow(pod_id, workspace_id, due_at=now, desired_at=now)

    def set_cordoned(self, node_id: str, cordoned: bool) -> None:
        """By an admin."""
        node = self.nodes[node_id]
        self._room_made |= node.cordoned and not cordoned
        node.cordoned = cordoned
        self.committed()

    def declare_lost(self, node_id: str, silent_after: timedelta) -> bool:
        """See state.nodes: an admin signs for it. False for one that is heard of."""
        node, now = self.nodes[node_id], self.clock()
        if node.last_seen_at is not None and node.last_seen_at >= now - silent_after:
            return False
        if not node.lost:
            node.lost_at, node.cordoned = now, True
            self.wake_users_of(node_id)
        return True

    def room_made(self) -> None:
        """Something was freed; who waits for it is told at the end of the transaction."""
        self._room_made = True

    def committed(self) -> None:
        """The triggers at the end of a transaction: where room may have appeared, who waits looks at once."""
        now = self.clock()
        if self._room_made:
            for pod in self.pods.values():
                if pod.condition is Condition.WAITING_FOR_CAPACITY and pod.due_at and pod.due_at > now:
                    pod.due_at = now
        self._room_made = False

    # ---- wishes --------------------------------------------------------------------------------------------

    def set_desired(self, pod_id: str, desired: Desired) -> bool:
        """An UPDATE by the API or by hand, with the trigger's part. False when it changes nothing."""
        pod = self.pods[pod_id]
        if pod.desired in (desired, Desired.DELETED):
            return False
        pod.desired, pod.generation = desired, pod.generation + 1
        pod.desired_at = pod.due_at = self.clock()
        return True

    def set_failover(self, pod_id: str, failover: Failover) -> bool:
        """An UPDATE by the API or by hand, with the trigger's part. False when it changes nothing."""
        pod = self.pods[pod_id]
        if pod.failover is failover or pod.desired is Desired.DELETED:
            return False
        pod.failover, pod.generation = failover, pod.generation + 1
        pod.desired_at = pod.due_at = self.clock()
        return True

    # ---- leading -------------------------------------------------------------------------------------------

    def try_lead(self, holder: str, lease: timedelta) -> Leadership | None:
        """See state.leader: begin a term, when nobody's runs."""
        now = self.clock()
        running = self.lease_ends_at is not None and now < self.lease_ends_at
        if running and self.holder != holder:
            return None
        self.holder, self.term, self.term_began_at = holder, self.term + 1, now
        self.lease_ends_at = now + lease
        return Leadership(holder, self.term)

    def renew(self, leadership: Leadership, lease: timedelta) -> bool:
        """See state.leader: also when it has run out, if nobody else has begun a term since."""
        ours = (self.holder, self.term) == (leadership.holder, leadership.term)
        self.lease_ends_at = self.clock() + lease if ours else self.lease_ends_at
        return ours

    def _assert_leading(self, leadership: Leadership) -> None:
        ours = (self.holder, self.term) == (leadership.holder, leadership.term)
        if not ours or self.lease_ends_at is None or self.clock() >= self.lease_ends_at:
            raise LeadershipLost(f"term {leadership.term} of {leadership.holder} is over")

    def note_silence(
        self, leadership: Leadership, leading_since: datetime, silent_after: timedelta
    ) -> dict[str, bool]:
        """See state.silence: wake the workspaces of nodes that went silent or came back."""
        self._assert_leading(leadership)
        now, changed = self.clock(), {}
        for node in self.nodes.values():
            heard = max(node.last_seen_at or leading_since, leading_since)
            silent = heard < now - silent_after
            if silent != node.silent:
                node.silent = changed[node.id] = silent
                self.wake_users_of(node.id)
                self._room_made |= not silent and not node.cordoned
        self.committed()
        return changed

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
        for table in (self.workspaces, self.pods):
            times = [line for line in self._due_of(table.values()) if line[0] <= now]
            for due_at, _, workspace_id in sorted(times)[:limit]:
                due[workspace_id] = min(due_at, due.get(workspace_id, due_at))
        claimed = sorted(due, key=lambda key: (due[key], key))[:limit]
        for workspace_id in claimed:
            rows: list[PodRow | WorkspaceRow] = [self.workspaces[workspace_id]]
            for row in [*rows, *self.pods_of(workspace_id)]:
                if row.due_at is not None and row.due_at <= now:
                    row.due_at = now + redeliver_after
        return claimed

    def next_due_in(self) -> timedelta | None:
        """See state.snapshot."""
        times = list(self.due_times())
        return max(min(times) - self.clock(), timedelta(0)) if times else None

    def page_workspaces(self, after: str, limit: int) -> list[str]:
        """See state.snapshot."""
        return sorted(key for key in self.workspaces if key > after)[:limit]

    def due_times(self) -> Iterable[datetime]:
        """Of pods and workspaces."""
        for due_at, _, _ in self._due_of([*self.workspaces.values(), *self.pods.values()]):
            yield due_at

    def _due_of(self, rows: Iterable[PodRow | WorkspaceRow]) -> Iterable[tuple[datetime, str, str]]:
        for row in rows:
            if row.due_at is not None:
                workspace_id = row.workspace_id if isinstance(row, PodRow) else row.id
                yield row.due_at, row.id, workspace_id

    def pods_of(self, workspace_id: str) -> list[PodRow]:
        return [pod for pod in self.pods.values() if pod.workspace_id == workspace_id]

    # ---- the world -----------------------------------------------------------------------------------------

    def read_world(self, workspace_ids: Sequence[str], leading_since: datetime) -> World:
        """See state.snapshot."""
        return world_of(self, workspace_ids, leading_since)

    # ---- writing a plan down -------------------------------------------------------------------------------

    def record(self, plan: Plan, leadership: Leadership, now: datetime, examined: Sequence[str]) -> Recorded:
        """See state.outbox: every line is checked again at the moment of its write."""
        self._assert_leading(leadership)
        self.watch.planned(plan)
        places = sum([self._place(line) for line in plan.places])
        releases = sum([self._release(line) for line in plan.releases])
        releases += sum([self._abandon(line) for line in plan.abandons])
        taken_back = [row for line in plan.take_backs if (row := self._take_back(line.action_id))]
        enqueued = {step.target for step in plan.steps if self._enqueue(step)}
        decisions = sum([self._decide(decision) for decision in plan.decisions])
        self._wake_workspaces(plan, sorted({*examined, *_touched(plan)}))
        for step in plan.steps:
            if step.target not in enqueued:
                self.workspaces[step.workspace_id].due_at = now + REFUSED_RETRY
        for row in (row for row in taken_back if row.state is not ActionState.OPEN):
            self.workspaces[row.action.workspace_id].due_at = now
        self.committed()
        refused = len(plan.steps) - len(enqueued)
        return Recorded(places, releases, len(enqueued), len(taken_back), decisions, refused)

    def park(self, workspace_id: str, reason: str, retry_at: datetime, leadership: Leadership) -> None:
        """See state.outbox: set aside until then; not what is over."""
        self._assert_leading(leadership)
        self.workspaces[workspace_id].due_at = retry_at
        for pod in self.pods_of(workspace_id):
            if pod.due_at is not None and pod.due_at > self.clock():
                pod.due_at = None
            if pod.desired is not Desired.DELETED or pod.satisfied_generation != pod.generation:
                pod.condition, pod.reason, pod.due_at = Condition.PARKED, reason, retry_at

    def _place(self, line: Place) -> bool:
        row = self.workspaces[line.workspace_id]
        if row.epoch != line.epoch_before or row.placement is not None:
            return False
        row.epoch += 1
        row.placement = Placement(line.node_id, row.epoch)
        self.watch.placed(line)
        former = self._placed.setdefault(row.id, set())
        former.add(line.node_id)
        for node_id in former:
            self.nodes[node_id].report = None
        return True

    def _release(self, line: Release) -> bool:
        row = self.workspaces[line.workspace_id]
        if row.placement != Placement(line.node_id, line.epoch):
            return False
        if any(action.action.workspace_id == row.id for action in self.open.values()):
            return False
        volume = row.observed_here()
        pods = [pod.observed_at(row.placement) for pod in self.pods_of(row.id)]
        if volume is not None and volume.state is not WorkspaceObserved.ABSENT:
            return False
        if any(seen is not None and seen.state is not Observed.ABSENT for seen in pods):
            return False
        row.placement = None
        self.room_made()
        self.watch.released(line)
        return True

    def _abandon(self, line: Abandon) -> bool:
        """See state.abandon: the proof is looked at again, and what the node was asked for is closed."""
        row, node = self.workspaces[line.workspace_id], self.nodes[line.node_id]
        silent = node.last_seen_at is not None and node.last_seen_at < self.clock() - line.silent_for
        proved = node.lost if line.proof is Proof.DECLARED_LOST else silent
        if row.placement != Placement(line.node_id, line.epoch) or not proved:
            return False
        row.placement, row.epoch, row.due_at = None, row.epoch + 1, self.clock()
        self.room_made()
        for action in [open_ for open_ in self.open.values() if open_.action.workspace_id == row.id]:
            self.close(action, ActionState.SUPERSEDED)
        self.given_up += 1
        self.watch.given_up(line)
        return True

    def _take_back(self, action_id: str) -> ActionRow | None:
        row = self.actions.get(action_id)
        if row is None or row.state is not ActionState.OPEN or row.taken_back:
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
        self.drawn += 1
        workspace = self.workspaces[step.workspace_id]
        moved_on = step.pod_id is not None and self.pods[step.pod_id].generation != step.generation
        if workspace.placement != Placement(step.node_id, step.epoch) or moved_on or step.target in self.open:
            return False
        attempt = self.attempts[step.target] = self.attempts.get(step.target, 0) + 1
        action = Action(
            id=action_id(self.drawn),
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

    def _decide(self, decision: Decision) -> bool:
        pod = self.pods[decision.pod_id]
        if pod.generation != decision.generation:
            return False
        before = (pod.condition, pod.reason, pod.satisfied_generation, pod.due_at)
        pod.condition, pod.reason = decision.condition, decision.reason
        if decision.satisfied:
            pod.satisfied_generation = decision.generation
        if pod.due_at is None or pod.due_at > self.clock():
            pod.due_at = decision.wake_at
        return before != (pod.condition, pod.reason, pod.satisfied_generation, pod.due_at)

    def _wake_workspaces(self, plan: Plan, touched: Sequence[str]) -> None:
        now = self.clock()
        wakes: dict[str, datetime | None] = dict.fromkeys(touched)
        wakes |= {line.workspace_id: line.wake_at for line in plan.workspace_decisions}
        for workspace_id, wake_at in wakes.items():
            row = self.workspaces[workspace_id]
            if row.due_at is None or row.due_at > now:
                row.due_at = wake_at
        decided = {decision.pod_id for decision in plan.decisions}
        for workspace_id in touched:
            for pod in self.pods_of(workspace_id):
                if pod.id not in decided and pod.due_at is not None and pod.due_at > now:
                    pod.due_at = None

    # ---- archives ------------------------------------------------------------------------------------------

    def note_damage(self, row: ActionRow, owner: PodRow | WorkspaceRow) -> bool:
        """See state.generations: whether its owner leaves the archive that this step has met."""
        step: Any = row.action.step
        source = getattr(step, "archive", None) or getattr(step, "proof", None)
        manifest_key = getattr(source, "manifest_key", None)
        met = [key for key, ref in self.archives.items() if ref.manifest_key == manifest_key]
        if not met:
            return False
        (target, number), again = met[0], met[0] in self.damaged
        self.damaged.setdefault((target, number), self.clock())
        source_is_there = row.verb.startswith("remove")
        if not source_is_there and not (again and self._may_fall_back()):
            return False
        earlier = self._whole_before(target, number)
        at_it = owner.archive is not None and owner.archive.number == number
        if not at_it or (earlier is None and not source_is_there):
            return False
        owner.archive = earlier
        return True

    def _may_fall_back(self) -> bool:
        lately = [at for at in self.damaged.values() if at > self.clock() - timedelta(hours=1)]
        return len(lately) <= SUSPECTS_PER_HOUR_MAX

    def _whole_before(self, target: str, number: int) -> ArchiveRef | None:
        earlier = [
            ref
            for (key, of_number), ref in self.archives.items()
            if key == target and of_number < number and (key, of_number) not in self.damaged
        ]
        return max(earlier, key=lambda ref: ref.number, default=None)

    def read_back_whole(self, manifest_key: str) -> None:
        """See state.generations: a restore has read all of it."""
        for key in [key for key in self.damaged if self.archives[key].manifest_key == manifest_key]:
            del self.damaged[key]

    def archives_made(self, target: str) -> int:
        """The highest number that an archive of it ever had."""
        return max((number for key, number in self.archives if key == target), default=0)

    def commit_archive(self, row: ActionRow, archive: ArchiveRef) -> bool:
        """See state.archives: only at the live placement, and never behind a newer one."""
        action = row.action
        self._committed_archives += 1
        workspace = self.workspaces[action.workspace_id]
        if workspace.placement != Placement(row.node_id, action.epoch) or workspace.epoch != action.epoch:
            return False
        if any(target == action.target and number >= archive.number for target, number in self.archives):
            return False
        kept = replace(archive, id=archive_id(self._committed_archives))
        self.archives[action.target, archive.number] = kept
        owner = self.pods[action.pod_id] if action.pod_id else workspace
        owner.archive = kept
        return True


def _touched(plan: Plan) -> set[str]:
    lines: Iterable[Place | Release | Abandon | PlannedStep | Decision] = (
        *plan.places,
        *plan.releases,
        *plan.abandons,
        *plan.steps,
        *plan.decisions,
    )
    return {line.workspace_id for line in lines} | {line.workspace_id for line in plan.workspace_decisions}
