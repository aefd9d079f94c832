"""The simulation with a real PostgreSQL: the same schedules, the same traces."""

import pytest

from tests.sim.campaign import schedule_of
from tests.sim.fleet import run
from tests.sim.postgres import SimServer

# Drawn freely, with late effects, with a node declared lost, with late deliveries, and with lost commits.
SEEDS = (1, 5, 17, 10, 34)
STEPS = 500


@pytest.mark.parametrize("seed", SEEDS)
def test_postgresql_in_place_of_its_mirror_gives_the_same_trace(sim_server: SimServer, seed: int) -> None:
    """Each of the reconciler's and the gateway's transactions comes to the same on both, under all faults."""
    schedule = schedule_of(seed, STEPS)

    outcome = run(schedule, server=sim_server)

    assert outcome.violation is None
    assert outcome.digest == run(schedule).digest
