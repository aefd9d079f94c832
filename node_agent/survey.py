"""What takes too long for a report: has an adopted pod's IDE answered, has a quiet workspace changed.

One thread looks at what the last report saw, and asks for a new report when it has learnt something.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import structlog

from node_agent import labels
from node_agent.errors import StepError
from node_agent.parts import Parts
from node_agent.removal import sweep_workspace
from node_agent.runtime import Container, Sight, Status, Volume, VolumeState

PROBE_EVERY_S = 0.25

log = structlog.get_logger(__name__)

# Tells of a volume whether anything may have been written to it: who mounted it when, and our own actions.
_Mark = tuple[tuple[str, ...], int]


class Surveyor:
    """Readiness of running pods that this agent did not see start, and fingerprints of quiet volumes.

    `alone_in(workspace_id)` keeps work from beginning there; what is half made then, nobody is making.
    """

    def __init__(
        self,
        parts: Parts,
        learnt: Callable[[], None],
        alone_in: Callable[[str], AbstractContextManager[bool]],
    ) -> None:
        self._parts = parts
        self._learnt = learnt
        self._alone_in = alone_in
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._stopping = False
        self._sight = Sight()
        self._states: dict[str, VolumeState] = {}
        self._activity: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        self._fingerprints: dict[str, tuple[_Mark, str]] = {}
        self._first_seen_s: dict[tuple[str, str], float] = {}

    # ---- what the agent tells ------------------------------------------------------------------------------

    def begin(self, workspace_id: str) -> None:
        """An action of this workspace has begun: what was known of its volume no longer holds."""
        with self._lock:
            self._activity[workspace_id] += 1
            self._busy[workspace_id] += 1

    def end(self, workspace_id: str) -> None:
        """The action has ended."""
        with self._lock:
            self._activity[workspace_id] += 1
            self._busy[workspace_id] -= 1
        self._news.set()

    def show(self, sight: Sight, states: dict[str, VolumeState]) -> None:
        """What a report has just been made of."""
        with self._lock:
            self._sight, self._states = sight, states
            current = {(c.id, c.started_at) for c in sight.containers if c.live}
            now = time.monotonic()
            self._first_seen_s = {start: self._first_seen_s.get(start, now) for start in current}
            names = {volume.name for volume in sight.volumes}
            self._fingerprints = {n: kept for n, kept in self._fingerprints.items() if n in names}
        self._parts.ready.keep_only(sight.containers)
        self._news.set()

    # ---- what the agent asks -------------------------------------------------------------------------------

    def is_overdue(self, container: Container) -> bool:
        """It has been running for longer than a start may take, since this agent first saw it."""
        with self._lock:
            since = self._first_seen_s.get((container.id, container.started_at))
        return since is not None and time.monotonic() - since > self._parts.settings.start_timeout_s_max

    def fingerprints(self, sight: Sight) -> dict[str, str]:
        """By volume name, those that still hold for what is seen now."""
        with self._lock:
            kept = dict(self._fingerprints)
        fresh = {}
        for volume in sight.volumes:
            mark = self._mark(volume, sight)
            if volume.name in kept and mark is not None and kept[volume.name][0] == mark:
                fresh[volume.name] = kept[volume.name][1]
        return fresh

    # ---- the thread ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            waiting = self.survey()
            with suppress(StepError):
                # So that a step, on the way to somebody's page, mostly finds them known.
                self._parts.runtime.facts()
            self._news.wait(PROBE_EVERY_S if waiting else None)
            self._news.clear()

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._news.set()

    def survey(self) -> bool:
        """Look once. True when a pod has still not answered, so that it should be asked again soon."""
        with self._lock:
            sight, states = self._sight, self._states
        self._keep_apart(sight)
        self._sweep(sight, states)
        unanswered = [container for container in sight.containers if self._needs_probe(container)]
        answered = [container for container in unanswered if self._probe(container)]
        wanted = [volume for volume in sight.volumes if states.get(volume.name) is VolumeState.WHOLE]
        measured = [volume for volume in wanted if self._measure(volume, sight)]
        if answered or measured:
            self._learnt()
        return len(answered) < len(unanswered)

    def _keep_apart(self, sight: Sight) -> None:
        """Pods that run stay behind the firewall, also when somebody has flushed it."""
        if any(container.live for container in sight.containers):
            try:
                self._parts.firewall.ensure()
            except StepError as error:
                log.error("survey.network_not_isolated", why=error.message)

    def _sweep(self, sight: Sight, states: dict[str, VolumeState]) -> None:
        halves = [found.labels for found in sight.containers if labels.is_partial(found.name)]
        halves += [found.labels for found in sight.volumes if states.get(found.name) is VolumeState.HALF]
        for workspace_id in sorted({written.get(labels.WORKSPACE, "") for written in halves}):
            with self._alone_in(workspace_id) as alone:
                if not alone:
                    continue
                try:
                    swept = sweep_workspace(self._parts, workspace_id)
                    log.info("survey.swept", workspace=workspace_id, things=swept)
                except (StepError, OSError) as error:
                    log.warning("survey.cannot_sweep", workspace=workspace_id, why=str(error))

    def _needs_probe(self, container: Container) -> bool:
        if container.status is not Status.RUNNING or labels.is_partial(container.name):
            return False
        with self._lock:
            busy = self._busy[container.labels.get(labels.WORKSPACE, "")]
        # A start that is under way asks by itself.
        return not busy and container.host_port is not None and not self._parts.ready.is_ready(container)

    def _probe(self, container: Container) -> bool:
        secret = self._parts.host.read_session(container.session_dir)
        if secret is None or container.host_port is None:
            return False
        address = self._parts.settings.probe_address
        if not self._parts.ide_answers(address, container.host_port, secret):
            return False
        self._parts.ready.confirm(container)
        return True

    def _measure(self, volume: Volume, sight: Sight) -> bool:
        mark = self._mark(volume, sight)
        with self._lock:
            known = self._fingerprints.get(volume.name)
        if mark is None or (known is not None and known[0] == mark):
            return False
        try:
            fingerprint = self._parts.archives.volume_fingerprint(volume)
        except StepError as error:
            log.warning("survey.volume_unreadable", volume=volume.name, why=error.message)
            return False
        with self._lock:
            self._fingerprints[volume.name] = (mark, fingerprint)
        return True

    def _mark(self, volume: Volume, sight: Sight) -> _Mark | None:
        """None while the volume may be written to."""
        users = [container for container in sight.containers if volume.name in container.volumes]
        workspace_id = volume.labels.get(labels.WORKSPACE, "")
        with self._lock:
            busy, activity = self._busy[workspace_id], self._activity[workspace_id]
        if busy or any(user.live for user in users):
            return None
        return tuple(sorted(user.fingerprint for user in users)), activity
