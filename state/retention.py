"""Retiring archives: what is known of a target's, and writing down which are not needed any more.

Retiring is only the removal of the reference. Blobs are cleared away later, by chores (`state.sweeps`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from state import events
from state.alarms import clear_alarm
from state.database import Connection
from state.generations import FELL_BACK, SUSPECT

_DUE = """
    SELECT kind, id FROM store_target WHERE check_at <= now() ORDER BY check_at, kind, id LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
"""
# Pinned: what a live row points at, what somebody wishes to go back to, what a step under way reads, and what
# was recovered lately: whoever misses something needs time to notice.
_ARCHIVES = """
    SELECT a.id, a.target_kind, a.target_id, a.number, a.committed_at, a.suspect_at IS NOT NULL AS suspect,
           a.live, a.recovered,
           (EXISTS (SELECT 1 FROM pod p WHERE p.id = a.target_id AND p.archive_id = a.id)
            OR EXISTS (SELECT 1 FROM workspace w WHERE w.id = a.target_id AND w.archive_id = a.id)
            OR EXISTS (SELECT 1 FROM restoration r WHERE r.archive_id = a.id AND r.finished_at IS NULL)
            OR EXISTS (SELECT 1 FROM action x WHERE x.target = a.target_id AND x.state = 'open'
                          AND a.manifest_key IN (x.step #>> '{archive,manifest_key}',
                                                 x.step #>> '{base,manifest_key}',
                                                 x.step #>> '{proof,manifest_key}'))
            OR a.recovered AND a.committed_at > now() - interval '90 days'
           ) AS pinned
      FROM archive a JOIN unnest(%(kinds)s::text[], %(ids)s::text[]) AS t(kind, id)
           ON t.kind = a.target_kind AND t.id = a.target_id
     WHERE a.retired_at IS NULL ORDER BY a.target_id, a.number
"""
_DELETED = """
    SELECT p.id, p.satisfied_generation = p.generation AND p.deleted_at < now() - %(kept)s
                 AND NOT EXISTS (SELECT 1 FROM action x WHERE x.target = p.id AND x.state = 'open') AS over
      FROM pod p WHERE p.id = ANY(%(ids)s) AND p.desired_state = 'deleted'
"""
_RETIRE = """
    UPDATE archive SET retired_at = now() WHERE id = ANY(%(ids)s) AND retired_at IS NULL
    RETURNING id, target_kind, target_id, number
"""
_NEXT = """
    UPDATE store_target SET check_at = %(at)s WHERE kind = %(kind)s AND id = %(id)s
"""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A pod or workspace whose archives are in the store."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class KeptRow:
    """An archive that is not retired; see `reconciler.retention.Kept`."""

    id: str
    number: int
    committed_at: datetime
    suspect: bool
    pinned: bool
    live: bool
    recovered: bool


def due_targets(connection: Connection, limit: int) -> list[Target]:
    """The targets to look at now, locked."""
    return [Target(row["kind"], row["id"]) for row in connection.execute(_DUE, {"limit": limit})]


def kept_archives(connection: Connection, targets: Sequence[Target]) -> Mapping[Target, list[KeptRow]]:
    """What is not retired of each."""
    found: dict[Target, list[KeptRow]] = {target: [] for target in targets}
    arguments = {"kinds": [target.kind for target in targets], "ids": [target.id for target in targets]}
    for row in connection.execute(_ARCHIVES, arguments):
        target = Target(row.pop("target_kind"), row.pop("target_id"))
        found[target].append(KeptRow(**row))
    return found


def deleted_pods(connection: Connection, targets: Sequence[Target], kept: timedelta) -> dict[Target, bool]:
    """Those with a tombstone, and whether it is older than `kept` and has been carried out."""
    pods = [target.id for target in targets if target.kind == "pod"]
    rows = connection.execute(_DELETED, {"ids": pods, "kept": kept})
    return {Target("pod", row["id"]): row["over"] for row in rows}


def retire(connection: Connection, archive_ids: Collection[str], reason: str) -> int:
    """They are not needed any more: from now on nothing refers to them. How many."""
    rows = connection.execute(_RETIRE, {"ids": sorted(archive_ids)}).fetchall()
    for row in rows:
        for kind in (SUSPECT, FELL_BACK):
            clear_alarm(connection, kind=kind, subject=row["id"], reason="the archive is retired")
        events.append(
            connection,
            actor="reconciler",
            kind="archive_retired",
            from_value=f"number {row['number']}",
            reason=reason,
            detail={"archive_id": row["id"]},
            **{f"{row['target_kind']}_id": row["target_id"]},
        )
    return len(rows)


def look_again(connection: Connection, target: Target, at: datetime | None) -> None:
    """When to look at the target next; None when only a new archive could change anything."""
    connection.execute(_NEXT, {"kind": target.kind, "id": target.id, "at": at})
