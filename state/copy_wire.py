"""Copies that nodes make beside their steps, as chores: checkpoints of running pods, and recovered copies.

A checkpoint is an archive taken while a pod runs. A recovered copy is an archive of what a node still has of
a placement that is over.
"""

from state.model import TargetKind
from state.wire import ArchiveMade, ArchiveSource, Identifier, Wire

CHECKPOINT = "checkpoint"
RECOVER_COPY = "recover_copy"
# Attempts are part of store keys (LAW 5), which the kinds of writers share: those of steps count from 1,
# those of copies and of imports are drawn from here on. All fit the database's integer.
COPY_ATTEMPTS_FROM = 10**9
COPY_ATTEMPTS = 10**9
IMPORT_ATTEMPTS_FROM = 2 * 10**9
IMPORT_ATTEMPTS = 10**8


class CopyTarget(Wire):
    """One pod or workspace to copy. `base` is the archive that the database holds of it now."""

    kind: TargetKind
    target_id: Identifier
    number: int
    base: ArchiveSource | None = None


class CopyRequest(Wire):
    """What to copy, of which placement."""

    workspace_id: Identifier
    user_id: str
    epoch: int
    targets: tuple[CopyTarget, ...]


class CopyMade(Wire):
    """A copy that is in the store."""

    kind: TargetKind
    target_id: Identifier
    number: int
    attempt: int
    archive: ArchiveMade


class CopySkipped(Wire):
    """What was not copied this time, and why."""

    target_id: Identifier
    why: str


class CopyResult(Wire):
    """What became of a request. Nothing is said of what has not changed since its base."""

    made: tuple[CopyMade, ...] = ()
    skipped: tuple[CopySkipped, ...] = ()
