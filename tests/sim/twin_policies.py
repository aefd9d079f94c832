"""Presence and policies on both databases: see twins.py."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from state import policies, presence
from state.leader import Leadership
from state.lifecycle import LifeLimits, PodLife
from state.policies import Decided, NotRunning
from state.presence_wire import PresenceDown
from tests.sim.policies import LIMITS, SimPolicies

if TYPE_CHECKING:
    from tests.sim.twins import TwinDatabase

_LIMIT = {
    table: {
        name: f"UPDATE {table} SET {name} = %(s)s WHERE id = %(id)s AND {name} IS DISTINCT FROM %(s)s {alive}"
        for name in LIMITS
    }
    for table, alive in (("pod", "AND desired_state <> 'deleted'"), ("workspace", ""))
}


class TwinPolicies(SimPolicies):
    """See SimPolicies; each transaction is made on PostgreSQL too. Looks arrive with nodes' messages."""

    def __init__(self, db: "TwinDatabase") -> None:
        super().__init__(db)
        self._twins = db

    def set_limit(self, pod_id: str, name: str, seconds: int | None) -> bool:
        """See SimPolicies; by hand."""
        limit = super().set_limit
        return self._twins.both(
            "set_limit",
            lambda: limit(pod_id, name, seconds),
            lambda: self._limit("pod", pod_id, name, seconds),
        )

    def set_user_limit(self, workspace_id: str, name: str, seconds: int | None) -> bool:
        """See SimPolicies; by hand."""
        limit = super().set_user_limit
        return self._twins.both(
            "set_user_limit",
            lambda: limit(workspace_id, name, seconds),
            lambda: self._limit("workspace", workspace_id, name, seconds),
        )

    def _limit(self, table: str, key: str, name: str, seconds: int | None) -> bool:
        with self._twins.people.transaction() as connection:
            return connection.execute(_LIMIT[table][name], {"s": seconds, "id": key}).rowcount == 1

    def extend(self, pod_id: str, until: datetime, reason: str) -> datetime | None:
        """See SimPolicies."""
        extend = super().extend

        def real() -> datetime | None:
            try:
                return policies.extend(self._twins.people, pod_id, until, actor="api:test", reason=reason)
            except NotRunning:
                return None

        return self._twins.both("extend", lambda: extend(pod_id, until, reason), real)

    def answer(self, pod_id: str, node_id: str, warning: str, extension: timedelta) -> bool:
        """See SimPolicies."""
        answer, programs = super().answer, self._twins.programs
        return self._twins.both(
            "answer",
            lambda: answer(pod_id, node_id, warning, extension),
            lambda: policies.answer(programs, pod_id, node_id, warning, extension),
        )

    def ask_to_look(self, pod_ids: Collection[str]) -> int:
        """See SimPolicies."""
        ask = super().ask_to_look
        return self._twins.both(
            "ask_to_look",
            lambda: ask(pod_ids),
            lambda: presence.ask_to_look(self._twins.programs, pod_ids),
        )

    def looks_asked(self) -> dict[str, frozenset[str]]:
        """See SimPolicies."""
        asked = super().looks_asked
        return self._twins.both("looks_asked", asked, lambda: presence.looks_asked(self._twins.programs))

    def for_node(self, node_id: str, look_at: Collection[str]) -> PresenceDown:
        """See SimPolicies; ends that fall together are in no order there."""
        told = super().for_node

        def real() -> PresenceDown:
            down = presence.for_node(self._twins.programs, node_id, look_at)
            ordered = sorted(down.warnings or (), key=lambda warning: (warning.stops_in_s, warning.pod_id))
            return down.model_copy(update={"warnings": tuple(ordered)})

        return self._twins.both("for_node", lambda: told(node_id, look_at), real)

    def claim_due(self, limit: int, redeliver_after: timedelta) -> list[str]:
        """See SimPolicies."""
        claim = super().claim_due
        return self._twins.both(
            "claim_lives",
            lambda: claim(limit, redeliver_after),
            lambda: policies.claim_due(self._twins.programs, limit, redeliver_after),
        )

    def next_due_in(self) -> timedelta | None:
        """See SimPolicies."""
        due = super().next_due_in
        return self._twins.both("next_due_in", due, lambda: policies.next_due_in(self._twins.programs))

    def read_lives(
        self, pod_ids: Sequence[str], defaults: LifeLimits, known_nodes: frozenset[str]
    ) -> list[PodLife]:
        """See SimPolicies."""
        read = super().read_lives
        return self._twins.both(
            "read_lives",
            lambda: read(pod_ids, defaults, known_nodes),
            lambda: policies.read_lives(self._twins.programs, pod_ids, defaults, known_nodes),
        )

    def record_quiet(self, leadership: Leadership, decided: Sequence[Decided], now: datetime) -> None:
        """See SimPolicies."""
        record = super().record_quiet
        self._twins.both(
            "record_quiet",
            lambda: record(leadership, decided, now),
            lambda: policies.record_quiet(self._twins.programs, leadership, decided, now),
        )

    def record(self, leadership: Leadership, decided: Decided, now: datetime) -> bool:
        """See SimPolicies."""
        record = super().record
        return self._twins.both(
            "record_verdict",
            lambda: record(leadership, decided, now),
            lambda: policies.record(self._twins.programs, leadership, decided, now),
        )
