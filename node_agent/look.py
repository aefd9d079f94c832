"""What is true now of what an action touches: reads only, and only what the action's verb needs."""

from collections.abc import Sequence
from dataclasses import replace

from node_agent import labels
from node_agent.errors import StepError
from node_agent.labs import lab_is_there
from node_agent.parts import Parts
from node_agent.runtime import Container, Volume, VolumeState
from node_agent.steps import Seen
from state.wire import (
    Action,
    ArchiveMade,
    ArchiveWorkspace,
    CreatePod,
    CreateWorkspace,
    RemoveWorkspace,
    RestorePod,
    RestoreWorkspace,
    StartPod,
)

_WORKSPACE_STEPS = (CreateWorkspace, RestoreWorkspace, ArchiveWorkspace, RemoveWorkspace)


def look(parts: Parts, action: Action, made: ArchiveMade | None = None) -> Seen:
    """Everything `steps.next_step` wants to know. `made` is what this very execution has just committed."""
    highest = parts.journal.highest(action.workspace_id)
    if isinstance(action.step, _WORKSPACE_STEPS):
        return _look_at_workspace(parts, action, highest, made)
    return _look_at_pod(parts, action, highest, made)


def _look_at_workspace(parts: Parts, action: Action, highest: int, made: ArchiveMade | None) -> Seen:
    volume = find_volume(parts, action)
    state = parts.host.volume_state(volume)
    writers: tuple[str, ...] = ()
    if volume is not None and isinstance(action.step, ArchiveWorkspace | RemoveWorkspace):
        writers = tuple(user.id for user in parts.runtime.users_of(volume.name) if user.live)
    return Seen(highest_epoch=highest, volume=state, volume_writers=writers, archived=made)


def _look_at_pod(parts: Parts, action: Action, highest: int, made: ArchiveMade | None) -> Seen:
    container, halves = find_containers(parts, action)
    seen = Seen(highest_epoch=highest, container=container, halves=halves, archived=made)
    step = action.step
    if isinstance(step, CreatePod | RestorePod):
        return _with_makings(parts, action, step, seen)
    if isinstance(step, StartPod) and container is not None:
        return replace(seen, ready=parts.ready.is_ready(container), start_refused=_refusal(parts))
    return seen


def _with_makings(parts: Parts, action: Action, step: CreatePod | RestorePod, seen: Seen) -> Seen:
    volume = find_volume(parts, action)
    state = parts.host.volume_state(volume)
    lab = step.spec.lab
    usable = volume if state is VolumeState.WHOLE else None
    return replace(
        seen,
        volume=state,
        lab_missing=bool(lab and usable and not lab_is_there(usable, lab)),
        image_id=None if seen.container else parts.runtime.image_id(image_wanted(parts, step)),
    )


def image_wanted(parts: Parts, step: CreatePod | RestorePod) -> str:
    """The pinned id where there is one: changes lie on exactly that image."""
    if step.spec.image_id is None and isinstance(step, RestorePod):
        return parts.archives.image_id_of(step.archive) or step.spec.image
    return step.spec.image_id or step.spec.image


def _refusal(parts: Parts) -> StepError | None:
    try:
        parts.container_runtime()
    except StepError as error:
        return error
    return None


def find_volume(parts: Parts, action: Action) -> Volume | None:
    """The workspace's volume at the action's epoch, if it is ours."""
    volume = parts.runtime.volume(labels.volume_name(action.workspace_id, action.epoch))
    if volume is None or volume.labels.get(labels.NODE) == parts.settings.node_id:
        return volume
    # An engine that is killed while it makes a volume knows it afterwards without its labels.
    if not volume.labels and parts.host.volume_state(volume) is VolumeState.HALF:
        return volume
    raise StepError(
        f"The name {volume.name} belongs to a volume that this node has not made. It was left as it is. "
        "Rename or remove it on the node.",
        code="name_taken",
    )


def find_containers(parts: Parts, action: Action) -> tuple[Container | None, tuple[str, ...]]:
    """The pod's whole container at the action's epoch, and the ids of half-made ones of the pod."""
    mine = [
        found
        for found in parts.runtime.of_pod(action.pod_id or "", action.epoch)
        if _is_at(found, action.epoch)
    ]
    whole = [found for found in mine if not labels.is_partial(found.name)]
    halves = tuple(found.id for found in mine if labels.is_partial(found.name))
    return _only(whole, labels.container_name(action.pod_id or "", action.epoch)), halves


def _is_at(container: Container, epoch: int) -> bool:
    try:
        return labels.read_pod(container.labels).epoch == epoch
    except labels.Unreadable:
        return False


def _only(whole: Sequence[Container], name: str) -> Container | None:
    named = [found for found in whole if found.name == name]
    if len(whole) > 1 and not named:
        raise StepError(
            "Two containers say that they are this pod, and neither has its name. Both were left as they "
            f"are. Rename the right one to {name} on the node.",
            code="two_containers",
        )
    return next(iter(named or whole), None)
