"""What the planner does about a step that was taken back: nothing follows until its node has answered."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.plan import plan
from state.model import OpenAction, World
from tests.support.worlds import LIMITS, NOW, draw_worlds

laws = settings(max_examples=100, deadline=None)


def _taken_back(action: OpenAction | None) -> OpenAction | None:
    return replace(action, taken_back=True) if action else None


def _all_taken_back(world: World) -> World:
    workspaces = tuple(
        replace(
            workspace,
            open_action=_taken_back(workspace.open_action),
            pods=tuple(replace(pod, open_action=_taken_back(pod.open_action)) for pod in workspace.pods),
        )
        for workspace in world.workspaces
    )
    return replace(world, workspaces=workspaces)


@laws
@given(draw_worlds().map(_all_taken_back))
def test_what_was_taken_back_is_not_taken_back_again(world: World) -> None:
    """It has been said; asking twice would wake everybody for nothing."""
    assert plan(world, NOW, LIMITS).take_backs == ()


@laws
@given(draw_worlds(), st.booleans())
def test_a_placement_is_not_freed_while_its_node_has_something_in_hand(world: World, taken: bool) -> None:
    """LAW 11: what a node may still be making would be left there, for nobody."""
    world = _all_taken_back(world) if taken else world
    busy = {workspace.id for workspace in world.workspaces if workspace.open_action}
    busy |= {workspace.id for workspace in world.workspaces if any(pod.open_action for pod in workspace.pods)}

    released = {release.workspace_id for release in plan(world, NOW, LIMITS).releases}

    assert not busy & released
