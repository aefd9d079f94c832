"""Which step a condition calls for, with all that the node needs to carry it out. Pure."""

from collections.abc import Callable

from state.model import ArchiveRef, Desired, Failover, Limits, PodView
from state.plan import Condition
from state.wire import (
    ArchivePod,
    ArchiveProof,
    ArchiveSource,
    CreatePod,
    PodSpec,
    PodStep,
    RemovePod,
    RestorePod,
    StartPod,
    StopPod,
    TombstoneProof,
)


def source(archive: ArchiveRef) -> ArchiveSource:
    """What to restore from."""
    return ArchiveSource(manifest_key=archive.manifest_key, manifest_digest=archive.manifest_digest)


def proof(archive: ArchiveRef) -> ArchiveProof:
    """Why the copy that this archive was made of may go (LAW 8)."""
    return ArchiveProof(
        manifest_key=archive.manifest_key,
        manifest_digest=archive.manifest_digest,
        fingerprint=archive.fingerprint,
    )


def next_number(archive: ArchiveRef | None, made: int) -> int:
    """The number after this archive's, and after the highest that was ever `made`."""
    return max(archive.number if archive else 0, made) + 1


def _spec(pod: PodView, image_id: str | None) -> PodSpec:
    return PodSpec(
        name=pod.name,
        image=pod.image,
        image_id=image_id,
        lab=pod.lab,
        cpu_millis=pod.resources.cpu_millis,
        memory_mib=pod.resources.memory_mib,
        pids=pod.resources.pids,
    )


def _restore(pod: PodView) -> RestorePod:
    assert pod.archive is not None
    return RestorePod(spec=_spec(pod, pod.archive.image_id), archive=source(pod.archive))


def _remove(pod: PodView) -> RemovePod:
    if pod.desired is Desired.DELETED:
        return RemovePod(proof=TombstoneProof(generation=pod.generation))
    assert pod.archive is not None
    return RemovePod(proof=proof(pod.archive))


def _start(pod: PodView, limits: Limits) -> StartPod:
    fenced = pod.failover is Failover.FROM_LAST_ARCHIVE
    return StartPod(self_fence_s=int(limits.self_fence_after.total_seconds()) if fenced else None)


# Conditions that are not here call for no step of the pod's own.
STEPS: dict[Condition, Callable[[PodView, Limits], PodStep]] = {
    Condition.NEEDS_CREATE: lambda pod, _limits: CreatePod(spec=_spec(pod, pod.image_id)),
    Condition.NEEDS_RESTORE: lambda pod, _limits: _restore(pod),
    Condition.NEEDS_START: _start,
    Condition.NEEDS_STOP: lambda _pod, _limits: StopPod(),
    Condition.NEEDS_ARCHIVE: lambda pod, _limits: ArchivePod(
        number=next_number(pod.archive, pod.archives_made),
        base=source(pod.archive) if pod.archive else None,
    ),
    Condition.NEEDS_REMOVAL: lambda pod, _limits: _remove(pod),
}
