"""Chores on a node: a small pool beside the actions, which never keeps a user waiting.

One worker by default, at a low priority, and with a bound on the bytes that it reads and writes a second. A
chore that stops half way, in whatever way, is given again, to this node or another: handlers must be safe to
repeat.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from node_agent.errors import StepError
from node_agent.store import Store, StoreError
from state.chore_wire import (
    CHORE_MESSAGE_LENGTH_MAX,
    CHORES_PER_SYNC_MAX,
    Chore,
    ChoreDone,
    ChoreFailed,
    ChoreHandle,
    ChoreProgress,
    ChoreResult,
    ChoresDown,
    ChoresUp,
    Payload,
)

# Of the usual -20 to 19: users' own programs come first.
NICENESS = 15
PROGRESS_EVERY_S = 2.0
# A reader may be ahead of its budget by this much, so that small chores are not slowed down at all.
BURST_S = 1.0

log = structlog.get_logger(__name__)


class ChoreError(Exception):
    """A chore could not be done. `permanent`: trying again cannot help. `detail` is as its kind has it."""

    def __init__(
        self, message: str, *, code: str, permanent: bool = False, detail: Payload | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent
        self.detail = detail or {}


class ChoreDropped(Exception):
    """Nobody wants it of this node any more. It ends without a result."""


class Budget:
    """So many bytes a second, shared by all chores of a node.

    Raises ChoreDropped from a wait that is ended.
    """

    def __init__(self, bytes_per_s: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._paid_until_s = 0.0

    def spend(self, count_bytes: int, dropped: threading.Event) -> None:
        """Wait until these bytes may have been moved."""
        with self._lock:
            now = self._clock_s()
            begun = max(self._paid_until_s, now - BURST_S)
            self._paid_until_s = begun + count_bytes / self._bytes_per_s
            wait_s = self._paid_until_s - now
        if wait_s > 0 and dropped.wait(wait_s):
            raise ChoreDropped
        if dropped.is_set():
            raise ChoreDropped


@dataclass(frozen=True, slots=True)
class ChoreContext:
    """What a handler works with."""

    store: Store
    chore: Chore
    budget: Budget
    dropped: threading.Event
    note: Callable[[str, int, int | None], None]

    def spend(self, count_bytes: int) -> None:
        """Before or after moving bytes: waits for the budget. Raises ChoreDropped when it is not wanted."""
        self.budget.spend(count_bytes, self.dropped)

    def check(self) -> None:
        """Raises ChoreDropped when it is not wanted any more. To be asked before each effect."""
        if self.dropped.is_set():
            raise ChoreDropped


# Raises ChoreError, StepError, StoreError or ChoreDropped; anything else is told as internal_error.
Handler = Callable[[ChoreContext], Payload]


@dataclass(slots=True)
class _Work:
    chore: Chore
    dropped: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    progress: ChoreProgress | None = None


class ChoreRunner:
    """The node's chores, waiting, begun, and done but not accepted yet. Safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        *,
        at_once_max: int,
        bytes_per_s_max: int,
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._handlers = dict(handlers)
        self._at_once_max = at_once_max
        self._budget = Budget(bytes_per_s_max)
        self._changed = changed
        self._lock = threading.Condition()
        self._works: dict[ChoreHandle, _Work] = {}
        self._results: dict[ChoreHandle, ChoreResult] = {}
        self._told_at_s = 0.0
        self._closed = False

    # ---- towards the gateway -------------------------------------------------------------------------------

    def up(self) -> ChoresUp:
        """What to say at the next sync."""
        with self._lock:
            results = tuple(self._results.values())[:CHORES_PER_SYNC_MAX]
            free = 0 if self._closed else max(0, self._at_once_max - len(self._works))
            return ChoresUp(
                kinds=tuple(sorted(self._handlers)) if self._at_once_max else (),
                wanted=free,
                held=(*self._works, *self._results)[:CHORES_PER_SYNC_MAX],
                results=results,
                progress=tuple(work.progress for work in self._works.values() if work.progress),
            )

    def down(self, told: ChoresDown) -> None:
        """What the gateway said."""
        with self._lock:
            for handle in told.accepted:
                self._results.pop(handle, None)
            for handle in told.dropped:
                self._drop(handle)
            for chore in told.given:
                if not self._closed and chore.handle not in self._works and chore.kind in self._handlers:
                    self._results.pop(chore.handle, None)
                    self._works[chore.handle] = _Work(chore)
                    log.info("chore.taken", chore=chore.id, kind=chore.kind, subject=chore.subject)
            self._lock.notify_all()

    def _drop(self, handle: ChoreHandle) -> None:
        self._results.pop(handle, None)
        work = self._works.get(handle)
        if work is not None:
            work.dropped.set()
            if not work.begun:
                del self._works[handle]

    # ---- working -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """One worker, until `close`."""
        _be_nice()
        while (work := self._take()) is not None:
            self.do(work)

    def close(self) -> None:
        """Take no more; what has begun ends at its next look, and is given again."""
        with self._lock:
            self._closed = True
            for work in self._works.values():
                work.dropped.set()
            self._lock.notify_all()

    def may_run(self) -> bool:
        """Whether something waits for a worker."""
        with self._lock:
            return any(not work.begun for work in self._works.values())

    def take_now(self) -> _Work | None:
        """What waits for a worker, now begun; None when nothing does."""
        with self._lock:
            work = next((work for work in self._works.values() if not work.begun), None)
            if work is not None:
                work.begun = True
            return work

    def _take(self) -> _Work | None:
        with self._lock:
            while not self._closed:
                work = self.take_now()
                if work is not None:
                    return work
                self._lock.wait()
            return None

    def do(self, work: _Work) -> None:
        """One chore, to its result."""
        result = self._outcome(work)
        with self._lock:
            self._works.pop(work.chore.handle, None)
            if result is not None and not work.dropped.is_set():
                self._results[work.chore.handle] = result
        self._changed()

    def _outcome(self, work: _Work) -> ChoreResult | None:
        chore = work.chore
        logger = log.bind(chore=chore.id, kind=chore.kind, subject=chore.subject, attempt=chore.attempt)
        context = ChoreContext(self._store, chore, self._budget, work.dropped, self._noter(work))
        try:
            result = self._handlers[chore.kind](context)
        except ChoreDropped:
            logger.info("chore.dropped")
            return None
        except ChoreError as error:
            failed = _failed(chore, error.code, str(error), error.permanent, error.detail)
        except StepError as error:
            failed = _failed(chore, error.code, error.message, error.permanent)
        except StoreError as error:
            failed = _failed(chore, error.code, str(error), permanent=False)
        except Exception as error:  # one bad thing stays one bad thing (LAW 12)
            logger.exception("chore.broke")
            message = f"The agent met an error it did not expect ({type(error).__name__}: {error})."
            failed = _failed(chore, "internal_error", message, permanent=False)
        else:
            logger.info("chore.done")
            return ChoreDone(chore=chore.handle, result=result)
        logger.warning("chore.failed", code=failed.code, permanent=failed.permanent, why=failed.message)
        return failed

    def _noter(self, work: _Work) -> Callable[[str, int, int | None], None]:
        def note(phase: str, done_bytes: int, total_bytes: int | None) -> None:
            work.progress = ChoreProgress(
                chore=work.chore.handle, phase=phase, done_bytes=done_bytes, total_bytes=total_bytes
            )
            now = time.monotonic()
            if now - self._told_at_s > PROGRESS_EVERY_S:
                self._told_at_s = now
                self._changed()

        return note


def _failed(
    chore: Chore, code: str, message: str, permanent: bool, detail: Payload | None = None
) -> ChoreFailed:
    return ChoreFailed(
        chore=chore.handle,
        code=code,
        message=message[:CHORE_MESSAGE_LENGTH_MAX],
        permanent=permanent,
        detail=detail or {},
    )


def _be_nice() -> None:
    """This thread only: on Linux priorities are of threads."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
