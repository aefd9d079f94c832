"""Clearing away in the store: which targets are due, what a sweep is told, and what it found.

Two looks, at two times apart, and the object's own age: only what was seen unreferenced by a sweep at least
`confirm_after` ago is named to the next one as doomed; that one looks again, and deletes.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from state import events
from state.alarms import clear_alarm, raise_alarm
from state.chores import Applies, ChoreRow, make_chore
from state.database import Connection
from state.generations import mark_suspect
from state.model import Limits
from state.retention import Target

SWEEP = "sweep"
TIDY = "tidy"
PARKED = "sweep_parked"
UNKNOWN = "archive_unknown"
# A sweep whose chore came to nothing is made again after this long.
RETRY = timedelta(days=1)
# How much longer than a day ago a chore of yesterday may have been made.
BROKEN_MORE = timedelta(days=1)

_STORE_ID = "SELECT store_id FROM installation"
_DUE = """
    SELECT kind, id FROM store_target t
     WHERE sweep_at <= now()
       AND NOT EXISTS (SELECT 1 FROM chore c WHERE c.kind = 'sweep' AND c.subject = t.kind || ' ' || t.id
                          AND c.state IN ('waiting', 'given'))
     ORDER BY sweep_at, kind, id LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
"""
# Retired ones are still named as kept for a while: somebody may have begun to read one when it was retired.
_ARCHIVES = """
    SELECT a.manifest_key, a.manifest_digest, a.number, a.retired_at > now() - %(age)s AS retired_lately,
           a.retired_at IS NULL OR a.retired_at > now() - %(age)s
           OR EXISTS (SELECT 1 FROM pod p WHERE p.archive_id = a.id AND p.desired_state <> 'deleted')
           OR EXISTS (SELECT 1 FROM workspace w WHERE w.archive_id = a.id) AS kept
      FROM archive a WHERE a.target_kind = %(kind)s AND a.target_id = %(id)s ORDER BY a.number
"""
# What a step under way reads, also where the archive itself has moved on to another manifest since.
_IN_USE = """
    SELECT DISTINCT r.value ->> 'manifest_key' AS key, r.value ->> 'manifest_digest' AS digest
      FROM action x CROSS JOIN LATERAL jsonb_each(x.step) AS r
     WHERE x.target = %(id)s AND x.state = 'open' AND r.key IN ('archive', 'base', 'proof')
       AND jsonb_typeof(r.value) = 'object' AND r.value ? 'manifest_key'
"""
_GONE = """
    SELECT 1 FROM pod WHERE id = %(id)s AND %(kind)s = 'pod' AND desired_state = 'deleted'
       AND satisfied_generation = generation AND deleted_at < now() - %(deleted_kept)s
"""
_DOOMED = """
    SELECT key FROM sweep_candidate
     WHERE kind = %(kind)s AND target_id = %(id)s AND first_seen_at < now() - %(confirm)s ORDER BY key
"""
_SEEN = """
    INSERT INTO sweep_candidate AS c (key, kind, target_id, size_bytes)
    SELECT t.key, %(kind)s, %(id)s, t.size_bytes
      FROM jsonb_to_recordset(%(rows)s) AS t(key text, size_bytes bigint)
        ON CONFLICT (key) DO UPDATE SET last_seen_at = now(), size_bytes = excluded.size_bytes
"""
_NOT_SEEN = """
    DELETE FROM sweep_candidate WHERE kind = %(kind)s AND target_id = %(id)s AND NOT (key = ANY(%(keys)s))
"""
# While one is open, whatever calls for another sets the time anew: what it did not see is not forgotten.
_BEGUN = "UPDATE store_target SET sweep_at = NULL WHERE kind = %(kind)s AND id = %(id)s"
_AGAIN = """
    UPDATE store_target SET sweep_at = least(sweep_at, now() + make_interval(secs => %(seconds)s))
     WHERE kind = %(kind)s AND id = %(id)s
"""
_SOME_TIME = """
    UPDATE store_target SET sweep_at = coalesce(sweep_at, now() + %(age)s)
     WHERE kind = %(kind)s AND id = %(id)s
"""
# Imports and copies write as chores, and leave no action behind: what of theirs came to nothing, or was given
# out twice, may have left objects of a target that nothing else makes anybody look at.
_BROKEN_WRITERS = """
    WITH broken AS (
        SELECT pod_id, workspace_id, request FROM chore
         WHERE kind IN ('import_files', 'import_image', 'checkpoint', 'recover_copy')
           AND created_at > now() - %(lately)s AND (state IN ('failed', 'cancelled') OR attempt > 1))
    INSERT INTO store_target AS t (kind, id, sweep_at)
    SELECT kind, id, now() + %(age)s FROM (
        SELECT 'pod' AS kind, pod_id AS id FROM broken
         UNION SELECT 'workspace', workspace_id FROM broken
         UNION SELECT one ->> 'kind', one ->> 'target_id'
                 FROM broken CROSS JOIN LATERAL jsonb_array_elements(request -> 'targets') AS one
                WHERE jsonb_typeof(request -> 'targets') = 'array') AS written
     WHERE id IS NOT NULL
        ON CONFLICT (kind, id) DO UPDATE SET sweep_at = coalesce(t.sweep_at, excluded.sweep_at)
"""
_TIDIED = "SELECT 1 FROM chore WHERE kind = 'tidy' AND created_at > now() - %(every)s LIMIT 1"
_STALE = """
    WITH stale AS (
        UPDATE chore SET state = 'cancelled', finished_at = now(),
               error = '{"code": "stale", "message": "no node took it in time; a new one is made"}'
         WHERE kind = 'sweep' AND state = 'waiting' AND created_at < now() - %(age)s
        RETURNING subject)
    UPDATE store_target SET sweep_at = now() FROM stale WHERE kind || ' ' || id = subject
"""


def store_id(connection: Connection) -> str:
    """What the store has to say of itself to be this installation's."""
    row = connection.execute(_STORE_ID).fetchone()
    assert row is not None
    return str(row["store_id"])


def will_need_a_sweep(connection: Connection, target: Target, limits: Limits) -> None:
    """Something was retired: by when it was so for long enough, what is left over can be seen."""
    connection.execute(_SOME_TIME, {"kind": target.kind, "id": target.id, "age": limits.sweep_age})


def make_due_sweeps(connection: Connection, limits: Limits, limit: int) -> int:
    """Make the chores of the targets that are due. How many."""
    connection.execute(_STALE, {"age": timedelta(minutes=30)})
    targets = connection.execute(_DUE, {"limit": limit}).fetchall()
    ours = store_id(connection) if targets else ""
    for target in targets:
        request = _request(connection, target, ours, limits)
        of_what = {f"{target['kind']}_id": target["id"]}
        connection.execute(_BEGUN, target)
        make_chore(connection, SWEEP, f"{target['kind']} {target['id']}", request, made_by="clock", **of_what)
    return len(targets)


def make_tidy(connection: Connection, limits: Limits, every: timedelta) -> bool:
    """Make the chore that drops unfinished uploads, once in `every`. The first one also claims the store.

    And have those targets looked at whose imports or copies came to nothing.
    """
    if connection.execute(_TIDIED, {"every": every}).fetchone() is not None:
        return False
    connection.execute(_BROKEN_WRITERS, {"lately": every + BROKEN_MORE, "age": limits.sweep_age})
    request = {"store_id": store_id(connection), "min_age_s": limits.sweep_age.total_seconds()}
    return make_chore(connection, TIDY, "store", request, made_by="clock")[1]


def _request(connection: Connection, target: Mapping[str, Any], ours: str, limits: Limits) -> dict[str, Any]:
    arguments = {
        **target,
        "age": limits.sweep_age,
        "confirm": limits.sweep_confirm_after,
        "deleted_kept": limits.deleted_pods_kept,
    }
    archives = connection.execute(_ARCHIVES, arguments).fetchall()
    kept = [row for row in archives if row["kept"]]
    in_use = connection.execute(_IN_USE, arguments).fetchall()
    named = {row["manifest_key"]: row["manifest_digest"] for row in kept}
    named |= {row["key"]: row["digest"] for row in in_use}
    gone = connection.execute(_GONE, arguments).fetchone() is not None and not named
    soon_over = any(row["retired_lately"] for row in kept) or len(named) > len(kept)
    return {
        "store_id": ours,
        "kind": target["kind"],
        "target_id": target["id"],
        "kept": [{"key": key, "digest": digest} for key, digest in sorted(named.items())],
        "known": [row["manifest_key"] for row in archives],
        "newest": max((row["number"] for row in archives), default=0),
        "gone": gone,
        "doomed": [row["key"] for row in connection.execute(_DOOMED, arguments)],
        "min_age_s": limits.sweep_age.total_seconds(),
        "confirm_after_s": limits.sweep_confirm_after.total_seconds(),
        "share_max": limits.sweep_share_max,
        # Some of it only for now: then there is something to be cleared away later.
        "soon_over": soon_over,
    }


# ---- what became of it -----------------------------------------------------------------------------------


def _swept(connection: Connection, chore: ChoreRow, result: Mapping[str, Any]) -> None:
    request = chore["request"]
    target = {"kind": request["kind"], "id": request["target_id"]}
    candidates: Sequence[Mapping[str, Any]] = result["candidates"]
    keys = [line["key"] for line in candidates]
    connection.execute(_NOT_SEEN, {**target, "keys": keys})
    connection.execute(_SEEN, {**target, "rows": Jsonb(list(candidates))})
    again = [request["confirm_after_s"]] * bool(keys)
    again += [request["min_age_s"]] * bool(result["young"] or request.get("soon_over"))
    if again:
        connection.execute(_AGAIN, {**target, "seconds": min(again)})
    subject = f"{target['kind']} {target['id']}"
    clear_alarm(connection, kind=PARKED, subject=subject, reason="a sweep went through")
    _tell_unknown(connection, chore, subject, result["unknown"])
    if result["deleted"]:
        _tell_deleted(connection, chore, result)


def _tell_unknown(connection: Connection, chore: ChoreRow, subject: str, keys: Sequence[str]) -> None:
    if not keys:
        clear_alarm(connection, kind=UNKNOWN, subject=subject, reason="it is known, or gone")
        return
    message = (
        f"The store has an archive of {subject} that this database does not know, and that is newer than "
        f"all it knows: {keys[0]}. It is kept. Was the database restored from a backup?"
    )
    raise_alarm(connection, kind=UNKNOWN, subject=subject, message=message, **_of(chore))


def _tell_deleted(connection: Connection, chore: ChoreRow, result: Mapping[str, Any]) -> None:
    deleted, freed = result["deleted"], result["freed_bytes"]
    events.append(
        connection,
        actor=f"node:{chore['node_id']}",
        kind="swept",
        node_id=chore["node_id"],
        reason=f"{len(deleted)} objects that no archive needs any more, {freed} bytes",
        detail={"keys": deleted[:200], "freed_bytes": freed},
        **_of(chore),
    )


def _not_swept(connection: Connection, chore: ChoreRow, detail: Mapping[str, Any]) -> None:
    target = {"kind": chore["request"]["kind"], "id": chore["request"]["target_id"]}
    connection.execute(_AGAIN, {**target, "seconds": RETRY.total_seconds()})
    _parked(connection, chore, detail)


def _parked(connection: Connection, chore: ChoreRow, detail: Mapping[str, Any]) -> None:
    """Nothing was deleted. Somebody has to look, except where a new request is all that is needed."""
    if detail["code"] == "stale":
        return
    for key in {detail.get("manifest_key")} - {None}:
        row = connection.execute(
            "SELECT * FROM archive WHERE manifest_key = %s AND retired_at IS NULL FOR UPDATE", (key,)
        ).fetchone()
        if row is not None:
            mark_suspect(connection, row, detail["message"])
    message = f"Clearing away was stopped ({detail['code']}): {detail['message']}"
    raise_alarm(connection, kind=PARKED, subject=chore["subject"], message=message, **_of(chore))


def _of(chore: ChoreRow) -> dict[str, Any]:
    return {"pod_id": chore["pod_id"], "workspace_id": chore["workspace_id"]}


SWEEP_APPLIES = Applies(done=_swept, failed=_not_swept)
TIDY_APPLIES = Applies(failed=_parked)
