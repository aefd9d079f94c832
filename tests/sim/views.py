"""What a pass reads of the simulated database: a small model of the queries of state.snapshot."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from state.model import (
    RESERVED_PER_POD,
    Desired,
    NodeView,
    Observed,
    PodView,
    Resources,
    Verb,
    WorkspaceView,
    World,
)
from tests.sim.rows import NodeRow, PodRow, WorkspaceRow

if TYPE_CHECKING:
    from tests.sim.database import SimDatabase

_UP = (Observed.STARTING, Observed.RUNNING, Observed.STOPPING)
_NOTHING = Resources(0, 0, 0)


def world_of(db: "SimDatabase", workspace_ids: Sequence[str], leading_since: datetime) -> World:
    """The rows as the planner sees them; what is reserved is counted only if somebody has to be placed."""
    nodes = {node.id: _node_view(db, node) for node in db.nodes.values()}
    workspaces = tuple(_workspace_view(db, db.workspaces[key]) for key in sorted(workspace_ids))
    if any(workspace.placement is None for workspace in workspaces):
        nodes = {key: replace(node, reserved=_reserved(db, key)) for key, node in nodes.items()}
    return World(nodes, workspaces, leading_since)


def _node_view(db: "SimDatabase", node: NodeRow) -> NodeView:
    here = [row for row in db.open.values() if row.node_id == node.id]
    return NodeView(
        id=node.id,
        last_seen_at=node.last_seen_at,
        cordoned=node.cordoned,
        capacity=Resources(node.cpu_millis, node.memory_mib, pids=0),
        reserved=_NOTHING,
        open_starts=sum(row.verb is Verb.START_POD for row in here),
        open_actions=len(here),
        engine_error=node.engine_error,
        lost=node.lost,
    )


def _reserved(db: "SimDatabase", node_id: str) -> Resources:
    count = 0
    for pod in db.pods.values():
        placement = db.workspaces[pod.workspace_id].placement
        if placement is None or placement.node_id != node_id:
            continue
        seen = pod.observed_at(placement)
        count += pod.desired is Desired.RUNNING or (seen is not None and seen.state in _UP)
    return Resources(RESERVED_PER_POD.cpu_millis * count, RESERVED_PER_POD.memory_mib * count, 0)


def _workspace_view(db: "SimDatabase", row: WorkspaceRow) -> WorkspaceView:
    pods = db.pods_of(row.id)
    open_action = db.open.get(row.id)
    return WorkspaceView(
        id=row.id,
        user_id=row.user_id,
        epoch=row.epoch,
        pods=tuple(view for pod in pods if (view := _pod_view(db, pod, row)) is not None),
        placement=row.placement,
        observed=row.observed_here(),
        archive=row.archive,
        open_action=open_action.view() if open_action else None,
        failure=row.failure,
        archives_made=db.archives_made(row.id),
        restoration=db.restorations.view(row.id),
        wished_at=max((pod.desired_at for pod in pods if pod.desired_at), default=None),
    )


def _pod_view(db: "SimDatabase", pod: PodRow, workspace: WorkspaceRow) -> PodView | None:
    seen = pod.observed_at(workspace.placement)
    open_action = db.open.get(pod.id)
    gone = seen is None or seen.state is Observed.ABSENT
    over = pod.desired is Desired.DELETED and pod.satisfied_generation == pod.generation
    if over and gone and open_action is None:
        return None
    return PodView(
        id=pod.id,
        name=pod.name,
        image="image:1",
        desired=pod.desired,
        generation=pod.generation,
        satisfied_generation=pod.satisfied_generation,
        image_id=pod.image_id,
        failover=pod.failover,
        observed=seen,
        archive=pod.archive,
        open_action=open_action.view() if open_action else None,
        failure=pod.failure,
        restoration=db.restorations.view(pod.id),
        archives_made=db.archives_made(pod.id),
    )
