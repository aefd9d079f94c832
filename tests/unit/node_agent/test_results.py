"""Results are kept until they are accepted, and late copies of what was accepted are known for a while."""

from node_agent.results import REMEMBERED_S, Results
from state.wire import RESULTS_PER_SYNC_MAX, StepDone


class Clock:
    """A clock that is set by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_result_is_sent_until_it_is_accepted() -> None:
    """Accepting one leaves the others."""
    results = Results()
    results.add(StepDone(action_id="1"))
    results.add(StepDone(action_id="2"))
    results.accept(["1", "unknown"])
    assert [result.action_id for result in results.pending()] == ["2"]


def test_a_late_copy_of_an_accepted_action_is_known_for_a_minute() -> None:
    """After that the database is believed: it may have been set back."""
    clock = Clock()
    results = Results(clock)
    results.add(StepDone(action_id="1"))
    results.accept(["1"])
    assert results.lately_accepted("1")
    assert not results.lately_accepted("2")
    clock.now_s += REMEMBERED_S
    assert not results.lately_accepted("1")


def test_one_sync_carries_no_more_results_than_it_may() -> None:
    """The rest follows with the next one."""
    results = Results()
    for number in range(RESULTS_PER_SYNC_MAX + 5):
        results.add(StepDone(action_id=str(number)))
    assert len(results.pending()) == RESULTS_PER_SYNC_MAX
    assert len(results.ids()) == RESULTS_PER_SYNC_MAX + 5


def test_an_action_that_was_taken_back_is_answered_and_never_begun_again() -> None:
    """Also when nothing was known of it, and also long after: a late copy may still be on its way."""
    clock = Clock()
    results = Results(clock)
    results.cancel("unknown")
    assert [(r.action_id, r.outcome) for r in results.pending()] == [("unknown", "failed")]
    results.accept(["unknown"])
    clock.now_s += 100 * REMEMBERED_S
    assert results.was_cancelled("unknown")


def test_what_was_done_before_it_was_taken_back_is_answered_as_done() -> None:
    """The truth counts, not what was wished meanwhile."""
    results = Results()
    results.add(StepDone(action_id="1"))
    results.cancel("1")
    assert results.pending() == (StepDone(action_id="1"),)
    assert not results.was_cancelled("1")
