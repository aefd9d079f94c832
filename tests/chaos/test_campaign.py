"""A few rounds of the campaign that `make chaos` runs for long."""

from pathlib import Path

import pytest

from state.database import Database
from tests.chaos.campaign import Campaign
from tests.support.site import two_nodes

ROUNDS, USERS = 2, 2


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
def test_random_faults_lose_nothing(tmp_path: Path, db: Database, database_url: str, seed: int) -> None:
    """Kills and pauses of any program at any moment: the same bytes, nothing twice, nothing left behind."""
    with two_nodes(db, database_url, tmp_path) as site:
        campaign = Campaign(site, USERS, seed, restart_database=None)
        campaign.begin()
        for _ in range(ROUNDS):
            campaign.round()

    assert campaign.tally.cycles == ROUNDS * USERS
    assert sum(campaign.tally.faults.values()) >= 2 * ROUNDS
