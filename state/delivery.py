"""Handing actions to nodes: what the gateway asks about the open ones."""

from collections.abc import Collection
from dataclasses import dataclass

from psycopg.rows import DictRow

from state.database import Connection, Database
from state.model import Observed
from state.wire import Action, Report

# Actions in one reply to a node. The planner keeps fewer open than this per node.
ACTIONS_PER_REPLY_MAX = 200

# On the node of the live placement that one's: a higher number may have been seen, and is not given any more.
_EPOCHS = """
    SELECT w.id, CASE WHEN pl.node_id = %(node)s THEN pl.epoch ELSE w.epoch END AS epoch
      FROM workspace w LEFT JOIN placement pl ON pl.workspace_id = w.id AND pl.released_at IS NULL
     WHERE w.id = ANY(%(ids)s)
"""
_LIVE = frozenset({Observed.STARTING, Observed.RUNNING, Observed.FAILED, Observed.STOPPING})

_OPEN_IDS = """
    SELECT node_id, array_agg(id::text) FILTER (WHERE taken_back_at IS NULL) AS wanted,
           array_agg(id::text) FILTER (WHERE taken_back_at IS NOT NULL) AS taken_back
      FROM action WHERE state = 'open' GROUP BY node_id
"""

_UNDELIVERED = """
    SELECT a.id::text AS id, a.workspace_id, w.user_id, a.pod_id, a.epoch, a.generation, a.attempt, a.step
      FROM action a JOIN workspace w ON w.id = a.workspace_id
     WHERE a.node_id = %(node)s AND a.state = 'open' AND NOT (a.id::text = ANY(%(in_hand)s))
       AND a.taken_back_at IS NULL
     ORDER BY a.created_at, a.id LIMIT %(limit)s
"""
# Locked, for an action is either taken back before it is given to its node, or known to have been given.
_STILL_WANTED = """
    SELECT id::text AS id FROM action
     WHERE id = ANY(%(ids)s::uuid[]) AND state = 'open' AND taken_back_at IS NULL
     ORDER BY id FOR NO KEY UPDATE
"""
_MARK_SENT = "UPDATE action SET sent_at = now() WHERE id = ANY(%(ids)s::uuid[]) AND sent_at IS NULL"

_SPOIL = """
    UPDATE action SET state = 'failed', finished_at = clock_timestamp(),
           error = jsonb_build_object('code', 'unreadable', 'message', %(message)s::text)
     WHERE id = %(id)s::uuid AND state = 'open'
"""

_TAKEN_BACK = """
    SELECT a.id::text AS id FROM action a
     WHERE a.node_id = %(node)s AND a.state = 'open' AND a.taken_back_at IS NOT NULL
       AND NOT (a.id::text = ANY(%(ending)s))
     UNION
    SELECT held.id FROM unnest(%(in_hand)s::text[]) AS held(id)
     WHERE NOT (held.id = ANY(%(ending)s))
       AND NOT EXISTS (SELECT 1 FROM action a
                        WHERE a.node_id = %(node)s AND a.state = 'open' AND a.id::text = held.id)
     ORDER BY id
"""


def epochs_ahead(db: Database, node_id: str, report: Report | None) -> dict[str, int]:
    """The epoch of workspaces of which something runs on the node, and that have been placed anew since."""
    reported: dict[str, int] = {}
    for line in report.pods if report else ():
        if line.state in _LIVE:
            reported[line.workspace_id] = min(line.epoch, reported.get(line.workspace_id, line.epoch))
    if not reported:
        return {}
    with db.transaction() as conn:
        rows = conn.execute(_EPOCHS, {"node": node_id, "ids": list(reported)})
        return {row["id"]: row["epoch"] for row in rows if row["epoch"] > reported[row["id"]]}


@dataclass(frozen=True, slots=True)
class OpenIds:
    """A node's open actions: those to be done, and those that it was given and still has to answer for."""

    wanted: frozenset[str] = frozenset()
    taken_back: frozenset[str] = frozenset()

    def are_news(self, in_hand: Collection[str], ending: Collection[str]) -> bool:
        """Whether a node that has these in hand, some of them ending, should be told something."""
        return self.wanted != frozenset(in_hand) - frozenset(ending) or not self.taken_back <= set(ending)


def open_action_ids(db: Database) -> dict[str, OpenIds]:
    """The open actions of every node that has any: one cheap read that tells who to wake."""
    with db.transaction() as conn:
        return {
            row["node_id"]: OpenIds(frozenset(row["wanted"] or ()), frozenset(row["taken_back"] or ()))
            for row in conn.execute(_OPEN_IDS)
        }


def undelivered(db: Database, node_id: str, in_hand: Collection[str]) -> tuple[Action, ...]:
    """The open actions of a node that it does not have yet, the oldest first, now marked as sent."""
    arguments = {"node": node_id, "in_hand": list(in_hand), "limit": ACTIONS_PER_REPLY_MAX}
    with db.transaction() as conn:
        rows = conn.execute(_UNDELIVERED, arguments).fetchall()
        if not rows:
            return ()
        ids = {"ids": [row["id"] for row in rows]}
        wanted = {row["id"] for row in conn.execute(_STILL_WANTED, ids)}
        conn.execute(_MARK_SENT, {"ids": sorted(wanted)})
        fresh = (row for row in rows if row["id"] in wanted)
        return tuple(action for row in fresh if (action := _readable(conn, row)) is not None)


def _readable(conn: Connection, row: DictRow) -> Action | None:
    """The action in a row; one that cannot be read is closed, so as not to hold up its node (LAW 12)."""
    try:
        return Action.model_validate(row)
    except ValueError as error:
        conn.execute(_SPOIL, {"id": row["id"], "message": f"the action cannot be read: {error}"})
        return None


def taken_back(
    db: Database, node_id: str, in_hand: Collection[str], ending: Collection[str] = ()
) -> tuple[str, ...]:
    """The actions a node should stop working on, and answer for, whether it has them or not.

    Those that it has and that are not open any more, and those that wait for its word; not those that it is
    `ending` already.
    """
    with db.transaction() as conn:
        rows = conn.execute(_TAKEN_BACK, {"node": node_id, "in_hand": list(in_hand), "ending": list(ending)})
        return tuple(row["id"] for row in rows)
