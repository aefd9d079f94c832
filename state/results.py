"""What nodes say became of their actions, written down.

Only an action that is open, and at the node that answers, can be answered; everything else is late, and is
accepted without effect so that the node forgets it (LAW 10).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from psycopg.types.json import Jsonb

from state import events
from state.archives import commit_archive
from state.backoff import live_failure, next_failure
from state.database import Connection
from state.forgotten import give_way
from state.generations import DAMAGE_CODES, mark_whole, note_damage
from state.model import Failure, Limits, Verb
from state.rows import Row, failure_from_json, failure_to_json
from state.wire import CANCELLED, StepDone, StepFailed, StepProgress, StepResult

_ARCHIVING = frozenset({Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE})
_RESTORING = frozenset({Verb.RESTORE_POD, Verb.RESTORE_WORKSPACE})

# A pod that starts well and then exits must not be forgiven by each start that succeeds; state.observed
# forgets such failures once it has run long enough.
EXITED = "exited"
# A node's answer to a step of an earlier placement than it has seen.
STALE_EPOCH = "stale_epoch"

_OPEN_ACTIONS = """
    SELECT id::text AS id, target, target_kind, verb, workspace_id, pod_id, node_id, epoch, generation,
           attempt, step
      FROM action WHERE node_id = %(node)s AND state = 'open' AND id::text = ANY(%(ids)s)
     ORDER BY id FOR NO KEY UPDATE
"""
_CLOSE = """
    UPDATE action SET state = %(state)s, finished_at = clock_timestamp(), error = %(error)s
     WHERE id = %(id)s::uuid
"""
_CANCEL = """
    UPDATE action SET state = 'superseded', finished_at = clock_timestamp(),
           error = coalesce(error, jsonb_build_object('code', 'cancelled', 'message', %(message)s::text))
     WHERE id = %(id)s::uuid
"""
_LOOK_AGAIN = {
    "pod": "UPDATE pod SET next_check_at = clock_timestamp() WHERE id = %(target)s",
    "workspace": "UPDATE workspace SET next_check_at = clock_timestamp() WHERE id = %(target)s",
}
_PROGRESS = """
    UPDATE action a SET progress = t.progress
      FROM jsonb_to_recordset(%(rows)s) AS t(id text, progress jsonb)
     WHERE a.node_id = %(node)s AND a.state = 'open' AND a.id::text = t.id
       AND a.progress IS DISTINCT FROM t.progress
"""
_FAILURE_OF = {
    "pod": "SELECT failure, NULL AS wished_at FROM pod WHERE id = %s",
    "workspace": """
        SELECT failure, (SELECT max(desired_at) FROM pod WHERE workspace_id = workspace.id) AS wished_at
          FROM workspace WHERE id = %s
    """,
}
_SET_FAILURE = {
    "pod": "UPDATE pod SET failure = %(failure)s, next_check_at = clock_timestamp() WHERE id = %(target)s",
    "workspace": (
        "UPDATE workspace SET failure = %(failure)s, next_check_at = clock_timestamp() WHERE id = %(target)s"
    ),
}
_SUCCEEDED = {
    "pod": """
        UPDATE pod SET next_check_at = clock_timestamp(),
               failure = CASE WHEN failure ->> 'code' = %(exited)s THEN failure END
         WHERE id = %(target)s
    """,
    "workspace": """
        UPDATE workspace SET failure = NULL, next_check_at = clock_timestamp() WHERE id = %(target)s
    """,
}


@dataclass(frozen=True, slots=True)
class Judge:
    """How failures are weighed: the clock, the bounds, and a source of jitter in [0, 1)."""

    now: datetime
    limits: Limits
    jitter: Callable[[], float]

    def failure(self, previous: Failure | None, action: Row, result: StepFailed) -> Failure:
        """The failure to remember after `result`."""
        return next_failure(
            previous,
            verb=Verb(action["verb"]),
            code=result.code,
            message=result.message,
            permanent=result.permanent,
            generation=action["generation"],
            now=self.now,
            limits=self.limits,
            jitter=self.jitter(),
        )


def open_actions(conn: Connection, node_id: str, action_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Those of `action_ids` that are open at the node, locked, by id."""
    rows = conn.execute(_OPEN_ACTIONS, {"node": node_id, "ids": list(action_ids)})
    return {row["id"]: row for row in rows}


def apply_results(
    conn: Connection, results: Iterable[StepResult], actions: dict[str, dict[str, Any]], judge: Judge
) -> int:
    """Close the answered ones of `actions` (from `open_actions`); how many were.

    The caller holds the row locks of their workspaces.
    """
    waiting = dict(actions)
    for result in results:
        action = waiting.pop(result.action_id, None)
        if action is not None:
            _apply(conn, action, result, judge)
    return len(actions) - len(waiting)


def apply_progress(conn: Connection, node_id: str, progress: Sequence[StepProgress]) -> None:
    """Keep how far the open actions are, where it has changed."""
    if progress:
        rows = [
            {"id": line.action_id, "progress": line.model_dump(mode="json", exclude={"action_id"})}
            for line in progress
        ]
        conn.execute(_PROGRESS, {"node": node_id, "rows": Jsonb(rows)})


def _apply(conn: Connection, action: Row, result: StepResult, judge: Judge) -> None:
    match result:
        case StepFailed() if result.code == CANCELLED:
            _cancelled(conn, action, result)
        case StepFailed():
            _failed(conn, action, result, judge)
        case StepDone() if Verb(action["verb"]) not in _ARCHIVING:
            _succeeded(conn, action, {})
        case StepDone(archive=None):
            message = "The node said that it had archived, and not what. Its agent is of another version."
            answer = StepFailed(action_id=result.action_id, code="protocol", message=message)
            _failed(conn, action, answer, judge)
        case StepDone():
            _archived(conn, action, result)
        case _:
            assert_never(result)


def _cancelled(conn: Connection, action: Row, result: StepFailed) -> None:
    """No failure: it was taken back. What it had done by then is in the report beside it."""
    conn.execute(_CANCEL, {"id": action["id"], "message": result.message})
    conn.execute(_LOOK_AGAIN[action["target_kind"]], {"target": action["target"]})
    _event(conn, action, "superseded", result.message, {"code": result.code})


def _archived(conn: Connection, action: Row, result: StepDone) -> None:
    made = result.archive
    assert made is not None
    archive_id = commit_archive(conn, action, made)
    if archive_id is None:
        message = "it was archived for a placement that is over, or after a newer archive: not used"
        _close(conn, action, "superseded", {"code": "superseded", "message": message})
        _event(conn, action, "superseded", message, {"manifest_key": made.manifest_key})
        conn.execute(_SUCCEEDED[action["target_kind"]], {"target": action["target"], "exited": EXITED})
        return
    detail = {
        "archive_id": archive_id,
        "number": action["step"]["number"],
        "size_bytes": made.size_bytes,
        "notices": list(made.notices),
    }
    _succeeded(conn, action, detail)


def _succeeded(conn: Connection, action: Row, detail: dict[str, Any]) -> None:
    if Verb(action["verb"]) in _RESTORING:
        mark_whole(conn, action["step"]["archive"]["manifest_key"])
    _close(conn, action, "done", None)
    conn.execute(_SUCCEEDED[action["target_kind"]], {"target": action["target"], "exited": EXITED})
    _event(conn, action, "done", None, detail)


def _failed(conn: Connection, action: Row, result: StepFailed, judge: Judge) -> None:
    kind, target = action["target_kind"], action["target"]
    _close(conn, action, "failed", {"code": result.code, "message": result.message})
    if result.code == STALE_EPOCH:
        give_way(conn, action)
    row = conn.execute(_FAILURE_OF[kind], (target,)).fetchone()
    assert row is not None
    previous = live_failure(known_failure(row["failure"]), row["wished_at"])
    failure = judge.failure(previous, action, result)
    if result.code in DAMAGE_CODES and note_damage(conn, action, result.message):
        conn.execute(
            _SUCCEEDED[kind], {"target": target, "exited": ""}
        )  # tried at once, with another archive
        _event(conn, action, "failed", result.message, {"code": result.code, "count": failure.count})
        return
    conn.execute(_SET_FAILURE[kind], {"target": target, "failure": Jsonb(failure_to_json(failure))})
    _event(conn, action, "failed", result.message, {"code": result.code, "count": failure.count})


def known_failure(value: dict[str, Any] | None) -> Failure | None:
    """The failure in a column; one that cannot be read is replaced, and must not hold up a node's report."""
    try:
        return failure_from_json(value)
    except ValueError:
        return None


def _close(conn: Connection, action: Row, state: str, error: dict[str, str] | None) -> None:
    conn.execute(_CLOSE, {"id": action["id"], "state": state, "error": Jsonb(error) if error else None})


def _event(conn: Connection, action: Row, outcome: str, reason: str | None, detail: dict[str, Any]) -> None:
    events.append(
        conn,
        actor=f"node:{action['node_id']}",
        kind="action",
        pod_id=action["pod_id"],
        workspace_id=action["workspace_id"],
        node_id=action["node_id"],
        from_value="open",
        to_value=outcome,
        reason=reason,
        detail={"action_id": action["id"], "verb": action["verb"], **detail},
    )
