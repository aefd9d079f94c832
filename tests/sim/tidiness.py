"""What must be so of the store, and of copies, when a fleet with chores has come to rest: I2, I10 and I11."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from node_agent.labels import EPOCH, WORKSPACE
from node_agent.runtime import VolumeState
from state.model import Desired, Placement
from tests.sim.machine import SimContainer, SimVolume
from tests.sim.rows import PodRow
from tests.sim.truth import Violation

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

# Within so long at rest, what nobody needs is gone: two looks of sweeps, and the tidying between them.
CLEARED_S = 500.0
# A rotten archive is known to be so long after it rotted: scrubs come every 120 s.
FOUND_S = 200.0


class Tidiness:
    """Judges a fleet that is at rest."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet, self._truth, self._db = fleet, fleet.truth, fleet.db

    def check(self) -> None:
        """Raises Violation."""
        self._check_copies()
        self._check_readable()
        ends_at_s = self._fleet.scheduler.now_s + CLEARED_S
        while litter := next(self._litter(), None):
            if self._fleet.scheduler.now_s > ends_at_s:
                raise Violation("I11", f"{litter} is needed by nobody, and stays in the store")
            self._fleet.step()
        self._truth.checks["I11"] += 1
        self._check_rotten()

    def _check_readable(self) -> None:
        """I9: what is kept can be read, but for what has rotted, or was taken out by hand."""
        self._truth.checks["I9"] += 1
        by_hand = self._fleet.scheduler.fired["lose_blob"]
        for key, ref in self._db.archives.items():
            kept = self._db.kept[key].retired_at is None and ref.manifest_key not in self._truth.rotted
            if kept and not by_hand and self._truth.content(ref) is None:
                raise Violation("I9", f"archive {key} cannot be read")

    def _check_rotten(self) -> None:
        """I10: what is not what was saved is known to be so."""
        self._truth.checks["I10"] += 1
        for key, ref in self._db.archives.items():
            rotten_s = self._truth.rotten_s.get(ref.manifest_key, self._truth.now_s)
            long_rotten = self._truth.now_s - rotten_s > FOUND_S and self._truth.is_rotten(ref.manifest_key)
            if long_rotten and self._db.is_usable(key):
                raise Violation("I10", f"archive {key} has been rotten for long, and nobody was told")

    # ---- I2: what a node that is back still has ------------------------------------------------------------

    def _check_copies(self) -> None:
        """It is in an archive, or was in one that is retired."""
        self._truth.checks["I2"] += 1
        for docker in [one for one in self._truth.dockers.values() if not one.is_copy]:
            for container in docker.containers.values():
                if container.whole and self._db.pods[container.pod_id].desired is not Desired.DELETED:
                    self._check_copy(docker.node_id, container, container.pod_id)
            for volume in docker.volumes.values():
                if volume.marker is VolumeState.WHOLE:
                    self._check_copy(docker.node_id, volume, volume.labels.get(WORKSPACE, ""))

    def _check_copy(self, node_id: str, thing: SimContainer | SimVolume, target: str) -> None:
        workspace = self._db.workspaces.get(thing.labels.get(WORKSPACE, ""))
        live = workspace.placement if workspace else None
        if workspace is None or live == Placement(node_id, int(thing.labels[EPOCH])) or not thing.tree.data:
            return
        self._fleet.marks["stale_copy_is_saved"] += 1
        kept = (ref.manifest_key for (of, _), ref in self._db.archives.items() if of == target)
        if thing.tree.data not in map(self._once_in, kept):
            raise Violation("I2", f"what {node_id} still has of {target} is in no archive")

    def _once_in(self, manifest_key: str) -> bytes | None:
        """What an archive had when it was made, also if it has been cleared away since."""
        objects = self._fleet.store.buried | self._fleet.store.objects | self._fleet.store.rotten
        found = [objects.get(blob["key"]) for blob in json.loads(objects[manifest_key])["blobs"]]
        return b"".join(filter(None, found))

    # ---- I11: what nobody needs ----------------------------------------------------------------------------

    def _litter(self) -> Iterator[str]:
        """Objects that no archive needs which is kept, and that no sweep has to keep for a doubt."""
        needed = set[str]()
        for key, ref in self._db.archives.items():
            if self._db.kept[key].retired_at is None:
                needed |= self._named_by(ref.manifest_key)
        known = {ref.manifest_key for ref in self._db.archives.values()}
        for key in list(self._fleet.store.objects):
            if key.endswith("/manifest.json") and key not in known and self._is_newer(key):
                needed |= self._named_by(key)
        for key in self._fleet.store.objects:
            if key.startswith("archives/") and key not in needed and self._is_swept(key.split("/")[2]):
                yield key

    def _named_by(self, manifest_key: str) -> set[str]:
        manifest = json.loads(self._fleet.store.objects[manifest_key])
        return {manifest_key, *(blob["key"] for blob in manifest["blobs"])}

    def _is_newer(self, manifest_key: str) -> bool:
        """Than all that the database knows: it may be the only copy."""
        number = int(json.loads(self._fleet.store.objects[manifest_key])["number"])
        return number > self._db.archives_made(manifest_key.split("/")[2])

    def _is_swept(self, target: str) -> bool:
        """Of what is damaged nothing is cleared away, nor of what has no archive that is kept."""
        owner = self._db.owner_of(target)
        if isinstance(owner, PodRow) and owner.desired is Desired.DELETED:
            return False
        mine = [key for key in self._db.archives if key[0] == target]
        return any(map(self._db.is_usable, mine)) and not any(key in self._db.damaged for key in mine)
