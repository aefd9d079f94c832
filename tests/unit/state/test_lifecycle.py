"""How looks at one pod become what is known of it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from state.lifecycle import Presence, changed_coarsely, merge
from state.presence_wire import PodPresence

START = datetime(2026, 9, 1, 8, tzinfo=UTC)
NOW = START + timedelta(hours=1)
laws = settings(deadline=None)
ages = st.none() | st.floats(0, 3600)
looks = st.builds(
    PodPresence,
    pod_id=st.just("p-one"),
    epoch=st.just(1),
    started_at=st.sampled_from([START, START + timedelta(minutes=1)]),
    age_s=st.floats(0, 60),
    connections=st.integers(0, 3),
    connected_for_s=ages,
    gone_for_s=ages,
    heartbeat_age_s=ages,
    active_age_s=ages,
    busy_age_s=ages,
)


def look(**fields: object) -> PodPresence:
    """One look at a start."""
    return PodPresence(pod_id="p-one", epoch=1, started_at=START, **fields)  # type: ignore[arg-type]


@laws
@given(st.lists(looks, min_size=1, max_size=5))
def test_whatever_is_said_somebody_is_there_or_gone(said: list[PodPresence]) -> None:
    """Of any sequence: an open tab has a beginning and no end, and nothing is known before its start."""
    known: Presence | None = None
    for number, words in enumerate(said):
        known = merge(known, words, NOW + timedelta(seconds=number))
        assert (known.connected_at is not None) == known.connected
        assert not (known.connected and known.gone_at)
        assert known.started_at == words.started_at


def test_an_agent_that_was_started_anew_does_not_undo_a_leave() -> None:
    """It knows of no visit; the database does: the grace goes on from where it was."""
    there = merge(None, look(connections=2, connected_for_s=10), NOW)
    gone = merge(there, look(gone_for_s=0), NOW + timedelta(seconds=2))
    after = merge(gone, look(), NOW + timedelta(seconds=60))
    unseen = merge(there, look(), NOW + timedelta(seconds=60))

    assert after.gone_at == gone.gone_at == NOW + timedelta(seconds=2)
    assert unseen.gone_at == NOW + timedelta(seconds=60)


def test_a_moment_does_not_move_with_the_time_that_messages_take() -> None:
    """The same leave told again, a little later or earlier, is the same moment."""
    first = merge(None, look(gone_for_s=10), NOW)
    again = merge(first, look(gone_for_s=40.7), NOW + timedelta(seconds=30))

    assert again.gone_at == first.gone_at
    assert not changed_coarsely(first, again)


def test_a_new_start_is_a_new_page() -> None:
    """What was seen before a restart says nothing of after it."""
    before = merge(None, look(gone_for_s=1000, busy_age_s=5), NOW)
    other = PodPresence(pod_id="p-one", epoch=1, started_at=START + timedelta(minutes=5))
    after = merge(before, other, NOW)

    assert (after.gone_at, after.busy_at) == (None, None)
    assert changed_coarsely(before, after)
