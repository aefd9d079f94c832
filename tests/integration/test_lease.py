"""Who of the agents with a node's name is believed, and what the others are told."""

from datetime import timedelta

import pytest

from state import nodes
from state.lease import Refusal
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode

MINUTE = timedelta(seconds=60)
SILENT = "UPDATE node_lease SET last_seen_at = clock_timestamp() - interval '61 seconds'"


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """A node that has joined."""
    return control.join("node-1")


def test_a_message_of_a_run_that_was_never_heard_is_not_believed_in_a_silence_either(
    control: Control, node: ScriptedNode
) -> None:
    """It was held up for a minute: its agent is no more, and the one that lives came after it."""
    late = node.request(boot_id="boot-0", sequence=1)
    control.rows(SILENT)

    outcome = control.ingest(late)

    assert not outcome.current
    assert control.ingest(node.request()).current


def test_who_is_refused_in_a_silence_is_told_which_run_to_come_after(
    control: Control, node: ScriptedNode
) -> None:
    """Its clock was set back and its disk is new: only who lives reads the answer, and comes back later."""
    believed, last, node.boot_id, node.sequence = node.boot_id, node.sequence, "boot-0", 0
    early = control.ingest(node.request()).refusal
    control.rows(SILENT)
    late = control.ingest(node.request()).refusal

    assert early == Refusal(believed, last, silent=False, other_machine=False)
    assert late == Refusal(believed, last, silent=True, other_machine=False)
    node.boot_id, node.sequence = f"{believed}-after", 0
    assert control.ingest(node.request()).current


def test_a_late_message_of_the_run_that_is_believed_shows_no_life(
    control: Control, node: ScriptedNode
) -> None:
    """Not newer than what was heard: it does not keep a node from being called silent."""
    late = node.request()
    control.sync(node)
    control.rows(SILENT)

    refusal = control.ingest(late).refusal

    assert refusal is not None
    assert refusal.silent
    assert nodes.list_nodes(control.db)[0].last_seen_at < control.row("SELECT now() AS now")["now"] - MINUTE


def test_another_machine_waits_until_the_one_that_is_heard_is_silent(
    control: Control, node: ScriptedNode
) -> None:
    """Restored from a copy of the disk, it has the name, the token and a later clock, and older files."""
    node.boot_id, node.sequence = "boot-5-moriginal", 0
    control.sync(node)
    copy = ScriptedNode("node-1", boot_id="boot-9-mcopy")

    beside = control.ingest(copy.request()).refusal
    assert control.ingest(node.request()).current
    control.rows(SILENT)

    assert beside == Refusal(node.boot_id, 1, silent=False, other_machine=True)
    assert control.ingest(copy.request()).current
    shut_out = control.ingest(node.request()).refusal
    assert shut_out == Refusal(copy.boot_id, 2, silent=False, other_machine=True)


def test_two_machines_of_one_name_are_told_of_once_an_hour(control: Control, node: ScriptedNode) -> None:
    """Only when it has lasted for longer than a machine takes that boots anew."""
    node.boot_id = "boot-5-moriginal"
    control.sync(node)
    copy = ScriptedNode("node-1", boot_id="boot-9-mcopy")
    told = []
    for shut_out_s in (0.0, 39.0, 41.0, 46.0):
        control.ingest(copy.request(shut_out_s=shut_out_s))
        told.append(control.row("SELECT count(*) AS n FROM event WHERE kind = 'two_machines'")["n"])

    assert told == [0, 0, 1, 1]
