"""The disk of the agents' own files is full for a while."""

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from state.database import Database
from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.support.filling import full
from tests.support.site import two_nodes, until
from tests.support.small_disk import small_disk

DISK_MIB = 16


@pytest.mark.timeout(900)
def test_a_full_data_directory_delays_and_loses_nothing(
    tmp_path: Path, db: Database, database_url: str
) -> None:
    """A pod can be put away; its return says why it waits, and comes when there is room."""
    with ExitStack() as stack:
        disks = [stack.enter_context(small_disk(tmp_path / name, DISK_MIB)) for name in ("one", "two")]
        site = stack.enter_context(two_nodes(db, database_url, tmp_path))
        learner = Learner(site, "alice")
        learner.open()
        learner.write(random.Random(1))
        with ExitStack() as filled:
            for disk in disks:
                filled.enter_context(full(disk))
            learner.want(Desired.ARCHIVED)
            learner.await_archived()
            learner.want(Desired.RUNNING)
            status = site.until(learner.pod_id, lambda status: status.failure is not None)
            assert status.failure is not None
            assert (status.failure.code, status.failure.permanent) == ("disk_full", False)
        learner.check()
        until(lambda: leftovers(site, 1) == 0)
