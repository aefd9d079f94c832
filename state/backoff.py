"""When a failed step may be tried again: exponential, jittered, forgotten when the generation moves on.

Pure: the jitter is an argument. Figures follow client-go's item limiter in shape (doubling from a small first
delay to a ceiling) with jitter added, so that many pods that failed together do not come back together.
"""

from datetime import datetime, timedelta

from state.model import Failure, Limits, Verb

# 2**40 s is past any ceiling: bounding the exponent keeps the arithmetic finite after any number of failures.
_EXPONENT_MAX = 40

# A step that cannot succeed without a change of the pod is looked at again this rarely, in case the world
# around it changed instead (somebody pushed the missing image).
PERMANENT_RETRY = timedelta(minutes=10)

# After so many failures in a row nobody is kept waiting for the next try, which may be minutes away.
KEEPS_FAILING = 5

# Asking again gains nothing where the next try comes this soon by itself. It also keeps somebody who asks all
# the time from undoing the back-off.
RETRY_IS_SOON = timedelta(seconds=5)

# Outcomes that say "look again" rather than "something is wrong": they do not count as failures.
RACES = frozenset({"source_changed", "stale_epoch", "superseded", "busy"})


def delay(count: int, limits: Limits, jitter: float) -> timedelta:
    """The wait after the `count`-th failure in a row; `jitter` in [0, 1) shortens it by up to half."""
    exponent = min(max(count - 1, 0), _EXPONENT_MAX)
    full: timedelta = min(limits.backoff_first * (1 << exponent), limits.backoff_max)
    return full * (1 - jitter / 2)


def next_failure(
    previous: Failure | None,
    *,
    verb: Verb,
    code: str,
    message: str,
    permanent: bool,
    generation: int,
    now: datetime,
    limits: Limits,
    jitter: float,
) -> Failure:
    """The failure to remember, counting on from `previous` if that is of this generation."""
    counted = previous.count if previous and previous.generation == generation else 0
    count = counted if code in RACES else counted + 1
    wait = PERMANENT_RETRY if permanent else delay(max(count, 1), limits, jitter)
    return Failure(
        verb=verb,
        code=code,
        message=message,
        count=count,
        generation=generation,
        permanent=permanent,
        failed_at=now,
        retry_at=now + wait,
    )


def live_failure(of_workspace: Failure | None, wished_at: datetime | None) -> Failure | None:
    """A workspace's failure, unless something was wished of its pods since: then it is tried anew."""
    if of_workspace is None or (wished_at is not None and of_workspace.failed_at < wished_at):
        return None
    return of_workspace


def is_worth_asking_again(failure: Failure, now: datetime) -> bool:
    """Whether somebody who repeats a wish should not have to wait for the next try to come by itself."""
    return failure.permanent or failure.count >= KEEPS_FAILING or failure.retry_at > now + RETRY_IS_SOON
