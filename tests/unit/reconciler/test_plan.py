"""What the planner decides in a few small worlds, to be read. Its laws: tests/property/test_plan_laws.py."""

from dataclasses import replace
from datetime import timedelta

from reconciler.plan import plan
from state.model import (
    Desired,
    NodeView,
    Observed,
    ObservedPod,
    OpenAction,
    Placement,
    PodView,
    Verb,
    WorkspaceView,
    World,
)
from state.plan import Condition
from tests.support.worlds import LIMITS, NOW, archive_ref, live_node


def _world(workspace: WorkspaceView, *nodes: NodeView) -> World:
    return World({node.id: node for node in nodes}, (workspace,), NOW - timedelta(hours=1))


def _pod(**changes: object) -> PodView:
    pod = PodView(id="p-1", name="hello", image="codepods-pod:1", desired=Desired.RUNNING, generation=1)
    return replace(pod, **changes)  # type: ignore[arg-type]


def _workspace(pod: PodView, placement: Placement | None = None) -> WorkspaceView:
    return WorkspaceView(
        id="w-1", user_id="alice", epoch=placement.epoch if placement else 0, pods=(pod,), placement=placement
    )


def test_a_new_pod_is_placed_where_there_is_most_room() -> None:
    """A first start needs a node; the emptier one is taken."""
    full = live_node("node-1", reserved=live_node().capacity)

    result = plan(_world(_workspace(_pod()), full, live_node("node-2")), NOW, LIMITS)

    assert [place.node_id for place in result.places] == ["node-2"]
    assert [decision.condition for decision in result.decisions] == [Condition.NEEDS_PLACEMENT]


def test_without_room_the_pod_waits_and_says_so() -> None:
    """No node has room: the reason says what it waits for, and when it is looked at again."""
    result = plan(_world(_workspace(_pod()), live_node(cordoned=True)), NOW, LIMITS)

    (decision,) = result.decisions
    assert decision.condition is Condition.WAITING_FOR_CAPACITY
    assert "none of 1 live nodes has room" in decision.reason
    assert decision.wake_at is not None


def test_a_start_takes_back_an_archive_in_flight() -> None:
    """Somebody opens the pod while it is being saved: the saving stops, nothing is lost."""
    action = OpenAction("act-1", Verb.ARCHIVE_POD, "node-1", 3, 1, NOW)
    pod = _pod(open_action=action, observed=ObservedPod(Observed.ARCHIVING, "node-1", 3))

    result = plan(_world(_workspace(pod, Placement("node-1", 3)), live_node()), NOW, LIMITS)

    assert [take_back.action_id for take_back in result.take_backs] == ["act-1"]
    assert not result.steps


def test_a_container_changed_after_its_archive_is_archived_again() -> None:
    """The fingerprint in the archive is not the container's: it is saved again, never removed."""
    pod = _pod(
        desired=Desired.ARCHIVED,
        archive=archive_ref("p-1", "old"),
        observed=ObservedPod(Observed.STOPPED, "node-1", 3, "c1", fingerprint="new"),
    )

    result = plan(_world(_workspace(pod, Placement("node-1", 3)), live_node()), NOW, LIMITS)

    assert [step.step.verb for step in result.steps] == [Verb.ARCHIVE_POD]


def test_a_fresh_leader_grants_every_node_a_new_lease() -> None:
    """After the control plane was away, no node is called silent for words nobody was there to hear."""
    long_ago = live_node(last_seen_at=NOW - timedelta(hours=2))
    pod = _pod(observed=ObservedPod(Observed.RUNNING, "node-1", 3))
    world = _world(_workspace(pod, Placement("node-1", 3)), long_ago)

    fresh = plan(replace(world, leading_since=NOW - timedelta(seconds=5)), NOW, LIMITS)
    seasoned = plan(world, NOW, LIMITS)

    assert [decision.condition for decision in fresh.decisions] == [Condition.SETTLED]
    assert [decision.condition for decision in seasoned.decisions] == [Condition.NODE_SILENT]


def test_a_herd_is_let_in_a_few_at_a_time() -> None:
    """LAW 15: twenty pods wanted on one node are started four at a time, the rest know that they wait."""
    stopped = ObservedPod(Observed.STOPPED, "node-1", 3, "c1", fingerprint="f1")
    workspaces = tuple(
        replace(_workspace(_pod(id=f"p-{n}", observed=stopped), Placement("node-1", 3)), id=f"w-{n}")
        for n in range(20)
    )
    world = World({"node-1": live_node()}, workspaces, NOW - timedelta(hours=1))

    result = plan(world, NOW, LIMITS)
    bounded = plan(world, NOW, replace(LIMITS, actions_per_pass_max=3))

    assert len(result.steps) == LIMITS.open_starts_per_node_max
    assert len(bounded.steps) == 3
    waiting = [d for d in result.decisions if d.condition is Condition.WAITING_FOR_TURN]
    assert len(waiting) == 20 - LIMITS.open_starts_per_node_max
