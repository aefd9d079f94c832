"""What a tracker remembers of one pod, from look to look."""

import time
from datetime import UTC, datetime

from node_agent.editor_files import EditorWord
from node_agent.presence import CPU_WINDOW_S, TOLD_EVERY_S, Look, Tracker
from state.presence_wire import PodPresence


def tracker() -> Tracker:
    """Of a start that nothing is known of."""
    return Tracker("p-one", 1, datetime(2026, 9, 1, tzinfo=UTC), busy_cpu_millis=100)


def told(of: Tracker) -> PodPresence:
    """What it tells at the moment of its last look."""
    assert of.last is not None
    said = of.tell(of.last.at_s)
    assert said is not None
    return said


def test_a_visit_begins_and_ends() -> None:
    """Before any visit there is no end of one; a tab that comes back makes its end undone."""
    one = tracker()
    one.see(Look(0, connections=0))
    assert (told(one).connected_for_s, told(one).gone_for_s) == (None, None)
    one.see(Look(2, connections=2))
    one.see(Look(12, connections=4))
    assert told(one).connected_for_s == 10
    one.see(Look(14, connections=0))
    one.see(Look(20, connections=0))
    assert (told(one).connected_for_s, told(one).gone_for_s) == (None, 6)
    one.see(Look(22, connections=1))
    assert told(one).gone_for_s is None


def test_work_is_judged_over_a_window() -> None:
    """A start's first burst is not yet judged; a tenth of a CPU over the window is work, a pause ends it."""
    one = tracker()
    one.see(Look(0, 0, cpu_ns=0))
    one.see(Look(1, 0, cpu_ns=int(0.9e9)))
    assert one.busy_at_s is None
    one.see(Look(10, 0, cpu_ns=int(1.5e9)))
    assert (told(one).busy_age_s, told(one).cpu_millis) == (0, 150)
    for second in range(11, 30):
        one.see(Look(second, 0, cpu_ns=int(1.5e9)))
    assert told(one).busy_age_s == 30 - 1 - told_busy_at(one)


def test_nothing_is_told_before_it_is_known_whether_work_goes_on() -> None:
    """An agent that comes back at a deadline would else end work that it has not had the time to see."""
    one = tracker()
    one.see(Look(0, 0, cpu_ns=0))
    one.see(Look(2, 0, cpu_ns=int(1.9e9)))
    assert one.tell(2) is None
    one.see(Look(4, 0, cpu_ns=int(3.8e9)))

    assert told(one).busy_age_s == 0


def told_busy_at(of: Tracker) -> float:
    """When work was last seen: while it was still within the window."""
    assert of.busy_at_s is not None
    assert 10 <= of.busy_at_s <= 10 + CPU_WINDOW_S
    return of.busy_at_s


def test_a_job_in_a_terminal_needs_little_and_a_task_nothing() -> None:
    """What is known to be somebody's work counts from a hundredth of a CPU on; a task while it runs."""
    one = tracker()
    one.see(Look(0, 0, cpu_ns=0, jobs=1))
    one.see(Look(10, 0, cpu_ns=int(0.2e9), jobs=1))
    assert "a job in a terminal" in told(one).busy_with

    other = tracker()
    now_ms = time.time() * 1000
    other.see(Look(0, 2, words=(EditorWord(at_ms=now_ms, active_at_ms=now_ms, tasks=1),), words_age_s=0))
    assert told(other).busy_with == "a task in the editor"


def test_work_that_gets_no_cpu_is_work() -> None:
    """On a crowded machine a build may get next to nothing: that it waits for a CPU shows it."""
    one = tracker()
    for second in range(0, 10, 2):
        one.see(Look(second, 0, cpu_ns=second * 10_000_000, runnable=second % 4 == 0))
    assert "wait for a CPU" in told(one).busy_with
    assert told(one).busy_age_s == 0

    other = tracker()
    for second in range(0, 20, 2):
        other.see(Look(second, 0, cpu_ns=0, runnable=second % 6 == 0))
    assert told(other).busy_age_s is None


def test_what_changes_much_is_told_at_once_and_all_else_seldom() -> None:
    """Coming, leaving, work and coming back to the keys are news; growing ages are not, for half a minute."""
    one = tracker()
    one.see(Look(0, 2, words_age_s=70))
    assert one.is_news(told(one), 0)
    one.was_told(told(one), 0)
    one.see(Look(2, 2, words_age_s=72))
    assert not one.is_news(told(one), 2)
    one.see(Look(4, 2, words_age_s=1))
    assert one.is_news(told(one), 4)
    one.was_told(told(one), 4)
    one.see(Look(6, 3, words_age_s=3))
    assert not one.is_news(told(one), 6)
    assert one.is_news(told(one), 4 + TOLD_EVERY_S)
    one.see(Look(8, 0, words_age_s=5))
    assert one.is_news(told(one), 8)
