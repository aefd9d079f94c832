"""Results of actions, kept until the gateway has them safely, and which ones it has lately accepted."""

import time
from collections.abc import Callable, Iterable

from state.wire import RESULTS_PER_SYNC_MAX, StepResult

# Longer than a reply can be under way: until then an accepted action that comes again is an old copy.
REMEMBERED_S = 60.0


class Results:
    """Not safe to use from several threads: the agent holds its lock around each call."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._pending: dict[str, StepResult] = {}
        self._accepted_at_s: dict[str, float] = {}

    def add(self, result: StepResult) -> None:
        """Keep a result until it is accepted."""
        self._pending[result.action_id] = result

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
