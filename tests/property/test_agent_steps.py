"""Laws of `node_agent.steps`: what may follow from what is seen, and that every action comes to an end."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from node_agent import steps
from node_agent.errors import StaleEpoch, StepError
from node_agent.labels import PodLabels
from node_agent.runtime import LIVE, Container, Status, VolumeState
from node_agent.steps import Done, Primitive, Seen, next_step
from state import wire

SOURCE = wire.ArchiveSource(manifest_key="m", manifest_digest="d")
PROOF = wire.ArchiveProof(manifest_key="m", manifest_digest="d", fingerprint="f")
MADE = wire.ArchiveMade(manifest_key="m", manifest_digest="d", fingerprint="f", size_bytes=1)
SPEC = wire.PodSpec(name="ide", image="image", lab="lab")
WORKSPACE_STEPS: list[wire.WorkspaceStep] = [
    wire.CreateWorkspace(),
    wire.RestoreWorkspace(archive=SOURCE),
    wire.ArchiveWorkspace(number=1),
    wire.RemoveWorkspace(proof=PROOF),
]
POD_STEPS: list[wire.PodStep] = [
    wire.CreatePod(spec=SPEC),
    wire.RestorePod(spec=SPEC, archive=SOURCE),
    wire.StartPod(),
    wire.StopPod(),
    wire.ArchivePod(number=1),
    wire.RemovePod(proof=PROOF),
    wire.RemovePod(proof=wire.TombstoneProof(generation=3)),
]


def container_of(status: Status, generation: int = 1, upper_dir: str | None = "/upper") -> Container:
    """The pod's container in some state."""
    written = PodLabels(pod="p", user="u", workspace="w", node="n", epoch=5, generation=generation)
    return Container(
        id="c",
        name="codepods-p-e5",
        labels=written.as_labels(),
        status=status,
        image_id="sha256:1",
        started_at="s",
        finished_at="f",
        upper_dir=upper_dir,
    )


containers = st.builds(
    container_of, st.sampled_from(Status), st.integers(0, 5), st.sampled_from(["/upper", None])
)
sights = st.builds(
    Seen,
    highest_epoch=st.integers(0, 8),
    container=st.none() | containers,
    halves=st.lists(st.sampled_from(["h1", "h2"]), unique=True).map(tuple),
    volume=st.sampled_from(VolumeState),
    volume_writers=st.lists(st.just("x"), max_size=1).map(tuple),
    image_id=st.none() | st.just("sha256:1"),
    lab_missing=st.booleans(),
    ready=st.booleans(),
    start_refused=st.none() | st.just(StepError("no", code="no_sandbox")),
    archived=st.none() | st.just(MADE),
)


def of_pod(step: wire.PodStep) -> wire.Action:
    """An action of a pod."""
    return wire.Action(
        id="a", workspace_id="w", user_id="u", pod_id="p", epoch=5, generation=1, attempt=1, step=step
    )


def of_workspace(step: wire.WorkspaceStep) -> wire.Action:
    """An action of a workspace."""
    return wire.Action(id="a", workspace_id="w", user_id="u", epoch=5, attempt=1, step=step)


pod_actions = st.sampled_from(POD_STEPS).map(of_pod)
workspace_actions = st.sampled_from(WORKSPACE_STEPS).map(of_workspace)
actions = pod_actions | workspace_actions


def decided(action: wire.Action, seen: Seen) -> Primitive | Done | StepError:
    """The decision, with refusals as values."""
    try:
        return next_step(action, seen)
    except StepError as error:
        return error


@given(actions, sights)
def test_nothing_of_an_earlier_placement_is_done(action: wire.Action, seen: Seen) -> None:
    """An action below the highest epoch seen is always refused, and no other is for that reason (LAW 5)."""
    stale = isinstance(decided(action, seen), StaleEpoch)
    assert stale == (action.epoch < seen.highest_epoch)


@given(st.sampled_from(sorted(LIVE)), st.booleans())
def test_what_lives_is_neither_saved_nor_removed(status: Status, writes: bool) -> None:
    """Saving and removing wait until processes have exited (LAW 7, LAW 8)."""
    seen = Seen(
        container=container_of(status),
        volume=VolumeState.WHOLE,
        volume_writers=("x",) if writes else (),
    )
    for step in POD_STEPS:
        decision = decided(of_pod(step), seen)
        assert not isinstance(decision, steps.SaveContainer | steps.RemoveContainer)
    for step in WORKSPACE_STEPS:
        decision = decided(of_workspace(step), seen)
        assert not (writes and isinstance(decision, steps.SaveVolume | steps.RemoveVolume))


@given(actions, sights)
def test_only_removal_actions_remove_what_is_whole(action: wire.Action, seen: Seen) -> None:
    """Whatever is seen, or not seen: a whole copy goes only for a remove action, with its proof (LAW 9)."""
    step = decided(action, seen)
    if isinstance(step, steps.RemoveContainer | steps.RemoveVolume):
        assert isinstance(action.step, wire.RemovePod | wire.RemoveWorkspace)
        assert step.proof == action.step.proof


@given(actions, sights)
def test_what_is_half_made_or_strange_is_never_used(action: wire.Action, seen: Seen) -> None:
    """No container is made on, and nothing saved or removed from, a volume that is not whole."""
    step = decided(action, seen)
    used = (steps.MakeContainer, steps.PlaceLab, steps.SaveVolume, steps.RemoveVolume)
    if isinstance(step, used):
        assert seen.volume is VolumeState.WHOLE
    if isinstance(step, steps.SweepVolume):
        assert seen.volume is VolumeState.HALF
    if isinstance(step, steps.SweepContainer):
        assert step.container_id in seen.halves


@given(actions, sights)
def test_only_start_starts(action: wire.Action, seen: Seen) -> None:
    """No other verb brings processes to life, and none where the node may not start pods."""
    step = decided(action, seen)
    if isinstance(step, steps.StartContainer | steps.UnpauseContainer | steps.AwaitReady):
        assert isinstance(action.step, wire.StartPod)
        assert seen.start_refused is None


@given(actions, sights)
def test_done_means_done(action: wire.Action, seen: Seen) -> None:
    """Done is said only when the end state is there."""
    step = decided(action, seen)
    if not isinstance(step, Done):
        return
    match action.step:
        case wire.CreateWorkspace() | wire.RestoreWorkspace():
            assert seen.volume is VolumeState.WHOLE
        case wire.RemoveWorkspace():
            assert seen.volume is VolumeState.ABSENT
        case wire.CreatePod() | wire.RestorePod():
            assert seen.container is not None
            assert seen.halves == ()
        case wire.StartPod():
            assert seen.container is not None
            assert seen.container.live
            assert seen.ready
        case wire.StopPod():
            assert seen.container is None or seen.container.quiet
        case wire.RemovePod():
            assert seen.container is None
        case wire.ArchivePod() | wire.ArchiveWorkspace():
            assert step.archive == MADE


@given(actions, sights)
def test_every_action_ends_in_a_few_effects(action: wire.Action, seen: Seen) -> None:
    """With an engine that does what it is told, an action is done or refused within ten effects."""
    assume(action.epoch >= seen.highest_epoch)
    for _ in range(10):
        step = decided(action, seen)
        if isinstance(step, Done | StepError):
            return
        seen = after(step, seen)
    raise AssertionError(f"still not at its end: {step}")


AFTER: dict[type, Callable[[Seen], Seen]] = {
    steps.SweepContainer: lambda seen: replace(seen, halves=seen.halves[1:]),
    steps.SweepVolume: lambda seen: replace(seen, volume=VolumeState.ABSENT),
    steps.RemoveVolume: lambda seen: replace(seen, volume=VolumeState.ABSENT),
    steps.MakeVolume: lambda seen: replace(seen, volume=VolumeState.WHOLE),
    steps.PullImage: lambda seen: replace(seen, image_id="sha256:1"),
    steps.PlaceLab: lambda seen: replace(seen, lab_missing=False),
    steps.MakeContainer: lambda seen: replace(seen, container=container_of(Status.CREATED)),
    steps.StartContainer: lambda seen: replace(seen, container=container_of(Status.RUNNING), ready=True),
    steps.UnpauseContainer: lambda seen: replace(seen, container=container_of(Status.RUNNING)),
    steps.AwaitReady: lambda seen: replace(seen, ready=True),
    steps.StopContainer: lambda seen: replace(seen, container=container_of(Status.EXITED)),
    steps.RemoveContainer: lambda seen: replace(seen, container=None),
    steps.SaveContainer: lambda seen: replace(seen, archived=MADE),
    steps.SaveVolume: lambda seen: replace(seen, archived=MADE),
}


def after(step: Primitive, seen: Seen) -> Seen:
    """The world after an effect, in the model of an obedient engine."""
    return AFTER[type(step)](seen)
