"""What nobody can prevent: disks that are lost, copies in their place, commits that are forgotten.

After each, this says what users can still count on; the oracle goes on from there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from node_agent.labels import EPOCH, WORKSPACE
from node_agent.runtime import Status
from state.model import ArchiveRef, Placement
from tests.sim.database import SimDatabase
from tests.sim.docker import SimDocker
from tests.sim.machine import SimContainer, SimVolume
from tests.sim.rows import PodRow, WorkspaceRow

if TYPE_CHECKING:
    from tests.sim.conduct import Conduct


class Losses:
    """The part of the truth that losses change."""

    conduct: "Conduct"
    dockers: dict[str, SimDocker]
    written: dict[str, bytes]
    before_loss: dict[str, bytes]
    once_deleted: set[str]
    _db: SimDatabase
    _last_s: dict[tuple[str, str, Status], float]
    _lengths: dict[str, list[tuple[float, int]]]
    _settles_until_s: float
    _dirty: bool

    @property
    def now_s(self) -> float:
        """The virtual clock."""
        raise NotImplementedError

    def content(self, archive: ArchiveRef) -> bytes | None:
        """The bytes in an archive."""
        raise NotImplementedError

    def containers(self, pod_id: str) -> list[tuple[SimDocker, SimContainer]]:
        """All whole containers of a pod."""
        raise NotImplementedError

    def leaves(self, docker: SimDocker, container: SimContainer) -> None:
        """It was in its state until now."""
        raise NotImplementedError

    def _is_done_with(self, container: SimContainer) -> bool:
        raise NotImplementedError

    def _volumes(self, workspace_id: str) -> list[SimVolume]:
        raise NotImplementedError

    def _is_somewhere(self, owner: PodRow | WorkspaceRow) -> bool:
        raise NotImplementedError

    def lose(self, node_id: str) -> None:
        """A node's disk is gone. What was nowhere else is lost; what its last archive has must not be."""
        before = dict(self.written)
        docker = self.dockers[node_id]
        held = {
            found.pod_id
            for found in docker.containers.values()
            if found.whole and found.tree.data and not self._is_done_with(found)
        }
        mine = {found.pod_id for found in docker.containers.values()}
        self.conduct.by_hand |= mine
        self.conduct.destroyed |= mine
        for found in docker.containers.values():
            self.leaves(docker, found)
        docker.wipe()
        owners: list[PodRow | WorkspaceRow] = [*self._db.pods.values(), *self._db.workspaces.values()]
        for owner in owners:
            if self.written[owner.id] and not self._is_somewhere(owner):
                saved = self.content(owner.archive) if owner.archive else b""
                self.written[owner.id] = saved or b""
                self.before_loss[owner.id] = before[owner.id]
                self._lengths[owner.id] = [(0.0, len(self.written[owner.id]))]
        for pod_id in sorted(held):
            self.conduct.lost(self._db.pods[pod_id], node_id)
        self._dirty = True

    def is_full(self, path: str) -> bool:
        """Whether the disk that a path is on has no room."""
        disk = path.split("/")[2]
        return any(docker.disk == disk and docker.has("disk_full") for docker in self.dockers.values())

    def go_back_to(self, copy: SimDocker) -> None:
        """A node's machine is replaced by an older copy of it: what came later may be lost, and only that."""
        before = dict(self.written)
        old = self.dockers[copy.node_id]
        mine = {found.pod_id for docker in (old, copy) for found in docker.containers.values()}
        self.conduct.by_hand |= mine
        self.conduct.destroyed |= mine
        for found in old.containers.values():
            self._last_s[found.pod_id, copy.node_id, found.status] = self.now_s
        self.dockers[copy.node_id] = copy
        owners: list[PodRow | WorkspaceRow] = [*self._db.pods.values(), *self._db.workspaces.values()]
        for owner in owners:
            left = [found.tree.data for _, found in self.containers(owner.id)]
            left += [found.tree.data for found in self._volumes(owner.id)]
            left += [self.content(owner.archive) or b""] if owner.archive else []
            workspace = self._db.workspaces[owner.workspace_id] if isinstance(owner, PodRow) else owner
            here = workspace.placement is not None and workspace.placement.node_id == copy.node_id
            least = min(left, key=len, default=b"")
            if before[owner.id] not in left or (here and least != before[owner.id]):
                self.before_loss[owner.id], self.written[owner.id] = before[owner.id], least
                self._lengths[owner.id] = [(0.0, len(least))]
        self._dirty = True

    @property
    def settling(self) -> bool:
        """The database has forgotten something, and nodes may not have told it yet."""
        return self.now_s < self._settles_until_s

    def is_reached(self, docker: SimDocker, container: SimContainer) -> bool:
        """Whether its user's link leads to it; they differ only once the database has forgotten something."""
        placement = self._db.workspaces[container.labels[WORKSPACE]].placement
        here = placement == Placement(docker.node_id, int(container.labels[EPOCH]))
        return here or not self._settles_until_s

    def forgotten(self, settles_until_s: float) -> None:
        """The database has gone back. Who is not placed where their files are goes on from the archive."""
        self._settles_until_s = settles_until_s
        owners: list[PodRow | WorkspaceRow] = [*self._db.pods.values(), *self._db.workspaces.values()]
        for owner in owners:
            workspace = self._db.workspaces[owner.workspace_id] if isinstance(owner, PodRow) else owner
            saved = (self.content(owner.archive) if owner.archive else None) or b""
            there = self._at(owner.id, workspace.placement)
            if self.written[owner.id] not in (saved, *there):
                self._go_on(owner.id, there[0] if there else saved)
        self._dirty = True

    def go_on_at(self, workspace_id: str, placement: Placement) -> None:
        """The database has found out where its user was: what is there counts."""
        pods = [pod.id for pod in self._db.pods.values() if pod.workspace_id == workspace_id]
        for target in (workspace_id, *pods):
            if there := self._at(target, placement):
                self._go_on(target, there[0])

    def _at(self, target: str, placement: Placement | None) -> list[bytes]:
        """What containers or volumes of it have at this placement."""
        docker = self.dockers.get(placement.node_id) if placement else None
        if docker is None or placement is None:
            return []
        things = (*(c for c in docker.containers.values() if c.whole), *docker.volumes.values())
        return [
            thing.tree.data
            for thing in things
            if target == (thing.pod_id if isinstance(thing, SimContainer) else thing.labels.get(WORKSPACE))
            and int(thing.labels[EPOCH]) == placement.epoch
        ]

    def _go_on(self, target: str, content: bytes) -> None:
        """From here on, a user's work is this; what was more is kept, as a copy."""
        if self.written[target] != content:
            self.before_loss[target], self.written[target] = self.written[target], content
            self._lengths[target] = [(0.0, len(content))]

    def go_on_without(self, workspace_id: str, pods: Sequence[str]) -> None:
        """A placement was given up: from here on, its users' work is what their last archives have."""
        owners = [self._db.workspaces[workspace_id], *(self._db.pods[pod_id] for pod_id in pods)]
        for owner in owners:
            self._go_on(owner.id, (self.content(owner.archive) if owner.archive else None) or b"")
