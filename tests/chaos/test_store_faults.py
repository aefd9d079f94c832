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
AWAY = ("put", "put_new", "part", "begin", "complete", "head", "list", "get", "range")
BACK = ("get", "range")


def _faults(kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(fault, kind) for fault, kinds_of in APPLIES.items() for kind in kinds if kind in kinds_of]


@pytest.mark.timeout(3600)
def test_each_fault_of_a_store_costs_a_retry_and_no_byte(
    tmp_path: Path, db: Database, database_url: str
) -> None:
    """Every fault to every kind of request, once each, on the way to the store and back."""
    rng = random.Random(1)
    with s3_store(tmp_path) as (environment, s3), two_nodes(db, database_url, tmp_path, environment) as site:
        learner = Learner(site, "alice", bulk_bytes=BULK_BYTES)
        learner.open()
        away, back = _faults(AWAY), _faults(BACK)
        missed = []
        for number, armed in enumerate(away):
            learner.write(rng)
            print(f"{number + 1}/{len(away)} {armed}, {back[number % len(back)]}", flush=True)
            s3.arm(*armed)
            learner.want(Desired.ARCHIVED)
            learner.await_archived()
            missed += s3.waiting.items()
            s3.heal()
            s3.arm(*back[number % len(back)])
            learner.want(Desired.RUNNING)
            learner.check()
            missed += s3.waiting.items()
            s3.heal()
            until(lambda: leftovers(site, 1) == 0)
        assert missed == []
