"""Which archives of a pod or workspace are kept. Pure.

Kept are the newest ones, and the last of each day for a while: so there is always something to go back to
from the last few times, and from before whatever went wrong this week. A damaged one counts for nothing, and
is kept for as long as one before it is. What was retired once is never wanted again by later looks: its blobs
may be gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# How soon to look at a target again of which something could be retired only by the day's turn.
DAY = timedelta(days=1)
# Of those that were taken while it ran; they are for a node that is lost, not for going back far.
LIVE_KEPT = 2
# Somebody has to find out that there is one, and to look into it.
RECOVERED_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Kept:
    """An archive that is not retired.

    `pinned`: something is restored from it, or may be at any moment. `live`: taken while it ran; there may be
    many of those a day. `recovered`: a copy of what a lost node still had, which nothing points at.
    """

    id: str
    number: int
    committed_at: datetime
    suspect: bool = False
    pinned: bool = False
    live: bool = False
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """How many of the newest, and for how many days the last of each day. At least one of the newest."""

    newest: int
    days: int


def retained(archives: Iterable[Kept], now: datetime, keep: Keep) -> frozenset[str]:
    """The ids of those that stay. All of them for a target whose newest archive is not known to be well."""
    by_age = sorted(archives, key=lambda archive: archive.number, reverse=True)
    good = [archive for archive in by_age if not archive.suspect]
    if not good:
        return frozenset(archive.id for archive in by_age)
    made = [archive for archive in good if not archive.recovered]
    settled = [archive for archive in made if not archive.live]
    live = [archive for archive in made if archive.live]
    stay = {archive.id for archive in (*settled[: max(keep.newest, 1)], *live[:LIVE_KEPT])}
    stay |= _last_of_days(made, now, keep.days)
    stay |= {a.id for a in by_age if a.recovered and now - a.committed_at < RECOVERED_KEPT}
    stay |= {archive.id for archive in by_age if archive.pinned} | {by_age[0].id}
    oldest = min((archive.number for archive in good if archive.id in stay), default=0)
    return frozenset(stay | {a.id for a in by_age if a.suspect and a.number > oldest})


def _last_of_days(good: list[Kept], now: datetime, days: int) -> set[str]:
    """`good` is newest first. A day is one of UTC; today is the first of them."""
    since = (now.astimezone(UTC) - timedelta(days=days)).date()
    last: dict[object, str] = {}
    for archive in good:
        day = archive.committed_at.astimezone(UTC).date()
        if day > since:
            last.setdefault(day, archive.id)
    return set(last.values())
