"""Jobs that are done again and again, on threads of their own, by the monotonic clock.

A wall clock that is set must neither hold up a job nor hurry it: the lead has to be renewed in any case.
"""

import random
import threading
from collections.abc import Callable

END_TIMEOUT_S_MAX = 60.0


class Clockwork:
    """Each job is done at once, and then so long after it has ended."""

    def __init__(self) -> None:
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, job: Callable[[], None], every_s: float, jitter_s: float = 0.0) -> None:
        """Begin. `job` must not raise. Each wait is longer or shorter by up to `jitter_s`."""

        def run() -> None:
            job()
            while not self._ending.wait(every_s + random.uniform(-jitter_s, jitter_s)):  # noqa: S311 - no secret
                job()

        thread = threading.Thread(target=run, name=f"timer-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """Begin no job any more, and wait for those that are under way."""
        self._ending.set()
        for thread in self._threads:
            thread.join(END_TIMEOUT_S_MAX)
