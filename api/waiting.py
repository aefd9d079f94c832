"""Requests that wait for a pod: one doorbell for all, and a level read after every ring (LAW 1).

Nothing is decided from a notification: it only says "look sooner". With notifications lost, each waiter still
looks every `LOOK_AGAIN_S`. Rings closer together than `RING_GAP_S` are one, so that waiters never spin.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from api.problems import ProblemError

LOOK_AGAIN_S = 5.0
RING_GAP_S = 0.05
_BELL_WAIT_S = 1.0
# The bell may be connecting when the stop comes, which takes seconds when the database is away.
_JOIN_S = 10.0

T = TypeVar("T")


class Bell(Protocol):
    """What `state.database.Doorbell` does."""

    def wait(self, timeout_s: float) -> bool:
        """Whether it rang within the time."""

    def ring(self) -> None:
        """Ring from inside the process."""

    def close(self) -> None:
        """Stop listening. Not while another thread waits."""


class Waiters:
    """The waiting requests of one process. Every method belongs to the event loop's thread."""

    def __init__(self, seats_max: int, look_again_s: float = LOOK_AGAIN_S) -> None:
        self._look_again_s = look_again_s
        self._seats_max = seats_max
        self._seats_taken = 0
        self._rings = 0
        self._rung = asyncio.Event()
        self._closed = False

    def ring(self) -> None:
        """Wake all: something may have changed."""
        self._rings += 1
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    def close(self) -> None:
        """Let all go with what they have, now and from now on: the program stops."""
        self._closed = True
        self.ring()

    async def until(self, read: Callable[[], Awaitable[T]], done: Callable[[T], bool], timeout_s: float) -> T:
        """The first value that is done, or the newest when the time is up.

        Raises `ProblemError` (`too_many_waiting`) when it would have to wait and all seats are taken.
        """
        value = await read()
        if timeout_s <= 0 or done(value):
            return value
        with self._seat():
            return await self._watch(read, done, time.monotonic() + timeout_s)

    async def _watch(self, read: Callable[[], Awaitable[T]], done: Callable[[T], bool], deadline: float) -> T:
        while True:
            rings = self._rings  # taken before reading: a ring during the read is not lost
            value = await read()
            left_s = deadline - time.monotonic()
            if self._closed or left_s <= 0 or done(value):
                return value
            await self._rung_since(rings, min(left_s, self._look_again_s))

    async def _rung_since(self, rings: int, timeout_s: float) -> None:
        if self._rings == rings:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), timeout_s)

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if self._seats_taken >= self._seats_max:
            raise ProblemError("too_many_waiting", f"{self._seats_max} requests are waiting already.")
        self._seats_taken += 1
        try:
            yield
        finally:
            self._seats_taken -= 1


class BellThread:
    """Carries the rings of a blocking bell into the event loop."""

    def __init__(self, bell: Bell, waiters: Waiters) -> None:
        self._bell = bell
        self._waiters = waiters
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; takes at most `_JOIN_S`."""
        self._stopping.set()
        self._bell.ring()
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self._bell.close()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            if self._bell.wait(_BELL_WAIT_S):
                with suppress(RuntimeError):  # the loop may have closed between the two lines
                    self._loop.call_soon_threadsafe(self._waiters.ring)
                self._stopping.wait(RING_GAP_S)
