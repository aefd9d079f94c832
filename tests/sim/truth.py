"""The invariants, judged by the engines and the store as they are, never by a status row.

Names as in docs/reliability.md. A violation ends the run at the step where it happened.
"""

import json
from collections import Counter, defaultdict

from node_agent.labels import EPOCH, WORKSPACE
from node_agent.runtime import Status, VolumeState
from state.model import WITHDRAWING_VERBS, ArchiveRef, Desired, Limits, Verb
from state.plan import Plan
from tests.sim.database import LEASE, SimDatabase
from tests.sim.docker import SimContainer, SimDocker, SimVolume
from tests.sim.rows import NodeRow
from tests.sim.scheduler import Scheduler
from tests.sim.store import SimStore


class Violation(BaseException):
    """An invariant does not hold. `name` is its number. No production code catches it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


class Truth:
    """What users were promised, and what is so."""

    def __init__(self, scheduler: Scheduler, db: SimDatabase, limits: Limits, marks: Counter[str]) -> None:
        self._scheduler = scheduler
        self._db = db
        self._limits = limits
        self._marks = marks
        self.store: SimStore
        self.dockers: dict[str, SimDocker] = {}
        # The bytes acknowledged to the users of each pod and workspace.
        self.written: dict[str, bytes] = defaultdict(bytes)
        self.highest_started: dict[str, int] = defaultdict(int)
        # When a pod was last truly in a state, and since when it is wished so.
        self._last_s: dict[tuple[str, Status], float] = {}
        self._wished_s: dict[str, float] = defaultdict(float)
        self._written_s: dict[str, float] = defaultdict(float)
        self.checks: Counter[str] = Counter()
        self._dirty = False
        self._levels: dict[str, tuple[int, int, int]] = {}
        self._boots: dict[str, tuple[str, int]] = {}

    # ---- what happens --------------------------------------------------------------------------------------

    def engine_changed(self, what: str, docker: SimDocker, thing: SimContainer | SimVolume) -> None:
        """Called with the change made; for removals, right before."""
        self._dirty = True
        if isinstance(thing, SimVolume):
            if what == "remove_volume":
                self._check_volume_removal(thing)
            return
        if what == "start":
            self._check_start(docker, thing)
        elif what == "remove":
            self._check_removal(thing)
        self._note_state(thing)

    def store_changed(self, what: str, key: str) -> None:
        """Called with the change made."""
        self._dirty = True
        self.checks["I9"] += 1
        for manifest_key in self._manifests_of(key) if what != "manifest" else [key]:
            if self._content_of(manifest_key) is None:
                raise Violation("I9", f"{what} of {key}: {manifest_key} names blobs that are not there so")

    def wished(self, pod_id: str) -> None:
        """A new generation begins: what was true before it does not count for it."""
        self._wished_s[pod_id] = self._scheduler.now_s

    def write(self, container: SimContainer, volume: SimVolume | None, token: bytes) -> None:
        """The user of a running pod saves; acknowledged when this returns."""
        container.tree.append(token)
        self.written[container.pod_id] += token
        self._written_s[container.pod_id] = self._scheduler.now_s
        if volume is not None:
            volume.tree.append(token)
            self.written[container.labels[WORKSPACE]] += token

    # ---- at each effect ------------------------------------------------------------------------------------

    def _check_start(self, docker: SimDocker, started: SimContainer) -> None:
        self.checks["I1"] += 1
        pod_id, epoch = started.pod_id, int(started.labels[EPOCH])
        others = [other for _, other in self.containers(pod_id) if other.status is Status.RUNNING]
        if len(others) > 1:
            raise Violation("I1", f"{pod_id} runs {len(others)} times: {[other.id for other in others]}")
        if epoch < self.highest_started[pod_id]:
            raise Violation("I1", f"{pod_id} started at {epoch}, after {self.highest_started[pod_id]}")
        self.highest_started[pod_id] = epoch
        volume = docker.volumes.get(started.volume)
        whole = volume is not None and volume.tree.data == self.written[started.labels[WORKSPACE]]
        if started.tree.data != self.written[pod_id] or not whole:
            raise Violation("I2", f"{started.id} was started without all that its user has written")

    def _check_removal(self, gone: SimContainer) -> None:
        self.checks["I3"] += 1
        if not gone.whole or not gone.tree.data:
            return
        deleted = self._db.pods[gone.pod_id].desired is Desired.DELETED
        if not deleted and not self._saved(gone.pod_id, gone.tree.data):
            raise Violation("I3", f"{gone.id} of {gone.pod_id} was removed, and no archive has its content")

    def _check_volume_removal(self, gone: SimVolume) -> None:
        self.checks["I3"] += 1
        workspace_id = gone.labels.get(WORKSPACE, "")
        half = gone.marker is not VolumeState.WHOLE
        if gone.tree.data and not half and not self._saved(workspace_id, gone.tree.data):
            raise Violation("I3", f"{gone.name} was removed, and no archive has its content")

    def _saved(self, target: str, content: bytes) -> bool:
        committed = [ref for (key, _), ref in self._db.archives.items() if key == target]
        return any(self.content(ref) == content for ref in committed)

    def _note_state(self, container: SimContainer) -> None:
        """The state it is in now, and the one that it has just left."""
        if container.whole:
            left = Status.EXITED if container.status is Status.RUNNING else Status.RUNNING
            for status in (container.status, left):
                self._last_s[container.pod_id, status] = self._scheduler.now_s

    def _was(self, pod_id: str, *states: Status) -> bool:
        """At some moment since it was wished so, or within the time after which a node counts as silent.

        A fresh leader has given every node a new lease (LAW 13), and is not judged until that has run out.
        """
        allowed = self._limits.node_silent_after + LEASE
        if self._db.clock() - self._db.term_began_at < allowed:
            return True
        allowed_s = allowed.total_seconds()
        since_s = min(self._wished_s[pod_id], self._scheduler.now_s - allowed_s)
        now = {container.status for _, container in self.containers(pod_id)}
        return any(state in now or self._last_s.get((pod_id, state), -1) >= since_s for state in states)

    # ---- at each record ------------------------------------------------------------------------------------

    def planned(self, plan: Plan) -> None:
        """Before a plan is written down: I8 by the leases themselves, and I10 for what is called settled."""
        self.checks["I8"] += 1
        self._marks["breaker_open"] += plan.breaker_open
        silent = [node for node in self._db.nodes.values() if self._is_long_silent(node)]
        everything = len(silent) > 1 and len(silent) > self._limits.silent_share_max * len(self._db.nodes)
        withdrawn = [step for step in plan.steps if Verb(step.step.verb) in WITHDRAWING_VERBS]
        if withdrawn and everything:
            raise Violation("I8", f"most nodes are silent, and {withdrawn[0].step.verb} was planned")
        for decision in plan.decisions:
            pod = self._db.pods[decision.pod_id]
            if decision.satisfied and decision.generation == pod.generation > pod.satisfied_generation:
                self._check_honest(pod.id, pod.desired)

    def _is_long_silent(self, node: NodeRow) -> bool:
        """Longer than a plan can be under way between being made and being written down."""
        silent_after = self._limits.node_silent_after + LEASE
        heard = max(node.last_seen_at or self._db.term_began_at, self._db.term_began_at)
        return self._db.clock() - heard > silent_after

    def _check_honest(self, pod_id: str, desired: Desired) -> None:
        self.checks["I10"] += 1
        written, archive = self.written[pod_id], self._db.pods[pod_id].archive
        honest = {
            Desired.RUNNING: self._was(pod_id, Status.RUNNING),
            Desired.STOPPED: self._was(pod_id, Status.EXITED, Status.CREATED) or not written,
            Desired.ARCHIVED: not written
            or self._was_just_written(pod_id)
            or (archive is not None and self.content(archive) == written),
            Desired.DELETED: True,
        }
        if not honest[desired]:
            raise Violation("I10", f"{pod_id} is called {desired}, and was not so since that was wished")

    def _was_just_written(self, pod_id: str) -> bool:
        """By a container that its node may not have been able to report yet."""
        allowed_s = (self._limits.node_silent_after + LEASE).total_seconds()
        return self._scheduler.now_s - self._written_s[pod_id] < allowed_s

    # ---- after each step -----------------------------------------------------------------------------------

    def check(self) -> None:
        """What may have been broken by the last step."""
        if self._dirty:
            self._dirty = False
            self._check_durable()
            self._check_monotone()

    def _check_durable(self) -> None:
        self.checks["I2"] += 1
        for pod in self._db.pods.values():
            written = self.written[pod.id]
            if not written or pod.desired is Desired.DELETED:
                continue
            here = any(found.tree.data == written for _, found in self.containers(pod.id))
            if not here and (pod.archive is None or self.content(pod.archive) != written):
                raise Violation("I2", f"what the user of {pod.id} wrote is nowhere whole ({len(written)} B)")
        for workspace in self._db.workspaces.values():
            written = self.written[workspace.id]
            if not written:
                continue
            copies = [found for found in self._volumes(workspace.id) if found.tree.data == written]
            saved = workspace.archive is not None and self.content(workspace.archive) == written
            if not copies and not saved:
                raise Violation("I2", f"the files of {workspace.id} are nowhere whole ({len(written)} B)")

    def _check_monotone(self) -> None:
        self.checks["I5"] += 1
        for pod in self._db.pods.values():
            workspace = self._db.workspaces[pod.workspace_id]
            level = (pod.generation, pod.satisfied_generation, workspace.epoch)
            before = self._levels.get(pod.id, (0, 0, 0))
            if any(now < then for now, then in zip(level, before, strict=True)):
                raise Violation("I5", f"{pod.id} went back from {before} to {level}")
            if pod.observed is not None and pod.observed.generation > pod.generation:
                raise Violation("I5", f"{pod.id} is reported at a generation to come")
            self._levels[pod.id] = level
        for node in self._db.nodes.values():
            stamp, before_stamp = (node.boot_id, node.sequence), self._boots.get(node.id, ("", 0))
            if stamp < before_stamp:
                raise Violation("I5", f"{node.id} was believed at {stamp} after {before_stamp}")
            self._boots[node.id] = stamp

    # ---- looking -------------------------------------------------------------------------------------------

    def containers(self, pod_id: str) -> list[tuple[SimDocker, SimContainer]]:
        """All whole containers of a pod, on all nodes."""
        return [
            (docker, found)
            for docker in self.dockers.values()
            for found in docker.containers.values()
            if found.pod_id == pod_id and found.whole
        ]

    def _volumes(self, workspace_id: str) -> list[SimVolume]:
        return [
            found
            for docker in self.dockers.values()
            for found in docker.volumes.values()
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
