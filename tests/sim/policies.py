"""Presence and policies in the simulated database: a small model of state.presence and state.policies.

How a look is merged with the one before, which limits count and what a pod's life is are production's own
functions; what is read for them, and what is written down, is modelled here and held by
tests/contract/test_database_policies.py.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from state import policies
from state.leader import Leadership
from state.lifecycle import LifeLimits, Move, PodLife, Presence, Verdict, changed_coarsely, merge
from state.model import Desired, Observed
from state.policies import Decided
from state.presence import warning_id
from state.presence_wire import PodPresence, PodWarning, PresenceDown, PresenceUp
from tests.sim.rows import PodRow

if TYPE_CHECKING:
    from tests.sim.tables import SimTables

LIMITS = ("closed_grace_s", "idle_limit_s", "lifetime_s", "archive_after_s")
ASKED_FOR = timedelta(seconds=60)
_UNSEEN = dict.fromkeys(Presence.__dataclass_fields__)
_WISHES = {Move.STOP: Desired.STOPPED, Move.ARCHIVE: Desired.ARCHIVED}


@dataclass(eq=False)
class PolicyRow:
    """A row of `pod_policy`."""

    next_look_at: datetime | None = None
    rule: str | None = None
    reason: str | None = None
    stops_at: datetime | None = None
    warned_at: datetime | None = None
    can_extend: bool = True


@dataclass(eq=False)
class PresenceRow:
    """A row of `pod_presence`."""

    node_id: str
    epoch: int
    seen: Presence
    cpu_millis: int
    look_asked_at: datetime | None = None


class SimPolicies:
    """What nodes say of who is there, and what the policies make of it."""

    def __init__(self, db: "SimTables") -> None:
        self._db = db
        self.rows: dict[str, PolicyRow] = {}
        self.seen: dict[str, PresenceRow] = {}
        # Ends that were told of in a warning, and whether they could be put off.
        self.told: set[tuple[str, datetime | None, bool]] = set()

    # ---- triggers, and people ------------------------------------------------------------------------------

    def look_at(self, pod_id: str) -> None:
        """What makes a pod due to be looked at: a wish, a limit, a state."""
        row, now = self.rows.setdefault(pod_id, PolicyRow()), self._db.clock()
        row.next_look_at = now if row.next_look_at is None else min(row.next_look_at, now)

    def set_limit(self, pod_id: str, name: str, seconds: int | None) -> bool:
        """An UPDATE of one pod's limit, by hand. False when it changes nothing."""
        pod = self._db.pods[pod_id]
        if pod.limits.get(name) == seconds or pod.desired is Desired.DELETED:
            return False
        pod.limits[name] = seconds
        self._limited(pod)
        return True

    def set_user_limit(self, workspace_id: str, name: str, seconds: int | None) -> bool:
        """The same for all pods of a user."""
        workspace = self._db.workspaces[workspace_id]
        if workspace.limits.get(name) == seconds:
            return False
        workspace.limits[name] = seconds
        for pod in self._db.pods_of(workspace_id):
            self.rows[pod.id].next_look_at = self._db.clock()
        return True

    def extend(self, pod_id: str, until: datetime, reason: str) -> datetime | None:
        """See state.policies; None for a pod that is not wanted running."""
        pod = self._db.pods[pod_id]
        return self._keep_until(pod, until, reason) if pod.desired is Desired.RUNNING else None

    def _keep_until(self, pod: PodRow, until: datetime, reason: str) -> datetime:
        if pod.keep_until is not None and pod.keep_until >= until:
            return pod.keep_until
        pod.keep_until, pod.desired_reason = until, reason
        self._limited(pod)
        return until

    def _limited(self, pod: PodRow) -> None:
        """Not a wish of what the pod should be: `desired_at` stays."""
        pod.generation += 1
        pod.due_at = self._db.clock()
        self.look_at(pod.id)

    # ---- who is there --------------------------------------------------------------------------------------

    def take_in(self, node_id: str, up: PresenceUp) -> None:
        """See state.presence: only of pods that run where they are placed, by their node's own report."""
        for pod_id, said in sorted({words.pod_id: words for words in up.pods}.items()):
            pod = self._db.pods.get(pod_id)
            here = self._here(pod) if pod is not None else None
            if here == (node_id, said.epoch):
                self._see(pod_id, node_id, said)

    def _here(self, pod: PodRow) -> tuple[str, int] | None:
        placement, seen = self._db.workspaces[pod.workspace_id].placement, pod.observed
        if placement is None or seen is None or seen.state is not Observed.RUNNING:
            return None
        here = (placement.node_id, placement.epoch)
        return here if (pod.observed_node_id, seen.epoch) == here else None

    def _see(self, pod_id: str, node_id: str, said: PodPresence) -> None:
        now, row, known = self._db.clock(), self.rows[pod_id], self.seen.get(pod_id)
        same = known is not None and (known.node_id, known.epoch) == (node_id, said.epoch)
        before = known.seen if known is not None and same else None
        after = merge(before, said, now)
        asked_at = known.look_asked_at if known is not None else None
        asked_at = asked_at if asked_at is not None and asked_at > after.seen_at else None
        touched_before = known.seen.active_at if known is not None else None
        waited_for = row.stops_at is not None and after.seen_at >= row.stops_at
        waited_for |= row.warned_at is not None and touched_before != after.active_at
        self.seen[pod_id] = PresenceRow(node_id, said.epoch, after, said.cpu_millis, asked_at)
        if waited_for or changed_coarsely(before, after):
            row.next_look_at = now
        self._db.watch.saw(pod_id, said)

    def ask_to_look(self, pod_ids: Collection[str]) -> int:
        """See state.presence."""
        asked = [self.seen[pod_id] for pod_id in sorted(pod_ids) if pod_id in self.seen]
        for row in asked:
            row.look_asked_at = self._db.clock()
        return len(asked)

    def looks_asked(self) -> dict[str, frozenset[str]]:
        """See state.presence."""
        since, by_node = self._db.clock() - ASKED_FOR, dict[str, set[str]]()
        for pod_id, row in self.seen.items():
            if row.look_asked_at is not None and row.look_asked_at > since:
                by_node.setdefault(row.node_id, set()).add(pod_id)
        return {node_id: frozenset(pod_ids) for node_id, pod_ids in by_node.items()}

    def for_node(self, node_id: str, look_at: Collection[str]) -> PresenceDown:
        """See state.presence; of one end in the order of ids."""
        warnings = [
            self._warning(pod.id, placement.epoch)
            for pod in self._db.pods.values()
            if pod.desired is Desired.RUNNING
            and (placement := self._db.workspaces[pod.workspace_id].placement) is not None
            and placement.node_id == node_id
            and self.rows[pod.id].warned_at is not None
            and self.rows[pod.id].stops_at is not None
        ]
        ordered = sorted(warnings, key=lambda warning: (warning.stops_in_s, warning.pod_id))
        return PresenceDown(look_at=tuple(sorted(look_at)), warnings=tuple(ordered))

    def _warning(self, pod_id: str, epoch: int) -> PodWarning:
        row = self.rows[pod_id]
        assert row.stops_at is not None
        return PodWarning(
            pod_id=pod_id,
            epoch=epoch,
            id=warning_id(row.stops_at),
            stops_in_s=(row.stops_at - self._db.clock()).total_seconds(),
            why=row.reason or "",
            can_extend=row.can_extend,
        )

    # ---- a pass --------------------------------------------------------------------------------------------

    def due_times(self) -> Iterable[datetime]:
        """Of all pods that wait for the clock."""
        return (row.next_look_at for row in self.rows.values() if row.next_look_at is not None)

    def claim_due(self, limit: int, redeliver_after: timedelta) -> list[str]:
        """See state.policies."""
        now = self._db.clock()
        times = ((row.next_look_at, pod_id) for pod_id, row in self.rows.items() if row.next_look_at)
        claimed = [pod_id for at, pod_id in sorted(times) if at <= now][:limit]
        for pod_id in claimed:
            self.rows[pod_id].next_look_at = now + redeliver_after
        return sorted(claimed)

    def next_due_in(self) -> timedelta | None:
        """See state.policies."""
        first = min(self.due_times(), default=None)
        return None if first is None else max(first - self._db.clock(), timedelta(0))

    def read_lives(
        self, pod_ids: Sequence[str], defaults: LifeLimits, known_nodes: frozenset[str]
    ) -> list[PodLife]:
        """See state.policies."""
        rows = [self._row(self._db.pods[pod_id]) for pod_id in sorted(pod_ids)]
        return [policies._life(row, defaults, row["node_id"] in known_nodes) for row in rows]

    def _row(self, pod: PodRow) -> dict[str, Any]:
        workspace = self._db.workspaces[pod.workspace_id]
        placement, seen, known = workspace.placement, pod.observed, self.seen.get(pod.id)
        live = (placement.node_id, placement.epoch) if placement else None
        here = seen is not None and (pod.observed_node_id, seen.epoch) == live
        is_known = known is not None and (known.node_id, known.epoch) == live
        row: dict[str, Any] = dict(asdict(known.seen) if known is not None and is_known else _UNSEEN)
        for name in LIMITS:
            own = pod.limits.get(name)
            row[name] = workspace.limits.get(name) if own is None else own
        return row | {
            "id": pod.id,
            "generation": pod.generation,
            "desired_state": pod.desired,
            "desired_at": pod.desired_at,
            "keep_until": pod.keep_until,
            "created_at": pod.created_at,
            "node_id": placement.node_id if placement else None,
            "actual": seen.state if seen and here else None,
            "since": pod.since if here else None,
            "container_started_at": seen.started_at if seen and here else None,
            "warned_at": self.rows[pod.id].warned_at,
            "in_hand": pod.id in self._db.open,
        }

    def record_quiet(self, leadership: Leadership, decided: Sequence[Decided], now: datetime) -> None:
        """See state.policies."""
        if decided:
            self._db.assert_leading(leadership)
            for life, verdict in decided:
                self._keep(life, verdict, now)

    def record(self, leadership: Leadership, decided: Decided, now: datetime) -> bool:
        """See state.policies: void when somebody has wished since, or it is due again."""
        self._db.assert_leading(leadership)
        life, verdict = decided
        if self._db.pods[life.pod_id].generation != life.generation:
            return False
        due_at = self.rows[life.pod_id].next_look_at
        if due_at is not None and due_at <= self._db.clock():
            return False
        self._keep(life, verdict, now)
        if verdict.move is Move.WARN:
            self.told.add((life.pod_id, verdict.stops_at, verdict.can_extend))
            self._db.watch.warned(life, verdict)
        if verdict.move in _WISHES:
            self._db.watch.wishes(life, verdict)
            self._db.set_desired_by_policy(life.pod_id, _WISHES[verdict.move], verdict.reason)
        return True

    def _keep(self, life: PodLife, verdict: Verdict, now: datetime) -> None:
        row = self.rows[life.pod_id]
        if row.next_look_at is None or row.next_look_at > self._db.clock():
            row.next_look_at = verdict.wake_at
        row.rule, row.reason, row.stops_at = verdict.rule, verdict.reason, verdict.stops_at
        row.can_extend = verdict.can_extend
        row.warned_at = (row.warned_at or now) if verdict.warned else None

    # ---- answers from editors ------------------------------------------------------------------------------

    def answer(self, pod_id: str, node_id: str, warning: str, extension: timedelta) -> bool:
        """See state.policies: only to a warning that was told."""
        stops_at, pod = policies._named_by(warning), self._db.pods.get(pod_id)
        if pod is None or pod.desired is not Desired.RUNNING or stops_at is None:
            return False
        placement = self._db.workspaces[pod.workspace_id].placement
        if placement is None or placement.node_id != node_id or not self._was_told(pod_id, stops_at):
            return False
        until = stops_at + extension
        if until <= self._db.clock():
            return False
        self._keep_until(pod, until, "kept running by whoever is in its editor")
        return True

    def _was_told(self, pod_id: str, stops_at: datetime) -> bool:
        row = self.rows[pod_id]
        if row.warned_at is not None and row.stops_at == stops_at:
            return row.can_extend
        return (pod_id, stops_at, True) in self.told
