"""What to do next for one action, from what is true now. Pure: no I/O, no clock.

`next_step(action, seen)` is asked again after every effect, with fresh eyes, until it says Done or raises
StepError. So a step that was cut anywhere, or is delivered twice, goes on from what it finds (LAW 10).
"""

from dataclasses import dataclass
from typing import assert_never

from node_agent.errors import ProofVoid, StaleEpoch, StepError
from node_agent.labels import GENERATION
from node_agent.runtime import Container, Status, VolumeState
from state.wire import (
    Action,
    ArchiveMade,
    ArchivePod,
    ArchiveProof,
    ArchiveSource,
    ArchiveWorkspace,
    CreatePod,
    CreateWorkspace,
    PodSpec,
    PodStep,
    RemovalProof,
    RemovePod,
    RemoveWorkspace,
    RestorePod,
    RestoreWorkspace,
    StartPod,
    StopPod,
    TombstoneProof,
    WorkspaceStep,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is true now of what one action touches. What a verb does not need is left at its default."""

    highest_epoch: int = 0
    # The whole container of this pod at the action's epoch, and ids of half-made ones.
    container: Container | None = None
    halves: tuple[str, ...] = ()
    volume: VolumeState = VolumeState.ABSENT
    # Ids of containers, anybody's, whose processes may write to the volume now.
    volume_writers: tuple[str, ...] = ()
    # The id on this node of the image that the container must be made of, while there is no container.
    image_id: str | None = None
    lab_missing: bool = False
    # The IDE has answered since this start.
    ready: bool = False
    # Why this node may not start pods at all.
    start_refused: StepError | None = None
    # What this very action has already committed, of the source as it is now.
    archived: ArchiveMade | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The end state holds."""

    archive: ArchiveMade | None = None


@dataclass(frozen=True, slots=True)
class SweepContainer:
    """Remove a container that was never finished: all it holds is in the store."""

    container_id: str


@dataclass(frozen=True, slots=True)
class SweepVolume:
    """Remove a volume that was never finished."""


@dataclass(frozen=True, slots=True)
class MakeVolume:
    """Make the workspace's volume: empty, or from an archive."""

    source: ArchiveSource | None = None


@dataclass(frozen=True, slots=True)
class PullImage:
    """Fetch the image."""

    spec: PodSpec


@dataclass(frozen=True, slots=True)
class PlaceLab:
    """Put the lab into the workspace."""

    lab: str


@dataclass(frozen=True, slots=True)
class MakeContainer:
    """Make the pod's container, stopped: fresh, or with an archive's changes in it."""

    spec: PodSpec
    image_id: str
    source: ArchiveSource | None = None


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Start under a new session secret, and wait until the IDE answers."""

    container_id: str


@dataclass(frozen=True, slots=True)
class UnpauseContainer:
    """Let a container go on that somebody paused by hand."""

    container_id: str


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Wait until the IDE of a pod that runs already answers."""

    container_id: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Stop, and kill after the grace."""

    container_id: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove a whole container, under a proof that is checked live (LAW 8)."""

    container_id: str
    proof: RemovalProof


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove a whole volume, under a proof that is checked live (LAW 8)."""

    proof: ArchiveProof


@dataclass(frozen=True, slots=True)
class SaveContainer:
    """Save a stopped container's changes to the store."""

    container_id: str
    number: int


@dataclass(frozen=True, slots=True)
class SaveVolume:
    """Save the volume to the store."""

    number: int


Primitive = (
    SweepContainer
    | SweepVolume
    | MakeVolume
    | PullImage
    | PlaceLab
    | MakeContainer
    | StartContainer
    | UnpauseContainer
    | AwaitReady
    | StopContainer
    | RemoveContainer
    | RemoveVolume
    | SaveContainer
    | SaveVolume
)


def next_step(action: Action, seen: Seen) -> Primitive | Done:
    """The next effect, or Done. Raises StepError where the step must not or cannot be done."""
    check_epoch(action, seen.highest_epoch)
    step = action.step
    if isinstance(step, CreateWorkspace | RestoreWorkspace | ArchiveWorkspace | RemoveWorkspace):
        return _workspace_step(step, seen)
    return _pod_step(step, seen)


def _workspace_step(step: WorkspaceStep, seen: Seen) -> Primitive | Done:
    match step:
        case CreateWorkspace():
            return _workspace_made(seen, None)
        case RestoreWorkspace(archive=source):
            return _workspace_made(seen, source)
        case ArchiveWorkspace(number=number):
            return _workspace_saved(seen, number)
        case RemoveWorkspace(proof=proof):
            return _workspace_gone(seen, proof)
        case _ as never:
            assert_never(never)


def _pod_step(step: PodStep, seen: Seen) -> Primitive | Done:
    match step:
        case CreatePod(spec=spec):
            return _pod_made(seen, spec, None)
        case RestorePod(spec=spec, archive=source):
            return _pod_made(seen, spec, source)
        case StartPod():
            return _pod_started(seen)
        case StopPod():
            return _pod_stopped(seen)
        case ArchivePod(number=number):
            return _pod_saved(seen, number)
        case RemovePod(proof=proof):
            return _pod_gone(seen, proof)
        case _ as never:
            assert_never(never)


def check_epoch(action: Action, highest_epoch: int) -> None:
    """Raises StaleEpoch for an action of an earlier placement (LAW 5)."""
    if action.epoch < highest_epoch:
        raise StaleEpoch(
            f"This step is of placement {action.epoch}, and this node has seen placement {highest_epoch} of "
            "the same workspace. It was not done. Nothing needs to be done about it."
        )


def _workspace_made(seen: Seen, source: ArchiveSource | None) -> Primitive | Done:
    if seen.volume is VolumeState.WHOLE:
        return Done()
    if seen.volume is VolumeState.HALF:
        return SweepVolume()
    if seen.volume is VolumeState.STRANGE:
        raise _strange_volume()
    return MakeVolume(source)


def _workspace_saved(seen: Seen, number: int) -> Primitive | Done:
    if seen.volume is VolumeState.STRANGE:
        raise _strange_volume()
    if seen.volume is not VolumeState.WHOLE:
        raise _no_workspace()
    if seen.volume_writers:
        raise _workspace_in_use(seen)
    return Done(seen.archived) if seen.archived else SaveVolume(number)


def _workspace_gone(seen: Seen, proof: ArchiveProof) -> Primitive | Done:
    if seen.volume is VolumeState.ABSENT:
        return Done()
    if seen.volume is VolumeState.HALF:
        return SweepVolume()
    if seen.volume is VolumeState.STRANGE:
        raise _strange_volume()
    if seen.volume_writers:
        raise _workspace_in_use(seen)
    return RemoveVolume(proof)


def _pod_made(seen: Seen, spec: PodSpec, source: ArchiveSource | None) -> Primitive | Done:
    if seen.halves:
        return SweepContainer(seen.halves[0])
    if seen.volume is not VolumeState.WHOLE:
        raise _strange_volume() if seen.volume is VolumeState.STRANGE else _no_workspace()
    if spec.lab and source is None and seen.lab_missing:
        return PlaceLab(spec.lab)
    if seen.container is not None:
        return Done()
    if seen.image_id is None:
        return PullImage(spec)
    return MakeContainer(spec, seen.image_id, source)


def _pod_started(seen: Seen) -> Primitive | Done:
    container = _present(seen)
    if container.live and seen.ready:
        return Done()
    if seen.start_refused is not None:
        raise seen.start_refused
    if container.status is Status.PAUSED:
        return UnpauseContainer(container.id)
    if container.live:
        return AwaitReady(container.id)
    return StartContainer(container.id)


def _pod_stopped(seen: Seen) -> Primitive | Done:
    if seen.container is None:
        return Done()
    container = _present(seen)
    return StopContainer(container.id) if container.live else Done()


def _pod_saved(seen: Seen, number: int) -> Primitive | Done:
    container = _present(seen)
    if not container.quiet:
        raise StepError(
            "The pod was not saved: its container is running again. It is saved once it has stopped.",
            code="pod_running",
        )
    if seen.archived:
        return Done(seen.archived)
    return SaveContainer(container.id, number)


def _pod_gone(seen: Seen, proof: RemovalProof) -> Primitive | Done:
    if seen.halves:
        return SweepContainer(seen.halves[0])
    container = seen.container
    if container is None:
        return Done()
    if isinstance(proof, TombstoneProof):
        _check_tombstone(container, proof)
        return StopContainer(container.id) if container.live else RemoveContainer(container.id, proof)
    if container.live:
        raise ProofVoid("The container was kept: it is running again since it was saved.")
    return RemoveContainer(container.id, proof)


def _check_tombstone(container: Container, proof: TombstoneProof) -> None:
    if int(container.labels.get(GENERATION, "0")) > proof.generation:
        raise ProofVoid(
            f"The container was kept: it was made for a later generation than the deletion at generation "
            f"{proof.generation}."
        )


def _present(seen: Seen) -> Container:
    if seen.container is None:
        raise StepError(
            "The pod has no container on this node (any more). It is made again.", code="pod_absent"
        )
    if seen.container.status in (Status.DEAD, Status.REMOVING):
        raise StepError(
            f"The engine could not finish removing the pod's container ({seen.container.id[:12]}). "
            "Look at it on the node: docker inspect, docker rm.",
            code="container_dead",
        )
    return seen.container


def _no_workspace() -> StepError:
    return StepError(
        "The user's workspace is not on this node yet. It is made first.", code="workspace_absent"
    )


def _strange_volume() -> StepError:
    return StepError(
        "The workspace's volume has files, but nothing says that they are complete; it was left as it is. "
        "Look at it on the node (docker volume inspect), then remove it or write its marker.",
        code="workspace_strange",
    )


def _workspace_in_use(seen: Seen) -> StepError:
    return StepError(
        f"The workspace is in use by a running container ({seen.volume_writers[0][:12]}). Stop it first.",
        code="workspace_in_use",
    )
