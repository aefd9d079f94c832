"""I12: one bad thing stays one. How long others wait beside it, and without it, by the virtual clock."""

from collections.abc import Iterator
from dataclasses import dataclass

from state.model import Desired
from tests.sim.fleet import Fleet
from tests.sim.host import SimTime
from tests.sim.rest import Rest
from tests.sim.schedule import NODES, PODS, Fault
from tests.sim.seams import installed

SEED = 5
LASTS_S = 3000.0
# Others may be as wished so much later than they would be without the bad thing.
DELAY_S_MAX = 15.0
_STEPS_MAX = 40_000
_WISHES = (Desired.RUNNING, Desired.ARCHIVED, Desired.RUNNING, Desired.STOPPED)
BAD_POD, OTHERS = PODS[0], PODS[2:]
# What is bad, and to whom; the bad pod is on the first node, the others are not.
TROUBLES = (
    ("black_hole", NODES[0]),
    ("engine_down", NODES[0]),
    ("engine_slow", NODES[0]),
    ("disk_full", NODES[0]),
    ("image_gone", NODES[0]),
    ("name_taken", NODES[0]),
    ("partition", NODES[0]),
    ("crash_loop", BAD_POD),
    ("stuck_pod", BAD_POD),
    ("poison_row", "w-0"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was bad, and how long the slowest wish of the others took."""

    trouble: str
    alone_s: float
    beside_s: float

    @property
    def delayed_s(self) -> float:
        """By how much it delayed others."""
        return self.beside_s - self.alone_s


def isolation_table() -> Iterator[Row]:
    """Each trouble, against the same fleet without it."""
    alone_s = _slowest_s(None)
    for kind, whom in TROUBLES:
        yield Row(f"{kind} {whom}", alone_s, _slowest_s(Fault(0, whom, 0, kind, arg=LASTS_S)))


def _slowest_s(trouble: Fault | None) -> float:
    fleet = Fleet(SEED)
    with installed(SimTime(fleet.scheduler), fleet.trees):
        _place(fleet)
        if trouble is not None:
            fleet.happen(trouble)
            fleet.wish(BAD_POD, Desired.ARCHIVED)
        return max(_takes_s(fleet, wish, bad=trouble is not None) for wish in _WISHES)


def _place(fleet: Fleet) -> None:
    """The bad pod on the first node, where no other comes to."""
    for node_id in NODES[1:]:
        fleet.happen(Fault(0, node_id, 0, "cordon"))
    fleet.wish(BAD_POD, Desired.RUNNING)
    _until_so(fleet, (BAD_POD,))
    for node_id in NODES:
        fleet.happen(Fault(0, node_id, 0, "uncordon" if node_id != NODES[0] else "cordon"))


def _takes_s(fleet: Fleet, wish: Desired, *, bad: bool) -> float:
    """All the others want this now, and the bad pod the opposite."""
    began_s = fleet.scheduler.now_s
    for pod_id in OTHERS:
        fleet.wish(pod_id, wish)
    if bad:
        fleet.wish(BAD_POD, Desired.ARCHIVED if wish is Desired.RUNNING else Desired.RUNNING)
    _until_so(fleet, OTHERS)
    return fleet.scheduler.now_s - began_s


def _until_so(fleet: Fleet, pod_ids: tuple[str, ...]) -> None:
    rest, last_step = Rest(fleet), fleet.scheduler.steps + _STEPS_MAX
    while not all(rest.is_as_wished(fleet.db.pods[pod_id]) for pod_id in pod_ids):
        assert fleet.scheduler.steps < last_step, [fleet.db.pods[pod_id].reason for pod_id in pod_ids]
        fleet.step()
