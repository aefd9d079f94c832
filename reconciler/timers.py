"""What happens by the clock: renewing the lead, looking for silent nodes, and the resync."""

from collections.abc import Callable
from datetime import timedelta

import structlog

from reconciler.chores import CHORES_EVERY, attend_chores, attend_retention
from reconciler.clockwork import Clockwork
from reconciler.lead import RENEW_EVERY, Lead
from reconciler.outage import Outage
from state.database import Database, DatabaseUnavailable
from state.leader import LeadershipLost
from state.model import Limits
from state.silence import note_silence
from state.snapshot import database_clock

SILENCE_EVERY = timedelta(seconds=5)
RESYNC_EVERY = timedelta(seconds=60)
# So that several replicas, or several installations on one server, do not all resync at the same moment.
RESYNC_JITTER = timedelta(seconds=10)

log = structlog.get_logger(__name__)


def start_timers(
    db: Database, limits: Limits, lead: Lead, resync: Callable[[], None], outage: Outage
) -> Clockwork:
    """Start them; the caller stops them."""
    timers = Clockwork()
    for name, job, every, jitter in (
        ("lead", lead.attend, RENEW_EVERY, None),
        ("silence", lambda: look_for_silence(db, limits, lead), SILENCE_EVERY, None),
        ("resync", resync, RESYNC_EVERY, RESYNC_JITTER),
        ("chores", lambda: look_for_chores(db, limits, lead), CHORES_EVERY, None),
    ):
        timers.add(name, surviving(name, job, outage), every, jitter)
    timers.start()
    return timers


def look_for_silence(db: Database, limits: Limits, lead: Lead) -> None:
    """Note which nodes have gone silent or are back, if we lead."""
    leading = lead.current()
    if leading is None:
        return
    try:
        changed = note_silence(db, leading.leadership, leading.since, limits.node_silent_after)
    except LeadershipLost:
        lead.give_up("the database says that our term is over")
        return
    for node_id, silent in changed.items():
        log.warning("node_silent" if silent else "node_heard", node_id=node_id)


def look_for_chores(db: Database, limits: Limits, lead: Lead) -> None:
    """Make the chores that are due, and give those of lost nodes to others, if we lead."""
    leading = lead.current()
    if leading is None:
        return
    try:
        attend_chores(db, limits, leading)
        attend_retention(db, limits, leading, database_clock(db))
    except LeadershipLost:
        lead.give_up("the database says that our term is over")


def surviving(name: str, job: Callable[[], None], outage: Outage) -> Callable[[], None]:
    """The same job, whose failures are logged and never end its timer."""

    def run() -> None:
        try:
            job()
        except DatabaseUnavailable as error:
            outage.met(error)
        except Exception as error:  # a timer must outlive whatever goes wrong in it
            log.error("timer_failed", timer=name, error=repr(error), exc_info=error)
        else:
            outage.over()

    return run
