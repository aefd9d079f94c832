"""Clearing away images that no pod and no archive is made of any more, and telling of pods nobody knows.

As with archives (`state.sweeps`): seen dead by two looks, `confirm_after` apart, and old by the store's
clock. Dead is only what this database knows and has seen the end of. An image that it never heard of stays;
and while the store holds archives that it does not know, none goes: they may be made of any.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from state import events
from state.alarms import clear_alarm, raise_alarm
from state.chores import Applies, ChoreRow, make_chore
from state.database import Connection
from state.model import Limits
from state.sweeps import PARKED, TIDY_APPLIES, UNKNOWN, store_id

SWEEP_IMAGES = "sweep_images"
SURVEY = "survey"
MISSING = "image_missing"
STRANGE = "target_unknown"
# What the chores and the alarm about images are called.
IMAGES, TARGETS = "images", "targets"
IMAGES_TOLD_MAX = 2_000
TARGETS_TOLD_MAX = 20
# A node writes an image's layers before the manifest that names them, and renews the manifests of what it
# has every few hours.
AGE_MIN = timedelta(days=1)
SURVEY_GOOD_FOR = timedelta(days=3)

_DONE_LATELY = "SELECT 1 FROM chore WHERE kind = %(kind)s AND created_at > now() - %(every)s LIMIT 1"
# What a pod is pinned to, a node has, or an archive is made of that could still be read by somebody.
_ALIVE = """
    SELECT image_id FROM pod WHERE image_id IS NOT NULL AND desired_state <> 'deleted'
     UNION
    SELECT image_id FROM pod_observed WHERE image_id IS NOT NULL AND state <> 'absent'
     UNION
    SELECT a.image_id FROM archive a
     WHERE a.image_id IS NOT NULL
       AND (a.retired_at IS NULL OR a.retired_at > now() - %(age)s
            OR EXISTS (SELECT 1 FROM pod p WHERE p.archive_id = a.id AND p.desired_state <> 'deleted'))
"""
_IMAGES = f"""
    WITH alive AS ({_ALIVE}),
         known AS (SELECT image_id FROM pod UNION SELECT image_id FROM archive)
    SELECT image_id, image_id IN (SELECT image_id FROM alive) AS alive FROM known
     WHERE image_id IS NOT NULL ORDER BY image_id
"""  # noqa: S608 - only the constant above is put in
_NEEDED = """
    SELECT DISTINCT image_id FROM archive WHERE retired_at IS NULL AND image_id IS NOT NULL
       AND committed_at < now() - interval '1 hour'
     ORDER BY image_id LIMIT %(limit)s
"""
_DOUBTS = "SELECT 1 FROM alarm WHERE cleared_at IS NULL AND kind = ANY(%(kinds)s) LIMIT 1"
_SURVEYED = """
    SELECT 1 FROM chore WHERE kind = 'survey' AND state = 'done' AND result ->> 'until' = ''
       AND created_at > now() - %(lately)s LIMIT 1
"""
_DOOMED = """
    SELECT key FROM sweep_candidate WHERE kind = 'image' AND first_seen_at < now() - %(confirm)s ORDER BY key
"""
_SEEN = """
    INSERT INTO sweep_candidate AS c (key, kind, target_id, size_bytes)
    SELECT t.key, 'image', '', t.size_bytes
      FROM jsonb_to_recordset(%(rows)s) AS t(key text, size_bytes bigint)
        ON CONFLICT (key) DO UPDATE SET last_seen_at = now(), size_bytes = excluded.size_bytes
"""
_NOT_SEEN = "DELETE FROM sweep_candidate WHERE kind = 'image' AND NOT (key = ANY(%(keys)s))"

_LAST_SURVEY = """
    SELECT result ->> 'until' AS until, created_at < now() - %(every)s AS due, state = 'done' AS done
      FROM chore WHERE kind = 'survey' ORDER BY created_at DESC LIMIT 1
"""
_KNOWN_TARGETS = """
    SELECT 'pod' AS kind, id FROM pod WHERE id = ANY(%(pods)s)
     UNION ALL
    SELECT 'workspace', id FROM workspace WHERE id = ANY(%(workspaces)s)
"""
_STRANGERS = "SELECT subject FROM alarm WHERE kind = 'target_unknown' AND cleared_at IS NULL"


def make_image_sweep(connection: Connection, limits: Limits, every: timedelta) -> bool:
    """Make the chore that looks through the images, once in `every`."""
    if connection.execute(_DONE_LATELY, {"kind": SWEEP_IMAGES, "every": every}).fetchone() is not None:
        return False
    age = max(limits.sweep_age, AGE_MIN)
    arguments = {"age": age, "confirm": limits.sweep_confirm_after, "limit": IMAGES_TOLD_MAX}
    images = connection.execute(_IMAGES, arguments).fetchall()
    needed = connection.execute(_NEEDED, arguments).fetchall()
    dead = [row["image_id"] for row in images if not row["alive"]]
    # That nothing at all is alive is rather a mistake of ours (LAW 9).
    sure = len(dead) < len(images) and _all_is_known(connection)
    request = {
        "store_id": store_id(connection),
        "dead": dead[:IMAGES_TOLD_MAX],
        "needed": [row["image_id"] for row in needed],
        "doomed": [row["key"] for row in connection.execute(_DOOMED, arguments)] if sure else [],
        "min_age_s": age.total_seconds(),
    }
    return make_chore(connection, SWEEP_IMAGES, IMAGES, request, made_by="clock")[1]


def _all_is_known(connection: Connection) -> bool:
    """All the store was looked through lately, and had no archive that this database does not know."""
    surveyed = connection.execute(_SURVEYED, {"lately": SURVEY_GOOD_FOR}).fetchone()
    doubt = connection.execute(_DOUBTS, {"kinds": [UNKNOWN, STRANGE]}).fetchone()
    return surveyed is not None and doubt is None


def _swept(connection: Connection, chore: ChoreRow, result: Mapping[str, Any]) -> None:
    candidates: Sequence[Mapping[str, Any]] = result["candidates"]
    connection.execute(_NOT_SEEN, {"keys": [line["key"] for line in candidates]})
    connection.execute(_SEEN, {"rows": Jsonb(list(candidates))})
    clear_alarm(connection, kind=PARKED, subject=IMAGES, reason="the images were looked through")
    _tell_missing(connection, result["missing"])
    if result["deleted"]:
        events.append(
            connection,
            actor=f"node:{chore['node_id']}",
            kind="swept",
            node_id=chore["node_id"],
            reason=f"{len(result['deleted'])} objects of images that nothing is made of any more, "
            f"{result['freed_bytes']} bytes",
            detail={"keys": result["deleted"][:200], "freed_bytes": result["freed_bytes"]},
        )


def _tell_missing(connection: Connection, missing: Sequence[str]) -> None:
    if not missing:
        clear_alarm(connection, kind=MISSING, subject=IMAGES, reason="all images are in the store")
        return
    message = (
        f"{len(missing)} images that archives are made of are not in the store, such as {missing[0]}: their "
        "pods come back only where the image is, or from its registry. A node that has it copies it within "
        "minutes, unless CODEPODS_AGENT_KEEP_IMAGES is off; else pull it on a node, and open a pod there."
    )
    raise_alarm(connection, kind=MISSING, subject=IMAGES, message=message)


# ---- pods and workspaces that nobody knows ----------------------------------------------------------------


def make_survey(connection: Connection, every: timedelta) -> bool:
    """Make the chore that looks through all targets in the store: by and by, and all once in `every`."""
    last = connection.execute(_LAST_SURVEY, {"every": every}).fetchone()
    after = (last["until"] or "") if last and last["done"] else ""
    if last is not None and not after and not last["due"]:
        return False
    request = {"store_id": store_id(connection), "after": after}
    return make_chore(connection, SURVEY, TARGETS, request, made_by="clock")[1]


def _surveyed(connection: Connection, chore: ChoreRow, result: Mapping[str, Any]) -> None:
    clear_alarm(connection, kind=PARKED, subject=TARGETS, reason="the store was looked through")
    found = {(str(kind), str(target)) for kind, target in result["targets"]}
    arguments = {
        "pods": [target for kind, target in found if kind == "pod"],
        "workspaces": [target for kind, target in found if kind == "workspace"],
    }
    known = {(row["kind"], row["id"]) for row in connection.execute(_KNOWN_TARGETS, arguments)}
    strange = {f"{kind} {target}" for kind, target in sorted(found - known)}
    for row in connection.execute(_STRANGERS).fetchall():
        subject = row["subject"]
        key = f"archives/{subject.replace(' ', '/')}/"
        looked_at = key > chore["request"]["after"] and (not result["until"] or key < result["until"])
        if looked_at and subject not in strange:
            clear_alarm(connection, kind=STRANGE, subject=subject, reason="it is known, or gone")
    for subject in sorted(strange)[:TARGETS_TOLD_MAX]:
        message = (
            f"The store has objects of {subject}, which this database has never heard of. They are left "
            "alone, and no image is cleared away meanwhile. Was the database restored from a backup? If "
            f"nobody needs them, remove archives/{subject.replace(' ', '/')}/ from the store."
        )
        raise_alarm(connection, kind=STRANGE, subject=subject, message=message)


SWEEP_IMAGES_APPLIES = Applies(done=_swept, failed=TIDY_APPLIES.failed)
SURVEY_APPLIES = Applies(done=_surveyed, failed=TIDY_APPLIES.failed)
