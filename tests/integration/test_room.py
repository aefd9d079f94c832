"""Pods that wait for room are looked at as soon as there may be some, not only by the clock."""

import psycopg
import pytest

from state import nodes, queue
from state.database import Doorbell
from state.model import Desired
from state.snapshot import due_workspaces
from tests.support.control import Control
from tests.support.scripted_node import FACTS, ScriptedNode

ROOM_FOR_ONE = FACTS.model_copy(update={"cpu_millis": 200, "memory_mib": 512})
BIRTH = ["create_workspace", "create_pod", "start_pod"]


@pytest.fixture
def small(control: Control) -> ScriptedNode:
    """A node with room for one pod."""
    nodes.register(control.db, "node-1", "token")
    node = ScriptedNode("node-1", facts=ROOM_FOR_ONE)
    control.sync(node)
    return node


def waiting(control: Control, user: str) -> str:
    """A pod that has been looked at, and found no room."""
    pod_id = control.pod(user)
    while control.tick().workspaces:
        pass
    assert control.pod_row(pod_id)["condition"] == "waiting_for_capacity"
    assert due_workspaces(control.db, 10) == []
    return pod_id


def is_due(control: Control, pod_id: str) -> bool:
    """Whether the next pass looks at it."""
    return control.pod_row(pod_id)["workspace_id"] in due_workspaces(control.db, 1000)


def test_whoever_waits_is_told_how_many_have_waited_longer(control: Control, small: ScriptedNode) -> None:
    """By when they were wanted; who has room, or wants none any more, is not counted."""
    first = control.pod("first")
    control.settle(small)
    second, third, fourth = (waiting(control, user) for user in ("second", "third", "fourth"))

    assert [ahead(control, one) for one in (first, second, third, fourth)] == [None, 0, 1, 2]
    control.want(second, Desired.STOPPED)
    assert ahead(control, fourth) == 1


def ahead(control: Control, pod_id: str) -> int | None:
    """As the start page is told."""
    return queue.ahead_of(control.db, pod_id, control.pod_row(pod_id)["condition"])


def test_a_node_that_joins_wakes_who_waits(control: Control, database_url: str) -> None:
    """Its first report is the moment, and rings the bell."""
    pod_id = waiting(control, "alice")
    bell = Doorbell(database_url, ["codepods_desired"])
    bell.wait(0)

    node = control.join("node-1")

    assert bell.wait(5)
    bell.close()
    assert is_due(control, pod_id)
    assert control.settle(node) == BIRTH


def test_a_node_that_is_opened_again_wakes_who_waits(control: Control, admin_url: str) -> None:
    """Also when an admin does it in psql, who may not write when a pod is looked at."""
    control.join("node-1")
    nodes.set_cordoned(control.db, "node-1", True, actor="test")
    pod_id = waiting(control, "alice")

    with psycopg.connect(admin_url) as admin:
        admin.execute("UPDATE node SET cordoned = false")

    assert is_due(control, pod_id)


def test_a_pod_that_is_put_away_makes_room_for_the_next(control: Control, small: ScriptedNode) -> None:
    """Once it is seen to have stopped, the one that waits is looked at, and placed."""
    first = control.pod("first")
    control.settle(small)
    second = waiting(control, "second")

    control.want(first, Desired.ARCHIVED)
    control.tick(), control.sync(small), small.perform(), control.sync(small)

    assert is_due(control, second)
    control.settle(small)
    assert (control.pod_row(first)["condition"], control.pod_row(second)["condition"]) == ("settled",) * 2


def test_a_placement_that_ends_makes_room(control: Control, small: ScriptedNode) -> None:
    """Somebody who was placed and changed their mind before anything was made."""
    first = control.pod("first")
    control.tick()
    second = waiting(control, "second")

    control.want(first, Desired.ARCHIVED)
    control.settle(small)

    assert control.pod_row(second)["condition"] == "settled"
    assert [event["kind"] for event in control.events("released")] == ["released"]


def test_news_that_bring_no_room_wake_nobody(control: Control, small: ScriptedNode) -> None:
    """Starting pods, heartbeats, closing a node: who waits is left alone."""
    control.pod("first")
    control.tick()
    second = waiting(control, "second")

    control.settle(small)
    nodes.set_cordoned(control.db, "node-1", True, actor="test")

    assert not is_due(control, second)
