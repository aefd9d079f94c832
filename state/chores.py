"""Chores: work on the store that belongs to no placement, for whichever node has time for it.

Only node agents may touch the store. The reconciler (by the clock) and the API (on demand) make chores, nodes
ask for them at their syncs, and what becomes of one is applied here. A chore is given to one node at a time;
each giving-out has a number, and results of an earlier one are dropped. Whatever a chore does must be safe to
repeat.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from state import events, ids
from state.alarms import clear_alarm, raise_alarm
from state.backoff import delay
from state.chore_wire import Chore, ChoreDone, ChoreFailed, ChoreHandle, ChoreResult, ChoresDown, ChoresUp
from state.database import Connection, Database
from state.model import ChoreState, Limits

# A chore that failed so often is given up, with an alarm.
FAILURES_MAX = 8
FAILED = "chore_failed"

_MAKE = """
    INSERT INTO chore (id, kind, subject, request, pod_id, workspace_id, only_node_id, made_by)
    VALUES (%(id)s, %(kind)s, %(subject)s, %(request)s, %(pod_id)s, %(workspace_id)s, %(only_node_id)s,
            %(made_by)s)
        ON CONFLICT (kind, subject) WHERE state IN ('waiting', 'given') DO NOTHING
    RETURNING id
"""
_OPEN_ID = """
    SELECT id FROM chore WHERE kind = %(kind)s AND subject = %(subject)s AND state IN ('waiting', 'given')
"""
_STATUS = """
    SELECT id, kind, subject, pod_id, workspace_id, state, attempt, failures, node_id, created_at, given_at,
           finished_at, progress, result, error
      FROM chore
"""
_GIVE = """
    UPDATE chore SET state = 'given', node_id = %(node)s, attempt = attempt + 1, given_at = clock_timestamp(),
           progress = NULL
     WHERE id IN (SELECT id FROM chore
                   WHERE state = 'waiting' AND not_before <= clock_timestamp() AND kind = ANY(%(kinds)s)
                     AND (only_node_id IS NULL OR only_node_id = %(node)s)
                   ORDER BY not_before, created_at, id LIMIT %(wanted)s FOR UPDATE SKIP LOCKED)
"""
# With the ones whose giving-out never arrived.
_TO_DELIVER = """
    SELECT id::text AS id, attempt, kind, subject, request,
           extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s
      FROM chore WHERE node_id = %(node)s AND state = 'given' AND kind = ANY(%(kinds)s)
     ORDER BY given_at, id
"""
_LOCK = """
    SELECT * FROM chore WHERE id = %(id)s::uuid AND node_id = %(node)s AND attempt = %(attempt)s
       AND state = 'given' FOR UPDATE
"""
_FINISH = """
    UPDATE chore SET state = %(state)s, finished_at = clock_timestamp(), given_at = NULL, result = %(result)s,
           error = %(error)s
     WHERE id = %(id)s
"""
_TRY_AGAIN = """
    UPDATE chore SET state = 'waiting', given_at = NULL, failures = failures + 1, error = %(error)s,
           not_before = clock_timestamp() + %(wait)s
     WHERE id = %(id)s
"""
_PROGRESS = """
    UPDATE chore SET progress = %(progress)s
     WHERE id = %(id)s::uuid AND attempt = %(attempt)s AND node_id = %(node)s AND state = 'given'
       AND progress IS DISTINCT FROM %(progress)s
"""
_STILL = "SELECT id::text AS id, attempt FROM chore WHERE node_id = %(node)s AND state = 'given'"
_WAITING_KINDS = """
    SELECT DISTINCT kind FROM chore WHERE state = 'waiting' AND not_before <= clock_timestamp()
"""
_LOST = """
    UPDATE chore c SET state = 'waiting', given_at = NULL, not_before = clock_timestamp()
      FROM node n LEFT JOIN node_lease l ON l.node_id = n.id
     WHERE n.id = c.node_id AND c.state = 'given'
       AND (c.given_at < clock_timestamp() - %(timeout)s
            OR (greatest(l.last_seen_at, %(leading_since)s) < clock_timestamp() - %(silent_after)s
                AND c.given_at < clock_timestamp() - %(silent_after)s))
    RETURNING c.id, c.kind, c.subject, c.pod_id, c.workspace_id, c.node_id
"""
_PRUNE = """
    DELETE FROM chore WHERE id IN (SELECT id FROM chore WHERE finished_at < clock_timestamp() - %(kept)s
                                    ORDER BY finished_at LIMIT %(limit)s)
"""
_CANCEL = """
    UPDATE chore SET state = 'cancelled', finished_at = clock_timestamp(), given_at = NULL,
           error = jsonb_build_object('code', 'cancelled', 'message', %(reason)s::text)
     WHERE id = %(id)s::uuid AND state IN ('waiting', 'given')
    RETURNING kind, subject, pod_id, workspace_id, node_id
"""


@dataclass(frozen=True, slots=True)
class ChoreStatus:
    """A chore as people see it."""

    id: str
    kind: str
    subject: str
    pod_id: str | None
    workspace_id: str | None
    state: ChoreState
    attempt: int
    failures: int
    node_id: str | None
    created_at: datetime
    given_at: datetime | None
    finished_at: datetime | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None


ChoreRow = Mapping[str, Any]
# What a kind has to write down of its own, in the transaction that closes the chore. For a failed one the
# payload is its `detail`.
Apply = Callable[[Connection, ChoreRow, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Applies:
    """What a kind writes down when it is done, and when it is given up."""

    done: Apply | None = None
    failed: Apply | None = None


def nothing_to_do(_connection: Connection, _row: ChoreRow, _told: Mapping[str, Any]) -> None:
    """For kinds that have nothing to write down."""


# ---- making --------------------------------------------------------------------------------------------


def make_chore(
    connection: Connection,
    kind: str,
    subject: str,
    request: Mapping[str, Any],
    *,
    made_by: str,
    pod_id: str | None = None,
    workspace_id: str | None = None,
    only_node_id: str | None = None,
) -> tuple[str, bool]:
    """The open chore of this kind and subject, and whether it was made just now.

    In the caller's transaction.
    """
    arguments = {
        "id": UUID(ids.new_action_id()),
        "kind": kind,
        "subject": subject,
        "request": Jsonb(dict(request)),
        "pod_id": pod_id,
        "workspace_id": workspace_id,
        "only_node_id": only_node_id,
        "made_by": made_by,
    }
    row = connection.execute(_MAKE, arguments).fetchone()
    if row is None:
        there = connection.execute(_OPEN_ID, arguments).fetchone()
        assert there is not None
        return str(there["id"]), False
    _event(connection, arguments, made_by, None, ChoreState.WAITING, None)
    return str(row["id"]), True


def get_chore(db: Database, chore_id: str) -> ChoreStatus | None:
    """One chore, also one that is over (for as long as it is kept)."""
    with db.transaction() as connection:
        row = connection.execute(f"{_STATUS} WHERE id = %s::uuid", (chore_id,)).fetchone()
    return None if row is None else _status(row)


def list_chores(db: Database, *, pod_id: str | None = None, limit: int = 100) -> list[ChoreStatus]:
    """The newest chores, of one pod or of all."""
    of_pod = "WHERE pod_id = %(pod_id)s" if pod_id else ""
    query = f"{_STATUS} {of_pod} ORDER BY created_at DESC, id LIMIT %(limit)s"
    with db.transaction() as connection:
        return [_status(row) for row in connection.execute(query, {"pod_id": pod_id, "limit": limit})]


def cancel_chore(db: Database, chore_id: str, *, actor: str, reason: str) -> bool:
    """Have it not done; the node that has it stops at its next look. Whether it was still open."""
    with db.transaction() as connection:
        row = connection.execute(_CANCEL, {"id": chore_id, "reason": reason}).fetchone()
        if row is not None:
            _event(connection, row, actor, None, ChoreState.CANCELLED, reason)
        return row is not None


# ---- handing out: what the gateway asks ------------------------------------------------------------------


def take_in(
    db: Database, node_id: str, said: ChoresUp, applies: Mapping[str, Applies], limits: Limits
) -> tuple[ChoreHandle, ...]:
    """Write down a node's progress and results; the handles of all its results, also of the late ones.

    One result that cannot be written down is dropped with an alarm, and holds up no other (LAW 12).
    """
    if not said.results and not said.progress:
        return ()
    with db.transaction() as connection:
        for line in said.progress:
            told = Jsonb(line.model_dump(mode="json", exclude={"chore"}))
            arguments = {"node": node_id, "progress": told, **line.chore.model_dump()}
            connection.execute(_PROGRESS, arguments)
        for result in said.results:
            _take_result(connection, node_id, result, applies, limits)
    return tuple(result.chore for result in said.results)


def _take_result(
    connection: Connection,
    node_id: str,
    result: ChoreResult,
    applies: Mapping[str, Applies],
    limits: Limits,
) -> None:
    row = connection.execute(_LOCK, {"node": node_id, **result.chore.model_dump()}).fetchone()
    if row is None:
        return
    kind = applies.get(row["kind"], Applies())
    if isinstance(result, ChoreFailed):
        _failed(connection, row, result, kind, limits)
        return
    try:
        with connection.transaction():
            if kind.done is not None:
                kind.done(connection, row, result.result)
            _done(connection, row, result)
    except (ValueError, KeyError, TypeError) as error:
        message = f"What the node said cannot be read ({type(error).__name__}: {error})."[:500]
        unreadable = ChoreFailed(chore=result.chore, code="unreadable", message=message)
        _failed(connection, row, unreadable, kind, limits)


def _done(connection: Connection, row: ChoreRow, result: ChoreDone) -> None:
    arguments = {"id": row["id"], "state": "done", "result": Jsonb(result.result), "error": None}
    connection.execute(_FINISH, arguments)
    _event(connection, row, f"node:{row['node_id']}", ChoreState.GIVEN, ChoreState.DONE, None)
    subject = f"{row['kind']} {row['subject']}"
    clear_alarm(connection, kind=FAILED, subject=subject, reason="it was done")


def _failed(
    connection: Connection, row: ChoreRow, result: ChoreFailed, kind: Applies, limits: Limits
) -> None:
    error = Jsonb({"code": result.code, "message": result.message})
    failures = row["failures"] + 1
    if not result.permanent and failures < FAILURES_MAX:
        wait = delay(failures, limits, 0.0)
        connection.execute(_TRY_AGAIN, {"id": row["id"], "error": error, "wait": wait})
        return
    connection.execute(
        _FINISH,
        {"id": row["id"], "state": "failed", "result": Jsonb(result.detail), "error": error},
    )
    actor = f"node:{row['node_id']}"
    _event(connection, row, actor, ChoreState.GIVEN, ChoreState.FAILED, result.message)
    if kind.failed is not None:
        kind.failed(connection, row, {**result.detail, "code": result.code, "message": result.message})
    else:
        subject = f"{row['kind']} {row['subject']}"
        message = f"The chore {subject} failed ({result.code}): {result.message}"
        of_what = {"pod_id": row["pod_id"], "workspace_id": row["workspace_id"]}
        raise_alarm(connection, kind=FAILED, subject=subject, message=message, actor=actor, **of_what)


def news(db: Database, node_id: str, said: ChoresUp, accepted: Sequence[ChoreHandle] = ()) -> ChoresDown:
    """What to tell a node: chores for it as far as it wants some, and which of its own it should drop."""
    if not said.kinds:
        return ChoresDown(accepted=tuple(accepted))
    held = [handle for handle in said.held if handle not in accepted]
    arguments = {"node": node_id, "kinds": list(said.kinds), "wanted": said.wanted}
    with db.transaction() as connection:
        if said.wanted:
            connection.execute(_GIVE, arguments)
        rows = connection.execute(_TO_DELIVER, arguments).fetchall()
        given = [Chore.model_validate(row) for row in rows]
        still = {(row["id"], row["attempt"]) for row in connection.execute(_STILL, arguments)}
    return ChoresDown(
        given=tuple(chore for chore in given if chore.handle not in held),
        dropped=tuple(handle for handle in held if (handle.id, handle.attempt) not in still),
        accepted=tuple(accepted),
    )


def waiting_kinds(db: Database) -> frozenset[str]:
    """The kinds of which some chore waits for a node: what wakes those who would take one."""
    with db.transaction() as connection:
        return frozenset(row["kind"] for row in connection.execute(_WAITING_KINDS))


# ---- by the clock: what the reconciler does ----------------------------------------------------------------


def take_back_lost(
    connection: Connection, leading_since: datetime, silent_after: timedelta, timeout: timedelta
) -> int:
    """Chores of nodes that are silent, or that take longer than any may: others may have them. How many."""
    arguments = {"leading_since": leading_since, "silent_after": silent_after, "timeout": timeout}
    rows = connection.execute(_LOST, arguments).fetchall()
    for row in rows:
        reason = f"{row['node_id']} was not heard of, or took too long: another node may do it"
        _event(connection, row, "reconciler", ChoreState.GIVEN, ChoreState.WAITING, reason)
    return len(rows)


def prune(connection: Connection, kept: timedelta, limit: int) -> int:
    """Forget chores that were over long ago. How many."""
    return connection.execute(_PRUNE, {"kept": kept, "limit": limit}).rowcount


def open_subjects(connection: Connection, kinds: Collection[str]) -> frozenset[tuple[str, str]]:
    """The (kind, subject) of the open chores of these kinds."""
    query = "SELECT kind, subject FROM chore WHERE state IN ('waiting', 'given') AND kind = ANY(%s)"
    return frozenset((row["kind"], row["subject"]) for row in connection.execute(query, (list(kinds),)))


def _event(
    connection: Connection,
    row: ChoreRow,
    actor: str,
    before: ChoreState | None,
    after: ChoreState,
    reason: str | None,
) -> None:
    events.append(
        connection,
        actor=actor,
        kind="chore",
        pod_id=row["pod_id"],
        workspace_id=row["workspace_id"],
        node_id=row.get("node_id"),
        from_value=before,
        to_value=after,
        reason=reason,
        detail={"verb": row["kind"], "subject": row["subject"]},
    )


def _status(row: ChoreRow) -> ChoreStatus:
    return ChoreStatus(**{**row, "id": str(row["id"]), "state": ChoreState(row["state"])})
