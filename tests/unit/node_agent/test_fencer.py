"""What a node stops by itself: the rule, the memory of fences, and that nothing else is touched."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from node_agent.fencer import ANSWERS_EVERY_S_MAX, SHUT_OUT_S_MAX, Fencer, Fences, must_stop
from node_agent.journal import Journal
from node_agent.labels import PodLabels
from node_agent.runtime import Container, Status


def container(epoch: int = 2, status: Status = Status.RUNNING) -> Container:
    """Alice's pod."""
    return Container(
        id="c-1",
        name=f"codepods-p-1-e{epoch}",
        labels=PodLabels("p-1", "alice", "w-1", "node-1", epoch, 1).as_labels(),
        status=status,
        image_id="sha256:1",
        started_at="2026-01-02T03:04:05.1Z",
        finished_at="0001-01-01T00:00:00Z",
    )


@given(
    st.sampled_from(Status),
    st.integers(0, 5),
    st.integers(0, 5),
    st.none() | st.integers(1, 9),
    st.floats(0, 20),
)
def test_only_a_live_pod_of_an_older_epoch_or_behind_its_fence_is_stopped(
    status: Status, epoch: int, highest: int, fence_s: int | None, silent_s: float
) -> None:
    """And each of those is."""
    pod = container(epoch, status)
    fences = {"c-1": fence_s} if fence_s else {}
    why = must_stop(pod, {"w-1": highest}.__getitem__, fences, silent_s)

    assert (why is not None) == (
        pod.live and (epoch < highest or (fence_s is not None and silent_s > fence_s))
    )


def test_a_pod_that_nobody_asked_to_fence_runs_on_whatever_is_silent() -> None:
    """A control plane that is away must not end anybody's session."""
    assert must_stop(container(), lambda _workspace: 2, {}, 1_000_000.0) is None


def test_fences_outlive_the_agent(tmp_path: Path) -> None:
    """They are read again by the next process."""
    Fences(tmp_path / "fences.json").set("c-1", 60)
    again = Fences(tmp_path / "fences.json")

    assert again.get("c-1") == 60
    again.set("c-1", None)
    assert Fences(tmp_path / "fences.json").all() == {}


def test_an_unreadable_file_is_no_fence(tmp_path: Path) -> None:
    """Then the report says so, and the pod is waited for instead of moved."""
    (tmp_path / "fences.json").write_text('{"c-1": "sixty"')

    assert Fences(tmp_path / "fences.json").all() == {}


def fencer(folder: Path, now: Callable[[], float]) -> Fencer:
    """As an agent's process makes it at its start; no engine is asked here."""
    journal, fences = Journal(folder / "journal.json", "node-1"), Fences(folder / "fences.json")
    return Fencer(cast("Any", None), journal, fences, lambda: None, folder / "contact.json", now)


def test_a_restart_of_the_agent_does_not_begin_the_wait_anew(tmp_path: Path) -> None:
    """Else a pod would run on here after it was started elsewhere (LAW 6)."""
    Fences(tmp_path / "fences.json").set("c-1", 60)
    assert fencer(tmp_path, lambda: 900.0).silent_s() == float("inf")  # nothing says that it was ever heard
    fencer(tmp_path, lambda: 1000.0).contact(1000.0)

    assert fencer(tmp_path, lambda: 1070.0).silent_s() == 70.0


@given(st.lists(st.tuples(st.sampled_from((5.0, 25.0, 31.0)), st.sampled_from("obn")), max_size=30))
def test_pods_are_stopped_only_after_a_minute_of_answers_that_another_machine_is_believed(
    answers: list[tuple[float, str]],
) -> None:
    """Without a break: to be believed in between, or to hear nothing for long, begins the wait anew."""
    clock, since = [0.0], None
    with TemporaryDirectory() as folder:
        one = fencer(Path(folder), lambda: clock[0])
    last = 0.0
    for after_s, answer in answers:
        clock[0] += after_s
        lost = since is None or clock[0] - last > ANSWERS_EVERY_S_MAX
        if answer == "o":
            one.shut_out()
            since, last = (clock[0] if lost else since), clock[0]
        elif answer == "b":
            one.contact(clock[0])
            since = None
        lasted_s = 0.0 if since is None or clock[0] - last > ANSWERS_EVERY_S_MAX else last - since
        assert one.shut_out_s() == lasted_s
        why = must_stop(container(), lambda _workspace: 2, {}, 0.0, lasted_s)
        assert (why is not None) == (lasted_s > SHUT_OUT_S_MAX)
