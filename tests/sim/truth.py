"""The invariants, judged by the engines and the store as they are, never by a status row.

Names as in docs/reliability.md. A violation ends the run at the step where it happened.
"""

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from node_agent.labels import EPOCH, WORKSPACE
from node_agent.runtime import Status, VolumeState
from state.compactions import COMPACT
from state.copy_wire import COPY_ATTEMPTS_FROM
from state.model import ArchiveRef, Desired, Placement
from tests.sim.database import SimDatabase
from tests.sim.docker import SimDocker
from tests.sim.losses import Losses
from tests.sim.machine import SimContainer, SimVolume
from tests.sim.rows import PodRow, WorkspaceRow
from tests.sim.scheduler import Scheduler
from tests.sim.store import SimStore

if TYPE_CHECKING:
    from tests.sim.conduct import Conduct


class Violation(BaseException):
    """An invariant does not hold. `name` is its number. No production code catches it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


class Truth(Losses):
    """What users were promised, and what is so."""

    def __init__(self, scheduler: Scheduler, db: SimDatabase) -> None:
        self._scheduler = scheduler
        self._db = db
        self.store: SimStore
        self.conduct: Conduct
        self.dockers: dict[str, SimDocker] = {}
        # The bytes acknowledged to the users of each pod and workspace.
        self.written: dict[str, bytes] = defaultdict(bytes)
        self.highest_started: dict[str, int] = defaultdict(int)
        # When a pod was last truly in a state on a node, and since when it is wished so.
        self._last_s: dict[tuple[str, str, Status], float] = {}
        self.wished_s: dict[str, float] = defaultdict(float)
        # How much had been written when.
        self._lengths: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.checks: Counter[str] = Counter()
        # What agents found half made while they ran, and cleared away.
        self.swept = 0
        # What had been written when a disk was lost with it.
        self.before_loss: dict[str, bytes] = {}
        # What was in archives that rotted, by manifest, and when they did.
        self.rotted: dict[str, bytes] = {}
        self.rotten_s: dict[str, float] = {}
        # After the database forgot commits: until when two may run, and whom somebody had deleted.
        self._settles_until_s = 0.0
        self.once_deleted: set[str] = set()
        self._dirty = False

    @property
    def now_s(self) -> float:
        """The virtual clock."""
        return self._scheduler.now_s

    # ---- what happens --------------------------------------------------------------------------------------

    def engine_changed(self, what: str, docker: SimDocker, thing: SimContainer | SimVolume) -> None:
        """Called with the change made; for removals, right before."""
        self._dirty = True
        actor = self._scheduler.actor_name
        self.swept += what.startswith("remove") and actor.endswith("/survey")
        if isinstance(thing, SimVolume):
            if what == "remove_volume":
                self._check_volume_removal(thing)
            return
        if what == "start":
            self._check_start(docker, thing)
        elif what == "remove":
            self._check_removal(thing)
        self._note_state(docker, thing)

    def store_changed(self, what: str, key: str) -> None:
        """Called with the change made."""
        self._dirty = True
        self.checks["I9"] += 1
        if what == "manifest":
            self._check_source(key)
        if what == "delete":
            self._check_readable(key)
        for manifest_key in self._manifests_of(key) if what != "manifest" else [key]:
            if self._content_of(manifest_key) is None:
                raise Violation("I9", f"{what} of {key}: {manifest_key} names blobs that are not there so")

    def _check_readable(self, key: str) -> None:
        """No archive that was acknowledged, and is not retired, ever becomes unreadable."""
        for (target, number), archive in self._db.archives.items():
            needed = self._db.is_usable((target, number)) and archive.manifest_key not in self.rotted
            if needed and self.content(archive) is None:
                raise Violation("I9", f"archive {number} of {target} was readable before {key} was deleted")

    def _check_source(self, key: str) -> None:
        """LAW 7: what is saved as stopped has stopped."""
        manifest = json.loads(self.store.objects[key])
        if manifest["attempt"] >= COPY_ATTEMPTS_FROM:
            return  # a checkpoint, taken live
        made_of = manifest["fingerprint"]
        for docker in self.dockers.values():
            source = docker.containers.get(made_of.get("container_id", ""))
            runs = source is not None and source.status is Status.RUNNING
            if source and runs and source.started_at == made_of["started_at"]:
                raise Violation("I9", f"{key} was made of {source.id} while it ran")

    def wished(self, pod_id: str) -> None:
        """A new generation begins: what was true before it does not count for it."""
        self.wished_s[pod_id] = self.now_s

    def write(self, container: SimContainer, volume: SimVolume | None, token: bytes) -> None:
        """The user of a running pod saves; acknowledged when this returns."""
        if self._settles_until_s:  # what the link leads to counts, wherever it was made
            self._go_on(container.pod_id, container.tree.data)
            if volume is not None:
                self._go_on(container.labels[WORKSPACE], volume.tree.data)
        container.tree.append(token)
        self.written[container.pod_id] += token
        self._lengths[container.pod_id].append((self.now_s, len(self.written[container.pod_id])))
        if volume is not None:
            volume.tree.append(token)
            self.written[container.labels[WORKSPACE]] += token

    def leaves(self, docker: SimDocker, container: SimContainer) -> None:
        """It was in its state until now, and is about to be gone by no program's doing."""
        self._last_s[container.pod_id, docker.node_id, container.status] = self.now_s

    def _is_done_with(self, container: SimContainer) -> bool:
        """Its pod is put away or goes back, and what it holds is saved: it was about to be removed."""
        pod = self._db.pods[container.pod_id]
        open_of = self._db.restorations.open_of
        goes_back = open_of(pod.id) is not None or open_of(pod.workspace_id) is not None
        put_away = pod.desired is Desired.ARCHIVED
        return (put_away or goes_back) and self._saved(pod.id, container.tree.data)

    # ---- archives that rot ---------------------------------------------------------------------------------

    def go_back(self, owner: PodRow | WorkspaceRow, archive: ArchiveRef) -> None:
        """Somebody wants it as it was: what is there until now must have been saved, and is found there."""
        written = self.written[owner.id]
        kept = [ref for (target, _), ref in self._db.archives.items() if target == owner.id]
        if written and not any(self._holds(owner.id, self.content(ref)) for ref in kept):
            raise Violation("I2", f"{owner.id} goes back, and what was there is in no archive")
        whole = archive if self.content(archive) is not None else self._newest_whole(owner, archive.number)
        saved = (self.content(whole) if whole else None) or b""
        self.before_loss[owner.id], self.written[owner.id] = b"", saved
        self._lengths[owner.id] = [(0.0, len(saved))]
        self._dirty = True

    def rots(self, owner: PodRow | WorkspaceRow) -> ArchiveRef | None:
        """Its newest archive is about to rot. None if that would cost more than the one before has."""
        archive = owner.archive
        if archive is None or self.is_anywhere(owner.id) or (content := self.content(archive)) is None:
            return None
        earlier = self._newest_whole(owner, archive.number - 1)
        if earlier is None or content != self.written[owner.id] or self._is_being_compacted(archive):
            return None
        self.rotted[archive.manifest_key], self.rotten_s[archive.manifest_key] = content, self.now_s
        saved = self.content(earlier) or b""
        self.before_loss[owner.id], self.written[owner.id] = content, saved
        self._lengths[owner.id] = [(0.0, len(saved))]
        self._dirty = True
        return archive

    def _is_being_compacted(self, archive: ArchiveRef) -> bool:
        """It may have been read before it rots: then it is whole again under another key."""
        return any(row.finished_at is None for row in self._db.chores.of(COMPACT, archive.id))

    def was_damaged(self, archive: ArchiveRef) -> bool:
        """It is, or has been."""
        return archive.manifest_key in self.rotted or self.content(archive) is None

    def is_rotten(self, manifest_key: str) -> bool:
        """It rotted, and was not put right."""
        return manifest_key in self.rotted and self._content_of(manifest_key) != self.rotted[manifest_key]

    def is_anywhere(self, target: str) -> bool:
        """Some node has it."""
        return bool(self.containers(target) or self._volumes(target))

    def _newest_whole(self, owner: PodRow | WorkspaceRow, highest: int) -> ArchiveRef | None:
        """What comes back if nothing that is newer can be read."""
        usable = [
            archive
            for (target, number), archive in self._db.archives.items()
            if target == owner.id and number <= highest and self._db.is_usable((target, number))
            if not self._db.kept[target, number].recovered
        ]
        whole = [archive for archive in usable if self.content(archive) is not None]
        return max(whole, key=lambda archive: archive.number, default=None)

    def _saved_of(self, owner: PodRow | WorkspaceRow) -> bytes | None:
        """What comes back: its archive, or of one that rotted the one before."""
        archive = owner.archive
        if archive and archive.manifest_key in self.rotted and self.content(archive) is None:
            archive = self._newest_whole(owner, archive.number - 1)
        return self.content(archive) if archive else None

    def _is_somewhere(self, owner: PodRow | WorkspaceRow) -> bool:
        trees = [found.tree for _, found in self.containers(owner.id)]
        trees += [found.tree for found in self._volumes(owner.id)]
        copies = [tree.data for tree in trees] + [self.content(owner.archive) if owner.archive else None]
        return self.written[owner.id] in copies

    def _holds(self, target: str, data: bytes | None) -> bool:
        """All that was acknowledged is in it; after a loss it may also be a part more of what was lost."""
        written = self.written[target]
        if data is None or data == written:
            return data is not None
        return data.startswith(written) and self.before_loss.get(target, b"").startswith(data)

    # ---- at each effect ------------------------------------------------------------------------------------

    def _check_start(self, docker: SimDocker, started: SimContainer) -> None:
        self.checks["I1"] += 1
        pod_id, epoch = started.pod_id, int(started.labels[EPOCH])
        others = [other for _, other in self.containers(pod_id) if other.status is Status.RUNNING]
        if len(others) > 1 and not self.settling:
            raise Violation("I1", f"{pod_id} runs {len(others)} times: {[other.id for other in others]}")
        if epoch < self.highest_started[pod_id] and not self.settling:
            raise Violation("I1", f"{pod_id} started at {epoch}, after {self.highest_started[pod_id]}")
        self.highest_started[pod_id] = epoch
        volume = docker.volumes.get(started.volume)
        whole = volume is not None and self._holds(started.labels[WORKSPACE], volume.tree.data)
        held = self._holds(pod_id, started.tree.data) or pod_id in self.once_deleted
        if not held or volume is None or not whole:
            raise Violation("I2", f"{started.id} was started without all that its user has written")
        self.written[pod_id] = started.tree.data
        self.written[started.labels[WORKSPACE]] = volume.tree.data

    def _check_removal(self, gone: SimContainer) -> None:
        self.checks["I3"] += 1
        if not gone.whole or not gone.tree.data:
            return
        deleted = self._db.pods[gone.pod_id].desired is Desired.DELETED or gone.pod_id in self.once_deleted
        if not deleted and not self._saved(gone.pod_id, gone.tree.data):
            raise Violation("I3", f"{gone.id} of {gone.pod_id} was removed, and no archive has its content")

    def _check_volume_removal(self, gone: SimVolume) -> None:
        self.checks["I3"] += 1
        workspace_id = gone.labels.get(WORKSPACE, "")
        half = gone.marker is not VolumeState.WHOLE
        if gone.tree.data and not half and not self._saved(workspace_id, gone.tree.data):
            raise Violation("I3", f"{gone.name} was removed, and no archive has its content")

    def _saved(self, target: str, content: bytes) -> bool:
        """Some archive of it has just this."""
        committed = [ref for (key, _), ref in self._db.archives.items() if key == target]
        return any(self.content(ref) == content for ref in committed)

    def _note_state(self, docker: SimDocker, container: SimContainer) -> None:
        """The state it is in now, and the one that it has just left."""
        if container.whole:
            left = Status.EXITED if container.status is Status.RUNNING else Status.RUNNING
            for status in (container.status, left):
                self._last_s[container.pod_id, docker.node_id, status] = self._scheduler.now_s

    # ---- what was so ---------------------------------------------------------------------------------------

    def ran_since(self, pod_id: str, node_id: str, since_s: float) -> bool:
        """It ran on the node at some moment from then on."""
        return self._was(pod_id, node_id, since_s, Status.RUNNING)

    def rested_since(self, pod_id: str, node_id: str, since_s: float) -> bool:
        """It was there and did not run at some moment from then on."""
        return self._was(pod_id, node_id, since_s, Status.EXITED, Status.CREATED)

    def was_away_since(self, pod_id: str, node_id: str, since_s: float) -> bool:
        """No container of it was on the node at some moment from then on."""
        placement = self._db.workspaces[self._db.pods[pod_id].workspace_id].placement
        here = [
            found
            for docker, found in self.containers(pod_id)
            if placement == Placement(docker.node_id, int(found.labels[EPOCH]))
        ]
        lied = node_id in self.dockers and self.dockers[node_id].lied_s >= since_s
        return lied or all(found.made_at_s > since_s for found in here)

    def is_saved_as_of(self, pod: PodRow, since_s: float) -> bool:
        """Its archive has all that its user had written by then."""
        length = next((n for at_s, n in reversed(self._lengths[pod.id]) if at_s <= since_s), 0)
        if not length:
            return True
        content = self._saved_of(pod)
        return content is not None and content.startswith(self.written[pod.id][:length])

    def _was(self, pod_id: str, node_id: str, since_s: float, *states: Status) -> bool:
        now = {found.status for docker, found in self.containers(pod_id) if docker.node_id == node_id}
        return any(
            state in now or self._last_s.get((pod_id, node_id, state), -1.0) >= since_s for state in states
        )

    # ---- after each step -----------------------------------------------------------------------------------

    def check(self) -> None:
        """What may have been broken by the last step."""
        if self._dirty:
            self._dirty = False
            self._check_durable()
            self.conduct.check_monotone()

    def _check_durable(self) -> None:
        self.checks["I2"] += 1
        for pod in self._db.pods.values():
            written = self.written[pod.id]
            if not written or pod.desired is Desired.DELETED or pod.id in self.once_deleted:
                continue
            here = any(self._holds(pod.id, found.tree.data) for _, found in self.containers(pod.id))
            if not here and not self._holds(pod.id, self._saved_of(pod)):
                raise Violation("I2", f"what the user of {pod.id} wrote is nowhere whole ({len(written)} B)")
        for workspace in self._db.workspaces.values():
            written = self.written[workspace.id]
            if not written:
                continue
            here = any(self._holds(workspace.id, found.tree.data) for found in self._volumes(workspace.id))
            if not here and not self._holds(workspace.id, self._saved_of(workspace)):
                raise Violation("I2", f"the files of {workspace.id} are nowhere whole ({len(written)} B)")

    # ---- looking -------------------------------------------------------------------------------------------

    def containers(self, pod_id: str) -> list[tuple[SimDocker, SimContainer]]:
        """All whole containers of a pod, on all nodes that are believed."""
        return [
            (docker, found)
            for docker in self.dockers.values()
            for found in docker.containers.values()
            if found.pod_id == pod_id and found.whole and not docker.is_copy
        ]

    def _volumes(self, workspace_id: str) -> list[SimVolume]:
        return [
            found
            for docker in self.dockers.values()
            for found in docker.volumes.values()
            if not docker.is_copy
            if found.labels.get(WORKSPACE) == workspace_id and found.marker is VolumeState.WHOLE
        ]

    def content(self, archive: ArchiveRef) -> bytes | None:
        """The bytes in an archive, if its manifest and blobs are in the store as they were committed."""
        if self.store.digests.get(archive.manifest_key) != archive.manifest_digest:
            return None
        return self._content_of(archive.manifest_key)

    def _content_of(self, manifest_key: str) -> bytes | None:
        content = b""
        for blob in json.loads(self.store.objects[manifest_key])["blobs"]:
            if self.store.digests.get(blob["key"]) != blob["sha256"]:
                return None
            content += self.store.objects[blob["key"]]
        return content

    def _manifests_of(self, blob_key: str) -> list[str]:
        folder = blob_key.rsplit("/", 1)[0]
        key = f"{folder}/manifest.json"
        return [key] if key in self.store.objects else []
