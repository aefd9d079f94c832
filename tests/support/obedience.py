"""Worlds whose nodes do as they are asked, until nothing is left to do."""

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

from reconciler.plan import plan
from state.model import Desired, Observed, PodView, WorkspaceView, World
from state.plan import Condition, Plan
from tests.support.worlds import LIMITS, NOW, carry_out

ROUNDS_MAX = 60


def without_trouble(workspace: WorkspaceView) -> WorkspaceView:
    """Nothing under way, nothing failed, and nothing seen that cannot be."""
    pods = tuple(replace(_settled_state(pod), open_action=None, failure=None) for pod in workspace.pods)
    observed = workspace.observed
    if observed is not None and (observed.state != "present" or observed.fingerprint is None):
        observed = None
    used = any(pod.observed and pod.observed.state is not Observed.ABSENT for pod in pods)
    if used and workspace.placement and observed is None:
        pods = tuple(replace(pod, observed=None) for pod in pods)
    return replace(workspace, pods=pods, observed=observed, open_action=None, failure=None)


def _settled_state(pod: PodView) -> PodView:
    """Transitional states end by themselves: stand in for the node's next report."""
    if pod.observed is None or pod.observed.state in (Observed.RUNNING, Observed.ABSENT):
        return pod
    fingerprint = pod.observed.fingerprint or "f9"
    return replace(pod, observed=replace(pod.observed, state=Observed.STOPPED, fingerprint=fingerprint))


def converge(world: World) -> tuple[World, datetime, Plan]:
    """Where it ends, when, and the last plan; quiet unless it took too many rounds."""
    counter = itertools.count(1).__next__
    now = NOW
    result = plan(world, now, LIMITS)
    for _ in range(ROUNDS_MAX):
        if is_quiet(result):
            break
        now += timedelta(seconds=6)
        world = carry_out(world, result, now, counter)
        result = plan(world, now, LIMITS)
    return world, now, result


def is_quiet(result: Plan) -> bool:
    """Whether nothing is asked for and nothing waited for."""
    settled = all(decision.condition is Condition.SETTLED for decision in result.decisions)
    waiting = any(decision.wake_at for decision in result.workspace_decisions)
    return settled and not waiting and not (result.steps or result.places or result.releases)


def assert_as_desired(workspace: WorkspaceView, pod: PodView) -> None:
    """The pod is as wished, and a user of whom all is put away leaves the node free."""
    state = pod.observed.state if pod.observed else Observed.ABSENT
    if pod.desired is Desired.RUNNING:
        assert state is Observed.RUNNING
    elif pod.desired in (Desired.ARCHIVED, Desired.DELETED):
        assert state is Observed.ABSENT
    else:
        assert state in (Observed.STOPPED, Observed.ABSENT)
    if all(other.desired in (Desired.ARCHIVED, Desired.DELETED) for other in workspace.pods):
        assert workspace.placement is None, "an archived user must leave the node free"
