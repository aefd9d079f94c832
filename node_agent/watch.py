"""Looking, every few seconds, at who is in the pods that run, and telling their editors what is coming.

One thread looks; senders ask what there is to tell. A look that is lost, or told twice, harms nothing: the
next one says the same (LAW 1).
"""

import threading
import time
from collections.abc import Callable, Iterable

import structlog

from node_agent import labels
from node_agent.editor_files import Notice, read_words, write_notice
from node_agent.parts import Parts
from node_agent.presence import Look, Tracker, differs
from node_agent.proc import Processes, cgroup_of, connections, modified_at, processes
from node_agent.reporting import parse_time
from node_agent.runtime import IDE_PORT, Container, Sight, Status
from state.presence_wire import PODS_PER_PRESENCE_MAX, PodPresence, PresenceDown, PresenceUp

HEARTBEAT_FILE = ("home", "coder", ".local", "share", "code-server", "heartbeat")

log = structlog.get_logger(__name__)

_Start = tuple[str, str]


class PresenceWatch:
    """Who is in this node's pods. Safe to use from several threads."""

    def __init__(self, parts: Parts, has_news: Callable[[], None]) -> None:
        self._parts = parts
        self._has_news = has_news
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._stopping = threading.Event()
        self._running: dict[_Start, Container] = {}
        self._trackers: dict[_Start, Tracker] = {}
        self._asked: set[str] = set()
        self._notices: dict[_Start, str | None] = {}

    # ---- what the agent tells ------------------------------------------------------------------------------

    def show(self, sight: Sight) -> None:
        """What runs now."""
        running = {
            (found.id, found.started_at): found for found in sight.containers if self._is_watched(found)
        }
        with self._lock:
            self._running = running
            self._trackers = {
                start: self._trackers.get(start) or made
                for start, container in running.items()
                if (made := self._tracker(container)) is not None
            }
            self._notices = {start: told for start, told in self._notices.items() if start in running}

    def _is_watched(self, container: Container) -> bool:
        """Not before its IDE has answered: until then it is we who connect to it, again and again."""
        running = container.status is Status.RUNNING and container.pid is not None
        return running and not labels.is_partial(container.name) and self._parts.ready.is_ready(container)

    def _tracker(self, container: Container) -> Tracker | None:
        started_at = parse_time(container.started_at)
        try:
            read = labels.read_pod(container.labels)
        except labels.Unreadable:
            return None
        if started_at is None:
            return None
        return Tracker(read.pod, read.epoch, started_at, self._parts.settings.busy_cpu_millis)

    def take(self, down: PresenceDown) -> bool:
        """Do as the gateway asks. True when a look was taken that it waits for."""
        if down.warnings is not None:
            warnings = {(warning.pod_id, warning.epoch): warning for warning in down.warnings}
            now_s = time.time()
            for start, container, tracker in self._watched():
                warning = warnings.get((tracker.pod_id, tracker.epoch))
                self._notify(start, container, Notice.of(warning, now_s) if warning else None)
        if not down.look_at:
            return False
        with self._lock:
            self._asked |= set(down.look_at)
        self.look(down.look_at)
        return True

    def _notify(self, start: _Start, container: Container, notice: Notice | None) -> None:
        told = None if notice is None else notice.id
        if container.session_dir is None or self._notices.get(start, "") == told:
            return
        try:
            write_notice(container.session_dir, notice)
        except OSError as error:
            log.warning("presence.warning_not_written", pod=container.name, why=str(error))
        else:
            self._notices[start] = told

    # ---- what the agent asks -------------------------------------------------------------------------------

    def tell(self) -> PresenceUp | None:
        """What there is to tell now; None for nothing."""
        now_s = time.monotonic()
        with self._lock:
            asked = set(self._asked)
        said = [
            words
            for _, _, tracker in self._watched()
            if (words := tracker.tell(now_s)) is not None
            and (tracker.pod_id in asked or tracker.is_news(words, now_s))
        ]
        return PresenceUp(pods=tuple(said[:PODS_PER_PRESENCE_MAX])) if said else None

    def was_told(self, up: PresenceUp | None) -> None:
        """The gateway has it."""
        if up is None:
            return
        now_s = time.monotonic()
        said = {(words.pod_id, words.epoch, words.started_at): words for words in up.pods}
        for _, _, tracker in self._watched():
            words = said.get((tracker.pod_id, tracker.epoch, tracker.started_at))
            if words is not None:
                tracker.was_told(words, now_s)
        with self._lock:
            self._asked -= {words.pod_id for words in up.pods}

    # ---- the thread ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.wait(self._parts.settings.presence_every_s):
            if self.look():
                self._has_news()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def look(self, pod_ids: Iterable[str] | None = None) -> bool:
        """Look at these pods, or at all. True when something changed that should be told at once."""
        wanted = None if pod_ids is None else set(pod_ids)
        news = False
        with self._looking:
            for _, container, tracker in self._watched():
                if wanted is None or tracker.pod_id in wanted:
                    news = self._surviving_look(container, tracker) or news
        return news

    def _surviving_look(self, container: Container, tracker: Tracker) -> bool:
        """Whether it brought news; what is wrong with one pod must not hide the others (LAW 12)."""
        try:
            before = tracker.tell(time.monotonic())
            tracker.see(_look_at(container))
            return _is_news(before, tracker.tell(time.monotonic()))
        except Exception:  # the pod is unknown then, which stops nothing
            log.exception("presence.look_broke", pod=tracker.pod_id)
            return False

    def _watched(self) -> list[tuple[_Start, Container, Tracker]]:
        with self._lock:
            return [(start, self._running[start], tracker) for start, tracker in self._trackers.items()]


def _look_at(container: Container) -> Look:
    now_s, pid = time.time(), container.pid or 0
    cgroup = cgroup_of(pid, container.id)
    words = read_words(pid, now_s)
    beat_s = modified_at(pid, *HEARTBEAT_FILE)
    touched_s = max((word.active_at_ms / 1000 for word in words), default=None)
    inside = processes(cgroup.processes()) if cgroup else Processes()
    return Look(
        at_s=time.monotonic(),
        connections=connections(pid, IDE_PORT),
        cpu_ns=cgroup.cpu_ns() if cgroup else None,
        heartbeat_age_s=None if beat_s is None else max(0.0, now_s - beat_s),
        words=words,
        words_age_s=None if touched_s is None else max(0.0, now_s - touched_s),
        jobs=inside.jobs,
        runnable=inside.runnable,
    )


def _is_news(before: PodPresence | None, after: PodPresence | None) -> bool:
    return after is not None and (before is None or differs(before, after))
