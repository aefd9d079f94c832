"""What must be so when a healed fleet has come to rest: I4, I6, I7 and I11, by the nodes and the store."""

from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from node_agent.labels import EPOCH, NODE, WORKSPACE, is_partial
from node_agent.runtime import Status, VolumeState
from state.model import Desired
from state.wire import SyncReply
from tests.sim.machine import SimContainer, SimVolume
from tests.sim.rows import PodRow
from tests.sim.schedule import COMMITS_LOST, IN_PLACE, ZOMBIE
from tests.sim.tidiness import Tidiness
from tests.sim.truth import Violation

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

# Healed, everything must be as wished within this much virtual time: several back-offs at their ceiling.
CONVERGES_S_MAX = 1800.0
CONVERGES_STEPS_MAX = 60_000
# And then nothing may be changed for this long: more than one resync.
QUIET_S = 130.0
# A chore that nothing goes wrong with is over in this time.
CHORE_TAKES = timedelta(seconds=30)
# What is delivered once more at rest is answered within this time.
REPEATED_S = 8.0
# Faults after which something of a former placement may be left on a node, reported and untouched.
_LEAVES_STRAYS = frozenset({ZOMBIE, IN_PLACE, COMMITS_LOST})
# A change of mind, a fault or a write of a user may cost so many changes of engines, store and outbox (I7).
CHANGES_EACH_MAX = 40
CHANGES_FREE = 60


class Rest:
    """Brings a fleet to rest, and judges it there."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self._scheduler = fleet.scheduler
        self._truth = fleet.truth
        self._db = fleet.db

    def converge(self) -> None:
        """Healed: to what was last wished, and then to rest. Raises Violation."""
        self._come_to_rest()
        self._truth.checks["I6"] += 1
        if (amiss := self.amiss()) is not None:
            raise Violation("I6", f"came to rest, and is not as wished: {amiss}")
        self._check_leaks()
        if self._fleet.care is not None:
            Tidiness(self._fleet).check()
        self._check_work()
        self._check_repeats()
        self._truth.conduct.check_told()

    def _come_to_rest(self) -> None:
        scheduler = self._scheduler
        ends_at_s, last_step = scheduler.now_s + CONVERGES_S_MAX, scheduler.steps + CONVERGES_STEPS_MAX
        while True:
            while (amiss := self.amiss()) is not None:
                if scheduler.now_s > ends_at_s or scheduler.steps > last_step:
                    raise Violation(
                        "I6", f"not as wished after {CONVERGES_S_MAX:.0f} s without faults: {amiss}"
                    )
                self._fleet.step()
            mutations, quiet_until_s = self._fleet.mutations, scheduler.now_s + QUIET_S
            while scheduler.now_s < quiet_until_s and self._fleet.mutations == mutations:
                self._fleet.step()
            if self._fleet.mutations == mutations:
                return
            if scheduler.now_s > ends_at_s:
                raise Violation("I6", "it is as wished, and something is still changed all the time")

    # ---- I6 ------------------------------------------------------------------------------------------------

    def amiss(self) -> str | None:
        """The first pod that is not as wished, by what is on the nodes and in the store."""
        for pod in self._db.pods.values():
            if not self.is_as_wished(pod):
                here = [(d.node_id, c.id, c.status) for d, c in self._truth.containers(pod.id)]
                return f"{pod.id} is wished {pod.desired}; there is {here}; {pod.reason}"
        for node in self._db.nodes.values():
            if node.boot_id != (living := self._fleet.agents[node.id].boot_id):
                return f"{node.id} is believed as {node.boot_id}, and {living} is not"
        if self._truth.conduct.usage is not None and (used := self._truth.conduct.usage.amiss()) is not None:
            return used
        if (wish := self._going_back()) is not None:
            return wish
        if under_way := self._under_way():
            return under_way
        for workspace in self._db.workspaces.values():
            pods = (pod for pod in self._db.pods.values() if pod.workspace_id == workspace.id)
            if workspace.placement is not None and not any(self._live(pod) for pod in pods):
                return f"{workspace.id} is still placed on {workspace.placement.node_id}"
        return None

    def _under_way(self) -> str:
        """Actions that are open, and chores that have been for long: some come up by the clock."""
        since = self._db.clock() - CHORE_TAKES
        rows = (row for row in self._db.chores.open_rows() if row.created_at < since)
        chores = [f"{row.kind} of {row.subject} ({row.error})" for row in rows]
        return "; ".join(f"open: {one}" for one in (*sorted(self._db.open), *chores))

    def _going_back(self) -> str | None:
        """Somebody's wish to go back that is not met; a deleted pod goes nowhere."""
        for row in self._db.restorations.rows.values():
            pod = self._db.pods.get(row.target_id)
            if row.finished_at is None and (pod is None or pod.desired is not Desired.DELETED):
                return f"{row.target_id} is still going back to {row.archive_id}"
        return None

    def _live(self, pod: PodRow) -> list[SimContainer]:
        """Its containers at the live placement."""
        placement = self._db.workspaces[pod.workspace_id].placement
        if placement is None:
            return []
        return [
            found
            for docker, found in self._truth.containers(pod.id)
            if docker.node_id == placement.node_id and int(found.labels[EPOCH]) == placement.epoch
        ]

    def is_as_wished(self, pod: PodRow) -> bool:
        """By what is on the nodes."""
        live, written = self._live(pod), self._truth.written[pod.id]
        running = [found for _, found in self._truth.containers(pod.id) if found.status is Status.RUNNING]
        if pod.desired is Desired.RUNNING:
            return [found.id for found in running] == [found.id for found in live] and len(live) == 1
        if running:
            return False
        if pod.desired is Desired.STOPPED:
            return len(live) == 1 or (not written and pod.archive is None)
        return not live

    # ---- I11 -----------------------------------------------------------------------------------------------

    def _check_leaks(self) -> None:
        """Nothing half made, and nothing of a former placement without a zombie to blame it on."""
        self._truth.checks["I11"] += 1
        blamed = bool(_LEAVES_STRAYS & self._scheduler.fired.keys()) or self._db.given_up > 0
        for docker in [one for one in self._truth.dockers.values() if not one.is_copy]:
            for container in docker.containers.values():
                if is_partial(container.name):
                    raise Violation("I11", f"{container.name} was left half made")
                self._check_stray(docker.node_id, container, container.name, blamed)
            for volume in docker.volumes.values():
                if volume.marker is not VolumeState.WHOLE and volume.labels.get(NODE):
                    raise Violation("I11", f"{volume.name} was left half made")
                self._check_stray(docker.node_id, volume, volume.name, blamed)

    def _check_stray(self, node_id: str, thing: SimContainer | SimVolume, name: str, blamed: bool) -> None:
        workspace = self._db.workspaces.get(thing.labels.get(WORKSPACE, ""))
        placement = workspace.placement if workspace else None
        if placement and (placement.node_id, placement.epoch) == (node_id, int(thing.labels[EPOCH])):
            return
        self._fleet.marks["stray_left"] += 1
        if not blamed:
            raise Violation("I11", f"{name} was left on {node_id}, where nobody is placed")

    # ---- I7 ------------------------------------------------------------------------------------------------

    def _check_work(self) -> None:
        """Changes are bounded by what was wished and what went wrong."""
        self._truth.checks["I7"] += 1
        causes = self._fleet.wishes + self._scheduler.fired.total() + self._db.chores.given_out
        allowed = CHANGES_FREE + CHANGES_EACH_MAX * causes
        if self._fleet.mutations > allowed:
            raise Violation("I7", f"{self._fleet.mutations} changes for {causes} wishes and faults")

    # ---- I4 ------------------------------------------------------------------------------------------------

    def _check_repeats(self) -> None:
        """All that each agent was ever given is delivered to it twice more, in any order: nothing changes."""
        self._truth.checks["I4"] += 1
        before = self._everything()
        random = Random(f"repeats {self._scheduler.seed}")
        for _ in range(2):
            for agent in self._fleet.agents.values():
                actions = list(agent.gateway.given)
                random.shuffle(actions)
                agent.gateway.take(SyncReply(actions=tuple(actions)))
            ends_at_s = self._scheduler.now_s + REPEATED_S
            while self._scheduler.now_s < ends_at_s:
                self._fleet.step()
        if (after := self._everything()) != before:
            changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
            raise Violation("I4", f"what was delivered again has changed {sorted(changed)}")
        if (amiss := self.amiss()) is not None:
            raise Violation("I4", f"after what was delivered again: {amiss}")

    def _everything(self) -> dict[str, object]:
        """What is on the nodes, in the store, and of archives in the database."""
        result: dict[str, object] = dict(self._fleet.store.digests)
        for docker in self._truth.dockers.values():
            for found in docker.containers.values():
                result[found.id] = (found.name, found.status, found.tree.data, found.started_at)
            for volume in docker.volumes.values():
                result[f"{docker.node_id} {volume.name}"] = (volume.marker, volume.tree.data)
        return result | {f"archive {key}": ref for key, ref in self._db.archives.items()}
