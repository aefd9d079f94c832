"""The rows that the policies of `reconciler.policy` read and write: lives, verdicts, wishes, extensions.

A wish goes through the same desired columns as anybody's, and only if nobody has wished anything since it was
decided, and nobody has come: the generation is compared, and a newer wish wins.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from state import events
from state.database import Connection, Database, act_as
from state.leader import Leadership, assert_leading
from state.lifecycle import LifeLimits, Move, PodLife, Verdict
from state.model import Desired, Observed
from state.pods import PodNotFound
from state.presence import presence_of
from state.rows import Row

REASON_CHARACTERS_MAX = 500

_CLAIM = """
    UPDATE pod_policy SET next_look_at = clock_timestamp() + %(redeliver_after)s
     WHERE pod_id IN (SELECT pod_id FROM pod_policy WHERE next_look_at <= clock_timestamp()
                       ORDER BY next_look_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING pod_id
"""
_NEXT = """
    SELECT min(next_look_at) - clock_timestamp() AS left FROM pod_policy WHERE next_look_at IS NOT NULL
"""
_LIVES = """
    SELECT p.id, p.generation, p.desired_state, p.desired_at, p.keep_until, p.created_at,
           coalesce(p.closed_grace_s, w.closed_grace_s) AS closed_grace_s,
           coalesce(p.idle_limit_s, w.idle_limit_s) AS idle_limit_s,
           coalesce(p.lifetime_s, w.lifetime_s) AS lifetime_s,
           coalesce(p.archive_after_s, w.archive_after_s) AS archive_after_s,
           pl.node_id, o.state AS actual, o.since, o.started_at AS container_started_at, pp.warned_at,
           act.id IS NOT NULL AS in_hand,
           pr.started_at, pr.seen_at, pr.connections, pr.connected_at, pr.gone_at, pr.heartbeat_at,
           pr.active_at, pr.busy, pr.busy_at, pr.busy_with
      FROM pod p
      JOIN workspace w ON w.id = p.workspace_id
      JOIN pod_policy pp ON pp.pod_id = p.id
      LEFT JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
      LEFT JOIN pod_observed o ON o.pod_id = p.id AND o.node_id = pl.node_id AND o.epoch = pl.epoch
      LEFT JOIN action act ON act.target = p.id AND act.state = 'open'
      LEFT JOIN pod_presence pr ON pr.pod_id = p.id AND pr.node_id = pl.node_id AND pr.epoch = pl.epoch
     WHERE p.id = ANY(%(ids)s) ORDER BY p.id
"""

_LOCK = """
    SELECT p.generation, pp.next_look_at <= clock_timestamp() AS is_due_again
      FROM pod p JOIN pod_policy pp ON pp.pod_id = p.id
     WHERE p.id = %s FOR NO KEY UPDATE OF p, pp
"""
_WISH = "UPDATE pod SET desired_state = %s, desired_reason = %s WHERE id = %s"
# What came due while it was being decided stays due.
_KEEP = """
    UPDATE pod_policy AS pp
       SET next_look_at = CASE WHEN pp.next_look_at <= clock_timestamp() THEN pp.next_look_at
                               ELSE t.wake_at END,
           rule = t.rule, reason = t.reason, stops_at = t.stops_at, can_extend = t.can_extend,
           warned_at = CASE WHEN t.warned THEN coalesce(pp.warned_at, %(now)s) END
      FROM jsonb_to_recordset(%(rows)s)
        AS t(pod_id text, wake_at timestamptz, rule text, reason text, stops_at timestamptz,
             can_extend boolean, warned boolean)
     WHERE pp.pod_id = t.pod_id
"""
_STANDING = """
    SELECT p.desired_state, p.keep_until, pp.stops_at, pp.can_extend, pl.node_id, clock_timestamp() AS now
      FROM pod p
      LEFT JOIN pod_policy pp ON pp.pod_id = p.id AND pp.warned_at IS NOT NULL
      LEFT JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
     WHERE p.id = %s FOR NO KEY UPDATE OF p
"""
_TOLD = """
    SELECT true FROM event
     WHERE pod_id = %s AND kind = 'warned' AND (detail ->> 'stops_at')::timestamptz = %s
       AND (detail ->> 'can_extend')::boolean
     LIMIT 1
"""
_EXTEND = "UPDATE pod SET keep_until = %s, desired_reason = %s WHERE id = %s"

_WISHES = {Move.STOP: Desired.STOPPED, Move.ARCHIVE: Desired.ARCHIVED}

Decided = tuple[PodLife, Verdict]


class NotRunning(Exception):
    """Only a pod that is wanted running can be kept running."""


def claim_due(db: Database, limit: int, redeliver_after: timedelta) -> list[str]:
    """The pods to look at now, set aside; one whose verdict is not recorded comes due again."""
    with db.transaction() as conn:
        rows = conn.execute(_CLAIM, {"limit": limit, "redeliver_after": redeliver_after}).fetchall()
    return sorted(row["pod_id"] for row in rows)


def next_due_in(db: Database) -> timedelta | None:
    """How long until a pod comes due, at least zero; None when none waits for the clock."""
    with db.transaction() as conn:
        row = conn.execute(_NEXT).fetchone()
    assert row is not None
    return None if row["left"] is None else max(row["left"], timedelta(0))


def read_lives(
    db: Database, pod_ids: Sequence[str], defaults: LifeLimits, known_nodes: frozenset[str]
) -> list[PodLife]:
    """What is known of these pods. `known_nodes` are those that can be relied on now."""
    with db.transaction() as conn:
        rows = conn.execute(_LIVES, {"ids": list(pod_ids)}).fetchall()
    return [_life(row, defaults, row["node_id"] in known_nodes) for row in rows]


def _life(row: Row, defaults: LifeLimits, known: bool) -> PodLife:
    return PodLife(
        pod_id=row["id"],
        generation=row["generation"],
        desired=Desired(row["desired_state"]),
        actual=Observed(row["actual"] or Observed.ABSENT),
        since=row["since"] or row["created_at"],
        wished_at=row["desired_at"],
        limits=limits_of(row, defaults),
        known=known,
        busy_with_action=row["in_hand"],
        started_at=row["container_started_at"],
        keep_until=row["keep_until"],
        warned_at=row["warned_at"],
        presence=presence_of(row),
    )


def limits_of(row: Row, defaults: LifeLimits) -> LifeLimits:
    """The installation's limits with those of the pod, or of its user, in their place."""
    return replace(
        defaults,
        closed_grace=_limit(row["closed_grace_s"], defaults.closed_grace),
        idle_limit=_limit(row["idle_limit_s"], defaults.idle_limit),
        lifetime=_limit(row["lifetime_s"], defaults.lifetime),
        archive_after=_limit(row["archive_after_s"], defaults.archive_after),
    )


def _limit(own_s: int | None, default: timedelta | None) -> timedelta | None:
    if own_s is None:
        return default
    return timedelta(seconds=own_s) if own_s else None


# ---- verdicts ------------------------------------------------------------------------------------------


def record_quiet(db: Database, leadership: Leadership, decided: Sequence[Decided], now: datetime) -> None:
    """Write down verdicts that change nothing but when to look again. Raises `LeadershipLost`."""
    if not decided:
        return
    with db.transaction() as conn:
        assert_leading(conn, leadership)
        _keep(conn, decided, now)


def record(db: Database, leadership: Leadership, decided: Decided, now: datetime) -> bool:
    """Write a verdict down, with its wish or its warning. False when it is void.

    That is when somebody has wished since, or when the pod has come due again: somebody came, or something
    else was told of it that it must be decided anew by. Raises `LeadershipLost`.
    """
    life, verdict = decided
    with db.transaction() as conn:
        assert_leading(conn, leadership)
        pod = conn.execute(_LOCK, (life.pod_id,)).fetchone()
        if pod is None or pod["generation"] != life.generation or pod["is_due_again"]:
            return False
        _keep(conn, [decided], now)
        if verdict.move is Move.WARN:
            _tell(conn, life, verdict)
        if verdict.move in _WISHES:
            _wish(conn, life, verdict)
    return True


def _keep(conn: Connection, decided: Sequence[Decided], now: datetime) -> None:
    rows = [_as_row(life, verdict) for life, verdict in decided]
    conn.execute(_KEEP, {"rows": Jsonb(sorted(rows, key=lambda row: str(row["pod_id"]))), "now": now})


def _as_row(life: PodLife, verdict: Verdict) -> dict[str, object]:
    return {
        "pod_id": life.pod_id,
        "wake_at": verdict.wake_at and verdict.wake_at.isoformat(),
        "rule": verdict.rule,
        "reason": verdict.reason,
        "stops_at": verdict.stops_at and verdict.stops_at.isoformat(),
        "can_extend": verdict.can_extend,
        "warned": verdict.warned,
    }


def _wish(conn: Connection, life: PodLife, verdict: Verdict) -> None:
    act_as(conn, f"policy:{verdict.rule}")
    reason = verdict.reason[:REASON_CHARACTERS_MAX]
    conn.execute(_WISH, (_WISHES[verdict.move], reason, life.pod_id))


def _tell(conn: Connection, life: PodLife, verdict: Verdict) -> None:
    detail = {
        "stops_at": verdict.stops_at and verdict.stops_at.isoformat(),
        "can_extend": verdict.can_extend,
    }
    events.append(
        conn,
        actor=f"policy:{verdict.rule}",
        kind="warned",
        pod_id=life.pod_id,
        from_value=Desired.RUNNING,
        to_value=Desired.STOPPED,
        reason=verdict.reason,
        detail=detail,
    )


# ---- extensions ----------------------------------------------------------------------------------------


def extend(db: Database, pod_id: str, until: datetime, *, actor: str, reason: str) -> datetime:
    """Keep a pod from being stopped until then, or longer where that was asked before; until when.

    It puts off what follows from use, not the end of a lifetime. Raises `PodNotFound` and `NotRunning`.
    """
    with db.transaction() as conn:
        row = conn.execute(_STANDING, (pod_id,)).fetchone()
        if row is None:
            raise PodNotFound(f"No pod has the id {pod_id[:100]}.")
        if row["desired_state"] != Desired.RUNNING:
            raise NotRunning(f"Pod {pod_id} is wanted {row['desired_state']}, not running.")
        return _keep_until(conn, pod_id, row, until, actor, reason)


def answer(db: Database, pod_id: str, node_id: str, warning: str, extension: timedelta) -> bool:
    """Somebody in the pod's editor has answered a warning, "keep it running": False if it was never told.

    The hand that presses the button is use, which takes the warning away: the answer comes a moment later,
    and counts all the same. It is repeated for as long as the editor lives, so the extension counts from
    the end that the warning named. Pods hold no credentials: this comes with their node's presence, and can
    only ever keep the pod itself.
    """
    stops_at = _named_by(warning)
    with db.transaction() as conn:
        row = conn.execute(_STANDING, (pod_id,)).fetchone()
        if row is None or row["desired_state"] != Desired.RUNNING or row["node_id"] != node_id:
            return False
        if stops_at is None or not _was_told(conn, pod_id, row, stops_at):
            return False
        until = stops_at + extension
        if until <= row["now"]:
            return False
        _keep_until(conn, pod_id, row, until, f"editor:{pod_id}", "kept running by whoever is in its editor")
    return True


def _named_by(warning: str) -> datetime | None:
    """The end that it names, in UTC where it does not say; None for what no node of ours writes."""
    try:
        stops_at = datetime.fromisoformat(warning)
    except ValueError:
        return None
    return stops_at if stops_at.tzinfo else stops_at.replace(tzinfo=UTC)


def _was_told(conn: Connection, pod_id: str, row: Row, stops_at: datetime) -> bool:
    if row["stops_at"] == stops_at:
        return bool(row["can_extend"])
    return conn.execute(_TOLD, (pod_id, stops_at)).fetchone() is not None


def _keep_until(
    conn: Connection, pod_id: str, row: Row, until: datetime, actor: str, reason: str
) -> datetime:
    before: datetime | None = row["keep_until"]
    if before is not None and before >= until:
        return before
    act_as(conn, actor)
    conn.execute(_EXTEND, (until, reason[:REASON_CHARACTERS_MAX], pod_id))
    return until
