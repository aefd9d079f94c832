"""Zombies on real parts: agents that are paused past their lease, and nodes that lose their control plane."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent import labels
from state import nodes
from state.database import Database
from state.model import Desired
from tests.support.site import Site, age_lease, two_nodes, until

SILENT_S, FENCE_S = 3, 2
QUICK = {"CODEPODS_AGENT_SYNC_WAIT_S": "1"}


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under a reconciler that is quick to call a node silent."""
    settings = {"node_silent_after": SILENT_S, "self_fence_after": FENCE_S, "failover_after": FENCE_S + 30}
    with two_nodes(db, database_url, tmp_path, QUICK, **settings) as made:
        yield made


def saved(site: Site) -> str:
    """A running pod with an archive, and with work that is newer than that."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo saved >~/file; echo saved >/workspaces/file")
    site.want(pod_id, Desired.ARCHIVED)
    site.until(pod_id, lambda status: status.actual == "archived" and status.node_id is None)
    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")
    return pod_id


def test_an_agent_paused_in_mid_upload_past_its_lease_does_no_harm(site: Site) -> None:
    """Declared lost, its user goes on elsewhere; back again, it overwrites nothing and keeps what it has."""
    pod_id = saved(site)
    zombie = site.agent_of(pod_id)
    site.run(pod_id, "echo newer >~/file; head -c 200M /dev/urandom >~/large")
    site.want(pod_id, Desired.ARCHIVED)
    until(lambda: _uploading(site))
    zombie.pause()
    age_lease(site.db, zombie.node.node_id, timedelta(minutes=2))
    site.want(pod_id, Desired.RUNNING)
    nodes.declare_lost(site.db, zombie.node.node_id, "a test says so", actor="test")
    site.until_is(pod_id, "running")
    assert site.agent_of(pod_id) is not zombie
    assert site.run(pod_id, "cat ~/file /workspaces/file; echo mine now >~/file") == "saved\nsaved\n"

    zombie.go_on()
    until(lambda: not next(n for n in nodes.list_nodes(site.db) if n.id == zombie.node.node_id).silent)
    site.want(pod_id, Desired.ARCHIVED)
    site.until(pod_id, lambda status: status.actual == "archived" and status.node_id is None)
    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")

    assert site.run(pod_id, "cat ~/file") == "mine now\n"
    (kept,) = zombie.node.parts.runtime.of_pod(pod_id)
    assert not kept.live
    assert zombie.node.parts.runtime.look().volumes


def test_a_pod_left_running_on_a_lost_node_is_stopped_when_the_node_is_back(site: Site) -> None:
    """One user, one running pod: the newer epoch stops the older, and removes nothing."""
    pod_id = saved(site)
    zombie = site.agent_of(pod_id)
    zombie.pause()
    age_lease(site.db, zombie.node.node_id, timedelta(minutes=2))
    nodes.declare_lost(site.db, zombie.node.node_id, "a test says so", actor="test")
    site.until(pod_id, lambda status: status.actual == "running" and status.node_id != zombie.node.node_id)
    (stale,) = zombie.node.parts.runtime.of_pod(pod_id)
    assert stale.live

    zombie.go_on()
    until(lambda: not zombie.node.parts.runtime.of_pod(pod_id)[0].live)
    assert site.answers(pod_id)


def test_a_pod_with_failover_is_stopped_by_its_own_node(site: Site) -> None:
    """No control plane for longer than its fence: it stops; its neighbour without failover runs on."""
    cautious, pod_id = site.open("bob"), site.open("alice")
    site.until_is(cautious, "running")
    site.until_is(pod_id, "running")
    site.want(pod_id, Desired.STOPPED)
    site.until_is(pod_id, "stopped")
    with site.db.transaction() as conn:
        conn.execute("UPDATE pod SET failover = 'from_last_archive' WHERE id = %s", (pod_id,))
    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")
    runtime = site.agent_of(pod_id).node.parts.runtime
    site.reconciler.kill()

    until(lambda: not runtime.of_pod(pod_id)[0].live)
    assert site.agent_of(cautious).node.parts.runtime.of_pod(cautious)[0].live
    assert labels.read_pod(runtime.of_pod(pod_id)[0].labels).epoch == 1


def _uploading(site: Site) -> bool:
    with site.db.transaction() as conn:
        row = conn.execute(
            "SELECT count(*) AS open FROM action"
            " WHERE verb = 'archive_pod' AND state = 'open' AND sent_at IS NOT NULL"
        ).fetchone()
    assert row is not None
    return bool(row["open"])
