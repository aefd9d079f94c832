"""Plans written down under compare-and-set, and actions handed to nodes."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.plan import plan
from reconciler.tick import dry_run
from state import leader
from state.database import Doorbell
from state.delivery import taken_back, undelivered
from state.leader import LeadershipLost
from state.model import Desired, Limits
from state.outbox import record
from state.plan import Place, Plan, Release
from state.snapshot import claim_due, database_clock, due_workspaces, read_world
from tests.support.control import LIMITS, Control
from tests.support.scripted_node import ScriptedNode

OPEN = "SELECT target, verb FROM action WHERE state = 'open' ORDER BY target"


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """A node that has joined."""
    return control.join("node-1")


def planned(control: Control) -> Plan:
    """What a pass would decide about all workspaces now."""
    ids = due_workspaces(control.db, 1000)
    return plan(read_world(control.db, ids, control.leading.since), database_clock(control.db), LIMITS)


def write(control: Control, what: Plan) -> object:
    """Record a plan."""
    return record(control.db, what, control.leading.leadership, database_clock(control.db))


def test_a_plan_recorded_by_two_reconcilers_at_once_counts_once(control: Control, node: ScriptedNode) -> None:
    """Same plan, same moment, two threads: one placement and one open action per target (LAW 5)."""
    for user in ("alice", "bob", "carol"):
        control.pod(user)
    for _ in range(2):  # first the placements, then the steps
        together = threading.Barrier(2)
        the_plan = planned(control)

        def run(together: threading.Barrier = together, the_plan: Plan = the_plan) -> None:
            together.wait()
            write(control, the_plan)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    placements = control.rows("SELECT epoch FROM placement")
    assert [row["epoch"] for row in placements] == [1, 1, 1]
    assert [row["verb"] for row in control.rows(OPEN)] == ["create_workspace"] * 3
    assert [row["attempt"] for row in control.rows("SELECT attempt FROM action")] == [1, 1, 1]


def test_a_plan_of_the_past_places_nobody_twice(control: Control, node: ScriptedNode) -> None:
    """The epoch that it goes by is gone (compare-and-set)."""
    pod_id = control.pod("alice")
    stale = planned(control)
    write(control, stale)

    assert write(control, stale).places == 0  # type: ignore[attr-defined]
    control.want(pod_id, Desired.ARCHIVED)
    control.settle(node)
    assert write(control, stale).places == 0  # type: ignore[attr-defined]
    assert control.row("SELECT epoch FROM workspace") == {"epoch": 1}


def test_a_step_for_an_older_generation_is_refused(control: Control, node: ScriptedNode) -> None:
    """Somebody changed their mind between the snapshot and the write."""
    pod_id = control.pod("alice")
    control.settle(node)
    control.want(pod_id, Desired.STOPPED)
    stale = planned(control)
    assert [step.step.verb for step in stale.steps] == ["stop_pod"]
    control.want(pod_id, Desired.RUNNING)

    written = write(control, stale)

    assert (written.steps, written.refused) == (0, 1)  # type: ignore[attr-defined]
    assert control.rows(OPEN) == []
    assert control.settle(node) == []
    assert control.pod_row(pod_id)["condition"] == "settled"


def test_a_step_of_an_older_placement_is_refused(control: Control, node: ScriptedNode) -> None:
    """The epoch is checked at the moment of the write (LAW 5)."""
    pod_id = control.pod("alice")
    control.settle(node)
    control.want(pod_id, Desired.STOPPED)
    stale = planned(control)
    older = replace(stale, steps=tuple(replace(step, epoch=step.epoch - 1) for step in stale.steps))

    assert write(control, older).steps == 0  # type: ignore[attr-defined]
    assert write(control, stale).steps == 1  # type: ignore[attr-defined]


def test_what_an_older_placement_said_does_not_count(control: Control, node: ScriptedNode) -> None:
    """The pod still runs where it was placed before: nothing of it is seen at the new place."""
    pod_id = control.pod("alice")
    control.settle(node)
    control.join("node-2")
    workspace_id = control.pod_row(pod_id)["workspace_id"]
    control.rows("UPDATE placement SET released_at = now()")
    write(control, Plan(places=(Place(workspace_id, "node-2", 1, "the other is lost"),)))

    (workspace,) = read_world(control.db, [workspace_id], control.leading.since).workspaces
    assert (workspace.observed, workspace.pods[0].observed) == (None, None)

    control.sync(node)  # it says the same as ever, and is listened to all the same
    assert [event["pod_id"] for event in control.events("stale_container")] == [pod_id]
    assert list(node.pods) == [pod_id]


def test_a_leader_whose_term_is_over_writes_nothing(control: Control, node: ScriptedNode) -> None:
    """It wakes up late, believes, and is told otherwise by the database."""
    control.pod("alice")
    late = planned(control)
    leader.resign(control.db, control.leading.leadership)
    assert leader.try_lead(control.db, "another", timedelta(seconds=60)) is not None

    with pytest.raises(LeadershipLost):
        write(control, late)

    assert control.rows("SELECT * FROM placement") == []


def test_a_placement_is_not_freed_while_anything_is_there(control: Control, node: ScriptedNode) -> None:
    """A release that was planned from an older report is checked against the newest."""
    control.pod("alice")
    control.settle(node)
    placement = control.row("SELECT workspace_id, node_id, epoch FROM placement")
    early = Plan(releases=(Release(**placement, reason="believed empty"),))

    assert write(control, early).releases == 0  # type: ignore[attr-defined]
    assert control.row("SELECT released_at FROM placement") == {"released_at": None}


def test_deciding_the_same_again_writes_nothing(control: Control, node: ScriptedNode) -> None:
    """A no-op pass leaves every row as it is."""
    control.pod("alice")
    control.settle(node)
    before = control.rows("SELECT xmin, * FROM pod"), control.rows("SELECT xmin, * FROM workspace")

    outcome = control.resync()

    assert outcome.recorded.decisions == 0
    after = control.rows("SELECT xmin, * FROM pod"), control.rows("SELECT xmin, * FROM workspace")
    assert before == after


def test_what_changes_during_a_pass_is_looked_at_again(control: Control, node: ScriptedNode) -> None:
    """A wake-up between the snapshot and the write is not lost."""
    pod_id = control.pod("alice")
    control.settle(node)
    control.want(pod_id, Desired.STOPPED)
    (workspace_id,) = claim_due(control.db, 10, timedelta(seconds=30))
    assert due_workspaces(control.db, 10) == []
    world = read_world(control.db, [workspace_id], control.leading.since)
    node.crash(pod_id)
    control.sync(node)

    decided = plan(world, database_clock(control.db), LIMITS)
    record(control.db, decided, control.leading.leadership, database_clock(control.db), [workspace_id])

    assert due_workspaces(control.db, 10) == [workspace_id]


def test_who_waits_for_a_pod_hears_that_it_is_settled(
    control: Control, node: ScriptedNode, database_url: str
) -> None:
    """The bell rings with the decision, not only with the report before it; without one, not at all."""
    control.pod("alice")
    bell = Doorbell(database_url, ["codepods_decided"])
    bell.wait(0)
    control.settle(node)
    rung = bell.wait(5)
    while bell.wait(0):
        pass
    control.resync()

    assert (rung, bell.wait(0.2)) == (True, False)
    bell.close()


def test_a_pass_that_was_cut_short_is_made_up_for(control: Control, node: ScriptedNode) -> None:
    """What was claimed and never recorded comes due again."""
    control.pod("alice")
    claimed = claim_due(control.db, 10, timedelta(0))

    assert due_workspaces(control.db, 10) == claimed


def test_a_dry_run_claims_and_writes_nothing(control: Control, node: ScriptedNode) -> None:
    """It only shows what would be decided."""
    control.pod("alice")

    shown = dry_run(control.db, Limits(), database_clock(control.db))

    assert [place.node_id for place in shown.places] == ["node-1"]
    assert len(due_workspaces(control.db, 10)) == 1
    assert control.rows("SELECT * FROM placement") == []


def test_actions_reach_their_node_once_and_again_after_it_forgot_them(
    control: Control, node: ScriptedNode
) -> None:
    """In hand is not sent again; an agent that restarted has nothing in hand, and gets everything."""
    control.pod("alice")
    control.tick()
    control.tick()
    (action,) = undelivered(control.db, "node-1", ())

    assert action.step.verb == "create_workspace"
    assert (action.user_id, action.epoch, action.attempt) == ("alice", 1, 1)
    assert undelivered(control.db, "node-1", (action.id,)) == ()
    assert undelivered(control.db, "node-2", ()) == ()
    assert undelivered(control.db, "node-1", ()) == (action,)
    assert control.row("SELECT sent_at IS NOT NULL AS sent FROM action")["sent"]


def test_an_action_that_is_not_wanted_any_more_is_taken_back(control: Control, node: ScriptedNode) -> None:
    """The node learns of it, and the other way round is begun at once."""
    pod_id = control.pod("alice")
    control.settle(node)
    control.want(pod_id, Desired.STOPPED)
    control.tick()
    control.sync(node)
    (stop_id,) = node.in_hand
    control.want(pod_id, Desired.RUNNING)
    control.tick()

    assert taken_back(control.db, "node-1", (stop_id,)) == (stop_id,)
    assert control.settle(node) == []
    assert control.pod_row(pod_id)["condition"] == "settled"


def test_a_stop_that_was_taken_back_too_late_is_no_crash(control: Control, node: ScriptedNode) -> None:
    """The node had stopped it already: it is started again without a failure."""
    pod_id = control.pod("alice")
    control.settle(node)
    control.want(pod_id, Desired.STOPPED)
    control.tick()
    control.sync(node)
    node.perform()
    control.want(pod_id, Desired.RUNNING)
    control.tick()

    assert control.settle(node) == ["start_pod"]
    assert control.events("exited") == []
    assert control.pod_row(pod_id)["failure"] is None


def test_a_workspace_that_cannot_be_read_is_parked_alone(control: Control, node: ScriptedNode) -> None:
    """The others go on, and it says why (LAW 12)."""
    good, bad = control.pod("alice"), control.pod("mallory")
    control.rows('UPDATE pod SET failure = \'{"verb": "dance"}\' WHERE id = %s', bad)

    assert control.settle(node) == ["create_workspace", "create_pod", "start_pod"]

    assert control.pod_row(good)["condition"] == "settled"
    row = control.pod_row(bad)
    assert row["condition"] == "parked"
    assert "cannot make out" in row["reason"]
    assert len(control.events("parked")) == 1
    control.rows("UPDATE pod SET failure = NULL WHERE id = %s", bad)
    control.resync()
    assert control.settle(node) == ["create_workspace", "create_pod", "start_pod"]


def test_every_decision_has_a_reason_and_every_step_an_event(control: Control, node: ScriptedNode) -> None:
    """History tells who was placed where and why each action was made."""
    control.pod("alice")
    control.settle(node)

    assert [event["reason"] for event in control.events("placed")] == ["most room among 1 live nodes"]
    told = [(event["detail"]["verb"], event["to_value"]) for event in control.events("action")]
    verbs = ("create_workspace", "create_pod", "start_pod")
    assert told == [(verb, state) for verb in verbs for state in ("open", "done")]
    assert all(event["reason"] for event in control.events("action") if event["to_value"] == "open")


def test_hundreds_of_pods_at_once_are_placed_within_the_bounds(control: Control) -> None:
    """Starts wait for their turn at each node (LAW 15)."""
    nodes = [control.join(f"node-{number}") for number in (1, 2)]
    for number in range(70):
        control.pod(f"user-{number}")
    control.limits = replace(LIMITS, open_starts_per_node_max=4, actions_per_pass_max=25)

    verbs = control.settle(*nodes)

    assert sorted(verbs) == sorted(["create_workspace", "create_pod", "start_pod"] * 64), (
        "32 fit on each node"
    )
    waiting = control.rows("SELECT condition FROM pod WHERE condition <> 'settled'")
    assert waiting == [{"condition": "waiting_for_capacity"}] * 6


def test_an_action_that_cannot_be_read_does_not_hold_up_its_node(
    control: Control, node: ScriptedNode
) -> None:
    """It is closed with a reason, and the others are delivered (LAW 12)."""
    control.pod("alice"), control.pod("mallory")
    control.tick(), control.tick()
    control.rows(
        'UPDATE action SET step = \'{"verb": "dance"}\' WHERE target = (SELECT min(target) FROM action)'
    )

    assert len(control.sync(node).actions) == 1
    spoilt = control.rows("SELECT error ->> 'code' AS code FROM action WHERE state = 'failed'")
    assert spoilt == [{"code": "unreadable"}]
