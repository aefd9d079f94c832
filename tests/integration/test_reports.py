"""What the database keeps of what nodes say."""

from datetime import timedelta

import pytest

from state.model import Desired
from state.wire import StepDone
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode

LEASE = "SELECT * FROM node_lease WHERE node_id = %s"


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """A node that has joined."""
    return control.join("node-1")


@pytest.fixture
def running(control: Control, node: ScriptedNode) -> str:
    """A pod that runs on it."""
    pod_id = control.pod("alice")
    assert control.settle(node) == ["create_workspace", "create_pod", "start_pod"]
    return pod_id


def observed(control: Control, pod_id: str) -> dict[str, object]:
    """What is known of the pod's container."""
    return control.row("SELECT * FROM pod_observed WHERE pod_id = %s", pod_id)


def forget_dues(control: Control) -> None:
    """As if a pass had just looked at everything."""
    control.rows("UPDATE pod SET next_check_at = NULL")
    control.rows("UPDATE workspace SET next_check_at = NULL")


def test_a_report_that_says_nothing_new_writes_only_the_lease(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """Heartbeats must not rewrite rows, ring bells or make anything due."""
    control.sync(node)
    forget_dues(control)
    before = (observed(control, running), control.row("SELECT * FROM report"), control.pod_row(running))
    lease = control.row(LEASE, "node-1")

    outcome = control.ingest(node.request())

    assert not outcome.changed
    assert before == (
        observed(control, running),
        control.row("SELECT * FROM report"),
        control.pod_row(running),
    )
    assert control.row(LEASE, "node-1")["last_seen_at"] > lease["last_seen_at"]


def test_an_older_report_of_the_same_boot_is_dropped(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """It arrives late and tells of a past in which the pod still ran."""
    late = node.request()
    node.crash(running)
    control.sync(node)

    outcome = control.ingest(late)

    assert (outcome.current, observed(control, running)["state"]) == (False, "stopped")


def test_a_late_report_of_an_earlier_boot_is_dropped(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """Its sequence numbers are higher, but its time is over (fault 4)."""
    late = node.request(sequence=1000)
    node.boot_id, node.sequence = "boot-2", 0
    node.crash(running)
    control.sync(node)
    heard = control.row(LEASE, "node-1")["last_seen_at"]

    outcome = control.ingest(late)

    assert (outcome.current, observed(control, running)["state"]) == (False, "stopped")
    assert control.row(LEASE, "node-1")["last_seen_at"] == heard
    assert control.ingest(node.request()).current


def test_a_former_boot_stays_former_however_quiet_the_node_is(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """A message that was held up for minutes is not taken for an agent whose clock was set back."""
    late = node.request(sequence=1000)
    node.boot_id, node.sequence = "boot-2", 0
    node.crash(running)
    control.sync(node)
    control.rows("UPDATE node_lease SET last_seen_at = clock_timestamp() - interval '61 seconds'")

    outcome = control.ingest(late)

    assert (outcome.current, observed(control, running)["state"]) == (False, "stopped")


def test_the_first_message_of_an_earlier_boot_does_not_shut_out_the_agent_that_lives(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """It was on its way when its agent was killed, and the next agent was heard before it."""
    late = node.request(boot_id="boot-2", sequence=1)
    node.boot_id, node.sequence = "boot-3", 0
    node.crash(running)
    control.sync(node)

    outcome = control.ingest(late)

    assert (outcome.current, observed(control, running)["state"]) == (False, "stopped")
    assert control.ingest(node.request()).current


def test_a_node_without_an_engine_only_shows_life(control: Control, node: ScriptedNode, running: str) -> None:
    """Nothing is concluded from a report that is not there, and results wait for one (LAW 9, LAW 11)."""
    node.pods.clear()
    done = StepDone(action_id="any")

    outcome = control.ingest(node.request(report=None, engine_error="docker is down", results=(done,)))

    assert (outcome.current, outcome.accepted) == (True, ())
    assert observed(control, running)["state"] == "running"
    assert control.row(LEASE, "node-1")["engine_error"] == "docker is down"


def test_what_is_not_in_a_report_is_absent_and_nothing_is_deleted(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """A container removed by hand: its absence is history, and an order to nobody (LAW 9)."""
    del node.pods[running]
    control.sync(node)

    seen = observed(control, running)
    assert (seen["state"], seen["container_id"], seen["session_secret"]) == ("absent", None, None)
    (event,) = control.events("container_vanished")
    assert event["pod_id"] == running
    assert control.row("SELECT count(*) AS n FROM action WHERE verb LIKE 'remove%%'")["n"] == 0


def test_a_pod_that_exits_soon_waits_longer_each_time(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """A start that succeeds does not forgive the exit before it, so a crash loop is bounded (LAW 12)."""
    waits = []
    for _ in range(3):
        node.crash(running)
        control.sync(node)
        failure = control.pod_row(running)["failure"]
        waits.append(failure["count"])
        control.rows("UPDATE pod SET failure = jsonb_set(failure, '{retry_at}', '\"2020-01-01T00:00:00Z\"')")
        assert control.settle(node) == ["start_pod"]

    assert waits == [1, 2, 3]
    assert failure["code"] == "exited"
    assert len(control.events("exited")) == 3


def test_a_pod_that_ran_for_long_starts_with_a_clean_record(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """An exit after healthy_after is no crash loop: it is started again at once."""
    control.rows("UPDATE pod_observed SET since = since - interval '61 s'")
    node.crash(running)

    assert control.settle(node) == ["start_pod"]
    assert control.pod_row(running)["failure"] is None
    assert len(control.events("exited")) == 1


def test_running_out_of_memory_is_said(control: Control, node: ScriptedNode, running: str) -> None:
    """With what to do about it."""
    node.crash(running, exit_code=137, oom_killed=True)
    control.sync(node)

    assert "out of memory" in control.pod_row(running)["failure"]["message"]


def test_unknown_and_stale_containers_are_told_once_and_never_touched(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """However often they are reported, they stay what they are: kept (LAW 9)."""
    mine = node.pods[running]
    node.pods["stray"] = mine.model_copy(update={"pod_id": "p-aaaaaaaaaaaa", "container_id": "c-stray"})
    node.pods["stale"] = mine.model_copy(update={"epoch": 0, "container_id": "c-stale"})
    for _ in range(3):
        node.pods[running] = node.pods[running].model_copy(update={"upstream": f"10.0.0.1:{node.sequence}"})
        control.settle(node)

    assert [event["detail"]["subject"] for event in control.events("unknown_container")] == ["c-stray"]
    assert [event["detail"]["subject"] for event in control.events("stale_container")] == ["c-stale"]
    assert observed(control, running)["container_id"] == mine.container_id
    assert {"stray", "stale"} < set(node.pods)


def test_the_image_of_the_first_start_is_pinned(control: Control, node: ScriptedNode, running: str) -> None:
    """So that a restore finds the same image under a tag that has moved."""
    assert control.pod_row(running)["image_id"] == node.pods[running].image_id


def test_no_session_secret_is_kept_with_the_report(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """The kept report is for people; what opens an IDE is in one column only."""
    secret = node.pods[running].session_secret

    assert secret is not None
    assert secret not in str(control.row("SELECT payload FROM report")["payload"])


def test_a_failed_step_backs_off_and_says_why(control: Control, node: ScriptedNode) -> None:
    """The code and the message reach the pod, and nothing is tried before its time."""
    pod_id = control.pod("alice")
    control.tick(), control.tick(), control.sync(node), node.perform(), control.sync(node), control.tick()
    control.sync(node)
    node.fail("no_such_image", permanent=True)

    assert control.settle(node) == []
    row = control.pod_row(pod_id)
    assert (row["failure"]["code"], row["condition"]) == ("no_such_image", "parked")
    assert "no_such_image" in row["reason"]
    assert control.rows("SELECT state, error ->> 'code' AS code FROM action WHERE pod_id = %s", pod_id) == [
        {"state": "failed", "code": "no_such_image"}
    ]


def test_a_result_of_a_closed_or_unknown_action_is_accepted_without_effect(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """So that the node forgets it; delivered twice, it does nothing (LAW 10)."""
    action_id = node.done[-1].id
    before = control.rows("SELECT * FROM action ORDER BY id")
    results = (StepDone(action_id=action_id), StepDone(action_id="no such thing"))

    outcome = control.ingest(node.request(results=results))

    assert outcome.accepted == (action_id, "no such thing")
    assert control.rows("SELECT * FROM action ORDER BY id") == before


def test_an_archive_of_a_placement_that_is_over_is_not_used(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """The manifest stays unreferenced in the store; the pod keeps the archive it had (LAW 5, LAW 7)."""
    control.want(running, Desired.ARCHIVED)
    while "archive_pod" not in node.perform():
        control.tick()
        control.sync(node)
    control.rows("UPDATE placement SET released_at = now() WHERE released_at IS NULL")

    control.sync(node)

    assert control.pod_row(running)["archive_id"] is None
    assert control.rows("SELECT * FROM archive") == []
    verdict = control.row("SELECT state, error ->> 'code' AS code FROM action WHERE verb = 'archive_pod'")
    assert verdict == {"state": "superseded", "code": "superseded"}


def test_an_archive_counts_once_it_is_committed(control: Control, node: ScriptedNode, running: str) -> None:
    """Stop, archive, remove, the workspace likewise, and the placement is free: in that order."""
    control.want(running, Desired.ARCHIVED)

    verbs = control.settle(node)

    assert verbs == ["stop_pod", "archive_pod", "remove_pod", "archive_workspace", "remove_workspace"]
    assert (node.pods, node.volumes) == ({}, {})
    pod = control.pod_row(running)
    archive = control.row("SELECT * FROM archive WHERE id = %s", pod["archive_id"])
    assert (archive["number"], archive["epoch"], archive["node_id"]) == (1, 1, "node-1")
    assert control.rows("SELECT * FROM placement WHERE released_at IS NULL") == []
    assert (pod["condition"], pod["next_check_at"]) == ("settled", None)


def test_an_archived_pod_comes_back_on_another_node(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """At a new epoch, from the archive that was committed."""
    control.want(running, Desired.ARCHIVED)
    control.settle(node)
    control.rows("UPDATE node SET cordoned = true")
    other = control.join("node-2")
    control.want(running, Desired.RUNNING)

    assert control.settle(node, other) == ["restore_workspace", "restore_pod", "start_pod"]
    assert {action.epoch for action in other.done} == {2}
    assert (list(node.pods), list(other.pods)) == ([], [running])


def test_a_deleted_pod_leaves_its_node_by_tombstone(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """Without an archive, because somebody said so; the workspace is saved, as always."""
    control.want(running, Desired.DELETED)

    assert control.settle(node) == ["stop_pod", "remove_pod", "archive_workspace", "remove_workspace"]
    assert control.pod_row(running)["condition"] == "settled"


def test_progress_is_kept_on_the_open_action(control: Control, node: ScriptedNode) -> None:
    """For people who wait."""
    control.pod("alice")
    control.tick(), control.tick(), control.sync(node)
    (action_id,) = node.in_hand
    line = {"action_id": action_id, "phase": "unpack", "done_bytes": 5}

    control.ingest(node.request(progress=(line,)))

    kept = control.row("SELECT progress FROM action WHERE id = %s", action_id)["progress"]
    assert (kept["phase"], kept["done_bytes"]) == ("unpack", 5)


def test_a_node_that_goes_silent_and_comes_back_is_looked_at_once_each(
    control: Control, node: ScriptedNode, running: str
) -> None:
    """Settled pods too: nobody else would notice, for nothing is reported."""
    from state.silence import note_silence

    def note(since: timedelta) -> dict[str, bool]:
        leading = control.leading
        return note_silence(control.db, leading.leadership, leading.since - since, timedelta(seconds=40))

    long_ago = timedelta(hours=1)
    control.rows("UPDATE node_lease SET last_seen_at = now() - interval '41 s'")
    assert note(timedelta(0)) == {}, "a fresh leader gives every node a new lease"
    assert note(long_ago) == {"node-1": True}
    assert note(long_ago) == {}
    assert control.tick().workspaces == 1

    control.sync(node)
    assert note(long_ago) == {"node-1": False}
    told = [event["to_value"] for event in control.events("node")]
    assert told == ["registered", "silent", "heard"]
