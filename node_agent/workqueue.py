"""Which action may run now: one per target, bounded by kind, first come first served otherwise.

A workspace step runs alone in its workspace; steps of different pods of one workspace run side by side.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from state.wire import Action

_STARTS = frozenset({"start_pod"})
# Of so many targets the newest action is remembered.
TARGETS_REMEMBERED_MAX = 10_000
_UPLOADS = frozenset({"archive_pod", "archive_workspace"})


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many actions of a kind may run at a time (LAW 15)."""

    starts_max: int
    uploads_max: int
    queue_length_max: int


@dataclass(slots=True)
class Work:
    """An action in hand. `taken_back` is set when nobody wants it any more; `begun` once a worker has it;
    `waits` while it cannot go on before another has come to its end."""

    action: Action
    taken_back: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    waits: bool = False


class WorkQueue:
    """Actions in hand, waiting or begun. Safe to use from several threads."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._changed = threading.Condition()
        self._works: dict[str, Work] = {}
        self._closed = False
        self._newest_attempts: dict[str, int] = {}
        self._held: set[str] = set()

    def is_outdated(self, action: Action) -> bool:
        """A newer action of the same target was in hand before: this one is a late copy (LAW 10)."""
        with self._changed:
            return action.attempt < self._newest_attempts.get(action.target, 0)

    def offer(self, action: Action) -> bool:
        """Take an action in hand. False when it is in hand already, or the queue is full or closed."""
        with self._changed:
            full = len(self._works) >= self._lanes.queue_length_max
            if self._closed or full or action.id in self._works:
                return False
            self._works[action.id] = Work(action)
            self._remember(action)
            self._changed.notify()
            return True

    def take(self) -> Work | None:
        """Wait for an action that may run, and begin it. None once the queue is closed."""
        with self._changed:
            while not self._closed:
                work = next(filter(self.may_run, self._works.values()), None)
                if work is not None:
                    work.begun = True
                    return work
                self._changed.wait()
            return None

    def finish(self, work: Work) -> None:
        """The action is no longer in hand."""
        with self._changed:
            self._works.pop(work.action.id, None)
            for other in self._works.values():
                other.waits = False
            self._changed.notify_all()

    def put_back(self, work: Work, has_lane: Callable[[], bool]) -> None:
        """It was one of too many of its kind: it is begun again when another has come to its end, or at once
        if it has a lane by now."""
        with self._changed:
            work.begun, work.waits = False, not has_lane()
            self._changed.notify_all()

    def take_back(self, action_ids: Iterable[str]) -> tuple[str, ...]:
        """Forget what waits; tell what has begun to end as soon as it safely can. Returns those that have."""
        begun = []
        with self._changed:
            for action_id in action_ids:
                work = self._works.get(action_id)
                if work is None:
                    continue
                work.taken_back.set()
                if work.begun:
                    begun.append(action_id)
                else:
                    del self._works[action_id]
        return tuple(begun)

    @contextmanager
    def alone_in(self, workspace_id: str) -> Iterator[bool]:
        """While the block runs, nothing of the workspace begins. False where something has begun already."""
        with self._changed:
            free = workspace_id not in self._held and not any(
                work.begun and work.action.workspace_id == workspace_id for work in self._works.values()
            )
            if free:
                self._held.add(workspace_id)
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._held.discard(workspace_id)
                    self._changed.notify_all()

    def may_run(self, work: Work) -> bool:
        """Nothing that has begun stands in its way."""
        with self._changed:
            if work.begun or work.waits or work.action.workspace_id in self._held:
                return False
            begun = [other.action for other in self._works.values() if other.begun]
            excluded = any(_exclude(work.action, other) for other in begun)
            return not excluded and self._has_lane(work.action, begun)

    def in_hand(self) -> tuple[Work, ...]:
        """All actions in hand, oldest first."""
        with self._changed:
            return tuple(self._works.values())

    def close(self) -> None:
        """Hand out no more work; what waits is forgotten and will be asked for again."""
        with self._changed:
            self._closed = True
            self._works = {key: work for key, work in self._works.items() if work.begun}
            self._changed.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is in hand."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._works, timeout_s)

    def _remember(self, action: Action) -> None:
        reached = self._newest_attempts.pop(action.target, 0)
        self._newest_attempts[action.target] = max(action.attempt, reached)
        if len(self._newest_attempts) > TARGETS_REMEMBERED_MAX:
            del self._newest_attempts[next(iter(self._newest_attempts))]

    def _has_lane(self, action: Action, begun: list[Action]) -> bool:
        for verbs, at_once_max in ((_STARTS, self._lanes.starts_max), (_UPLOADS, self._lanes.uploads_max)):
            if action.step.verb in verbs:
                return sum(other.step.verb in verbs for other in begun) < at_once_max
        return True


def _exclude(one: Action, other: Action) -> bool:
    if one.workspace_id != other.workspace_id:
        return False
    return one.pod_id is None or other.pod_id is None or one.pod_id == other.pod_id
