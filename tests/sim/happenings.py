"""What happens to the world of a fleet by itself, or by somebody's hand: one function for each kind of fault.

Each is survivable by design, or a loss that has to be told; which ones there are, and to whom they happen, is
in `tests.sim.schedule`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from node_agent.labels import EPOCH, WORKSPACE
from node_agent.runtime import Status
from state.model import Desired, Failover, Verb, What
from state.wire import SyncReply
from tests.sim.docker import SimDocker
from tests.sim.machine import SimContainer
from tests.sim.schedule import GO_BACK, NODES, PODS, REOPEN, REOPENED, Fault
from tests.sim.scheduler import Process

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

USED_S = 0.3
FLAP_EVERY_S = 0.5
LATE_AGENT_S = 45.0
SIGNED_AFTER_S = 60.0
CLOCK_SET_BOOTS = 1000
LATE_ACTIONS_MAX = 5


def happen(fleet: "Fleet", fault: Fault) -> None:
    """Let it happen. Kinds that are not here last for a while, and are looked up where they matter."""
    kind = fault.kind
    until_s = fleet.scheduler.now_s + fault.arg
    if kind in _AT_ONCE:
        _AT_ONCE[kind](fleet, fault)
    elif kind.startswith("db_") or kind == "poison_row":
        fleet.db.trouble[kind] = until_s
        fleet.db.poisoned = fault.actor
    elif kind.startswith("store_"):
        fleet.store.trouble[kind] = until_s
    elif kind == "reply_cut":
        fleet.agents[fault.actor].gateway.deaf_until_s = until_s
    elif kind.startswith("partition"):
        for node_id in _cut_off(fault):
            fleet.agents[node_id].gateway.cut_until_s = until_s
    elif fault.actor in PODS:
        for docker in fleet.truth.dockers.values():
            docker.trouble[f"{kind} {fault.actor}"] = until_s
    else:
        fleet.truth.dockers[fault.actor].trouble[kind] = until_s


def _cut_off(fault: Fault) -> tuple[str, ...]:
    others = tuple(node_id for node_id in NODES if node_id != fault.actor)
    return {"partition": (fault.actor,), "partition_others": others, "partition_all": NODES}[fault.kind]


# ---- to pods -------------------------------------------------------------------------------------------


def _exit(fleet: "Fleet", fault: Fault) -> None:
    for docker, found in fleet.truth.containers(fault.actor)[:1]:
        docker.stop_now(found.id)


def _live(fleet: "Fleet", pod_id: str) -> list[tuple[SimDocker, SimContainer]]:
    """Its containers at the live placement, which somebody's hand is at."""
    fleet.conduct.by_hand.add(pod_id)
    result = []
    for docker, found in fleet.truth.containers(pod_id):
        live = fleet.db.workspaces[found.labels[WORKSPACE]].placement
        if live is not None and live.epoch == int(found.labels[EPOCH]):
            result.append((docker, found))
    return result[:1]


def _start(fleet: "Fleet", fault: Fault) -> None:
    for docker, found in _live(fleet, fault.actor):
        docker.start_now(found.id)


def _use(fleet: "Fleet", fault: Fault) -> None:
    """Started, used and stopped again by hand, perhaps between its archive and its removal."""
    for docker, found in _live(fleet, fault.actor):
        docker.start_now(found.id)
        _write_and_stop(fleet, docker, found)


def _write_and_stop(fleet: "Fleet", docker: SimDocker, container: SimContainer) -> None:
    def body() -> None:
        fleet.scheduler.sleep(USED_S)
        if container.status is Status.RUNNING and container.id in docker.containers:
            fleet.write(docker, container)
            docker.stop_now(container.id)

    fleet.scheduler.spawn(Process("hand"), "hand", body)


def touch(fleet: "Fleet", node_id: str, key: str) -> None:
    """The stopped pod on this node whose archive is looked at is started, used and stopped, in one moment."""
    for pod_id in (pod_id for pod_id in PODS if f"/{pod_id}/" in key):
        for docker, found in _live(fleet, pod_id):
            if docker.node_id == node_id and found.status is not Status.RUNNING:
                docker.start_now(found.id)
                fleet.write(docker, found)
                docker.stop_now(found.id)


def go_back(fleet: "Fleet", fault: Fault, what: What) -> None:
    """To one of its archives. Nobody can promise to find there what a hand has taken out of the store."""
    if fleet.scheduler.fired["lose_blob"]:
        return
    pod = fleet.db.pods[fault.actor]
    target = pod.workspace_id if what is What.WORKSPACE else pod.id
    numbers = sorted(number for of, number in fleet.db.archives if of == target)
    if numbers:
        before = {other.id: other.generation for other in fleet.db.pods.values()}
        number = numbers[int(fault.arg * (len(numbers) - 1))]
        asked = fleet.db.ask_restore(pod.id, number, what)
        fleet.marks["asked_for_a_recovered_copy"] += asked and fleet.db.kept[target, number].recovered
        for other in fleet.db.pods.values():
            if other.generation != before[other.id]:
                fleet.wishes += 1
                fleet.truth.wished(other.id)


def _rename(fleet: "Fleet", fault: Fault) -> None:
    for _, found in _live(fleet, fault.actor):
        found.name = f"somebodys-{found.id}"


def _remove_by_hand(fleet: "Fleet", fault: Fault) -> None:
    """Only what is saved: else it would be a loss that nobody can be held to."""
    pod = fleet.db.pods[fault.actor]
    saved = fleet.truth.content(pod.archive) if pod.archive else b""
    for docker, found in _live(fleet, fault.actor):
        if found.tree.data == saved and found.status is not Status.RUNNING:
            fleet.conduct.destroyed.add(fault.actor)
            fleet.truth.leaves(docker, found)
            docker.forget(found)


def _reopen(fleet: "Fleet", fault: Fault) -> None:
    pod, again = fleet.db.pods[fault.actor], fault.actor + REOPENED
    if again in fleet.db.pods:
        return
    fleet.wish(pod.id, Desired.DELETED)
    fleet.marks["reopened"] += bool(fleet.truth.containers(pod.id))
    fleet.db.add_pod(again, pod.workspace_id, fleet.db.workspaces[pod.workspace_id].user_id)
    fleet.wish(again, Desired.RUNNING)


# ---- to nodes ------------------------------------------------------------------------------------------


def _reboot(fleet: "Fleet", fault: Fault) -> None:
    fleet.truth.dockers[fault.actor].reboot()
    _kill_agents(fleet, fault.actor)


def _reboot_late(fleet: "Fleet", fault: Fault) -> None:
    """The engine is up long before the agent."""
    fleet.late_agents[fault.actor] = fleet.scheduler.now_s + LATE_AGENT_S
    _reboot(fleet, fault)


def _lose_disk(fleet: "Fleet", fault: Fault) -> None:
    """The machine is gone for good, and another has its name. Nobody can promise to survive two losses."""
    if fleet.scheduler.fired["lose_blob"]:
        return
    for actor in list(fleet.scheduler.actors):
        if actor.process.name == "orphan":
            fleet.scheduler.kill(actor.process)
    fleet.truth.lose(fault.actor)
    _kill_agents(fleet, fault.actor)


def _lose_node(fleet: "Fleet", fault: Fault) -> None:
    """It loses power, and an admin signs that it will not come back (LAW 6); it does all the same."""
    if fleet.scheduler.fired["lose_blob"]:
        return
    fleet.late_agents[fault.actor] = fleet.scheduler.now_s + fault.arg
    _reboot(fleet, fault)

    def body() -> None:
        fleet.scheduler.sleep(SIGNED_AFTER_S)
        fleet.db.declare_lost(fault.actor, fleet.limits.node_silent_after)

    fleet.scheduler.spawn(Process("admin"), "admin", body)


def _fail_over(fleet: "Fleet", fault: Fault) -> None:
    """Its user would rather go on from the last archive than wait for a silent node."""
    if fleet.db.set_failover(fault.actor, Failover.FROM_LAST_ARCHIVE):
        fleet.wishes += 1
        fleet.truth.wished(fault.actor)


def _lose_journal(fleet: "Fleet", fault: Fault) -> None:
    fleet.truth.dockers[fault.actor].lose_data_dir()
    _kill_agents(fleet, fault.actor)


def _set_clock(fleet: "Fleet", fault: Fault) -> None:
    """The node's clock is set, forth or back, and its agent is started again: boot ids come from it."""
    docker = fleet.truth.dockers[fault.actor]
    docker.clock_skew += CLOCK_SET_BOOTS if fault.arg > fault.nth + 10 else -CLOCK_SET_BOOTS
    _kill_agents(fleet, fault.actor)


def _late_actions(fleet: "Fleet", fault: Fault) -> None:
    """Somebody who slept through it all delivers what was asked of the node under earlier placements."""
    seen = fleet.truth.dockers[fault.actor].epochs
    late = [
        row.action
        for row in fleet.db.actions.values()
        if row.node_id == fault.actor and row.action.epoch < seen.get(row.action.workspace_id, 0)
    ]
    fleet.agents[fault.actor].gateway.take(SyncReply(actions=tuple(late[-LATE_ACTIONS_MAX:])))


def _kill_agents(fleet: "Fleet", node_id: str) -> None:
    processes = [actor.process for actor in fleet.scheduler.actors if actor.process.name == node_id]
    for process in dict.fromkeys(processes):
        fleet.scheduler.kill(process)


def _cordon(fleet: "Fleet", fault: Fault) -> None:
    fleet.db.set_cordoned(fault.actor, fault.kind == "cordon")


def _shrink(fleet: "Fleet", fault: Fault) -> None:
    """It says that it has room for one pod, then for many again."""
    docker = fleet.truth.dockers[fault.actor]
    docker.cpu_millis = 300 if docker.cpu_millis > 300 else 8000


# ---- to the store, and to everybody --------------------------------------------------------------------


def _lose_blob(fleet: "Fleet", fault: Fault) -> None:
    """Somebody deletes a blob under a manifest, while what it was made of is there, and is to stay there."""
    pod, row = fleet.db.pods[fault.actor], fleet.db.open.get(fault.actor)
    if row is not None and row.verb is Verb.REMOVE_POD:
        return
    if (
        fleet.scheduler.fired["disk_lost"]
        or fleet.scheduler.fired[GO_BACK]
        or fleet.scheduler.fired["node_lost"]
        or fleet.scheduler.fired["failover"]
        or pod.archive is None
        or not any(
            found.tree.data == fleet.truth.written[pod.id] for _, found in fleet.truth.containers(pod.id)
        )
    ):
        return
    folder = pod.archive.manifest_key.rsplit("/", 1)[0]
    for key in [key for key in fleet.store.objects if key.startswith(folder) and "manifest" not in key]:
        del fleet.store.objects[key], fleet.store.digests[key]


def _flap(fleet: "Fleet", fault: Fault) -> None:
    """An admin wishes all of them away and back, over and over."""
    before = {pod.id: pod.desired for pod in fleet.db.pods.values()}

    def body() -> None:
        ends_at_s = fleet.scheduler.now_s + min(fault.arg, 10.0)
        away = False
        while away or (fleet.scheduler.now_s < ends_at_s and not fleet.healing):
            away = not away
            for pod_id, wished in before.items():
                fleet.wish(pod_id, Desired.ARCHIVED if away else wished)
            fleet.scheduler.sleep(FLAP_EVERY_S)

    fleet.scheduler.spawn(Process("admin"), "admin", body)


_AT_ONCE: dict[str, Callable[["Fleet", Fault], None]] = {
    "exit_pod": _exit,
    "start_pod": _start,
    "use_pod": _use,
    "rename_pod": _rename,
    "remove_pod": _remove_by_hand,
    REOPEN: _reopen,
    "reboot": _reboot,
    "reboot_late": _reboot_late,
    "disk_lost": _lose_disk,
    "node_lost": _lose_node,
    "failover": _fail_over,
    "chores": lambda fleet, fault: fleet.begin_chores(int(fault.arg) or 1),
    "journal_lost": _lose_journal,
    "clock_set": _set_clock,
    "late_actions": _late_actions,
    "cordon": _cordon,
    "uncordon": _cordon,
    "shrink": _shrink,
    "lose_blob": _lose_blob,
    "flap": _flap,
}
