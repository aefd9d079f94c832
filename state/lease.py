"""A node's lease: who of the agents with its name is believed, and what the others are told.

Only what is newer than all that was heard before is believed: numbers decide that, never the time at which a
message comes. A machine that is heard keeps its node's name: another one gets it once that has gone silent.
Why so: docs/decisions/0023-who-is-believed.md.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from state import events
from state.boots import MACHINE_PATTERN, is_other_machine
from state.database import Connection
from state.wire import SyncRequest

# Earlier boots of a node's agents that are kept, for people.
FORMER_BOOTS_MAX = 16
TWO_MACHINES = "two_machines"

_LEASE = f"""
    WITH before AS (SELECT engine_error FROM node_lease WHERE node_id = %(node)s)
    INSERT INTO node_lease AS l (node_id, boot_id, sequence, last_seen_at, engine_error)
    VALUES (%(node)s, %(boot)s, %(sequence)s, clock_timestamp(), %(engine_error)s)
        ON CONFLICT (node_id) DO UPDATE
       SET boot_id = excluded.boot_id, sequence = excluded.sequence, last_seen_at = excluded.last_seen_at,
           engine_error = excluded.engine_error,
           former_boots = CASE WHEN l.boot_id = excluded.boot_id THEN l.former_boots
                               ELSE jsonb_path_query_array(jsonb_build_array(l.boot_id) || l.former_boots,
                                                           '$[0 to {FORMER_BOOTS_MAX - 1}]') END
     WHERE CASE WHEN l.boot_id = excluded.boot_id THEN l.sequence < excluded.sequence
                ELSE l.boot_id < excluded.boot_id COLLATE "C"
                     AND (l.last_seen_at < clock_timestamp() - %(silent_after)s
                          OR (substring(l.boot_id from '{MACHINE_PATTERN}')
                              <> substring(excluded.boot_id from '{MACHINE_PATTERN}')) IS NOT TRUE) END
    RETURNING (SELECT engine_error FROM before) AS engine_error_before
"""  # noqa: S608 - only constants are put in
_BELIEVED = """
    SELECT boot_id, sequence, last_seen_at < clock_timestamp() - %(silent_after)s AS silent
      FROM node_lease WHERE node_id = %(node)s
"""
_TOLD_LATELY = f"""
    SELECT 1 FROM event WHERE node_id = %(node)s AND kind = '{TWO_MACHINES}'
       AND at > clock_timestamp() - interval '1 hour' LIMIT 1
"""  # noqa: S608 - only a constant is put in


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is not believed: this one was heard before, and is or is not silent since."""

    boot_id: str
    sequence: int
    silent: bool
    # The message is of another machine than that.
    other_machine: bool


def renew_lease(conn: Connection, request: SyncRequest, silent_after: timedelta) -> dict[str, Any] | Refusal:
    """What was before, or why the request is not believed."""
    arguments = {**stamp(request), "engine_error": request.engine_error, "silent_after": silent_after}
    row = conn.execute(_LEASE, arguments).fetchone()
    return _refusal(conn, request, arguments) if row is None else row


def _refusal(conn: Connection, request: SyncRequest, arguments: dict[str, Any]) -> Refusal:
    row = conn.execute(_BELIEVED, arguments).fetchone()
    assert row is not None
    other = is_other_machine(row["boot_id"], request.boot_id)
    # A machine that boots anew is believed before this, for the run before it has gone silent by then.
    lasts = timedelta(seconds=request.shut_out_s) > arguments["silent_after"]
    if lasts and other and not row["silent"] and conn.execute(_TOLD_LATELY, arguments).fetchone() is None:
        events.append(
            conn,
            actor=f"node:{request.node_id}",
            kind=TWO_MACHINES,
            node_id=request.node_id,
            reason=f"two machines call themselves {request.node_id}; the one that is not believed keeps all"
            " it has, and stops its pods: turn one off, or make a node of its own of it",
        )
    return Refusal(row["boot_id"], row["sequence"], row["silent"], other)


def stamp(request: SyncRequest) -> dict[str, Any]:
    """Which request of which boot this is, as statements name it."""
    return {"node": request.node_id, "boot": request.boot_id, "sequence": request.sequence}
