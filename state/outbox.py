"""Writing a plan down.

`record` is one transaction, fenced by the leader's term; and still every line of a plan is checked again at
the moment of its write (epoch, generation, one open action per target), so that two reconcilers that record
the same plan, or a leader that wakes up late, do no harm (LAW 5).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from state import events, ids
from state.abandon import abandon, workspaces_of
from state.database import Connection, Database
from state.generations import go_back
from state.leader import Leadership, assert_leading
from state.plan import Decision, Place, Plan, PlannedStep, Release, TakeBack

ACTOR = "reconciler"

# A step that was refused because its world had moved on is planned again after this long.
REFUSED_RETRY = timedelta(seconds=1)

# Held while placements and steps of a workspace change, so that none slips in beside a release.
_LOCK_WORKSPACES = "SELECT 1 FROM workspace WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE"
_LOCK_PODS = "SELECT 1 FROM pod WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE"

_PLACE = """
    WITH wanted AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s)
            AS t(workspace_id text, node_id text, epoch_before bigint, reason text)
    ), bumped AS (
        UPDATE workspace w SET epoch = w.epoch + 1 FROM wanted
         WHERE w.id = wanted.workspace_id AND w.epoch = wanted.epoch_before
           AND NOT EXISTS (SELECT 1 FROM placement p WHERE p.workspace_id = w.id AND p.released_at IS NULL)
        RETURNING w.id AS workspace_id, w.epoch, wanted.node_id, wanted.reason
    ), placed AS (
        INSERT INTO placement (workspace_id, epoch, node_id) SELECT workspace_id, epoch, node_id FROM bumped
    )
    SELECT * FROM bumped
"""

# A node must tell its whole state again once somebody is placed on it: what it said before was judged by
# other placements.
_FORGET_REPORTS = "UPDATE report SET digest = '' WHERE node_id = ANY(%(nodes)s)"

_RELEASE = """
    WITH wanted AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s)
            AS t(workspace_id text, node_id text, epoch bigint, reason text)
    )
    UPDATE placement pl SET released_at = now() FROM wanted
     WHERE pl.workspace_id = wanted.workspace_id AND pl.epoch = wanted.epoch AND pl.node_id = wanted.node_id
       AND pl.released_at IS NULL
       AND NOT EXISTS (SELECT 1 FROM action a WHERE a.workspace_id = pl.workspace_id AND a.state = 'open')
       AND NOT EXISTS (SELECT 1 FROM workspace_observed o WHERE o.workspace_id = pl.workspace_id
                          AND o.node_id = pl.node_id AND o.epoch = pl.epoch AND o.state <> 'absent')
       AND NOT EXISTS (SELECT 1 FROM pod p JOIN pod_observed o ON o.pod_id = p.id
                        WHERE p.workspace_id = pl.workspace_id
                          AND o.node_id = pl.node_id AND o.epoch = pl.epoch AND o.state <> 'absent')
    RETURNING pl.workspace_id, pl.node_id, pl.epoch, wanted.reason
"""

# What a node was given it may be in the middle of: that stays open until the node answers (LAW 11).
_LOCK_ACTIONS = "SELECT 1 FROM action WHERE id = ANY(%(ids)s::uuid[]) ORDER BY id FOR NO KEY UPDATE"
_TAKE_BACK = """
    WITH wanted AS (SELECT * FROM jsonb_to_recordset(%(rows)s) AS t(action_id uuid, reason text))
    UPDATE action a SET taken_back_at = now(),
           state = CASE WHEN a.sent_at IS NULL THEN 'superseded' ELSE 'open' END,
           finished_at = CASE WHEN a.sent_at IS NULL THEN now() END,
           error = jsonb_build_object('code', 'taken_back', 'message', wanted.reason)
      FROM wanted WHERE a.id = wanted.action_id AND a.state = 'open' AND a.taken_back_at IS NULL
    RETURNING a.id, a.verb, a.workspace_id, a.pod_id, a.node_id, wanted.reason, a.state
"""

_ENQUEUE = """
    WITH wanted AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s)
            AS t(id uuid, kind text, workspace_id text, pod_id text, target text, node_id text, epoch bigint,
                 generation bigint, verb text, step jsonb, reason text)
    )
    INSERT INTO action (id, target, target_kind, verb, workspace_id, pod_id, node_id, epoch, generation,
                        attempt, step, reason)
    SELECT w.id, w.target, w.kind, w.verb, w.workspace_id, w.pod_id, w.node_id, w.epoch, w.generation,
           coalesce((SELECT max(a.attempt) FROM action a WHERE a.target = w.target), 0) + 1, w.step, w.reason
      FROM wanted w
      JOIN placement pl ON pl.workspace_id = w.workspace_id AND pl.released_at IS NULL
                       AND pl.node_id = w.node_id AND pl.epoch = w.epoch
      LEFT JOIN pod p ON p.id = w.pod_id
     WHERE w.pod_id IS NULL OR p.generation = w.generation
        ON CONFLICT DO NOTHING
    RETURNING id, target, verb, workspace_id, pod_id, node_id, epoch, attempt, reason
"""

# Only what differs is written. A `next_check_at` that has come is left alone: something changed since the
# workspace was claimed, and it must be looked at again.
_DECIDE = """
    WITH decided AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s)
            AS t(pod_id text, generation bigint, condition text, reason text, satisfied boolean,
                 wake_at timestamptz)
    ), new AS (
        SELECT p.id, d.condition, d.reason,
               CASE WHEN d.satisfied THEN d.generation ELSE p.satisfied_generation END
                   AS satisfied_generation,
               CASE WHEN p.next_check_at <= clock_timestamp() THEN p.next_check_at ELSE d.wake_at END
                   AS next_check_at
          FROM pod p JOIN decided d ON d.pod_id = p.id AND d.generation = p.generation
    )
    UPDATE pod p
       SET condition = new.condition, reason = new.reason,
           reason_since = CASE WHEN (p.condition, p.reason) IS DISTINCT FROM (new.condition, new.reason)
                               THEN now() ELSE p.reason_since END,
           satisfied_generation = new.satisfied_generation, next_check_at = new.next_check_at
      FROM new
     WHERE p.id = new.id
       AND (p.condition, p.reason, p.satisfied_generation, p.next_check_at)
           IS DISTINCT FROM (new.condition, new.reason, new.satisfied_generation, new.next_check_at)
    RETURNING p.id
"""

_WAKE_WORKSPACES = """
    WITH decided AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s) AS t(workspace_id text, wake_at timestamptz)
    )
    UPDATE workspace w SET next_check_at = d.wake_at FROM decided d
     WHERE w.id = d.workspace_id AND w.next_check_at IS DISTINCT FROM d.wake_at
       AND (w.next_check_at IS NULL OR w.next_check_at > clock_timestamp())
"""

# Claimed with its workspace, but nothing is left to decide about it: a tombstone that has been cleared away.
_LET_GO = """
    UPDATE pod SET next_check_at = NULL
     WHERE workspace_id = ANY(%(examined)s) AND NOT (id = ANY(%(decided)s))
       AND next_check_at > clock_timestamp()
"""

_LOOK_AGAIN = "UPDATE workspace SET next_check_at = %(at)s WHERE id = ANY(%(ids)s)"

_PARK = """
    UPDATE pod SET condition = 'parked', reason = %(reason)s, next_check_at = %(retry_at)s,
           reason_since = CASE WHEN reason IS DISTINCT FROM %(reason)s THEN now() ELSE reason_since END
     WHERE workspace_id = %(id)s
       AND (desired_state <> 'deleted' OR satisfied_generation <> generation)
"""
_PARKED_ANEW = "SELECT 1 FROM pod WHERE workspace_id = %(id)s AND reason IS DISTINCT FROM %(reason)s LIMIT 1"
_PARK_WORKSPACE = "UPDATE workspace SET next_check_at = %(retry_at)s WHERE id = %(id)s"


@dataclass(frozen=True, slots=True)
class Recorded:
    """How much of a plan was written: fewer than planned means that the world had moved on."""

    places: int = 0
    releases: int = 0
    steps: int = 0
    take_backs: int = 0
    decisions: int = 0
    refused: int = 0

    @staticmethod
    def total(parts: "Iterable[Recorded]") -> "Recorded":
        """All of `parts` together."""
        columns = zip(*(astuple(part) for part in parts), strict=True)
        return Recorded(*(sum(column) for column in columns))


def record(
    db: Database, plan: Plan, leadership: Leadership, now: datetime, examined: Collection[str] = ()
) -> Recorded:
    """Write `plan` down in one transaction; `examined` are the workspaces it was made from.

    Raises `LeadershipLost` when the term is over: nothing is written then.
    """
    workspaces = sorted({*examined, *_touched(plan)})
    with db.transaction() as conn:
        assert_leading(conn, leadership)
        conn.execute(_LOCK_WORKSPACES, {"ids": workspaces})
        conn.execute(_LOCK_PODS, {"ids": sorted(decision.pod_id for decision in plan.decisions)})
        placed = _place(conn, plan.places)
        released = _release(conn, plan.releases) + abandon(conn, plan.abandons)
        taken_back = _take_back(conn, plan.take_backs)
        enqueued = _enqueue(conn, plan.steps)
        gone_back = {line.workspace_id for line in plan.go_backs if go_back(conn, line)}
        decided = _decide(conn, plan, workspaces)
        refused = _look_again(conn, plan, now, {row["target"] for row in enqueued}, taken_back)
        if gone_back:
            conn.execute(_LOOK_AGAIN, {"ids": sorted(gone_back), "at": now})
        if taken_back or enqueued:
            conn.execute("NOTIFY codepods_actions")
        if decided:
            conn.execute("NOTIFY codepods_decided")  # for people who wait: it wakes no reconciler
    return Recorded(placed, released, len(enqueued), len(taken_back), decided, refused)


def park(db: Database, workspace_id: str, reason: str, retry_at: datetime, leadership: Leadership) -> None:
    """Set a workspace aside that could not be decided about, with the reason on its pods (LAW 12)."""
    with db.transaction() as conn:
        assert_leading(conn, leadership)
        arguments = {"id": workspace_id, "reason": reason, "retry_at": retry_at}
        conn.execute(_LOCK_WORKSPACES, {"ids": [workspace_id]})
        conn.execute(_PARK_WORKSPACE, arguments)
        conn.execute(_LET_GO, {"examined": [workspace_id], "decided": []})
        if conn.execute(_PARKED_ANEW, arguments).fetchone() is not None:
            events.append(
                conn, actor=ACTOR, kind="parked", workspace_id=workspace_id, to_value="parked", reason=reason
            )
        conn.execute(_PARK, arguments)


def _touched(plan: Plan) -> set[str]:
    lines: Iterable[Place | Release | PlannedStep | Decision] = (
        *plan.places,
        *plan.releases,
        *plan.steps,
        *plan.decisions,
    )
    return (
        {line.workspace_id for line in lines}
        | workspaces_of(plan.abandons)
        | {line.workspace_id for line in plan.workspace_decisions}
    )


def _place(conn: Connection, places: Sequence[Place]) -> int:
    if not places:
        return 0
    rows = conn.execute(_PLACE, {"rows": _rows(asdict(place) for place in places)}).fetchall()
    former = conn.execute(
        "SELECT DISTINCT node_id FROM placement WHERE workspace_id = ANY(%s)",
        ([row["workspace_id"] for row in rows],),
    )
    conn.execute(_FORGET_REPORTS, {"nodes": sorted(row["node_id"] for row in former)})
    for row in rows:
        events.append(
            conn,
            actor=ACTOR,
            kind="placed",
            workspace_id=row["workspace_id"],
            node_id=row["node_id"],
            to_value=f"epoch {row['epoch']}",
            reason=row["reason"],
        )
    return len(rows)


def _release(conn: Connection, releases: Sequence[Release]) -> int:
    if not releases:
        return 0
    rows = conn.execute(_RELEASE, {"rows": _rows(asdict(release) for release in releases)}).fetchall()
    for row in rows:
        events.append(
            conn,
            actor=ACTOR,
            kind="released",
            workspace_id=row["workspace_id"],
            node_id=row["node_id"],
            from_value=f"epoch {row['epoch']}",
            reason=row["reason"],
        )
    return len(rows)


def _take_back(conn: Connection, take_backs: Sequence[TakeBack]) -> list[dict[str, Any]]:
    if not take_backs:
        return []
    conn.execute(_LOCK_ACTIONS, {"ids": [line.action_id for line in take_backs]})
    rows = conn.execute(_TAKE_BACK, {"rows": _rows(asdict(line) for line in take_backs)}).fetchall()
    for row in rows:
        _action_event(conn, row, "open", "taken_back" if row["state"] == "open" else row["state"])
    return rows


def _enqueue(conn: Connection, steps: Sequence[PlannedStep]) -> list[dict[str, Any]]:
    if not steps:
        return []
    rows = conn.execute(_ENQUEUE, {"rows": _rows(_action_row(step) for step in steps)}).fetchall()
    for row in rows:
        _action_event(conn, row, None, "open")
    return rows


def _action_row(step: PlannedStep) -> dict[str, Any]:
    return {
        "id": ids.new_action_id(),
        "kind": step.kind,
        "workspace_id": step.workspace_id,
        "pod_id": step.pod_id,
        "target": step.target,
        "node_id": step.node_id,
        "epoch": step.epoch,
        "generation": step.generation,
        "verb": step.step.verb,
        "step": step.step.model_dump(mode="json"),
        "reason": step.reason,
    }


def _action_event(conn: Connection, row: Mapping[str, Any], before: str | None, after: str) -> None:
    events.append(
        conn,
        actor=ACTOR,
        kind="action",
        pod_id=row["pod_id"],
        workspace_id=row["workspace_id"],
        node_id=row["node_id"],
        from_value=before,
        to_value=after,
        reason=row["reason"],
        detail={"action_id": str(row["id"]), "verb": row["verb"]},
    )


def _decide(conn: Connection, plan: Plan, workspaces: Sequence[str]) -> int:
    rows = _rows(
        {
            "pod_id": decision.pod_id,
            "generation": decision.generation,
            "condition": decision.condition,
            "reason": decision.reason,
            "satisfied": decision.satisfied,
            "wake_at": _stamp(decision.wake_at),
        }
        for decision in plan.decisions
    )
    written = conn.execute(_DECIDE, {"rows": rows}).rowcount
    wakes = dict.fromkeys(workspaces, None) | {
        line.workspace_id: _stamp(line.wake_at) for line in plan.workspace_decisions
    }
    conn.execute(
        _WAKE_WORKSPACES,
        {"rows": _rows({"workspace_id": key, "wake_at": value} for key, value in wakes.items())},
    )
    decided = [decision.pod_id for decision in plan.decisions]
    conn.execute(_LET_GO, {"examined": list(workspaces), "decided": decided})
    return written


def _look_again(
    conn: Connection,
    plan: Plan,
    now: datetime,
    enqueued: set[str],
    taken_back: Sequence[Mapping[str, Any]],
) -> int:
    """Nobody else wakes a workspace whose step was refused, or whose action no node was given."""
    refused = {step.workspace_id for step in plan.steps if step.target not in enqueued}
    if refused:
        conn.execute(_LOOK_AGAIN, {"ids": sorted(refused), "at": now + REFUSED_RETRY})
    workspaces = sorted({row["workspace_id"] for row in taken_back if row["state"] != "open"})
    if workspaces:
        conn.execute(_LOOK_AGAIN, {"ids": workspaces, "at": now})
    return len(plan.steps) - len(enqueued)


def _rows(rows: Iterable[Mapping[str, Any]]) -> Jsonb:
    return Jsonb(list(rows))


def _stamp(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
