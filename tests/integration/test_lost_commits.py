"""A database that has forgotten its last commits, on PostgreSQL: what nodes have seen wins."""

from state.delivery import epochs_ahead
from state.model import Desired
from state.wire import StepFailed
from tests.support.control import Control, is_settled
from tests.support.replica import Replica
from tests.support.scripted_node import ScriptedNode


def placed(control: Control) -> tuple[str, int]:
    """Where the only user is, and at which epoch."""
    row = control.row("SELECT node_id, epoch FROM placement WHERE released_at IS NULL")
    return row["node_id"], row["epoch"]


def known_epoch(control: Control) -> int:
    """The highest number that is not given again."""
    return int(control.row("SELECT epoch FROM workspace")["epoch"])


def settled(control: Control, pod_id: str, *nodes: ScriptedNode) -> list[str]:
    """The verbs it took to come to what is wished."""
    verbs = control.settle(*nodes)
    assert is_settled(control.db, pod_id)
    return verbs


def test_a_number_that_was_given_twice_is_told_apart(control: Control, replica: Replica) -> None:
    """The node that the database has forgotten stops what runs there, and keeps it; the other goes on."""
    one, pod_id = control.join("node-1"), control.pod("alice")
    replica.catch_up()
    settled(control, pod_id, one)
    assert placed(control) == ("node-1", 1)
    replica.promote()
    control.rows("UPDATE node SET cordoned = true")
    other = control.join("node-2")
    settled(control, pod_id, other)
    assert placed(control) == ("node-2", 1)

    control.sync(one)

    (workspace_id,) = one.volumes
    assert (placed(control), known_epoch(control)) == (("node-2", 1), 2)
    assert epochs_ahead(control.db, "node-1", one.report()) == {workspace_id: 2}
    assert epochs_ahead(control.db, "node-2", other.report()) == {}
    assert [event["node_id"] for event in control.events("commits_lost")] == ["node-1"]
    assert len(control.events("stale_container")) == 1
    control.want(pod_id, Desired.ARCHIVED)
    settled(control, pod_id, one, other)
    control.want(pod_id, Desired.RUNNING)
    settled(control, pod_id, one, other)
    assert placed(control) == ("node-2", 3)
    assert pod_id in one.pods


def test_a_number_that_a_node_has_seen_is_not_given_again(control: Control, replica: Replica) -> None:
    """Nobody is placed, by the rows; the next placement is above what the node tells of."""
    one, pod_id = control.join("node-1"), control.pod("alice")
    replica.catch_up()
    settled(control, pod_id, one)
    replica.promote()

    control.sync(one)

    assert known_epoch(control) == 2
    one.pods.clear()  # a scripted node has room for one epoch of a user
    one.volumes.clear()
    settled(control, pod_id, one)
    assert placed(control) == ("node-1", 3)


def test_the_node_of_the_live_placement_is_believed_about_a_later_one(
    control: Control, replica: Replica
) -> None:
    """Its user went away and came back to it in the forgotten moments: the pod runs on, untouched."""
    one, pod_id = control.join("node-1"), control.pod("alice")
    settled(control, pod_id, one)
    replica.catch_up()
    for desired in (Desired.ARCHIVED, Desired.RUNNING):
        control.want(pod_id, desired)
        settled(control, pod_id, one)
    assert placed(control) == ("node-1", 2)
    replica.promote()
    assert placed(control) == ("node-1", 1)

    control.sync(one)

    assert placed(control) == ("node-1", 2)
    assert settled(control, pod_id, one) == []


def test_a_placement_that_its_node_refuses_is_over(control: Control, replica: Replica) -> None:
    """Nothing of the later one is left there, but its number: the user is placed above it."""
    one, pod_id = control.join("node-1"), control.pod("alice", desired=Desired.STOPPED)
    settled(control, pod_id, one)
    control.want(pod_id, Desired.RUNNING)
    while not one.in_hand:
        control.tick()
        control.sync(one)
    refused = [
        StepFailed(action_id=action.id, code="stale_epoch", message="A later one was seen.")
        for action in one.in_hand.values()
    ]
    before = placed(control)
    one.in_hand.clear()
    one.pods.clear()
    one.volumes.clear()
    one.results = {result.action_id: result for result in refused}
    control.sync(one)

    assert known_epoch(control) == before[1] + 1
    assert control.rows("SELECT 1 FROM placement WHERE released_at IS NULL") == []
    assert control.events("commits_lost")[0]["from_value"] == f"epoch {before[1]}"


def test_no_node_raises_a_number_without_bound(control: Control) -> None:
    """A node runs strangers' code: what it says of a user who is not there moves nobody to it."""
    one, pod_id = control.join("node-1"), control.pod("alice")
    settled(control, pod_id, one)
    liar = control.join("node-2")
    (volume,) = one.volumes.values()
    for epoch in (10**9, 500):
        liar.volumes = {volume.workspace_id: volume.model_copy(update={"epoch": epoch})}
        control.sync(liar)

    assert (placed(control), known_epoch(control)) == (("node-1", 1), 501)
