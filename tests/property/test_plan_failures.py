"""What a failed workspace holds back, and what makes its failure void."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings

from reconciler.plan import plan
from state.model import Desired, Failure, Placement, PodView, Verb, WorkspaceView, World
from state.plan import Condition
from tests.support.worlds import LIMITS, NOW, draw_worlds, live_node

AN_INSTANT = timedelta(microseconds=1)
FAILED = Failure(
    verb=Verb.CREATE_WORKSPACE,
    code="disk_full",
    message="The disk is full. Free some of it.",
    count=1,
    generation=0,
    permanent=True,
    failed_at=NOW - timedelta(minutes=1),
    retry_at=NOW + timedelta(minutes=9),
)
WAITING = WorkspaceView(
    id="w-1",
    user_id="alice",
    epoch=3,
    pods=(PodView("p-1", "hello", "codepods-pod:1", Desired.RUNNING, 1),),
    placement=Placement("node-1", 3),
    failure=FAILED,
)


def _world(workspace: WorkspaceView) -> World:
    return World({"node-1": live_node("node-1")}, (workspace,), NOW - timedelta(hours=1))


@settings(max_examples=100, deadline=None)
@given(draw_worlds())
def test_a_workspace_whose_failure_is_older_than_a_wish_is_planned_as_if_it_had_none(world: World) -> None:
    """And one that failed since the newest wish is asked for nothing until its time."""
    failure = replace(FAILED, failed_at=NOW - AN_INSTANT)
    asked = tuple(replace(w, failure=failure, wished_at=NOW) for w in world.workspaces)
    failed = tuple(replace(w, wished_at=failure.failed_at) for w in asked)
    sound = tuple(replace(w, failure=None, wished_at=NOW) for w in world.workspaces)

    tried = plan(replace(world, workspaces=asked), NOW, LIMITS)
    held = plan(replace(world, workspaces=failed), NOW, LIMITS)

    assert tried == plan(replace(world, workspaces=sound), NOW, LIMITS)
    assert all(step.pod_id is not None for step in held.steps)


def test_a_workspace_that_cannot_come_parks_its_pods_with_the_reason() -> None:
    """They are looked at again when its next try is due, or when something is wished anew."""
    result = plan(_world(replace(WAITING, wished_at=FAILED.failed_at)), NOW, LIMITS)

    (decision,) = result.decisions
    assert (decision.condition, decision.wake_at) == (Condition.PARKED, FAILED.retry_at)
    assert "disk_full" in decision.reason
    assert result.steps == ()


def test_asking_again_brings_the_workspace_at_once() -> None:
    """The wish came after the failure: its step is enqueued, whatever the back-off said."""
    result = plan(_world(replace(WAITING, wished_at=FAILED.failed_at + AN_INSTANT)), NOW, LIMITS)

    assert [step.step.verb for step in result.steps] == [Verb.CREATE_WORKSPACE]
