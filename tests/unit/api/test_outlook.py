"""When waiting for a pod is over."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import wire
from api.outlook import is_hopeless, is_over, is_reached
from state.model import Desired, Observed

NOW = datetime(2026, 1, 2, tzinfo=UTC)
STATES = [*Observed, "archived", "deleted"]


def pod(state: str, desired: Desired, *, settled: bool = False, permanent: bool | None = None) -> wire.Pod:
    """A pod as the API shows it; `permanent` gives it a failure."""
    failure = None
    if permanent is not None:
        failure = wire.Failure(
            verb="create_pod", code="no_such_image", message="…", count=1, permanent=permanent, retry_at=NOW
        )
    return wire.Pod(
        pod_id="p-aaaaaaaaaaaa", user="alice", name="default", image="i", lab=None, cpu_millis=1000,
        memory_mib=2048, pids=512, desired=desired, state=state, generation=1, settled=settled, node=None,
        since=None, condition=None, reason=None, failure=failure, archive=None, progress=None, created_at=NOW,
    )  # fmt: skip


pods = st.builds(
    pod,
    st.sampled_from(STATES),
    st.sampled_from(Desired),
    settled=st.booleans(),
    permanent=st.none() | st.booleans(),
)


@given(pods, st.sampled_from(Desired))
def test_unknown_is_never_taken_for_what_was_wanted(one: wire.Pod, wanted: Desired) -> None:
    """A pod on a silent node has reached nothing (LAW 6)."""
    assert not is_reached(one.model_copy(update={"state": "unknown"}), wanted)


@given(pods)
def test_only_a_running_pod_is_running(one: wire.Pod) -> None:
    """Waiting for a link ends well only where the pod runs."""
    assert is_reached(one, Desired.RUNNING) == (one.state == "running")


@given(pods, st.sampled_from(Desired))
def test_waiting_goes_on_while_there_is_hope(one: wire.Pod, wanted: Desired) -> None:
    """A failure that is tried again, of a pod wanted so, does not end the waiting."""
    assert is_over(one, wanted) == (is_reached(one, wanted) or is_hopeless(one, wanted))


@pytest.mark.parametrize("wanted", [Desired.STOPPED, Desired.ARCHIVED])
def test_a_pod_that_was_never_started_is_at_rest(wanted: Desired) -> None:
    """Nothing has to be made only to be stopped or archived."""
    assert is_reached(pod("absent", wanted, settled=True), wanted)
    assert not is_reached(pod("absent", wanted, settled=False), wanted)


def test_a_parked_pod_is_hopeless() -> None:
    """A permanent failure ends the waiting at once."""
    assert is_hopeless(pod("absent", Desired.RUNNING, permanent=True), Desired.RUNNING)
    assert not is_hopeless(pod("absent", Desired.RUNNING, permanent=False), Desired.RUNNING)
