"""PostgreSQL fails over to a replica that misses the last moments: commits that nodes have seen are gone.

Bytes are not: what was saved in those moments is still on its node, for a container is kept for a grace
after its archive. What was written where nobody is placed any more is kept there, as a copy of its own.
"""

import copy
from typing import TYPE_CHECKING

from state.model import Desired
from tests.sim.schedule import PODS, Fault
from tests.sim.scheduler import Process

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

# Until nodes have told what they have, and were told what is over: a sync, a fence's look, a stop.
SETTLES_S = 60.0
# Ids are drawn by chance, and never twice; what the simulation counts instead is not forgotten.
_ROWS = (
    "pods",
    "workspaces",
    "nodes",
    "actions",
    "open",
    "archives",
    "damaged",
    "kept",
    "targets",
    "candidates",
    "attempts",
    "holder",
    "term",
    "term_began_at",
    "lease_ends_at",
    "_placed",
)


def happen(fleet: "Fleet", fault: Fault) -> None:
    """What is committed in the `arg` seconds from now on is lost at their end."""
    replica = copy.deepcopy({name: getattr(fleet.db, name) for name in _ROWS})
    believed_s = dict(fleet.conduct.believed_s)

    def body() -> None:
        fleet.scheduler.sleep(fault.arg)
        if not fleet.healing:
            fleet.conduct.believed_s = believed_s
            _fail_over(fleet, replica)

    fleet.scheduler.spawn(Process("failover"), "failover", body)


def _fail_over(fleet: "Fleet", replica: dict[str, object]) -> None:
    fleet.scheduler.tell("the last commits are lost")
    before = {pod.id: pod.desired for pod in fleet.db.pods.values()}
    archives = len(fleet.db.archives)
    for name, rows in replica.items():
        setattr(fleet.db, name, rows)
    fleet.marks["commits_lost"] += 1
    fleet.marks["archive_forgotten"] += archives > len(fleet.db.archives)
    fleet.conduct.forget(PODS)
    fleet.truth.once_deleted |= {pod_id for pod_id, wished in before.items() if wished is Desired.DELETED}
    for pod in fleet.db.pods.values():
        if pod.desired is not before[pod.id]:
            fleet.truth.wished(pod.id)
    fleet.truth.forgotten(fleet.scheduler.now_s + SETTLES_S)
