"""A node whose agent lives and whose container engine does not answer."""

from state.model import Desired
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode

ERROR = "Could not look around: the container engine did not answer. Check that the engine runs."
BIRTH = ["create_workspace", "create_pod", "start_pod"]


def lose_engine(control: Control, node: ScriptedNode) -> None:
    """What the agent says while nobody answers it."""
    control.sync(node, report=None, engine_error=ERROR)
    control.tick()


def test_its_pods_stay_what_they_were_and_their_wishes_wait(control: Control) -> None:
    """Nothing is called absent, nothing is ordered; the reason says whose engine, and what to do."""
    node = control.join("node-1")
    pod_id = control.pod("alice")
    control.settle(node)

    lose_engine(control, node)
    control.want(pod_id, Desired.STOPPED)
    control.tick()

    row = control.pod_row(pod_id)
    assert (row["condition"], row["failure"]) == ("engine_away", None)
    assert "node-1" in row["reason"]
    assert ERROR in row["reason"]
    assert control.row("SELECT state FROM pod_observed") == {"state": "running"}
    assert control.rows("SELECT * FROM action WHERE state = 'open'") == []
    assert control.settle(node) == ["stop_pod"]


def test_others_go_to_other_nodes(control: Control) -> None:
    """Nobody is placed where nothing can be started, and nobody else waits for it (LAW 12)."""
    away, here = control.join("node-1"), control.join("node-2")
    lose_engine(control, away)

    pods = [control.pod(f"user-{number}") for number in range(3)]

    assert sorted(control.settle(here)) == sorted(BIRTH * 3)
    assert {control.pod_row(pod_id)["condition"] for pod_id in pods} == {"settled"}


def test_who_waited_for_any_engine_is_looked_at_when_one_answers(control: Control) -> None:
    """The first report that can tell again is the moment."""
    node = control.join("node-1")
    lose_engine(control, node)
    pod_id = control.pod("alice")
    control.tick()
    row = control.pod_row(pod_id)

    assert (row["condition"], ERROR in row["reason"]) == ("waiting_for_capacity", True)
    assert control.settle(node) == BIRTH


def test_it_is_told_once_and_once_more_when_it_is_over(control: Control) -> None:
    """However often the agent says so: one event for each change."""
    node = control.join("node-1")
    for _ in range(3):
        lose_engine(control, node)
    control.sync(node)
    control.sync(node)

    told = [(event["to_value"], event["reason"]) for event in control.events("node")[1:]]
    assert told == [("engine away", ERROR), ("engine answers", None)]
