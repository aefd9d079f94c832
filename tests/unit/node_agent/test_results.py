"""Results are kept until they are accepted, and remembered after that: nothing is begun twice."""

from node_agent.results import ANSWERS_REMEMBERED_MAX, Results
from state.wire import CANCELLED, RESULTS_PER_SYNC_MAX, StepDone, StepFailed


def test_a_result_is_sent_until_it_is_accepted() -> None:
    """Accepting one leaves the others."""
    results = Results()
    results.add(StepDone(action_id="1"))
    results.add(StepDone(action_id="2"))
    results.accept(["1", "unknown"])
    assert [result.action_id for result in results.pending()] == ["2"]


def test_a_late_copy_of_an_accepted_action_is_answered_as_before() -> None:
    """However late: it is not done again, and a database that was set back gets its answer."""
    results = Results()
    results.add(StepDone(action_id="1"))
    results.accept(["1"])
    assert results.pending() == ()
    assert results.answer_again("1")
    assert not results.answer_again("2")
    assert results.pending() == (StepDone(action_id="1"),)


def test_answers_are_remembered_within_a_bound() -> None:
    """The oldest are forgotten (LAW 15)."""
    results = Results()
    ids = [str(number) for number in range(ANSWERS_REMEMBERED_MAX + 1)]
    for action_id in ids:
        results.add(StepDone(action_id=action_id))
    results.accept(ids)
    assert [results.answer_again(ids[0]), results.answer_again(ids[-1])] == [False, True]


def test_one_sync_carries_no_more_results_than_it_may() -> None:
    """The rest follows with the next one."""
    results = Results()
    for number in range(RESULTS_PER_SYNC_MAX + 5):
        results.add(StepDone(action_id=str(number)))
    assert len(results.pending()) == RESULTS_PER_SYNC_MAX
    assert len(results.ids()) == RESULTS_PER_SYNC_MAX + 5


def test_an_action_that_was_taken_back_is_answered_and_never_begun_again() -> None:
    """Also when nothing was known of it, and also long after: a late copy may still be on its way."""
    results = Results()
    results.cancel("unknown")
    (answer,) = results.pending()
    assert isinstance(answer, StepFailed)
    assert answer.code == CANCELLED
    results.accept(["unknown"])
    assert results.answer_again("unknown")


def test_what_was_done_before_it_was_taken_back_is_answered_as_done() -> None:
    """The truth counts, not what was wished meanwhile; also when the answer was accepted long ago."""
    results = Results()
    results.add(StepDone(action_id="1"))
    results.cancel("1")
    results.accept(["1"])
    results.cancel("1")
    assert results.pending() == (StepDone(action_id="1"),)
