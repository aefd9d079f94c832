"""Saying once, and then ever more rarely, that the database is away; and once that it is back."""

import threading
import time
from collections.abc import Callable

import structlog

FIRST_SILENCE_S = 1.0
SILENCE_S_MAX = 60.0

log = structlog.get_logger(__name__)


class Outage:
    """One per thing that can be away; several threads may tell it what they met."""

    def __init__(self, what: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._since: float | None = None
        self._silence_s = FIRST_SILENCE_S
        self._quiet_until = 0.0

    def met(self, error: Exception) -> None:
        """It is away."""
        with self._lock:
            now = self._monotonic()
            if self._since is None:
                self._since = now
            if now < self._quiet_until:
                return
            log.warning(f"{self._what}_away", error=str(error), for_s=round(now - self._since, 1))
            self._quiet_until = now + self._silence_s
            self._silence_s = min(self._silence_s * 2, SILENCE_S_MAX)

    def over(self) -> None:
        """It answers."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                log.info(f"{self._what}_back", after_s=round(self._monotonic() - self._since, 1))
            self._since, self._silence_s, self._quiet_until = None, FIRST_SILENCE_S, 0.0
