"""The threads and the memory that all transfers of one S3 store share (LAW 15)."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from node_agent.s3_client import PART_RETRY_FIRST_S, PART_TRIES_MAX
from node_agent.store import StoreUnavailable

# What the store's transfers hold beyond one part each: 2 parts of 5 MiB, so that two uploads with a part
# being filled, one that waits and one on its way each stay below 40 MiB together.
EXTRA_PARTS_MAX = 2
THREADS_MAX = 16

T = TypeVar("T")


class Lanes:
    """Shared by all transfers of a store."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="s3")
        self.extra = threading.BoundedSemaphore(EXTRA_PARTS_MAX)


class InOrder(Generic[T]):
    """One transfer's parts under way, whose results come in the order in which they were begun.

    One part may always be under way; each further one needs a place of those that all transfers share, and
    none of them ever waits for a place: so transfers that wait for each other cannot stop each other.
    """

    def __init__(self, lanes: Lanes, at_once_max: int) -> None:
        self._lanes = lanes
        self._at_once_max = at_once_max
        self._parts: deque[Future[T]] = deque()

    def __len__(self) -> int:
        return len(self._parts)

    def try_begin(self, work: Callable[[], T]) -> bool:
        """Begin a part, if there is room for it now."""
        extra = bool(self._parts)
        if extra and (len(self._parts) >= self._at_once_max or not self._lanes.extra.acquire(blocking=False)):
            return False
        part = self._lanes.threads.submit(work)
        if extra:
            part.add_done_callback(self._leave)
        self._parts.append(part)
        return True

    def next(self) -> T:
        """Wait for the oldest part. Raises what it raised."""
        return self._parts.popleft().result()

    def cancel(self) -> None:
        """Begin nothing more, and wait for what cannot be called back."""
        for part in self._parts:
            part.cancel()
        while self._parts:
            part = self._parts.popleft()
            if not part.cancelled():
                part.exception()

    def _leave(self, _part: Future[T]) -> None:
        self._lanes.extra.release()


def persistently(work: Callable[[], T], given_up: threading.Event) -> T:
    """Do it, again after growing pauses while the store does not answer, until the transfer is given up."""
    for attempt in range(PART_TRIES_MAX - 1):
        try:
            return work()
        except StoreUnavailable:
            if given_up.wait(PART_RETRY_FIRST_S * 2**attempt):
                raise
    return work()
