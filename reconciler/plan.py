"""One pass of deciding: `plan(world, now, limits) -> Plan`. Pure, total, deterministic (LAW 2).

Each workspace is planned by itself; only the bounds of the pass (steps, starts per node, room on nodes) are
carried from one to the next, in `_Pass`. Conditions come from `reconciler.classify`; here each condition is
given its step, or the reason why it has to wait.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reconciler import failover, warm
from reconciler.classify import WANTED_VERBS, Facts, active_workspace_failure, classify, is_silent
from reconciler.placement import choose_node, why_no_room, with_reserved
from reconciler.restoring import goes_back, in_words, pod_goes_back, put_aside, workspace_goes_back
from reconciler.steps import STEPS, next_number, proof, source
from reconciler.waking import CAPACITY_RETRY, TRANSIT_RETRY, TURN_RETRY, wake
from state.model import (
    WITHDRAWING_VERBS,
    Limits,
    NodeView,
    Observed,
    TargetKind,
    Verb,
    WorkspaceObserved,
    WorkspaceView,
    World,
)
from state.plan import (
    Abandon,
    Condition,
    Decision,
    GoBack,
    Place,
    Plan,
    PlannedStep,
    Release,
    TakeBack,
    WorkspaceDecision,
)
from state.wire import (
    ArchiveWorkspace,
    CreateWorkspace,
    RemoveWorkspace,
    RestoreWorkspace,
    StartPod,
    WorkspaceStep,
)


@dataclass(slots=True)
class _Pass:
    """What this pass has decided so far, and what is left of its bounds."""

    world: World
    now: datetime
    limits: Limits
    breaker_open: bool
    nodes: dict[str, NodeView]
    places: list[Place] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    abandons: list[Abandon] = field(default_factory=list)
    steps: list[PlannedStep] = field(default_factory=list)
    take_backs: list[TakeBack] = field(default_factory=list)
    go_backs: list[GoBack] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    workspace_decisions: list[WorkspaceDecision] = field(default_factory=list)

    def live_nodes(self) -> list[NodeView]:
        since = self.world.leading_since
        return [node for node in self.nodes.values() if not is_silent(node, since, self.now, self.limits)]

    def hindrance(self, verb: Verb, node_id: str) -> tuple[Condition, str] | None:
        """Why a step has to wait though it is needed: the bounds of LAW 13 and LAW 15."""
        node = self.nodes[node_id]
        if self.breaker_open and verb in WITHDRAWING_VERBS:
            return (
                Condition.WITHHELD,
                "most nodes went silent at once: nothing is stopped, saved or removed now",
            )
        if len(self.steps) >= self.limits.actions_per_pass_max:
            return Condition.WAITING_FOR_TURN, "this pass is full; next in line"
        if node.open_actions >= self.limits.open_actions_per_node_max:
            return Condition.WAITING_FOR_TURN, f"{node_id} has as many actions as it may; next in line"
        if verb is Verb.START_POD and node.open_starts >= self.limits.open_starts_per_node_max:
            return Condition.WAITING_FOR_TURN, f"{node_id} is starting as many pods as it may; next in line"
        return None

    def add_step(self, step: PlannedStep) -> None:
        self.steps.append(step)
        node = self.nodes[step.node_id]
        starts = int(isinstance(step.step, StartPod))
        self.nodes[step.node_id] = replace(
            node, open_actions=node.open_actions + 1, open_starts=node.open_starts + starts
        )

    def result(self) -> Plan:
        return Plan(
            places=tuple(self.places),
            releases=tuple(self.releases),
            abandons=tuple(self.abandons),
            steps=tuple(self.steps),
            take_backs=tuple(self.take_backs),
            go_backs=tuple(self.go_backs),
            decisions=tuple(self.decisions),
            workspace_decisions=tuple(self.workspace_decisions),
            breaker_open=self.breaker_open,
        )


def plan(world: World, now: datetime, limits: Limits) -> Plan:
    """What to do about `world` at `now`: actions, a reason for every pod, and when to look again."""
    this_pass = _Pass(
        world=world,
        now=now,
        limits=limits,
        breaker_open=is_breaker_open(world, now, limits),
        nodes=dict(world.nodes),
    )
    for workspace in world.workspaces:
        _plan_workspace(this_pass, workspace)
    return this_pass.result()


def is_breaker_open(world: World, now: datetime, limits: Limits) -> bool:
    """More than one node, and most of them, gone quiet together: then it is rather us (LAW 13)."""
    silent = sum(is_silent(node, world.leading_since, now, limits) for node in world.nodes.values())
    return silent > 1 and silent > limits.silent_share_max * len(world.nodes)


def _plan_workspace(this_pass: _Pass, workspace: WorkspaceView) -> None:
    workspace = put_aside(workspace)
    node_id = workspace.placement.node_id if workspace.placement else ""
    silent = is_silent(
        this_pass.nodes.get(node_id), this_pass.world.leading_since, this_pass.now, this_pass.limits
    )
    node = this_pass.nodes.get(node_id)
    engine_error = node.engine_error if node and not silent else None
    heard_at = node.last_seen_at if node else None
    all_facts = [
        Facts(pod, workspace, silent, this_pass.now, this_pass.limits, engine_error, heard_at)
        for pod in workspace.pods
    ]
    if node is not None and silent and _give_up(this_pass, workspace, node):
        return
    placed = workspace.placement is not None or _place(this_pass, workspace, all_facts)
    if workspace.placement is not None and not silent and engine_error is None:
        _plan_volume(this_pass, workspace, all_facts)
    if (line := workspace_goes_back(workspace)) is not None:
        this_pass.go_backs.append(line)
    for facts in all_facts:
        this_pass.decisions.append(_plan_pod(this_pass, facts, placed))


def _give_up(this_pass: _Pass, workspace: WorkspaceView, node: NodeView) -> bool:
    """End the placement on a silent node where there is proof enough; the next pass finds it without one."""
    given_up = failover.give_up(workspace, node, this_pass.now, this_pass.limits, this_pass.breaker_open)
    if given_up is None:
        return False
    this_pass.abandons.append(given_up)
    this_pass.decisions += [
        Decision(pod.id, workspace.id, pod.generation, Condition.NODE_SILENT, given_up.reason, this_pass.now)
        for pod in workspace.pods
    ]
    return True


# ---- placement -----------------------------------------------------------------------------------------


def _place(this_pass: _Pass, workspace: WorkspaceView, all_facts: list[Facts]) -> bool:
    """Place the workspace if a pod of it needs a node. True unless one is needed and none has room."""
    wanted = [facts for facts in all_facts if facts.must_exist and facts.failure is None]
    if not wanted:
        return True
    node = choose_node(this_pass.live_nodes(), len(wanted))
    if node is None:
        return False
    this_pass.nodes[node.id] = with_reserved(node, len(wanted))
    reason = f"most room among {len(this_pass.live_nodes())} live nodes"
    this_pass.places.append(Place(workspace.id, node.id, workspace.epoch, reason))
    return True


# ---- the workspace volume ------------------------------------------------------------------------------


def _plan_volume(this_pass: _Pass, workspace: WorkspaceView, all_facts: list[Facts]) -> None:
    """Bring the volume where a pod needs it; save and remove it where none does; then free the placement.

    Where a container is, its volume is too: a report that misses it must not bring back an older one.
    """
    needed = any(facts.must_exist or facts.state is not Observed.ABSENT for facts in all_facts)
    needed = needed or any(goes_back(facts) for facts in all_facts)  # and comes back in a moment
    if workspace.open_action is not None:
        _take_back_volume_step(this_pass, workspace, all_facts, needed)
    elif any(facts.must_exist for facts in all_facts):
        _bring_volume(this_pass, workspace)
    elif not any(pod.open_action for pod in workspace.pods):
        if needed:
            _save_volume_ahead(this_pass, workspace, all_facts)
        else:
            _put_volume_away(this_pass, workspace)


def _take_back_volume_step(
    this_pass: _Pass, workspace: WorkspaceView, all_facts: list[Facts], needed: bool
) -> None:
    action = workspace.open_action
    assert action is not None
    if action.verb is Verb.ARCHIVE_WORKSPACE:
        needed = warm.volume_in_use(all_facts)
    if not action.taken_back and needed == (action.verb in WITHDRAWING_VERBS):
        reason = "the workspace is wanted again" if needed else "no pod wants the workspace any more"
        this_pass.take_backs.append(TakeBack(action.id, reason))


def _bring_volume(this_pass: _Pass, workspace: WorkspaceView) -> None:
    if workspace.observed and workspace.observed.state is not WorkspaceObserved.ABSENT:
        return
    archive = workspace.archive
    step: WorkspaceStep = RestoreWorkspace(archive=source(archive)) if archive else CreateWorkspace()
    _volume_step(this_pass, workspace, step, "a pod of this user is wanted here")


def _put_volume_away(this_pass: _Pass, workspace: WorkspaceView) -> None:
    placement, observed, archive = workspace.placement, workspace.observed, workspace.archive
    assert placement is not None
    if observed is None or observed.state is WorkspaceObserved.ABSENT:
        reason = "nothing of this user is left on the node"
        this_pass.releases.append(Release(workspace.id, placement.node_id, placement.epoch, reason))
        if workspace.restoration:
            _look_again(this_pass, workspace, reason, TURN_RETRY)
    elif observed.state is not WorkspaceObserved.PRESENT or observed.fingerprint is None:
        _look_again(this_pass, workspace, f"the workspace is {observed.state}", TRANSIT_RETRY)
    elif archive is None or archive.fingerprint != observed.fingerprint:
        _save_volume(this_pass, workspace, "no pod uses the workspace, and it is not saved yet")
    elif this_pass.now < archive.committed_at + this_pass.limits.archive_grace:
        left = archive.committed_at + this_pass.limits.archive_grace - this_pass.now
        _look_again(this_pass, workspace, "saved; the volume is kept a little longer", left)
    else:
        _volume_step(this_pass, workspace, RemoveWorkspace(proof=proof(archive)), "saved and verified")


def _save_volume_ahead(this_pass: _Pass, workspace: WorkspaceView, all_facts: list[Facts]) -> None:
    due_at = warm.volume_due_at(workspace, all_facts, this_pass.limits)
    if due_at is None or workspace.placement is None:
        return
    node = this_pass.nodes[workspace.placement.node_id]
    if this_pass.now < due_at:
        _look_again(this_pass, workspace, "all pods rest; saved ahead in a while", due_at - this_pass.now)
    elif not warm.has_room(node, this_pass.limits):
        _look_again(this_pass, workspace, f"{node.id} has more urgent things to do", CAPACITY_RETRY)
    else:
        _save_volume(this_pass, workspace, "all pods rest; the workspace is saved ahead")


def _save_volume(this_pass: _Pass, workspace: WorkspaceView, reason: str) -> None:
    archive = workspace.archive
    number = next_number(archive, workspace.archives_made)
    step = ArchiveWorkspace(number=number, base=source(archive) if archive else None)
    _volume_step(this_pass, workspace, step, reason)


def _look_again(this_pass: _Pass, workspace: WorkspaceView, reason: str, after: timedelta) -> None:
    decision = WorkspaceDecision(workspace.id, reason, this_pass.now + after)
    this_pass.workspace_decisions.append(decision)


def _volume_step(this_pass: _Pass, workspace: WorkspaceView, step: WorkspaceStep, reason: str) -> None:
    assert workspace.placement is not None
    failure = active_workspace_failure(workspace, this_pass.now)
    if failure is not None:
        text = f"{failure.verb} failed ({failure.code}): {failure.message}"
        this_pass.workspace_decisions.append(WorkspaceDecision(workspace.id, text, failure.retry_at))
        return
    hindrance = this_pass.hindrance(Verb(step.verb), workspace.placement.node_id)
    if hindrance is not None:
        _look_again(this_pass, workspace, hindrance[1], TURN_RETRY)
        return
    this_pass.add_step(
        PlannedStep(
            kind=TargetKind.WORKSPACE,
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            pod_id=None,
            node_id=workspace.placement.node_id,
            epoch=workspace.placement.epoch,
            generation=0,
            step=step,
            reason=reason,
        )
    )
    this_pass.workspace_decisions.append(WorkspaceDecision(workspace.id, reason))


# ---- pods ----------------------------------------------------------------------------------------------


def _plan_pod(this_pass: _Pass, facts: Facts, placed: bool) -> Decision:
    condition, reason = classify(facts)
    if condition is Condition.BUSY:
        _take_back_pod_step(this_pass, facts)
    elif condition is Condition.NEEDS_PLACEMENT:
        condition, reason = _placement_outcome(this_pass, placed)
    elif condition is Condition.NEEDS_WORKSPACE:
        condition, reason = _workspace_outcome(this_pass, facts)
    elif condition in STEPS:
        condition, reason = _pod_step(this_pass, facts, condition, reason)
    elif condition is Condition.SETTLED:
        _save_pod_ahead(this_pass, facts)
    if (line := pod_goes_back(facts)) is not None:
        this_pass.go_backs.append(line)
    condition, reason = in_words(facts, condition, reason)
    pod = facts.pod
    wake_at = wake(facts, condition)
    return Decision(pod.id, facts.workspace.id, pod.generation, condition, reason, wake_at)


def _take_back_pod_step(this_pass: _Pass, facts: Facts) -> None:
    action = facts.pod.open_action
    assert action is not None
    if not action.taken_back and action.verb not in WANTED_VERBS[facts.pod.desired]:
        reason = f"wanted {facts.pod.desired} now"
        this_pass.take_backs.append(TakeBack(action.id, reason))


def _save_pod_ahead(this_pass: _Pass, facts: Facts) -> None:
    """The pod stays settled: nobody waits for this, and a start takes it back."""
    due_at, placement = warm.pod_due_at(facts), facts.workspace.placement
    if due_at is None or placement is None or this_pass.now < due_at or facts.workspace.open_action:
        return
    if warm.has_room(this_pass.nodes[placement.node_id], this_pass.limits):
        _pod_step(this_pass, facts, Condition.NEEDS_ARCHIVE, "stopped as desired, and saved ahead")


def _placement_outcome(this_pass: _Pass, placed: bool) -> tuple[Condition, str]:
    if placed:
        return Condition.NEEDS_PLACEMENT, "being placed on a node"
    return Condition.WAITING_FOR_CAPACITY, why_no_room(this_pass.live_nodes())


def _workspace_outcome(this_pass: _Pass, facts: Facts) -> tuple[Condition, str]:
    failure = active_workspace_failure(facts.workspace, this_pass.now)
    if failure is not None:
        reason = f"{failure.verb} failed ({failure.code}, {failure.count}×): {failure.message}"
        return Condition.PARKED if failure.permanent else Condition.BACKING_OFF, reason
    return Condition.WAITING_FOR_WORKSPACE, "the user's workspace is being brought to the node"


def _pod_step(this_pass: _Pass, facts: Facts, condition: Condition, reason: str) -> tuple[Condition, str]:
    """Enqueue the step that the condition calls for, unless a bound holds it back."""
    step = STEPS[condition](facts.pod, this_pass.limits)
    workspace, pod = facts.workspace, facts.pod
    assert workspace.placement is not None
    hindrance = this_pass.hindrance(Verb(step.verb), workspace.placement.node_id)
    if hindrance is not None:
        return hindrance
    this_pass.add_step(
        PlannedStep(
            kind=TargetKind.POD,
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            pod_id=pod.id,
            node_id=workspace.placement.node_id,
            epoch=workspace.placement.epoch,
            generation=pod.generation,
            step=step,
            reason=reason,
        )
    )
    return condition, reason
