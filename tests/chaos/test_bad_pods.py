"""Pods that reach a limit, wait for what does not come, or do not end: nobody else is held up by them."""

from pathlib import Path

from node_agent.images import COMING_AT_ONCE_MAX
from state.database import Database
from state.model import Desired
from state.pods import PodStatus
from tests.support.site import two_nodes, until
from tests.support.stalling_registry import StallingRegistry


def test_images_that_do_not_come_hold_up_nobody(
    tmp_path: Path, db: Database, database_url: str, registry: StallingRegistry
) -> None:
    """As many pods as the node has workers wait for an image: another user's pod is made and started, each
    that waits says for what, one that is not wanted goes, and the others go on when the image comes."""
    workers = COMING_AT_ONCE_MAX + 1
    environment = {"CODEPODS_WORKERS_MAX": str(workers)}
    with two_nodes(db, database_url, tmp_path, environment, names=("one",)) as site:
        waiting = [site.open(f"user-{number}", image=registry.image) for number in range(workers)]
        until(lambda: any(_is_pulled(site.status(pod_id)) for pod_id in waiting))
        good = site.open("carol")
        site.until_is(good, "running")
        assert {site.status(pod_id).actual for pod_id in waiting} <= {"absent", "creating"}
        site.want(waiting[0], Desired.DELETED)
        site.until(waiting[0], lambda status: status.actual == "deleted")
        registry.flowing.set()
        for pod_id in waiting[1:]:
            # There is nothing in it that could be started.
            site.until(
                pod_id, lambda status: status.failure is not None and status.failure.verb == "start_pod"
            )


def _is_pulled(status: PodStatus) -> bool:
    told = status.progress or {}
    return told.get("phase") == "pulling the image" and told["done_bytes"] > 0
