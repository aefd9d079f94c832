"""The table of transitions, as laws."""

from itertools import permutations

import pytest

from node_agent.reporting import _BETWEEN
from state.model import Desired, Observed, Verb
from state.transitions import PROGRAM_OF, TRANSITIONS, Cause, Program, may_become

OURS = {pair: cause for pair, cause in TRANSITIONS.items() if cause is not Cause.OUTSIDE}


def test_every_change_has_one_cause_and_each_cause_one_program() -> None:
    """The table is total: no change of state is left to be explained."""
    assert set(TRANSITIONS) == set(permutations(Observed, 2))
    assert set(PROGRAM_OF) == set(Cause)


@pytest.mark.parametrize("desired", [state for state in Desired if state is not Desired.DELETED])
def test_deleted_is_terminal_and_nothing_else_is(desired: Desired) -> None:
    """A tombstone stays; everything else may become anything."""
    assert not may_become(Desired.DELETED, desired)
    assert may_become(Desired.DELETED, Desired.DELETED)
    assert all(may_become(desired, after) for after in Desired)


def test_every_verb_about_pods_leads_somewhere() -> None:
    """No verb is without a transition, and no transition is by a verb about workspaces."""
    by_agent = {cause for cause in OURS.values() if PROGRAM_OF[cause] is Program.NODE_AGENT}

    assert {str(cause) for cause in by_agent - {Cause.REPORT}} == {str(v) for v in Verb if v.endswith("_pod")}


def test_our_own_steps_reach_and_leave_every_state() -> None:
    """From absent, our programs can bring a pod to each reported state, and from each back to absent."""
    forwards = _reachable({pair for pair in OURS if Observed.UNKNOWN not in pair})
    backwards = _reachable(
        {(after, before) for before, after in OURS if Observed.UNKNOWN not in (before, after)}
    )
    assert forwards == backwards == set(Observed) - {Observed.UNKNOWN}


def test_only_silence_makes_unknown_and_only_a_report_ends_it() -> None:
    """Unknown is concluded, never reported (LAW 6)."""
    assert {cause for (_, after), cause in TRANSITIONS.items() if after is Observed.UNKNOWN} == {
        Cause.SILENCE
    }
    assert {cause for (before, _), cause in TRANSITIONS.items() if before is Observed.UNKNOWN} == {
        Cause.REPORT
    }


def test_nothing_but_an_order_takes_a_stopped_pod_away() -> None:
    """What holds a user's files goes by a removal, or by somebody's hand on the engine (LAW 9)."""
    for before in (Observed.STOPPED, Observed.FAILED):
        assert TRANSITIONS[before, Observed.ABSENT] is Cause.REMOVE
    for before in (Observed.RUNNING, Observed.STARTING, Observed.STOPPING, Observed.ARCHIVING):
        assert TRANSITIONS[before, Observed.ABSENT] is Cause.OUTSIDE


@pytest.mark.parametrize(("verb", "between"), _BETWEEN.items())
def test_what_the_agent_reports_during_a_step_is_in_the_table(verb: str, between: Observed) -> None:
    """What the agent reports while it works on a step is entered and left by that step."""
    entered = {cause for (_, after), cause in OURS.items() if after is between and cause == verb}
    left = {cause for (before, _), cause in OURS.items() if before is between and cause == verb}
    assert entered == left == {verb}


def _reachable(pairs: set[tuple[Observed, Observed]]) -> set[Observed]:
    found = {Observed.ABSENT}
    while more := {after for before, after in pairs if before in found} - found:
        found |= more
    return found
