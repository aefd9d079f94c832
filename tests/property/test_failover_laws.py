"""The laws of giving up a silent node's placements (LAW 6), for any world."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.plan import plan
from state.model import Failover, Observed, ObservedPod, Placement, PodView, WorkspaceView, World
from state.plan import Proof
from tests.support.worlds import LIMITS, NOW, draw_pods, live_node

ON_NODE = Placement("node-1", 3)
UP = {Observed.RUNNING, Observed.STARTING, Observed.STOPPING, Observed.FAILED}


@st.composite
def draw_silent_worlds(draw: st.DrawFn) -> World:
    """One user on a node that has been silent for a while, beside a live one."""
    pods = tuple(draw_failing_over(draw, f"p-{index}") for index in range(draw(st.integers(1, 3))))
    workspace = WorkspaceView("w-1", "alice", epoch=3, pods=pods, placement=ON_NODE)
    heard = NOW - timedelta(seconds=draw(st.integers(0, 300)))
    node = replace(live_node("node-1"), last_seen_at=heard, lost=draw(st.integers(0, 3)) == 0)
    nodes = {"node-1": node, "node-2": live_node("node-2"), "node-3": live_node("node-3")}
    leading_since = NOW - timedelta(seconds=draw(st.sampled_from([0, 60, 600, 600, 600])))
    return World(nodes, (workspace,), leading_since)


def draw_failing_over(draw: st.DrawFn, pod_id: str) -> PodView:
    """A pod on the silent node, with or without a wish to go on elsewhere."""
    pod = draw(draw_pods(pod_id, ON_NODE))
    seen = pod.observed and replace(pod.observed, self_fence_s=draw(st.sampled_from([60, 60, 60, None])))
    asks = [Failover.FROM_LAST_ARCHIVE] * 7 + [Failover.WAIT]  # one that waits holds up all of them
    return replace(pod, failover=draw(st.sampled_from(asks)), observed=seen)


@given(draw_silent_worlds())
@settings(max_examples=400)
def test_a_placement_is_given_up_only_with_proof(world: World) -> None:
    """A person's word, or the fences of all pods that may run and a silence longer than they need (LAW 6)."""
    node = world.nodes["node-1"]
    assert node.last_seen_at is not None
    (workspace,) = world.workspaces
    silent_for = NOW - max(node.last_seen_at, world.leading_since)
    for line in plan(world, NOW, LIMITS).abandons:
        assert silent_for > LIMITS.node_silent_after
        if line.proof is Proof.DECLARED_LOST:
            assert node.lost
        else:
            assert NOW - node.last_seen_at > LIMITS.failover_after
            assert all(pod.failover is Failover.FROM_LAST_ARCHIVE for pod in workspace.pods)
            assert all(pod.observed.self_fence_s for pod in workspace.pods if _may_run(pod.observed))


@given(draw_silent_worlds())
def test_nothing_is_done_on_a_node_that_is_given_up(world: World) -> None:
    """It gets no steps, and its users are placed by a later pass only, at a higher epoch (LAW 5)."""
    planned = plan(world, NOW, LIMITS)
    if planned.abandons:
        assert not planned.places
        assert not planned.steps
        assert len(planned.decisions) == len(world.workspaces[0].pods)


@given(draw_silent_worlds())
def test_a_person_s_word_is_enough(world: World) -> None:
    """Whatever the pods wish, and whatever was under way: everybody on a lost node goes on."""
    lost = {**world.nodes, "node-1": replace(world.nodes["node-1"], lost=True, last_seen_at=None)}
    world = replace(world, nodes=lost, leading_since=NOW - timedelta(minutes=5))

    assert [line.workspace_id for line in plan(world, NOW, LIMITS).abandons] == ["w-1"]


@given(draw_silent_worlds())
def test_when_most_nodes_are_silent_only_a_person_s_word_counts(world: World) -> None:
    """Then it is rather us (LAW 13)."""
    silent = replace(live_node("node-2"), last_seen_at=NOW - timedelta(minutes=10))
    world = replace(world, nodes={"node-1": world.nodes["node-1"], "node-2": silent})
    planned = plan(world, NOW, LIMITS)
    if planned.breaker_open:
        assert all(line.proof is Proof.DECLARED_LOST for line in planned.abandons)


def _may_run(observed: ObservedPod | None) -> bool:
    return observed is not None and observed.state in UP
