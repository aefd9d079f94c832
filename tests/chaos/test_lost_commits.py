"""PostgreSQL fails over to a replica that misses the last commits, under real agents with real pods."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.database import Database
from state.model import Desired
from tests.support.replica import Replica
from tests.support.site import Site, two_nodes, until

# What is lost below takes less: an archive that is forgotten still has its container.
GRACE_S = 60


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes that sync often, and keep what they have saved."""
    quick = {"CODEPODS_AGENT_SYNC_WAIT_S": "1"}
    with two_nodes(db, database_url, tmp_path, quick, archive_grace=GRACE_S) as made:
        yield made


def test_a_forgotten_archive_is_made_again_of_its_container(site: Site, replica: Replica) -> None:
    """It is kept for a grace after it was saved: a failover that loses less than that loses nothing."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo saved >~/file; echo saved >/workspaces/file")
    replica.catch_up()
    site.want(pod_id, Desired.ARCHIVED)
    until(lambda: _archives(site.db) > 0)

    replica.promote()
    assert _archives(site.db) == 0
    until(lambda: site.answers(pod_id))
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "saved\nsaved\n"


def _archives(db: Database) -> int:
    with db.transaction() as conn:
        row = conn.execute("SELECT count(*) AS n FROM archive").fetchone()
    return int(row["n"]) if row else 0
