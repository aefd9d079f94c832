"""Looks for a deliberate bug: `python -m tests.sim.hunt STEPS [KIND]` says what noticed it, and when.

Saved schedules first, then the scenarios of the crash table, then some seeds of the KIND that goes for what
this bug needs (a name in `directed.py`), then the seeds of the campaign. The last line is
`caught by I3 after 4242 steps`, or `survived`; the exit code is 1 when it survived.
"""

import sys
from collections.abc import Iterator
from itertools import chain, count, islice

from tests.sim.campaign import schedule_of
from tests.sim.crash_table import SCENARIOS, play
from tests.sim.directed import seeds_of
from tests.sim.fleet import run
from tests.sim.schedule import ROOT_OF_REGRESSIONS, Schedule

# Saved schedules drift when the simulation changes; what kind of schedule finds a bug does not.
SEEDS_OF_THE_KIND = 20


class Caught(Exception):
    """By which invariant, or by which error."""


def _look(schedule: Schedule) -> int:
    """How many steps it took to see nothing."""
    outcome = run(schedule)
    found = outcome.violation.name if outcome.violation else ""
    if found != schedule.expect:
        raise Caught(found or f"the lack of {schedule.expect}", outcome.steps)
    return outcome.steps


def _seeds(kind: str) -> Iterator[int]:
    """Those of the kind first, if one is named; then all."""
    first = islice(seeds_of(kind), SEEDS_OF_THE_KIND) if kind else ()
    return chain(first, count())


def hunt(steps_max: int, kind: str = "") -> tuple[str, int]:
    """What noticed first, "" for nothing; and the steps until then."""
    steps = 0
    try:
        for path in sorted(ROOT_OF_REGRESSIONS.glob("*.json")):
            steps += _look(Schedule.load(path))
        for scenario in SCENARIOS:
            _, broken = play(scenario, ())
            if broken:
                return f"{broken.name}, {scenario.name} without a fault", steps
        for seed in _seeds(kind):
            if steps >= steps_max:
                return "", steps
            steps += _look(schedule_of(seed))
    except Caught as caught:
        by, took = caught.args
        return by, steps + took
    except Exception as error:  # noqa: BLE001 - a bug that breaks a program is noticed, too
        return type(error).__name__, steps
    raise AssertionError("unreachable")


def main() -> int:
    """Hunt within the budget given."""
    by, steps = hunt(int(sys.argv[1]), *sys.argv[2:3])
    print(f"caught by {by} after {steps} steps" if by else f"survived {steps} steps")
    return 0 if by else 1


if __name__ == "__main__":
    sys.exit(main())
