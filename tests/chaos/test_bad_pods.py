"""Pods that reach a limit, wait for what does not come, or do not end: nobody else is held up by them."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node_agent.ghosts import Ghosts
from node_agent.images import COMING_AT_ONCE_MAX
from state.database import Database
from state.model import Desired
from state.pods import PodStatus
from tests.chaos.learners import Learner, leftovers
from tests.support.site import Site, two_nodes, until
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


# ---- limits ----------------------------------------------------------------------------------------------

PIDS = 512
HOG = "python3 -c 'x = bytearray(1 << 40)' 2>/dev/null; python3 -c 'x = b\"x\" * (3 << 30)'; echo $?"
FEW_FILES = 2
LOW_S = 6.0


@pytest.fixture
def site(tmp_path: Path, db: Database, database_url: str) -> Iterator[Site]:
    """One node, so that whatever is done to it is done beside everybody else."""
    with two_nodes(db, database_url, tmp_path, names=("one",)) as made:
        yield made


def learner_of(site: Site, user: str) -> Learner:
    """With a pod that runs, and something written in it."""
    learner = Learner(site, user)
    learner.open()
    learner.write(random.Random(user))
    return learner


def container_id_of(learner: Learner) -> str:
    """The learner's only container."""
    (found,) = learner.site.agent_of(learner.pod_id).node.parts.runtime.of_pod(learner.pod_id)
    return found.id


@pytest.mark.timeout(900)
def test_a_pod_with_as_many_processes_as_it_may_have_holds_up_nobody_and_loses_nothing(site: Site) -> None:
    """Nothing more can be begun in it; others are made meanwhile, and it is put away and comes back."""
    bomber = learner_of(site, "bomber")
    script = f"exec >/dev/null 2>&1; for i in $(seq {2 * PIDS}); do sleep 600 & done"
    argv = ["docker", "exec", container_id_of(bomber), "sh", "-c", script]
    assert subprocess.run(argv, check=False, capture_output=True, timeout=300).returncode != 0
    assert len(Ghosts().of(container_id_of(bomber))) > PIDS / 2
    learner_of(site, "neighbour").go_round()
    bomber.go_round()
    assert leftovers(site, 2) == 0


@pytest.mark.timeout(900)
def test_a_pod_that_runs_out_of_memory_holds_up_nobody_and_loses_nothing(site: Site) -> None:
    """What asks for too much is killed; the pod runs (or is started again), and others notice nothing."""
    hog = learner_of(site, "hog")
    argv = ["docker", "exec", container_id_of(hog), "sh", "-c", HOG]
    said = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    assert said.returncode != 0 or said.stdout.strip() == "137"
    learner_of(site, "neighbour").go_round()
    hog.check()
    hog.go_round()
    assert leftovers(site, 2) == 0


@pytest.mark.timeout(900)
def test_an_agent_that_runs_out_of_files_says_so_and_goes_on_when_it_has_some(site: Site) -> None:
    """In the middle of either way: it does not die, nothing is lost, and its log names the cause."""
    learner = learner_of(site, "alice")
    (agent,) = site.agents
    for desired in (Desired.ARCHIVED, Desired.RUNNING):
        before = agent.limit_files(agent.open_files() + FEW_FILES)
        learner.want(desired)
        time.sleep(LOW_S)
        agent.limit_files(before)
        learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
    assert not agent.has_died()
    assert "Too many open files" in agent.log
    assert "action.broke" not in agent.log
    assert leftovers(site, 1) == 0


# ---- stops that are ignored ------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_pod_that_ignores_sigterm_is_killed_after_the_grace(site: Site) -> None:
    """Held by SIGSTOP, none of its processes hears of it; it is put away, and comes back whole."""
    deaf = learner_of(site, "deaf")
    for pid in Ghosts().of(container_id_of(deaf)):
        os.kill(pid, signal.SIGSTOP)
    deaf.go_round()
    assert leftovers(site, 1) == 0


@contextmanager
def unkillable(container_id: str) -> Iterator[None]:
    """All processes of a container frozen in a cgroup of their own: SIGKILL does not take effect."""
    (above,) = Path("/sys/fs/cgroup/freezer").rglob(container_id)
    frozen = above / "stuck"
    frozen.mkdir()
    for pid in Ghosts().of(container_id):
        (frozen / "cgroup.procs").write_text(str(pid))
    (frozen / "freezer.state").write_text("FROZEN")
    try:
        yield
    finally:
        (frozen / "freezer.state").write_text("THAWED")


@pytest.mark.timeout(1800)
def test_a_pod_that_outlives_sigkill_is_not_saved_before_it_ends_and_holds_up_nobody(site: Site) -> None:
    """As in an uninterruptible wait. The pod says what it waits for; others come and go meanwhile; there is
    no archive of it until its processes have ended, and then it goes round with every byte."""
    stuck = learner_of(site, "stuck")
    neighbour = learner_of(site, "neighbour")
    with unkillable(container_id_of(stuck)):
        stuck.want(Desired.ARCHIVED)
        neighbour.go_round()
        status = site.until(stuck.pod_id, lambda status: status.failure is not None)
        assert status.failure is not None
        assert (status.failure.code, status.failure.permanent) == ("stop_ignored", False)
        neighbour.go_round()
        assert archives_of(site, stuck.pod_id) == 0
        assert Ghosts().of(container_id_of(stuck))
    stuck.await_archived()
    stuck.want(Desired.RUNNING)
    stuck.check()
    assert leftovers(site, 2) == 0


def archives_of(site: Site, target_id: str) -> int:
    """How many the database has of a pod."""
    with site.db.transaction() as conn:
        row = conn.execute("SELECT count(*) AS n FROM archive WHERE target_id = %s", (target_id,)).fetchone()
    assert row is not None
    return int(row["n"])
