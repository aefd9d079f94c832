"""Alarms: what somebody should look at, until it is over.

Each is told of in the history when it begins and ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from state import events
from state.database import Connection, Database

ALARMS_SHOWN_MAX = 200

_RAISE = """
    INSERT INTO alarm AS a (kind, subject, pod_id, workspace_id, message)
    VALUES (%(kind)s, %(subject)s, %(pod_id)s, %(workspace_id)s, %(message)s)
        ON CONFLICT (kind, subject) WHERE cleared_at IS NULL
        DO UPDATE SET message = excluded.message, seen_at = now(), times = a.times + 1
    RETURNING times = 1 AS new
"""
_CLEAR = """
    UPDATE alarm SET cleared_at = now() WHERE kind = %(kind)s AND subject = %(subject)s AND cleared_at IS NULL
    RETURNING pod_id, workspace_id
"""
# A workspace's alarm is one of each of its pods.
_OPEN = """
    SELECT id, kind, subject, pod_id, workspace_id, message, raised_at, seen_at, times FROM alarm
     WHERE cleared_at IS NULL
       AND (%(pod_id)s::text IS NULL OR pod_id = %(pod_id)s OR (pod_id IS NULL AND workspace_id =
            (SELECT pod.workspace_id FROM pod WHERE pod.id = %(pod_id)s)))
     ORDER BY raised_at, id LIMIT %(limit)s
"""
_COUNT = "SELECT count(*) AS n FROM alarm WHERE cleared_at IS NULL"


@dataclass(frozen=True, slots=True)
class Alarm:
    """An open alarm. `times` counts how often it was met since it was raised."""

    id: int
    kind: str
    subject: str
    pod_id: str | None
    workspace_id: str | None
    message: str
    raised_at: datetime
    seen_at: datetime
    times: int


def raise_alarm(
    connection: Connection,
    *,
    kind: str,
    subject: str,
    message: str,
    actor: str = "reconciler",
    pod_id: str | None = None,
    workspace_id: str | None = None,
) -> bool:
    """Raise it in the caller's transaction, or note that it was met again; whether it is new."""
    arguments = {
        "kind": kind,
        "subject": subject,
        "pod_id": pod_id,
        "workspace_id": workspace_id,
        "message": message,
    }
    row = connection.execute(_RAISE, arguments).fetchone()
    new = row is not None and bool(row["new"])
    if new:
        events.append(
            connection,
            actor=actor,
            kind="alarm",
            pod_id=pod_id,
            workspace_id=workspace_id,
            to_value=kind,
            reason=message,
            detail={"subject": subject},
        )
    return new


def clear_alarm(
    connection: Connection, *, kind: str, subject: str, reason: str, actor: str = "reconciler"
) -> bool:
    """It is over; whether there was one."""
    row = connection.execute(_CLEAR, {"kind": kind, "subject": subject}).fetchone()
    if row is None:
        return False
    events.append(
        connection,
        actor=actor,
        kind="alarm",
        pod_id=row["pod_id"],
        workspace_id=row["workspace_id"],
        from_value=kind,
        reason=reason,
        detail={"subject": subject},
    )
    return True


def count_open(db: Database) -> int:
    """How many alarms are open."""
    with db.transaction() as connection:
        row = connection.execute(_COUNT).fetchone()
    return int(row["n"]) if row else 0


def open_alarms(db: Database, *, pod_id: str | None = None, limit: int = ALARMS_SHOWN_MAX) -> Sequence[Alarm]:
    """The open alarms, of one pod (and its workspace) or of all, the oldest first."""
    with db.transaction() as connection:
        rows = connection.cursor(row_factory=class_row(Alarm))
        return rows.execute(_OPEN, {"pod_id": pod_id, "limit": limit}).fetchall()
