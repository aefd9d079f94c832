"""How far a long step is, from the node to whoever waits, without asking the node."""

import pytest

from api.podctl.waiting import doing
from api.views import pod as view
from api.wire import Progress
from state.pods import get_pod
from state.wire import StepProgress
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode

MIB = 1 << 20


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """A node that has joined."""
    return control.join("node-1")


def test_bytes_and_rate_of_a_workspaces_step_are_shown_on_the_pod_that_waits(
    control: Control, node: ScriptedNode
) -> None:
    """The pod itself has no step yet: what it waits for is shown, in bytes, and goes when it is done."""
    pod_id = control.pod("alice")
    control.tick()
    control.tick()
    control.sync(node)
    (action_id,) = node.in_hand
    told = StepProgress(
        action_id=action_id,
        phase="restoring",
        done_bytes=30 * MIB,
        total_bytes=120 * MIB,
        bytes_per_s=25 * MIB,
    )

    control.sync(node, progress=(told,))

    status = get_pod(control.db, pod_id)
    assert status is not None
    shown = view(status)
    assert shown.progress == Progress(
        phase="restoring", done_bytes=30 * MIB, total_bytes=120 * MIB, bytes_per_s=25 * MIB
    )
    assert "restoring, 30.0 of 120.0 MiB, 25.0 MiB/s" in doing(shown)

    control.settle(node)
    after = get_pod(control.db, pod_id)
    assert after is not None
    assert view(after).progress is None
