"""Copies beside the steps: which are due, and making them count.

A checkpoint counts like any archive, marked as taken live, if its placement is still the live one, nothing
newer is there and no step is under way. A recovered copy gets a number of its own and is pointed at by
nothing: whoever wants it goes back to it (`state.generations`).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from state import events, ids
from state.archives import commit_archive
from state.chores import Applies, ChoreRow, make_chore
from state.copy_wire import (
    CHECKPOINT,
    RECOVER_COPY,
    CopyMade,
    CopyRequest,
    CopyResult,
    CopyTarget,
)
from state.database import Connection
from state.model import TargetKind
from state.wire import ArchiveSource

_DUE_CHECKPOINTS = """
    SELECT pl.workspace_id, pl.node_id, pl.epoch, w.user_id
      FROM placement pl JOIN workspace w ON w.id = pl.workspace_id
     WHERE pl.released_at IS NULL
       AND EXISTS (SELECT 1 FROM pod p JOIN pod_observed o ON o.pod_id = p.id
                    WHERE p.workspace_id = w.id AND p.desired_state = 'running' AND o.state = 'running'
                      AND o.node_id = pl.node_id AND o.epoch = pl.epoch
                      AND o.started_at < now() - %(every)s)
       AND NOT EXISTS (SELECT 1 FROM action a WHERE a.workspace_id = w.id AND a.state = 'open')
       AND NOT EXISTS (SELECT 1 FROM chore c WHERE c.kind = 'checkpoint' AND c.subject = w.id
                          AND (c.state IN ('waiting', 'given') OR c.finished_at > now() - %(every)s))
     ORDER BY pl.placed_at, pl.workspace_id LIMIT %(limit)s
"""
_TARGETS = """
    SELECT 'pod' AS kind, p.id AS target_id, ar.manifest_key, ar.manifest_digest,
           (SELECT coalesce(max(number), 0) + 1 FROM archive x
             WHERE x.target_kind = 'pod' AND x.target_id = p.id) AS number
      FROM pod p JOIN pod_observed o ON o.pod_id = p.id LEFT JOIN archive ar ON ar.id = p.archive_id
     WHERE p.workspace_id = %(workspace_id)s AND o.state = 'running' AND o.epoch = %(epoch)s
     UNION ALL
    SELECT 'workspace', w.id, ar.manifest_key, ar.manifest_digest,
           (SELECT coalesce(max(number), 0) + 1 FROM archive x
             WHERE x.target_kind = 'workspace' AND x.target_id = w.id)
      FROM workspace w LEFT JOIN archive ar ON ar.id = w.archive_id WHERE w.id = %(workspace_id)s
     ORDER BY kind, target_id
"""
# What a node's newest report has of placements that are over, stopped, and in no archive yet.
_STALE_PODS = """
    SELECT r.node_id, p.id AS target_id, p.workspace_id, p.user_id, (told ->> 'epoch')::bigint AS epoch,
           'pod' AS kind, told ->> 'fingerprint' AS fingerprint
      FROM report r CROSS JOIN LATERAL jsonb_array_elements(r.payload -> 'pods') AS told
      JOIN pod p ON p.id = told ->> 'pod_id'
      LEFT JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
     WHERE r.payload ->> 'told' LIKE '%%"stale_container:%%' AND told ->> 'state' = 'stopped'
       AND (pl.node_id, pl.epoch) IS DISTINCT FROM (r.node_id, (told ->> 'epoch')::bigint)
       AND p.desired_state <> 'deleted'
"""
_STALE_VOLUMES = """
    SELECT r.node_id, w.id, w.id, w.user_id, (told ->> 'epoch')::bigint, 'workspace', told ->> 'fingerprint'
      FROM report r CROSS JOIN LATERAL jsonb_array_elements(r.payload -> 'workspaces') AS told
      JOIN workspace w ON w.id = told ->> 'workspace_id'
      LEFT JOIN placement pl ON pl.workspace_id = w.id AND pl.released_at IS NULL
     WHERE r.payload ->> 'told' LIKE '%%"stale_volume:%%' AND told ->> 'state' = 'present'
       AND (pl.node_id, pl.epoch) IS DISTINCT FROM (r.node_id, (told ->> 'epoch')::bigint)
"""
_DUE_RECOVERIES = f"""
    SELECT s.* FROM ({_STALE_PODS} UNION ALL {_STALE_VOLUMES}) AS s
     WHERE s.fingerprint IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM archive a WHERE a.target_kind = s.kind AND a.target_id = s.target_id
                          AND a.fingerprint = s.fingerprint)
     ORDER BY s.target_id, s.node_id, s.epoch LIMIT %(limit)s
"""  # noqa: S608 - only the constants above are put in
_NEXT_NUMBER = """
    SELECT coalesce(max(number), 0) + 1 AS number FROM archive
     WHERE target_kind = %(kind)s AND target_id = %(target)s
"""
_LOCK = "SELECT 1 FROM workspace WHERE id = %s FOR NO KEY UPDATE"
_BUSY = "SELECT 1 FROM action WHERE target = %s AND state = 'open'"
_KEEP_RECOVERED = """
    INSERT INTO archive (id, target_kind, target_id, number, epoch, attempt, node_id, manifest_key,
                         manifest_digest, fingerprint, size_bytes, image_id, notices, recovered)
    VALUES (%(id)s, %(kind)s, %(target)s, %(number)s, %(epoch)s, %(attempt)s, %(node)s, %(manifest_key)s,
            %(manifest_digest)s, %(fingerprint)s, %(size_bytes)s, %(image_id)s, %(notices)s, true)
        ON CONFLICT DO NOTHING
    RETURNING id
"""


def make_checkpoints(connection: Connection, every: timedelta, limit: int) -> int:
    """Chores for the users whose running pods were last looked at so long ago. How many."""
    rows = connection.execute(_DUE_CHECKPOINTS, {"every": every, "limit": limit}).fetchall()
    made = 0
    for row in rows:
        targets = tuple(map(_target, connection.execute(_TARGETS, row)))
        request = CopyRequest(
            workspace_id=row["workspace_id"], user_id=row["user_id"], epoch=row["epoch"], targets=targets
        )
        made += _make(connection, CHECKPOINT, row["workspace_id"], row["node_id"], request)
    return made


def make_recoveries(connection: Connection, limit: int) -> int:
    """Chores for what nodes still have of placements that are over. How many."""
    made = 0
    for row in connection.execute(_DUE_RECOVERIES, {"limit": limit}).fetchall():
        number = _next_number(connection, row["kind"], row["target_id"])
        target = CopyTarget(kind=row["kind"], target_id=row["target_id"], number=number)
        request = CopyRequest(
            workspace_id=row["workspace_id"], user_id=row["user_id"], epoch=row["epoch"], targets=(target,)
        )
        subject = f"{row['target_id']}@{row['epoch']}"
        made += _make(connection, RECOVER_COPY, subject, row["node_id"], request)
    return made


def _make(connection: Connection, kind: str, subject: str, node_id: str, request: CopyRequest) -> int:
    pods = [target.target_id for target in request.targets if target.kind is TargetKind.POD]
    _, new = make_chore(
        connection,
        kind,
        subject,
        request.model_dump(mode="json"),
        made_by="reconciler",
        pod_id=pods[0] if len(pods) == 1 else None,
        workspace_id=request.workspace_id,
        only_node_id=node_id,
    )
    return int(new)


def _target(row: Mapping[str, Any]) -> CopyTarget:
    base = None
    if row["manifest_key"] is not None:
        base = ArchiveSource(manifest_key=row["manifest_key"], manifest_digest=row["manifest_digest"])
    return CopyTarget(kind=row["kind"], target_id=row["target_id"], number=row["number"], base=base)


def _next_number(connection: Connection, kind: str, target_id: str) -> int:
    row = connection.execute(_NEXT_NUMBER, {"kind": kind, "target": target_id}).fetchone()
    assert row is not None
    number: int = row["number"]
    return number


# ---- what became of them -------------------------------------------------------------------------------


def _checkpointed(connection: Connection, chore: ChoreRow, payload: Mapping[str, Any]) -> None:
    request, result = _read(chore, payload)
    connection.execute(_LOCK, (request.workspace_id,))
    for copy in result.made:
        _count_checkpoint(connection, chore, request, copy)


def _count_checkpoint(connection: Connection, chore: ChoreRow, request: CopyRequest, copy: CopyMade) -> None:
    if connection.execute(_BUSY, (copy.target_id,)).fetchone() is not None:
        return  # a step is under way: what it makes is newer
    action = {
        "target_kind": copy.kind,
        "target": copy.target_id,
        "workspace_id": request.workspace_id,
        "node_id": chore["node_id"],
        "epoch": request.epoch,
        "attempt": copy.attempt,
        "step": {"number": copy.number},
    }
    archive_id = commit_archive(connection, action, copy.archive, live=True)
    if archive_id is not None:
        _tell(connection, chore, copy, "checkpoint", copy.number, "saved while it runs")


def keep_aside(connection: Connection, node_id: str, epoch: int, copy: CopyMade) -> int | None:
    """An archive with a number of its own, pointed at by nothing. The number; None where it is kept already.

    The caller holds the workspace's row lock.
    """
    number = _next_number(connection, copy.kind, copy.target_id)
    arguments = {
        "id": ids.new_archive_id(),
        "kind": copy.kind,
        "target": copy.target_id,
        "number": number,
        "epoch": epoch,
        "attempt": copy.attempt,
        "node": node_id,
        **copy.archive.model_dump(exclude={"notices"}),
        "notices": Jsonb(list(copy.archive.notices)),
    }
    kept = connection.execute(_KEEP_RECOVERED, arguments).fetchone()
    return None if kept is None else number


def _recovered(connection: Connection, chore: ChoreRow, payload: Mapping[str, Any]) -> None:
    request, result = _read(chore, payload)
    connection.execute(_LOCK, (request.workspace_id,))
    for copy in result.made:
        number = keep_aside(connection, chore["node_id"], request.epoch, copy)
        if number is not None:
            why = (
                f"what {chore['node_id']} still had when its user went on elsewhere; nothing uses it by"
                f" itself: podctl restore … --at {number}"
            )
            _tell(connection, chore, copy, "recovered_copy", number, why)


def _read(chore: ChoreRow, payload: Mapping[str, Any]) -> tuple[CopyRequest, CopyResult]:
    return CopyRequest.model_validate(chore["request"]), CopyResult.model_validate(payload)


def _tell(
    connection: Connection, chore: ChoreRow, copy: CopyMade, kind: str, number: int, reason: str
) -> None:
    events.append(
        connection,
        actor=f"node:{chore['node_id']}",
        kind=kind,
        pod_id=copy.target_id if copy.kind is TargetKind.POD else None,
        workspace_id=chore["workspace_id"],
        node_id=chore["node_id"],
        to_value=f"{copy.kind} archive {number}",
        reason=reason,
        detail={"size_bytes": copy.archive.size_bytes, "notices": list(copy.archive.notices)},
    )


def _no_alarm(connection: Connection, chore: ChoreRow, payload: Mapping[str, Any]) -> None:
    """A checkpoint that was given up: the next one is due soon, and the chore's event says why."""


COPY_APPLIES: Mapping[str, Applies] = {
    CHECKPOINT: Applies(done=_checkpointed, failed=_no_alarm),
    RECOVER_COPY: Applies(done=_recovered),
}
