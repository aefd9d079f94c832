"""What became of actions: kept until the gateway has it, and then remembered, so that none is done twice."""

from collections.abc import Iterable

from node_agent.facts import agent_version
from state.wire import CANCELLED, RESULTS_PER_SYNC_MAX, Action, StepFailed, StepResult, UnreadableAction

# Of so many answered actions, the newest, the answer is known: a copy of one may come late, and must not be
# begun again. A node has 64 open at a time.
ANSWERS_REMEMBERED_MAX = 10_000


class Results:
    """Not safe to use from several threads: the agent holds its lock around each call."""

    def __init__(self) -> None:
        self._pending: dict[str, StepResult] = {}
        self._accepted: dict[str, StepResult] = {}

    def add(self, result: StepResult) -> None:
        """Keep a result until it is accepted."""
        self._pending[result.action_id] = result

    def answer_again(self, action_id: str) -> bool:
        """Whether the action was answered: then the same answer is sent again, should it have been lost.

        The gateway's database may have been set back, or this is a late copy of what was done long ago.
        """
        if action_id in self._accepted:
            self.add(self._accepted[action_id])
        return action_id in self._pending

    def cancel(self, action_id: str) -> None:
        """Answer that the action was not done, or not all of it; unless it was answered already."""
        if not self.answer_again(action_id):
            message = "The step was taken back. What it had done by then, the report shows."
            self.add(StepFailed(action_id=action_id, code=CANCELLED, message=message))

    def pending(self) -> tuple[StepResult, ...]:
        """The oldest results that are not accepted yet, as many as one sync carries."""
        return tuple(self._pending.values())[:RESULTS_PER_SYNC_MAX]

    def ids(self) -> tuple[str, ...]:
        """Of all pending results."""
        return tuple(self._pending)

    def accept(self, action_ids: Iterable[str]) -> None:
        """The gateway has these."""
        for action_id in action_ids:
            result = self._pending.pop(action_id, None)
            if result is not None:
                self._accepted[action_id] = result
        while len(self._accepted) > ANSWERS_REMEMBERED_MAX:
            del self._accepted[next(iter(self._accepted))]


def outdated(action: Action) -> StepFailed:
    """An answer, not silence: should the database have been set back, it is planned anew."""
    message = f"A newer step of {action.target} was begun before this one arrived. It was not done."
    return StepFailed(action_id=action.id, code="superseded", message=message)


def unknown(unread: UnreadableAction) -> StepFailed:
    """Not permanent: the next agent may know it."""
    message = (
        f"The agent of this node ({agent_version()}) does not know this step of a newer control plane "
        f"({unread.why}). It was not done. Nothing is lost: upgrade the node's agent."
    )
    return StepFailed(action_id=unread.id, code="step_unknown", message=message)
