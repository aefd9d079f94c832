"""The rows of the simulated database and of the real one in one form, to be compared."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from typing import Any

from state.database import Connection
from state.delivery import OpenIds
from state.lifecycle import Presence
from state.model import Observed, Placement, WorkspaceObserved
from state.rows import failure_to_json
from state.wire import PodReport, WorkspaceReport
from tests.sim.chore_rows import ChoreRow
from tests.sim.database import SimDatabase
from tests.sim.policies import LIMITS, PresenceRow
from tests.sim.rows import NodeRow, PodRow, WorkspaceRow

# By table and id.
Rows = dict[str, dict[Any, Any]]

_POD_SEEN = tuple(sorted(PodReport.model_fields.keys() - {"pod_id", "workspace_id", "user_id"}))
_VOLUME_SEEN = tuple(sorted(WorkspaceReport.model_fields.keys() - {"workspace_id", "user_id"}))

_REAL = {
    "pod": f"""
        SELECT p.id, p.workspace_id, p.desired_state, p.generation, p.satisfied_generation, p.image_id,
               p.failure, p.archive_id, p.next_check_at, p.desired_at, p.condition, p.reason, p.failover,
               p.desired_reason, p.keep_until, {", ".join(f"p.{name}" for name in LIMITS)},
               o.node_id, o.since, {", ".join(f"o.{name} AS seen_{name}" for name in _POD_SEEN)}
          FROM pod p LEFT JOIN pod_observed o ON o.pod_id = p.id
    """,
    "workspace": f"""
        SELECT w.id, w.user_id, w.epoch, w.failure, w.archive_id, w.next_check_at,
               {", ".join(f"w.{name}" for name in LIMITS)},
               pl.node_id AS placed_on, pl.epoch AS placed_epoch, o.node_id,
               {", ".join(f"o.{name} AS seen_{name}" for name in _VOLUME_SEEN)}
          FROM workspace w
          LEFT JOIN placement pl ON pl.workspace_id = w.id AND pl.released_at IS NULL
          LEFT JOIN workspace_observed o ON o.workspace_id = w.id
    """,
    "node": """
        SELECT n.id, n.cordoned, n.lost_at, n.cpu_millis, n.memory_mib, n.silent,
               coalesce(l.boot_id, '') AS boot_id, coalesce(l.sequence, 0) AS sequence,
               coalesce(l.former_boots, '[]') AS former_boots,
               l.last_seen_at, l.engine_error, coalesce(r.digest, '') = '' AS nothing_reported
          FROM node n LEFT JOIN node_lease l ON l.node_id = n.id LEFT JOIN report r ON r.node_id = n.id
    """,
    "action": """
        SELECT id::text AS id, target, verb, node_id, epoch, generation, attempt, step, state, created_at,
               finished_at, sent_at IS NOT NULL AS sent, taken_back_at IS NOT NULL AS taken_back FROM action
    """,
    "archive": """
        SELECT id, target_id, number, epoch, manifest_key, manifest_digest, fingerprint, image_id,
               committed_at, suspect_at, live, recovered, retired_at, whole_at FROM archive
    """,
    "store_target": "SELECT kind || ' ' || id AS id, check_at, sweep_at FROM store_target",
    "sweep_candidate": """
        SELECT key AS id, key, kind, target_id, size_bytes, first_seen_at, last_seen_at FROM sweep_candidate
    """,
    "pod_policy": """
        SELECT pod_id AS id, next_look_at, rule, reason, stops_at, warned_at, can_extend FROM pod_policy
    """,
    "pod_presence": f"""
        SELECT pod_id AS id, node_id, epoch, cpu_millis, look_asked_at,
               {", ".join(Presence.__dataclass_fields__)}
          FROM pod_presence
    """,
    "restoration": """
        SELECT id, target_kind, target_id, workspace_id, archive_id, asked_at, from_archive_id, finished_at
          FROM restoration
    """,
    "chore": f"""
        SELECT id::text AS id, {", ".join(one for one in ChoreRow.__dataclass_fields__ if one != "id")}
          FROM chore
    """,
    "leader": "SELECT id::text AS id, holder, term, expires_at FROM leader",
}


def real_rows(connection: Connection) -> Rows:
    """What PostgreSQL has."""
    with connection.pipeline():
        found = {table: connection.execute(query) for table, query in _REAL.items()}
    return {table: {row["id"]: row for row in rows} for table, rows in found.items()}


def mirrored_rows(db: SimDatabase) -> Rows:
    """What the mirror has, as PostgreSQL would tell it."""
    return {
        "pod": {pod.id: _pod(pod) for pod in db.pods.values()},
        "workspace": {row.id: _workspace(row) for row in db.workspaces.values()},
        "node": {node.id: _node(node) for node in db.nodes.values()},
        "action": _actions(db),
        "archive": _archives(db),
        "store_target": {f"{kind} {id_}": asdict(row) for (kind, id_), row in db.targets.items()},
        "sweep_candidate": {key: asdict(row) for key, row in db.candidates.items()},
        "pod_policy": {key: {"id": key, **asdict(row)} for key, row in db.policies.rows.items()},
        "pod_presence": {key: _presence(key, row) for key, row in db.policies.seen.items()},
        "restoration": {key: asdict(row) for key, row in db.restorations.rows.items()},
        "chore": {key: asdict(row) for key, row in db.chores.rows.items()},
        "leader": _leader(db),
    }


def open_ids_of(db: SimDatabase) -> dict[str, OpenIds]:
    """See state.delivery.open_action_ids."""
    result = {}
    for node_id in {row.node_id for row in db.open.values()}:
        rows = [row for row in db.open.values() if row.node_id == node_id]
        wanted = frozenset(row.action.id for row in rows if not row.taken_back)
        result[node_id] = OpenIds(wanted, frozenset(row.action.id for row in rows if row.taken_back))
    return result


def difference(mirrored: Rows, real: Rows) -> list[str]:
    """Where they differ, for people."""
    lines = []
    for table in mirrored:
        for key in sorted(mirrored[table].keys() | real[table].keys()):
            ours, theirs = mirrored[table].get(key), real[table].get(key)
            if ours is None or theirs is None:
                lines.append(f"{table} {key} is in {'PostgreSQL' if ours is None else 'the mirror'} only")
                continue
            lines += [
                f"{table} {key} {name}: {ours[name]!r} in the mirror, {theirs[name]!r} in PostgreSQL"
                for name in ours
                if ours[name] != theirs[name]
            ]
    return lines


def apart(ours: object, theirs: object, path: str = "") -> Iterator[str]:
    """Where two answers differ, for people."""
    if is_dataclass(ours) and type(ours) is type(theirs):
        for one in fields(ours):
            yield from apart(getattr(ours, one.name), getattr(theirs, one.name), f"{path}.{one.name}")
    elif isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.keys() == theirs.keys():
        for key in ours:
            yield from apart(ours[key], theirs[key], f"{path}[{key}]")
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        for number, (one_of_ours, one_of_theirs) in enumerate(zip(ours, theirs, strict=True)):
            yield from apart(one_of_ours, one_of_theirs, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} in the mirror, {theirs!r} in PostgreSQL"


def _pod(pod: PodRow) -> dict[str, Any]:
    return {
        "id": pod.id,
        "workspace_id": pod.workspace_id,
        "desired_state": pod.desired,
        "generation": pod.generation,
        "satisfied_generation": pod.satisfied_generation,
        "image_id": pod.image_id,
        **_owner(pod),
        "desired_at": pod.desired_at,
        "condition": pod.condition,
        "reason": pod.reason,
        "failover": pod.failover,
        "desired_reason": pod.desired_reason,
        "keep_until": pod.keep_until,
        **{name: pod.limits.get(name) for name in LIMITS},
        "node_id": pod.observed_node_id,
        "since": pod.since,
        **_seen(pod.observed, _POD_SEEN, Observed.ABSENT, "container_id"),
    }


def _workspace(row: WorkspaceRow) -> dict[str, Any]:
    placement = row.placement or Placement("", 0)
    return {
        "id": row.id,
        "user_id": row.user_id,
        "epoch": row.epoch,
        **_owner(row),
        **{name: row.limits.get(name) for name in LIMITS},
        "placed_on": placement.node_id or None,
        "placed_epoch": placement.epoch or None,
        "node_id": row.observed_node_id,
        **_seen(row.observed, _VOLUME_SEEN, WorkspaceObserved.ABSENT, "volume"),
    }


def _owner(row: PodRow | WorkspaceRow) -> dict[str, Any]:
    return {
        "failure": failure_to_json(row.failure) if row.failure else None,
        "archive_id": row.archive.id if row.archive else None,
        "next_check_at": row.due_at,
    }


def _seen(
    report: PodReport | WorkspaceReport | None, names: tuple[str, ...], absent: str, name_of_it: str
) -> dict[str, Any]:
    values = {f"seen_{name}": getattr(report, name) if report else None for name in names}
    if report is not None and report.state == absent:
        values[f"seen_{name_of_it}"] = None
    return values


def _presence(pod_id: str, row: PresenceRow) -> dict[str, Any]:
    own = {"node_id": row.node_id, "epoch": row.epoch, "cpu_millis": row.cpu_millis}
    return {"id": pod_id, **own, "look_asked_at": row.look_asked_at, **asdict(row.seen)}


def _node(node: NodeRow) -> dict[str, Any]:
    return {
        "id": node.id,
        "cordoned": node.cordoned,
        "lost_at": node.lost_at,
        "cpu_millis": node.cpu_millis,
        "memory_mib": node.memory_mib,
        "silent": node.silent,
        "boot_id": node.boot_id,
        "sequence": node.sequence,
        "former_boots": node.former_boots,
        "last_seen_at": node.last_seen_at,
        "engine_error": node.engine_error,
        "nothing_reported": node.report is None,
    }


def _actions(db: SimDatabase) -> dict[str, Any]:
    return {
        row.action.id: {
            "id": row.action.id,
            "target": row.action.target,
            "verb": row.verb,
            "node_id": row.node_id,
            "epoch": row.action.epoch,
            "generation": row.action.generation,
            "attempt": row.action.attempt,
            "step": row.action.step.model_dump(mode="json"),
            "state": row.state,
            "created_at": row.created_at,
            "finished_at": row.finished_at,
            "sent": row.sent,
            "taken_back": row.taken_back,
        }
        for row in db.actions.values()
    }


def _archives(db: SimDatabase) -> dict[str, Any]:
    return {
        ref.id: {
            "id": ref.id,
            "target_id": target,
            "number": number,
            "epoch": ref.epoch,
            "manifest_key": ref.manifest_key,
            "manifest_digest": ref.manifest_digest,
            "fingerprint": ref.fingerprint,
            "image_id": ref.image_id,
            "committed_at": ref.committed_at,
            "suspect_at": db.damaged.get((target, number)),
            **asdict(db.kept[target, number]),
        }
        for (target, number), ref in db.archives.items()
    }


def _leader(db: SimDatabase) -> dict[str, Any]:
    ends_at: datetime | None = db.lease_ends_at
    row = {"id": "1", "holder": db.holder, "term": db.term, "expires_at": ends_at}
    return {"1": row} if ends_at is not None else {}
