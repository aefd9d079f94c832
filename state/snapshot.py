"""Reading what a pass decides from: which workspaces are due, and the world around them.

What is due is a level in the rows, not an event: `next_check_at` is set by the database when a desired
column changes, by `state.reports` when something reported changed, and by `state.outbox` when time alone
could change a decision. A page over all workspaces finds the same work should any be missed (LAW 1).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from state.database import Connection, Database
from state.model import (
    RESERVED_PER_POD,
    Desired,
    Failover,
    NodeView,
    Placement,
    PodView,
    Resources,
    WorkspaceView,
    World,
)
from state.rows import (
    Row,
    action_of,
    archive_of,
    failure_from_json,
    observed_pod_of,
    observed_workspace_of,
    restoration_of,
)

_DUE = """
    SELECT workspace_id FROM (
        (SELECT workspace_id, next_check_at FROM pod
          WHERE next_check_at <= now() ORDER BY next_check_at LIMIT %(limit)s)
        UNION ALL
        (SELECT id, next_check_at FROM workspace
          WHERE next_check_at <= now() ORDER BY next_check_at LIMIT %(limit)s)
    ) AS due
    GROUP BY workspace_id ORDER BY min(next_check_at), workspace_id LIMIT %(limit)s
"""

_NEXT_DUE = """
    SELECT least((SELECT min(next_check_at) FROM pod WHERE next_check_at IS NOT NULL),
                 (SELECT min(next_check_at) FROM workspace WHERE next_check_at IS NOT NULL)) AS next_due,
           clock_timestamp() AS now
"""

# Workspaces are locked first and in the order of their ids, as every writer does: so they wait, not deadlock.
_LOCK_WORKSPACES = "SELECT 1 FROM workspace WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE"
_CLAIM_WORKSPACES = """
    UPDATE workspace SET next_check_at = now() + %(redeliver_after)s
     WHERE id = ANY(%(ids)s) AND next_check_at <= now()
"""
_CLAIM_PODS = """
    UPDATE pod SET next_check_at = now() + %(redeliver_after)s
     WHERE workspace_id = ANY(%(ids)s) AND next_check_at <= now()
"""

_ARCHIVE_COLUMNS = """
    ar.id AS archive_id, ar.number AS archive_number, ar.epoch AS archive_epoch,
    ar.manifest_key AS archive_manifest_key, ar.manifest_digest AS archive_manifest_digest,
    ar.fingerprint AS archive_fingerprint, ar.image_id AS archive_image_id,
    ar.committed_at AS archive_committed_at
"""
_ACTION_COLUMNS = """
    act.id AS action_id, act.verb AS action_verb, act.node_id AS action_node_id, act.epoch AS action_epoch,
    act.generation AS action_generation, act.created_at AS action_created_at,
    act.taken_back_at IS NOT NULL AS action_taken_back
"""

_RESTORATION_COLUMNS = """
    rs.id AS restoration_id, rs.archive_id AS restoration_archive_id, rsa.number AS restoration_number
"""


def _restoration_join(kind: str, target: str) -> str:
    return f"""
      LEFT JOIN restoration rs ON rs.target_kind = '{kind}' AND rs.target_id = {target}
                              AND rs.finished_at IS NULL
      LEFT JOIN archive rsa ON rsa.id = rs.archive_id
    """


def _archives_made(kind: str, target: str) -> str:
    return f"""
    coalesce((SELECT max(number) FROM archive WHERE target_kind = '{kind}' AND target_id = {target}), 0)
        AS archives_made
    """  # noqa: S608 - only the constants below are put in


# Only what the live placement's node reported at the placement's epoch counts (LAW 5). Tombstones whose
# container is gone have nothing left to decide.
_PODS = f"""
    SELECT p.id, p.workspace_id, p.name, p.image, p.desired_state, p.generation, p.satisfied_generation,
           p.image_id, p.lab, p.cpu_millis, p.memory_mib, p.pids, p.failover, p.failure,
           o.state AS observed_state, o.node_id AS observed_node_id, o.epoch AS observed_epoch,
           o.container_id AS observed_container_id, o.image_id AS observed_image_id,
           o.fingerprint AS observed_fingerprint, o.self_fence_s AS observed_self_fence_s,
           o.since AS observed_since,
           {_ARCHIVE_COLUMNS}, {_ACTION_COLUMNS}, {_RESTORATION_COLUMNS},
           {_archives_made("pod", "p.id")}
      FROM pod p
      LEFT JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
      LEFT JOIN pod_observed o ON o.pod_id = p.id AND o.node_id = pl.node_id AND o.epoch = pl.epoch
      LEFT JOIN archive ar ON ar.id = p.archive_id
      LEFT JOIN action act ON act.target = p.id AND act.state = 'open'
      {_restoration_join("pod", "p.id")}
     WHERE p.workspace_id = ANY(%(ids)s)
       AND NOT (p.desired_state = 'deleted' AND p.satisfied_generation = p.generation
                AND coalesce(o.state, 'absent') = 'absent' AND act.id IS NULL)
     ORDER BY p.workspace_id, p.id
"""  # noqa: S608 - only the constants above are put in

_WORKSPACES = f"""
    SELECT w.id, w.user_id, w.epoch, w.failure,
           (SELECT max(desired_at) FROM pod WHERE workspace_id = w.id) AS wished_at,
           pl.node_id AS placed_on, pl.epoch AS placed_epoch,
           o.state AS observed_state, o.node_id AS observed_node_id, o.epoch AS observed_epoch,
           o.fingerprint AS observed_fingerprint,
           {_ARCHIVE_COLUMNS}, {_ACTION_COLUMNS}, {_RESTORATION_COLUMNS},
           {_archives_made("workspace", "w.id")}
      FROM workspace w
      LEFT JOIN placement pl ON pl.workspace_id = w.id AND pl.released_at IS NULL
      LEFT JOIN workspace_observed o ON o.workspace_id = w.id
                                    AND o.node_id = pl.node_id AND o.epoch = pl.epoch
      LEFT JOIN archive ar ON ar.id = w.archive_id
      LEFT JOIN action act ON act.target = w.id AND act.state = 'open'
      {_restoration_join("workspace", "w.id")}
     WHERE w.id = ANY(%(ids)s) ORDER BY w.id
"""  # noqa: S608 - only the constants above are put in

_NODES = """
    SELECT n.id, n.cordoned, n.cpu_millis, n.memory_mib, l.last_seen_at, l.engine_error,
           n.lost_at IS NOT NULL AND coalesce(l.last_seen_at <= n.lost_at, true) AS lost,
           coalesce(a.starts, 0) AS open_starts, coalesce(a.actions, 0) AS open_actions
      FROM node n
      LEFT JOIN node_lease l ON l.node_id = n.id
      LEFT JOIN (SELECT node_id, count(*) AS actions, count(*) FILTER (WHERE verb = 'start_pod') AS starts
                   FROM action WHERE state = 'open' GROUP BY node_id) a ON a.node_id = n.id
"""

# Reads all that is placed, so it is asked only when somebody may have to be placed.
_RESERVED = """
    SELECT pl.node_id, count(*) AS pods FROM placement pl
      JOIN pod p ON p.workspace_id = pl.workspace_id
      LEFT JOIN pod_observed o ON o.pod_id = p.id AND o.node_id = pl.node_id AND o.epoch = pl.epoch
     WHERE pl.released_at IS NULL
       AND (p.desired_state = 'running' OR o.state IN ('starting', 'running', 'stopping'))
     GROUP BY pl.node_id
"""


def due_workspaces(db: Database, limit: int) -> list[str]:
    """The workspaces to look at now, the longest due first; only reads."""
    with db.transaction() as conn:
        return _due(conn, limit)


def claim_due(db: Database, limit: int, redeliver_after: timedelta) -> list[str]:
    """The workspaces to look at now, set aside until they are decided.

    Whatever makes one due again while it is being decided is kept by `state.outbox.record`. One whose
    decision is never recorded comes due again after `redeliver_after`.
    """
    with db.transaction() as conn:
        ids = _due(conn, limit)
        if ids:
            arguments = {"ids": ids, "redeliver_after": redeliver_after}
            conn.execute(_LOCK_WORKSPACES, arguments)
            conn.execute(_CLAIM_WORKSPACES, arguments)
            conn.execute(_CLAIM_PODS, arguments)
        return ids


def page_workspaces(db: Database, after: str, limit: int) -> list[str]:
    """The next workspaces in the order of their ids, due or not; "" starts at the first."""
    with db.transaction() as conn:
        rows = conn.execute("SELECT id FROM workspace WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
        return [row["id"] for row in rows]


def next_due_in(db: Database) -> timedelta | None:
    """How long until something comes due, at least zero; None when nothing waits for the clock."""
    with db.transaction() as conn:
        row = conn.execute(_NEXT_DUE).fetchone()
    assert row is not None
    return None if row["next_due"] is None else max(row["next_due"] - row["now"], timedelta(0))


def database_clock(db: Database) -> datetime:
    """The one clock that leases, back-offs and graces are judged by."""
    with db.transaction() as conn:
        row = conn.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    now: datetime = row["now"]
    return now


def read_world(db: Database, workspace_ids: Sequence[str], leading_since: datetime) -> World:
    """The given workspaces with their pods, and all nodes, as of one moment.

    What is reserved on nodes is counted only if one of the workspaces is without a place. Raises `ValueError`
    when a row cannot be decoded; read them one by one then.
    """
    with db.transaction() as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        arguments = {"ids": list(workspace_ids)}
        nodes = conn.execute(_NODES).fetchall()
        workspaces = conn.execute(_WORKSPACES, arguments).fetchall()
        pods = conn.execute(_PODS, arguments).fetchall()
        unplaced = any(row["placed_on"] is None for row in workspaces)
        reserved = {row["node_id"]: row["pods"] for row in conn.execute(_RESERVED)} if unplaced else {}
    return World(
        nodes={row["id"]: _node(row, reserved.get(row["id"], 0)) for row in nodes},
        workspaces=_workspaces(workspaces, pods),
        leading_since=leading_since,
    )


def _due(conn: Connection, limit: int) -> list[str]:
    return [row["workspace_id"] for row in conn.execute(_DUE, {"limit": limit})]


def _workspaces(rows: Iterable[Row], pod_rows: Iterable[Row]) -> tuple[WorkspaceView, ...]:
    pods: dict[str, list[PodView]] = defaultdict(list)
    for row in pod_rows:
        pods[row["workspace_id"]].append(_pod(row))
    return tuple(_workspace(row, tuple(pods[row["id"]])) for row in rows)


def _workspace(row: Row, pods: tuple[PodView, ...]) -> WorkspaceView:
    placed = row["placed_on"] is not None
    return WorkspaceView(
        id=row["id"],
        user_id=row["user_id"],
        epoch=row["epoch"],
        pods=pods,
        placement=Placement(row["placed_on"], row["placed_epoch"]) if placed else None,
        observed=observed_workspace_of(row),
        archive=archive_of(row),
        open_action=action_of(row),
        failure=failure_from_json(row["failure"]),
        wished_at=row["wished_at"],
        restoration=restoration_of(row),
        archives_made=row["archives_made"],
    )


def _pod(row: Row) -> PodView:
    return PodView(
        id=row["id"],
        name=row["name"],
        image=row["image"],
        desired=Desired(row["desired_state"]),
        generation=row["generation"],
        satisfied_generation=row["satisfied_generation"],
        image_id=row["image_id"],
        lab=row["lab"],
        resources=Resources(row["cpu_millis"], row["memory_mib"], row["pids"]),
        failover=Failover(row["failover"]),
        observed=observed_pod_of(row),
        archive=archive_of(row),
        open_action=action_of(row),
        failure=failure_from_json(row["failure"]),
        restoration=restoration_of(row),
        archives_made=row["archives_made"],
    )


def _node(row: Row, reserved: int) -> NodeView:
    return NodeView(
        id=row["id"],
        last_seen_at=row["last_seen_at"],
        cordoned=row["cordoned"],
        capacity=Resources(row["cpu_millis"], row["memory_mib"], pids=0),
        reserved=Resources(
            cpu_millis=RESERVED_PER_POD.cpu_millis * reserved,
            memory_mib=RESERVED_PER_POD.memory_mib * reserved,
            pids=0,
        ),
        open_starts=row["open_starts"],
        open_actions=row["open_actions"],
        engine_error=row["engine_error"],
        lost=row["lost"],
    )
