"""What the handlers work with: the database, the settings, and the bounded threads that SQL runs on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread

from api.pace import Pace
from api.problems import ProblemError
from api.settings import ApiSettings
from api.waiting import Waiters
from state.database import Database, DatabaseUnavailable

QUEUE_TIMEOUT_S = 5.0
# A class that begins, or a list that is gone through, comes in one go.
BURST_S = 10.0

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deps:
    """Made once by `api.main`, or by a test."""

    db: Database
    settings: ApiSettings
    waiters: Waiters
    connections: asyncio.Semaphore
    threads: CapacityLimiter
    downloads: asyncio.Semaphore
    pace: Pace

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function of `state` on a thread, as many at a time as there are connections.

        Raises `ProblemError` (`database_unavailable`) when the database does not answer, or none of the
        connections comes free within `QUEUE_TIMEOUT_S`: during an outage requests must not pile up.
        """
        try:
            await asyncio.wait_for(self.connections.acquire(), QUEUE_TIMEOUT_S)
        except TimeoutError as error:
            detail = f"All connections have been in use for {QUEUE_TIMEOUT_S:g} s."
            raise ProblemError("database_unavailable", detail) from error
        try:
            return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self.threads)
        except DatabaseUnavailable as error:
            log.warning("database unavailable", error=str(error))
            detail = "PostgreSQL cannot be reached, or broke off the call; the log says which."
            raise ProblemError("database_unavailable", detail) from error
        finally:
            self.connections.release()


def make_deps(db: Database, settings: ApiSettings) -> Deps:
    """Dependencies with the bounds that the settings name."""
    return Deps(
        db=db,
        settings=settings,
        waiters=Waiters(settings.waiting_requests_max),
        connections=asyncio.Semaphore(settings.database_connections_max),
        threads=CapacityLimiter(settings.database_connections_max),
        downloads=asyncio.Semaphore(settings.downloads_max),
        pace=Pace(settings.requests_per_s_max, BURST_S),
    )
