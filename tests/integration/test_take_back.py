"""Actions that nobody wants any more: what their node was given stays under way until the node answers."""

from datetime import timedelta

import pytest

from state.delivery import taken_back, undelivered
from state.model import Desired
from state.outbox import record
from state.plan import Plan, Release
from state.snapshot import database_clock
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """A node that has joined."""
    return control.join("node-1")


def making_a_volume(control: Control, node: ScriptedNode) -> tuple[str, str]:
    """A pod whose workspace is being made on the node; the pod's id and the action's."""
    pod_id = control.pod("alice")
    control.tick()
    control.tick()
    control.sync(node)
    (action_id,) = node.in_hand
    return pod_id, action_id


def state_of(control: Control, action_id: str) -> tuple[str, bool]:
    """The action's state, and whether it was taken back."""
    row = control.row("SELECT state, taken_back_at IS NOT NULL AS t FROM action WHERE id = %s", action_id)
    return row["state"], row["t"]


def test_what_no_node_was_given_is_closed_at_once(control: Control, node: ScriptedNode) -> None:
    """Nobody can be in the middle of it, and nobody will be given it."""
    pod_id = control.pod("alice")
    control.tick()
    control.tick()
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()

    row = control.row("SELECT id::text AS id, state FROM action")
    assert row["state"] == "superseded"
    assert undelivered(control.db, "node-1", ()) == ()
    assert taken_back(control.db, "node-1", ()) == ()


def test_what_a_node_was_given_stays_open_until_it_answers(control: Control, node: ScriptedNode) -> None:
    """Until then nothing follows, and the placement is not freed (LAW 11)."""
    pod_id, action_id = making_a_volume(control, node)
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()
    control.resync()

    assert state_of(control, action_id) == ("open", True)
    placement = control.row("SELECT workspace_id, node_id, epoch FROM placement WHERE released_at IS NULL")
    release = Release(**placement, reason="by a plan of the past")
    written = record(
        control.db, Plan(releases=(release,)), control.leading.leadership, database_clock(control.db)
    )
    assert written.releases == 0

    assert control.settle(node) == []
    assert state_of(control, action_id) == ("superseded", True)
    assert control.rows("SELECT * FROM placement WHERE released_at IS NULL") == []


def test_what_was_done_before_its_node_heard_is_put_away_again(control: Control, node: ScriptedNode) -> None:
    """The volume is there: it is saved and removed, and only then is the node free."""
    pod_id, action_id = making_a_volume(control, node)
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()
    node.perform()

    verbs = control.settle(node)

    assert state_of(control, action_id) == ("done", True)
    assert verbs == ["archive_workspace", "remove_workspace"]
    assert node.volumes == {}


def test_a_node_that_never_got_it_is_asked_all_the_same(control: Control, node: ScriptedNode) -> None:
    """The reply that carried it may be lost, or still on its way."""
    pod_id, action_id = making_a_volume(control, node)
    node.in_hand.clear()
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()

    assert control.sync(node).taken_back == (action_id,)
    assert control.sync(node).taken_back == ()
    assert state_of(control, action_id) == ("superseded", True)


def test_a_node_is_not_told_again_of_what_it_is_ending(control: Control, node: ScriptedNode) -> None:
    """Else its long poll would be answered at once, over and over."""
    pod_id, action_id = making_a_volume(control, node)
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()

    assert taken_back(control.db, "node-1", (action_id,)) == (action_id,)
    assert taken_back(control.db, "node-1", (action_id,), ending=(action_id,)) == ()


def test_an_answer_of_cancelled_is_no_failure(control: Control, node: ScriptedNode) -> None:
    """The pod is opened again: its workspace is made at once, without a back-off."""
    pod_id, _ = making_a_volume(control, node)
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()
    control.want(pod_id, Desired.RUNNING)

    assert control.settle(node) == ["create_workspace", "create_pod", "start_pod"]
    assert control.row("SELECT failure FROM workspace")["failure"] is None


def test_a_silent_nodes_actions_stay_until_there_is_proof(control: Control, node: ScriptedNode) -> None:
    """Nothing is taken back, nothing follows, nobody is freed (LAW 6)."""
    pod_id, action_id = making_a_volume(control, node)
    control.want(pod_id, Desired.ARCHIVED)
    control.tick()
    control.resync(database_clock(control.db) + timedelta(hours=1))

    assert state_of(control, action_id) == ("open", True)
    assert control.pod_row(pod_id)["condition"] == "node_silent"
