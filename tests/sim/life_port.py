"""A connection to the database for policies: stands for `state.policies` and `state.presence`."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from state.leader import Leadership
from state.lifecycle import LifeLimits, PodLife
from state.policies import Decided

if TYPE_CHECKING:
    from tests.sim.reconcilers import DatabasePort


class LifePort:
    """The functions of those modules that `reconciler.lives` calls; `db` is a port."""

    @staticmethod
    def claim_due(db: "DatabasePort", limit: int, redeliver_after: timedelta) -> list[str]:
        """See state.policies."""

        def effect() -> list[str]:
            return [] if db.has("db_empty") else db.db.policies.claim_due(limit, redeliver_after)

        return db.call("claim_lives", effect)

    @staticmethod
    def next_due_in(db: "DatabasePort") -> timedelta | None:
        """See state.policies."""
        return db.call("next_life", db.db.policies.next_due_in)

    @staticmethod
    def read_lives(
        db: "DatabasePort", pod_ids: Sequence[str], defaults: LifeLimits, known_nodes: frozenset[str]
    ) -> list[PodLife]:
        """See state.policies."""

        def effect() -> list[PodLife]:
            lost = db.has("db_empty") or db.has("db_no_pods")
            return [] if lost else db.db.policies.read_lives(pod_ids, defaults, known_nodes)

        return db.call("read_lives", effect)

    @staticmethod
    def record_quiet(
        db: "DatabasePort", leadership: Leadership, decided: Sequence[Decided], now: datetime
    ) -> None:
        """See state.policies."""
        if decided:
            db.call("record_quiet", lambda: db.db.policies.record_quiet(leadership, decided, now))

    @staticmethod
    def record(db: "DatabasePort", leadership: Leadership, decided: Decided, now: datetime) -> bool:
        """See state.policies."""
        return db.call("record_verdict", lambda: db.db.policies.record(leadership, decided, now))

    @staticmethod
    def ask_to_look(db: "DatabasePort", pod_ids: Collection[str]) -> int:
        """See state.presence."""
        return db.call("ask_to_look", lambda: db.db.policies.ask_to_look(pod_ids)) if pod_ids else 0
