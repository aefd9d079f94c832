"""A node's lease: renewed by whatever is newer than all that was heard of the node before."""

from datetime import timedelta
from typing import Any

from state.database import Connection
from state.wire import SyncRequest

# Earlier boots of an agent whose late reports are recognised.
FORMER_BOOTS_MAX = 16
# Boot ids sort by time: one that is earlier than the last is of a late message from an agent that is no more,
# and believing it would shut out the one that lives. Unless that has been quiet for so long: then it is an
# agent that was started after its node's clock was set back.
CLOCK_SET_BACK_AFTER = timedelta(seconds=60)

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
     WHERE NOT l.former_boots ? excluded.boot_id
       AND CASE WHEN l.boot_id = excluded.boot_id THEN l.sequence < excluded.sequence
                ELSE l.boot_id < excluded.boot_id COLLATE "C"
                     OR l.last_seen_at < clock_timestamp() - %(quiet)s END
    RETURNING (SELECT engine_error FROM before) AS engine_error_before
"""  # noqa: S608 - only a constant is put in
_SEEN = (
    "UPDATE node_lease SET last_seen_at = clock_timestamp() WHERE node_id = %(node)s AND boot_id = %(boot)s"
)


def renew_lease(conn: Connection, request: SyncRequest) -> dict[str, Any] | None:
    """What was before; None if the request is not newer than all before it. Even so it may show life."""
    arguments = {**stamp(request), "engine_error": request.engine_error, "quiet": CLOCK_SET_BACK_AFTER}
    row = conn.execute(_LEASE, arguments).fetchone()
    if row is None:
        conn.execute(_SEEN, arguments)
    return row


def stamp(request: SyncRequest) -> dict[str, Any]:
    """Which request of which boot this is, as statements name it."""
    return {"node": request.node_id, "boot": request.boot_id, "sequence": request.sequence}
