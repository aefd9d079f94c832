"""Ways that are cut, in one direction or both: a node's to the control plane, and all nodes' to the store."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from node_agent import labels
from state.database import Database
from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.chaos.sites import Ways, gated_site
from tests.support.site import Site, until
from tests.support.tcp_gate import TcpGate

# A node that is quiet for so long is silent; ways are cut for twice as long.
LEASE_S = 3.0
CUT_S = 2 * LEASE_S
FLAPS = 3
LOOK_EVERY_S = 0.1
DELAYS_S = (0.0, 0.4)
# The way to the store and back is eight steps; as many again may be lost to the fault or fail because of it.
STEPS_PER_WISH_MAX = 16
USERS = ("alice", "bob")


def _flap(gate: TcpGate) -> None:
    """Shut and open at the period of the lease."""
    for _ in range(FLAPS):
        with gate.shut():
            time.sleep(LEASE_S)
        time.sleep(LEASE_S / 2)


def _held(how: Callable[[TcpGate], AbstractContextManager[None]]) -> Callable[[TcpGate], None]:
    def cut(gate: TcpGate) -> None:
        with how(gate):
            time.sleep(CUT_S)

    return cut


HOW: dict[str, Callable[[TcpGate], None]] = {
    "cut": _held(TcpGate.shut),
    "no answers": _held(TcpGate.answers_held_up),
    "no requests": _held(TcpGate.requests_held_up),
    "flapping": _flap,
}


class Watch:
    """How many containers of a pod live at a time, on all nodes together, looked at all the time."""

    def __init__(self, site: Site, pod_ids: list[str]) -> None:
        self._site = site
        self._pod_ids = pod_ids
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self.most = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._ending.wait(LOOK_EVERY_S):
            self.most = max([self.most, *map(self._alive, self._pod_ids)])

    def _alive(self, pod_id: str) -> int:
        found = [c for agent in self._site.agents for c in agent.node.parts.runtime.of_pod(pod_id)]
        return sum(container.live for container in found if not labels.is_partial(container.name))


def gates_of(ways: Ways, whose: str, learner: Learner) -> TcpGate:
    """The way that is cut: the store's, or that of the node that has (or had) the learner."""
    if whose == "store":
        return ways.store
    with ways.site.db.transaction() as conn:
        row = conn.execute(
            "SELECT node_id FROM placement WHERE workspace_id ="
            " (SELECT workspace_id FROM pod WHERE id = %s) ORDER BY epoch DESC LIMIT 1",
            (learner.pod_id,),
        ).fetchone()
    assert row is not None
    return ways.control[row["node_id"]]


def steps_so_far(db: Database) -> int:
    """How many steps were ever asked for."""
    with db.transaction() as conn:
        row = conn.execute("SELECT count(*) AS n FROM action").fetchone()
    assert row is not None
    return int(row["n"])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("whose", ["control plane", "store"])
@pytest.mark.parametrize("how", list(HOW))
def test_a_way_that_is_cut_costs_time_and_no_byte(
    tmp_path: Path, db: Database, database_url: str, whose: str, how: str
) -> None:
    """On the way to the store and back: everything converges with the same bytes, no pod ever ran twice, and
    no more steps were asked for than wishes and one fault each account for."""
    rng = random.Random(f"{whose} {how}")
    with gated_site(db, database_url, tmp_path, LEASE_S) as ways:
        learners = [Learner(ways.site, user) for user in USERS]
        for learner in learners:
            learner.open()
        with Watch(ways.site, [learner.pod_id for learner in learners]) as watch:
            for delay_s in DELAYS_S:
                before = steps_so_far(db)
                for learner in learners:
                    learner.write(rng)
                for desired in (Desired.ARCHIVED, Desired.RUNNING):
                    gate = gates_of(ways, whose, learners[0])
                    for learner in learners:
                        learner.want(desired)
                    time.sleep(delay_s)
                    HOW[how](gate)
                    for learner in learners:
                        learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
                until(lambda: leftovers(ways.site, len(learners)) == 0)
                assert steps_so_far(db) - before <= 2 * len(learners) * STEPS_PER_WISH_MAX
        assert watch.most == 1
