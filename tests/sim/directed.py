"""Schedules that go for what is rare, beside those that are drawn freely."""

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

from state.model import Desired, What
from tests.sim.directed_care import coming_back, freezing, reading_back, taking_care
from tests.sim.schedule import (
    BESIDE,
    COMMITS_LOST,
    DUPLICATE_LATE,
    EXTEND,
    GO_BACK,
    IN_PLACE,
    LIMIT,
    MEND,
    NODES,
    PODS,
    RECONCILERS,
    REOPEN,
    REOPENED,
    ROT,
    TOUCH,
    VISITS,
    WORKSPACES,
    Fault,
    Schedule,
    draw,
    in_order,
)

# Longer than any lease, fence or back-off: a network that is gone, not one that stumbles.
BLACKOUT_S = 300.0
# Of `clock_set`, whose larger arguments set a clock forth.
SET_BACK = 3.0
# Looks take many steps, and a visit takes its time.
VISITING_STEPS = 6000
VISITING_SHARE = 0.5


def late_deliveries(seed: int) -> Schedule:
    """A user who comes and goes on one node, which is told again what it has been told long before."""
    random = Random(f"late {seed}")
    faults = [Fault(0, node_id, 0, "cordon") for node_id in NODES[1:]]
    wishes = ((0, Desired.RUNNING), (300, Desired.ARCHIVED), (750, Desired.RUNNING))
    faults += [Fault(step, PODS[0], 0, f"wish:{wished}") for step, wished in wishes]
    faults += [Fault(0, PODS[1], 0, "wish:running"), Fault(200, PODS[1], 0, "wish:archived")]
    faults += [
        Fault(random.randrange(600), NODES[0], random.randrange(1, 3), "duplicate", "net.actions")
        for _ in range(60)
    ]
    return Schedule(seed, 1500, tuple(in_order(faults)))


def late_effects(seed: int) -> Schedule:
    """Users who come back while agents are killed with requests to the engine on their way.

    And what was asked under earlier placements is delivered once more to agents that know nothing of it.
    """
    random = Random(f"late effects {seed}")
    faults = [Fault(0, node_id, 0, "cordon") for node_id in NODES[1:]]
    for pod_id in PODS[1:3]:
        faults += [
            Fault(step + random.randrange(60), pod_id, 0, f"wish:{wished}")
            for step, wished in ((0, Desired.RUNNING), (250, Desired.ARCHIVED), (1150, Desired.RUNNING))
        ]
    # At the end somebody changes their mind while their workspace is being made.
    opened = random.randrange(1880, 1940)
    faults += [
        Fault(opened, PODS[3], 0, "wish:running"),
        Fault(opened + random.randrange(20, 90), PODS[3], 0, "wish:archived"),
    ]
    for _ in range(8):
        port = random.choice(("docker.create", "docker.create_volume", "docker.create", "net.sync"))
        faults.append(Fault(random.randrange(1700), NODES[0], 1, "crash_late", port, 5.0))
    faults += [Fault(random.randrange(1300, 1900), NODES[0], 0, "late_actions") for _ in range(6)]
    faults += [Fault(step, NODES[0], random.randrange(1, 3), TOUCH, "store.head") for step in (280, 400, 600)]
    faults += [Fault(random.randrange(300, 700), random.choice(PODS[1:3]), 0, "lose_blob") for _ in range(12)]
    return Schedule(seed, 2000, tuple(in_order(faults)))


def blackouts(seed: int) -> Schedule:
    """Most nodes or all of them go silent for five minutes, and users go on changing their minds (LAW 13)."""
    random = Random(f"blackout {seed}")
    faults = [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    began = random.randrange(150, 400)
    kind = random.choice(("partition_others", "partition_others", "partition_all"))
    faults.append(Fault(began, random.choice(NODES), 0, kind, arg=BLACKOUT_S))
    for _ in range(10):
        wanted = random.choices(list(Desired), weights=(4, 3, 6, 0.3))[0]
        faults.append(Fault(began + random.randrange(3000), random.choice(PODS), 0, f"wish:{wanted}"))
    return Schedule(seed, 4500, tuple(in_order(faults)))


def going_on_elsewhere(seed: int) -> Schedule:
    """A node is declared lost, or silent for so long that its users go on elsewhere; then it is back."""
    random = Random(f"elsewhere {seed}")
    faults = [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for pod_id in random.sample(PODS, 2):
        back = random.randrange(300, 600)
        faults += [Fault(back - 200, pod_id, 0, "wish:archived"), Fault(back, pod_id, 0, "wish:running")]
    began = random.randrange(250, 900)
    if random.random() < 0.5:
        faults += [Fault(0, pod_id, 0, "failover") for pod_id in PODS]
        faults.append(Fault(began, random.choice(NODES), 0, "partition", arg=BLACKOUT_S))
    else:
        faults.append(Fault(began, random.choice(NODES), 0, "node_lost", arg=random.choice((80.0, 200.0))))
    for _ in range(8):
        wanted = random.choices(list(Desired), weights=(6, 3, 5, 0.2))[0]
        faults.append(Fault(began + random.randrange(2500), random.choice(PODS), 0, f"wish:{wanted}"))
    for _ in range(4):
        actor = random.choice((*NODES, *RECONCILERS))
        kind = random.choice(("crash_before", "crash_after", "duplicate", "delay", "crash_late"))
        port = random.choice(("", "docker.", "net.", "store.")) if actor in NODES else "db."
        faults.append(Fault(random.randrange(3500), actor, random.randrange(1, 9), kind, port, 5.0))
    return Schedule(seed, 4500, tuple(in_order(faults)))


def broken_off(seed: int) -> Schedule:
    """Users come back from the archive, and change their minds, or meet a failing store, on the way."""
    random = Random(f"broken off {seed}")
    faults = [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for pod_id in PODS:
        step = random.randrange(150, 300)
        while step < 2000:
            away = random.choice((Desired.ARCHIVED, Desired.ARCHIVED, Desired.STOPPED))
            faults.append(Fault(step, pod_id, 0, f"wish:{away}"))
            back = step + random.choice((random.randrange(20, 120), random.randrange(150, 400)))
            faults.append(Fault(back, pod_id, 0, f"wish:{random.choice((Desired.RUNNING, Desired.STOPPED))}"))
            step = back + random.randrange(10, 200)
    faults += [
        Fault(random.randrange(150, 2000), random.choice(NODES), 1, "delay", "store.put_manifest", 5.0)
        for _ in range(6)
    ]
    for _ in range(12):
        port = random.choice(("store.get", "store.read", "tree.write", "docker.rename", "docker.inspect"))
        kind = random.choice(("error_before", "error_after", "delay", "crash_before"))
        actor = random.choice(NODES)
        faults.append(Fault(random.randrange(300, 2000), actor, random.randrange(1, 4), kind, port, 0.5))
    return Schedule(seed, 2200, tuple(in_order(faults)))


def former_lives(seed: int) -> Schedule:
    """A node's clock is set back, or it is cut off for long; then comes what its former agent once said."""
    random = Random(f"former lives {seed}")
    faults = [Fault(0, node_id, 0, "cordon") for node_id in NODES[1:]]
    faults += [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    began = random.randrange(200, 300)
    faults += [
        Fault(began - random.randrange(60, 120), NODES[0], 1, DUPLICATE_LATE, "net.sync", late_s)
        for late_s in (80.0, 100.0, 130.0, 170.0)
    ]
    if random.random() < 0.5:
        faults.append(Fault(began, NODES[0], 0, "clock_set", arg=SET_BACK))
        faults.append(Fault(began + 2, NODES[0], 0, "journal_lost"))
    else:
        faults.append(Fault(began, NODES[0], 0, "reboot"))
        faults.append(Fault(began + 150, NODES[0], 0, "partition", arg=BLACKOUT_S))
    for _ in range(12):
        wanted = random.choices(list(Desired), weights=(6, 4, 4, 0.2))[0]
        faults.append(Fault(random.randrange(100, 1800), random.choice(PODS), 0, f"wish:{wanted}"))
    return Schedule(seed, 2000, tuple(in_order(faults)))


def decaying(seed: int) -> Schedule:
    """Archives rot while nobody has what was in them, and some are put right again, soon or late.

    In the end a blob is lost of what is saved and still there, and nobody comes back.
    """
    random = Random(f"decaying {seed}")
    faults = [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for pod_id in PODS:
        for step in (250, 900, 1600, 2300):
            faults.append(Fault(step + random.randrange(100), pod_id, 0, "wish:archived"))
            faults.append(Fault(step + 400 + random.randrange(100), pod_id, 0, "wish:running"))
    for target in (*PODS, WORKSPACES[1]):
        began = random.choice((900, 1600, 2300))
        faults += [Fault(step, target, 0, ROT) for step in range(began, began + 500, 10)]
        if random.random() < 0.7:
            faults.append(Fault(random.randrange(began + 400, 2900), target, 0, MEND))
    for pod_id in PODS[2:]:
        faults.append(Fault(3000, pod_id, 0, "wish:archived"))
        faults += [Fault(random.randrange(3000, 3300), pod_id, 0, "lose_blob") for _ in range(8)]
    return Schedule(seed, 3400, tuple(in_order(faults)))


def copied(seed: int) -> Schedule:
    """A node's disk is copied, and a machine restored from it: beside the node for good, or in its place."""
    random = Random(f"copied {seed}")
    faults = [Fault(0, node_id, 0, "cordon") for node_id in NODES[1:]]
    faults += [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    kind = BESIDE if random.random() < 0.5 else IN_PLACE
    faults.append(Fault(random.randrange(150, 500), NODES[0], 0, kind, arg=random.choice((1.0, 20.0, 60.0))))
    for _ in range(14):
        wanted = random.choices(list(Desired), weights=(6, 3, 5, 0.2))[0]
        faults.append(Fault(random.randrange(200, 2500), random.choice(PODS), 0, f"wish:{wanted}"))
    faults.append(Fault(1200, NODES[1], 0, "uncordon"))
    for _ in range(6):
        fault = random.choice(("crash_before", "crash_after", "duplicate", "delay", DUPLICATE_LATE))
        port = random.choice(("", "docker.", "net.", "store."))
        faults.append(
            Fault(random.randrange(2500), random.choice(NODES), random.randrange(1, 9), fault, port, 5.0)
        )
    return Schedule(seed, 3000, tuple(in_order(faults)))


def visiting(seed: int) -> Schedule:
    """Learners come and go under policies, beside faults that are drawn freely, and limits that change."""
    random, drawn = Random(f"visiting {seed}"), draw(seed, VISITING_STEPS)
    faults = [Fault(0, NODES[0], 0, VISITS)]
    faults += [fault for fault in drawn.faults if random.random() < VISITING_SHARE]
    for _ in range(4):
        pod_id, seconds = random.choice(PODS), random.choice((20.0, 90.0))
        faults.append(Fault(random.randrange(drawn.steps), pod_id, 0, EXTEND, arg=seconds))
    for _ in range(12):
        # A reconciler that is held up between its look at a life and its wish.
        who, late_s = random.choice(RECONCILERS), random.choice((2.0, 8.0))
        port = random.choice(("db.record_verdict", "db.record_verdict", "db.read_lives"))
        faults.append(Fault(random.randrange(drawn.steps), who, 1, "delay", port, late_s))
    for _ in range(3):
        name, seconds = random.choice(
            (("lifetime_s", 60.0), ("lifetime_s", 0.0), ("closed_grace_s", 5.0), ("idle_limit_s", 0.0))
        )
        whom = random.choice((*PODS, *WORKSPACES))
        faults.append(Fault(random.randrange(drawn.steps), whom, 0, f"{LIMIT}:{name}", arg=seconds))
    return Schedule(seed, drawn.steps, tuple(in_order(faults)))


def held_up(seed: int) -> Schedule:
    """Learners come and go, and reconcilers are held up between each look at a life and its wish."""
    random = Random(f"held up {seed}")
    faults = [Fault(0, NODES[0], 0, VISITS)]
    for who in RECONCILERS:
        faults += [Fault(step, who, 1, "delay", "db.record_verdict", 8.0) for step in range(100, 6000, 40)]
    for pod_id in random.sample(PODS, 2):
        faults.append(Fault(0, pod_id, 0, f"{LIMIT}:closed_grace_s", arg=random.choice((5.0, 10.0))))
    return Schedule(seed, VISITING_STEPS, tuple(in_order(faults)))


def going_back(seed: int) -> Schedule:
    """Users come and go, and want back what they had, at any moment and beside any fault."""
    random, drawn = Random(f"back {seed}"), draw(seed, 4000)
    faults = [fault for fault in drawn.faults if random.random() < 0.6 or fault.kind.startswith("wish")]
    for pod_id in PODS:
        for step in (200, 900, 1700):
            away = random.choice((Desired.ARCHIVED, Desired.ARCHIVED, Desired.STOPPED))
            faults.append(Fault(step + random.randrange(200), pod_id, 0, f"wish:{away}"))
            faults.append(Fault(step + random.randrange(250, 600), pod_id, 0, "wish:running"))
    for _ in range(14):
        what, which = random.choice(list(What)), random.random()
        faults.append(
            Fault(random.randrange(500, 4000), random.choice(PODS), 0, f"{GO_BACK}:{what}", arg=which)
        )
    return Schedule(seed, 4000, tuple(in_order(faults)))


def forgetful(seed: int) -> Schedule:
    """The database fails over to a replica that misses the last moments, while users come and go."""
    random = Random(f"forgetful {seed}")
    faults = [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    lost = [random.randrange(20, 2600) for _ in range(4)]
    faults += [
        Fault(step, WORKSPACES[0], 0, COMMITS_LOST, arg=random.choice((0.3, 1.0, 2.5, 4.0))) for step in lost
    ]
    for step in lost:  # who is placed again may be placed elsewhere, before its former node is heard
        away, until = random.sample(NODES, 2)
        faults.append(Fault(step + random.randrange(80), away, 0, "cordon"))
        faults.append(Fault(step + 10, away, 0, "partition", arg=random.choice((2.0, 10.0, 30.0))))
        faults.append(Fault(step + 200, until, 0, "uncordon"))
    for step in lost:  # a user who comes back while going away is placed anew at once
        away, pod_id = max(0, step - random.randrange(60, 400)), random.choice(PODS)
        faults.append(Fault(away, pod_id, 0, "wish:archived"))
        faults.append(Fault(away + random.randrange(20, 300), pod_id, 0, "wish:running"))
    for _ in range(16):
        wanted = random.choices(list(Desired), weights=(6, 2, 6, 0.2))[0]
        near = random.choice(lost) - random.randrange(150) if random.random() < 0.6 else None
        step = random.randrange(2800) if near is None else max(0, near)
        faults.append(Fault(step, random.choice(PODS), 0, f"wish:{wanted}"))
    for _ in range(6):
        kind = random.choice(("crash_before", "crash_after", "duplicate", "delay", "reply_cut"))
        port = random.choice(("", "docker.", "net.", "store."))
        nth = 0 if kind == "reply_cut" else random.randrange(1, 9)
        faults.append(Fault(random.randrange(2800), random.choice(NODES), nth, kind, port, 5.0))
    return Schedule(seed, 3000, tuple(in_order(faults)))


def reopening(seed: int) -> Schedule:
    """Pods are deleted, and their names used again at once, while nodes and agents fail (fault 20)."""
    random = Random(f"reopening {seed}")
    faults = [Fault(0, pod_id, 0, "wish:running") for pod_id in PODS]
    for pod_id in PODS[:3]:
        opened = random.randrange(200, 1800)
        faults.append(Fault(opened, pod_id, 0, REOPEN))
        for _ in range(3):
            wanted = random.choices(list(Desired), weights=(5, 3, 6, 0.3))[0]
            step = opened + random.randrange(1, 1500)
            faults.append(Fault(step, pod_id + REOPENED, 0, f"wish:{wanted}"))
    for _ in range(14):
        actor = random.choice((*NODES, *RECONCILERS))
        port = random.choice(("", "docker.", "net.", "net.actions")) if actor in NODES else "db."
        kind = random.choice(("crash_before", "crash_after", "duplicate", "delay", "crash_late"))
        faults.append(Fault(random.randrange(200, 2800), actor, random.randrange(1, 9), kind, port, 5.0))
    faults += [Fault(random.randrange(300, 2800), random.choice(NODES), 0, "late_actions") for _ in range(4)]
    return Schedule(seed, 3000, tuple(in_order(faults)))


# By the last digit of a seed; all other seeds are drawn freely.
_DIRECTED = {
    0: late_deliveries,
    2: blackouts,
    3: taking_care,
    5: late_effects,
    7: going_on_elsewhere,
    8: visiting,
    9: broken_off,
}
# By the last two digits.
_DIRECTED_RARELY = {
    4: reopening,
    21: held_up,
    61: held_up,
    66: reopening,
    14: former_lives,
    24: going_back,
    44: going_back,
    64: going_back,
    84: going_back,
    16: copied,
    34: forgetful,
    36: decaying,
    6: freezing,
    46: freezing,
    26: reading_back,
    86: coming_back,
    54: former_lives,
    56: decaying,
    74: copied,
    76: decaying,
    94: forgetful,
    96: forgetful,
}


def directed(seed: int) -> Callable[[int], Schedule] | None:
    """What draws the schedule of this seed; None when it is drawn freely."""
    return _DIRECTED.get(seed % 10) or _DIRECTED_RARELY.get(seed % 100)


def seeds_of(kind: str) -> Iterator[int]:
    """The seeds whose schedules are drawn by the function of this name. Raises `ValueError` for none."""
    ends = [end for end in range(100) if (drawn := directed(end)) and drawn.__name__ == kind]
    if not ends:
        raise ValueError(f"No seed has its schedule drawn by {kind}")
    return (hundreds * 100 + end for hundreds in count() for end in ends)
