"""Chores by the clock: which are due, and which have been with a lost node for too long."""

from datetime import timedelta

import structlog

from reconciler.tick import Leading
from state.chores import prune, take_back_lost
from state.database import Database
from state.leader import assert_leading
from state.model import Limits

CHORES_EVERY = timedelta(seconds=10)
# No chore takes longer than this: the node that has it is stuck, or has forgotten it.
CHORE_TIMEOUT = timedelta(hours=6)
# Chores that are over are kept for people to look at.
CHORES_KEPT = timedelta(days=14)
PRUNED_AT_ONCE_MAX = 500

log = structlog.get_logger(__name__)


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
