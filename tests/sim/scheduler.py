"""One thread, one virtual clock, one seeded choice of who runs next: actors are greenlets.

An actor runs until its next port call; there the scheduler may kill its process, stop it for a while, or
give it an error before or after the effect. A killed process has no effects any more, also not those of its
`finally` blocks: every port call of a dead process raises `Killed` again.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from tests.sim.schedule import ANY_ACTOR, ANY_EFFECT, DUPLICATE_LATE, TOUCH, Fault

T = TypeVar("T")
STEP_S = 0.004
NEVER_S = float("inf")
LAST_LINES = 60
# Where a request outlives its sender, and for how long at most.
REMOTE = ("docker.", "store.commit", "store.put_manifest", "net.sync")
LATE_S_MAX = 5.0
# A message may be held up for longer.
LATE_MESSAGE_S_MAX = 170.0


class Killed(BaseException):
    """kill -9: nothing that production code catches."""


@dataclass(eq=False)
class Process:
    """What is killed and stopped as one: an agent with its threads, a reconciler."""

    name: str
    birth: int = 0
    dead: bool = False
    paused_until_s: float = 0.0


@dataclass(eq=False)
class Actor:
    """One thread of a process."""

    name: str
    process: Process
    greenlet: greenlet
    wake_at_s: float = 0.0
    ready: Callable[[], bool] | None = None


@dataclass(eq=False)
class Armed:
    """A fault that waits for its call."""

    fault: Fault
    left: int


@dataclass(eq=False)
class Scheduler:
    """Runs actors, one step at a time, by a seeded choice."""

    seed: int
    on_kill: Callable[[Process], None] = lambda _process: None
    on_zombie: Callable[[Process], None] = lambda _process: None
    on_touch: Callable[[Process, str], None] = lambda _process, _detail: None
    now_s: float = 0.0
    steps: int = 0
    effects: int = 0
    actors: list[Actor] = field(default_factory=list)
    armed: list[Armed] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    echo: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self.random = Random(f"noise {self.seed}")
        self._running = hashlib.sha256()
        self._main = getcurrent()
        self._current: Actor | None = None

    # ---- what the world asks -------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """Of everything that happened, in order."""
        return self._running.hexdigest()

    def tell(self, line: str) -> None:
        """One line of the trace."""
        text = f"{self.steps} {self.now_s:.3f} {line}"
        self._running.update(text.encode())
        self.last_lines.append(text)
        if self.echo is not None:
            self.echo(text)

    def spawn(
        self,
        process: Process,
        name: str,
        body: Callable[[], None],
        ready: Callable[[], bool] | None = None,
    ) -> None:
        """A new thread of a process; with `ready`, it takes its first step only once that holds."""

        def run() -> None:
            try:
                body()
            except Killed:
                return

        starts_at_s = 0.0 if ready is None else NEVER_S
        self.actors.append(Actor(name, process, greenlet(run, parent=self._main), starts_at_s, ready))

    def kill(self, process: Process) -> None:
        """Now, wherever it is."""
        if not process.dead:
            process.dead = True
            self.tell(f"{process.name} killed")
            self.on_kill(process)

    def step(self) -> bool:
        """Let one actor run to its next port call. False when nobody will ever run again."""
        actor = self._choose()
        if actor is None:
            return False
        self.steps += 1
        self.now_s += STEP_S
        self._current = actor
        actor.greenlet.switch()
        self._current = None
        if actor.greenlet.dead:
            self.actors.remove(actor)
        return True

    def _choose(self) -> Actor | None:
        runnable = [actor for actor in self.actors if self._may_run(actor)]
        while not runnable:
            times = [
                time_s
                for actor in self.actors
                for time_s in (actor.wake_at_s, actor.process.paused_until_s)
                if self.now_s < time_s < NEVER_S
            ]
            if not times:
                return None
            self.now_s = min(times)
            runnable = [actor for actor in self.actors if self._may_run(actor)]
        return runnable[int(self.random.random() * len(runnable))]

    def _may_run(self, actor: Actor) -> bool:
        if actor.process.dead:
            return True
        if actor.process.paused_until_s > self.now_s:
            return False
        if actor.ready is not None and actor.ready():
            return True
        return actor.wake_at_s <= self.now_s

    # ---- what actors ask -----------------------------------------------------------------------------------

    @property
    def me(self) -> Actor:
        """The actor that runs now."""
        assert self._current is not None
        return self._current

    @property
    def actor_name(self) -> str:
        """Of the actor that runs now; "" when the world itself acts."""
        return self._current.name if self._current else ""

    def _yield(self, wake_at_s: float = 0.0, ready: Callable[[], bool] | None = None) -> None:
        actor = self.me
        actor.wake_at_s, actor.ready = wake_at_s, ready
        self._main.switch()
        actor.wake_at_s, actor.ready = 0.0, None
        if actor.process.dead:
            raise Killed

    def sleep(self, seconds: float) -> None:
        """Wait on the virtual clock."""
        self._yield(self.now_s + seconds)

    def wait_for(self, ready: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait until something holds, or for so long; wakes early only in a killed process."""
        self._yield(NEVER_S if timeout_s is None else self.now_s + timeout_s, ready)

    def call(
        self,
        port: str,
        effect: Callable[[], T],
        error: Callable[[str], Exception],
        *,
        mutates: bool = False,
        detail: str = "",
        duplicate: Callable[[float | None], None] | None = None,
    ) -> T:
        """A port call: a point where anything may happen to the caller."""
        actor = self.me
        if actor.process.dead:
            raise Killed
        self._yield()
        self.effects += mutates
        fault = self._due(actor.process, port, mutates) if self.armed else None
        self.tell(f"{actor.name} {port} {detail}{' !' + fault.kind if fault else ''}")
        if fault is not None:
            self.fired[fault.kind] += 1
            if fault.kind == TOUCH:
                self.on_touch(actor.process, detail)
            self._before(fault, actor, port, effect, error)
        result = effect()
        if fault is not None:
            self._after(fault, actor, error, duplicate)
        return result

    def _due(self, process: Process, port: str, mutates: bool) -> Fault | None:
        for armed in self.armed:
            fault = armed.fault
            if fault.step > self.steps or fault.actor not in (process.name, ANY_ACTOR):
                continue
            if not (mutates if fault.port == ANY_EFFECT else port.startswith(fault.port)):
                continue
            armed.left -= 1
            if armed.left == 0:
                self.armed.remove(armed)
                return fault
        return None

    def _before(
        self,
        fault: Fault,
        actor: Actor,
        port: str,
        effect: Callable[[], object],
        error: Callable[[str], Exception],
    ) -> None:
        if fault.kind == "crash_late" and port.startswith(REMOTE):
            late_s_max = LATE_MESSAGE_S_MAX if port.startswith("net.") else LATE_S_MAX
            self._later(min(fault.arg, late_s_max), port, effect)
        if fault.kind in ("crash_before", "crash_late"):
            self.kill(actor.process)
            raise Killed
        if fault.kind == "error_before":
            raise error("simulated, before the effect")
        if fault.kind == "delay":
            self.sleep(fault.arg)
        if fault.kind in ("pause", "zombie"):
            actor.process.paused_until_s = self.now_s + fault.arg
            if fault.kind == "zombie":
                self.on_zombie(actor.process)
            self._yield()

    def _later(self, after_s: float, port: str, effect: Callable[[], object]) -> None:
        """A request that was on its way when its sender died."""

        def arrive() -> None:
            self.sleep(after_s)
            self.tell(f"orphan {port}")
            with suppress(Exception):  # nobody is left to be told what became of it
                effect()

        self.spawn(Process("orphan"), "orphan", arrive)

    def _after(
        self,
        fault: Fault,
        actor: Actor,
        error: Callable[[str], Exception],
        duplicate: Callable[[float | None], None] | None,
    ) -> None:
        if fault.kind == "crash_after":
            self.kill(actor.process)
            raise Killed
        if fault.kind == "error_after":
            raise error("simulated, after the effect")
        if fault.kind in ("duplicate", DUPLICATE_LATE) and duplicate is not None:
            duplicate(fault.arg if fault.kind == DUPLICATE_LATE else None)
