"""How long a pod may go on as it is: from who is there and what is set, to a wish or a warning. Pure.

Deadlines, of which the nearest counts:
- nobody there: the end of the last visit, and the closed grace. A pod that nobody has visited yet has the
  idle limit instead: it may have been started ahead of its user.
- a tab that nobody touches: the last touch, and the idle limit. Where no editor speaks to us a tab's opening
  counts as the last touch, and `busy_max` as the limit.
- work that goes on puts both off, to at most `busy_max` after somebody was last there.
- `keep_until` puts all of these off. The lifetime counts from the start, whatever goes on.
- stopped for longer than `archive_after`: archived.

What is not known is never absence: without a fresh look at the pod the first three stop nothing; and whatever
the rule, a stop needs a look from after its deadline, and a warning that has stood for its time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from state.lifecycle import Move, PodLife, Presence, Rule, Verdict
from state.model import Desired, Observed

# What cannot be judged now is looked at again this rarely; news of it comes sooner.
UNKNOWN_RETRY = timedelta(seconds=30)
# Work that has paused for longer than this, or than a third of the grace, has ended.
WORK_PAUSE_MAX = timedelta(seconds=60)
# A node that was asked to look and has not answered is asked again.
LOOK_RETRY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _Deadline:
    at: datetime
    rule: Rule
    limit: timedelta
    reason: str


def decide(life: PodLife, now: datetime) -> Verdict:
    """What to do about this pod now. Total: there is a verdict, with a reason, for every pod."""
    if life.desired is Desired.RUNNING and life.actual is Observed.RUNNING:
        return _decide_running(life, now)
    if life.desired is Desired.STOPPED and life.actual is Observed.STOPPED:
        return _decide_stopped(life, now)
    return Verdict(Move.LEAVE, "it is neither running nor stopped, as it is wanted to be")


# ---- running -------------------------------------------------------------------------------------------


def _decide_running(life: PodLife, now: datetime) -> Verdict:
    if not life.known:
        return Verdict(Move.LEAVE, "its node is not heard: nothing is concluded", wake_at=now + UNKNOWN_RETRY)
    by_use = _fresh(life, now)
    deadlines = [deadline for deadline in (_use(life, by_use), _lifetime(life)) if deadline is not None]
    if not deadlines:
        blind = by_use is None
        reason = "who is there is not known now" if blind else "nothing limits how long it runs"
        return Verdict(Move.LEAVE, reason, wake_at=now + UNKNOWN_RETRY if blind else None)
    first = min(deadlines, key=lambda deadline: deadline.at)
    return _until(life, first, by_use, now)


def _fresh(life: PodLife, now: datetime) -> Presence | None:
    """The newest look, if it is of this start and still tells something."""
    seen = life.presence
    if seen is None or seen.started_at != life.started_at:
        return None
    return seen if now - seen.seen_at <= life.limits.fresh else None


def _until(life: PodLife, first: _Deadline, seen: Presence | None, now: datetime) -> Verdict:
    """Wait for the deadline, with a warning before it where somebody could be told; then stop."""
    if first.rule is Rule.CLOSED:
        stops_at, warns_at = first.at, None
    else:
        notice = min(life.limits.warning, first.limit / 2)
        warns_at = first.at - notice
        stops_at = first.at if life.warned_at is None else max(first.at, life.warned_at + notice)
        if now >= warns_at and life.warned_at is None:
            stops_at = max(first.at, now + notice)
            return _verdict(Move.WARN, first, stops_at, wake_at=stops_at, warned=True)
    warned = warns_at is not None and now >= warns_at
    if now < stops_at:
        wakes_at = stops_at if warned or warns_at is None else warns_at
        if seen is None:
            wakes_at = min(wakes_at, now + UNKNOWN_RETRY)
        return _verdict(Move.LEAVE, first, stops_at, wake_at=wakes_at, warned=warned)
    if first.rule is not Rule.LIFETIME and (seen is None or seen.seen_at < stops_at):
        return _verdict(Move.LOOK, first, stops_at, wake_at=now + LOOK_RETRY, warned=warned)
    if life.busy_with_action:
        return _verdict(Move.LEAVE, first, stops_at, wake_at=now + LOOK_RETRY, warned=warned)
    return _verdict(Move.STOP, first, stops_at, wake_at=None, warned=warned)


def _verdict(
    move: Move, deadline: _Deadline, stops_at: datetime, *, wake_at: datetime | None, warned: bool
) -> Verdict:
    can_extend = deadline.rule is not Rule.LIFETIME
    return Verdict(move, deadline.reason, deadline.rule, stops_at, wake_at, warned, can_extend)


def _use(life: PodLife, seen: Presence | None) -> _Deadline | None:
    """When it ends for want of use; None where nobody can tell, or nothing limits it."""
    if seen is None:
        return None
    idle = _without_work(life, seen)
    if idle is None:
        return None
    deadline = _with_work(life, seen, idle)
    if deadline is None or life.keep_until is None or life.keep_until <= deadline.at:
        return deadline
    reason = f"it was to be kept until then; before that: {deadline.reason}"
    return _Deadline(life.keep_until, deadline.rule, deadline.limit, reason)


def _without_work(life: PodLife, seen: Presence) -> _Deadline | None:
    limits, begun = life.limits, max(life.since, life.wished_at)
    if not seen.connected and seen.gone_at is not None:
        last = _last(begun, seen.gone_at, seen.heartbeat_at)
        return _after(last, limits.closed_grace, Rule.CLOSED, "the last tab was closed {ago} before")
    if not seen.connected:
        last = _last(begun, seen.heartbeat_at)
        return _after(last, limits.idle_limit, Rule.CLOSED, "nobody came within {ago}")
    if seen.active_at is None:
        last = _last(begun, seen.connected_at)
        return _after(
            last, limits.busy_max, Rule.IDLE, "a tab has been open for {ago}, and its editor tells nothing"
        )
    last = _last(begun, seen.active_at)
    return _after(last, limits.idle_limit, Rule.IDLE, "a tab is open, and was not touched for {ago}")


def _with_work(life: PodLife, seen: Presence, idle: _Deadline) -> _Deadline | None:
    """Work that goes on at the end puts it off, and so does its own end by the grace; only so long.

    What ended well before does not: an editor that opens, or closes, is at work for some seconds, too.
    """
    limits, last_there = life.limits, idle.at - idle.limit
    if seen.busy:
        if limits.busy_max is None:
            return None
        bound = last_there + limits.busy_max
        reason = f"work ({seen.busy_with}) went on for {_words(limits.busy_max)} with nobody there"
        return max(idle, _Deadline(bound, Rule.BUSY, limits.busy_max, reason), key=lambda one: one.at)
    if seen.busy_at is None or limits.closed_grace is None:
        return idle
    if seen.busy_at < idle.at - min(limits.closed_grace / 3, WORK_PAUSE_MAX):
        return idle
    ended = seen.busy_at + limits.closed_grace
    if limits.busy_max is not None:
        ended = min(ended, last_there + limits.busy_max)
    if ended <= idle.at:
        return idle
    reason = f"the work in it ({seen.busy_with}) ended {_words(limits.closed_grace)} before"
    return _Deadline(ended, idle.rule, limits.closed_grace, reason)


def _lifetime(life: PodLife) -> _Deadline | None:
    reason = "it has run for {ago}, which is as long as it may"
    return _after(life.since, life.limits.lifetime, Rule.LIFETIME, reason)


# ---- stopped -------------------------------------------------------------------------------------------


def _decide_stopped(life: PodLife, now: datetime) -> Verdict:
    stopped_at = max(life.since, life.wished_at)
    deadline = _after(stopped_at, life.limits.archive_after, Rule.ARCHIVE, "it has been stopped for {ago}")
    if deadline is None:
        return Verdict(Move.LEAVE, "nothing limits how long it stays stopped")
    if now < deadline.at:
        return Verdict(Move.LEAVE, deadline.reason, Rule.ARCHIVE, wake_at=deadline.at)
    if not life.known or life.busy_with_action:
        return Verdict(Move.LEAVE, "its node is not heard, or at work on it", wake_at=now + UNKNOWN_RETRY)
    return Verdict(Move.ARCHIVE, deadline.reason, Rule.ARCHIVE)


# ---- times ---------------------------------------------------------------------------------------------


def _after(since: datetime, limit: timedelta | None, rule: Rule, reason: str) -> _Deadline | None:
    if limit is None:
        return None
    return _Deadline(since + limit, rule, limit, reason.format(ago=_words(limit)))


def _last(*moments: datetime | None) -> datetime:
    return max(moment for moment in moments if moment is not None)


def _words(span: timedelta) -> str:
    """A span as people say it: 90 s, 5 min, 12 h."""
    seconds = span.total_seconds()
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"
