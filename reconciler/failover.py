"""When a silent node's users may go on elsewhere: LAW 6's proofs. Pure.

A person's word holds for everybody on the node. Without it, only a workspace moves whose pods there have all
asked for it and were started so that their node stops them by itself; the longer wait here than there is what
makes the stop certain. Everybody else waits.
"""

from datetime import datetime

from state.model import Failover, Limits, NodeView, Observed, PodView, Verb, WorkspaceView
from state.plan import Abandon, Proof

_UP = frozenset({Observed.RUNNING, Observed.STARTING, Observed.STOPPING, Observed.FAILED})


def give_up(
    workspace: WorkspaceView, node: NodeView, now: datetime, limits: Limits, breaker_open: bool
) -> Abandon | None:
    """What ends the placement on this silent node, or None while it has to be waited for."""
    placement = workspace.placement
    if placement is None:
        return None
    if node.lost:
        proof, reason = Proof.DECLARED_LOST, f"{node.id} was declared lost"
    elif not breaker_open and _has_fenced_itself(workspace, node, now, limits):
        proof = Proof.SELF_FENCED
        reason = f"{node.id} is silent and has stopped the pods by itself; they asked to go on elsewhere"
    else:
        return None
    return Abandon(workspace.id, node.id, placement.epoch, proof, limits.failover_after, reason)


def is_awaited(workspace: WorkspaceView) -> bool:
    """Somebody is wanted running, and all pods that may be running have asked to go on elsewhere."""
    wanted = [pod for pod in workspace.pods if pod.failover is Failover.FROM_LAST_ARCHIVE]
    return bool(wanted) and all(_is_fenced(pod) for pod in workspace.pods)


def _is_fenced(pod: PodView) -> bool:
    """It has asked for failover; and if it may be running, it was started with a fence."""
    if pod.failover is not Failover.FROM_LAST_ARCHIVE:
        return False
    up = pod.observed is not None and pod.observed.state in _UP
    return not up or (pod.observed is not None and pod.observed.self_fence_s is not None)


def _starts_unfenced(pod: PodView) -> bool:
    action = pod.open_action
    return action is not None and action.verb is Verb.START_POD and action.generation != pod.generation


def _has_fenced_itself(workspace: WorkspaceView, node: NodeView, now: datetime, limits: Limits) -> bool:
    if node.last_seen_at is None or not is_awaited(workspace):
        return False
    # A start that was asked for before failover was: it may be happening this very moment, without a fence.
    if any(_starts_unfenced(pod) for pod in workspace.pods):
        return False
    return now - node.last_seen_at > limits.failover_after
