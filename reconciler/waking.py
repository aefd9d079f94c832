"""When a pod is to be looked at again though nothing is heard of it. Pure."""

from datetime import datetime, timedelta

from reconciler import warm
from reconciler.classify import Facts
from state.plan import Condition

# How soon to look again at what waits for a turn, for room, or for a node in between two states.
TURN_RETRY = timedelta(milliseconds=250)
CAPACITY_RETRY = timedelta(seconds=5)
TRANSIT_RETRY = timedelta(seconds=2)
SILENT_RETRY = timedelta(seconds=10)

_FIXED_RETRIES: dict[Condition, timedelta] = {
    Condition.WAITING_FOR_TURN: TURN_RETRY,
    Condition.WAITING_FOR_CAPACITY: CAPACITY_RETRY,
    Condition.IN_TRANSIT: TRANSIT_RETRY,
    Condition.GOING_BACK: TRANSIT_RETRY,
    Condition.NODE_SILENT: SILENT_RETRY,
    Condition.ENGINE_AWAY: SILENT_RETRY,
    Condition.WITHHELD: SILENT_RETRY,
}


def wake(facts: Facts, condition: Condition) -> datetime | None:
    """When time alone could change this decision; None when only a report or a wish can."""
    if condition is Condition.NEEDS_PLACEMENT:
        return facts.now
    if condition in _FIXED_RETRIES:
        return facts.now + _FIXED_RETRIES[condition]
    if condition in (Condition.PARKED, Condition.BACKING_OFF):
        failure = facts.failure or facts.workspace.failure
        return failure.retry_at if failure else None
    if condition is Condition.IN_GRACE and facts.pod.archive:
        return facts.pod.archive.committed_at + facts.limits.archive_grace
    if condition is Condition.SETTLED and (due_at := warm.pod_due_at(facts)):
        return due_at if facts.now < due_at else facts.now + CAPACITY_RETRY
    return None
