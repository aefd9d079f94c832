"""What one pass of the reconciler decides, as data: nothing here acts, and nothing here is hidden.

`reconciler.plan.plan` makes a `Plan`; `state.outbox.record` writes it down, under compare-and-set; nodes then
fetch the actions. The reason of every pod, also of those left alone, is what `podctl explain` shows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from state.model import TargetKind
from state.wire import PodStep, WorkspaceStep


class Condition(StrEnum):
    """The one thing that is true of a pod now, by the ordered rules of `reconciler.classify`."""

    SETTLED = "settled"
    BUSY = "busy"
    NODE_SILENT = "node_silent"
    ENGINE_AWAY = "engine_away"
    PARKED = "parked"
    BACKING_OFF = "backing_off"
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    WAITING_FOR_WORKSPACE = "waiting_for_workspace"
    WAITING_FOR_TURN = "waiting_for_turn"
    WITHHELD = "withheld"
    IN_GRACE = "in_grace"
    IN_TRANSIT = "in_transit"
    NEEDS_PLACEMENT = "needs_placement"
    NEEDS_WORKSPACE = "needs_workspace"
    NEEDS_CREATE = "needs_create"
    NEEDS_RESTORE = "needs_restore"
    GOING_BACK = "going_back"
    NEEDS_START = "needs_start"
    NEEDS_STOP = "needs_stop"
    NEEDS_ARCHIVE = "needs_archive"
    NEEDS_REMOVAL = "needs_removal"


@dataclass(frozen=True, slots=True)
class Place:
    """Put a workspace on a node, under the epoch after `epoch_before` (compare-and-set)."""

    workspace_id: str
    node_id: str
    epoch_before: int
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """End a placement: its node holds nothing of this workspace any more."""

    workspace_id: str
    node_id: str
    epoch: int
    reason: str


class Proof(StrEnum):
    """Why a placement may end though its node has not said that it holds nothing (LAW 6)."""

    DECLARED_LOST = "declared_lost"
    SELF_FENCED = "self_fenced"


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up what a node holds of a workspace. The proof, and `silent_for`, are looked at again."""

    workspace_id: str
    node_id: str
    epoch: int
    proof: Proof
    silent_for: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One action to enqueue. It is void if the target's epoch or generation has moved on by then."""

    kind: TargetKind
    workspace_id: str
    user_id: str
    pod_id: str | None
    node_id: str
    epoch: int
    generation: int
    step: PodStep | WorkspaceStep
    reason: str

    @property
    def target(self) -> str:
        """The id that allows one open action at a time."""
        return self.pod_id or self.workspace_id


@dataclass(frozen=True, slots=True)
class GoBack:
    """Have a pod or workspace restored from an earlier archive from now on (compare-and-set)."""

    workspace_id: str
    pod_id: str | None
    restoration_id: int
    archive_id_before: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """An open action that is no longer wanted."""

    action_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What was concluded about one pod. `wake_at` is when time alone could change the conclusion."""

    pod_id: str
    workspace_id: str
    generation: int
    condition: Condition
    reason: str
    wake_at: datetime | None = None

    @property
    def satisfied(self) -> bool:
        """Nothing is left to do for this generation."""
        return self.condition is Condition.SETTLED


@dataclass(frozen=True, slots=True)
class WorkspaceDecision:
    """What was concluded about one workspace, where it is not simply following its pods."""

    workspace_id: str
    reason: str
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one pass."""

    places: tuple[Place, ...] = ()
    releases: tuple[Release, ...] = ()
    abandons: tuple[Abandon, ...] = ()
    steps: tuple[PlannedStep, ...] = ()
    take_backs: tuple[TakeBack, ...] = ()
    go_backs: tuple[GoBack, ...] = ()
    decisions: tuple[Decision, ...] = ()
    workspace_decisions: tuple[WorkspaceDecision, ...] = ()
    breaker_open: bool = False

    def fields(self) -> dict[str, int | bool]:
        """The pass in one log line."""
        return {
            "places": len(self.places),
            "releases": len(self.releases),
            "abandons": len(self.abandons),
            "steps": len(self.steps),
            "take_backs": len(self.take_backs),
            "go_backs": len(self.go_backs),
            "pods": len(self.decisions),
            "settled": sum(decision.satisfied for decision in self.decisions),
            "breaker_open": self.breaker_open,
        }
