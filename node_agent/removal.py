"""The only place where something whole is removed, and the last look before it is (LAW 8, LAW 9).

A copy goes only if, looked at live: the proof's manifest and blobs are in the store, they were made of
exactly what is here, nothing runs, and the epoch is ours. Otherwise it is kept, and the reason is told.
"""

from node_agent import labels
from node_agent.errors import ProofVoid
from node_agent.look import find_volume
from node_agent.parts import Fence, Parts
from node_agent.runtime import Container, Volume, VolumeState
from state.wire import Action, ArchiveProof, RemovalProof


def remove_container(
    parts: Parts, action: Action, container_id: str, proof: RemovalProof, fence: Fence
) -> None:
    """Remove a whole container. Gone already is success. Raises ProofVoid, and then has removed nothing."""
    container = parts.runtime.inspect(container_id)
    if container is None:
        return
    _check_container(action, container)
    if isinstance(proof, ArchiveProof):
        _check_same(proof, container.fingerprint, "container")
        parts.archives.check(action, proof)
        # Checking the store took a while: look once more.
        container = parts.runtime.inspect(container_id)
        if container is None:
            return
        _check_same(proof, container.fingerprint, "container")
    fence.check()
    if isinstance(proof, ArchiveProof):
        parts.images.owe(container.image_id)
    parts.runtime.remove(container_id)
    parts.host.drop_session(action.pod_id or "", action.epoch)


def remove_volume(parts: Parts, action: Action, proof: ArchiveProof, fence: Fence) -> None:
    """Remove a whole volume. Gone already is success. Raises ProofVoid, and then has removed nothing."""
    volume = find_volume(parts, action)
    if volume is None:
        return
    if labels.read_volume(volume.labels).epoch != action.epoch:
        raise ProofVoid("The volume was kept: its label names another placement than the step.")
    parts.archives.check(action, proof)
    if any(user.live for user in parts.runtime.users_of(volume.name)):
        raise ProofVoid("The volume was kept: a running container uses it.")
    _check_same(proof, parts.archives.volume_fingerprint(volume), "volume")
    fence.check()
    _sweep_users(parts, volume)
    parts.runtime.remove_volume(volume.name)


def sweep_container(parts: Parts, container_id: str) -> None:
    """Remove a half-made container, which holds nothing that is not in the store."""
    container = parts.runtime.inspect(container_id)
    if container is not None and labels.is_partial(container.name):
        _remove_half(parts, container)


def _remove_half(parts: Parts, container: Container) -> None:
    if container.live:
        # The safe way runs it behind its gate for a moment, to remove what the archive has not.
        parts.runtime.stop(container.id, 0)
    parts.runtime.remove(container.id)


def sweep_volume(parts: Parts, action: Action) -> None:
    """Remove a half-made volume, which holds nothing that is not in the store."""
    volume = find_volume(parts, action)
    if volume is not None and parts.host.volume_state(volume) is VolumeState.HALF:
        parts.runtime.remove_volume(volume.name)


def sweep_workspace(parts: Parts, workspace_id: str) -> int:
    """Remove what is half made of a workspace that nothing is being made of. Returns how many.

    The engine may finish making something for an agent that was killed meanwhile, after the next agent's
    sweep. Raises StepError.
    """
    sight = parts.runtime.look()
    mine = [found for found in sight.containers if found.labels.get(labels.WORKSPACE) == workspace_id]
    halves = [found for found in mine if labels.is_partial(found.name)]
    for container in halves:
        _remove_half(parts, container)
    volumes = [
        volume
        for volume in sight.volumes
        if volume.labels.get(labels.WORKSPACE) == workspace_id
        and parts.host.volume_state(volume) is VolumeState.HALF
    ]
    for volume in volumes:
        parts.runtime.remove_volume(volume.name)
    return len(halves) + len(volumes)


def _sweep_users(parts: Parts, volume: Volume) -> None:
    """Half-made containers of ours would hold the volume for ever: the engine may finish making one for an
    agent that was killed meanwhile, after the next agent's sweep."""
    for user in parts.runtime.users_of(volume.name):
        if user.labels.get(labels.NODE) == parts.settings.node_id:
            sweep_container(parts, user.id)


def sweep_all(parts: Parts) -> int:
    """Remove what a former run of the agent left half-made; for its start. Returns how many."""
    sight = parts.runtime.look()
    halves = [container for container in sight.containers if labels.is_partial(container.name)]
    volumes = [volume for volume in sight.volumes if parts.host.volume_state(volume) is VolumeState.HALF]
    for container in halves:
        _remove_half(parts, container)
    for volume in volumes:
        parts.runtime.remove_volume(volume.name)
    return len(halves) + len(volumes)


def _check_container(action: Action, container: Container) -> None:
    if container.live:
        raise ProofVoid("The container was kept: it is running again.")
    read = labels.read_pod(container.labels)
    if (read.pod, read.epoch) != (action.pod_id, action.epoch):
        raise ProofVoid("The container was kept: its labels name another pod or placement than the step.")


def _check_same(proof: ArchiveProof, fingerprint: str, what: str) -> None:
    if proof.fingerprint != fingerprint:
        raise ProofVoid(f"The {what} was kept: it has changed since it was saved. It is saved again first.")
