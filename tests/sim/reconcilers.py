"""Reconciler processes: production's pass and its lead, on a connection that may fail at any call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from reconciler import lives, tick, timers
from reconciler.chores import CHORES_EVERY
from reconciler.lead import RENEW_EVERY, Lead
from state.database import DatabaseUnavailable
from state.leader import Leadership, LeadershipLost
from state.model import Limits, World
from state.outbox import Recorded
from state.plan import Plan
from tests.sim.database import SimDatabase
from tests.sim.life_port import LifePort
from tests.sim.scheduler import Process, Scheduler
from tests.sim.visits import LIFE_LIMITS

T = TypeVar("T")
TURN_S = 1.0
SILENCE_S = 5.0
RESYNC_S = 60.0


class DatabasePort:
    """A reconciler's connection to the database."""

    def __init__(self, db: SimDatabase, scheduler: Scheduler) -> None:
        self.db = db
        self._scheduler = scheduler
        self._basis: dict[str, float] = {}

    def call(self, name: str, effect: Callable[[], T], *, mutates: bool = False) -> T:
        """One transaction."""

        def reached() -> T:
            if self.has("db_down"):
                raise DatabaseUnavailable("the database is away")
            return effect()

        return self._scheduler.call(f"db.{name}", reached, DatabaseUnavailable, mutates=mutates)

    def has(self, trouble: str) -> bool:
        """Whether the database is in this trouble now."""
        return self._scheduler.now_s < self.db.trouble.get(trouble, 0.0)

    def try_lead(self, holder: str, lease: timedelta) -> Leadership | None:
        """See state.leader."""
        return self.call("lead", lambda: self.db.try_lead(holder, lease))

    def renew(self, leadership: Leadership, lease: timedelta) -> bool:
        """See state.leader."""
        return self.call("renew", lambda: self.db.renew(leadership, lease))

    def clock(self) -> datetime:
        """See state.snapshot."""
        return self.call("clock", self.db.clock)

    def note_silence(self, leading: tick.Leading, limits: Limits) -> None:
        """See state.silence."""
        silent_after = limits.node_silent_after
        self.call(
            "note_silence", lambda: self.db.note_silence(leading.leadership, leading.since, silent_after)
        )

    def claim_due(self, limit: int, redeliver_after: timedelta) -> list[str]:
        """See state.snapshot."""

        def effect() -> list[str]:
            return [] if self.has("db_empty") else self.db.claim_due(limit, redeliver_after)

        return self.call("claim_due", effect)

    def read_world(self, workspace_ids: list[str], leading_since: datetime) -> World:
        """See state.snapshot."""

        def effect() -> World:
            self._basis = dict(self.db.watch.believed_s)
            if self.has("poison_row") and self.db.poisoned in workspace_ids:
                raise ValueError(f"the row of {self.db.poisoned} cannot be read")
            world = self.db.read_world(workspace_ids, leading_since)
            if self.has("db_empty"):
                return World({}, (), leading_since)
            if self.has("db_no_pods"):
                bare = tuple(replace(workspace, pods=()) for workspace in world.workspaces)
                return replace(world, workspaces=bare)
            return world

        return self.call("read_world", effect)

    def record(self, plan: Plan, lead: Leadership, now: datetime, examined: list[str]) -> Recorded:
        """See state.outbox."""

        def effect() -> Recorded:
            self.db.watch.basis = self._basis
            return self.db.record(plan, lead, now, examined)

        return self.call("record", effect, mutates=bool(plan.steps))

    @contextmanager
    def transaction(self) -> Iterator[SimDatabase]:
        """One transaction of several statements: what is done in it is done at once."""

        def begin() -> None:
            if self.has("db_empty"):
                raise DatabaseUnavailable("another database is there, and has no such table")

        self.call("chores", begin)
        yield self.db
        self.call("chores_committed", lambda: None)

    def all_workspaces(self) -> list[str]:
        """See state.snapshot.page_workspaces."""

        def effect() -> list[str]:
            everything = tick.WORKSPACES_PER_PASS_MAX
            return [] if self.has("db_empty") else self.db.page_workspaces("", everything)

        return self.call("page", effect)

    def park(self, workspace_id: str, reason: str, retry_at: datetime, lead: Leadership) -> None:
        """See state.outbox."""
        self.db.watch.parked(workspace_id)
        self.call("park", lambda: self.db.park(workspace_id, reason, retry_at, lead))


class ReconcilerActor:
    """A reconciler process: it leads if it can, and passes over what is due."""

    def __init__(self, db: SimDatabase, scheduler: Scheduler, process: Process, limits: Limits) -> None:
        self._port = DatabasePort(db, scheduler)
        self._scheduler = scheduler
        self._process = process
        self._limits = limits
        holder = f"{process.name}/{process.birth}"
        self._lead = Lead(cast("Any", self._port), holder, monotonic=lambda: scheduler.now_s)
        self._term = 0
        self._silence_at_s = 0.0
        self._resync_at_s = 0.0
        self._attend_at_s = 0.0
        self._db = db
        scheduler.spawn(process, f"{process.name}/{process.birth}", self._run)

    def begin_policies(self) -> None:
        """Production's loop over who uses what, on a connection of its own."""
        process, port = self._process, DatabasePort(self._db, self._scheduler)
        self._scheduler.spawn(
            process, f"{process.name}/{process.birth}/lives", lambda: self._look_after_lives(port)
        )

    def begin_chores(self, limits: Callable[[], Limits]) -> None:
        """Production's timer over chores and archives, on a connection of its own."""
        process, port = self._process, DatabasePort(self._db, self._scheduler)

        def attend() -> None:
            while True:
                with suppress(DatabaseUnavailable):
                    timers.look_for_chores(cast("Any", port), limits(), self._lead)
                self._scheduler.sleep(CHORES_EVERY.total_seconds())

        self._scheduler.spawn(process, f"{process.name}/{process.birth}/chores", attend)

    def _look_after_lives(self, port: "DatabasePort") -> None:
        while True:
            wait = self._look(port)
            if wait > timedelta(0):
                self._scheduler.wait_for(self._may_look, wait.total_seconds())

    def _look(self, port: "DatabasePort") -> timedelta:
        """A turn of `lives.LifeLoop`."""
        leading = self._lead.current()
        if leading is None:
            return lives.POLL
        try:
            looked = lives.look(cast("Any", port), self._limits, LIFE_LIMITS, leading)
            if looked.more:
                return timedelta(0)
            return min(LifePort.next_due_in(port) or lives.POLL, lives.POLL)
        except DatabaseUnavailable:
            return lives.POLL
        except LeadershipLost as error:
            self._lead.give_up(str(error))
            return lives.POLL

    def _may_look(self) -> bool:
        now = self._db.clock()
        if self._scheduler.now_s < self._db.trouble.get("db_deaf", 0.0):
            return False
        return self._lead.current() is not None and any(at <= now for at in self._db.policies.due_times())

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except DatabaseUnavailable:
                self._scheduler.sleep(TURN_S)
            except LeadershipLost as error:
                self._lead.give_up(str(error))
            self._scheduler.wait_for(self._may_turn, TURN_S)

    def _may_turn(self) -> bool:
        """A doorbell that only says: look sooner."""
        now = self._db.clock()
        if self._scheduler.now_s < self._db.trouble.get("db_deaf", 0.0):
            return False
        return self._lead.current() is not None and any(due_at <= now for due_at in self._db.due_times())

    def _turn(self) -> None:
        now_s, port = self._scheduler.now_s, self._port
        if now_s >= self._attend_at_s or self._lead.current() is None:
            self._attend_at_s = now_s + RENEW_EVERY.total_seconds()
            self._lead.attend()
        leading = self._lead.current()
        if leading is None:
            return
        if leading.leadership.term != self._term:
            self._term, self._resync_at_s = leading.leadership.term, 0.0
        if now_s >= self._silence_at_s:
            self._silence_at_s = now_s + SILENCE_S
            port.note_silence(leading, self._limits)
        now = port.clock()
        tick.tick(cast("Any", port), self._limits, leading, now)
        if now_s >= self._resync_at_s:
            self._resync_at_s = now_s + RESYNC_S
            tick.examine(cast("Any", port), self._limits, leading, now, port.all_workspaces())
