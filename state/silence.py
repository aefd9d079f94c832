"""Noticing that nodes have gone quiet, or are back: the one change that no report can bring.

Here it is only noted, once per change, and the workspaces of the node come due; what follows from it is the
planner's to decide.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from state import events
from state.database import Connection, Database
from state.leader import Leadership, assert_leading

_NOTE = """
    WITH heard AS (
        SELECT n.id, l.last_seen_at,
               greatest(l.last_seen_at, %(leading_since)s) < clock_timestamp() - %(silent_after)s AS silent
          FROM node n LEFT JOIN node_lease l ON l.node_id = n.id
    )
    UPDATE node n SET silent = heard.silent FROM heard
     WHERE n.id = heard.id AND n.silent <> heard.silent
    RETURNING n.id, n.silent, heard.last_seen_at
"""
_WAKE = """
    UPDATE workspace SET next_check_at = clock_timestamp()
     WHERE id IN (SELECT w.id FROM workspace w JOIN placement pl ON pl.workspace_id = w.id
                   WHERE pl.node_id = ANY(%(nodes)s) AND pl.released_at IS NULL
                   ORDER BY w.id FOR NO KEY UPDATE OF w)
"""


def note_silence(
    db: Database, leadership: Leadership, leading_since: datetime, silent_after: timedelta
) -> dict[str, bool]:
    """The nodes that went silent (True) or came back (False) since the last call; wakes their workspaces.

    A fresh leader gives every node a new lease, counted from `leading_since` (LAW 13). Raises
    `LeadershipLost`.
    """
    with db.transaction() as conn:
        assert_leading(conn, leadership)
        arguments = {"leading_since": leading_since, "silent_after": silent_after}
        rows = conn.execute(_NOTE, arguments).fetchall()
        for row in rows:
            last = (
                f"last heard at {row['last_seen_at']:%H:%M:%S} UTC" if row["last_seen_at"] else "never heard"
            )
            events.append(
                conn,
                actor="reconciler",
                kind="node",
                node_id=row["id"],
                from_value="heard" if row["silent"] else "silent",
                to_value="silent" if row["silent"] else "heard",
                reason=last,
            )
        if rows:
            wake_users_of(conn, [row["id"] for row in rows])
            conn.execute("NOTIFY codepods_observed")
    return {row["id"]: row["silent"] for row in rows}


def wake_users_of(conn: Connection, node_ids: Sequence[str]) -> None:
    """Have all who are placed on these nodes looked at."""
    conn.execute(_WAKE, {"nodes": list(node_ids)})
