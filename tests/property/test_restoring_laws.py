"""Going back to an earlier archive, planned for every world.

The present is saved first, and it comes to an end.
"""

import itertools
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.plan import plan
from state.model import Desired, Observed, PodView, Restoration, Verb, WorkspaceView, World
from state.plan import Plan
from state.recovery import is_broken
from tests.support.obedience import ROUNDS_MAX, assert_as_desired, is_quiet, without_trouble
from tests.support.worlds import LIMITS, NOW, archive_ref, carry_out, draw_worlds, every_lone_pod, live_node

_ASIDE = {Verb.STOP_POD, Verb.ARCHIVE_POD, Verb.REMOVE_POD}
_FILES_ASIDE = {Verb.ARCHIVE_WORKSPACE, Verb.REMOVE_WORKSPACE}
laws = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def worlds_that_go_back(draw: st.DrawFn) -> World:
    """Any world, in which some pods and some users' files are wished back to archive number 7."""
    world = draw(draw_worlds())
    workspaces = tuple(_wished(draw, workspace) for workspace in world.workspaces)
    return replace(world, workspaces=workspaces)


def _wished(draw: st.DrawFn, workspace: WorkspaceView) -> WorkspaceView:
    pods = tuple(
        replace(pod, restoration=Restoration(1, f"old-{pod.id}", 7) if draw(st.booleans()) else None)
        for pod in workspace.pods
    )
    wish = Restoration(2, f"old-{workspace.id}", 7) if draw(st.booleans()) else None
    return replace(workspace, pods=pods, restoration=wish)


def _going(world: World) -> dict[str, tuple[WorkspaceView, PodView]]:
    """The pods that go back, or whose files do."""
    return {
        pod.id: (workspace, pod)
        for workspace in world.workspaces
        for pod in workspace.pods
        if (pod.restoration or workspace.restoration) and pod.desired is not Desired.DELETED
    }


@laws
@given(worlds_that_go_back())
def test_the_pointer_moves_only_when_nothing_is_left_on_a_node(world: World) -> None:
    """What the pod or the volume held is in an archive then, by the proof that removed it."""
    workspaces = {workspace.id: workspace for workspace in world.workspaces}
    for line in plan(world, NOW, LIMITS).go_backs:
        workspace = workspaces[line.workspace_id]
        if line.pod_id is None:
            assert workspace.placement is None
            assert workspace.open_action is None
            continue
        pod = next(pod for pod in workspace.pods if pod.id == line.pod_id)
        assert pod.observed is None or pod.observed.state is Observed.ABSENT
        assert pod.open_action is None
        assert line.archive_id_before == (pod.archive.id if pod.archive else None)
        node = world.nodes.get(workspace.placement.node_id) if workspace.placement else None
        assert workspace.placement is None or (node is not None and node.engine_error is None)


def test_no_lone_pod_goes_back_while_it_has_a_container() -> None:
    """Each combination of wish, sight, archive and open action for one pod."""
    for world in every_lone_pod():
        (workspace,) = world.workspaces
        (pod,) = workspace.pods
        going = replace(pod, restoration=Restoration(1, "old-p-1", 7))
        result = plan(replace(world, workspaces=(replace(workspace, pods=(going,)),)), NOW, LIMITS)
        there = pod.observed is not None and pod.observed.state is not Observed.ABSENT
        free = not there and pod.open_action is None and pod.desired is not Desired.DELETED
        assert len(result.go_backs) == free


@laws
@given(worlds_that_go_back())
def test_what_goes_back_is_only_put_away_meanwhile(world: World) -> None:
    """Nothing is started or brought back before it has gone back, and nobody is told that it is settled."""
    result, going = plan(world, NOW, LIMITS), _going(world)
    for step in result.steps:
        if step.pod_id in going:
            assert step.step.verb in _ASIDE
    for workspace in world.workspaces:
        if workspace.restoration:
            verbs = {step.step.verb for step in result.steps if step.workspace_id == workspace.id}
            assert verbs <= _ASIDE | _FILES_ASIDE
    for decision in result.decisions:
        assert decision.pod_id not in going or not decision.satisfied


@laws
@given(worlds_that_go_back())
def test_obedient_nodes_bring_everybody_back_and_then_to_what_is_wished(world: World) -> None:
    """Convergence: each wish is met, from the archive that was wished, and all is as desired again."""
    nodes = {node_id: live_node(node_id) for node_id in ["node-gone", "node-9", *world.nodes]}
    workspaces = tuple(map(without_trouble, world.workspaces))
    now, world, counter = NOW, replace(world, nodes=nodes, workspaces=workspaces), itertools.count(1).__next__
    for _ in range(2 * ROUNDS_MAX):
        result = plan(world, now, LIMITS)
        if _at_rest(result):
            break
        now += timedelta(seconds=6)
        world = _gone_back(carry_out(world, result, now, counter), result)
    assert _at_rest(result), result.fields()
    for workspace in world.workspaces:
        assert workspace.restoration is None
        for pod in workspace.pods:
            assert pod.restoration is None or pod.desired is Desired.DELETED
            assert_as_desired(workspace, pod)


def _at_rest(result: Plan) -> bool:
    return is_quiet(result) and not result.go_backs


def _gone_back(world: World, result: Plan) -> World:
    """The world after the pointers were moved."""
    moved = {line.pod_id or line.workspace_id for line in result.go_backs}
    workspaces = []
    for workspace in world.workspaces:
        pods = tuple(_moved_pod(pod) if pod.id in moved else pod for pod in workspace.pods)
        after = replace(workspace, pods=pods)
        if workspace.id in moved:
            archive = archive_ref(workspace.id, "old", number=7)
            after = replace(after, archive=archive, restoration=None)
        workspaces.append(after)
    return replace(world, workspaces=tuple(workspaces))


def _moved_pod(pod: PodView) -> PodView:
    assert pod.restoration is not None
    if pod.restoration.archive_id is None:
        return replace(pod, restoration=None)
    return replace(pod, archive=archive_ref(pod.id, "old", number=7), restoration=None)


@laws
@given(draw_worlds(), st.data())
def test_from_any_world_recovering_and_healthy_nodes_converge(world: World, data: st.DataObject) -> None:
    """Whatever was stuck or parked: recovered, and with nodes that obey, all becomes as desired."""
    nodes = {node_id: live_node(node_id) for node_id in ["node-gone", "node-9", *world.nodes]}
    recovered = tuple(_recovered(data.draw, workspace) for workspace in world.workspaces)
    now, world, counter = NOW, replace(world, nodes=nodes, workspaces=recovered), itertools.count(1).__next__
    for _ in range(2 * ROUNDS_MAX):
        result = plan(world, now, LIMITS)
        if _at_rest(result):
            break
        now += timedelta(seconds=6)
        world = _gone_back(carry_out(world, result, now, counter), result)
    assert _at_rest(result), result.fields()
    for workspace in world.workspaces:
        for pod in workspace.pods:
            assert_as_desired(workspace, pod)


def _recovered(draw: st.DrawFn, workspace: WorkspaceView) -> WorkspaceView:
    """As `recover` leaves it: a new generation, and made anew where the container does not work."""
    failures = {pod.id: pod.failure for pod in workspace.pods}
    healthy = without_trouble(workspace)
    pods = []
    for pod in healthy.pods:
        state = pod.observed.state if pod.observed else Observed.ABSENT
        broken = is_broken(draw(st.sampled_from(["failed", state])), failures[pod.id])
        anew = (
            Restoration(3, None, 0) if broken and pod.desired in (Desired.RUNNING, Desired.STOPPED) else None
        )
        pods.append(replace(pod, generation=pod.generation + 1, failure=failures[pod.id], restoration=anew))
    return replace(healthy, pods=tuple(pods), failure=workspace.failure, wished_at=NOW + timedelta(seconds=1))
