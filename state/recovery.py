"""`recover`: from any stuck or failed state, say what was found, save what is there, and start anew.

Always safe: nothing is deleted. A pod that only failed is tried again at once. One whose container does not
work is saved, and made anew from just that. What no wish can change (a node that is not heard, a damaged
archive) is told, with what can be done about it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from state.alarms import Alarm, open_alarms
from state.backoff import KEEPS_FAILING
from state.chores import make_chore
from state.database import Connection, Database, act_as
from state.generations import Generation, ask_anew, list_generations
from state.model import Desired, Failure, Verb
from state.plan import Condition
from state.pods import PodDeleted, PodNotFound, PodStatus, get_pod
from state.scrubs import SCRUB
from state.sweeps import store_id

# States in which a node holds a container that may have something in it.
_HELD = frozenset({"running", "starting", "stopping", "stopped", "failed"})
# Recovered copies that are named at a time; `podctl archives` shows all.
COPIES_TOLD_MAX = 5
_WISHED = frozenset({Desired.RUNNING, Desired.STOPPED})

_ASK_AGAIN = "UPDATE pod SET asked_again = asked_again + 1, desired_reason = %s WHERE id = %s"
_LOCK = "SELECT 1 FROM workspace WHERE id = %s FOR NO KEY UPDATE"
_DAMAGED = """
    SELECT a.id, a.manifest_key, a.manifest_digest FROM archive a
     WHERE a.suspect_at IS NOT NULL AND a.retired_at IS NULL AND a.target_id IN (%s, %s)
"""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found, what was done about it at once, and what only somebody else can do."""

    found: tuple[str, ...]
    done: tuple[str, ...]
    advice: tuple[str, ...]


def recover(db: Database, pod_id: str, *, actor: str) -> Recovery:
    """See the module. Safe to repeat. Raises `PodNotFound`, `PodDeleted`."""
    status = get_pod(db, pod_id)
    if status is None:
        raise PodNotFound(f"No pod has the id {pod_id[:100]}.")
    if status.desired is Desired.DELETED:
        raise PodDeleted(f"Pod {pod_id} was deleted, and does not come back. The user's files stay.")
    alarms = open_alarms(db, pod_id=pod_id)
    found = tuple(_found(status, alarms))
    with db.transaction() as connection:
        act_as(connection, actor)
        connection.execute(_LOCK, (status.workspace_id,))
        done = tuple(_act(connection, status, actor))
    return Recovery(found or ("Nothing is wrong.",), done, tuple(_advice(db, status, alarms)))


def is_broken(actual: str, failure: Failure | None) -> bool:
    """The container is there and does not work, so that trying the same again cannot be expected to help."""
    if actual == "failed":
        return True
    fails_to_start = failure is not None and failure.verb is Verb.START_POD and failure.count >= KEEPS_FAILING
    return actual in _HELD and fails_to_start


def _found(status: PodStatus, alarms: Sequence[Alarm]) -> Iterator[str]:
    if status.failure is not None:
        failure = status.failure
        yield f"{failure.verb} failed {failure.count} times ({failure.code}): {failure.message}"
    elif status.condition in _STUCK and status.reason:
        yield f"{status.reason[:1].upper()}{status.reason[1:]}."
    if status.actual == "failed":
        yield "Its container is there, and does not answer."
    for alarm in alarms:
        yield alarm.message


_STUCK = frozenset(
    {
        Condition.PARKED,
        Condition.BACKING_OFF,
        Condition.NODE_SILENT,
        Condition.ENGINE_AWAY,
        Condition.WAITING_FOR_CAPACITY,
        Condition.WITHHELD,
    }
)


def _act(connection: Connection, status: PodStatus, actor: str) -> Iterator[str]:
    broken = status.desired in _WISHED and is_broken(status.actual, status.failure)
    if broken and ask_anew(connection, status.id, status.workspace_id, actor):
        connection.execute(_ASK_AGAIN, ("recovering: saved, and made anew", status.id))
        yield "It is saved as it is, and then made anew from just that."
    elif status.failure is not None or status.condition == Condition.PARKED:
        connection.execute(_ASK_AGAIN, ("recovering: tried again", status.id))
        yield "What failed is tried again at once."
    for row in connection.execute(_DAMAGED, (status.id, status.workspace_id)).fetchall():
        request = {
            "store_id": store_id(connection),
            "manifest_key": row["manifest_key"],
            "manifest_digest": row["manifest_digest"],
        }
        _, new = make_chore(connection, SCRUB, row["id"], request, made_by=actor, pod_id=status.id)
        if new:
            yield f"The damaged archive {row['id']} is read once more."


def _advice(db: Database, status: PodStatus, alarms: Sequence[Alarm]) -> Iterator[str]:
    if status.condition == Condition.NODE_SILENT:
        yield (
            f"The newest files are on {status.node_id}, which is not heard of: bring it back. If it will "
            f"never come back, `podctl nodes lost {status.node_id}`: then the pod comes back from its last "
            "archive."
        )
    if status.condition == Condition.ENGINE_AWAY:
        yield f"Start the container engine of {status.node_id}, or look at its agent's log."
    if status.condition == Condition.WAITING_FOR_CAPACITY:
        yield "Add a node, uncordon one, or put other pods away."
    if status.failure is not None and status.failure.permanent:
        yield "What failed was not expected to work by trying again: put its cause right first."
    kept = [one for one in list_generations(db, status.id) if one.suspect_at is None]
    yield from _copies(status, kept)
    if alarms and kept:
        numbers = ", ".join(str(one.number) for one in kept if one.target_kind == "pod")
        yield f"It can go back to archive number {numbers or 'none'}: `podctl restore {status.id} --at N`."


def _copies(status: PodStatus, kept: Sequence[Generation]) -> Iterator[str]:
    """What is pointed at by nothing, and would otherwise be found by nobody: the newest few of it."""
    aside = [one for one in kept if one.recovered and not one.current]
    for one in aside[:COPIES_TOLD_MAX]:
        whose, what = ("the pod", "pod") if one.target_kind == "pod" else ("the user's files", "workspace")
        yield (
            f"There is a copy of {whose} that nothing uses, number {one.number}, of "
            f"{one.committed_at:%Y-%m-%d %H:%M:%S} UTC from {one.node_id}: "
            f"`podctl restore {status.id} --what {what} --at {one.number}`."
        )
