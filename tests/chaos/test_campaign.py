"""A few rounds of the campaign that `make chaos` runs for long."""

from pathlib import Path

import pytest

from state.database import Database
from tests.chaos.campaign import Campaign
from tests.chaos.sites import faulty_site

ROUNDS, USERS = 2, 2


@pytest.mark.parametrize("seed", [1])
def test_random_faults_lose_nothing(tmp_path: Path, db: Database, database_url: str, seed: int) -> None:
    """Programs killed and paused, a store that fails in every way, a database that is cut off: the same
    bytes, nothing twice, nothing left behind."""
    with faulty_site(db, database_url, tmp_path) as (site, others):
        campaign = Campaign(site, USERS, seed, others)
        campaign.begin()
        for _ in range(ROUNDS):
            campaign.round()

    assert campaign.tally.cycles == ROUNDS * USERS
    assert sum(campaign.tally.faults.values()) >= 4 * ROUNDS
