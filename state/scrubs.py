"""Reading archives back: which are due, and what became of it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from state.alarms import raise_alarm
from state.chores import FAILED, Applies, ChoreRow, make_chore
from state.database import Connection
from state.generations import DAMAGE_CODES, mark_suspect, mark_whole
from state.sweeps import store_id

SCRUB = "scrub"

# Suspect ones more often: they may have been put right. At most so many are open at a time.
_DUE = """
    SELECT a.id, a.target_kind, a.target_id, a.number, a.manifest_key, a.manifest_digest
      FROM archive a
     WHERE a.retired_at IS NULL
       AND (a.whole_at < now() - %(every)s
            OR (a.suspect_at IS NOT NULL AND a.suspect_at < now() - %(again)s))
       AND NOT EXISTS (SELECT 1 FROM chore c WHERE c.kind = 'scrub' AND c.subject = a.id
                          AND (c.finished_at IS NULL OR c.finished_at > now() - %(again)s))
     ORDER BY a.whole_at, a.id
     LIMIT greatest(0, %(limit)s - (SELECT count(*) FROM chore
                                     WHERE kind = 'scrub' AND state IN ('waiting', 'given')))
"""
_ARCHIVE = "SELECT * FROM archive WHERE id = %s AND retired_at IS NULL FOR UPDATE"


def make_due_scrubs(connection: Connection, every: timedelta, again: timedelta, limit: int) -> int:
    """Make the chores of the archives that were not read for longer than `every`. How many.

    A damaged one is read again after `again`, and so is one whose reading came to nothing.
    """
    rows = connection.execute(_DUE, {"every": every, "again": again, "limit": limit}).fetchall()
    ours = store_id(connection) if rows else ""
    for row in rows:
        request = {
            "store_id": ours,
            "manifest_key": row["manifest_key"],
            "manifest_digest": row["manifest_digest"],
        }
        of_what: dict[str, Any] = {f"{row['target_kind']}_id": row["target_id"]}
        make_chore(connection, SCRUB, row["id"], request, made_by="clock", **of_what)
    return len(rows)


def _whole(connection: Connection, chore: ChoreRow, _result: Mapping[str, Any]) -> None:
    mark_whole(connection, chore["request"]["manifest_key"])


def _damaged(connection: Connection, chore: ChoreRow, detail: Mapping[str, Any]) -> None:
    """Unless it was retired, or compacted to another manifest, meanwhile."""
    archive = connection.execute(_ARCHIVE, (chore["subject"],)).fetchone()
    if archive is None or archive["manifest_key"] != chore["request"]["manifest_key"]:
        return
    if detail["code"] in DAMAGE_CODES:
        mark_suspect(connection, archive, detail["message"])
        return
    message = f"An archive could not be read back ({detail['code']}): {detail['message']}"
    of_what = {"pod_id": chore["pod_id"], "workspace_id": chore["workspace_id"]}
    raise_alarm(connection, kind=FAILED, subject=f"scrub {chore['subject']}", message=message, **of_what)


SCRUB_APPLIES = Applies(done=_whole, failed=_damaged)
