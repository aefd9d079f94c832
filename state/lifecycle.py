"""Who is in a pod, and how long it may go on like that: the nouns that presence and the policies share. Pure.

Times are UTC by the database's clock; nodes tell ages, which are turned into times when they arrive.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from state.model import Desired, Observed
from state.presence_wire import PodPresence

# Two tellings of one moment differ by the time that the messages took.
SAME_MOMENT = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Presence:
    """The newest look at who is in a pod, since its present start.

    `connected_at` is since when tabs have been open, None while none is; `gone_at` since when none has been
    any more, None while one is, and for a pod that nobody has visited. `active_at` is None while no editor
    speaks to us. `busy_at` is when work was last seen; `busy` says that it still goes on.
    """

    seen_at: datetime
    started_at: datetime
    connections: int = 0
    connected_at: datetime | None = None
    gone_at: datetime | None = None
    heartbeat_at: datetime | None = None
    active_at: datetime | None = None
    busy: bool = False
    busy_at: datetime | None = None
    busy_with: str = ""

    @property
    def connected(self) -> bool:
        """A tab is open."""
        return self.connections > 0


def merge(before: Presence | None, said: PodPresence, now: datetime) -> Presence:
    """What is known after a look. An agent that was started anew does not know what was before: we do."""
    seen_at = now - timedelta(seconds=said.age_s)
    known = before if before is not None and before.started_at == said.started_at else None
    connected = said.connections > 0
    gone_at = _ago(seen_at, said.gone_for_s)
    if known is not None and gone_at is None:
        gone_at = seen_at if known.connected else known.gone_at
    connected_before = None if known is None else known.connected_at
    connected_at = _ago(seen_at, said.connected_for_s) or connected_before or seen_at
    return Presence(
        seen_at=seen_at,
        started_at=said.started_at,
        connections=said.connections,
        connected_at=_steady(connected_before, connected_at) if connected else None,
        gone_at=None if connected else _steady(None if known is None else known.gone_at, gone_at),
        heartbeat_at=_ago(seen_at, said.heartbeat_age_s),
        active_at=_ago(seen_at, said.active_age_s),
        busy=said.busy_age_s == 0,
        busy_at=_latest(_ago(seen_at, said.busy_age_s), None if known is None else known.busy_at),
        busy_with=said.busy_with,
    )


def changed_coarsely(before: Presence | None, after: Presence) -> bool:
    """Somebody came or left, or work began or ended: what may bring a deadline nearer."""
    if before is None or before.started_at != after.started_at:
        return True
    return (before.connected, before.busy) != (after.connected, after.busy)


def _ago(seen_at: datetime, age_s: float | None) -> datetime | None:
    return None if age_s is None else seen_at - timedelta(seconds=age_s)


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)


def _steady(before: datetime | None, moment: datetime | None) -> datetime | None:
    """The moment as it was told first, where both are one."""
    if before is not None and moment is not None and abs(before - moment) <= SAME_MOMENT:
        return before
    return moment


class Rule(StrEnum):
    """Why a policy wishes something: its actor in the history is `policy:` and this."""

    CLOSED = "closed"  # the last tab was closed, or nobody came
    IDLE = "idle"  # a tab is open, and nobody has touched it
    BUSY = "busy"  # work went on for longer than it may without anybody there
    LIFETIME = "lifetime"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class LifeLimits:
    """How long a pod may go on as it is; None: for ever. docs/presence.md has them in words."""

    closed_grace: timedelta | None = timedelta(minutes=5)
    idle_limit: timedelta | None = timedelta(minutes=60)
    busy_max: timedelta | None = timedelta(hours=12)
    lifetime: timedelta | None = None
    archive_after: timedelta | None = timedelta(hours=24)
    # How long before a stop whoever is there is told; at most half of the limit itself.
    warning: timedelta = timedelta(minutes=5)
    # Presence older than this is not known any more.
    fresh: timedelta = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class PodLife:
    """What the policies decide from about one pod.

    `actual` is what its node reports at the live placement, `since` since when; `known` says that this can be
    relied on now: the node is heard, its engine answers, and not most nodes are silent. `wished_at` is when
    something was last wished of the pod, `keep_until` until when somebody has asked to keep it, `warned_at`
    since when a warning stands.
    """

    pod_id: str
    generation: int
    desired: Desired
    actual: Observed
    since: datetime
    wished_at: datetime
    limits: LifeLimits
    known: bool = True
    busy_with_action: bool = False
    started_at: datetime | None = None
    keep_until: datetime | None = None
    warned_at: datetime | None = None
    presence: Presence | None = None


class Move(StrEnum):
    """What a policy does about a pod now."""

    LEAVE = "leave"
    LOOK = "look"  # ask its node who is there now
    WARN = "warn"
    STOP = "stop"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a pod, and when time alone could change it.

    `stops_at` is when it will be stopped if nothing changes, by `rule`; `reason` says why, for people.
    `warned` says that a warning stands, and `can_extend` that whoever is there can put the stop off.
    """

    move: Move
    reason: str
    rule: Rule | None = None
    stops_at: datetime | None = None
    wake_at: datetime | None = None
    warned: bool = False
    can_extend: bool = True
