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
        retry_at=now + wait,
    )
