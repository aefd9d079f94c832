"""Jobs by the clock: again and again, none held up by another, nor by a clock that is set back."""

import threading
import time
from datetime import timedelta

from reconciler.clockwork import Clockwork

PATIENCE_S = 30
HOUR = timedelta(hours=1)


def test_a_job_is_done_at_once_and_again() -> None:
    """And not after the end."""
    runs = 0
    twice = threading.Event()

    def job() -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            twice.set()

    clockwork = Clockwork()
    clockwork.add("often", job, timedelta(milliseconds=1))
    clockwork.start()
    assert twice.wait(PATIENCE_S)
    clockwork.stop()
    before = runs
    time.sleep(0.05)
    assert runs == before


def test_a_slow_job_holds_up_no_other() -> None:
    """Renewing the lead does not wait for a resync; the end waits for both."""
    going_on, other, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        going_on.wait(PATIENCE_S)
        ended.set()

    clockwork = Clockwork()
    clockwork.add("slow", slow, HOUR)
    clockwork.add("other", other.set, HOUR, timedelta(seconds=1))
    clockwork.start()
    assert other.wait(PATIENCE_S)
    going_on.set()
    clockwork.stop()
    assert ended.is_set()


def test_a_clock_that_is_set_back_holds_up_nothing() -> None:
    """The next run is an hour away, as for a scheduler whose clock was set back by one; yet it comes."""
    ahead_s = 0.0
    done = threading.Semaphore(0)
    clockwork = Clockwork(lambda: ahead_s)
    clockwork.add("lead", done.release, HOUR)
    clockwork.start()
    assert done.acquire(timeout=PATIENCE_S)

    ahead_s = -HOUR.total_seconds()

    assert done.acquire(timeout=PATIENCE_S)
    clockwork.stop()
