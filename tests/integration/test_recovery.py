"""`recover` on a real database: what it says, what it does, and that it deletes nothing."""

import pytest

from state.copies import keep_aside
from state.copy_wire import CopyMade
from state.model import Desired, Observed, TargetKind
from state.pods import PodDeleted, PodNotFound, get_pod
from state.recovery import recover
from state.wire import ArchiveMade
from tests.integration.test_generations import put_away
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """The only node."""
    return control.join("node-1")


@pytest.fixture
def pod_id(control: Control, node: ScriptedNode) -> str:
    """Alice's pod, running."""
    pod = control.pod("alice")
    control.settle(node)
    return pod


def verbs(node: ScriptedNode) -> list[str]:
    """What the node was asked for since the last look."""
    asked = [action.step.verb for action in node.done]
    node.done.clear()
    return asked


def test_a_healthy_pod_is_left_alone(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """Asked as often as one likes."""
    verbs(node)
    for _ in range(2):
        outcome = recover(control.db, pod_id, actor="test")
        assert (outcome.found, outcome.done, outcome.advice) == (("Nothing is wrong.",), (), ())
    control.settle(node)
    assert verbs(node) == []


def test_what_was_parked_is_tried_again_at_once(control: Control, node: ScriptedNode) -> None:
    """And what failed is told."""
    pod = control.pod("alice")
    for _ in range(10):
        control.tick()
        control.sync(node)
        if any(action.step.verb == "create_pod" for action in node.in_hand.values()):
            node.fail("image_not_found", permanent=True)
            control.sync(node)
            break
        node.perform()
    control.tick()
    outcome = recover(control.db, pod, actor="test")
    assert "image_not_found" in outcome.found[0]
    assert outcome.done == ("What failed is tried again at once.",)
    control.settle(node)
    assert control.pod_row(pod)["condition"] == "settled"


def test_a_container_that_does_not_work_is_saved_and_made_anew(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """Stopped, archived, removed under the proof, restored from just that, and running again."""
    verbs(node)
    node._change(pod_id, state=Observed.FAILED, upstream=None, session_secret=None)
    control.sync(node)
    control.tick()
    outcome = recover(control.db, pod_id, actor="test")
    assert outcome.done == ("It is saved as it is, and then made anew from just that.",)
    assert recover(control.db, pod_id, actor="test").done == ()
    node.in_hand.clear()
    control.settle(node)
    assert [verb for verb in verbs(node) if verb != "start_pod"][-4:] == [
        "stop_pod",
        "archive_pod",
        "remove_pod",
        "restore_pod",
    ]
    status = get_pod(control.db, pod_id)
    assert status is not None
    assert (status.actual, status.satisfied_generation) == ("running", status.generation)
    assert control.rows("SELECT 1 FROM restoration WHERE finished_at IS NULL") == []


def test_a_damaged_archive_is_read_again(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """And the ones that can be gone back to are named."""
    put_away(control, node, pod_id, 2)
    control.rows("UPDATE archive SET suspect_at = now(), suspect_reason = 'x' WHERE number = 2")
    control.rows(
        "INSERT INTO alarm (kind, subject, pod_id, message) VALUES ('a', 'b', %s, 'Damaged.')", pod_id
    )
    outcome = recover(control.db, pod_id, actor="test")
    assert "Damaged." in outcome.found
    assert len(outcome.done) == 2
    assert "archive number 1" in outcome.advice[-1]
    assert len(control.rows("SELECT 1 FROM chore WHERE kind = 'scrub'")) == 2
    assert recover(control.db, pod_id, actor="test").done == ()


def test_a_silent_node_is_told_with_what_can_be_done(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """Nothing is moved: the newest files are there (LAW 6)."""
    control.rows("UPDATE pod SET condition = 'node_silent', reason = 'node-1 has not been heard from'")
    outcome = recover(control.db, pod_id, actor="test")
    assert outcome.found == ("Node-1 has not been heard from.",)
    assert (outcome.done, "podctl nodes lost node-1" in outcome.advice[0]) == ((), True)


def test_there_is_nothing_to_recover_of_what_is_deleted(control: Control, pod_id: str) -> None:
    """Nor of what never was."""
    control.want(pod_id, Desired.DELETED)
    with pytest.raises(PodDeleted):
        recover(control.db, pod_id, actor="test")
    with pytest.raises(PodNotFound):
        recover(control.db, "p-aaaaaaaaaaaa", actor="test")


def test_a_copy_that_nothing_uses_is_named(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """What a lost node still had: found by nobody, were it not told with how to go back to it."""
    made = ArchiveMade(manifest_key="archives/k", manifest_digest="0" * 64, fingerprint="f", size_bytes=1)
    copy = CopyMade(kind=TargetKind.POD, target_id=pod_id, number=0, attempt=10**9, archive=made)
    with control.db.transaction() as connection:
        number = keep_aside(connection, "node-1", 1, copy)
    (told,) = recover(control.db, pod_id, actor="test").advice
    assert f"podctl restore {pod_id} --what pod --at {number}" in told
    assert "node-1" in told
