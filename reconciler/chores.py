"""Chores by the clock: which are due, and which have been with a lost node for too long."""

from dataclasses import asdict
from datetime import datetime, timedelta

import structlog

from reconciler.retention import DAY, Keep, Kept, retained
from reconciler.tick import Leading
from state.chores import prune, take_back_lost
from state.compactions import make_due_compactions
from state.copies import make_checkpoints, make_recoveries
from state.database import Connection, Database
from state.image_sweeps import make_image_sweep, make_survey
from state.leader import assert_leading
from state.model import Limits
from state.retention import Target, deleted_pods, due_targets, kept_archives, look_again, retire
from state.scrubs import make_due_scrubs
from state.sweeps import make_due_sweeps, make_tidy, will_need_a_sweep

CHORES_EVERY = timedelta(seconds=10)
# No chore takes longer than this: the node that has it is stuck, or has forgotten it.
CHORE_TIMEOUT = timedelta(hours=6)
# Chores that are over are kept for people to look at.
CHORES_KEPT = timedelta(days=14)
PRUNED_AT_ONCE_MAX = 500
TIDY_EVERY = timedelta(days=1)
IMAGES_EVERY = timedelta(days=1)
SURVEY_EVERY = timedelta(days=1)
# Made at a look; nodes need minutes for so many, and a request that waits for long is made anew.
SWEEPS_AT_ONCE_MAX = 20
# An archive that was found damaged is read again this often: it may have been put right.
SUSPECT_SCRUB_EVERY = timedelta(days=1)
SCRUBS_OPEN_MAX = 20
# Copies that one look may ask for.
COPIES_AT_ONCE_MAX = 50

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
            make_due_compactions(connection, targets)
        if len(targets) < TARGETS_AT_ONCE_MAX:
            break
    return retired


def _retire(connection: Connection, targets: list[Target], limits: Limits, now: datetime) -> int:
    keep, retired = Keep(limits.archives_kept, limits.archive_days_kept), 0
    deleted = deleted_pods(connection, targets, limits.deleted_pods_kept)
    for target, rows in kept_archives(connection, targets).items():
        known = [Kept(**asdict(row)) for row in rows]
        over = deleted.get(target, False)
        stay = frozenset() if over else retained(known, now, keep)
        dispensable = {archive.id for archive in known} - stay
        if retire(connection, dispensable, DELETED_LONG_AGO if over else NOT_NEEDED):
            will_need_a_sweep(connection, target, limits)
            retired += len(dispensable)
        # Time alone retires only what is kept as the last of a day, or as a deleted pod's.
        waits = target in deleted or len(stay) > keep.newest
        look_again(connection, target, now + DAY if stay and waits else None)
    return retired


def attend_chores(db: Database, limits: Limits, leading: Leading) -> None:
    """One look, in one transaction.

    Raises `LeadershipLost` when our term is over: nothing is written then.
    """
    with db.transaction() as connection:
        assert_leading(connection, leading.leadership)
        lost = take_back_lost(connection, leading.since, limits.node_silent_after, CHORE_TIMEOUT)
        prune(connection, CHORES_KEPT, PRUNED_AT_ONCE_MAX)
        make_tidy(connection, limits, TIDY_EVERY)
        make_image_sweep(connection, limits, IMAGES_EVERY)
        make_survey(connection, SURVEY_EVERY)
        make_due_sweeps(connection, limits, SWEEPS_AT_ONCE_MAX)
        make_due_scrubs(connection, limits.scrub_every, SUSPECT_SCRUB_EVERY, SCRUBS_OPEN_MAX)
        make_recoveries(connection, COPIES_AT_ONCE_MAX)
        if limits.checkpoint_every:
            make_checkpoints(connection, limits.checkpoint_every, COPIES_AT_ONCE_MAX)
    if lost:
        log.warning("chores_taken_back", count=lost)
