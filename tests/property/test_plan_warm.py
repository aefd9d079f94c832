"""Warm stop: what rests is saved ahead, and nobody ever waits for it."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, assume, given, settings

from reconciler.plan import plan
from reconciler.warm import OPEN_ACTIONS_SHARE_MAX
from state.model import (
    WITHDRAWING_VERBS,
    Desired,
    Observed,
    ObservedPod,
    ObservedWorkspace,
    OpenAction,
    Placement,
    PodView,
    Verb,
    WorkspaceObserved,
    WorkspaceView,
    World,
)
from state.plan import Condition, Plan
from tests.support.worlds import LIMITS, NOW, archive_ref, carry_out, draw_worlds, live_node

assert LIMITS.warm_after is not None
LONG_AGO = NOW - LIMITS.warm_after
COLD = replace(LIMITS, warm_after=None)
laws = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def resting(**changes: object) -> World:
    """One pod, stopped as desired for long enough, saved neither itself nor its workspace."""
    seen = ObservedPod(Observed.STOPPED, "node-1", 3, "c1", "sha256:image", "f1", since=LONG_AGO)
    pod = PodView("p-1", "hello", "codepods-pod:1", Desired.STOPPED, 1, observed=seen)
    pod = replace(pod, **changes)  # type: ignore[arg-type]
    volume = ObservedWorkspace(WorkspaceObserved.PRESENT, "node-1", 3, "v1")
    workspace = WorkspaceView("w-1", "alice", 3, (pod,), Placement("node-1", 3), volume)
    return World({"node-1": live_node("node-1")}, (workspace,), NOW - timedelta(hours=1))


def verbs(result: Plan) -> list[str]:
    """What is asked, sorted."""
    return sorted(step.step.verb for step in result.steps)


def test_a_pod_that_rests_is_saved_ahead_and_stays_settled() -> None:
    """Pod and workspace are both saved; the wish counts as satisfied all the while."""
    result = plan(resting(), NOW, LIMITS)

    assert verbs(result) == [Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE]
    assert [decision.condition for decision in result.decisions] == [Condition.SETTLED]


def test_it_waits_its_time_and_wakes_for_it() -> None:
    """A moment too early nothing is asked, and the next look is when it is due."""
    early = NOW - timedelta(seconds=1)

    result = plan(resting(), early, LIMITS)

    assert result.steps == ()
    assert [decision.wake_at for decision in result.decisions] == [NOW]
    assert [decision.wake_at for decision in result.workspace_decisions] == [NOW]


def test_then_archiving_saves_nothing_more() -> None:
    """Warmed, a pod that is wanted archived is only removed: no second upload, no wait."""
    warmed = carry_out(resting(), plan(resting(), NOW, LIMITS), NOW, iter(range(9)).__next__)
    assert plan(warmed, NOW, LIMITS).steps == ()
    [workspace] = warmed.workspaces
    pods = tuple(replace(pod, desired=Desired.ARCHIVED, generation=2) for pod in workspace.pods)
    wished = replace(warmed, workspaces=(replace(workspace, pods=pods),))

    assert verbs(plan(wished, NOW + timedelta(seconds=6), LIMITS)) == [Verb.REMOVE_POD]


def test_a_start_takes_it_back() -> None:
    """Both uploads under way are taken back in the very pass that sees the wish."""
    upload = OpenAction("a-1", Verb.ARCHIVE_POD, "node-1", 3, 1, NOW)
    world = resting(open_action=upload, desired=Desired.RUNNING, generation=2)
    [workspace] = world.workspaces
    volume_upload = replace(upload, id="a-2", verb=Verb.ARCHIVE_WORKSPACE)
    world = replace(world, workspaces=(replace(workspace, open_action=volume_upload),))

    result = plan(world, NOW, LIMITS)

    assert sorted(line.action_id for line in result.take_backs) == ["a-1", "a-2"]


def test_what_is_under_way_is_let_be_while_it_rests() -> None:
    """Nothing is taken back that was asked for: no upload is begun twice."""
    upload = OpenAction("a-1", Verb.ARCHIVE_POD, "node-1", 3, 1, NOW)
    world = resting(open_action=upload)
    [workspace] = world.workspaces
    volume_upload = replace(upload, id="a-2", verb=Verb.ARCHIVE_WORKSPACE)
    world = replace(world, workspaces=(replace(workspace, open_action=volume_upload),))

    assert plan(world, NOW, LIMITS).take_backs == ()


def test_a_busy_node_is_not_asked() -> None:
    """LAW 15: work that can wait leaves most of a node's open actions to work that cannot."""
    busy = int(OPEN_ACTIONS_SHARE_MAX * LIMITS.open_actions_per_node_max)
    world = replace(resting(), nodes={"node-1": live_node("node-1", open_actions=busy)})

    result = plan(world, NOW, LIMITS)

    assert result.steps == ()
    assert all(line.wake_at for line in (*result.decisions, *result.workspace_decisions))


@laws
@given(draw_worlds())
def test_it_changes_nobodys_condition(world: World) -> None:
    """Whatever the world: warm stop alters no condition, and holds back no step that is planned without it.

    One upload may be left under way that would have been taken back.
    """
    assume(all(node.open_actions == 0 for node in world.nodes.values()))
    warm, cold = plan(world, NOW, LIMITS), plan(world, NOW, COLD)

    assert [(line.pod_id, line.condition) for line in warm.decisions] == [
        (line.pod_id, line.condition) for line in cold.decisions
    ]
    extra = [step for step in warm.steps if step not in cold.steps]
    assert all(step in warm.steps for step in cold.steps)
    assert all(Verb(step.step.verb) in (Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE) for step in extra)
    assert not (warm.breaker_open and extra)


@laws
@given(draw_worlds())
def test_only_what_rests_is_saved_ahead(world: World) -> None:
    """No pod that is wanted running, and no volume of one, is ever touched by it."""
    cold = plan(world, NOW, COLD).steps
    pods = {pod.id: pod for workspace in world.workspaces for pod in workspace.pods}
    workspaces = {workspace.id: workspace for workspace in world.workspaces}
    for step in plan(world, NOW, LIMITS).steps:
        if step in cold:
            continue
        concerned = [pods[step.pod_id]] if step.pod_id else list(workspaces[step.workspace_id].pods)
        assert all(pod.desired is not Desired.RUNNING for pod in concerned)
        assert Verb(step.step.verb) in WITHDRAWING_VERBS


def test_a_saved_pod_is_not_saved_again() -> None:
    """The archive of this very container counts, however old it is."""
    world = resting(archive=archive_ref("p-1", "f1", 3600))
    assert verbs(plan(world, NOW, LIMITS)) == [Verb.ARCHIVE_WORKSPACE]
