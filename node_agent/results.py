"""Results of actions, kept until the gateway has them safely, and which actions must not be begun again."""

import time
from collections.abc import Callable, Iterable

from state.wire import CANCELLED, RESULTS_PER_SYNC_MAX, StepFailed, StepResult

# Longer than a reply can be under way: until then an accepted action that comes again is an old copy.
REMEMBERED_S = 60.0
# What was taken back must never be begun again by a late copy: of so many actions, the newest, it is known.
CANCELLED_REMEMBERED_MAX = 10_000


class Results:
    """Not safe to use from several threads: the agent holds its lock around each call."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._pending: dict[str, StepResult] = {}
        self._accepted_at_s: dict[str, float] = {}
        self._cancelled: dict[str, None] = {}

    def add(self, result: StepResult) -> None:
        """Keep a result until it is accepted."""
        self._pending[result.action_id] = result

    def cancel(self, action_id: str) -> None:
        """Answer that the action was not done, or not all of it; unless its result is there already."""
        if action_id in self._pending or self.lately_accepted(action_id):
            return
        message = "The step was taken back. What it had done by then, the report shows."
        self.add(StepFailed(action_id=action_id, code=CANCELLED, message=message))
        self._cancelled[action_id] = None
        if len(self._cancelled) > CANCELLED_REMEMBERED_MAX:
            del self._cancelled[next(iter(self._cancelled))]

    def was_cancelled(self, action_id: str) -> bool:
        """It was answered for: whoever hands it out again has not heard."""
        return action_id in self._cancelled

    def pending(self) -> tuple[StepResult, ...]:
        """The oldest results that are not accepted yet, as many as one sync carries."""
        return tuple(self._pending.values())[:RESULTS_PER_SYNC_MAX]

    def ids(self) -> tuple[str, ...]:
        """Of all pending results."""
        return tuple(self._pending)

    def accept(self, action_ids: Iterable[str]) -> None:
        """The gateway has these."""
        now = self._clock_s()
        for action_id in action_ids:
            if self._pending.pop(action_id, None) is not None:
                self._accepted_at_s[action_id] = now
        self._accepted_at_s = {k: at for k, at in self._accepted_at_s.items() if now - at < REMEMBERED_S}

    def forget(self, action_id: str) -> None:
        """The action is asked for again: the answer must be looked up anew."""
        self._pending.pop(action_id, None)

    def lately_accepted(self, action_id: str) -> bool:
        """Its result reached the gateway a moment ago, so that this copy is a late one."""
        at = self._accepted_at_s.get(action_id)
        return at is not None and self._clock_s() - at < REMEMBERED_S
