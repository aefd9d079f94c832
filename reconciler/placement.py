"""Which node a user's workspace goes to: the one with the largest share of room left. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from state.model import RESERVED_PER_POD, NodeView, Resources


def reservation(pods: int) -> Resources:
    """What placement counts for so many pods: the reserve, not their limits."""
    return Resources(
        cpu_millis=RESERVED_PER_POD.cpu_millis * pods,
        memory_mib=RESERVED_PER_POD.memory_mib * pods,
        pids=0,
    )


def _room_share(node: NodeView, wanted: Resources) -> float:
    """The scarcer of CPU and memory that would be left, as a share of what the node has; negative is full."""
    cpu = node.capacity.cpu_millis - node.reserved.cpu_millis - wanted.cpu_millis
    memory = node.capacity.memory_mib - node.reserved.memory_mib - wanted.memory_mib
    return min(cpu / max(node.capacity.cpu_millis, 1), memory / max(node.capacity.memory_mib, 1))


def choose_node(nodes: Iterable[NodeView], pods: int) -> NodeView | None:
    """The best of the live `nodes` for a user with so many pods, or None when none has room.

    Never one that is cordoned, or whose engine does not answer.
    """
    wanted = reservation(pods)
    open_to_all = [node for node in nodes if not node.cordoned and node.engine_error is None]
    fitting = [node for node in open_to_all if _room_share(node, wanted) >= 0]
    return max(fitting, key=lambda node: (_room_share(node, wanted), node.id), default=None)


def why_no_room(live: Sequence[NodeView]) -> str:
    """What somebody who cannot be placed waits for, in words for people."""
    if not live:
        return "no node is there; it starts when one joins"
    errors = [f"{node.id}: {node.engine_error}" for node in live if node.engine_error is not None]
    if len(errors) == len(live):
        return f"the container engine of no node answers; {errors[0]}"
    return f"none of {len(live)} live nodes has room; it starts when pods are archived or a node joins"


def with_reserved(node: NodeView, pods: int) -> NodeView:
    """The node once so many more pods are counted on it."""
    more = reservation(pods)
    reserved = replace(
        node.reserved,
        cpu_millis=node.reserved.cpu_millis + more.cpu_millis,
        memory_mib=node.reserved.memory_mib + more.memory_mib,
    )
    return replace(node, reserved=reserved)
