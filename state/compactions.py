"""Compaction: which archives are looked at, and handing one over to its new manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

from state import events
from state.alarms import raise_alarm
from state.chores import FAILED, Applies, ChoreRow, make_chore
from state.database import Connection
from state.generations import DAMAGE_CODES, mark_suspect
from state.retention import Target
from state.sweeps import store_id

COMPACT = "compact"
# A chain grows by a layer with each archive: the newest one is looked at after so many. Whether it is worth
# it, by its layers and dead bytes, is seen in its manifest.
ARCHIVES_PER_LOOK = 4

_DUE = """
    SELECT DISTINCT ON (a.target_kind, a.target_id)
           a.id, a.target_kind, a.target_id, a.number, a.manifest_key, a.manifest_digest, a.suspect_at
      FROM archive a JOIN unnest(%(kinds)s::text[], %(ids)s::text[]) AS t(kind, id)
           ON t.kind = a.target_kind AND t.id = a.target_id
     WHERE a.retired_at IS NULL
     ORDER BY a.target_kind, a.target_id, a.number DESC
"""
_LOOKED_AT = "SELECT 1 FROM chore WHERE kind = 'compact' AND subject = %s LIMIT 1"
# Same archive, same content: only if it is still where the chore read it, and still needed.
_HAND_OVER = """
    UPDATE archive SET manifest_key = %(key)s, manifest_digest = %(digest)s, size_bytes = %(size_bytes)s,
           whole_at = now()
     WHERE id = %(id)s AND manifest_key = %(key_before)s AND manifest_digest = %(digest_before)s
       AND retired_at IS NULL AND suspect_at IS NULL
    RETURNING target_kind, target_id, number
"""
_SWEEP_LATER = """
    UPDATE store_target SET sweep_at = coalesce(sweep_at, now() + interval '3 days')
     WHERE kind = %(target_kind)s AND id = %(target_id)s
"""
_ARCHIVE = "SELECT * FROM archive WHERE id = %s AND retired_at IS NULL FOR UPDATE"


def make_due_compactions(connection: Connection, targets: Sequence[Target]) -> int:
    """Make the chores for those of the targets whose newest archive may have a long chain. How many."""
    arguments = {"kinds": [target.kind for target in targets], "ids": [target.id for target in targets]}
    made = 0
    for row in connection.execute(_DUE, arguments).fetchall():
        if row["number"] % ARCHIVES_PER_LOOK or row["suspect_at"] is not None:
            continue
        if connection.execute(_LOOKED_AT, (row["id"],)).fetchone() is None:
            _make(connection, row)
            made += 1
    return made


def _make(connection: Connection, row: Mapping[str, Any]) -> None:
    request = {
        "store_id": store_id(connection),
        "manifest_key": row["manifest_key"],
        "manifest_digest": row["manifest_digest"],
    }
    of_what: dict[str, Any] = {f"{row['target_kind']}_id": row["target_id"]}
    make_chore(connection, COMPACT, row["id"], request, made_by="clock", **of_what)


def _compacted(connection: Connection, chore: ChoreRow, result: Mapping[str, Any]) -> None:
    if not result["worth"]:
        return
    arguments = {
        "id": chore["subject"],
        "key": result["manifest_key"],
        "digest": result["manifest_digest"],
        "size_bytes": result["size_bytes"],
        "key_before": chore["request"]["manifest_key"],
        "digest_before": chore["request"]["manifest_digest"],
    }
    row = connection.execute(_HAND_OVER, arguments).fetchone()
    if row is None:
        return  # it was retired, or has moved on: what was written is unreferenced, and will be cleared away
    connection.execute(_SWEEP_LATER, row)
    events.append(
        connection,
        actor=f"node:{chore['node_id']}",
        kind="compacted",
        pod_id=chore["pod_id"],
        workspace_id=chore["workspace_id"],
        node_id=chore["node_id"],
        from_value=f"{result['layers']} layers, {result['was_bytes']} bytes",
        to_value=f"1 layer, {result['size_bytes']} bytes",
        detail={"archive_id": chore["subject"], "number": row["number"]},
    )


def _failed(connection: Connection, chore: ChoreRow, detail: Mapping[str, Any]) -> None:
    """The archive is as it was. Damage that was met is told of, like that of a restore."""
    archive = connection.execute(_ARCHIVE, (chore["subject"],)).fetchone()
    if detail["code"] in DAMAGE_CODES and archive is not None:
        mark_suspect(connection, archive, detail["message"])
        return
    message = f"An archive could not be compacted ({detail['code']}): {detail['message']}"
    of_what: dict[str, Any] = {"pod_id": chore["pod_id"], "workspace_id": chore["workspace_id"]}
    raise_alarm(connection, kind=FAILED, subject=f"compact {chore['subject']}", message=message, **of_what)


COMPACT_APPLIES = Applies(done=_compacted, failed=_failed)
