"""The real agent under the real reconciler: desired rows become containers, whatever is killed on the way."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from state import nodes, pods
from state.database import Database
from state.model import Desired
from tests.support.reconciler_process import reconciler_process
from tests.support.site import Site, two_nodes, until


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes under one reconciler."""
    with two_nodes(db, database_url, tmp_path) as made:
        yield made


def test_a_pod_is_opened_put_away_and_brought_back_on_the_other_node(site: Site) -> None:
    """Desired states alone move a learner's work from one node to another."""
    pod_id = site.open()
    first = site.until_is(pod_id, "running")
    assert site.answers(pod_id)
    site.run(pod_id, "echo mine >~/file; echo ours >/workspaces/file")
    site.want(pod_id, Desired.STOPPED)
    site.until_is(pod_id, "stopped")
    site.want(pod_id, Desired.ARCHIVED)
    site.until_is(pod_id, "archived")
    assert first.node_id is not None
    nodes.set_cordoned(site.db, first.node_id, True, actor="test")
    site.until(pod_id, lambda status: status.node_id is None)
    assert site.left_on_nodes() == 0

    site.want(pod_id, Desired.RUNNING)
    second = site.until_is(pod_id, "running")
    assert second.node_id != first.node_id
    assert site.answers(pod_id)
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "mine\nours\n"
    site.want(pod_id, Desired.DELETED)
    site.until_is(pod_id, "deleted")
    until(lambda: site.left_on_nodes() == 0)


@pytest.mark.parametrize("seed", range(2))
def test_agents_killed_at_any_moment_lose_nothing(site: Site, seed: int) -> None:
    """kill -9 of every agent again and again through the cycle: it converges, with the same bytes."""
    chance = random.Random(seed)
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo mine >~/file; echo ours >/workspaces/file")
    for desired in (Desired.STOPPED, Desired.ARCHIVED, Desired.RUNNING):
        site.want(pod_id, desired)
        for _ in range(3):
            time.sleep(chance.uniform(0.01, 0.4))
            for agent in site.agents:
                agent.begin_anew()
        site.until_is(pod_id, desired)
    assert site.run(pod_id, "cat ~/file /workspaces/file") == "mine\nours\n"
    assert site.answers(pod_id)
    assert site.left_on_nodes() == 2


def test_a_running_pod_does_not_notice_that_the_control_plane_is_gone(
    site: Site, tmp_path: Path, database_url: str
) -> None:
    """Without a gateway pods keep running; an agent that restarts meanwhile reports them when it is back."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    access = pods.access_of(site.db, pod_id)
    agent = site.agent_of(pod_id)
    started_at = agent.node.parts.runtime.of_pod(pod_id)[0].started_at
    site.reconciler.kill()
    agent.begin_anew()
    assert site.answers(pod_id)
    with reconciler_process(database_url) as reconciler:
        for each in site.agents:
            each.kill()
            each.start(reconciler.url)
        site.until(pod_id, lambda _: site.answers(pod_id) and pods.access_of(site.db, pod_id) == access)
    assert agent.node.parts.runtime.of_pod(pod_id)[0].started_at == started_at


def test_a_pod_of_an_image_that_is_nowhere_says_so_and_holds_up_nobody(site: Site) -> None:
    """The bad pod's failure is in its row; another user's pod runs."""
    bad = site.open("bob", image="127.0.0.1:1/no/such-image:1")
    good = site.open("carol")
    site.until_is(good, "running")
    status = site.until(bad, lambda status: status.failure is not None)
    assert status.failure is not None
    assert status.failure.code == "image_not_found"


def test_a_pod_stopped_by_hand_is_started_again(site: Site) -> None:
    """The engine's event makes the agent look sooner; the difference makes the reconciler act."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    runtime = site.agent_of(pod_id).node.parts.runtime
    before = runtime.of_pod(pod_id)[0]
    runtime.stop(before.id, 5)
    until(lambda: runtime.of_pod(pod_id)[0].started_at != before.started_at)
    site.until(pod_id, lambda _: site.answers(pod_id))


def test_an_agent_that_is_asked_to_end_leaves_its_pods_running(site: Site) -> None:
    """SIGTERM ends the agent with exit code 0, not the pods."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    assert site.agent_of(pod_id).stop() == 0
    assert site.answers(pod_id)
