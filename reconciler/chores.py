"""Chores by the clock: which are due, and which have been with a lost node for too long."""

from datetime import datetime, timedelta

import structlog

from reconciler.retention import DAY, Keep, Kept, retained
from reconciler.tick import Leading
from state.chores import prune, take_back_lost
from state.database import Connection, Database
from state.leader import assert_leading
from state.model import Limits
from state.retention import Target, deleted_pods, due_targets, kept_archives, look_again, retire

CHORES_EVERY = timedelta(seconds=10)
# No chore takes longer than this: the node that has it is stuck, or has forgotten it.
CHORE_TIMEOUT = timedelta(hours=6)
# Chores that are over are kept for people to look at.
CHORES_KEPT = timedelta(days=14)
PRUNED_AT_ONCE_MAX = 500

log = structlog.get_logger(__name__)


# Targets whose archives are looked through in one transaction, and how often at a look.
TARGETS_AT_ONCE_MAX = 50
TARGET_PAGES_MAX = 20

NOT_NEEDED = "newer archives are kept, and one of each of the last days"
DELETED_LONG_AGO = "the pod was deleted long ago"


def attend_retention(db: Database, limits: Limits, leading: Leading, now: datetime) -> int:
    """Retire the archives that are not needed any more, of the targets that are due. How many."""
    retired = 0
    for _ in range(TARGET_PAGES_MAX):
        with db.transaction() as connection:
            assert_leading(connection, leading.leadership)
            targets = due_targets(connection, TARGETS_AT_ONCE_MAX)
            retired += _retire(connection, targets, limits, now)
        if len(targets) < TARGETS_AT_ONCE_MAX:
            break
    return retired


def _retire(connection: Connection, targets: list[Target], limits: Limits, now: datetime) -> int:
    keep, retired = Keep(limits.archives_kept, limits.archive_days_kept), 0
    gone = deleted_pods(connection, targets, limits.deleted_pods_kept)
    for target, rows in kept_archives(connection, targets).items():
        known = [Kept(row.id, row.number, row.committed_at, row.suspect, row.pinned) for row in rows]
        stay = frozenset() if target in gone else retained(known, now, keep)
        dispensable = {archive.id for archive in known} - stay
        retired += retire(connection, dispensable, DELETED_LONG_AGO if target in gone else NOT_NEEDED)
        look_again(connection, target, now + DAY if stay else None)
    return retired


def attend_chores(db: Database, limits: Limits, leading: Leading) -> None:
    """One look, in one transaction.

    Raises `LeadershipLost` when our term is over: nothing is written then.
    """
    with db.transaction() as connection:
        assert_leading(connection, leading.leadership)
        lost = take_back_lost(connection, leading.since, limits.node_silent_after, CHORE_TIMEOUT)
        prune(connection, CHORES_KEPT, PRUNED_AT_ONCE_MAX)
    if lost:
        log.warning("chores_taken_back", count=lost)
