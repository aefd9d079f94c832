"""The append-only history. A trigger writes changes of desired columns; all else comes through here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from state.database import Connection, Database

_APPEND = """
    INSERT INTO event (actor, kind, pod_id, workspace_id, node_id, from_value, to_value, reason, detail)
    VALUES (%(actor)s, %(kind)s, %(pod_id)s, %(workspace_id)s, %(node_id)s, %(from_value)s, %(to_value)s,
            %(reason)s, %(detail)s)
"""

_PAGE = """
    SELECT id, at, actor, kind, pod_id, workspace_id, node_id, from_value, to_value, reason, detail FROM event
     WHERE id > %(after)s
"""
# A pod's history has what happened to its workspace too, for its files live there.
_OF_POD = """
    AND (pod_id = %(pod_id)s OR (pod_id IS NULL AND workspace_id =
        (SELECT pod.workspace_id FROM pod WHERE pod.id = %(pod_id)s)))
"""
_OF_USER = "AND workspace_id = (SELECT workspace.id FROM workspace WHERE workspace.user_id = %(user_id)s)"
_OF_NODE = "AND node_id = %(node_id)s"


@dataclass(frozen=True, slots=True)
class Event:
    """One change: who or what changed what, from, to, why."""

    id: int
    at: datetime
    actor: str
    kind: str
    pod_id: str | None
    workspace_id: str | None
    node_id: str | None
    from_value: str | None
    to_value: str | None
    reason: str | None
    detail: dict[str, Any] | None


def append(
    connection: Connection,
    *,
    actor: str,
    kind: str,
    pod_id: str | None = None,
    workspace_id: str | None = None,
    node_id: str | None = None,
    from_value: str | None = None,
    to_value: str | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one event to the caller's transaction: it becomes history with what it tells of, or not at all."""
    arguments = {
        "actor": actor,
        "kind": kind,
        "pod_id": pod_id,
        "workspace_id": workspace_id,
        "node_id": node_id,
        "from_value": from_value,
        "to_value": to_value,
        "reason": reason,
        "detail": None if detail is None else Jsonb(dict(detail)),
    }
    connection.execute(_APPEND, arguments)


def list_events(
    db: Database,
    *,
    pod_id: str | None = None,
    user_id: str | None = None,
    node_id: str | None = None,
    after: int = 0,
    limit: int = 100,
    newest: bool = False,
) -> list[Event]:
    """Events with an id above `after`, oldest first; with `newest`, the last `limit` of them.

    Ids are given before transactions commit: an event may appear a moment after one with a higher id. Who
    follows the history without gaps reads a little back.
    """
    arguments = {"pod_id": pod_id, "user_id": user_id, "node_id": node_id, "after": after, "limit": limit}
    wanted = {"pod_id": _OF_POD, "user_id": _OF_USER, "node_id": _OF_NODE}
    of_whom = " ".join(condition for name, condition in wanted.items() if arguments[name] is not None)
    page = f"{_PAGE} {of_whom} ORDER BY id {'DESC' if newest else 'ASC'} LIMIT %(limit)s"
    with db.transaction() as connection:
        events = connection.cursor(row_factory=class_row(Event)).execute(page, arguments).fetchall()
    return events[::-1] if newest else events
