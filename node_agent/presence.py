"""From looks at one pod, one after the other, to what is told of it. Pure: what was seen is handed in."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from node_agent.editor_files import EditorWord
from state.presence_wire import COUNT_MAX, PodPresence

# CPU is judged over this long: shorter spans take a garbage collection for work.
CPU_WINDOW_S = 10.0
CPU_WINDOW_S_MIN = 3.0
# Of so many looks, most have to find a process that has a CPU or waits for one.
RUNNABLE_LOOKS = 5
# A job in a terminal that uses this much is at work; one that waits for a key is not.
JOB_CPU_MILLIS = 10
# A touch after this long without one is news that is told at once.
IDLE_NEWS_S = 60.0
TOLD_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a pod at one moment. `at_s` is by a clock that never goes back."""

    at_s: float
    connections: int
    cpu_ns: int | None = None
    heartbeat_age_s: float | None = None
    words: tuple[EditorWord, ...] = ()
    words_age_s: float | None = None  # since the newest touch that a window tells of
    jobs: int = 0
    runnable: int = 0


@dataclass
class Tracker:
    """One start of one pod: remembers what a single look cannot show."""

    pod_id: str
    epoch: int
    started_at: datetime
    busy_cpu_millis: int
    last: Look | None = None
    connected_since_s: float | None = None
    gone_since_s: float | None = None
    busy_at_s: float | None = None
    busy_with: str = ""
    cpu_millis: int = 0
    _cpu: deque[tuple[float, int]] = field(default_factory=deque)
    _runnable: deque[bool] = field(default_factory=lambda: deque(maxlen=RUNNABLE_LOOKS))
    _told: PodPresence | None = None
    _told_at_s: float = 0.0

    def see(self, look: Look) -> None:
        """Take in a look."""
        self._see_connections(look)
        self._see_work(look)
        self.last = look

    def _see_connections(self, look: Look) -> None:
        if look.connections:
            if self.connected_since_s is None:
                self.connected_since_s = look.at_s
            self.gone_since_s = None
        elif self.connected_since_s is not None:
            # The first look without it: the tab was closed a moment before, at the earliest.
            self.connected_since_s, self.gone_since_s = None, look.at_s

    def _see_work(self, look: Look) -> None:
        if look.cpu_ns is not None:
            self._cpu.append((look.at_s, look.cpu_ns))
            while len(self._cpu) > 2 and look.at_s - self._cpu[1][0] >= CPU_WINDOW_S:
                self._cpu.popleft()
            (from_s, from_ns), (to_s, to_ns) = self._cpu[0], self._cpu[-1]
            if to_s - from_s >= CPU_WINDOW_S_MIN:
                used = round((to_ns - from_ns) / (to_s - from_s) / 1e6)
                self.cpu_millis = min(max(0, used), COUNT_MAX)
        self._runnable.append(look.runnable > 0)
        busy_with = self._work(look)
        if busy_with:
            self.busy_at_s, self.busy_with = look.at_s, busy_with

    def _knows_of_work(self, look: Look) -> bool:
        return look.cpu_ns is None or self._cpu[-1][0] - self._cpu[0][0] >= CPU_WINDOW_S_MIN

    def _work(self, look: Look) -> str:
        tasks = sum(word.tasks for word in look.words)
        if tasks:
            return "a task in the editor"
        if look.jobs and self.cpu_millis >= JOB_CPU_MILLIS:
            return f"a job in a terminal, {self.cpu_millis / 10:g} % of a CPU"
        if self.cpu_millis >= self.busy_cpu_millis:
            return f"{self.cpu_millis / 10:g} % of a CPU"
        if 2 * sum(self._runnable) > RUNNABLE_LOOKS:
            return f"processes that wait for a CPU, {self.cpu_millis / 10:g} % of one"
        return ""

    def tell(self, now_s: float) -> PodPresence | None:
        """The newest look in the words of the wire; None while it is not known whether work goes on.

        An agent that was away for long would else end work that it has not had the time to see.
        """
        look = self.last
        if look is None or not self._knows_of_work(look):
            return None
        keep = next((word.keep for word in look.words if word.keep), None)
        return PodPresence(
            pod_id=self.pod_id,
            epoch=self.epoch,
            started_at=self.started_at,
            age_s=max(0.0, now_s - look.at_s),
            connections=look.connections,
            connected_for_s=_since(self.connected_since_s, look.at_s),
            gone_for_s=_since(self.gone_since_s, look.at_s),
            heartbeat_age_s=look.heartbeat_age_s,
            active_age_s=look.words_age_s,
            busy_age_s=_since(self.busy_at_s, look.at_s),
            busy_with=self.busy_with,
            cpu_millis=self.cpu_millis,
            keep=keep,
        )

    def is_news(self, said: PodPresence, now_s: float) -> bool:
        """Whether it should be told now: at once what changes much, all else every half a minute."""
        before = self._told
        return before is None or now_s - self._told_at_s >= TOLD_EVERY_S or differs(before, said)

    def was_told(self, said: PodPresence, now_s: float) -> None:
        """The gateway has it."""
        self._told, self._told_at_s = said, now_s


def differs(before: PodPresence, said: PodPresence) -> bool:
    """Somebody came, left, or is back at the keys; work began or ended; a warning was answered."""
    came_back = (
        said.active_age_s is not None
        and said.active_age_s < IDLE_NEWS_S
        and (before.active_age_s is None or before.active_age_s >= IDLE_NEWS_S)
    )
    flags = [((one.connections > 0), one.busy_age_s == 0, one.keep) for one in (before, said)]
    return came_back or flags[0] != flags[1]


def _since(moment_s: float | None, at_s: float) -> float | None:
    return None if moment_s is None else max(0.0, at_s - moment_s)
