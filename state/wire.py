"""What node agents and the reconciler's gateway say to each other, as JSON over HTTP.

One call, `POST /v1/sync`, carries a node's report and the results of its actions up, and new actions down.
Both sides keep reading fields they do not know (`extra="ignore"`), so that N and N-1 understand each other.
No SQL is imported here: nodes hold no database credentials.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from state.chore_wire import ChoresDown, ChoresUp
from state.model import Observed, WorkspaceObserved
from state.presence_wire import PresenceDown, PresenceUp

PROTOCOL = 1
SYNC_WAIT_S_MAX = 20.0
RESULTS_PER_SYNC_MAX = 200
# How a node answers for an action that was taken back: it has not done it, or not all of it, and will not.
CANCELLED = "cancelled"
PODS_PER_REPORT_MAX = 2000
# Why a sync may be refused with 409: the agent is to begin a run after the one that the answer names
# (`after`); or another machine is heard under the node's name.
BEGIN_ANEW = "begin_anew"
OTHER_MACHINE = "other_machine"
UNREADABLE_CHARS_MAX = 1000

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Wire(BaseModel):
    """Base of all messages: immutable, tolerant of fields from a newer version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# ---- actions: down to the node -------------------------------------------------------------------------


class PodSpec(Wire):
    """What a pod is made of. `image_id` is set once the image has been pinned by a first start."""

    name: str
    image: str
    image_id: str | None = None
    lab: str | None = None
    cpu_millis: int = 1000
    memory_mib: int = 2048
    pids: int = 512


class ArchiveSource(Wire):
    """The archive to restore from."""

    manifest_key: str
    manifest_digest: str


class ArchiveProof(Wire):
    """Why a copy may go: this manifest was committed, and it was made of exactly this source (LAW 8)."""

    reason: Literal["archived"] = "archived"
    manifest_key: str
    manifest_digest: str
    fingerprint: str


class TombstoneProof(Wire):
    """Why a copy may go: somebody deleted the pod, at this generation (LAW 9)."""

    reason: Literal["tombstone"] = "tombstone"
    generation: int


RemovalProof = Annotated[ArchiveProof | TombstoneProof, Field(discriminator="reason")]


class CreateWorkspace(Wire):
    """Make the user's empty workspace volume."""

    verb: Literal["create_workspace"] = "create_workspace"


class RestoreWorkspace(Wire):
    """Make the user's workspace volume from an archive."""

    verb: Literal["restore_workspace"] = "restore_workspace"
    archive: ArchiveSource


class ArchiveWorkspace(Wire):
    """Save the workspace volume, which no pod uses now. Keeps the volume. `base` as in ArchivePod."""

    verb: Literal["archive_workspace"] = "archive_workspace"
    number: int
    base: ArchiveSource | None = None


class RemoveWorkspace(Wire):
    """Remove the workspace volume, if the proof still holds when looked at live."""

    verb: Literal["remove_workspace"] = "remove_workspace"
    proof: ArchiveProof


class CreatePod(Wire):
    """Make a fresh, stopped container; load the lab into the workspace where it is not there yet."""

    verb: Literal["create_pod"] = "create_pod"
    spec: PodSpec


class RestorePod(Wire):
    """Make a stopped container of the same image id with the archive's changes in it."""

    verb: Literal["restore_pod"] = "restore_pod"
    spec: PodSpec
    archive: ArchiveSource


class StartPod(Wire):
    """Start the container under a new session secret, and wait until the IDE answers."""

    verb: Literal["start_pod"] = "start_pod"
    # The node stops the pod by itself after so long without contact with the gateway; None: never.
    self_fence_s: int | None = None


class StopPod(Wire):
    """Stop the container and confirm that it has exited. Keeps the container."""

    verb: Literal["stop_pod"] = "stop_pod"


class ArchivePod(Wire):
    """Save a stopped container's changes. Keeps the container.

    `base` is the archive that the database holds of the pod now: what did not change since then may stay in
    it. It is alive as long as this action is open.
    """

    verb: Literal["archive_pod"] = "archive_pod"
    number: int
    base: ArchiveSource | None = None


class RemovePod(Wire):
    """Remove a stopped container, if the proof still holds when looked at live."""

    verb: Literal["remove_pod"] = "remove_pod"
    proof: RemovalProof


WorkspaceStep = CreateWorkspace | RestoreWorkspace | ArchiveWorkspace | RemoveWorkspace
PodStep = CreatePod | RestorePod | StartPod | StopPod | ArchivePod | RemovePod
Step = Annotated[WorkspaceStep | PodStep, Field(discriminator="verb")]


class Action(Wire):
    """One convergent step for one target, at one epoch and generation."""

    id: str
    workspace_id: Identifier
    user_id: str
    pod_id: Identifier | None = None
    epoch: int
    generation: int = 0
    # Counts the actions ever made for this target: part of store keys, so no two attempts share one.
    attempt: int
    step: Step

    @property
    def target(self) -> str:
        """The id that actions are serialised by: the pod's, or the workspace's for workspace steps."""
        return self.pod_id or self.workspace_id


# ---- reports: up from the node -------------------------------------------------------------------------


class PodReport(Wire):
    """One container of ours. `fingerprint` is set when it has exited: container id, started, finished."""

    pod_id: Identifier
    workspace_id: Identifier
    user_id: str
    epoch: int
    generation: int
    state: Observed
    container_id: str
    image_id: str
    upstream: str | None = None
    session_secret: str | None = Field(default=None, repr=False)
    fingerprint: str | None = None
    started_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    # After so long without contact with the gateway, the node stops the pod by itself.
    self_fence_s: int | None = None


class WorkspaceReport(Wire):
    """One workspace volume of ours. `fingerprint` is of its whole tree, when no container uses it."""

    workspace_id: Identifier
    user_id: str
    epoch: int
    state: WorkspaceObserved
    volume: str
    fingerprint: str | None = None


class StrangeContainer(Wire):
    """A container with our labels that cannot be read as a pod. Reported, never touched (LAW 9)."""

    container_id: str
    name: str
    why: str


class StoreFacts(Wire):
    """Whether a node's store refuses to replace an object where it is asked to, found out by a probe."""

    conditional_put: bool
    conditional_complete: bool


class NodeFacts(Wire):
    """What a node is and can do, found out when the agent started."""

    address: str
    cpu_millis: int
    memory_mib: int
    engine_version: str
    api_version: str
    storage_driver: str
    runtime: str
    agent_version: str
    # `fast`, `safe`, or empty: not found out yet.
    archive_way: str = ""
    # None: the store has not answered yet.
    store: StoreFacts | None = None
    notices: tuple[str, ...] = ()


class Report(Wire):
    """All that a node has now. Complete: what is not in it is not there."""

    pods: Annotated[tuple[PodReport, ...], Field(max_length=PODS_PER_REPORT_MAX)] = ()
    workspaces: Annotated[tuple[WorkspaceReport, ...], Field(max_length=PODS_PER_REPORT_MAX)] = ()
    strange: Annotated[tuple[StrangeContainer, ...], Field(max_length=PODS_PER_REPORT_MAX)] = ()


class ArchiveMade(Wire):
    """What an archive step committed to the store."""

    manifest_key: str
    manifest_digest: str
    fingerprint: str
    size_bytes: int
    image_id: str | None = None
    notices: tuple[str, ...] = ()


class StepDone(Wire):
    """The step's end state holds. `archive` is set by archive steps."""

    outcome: Literal["done"] = "done"
    action_id: str
    archive: ArchiveMade | None = None


class StepFailed(Wire):
    """The step could not be done. `code` is stable; `message` is for the user: what, why, what to do."""

    outcome: Literal["failed"] = "failed"
    action_id: str
    code: str
    message: Annotated[str, Field(max_length=2000)]
    # True when trying again without a change of the pod cannot help (no such image, no such lab).
    permanent: bool = False


StepResult = Annotated[StepDone | StepFailed, Field(discriminator="outcome")]


class StepProgress(Wire):
    """How far a long step is, for people who wait."""

    action_id: str
    phase: str
    done_bytes: int = 0
    total_bytes: int | None = None
    # Over the last seconds; None while it is too early to say.
    bytes_per_s: int | None = None


class SyncRequest(Wire):
    """A node's half of a sync. Reports are numbered by (boot id, sequence); older ones are dropped."""

    protocol: int = PROTOCOL
    node_id: Identifier
    boot_id: str
    sequence: int
    facts: NodeFacts
    # Absent when the engine could not be asked: then nothing is concluded from it (LAW 9).
    report: Report | None = None
    engine_error: str | None = None
    results: Annotated[tuple[StepResult, ...], Field(max_length=RESULTS_PER_SYNC_MAX)] = ()
    progress: Annotated[tuple[StepProgress, ...], Field(max_length=RESULTS_PER_SYNC_MAX)] = ()
    # The actions the node already has: they are not sent again, and learn here if they were taken back.
    in_hand: tuple[str, ...] = ()
    # Those of them that need not be told of again: it is ending them, or has their results ready.
    ending: tuple[str, ...] = ()
    wait_s: Annotated[float, Field(ge=0, le=SYNC_WAIT_S_MAX)] = 0.0
    # Work on the store that belongs to no placement. An agent that does not know of it takes none.
    chores: ChoresUp = ChoresUp()
    # Who is there. Not part of the report, nor of its digest.
    presence: PresenceUp | None = None
    # For how long the agent has been told that another machine is believed in its place.
    shut_out_s: Annotated[float, Field(ge=0)] = 0.0


class UnreadableAction(Wire):
    """An action that this version cannot read, for a newer one has sent it."""

    id: str
    why: str


class SyncReply(Wire):
    """The gateway's half of a sync."""

    protocol: int = PROTOCOL
    actions: tuple[Action, ...] = ()
    # Found by whoever reads the message, and sent by nobody.
    unreadable: Annotated[tuple[UnreadableAction, ...], Field(exclude=True)] = ()
    # Actions that are no longer wanted: the node stops working on them, and answers also for those it lacks.
    taken_back: tuple[str, ...] = ()
    # Results that are safely in the database and need not be sent again.
    accepted: tuple[str, ...] = ()
    chores: ChoresDown = ChoresDown()
    # The epoch of reported workspaces that have been placed anew since: what is of an earlier one is stopped.
    epochs: dict[str, int] = {}
    presence: PresenceDown = PresenceDown()

    @model_validator(mode="before")
    @classmethod
    def _set_aside(cls, message: Any) -> Any:
        """One action that cannot be read must not keep the others from their node (LAW 12)."""
        if not isinstance(message, dict) or not isinstance(message.get("actions"), list):
            return message
        aside = [found for found in map(_unreadable, message["actions"]) if found is not None]
        unread = {found.id for found in aside}
        read = [sent for sent in message["actions"] if _id_of(sent) not in unread]
        return message | {"actions": read, "unreadable": aside}


class Problem(Wire):
    """Why a sync was refused, as far as an agent acts on it."""

    code: str = ""
    after: str = ""


def _unreadable(sent: Any) -> UnreadableAction | None:
    """None also for what does not even have an id: nobody could answer for it."""
    if _id_of(sent) is None:
        return None
    try:
        Action.model_validate(sent)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        return UnreadableAction(id=sent["id"], why=f"{where}: {problem['msg']}"[:UNREADABLE_CHARS_MAX])
    return None


def _id_of(sent: Any) -> str | None:
    action_id = sent.get("id") if isinstance(sent, dict) else None
    return action_id if isinstance(action_id, str) else None
