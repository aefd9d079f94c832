"""A node that is silent, declared lost, back again: on a real database, with nodes that are scripted."""

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.plan import plan
from state import nodes, pods
from state.database import Database
from state.delivery import epochs_ahead
from state.model import Desired, Observed
from state.outbox import record
from state.snapshot import database_clock, page_workspaces, read_world
from tests.support.control import LIMITS, Control
from tests.support.scripted_node import ScriptedNode

FAILING_OVER = replace(LIMITS, self_fence_after=timedelta(seconds=60), failover_after=timedelta(seconds=120))


def quiet_for(control: Control, node: ScriptedNode, silence: timedelta) -> None:
    """The node was last heard so long ago, and we have led for longer."""
    with control.db.transaction() as conn:
        conn.execute(
            "UPDATE node_lease SET last_seen_at = clock_timestamp() - %s WHERE node_id = %s",
            (silence, node.node_id),
        )
    longer = control.leading.since - silence - timedelta(minutes=1)
    control.leading = replace(control.leading, since=longer)


def saved_then_running(control: Control, *all_nodes: ScriptedNode) -> str:
    """A pod on node-1 that has an archive, and has been started again since."""
    pod_id = control.pod("alice")
    for desired in (Desired.RUNNING, Desired.ARCHIVED, Desired.RUNNING):
        control.want(pod_id, desired)
        control.settle(*all_nodes)
    return pod_id


@pytest.fixture
def one(control: Control) -> ScriptedNode:
    """The node that will be lost."""
    return control.join("node-1")


def test_a_lost_node_s_user_goes_on_elsewhere_from_the_last_archive(
    control: Control, one: ScriptedNode
) -> None:
    """A person's word is proof (LAW 6); what is gone is said; the epoch shuts the old node out (LAW 5)."""
    pod_id = saved_then_running(control, one)
    other = control.join("node-2")
    quiet_for(control, one, timedelta(minutes=2))
    control.resync()
    assert "podctl nodes lost node-1" in control.pod_row(pod_id)["reason"]
    assert control.row("SELECT actual FROM pod_status")["actual"] == "unknown"

    lost = nodes.declare_lost(control.db, "node-1", "the host has burnt down", actor="carol")
    assert (lost.lost, lost.cordoned) == (True, True)
    verbs = control.settle(other)

    assert verbs == ["restore_workspace", "restore_pod", "start_pod"]
    assert other.pods[pod_id].state is Observed.RUNNING
    assert other.pods[pod_id].epoch > one.pods[pod_id].epoch + 1
    told = {(event["pod_id"], event["to_value"]) for event in control.events("given_up")}
    assert told == {(pod_id, "archive 1"), (None, "archive 1")}
    assert all("on that node's disk alone" in event["reason"] for event in control.events("given_up"))
    assert control.events("node")[-1]["actor"] == "carol"


def test_a_lost_node_that_comes_back_changes_nothing(control: Control, one: ScriptedNode) -> None:
    """Its late results are not used, what runs there learns the newer epoch, and no copy goes (LAW 9)."""
    pod_id = saved_then_running(control, one)
    other = control.join("node-2")
    control.want(pod_id, Desired.STOPPED)
    control.tick()
    control.sync(one)
    quiet_for(control, one, timedelta(minutes=2))
    nodes.declare_lost(control.db, "node-1", "gone", actor="carol")
    control.want(pod_id, Desired.RUNNING)
    control.settle(other)
    before = pods.get_pod(control.db, pod_id)

    ahead = epochs_ahead(control.db, one.node_id, one.report())
    assert ahead == {other.pods[pod_id].workspace_id: other.pods[pod_id].epoch}
    one.perform()  # the stop that it was given before it fell silent
    control.settle(one, other)

    assert pods.get_pod(control.db, pod_id) == before
    assert pod_id in one.pods
    assert len(control.events("stale_container")) >= 1
    assert (
        epochs_ahead(control.db, one.node_id, one.report()) == {}
    )  # it has stopped: there is nothing left to stop
    assert nodes.list_nodes(control.db)[0].lost is False


def test_the_api_itself_may_declare_a_node_lost_that_has_users(
    control: Control, one: ScriptedNode, database_url: str
) -> None:
    """The word comes through the API, which owns no workspace; its users come due all the same."""
    saved_then_running(control, one)
    quiet_for(control, one, timedelta(minutes=2))
    control.resync()
    with closing(Database(database_url, "api", pool_size=1)) as db:
        nodes.declare_lost(db, "node-1", "gone", actor="carol")

    assert control.tick().workspaces == 1


def test_a_node_that_answers_cannot_be_declared_lost(control: Control, one: ScriptedNode) -> None:
    """Its own word is better than a person's."""
    with pytest.raises(nodes.NodeAlive, match="cordon it"):
        nodes.declare_lost(control.db, "node-1", "I think so", actor="carol")
    with pytest.raises(nodes.NodeNotFound):
        nodes.declare_lost(control.db, "node-9", "I think so", actor="carol")


def test_a_plan_to_give_up_a_node_that_has_just_answered_is_void(control: Control, one: ScriptedNode) -> None:
    """The proof is looked at again at the moment of the write (LAW 5)."""
    pod_id = saved_then_running(control, one)
    quiet_for(control, one, timedelta(minutes=2))
    nodes.declare_lost(control.db, "node-1", "gone", actor="carol")
    now = database_clock(control.db)
    world = read_world(control.db, page_workspaces(control.db, "", 10), control.leading.since)
    decided = plan(world, now, LIMITS)
    assert len(decided.abandons) == 1
    control.sync(one)
    record(control.db, decided, control.leading.leadership, now)

    assert control.row("SELECT count(*) AS live FROM placement WHERE released_at IS NULL")["live"] == 1
    assert pod_id in one.pods


def test_a_pod_that_asked_for_it_goes_on_by_itself(db: Database) -> None:
    """It was started with a fence; its node has been silent for longer than that needs."""
    control = Control(db, FAILING_OVER)
    one = control.join("node-1")
    pod_id = saved_then_running(control, one)
    control.rows("UPDATE pod SET failover = 'from_last_archive' WHERE id = %s", pod_id)
    control.want(pod_id, Desired.STOPPED)
    control.settle(one)
    control.want(pod_id, Desired.RUNNING)
    control.settle(one)
    assert one.pods[pod_id].self_fence_s == 60
    other, third = control.join("node-2"), control.join("node-3")

    quiet_for(control, one, timedelta(seconds=100))
    control.resync()
    assert "goes on elsewhere" in control.pod_row(pod_id)["reason"]
    quiet_for(control, one, timedelta(seconds=121))
    control.resync()
    control.settle(other, third)

    assert pod_id in {*other.pods, *third.pods}
    assert {event["detail"]["proof"] for event in control.events("given_up")} == {"self_fenced"}


def test_a_pod_that_did_not_ask_is_waited_for(control: Control, one: ScriptedNode) -> None:
    """However long: the newest files are on that disk (LAW 6)."""
    saved_then_running(control, one)
    other = control.join("node-2")
    quiet_for(control, one, timedelta(days=30))
    control.resync()

    assert control.settle(other) == []
    assert control.events("given_up") == []
