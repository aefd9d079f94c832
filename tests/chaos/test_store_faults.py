"""Whole cycles of a real pod while an S3 server answers wrongly, late, in part, or not at all."""

import random
from pathlib import Path

import pytest

from state.database import Database
from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.chaos.sites import s3_store
from tests.support.faulty_s3 import APPLIES
from tests.support.site import two_nodes, until

# More than a part, so that uploads in parts are met as well.
BULK_BYTES = 20_000_000
AWAY = ("put", "manifest", "part", "begin", "complete", "head", "get", "range")
BACK = ("get", "range")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("wish", "kind"), [*(("away", kind) for kind in AWAY), *(("back", kind) for kind in BACK)]
)
def test_each_fault_of_a_store_costs_a_retry_and_no_byte(
    tmp_path: Path, db: Database, database_url: str, wish: str, kind: str
) -> None:
    """Every fault to every kind of request, once each, on the way to the store, and on the way back."""
    rng = random.Random(1)
    with s3_store(tmp_path) as (environment, s3), two_nodes(db, database_url, tmp_path, environment) as site:
        learner = Learner(site, "alice", bulk_bytes=BULK_BYTES)
        learner.open()
        for fault in (fault for fault, kinds in APPLIES.items() if kind in kinds):
            learner.write(rng)
            for desired in (Desired.ARCHIVED, Desired.RUNNING):
                if (desired is Desired.ARCHIVED) == (wish == "away"):
                    s3.arm(fault, kind)
                learner.want(desired)
                learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
            assert s3.waiting == {}, f"nobody asked for {s3.waiting}"
            until(lambda: leftovers(site, 1) == 0)
