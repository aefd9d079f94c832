"""Schedules with chores: archives are compacted, retired, cleared away, read back, and taken of who runs."""

from random import Random

from state.model import Desired, What
from tests.sim.schedule import GO_BACK, MEND, NODES, PODS, ROT, WORKSPACES, Fault, Schedule, in_order

# From now on; `arg` says how many archives of each pod are kept, one at least.
CHORES = "chores"
KEEPS_ALL = 100.0


def taking_care(seed: int) -> Schedule:
    """Archives are compacted, retired and cleared away, and checkpoints taken, while users come and go."""
    random = Random(f"care {seed}")
    faults = [Fault(0, NODES[0], 0, CHORES)]
    faults += [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for _ in range(24):
        wanted = random.choices(list(Desired), weights=(6, 2, 6, 0.2))[0]
        faults.append(Fault(random.randrange(200, 5000), random.choice(PODS), 0, f"wish:{wanted}"))
    faults += [
        Fault(random.randrange(200, 4500), random.choice(NODES), 1, "delay", "store.put_manifest", 5.0)
        for _ in range(10)
    ]
    for _ in range(10):
        kind = random.choice(
            ("crash_before", "crash_after", "crash_late", "error_before", "error_after", "delay")
        )
        port = random.choice(("store.", "store.delete", "store.put_manifest", "chore.", "docker.", "net."))
        nth = random.randrange(1, 6)
        faults.append(Fault(random.randrange(200, 5000), random.choice(NODES), nth, kind, port, 5.0))
    for _ in range(3):
        kind, lasts_s = random.choice((("partition", 170.0), ("store_down", 10.0), ("reboot", 0.0)))
        faults.append(Fault(random.randrange(500, 3500), random.choice(NODES), 0, kind, arg=lasts_s))
    return Schedule(seed, 4500, tuple(in_order(faults)))


def freezing(seed: int) -> Schedule:
    """Pods that change while they are read for a checkpoint are paused for it, and agents die over that."""
    random = Random(f"freezing {seed}")
    faults = [Fault(0, NODES[0], 0, CHORES)]
    faults += [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for _ in range(12):
        faults.append(Fault(random.randrange(200, 3500), random.choice(NODES), 1, "delay", "tree.read", 5.0))
    for _ in range(10):
        kind = random.choice(("crash_before", "crash_after", "crash_late", "error_before", "error_after"))
        port = random.choice(("docker.pause", "docker.unpause", "host.write_frozen", "docker.unpause"))
        faults.append(
            Fault(random.randrange(200, 3500), random.choice(NODES), random.randrange(1, 3), kind, port, 1.0)
        )
    for _ in range(4):
        kind = random.choice(("engine_down", "disk_full", "reboot"))
        faults.append(Fault(random.randrange(200, 3500), random.choice(NODES), 0, kind, arg=3.0))
    for _ in range(8):
        wanted = random.choices(list(Desired), weights=(8, 3, 3, 0.1))[0]
        faults.append(Fault(random.randrange(200, 3500), random.choice(PODS), 0, f"wish:{wanted}"))
    return Schedule(seed, 4000, tuple(in_order(faults)))


def reading_back(seed: int) -> Schedule:
    """Archives rot in which nobody looks, and some are put right again; scrubs find out about both."""
    random = Random(f"reading back {seed}")
    faults = [Fault(0, NODES[0], 0, CHORES, arg=KEEPS_ALL)]
    faults += [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for pod_id in PODS:
        for step in (250, 900):
            faults.append(Fault(step + random.randrange(100), pod_id, 0, "wish:archived"))
            faults.append(Fault(step + 400 + random.randrange(100), pod_id, 0, "wish:running"))
        faults.append(Fault(1600 + random.randrange(100), pod_id, 0, "wish:archived"))
        if random.random() < 0.5:
            faults.append(Fault(random.randrange(3000, 3400), pod_id, 0, "wish:running"))
    for target in (*PODS, WORKSPACES[1]):
        # Later on it has been compacted: then nothing but a scrub reads it.
        begins = 1700 if target == PODS[0] else 2600
        faults += [Fault(step, target, 0, ROT) for step in range(begins, begins + 500, 10)]
        if random.random() < 0.5:
            faults.append(Fault(random.randrange(2600, 3400), target, 0, MEND))
    for _ in range(6):
        kind = random.choice(("crash_before", "crash_after", "error_after", "duplicate", "delay"))
        port = random.choice(("store.get", "store.read", "chore.", "net."))
        faults.append(
            Fault(random.randrange(1700, 3400), random.choice(NODES), random.randrange(1, 4), kind, port, 5.0)
        )
    return Schedule(seed, 3500, tuple(in_order(faults)))


def coming_back(seed: int) -> Schedule:
    """A node is declared lost, and comes back with what its users have left on it: some go back to that."""
    random = Random(f"coming back {seed}")
    lost, other, third = random.sample(NODES, 3)
    faults = [Fault(0, NODES[0], 0, CHORES, arg=KEEPS_ALL)]
    faults += [Fault(0, node_id, 0, "cordon") for node_id in (other, third)]
    faults += [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for pod_id in random.sample(PODS, 2):
        faults += [Fault(250, pod_id, 0, "wish:archived"), Fault(450, pod_id, 0, "wish:running")]
    faults += [Fault(700, node_id, 0, "uncordon") for node_id in (other, third)]
    faults.append(Fault(random.randrange(700, 1100), lost, 0, "node_lost", arg=random.choice((80.0, 120.0))))
    for _ in range(5):
        wanted = random.choice((Desired.ARCHIVED, Desired.STOPPED, Desired.RUNNING))
        faults.append(Fault(random.randrange(1200, 3500), random.choice(PODS), 0, f"wish:{wanted}"))
    for _ in range(10):
        what, step = random.choice((What.POD, What.BOTH)), random.randrange(1800, 3500)
        faults.append(Fault(step, random.choice(PODS), 0, f"{GO_BACK}:{what}", arg=1.0))
    for _ in range(5):
        kind = random.choice(("crash_before", "crash_after", "crash_late", "duplicate", "delay"))
        port = random.choice(("tree.", "store.", "chore.", "net."))
        nth = random.randrange(1, 6)
        faults.append(Fault(random.randrange(1100, 3500), random.choice(NODES), nth, kind, port, 5.0))
    return Schedule(seed, 3500, tuple(in_order(faults)))
