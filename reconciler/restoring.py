"""Going back to an earlier archive: what is there now is saved first, then the pointer moves. Pure.

While a restoration is open, the pod (or all pods of the workspace) is planned as if archived were wished: so
what it holds is stopped, archived and removed under the usual proofs. Only when nothing is left on a node
does the pointer move, by compare-and-set; after that the usual rules bring the pod back, from the earlier
archive.
"""

from dataclasses import replace

from reconciler.classify import Facts
from state.model import Desired, Observed, WorkspaceView
from state.plan import Condition, GoBack

_PUT_ASIDE = frozenset({Desired.RUNNING, Desired.STOPPED})


def put_aside(workspace: WorkspaceView) -> WorkspaceView:
    """The workspace with those of its pods wished archived that go back, or whose files do."""
    pods = tuple(
        replace(pod, desired=Desired.ARCHIVED)
        if pod.desired in _PUT_ASIDE and (pod.restoration or workspace.restoration)
        else pod
        for pod in workspace.pods
    )
    return replace(workspace, pods=pods)


def goes_back(facts: Facts) -> bool:
    """The pod itself goes back, whatever becomes of the user's files."""
    return facts.pod.restoration is not None and facts.pod.desired is not Desired.DELETED


def workspace_goes_back(workspace: WorkspaceView) -> GoBack | None:
    """The files' pointer may move: no node holds them, and nothing is under way."""
    wish = workspace.restoration
    busy = workspace.open_action is not None or any(pod.open_action for pod in workspace.pods)
    if wish is None or workspace.placement is not None or busy:
        return None
    before = workspace.archive.id if workspace.archive else None
    reason = f"the files go back to archive number {wish.number}"
    return GoBack(workspace.id, None, wish.id, before, reason)


def pod_goes_back(facts: Facts) -> GoBack | None:
    """The pod's pointer may move: it has no container, and nothing is under way."""
    pod, wish = facts.pod, facts.pod.restoration
    unseen = facts.workspace.placement is not None and (facts.node_silent or facts.engine_error)
    gone = facts.state is Observed.ABSENT and pod.open_action is None
    if wish is None or unseen or not gone or pod.desired is Desired.DELETED:
        return None
    before = pod.archive.id if pod.archive else None
    reason = f"goes back to archive number {wish.number}" if wish.archive_id else "is made anew"
    return GoBack(facts.workspace.id, pod.id, wish.id, before, reason)


def in_words(facts: Facts, condition: Condition, reason: str) -> tuple[Condition, str]:
    """What is said of a pod that goes back, or whose files do: never that nothing is left to do."""
    wish, whose = facts.pod.restoration, "it"
    if wish is None:
        wish, whose = facts.workspace.restoration, "the user's files"
    if wish is None or facts.pod.desired is Desired.DELETED:
        return condition, reason
    goal = f"{whose} go{'es' * (whose == 'it')} back to archive number {wish.number}"
    if wish.archive_id is None:
        goal = "it is made anew"
    if condition is Condition.SETTLED:
        return Condition.GOING_BACK, f"{goal}; what was there is saved"
    return condition, f"{goal}, and what is there is saved first: {reason}"
