"""Whatever happens on the way, in whatever order, it converges and nothing is lost."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.plan import plan
from state import nodes as state_nodes
from state.database import Database
from state.model import Desired, Observed
from state.outbox import record
from state.plan import Plan
from state.snapshot import database_clock, page_workspaces, read_world
from state.wire import SyncRequest
from tests.support.control import LIMITS, Control
from tests.support.lawful_node import LawfulNode, Truth

RUNS = count(1)
PODS = (("ann", "one"), ("ann", "two"), ("bob", "one"))
LASTING = st.sampled_from([Desired.RUNNING, Desired.STOPPED, Desired.ARCHIVED])


@dataclass
class Run:
    """Two nodes and three pods of two users, on a database that others have used before."""

    control: Control
    truth: Truth = field(default_factory=Truth)
    nodes: list[LawfulNode] = field(default_factory=list)
    pods: list[str] = field(default_factory=list)
    held_plans: list[Plan] = field(default_factory=list)
    held_requests: list[SyncRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        number = next(RUNS)
        for name in ("a", "b"):
            node = LawfulNode(f"run-{number}-{name}", truth=self.truth)
            state_nodes.register(self.control.db, node.node_id, "token")
            self.control.sync(node)
            self.nodes.append(node)
        self.pods = [self.control.pod(f"{user}-{number}", name) for user, name in PODS]

    def tick(self, _which: int) -> None:
        """A pass."""
        self.control.tick()

    def sync(self, which: int) -> None:
        """A node's call."""
        self.control.sync(self.nodes[which % 2])

    def sync_reply_lost(self, which: int) -> None:
        """It was taken in, and the node never learns of it."""
        self.control.ingest(self.nodes[which % 2].request())

    def hold_request(self, which: int) -> None:
        """A call that is slow on its way."""
        self.held_requests.append(self.nodes[which % 2].request())

    def late_request(self, which: int) -> None:
        """It arrives; perhaps for the second time."""
        if self.held_requests:
            self.control.ingest(self.held_requests[which % len(self.held_requests)])

    def hold_plan(self, _which: int) -> None:
        """Another reconciler decides, and falls asleep."""
        ids = page_workspaces(self.control.db, "", 10_000)
        world = read_world(self.control.db, ids, self.control.leading.since)
        self.held_plans.append(plan(world, database_clock(self.control.db), LIMITS))

    def late_plan(self, which: int) -> None:
        """It wakes up and writes; perhaps for the second time."""
        if self.held_plans:
            held = self.held_plans[which % len(self.held_plans)]
            record(self.control.db, held, self.control.leading.leadership, database_clock(self.control.db))

    def perform(self, which: int) -> None:
        """A node does what it has in hand."""
        self.nodes[which % 2].perform()

    def perform_again(self, which: int) -> None:
        """An old action is done once more, long after its time."""
        node = self.nodes[which % 2]
        if node.done:
            node.answer(node.done[which % len(node.done)])

    def restart(self, which: int) -> None:
        """An agent is killed and started."""
        self.nodes[which % 2].restart()

    def write(self, which: int) -> None:
        """Users save files."""
        self.nodes[which % 2].write()

    def crash(self, which: int) -> None:
        """A container exits by itself."""
        node = self.nodes[which % 2]
        running = [pod_id for pod_id, pod in node.pods.items() if pod.state is Observed.RUNNING]
        if running:
            node.crash(running[which % len(running)])

    def check(self) -> None:
        """What must hold at every moment, by what is on the nodes."""
        places = [
            pod_id for node in self.nodes for pod_id, pod in node.pods.items() if pod.state == "running"
        ]
        assert len(places) == len(set(places)), "one pod runs twice"

    def heal(self) -> None:
        """No more faults: everything that was held back has been, and back-offs are over."""
        self.held_plans.clear()
        self.held_requests.clear()
        for _ in range(4):
            self.control.settle(*self.nodes)
            self.control.rows(
                "UPDATE pod SET failure = NULL, next_check_at = now() WHERE failure IS NOT NULL"
            )
            self.control.rows(
                "UPDATE workspace SET failure = NULL, next_check_at = now() WHERE failure IS NOT NULL"
            )

    def close(self) -> None:
        """Leave the nodes to no other run."""
        for node in self.nodes:
            state_nodes.set_cordoned(self.control.db, node.node_id, True, actor="test")


STEPS: dict[str, Callable[[Run, int], None]] = {
    step.__name__: step
    for step in (
        Run.tick,
        Run.sync,
        Run.perform,
        Run.sync_reply_lost,
        Run.hold_request,
        Run.late_request,
        Run.hold_plan,
        Run.late_plan,
        Run.perform_again,
        Run.restart,
        Run.write,
        Run.crash,
    )
}
steps = st.one_of(
    st.tuples(st.sampled_from(["tick", "sync", "perform", "write"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5)),
    st.tuples(st.just("want"), st.tuples(st.integers(0, 2), st.sampled_from(list(Desired)))),
)


def apply(run: Run, name: str, argument: Any) -> None:
    """One step of a schedule."""
    if name != "want":
        STEPS[name](run, argument)
        return
    pod, desired = argument
    if run.control.pod_row(run.pods[pod])["desired_state"] != "deleted":
        run.control.want(run.pods[pod], desired)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schedule=st.lists(steps, max_size=60), ends=st.tuples(LASTING, LASTING, LASTING))
def test_it_converges_and_loses_nothing(db: Database, schedule: list[Any], ends: tuple[Desired, ...]) -> None:
    """Late and repeated reports, plans and actions, crashes and changes of mind: in the end all is as wanted.

    Nothing was removed but what had been saved exactly or was deleted on purpose (I1 to I4, I6).
    """
    control = Control(db, limits=replace(LIMITS, backoff_first=timedelta(milliseconds=1)))
    with closing(Run(control)) as run:
        for name, argument in schedule:
            apply(run, name, argument)
            run.check()
        for number, desired in enumerate(ends):
            apply(run, "want", (number, desired))
        run.heal()
        check_end(run)


def check_end(run: Run) -> None:
    """Every pod is as desired, with all its files, and nothing more happens."""
    here = {pod_id: (pod, node) for node in run.nodes for pod_id, pod in node.pods.items()}
    for pod_id in run.pods:
        row = run.control.pod_row(pod_id)
        assert row["condition"] == "settled", row
        files = run.truth.written.get(pod_id, 0)
        if pod_id in here:
            pod, node = here[pod_id]
            assert (pod.state, node.contents[pod_id]) == (row["desired_state"], files)
        elif row["desired_state"] != "deleted" and files:
            saved = run.control.row("SELECT manifest_key FROM archive WHERE id = %s", row["archive_id"])
            assert run.truth.store[saved["manifest_key"]] == files
        else:
            assert row["desired_state"] != "running"
    run.control.resync()
    assert run.control.rows("SELECT * FROM action WHERE state = 'open'") == []
