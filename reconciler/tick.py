"""One pass of the reconciler: what is due → the world around it → a plan → rows. Loops belong to `main`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from reconciler.plan import plan
from state.database import Database, DatabaseUnavailable
from state.leader import Leadership, LeadershipLost
from state.model import Limits
from state.outbox import Recorded, park, record
from state.plan import Plan
from state.snapshot import claim_due, due_workspaces, read_world

WORKSPACES_PER_PASS_MAX = 200
# A workspace whose pass was cut short (a crash, a lost term) comes due again after this long.
REDELIVER_AFTER = timedelta(seconds=30)
# One that cannot be decided about is tried again this rarely: people have to look at it.
PARKED_RETRY = timedelta(minutes=5)
PARKED_REASON_CHARACTERS_MAX = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leading:
    """Our term, and since when we have it by the database's clock."""

    leadership: Leadership
    since: datetime


@dataclass(frozen=True, slots=True)
class TickOutcome:
    """What a pass came to. `more`: it was full, so more is probably due already."""

    workspaces: int = 0
    plan: Plan = field(default_factory=Plan)
    recorded: Recorded = field(default_factory=Recorded)
    parked: int = 0
    more: bool = False

    def fields(self) -> dict[str, Any]:
        """The pass in one log line."""
        return {
            "workspaces": self.workspaces,
            **self.plan.fields(),
            "decisions_changed": self.recorded.decisions,
            "refused": self.recorded.refused,
            "parked": self.parked,
        }

    @property
    def acted(self) -> bool:
        """Whether anything happened that people would want to read about."""
        recorded = self.recorded
        return bool(
            recorded.places or recorded.releases or recorded.steps or recorded.take_backs or self.parked
        )


def tick(db: Database, limits: Limits, leading: Leading, now: datetime) -> TickOutcome:
    """Decide about what is due. Raises `DatabaseUnavailable` and `LeadershipLost`; nothing else stops it."""
    workspace_ids = claim_due(db, WORKSPACES_PER_PASS_MAX, REDELIVER_AFTER)
    return examine(db, limits, leading, now, workspace_ids)


def examine(
    db: Database, limits: Limits, leading: Leading, now: datetime, workspace_ids: Sequence[str]
) -> TickOutcome:
    """Decide about these workspaces; if that fails, about each by itself, so that only the bad one waits."""
    if not workspace_ids:
        return TickOutcome()
    try:
        return _pass(db, limits, leading, now, workspace_ids)
    except (DatabaseUnavailable, LeadershipLost):
        raise
    except Exception as error:  # noqa: BLE001 - LAW 12: whatever is wrong with one must not stop the others
        if len(workspace_ids) == 1:
            return _park(db, leading, now, workspace_ids[0], error)
        log.warning("pass_failed", error=repr(error), workspaces=len(workspace_ids), next="one by one")
    return _one_by_one(db, limits, leading, now, workspace_ids)


def dry_run(db: Database, limits: Limits, now: datetime) -> Plan:
    """What a pass would decide now; nothing is written, nothing is claimed, and nobody needs to lead."""
    workspace_ids = due_workspaces(db, WORKSPACES_PER_PASS_MAX)
    return plan(read_world(db, workspace_ids, now), now, limits)


def _pass(
    db: Database, limits: Limits, leading: Leading, now: datetime, workspace_ids: Sequence[str]
) -> TickOutcome:
    world = read_world(db, workspace_ids, leading.since)
    decided = plan(world, now, limits)
    recorded = record(db, decided, leading.leadership, now, workspace_ids)
    more = len(workspace_ids) >= WORKSPACES_PER_PASS_MAX
    return TickOutcome(len(workspace_ids), decided, recorded, more=more)


def _one_by_one(
    db: Database, limits: Limits, leading: Leading, now: datetime, workspace_ids: Sequence[str]
) -> TickOutcome:
    parts = [examine(db, limits, leading, now, [workspace_id]) for workspace_id in workspace_ids]
    return TickOutcome(
        workspaces=len(workspace_ids),
        recorded=Recorded.total(part.recorded for part in parts),
        parked=sum(part.parked for part in parts),
        more=len(workspace_ids) >= WORKSPACES_PER_PASS_MAX,
    )


def _park(db: Database, leading: Leading, now: datetime, workspace_id: str, error: Exception) -> TickOutcome:
    log.error("workspace_parked", workspace_id=workspace_id, error=repr(error), exc_info=error)
    reason = (
        f"codepods cannot make out this workspace's rows ({type(error).__name__}: {error}); nothing is done"
        " with it, the others go on; please report this"
    )
    retry_at = now + PARKED_RETRY
    park(db, workspace_id, reason[:PARKED_REASON_CHARACTERS_MAX], retry_at, leading.leadership)
    return TickOutcome(workspaces=1, parked=1)
