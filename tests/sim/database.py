"""The database's side of the loop, in memory: claims, worlds, plans written down under compare-and-set.

A small model of state.snapshot, state.outbox, state.leader and state.silence. Each method is one
transaction. That the SQL keeps to the same rules is tests/contract/test_database.py's to show, where both do
the same; here the rules are what faults of everything around them are thrown at.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from state.leader import Leadership
from state.model import (
    ActionState,
    Desired,
    Observed,
    Placement,
    Verb,
    WorkspaceObserved,
    World,
)
from state.outbox import REFUSED_RETRY, Recorded
from state.plan import Abandon, Condition, Decision, Place, Plan, PlannedStep, Proof, Release
from state.wire import Action
from tests.sim.rows import ActionRow, action_id
from tests.sim.tables import SimTables
from tests.sim.views import world_of


class SimDatabase(SimTables):
    """What reconcilers ask of the database."""

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

    def note_silence(
        self, leadership: Leadership, leading_since: datetime, silent_after: timedelta
    ) -> dict[str, bool]:
        """See state.silence: wake the workspaces of nodes that went silent or came back."""
        self.assert_leading(leadership)
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

    # ---- the world -----------------------------------------------------------------------------------------

    def read_world(self, workspace_ids: Sequence[str], leading_since: datetime) -> World:
        """See state.snapshot."""
        return world_of(self, workspace_ids, leading_since)

    # ---- writing a plan down -------------------------------------------------------------------------------

    def record(self, plan: Plan, leadership: Leadership, now: datetime, examined: Sequence[str]) -> Recorded:
        """See state.outbox: every line is checked again at the moment of its write."""
        self.assert_leading(leadership)
        self.watch.planned(plan)
        places = sum([self._place(line) for line in plan.places])
        releases = sum([self._release(line) for line in plan.releases])
        releases += sum([self._abandon(line) for line in plan.abandons])
        taken_back = [row for line in plan.take_backs if (row := self._take_back(line.action_id))]
        enqueued = {step.target for step in plan.steps if self._enqueue(step)}
        gone_back = {line.workspace_id for line in plan.go_backs if self.restorations.go_back(line)}
        decisions = sum([self._decide(decision) for decision in plan.decisions])
        self._wake_workspaces(plan, sorted({*examined, *_touched(plan)}))
        for step in plan.steps:
            if step.target not in enqueued:
                self.workspaces[step.workspace_id].due_at = now + REFUSED_RETRY
        for row in (row for row in taken_back if row.state is not ActionState.OPEN):
            self.workspaces[row.action.workspace_id].due_at = now
        for workspace_id in gone_back:
            self.workspaces[workspace_id].due_at = now
        self.committed()
        refused = len(plan.steps) - len(enqueued)
        return Recorded(places, releases, len(enqueued), len(taken_back), decisions, refused)

    def park(self, workspace_id: str, reason: str, retry_at: datetime, leadership: Leadership) -> None:
        """See state.outbox: set aside until then; not what is over."""
        self.assert_leading(leadership)
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
        row.placement, row.placed_at = Placement(line.node_id, row.epoch), self.clock()
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

    def _enqueue(self, step: PlannedStep) -> bool:
        drawn = self.draw()
        workspace = self.workspaces[step.workspace_id]
        moved_on = step.pod_id is not None and self.pods[step.pod_id].generation != step.generation
        if workspace.placement != Placement(step.node_id, step.epoch) or moved_on or step.target in self.open:
            return False
        attempt = self.attempts[step.target] = self.attempts.get(step.target, 0) + 1
        action = Action(
            id=action_id(drawn),
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
        if row.verb in (Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE):
            self.note_target(step.kind, step.target)
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


def _touched(plan: Plan) -> set[str]:
    lines: Iterable[Place | Release | Abandon | PlannedStep | Decision] = (
        *plan.places,
        *plan.releases,
        *plan.abandons,
        *plan.steps,
        *plan.decisions,
    )
    return {line.workspace_id for line in lines} | {line.workspace_id for line in plan.workspace_decisions}
