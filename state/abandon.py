"""Giving a placement up without its node's word (LAW 6): declared lost by a person, or fenced by itself.

The proof is looked at again at the moment of the write. What the node held stays on it; if it comes back, it
learns the new epoch, stops what is of an earlier one, and removes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from state import events
from state.database import Connection
from state.plan import Abandon

_ABANDON = """
    WITH wanted AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s)
            AS t(workspace_id text, node_id text, epoch bigint, proof text, silent_s float8, reason text)
    ), ended AS (
        UPDATE placement pl SET released_at = now()
          FROM wanted JOIN node n ON n.id = wanted.node_id LEFT JOIN node_lease l ON l.node_id = n.id
         WHERE pl.workspace_id = wanted.workspace_id AND pl.node_id = wanted.node_id
           AND pl.epoch = wanted.epoch AND pl.released_at IS NULL
           AND CASE wanted.proof
               WHEN 'declared_lost' THEN n.lost_at IS NOT NULL AND coalesce(l.last_seen_at <= n.lost_at, true)
               ELSE l.last_seen_at < clock_timestamp() - make_interval(secs => wanted.silent_s) END
        RETURNING pl.workspace_id, pl.node_id, pl.epoch, wanted.proof, wanted.reason
    ), fenced AS (
        UPDATE workspace w SET epoch = w.epoch + 1, next_check_at = clock_timestamp()
          FROM ended WHERE w.id = ended.workspace_id
    )
    SELECT * FROM ended
"""
_CLOSE_ACTIONS = """
    UPDATE action SET state = 'superseded', finished_at = now(),
           error = jsonb_build_object('code', 'node_given_up', 'message', 'its node was given up')
     WHERE workspace_id = ANY(%(ids)s) AND state = 'open'
"""
# What each pod, and the workspace itself, goes on from; a pod that was never started has lost nothing.
_GOES_ON_FROM = """
    SELECT p.workspace_id, p.id AS pod_id, ar.number, ar.committed_at
      FROM pod p JOIN pod_observed o ON o.pod_id = p.id LEFT JOIN archive ar ON ar.id = p.archive_id
     WHERE p.workspace_id = ANY(%(ids)s) AND p.desired_state <> 'deleted' AND o.state <> 'absent'
     UNION ALL
    SELECT w.id, NULL, ar.number, ar.committed_at
      FROM workspace w JOIN workspace_observed o ON o.workspace_id = w.id
      LEFT JOIN archive ar ON ar.id = w.archive_id
     WHERE w.id = ANY(%(ids)s) AND o.state <> 'absent'
"""


def abandon(conn: Connection, lines: Sequence[Abandon]) -> int:
    """End these placements where the proof holds; how many did. The caller holds the workspaces' locks."""
    if not lines:
        return 0
    ended = conn.execute(_ABANDON, {"rows": Jsonb([_row(line) for line in lines])}).fetchall()
    by_workspace = {row["workspace_id"]: row for row in ended}
    arguments = {"ids": sorted(by_workspace)}
    conn.execute(_CLOSE_ACTIONS, arguments)
    for row in conn.execute(_GOES_ON_FROM, arguments).fetchall():
        _tell(conn, by_workspace[row["workspace_id"]], row)
    return len(ended)


def _row(line: Abandon) -> dict[str, Any]:
    row = asdict(line)
    row["silent_s"] = row.pop("silent_for").total_seconds()
    return row


def _tell(conn: Connection, ended: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    events.append(
        conn,
        actor="reconciler",
        kind="given_up",
        pod_id=row["pod_id"],
        workspace_id=row["workspace_id"],
        node_id=ended["node_id"],
        from_value=f"epoch {ended['epoch']}",
        to_value=f"archive {row['number']}" if row["number"] else "nothing saved",
        reason=f"{ended['reason']}; {_goes_on_from(row)}",
        detail={"proof": ended["proof"]},
    )


def _goes_on_from(row: Mapping[str, Any]) -> str:
    if row["number"] is None:
        return "nothing of it was saved: it begins empty, and what there was is on that node's disk alone"
    return (
        f"it goes on from archive {row['number']} of {row['committed_at']:%Y-%m-%d %H:%M:%S} UTC; what is"
        " newer is on that node's disk alone"
    )


def workspaces_of(lines: Iterable[Abandon]) -> set[str]:
    """Those that have to be locked first."""
    return {line.workspace_id for line in lines}
