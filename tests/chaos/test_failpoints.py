"""kill -9 right before and right after each effect of an agent, through whole cycles, on the real parts."""

import os
import random
from pathlib import Path

import pytest

from state.database import Database
from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.chaos.revival import arm, disarm, revived
from tests.support.site import two_nodes, until

# In pairs, one for the way to the store and one for the way back: a cycle is the dearest part of it.
PUTTING_AWAY = (
    "runtime.stop.before",
    "runtime.stop.after",
    "store.open_writer.after",
    "store.writer.write.after",
    "store.writer.commit.before",
    "store.writer.commit.after",
    "store.put_manifest.before",
    "store.put_manifest.after",
    "runtime.remove.before",
    "runtime.remove.after",
    "runtime.remove_volume.before",
    "runtime.remove_volume.after",
)
BRINGING_BACK = (
    "runtime.create_volume.before",
    "runtime.create_volume.after",
    "store.open_reader.before",
    "store.open_reader.after",
    "runtime.create.before",
    "runtime.create.after",
    "runtime.rename.before",
    "runtime.rename.after",
    "runtime.start.before",
    "runtime.start.after",
    "store.get.before",
    "store.get.after",
)


# `make chaos` goes through all of them, `make test` through every second one.
ALL = tuple(zip(PUTTING_AWAY, BRINGING_BACK, strict=True))
PAIRS = ALL if os.environ.get("CODEPODS_CHAOS") == "long" else ALL[1::2]


@pytest.mark.timeout(900)
def test_a_crash_at_any_effect_loses_nothing(tmp_path: Path, db: Database, database_url: str) -> None:
    """Archive and restore converge, with the same bytes, nothing twice, and nothing left behind."""
    rng = random.Random(1)
    with two_nodes(db, database_url, tmp_path) as site, revived(site.agents) as died:
        learner = Learner(site, "alice")
        learner.open()
        for away, back in PAIRS:
            learner.write(rng)
            for failpoint, desired in ((away, Desired.ARCHIVED), (back, Desired.RUNNING)):
                before = len(died)
                arm(site.agents, failpoint)
                learner.want(desired)
                learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
                assert len(died) > before, f"nobody came to {failpoint}"
                disarm(site.agents)
            until(lambda: leftovers(site, 1) == 0)
