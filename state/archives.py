"""Making an archive count: the last step of LAW 7, after the store has the manifest.

The row is written only while the action's placement is still the live one and nothing newer has been
archived. A manifest that comes too late stays in the store unreferenced, and is told of in an event.
"""

from typing import Any

from psycopg.types.json import Jsonb

from state import ids
from state.database import Connection
from state.rows import Row
from state.wire import ArchiveMade

_COMMIT = """
    INSERT INTO archive (id, target_kind, target_id, number, epoch, attempt, node_id, manifest_key,
                         manifest_digest, fingerprint, size_bytes, image_id, notices, live)
    SELECT %(id)s, %(target_kind)s, %(target)s, %(number)s, pl.epoch, %(attempt)s, pl.node_id,
           %(manifest_key)s, %(manifest_digest)s, %(fingerprint)s, %(size_bytes)s, %(image_id)s, %(notices)s,
           %(live)s
      FROM placement pl
     WHERE pl.workspace_id = %(workspace_id)s AND pl.node_id = %(node_id)s AND pl.epoch = %(epoch)s
       AND pl.released_at IS NULL
       AND NOT EXISTS (SELECT 1 FROM archive a WHERE a.target_kind = %(target_kind)s
                          AND a.target_id = %(target)s AND a.number >= %(number)s)
        ON CONFLICT DO NOTHING
    RETURNING id
"""
_POINT = {
    "pod": "UPDATE pod SET archive_id = %(id)s WHERE id = %(target)s",
    "workspace": "UPDATE workspace SET archive_id = %(id)s WHERE id = %(target)s",
}


def commit_archive(conn: Connection, action: Row, made: ArchiveMade, *, live: bool = False) -> str | None:
    """Make what `action` saved the newest archive of its target; its id, or None when it came too late.

    The caller holds the workspace's row lock.
    """
    arguments: dict[str, Any] = {
        "id": ids.new_archive_id(),
        "target_kind": action["target_kind"],
        "target": action["target"],
        "workspace_id": action["workspace_id"],
        "node_id": action["node_id"],
        "epoch": action["epoch"],
        "attempt": action["attempt"],
        "number": action["step"]["number"],
        "manifest_key": made.manifest_key,
        "manifest_digest": made.manifest_digest,
        "fingerprint": made.fingerprint,
        "size_bytes": made.size_bytes,
        "image_id": made.image_id,
        "notices": Jsonb(list(made.notices)),
        "live": live,
    }
    if conn.execute(_COMMIT, arguments).fetchone() is None:
        return None
    conn.execute(_POINT[action["target_kind"]], arguments)
    return str(arguments["id"])
