"""What a report changes of what was known."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.model import Observed, Verb, WorkspaceObserved
from state.observed import Comparison, Known, compare
from state.wire import PodReport, Report, StrangeContainer, WorkspaceReport

NODE = "node-1"
EPOCH = 3
STARTED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REPORTED = [state for state in Observed if state not in (Observed.UNKNOWN, Observed.ABSENT)]


def pod_row(pod_id: str = "p-1", **changes: Any) -> dict[str, Any]:
    """A pod that is placed on NODE and was seen running there a minute and a half ago."""
    row = {
        "id": pod_id,
        "workspace_id": "w-1",
        "desired_state": "running",
        "wanted_generation": 1,
        "pinned_image_id": "sha256:i",
        "failure": None,
        "live_node_id": NODE,
        "live_epoch": EPOCH,
        "observed_node_id": NODE,
        "epoch": EPOCH,
        "generation": 1,
        "state": "running",
        "container_id": "c-1",
        "image_id": "sha256:i",
        "upstream": "10.0.0.1:4000",
        "session_secret": "s",
        "fingerprint": None,
        "started_at": STARTED,
        "exit_code": None,
        "oom_killed": False,
        "self_fence_s": None,
        "state_for": timedelta(seconds=90),
        "open_id": None,
        "open_verb": None,
        "stop_taken_back": False,
    }
    return row | changes


def never_seen(**changes: Any) -> dict[str, Any]:
    """A pod that is placed on NODE and of which nothing was reported yet."""
    seen = ("observed_node_id", "epoch", "generation", "state", "container_id", "image_id", "upstream")
    nothing = dict.fromkeys((*seen, "session_secret", "started_at", "oom_killed", "state_for"))
    return pod_row(**nothing) | changes


def pod_report(**changes: Any) -> PodReport:
    """What `pod_row` says, as a node reports it."""
    same = {
        "pod_id": "p-1",
        "workspace_id": "w-1",
        "user_id": "alice",
        "epoch": EPOCH,
        "generation": 1,
        "state": Observed.RUNNING,
        "container_id": "c-1",
        "image_id": "sha256:i",
        "upstream": "10.0.0.1:4000",
        "session_secret": "s",
        "started_at": STARTED,
    }
    return PodReport(**(same | changes))


def stopped(**changes: Any) -> PodReport:
    """The same container after it has exited."""
    after = {"state": Observed.STOPPED, "upstream": None, "session_secret": None, "exit_code": 1}
    return pod_report(**(after | {"fingerprint": "c-1 exited"} | changes))


def known(*pods: dict[str, Any], workspaces: tuple[dict[str, Any], ...] = (), closed: str = "") -> Known:
    """What the database knew."""
    return Known(
        node_id=NODE,
        pods={row["id"]: row for row in pods},
        workspaces={row["id"]: row for row in workspaces},
        closed=frozenset({closed} - {""}),
        healthy_after=timedelta(seconds=60),
    )


reports = st.builds(
    pod_report,
    pod_id=st.sampled_from(["p-1", "p-2", "p-unknown"]),
    epoch=st.sampled_from([EPOCH - 1, EPOCH]),
    state=st.sampled_from(REPORTED),
    container_id=st.sampled_from(["c-1", "c-2", "c-3"]),
    started_at=st.sampled_from([None, STARTED, STARTED + timedelta(seconds=1)]),
)
rows = st.builds(
    pod_row,
    pod_id=st.sampled_from(["p-1", "p-2"]),
    desired_state=st.sampled_from(["running", "stopped", "archived", "deleted"]),
    state=st.sampled_from([*REPORTED, Observed.ABSENT]),
    observed_node_id=st.sampled_from([NODE, "node-2"]),
    live_node_id=st.sampled_from([None, NODE, "node-2"]),
    open_verb=st.sampled_from([None, Verb.START_POD, Verb.STOP_POD, Verb.REMOVE_POD]),
)


@given(st.lists(rows, max_size=4), st.lists(reports, max_size=5))
def test_only_what_is_reported_at_the_live_placement_is_written(
    before: list[dict[str, Any]], report: list[PodReport]
) -> None:
    """A container of another epoch, another node's pod, or an unknown one never becomes observed state."""
    was = known(*before)
    for pod in compare(was, Report(pods=tuple(report))).pods:
        row = was.pods[pod.pod_id]
        assert (row["live_node_id"], row["live_epoch"]) == (NODE, pod.epoch)


@given(st.lists(rows, max_size=4), st.lists(reports, max_size=5))
def test_a_report_that_is_repeated_changes_nothing(
    before: list[dict[str, Any]], report: list[PodReport]
) -> None:
    """After what a report says was written, the same report has nothing more to write."""
    was = known(*before)
    first = compare(was, Report(pods=tuple(report)))
    again = compare(known(*_written(was, first)), Report(pods=tuple(report)))
    assert (again.pods, again.absent_pods, again.exits, again.vanished) == ([], [], [], [])


@given(st.lists(rows, max_size=4), st.lists(reports, max_size=5))
def test_the_order_in_a_report_does_not_matter(before: list[dict[str, Any]], report: list[PodReport]) -> None:
    """A node may list its containers in any order."""
    was = known(*before)
    forwards = compare(was, Report(pods=tuple(report)))
    backwards = compare(was, Report(pods=tuple(reversed(report))))
    assert {pod.pod_id: pod.container_id for pod in forwards.pods} == {
        pod.pod_id: pod.container_id for pod in backwards.pods
    }
    assert set(forwards.absent_pods) == set(backwards.absent_pods)


def _written(was: Known, result: Comparison) -> list[dict[str, Any]]:
    after = {pod_id: dict(row) for pod_id, row in was.pods.items()}
    for pod in result.pods:
        after[pod.pod_id].update(pod.model_dump(exclude={"pod_id", "workspace_id", "user_id"}))
        after[pod.pod_id].update(observed_node_id=NODE, pinned_image_id=pod.image_id)
    for pod_id in result.absent_pods:
        after[pod_id].update(state="absent")
    return list(after.values())


def test_an_exit_that_nobody_asked_for_is_noticed() -> None:
    """A pod wanted running that is reported stopped has exited by itself."""
    (line,) = compare(known(pod_row()), Report(pods=(stopped(),))).exits
    assert line.healthy


def test_an_exit_soon_after_the_start_is_not_healthy() -> None:
    """It counts towards a crash loop."""
    row = pod_row(state_for=timedelta(seconds=5))
    (line,) = compare(known(row), Report(pods=(stopped(),))).exits
    assert not line.healthy


def test_a_start_and_exit_between_two_reports_is_noticed() -> None:
    """Stopped before and stopped after, but started in between: the loop is as much a crash loop."""
    row = pod_row(state="stopped")
    report = stopped(started_at=STARTED + timedelta(seconds=9))
    (line,) = compare(known(row), Report(pods=(report,))).exits
    assert not line.healthy


@pytest.mark.parametrize(
    "row",
    [
        pod_row(desired_state="stopped"),
        pod_row(open_id="1", open_verb=Verb.STOP_POD),
        pod_row(open_id="1", open_verb=Verb.START_POD),
        pod_row(stop_taken_back=True),
        pod_row(state="stopped"),
        never_seen(started_at=None),
    ],
)
def test_an_ordered_or_older_end_is_no_exit(row: dict[str, Any]) -> None:
    """A stop that was asked for, a start still under way, or an end already known is nobody's failure."""
    started_at = None if row["state"] is None else STARTED
    assert compare(known(row), Report(pods=(stopped(started_at=started_at),))).exits == []


def test_an_exit_right_after_a_start_that_is_done_is_noticed() -> None:
    """The start's own result does not hide that the pod has gone again."""
    row = pod_row(state="starting", open_id="1", open_verb=Verb.START_POD)
    report = stopped(started_at=STARTED + timedelta(seconds=9))
    assert len(compare(known(row, closed="1"), Report(pods=(report,))).exits) == 1


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_a_container_that_vanished_is_absent_and_told_of(state: str) -> None:
    """Somebody removed it by hand: that is history worth keeping, also when it was seen on its way out."""
    result = compare(known(pod_row(state=state)), Report())
    assert result.absent_pods == ["p-1"]
    assert [oddity.kind for oddity in result.vanished] == ["container_vanished"]


def test_a_container_that_was_removed_on_purpose_is_just_absent() -> None:
    """The removal has its own event."""
    result = compare(known(pod_row(open_id="1", open_verb=Verb.REMOVE_POD)), Report())
    assert (result.absent_pods, result.vanished) == (["p-1"], [])


def test_what_another_node_was_seen_to_have_is_left_alone() -> None:
    """An empty report of one node says nothing about the others."""
    row = pod_row(observed_node_id="node-2", live_node_id="node-2")
    assert compare(known(row), Report()).absent_pods == []


def test_unknown_stale_and_strange_containers_are_told_apart() -> None:
    """Each with words on why it is left alone."""
    report = Report(
        pods=(pod_report(pod_id="p-9", container_id="c-9"), pod_report(epoch=EPOCH - 1, container_id="c-0")),
        strange=(StrangeContainer(container_id="c-7", name="x", why="no epoch"),),
    )
    kinds = {oddity.key for oddity in compare(known(pod_row()), report).present}
    assert kinds == {"unknown_container:c-9", "stale_container:c-0", "unknown_container:c-7"}


def test_a_first_image_is_pinned_and_never_replaced() -> None:
    """A pod goes on with the image it was first started from."""
    fresh = compare(known(never_seen(pinned_image_id=None)), Report(pods=(pod_report(),)))
    later = compare(known(pod_row()), Report(pods=(pod_report(image_id="sha256:other"),)))
    assert (fresh.pins, later.pins) == ({"p-1": "sha256:i"}, {})


def test_a_volume_that_vanished_is_absent_and_told_of() -> None:
    """As with containers."""
    row = {
        "id": "w-1",
        "live_node_id": NODE,
        "live_epoch": EPOCH,
        "observed_node_id": NODE,
        "epoch": EPOCH,
        "state": "present",
        "volume": "v",
        "fingerprint": None,
        "open_verb": None,
    }
    seen = WorkspaceReport(
        workspace_id="w-1", user_id="alice", epoch=EPOCH, state=WorkspaceObserved.PRESENT, volume="v"
    )
    kept = compare(known(workspaces=(row,)), Report(workspaces=(seen,)))
    gone = compare(known(workspaces=(row,)), Report())
    assert (kept.absent_workspaces, kept.workspaces) == ([], [])
    assert gone.absent_workspaces == ["w-1"]
    assert [oddity.kind for oddity in gone.vanished] == ["volume_vanished"]
