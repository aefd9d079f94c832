"""A run of the simulation as data: a seed for the fine noise, and what goes wrong when and to whom.

Faults of port calls are addressed as "the nth call of this actor to that port, counted from this step", so
that a failure shrinks to a sentence: node-2 was killed after its 3rd store.commit.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from state.model import Desired

ROOT_OF_REGRESSIONS = Path(__file__).resolve().parents[1] / "regressions"
NODES = ("node-0", "node-1", "node-2")
WORKSPACES = ("w-0", "w-1", "w-2")
PODS = ("p-0-0", "p-0-1", "p-1-0", "p-2-0")
RECONCILERS = ("reconciler-0", "reconciler-1")
ANY_ACTOR = "*"
# Matches every call that changes something.
ANY_EFFECT = "effect"

# What can happen at a port call. `arg` is in seconds where it is one.
CALL_FAULTS = (
    "crash_before",
    "crash_after",
    "error_before",
    "error_after",
    "delay",
    "pause",
    "duplicate",
    # Killed with a request on its way: the engine, the store or the gateway gets it later all the same.
    "crash_late",
)
# Right before a call to the store, the stopped pod whose archive it is about is started, used and stopped by
# hand. No other pod: between the last look at a container and its removal nobody can be kept out.
TOUCH = "touch"
# Two agents at work on one disk. Never drawn: production's lock on the data directory rules it out, and a
# regression file shows what would be lost without that lock.
ZOMBIE = "zombie"
# The same message arrives once more `arg` seconds later, when its sender may be gone for long.
DUPLICATE_LATE = "duplicate_late"
# To a pod or a user's files: the newest archive of what is nowhere else is not what was saved, or is again.
ROT = "rot_archive"
MEND = "mend_archive"
# A machine is restored from a copy of a node's disk, beside the node or in its place, `arg` seconds after the
# copy was made.
BESIDE = "copy_beside"
IN_PLACE = "copy_in_place"
# Somebody wants a pod, its files, or both (`go_back:` and which) back as they were in one of its archives:
# `arg` from 0 to 1 says in which, from the oldest to the newest.
GO_BACK = "go_back"
# A pod is deleted, and its user opens one of the same name while its container is still there: the id of the
# new one ends so.
REOPEN = "reopen_pod"
REOPENED = "-again"
# Learners come and go from now on, and policies put away what nobody uses; a pod is to be kept for `arg`
# seconds; a limit of a pod or a user, `limit:` and its column, is `arg` seconds from now on.
VISITS = "visits"
EXTEND = "extend"
LIMIT = "limit"
# The database goes back by `arg` seconds, in which its replica had missed what was committed.
COMMITS_LOST = "commits_lost"
# What can happen to the world. Those with an `until` in the world last `arg` seconds.
NODE_FAULTS = (
    "reboot",
    "reboot_late",
    "engine_down",
    "engine_slow",
    "partition",
    "partition_all",
    # All nodes but this one are cut off: there is still somebody to whom harm could be done.
    "partition_others",
    "reply_cut",
    "disk_full",
    "disk_lost",
    "journal_lost",
    "clock_set",
    "image_gone",
    "black_hole",
    "list_misses",
    "name_taken",
    "shrink",
    # Of earlier placements: nothing but their epoch stands between them and the node.
    "late_actions",
    "late_actions",
)
POD_FAULTS = (
    "exit_pod",
    "start_pod",
    # Started, used and stopped again by hand, perhaps between its archive and its removal.
    "use_pod",
    "use_pod",
    "use_pod",
    "rename_pod",
    "remove_pod",
    "stuck_pod",
    "crash_loop",
    "lose_blob",
)
SHARED_FAULTS = (
    "store_down",
    "store_slow",
    "db_down",
    "db_empty",
    "db_no_pods",
    "db_deaf",
    "poison_row",
    "flap",
)
# Which kinds happen to whom.
WORLD_FAULTS = ((NODE_FAULTS, NODES), (POD_FAULTS, PODS), (SHARED_FAULTS, WORKSPACES))
_PORTS = (
    "",
    ANY_EFFECT,
    "docker.",
    "store.",
    "store.commit",
    "store.put_manifest",
    "net.",
    "net.reply",
    "net.actions",
    "docker.start",
    "docker.remove",
    "tree.",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """From `step` on, the `nth` call of `actor` to a port that begins with `port` meets `kind`.

    For faults of the world, and for wishes (`wish:archived`), `actor` is the node or pod, and `nth` is 0.
    """

    step: int
    actor: str
    nth: int
    kind: str
    port: str = ""
    arg: float = 0.0

    @property
    def at_call(self) -> bool:
        """Whether it waits for a port call, instead of happening by itself at its step."""
        return self.nth > 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that a run depends on, besides the code."""

    seed: int
    steps: int
    faults: tuple[Fault, ...] = ()
    note: str = ""
    # The invariant that this schedule breaks as the code is now; empty for one that was mended.
    expect: str = ""

    def save(self, path: Path) -> None:
        """As JSON, for tests/regressions and `--replay`."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> "Schedule":
        """Raises KeyError, TypeError or ValueError for what `save` has not written."""
        content = json.loads(path.read_text())
        faults = tuple(Fault(**fault) for fault in content["faults"])
        return Schedule(
            content["seed"], content["steps"], faults, content.get("note", ""), content.get("expect", "")
        )


def draw(seed: int, steps: int) -> Schedule:
    """A schedule from a seed: wishes all along, and a fault every hundred steps or so."""
    random = Random(f"schedule {seed}")
    faults = [_wish(random, steps) for _ in range(max(4, steps // 250))]
    faults += [Fault(0, pod, 0, "wish:running") for pod in PODS]
    faults += [_fault(random, steps) for _ in range(max(3, steps // 120))]
    return Schedule(seed, steps, tuple(in_order(faults)))


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """By step; faults of one step stay in their order."""
    return sorted(faults, key=lambda fault: fault.step)


def _wish(random: Random, steps: int) -> Fault:
    step = random.randrange(steps)
    if random.random() < 0.1:
        return Fault(step, random.choice(NODES), 0, random.choice(("cordon", "uncordon")))
    wanted = random.choices(list(Desired), weights=(5, 3, 6, 0.3))[0]
    return Fault(step, random.choice(PODS), 0, f"wish:{wanted}")


def _fault(random: Random, steps: int) -> Fault:
    step = random.randrange(steps)
    if random.random() < 0.45:
        kinds, actors = random.choice(WORLD_FAULTS)
        lasts_s = random.choice((3.0, 20.0, 70.0))
        return Fault(step, random.choice(actors), 0, random.choice(kinds), arg=lasts_s)
    actor = random.choice((*NODES, *NODES, *RECONCILERS))
    return Fault(
        step,
        actor,
        random.randrange(1, 12),
        random.choice(CALL_FAULTS),
        random.choice(_PORTS) if actor in NODES else "db.",
        random.choice((0.5, 5.0, 30.0, 90.0)),
    )
