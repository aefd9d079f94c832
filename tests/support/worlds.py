"""Random worlds for the planner's laws, and a perfect node that carries out what was planned.

`draw_worlds` builds *correlated* states (desired, observed, archived, failed) rather than independent
noise, so that the interesting corners come up often. `carry_out` is the model of an obedient, instant node:
enough to ask whether deciding again and again gets anywhere.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from state.model import (
    ArchiveRef,
    Desired,
    Failure,
    Limits,
    NodeView,
    Observed,
    ObservedPod,
    ObservedWorkspace,
    OpenAction,
    Placement,
    PodView,
    Resources,
    Verb,
    WorkspaceObserved,
    WorkspaceView,
    World,
)
from state.plan import Plan, PlannedStep

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = Limits()
REPORTED_STATES = [state for state in Observed if state is not Observed.UNKNOWN]
ROOMY = Resources(cpu_millis=16_000, memory_mib=65_536, pids=0)


def archive_ref(target: str, fingerprint: str, age_s: float = 60, number: int = 1) -> ArchiveRef:
    """A committed archive of `target`, made of the source with this fingerprint."""
    return ArchiveRef(
        id=f"a-{target}-{number}",
        number=number,
        epoch=1,
        manifest_key=f"archives/{target}/{number}/manifest.json",
        manifest_digest=f"sha256:{target}{number}",
        fingerprint=fingerprint,
        image_id="sha256:image",
        committed_at=NOW - timedelta(seconds=age_s),
    )


def live_node(node_id: str = "node-1", **changes: object) -> NodeView:
    """A node heard from a second ago, with room."""
    node = NodeView(id=node_id, last_seen_at=NOW - timedelta(seconds=1), capacity=ROOMY)
    return replace(node, **changes)  # type: ignore[arg-type]


def _mostly(draw: st.DrawFn) -> bool:
    """True three times in four: the ordinary case must be common enough to reach the corners behind it."""
    return draw(st.integers(0, 3)) > 0


@st.composite
def draw_failures(draw: st.DrawFn) -> Failure:
    """A failed step, due again before or after now."""
    return Failure(
        verb=draw(st.sampled_from(list(Verb))),
        code="store_unavailable",
        message="The object store did not answer.",
        count=draw(st.integers(1, 12)),
        generation=draw(st.integers(0, 3)),
        permanent=draw(st.booleans()),
        failed_at=NOW - timedelta(seconds=draw(st.integers(0, 100))),
        retry_at=NOW + timedelta(seconds=draw(st.integers(-100, 100))),
    )


@st.composite
def draw_pods(draw: st.DrawFn, pod_id: str, placement: Placement | None) -> PodView:
    """A pod whose observed state, archive and open action are each likely, rare or contradictory."""
    observed = None
    if placement is not None and _mostly(draw):
        states = [Observed.RUNNING, Observed.STOPPED, Observed.STOPPED, *REPORTED_STATES]
        state = draw(st.sampled_from(states))
        fingerprint = draw(st.sampled_from(["f1", "f2", None])) if state is Observed.STOPPED else None
        since = draw(st.sampled_from([None, NOW - timedelta(hours=1)]))
        observed = ObservedPod(
            state, placement.node_id, placement.epoch, "c1", "sha256:image", fingerprint, since=since
        )
    archive = draw(st.none() | st.sampled_from([archive_ref(pod_id, "f1", 60), archive_ref(pod_id, "f1", 1)]))
    verb = draw(st.sampled_from([verb for verb in Verb if verb.endswith("_pod")]))
    busy = placement is not None and draw(st.integers(0, 4)) == 0
    return PodView(
        id=pod_id,
        name=pod_id,
        image="codepods-pod:1",
        desired=draw(st.sampled_from(list(Desired))),
        generation=draw(st.integers(1, 3)),
        observed=observed,
        archive=archive,
        open_action=_open(f"act-{pod_id}", verb, placement) if busy and placement else None,
        failure=None if _mostly(draw) else draw(draw_failures()),
    )


def _open(action_id: str, verb: Verb, placement: Placement) -> OpenAction:
    return OpenAction(action_id, verb, placement.node_id, placement.epoch, 1, NOW - timedelta(seconds=5))


@st.composite
def draw_workspaces(draw: st.DrawFn, index: int, node_ids: list[str]) -> WorkspaceView:
    """A workspace with one to three pods, placed or not, its volume in any state."""
    workspace_id = f"w-{index}"
    placement = None
    if draw(st.booleans()):
        node_id = draw(st.sampled_from([*node_ids, *node_ids, "node-gone"]))
        placement = Placement(node_id, draw(st.integers(1, 4)))
    observed = None
    if placement is not None and _mostly(draw):
        states = [WorkspaceObserved.PRESENT] * 3 + list(WorkspaceObserved)
        state = draw(st.sampled_from(states))
        fingerprint = draw(st.sampled_from(["v1", "v2", None]))
        observed = ObservedWorkspace(state, placement.node_id, placement.epoch, fingerprint)
    verb = draw(st.sampled_from([verb for verb in Verb if verb.endswith("_workspace")]))
    busy = placement is not None and draw(st.integers(0, 4)) == 0
    return WorkspaceView(
        id=workspace_id,
        user_id=f"user{index}",
        epoch=placement.epoch if placement else draw(st.integers(0, 4)),
        pods=tuple(draw(draw_pods(f"p-{index}-{n}", placement)) for n in range(draw(st.integers(1, 3)))),
        placement=placement,
        observed=observed,
        archive=draw(st.none() | st.just(archive_ref(workspace_id, "v1"))),
        open_action=_open(f"act-{workspace_id}", verb, placement) if busy and placement else None,
        failure=None if _mostly(draw) else draw(draw_failures()),
        wished_at=NOW - timedelta(seconds=draw(st.integers(0, 100))),
    )


@st.composite
def draw_worlds(draw: st.DrawFn) -> World:
    """A small fleet: up to four nodes, some silent, cordoned or full, and up to four users."""
    nodes = {}
    ages = draw(st.sampled_from([[1], [1, 1, 1, 41], [1, 41, 4000], [39, 41]]))
    for index in range(draw(st.integers(0, 5))):
        age = draw(st.sampled_from(ages))
        nodes[f"node-{index}"] = NodeView(
            id=f"node-{index}",
            last_seen_at=draw(st.just(NOW - timedelta(seconds=age)) | st.none()),
            cordoned=draw(st.booleans()),
            capacity=Resources(
                draw(st.sampled_from([0, 400, 16_000])), draw(st.sampled_from([0, 1024, 65_536]))
            ),
            open_starts=draw(st.sampled_from([0, 4])),
            open_actions=draw(st.sampled_from([0, 64])),
            engine_error=None if _mostly(draw) else "The engine did not answer.",
        )
    workspaces = tuple(draw(draw_workspaces(index, list(nodes))) for index in range(draw(st.integers(1, 4))))
    leading_since = NOW - timedelta(seconds=3600 if _mostly(draw) else 1)
    return World(nodes, workspaces, leading_since)


# ---- the small space, exhausted ------------------------------------------------------------------------


def every_lone_pod() -> Iterator[World]:
    """Every combination for one pod alone on a live node: 4 × 10 × 3 × 2 worlds, none left to chance."""
    placement = Placement("node-1", 3)
    present = ObservedWorkspace(WorkspaceObserved.PRESENT, "node-1", 3, "v1")
    archives = (None, archive_ref("p-1", "f1"), archive_ref("p-1", "other"))
    for desired, state, archive, busy in itertools.product(
        Desired, [None, *REPORTED_STATES], archives, (False, True)
    ):
        fingerprint = "f1" if state is Observed.STOPPED else None
        observed = ObservedPod(state, "node-1", 3, "c1", "sha256:image", fingerprint) if state else None
        action = _open("act-1", Verb.START_POD, placement) if busy else None
        pod = PodView(
            "p-1",
            "hello",
            "codepods-pod:1",
            desired,
            1,
            observed=observed,
            archive=archive,
            open_action=action,
        )
        workspace = WorkspaceView("w-1", "alice", 3, (pod,), placement, present, archive_ref("w-1", "v1"))
        yield World({"node-1": live_node("node-1")}, (workspace,), NOW - timedelta(hours=1))


# ---- the obedient node ---------------------------------------------------------------------------------


def carry_out(world: World, plan: Plan, now: datetime, counter: Callable[[], int]) -> World:
    """The world after every planned thing was done, at once and without fault, and reported."""
    workspaces = {workspace.id: workspace for workspace in world.workspaces}
    for place in plan.places:
        before = workspaces[place.workspace_id]
        assert before.placement is None
        assert before.epoch == place.epoch_before
        epoch = place.epoch_before + 1
        workspaces[before.id] = replace(
            before, epoch=epoch, placement=Placement(place.node_id, epoch), observed=None
        )
    for release in plan.releases:
        before = workspaces[release.workspace_id]
        pods = tuple(replace(pod, observed=None) for pod in before.pods)
        workspaces[before.id] = replace(before, placement=None, observed=None, pods=pods)
    for step in plan.steps:
        before = workspaces[step.workspace_id]
        if step.pod_id is None:
            workspaces[before.id] = _with_volume_step(before, step, now)
        else:
            pods = tuple(
                _with_pod_step(pod, step, now, counter) if pod.id == step.pod_id else pod
                for pod in before.pods
            )
            workspaces[before.id] = replace(before, pods=pods)
    nodes = {node.id: replace(node, last_seen_at=now, engine_error=None) for node in world.nodes.values()}
    return replace(world, nodes=nodes, workspaces=tuple(workspaces.values()))


def _committed(target: str, step: PlannedStep, fingerprint: str, number: int, now: datetime) -> ArchiveRef:
    return replace(archive_ref(target, fingerprint, number=number), epoch=step.epoch, committed_at=now)


def _with_volume_step(workspace: WorkspaceView, step: PlannedStep, now: datetime) -> WorkspaceView:
    verb = Verb(step.step.verb)
    present = ObservedWorkspace(WorkspaceObserved.PRESENT, step.node_id, step.epoch, f"v{step.epoch}")
    if verb in (Verb.CREATE_WORKSPACE, Verb.RESTORE_WORKSPACE):
        return replace(workspace, observed=present)
    if verb is Verb.REMOVE_WORKSPACE:
        return replace(workspace, observed=None)
    assert workspace.observed is not None
    assert workspace.observed.fingerprint is not None
    number = workspace.archive.number + 1 if workspace.archive else 1
    archive = _committed(workspace.id, step, workspace.observed.fingerprint, number, now)
    return replace(workspace, archive=archive)


def _with_pod_step(pod: PodView, step: PlannedStep, now: datetime, counter: Callable[[], int]) -> PodView:
    verb = Verb(step.step.verb)
    stopped = ObservedPod(
        Observed.STOPPED, step.node_id, step.epoch, "c1", "sha256:image", f"exit-{counter()}"
    )
    if verb in (Verb.CREATE_POD, Verb.RESTORE_POD, Verb.STOP_POD):
        return replace(pod, observed=stopped)
    if verb is Verb.START_POD:
        return replace(pod, observed=replace(stopped, state=Observed.RUNNING, fingerprint=None))
    if verb is Verb.REMOVE_POD:
        return replace(pod, observed=None)
    assert pod.observed is not None
    assert pod.observed.fingerprint is not None
    number = pod.archive.number + 1 if pod.archive else 1
    return replace(pod, archive=_committed(pod.id, step, pod.observed.fingerprint, number, now))
