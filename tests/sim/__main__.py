"""The simulation by hand.

python -m tests.sim                       200 seeds
python -m tests.sim --seeds 5000          as many as you like; 0 goes on until Ctrl-C
python -m tests.sim --seed 42 --trace     one seed, with everything that happens in it
python -m tests.sim --replay FILE         a saved schedule; ends with 0 if it does what FILE expects
python -m tests.sim --replay FILE --real  the nearest to it on real agents, Docker, PostgreSQL and store
python -m tests.sim --table               every crash point, and pairs of them; who is delayed by whom
python -m tests.sim --seeds 0 --until N   new seeds until so many steps are done
python -m tests.sim --postgres --seeds 50 with a real PostgreSQL beside the mirror of it: any drift ends a run
python -m tests.sim --mutants             and then every deliberate bug: is it noticed?
python -m tests.sim --seed 42 --save FILE makes a failing seed small, and saves it
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from tests.mutants.hunting import hunt_all
from tests.mutants.sim import STEPS_MAX
from tests.sim.campaign import STEPS_PER_RUN, Totals, campaign, schedule_of, shrunk
from tests.sim.crash_table import crash_table
from tests.sim.fleet import Outcome, run
from tests.sim.isolation import DELAY_S_MAX, isolation_table
from tests.sim.postgres import SimServer
from tests.sim.schedule import Schedule
from tests.support.postgres import serving

TELL_EVERY_S = 10.0


def _replay(schedule: Schedule, *, trace: bool) -> int:
    outcome = run(schedule, echo=print if trace else None)
    _show(outcome, trace=not trace)
    found = outcome.violation.name if outcome.violation else ""
    return 0 if found == schedule.expect else 1


def _show(outcome: Outcome, *, trace: bool) -> None:
    if trace and outcome.violation is not None:
        print(*outcome.last_lines, sep="\n")
    print(f"{outcome.steps} steps, {outcome.faults.total()} faults, trace {outcome.digest[:16]}")
    print(f"violation: {outcome.violation}" if outcome.violation else "no violation")


def _save(schedule: Schedule, path: Path) -> int:
    outcome = run(schedule)
    if outcome.violation is None:
        print("nothing is violated: there is nothing to save")
        return 1
    small = shrunk(schedule, outcome.violation.name)
    small.save(path)
    print(f"{outcome.violation}\n{len(small.faults)} of {len(schedule.faults)} faults saved in {path}")
    return 0


def _table() -> int:
    failed = 0
    for row in crash_table(pairs=True):
        counted = f"{row.effects:3} effects, {row.crash_points:3} crash points, {row.pairs:4} pairs"
        print(f"{row.scenario:8} {counted}:")
        print(*(row.failures or ("all converged, nothing lost",)), sep="\n")
        failed += len(row.failures)
    for line in isolation_table():
        print(f"{line.trouble:24} others waited {line.beside_s:6.2f} s, without it {line.alone_s:6.2f} s")
        failed += line.delayed_s > DELAY_S_MAX
    return 1 if failed else 0


def _campaign(first: int, count: int, steps: int, until: int, *, postgres: bool, mutants: bool) -> int:
    seeds = range(first, first + count) if count else itertools.count(first)
    totals, told_at = Totals(), time.monotonic()
    try:
        for outcome, totals in _campaign_on(postgres, seeds, steps):
            if outcome.violation is not None:
                print(f"seed {outcome.schedule.seed}, step {outcome.steps}: {outcome.violation}", flush=True)
            if time.monotonic() - told_at > TELL_EVERY_S:
                told_at = time.monotonic()
                print(*totals.lines(), sep="\n", flush=True)
            if 0 < until <= totals.steps:
                break
    except KeyboardInterrupt:
        print("stopped")
    verdicts = hunt_all() if mutants else []
    print(*totals.lines(), sep="\n")
    caught = sum(verdict.caught for verdict in verdicts)
    if mutants:
        print(f"{caught} of {len(verdicts)} mutants caught, each within {STEPS_MAX} steps")
    return 1 if totals.violations or caught < len(verdicts) else 0


def _campaign_on(postgres: bool, seeds: Iterable[int], steps: int) -> Iterator[tuple[Outcome, Totals]]:
    if not postgres:
        yield from campaign(seeds, steps)
        return
    with serving() as server, closing(SimServer(server)) as database:
        yield from campaign(seeds, steps, database)


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play a saved schedule")
    parser.add_argument("--seed", type=int, help="play this seed only, or with --seeds begin with it")
    parser.add_argument("--seeds", type=int, help="how many seeds; 0 goes on until stopped")
    parser.add_argument("--steps", type=int, default=STEPS_PER_RUN, help="of the phase with faults")
    parser.add_argument("--until", type=int, default=0, metavar="STEPS", help="stop after so many steps")
    parser.add_argument("--save", type=Path, metavar="FILE", help="make a failing seed small and save it")
    parser.add_argument("--real", action="store_true", help="with --replay: on real agents, Docker, store")
    parser.add_argument("--postgres", action="store_true", help="with PostgreSQL beside the mirror of it")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--table", action="store_true", help="exhaust the crash points")
    parser.add_argument("--mutants", action="store_true", help="hunt for deliberate bugs after the seeds")
    asked = parser.parse_args()
    if asked.table:
        return _table()
    if asked.replay and asked.real:
        from tests.chaos.replay import replay  # which needs an engine

        return replay(Schedule.load(asked.replay))
    if asked.replay:
        return _replay(Schedule.load(asked.replay), trace=asked.trace)
    if asked.seed is not None and asked.save:
        return _save(schedule_of(asked.seed, asked.steps), asked.save)
    if asked.seed is not None and asked.seeds is None and not asked.postgres:
        return _replay(schedule_of(asked.seed, asked.steps), trace=asked.trace)
    seeds = (20 if asked.postgres else 200) if asked.seeds is None else asked.seeds
    first, mutants = asked.seed or 0, asked.mutants
    return _campaign(first, seeds, asked.steps, asked.until, postgres=asked.postgres, mutants=mutants)


if __name__ == "__main__":
    sys.exit(main())
