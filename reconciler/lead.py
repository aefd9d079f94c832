"""Leading or not: a lease row in the database, renewed by a timer and trusted for less than it lasts.

Leadership saves double work; it is not what keeps the data safe, for two leaders at once do no harm.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from reconciler.tick import Leading
from state.database import Database
from state.leader import Leadership, renew, resign, try_lead
from state.snapshot import database_clock

LEASE = timedelta(seconds=15)
RENEW_EVERY = timedelta(seconds=5)
# We stop believing in our lease before the database does, counted from before we asked for it.
MARGIN = timedelta(seconds=1)

log = structlog.get_logger(__name__)


class Lead:
    """Our side of the lease. `attend` is called by a timer, `current` by the loop; from any thread."""

    def __init__(self, db: Database, holder: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._holder = holder
        self._monotonic = monotonic
        self._attending = threading.Lock()
        self._leading: Leading | None = None
        self._trusted_until = 0.0

    def current(self) -> Leading | None:
        """Our term, if we have one that we may still trust."""
        leading = self._leading
        return leading if leading is not None and self._monotonic() < self._trusted_until else None

    def attend(self) -> None:
        """Renew our term, or try to get one. Raises `DatabaseUnavailable`; what is trusted then runs out."""
        with self._attending:
            asked_at = self._monotonic()
            if self._leading is not None and asked_at >= self._trusted_until:
                # Nodes could most likely not be heard either: a new term gives them all a new lease (LAW 13).
                self.give_up("it could not be renewed in time")
            if self._leading is None:
                self._try(asked_at)
            elif renew(self._db, self._leading.leadership, LEASE):
                self._trust(asked_at)
            else:
                self.give_up("the lease ran out and somebody else leads, or may")

    def give_up(self, why: str) -> None:
        """Stop believing that we lead; the next `attend` tries to lead anew."""
        if self._leading is not None:
            log.warning("leadership_lost", term=self._leading.leadership.term, why=why)
        self._leading = None

    def resign(self) -> None:
        """Let another lead at once."""
        leading, self._leading = self._leading, None
        if leading is not None:
            resign(self._db, leading.leadership)
            log.info("leadership_resigned", term=leading.leadership.term)

    def _try(self, asked_at: float) -> None:
        leadership: Leadership | None = try_lead(self._db, self._holder, LEASE)
        if leadership is None:
            return
        since = database_clock(self._db)
        self._trust(asked_at)
        self._leading = Leading(leadership, since)
        log.info("leading", term=leadership.term, holder=self._holder)

    def _trust(self, asked_at: float) -> None:
        self._trusted_until = asked_at + (LEASE - MARGIN).total_seconds()
