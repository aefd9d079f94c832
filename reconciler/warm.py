"""Saving a stopped pod ahead of its archival, while it stays where it is: warm stop. Pure.

It is work nobody waits for, so it yields: to a start at once (it is taken back), and to all else by the share
of a node's open actions that it may add to. When the pod is then wanted archived, or its node is lost, its
archive is there already.
"""

from collections.abc import Sequence
from datetime import datetime

from reconciler.classify import Facts
from state.model import Desired, Limits, NodeView, Observed, WorkspaceObserved, WorkspaceView

# A node with a larger share of its open actions in use is asked for nothing that can wait.
OPEN_ACTIONS_SHARE_MAX = 0.25

_RESTING = frozenset({Observed.STOPPED, Observed.ABSENT})


def pod_due_at(facts: Facts) -> datetime | None:
    """When this pod, settled as stopped, is to be saved ahead; None if it is not, or is already."""
    pod, limits = facts.pod, facts.limits
    if limits.warm_after is None or pod.desired is not Desired.STOPPED or pod.restoration:
        return None
    seen = pod.observed
    if seen is None or seen.state is not Observed.STOPPED or seen.since is None or facts.archived_as_is:
        return None
    return seen.since + limits.warm_after


def volume_due_at(workspace: WorkspaceView, all_facts: Sequence[Facts], limits: Limits) -> datetime | None:
    """When the volume of pods that all rest is to be saved ahead; None if it is not, or is already."""
    seen = workspace.observed
    if limits.warm_after is None or seen is None or volume_in_use(all_facts):
        return None
    if seen.state is not WorkspaceObserved.PRESENT or seen.fingerprint is None:
        return None
    if workspace.archive is not None and workspace.archive.fingerprint == seen.fingerprint:
        return None
    stopped = [facts.pod.observed for facts in all_facts if facts.state is Observed.STOPPED]
    since = [seen_pod.since for seen_pod in stopped if seen_pod and seen_pod.since]
    if len(since) < len(stopped) or not since:
        return None
    return max(since) + limits.warm_after


def volume_in_use(all_facts: Sequence[Facts]) -> bool:
    """Some pod runs, is wanted running, or is about to come or change."""
    return any(
        facts.must_exist
        or facts.pod.desired is Desired.RUNNING
        or facts.state not in _RESTING
        or bool(facts.pod.restoration)
        for facts in all_facts
    )


def has_room(node: NodeView, limits: Limits) -> bool:
    """Whether the node has little enough to do."""
    return node.open_actions < OPEN_ACTIONS_SHARE_MAX * limits.open_actions_per_node_max
