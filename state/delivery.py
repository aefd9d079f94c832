"""Handing actions to nodes: what the gateway asks about the open ones."""

from collections.abc import Collection

from psycopg.rows import DictRow

from state.database import Connection, Database
from state.wire import Action

# Actions in one reply to a node. The planner keeps fewer open than this per node.
ACTIONS_PER_REPLY_MAX = 200

_OPEN_IDS = "SELECT node_id, array_agg(id::text) AS ids FROM action WHERE state = 'open' GROUP BY node_id"

_UNDELIVERED = """
    SELECT a.id::text AS id, a.workspace_id, w.user_id, a.pod_id, a.epoch, a.generation, a.attempt, a.step
      FROM action a JOIN workspace w ON w.id = a.workspace_id
     WHERE a.node_id = %(node)s AND a.state = 'open' AND NOT (a.id::text = ANY(%(in_hand)s))
     ORDER BY a.created_at, a.id LIMIT %(limit)s
"""
_MARK_SENT = (
    "UPDATE action SET sent_at = now() WHERE id = ANY(%(ids)s::uuid[]) AND state = 'open' AND sent_at IS NULL"
)

_SPOIL = """
    UPDATE action SET state = 'failed', finished_at = clock_timestamp(),
           error = jsonb_build_object('code', 'unreadable', 'message', %(message)s::text)
     WHERE id = %(id)s::uuid AND state = 'open'
"""

_TAKEN_BACK = """
    SELECT held.id FROM unnest(%(in_hand)s::text[]) AS held(id)
     WHERE NOT EXISTS (SELECT 1 FROM action a
                        WHERE a.node_id = %(node)s AND a.state = 'open' AND a.id::text = held.id)
     ORDER BY held.id
"""


def open_action_ids(db: Database) -> dict[str, frozenset[str]]:
    """The open actions of every node that has any: one cheap read that tells who to wake."""
    with db.transaction() as conn:
        return {row["node_id"]: frozenset(row["ids"]) for row in conn.execute(_OPEN_IDS)}


def undelivered(db: Database, node_id: str, in_hand: Collection[str]) -> tuple[Action, ...]:
    """The open actions of a node that it does not have yet, the oldest first, now marked as sent."""
    arguments = {"node": node_id, "in_hand": list(in_hand), "limit": ACTIONS_PER_REPLY_MAX}
    with db.transaction() as conn:
        rows = conn.execute(_UNDELIVERED, arguments).fetchall()
        if rows:
            conn.execute(_MARK_SENT, {"ids": [row["id"] for row in rows]})
        return tuple(action for row in rows if (action := _readable(conn, row)) is not None)


def _readable(conn: Connection, row: DictRow) -> Action | None:
    """The action in a row; one that cannot be read is closed, so as not to hold up its node (LAW 12)."""
    try:
        return Action.model_validate(row)
    except ValueError as error:
        conn.execute(_SPOIL, {"id": row["id"], "message": f"the action cannot be read: {error}"})
        return None


def taken_back(db: Database, node_id: str, in_hand: Collection[str]) -> tuple[str, ...]:
    """Which of the actions a node has are not open any more: it should stop working on them."""
    if not in_hand:
        return ()
    with db.transaction() as conn:
        rows = conn.execute(_TAKEN_BACK, {"node": node_id, "in_hand": list(in_hand)})
        return tuple(row["id"] for row in rows)
