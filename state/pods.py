"""Pods as the API needs them: making, reading, and saying what is desired. Nothing here decides anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from state import ids
from state.backoff import is_worth_asking_again, live_failure
from state.database import Connection, Database, act_as
from state.model import Desired, Failure, OpenAction, Resources
from state.outlook import Outlook, outlook_of
from state.rows import action_of, failure_from_json
from state.transitions import may_become

PAGE_SIZE_MAX = 1000


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """A pod's newest archive."""

    id: str
    number: int
    size_bytes: int
    committed_at: datetime
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PodStatus:
    """One pod, desired and actual, as people see it.

    `actual` is an observed state, or `unknown` (its node is silent), `archived`, `deleted`. `failure` is that
    of its present generation, or of the workspace that it waits for. `progress` is that of the step under
    way, its own or its workspace's.
    """

    id: str
    workspace_id: str
    user_id: str
    name: str
    image: str
    lab: str | None
    resources: Resources
    failover: str
    desired: Desired
    desired_reason: str | None
    generation: int
    satisfied_generation: int
    actual: str
    node_id: str | None
    since: datetime | None
    condition: str | None
    reason: str | None
    failure: Failure | None
    archive: ArchiveSummary | None
    open_action: OpenAction | None
    progress: dict[str, Any] | None
    next_check_at: datetime | None
    created_at: datetime
    outlook: Outlook | None = None


@dataclass(frozen=True, slots=True)
class PodAccess:
    """What a link to a running pod needs. `session_secret` opens the IDE: never log or show it."""

    pod_id: str
    user_id: str
    node_id: str
    epoch: int
    upstream: str
    session_secret: str = field(repr=False)


class PodNotFound(Exception):
    """No pod has this id."""


class PodDeleted(Exception):
    """The pod was deleted, and a deleted pod does not come back."""


class GenerationConflict(Exception):
    """The pod was changed since the caller looked."""


class PodDiffers(Exception):
    """The pod exists, made otherwise. `differs`: for each column, what it is and what was asked."""

    def __init__(self, pod_id: str, differs: Mapping[str, tuple[Any, Any]]) -> None:
        listed = "; ".join(f"{column} is {have}, not {asked}" for column, (have, asked) in differs.items())
        super().__init__(f"Pod {pod_id} exists and differs: {listed}.")
        self.pod_id = pod_id
        self.differs = dict(differs)


# A workspace's restore or archive is what a pod waits for when it has no step of its own.
_STATUS = """
    SELECT p.id, p.workspace_id, p.user_id, p.name, p.image, p.lab, p.cpu_millis, p.memory_mib, p.pids,
           p.failover, p.desired_state, p.desired_reason, p.generation, p.satisfied_generation, p.condition,
           p.reason, p.failure, p.next_check_at, p.created_at, s.actual, s.node_id, s.since,
           w.failure AS workspace_failure, CASE WHEN w.failure IS NOT NULL THEN
               (SELECT max(desired_at) FROM pod WHERE workspace_id = w.id) END AS wished_at,
           clock_timestamp() AS now, pol.stops_at, pol.reason AS stop_reason, pol.warned_at, pol.can_extend,
           ar.id AS archive_id, ar.number AS archive_number,
           ar.size_bytes AS archive_size_bytes, ar.committed_at AS archive_committed_at,
           ar.notices AS archive_notices,
           a.id AS action_id, a.verb AS action_verb, a.node_id AS action_node_id, a.epoch AS action_epoch,
           a.generation AS action_generation, a.created_at AS action_created_at,
           a.taken_back_at IS NOT NULL AS action_taken_back, a.progress
      FROM pod p
      JOIN pod_status s ON s.id = p.id
      JOIN workspace w ON w.id = p.workspace_id
      LEFT JOIN archive ar ON ar.id = p.archive_id
      LEFT JOIN pod_policy pol ON pol.pod_id = p.id AND p.desired_state = 'running'
      LEFT JOIN LATERAL (
          SELECT * FROM action WHERE target IN (p.id, p.workspace_id) AND state = 'open'
           ORDER BY pod_id IS NULL LIMIT 1
      ) AS a ON true
"""
_GET = f"{_STATUS} WHERE p.id = %(id)s"
_LIST = f"{_STATUS} WHERE p.id > %(after)s ORDER BY p.id LIMIT %(limit)s"
_LIST_OF_USER = f"{_STATUS} WHERE p.user_id = %(user_id)s AND p.id > %(after)s ORDER BY p.id LIMIT %(limit)s"

_ENSURE_WORKSPACE = "INSERT INTO workspace (id, user_id) VALUES (%s, %s) ON CONFLICT (user_id) DO NOTHING"
# Held until the end of the transaction: two requests for one user wait for each other, and make one pod.
_LOCK_WORKSPACE = "SELECT id FROM workspace WHERE user_id = %s FOR NO KEY UPDATE"
_FIND = """
    SELECT id, image, lab, cpu_millis, memory_mib, pids FROM pod
     WHERE workspace_id = %s AND name = %s AND desired_state <> 'deleted' FOR NO KEY UPDATE
"""
_CREATE = """
    INSERT INTO pod (id, workspace_id, user_id, name, image, lab, cpu_millis, memory_mib, pids,
                     desired_state, desired_reason)
    VALUES (%(id)s, %(workspace_id)s, %(user_id)s, %(name)s, %(image)s, %(lab)s, %(cpu_millis)s,
            %(memory_mib)s, %(pids)s, %(desired_state)s, %(reason)s)
"""
_SET_DESIRED = "UPDATE pod SET desired_state = %s, desired_reason = %s WHERE id = %s"
_ASK_AGAIN = """
    UPDATE pod SET asked_again = asked_again + 1, desired_reason = coalesce(%s, 'asked again')
     WHERE id = %s
"""
_ACCESS = """
    SELECT p.id AS pod_id, p.user_id, o.node_id, o.epoch, o.upstream, o.session_secret
      FROM pod p
      JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
      JOIN pod_observed o ON o.pod_id = p.id AND o.node_id = pl.node_id AND o.epoch = pl.epoch
     WHERE p.id = %s AND o.state = 'running' AND o.upstream IS NOT NULL AND o.session_secret IS NOT NULL
"""


def create_or_open(
    db: Database,
    *,
    user_id: str,
    name: str,
    image: str | None,
    lab: str | None,
    resources: Resources | Mapping[str, int] | None,
    desired: Desired,
    actor: str,
    reason: str | None,
    default_image: str | None = None,
) -> tuple[PodStatus, bool]:
    """The user's pod of this name, and whether it was made just now.

    Repeating it changes nothing more, unless a failure holds the pod back: then it is tried anew.

    What is None, or not in a mapping of resources, is not asked for: a new pod gets the default, one that
    exists keeps what it has. An existing pod's desired state becomes `desired`. Raises `PodDiffers` when it
    is made otherwise than asked.
    """
    asked = _asked(image, lab, resources)
    with db.transaction() as connection:
        act_as(connection, actor)
        workspace_id = _workspace_of(connection, user_id)
        row = connection.execute(_FIND, (workspace_id, name)).fetchone()
        if row is None:
            pod_id = ids.new_pod_id()
            made = _columns(asked, default_image)
            who = {"id": pod_id, "workspace_id": workspace_id, "user_id": user_id, "name": name}
            connection.execute(_CREATE, {**made, **who, "desired_state": desired, "reason": reason})
        else:
            pod_id = row["id"]
            _refuse_differing(row, asked)
            _want(connection, pod_id, desired, reason)
        return _must_get(connection, pod_id), row is None


def get_pod(db: Database, pod_id: str) -> PodStatus | None:
    """One pod, also a deleted one."""
    with db.transaction() as connection:
        row = connection.execute(_GET, {"id": pod_id}).fetchone()
    return None if row is None else _status(row)


def list_pods(
    db: Database, *, user_id: str | None = None, after: str | None = None, limit: int = 100
) -> list[PodStatus]:
    """The pods with an id above `after`, in the order of ids; at most `limit`, and never above 1000."""
    query = _LIST if user_id is None else _LIST_OF_USER
    arguments = {"user_id": user_id, "after": after or "", "limit": min(limit, PAGE_SIZE_MAX)}
    with db.transaction() as connection:
        return [_status(row) for row in connection.execute(query, arguments)]


def set_desired(
    db: Database,
    pod_id: str,
    desired: Desired,
    *,
    actor: str,
    reason: str | None,
    if_generation: int | None = None,
) -> PodStatus:
    """Say what is wanted of a pod. Saying what is wanted already changes nothing.

    Raises `PodNotFound`, `PodDeleted`, and `GenerationConflict` when it is not of `if_generation` any more.
    """
    with db.transaction() as connection:
        act_as(connection, actor)
        locked = "SELECT desired_state, generation FROM pod WHERE id = %s FOR NO KEY UPDATE"
        row = connection.execute(locked, (pod_id,)).fetchone()
        if row is None:
            raise PodNotFound(f"No pod has the id {pod_id[:100]}.")
        if not may_become(Desired(row["desired_state"]), desired):
            raise PodDeleted(
                f"Pod {pod_id} was deleted, and does not come back. The user's files are still there."
            )
        if if_generation is not None and row["generation"] != if_generation:
            raise GenerationConflict(
                f"Pod {pod_id} is of generation {row['generation']}, not {if_generation}."
            )
        _want(connection, pod_id, desired, reason)
        return _must_get(connection, pod_id)


def access_of(db: Database, pod_id: str) -> PodAccess | None:
    """How to reach the pod; None unless its node sees it running, at the epoch of its placement."""
    with db.transaction() as connection:
        row = connection.execute(_ACCESS, (pod_id,)).fetchone()
    return None if row is None else PodAccess(**row)


def _workspace_of(connection: Connection, user_id: str) -> str:
    row = connection.execute(_LOCK_WORKSPACE, (user_id,)).fetchone()
    if row is None:
        connection.execute(_ENSURE_WORKSPACE, (ids.new_workspace_id(), user_id))
        row = connection.execute(_LOCK_WORKSPACE, (user_id,)).fetchone()
        assert row is not None
    return str(row["id"])


def _asked(
    image: str | None, lab: str | None, resources: Resources | Mapping[str, int] | None
) -> dict[str, Any]:
    limits = _limits(resources) if isinstance(resources, Resources) else resources or {}
    return {
        column: value for column, value in {"image": image, "lab": lab, **limits}.items() if value is not None
    }


def _columns(asked: Mapping[str, Any], default_image: str | None) -> dict[str, Any]:
    columns = {"image": default_image, "lab": None, **_limits(Resources()), **asked}
    if columns["image"] is None:
        raise ValueError("a new pod needs an image, asked for or by default")
    return columns


def _limits(resources: Resources) -> dict[str, int]:
    return {"cpu_millis": resources.cpu_millis, "memory_mib": resources.memory_mib, "pids": resources.pids}


def _refuse_differing(row: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differs = {column: (row[column], value) for column, value in asked.items() if row[column] != value}
    if differs:
        raise PodDiffers(row["id"], differs)


def _want(connection: Connection, pod_id: str, desired: Desired, reason: str | None) -> None:
    """The same wish again is nothing new, unless a failure holds the pod back: then it is a new start."""
    row = _must_read(connection, pod_id)
    if row["desired_state"] != desired:
        connection.execute(_SET_DESIRED, (desired, reason, pod_id))
    elif desired is not Desired.DELETED and row["actual"] != desired:
        failure = _failure(row)
        if failure is not None and is_worth_asking_again(failure, row["now"]):
            connection.execute(_ASK_AGAIN, (reason, pod_id))


def _must_get(connection: Connection, pod_id: str) -> PodStatus:
    return _status(_must_read(connection, pod_id))


def _must_read(connection: Connection, pod_id: str) -> Mapping[str, Any]:
    row = connection.execute(_GET, {"id": pod_id}).fetchone()
    assert row is not None
    return row


def _status(row: Mapping[str, Any]) -> PodStatus:
    return PodStatus(
        id=row["id"],
        workspace_id=row["workspace_id"],
        user_id=row["user_id"],
        name=row["name"],
        image=row["image"],
        lab=row["lab"],
        resources=Resources(row["cpu_millis"], row["memory_mib"], row["pids"]),
        failover=row["failover"],
        desired=Desired(row["desired_state"]),
        desired_reason=row["desired_reason"],
        generation=row["generation"],
        satisfied_generation=row["satisfied_generation"],
        actual=row["actual"],
        node_id=row["node_id"],
        since=row["since"],
        condition=row["condition"],
        reason=row["reason"],
        failure=_failure(row),
        archive=_archive(row),
        open_action=action_of(row),
        progress=row["progress"],
        next_check_at=row["next_check_at"],
        created_at=row["created_at"],
        outlook=outlook_of(row),
    )


def _failure(row: Mapping[str, Any]) -> Failure | None:
    """The pod's own failure, of its present generation; or that of the workspace, where it waits for it."""
    own = _readable(row["failure"])
    if own is not None and own.generation == row["generation"]:
        return own
    wanted = row["desired_state"] == Desired.RUNNING or (
        row["desired_state"] == Desired.STOPPED and row["archive_id"] is not None
    )
    if not wanted or row["actual"] not in ("absent", "archived"):
        return None
    of_workspace = live_failure(_readable(row["workspace_failure"]), row["wished_at"])
    return of_workspace and replace(of_workspace, generation=row["generation"])


def _readable(value: Mapping[str, Any] | None) -> Failure | None:
    """One that cannot be read must not hide the pod, nor those beside it; its pod is parked with a reason."""
    try:
        return failure_from_json(value)
    except ValueError:
        return None


def _archive(row: Mapping[str, Any]) -> ArchiveSummary | None:
    if row["archive_id"] is None:
        return None
    return ArchiveSummary(
        id=row["archive_id"],
        number=row["archive_number"],
        size_bytes=row["archive_size_bytes"],
        committed_at=row["archive_committed_at"],
        notices=tuple(row["archive_notices"]),
    )
