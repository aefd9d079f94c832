"""`make chaos`: rounds of random faults on the real parts, on a PostgreSQL of its own.

    python -m tests.chaos [--rounds N] [--users N] [--seed N]

Ends with one line of totals; with a traceback and exit code 1 at the first byte lost.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from state.database import Database
from state.embedded import EmbeddedPostgres
from state.migrate import migrate
from tests.chaos.campaign import Campaign
from tests.support.s3_servers import free_port
from tests.support.site import two_nodes


def main() -> int:
    """Parse the arguments, and go on until the rounds are done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="codepods-chaos-"))
    root.chmod(0o711)
    postgres = EmbeddedPostgres(root / "postgres", port=free_port())
    try:
        postgres.start()
        url = postgres.url
        migrate(url)
        print(f"seed {chosen.seed}", flush=True)
        print(run(chosen, root, postgres, url))
    finally:
        postgres.stop()
        shutil.rmtree(root)
    return 0


def run(chosen: argparse.Namespace, root: Path, postgres: EmbeddedPostgres, url: str) -> str:
    """All rounds; the totals."""

    def restart_database() -> None:
        postgres.stop()
        postgres.start()

    db = Database(url, "test")
    with two_nodes(db, url, root) as site:
        campaign = Campaign(site, chosen.users, chosen.seed, restart_database)
        campaign.begin()
        for number in range(chosen.rounds):
            began_at = time.monotonic()
            campaign.round()
            print(f"round {number + 1}: {time.monotonic() - began_at:.1f} s", flush=True)
    db.close()
    return campaign.tally.line()


if __name__ == "__main__":
    sys.exit(main())
