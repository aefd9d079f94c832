"""A loop that looks at what is due while we lead; nothing that goes wrong in one turn ends the rest."""

import threading
from abc import ABC, abstractmethod
from datetime import timedelta

import structlog

from reconciler.lead import Lead
from reconciler.outage import Outage
from reconciler.tick import Leading
from state.database import DatabaseUnavailable, Doorbell
from state.leader import LeadershipLost

# With every bell silent, a change is seen after this long.
POLL = timedelta(seconds=1)
# After a turn that failed in a way nobody foresaw.
PAUSE = timedelta(seconds=5)

log = structlog.get_logger(__name__)


class DueLoop(ABC):
    """A loop over what is due, asleep until its bell rings. `name` is for the log."""

    name: str

    def __init__(self, doorbell: Doorbell, lead: Lead, outage: Outage) -> None:
        self._doorbell = doorbell
        self._lead = lead
        self._outage = outage

    @abstractmethod
    def turn(self, leading: Leading) -> timedelta:
        """One of them; how long to wait for a bell after it."""

    def run(self, stop: threading.Event) -> None:
        """Turn until `stop`."""
        while not stop.is_set():
            wait = self._surviving_turn()
            if wait > timedelta(0):
                self._doorbell.wait(wait.total_seconds())

    def _surviving_turn(self) -> timedelta:
        leading = self._lead.current()
        if leading is None:
            return POLL
        try:
            wait = self.turn(leading)
        except DatabaseUnavailable as error:
            self._outage.met(error)
            return POLL
        except LeadershipLost as error:
            self._lead.give_up(str(error))
            return POLL
        except Exception as error:  # the loop must outlive whatever goes wrong in a turn
            log.error("turn_failed", loop=self.name, error=repr(error), exc_info=error)
            return PAUSE
        self._outage.over()
        return wait
