"""Who is truly in the pods: open tabs, touches and work, and what an agent sees when it looks.

Production's tracker, watch and words of the wire are unchanged; here is what /proc, cgroups and the editor's
own files would show.
"""

from dataclasses import dataclass, field
from datetime import datetime

from node_agent.editor_files import EditorWord, Notice
from node_agent.errors import StepError
from node_agent.labels import POD
from node_agent.presence import Look
from node_agent.reporting import parse_time
from node_agent.runtime import Container
from tests.sim.machine import EPOCH_START, at
from tests.sim.scheduler import NEVER_S, Scheduler

# code-server's heartbeat file is to the minute; in proportion to the limits here.
BEAT_S = 10.0
CONNECTIONS_PER_TAB = 2
_RESTING_CPU, _WORKING_CPU = 0.005, 0.9

# One start of a pod.
Start = tuple[str, datetime | None]


@dataclass(eq=False)
class Desk:
    """The editors of one start of a pod."""

    # When each visit began and ended, in seconds.
    visits: list[tuple[float, float]] = field(default_factory=list)
    touches: list[float] = field(default_factory=list)
    works: list[tuple[float, float]] = field(default_factory=list)
    # Whether our extension is in the editor, and which warning it was told to put off.
    tells: bool = True
    keep: str | None = None

    def open(self, now_s: float) -> None:
        """Somebody comes, which is a touch."""
        self.visits.append((now_s, NEVER_S))
        self.touches.append(now_s)

    def close(self, now_s: float) -> None:
        """The last tab is closed."""
        if self.visits and self.visits[-1][1] == NEVER_S:
            self.visits[-1] = (self.visits[-1][0], now_s)

    def work(self, now_s: float, lasts_s: float) -> None:
        """Something is at work from now on."""
        self.works.append((now_s, now_s + lasts_s))

    def leave(self, now_s: float) -> None:
        """Nobody is there, and nothing is at work."""
        self.close(now_s)
        self.works = [(began_s, min(ended_s, now_s)) for began_s, ended_s in self.works]

    def open_since(self, now_s: float) -> float | None:
        """When the visit that went on then had begun."""
        return next((began_s for began_s, ended_s in self.visits if began_s <= now_s < ended_s), None)

    def last_touch(self, now_s: float) -> float:
        """The last one until then; there is one where somebody came."""
        return max(touched_s for touched_s in self.touches if touched_s <= now_s)

    def is_at_work(self, now_s: float) -> bool:
        """At this moment."""
        return any(began_s <= now_s < ended_s for began_s, ended_s in self.works)

    def beat_s(self, now_s: float) -> float | None:
        """When the heartbeat file was last written."""
        begun = [visit for visit in self.visits if visit[0] <= now_s]
        if not begun:
            return None
        began_s, ended_s = begun[-1]
        return began_s + (min(now_s, ended_s) - began_s) // BEAT_S * BEAT_S

    def cpu_ns(self, now_s: float) -> int:
        """Used until then."""
        worked_s = sum(max(0.0, min(now_s, ended_s) - began_s) for began_s, ended_s in self.works)
        return int((now_s * _RESTING_CPU + worked_s * _WORKING_CPU) * 1e9)

    def seen(self, now_s: float) -> Look:
        """By an agent that looks now."""
        opened_s, beat_s = self.open_since(now_s), self.beat_s(now_s)
        words = ()
        if opened_s is not None and self.tells:
            moment_ms, touched_ms = _ms(now_s), _ms(self.last_touch(now_s))
            words = (EditorWord(at_ms=moment_ms, active_at_ms=touched_ms, keep=self.keep),)
        return Look(
            at_s=now_s,
            connections=0 if opened_s is None else CONNECTIONS_PER_TAB,
            cpu_ns=self.cpu_ns(now_s),
            heartbeat_age_s=None if beat_s is None else now_s - beat_s,
            words=words,
            words_age_s=now_s - self.last_touch(now_s) if words else None,
        )


class Desks:
    """All of them, and what is told in them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._desks: dict[Start, Desk] = {}
        # By the directory that a pod's container mounts.
        self.notices: dict[str, Notice] = {}

    def of(self, pod_id: str, started_at: datetime | None) -> Desk:
        """That of a start."""
        return self._desks.setdefault((pod_id, started_at), Desk())

    def leave_all(self) -> None:
        """Everybody goes home."""
        for desk in self._desks.values():
            desk.leave(self._scheduler.now_s)

    def look_at(self, container: Container) -> Look:
        """Stands for `_look_at`, which reads /proc, a cgroup and the editor's files."""
        desk = self.of(container.labels[POD], parse_time(container.started_at))
        return self._scheduler.call("proc.look", lambda: desk.seen(self._scheduler.now_s), _host_error)

    def write_notice(self, session_dir: str, notice: Notice | None) -> None:
        """Stands for `write_notice`."""

        def effect() -> None:
            if notice is None:
                self.notices.pop(session_dir, None)
            else:
                self.notices[session_dir] = notice

        self._scheduler.call("host.write_notice", effect, OSError)


def _host_error(message: str) -> Exception:
    return StepError(message, code="host_io")


def _ms(now_s: float) -> float:
    return at(now_s).timestamp() * 1000


def seconds(moment: datetime) -> float:
    """On the virtual clock."""
    return (moment - EPOCH_START).total_seconds()
