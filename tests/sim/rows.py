"""The rows of the simulated database: what state's SQL keeps, as far as deciding and reporting read it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from state.model import (
    ActionState,
    ArchiveRef,
    Desired,
    Failover,
    Failure,
    Observed,
    ObservedPod,
    ObservedWorkspace,
    OpenAction,
    Placement,
    Verb,
)
from state.plan import Condition
from state.wire import Action, PodReport, Report, WorkspaceReport
from tests.sim.schedule import REOPENED


@dataclass(eq=False)
class PodRow:
    """A row of `pod`, with its row of `pod_observed`."""

    id: str
    workspace_id: str
    desired: Desired = Desired.STOPPED
    generation: int = 1
    satisfied_generation: int = 0
    image_id: str | None = None
    failure: Failure | None = None
    archive: ArchiveRef | None = None
    due_at: datetime | None = None
    desired_at: datetime | None = None
    observed: PodReport | None = None
    observed_node_id: str | None = None
    since: datetime | None = None
    condition: Condition | None = None
    reason: str | None = None
    failover: Failover = Failover.WAIT
    created_at: datetime | None = None
    desired_reason: str | None = None
    keep_until: datetime | None = None
    # How long it may go on, by column; what is not here is as its user has it.
    limits: dict[str, int | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """One that is opened anew has the name of the one before."""
        return self.id.removesuffix(REOPENED)

    def observed_at(self, placement: Placement | None) -> ObservedPod | None:
        """What counts at the live placement."""
        seen = self.observed
        if seen is None or placement is None:
            return None
        if (self.observed_node_id, seen.epoch) != (placement.node_id, placement.epoch):
            return None
        return ObservedPod(
            seen.state,
            placement.node_id,
            seen.epoch,
            None if seen.state is Observed.ABSENT else seen.container_id,
            seen.image_id,
            seen.fingerprint,
            seen.self_fence_s,
            self.since,
        )


@dataclass(eq=False)
class WorkspaceRow:
    """A row of `workspace`, with its live placement and its row of `workspace_observed`."""

    id: str
    user_id: str
    epoch: int = 0
    placement: Placement | None = None
    placed_at: datetime | None = None
    failure: Failure | None = None
    archive: ArchiveRef | None = None
    due_at: datetime | None = None
    observed: WorkspaceReport | None = None
    observed_node_id: str | None = None
    # Of its pods, by column; what is not here is as the installation has it.
    limits: dict[str, int | None] = field(default_factory=dict)

    def observed_here(self) -> ObservedWorkspace | None:
        """What counts at the live placement."""
        seen, placement = self.observed, self.placement
        if seen is None or placement is None:
            return None
        if (self.observed_node_id, seen.epoch) != (placement.node_id, placement.epoch):
            return None
        return ObservedWorkspace(seen.state, placement.node_id, seen.epoch, seen.fingerprint)


@dataclass(eq=False)
class ActionRow:
    """A row of `action`."""

    action: Action
    node_id: str
    created_at: datetime
    state: ActionState = ActionState.OPEN
    finished_at: datetime | None = None
    sent: bool = False
    taken_back: bool = False

    @property
    def verb(self) -> Verb:
        """Of its step."""
        return Verb(self.action.step.verb)

    def view(self) -> OpenAction:
        """As the planner sees it."""
        action = self.action
        return OpenAction(
            action.id,
            self.verb,
            self.node_id,
            action.epoch,
            action.generation,
            self.created_at,
            self.taken_back,
        )


@dataclass(eq=False)
class NodeRow:
    """A row of `node`, with its lease and its last report."""

    id: str
    cordoned: bool = False
    cpu_millis: int = 0
    memory_mib: int = 0
    silent: bool = False
    boot_id: str = ""
    sequence: int = 0
    former_boots: list[str] = field(default_factory=list)
    last_seen_at: datetime | None = None
    engine_error: str | None = None
    # None: whatever it says next is news. What it said last is kept all the same, and what was odd in it.
    report: Report | None = None
    last_report: Report | None = None
    oddities: frozenset[str] = frozenset()
    lost_at: datetime | None = None

    @property
    def lost(self) -> bool:
        """An admin has signed for it, and it has not been heard since."""
        heard_since = self.last_seen_at is not None and self.lost_at and self.last_seen_at > self.lost_at
        return self.lost_at is not None and not heard_since


@dataclass(eq=False)
class KeptRow:
    """What was found out about an archive since it was made, in its row of `archive`."""

    whole_at: datetime
    live: bool = False
    recovered: bool = False
    retired_at: datetime | None = None


@dataclass(eq=False)
class TargetRow:
    """A row of `store_target`."""

    check_at: datetime | None
    sweep_at: datetime | None


@dataclass(eq=False)
class CandidateRow:
    """A row of `sweep_candidate`."""

    key: str
    kind: str
    target_id: str
    size_bytes: int
    first_seen_at: datetime
    last_seen_at: datetime


def known_row(pod: PodRow, placement: Placement | None, **more: Any) -> dict[str, Any]:
    """A pod as `state.observed.compare` reads it."""
    seen = pod.observed.model_dump() if pod.observed else dict.fromkeys(PodReport.model_fields)
    return {
        **seen,
        "id": pod.id,
        "workspace_id": pod.workspace_id,
        "desired_state": pod.desired,
        "wanted_generation": pod.generation,
        "pinned_image_id": pod.image_id,
        "failure": pod.failure,
        "live_node_id": placement.node_id if placement else None,
        "live_epoch": placement.epoch if placement else None,
        "observed_node_id": pod.observed_node_id,
        **more,
    }


def known_workspace_row(workspace: WorkspaceRow, open_verb: Verb | None) -> dict[str, Any]:
    """A workspace as `state.observed.compare` reads it."""
    placement, seen = workspace.placement, workspace.observed
    return {
        "epoch": seen.epoch if seen else None,
        "state": seen.state if seen else None,
        "volume": seen.volume if seen else None,
        "fingerprint": seen.fingerprint if seen else None,
        "id": workspace.id,
        "live_node_id": placement.node_id if placement else None,
        "live_epoch": placement.epoch if placement else None,
        "observed_node_id": workspace.observed_node_id,
        "open_verb": open_verb,
    }


def action_id(number: int) -> str:
    """The id of the action that was the so manyth to be planned."""
    return str(UUID(int=number))


def archive_id(number: int) -> str:
    """The id of the archive that was the so manyth to be committed."""
    return f"archive-{number}"
