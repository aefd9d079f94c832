"""When nodes have seen numbers that the database does not know: it has lost commits, and goes above them.

After a failover to a replica that missed the last moments, a node may have things of a placement that is not
in the database, and the same epoch may be given twice. What nodes have seen wins: an epoch that is seen where
it is not the live placement's is never given again, and what runs at it is stopped and kept (docs/decisions/
0025-lost-commits.md).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg.types.json import Jsonb

from state import events
from state.database import Connection
from state.wire import PodReport, Report, WorkspaceReport

# A node that says more than this is not believed: no failover loses so many placements of a workspace.
EPOCHS_AHEAD_MAX = 1000

_AHEAD = """
    WITH told AS (
        SELECT workspace_id, max(epoch) AS epoch FROM jsonb_to_recordset(%(rows)s)
            AS t(workspace_id text, epoch bigint) GROUP BY workspace_id
    )
    SELECT w.id, told.epoch, w.epoch AS known, pl.epoch AS placed,
           coalesce(pl.node_id = %(node)s AND told.epoch > pl.epoch, false) AS here
      FROM told JOIN workspace w ON w.id = told.workspace_id
      LEFT JOIN placement pl ON pl.workspace_id = w.id AND pl.released_at IS NULL
     WHERE told.epoch <= w.epoch + %(ahead_max)s
       AND (told.epoch >= w.epoch OR (pl.node_id = %(node)s AND told.epoch > pl.epoch))
       AND (pl.node_id, pl.epoch) IS DISTINCT FROM (%(node)s, told.epoch)
     ORDER BY w.id
"""
_GO_ABOVE = "UPDATE workspace SET epoch = %(epoch)s + 1, next_check_at = clock_timestamp() WHERE id = %(id)s"
_END = "UPDATE placement SET released_at = now() WHERE workspace_id = %(id)s AND released_at IS NULL"
_TAKE_OVER = """
    WITH raised AS (
        UPDATE workspace SET epoch = greatest(epoch, %(epoch)s), next_check_at = clock_timestamp()
         WHERE id = %(id)s
    )
    INSERT INTO placement (workspace_id, epoch, node_id) VALUES (%(id)s, %(epoch)s, %(node)s)
"""
_CLOSE_ACTIONS = """
    UPDATE action SET state = 'superseded', finished_at = now(),
           error = jsonb_build_object('code', 'superseded', 'message', 'its placement was over already')
     WHERE workspace_id = %(id)s AND state = 'open'
"""
_LIVE = """
    SELECT 1 FROM placement WHERE workspace_id = %(id)s AND node_id = %(node)s AND epoch = %(epoch)s
       AND released_at IS NULL
"""


def go_above(conn: Connection, node_id: str, report: Report) -> None:
    """Never give an epoch again that this node has things of. The caller holds the workspaces' locks.

    A node that tells of a later placement than the live one, which is its own, has that one still: nobody but
    the node that a user is on is believed so far.
    """
    lines: Iterable[PodReport | WorkspaceReport] = (*report.pods, *report.workspaces)
    told = [{"workspace_id": line.workspace_id, "epoch": line.epoch} for line in lines]
    arguments = {"node": node_id, "rows": Jsonb(told), "ahead_max": EPOCHS_AHEAD_MAX}
    for row in conn.execute(_AHEAD, arguments).fetchall():
        if row["here"]:
            _take_over(conn, node_id, row)
        else:
            conn.execute(_GO_ABOVE, row)
            seen = (
                f"{node_id} has things of epoch {row['epoch']}, which is not known to have been given to it"
            )
            _tell(conn, node_id, row, row["epoch"] + 1, f"{seen}; they are stopped and kept")


def _take_over(conn: Connection, node_id: str, row: Mapping[str, Any]) -> None:
    arguments = {**row, "node": node_id}
    conn.execute(_END, arguments)
    conn.execute(_CLOSE_ACTIONS, arguments)
    conn.execute(_TAKE_OVER, arguments)
    _tell(conn, node_id, row, row["epoch"], f"{node_id} has been given epoch {row['epoch']} already")


def give_way(conn: Connection, action: Mapping[str, Any]) -> None:
    """A node has refused a step of its own live placement, for it has seen a later one: this one is over."""
    arguments = {"id": action["workspace_id"], "node": action["node_id"], "epoch": action["epoch"]}
    if conn.execute(_LIVE, arguments).fetchone() is None:
        return
    known = conn.execute("SELECT epoch AS known FROM workspace WHERE id = %(id)s", arguments).fetchone()
    assert known is not None
    conn.execute(_END, arguments)
    conn.execute(_CLOSE_ACTIONS, arguments)
    conn.execute(_GO_ABOVE, {"id": arguments["id"], "epoch": known["known"]})
    reason = f"{action['node_id']} has seen a later epoch than {action['epoch']}"
    _tell(conn, action["node_id"], {**arguments, **known}, known["known"] + 1, reason)


def _tell(conn: Connection, node_id: str, row: Mapping[str, Any], epoch: int, reason: str) -> None:
    events.append(
        conn,
        actor="reconciler",
        kind="commits_lost",
        workspace_id=row["id"],
        node_id=node_id,
        from_value=f"epoch {row['known']}",
        to_value=f"epoch {epoch}",
        reason=f"{reason}: the database has forgotten what it had committed",
    )
