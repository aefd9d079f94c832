"""Archives that rot in the store while no node has what is in them, and are put right again.

What the newest archive alone had is lost to its user until it is put right; what the one before has is not.
"""

from typing import TYPE_CHECKING

from tests.sim.schedule import MEND, ROT, Fault

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

KINDS = (ROT, MEND)
# More would be a store that is broken as a whole, and then nobody is given older files.
ROTTEN_MAX = 6


def happen(fleet: "Fleet", fault: Fault) -> None:
    """To the newest archive of a pod or of a user's files, if the one before can be gone back to."""
    owner = fleet.db.pods.get(fault.actor) or fleet.db.workspaces[fault.actor]
    if fault.kind == MEND:
        _mend(fleet, owner.id)
    elif len(fleet.truth.rotted) < ROTTEN_MAX and (archive := fleet.truth.rots(owner)) is not None:
        folder = archive.manifest_key.rsplit("/", 1)[0]
        for key in [key for key in fleet.store.objects if key.startswith(folder) and "manifest" not in key]:
            fleet.store.rot(key)
        fleet.marks["rotted"] += 1


def _mend(fleet: "Fleet", target: str) -> None:
    left = {number for key, number in fleet.db.damaged if key == target}
    archive = (fleet.db.pods.get(target) or fleet.db.workspaces[target]).archive
    fleet.marks["mended_after_it_was_left"] += (
        bool(left) and archive is not None and archive.number not in left
    )
    for key in [key for key in fleet.store.rotten if f"/{target}/" in key]:
        fleet.store.mend(key)
