"""`make chaos`: rounds of random faults on the real parts, on a PostgreSQL of its own.

    python -m tests.chaos [--rounds N] [--users N] [--seed N] [--faulty-ways] [--each]

With `--faulty-ways` the store is an S3 server that answers wrongly, late, in part or not at all now and
then, and the reconciler's way to the database is cut as well. With `--each` the faults are a kill -9 in the
middle of a step of each user's own pod: cycles without one are not counted, and a round goes on until each
user has one that is. So 50 rounds of four users are 200 cycles with a kill in each.

A round of four users takes about 15 s on two quiet cores; each wait in it has ten minutes, and says every
30 s what it waits for. The last line has the totals, also of a run that is broken off by the first byte lost,
with a traceback and exit code 1.
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
from tests.chaos.sites import faulty_site, plain_site
from tests.chaos.strikes import Strikes
from tests.support.ports import free_port


def main() -> int:
    """Parse the arguments, and go on until the rounds are done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--faulty-ways", action="store_true")
    parser.add_argument("--each", action="store_true")
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
        run(chosen, root, postgres, url)
    finally:
        postgres.stop()
        shutil.rmtree(root)
    return 0


def run(chosen: argparse.Namespace, root: Path, postgres: EmbeddedPostgres, url: str) -> None:
    """All rounds; prints the totals."""

    def restart_database() -> None:
        postgres.stop()
        postgres.start()

    db = Database(url, "test")
    made = faulty_site(db, url, root) if chosen.faulty_ways else plain_site(db, url, root)
    with made as (site, others):
        campaign: Campaign | Strikes
        if chosen.each:
            campaign = Strikes(site, chosen.users, chosen.seed)
        else:
            faults = {**others, "restart database": restart_database}
            campaign = Campaign(site, chosen.users, chosen.seed, faults)
        _rounds(campaign, chosen.rounds)
    db.close()


def _rounds(campaign: Campaign | Strikes, rounds: int) -> None:
    began_at, ended = time.monotonic(), "FAILED after"
    try:
        campaign.begin()
        for number in range(1, rounds + 1):
            round_at = time.monotonic()
            campaign.round()
            took_s = time.monotonic() - round_at
            print(f"round {number} of {rounds}: {took_s:.1f} s, {campaign.tally.cycles} cycles", flush=True)
        ended = "done:"
    finally:
        print(f"{ended} {campaign.tally.line()}; {time.monotonic() - began_at:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
