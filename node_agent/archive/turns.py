"""Turns at what takes the processors and the memory: reading a tree, compressing it and sending it.

What comes before (looking the tree through) and after (reading back, the manifest) uses one processor, or
waits for the disk: other archives are in that part meanwhile, without a turn.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

ASK_EVERY_S = 0.2

# Entered for as long as one tree is read, compressed and sent.
Turn = Callable[[], AbstractContextManager[None]]
at_once: Turn = nullcontext


class Turns:
    """At most so many at a time. Safe to use from several threads."""

    def __init__(self, at_once_max: int) -> None:
        self._free = threading.BoundedSemaphore(at_once_max)

    @contextmanager
    def one(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn, and have it. `check` is asked meanwhile, and ends the wait by raising."""
        while not self._free.acquire(timeout=ASK_EVERY_S):
            check()
        try:
            yield
        finally:
            self._free.release()
