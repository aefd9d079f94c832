"""What is done to the engine, and to containers behind the agent's back; on an engine of the test's own."""

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.ghosts import Ghosts
from node_agent.runtime import Container
from state.database import Database
from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.chaos.sites import BACKOFF_S_MAX
from tests.support.docker_node import pod_image
from tests.support.filling import full
from tests.support.own_engine import OwnEngine, own_engine, small_ext4
from tests.support.site import Site, two_nodes, until

# The pod image has 1.2 GB; unpacking it needs room for the layers and for what is on its way.
DISK_MIB = 4000
AWAY_S = 1.0
STARTS_BY_HAND = 8
ALMOST_NOTHING_BYTES = 100_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    """With the pod image, on a disk that can be filled."""
    folder = tmp_path_factory.mktemp("engine")
    with small_ext4(folder, DISK_MIB) as disk, own_engine(disk, folder) as made:
        made.load(pod_image())
        yield made


@pytest.fixture
def site(
    engine: OwnEngine, tmp_path: Path, db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Two nodes on that engine: whatever happens to it happens to both."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    with two_nodes(
        db, database_url, tmp_path, {"DOCKER_HOST": engine.url}, backoff_max=BACKOFF_S_MAX
    ) as made:
        yield made


@pytest.fixture
def learner(site: Site) -> Learner:
    """With a pod that runs, and something written in it."""
    learner = Learner(site, "alice")
    learner.open()
    learner.write(random.Random(1))
    return learner


def container_of(learner: Learner) -> Container:
    """The learner's only container."""
    (found,) = learner.site.agent_of(learner.pod_id).node.parts.runtime.of_pod(learner.pod_id)
    return found


# ---- the engine stops, dies, hangs ---------------------------------------------------------------------


def _stopped(engine: OwnEngine) -> None:
    engine.stop()
    time.sleep(AWAY_S)
    engine.start()


def _killed(engine: OwnEngine) -> None:
    engine.kill()
    time.sleep(AWAY_S)
    engine.start()


def _hung(engine: OwnEngine) -> None:
    engine.pause()
    time.sleep(5 * AWAY_S)
    engine.go_on()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", [_stopped, _killed, _hung])
def test_an_engine_that_goes_away_in_the_middle_loses_nothing(
    engine: OwnEngine, learner: Learner, fault: Callable[[OwnEngine], None]
) -> None:
    """At several moments on the way to the store and back, and while the pod runs: it converges."""
    rng = random.Random(fault.__name__)
    fault(engine)
    learner.check()
    for delay_s in (0.2, 0.6, 1.2):
        learner.write(rng)
        for desired in (Desired.ARCHIVED, Desired.RUNNING):
            learner.want(desired)
            time.sleep(delay_s)
            fault(engine)
            learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
        until(lambda: leftovers(learner.site, 1) == 0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("desired", [Desired.RUNNING, Desired.ARCHIVED])
def test_a_pod_whose_engine_forgot_that_it_runs_is_ended_and_goes_on(
    engine: OwnEngine, learner: Learner, desired: Desired
) -> None:
    """An engine that was killed at the wrong moment says that the pod does not run, refuses to start it, and
    its processes go on: they are ended before it is started, or saved, and nothing of its files is lost."""
    container = container_of(learner)
    engine.kill()
    engine.forget(container.id)
    learner.want(desired)
    assert Ghosts().of(container.id)
    engine.start()
    if desired is Desired.ARCHIVED:
        learner.await_archived()
        assert Ghosts().of(container.id) == ()
        learner.want(Desired.RUNNING)
    learner.check()
    assert container.pid not in Ghosts().of(container_of(learner).id)
    assert leftovers(learner.site, 1) == 0


# ---- containers, by hand -------------------------------------------------------------------------------


def test_a_pod_that_was_renamed_by_hand_is_still_that_pod(engine: OwnEngine, learner: Learner) -> None:
    """It is known by its labels and its id: it is put away and comes back under its own name."""
    engine.docker("rename", container_of(learner).name, "somebody-elses-name")
    learner.go_round()
    assert leftovers(learner.site, 1) == 0


def test_a_pod_that_was_removed_by_hand_is_told_of_and_comes_back_from_its_archive(
    engine: OwnEngine, learner: Learner
) -> None:
    """What was written since the archive went with the container, and the history says so; files stay."""
    learner.go_round()
    learner.site.run_as_root(learner.pod_id, "echo since >/srv/since; echo since >/workspaces/since")
    engine.docker("rm", "-f", container_of(learner).id)
    until(lambda: "container_vanished" in told_of(learner))
    learner.site.until_is(learner.pod_id, "running")
    until(lambda: learner.site.answers(learner.pod_id))
    seen = "ls /srv; cat /workspaces/since"
    assert learner.site.run_as_root(learner.pod_id, seen).split() == ["work", "since"]
    assert leftovers(learner.site, 1) == 0


def test_a_stopped_pod_that_was_started_by_hand_is_stopped_and_what_it_wrote_is_saved(
    engine: OwnEngine, learner: Learner
) -> None:
    """Only agents start pods; nothing that ran meanwhile is lost."""
    learner.want(Desired.STOPPED)
    learner.site.until_is(learner.pod_id, "stopped")
    engine.docker("start", container_of(learner).id)
    engine.docker("exec", "-u", "root", container_of(learner).id, "sh", "-c", "echo by-hand >/srv/by-hand")
    learner.site.until(learner.pod_id, lambda _: not container_of(learner).live)
    learner.want(Desired.ARCHIVED)
    learner.await_archived()
    learner.want(Desired.RUNNING)
    learner.site.until_is(learner.pod_id, "running")
    assert learner.site.run_as_root(learner.pod_id, "cat /srv/by-hand") == "by-hand\n"


def test_a_pod_that_was_started_by_hand_while_it_is_being_archived_is_not_removed_unsaved(
    engine: OwnEngine, learner: Learner
) -> None:
    """Again and again, until the container is gone: what was written last is in the archive."""
    ending, written = threading.Event(), [0]
    container = container_of(learner)

    def by_hand() -> None:
        number = 0
        while not ending.wait(0.1):
            number += 1
            argv = ["docker", "--host", engine.url]
            subprocess.run([*argv, "start", container.id], capture_output=True, check=False, timeout=60)
            script = f"echo {number} >/srv/number && sync"
            argv += ["exec", "-u", "root", container.id, "sh", "-c", script]
            done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
            written[0] = number if done.returncode == 0 else written[0]
            if number >= STARTS_BY_HAND:
                return

    thread = threading.Thread(target=by_hand)
    learner.want(Desired.ARCHIVED)
    thread.start()
    try:
        learner.await_archived()
    finally:
        ending.set()
        thread.join()
    learner.want(Desired.RUNNING)
    learner.site.until_is(learner.pod_id, "running")
    assert written[0] > 0
    assert learner.site.run_as_root(learner.pod_id, "cat /srv/number").strip() == str(written[0])


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.ARCHIVED])
def test_a_pod_that_was_paused_by_hand_can_be_put_away(
    engine: OwnEngine, learner: Learner, desired: Desired
) -> None:
    """Its wish is met, and it comes back with all that it had."""
    engine.docker("pause", container_of(learner).id)
    learner.want(desired)
    learner.site.until_is(learner.pod_id, desired)
    learner.want(Desired.RUNNING)
    learner.check()


def test_a_volume_that_was_removed_by_hand_is_told_of_and_comes_back_from_its_archive(
    engine: OwnEngine, learner: Learner
) -> None:
    """The user's files come back as they were saved; the pod runs."""
    learner.go_round()
    learner.want(Desired.STOPPED)
    learner.site.until_is(learner.pod_id, "stopped")
    volumes = container_of(learner).volumes
    engine.docker("rm", "-f", container_of(learner).id)
    for volume in volumes:
        engine.docker("volume", "rm", "-f", volume)
    until(lambda: "volume_vanished" in told_of(learner))
    learner.want(Desired.RUNNING)
    learner.check()


def told_of(learner: Learner) -> set[str]:
    """The kinds of events of the installation."""
    with learner.site.db.transaction() as connection:
        return {row["kind"] for row in connection.execute("SELECT kind FROM event").fetchall()}


# ---- a full disk ---------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_full_engine_disk_delays_and_loses_nothing(engine: OwnEngine, learner: Learner) -> None:
    """A pod on a full disk can be put away; it comes back when there is room, and says until then why not."""
    with full(engine.root):
        learner.want(Desired.ARCHIVED)
        learner.await_archived()
    with full(engine.root, left_bytes=ALMOST_NOTHING_BYTES):
        learner.want(Desired.RUNNING)
        status = learner.site.until(learner.pod_id, lambda status: status.failure is not None)
        assert status.failure is not None
        assert status.failure.code == "disk_full"
    learner.check()
    until(lambda: leftovers(learner.site, 1) == 0)
