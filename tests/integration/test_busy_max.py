"""Work that never ends, on the real parts: the reconciler, an agent, a container of Docker's."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from state.database import Database
from tests.support.site import Site, two_nodes, until

BUSY_MAX_S = 2.0
FOR_EVER = "nohup sh -c 'while :; do :; done' >/dev/null 2>&1 &"


def rows(site: Site, query: str, pod_id: str) -> list[dict[str, Any]]:
    """What the database says of a pod."""
    with site.db.transaction() as connection:
        return list(connection.execute(query, (pod_id,)))


def by_policy(site: Site, pod_id: str) -> list[dict[str, Any]]:
    """What the policies have done to it, oldest first."""
    query = "SELECT * FROM event WHERE pod_id = %s AND actor LIKE 'policy:%%' ORDER BY id"
    return rows(site, query, pod_id)


def test_a_pod_that_is_busy_for_ever_is_stopped_at_the_maximum(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    """Its work keeps it beyond the idle limit, not beyond the maximum: a warning, then the stop."""
    quick = {"CODEPODS_PRESENCE_EVERY_S": "0.5"}
    with two_nodes(db, database_url, tmp_path, quick, names=("one",), busy_max=BUSY_MAX_S) as site:
        pod_id = site.open()
        site.until_is(pod_id, "running")
        site.run(pod_id, FOR_EVER)
        seen = "SELECT 1 FROM pod_presence WHERE pod_id = %s AND busy AND connections = 0"
        until(lambda: rows(site, seen, pod_id) != [])
        assert by_policy(site, pod_id) == []

        with db.transaction() as connection:
            connection.execute("UPDATE pod SET idle_limit_s = 1 WHERE id = %s", (pod_id,))
        site.until(pod_id, lambda status: status.actual == "stopped")

        warned, stopped = by_policy(site, pod_id)
        assert (warned["kind"], warned["actor"]) == ("warned", "policy:busy")
        assert (stopped["kind"], stopped["actor"], stopped["to_value"]) == (
            "desired",
            "policy:busy",
            "stopped",
        )
        assert stopped["reason"].startswith("work (")
        assert stopped["reason"].endswith(" went on for 2 s with nobody there")
        assert stopped["at"] - warned["at"] >= timedelta(seconds=BUSY_MAX_S / 2)
