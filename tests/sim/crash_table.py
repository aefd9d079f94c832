"""Small spaces, exhausted: kill whoever makes the nth effect, before and after it, for every n.

An effect is every change on an engine, a disk, in the store or the outbox between a wish and its fulfilment.
Each run must come to what was wished, with nothing lost and nothing left half made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product

from state.model import Desired
from tests.sim.fleet import Fleet
from tests.sim.host import SimTime
from tests.sim.rest import Rest
from tests.sim.schedule import ANY_ACTOR, ANY_EFFECT, NODES, Fault
from tests.sim.scheduler import Armed
from tests.sim.seams import installed
from tests.sim.truth import Violation

POD, NEIGHBOUR = "p-0-0", "p-0-1"
SEED = 1
PAIRS_EFFECTS_MAX = 16
CRASHES = ("crash_before", "crash_after")
_STEPS_MAX = 20_000

Act = Callable[[Fleet], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is so before, and the wishes whose effects are interrupted, each once the one before is true."""

    name: str
    before: tuple[Act, ...]
    acts: tuple[Act, ...]
    # What else must be so in the end.
    after: Act = lambda _fleet: None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    scenario: str
    effects: int
    crash_points: int
    pairs: int
    failures: tuple[str, ...]


def _wish(desired: Desired, *pods: str) -> Act:
    def act(fleet: Fleet) -> None:
        for pod_id in pods or (POD,):
            fleet.happen(Fault(0, pod_id, 0, f"wish:{desired}"))

    return act


def _used(fleet: Fleet) -> None:
    """Something is in the pods that can be lost."""
    for pod_id in (POD, NEIGHBOUR):
        for docker, container in fleet.truth.containers(pod_id):
            fleet.write(docker, container)


def _cordon_its_node(fleet: Fleet) -> None:
    placement = fleet.db.workspaces["w-0"].placement
    for node_id in NODES:
        fleet.db.nodes[node_id].cordoned = placement is not None and placement.node_id == node_id


def _nothing_where_nobody_may_come(fleet: Fleet) -> None:
    """A machine may be given back: a stopped pod is somebody's work, too (LAW 16)."""
    for node in fleet.db.nodes.values():
        docker = fleet.truth.dockers[node.id]
        if node.cordoned and (docker.containers or docker.volumes):
            raise Violation("I13", f"{node.id} is not empty: {[*docker.containers, *docker.volumes]}")


_RUNNING, _ARCHIVED = _wish(Desired.RUNNING), _wish(Desired.ARCHIVED)
SCENARIOS = (
    Scenario("archive", (_RUNNING, _used), (_ARCHIVED,)),
    Scenario("restore", (_RUNNING, _used, _ARCHIVED), (_RUNNING,)),
    Scenario("move", (_RUNNING, _used, _cordon_its_node), (_ARCHIVED, _RUNNING)),
    Scenario("delete", (_RUNNING, _used), (_wish(Desired.DELETED),)),
    Scenario(
        "scale-down",
        (
            _wish(Desired.RUNNING, POD, NEIGHBOUR),
            _used,
            _wish(Desired.STOPPED, NEIGHBOUR),
            _cordon_its_node,
        ),
        (_wish(Desired.ARCHIVED, POD, NEIGHBOUR),),
        _nothing_where_nobody_may_come,
    ),
)


def play(scenario: Scenario, faults: tuple[tuple[int, str], ...]) -> tuple[int, Violation | None]:
    """Run with crashes at these effects; how many effects there were, and what went wrong."""
    fleet = Fleet(SEED)
    with installed(SimTime(fleet.scheduler), fleet.trees):
        try:
            for act in scenario.before:
                _until_so(fleet, act)
            began = fleet.scheduler.effects
            fleet.scheduler.armed = [
                Armed(Fault(0, ANY_ACTOR, nth, kind, ANY_EFFECT), nth) for nth, kind in faults
            ]
            for act in scenario.acts:
                _until_so(fleet, act)
            effects = fleet.scheduler.effects - began
            scenario.after(fleet)
            fleet.heal()
            Rest(fleet).converge()
        except Violation as found:
            return 0, found
    return effects, None


def _until_so(fleet: Fleet, act: Act) -> None:
    act(fleet)
    rest = Rest(fleet)
    last_step = fleet.scheduler.steps + _STEPS_MAX
    while rest.amiss() is not None:
        if fleet.scheduler.steps > last_step:
            raise Violation("I6", f"after {_STEPS_MAX} steps still: {rest.amiss()}")
        fleet.step()


def crash_table(*, pairs: bool) -> Iterator[Row]:
    """Every single crash point of each scenario; with `pairs` every two of them where effects are few."""
    for scenario in SCENARIOS:
        effects, broken = play(scenario, ())
        failures = [f"without any crash: {broken}"] if broken else []
        singles = list(product(range(1, effects + 1), CRASHES))
        twos = list(combinations(singles, 2)) if pairs and effects <= PAIRS_EFFECTS_MAX else []
        for faults in [*((single,) for single in singles), *twos]:
            _, broken = play(scenario, faults)
            if broken:
                failures.append(f"{faults}: {broken}")
        yield Row(scenario.name, effects, len(singles), len(twos), tuple(failures))
