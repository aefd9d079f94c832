"""From what is seen on the node to a report. Pure: what it needs to know besides is handed in.

How the engine's states are told
- created, exited: `stopped`, with the fingerprint.
- running: `running` once the IDE has answered since this start, until then `starting`; `failed` when it has
  not answered for longer than a start may take.
- paused: `running`. Nobody here pauses pods; whoever did wants its memory kept, and it is far from stopped.
- restarting: `starting`. Our restart policy is `no`, so somebody changed it by hand.
- removing, dead: `failed`. It is neither usable nor gone.
An action that has begun shows as its own state in between. Half-made things are not reported at all.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from node_agent import labels
from node_agent.errors import EngineRefused
from node_agent.runtime import Container, Sight, Status, Volume, VolumeState
from state.model import Observed, WorkspaceObserved
from state.wire import (
    PODS_PER_REPORT_MAX,
    Action,
    CreatePod,
    PodReport,
    Report,
    RestorePod,
    RestoreWorkspace,
    StrangeContainer,
    WorkspaceReport,
)

# Of a pod that has no whole container yet. One that has, and is asked for again, is told by its own state.
_COMING = {"create_pod": Observed.CREATING, "restore_pod": Observed.RESTORING}
_BETWEEN = {
    "start_pod": Observed.STARTING,
    "stop_pod": Observed.STOPPING,
    "archive_pod": Observed.ARCHIVING,
}
_WORKSPACE_BETWEEN = {
    "restore_workspace": WorkspaceObserved.RESTORING,
    "archive_workspace": WorkspaceObserved.ARCHIVING,
}
_STATES = {
    Status.CREATED: Observed.STOPPED,
    Status.EXITED: Observed.STOPPED,
    Status.RESTARTING: Observed.STARTING,
    Status.REMOVING: Observed.FAILED,
    Status.DEAD: Observed.FAILED,
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*Z")


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent knows besides what the engine shows."""

    begun: tuple[Action, ...]
    is_ready: Callable[[Container], bool]
    is_overdue: Callable[[Container], bool]
    session_of: Callable[[str | None], str | None]
    # The highest generation an action of this pod was done at; labels only know the one it was made at.
    generations: Mapping[str, int]
    upstream_address: str
    volume_states: Mapping[str, VolumeState]
    fingerprints: Mapping[str, str]
    fence_of: Callable[[str], int | None]


def build_report(sight: Sight, known: Known) -> Report:
    """The whole report. Raises EngineRefused rather than leave something out: a report is complete."""
    found = max(len(sight.containers), len(sight.volumes))
    if found > PODS_PER_REPORT_MAX:
        raise EngineRefused(f"There are {found} containers or volumes; a report holds {PODS_PER_REPORT_MAX}.")
    pods, strange = _pods(sight, known)
    workspaces, strange_volumes = _workspaces(sight, known)
    return Report(pods=pods, workspaces=workspaces, strange=strange + strange_volumes)


def _pods(sight: Sight, known: Known) -> tuple[tuple[PodReport, ...], tuple[StrangeContainer, ...]]:
    pods: dict[tuple[str, int], PodReport] = {}
    strange = []
    for container in sorted(sight.containers, key=_well_named_first):
        if labels.is_partial(container.name):
            continue
        try:
            report = _pod(container, known)
        except (labels.Unreadable, ValidationError) as error:
            strange.append(_strange(container, _first_line(error)))
            continue
        if (report.pod_id, report.epoch) in pods:
            strange.append(_strange(container, "another container is this pod already"))
        else:
            pods[report.pod_id, report.epoch] = report
    coming = (_coming(action) for action in known.begun if (action.pod_id, action.epoch) not in pods)
    return (*pods.values(), *(report for report in coming if report)), tuple(strange)


def _well_named_first(container: Container) -> tuple[bool, str]:
    pod, epoch = container.labels.get(labels.POD, ""), container.labels.get(labels.EPOCH, "")
    return container.name != f"codepods-{pod}-e{epoch}", container.name


def _strange(container: Container, why: str) -> StrangeContainer:
    return StrangeContainer(container_id=container.id, name=container.name, why=why)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"its label for {first['loc'][0]} is not allowed: {first['msg']}"
    return str(error)


def _pod(container: Container, known: Known) -> PodReport:
    read = labels.read_pod(container.labels)
    state = _pod_state(container, read, known)
    answers = state is Observed.RUNNING and known.is_ready(container) and container.host_port is not None
    return PodReport(
        pod_id=read.pod,
        workspace_id=read.workspace,
        user_id=read.user,
        epoch=read.epoch,
        generation=max(read.generation, known.generations.get(read.pod, 0)),
        state=state,
        container_id=container.id,
        image_id=container.image_id,
        upstream=f"{known.upstream_address}:{container.host_port}" if answers else None,
        session_secret=known.session_of(container.session_dir) if answers else None,
        fingerprint=container.fingerprint if container.quiet else None,
        started_at=parse_time(container.started_at),
        exit_code=container.exit_code if container.status is Status.EXITED else None,
        oom_killed=container.oom_killed,
        self_fence_s=known.fence_of(container.id) if container.live else None,
    )


def _pod_state(container: Container, read: labels.PodLabels, known: Known) -> Observed:
    for action in known.begun:
        if (action.pod_id, action.epoch) == (read.pod, read.epoch) and action.step.verb in _BETWEEN:
            return _BETWEEN[action.step.verb]
    if container.status in _STATES:
        return _STATES[container.status]
    if container.status is Status.PAUSED or known.is_ready(container):
        return Observed.RUNNING
    return Observed.FAILED if known.is_overdue(container) else Observed.STARTING


def _coming(action: Action) -> PodReport | None:
    """A pod that is being made and has no whole container yet."""
    if action.pod_id is None or not isinstance(action.step, CreatePod | RestorePod):
        return None
    return PodReport(
        pod_id=action.pod_id,
        workspace_id=action.workspace_id,
        user_id=action.user_id,
        epoch=action.epoch,
        generation=action.generation,
        state=_COMING[action.step.verb],
        container_id="",
        image_id=action.step.spec.image_id or "",
    )


def _workspaces(
    sight: Sight, known: Known
) -> tuple[tuple[WorkspaceReport, ...], tuple[StrangeContainer, ...]]:
    reports, strange = {}, []
    for volume in sight.volumes:
        state = known.volume_states.get(volume.name, VolumeState.STRANGE)
        if state is VolumeState.STRANGE:
            strange.append(_strange_volume(volume, "it has files, and no word on whether they are complete"))
        elif state is VolumeState.WHOLE:
            try:
                reports[volume.name] = _workspace(volume, known)
            except (labels.Unreadable, ValidationError) as error:
                strange.append(_strange_volume(volume, _first_line(error)))
    for action in known.begun:
        name = labels.volume_name(action.workspace_id, action.epoch)
        if isinstance(action.step, RestoreWorkspace) and name not in reports:
            reports[name] = WorkspaceReport(
                workspace_id=action.workspace_id,
                user_id=action.user_id,
                epoch=action.epoch,
                state=WorkspaceObserved.RESTORING,
                volume=name,
            )
    return tuple(reports.values()), tuple(strange)


def _workspace(volume: Volume, known: Known) -> WorkspaceReport:
    read = labels.read_volume(volume.labels)
    verbs = [
        action.step.verb
        for action in known.begun
        if action.pod_id is None and (action.workspace_id, action.epoch) == (read.workspace, read.epoch)
    ]
    between = [_WORKSPACE_BETWEEN[verb] for verb in verbs if verb in _WORKSPACE_BETWEEN]
    return WorkspaceReport(
        workspace_id=read.workspace,
        user_id=read.user,
        epoch=read.epoch,
        state=between[0] if between else WorkspaceObserved.PRESENT,
        volume=volume.name,
        fingerprint=known.fingerprints.get(volume.name),
    )


def _strange_volume(volume: Volume, why: str) -> StrangeContainer:
    return StrangeContainer(container_id="", name=f"volume {volume.name}", why=why)


def parse_time(text: str) -> datetime | None:
    """The engine's nanosecond times, cut to microseconds; None for its year 1, which means never."""
    match = _TIME.fullmatch(text)
    if match is None or text.startswith("0001"):
        return None
    return datetime.fromisoformat(f"{match[1]}{match[2] or ''}").replace(tzinfo=UTC)
