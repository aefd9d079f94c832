"""The simulated database's rows, what people do to them, when they are due, and archives.

A small model of what API, admins and triggers write, of state.generations and state.archives. How programs
read and write the rest is in database.py and ingest.py.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from state.generations import SUSPECTS_PER_HOUR_MAX
from state.leader import Leadership, LeadershipLost
from state.model import ActionState, ArchiveRef, Desired, Failover, Placement, What
from state.plan import Condition
from tests.sim.care import SWEPT_AFTER, SimCare
from tests.sim.chore_rows import SimChores
from tests.sim.policies import SimPolicies
from tests.sim.restorations import SimRestorations
from tests.sim.rows import (
    ActionRow,
    CandidateRow,
    KeptRow,
    NodeRow,
    PodRow,
    TargetRow,
    WorkspaceRow,
    archive_id,
)
from tests.sim.watch import Watch

# Of the database, by attribute.
Replica = dict[str, object]
# Ids are drawn by chance, and never twice; what the simulation counts instead is not forgotten.
_FORGOTTEN = (
    "pods",
    "workspaces",
    "nodes",
    "actions",
    "open",
    "archives",
    "damaged",
    "kept",
    "targets",
    "candidates",
    "attempts",
    "holder",
    "term",
    "term_began_at",
    "lease_ends_at",
    "_placed",
)


class SimTables:
    """Rows, and transactions of people. `clock` is the one that leases and graces are judged by."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.pods: dict[str, PodRow] = {}
        self.workspaces: dict[str, WorkspaceRow] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.actions: dict[str, ActionRow] = {}
        self.open: dict[str, ActionRow] = {}
        self.archives: dict[tuple[str, int], ArchiveRef] = {}
        self.damaged: dict[tuple[str, int], datetime] = {}
        self.kept: dict[tuple[str, int], KeptRow] = {}
        self.targets: dict[tuple[str, str], TargetRow] = {}
        self.candidates: dict[str, CandidateRow] = {}
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
        self.policies = SimPolicies(self)
        self.restorations = SimRestorations(self)
        self.chores = SimChores(self)
        self.care = SimCare(self)
        self.marks: Counter[str] = Counter()

    def disconnect(self) -> None:
        """Nothing is connected."""

    def replica(self) -> Replica:
        """The rows as they are now, which a replica keeps that is told of nothing more."""
        return copy.deepcopy({name: getattr(self, name) for name in _FORGOTTEN})

    def fail_over(self, replica: Replica) -> None:
        """What it does not have is forgotten."""
        for name in _FORGOTTEN:
            setattr(self, name, replica[name])

    def draw(self) -> int:
        """The number of the next id, also of one that is not used then."""
        self.drawn += 1
        return self.drawn

    # ---- who there is --------------------------------------------------------------------------------------

    def add_node(self, node_id: str) -> None:
        """A node is registered."""
        self.nodes[node_id] = NodeRow(node_id)

    def add_pod(self, pod_id: str, workspace_id: str, user_id: str) -> None:
        """A pod is opened for a user, with the trigger's part, and is not to run yet."""
        self.workspaces.setdefault(workspace_id, WorkspaceRow(workspace_id, user_id))
        now = self.clock()
        self.pods[pod_id] = PodRow(pod_id, workspace_id, due_at=now, desired_at=now, created_at=now)
        self.policies.look_at(pod_id)

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
        pod.desired = desired
        self.wished(pod)
        return True

    def set_failover(self, pod_id: str, failover: Failover) -> bool:
        """An UPDATE by the API or by hand, with the trigger's part. False when it changes nothing."""
        pod = self.pods[pod_id]
        if pod.failover is failover or pod.desired is Desired.DELETED:
            return False
        pod.failover = failover
        self.wished(pod)
        return True

    def ask_restore(self, pod_id: str, number: int, what: What) -> bool:
        """See state.generations. False when it is refused."""
        return self.restorations.ask(pod_id, number, what)

    def set_desired_by_policy(self, pod_id: str, desired: Desired, reason: str) -> None:
        """The same UPDATE, by a policy, which says why."""
        pod = self.pods[pod_id]
        pod.desired, pod.desired_reason = desired, reason
        self.wished(pod)

    def wished(self, pod: PodRow) -> None:
        """The trigger's part of a wish."""
        pod.generation += 1
        pod.desired_at = pod.due_at = self.clock()
        self.policies.look_at(pod.id)
        if pod.desired is Desired.DELETED and ("pod", pod.id) in self.targets:
            self.targets["pod", pod.id].check_at = pod.desired_at

    def assert_leading(self, leadership: Leadership) -> None:
        """Raises `LeadershipLost` when this term is over."""
        ours = (self.holder, self.term) == (leadership.holder, leadership.term)
        if not ours or self.lease_ends_at is None or self.clock() >= self.lease_ends_at:
            raise LeadershipLost(f"term {leadership.term} of {leadership.holder} is over")

    def wake_users_of(self, node_id: str) -> None:
        """Have all who are placed there looked at."""
        for workspace in self.workspaces.values():
            if workspace.placement and workspace.placement.node_id == node_id:
                workspace.due_at = self.clock()

    def pods_of(self, workspace_id: str) -> list[PodRow]:
        return sorted(
            (pod for pod in self.pods.values() if pod.workspace_id == workspace_id), key=lambda pod: pod.id
        )

    def close(self, row: ActionRow, state: ActionState) -> None:
        """An open action ends."""
        row.state, row.finished_at = state, self.clock()
        del self.open[row.action.target]

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

    # ---- archives ------------------------------------------------------------------------------------------

    def owner_of(self, target: str) -> PodRow | WorkspaceRow:
        """The pod or the workspace of this id."""
        return self.pods.get(target) or self.workspaces[target]

    def note_target(self, kind: str, target: str) -> None:
        """The triggers' part of an upload: what it left, and made dispensable, is looked for."""
        now = self.clock()
        row = self.targets.setdefault((kind, target), TargetRow(now, None))
        row.check_at = min(now, row.check_at or now)
        row.sweep_at = row.sweep_at or now + SWEPT_AFTER

    def is_usable(self, key: tuple[str, int]) -> bool:
        """Not retired, and not known to be damaged."""
        return key not in self.damaged and self.kept[key].retired_at is None

    def note_damage(self, row: ActionRow, owner: PodRow | WorkspaceRow) -> bool:
        """See state.generations: whether its owner leaves the archive that this step has met."""
        step: Any = row.action.step
        source = getattr(step, "archive", None) or getattr(step, "proof", None)
        manifest_key = getattr(source, "manifest_key", None)
        met = [
            key
            for key, ref in self.archives.items()
            if ref.manifest_key == manifest_key and self.kept[key].retired_at is None
        ]
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
            if key == target
            and of_number < number
            and self.kept[key, of_number].retired_at is None
            and not self.kept[key, of_number].recovered
            and (key, of_number) not in self.damaged
        ]
        return max(earlier, key=lambda ref: ref.number, default=None)

    def read_back_whole(self, manifest_key: str) -> None:
        """See state.generations: a restore or a scrub has read all of it."""
        long_ago = self.clock() - timedelta(hours=1)
        for key in [key for key, ref in self.archives.items() if ref.manifest_key == manifest_key]:
            if key in self.damaged or self.kept[key].whole_at < long_ago:
                self.damaged.pop(key, None)
                self.kept[key].whole_at = self.clock()

    def archives_made(self, target: str) -> int:
        """The highest number that an archive of it ever had."""
        return max((number for key, number in self.archives if key == target), default=0)

    def commit_archive(self, row: ActionRow, archive: ArchiveRef, *, live: bool = False) -> bool:
        """See state.archives: only at the live placement, and never behind a newer one."""
        action = row.action
        self._committed_archives += 1
        workspace = self.workspaces[action.workspace_id]
        if workspace.placement != Placement(row.node_id, action.epoch):
            return False
        if any(target == action.target and number >= archive.number for target, number in self.archives):
            return False
        kept = self._keep(action.target, archive, KeptRow(self.clock(), live=live))
        self.owner_of(action.target).archive = kept
        return True

    def keep_aside(self, target: str, archive: ArchiveRef) -> bool:
        """See state.copies: an archive that nothing points at."""
        self._committed_archives += 1
        if any(ref.manifest_key == archive.manifest_key for ref in self.archives.values()):
            return False
        self._keep(target, archive, KeptRow(self.clock(), recovered=True))
        return True

    def _keep(self, target: str, archive: ArchiveRef, row: KeptRow) -> ArchiveRef:
        kept = replace(archive, id=archive_id(self._committed_archives))
        self.archives[target, archive.number], self.kept[target, archive.number] = kept, row
        self.note_target("pod" if target in self.pods else "workspace", target)
        return kept
