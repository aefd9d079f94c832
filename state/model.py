"""The nouns of codepods, as frozen values: what the planner reads and every program agrees on.

Nothing here does I/O. Times are timezone-aware `datetime`s in UTC; amounts carry their unit in the name.
The words are those of docs/nouns.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Visibility(StrEnum):
    """Who sees an application: whoever is admitted to the pod; whoever has a link to it; everybody."""

    PRIVATE = "private"
    LINK = "link"
    PUBLIC = "public"


class Desired(StrEnum):
    """What somebody wants of a pod. `DELETED` is a tombstone: the only road to removal, and one way."""

    RUNNING = "running"
    STOPPED = "stopped"
    ARCHIVED = "archived"
    DELETED = "deleted"


class Observed(StrEnum):
    """What a node saw of a pod. `UNKNOWN` is never reported: it is concluded from a node's silence."""

    ABSENT = "absent"
    RESTORING = "restoring"
    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ARCHIVING = "archiving"
    FAILED = "failed"
    UNKNOWN = "unknown"


class WorkspaceObserved(StrEnum):
    """What a node saw of a user's workspace volume."""

    ABSENT = "absent"
    RESTORING = "restoring"
    PRESENT = "present"
    ARCHIVING = "archiving"


class Verb(StrEnum):
    """The convergent steps a node can be asked for."""

    CREATE_WORKSPACE = "create_workspace"
    RESTORE_WORKSPACE = "restore_workspace"
    ARCHIVE_WORKSPACE = "archive_workspace"
    REMOVE_WORKSPACE = "remove_workspace"
    CREATE_POD = "create_pod"
    RESTORE_POD = "restore_pod"
    START_POD = "start_pod"
    STOP_POD = "stop_pod"
    ARCHIVE_POD = "archive_pod"
    REMOVE_POD = "remove_pod"


# Verbs that take something away from a node or a user. The mass-failure breaker (LAW 13) withholds these.
WITHDRAWING_VERBS = frozenset(
    {Verb.STOP_POD, Verb.ARCHIVE_POD, Verb.REMOVE_POD, Verb.ARCHIVE_WORKSPACE, Verb.REMOVE_WORKSPACE}
)


class ActionState(StrEnum):
    """An action is open until its node answers; or until it is taken back, if no node was given it yet."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class ChoreState(StrEnum):
    """A chore waits until a node takes it; a node that is lost gives it back."""

    WAITING = "waiting"
    GIVEN = "given"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Failover(StrEnum):
    """What happens to a pod whose node is silent: wait for it, or go on from the last archive elsewhere."""

    WAIT = "wait"
    FROM_LAST_ARCHIVE = "from_last_archive"


class What(StrEnum):
    """What goes back: the pod (what is installed in it), the user's files, or both as they were together."""

    POD = "pod"
    WORKSPACE = "workspace"
    BOTH = "both"


class ExportForm(StrEnum):
    """What a download is: a tar with everything, a zip, or an OCI image."""

    TAR = "tar"
    ZIP = "zip"
    OCI = "oci"


# An annotation of the image's manifest in such a download: what it has not as the archive has it, for people.
OCI_NOT_KEPT = "io.codepods.not-kept"


class ImportForm(StrEnum):
    """What is sent: a tar of the user's files, or an OCI image of a pod."""

    TAR = "tar"
    OCI = "oci"


# An annotation of the image's manifest in such a download: what it has not as the archive has it, for people.
OCI_NOT_KEPT = "io.codepods.not-kept"


class ExportWhat(StrEnum):
    """What is downloaded: the user's files, what is installed in the pod, or both."""

    WORKSPACE = "workspace"
    POD = "pod"
    ALL = "all"


class TargetKind(StrEnum):
    """What an action or an archive is about."""

    POD = "pod"
    WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True)
class Resources:
    """A pod's limits, or what a node has."""

    cpu_millis: int = 1000
    memory_mib: int = 2048
    pids: int = 512


# What placement counts for a pod: far below its limits, for most pods are idle most of the time.
# A used code-server holds 0.5 GiB (docs/bench.md).
RESERVED_PER_POD = Resources(cpu_millis=200, memory_mib=512, pids=0)


@dataclass(frozen=True, slots=True)
class ArchiveRef:
    """A committed archive: enough to restore from it, or to prove that a copy may go."""

    id: str
    number: int
    epoch: int
    manifest_key: str
    manifest_digest: str
    fingerprint: str
    image_id: str | None
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class Restoration:
    """A wish to go back to an earlier archive, not met yet. What is there now is saved first.

    Without an archive: to be made anew from what was just saved.
    """

    id: int
    archive_id: str | None
    number: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failed step of a pod or workspace.

    A pod's is void once its generation has moved on; a workspace's, whose generation is 0, once something was
    wished of one of its pods after `failed_at`.
    """

    verb: Verb
    code: str
    message: str
    count: int
    generation: int
    permanent: bool
    failed_at: datetime
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class OpenAction:
    """A step under way. `node_id` has it, or will be given it at its next sync.

    One that was taken back stays under way until the node has answered: it may be in the middle of it.
    """

    id: str
    verb: Verb
    node_id: str
    epoch: int
    generation: int
    created_at: datetime
    taken_back: bool = False


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """The newest report about a pod from the node its user is placed on, at the placement's epoch."""

    state: Observed
    node_id: str
    epoch: int
    container_id: str | None = None
    image_id: str | None = None
    fingerprint: str | None = None
    # The node stops it by itself after so long without contact with us.
    self_fence_s: int | None = None
    # Since when it has been in this state, by our clock.
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ObservedWorkspace:
    """The newest report about a workspace volume. `fingerprint` is absent while a pod may write to it."""

    state: WorkspaceObserved
    node_id: str
    epoch: int
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod, desired and observed, as the planner sees it."""

    id: str
    name: str
    image: str
    desired: Desired
    generation: int
    satisfied_generation: int = 0
    image_id: str | None = None
    lab: str | None = None
    resources: Resources = Resources()
    failover: Failover = Failover.WAIT
    observed: ObservedPod | None = None
    archive: ArchiveRef | None = None
    open_action: OpenAction | None = None
    failure: Failure | None = None
    restoration: Restoration | None = None
    # The highest number that an archive of this pod ever had; the present one may be an earlier one.
    archives_made: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a user's workspace and pods are now. The epoch is the fencing token (LAW 5)."""

    node_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    """One user's workspace with all their pods: the unit of placement and of planning.

    `wished_at` is when something was last wished of any of its pods, also of those that are gone.
    """

    id: str
    user_id: str
    epoch: int
    pods: tuple[PodView, ...] = ()
    placement: Placement | None = None
    observed: ObservedWorkspace | None = None
    archive: ArchiveRef | None = None
    open_action: OpenAction | None = None
    failure: Failure | None = None
    wished_at: datetime | None = None
    restoration: Restoration | None = None
    archives_made: int = 0


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node with what it has, what is placed on it, and when it was last heard (by our clock).

    `engine_error` is why its agent cannot see what is on it; None while it can.
    """

    id: str
    last_seen_at: datetime | None
    cordoned: bool = False
    capacity: Resources = Resources(cpu_millis=0, memory_mib=0, pids=0)
    reserved: Resources = Resources(cpu_millis=0, memory_mib=0, pids=0)
    open_starts: int = 0
    open_actions: int = 0
    engine_error: str | None = None
    # An admin has signed that it will not come back, and it has not been heard since.
    lost: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Everything one pass decides from: some workspaces, all nodes, and since when we have led."""

    nodes: Mapping[str, NodeView]
    workspaces: tuple[WorkspaceView, ...]
    leading_since: datetime


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a pass (LAW 15). Each is a setting of the reconciler: docs/settings.md."""

    actions_per_pass_max: int = 500
    open_actions_per_node_max: int = 64
    open_starts_per_node_max: int = 4
    node_silent_after: timedelta = timedelta(seconds=40)
    # Above this share of silent nodes we suspect ourselves, not them (LAW 13).
    silent_share_max: float = 0.5
    # A pod that fails over is stopped by its own node after this long without contact with us ...
    self_fence_after: timedelta = timedelta(seconds=60)
    # ... and goes on elsewhere after this long: a stop's grace, and clocks of different speed, lie between.
    failover_after: timedelta = timedelta(seconds=120)
    # Running pods are saved this often, if something changed; zero: never.
    checkpoint_every: timedelta = timedelta(minutes=15)
    archive_grace: timedelta = timedelta(seconds=5)
    # A pod that has been stopped for so long is saved ahead, and stays; None: only once it is to be archived.
    warm_after: timedelta | None = timedelta(minutes=5)
    backoff_first: timedelta = timedelta(seconds=1)
    backoff_max: timedelta = timedelta(minutes=5)
    # A pod that ran this long before it exited is not in a crash loop.
    healthy_after: timedelta = timedelta(seconds=60)
    # Of each pod and workspace the newest archives are kept, and the last of each of the last days.
    archives_kept: int = 5
    archive_days_kept: int = 7
    deleted_pods_kept: timedelta = timedelta(days=30)
    # Only what is older than any upload may take is cleared away, and only when seen twice, so far apart.
    sweep_age: timedelta = timedelta(days=3)
    sweep_confirm_after: timedelta = timedelta(days=1)
    # Of a target's bytes no more than this share goes at once.
    sweep_share_max: float = 0.95
    scrub_every: timedelta = timedelta(days=30)
