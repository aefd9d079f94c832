"""A machine that is restored from a copy of a node's disk: beside its original, or in its place.

Both have one name and one token. Beside an original that is heard, a copy may not run, save or remove
anything. In its place it is a loss: what was written since the copy was made, and is in no archive, is gone.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from node_agent.runtime import Status
from tests.sim.actors import AgentActor
from tests.sim.docker import SimDocker
from tests.sim.machine import SimContainer, SimVolume
from tests.sim.schedule import BESIDE, Fault
from tests.sim.scheduler import Process
from tests.sim.trees import Tree
from tests.sim.truth import Violation

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

SUFFIX = "copy"


def happen(fleet: "Fleet", fault: Fault) -> None:
    """The disk is copied now; the copy boots `arg` seconds later."""
    copy = _copy(fleet, fleet.truth.dockers[fault.actor])

    def body() -> None:
        fleet.scheduler.sleep(fault.arg)
        if fleet.healing:
            return
        fleet.marks[fault.kind] += 1
        if fault.kind == BESIDE:
            _boot_beside(fleet, copy)
        else:
            _boot_in_place(fleet, copy)

    fleet.scheduler.spawn(Process("copy"), "copy", body)


def _copy(fleet: "Fleet", original: SimDocker) -> SimDocker:
    """As a snapshot of the disk has it: nothing runs, and another machine boots from it."""
    disk = f"{original.disk}{SUFFIX}"
    copy = SimDocker(
        original.node_id,
        fleet.scheduler,
        fleet.trees,
        fleet.truth.engine_changed,
        sessions=dict(original.sessions),
        epochs=dict(original.epochs),
        fences=dict(original.fences),
        boot_number=original.boot_number,
        boots=original.boots,
        clock_skew=original.clock_skew,
        made=original.made,
        disk=disk,
        is_copy=True,
    )
    for container in original.containers.values():
        upper = container.upper_dir.replace(f"/{original.disk}/", f"/{disk}/")
        copy.containers[container.id] = _copied(fleet, container, upper)
    for volume in original.volumes.values():
        mountpoint = volume.mountpoint.replace(f"/{original.disk}/", f"/{disk}/")
        tree = _tree(fleet, mountpoint, volume.tree)
        copy.volumes[volume.name] = SimVolume(volume.name, volume.labels, mountpoint, tree, volume.marker)
    return copy


def _copied(fleet: "Fleet", container: SimContainer, upper_dir: str) -> SimContainer:
    runs = container.status in (Status.RUNNING, Status.PAUSED)
    return replace(
        container,
        upper_dir=upper_dir,
        tree=_tree(fleet, upper_dir, container.tree),
        status=Status.EXITED if runs else container.status,
    )


def _tree(fleet: "Fleet", path: str, original: Tree) -> Tree:
    tree = fleet.trees.make(path)
    tree.data, tree.changes = original.data, original.changes
    return tree


def _boot_beside(fleet: "Fleet", copy: SimDocker) -> None:
    _boot(copy)
    copy.changed = _refuse_to_act
    fleet.truth.dockers[copy.disk] = copy
    fleet.births += 1
    process = Process(f"{copy.node_id}-{SUFFIX}", fleet.births)
    AgentActor(copy, fleet.store, fleet.ingest, process, fleet.history, fleet.marks)


def _refuse_to_act(what: str, copy: SimDocker, thing: SimContainer | SimVolume) -> None:
    """Half-made things of its own it may clear away."""
    whole = thing.whole if isinstance(thing, SimContainer) else thing.marker is not None
    if whole or not what.startswith("remove"):
        raise Violation("I1", f"a copy of {copy.node_id} did {what} of {thing.name}, beside its original")


def _boot_in_place(fleet: "Fleet", copy: SimDocker) -> None:
    if fleet.scheduler.fired["lose_blob"]:
        return
    _boot(copy)
    copy.is_copy = False
    for container in copy.containers.values():
        container.made_at_s = fleet.scheduler.now_s
    fleet.trees.drop_all(f"/sim/{fleet.truth.dockers[copy.node_id].disk}/")
    fleet.truth.go_back_to(copy)
    process = fleet.agents[copy.node_id].process
    for name in (process.name, "orphan"):
        for actor in [actor for actor in fleet.scheduler.actors if actor.process.name == name]:
            fleet.scheduler.kill(actor.process)


def _boot(copy: SimDocker) -> None:
    """With a kernel of its own, and nothing remembered but what was on the disk."""
    copy.boots += 1000
    copy.contact_s = float("-inf")
