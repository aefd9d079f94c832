"""Fleets under faults: nothing is lost, nothing runs twice, and everything comes to what was wished."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.model import Desired
from tests.sim.campaign import Totals, campaign
from tests.sim.crash_table import SCENARIOS, crash_table
from tests.sim.fleet import run
from tests.sim.isolation import DELAY_S_MAX, TROUBLES, isolation_table
from tests.sim.schedule import (
    ANY_EFFECT,
    CALL_FAULTS,
    NODES,
    PODS,
    RECONCILERS,
    WORLD_FAULTS,
    Fault,
    Schedule,
    draw,
    in_order,
)

ROOT = Path(__file__).resolve().parents[2]
REGRESSIONS = sorted((ROOT / "tests" / "regressions").glob("*.json"))
FIXED_SEEDS = range(150)
STEPS = 3000
SMALL_STEPS = 600

steps = st.integers(0, SMALL_STEPS)
call_faults = st.builds(
    Fault,
    steps,
    st.sampled_from((*NODES, *RECONCILERS)),
    st.integers(1, 12),
    st.sampled_from(CALL_FAULTS),
    st.sampled_from(("", ANY_EFFECT, "docker.", "store.", "net.", "tree.", "db.")),
    st.sampled_from((0.5, 5.0, 30.0, 90.0)),
)
world_faults = st.one_of(
    [
        st.builds(
            Fault,
            steps,
            st.sampled_from(actors),
            st.just(0),
            st.sampled_from(kinds),
            st.just(""),
            st.sampled_from((3.0, 20.0, 70.0)),
        )
        for kinds, actors in WORLD_FAULTS
    ]
)
wishes = st.builds(
    Fault, steps, st.sampled_from(PODS), st.just(0), st.sampled_from([f"wish:{wished}" for wished in Desired])
)
schedules = st.builds(
    lambda seed, faults: Schedule(seed, SMALL_STEPS, tuple(in_order(faults))),
    st.integers(0, 1000),
    st.lists(wishes | wishes | call_faults | world_faults, max_size=25),
)


def test_fixed_seeds_break_no_invariant_and_reach_every_mark() -> None:
    """A hundred and fifty fleets hold all invariants, and meet everything that is hard at least once."""
    totals = Totals()
    for outcome, so_far in campaign(FIXED_SEEDS, STEPS):
        totals = so_far
        assert outcome.violation is None, (outcome.schedule.seed, outcome.violation, outcome.last_lines[-20:])

    print(*totals.lines(), sep="\n")
    assert totals.missed == []


@given(schedules)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_schedule_of_faults_breaks_an_invariant(schedule: Schedule) -> None:
    """Whatever goes wrong in whatever order, nothing is lost, and healing brings about what was wished."""
    outcome = run(schedule)

    if outcome.violation is not None:
        schedule.save(ROOT / ".hypothesis" / "sim-failure.json")
    assert outcome.violation is None, (outcome.violation, outcome.last_lines[-20:])


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regressions_stay_as_they_are_said_to_be(path: Path) -> None:
    """What was once broken is mended; what is known and open still breaks exactly what its file says."""
    schedule = Schedule.load(path)

    outcome = run(schedule)

    assert (outcome.violation.name if outcome.violation else "") == schedule.expect, outcome.violation


def test_every_crash_point_of_the_small_spaces_converges() -> None:
    """Archive, restore, move, delete and a drain survive a kill before and after each of their effects."""
    rows = list(crash_table(pairs=False))

    assert [row.failures for row in rows] == [()] * len(SCENARIOS)
    assert all(row.crash_points == 2 * row.effects > 0 for row in rows)


def test_one_bad_thing_delays_nobody_else() -> None:
    """A black hole, a slow engine, a full disk, a crash loop, an unreadable row: others hardly notice."""
    rows = list(isolation_table())

    assert len(rows) == len(TROUBLES)
    assert {row.trouble: row.delayed_s for row in rows if row.delayed_s > DELAY_S_MAX} == {}


def test_same_seed_same_trace() -> None:
    """A run depends on its schedule only: not on the run before, nor on how this process hashes strings."""
    schedule = draw(7, STEPS)
    program = (
        "from tests.sim.fleet import run; from tests.sim.schedule import draw;"
        f"print(run(draw(7, {STEPS})).digest)"
    )
    elsewhere = [
        subprocess.run(
            (sys.executable, "-c", program),
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]

    assert [run(schedule).digest, run(schedule).digest] == elsewhere


def test_a_schedule_survives_its_file(tmp_path: Path) -> None:
    """What is saved is what is replayed."""
    schedule = draw(3, STEPS)
    schedule.save(tmp_path / "schedule.json")

    assert Schedule.load(tmp_path / "schedule.json") == schedule
