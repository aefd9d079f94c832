"""Which one condition holds for a pod: an ordered table of rules, first match wins. Pure.

A rule looks only at `Facts`: the pod, its workspace, its node, the clock. What follows from a condition is
`reconciler.plan`'s business. The last rules match everything, so every pod has exactly one condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from reconciler import failover
from state.backoff import live_failure
from state.model import (
    Desired,
    Failure,
    Limits,
    NodeView,
    Observed,
    PodView,
    Verb,
    WorkspaceObserved,
    WorkspaceView,
)
from state.plan import Condition

_UP = frozenset({Observed.RUNNING, Observed.STARTING, Observed.FAILED})

# The open actions each desired state can live with; any other is taken back.
WANTED_VERBS: dict[Desired, frozenset[Verb]] = {
    Desired.RUNNING: frozenset({Verb.CREATE_POD, Verb.RESTORE_POD, Verb.START_POD}),
    # Saving keeps the container: it is done ahead of time, or was wanted a moment ago and does no harm.
    Desired.STOPPED: frozenset({Verb.RESTORE_POD, Verb.STOP_POD, Verb.ARCHIVE_POD}),
    Desired.ARCHIVED: frozenset({Verb.STOP_POD, Verb.ARCHIVE_POD, Verb.REMOVE_POD}),
    Desired.DELETED: frozenset({Verb.STOP_POD, Verb.REMOVE_POD}),
}


def is_silent(node: NodeView | None, leading_since: datetime, now: datetime, limits: Limits) -> bool:
    """No word for too long, counted on our clock; a fresh leader grants every node a new lease (LAW 13)."""
    if node is None:
        return True
    heard = max(node.last_seen_at or leading_since, leading_since)
    return now - heard > limits.node_silent_after


def active_failure(failure: Failure | None, generation: int, now: datetime) -> Failure | None:
    """The failure that still holds a step back: of this generation, and its time not yet come."""
    if failure and failure.generation == generation and failure.retry_at > now:
        return failure
    return None


def active_workspace_failure(workspace: WorkspaceView, now: datetime) -> Failure | None:
    """The failure that still holds the workspace's steps back; a wish that came after it makes it void."""
    return active_failure(live_failure(workspace.failure, workspace.wished_at), 0, now)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the rules may look at for one pod."""

    pod: PodView
    workspace: WorkspaceView
    node_silent: bool
    now: datetime
    limits: Limits
    # Why the node's agent cannot see what is on it.
    engine_error: str | None = None
    node_heard_at: datetime | None = None

    @property
    def state(self) -> Observed:
        """What is on the node; nothing reported at this placement is nothing there."""
        return self.pod.observed.state if self.pod.observed else Observed.ABSENT

    @property
    def failure(self) -> Failure | None:
        """The failure that holds this pod back now, if any."""
        return active_failure(self.pod.failure, self.pod.generation, self.now)

    @property
    def workspace_present(self) -> bool:
        """The user's volume is there to be mounted."""
        observed = self.workspace.observed
        return observed is not None and observed.state is WorkspaceObserved.PRESENT

    @property
    def must_exist(self) -> bool:
        """A container is wanted where none is: the pod has to be made or brought back."""
        if self.state is not Observed.ABSENT:
            return False
        wanted_stopped = self.pod.desired is Desired.STOPPED and self.pod.archive is not None
        return self.pod.desired is Desired.RUNNING or wanted_stopped

    @property
    def archived_as_is(self) -> bool:
        """The newest archive was made of exactly the container that is there."""
        pod = self.pod
        if pod.archive is None or pod.observed is None or pod.observed.fingerprint is None:
            return False
        return pod.archive.fingerprint == pod.observed.fingerprint


@dataclass(frozen=True, slots=True)
class Rule:
    """When `holds`, the pod is in `condition`, for the reason that `why` words for people."""

    condition: Condition
    holds: Callable[[Facts], bool]
    why: Callable[[Facts], str]


def _why_busy(facts: Facts) -> str:
    action = facts.pod.open_action
    assert action is not None
    doing = action.verb.removesuffix("_pod")
    if action.taken_back:
        return f"{doing} was taken back; waiting for {action.node_id} to say that it has ended"
    return f"{doing} is under way on {action.node_id}"


def _why_silent(facts: Facts) -> str:
    node = facts.workspace.placement.node_id if facts.workspace.placement else "its node"
    since = f" since {facts.node_heard_at:%H:%M:%S} UTC" if facts.node_heard_at else ""
    if facts.node_heard_at and failover.is_awaited(facts.workspace):
        at = facts.node_heard_at + facts.limits.failover_after
        return (
            f"{node} has not been heard from{since}; at {at:%H:%M:%S} UTC the pod goes on elsewhere, from its"
            " last archive"
        )
    return (
        f"{node} has not been heard from{since}; waiting for it, because the newest files are on its disk"
        f" and starting elsewhere would fork them. If it is gone for good: podctl nodes lost {node}"
    )


def _why_engine_away(facts: Facts) -> str:
    node = facts.workspace.placement.node_id if facts.workspace.placement else "its node"
    return (
        f"the agent of {node} cannot see its containers, so nothing is concluded and nothing is done there:"
        f" {facts.engine_error}"
    )


def _why_failed(facts: Facts) -> str:
    failure = facts.failure
    assert failure is not None
    doing = failure.verb.removesuffix("_pod")
    retry = failure.retry_at.strftime("%H:%M:%S UTC")
    return f"{doing} failed ({failure.code}, {failure.count}×): {failure.message} Next try at {retry}."


def _says(text: str) -> Callable[[Facts], str]:
    return lambda _facts: text


def _desired(*states: Desired) -> Callable[[Facts], bool]:
    return lambda facts: facts.pod.desired in states


def _in_grace(facts: Facts) -> bool:
    archive = facts.pod.archive
    return archive is not None and facts.now < archive.committed_at + facts.limits.archive_grace


def _is_going(facts: Facts) -> bool:
    return facts.pod.desired in (Desired.STOPPED, Desired.ARCHIVED, Desired.DELETED)


def _settled_reason(facts: Facts) -> str:
    if facts.state is Observed.ABSENT:
        number = f" as number {facts.pod.archive.number}" if facts.pod.archive else ""
        return {
            Desired.ARCHIVED: f"archived{number}; no node holds it",
            Desired.DELETED: "deleted; no node holds it",
        }.get(facts.pod.desired, "nothing to do: it was never started")
    return f"{facts.pod.desired} as desired"


RULES: tuple[Rule, ...] = (
    Rule(Condition.NODE_SILENT, lambda f: f.workspace.placement is not None and f.node_silent, _why_silent),
    Rule(Condition.ENGINE_AWAY, lambda f: f.engine_error is not None, _why_engine_away),
    Rule(Condition.BUSY, lambda f: f.pod.open_action is not None, _why_busy),
    Rule(Condition.PARKED, lambda f: f.failure is not None and f.failure.permanent, _why_failed),
    Rule(Condition.BACKING_OFF, lambda f: f.failure is not None, _why_failed),
    Rule(
        Condition.NEEDS_PLACEMENT,
        lambda f: f.must_exist and f.workspace.placement is None,
        _says("wanted, and not placed on a node yet"),
    ),
    Rule(
        Condition.NEEDS_WORKSPACE,
        lambda f: f.must_exist and not f.workspace_present,
        _says("wanted, and the user's workspace is not on the node yet"),
    ),
    Rule(
        Condition.NEEDS_RESTORE,
        lambda f: f.must_exist and f.pod.archive is not None,
        _says("wanted, and is in the archive"),
    ),
    Rule(Condition.NEEDS_CREATE, lambda f: f.must_exist, _says("wanted, and has no container yet")),
    Rule(Condition.SETTLED, lambda f: f.state is Observed.ABSENT, _settled_reason),
    Rule(
        Condition.IN_TRANSIT,
        lambda f: f.state not in (_UP | {Observed.STOPPED}),
        lambda f: f"the node is still {f.state}",
    ),
    Rule(
        Condition.SETTLED,
        lambda f: f.pod.desired is Desired.RUNNING and f.state is Observed.RUNNING,
        _settled_reason,
    ),
    Rule(
        Condition.NEEDS_START,
        _desired(Desired.RUNNING),
        lambda f: f"wanted running, and is {f.state}",
    ),
    Rule(
        Condition.NEEDS_STOP,
        lambda f: _is_going(f) and f.state in _UP,
        lambda f: f"wanted {f.pod.desired}, and is {f.state}",
    ),
    Rule(Condition.SETTLED, _desired(Desired.STOPPED), _settled_reason),
    Rule(Condition.NEEDS_REMOVAL, _desired(Desired.DELETED), _says("deleted; its container is still there")),
    Rule(
        Condition.NEEDS_ARCHIVE,
        lambda f: not f.archived_as_is,
        _says("wanted archived, and what is on the node is not saved yet"),
    ),
    Rule(
        Condition.IN_GRACE,
        _in_grace,
        _says("saved; the container is kept a little longer, in case it is wanted again"),
    ),
    Rule(
        Condition.NEEDS_REMOVAL,
        lambda _facts: True,
        _says("saved and verified; its container may leave the node"),
    ),
)


def classify(facts: Facts) -> tuple[Condition, str]:
    """The pod's condition, and the reason in words for people."""
    rule = next(rule for rule in RULES if rule.holds(facts))
    return rule.condition, rule.why(facts)
