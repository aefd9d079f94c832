"""Generations of archives on a real database: going back without losing the present, damage, retiring."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from reconciler.chores import attend_retention
from state import generations, pods
from state.alarms import open_alarms
from state.generations import ask_restore, list_generations
from state.model import Desired, What
from state.snapshot import database_clock
from state.wire import ArchivePod, RestorePod, RestoreWorkspace
from tests.support.control import Control
from tests.support.scripted_node import ScriptedNode


def put_away(control: Control, node: ScriptedNode, pod_id: str, times: int = 1) -> None:
    """Open, use and archive it, so often."""
    for _ in range(times):
        control.want(pod_id, Desired.RUNNING)
        control.settle(node)
        control.want(pod_id, Desired.ARCHIVED)
        control.settle(node)


def numbers(control: Control, pod_id: str, kind: str = "pod") -> list[tuple[int, bool]]:
    """The archives that are kept, newest first, and which is current."""
    kept = [one for one in list_generations(control.db, pod_id) if one.target_kind == kind]
    return [(one.number, one.current) for one in sorted(kept, key=lambda one: -one.number)]


def restored(node: ScriptedNode) -> list[str]:
    """The manifests that pods and workspaces were restored from, in order."""
    steps = [action.step for action in node.done]
    return [step.archive.manifest_key for step in steps if isinstance(step, RestorePod | RestoreWorkspace)]


def key_of(control: Control, pod_id: str, number: int, kind: str = "pod") -> str:
    """The manifest of an archive."""
    query = """
        SELECT manifest_key FROM archive JOIN pod ON target_id IN (pod.id, pod.workspace_id)
         WHERE pod.id = %s AND number = %s AND target_kind = %s
    """
    return str(control.row(query, pod_id, number, kind)["manifest_key"])


@pytest.fixture
def node(control: Control) -> ScriptedNode:
    """The only node."""
    return control.join("node-1")


@pytest.fixture
def pod_id(control: Control) -> str:
    """Alice's pod."""
    return control.pod("alice")


@pytest.mark.parametrize("desired", [Desired.RUNNING, Desired.STOPPED, Desired.ARCHIVED])
def test_going_back_saves_what_is_there_first(
    control: Control, node: ScriptedNode, pod_id: str, desired: Desired
) -> None:
    """From any state.

    It is saved as a new archive, then restored from the old one, and is as wished again.
    """
    put_away(control, node, pod_id, 2)
    control.want(pod_id, Desired.RUNNING)
    control.settle(node)
    control.want(pod_id, desired)
    control.settle(node)
    before = numbers(control, pod_id)
    node.done.clear()
    ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")
    control.settle(node)

    saved = [action for action in node.done if isinstance(action.step, ArchivePod)]
    assert len(saved) == (desired is not Desired.ARCHIVED)
    assert numbers(control, pod_id)[-len(before) :] == [(number, number == 1) for number, _ in before]
    status = pods.get_pod(control.db, pod_id)
    assert status is not None
    assert (status.actual, status.satisfied_generation) == (desired, status.generation)
    if desired is not Desired.ARCHIVED:
        assert restored(node)[-1] == key_of(control, pod_id, 1)
    assert control.events("went_back")[0]["to_value"] == "pod archive 1"


def test_after_going_back_the_next_archive_has_the_next_number(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """And one can go forward again to what was there before."""
    put_away(control, node, pod_id, 3)
    ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")
    put_away(control, node, pod_id)
    assert numbers(control, pod_id) == [(4, True), (3, False), (2, False), (1, False)]
    ask_restore(control.db, pod_id, 3, What.POD, actor="api:test")
    control.settle(node)
    assert numbers(control, pod_id)[1] == (3, True)


def test_both_go_back_to_the_same_moment(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """The files that were saved with the pod's archive come back with it; other pods of the user wait."""
    put_away(control, node, pod_id, 3)
    other = control.pod("alice", "other")
    control.settle(node)
    node.done.clear()
    ask_restore(control.db, pod_id, 2, What.BOTH, actor="api:test")
    control.settle(node)
    assert key_of(control, pod_id, 2, "workspace") in restored(node)
    assert [current for number, current in numbers(control, pod_id, "workspace") if number == 2] == [True]
    assert [current for number, current in numbers(control, pod_id) if number == 2] == [True]
    status = pods.get_pod(control.db, other)
    assert status is not None
    assert status.actual == "running"
    assert node.pods[other].epoch == control.row("SELECT epoch FROM workspace")["epoch"]


def test_asking_twice_is_asking_once_and_another_wish_has_to_wait(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """The first is met first."""
    put_away(control, node, pod_id, 2)
    for _ in range(2):
        ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")
    with pytest.raises(generations.RestoreUnderWay):
        ask_restore(control.db, pod_id, 2, What.POD, actor="api:test")
    control.settle(node)
    assert len(control.events("went_back")) == 1


def test_what_cannot_be_gone_back_to_is_refused(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """Unknown numbers, damaged archives, deleted pods."""
    put_away(control, node, pod_id)
    with pytest.raises(generations.ArchiveNotFound, match="was never made"):
        ask_restore(control.db, pod_id, 9, What.POD, actor="api:test")
    control.rows("UPDATE archive SET suspect_at = now(), suspect_reason = 'a bit flipped'")
    with pytest.raises(generations.ArchiveDamaged, match="a bit flipped"):
        ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")
    control.want(pod_id, Desired.DELETED)
    with pytest.raises(pods.PodDeleted):
        ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")
    assert control.rows("SELECT * FROM restoration") == []


def fail_restore(control: Control, node: ScriptedNode, code: str = "restore_corrupt") -> None:
    """The next restore of a pod meets a damaged archive."""
    for _ in range(30):
        control.rows("UPDATE pod SET failure = NULL, next_check_at = now()")
        control.tick()
        control.sync(node)
        if any(isinstance(action.step, RestorePod) for action in node.in_hand.values()):
            node.fail(code)
            control.sync(node)
            return
        node.perform()
    raise AssertionError("nothing is restored")


def test_a_damaged_newest_archive_is_tried_once_more_and_then_the_one_before_is_used(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """Loudly: an alarm on the archive, an event and an alarm that say from when to when work is missing."""
    put_away(control, node, pod_id, 3)
    control.want(pod_id, Desired.RUNNING)
    fail_restore(control, node)
    assert numbers(control, pod_id)[0] == (3, True)
    assert [alarm.kind for alarm in open_alarms(control.db, pod_id=pod_id)] == ["archive_suspect"]
    fail_restore(control, node)
    assert numbers(control, pod_id)[:2] == [(3, False), (2, True)]
    control.settle(node)

    assert restored(node)[-1] == key_of(control, pod_id, 2)
    told = {alarm.kind: alarm.message for alarm in open_alarms(control.db, pod_id=pod_id)}
    assert set(told) == {"archive_suspect", "fell_back"}
    assert "comes back as it was in number 2" in told["fell_back"]
    (event,) = control.events("fell_back")
    assert (event["from_value"], event["to_value"]) == ("number 3", "number 2")


def test_a_bit_that_flipped_on_the_way_costs_nothing(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """The second try reads the same archive well, and the alarm is over."""
    put_away(control, node, pod_id, 2)
    control.want(pod_id, Desired.RUNNING)
    fail_restore(control, node)
    control.rows("UPDATE pod SET failure = NULL, next_check_at = now()")
    control.settle(node)
    assert numbers(control, pod_id)[0] == (2, True)
    assert open_alarms(control.db) == []


def test_with_nothing_before_it_a_damaged_archive_is_kept_and_tried_again(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """Nobody is ever given an empty pod in its place."""
    put_away(control, node, pod_id)
    control.want(pod_id, Desired.RUNNING)
    for _ in range(3):
        fail_restore(control, node)
    assert numbers(control, pod_id) == [(1, True)]


def test_when_everything_looks_damaged_nobody_is_given_older_files(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """Then it is the store that is wrong (LAW 13)."""
    put_away(control, node, pod_id, 2)
    control.rows(
        """
        INSERT INTO archive (id, target_kind, target_id, number, epoch, attempt, node_id, manifest_key,
                             manifest_digest, fingerprint, size_bytes, suspect_at, suspect_reason)
        SELECT 'a-' || translate(lpad(n::text, 12, 'a'), '0189', 'bcde'), 'pod', 'p-' || n, 1, 1, n, 'node-1',
               'k' || n, 'd', 'f', 1, now(), 'x'
          FROM generate_series(1, %s) AS n
        """,
        generations.SUSPECTS_PER_HOUR_MAX,
    )
    control.want(pod_id, Desired.RUNNING)
    for _ in range(2):
        fail_restore(control, node)
    assert numbers(control, pod_id)[0] == (2, True)
    assert "store_suspect" in {alarm.kind for alarm in open_alarms(control.db)}


def test_a_container_whose_archive_is_damaged_is_saved_again(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """The removal is refused, for it is the only copy; nothing is lost, and a new archive takes its place."""
    control.settle(node)
    control.want(pod_id, Desired.ARCHIVED)
    for _ in range(20):
        control.tick()
        control.sync(node)
        if any(action.step.verb == "remove_pod" for action in node.in_hand.values()):
            node.fail("archive_corrupt")
            control.sync(node)
            break
        node.perform()
    control.rows("UPDATE pod SET next_check_at = now()")
    control.settle(node)
    assert numbers(control, pod_id) == [(2, True), (1, False)]
    assert node.pods == {}


def retire(control: Control, after: timedelta = timedelta(0)) -> int:
    """One look at everything, so much later."""
    control.rows("UPDATE store_target SET check_at = now()")
    return attend_retention(control.db, control.limits, control.leading, database_clock(control.db) + after)


def test_old_generations_are_retired_and_told_of(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """The newest five stay; what was the last of its day goes with its week."""
    put_away(control, node, pod_id, 7)
    assert retire(control) == 4
    assert [number for number, _ in numbers(control, pod_id)] == [7, 6, 5, 4, 3]
    assert len(control.events("archive_retired")) == 4
    with pytest.raises(generations.ArchiveNotFound, match="is not kept any more"):
        ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")


def test_an_archive_that_somebody_goes_back_to_is_not_retired(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """From the wish on, and for as long as the pod is restored from it."""
    put_away(control, node, pod_id, 7)
    ask_restore(control.db, pod_id, 1, What.POD, actor="api:test")
    retire(control)
    control.settle(node)
    retire(control)
    assert (1, True) in numbers(control, pod_id)


def test_a_deleted_pods_archives_go_after_a_while_and_the_users_files_stay(
    control: Control, node: ScriptedNode, pod_id: str
) -> None:
    """The tombstone is the order, and it is old."""
    put_away(control, node, pod_id)
    control.want(pod_id, Desired.DELETED)
    control.settle(node)
    assert retire(control) == 0
    control.rows("ALTER TABLE pod DISABLE TRIGGER USER")
    control.rows("UPDATE pod SET deleted_at = now() - interval '31 days'")
    assert retire(control) == 1
    assert control.row("SELECT target_kind FROM archive WHERE retired_at IS NULL") == {
        "target_kind": "workspace"
    }


REFUSED: list[tuple[str, str]] = [
    ("UPDATE archive SET retired_at = now()", "something is restored from cannot be retired"),
    ("UPDATE archive SET number = 9", "archive rows are written once"),
]


@pytest.mark.parametrize(("statement", "why"), REFUSED)
def test_the_database_refuses_what_would_lose_an_archive(
    control: Control, node: ScriptedNode, pod_id: str, statement: Any, why: str
) -> None:
    """Whoever asks, also a program with a bug in it."""
    put_away(control, node, pod_id)
    with pytest.raises(psycopg.Error, match=why):
        control.rows(statement)


def test_a_retired_archive_stays_retired(control: Control, node: ScriptedNode, pod_id: str) -> None:
    """Its blobs may be gone."""
    put_away(control, node, pod_id, 7)
    retire(control)
    with pytest.raises(psycopg.Error, match="stays so"):
        control.rows("UPDATE archive SET retired_at = NULL WHERE number = 1")
