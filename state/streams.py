"""Downloads and imports: a chore whose outcome is a stream of bytes, and who may send and who may read it.

The API makes the chore and reads at the gateway, a node does it and sends there; neither sees the other.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from state.chores import Applies, ChoreRow, make_chore, nothing_to_do
from state.copies import keep_aside
from state.copy_wire import CopyMade, CopyResult
from state.database import Connection, Database
from state.generations import ArchiveDamaged, ArchiveNotFound
from state.model import ExportForm, ExportWhat, ImportForm
from state.pods import PodNotFound

EXPORT = "export"
IMPORT = "import_files"
IMPORT_IMAGE = "import_image"
IMPORTS = {ImportForm.TAR: IMPORT, ImportForm.OCI: IMPORT_IMAGE}
_KEY_BYTES = 32

_POD = "SELECT id, workspace_id, archive_id FROM pod WHERE id = %s"
_OF_POD = """
    SELECT a.* FROM archive a
     WHERE a.target_kind = 'pod' AND a.target_id = %(pod_id)s AND a.retired_at IS NULL
       AND CASE WHEN %(number)s::bigint IS NULL
                THEN a.id = (SELECT archive_id FROM pod WHERE id = %(pod_id)s)
                ELSE a.number = %(number)s END
"""
_OF_WORKSPACE = """
    SELECT a.* FROM archive a
     WHERE a.target_kind = 'workspace' AND a.target_id = %(workspace_id)s AND a.retired_at IS NULL
       AND CASE WHEN %(number)s::bigint IS NULL
                THEN a.id = (SELECT archive_id FROM workspace WHERE id = %(workspace_id)s)
                ELSE a.number = %(number)s END
"""
# The files as they were then: saved after the pod at the same placement, else those nearest in time.
_OF_THE_SAME_MOMENT = """
    SELECT a.* FROM archive a
     WHERE a.target_kind = 'workspace' AND a.target_id = %(workspace_id)s AND a.retired_at IS NULL
       AND a.suspect_at IS NULL
     ORDER BY (a.epoch = %(epoch)s AND a.committed_at >= %(at)s) DESC,
              abs(extract(epoch FROM a.committed_at - %(at)s)) LIMIT 1
"""
_WORKSPACE = """
    SELECT w.id, w.user_id, w.epoch, p.image_id FROM workspace w JOIN pod p ON p.workspace_id = w.id
     WHERE p.id = %s
"""
_LOCK = "SELECT 1 FROM workspace WHERE id = %s FOR NO KEY UPDATE"
_GIVEN = """
    SELECT 1 FROM chore WHERE id = %(id)s::uuid AND kind = ANY(%(kinds)s) AND state = 'given'
       AND node_id = %(node)s AND attempt = %(attempt)s
"""
_KEY = "SELECT request ->> 'key_sha256' AS digest FROM chore WHERE id = %s::uuid AND kind = ANY(%s)"


@dataclass(frozen=True, slots=True)
class Export:
    """A download that has been asked for. `key` is what the reader shows at the gateway."""

    chore_id: str
    key: str
    number: int
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class Import:
    """An import that has been asked for. `key` is what the sender shows at the gateway."""

    chore_id: str
    key: str


def ask_export(
    db: Database, pod_id: str, what: ExportWhat, form: ExportForm, number: int | None, *, actor: str
) -> Export:
    """Make the chore, of the current archives or of those of a number.

    Raises PodNotFound, ArchiveNotFound, ArchiveDamaged.
    """
    key = secrets.token_hex(_KEY_BYTES)
    with db.transaction() as connection:
        pod = connection.execute(_POD, (pod_id,)).fetchone()
        if pod is None:
            raise PodNotFound(f"No pod has the id {pod_id[:100]}.")
        rows = _archives(connection, pod, what, number)
        request = {
            "form": form,
            "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
            "parts": [_part(row, alone=len(rows) == 1) for row in rows],
        }
        subject = f"{pod_id} {secrets.token_hex(8)}"
        chore_id, _ = make_chore(connection, EXPORT, subject, request, made_by=actor, pod_id=pod_id)
    return Export(chore_id, key, rows[0]["number"], rows[0]["committed_at"])


def ask_import(db: Database, pod_id: str, form: ImportForm, *, actor: str) -> Import:
    """Make the chore that makes what is sent an archive of the user's files, or of the pod too.

    Raises PodNotFound.
    """
    key = secrets.token_hex(_KEY_BYTES)
    with db.transaction() as connection:
        workspace = connection.execute(_WORKSPACE, (pod_id,)).fetchone()
        if workspace is None:
            raise PodNotFound(f"No pod has the id {pod_id[:100]}.")
        request = {
            "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
            "workspace_id": workspace["id"],
            "user_id": workspace["user_id"],
            "epoch": workspace["epoch"],
            "pod_id": pod_id,
            "image_id": workspace["image_id"],
        }
        subject = f"{pod_id} {secrets.token_hex(8)}"
        of_what = {"pod_id": pod_id, "workspace_id": workspace["id"]}
        chore_id, _ = make_chore(connection, IMPORTS[form], subject, request, made_by=actor, **of_what)
    return Import(chore_id, key)


def _imported(connection: Connection, chore: ChoreRow, told: Mapping[str, Any]) -> None:
    _keep(connection, chore, (CopyMade.model_validate(told),), {"workspace"})


def _image_imported(connection: Connection, chore: ChoreRow, told: Mapping[str, Any]) -> None:
    _keep(connection, chore, CopyResult.model_validate(told).made, {"pod", "workspace"})


def _keep(
    connection: Connection, chore: ChoreRow, copies: Sequence[CopyMade], allowed: Collection[str]
) -> None:
    """Keep what was imported as archives that nothing points at: going back to them is a step of its own."""
    request, kept = chore["request"], {}
    connection.execute(_LOCK, (request["workspace_id"],))
    for copy in copies:
        if copy.kind not in allowed or copy.target_id != request[f"{copy.kind}_id"]:
            raise ValueError("the node has imported something else")
        kept[str(copy.kind)] = keep_aside(connection, chore["node_id"], request["epoch"], copy)
    connection.execute("UPDATE chore SET progress = %s WHERE id = %s", (Jsonb(kept), chore["id"]))


IMPORT_APPLIES = Applies(done=_imported, failed=nothing_to_do)
IMPORT_IMAGE_APPLIES = Applies(done=_image_imported, failed=nothing_to_do)


def has_chore(db: Database, kinds: Collection[str], chore_id: str, attempt: int, node_id: str) -> bool:
    """Whether the node has this giving-out of the chore now."""
    arguments = {"id": chore_id, "kinds": list(kinds), "attempt": attempt, "node": node_id}
    with db.transaction() as connection:
        return connection.execute(_GIVEN, arguments).fetchone() is not None


def has_key(db: Database, kinds: Collection[str], chore_id: str, key: str) -> bool:
    """Whether the key is the one that was given out with the chore."""
    with db.transaction() as connection:
        row = connection.execute(_KEY, (chore_id, list(kinds))).fetchone()
    digest = hashlib.sha256(key.encode()).hexdigest()
    return row is not None and hmac.compare_digest(row["digest"] or "", digest)


def _archives(
    connection: Connection, pod: dict[str, Any], what: ExportWhat, number: int | None
) -> list[dict[str, Any]]:
    arguments = {"pod_id": pod["id"], "workspace_id": pod["workspace_id"], "number": number}
    if what is ExportWhat.WORKSPACE:
        return [_one(connection, _OF_WORKSPACE, arguments, "its user's files")]
    of_pod = _one(connection, _OF_POD, arguments, "the pod")
    if what is ExportWhat.POD:
        return [of_pod]
    same = {**arguments, "epoch": of_pod["epoch"], "at": of_pod["committed_at"]}
    return [of_pod, _one(connection, _OF_THE_SAME_MOMENT, same, "its user's files")]


def _one(connection: Connection, query: str, arguments: dict[str, Any], what: str) -> dict[str, Any]:
    row = connection.execute(query, arguments).fetchone()
    number = arguments["number"]
    if row is None:
        raise ArchiveNotFound(
            f"There is no archive number {number} of {what}."
            if number
            else f"There is no archive of {what} yet."
        )
    if row["suspect_at"] is not None:
        raise ArchiveDamaged(f"Archive number {row['number']} of {what} is damaged: {row['suspect_reason']}")
    return dict(row)


def _part(row: dict[str, Any], *, alone: bool) -> dict[str, str]:
    return {
        "manifest_key": row["manifest_key"],
        "manifest_digest": row["manifest_digest"],
        "folder": "" if alone else row["target_kind"],
    }
