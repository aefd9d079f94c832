"""Jobs that are done again and again."""

import threading

from reconciler.clockwork import Clockwork


def test_a_job_is_done_at_once_and_again_until_the_end() -> None:
    """After `stop` none is under way, and none begins."""
    done, enough = [], threading.Event()

    def job() -> None:
        done.append(threading.current_thread().name)
        if len(done) == 3:
            enough.set()

    clockwork = Clockwork()
    clockwork.start("often", job, every_s=0.001)
    assert enough.wait(30)
    clockwork.stop()
    count = len(done)
    assert done == ["timer-often"] * count
    assert not [thread for thread in threading.enumerate() if thread.name == "timer-often"]


def test_a_job_that_is_slow_holds_up_no_other() -> None:
    """Each has a thread of its own."""
    going_on, other = threading.Event(), threading.Event()
    clockwork = Clockwork()
    clockwork.start("slow", lambda: going_on.wait(30) and None, every_s=60)
    clockwork.start("other", other.set, every_s=60, jitter_s=1)
    assert other.wait(30)
    going_on.set()
    clockwork.stop()
