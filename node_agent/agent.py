"""The agent at work: actions in, reports and results out. Threads are bounded; the core is synchronous.

Two senders: the long poll, which is also the heartbeat, and the reporter, which sends at once when a result
is ready or the engine hints at a change. Each takes a number, the results and then the snapshot under one
lock, so that a report with a higher number is newer than all results sent with it (LAW 11).
"""

import random
import threading
import time
from collections.abc import Callable

import structlog

from node_agent import labels
from node_agent.boot import Boots
from node_agent.chore_kinds import HANDLERS
from node_agent.chores import ChoreRunner
from node_agent.copies import copy_handlers
from node_agent.errors import Later, StepError, TakenBack
from node_agent.executor import Executor
from node_agent.exports import EXPORT, export_handler
from node_agent.facts import find_facts, store_facts, unknown_facts
from node_agent.fencer import CONTACT, Fencer
from node_agent.freezer import FROZEN, Freezer
from node_agent.gateway_client import Gateway, GatewayError
from node_agent.imports import IMPORT, IMPORT_IMAGE, import_handler, import_image_handler
from node_agent.pace import Pace
from node_agent.parts import Parts
from node_agent.removal import sweep_all
from node_agent.reporting import Known, build_report
from node_agent.results import Results, outdated, unknown
from node_agent.runtime import Sight
from node_agent.survey import Surveyor
from node_agent.watch import PresenceWatch
from node_agent.workqueue import Lanes, Work, WorkQueue
from state.wire import (
    Action,
    NodeFacts,
    Report,
    StepProgress,
    SyncReply,
    SyncRequest,
    UnreadableAction,
)

REPORT_EVERY_S_MIN = 0.05
PROGRESS_EVERY_S = 1.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
BACKOFF_REFUSED_S = 10.0
FACTS_EVERY_S = 300.0
BOOT = "boot"

log = structlog.get_logger(__name__)


class Agent:
    """One node's agent. `start`, then `stop`."""

    def __init__(self, parts: Parts, gateway: Gateway, boots: Boots | None = None) -> None:
        """`boots` None: those of its data directory."""
        settings = parts.settings
        self._parts = parts
        self._gateway = gateway
        self._executor = Executor(parts)
        self._queue = WorkQueue(
            Lanes(settings.starts_at_once, settings.archives_under_way_max, settings.queue_length_max)
        )
        self._surveyor = Surveyor(parts, self.report_soon, self._queue.alone_in)
        self._fencer = Fencer(
            parts.runtime, parts.journal, parts.fences, self.report_soon, settings.data_dir / CONTACT
        )
        self._watch = PresenceWatch(parts, self.report_soon)
        self._results = Results()
        self.chores = ChoreRunner(
            parts.archives.store,
            {
                **HANDLERS,
                **copy_handlers(parts),
                EXPORT: export_handler(gateway),
                IMPORT: import_handler(gateway, parts),
                IMPORT_IMAGE: import_image_handler(gateway, parts),
            },
            at_once_max=settings.chores_at_once,
            bytes_per_s_max=settings.chore_bytes_per_s,
            changed=self.report_soon,
        )
        self._progress: dict[str, StepProgress] = {}
        self._progress_told_at_s = 0.0
        self._generations: dict[str, int] = {}
        self._boots = boots or Boots(settings.data_dir / BOOT)
        self._boot_id = self._boots.begin()
        self._sequence = 0
        self._sending = threading.Lock()
        self._handing_over = threading.Lock()
        self._report_wanted = threading.Event()
        self._stopping = threading.Event()
        self._adopted = False
        self._facts: NodeFacts | None = None
        self._facts_at_s = 0.0
        self._threads: list[threading.Thread] = []

    # ---- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to sync and to work."""
        loops: list[tuple[str, Callable[[], None]]] = [
            ("long-poll", self._poll_loop),
            ("reporter", self._report_loop),
            ("engine-events", self._events_loop),
            ("surveyor", self._surveyor.run),
            ("fencer", self._fencer.run),
            ("presence", self._watch.run),
        ]
        loops += [(f"worker-{n}", self._work_loop) for n in range(self._parts.settings.workers_max)]
        if self._parts.settings.keep_images:
            loops.append(("image-keeper", self._keep_images))
        loops += [(f"chores-{n}", self.chores.run) for n in range(self._parts.settings.chores_at_once)]
        for name, loop in loops:
            thread = threading.Thread(target=self._keep_on, args=(loop,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _keep_images(self) -> None:
        self._parts.images.keep_on(self._parts.settings.keep_images_after_s, self._stopping)

    def _keep_on(self, loop: Callable[[], None]) -> None:
        """An error that nobody expected must not end a thread that the node lives by (LAW 12)."""
        while not self._stopping.is_set():
            try:
                loop()
            except Exception:  # a bug in one pass must not silence the node
                log.exception("agent.loop_broke", thread=threading.current_thread().name)
                self._stopping.wait(BACKOFF_MAX_S)
            else:
                return

    def stop(self) -> None:
        """Take no more work, let what has begun come to its end within the grace, tell its results."""
        log.info("agent.stopping", in_hand=len(self._queue.in_hand()))
        self._queue.close()
        self.chores.close()
        if not self._queue.wait_empty(self._parts.settings.stop_grace_s):
            log.warning("agent.unfinished", actions=[work.action.id for work in self._queue.in_hand()])
        self._stopping.set()
        self._report_wanted.set()
        self._surveyor.stop()
        self._fencer.stop()
        self._watch.stop()
        if self._results.ids():
            self._sync(0.0)

    def report_soon(self) -> None:
        """Something has changed that the gateway should hear of."""
        self._report_wanted.set()

    # ---- work ----------------------------------------------------------------------------------------------

    def _work_loop(self) -> None:
        while (work := self._queue.take()) is not None:
            self._do(work)

    def _do(self, work: Work) -> None:
        action = work.action
        self._surveyor.begin(action.workspace_id)
        self.report_soon()
        try:
            result = self._executor.execute(action, work.taken_back, self._noter(action))
        except TakenBack:
            result = None
        except Later:
            self._surveyor.end(action.workspace_id)
            self._queue.put_back(work, self._parts.images.has_lane)
            return
        with self._handing_over:
            if result is None:
                self._results.cancel(action.id)
            else:
                self._results.add(result)
                reached = self._generations.get(action.target, 0)
                self._generations[action.target] = max(action.generation, reached)
            self._queue.finish(work)
            self._progress.pop(action.id, None)
        self._surveyor.end(action.workspace_id)
        self.report_soon()

    def _noter(self, action: Action) -> Callable[[str, int, int | None], None]:
        pace = Pace()

        def note(phase: str, done_bytes: int, total_bytes: int | None) -> None:
            now = time.monotonic()
            said = StepProgress(
                action_id=action.id,
                phase=phase,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
                bytes_per_s=pace.at(now, phase, done_bytes),
            )
            with self._handing_over:
                self._progress[action.id] = said
            if now - self._progress_told_at_s > PROGRESS_EVERY_S:
                self._progress_told_at_s = now
                self.report_soon()

        return note

    # ---- senders -------------------------------------------------------------------------------------------

    def _poll_loop(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            self._adopt()
            error = self._sync(self._parts.settings.sync_wait_s)
            backoff_s = self._rest(error, backoff_s)

    def _report_loop(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            self._report_wanted.wait()
            self._report_wanted.clear()
            if self._stopping.is_set():
                return
            error = self._sync(0.0)
            if error is not None:
                self._report_wanted.set()
            else:
                self._stopping.wait(REPORT_EVERY_S_MIN)
            backoff_s = self._rest(error, backoff_s)

    def _rest(self, error: GatewayError | None, backoff_s: float) -> float:
        """Wait after a failed sync; the next back-off."""
        if error is None or self._stopping.is_set():
            return BACKOFF_FIRST_S
        # Whoever is heard again after a silence has news, and may have to be told some.
        self._report_wanted.set()
        # Two senders overtake each other now and then: only an error that lasts is worth a word.
        if backoff_s > BACKOFF_FIRST_S or not error.overtaken:
            log.warning("gateway.sync_failed", why=str(error))
        wait_s = backoff_s if error.retry_soon else BACKOFF_REFUSED_S
        self._stopping.wait(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        return min(backoff_s * 2, BACKOFF_MAX_S)

    def _sync(self, wait_s: float) -> GatewayError | None:
        request = self._request(wait_s)
        asked_at_s = time.monotonic()
        try:
            reply = self._gateway.sync(request)
        except GatewayError as error:
            self._refused(request, error)
            return error
        self._fencer.contact(asked_at_s)
        if reply.epochs:
            self._parts.journal.see_all(reply.epochs)
            self._fencer.outdated()
        self._watch.was_told(request.presence)
        self._take(reply)
        if self._watch.take(reply.presence):
            self.report_soon()
        return None

    def _refused(self, request: SyncRequest, error: GatewayError) -> None:
        if error.other_machine:
            self._fencer.shut_out()
        with self._sending:
            if error.after and request.boot_id == self._boot_id:
                self._boot_id, self._sequence = self._boots.begin(error.after), 0
                log.warning("agent.begins_anew", boot=self._boot_id, after=error.after)

    def _request(self, wait_s: float) -> SyncRequest:
        with self._sending:
            self._sequence += 1
            with self._handing_over:
                results = self._results.pending()
                works = self._queue.in_hand()
                in_hand = {*self._results.ids(), *(work.action.id for work in works)}
                taken_back = (work.action.id for work in works if work.taken_back.is_set())
                ending = {*self._results.ids(), *taken_back}
                progress = tuple(self._progress.values())
            report, trouble = self._snapshot(tuple(work.action for work in works if work.begun))
            return SyncRequest(
                node_id=self._parts.settings.node_id,
                boot_id=self._boot_id,
                sequence=self._sequence,
                facts=self._facts or unknown_facts(self._parts.settings),
                report=report,
                engine_error=trouble,
                results=results,
                progress=progress,
                in_hand=tuple(sorted(in_hand)),
                ending=tuple(sorted(ending)),
                wait_s=wait_s,
                chores=self.chores.up(),
                presence=None if report is None else self._watch.tell(),
                shut_out_s=self._fencer.shut_out_s(),
            )

    def _take(self, reply: SyncReply) -> None:
        self.chores.down(reply.chores)
        with self._handing_over:
            self._results.accept(reply.accepted)
            if self._adopted:
                self._end(reply.taken_back)
                for action in reply.actions:
                    self._begin(action)
                for unread in reply.unreadable:
                    self._refuse(unread)

    def _end(self, action_ids: tuple[str, ...]) -> None:
        """Answer for what was taken back: at once for what waits or is not here, else when it has ended."""
        begun = self._queue.take_back(action_ids)
        for action_id in action_ids:
            if action_id not in begun:
                self._results.cancel(action_id)
        if action_ids:
            self.report_soon()

    def _begin(self, action: Action) -> None:
        if self._results.answer_again(action.id):
            self.report_soon()
        elif self._queue.is_outdated(action):
            self._results.add(outdated(action))
        elif self._queue.offer(action):
            log.info("action.taken", action=action.id, verb=action.step.verb, target=action.target)

    def _refuse(self, unread: UnreadableAction) -> None:
        if not self._results.answer_again(unread.id):
            self._results.add(unknown(unread))
        self.report_soon()

    # ---- the node ------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Once, before any work: sweep what a former run left half-made, and learn the epochs of the rest."""
        if self._adopted:
            return
        try:
            Freezer(self._parts.runtime, self._parts.settings.data_dir / FROZEN).thaw()
            swept = sweep_all(self._parts)
            sight = self._parts.runtime.look()
            written = [c.labels for c in sight.containers] + [v.labels for v in sight.volumes]
            self._parts.journal.see_all(labels.highest_epochs(written))
        except (StepError, OSError) as error:
            log.warning("agent.cannot_adopt", why=str(error))
            return
        self._adopted = True
        log.info("agent.adopted", containers=len(sight.containers), volumes=len(sight.volumes), swept=swept)

    def _snapshot(self, begun: tuple[Action, ...]) -> tuple[Report | None, str | None]:
        """What is there now, or why that cannot be known: then nothing may be concluded (LAW 9)."""
        try:
            self._refresh_facts()
            sight = self._parts.runtime.look()
            states = {volume.name: self._parts.host.volume_state(volume) for volume in sight.volumes}
            self._surveyor.show(sight, states)
            self._watch.show(sight)
            self._forget_generations(sight)
            known = Known(
                begun=begun,
                is_ready=self._parts.ready.is_ready,
                is_overdue=self._surveyor.is_overdue,
                session_of=self._parts.host.read_session,
                generations=dict(self._generations),
                upstream_address=self._parts.settings.upstream_address,
                volume_states=states,
                fingerprints=self._surveyor.fingerprints(sight),
                fence_of=self._parts.fences.get,
            )
            return build_report(sight, known), None
        except StepError as error:
            log.warning("engine.cannot_be_asked", code=error.code, why=error.message)
            return None, error.message

    def _forget_generations(self, sight: Sight) -> None:
        """Of pods that are here no more: memory must not grow with every pod there ever was."""
        here = {container.labels.get(labels.POD, "") for container in sight.containers}
        with self._handing_over:
            self._generations = {pod: reached for pod, reached in self._generations.items() if pod in here}

    def _refresh_facts(self) -> None:
        known = self._facts is not None and self._facts.store == store_facts(self._parts)
        if not known or time.monotonic() - self._facts_at_s > FACTS_EVERY_S:
            self._facts = find_facts(self._parts)
            self._facts_at_s = time.monotonic()

    def _events_loop(self) -> None:
        """The engine's events only say: look sooner (LAW 1)."""
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            self.report_soon()  # it may just have gone, or come back
            try:
                for _ in self._parts.runtime.changes():
                    backoff_s = BACKOFF_FIRST_S
                    self.report_soon()
            except StepError as error:
                log.debug("engine.events_ended", why=error.message)
            self._stopping.wait(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
