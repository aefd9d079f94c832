"""The policies at work: pods that are due to be looked at, a verdict for each, and what follows from it.

A loop of its own beside the one that plans, with an index of its own over what is due: looking at how pods
are used must not hold up those who are waiting for one.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from reconciler.classify import is_silent
from reconciler.due_loop import POLL, DueLoop
from reconciler.lead import Lead
from reconciler.outage import Outage
from reconciler.plan import is_breaker_open
from reconciler.policy import decide
from reconciler.tick import Leading
from state import policies, presence
from state.database import Database, Doorbell
from state.lifecycle import LifeLimits, Move, PodLife, Verdict
from state.model import Limits
from state.snapshot import database_clock, read_world

PODS_PER_PASS_MAX = 200
# LAW 15: a wrong limit must not put away everybody at once.
WISHES_PER_PASS_MAX = 50
REDELIVER_AFTER = timedelta(seconds=30)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a pass came to. `more`: it was full, so more is probably due already."""

    pods: int = 0
    wishes: int = 0
    warnings: int = 0
    looks_asked: int = 0
    void: int = 0
    more: bool = False

    def fields(self) -> dict[str, Any]:
        """The pass in one log line."""
        return {name: getattr(self, name) for name in ("pods", "wishes", "warnings", "looks_asked", "void")}


def look(db: Database, limits: Limits, life_limits: LifeLimits, leading: Leading) -> Looked:
    """One pass. Raises `DatabaseUnavailable` and `LeadershipLost`."""
    pod_ids = policies.claim_due(db, PODS_PER_PASS_MAX, REDELIVER_AFTER)
    if not pod_ids:
        return Looked()
    now = database_clock(db)
    known = _known_nodes(db, limits, leading, now)
    lives = policies.read_lives(db, pod_ids, life_limits, known)
    decided = [(life, decide(life, now)) for life in lives]
    return _carry_out(db, leading, decided, now)


def _known_nodes(db: Database, limits: Limits, leading: Leading, now: datetime) -> frozenset[str]:
    """The nodes that can be relied on now; none while we suspect ourselves (LAW 13)."""
    world = read_world(db, [], leading.since)
    if is_breaker_open(world, now, limits):
        return frozenset()
    return frozenset(
        node.id
        for node in world.nodes.values()
        if node.engine_error is None and not is_silent(node, leading.since, now, limits)
    )


def _carry_out(
    db: Database, leading: Leading, decided: Sequence[tuple[PodLife, Verdict]], now: datetime
) -> Looked:
    loud = [one for one in decided if one[1].move in (Move.WARN, Move.STOP, Move.ARCHIVE)]
    quiet = [one for one in decided if one[1].move in (Move.LEAVE, Move.LOOK)]
    policies.record_quiet(db, leading.leadership, quiet, now)
    to_look_at = [life.pod_id for life, verdict in quiet if verdict.move is Move.LOOK]
    asked = presence.ask_to_look(db, to_look_at)
    # Those that are left out come due again after REDELIVER_AFTER.
    done = [one for one in loud[:WISHES_PER_PASS_MAX] if policies.record(db, leading.leadership, one, now)]
    for life, verdict in done:
        log.info("policy", pod=life.pod_id, move=verdict.move, rule=verdict.rule, reason=verdict.reason)
    warnings = sum(verdict.move is Move.WARN for _, verdict in done)
    return Looked(
        pods=len(decided),
        wishes=len(done) - warnings,
        warnings=warnings,
        looks_asked=asked,
        void=len(loud[:WISHES_PER_PASS_MAX]) - len(done),
        more=len(decided) >= PODS_PER_PASS_MAX,
    )


class LifeLoop(DueLoop):
    """Passes, one after the other, while we lead. In a thread of its own."""

    name = "policies"

    def __init__(
        self,
        db: Database,
        doorbell: Doorbell,
        limits: Limits,
        life_limits: LifeLimits,
        lead: Lead,
        outage: Outage,
    ) -> None:
        super().__init__(doorbell, lead, outage)
        self._db = db
        self._limits = limits
        self._life_limits = life_limits
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(self._stop,), name=self.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._stop.set()
        self._doorbell.ring()
        self._thread.join()

    def turn(self, leading: Leading) -> timedelta:
        """See DueLoop."""
        looked = look(self._db, self._limits, self._life_limits, leading)
        if looked.more:
            return timedelta(0)
        # What came due meanwhile waits for the poll, too: limits are minutes, and so nothing makes this spin.
        return min(policies.next_due_in(self._db) or POLL, POLL)
