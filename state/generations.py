"""Generations of archives: which there are, going back to an earlier one, and what to do about a damaged one.

A pod or workspace points at the archive it is restored from. The pointer moves forward with each new archive
(`state.archives`), and back here: because somebody asked (`ask_restore`, then `go_back` once what was there
is saved), or because the archive is damaged (`note_damage`). Every move is told of in the history.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from state import events
from state.alarms import clear_alarm, raise_alarm
from state.database import Connection, Database, act_as
from state.model import What
from state.plan import GoBack
from state.pods import PodDeleted, PodNotFound

SUSPECT = "archive_suspect"
FELL_BACK = "fell_back"
STORE_SUSPECT = "store_suspect"
# When more archives than this turn out damaged within the hour, the store is the wrong one or is broken as a
# whole: then nobody is given older files.
SUSPECTS_PER_HOUR_MAX = 10

# What says that the store gave something else than was archived.
DAMAGE_CODES = frozenset({"archive_corrupt", "restore_corrupt"})

_LIST = """
    SELECT a.id, a.target_kind, a.target_id, a.number, a.committed_at, a.size_bytes, a.live, a.recovered,
           a.notices,
           a.suspect_at, a.suspect_reason, a.whole_at, a.retired_at, a.node_id,
           coalesce(a.id IN (p.archive_id, w.archive_id), false) AS current
      FROM pod p JOIN workspace w ON w.id = p.workspace_id
      JOIN archive a ON (a.target_kind, a.target_id) IN (('pod', p.id), ('workspace', w.id))
     WHERE p.id = %(pod_id)s AND a.retired_at IS NULL
     ORDER BY a.committed_at DESC, a.id LIMIT %(limit)s
"""
_POD = """
    SELECT p.id, p.workspace_id, p.desired_state FROM pod p JOIN workspace w ON w.id = p.workspace_id
     WHERE p.id = %s FOR NO KEY UPDATE OF w
"""
_ARCHIVE = """
    SELECT id, number, epoch, committed_at, retired_at, suspect_at, suspect_reason FROM archive
     WHERE target_kind = %(kind)s AND target_id = %(target)s AND number = %(number)s
"""
# A workspace is saved after its pods: the first archive of it after the pod's, at the same placement, has the
# files as they were then. Where there is none, the one nearest in time.
_MATCHING = """
    SELECT id, number, retired_at, suspect_at, suspect_reason FROM archive
     WHERE target_kind = 'workspace' AND target_id = %(target)s AND retired_at IS NULL AND suspect_at IS NULL
       AND (NOT recovered OR epoch = %(epoch)s)
     ORDER BY (epoch = %(epoch)s AND committed_at >= %(at)s) DESC,
              abs(extract(epoch FROM committed_at - %(at)s)) LIMIT 1
"""
_OPEN_WISH = """
    SELECT archive_id FROM restoration
     WHERE target_kind = %(kind)s AND target_id = %(target)s AND finished_at IS NULL
"""
_WISH = """
    INSERT INTO restoration (target_kind, target_id, workspace_id, archive_id, asked_by)
    VALUES (%(kind)s, %(target)s, %(workspace_id)s, %(archive_id)s, %(asked_by)s)
"""
_ASK_PODS = """
    UPDATE pod SET asked_again = asked_again + 1, desired_reason = %(reason)s
     WHERE desired_state <> 'deleted' AND (id = %(pod_id)s OR (%(all)s AND workspace_id = %(workspace_id)s))
"""

# Checked at the moment of the write: nothing is under way, nothing is on a node, nobody moved it meanwhile.
_GO_BACK = {
    "pod": """
        UPDATE pod t SET archive_id = r.archive_id, failure = NULL
          FROM restoration r JOIN archive a ON a.id = r.archive_id
         WHERE r.id = %(wish)s AND r.finished_at IS NULL AND a.retired_at IS NULL AND t.id = r.target_id
           AND t.archive_id IS NOT DISTINCT FROM %(before)s
           AND NOT EXISTS (SELECT 1 FROM action x WHERE x.target = t.id AND x.state = 'open')
           AND NOT EXISTS (SELECT 1 FROM placement pl JOIN pod_observed o ON o.node_id = pl.node_id
                              AND o.epoch = pl.epoch
                            WHERE pl.workspace_id = t.workspace_id AND pl.released_at IS NULL
                              AND o.pod_id = t.id AND o.state <> 'absent')
        RETURNING a.number
    """,
    "workspace": """
        UPDATE workspace t SET archive_id = r.archive_id, failure = NULL
          FROM restoration r JOIN archive a ON a.id = r.archive_id
         WHERE r.id = %(wish)s AND r.finished_at IS NULL AND a.retired_at IS NULL AND t.id = r.target_id
           AND t.archive_id IS NOT DISTINCT FROM %(before)s
           AND NOT EXISTS (SELECT 1 FROM action x WHERE x.workspace_id = t.id AND x.state = 'open')
           AND NOT EXISTS (SELECT 1 FROM placement pl WHERE pl.workspace_id = t.id
                              AND pl.released_at IS NULL)
        RETURNING a.number
    """,
}
# Made anew: nothing moves, for the newest archive is of just what was there.
_MADE_ANEW = """
    UPDATE restoration r SET finished_at = now()
      FROM pod t
     WHERE r.id = %(wish)s AND r.finished_at IS NULL AND r.archive_id IS NULL AND t.id = r.target_id
       AND NOT EXISTS (SELECT 1 FROM action x WHERE x.target = t.id AND x.state = 'open')
       AND NOT EXISTS (SELECT 1 FROM placement pl JOIN pod_observed o ON o.node_id = pl.node_id
                          AND o.epoch = pl.epoch
                        WHERE pl.workspace_id = t.workspace_id AND pl.released_at IS NULL
                          AND o.pod_id = t.id AND o.state <> 'absent')
    RETURNING r.id
"""
_WISH_MET = """
    UPDATE restoration SET finished_at = now(), from_archive_id = %(before)s WHERE id = %(wish)s
    RETURNING (SELECT number FROM archive WHERE id = %(before)s) AS number_before, asked_by
"""

_BY_KEY = "SELECT * FROM archive WHERE manifest_key = %s AND retired_at IS NULL FOR UPDATE"
_SUSPECT = """
    UPDATE archive SET suspect_at = now(), suspect_reason = %(reason)s
     WHERE id = %(id)s AND suspect_at IS NULL
"""
_SUSPECTS_LATELY = "SELECT count(*) AS n FROM archive WHERE suspect_at > now() - interval '1 hour'"
_EARLIER = """
    SELECT id, number, committed_at FROM archive
     WHERE target_kind = %(kind)s AND target_id = %(target)s AND number < %(number)s
       AND retired_at IS NULL AND suspect_at IS NULL AND NOT recovered
     ORDER BY number DESC LIMIT 1
"""
_MOVE = {
    "pod": "UPDATE pod SET archive_id = %(to)s WHERE id = %(target)s AND archive_id = %(id)s",
    "workspace": "UPDATE workspace SET archive_id = %(to)s WHERE id = %(target)s AND archive_id = %(id)s",
}
_WHOLE = """
    UPDATE archive a SET whole_at = now(), suspect_at = NULL, suspect_reason = NULL
      FROM (SELECT id, suspect_at FROM archive WHERE manifest_key = %s FOR UPDATE) before
     WHERE a.id = before.id AND (a.suspect_at IS NOT NULL OR a.whole_at < now() - interval '1 hour')
    RETURNING a.*, before.suspect_at AS was_suspect_at
"""


@dataclass(frozen=True, slots=True)
class Generation:
    """One archive as people see it. `current`: the next restore takes this one."""

    id: str
    target_kind: str
    target_id: str
    number: int
    committed_at: datetime
    size_bytes: int
    live: bool
    recovered: bool
    notices: list[str]
    suspect_at: datetime | None
    suspect_reason: str | None
    whole_at: datetime
    retired_at: datetime | None
    node_id: str
    current: bool


class ArchiveNotFound(Exception):
    """There is no archive of this number, or not any more."""


class ArchiveDamaged(Exception):
    """The archive is not what was saved."""


class RestoreUnderWay(Exception):
    """Another restoration of the same thing is not done yet."""


def list_generations(db: Database, pod_id: str, limit: int = 200) -> list[Generation]:
    """The archives of a pod and of its user's files that can be gone back to, the newest first."""
    with db.transaction() as connection:
        rows = connection.cursor(row_factory=class_row(Generation))
        return rows.execute(_LIST, {"pod_id": pod_id, "limit": limit}).fetchall()


# ---- going back ----------------------------------------------------------------------------------------


def ask_restore(db: Database, pod_id: str, number: int, what: What, *, actor: str) -> None:
    """Wish the pod, its user's files, or both back to archive `number`. What is there now is saved first.

    With `BOTH` the number is the pod's, and the files are those of the same moment. Repeats safely. Raises
    `PodNotFound`, `PodDeleted`, `ArchiveNotFound`, `ArchiveDamaged`, `RestoreUnderWay`.
    """
    with db.transaction() as connection:
        act_as(connection, actor)
        pod = connection.execute(_POD, (pod_id,)).fetchone()
        if pod is None:
            raise PodNotFound(f"No pod has the id {pod_id[:100]}.")
        if pod["desired_state"] == "deleted":
            raise PodDeleted(f"Pod {pod_id} was deleted, and does not come back.")
        wishes = _wishes(connection, pod, number, what)
        asked = [_wish(connection, pod, kind, row, actor) for kind, row in wishes.items()]
        if any(asked):
            arguments = {
                "pod_id": pod_id,
                "all": "workspace" in wishes,
                "workspace_id": pod["workspace_id"],
                "reason": f"going back to archive number {number} ({what})",
            }
            connection.execute(_ASK_PODS, arguments)


def _wishes(
    connection: Connection, pod: Mapping[str, Any], number: int, what: What
) -> dict[str, Mapping[str, Any]]:
    if what is What.WORKSPACE:
        return {"workspace": _archive(connection, "workspace", pod["workspace_id"], number)}
    of_pod = _archive(connection, "pod", pod["id"], number)
    if what is What.POD:
        return {"pod": of_pod}
    matching = {"target": pod["workspace_id"], "epoch": of_pod["epoch"], "at": of_pod["committed_at"]}
    files = connection.execute(_MATCHING, matching).fetchone()
    return {"pod": of_pod} | ({"workspace": files} if files else {})


def _archive(connection: Connection, kind: str, target: str, number: int) -> Mapping[str, Any]:
    row = connection.execute(_ARCHIVE, {"kind": kind, "target": target, "number": number}).fetchone()
    if row is None or row["retired_at"] is not None:
        kept = "is not kept any more" if row else "was never made"
        raise ArchiveNotFound(f"Archive number {number} of {kind} {target} {kept}.")
    if row["suspect_at"] is not None:
        raise ArchiveDamaged(
            f"Archive number {number} of {kind} {target} is damaged: {row['suspect_reason']}"
        )
    return row


def _wish(
    connection: Connection, pod: Mapping[str, Any], kind: str, row: Mapping[str, Any], actor: str
) -> bool:
    target = pod["id"] if kind == "pod" else pod["workspace_id"]
    there = connection.execute(_OPEN_WISH, {"kind": kind, "target": target}).fetchone()
    if there is not None and there["archive_id"] != row["id"]:
        raise RestoreUnderWay(f"The {kind} {target} is going back to another archive already.")
    if there is None:
        arguments = {"kind": kind, "target": target, "workspace_id": pod["workspace_id"]}
        connection.execute(_WISH, {**arguments, "archive_id": row["id"], "asked_by": actor})
    return there is None


def go_back(connection: Connection, line: GoBack) -> bool:
    """Move the pointer, if all that the plan saw is still so. The caller holds the workspace's row lock."""
    kind, target = ("pod", line.pod_id) if line.pod_id else ("workspace", line.workspace_id)
    arguments = {"wish": line.restoration_id, "before": line.archive_id_before}
    if connection.execute(_MADE_ANEW, arguments).fetchone() is not None:
        return True
    moved = connection.execute(_GO_BACK[kind], arguments).fetchone()
    if moved is None:
        return False
    met = connection.execute(_WISH_MET, arguments).fetchone()
    assert met is not None
    before = met["number_before"]
    events.append(
        connection,
        actor=met["asked_by"],
        kind="went_back",
        pod_id=line.pod_id,
        workspace_id=line.workspace_id,
        from_value=f"{kind} archive {before}" if before else None,
        to_value=f"{kind} archive {moved['number']}",
        reason=f"what was there until now is kept as number {before}" if before else None,
        detail={"target": target},
    )
    return True


def ask_anew(connection: Connection, pod_id: str, workspace_id: str, actor: str) -> bool:
    """Wish a pod saved, and made anew from just that; unless it goes back already.

    Whether it was not wished yet.
    """
    there = connection.execute(_OPEN_WISH, {"kind": "pod", "target": pod_id}).fetchone()
    if there is None:
        arguments = {"kind": "pod", "target": pod_id, "workspace_id": workspace_id}
        connection.execute(_WISH, {**arguments, "archive_id": None, "asked_by": actor})
    return there is None


# ---- damage --------------------------------------------------------------------------------------------


def note_damage(connection: Connection, action: Mapping[str, Any], message: str) -> bool:
    """A step met an archive that is not what was saved; whether the pointer has moved away from it.

    A restore tries the same archive once more, for a bit may have flipped on the way; then the one before
    is used, and what that loses is said. Where the source is still on its node it is simply saved again.
    """
    step = action["step"]
    key = (step.get("archive") or step.get("proof") or {}).get("manifest_key")
    archive = connection.execute(_BY_KEY, (key,)).fetchone() if key else None
    if archive is None:
        return False
    again = archive["suspect_at"] is not None
    mark_suspect(connection, archive, message)
    if step["verb"].startswith("remove"):
        return _fall_back(connection, archive, source_is_there=True)
    return again and _fall_back(connection, archive, source_is_there=False)


def mark_suspect(connection: Connection, archive: Mapping[str, Any], message: str) -> None:
    """Set an alarm on an archive that was not what was saved.

    It is kept, and read again from time to time.
    """
    text = message[:1000]
    connection.execute(_SUSPECT, {"id": archive["id"], "reason": text})
    what = f"{archive['target_kind']} {archive['target_id']}, archive number {archive['number']}"
    raise_alarm(
        connection,
        kind=SUSPECT,
        subject=archive["id"],
        message=f"{what} of {_when(archive['committed_at'])} is damaged in the store: {text}",
        **_of(archive),
    )


def mark_whole(connection: Connection, manifest_key: str) -> None:
    """It was read back, all of it, and is what was saved."""
    archive = connection.execute(_WHOLE, (manifest_key,)).fetchone()
    if archive is not None and archive["was_suspect_at"] is not None:
        clear_alarm(connection, kind=SUSPECT, subject=archive["id"], reason="it was read back whole")


def _fall_back(connection: Connection, archive: Mapping[str, Any], *, source_is_there: bool) -> bool:
    kind, target = archive["target_kind"], archive["target_id"]
    lately = connection.execute(_SUSPECTS_LATELY).fetchone()
    if not source_is_there and lately is not None and lately["n"] > SUSPECTS_PER_HOUR_MAX:
        message = (
            f"{lately['n']} archives turned out damaged within an hour: is this the right store? "
            "Nobody is given older files until this is over. See CODEPODS_STORE_URL and the store itself."
        )
        raise_alarm(connection, kind=STORE_SUSPECT, subject="store", message=message)
        return False
    arguments = {"kind": kind, "target": target, "number": archive["number"], "id": archive["id"]}
    earlier = connection.execute(_EARLIER, arguments).fetchone()
    if earlier is None and not source_is_there:
        return False
    moved = connection.execute(_MOVE[kind], {**arguments, "to": earlier and earlier["id"]}).rowcount
    if moved:
        _tell_fall_back(connection, archive, earlier, source_is_there=source_is_there)
    return moved > 0


def _tell_fall_back(
    connection: Connection,
    archive: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    *,
    source_is_there: bool,
) -> None:
    what = "pod" if archive["target_kind"] == "pod" else "user's files"
    if source_is_there:
        told = (
            f"Archive number {archive['number']} is damaged. The {what} is still on its node, "
            "and is saved again."
        )
    else:
        assert earlier is not None
        told = (
            f"Archive number {archive['number']} is damaged. The {what} comes back as it was in number "
            f"{earlier['number']}, of {_when(earlier['committed_at'])}: what was changed from then to "
            f"{_when(archive['committed_at'])} is missing. The damaged archive is kept."
        )
        raise_alarm(connection, kind=FELL_BACK, subject=archive["id"], message=told, **_of(archive))
    events.append(
        connection,
        actor="reconciler",
        kind=FELL_BACK,
        from_value=f"number {archive['number']}",
        to_value=f"number {earlier['number']}" if earlier else None,
        reason=told,
        detail={"archive_id": archive["id"]},
        **_of(archive),
    )


def _of(archive: Mapping[str, Any]) -> dict[str, str]:
    return {f"{archive['target_kind']}_id": archive["target_id"]}


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
