"""Wall clocks that jump, of agents and of the reconciler, while pods are put away and brought back."""

import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from state import nodes
from state.database import Database
from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.chaos.revival import disarm
from tests.support.fake_clock import FakeClock
from tests.support.site import two_nodes, until

HOUR_S = 3600
JUMPS_S = (HOUR_S, -HOUR_S, 0, 30 * 24 * HOUR_S, -30 * 24 * HOUR_S, 0)
JUMP_AFTER_S = 0.5
SEEN_WITHIN_S = 5


def test_a_fake_clock_is_read_by_the_processes_that_it_is_for(tmp_path: Path) -> None:
    """The wall clock jumps, the monotonic one does not: else the other test would show nothing."""
    clock = FakeClock(tmp_path / "clock")
    clock.set(HOUR_S)
    program = "import time; print(time.time(), time.monotonic())"
    said = subprocess.run(
        [sys.executable, "-c", program], env=clock.environment, capture_output=True, text=True, check=True
    )
    wall, monotonic = map(float, said.stdout.split())
    assert HOUR_S - SEEN_WITHIN_S < wall - time.time() < HOUR_S + SEEN_WITHIN_S
    assert abs(monotonic - time.monotonic()) < HOUR_S / 2


@pytest.mark.timeout(1200)
def test_clocks_that_jump_lose_nothing_and_silence_nobody(
    tmp_path: Path, db: Database, database_url: str
) -> None:
    """Agents and the reconciler an hour or a month off, each on its own, in the middle of either way."""
    rng = random.Random(1)
    agents, planner = FakeClock(tmp_path / "agents"), FakeClock(tmp_path / "planner")
    began_at = datetime.now(UTC)
    with two_nodes(
        db, database_url, tmp_path, agents.environment, reconciler_environment=planner.environment
    ) as site:
        learner = Learner(site, "alice")
        learner.open()
        for jump_s in JUMPS_S:
            for clock, desired in ((agents, Desired.ARCHIVED), (planner, Desired.RUNNING)):
                if desired is Desired.ARCHIVED:
                    learner.write(rng)
                learner.want(desired)
                time.sleep(JUMP_AFTER_S)
                clock.set(jump_s)
                if rng.random() < 0.5:
                    disarm(site.agents)  # an agent that begins anew after the jump
                learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
                assert not any(node.silent for node in nodes.list_nodes(db))
            until(lambda: leftovers(site, 1) == 0)
        with db.transaction() as conn:
            rows = conn.execute("SELECT min(at) AS first, max(at) AS last FROM event").fetchall()
    assert began_at < rows[0]["first"] < rows[0]["last"] < datetime.now(UTC)
