"""Warm stop on the real parts: what is stopped is saved ahead, so archiving sends nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.database import Database
from state.model import Desired
from tests.support.site import Site, two_nodes, until


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """Two nodes; what is stopped is saved ahead at once."""
    with two_nodes(db, database_url, tmp_path, warm_after=0.01) as made:
        yield made


def archived(site: Site, pod_id: str) -> list[tuple[str, int]]:
    """Which archives there are of the pod and of its user's files."""
    query = (
        "SELECT target_kind AS kind, number FROM archive WHERE target_id IN"
        " (SELECT id FROM pod WHERE id = %(id)s UNION SELECT workspace_id FROM pod WHERE id = %(id)s)"
        " ORDER BY 1, 2"
    )
    with site.db.transaction() as connection:
        return [(row["kind"], row["number"]) for row in connection.execute(query, {"id": pod_id})]


def written(site: Site) -> dict[str, int]:
    """All objects of archives in the store, with the times they were written at."""
    store = site.agents[0].node.store_dir
    return {str(path): path.stat().st_mtime_ns for path in (store / "archives").rglob("*") if path.is_file()}


def is_being_saved(site: Site, pod_id: str) -> bool:
    """Whether its node was asked to, and has not answered."""
    query = "SELECT 1 FROM action WHERE target = %s AND state = 'open' AND verb = 'archive_pod'"
    with site.db.transaction() as connection:
        return connection.execute(query, (pod_id,)).fetchone() is not None


def container_of(site: Site, pod_id: str) -> str:
    """The one container that there is of the pod."""
    (container,) = site.agent_of(pod_id).node.parts.runtime.of_pod(pod_id)
    return container.id


def test_a_stopped_pod_is_archived_without_a_byte_and_a_start_between_loses_nothing(site: Site) -> None:
    """Saved ahead once; started again it is the same container; what was changed then is saved ahead anew;
    and the switch to archived writes no object. A start in the middle of it is not held up."""
    pod_id = site.open()
    site.until_is(pod_id, "running")
    site.run(pod_id, "echo one >/workspaces/file; echo one >~/own")
    container = container_of(site, pod_id)

    site.want(pod_id, Desired.STOPPED)
    site.until_is(pod_id, "stopped")
    until(lambda: archived(site, pod_id) == [("pod", 1), ("workspace", 1)])
    assert site.status(pod_id).actual == "stopped"
    assert container_of(site, pod_id) == container

    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")
    assert container_of(site, pod_id) == container
    assert site.answers(pod_id)
    site.run(pod_id, "echo two >/workspaces/file; echo two >~/own")

    site.want(pod_id, Desired.STOPPED)
    site.until_is(pod_id, "stopped")
    until(lambda: archived(site, pod_id) == [("pod", 1), ("pod", 2), ("workspace", 1), ("workspace", 2)])
    before = written(site)
    site.want(pod_id, Desired.ARCHIVED)
    site.until_is(pod_id, "archived")
    until(lambda: site.left_on_nodes() == 0)
    assert written(site) == before
    assert len(archived(site, pod_id)) == 4

    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")
    assert site.run(pod_id, "cat /workspaces/file ~/own").split() == ["two", "two"]

    site.run(pod_id, "head -c 120000000 /dev/urandom >~/large")
    container = container_of(site, pod_id)
    site.want(pod_id, Desired.STOPPED)
    until(lambda: is_being_saved(site, pod_id))
    site.want(pod_id, Desired.RUNNING)
    site.until_is(pod_id, "running")
    assert container_of(site, pod_id) == container
    assert site.run(pod_id, "stat -c %s ~/large; cat /workspaces/file").split() == ["120000000", "two"]
    assert [kind for kind, number in archived(site, pod_id) if number > 3] == []
