"""The loop: passes over what is due, first; a page of the resync, when there is time; sleep until a bell."""

from datetime import timedelta

import structlog

from reconciler.due_loop import POLL, DueLoop
from reconciler.lead import Lead
from reconciler.outage import Outage
from reconciler.tick import WORKSPACES_PER_PASS_MAX, Leading, TickOutcome, examine, tick
from state.database import Database, Doorbell
from state.model import Limits
from state.snapshot import database_clock, next_due_in, page_workspaces

log = structlog.get_logger(__name__)


class Resync:
    """A walk through all workspaces in pages, due or not: what makes missed wake-ups harmless (LAW 1)."""

    def __init__(self) -> None:
        self._after: str | None = None

    def ask(self) -> None:
        """Start a walk, unless one is under way."""
        if self._after is None:
            self._after = ""

    @property
    def under_way(self) -> bool:
        """Whether a page is waiting to be looked at."""
        return self._after is not None

    def page(self, db: Database, limit: int) -> list[str]:
        """The next workspaces of the walk; it ends with a page that is not full."""
        workspace_ids = page_workspaces(db, self._after or "", limit)
        self._after = workspace_ids[-1] if len(workspace_ids) == limit else None
        return workspace_ids


class Loop(DueLoop):
    """What is due is planned; what is not, is looked at all the same from time to time."""

    name = "loop"

    def __init__(
        self,
        db: Database,
        doorbell: Doorbell,
        limits: Limits,
        lead: Lead,
        resync: Resync,
        outage: Outage,
    ) -> None:
        super().__init__(doorbell, lead, outage)
        self._db = db
        self._limits = limits
        self._resync = resync
        self._term: int | None = None

    def turn(self, leading: Leading) -> timedelta:
        """One pass, or one page of the resync; how long to wait for a bell after it."""
        if leading.leadership.term != self._term:
            self._term = leading.leadership.term
            self._resync.ask()
        now = database_clock(self._db)
        outcome = tick(self._db, self._limits, leading, now)
        if not outcome.workspaces and self._resync.under_way:
            page = self._resync.page(self._db, WORKSPACES_PER_PASS_MAX)
            outcome = examine(self._db, self._limits, leading, now, page)
        _tell(outcome)
        if outcome.more or self._resync.under_way:
            return timedelta(0)
        due_in = next_due_in(self._db)
        return POLL if due_in is None else min(due_in, POLL)


def _tell(outcome: TickOutcome) -> None:
    if outcome.acted:
        log.info("pass", **outcome.fields())
    elif outcome.workspaces:
        log.debug("pass", **outcome.fields())
