"""Requests that wait: woken by rings, deciding by levels, bounded, and let go at a stop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from api.problems import ProblemError
from api.waiting import Waiters

LONG_S = 60.0


class Level:
    """Something that is read again and again, and counts it."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.was_read = asyncio.Event()

    async def read(self) -> int:
        """The value now."""
        self.reads += 1
        self.was_read.set()
        return self.value

    async def again(self, reads: int) -> None:
        """Wait until it was read so often."""
        while self.reads < reads:
            self.was_read.clear()
            await self.was_read.wait()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run to the end, which comes or is a hang."""
    asyncio.run(asyncio.wait_for(scenario(), LONG_S / 2))  # type: ignore[arg-type]


def test_what_is_done_already_is_given_at_once() -> None:
    """Nobody sits down to wait for what is there."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=0), Level()

        assert await waiters.until(level.read, lambda _: True, LONG_S) == 0
        assert level.reads == 1

    run(scenario)


def test_a_ring_makes_everybody_look_again() -> None:
    """After a ring each waiter reads the level, and goes when it is as wanted."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=2), Level()
        waits = [asyncio.ensure_future(waiters.until(level.read, bool, LONG_S)) for _ in range(2)]
        await level.again(4)
        level.value = 7
        waiters.ring()

        assert await asyncio.gather(*waits) == [7, 7]

    run(scenario)


def test_waiters_do_not_read_without_a_ring() -> None:
    """Between rings a waiter sleeps: it reads twice on sitting down, and once for a ring."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=1), Level()
        wait = asyncio.ensure_future(waiters.until(level.read, bool, LONG_S))
        await level.again(2)
        for _ in range(100):
            await asyncio.sleep(0)

        assert level.reads == 2

        level.value = 1
        waiters.ring()
        await wait

        assert level.reads == 3

    run(scenario)


def test_a_ring_during_a_read_is_not_lost() -> None:
    """A change that comes while the old level is being read is seen at once."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=1, look_again_s=LONG_S), Level()

        async def read() -> int:
            value = await level.read()
            if level.reads == 2:
                level.value = 1
                waiters.ring()
            return value

        assert await waiters.until(read, bool, LONG_S) == 1
        assert level.reads == 3

    run(scenario)


def test_a_lost_ring_only_delays() -> None:
    """Without any ring a waiter still looks from time to time: notifications are hints (LAW 1)."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=1, look_again_s=0.01), Level()
        wait = asyncio.ensure_future(waiters.until(level.read, bool, LONG_S))
        await level.again(2)
        level.value = 1

        assert await wait == 1

    run(scenario)


def test_when_time_is_up_the_newest_is_given() -> None:
    """A waiter whose time is up gets what there is."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=1), Level()

        assert await waiters.until(level.read, bool, 0.01) == 0

    run(scenario)


def test_more_than_the_seats_are_refused() -> None:
    """The number of waiting requests is bounded; a seat is free again when its waiter goes."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=1), Level()
        wait = asyncio.ensure_future(waiters.until(level.read, bool, LONG_S))
        await level.again(2)

        with pytest.raises(ProblemError, match="too_many_waiting"):
            await waiters.until(level.read, bool, LONG_S)

        level.value = 1
        waiters.ring()
        await wait
        level.value = 0

        assert await waiters.until(level.read, bool, 0.01) == 0

    run(scenario)


def test_a_stop_lets_all_go() -> None:
    """Nobody waits any longer once the program stops, and nobody begins to."""

    async def scenario() -> None:
        waiters, level = Waiters(seats_max=1), Level()
        wait = asyncio.ensure_future(waiters.until(level.read, bool, LONG_S))
        await level.again(2)
        waiters.close()

        assert await wait == 0
        assert await waiters.until(level.read, bool, LONG_S) == 0

    run(scenario)
