"""The planner's laws, over random worlds. Each names the LAW of docs/architecture.md that it guards."""

import random
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.classify import is_silent
from reconciler.plan import plan
from state.model import (
    WITHDRAWING_VERBS,
    Desired,
    Limits,
    Observed,
    Placement,
    PodView,
    Verb,
    WorkspaceView,
    World,
)
from state.plan import Condition
from state.wire import ArchiveProof, RemovePod, RemoveWorkspace, TombstoneProof
from tests.support.obedience import assert_as_desired, converge, is_quiet, without_trouble
from tests.support.worlds import LIMITS, NOW, draw_worlds, every_lone_pod, live_node

# So many of each that no drawn world reaches a bound of the pass.
ABUNDANT = replace(LIMITS, open_starts_per_node_max=1000, open_actions_per_node_max=1000)


laws = settings(max_examples=100, deadline=None)


def _pods(world: World) -> dict[str, tuple[WorkspaceView, PodView]]:
    return {pod.id: (workspace, pod) for workspace in world.workspaces for pod in workspace.pods}


def _silent(world: World, node_id: str) -> bool:
    return is_silent(world.nodes.get(node_id), world.leading_since, NOW, LIMITS)


@laws
@given(draw_worlds())
def test_every_pod_gets_exactly_one_reason(world: World) -> None:
    """LAW 2: a plan explains every pod, also those it leaves alone."""
    result = plan(world, NOW, LIMITS)

    assert sorted(_pods(world)) == sorted(decision.pod_id for decision in result.decisions)
    assert all(decision.reason for decision in result.decisions)


@laws
@given(draw_worlds(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_verdict_where_nothing_is_scarce(
    world: World, rng: random.Random
) -> None:
    """LAW 2: deterministic, and independent of the order in which a query returned its rows."""
    roomy = {
        node.id: replace(live_node(node.id), last_seen_at=node.last_seen_at) for node in world.nodes.values()
    }
    world = replace(world, nodes=roomy)
    shuffled = list(world.workspaces)
    rng.shuffle(shuffled)

    first = plan(world, NOW, ABUNDANT)
    second = plan(replace(world, workspaces=tuple(shuffled)), NOW, ABUNDANT)

    assert plan(world, NOW, ABUNDANT) == first
    assert {d.pod_id: d.condition for d in first.decisions} == {
        d.pod_id: d.condition for d in second.decisions
    }


@laws
@given(draw_worlds())
def test_one_open_action_for_each_target(world: World) -> None:
    """LAW 11: nothing is enqueued for a target that has an action open, and never two at once."""
    result = plan(world, NOW, LIMITS)

    busy = {w.id for w in world.workspaces if w.open_action}
    busy |= {pod.id for _, pod in _pods(world).values() if pod.open_action}
    targets = [step.target for step in result.steps]
    assert not busy.intersection(targets)
    assert len(targets) == len(set(targets))


@laws
@given(draw_worlds())
def test_a_silent_node_is_asked_nothing_and_nobody_is_moved(world: World) -> None:
    """LAW 6: unknown is not stopped. A placed user stays placed, whatever the silence."""
    result = plan(world, NOW, LIMITS)

    assert not any(_silent(world, step.node_id) for step in result.steps)
    placed = {workspace.id for workspace in world.workspaces if workspace.placement}
    assert not placed.intersection(place.workspace_id for place in result.places)
    for release in result.releases:
        assert not _silent(world, release.node_id)


@laws
@given(draw_worlds())
def test_a_node_whose_engine_is_away_is_asked_nothing(world: World) -> None:
    """LAW 9: what cannot be seen is neither there nor gone. Nobody is placed there, nobody freed."""
    result = plan(world, NOW, LIMITS)

    away = {node.id for node in world.nodes.values() if node.engine_error}
    lines = (*result.steps, *result.places, *result.releases)
    assert not away.intersection(line.node_id for line in lines)


@laws
@given(draw_worlds())
def test_steps_carry_the_epoch_and_node_of_the_placement(world: World) -> None:
    """LAW 5: what a node is asked is fenced by the placement's own epoch."""
    workspaces = {workspace.id: workspace for workspace in world.workspaces}

    for step in plan(world, NOW, LIMITS).steps:
        assert workspaces[step.workspace_id].placement == Placement(step.node_id, step.epoch)


@laws
@given(draw_worlds())
def test_removal_only_with_a_matching_archive_or_a_tombstone(world: World) -> None:
    """LAW 8 and 9: a container goes only if archived as it is, or deleted; a volume only if archived."""
    pods = _pods(world)
    for step in plan(world, NOW, LIMITS).steps:
        if isinstance(step.step, RemovePod) and step.pod_id:
            _, pod = pods[step.pod_id]
            assert pod.observed is not None
            assert pod.observed.state is Observed.STOPPED
            if isinstance(step.step.proof, TombstoneProof):
                assert pod.desired is Desired.DELETED
            else:
                assert pod.archive is not None
                assert pod.observed.fingerprint == step.step.proof.fingerprint == pod.archive.fingerprint
        if isinstance(step.step, RemoveWorkspace):
            workspace = next(w for w in world.workspaces if w.id == step.workspace_id)
            assert isinstance(step.step.proof, ArchiveProof)
            assert workspace.observed is not None
            assert workspace.observed.fingerprint == step.step.proof.fingerprint
            assert all(p.observed is None or p.observed.state is Observed.ABSENT for p in workspace.pods)


@laws
@given(draw_worlds())
def test_only_confirmed_exits_are_archived(world: World) -> None:
    """LAW 7: no archive of a container that is not confirmed stopped, nor of a volume in use."""
    pods = _pods(world)
    for step in plan(world, NOW, LIMITS).steps:
        if step.step.verb == Verb.ARCHIVE_POD and step.pod_id:
            observed = pods[step.pod_id][1].observed
            assert observed is not None
            assert observed.state is Observed.STOPPED
        if step.step.verb == Verb.ARCHIVE_WORKSPACE:
            workspace = next(w for w in world.workspaces if w.id == step.workspace_id)
            resting = (Observed.ABSENT, Observed.STOPPED)
            assert all(p.observed is None or p.observed.state in resting for p in workspace.pods)


@laws
@given(draw_worlds())
def test_when_most_nodes_are_silent_nothing_is_taken_away(world: World) -> None:
    """LAW 13: if everything looks dead, suspect yourself."""
    silent = sum(_silent(world, node_id) for node_id in world.nodes)
    result = plan(world, NOW, LIMITS)

    assert result.breaker_open == (silent > 1 and silent > len(world.nodes) / 2)
    if result.breaker_open:
        assert not any(Verb(step.step.verb) in WITHDRAWING_VERBS for step in result.steps)


@laws
@given(draw_worlds())
def test_bounds_hold(world: World) -> None:
    """LAW 15: steps per pass, actions and starts per node, and room on nodes stay within their bounds."""
    limits = Limits(actions_per_pass_max=3)
    result = plan(world, NOW, limits)

    assert len(result.steps) <= 3
    for node in world.nodes.values():
        mine = [step for step in result.steps if step.node_id == node.id]
        starts = [step for step in mine if step.step.verb == Verb.START_POD]
        assert not mine or node.open_actions + len(mine) <= limits.open_actions_per_node_max
        assert not starts or node.open_starts + len(starts) <= limits.open_starts_per_node_max
    for place in result.places:
        node = world.nodes[place.node_id]
        assert not node.cordoned
        assert not _silent(world, node.id)


@laws
@given(draw_worlds())
def test_a_bad_neighbour_changes_nothing(world: World) -> None:
    """LAW 12: where nothing is scarce, a workspace's plan does not depend on the others."""
    roomy = {node_id: live_node(node_id) for node_id in world.nodes}
    world = replace(world, nodes=roomy)
    whole = plan(world, NOW, ABUNDANT)
    for workspace in world.workspaces:
        alone = plan(replace(world, workspaces=(workspace,)), NOW, ABUNDANT)
        assert [d.condition for d in alone.decisions] == [
            d.condition for d in whole.decisions if d.workspace_id == workspace.id
        ]


@laws
@given(draw_worlds())
def test_obedient_nodes_bring_every_pod_to_its_desired_state(world: World) -> None:
    """Convergence: with room, live nodes and no faults, all becomes as desired, and stays so."""
    nodes = {node_id: live_node(node_id) for node_id in ["node-gone", "node-9", *world.nodes]}
    healed = replace(world, nodes=nodes, workspaces=tuple(map(without_trouble, world.workspaces)))

    end, now, last = converge(healed)

    assert is_quiet(last), last.fields()
    again = plan(end, now + timedelta(hours=1), replace(LIMITS, node_silent_after=timedelta(days=1)))
    assert is_quiet(again)
    for workspace in end.workspaces:
        for pod in workspace.pods:
            assert_as_desired(workspace, pod)


# ---- the small space, exhausted ------------------------------------------------------------------------


def test_the_laws_hold_for_every_lone_pod() -> None:
    """LAW 5, 7, 8, 11: each combination of wish, sight, archive and open action for one pod."""
    for world in every_lone_pod():
        for law in (
            test_every_pod_gets_exactly_one_reason,
            test_one_open_action_for_each_target,
            test_removal_only_with_a_matching_archive_or_a_tombstone,
            test_only_confirmed_exits_are_archived,
            test_steps_carry_the_epoch_and_node_of_the_placement,
        ):
            law.hypothesis.inner_test(world)


def test_the_breaker_withholds_from_every_lone_pod() -> None:
    """LAW 13: with two of three nodes silent, nothing is stopped, saved or removed on the third either."""
    silent = [live_node(f"node-{n}", last_seen_at=NOW - timedelta(hours=1)) for n in (2, 3)]
    for world in every_lone_pod():
        half_dead = replace(world, nodes={**world.nodes, **{node.id: node for node in silent}})

        result = plan(half_dead, NOW, LIMITS)

        assert result.breaker_open
        assert not any(Verb(step.step.verb) in WITHDRAWING_VERBS for step in result.steps)


def test_nothing_is_done_for_a_lone_pod_whose_engine_is_away() -> None:
    """LAW 9: whatever is wished and was seen, nothing is concluded from what cannot be seen now."""
    for world in every_lone_pod():
        away = live_node(engine_error="The engine did not answer.")

        result = plan(replace(world, nodes={"node-1": away}), NOW, LIMITS)

        assert (result.steps, result.releases) == ((), ())
        assert [decision.condition for decision in result.decisions] == [Condition.ENGINE_AWAY]
