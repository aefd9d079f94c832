"""Jobs that are done again and again, whatever happens to the machine's clock."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

LOOK_EVERY_S = 1.0
# Less than that is a clock that is being slewed, and holds nothing up.
SET_BACK_S = 0.5


class Clockwork:
    """A scheduler that keeps the time of each next run by the wall clock, and a watch on that clock.

    Set back by an hour, it would hold up the lead's renewal for an hour: then all jobs are due at once. Set
    forward, each is due once.
    """

    def __init__(self, ahead_s: Callable[[], float] | None = None) -> None:
        """`ahead_s` is how far the wall clock is ahead of the monotonic one, which nobody sets."""
        self._ahead_s = ahead_s or (lambda: time.time() - time.monotonic())
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        self._ending = threading.Event()
        self._watch = threading.Thread(target=self._watch_clock, name="clock-watch", daemon=True)

    def add(
        self, name: str, job: Callable[[], None], every: timedelta, jitter: timedelta | None = None
    ) -> None:
        """Do it at the start and then each `every`, up to `jitter` sooner or later. It must not raise."""
        self._scheduler.add_job(
            job,
            "interval",
            id=name,
            seconds=every.total_seconds(),
            jitter=int(jitter.total_seconds()) if jitter else None,
            next_run_time=datetime.now(UTC),
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._watch.start()

    def stop(self) -> None:
        """Begin no job any more, and wait for those that are under way."""
        self._ending.set()
        self._watch.join()
        self._scheduler.shutdown(wait=True)

    def _watch_clock(self) -> None:
        highest_s = self._ahead_s()
        while not self._ending.wait(LOOK_EVERY_S):
            ahead_s = self._ahead_s()
            if ahead_s < highest_s - SET_BACK_S:
                self._all_due()
                highest_s = ahead_s
            highest_s = max(highest_s, ahead_s)

    def _all_due(self) -> None:
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=now)
