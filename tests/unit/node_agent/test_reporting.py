"""Reports: how the engine's states are told, and that nothing is left out or made up."""

from dataclasses import replace

import pytest

from node_agent.errors import EngineRefused
from node_agent.host import VolumeState
from node_agent.labels import PodLabels, VolumeLabels
from node_agent.reporting import Known, build_report, parse_time
from node_agent.runtime import Container, Sight, Status, Volume
from state.model import Observed, WorkspaceObserved
from state.wire import (
    PODS_PER_REPORT_MAX,
    Action,
    ArchiveSource,
    ArchiveWorkspace,
    PodSpec,
    RestorePod,
    RestoreWorkspace,
    StartPod,
    StopPod,
)

SOURCE = ArchiveSource(manifest_key="m", manifest_digest="d")
WRITTEN = PodLabels(pod="p-1", user="alice", workspace="w-1", node="n", epoch=2, generation=3)
CONTAINER = Container(
    id="c1",
    name="codepods-p-1-e2",
    labels=WRITTEN.as_labels(),
    status=Status.RUNNING,
    image_id="sha256:1",
    started_at="2026-01-02T03:04:05.123456789Z",
    finished_at="0001-01-01T00:00:00Z",
    host_port=4711,
    session_dir="/pods/p-1",
)
VOLUME = Volume("codepods-w-1-e2", VolumeLabels("alice", "w-1", "n", 2).as_labels(), "/v")
KNOWN = Known(
    begun=(),
    is_ready=lambda _: True,
    is_overdue=lambda _: False,
    session_of=lambda _: "5" * 64,
    generations={},
    upstream_address="10.0.0.9",
    volume_states={VOLUME.name: VolumeState.WHOLE},
    fingerprints={VOLUME.name: "print"},
    fence_of={"c-fenced": 60}.get,
)


def action(step: object, pod_id: str | None = "p-1", epoch: int = 2) -> Action:
    """An action that has begun."""
    return Action.model_validate(
        {
            "id": "a",
            "workspace_id": "w-1",
            "user_id": "alice",
            "pod_id": pod_id,
            "epoch": epoch,
            "attempt": 1,
            "step": step,
        }
    )


def state_of(container: Container, known: Known = KNOWN) -> Observed:
    """How one container is told."""
    (pod,) = build_report(Sight((container,)), known).pods
    return pod.state


def test_a_ready_pod_is_told_with_its_address_and_secret() -> None:
    """That is what the link is made of."""
    (pod,) = build_report(Sight((CONTAINER,)), KNOWN).pods
    assert (pod.state, pod.upstream, pod.session_secret) == (Observed.RUNNING, "10.0.0.9:4711", "5" * 64)
    assert (pod.pod_id, pod.epoch, pod.generation, pod.fingerprint) == ("p-1", 2, 3, None)


def test_a_pod_whose_ide_has_not_answered_is_starting_and_later_failed() -> None:
    """Running is said only of what can be used; no address is given before."""
    waiting = replace(KNOWN, is_ready=lambda _: False)
    (pod,) = build_report(Sight((CONTAINER,)), waiting).pods
    assert (pod.state, pod.upstream, pod.session_secret) == (Observed.STARTING, None, None)
    assert state_of(CONTAINER, replace(waiting, is_overdue=lambda _: True)) is Observed.FAILED


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (Status.CREATED, Observed.STOPPED),
        (Status.EXITED, Observed.STOPPED),
        (Status.PAUSED, Observed.RUNNING),
        (Status.RESTARTING, Observed.STARTING),
        (Status.REMOVING, Observed.FAILED),
        (Status.DEAD, Observed.FAILED),
    ],
)
def test_every_state_of_the_engine_has_one_of_ours(status: Status, told: Observed) -> None:
    """Only what has exited, or never ran, carries a fingerprint."""
    container = replace(CONTAINER, status=status)
    assert state_of(container) is told
    (pod,) = build_report(Sight((container,)), KNOWN).pods
    assert (pod.fingerprint is not None) == container.quiet


def test_an_action_that_has_begun_shows_as_its_own_state() -> None:
    """Of its own epoch only."""
    exited = replace(CONTAINER, status=Status.EXITED)
    assert state_of(exited, replace(KNOWN, begun=(action(StartPod()),))) is Observed.STARTING
    assert state_of(exited, replace(KNOWN, begun=(action(StopPod()),))) is Observed.STOPPING
    assert state_of(exited, replace(KNOWN, begun=(action(StartPod(), epoch=3),))) is Observed.STOPPED


def test_a_half_made_container_is_not_there_and_a_coming_pod_is() -> None:
    """A restore under way shows the pod, never the container that is being filled."""
    half = replace(CONTAINER, name="codepods-p-1-e2-partial-1", status=Status.CREATED)
    assert build_report(Sight((half,)), KNOWN).pods == ()
    coming = action(RestorePod(spec=PodSpec(name="ide", image="i"), archive=SOURCE))
    (pod,) = build_report(Sight((half,)), replace(KNOWN, begun=(coming,))).pods
    assert (pod.state, pod.container_id, pod.image_id) == (Observed.RESTORING, "", "")


def test_what_cannot_be_read_is_strange_and_what_is_twice_there_once() -> None:
    """One bad label stays one bad container."""
    bad = replace(CONTAINER, id="c2", labels={**CONTAINER.labels, "codepods.epoch": "x"})
    odd = replace(CONTAINER, id="c3", labels={**CONTAINER.labels, "codepods.pod": "Not An Id"})
    copy = replace(CONTAINER, id="c4", name="a-copy")
    report = build_report(Sight((copy, bad, odd, CONTAINER)), KNOWN)
    assert [pod.container_id for pod in report.pods] == ["c1"]
    assert {strange.container_id for strange in report.strange} == {"c2", "c3", "c4"}


def test_a_volume_is_present_only_when_it_is_whole() -> None:
    """Half-made ones are not told; what nobody vouches for is strange."""
    sight = Sight((), (VOLUME,))
    (workspace,) = build_report(sight, KNOWN).workspaces
    assert (workspace.state, workspace.fingerprint) == (WorkspaceObserved.PRESENT, "print")
    half = build_report(sight, replace(KNOWN, volume_states={VOLUME.name: VolumeState.HALF}))
    assert (half.workspaces, half.strange) == ((), ())
    strange = build_report(sight, replace(KNOWN, volume_states={VOLUME.name: VolumeState.STRANGE}))
    assert (strange.workspaces, len(strange.strange)) == ((), 1)


def test_workspaces_show_what_is_done_with_them() -> None:
    """Archiving and restoring are states of their own."""
    saving = replace(KNOWN, begun=(action(ArchiveWorkspace(number=1), None),))
    (workspace,) = build_report(Sight((), (VOLUME,)), saving).workspaces
    assert workspace.state is WorkspaceObserved.ARCHIVING
    coming = replace(KNOWN, begun=(action(RestoreWorkspace(archive=SOURCE), None),))
    (workspace,) = build_report(Sight(), coming).workspaces
    assert workspace.state is WorkspaceObserved.RESTORING


def test_a_report_that_would_be_cut_is_not_made() -> None:
    """What is not in a report counts as gone, so it must never be incomplete (LAW 9)."""
    with pytest.raises(EngineRefused):
        build_report(Sight((CONTAINER,) * (PODS_PER_REPORT_MAX + 1)), KNOWN)


def test_times_are_cut_to_microseconds_and_year_one_means_never() -> None:
    """The engine counts nanoseconds."""
    time = parse_time("2026-01-02T03:04:05.123456789Z")
    assert time is not None
    assert time.isoformat() == "2026-01-02T03:04:05.123456+00:00"
    assert parse_time("2026-01-02T03:04:05Z") is not None
    assert parse_time("0001-01-01T00:00:00Z") is None
    assert parse_time("") is None
