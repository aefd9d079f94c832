"""The control plane by hand: passes and syncs called one at a time, on a real database."""

import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from reconciler.tick import Leading, TickOutcome, examine, tick
from state import leader, nodes, pods
from state.database import Database
from state.delivery import taken_back, undelivered
from state.model import Desired, Limits, Resources
from state.reports import Ingested, ingest
from state.snapshot import database_clock, next_due_in, page_workspaces
from state.wire import SyncReply, SyncRequest
from tests.support.scripted_node import ScriptedNode

LIMITS = replace(Limits(), archive_grace=timedelta(milliseconds=1), backoff_first=timedelta(seconds=30))
TURNS_MAX = 100
# What comes due within this time is waited for; what is later (a back-off, a lack of room) counts as settled.
SOON = timedelta(seconds=0.5)


@dataclass
class Control:
    """A leader that never sleeps, and the gateway's functions."""

    db: Database
    limits: Limits = LIMITS
    leading: Leading = field(init=False)

    def __post_init__(self) -> None:
        leadership = leader.try_lead(self.db, "test", timedelta(minutes=10))
        assert leadership is not None
        self.leading = Leading(leadership, database_clock(self.db))

    def join(self, node_id: str) -> ScriptedNode:
        """A new node, heard from once."""
        nodes.register(self.db, node_id, f"token-of-{node_id}")
        node = ScriptedNode(node_id)
        self.sync(node)
        return node

    def pod(self, user: str, name: str = "main", desired: Desired = Desired.RUNNING) -> str:
        """A new pod."""
        return new_pod(self.db, user, name, desired)

    def want(self, pod_id: str, desired: Desired) -> None:
        """Change what is wanted."""
        want(self.db, pod_id, desired)

    def ingest(self, request: SyncRequest) -> Ingested:
        """Take in one message."""
        return ingest(self.db, request, limits=self.limits, jitter=lambda: 0.0)

    def sync(self, node: ScriptedNode, **changes: Any) -> SyncReply:
        """One whole sync."""
        request = node.request(**changes)
        ingested = self.ingest(request)
        in_hand = [action_id for action_id in request.in_hand if action_id not in ingested.accepted]
        reply = SyncReply(
            actions=undelivered(self.db, node.node_id, in_hand),
            taken_back=taken_back(self.db, node.node_id, in_hand, request.ending),
            accepted=ingested.accepted,
        )
        node.take(reply)
        return reply

    def tick(self, now: datetime | None = None) -> TickOutcome:
        """One pass over what is due."""
        return tick(self.db, self.limits, self.leading, now or database_clock(self.db))

    def resync(self, now: datetime | None = None) -> TickOutcome:
        """One pass over everything."""
        everything = page_workspaces(self.db, "", 1000)
        return examine(self.db, self.limits, self.leading, now or database_clock(self.db), everything)

    def settle(self, *nodes_: ScriptedNode) -> list[str]:
        """Turn until nobody has anything to do; the verbs that the nodes carried out, in order."""
        verbs: list[str] = []
        for _ in range(TURNS_MAX):
            while self.tick().workspaces:
                pass
            for node in nodes_:
                self.sync(node)
            performed = [verb for node in nodes_ for verb in node.perform()]
            verbs += performed
            if not performed and not any(node.results for node in nodes_):
                if not self._due_soon():
                    return verbs
                time.sleep(0.02)
        raise AssertionError(f"not settled after {TURNS_MAX} turns: {verbs}")

    def _due_soon(self) -> bool:
        wait = next_due_in(self.db)
        return wait is not None and wait < SOON

    def row(self, query: Any, *arguments: object) -> dict[str, Any]:
        """The only row of a query."""
        (row,) = self.rows(query, *arguments)
        return row

    def rows(self, query: Any, *arguments: object) -> list[dict[str, Any]]:
        """The rows of a query."""
        with self.db.transaction() as conn:
            cursor = conn.execute(query, arguments)
            return cursor.fetchall() if cursor.description else []

    def pod_row(self, pod_id: str) -> dict[str, Any]:
        """A pod's row."""
        return self.row("SELECT * FROM pod WHERE id = %s", pod_id)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind, oldest first."""
        return self.rows("SELECT * FROM event WHERE kind = %s ORDER BY id", kind)


def new_pod(db: Database, user: str, name: str = "main", desired: Desired = Desired.RUNNING) -> str:
    """A new pod."""
    row, created = pods.create_or_open(
        db,
        user_id=user,
        name=name,
        image="codepods/pod",
        lab=None,
        resources=Resources(),
        desired=desired,
        actor="test",
        reason="a test wants it",
    )
    assert created
    return row.id


def is_settled(db: Database, pod_id: str) -> bool:
    """Whether all that is wanted of the pod is so."""
    status = pods.get_pod(db, pod_id)
    assert status is not None
    return status.condition == "settled" and status.satisfied_generation == status.generation


def want(db: Database, pod_id: str, desired: Desired) -> None:
    """Change what is wanted."""
    pods.set_desired(db, pod_id, desired, actor="test", reason="a test wants it")
