"""Checkpoints of running pods, and recovered copies from nodes that were given up, on the real parts."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from state import generations, nodes
from state.copies import make_checkpoints, make_recoveries
from state.database import Database
from state.model import Desired, What
from tests.support.site import Site, age_lease, two_nodes, until

QUICK = {"CODEPODS_AGENT_SYNC_WAIT_S": "1"}


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under a reconciler that is quick to call a node silent; copies are asked for by hand."""
    with two_nodes(db, database_url, tmp_path, QUICK, node_silent_after=3, checkpoint_every=0) as made:
        yield made


def checkpoint(site: Site) -> None:
    """As the reconciler does by the clock; until the chore is over."""
    with site.db.transaction() as conn:
        assert make_checkpoints(conn, timedelta(0), 10) == 1
    until(lambda: _closed(site, "checkpoint"))


def _closed(site: Site, kind: str) -> bool:
    with site.db.transaction() as conn:
        rows = conn.execute("SELECT state FROM chore WHERE kind = %s", (kind,)).fetchall()
    return bool(rows) and all(row["state"] == "done" for row in rows)


def _archives(site: Site, pod_id: str) -> list[tuple[str, int, bool, bool]]:
    found = generations.list_generations(site.db, pod_id)
    return sorted((one.target_kind, one.number, one.live, one.recovered) for one in found)


def test_a_lost_node_costs_what_is_newer_than_the_checkpoint_and_that_is_kept_when_it_is_back(
    site: Site,
) -> None:
    """Nothing was ever archived by wish: the checkpoint is what goes on, the rest is recovered."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo checkpointed >~/file; echo checkpointed >/workspaces/file")
    checkpoint(site)
    assert _archives(site, pod_id) == [("pod", 1, True, False), ("workspace", 1, True, False)]
    site.run(pod_id, "echo newer >~/file; echo newer >/workspaces/file")

    gone = site.agent_of(pod_id)
    gone.pause()
    age_lease(site.db, gone.node.node_id, timedelta(minutes=2))
    nodes.declare_lost(site.db, gone.node.node_id, "a test says so", actor="test")
    site.until(pod_id, lambda status: status.actual == "running" and status.node_id != gone.node.node_id)
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "checkpointed\ncheckpointed\n"

    gone.go_on()
    until(lambda: not gone.node.parts.runtime.of_pod(pod_id)[0].live)
    until(lambda: _recoveries(site) or _closed(site, "recover_copy"))
    until(lambda: ("pod", 2, False, True) in _archives(site, pod_id))
    until(lambda: _recoveries(site) or ("workspace", 2, False, True) in _archives(site, pod_id))
    assert site.run(pod_id, "cat ~/file") == "checkpointed\n"

    generations.ask_restore(site.db, pod_id, 2, What.BOTH, actor="test")
    site.until(pod_id, lambda status: status.reason is not None and "archive number 2" in status.reason)
    until(lambda: not _going_back(site))
    site.until_is(pod_id, "running")
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "newer\nnewer\n"


def test_a_checkpoint_of_what_has_not_changed_adds_nothing(site: Site) -> None:
    """No generation is pushed out by copies of the same."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    checkpoint(site)
    before = _archives(site, pod_id)
    checkpoint(site)

    assert [found for found in _archives(site, pod_id) if found[0] == "workspace"] == [before[-1]]


def test_a_pod_that_writes_all_the_time_is_held_up_for_a_moment_and_saved(site: Site) -> None:
    """Read as it runs it differs from one look to the next; paused, it does not."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "(while :; do date +%N >>/workspaces/log; date +%N >>~/log; done) >/dev/null 2>&1 &")
    checkpoint(site)

    assert [(kind, live) for kind, _, live, _ in _archives(site, pod_id)] == [
        ("pod", True),
        ("workspace", True),
    ]
    size = site.run(pod_id, "stat -c %s ~/log")
    until(lambda: site.run(pod_id, "stat -c %s ~/log") != size)
    site.want(pod_id, Desired.ARCHIVED)
    site.until(pod_id, lambda status: status.actual == "archived" and status.node_id is None)


def test_a_checkpoint_that_comes_after_a_step_has_begun_does_not_count(site: Site) -> None:
    """What the step makes is newer; the planner's next number is not taken."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    agent = site.agent_of(pod_id)
    agent.pause()
    with site.db.transaction() as conn:
        assert make_checkpoints(conn, timedelta(0), 10) == 1
    site.want(pod_id, Desired.ARCHIVED)
    site.until(pod_id, lambda status: status.open_action is not None)
    agent.go_on()
    site.until(pod_id, lambda status: status.actual == "archived" and status.node_id is None)

    # The agent may have heard of the checkpoint a moment before the step was there: then it is the older one.
    *_, newest_is_live = (live for kind, _, live, _ in _archives(site, pod_id) if kind == "pod")
    assert not newest_is_live


def _recoveries(site: Site) -> bool:
    """Ask, as the reconciler does by the clock; False, so that a wait goes on."""
    with site.db.transaction() as conn:
        make_recoveries(conn, 10)
    return False


def _going_back(site: Site) -> bool:
    with site.db.transaction() as conn:
        return bool(conn.execute("SELECT 1 FROM restoration WHERE finished_at IS NULL").fetchall())
