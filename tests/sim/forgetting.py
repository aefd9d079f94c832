"""PostgreSQL fails over to a replica that misses the last moments: commits that nodes have seen are gone.

Bytes are not: what was saved in those moments is still on its node, for a container is kept for a grace
after its archive. What was written where nobody is placed any more is kept there, as a copy of its own.
"""

from typing import TYPE_CHECKING

from state.model import Desired
from tests.sim.schedule import PODS, Fault
from tests.sim.scheduler import Process
from tests.sim.tables import Replica

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

# Until nodes have told what they have, and were told what is over: a sync, a fence's look, a stop.
SETTLES_S = 60.0


def happen(fleet: "Fleet", fault: Fault) -> None:
    """What is committed in the `arg` seconds from now on is lost at their end."""
    replica = fleet.db.replica()
    believed_s = dict(fleet.conduct.believed_s)

    def body() -> None:
        fleet.scheduler.sleep(fault.arg)
        if not fleet.healing:
            fleet.conduct.believed_s = believed_s
            _fail_over(fleet, replica)

    fleet.scheduler.spawn(Process("failover"), "failover", body)


def _fail_over(fleet: "Fleet", replica: Replica) -> None:
    fleet.scheduler.tell("the last commits are lost")
    before = {pod.id: pod.desired for pod in fleet.db.pods.values()}
    archives = len(fleet.db.archives)
    fleet.db.fail_over(replica)
    fleet.marks["commits_lost"] += 1
    fleet.marks["archive_forgotten"] += archives > len(fleet.db.archives)
    fleet.conduct.forget(PODS)
    fleet.truth.once_deleted |= {pod_id for pod_id, wished in before.items() if wished is Desired.DELETED}
    for pod in fleet.db.pods.values():
        if pod.desired is not before[pod.id]:
            fleet.truth.wished(pod.id)
    fleet.truth.forgotten(fleet.scheduler.now_s + SETTLES_S)
