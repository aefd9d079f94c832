"""What a node says, taken into the simulated database: a small model of state.reports and state.results.

What a report changes is decided by production's `state.observed.compare`, and how failures are weighed by
production's `state.backoff`.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from state.backoff import RACES, live_failure, next_failure
from state.boots import is_other_machine
from state.chore_wire import ChoreHandle, ChoresDown
from state.delivery import ACTIONS_PER_REPLY_MAX, OpenIds
from state.generations import DAMAGE_CODES
from state.lease import FORMER_BOOTS_MAX, Refusal
from state.model import ActionState, ArchiveRef, Failure, Limits, Observed, Verb, WorkspaceObserved
from state.observed import Comparison, Exit, Known, compare
from state.presence_wire import PresenceDown
from state.reports import Ingested, exit_message
from state.results import EXITED, STALE_EPOCH
from state.wire import (
    CANCELLED,
    Action,
    Report,
    RestorePod,
    RestoreWorkspace,
    StepDone,
    StepFailed,
    StepResult,
    SyncReply,
    SyncRequest,
)
from tests.sim.care_done import applies_of
from tests.sim.database import SimDatabase
from tests.sim.forgotten import give_way, go_above
from tests.sim.machine import at
from tests.sim.rows import ActionRow, NodeRow, PodRow, known_row, known_workspace_row
from tests.sim.visits import EXTENSION

_UP = (Observed.STARTING, Observed.RUNNING, Observed.STOPPING)
_LIVE = (*_UP, Observed.FAILED)
_GONE: dict[str, Any] = {
    "state": Observed.ABSENT,
    "container_id": "",
    "upstream": None,
    "session_secret": None,
    "fingerprint": None,
    "started_at": None,
    "exit_code": None,
    "oom_killed": False,
    "self_fence_s": None,
}
_ARCHIVING = (Verb.ARCHIVE_POD, Verb.ARCHIVE_WORKSPACE)


class Ingest:
    """The gateway's transactions."""

    def __init__(
        self, db: SimDatabase, limits: Limits, jitter: Callable[[], float], marks: Counter[str]
    ) -> None:
        self._db = db
        self._limits = limits
        self._jitter = jitter
        self._marks = marks
        self._applies = applies_of(db)
        # Told when the node was looked at for a message's report.
        self.looked: Callable[[SyncRequest, float], None] = lambda _request, _at_s: None

    def has(self, trouble: str) -> bool:
        """Whether the database is in this trouble now."""
        return self._db.clock() < at(self._db.trouble.get(trouble, 0.0))

    def given_up(self) -> int:
        """How many placements were ended without their nodes' word."""
        return self._db.given_up

    # ---- up ------------------------------------------------------------------------------------------------

    def ingest(self, request: SyncRequest) -> Ingested:
        """One request, in one transaction."""
        node = self._db.nodes[request.node_id]
        if (refusal := self._refusal(node, request)) is not None:
            self._mark_refused(request, refusal)
            return Ingested(refusal=refusal)
        self._renew_lease(node, request)
        self._db.watch.heard(request)
        self._keep_facts(node, request)
        changed = request.report is not None and self._take_in(node, request, request.report)
        if request.report is not None and request.presence is not None:
            self._db.policies.take_in(node.id, request.presence)
        self._db.committed()
        accepted = tuple(result.action_id for result in request.results) if request.report else ()
        return Ingested(accepted, changed)

    def _keep_facts(self, node: NodeRow, request: SyncRequest) -> None:
        before = (node.cpu_millis, node.memory_mib)
        node.cpu_millis, node.memory_mib = request.facts.cpu_millis, request.facts.memory_mib
        if not node.cordoned and (node.cpu_millis > before[0] or node.memory_mib > before[1]):
            self._db.room_made()

    def _take_in(self, node: NodeRow, request: SyncRequest, report: Report) -> bool:
        same = node.report == report
        if not same:
            self._marks["went_above"] += go_above(self._db, node.id, report)
        known = None if same else self._known(request, report)
        answered = sum([self._apply(node, result) for result in request.results])
        if known is not None:
            comparison = compare(known, report)
            self._write(node, comparison, known)
            node.report = node.last_report = report
            node.oddities = frozenset(oddity.kind for oddity in comparison.present)
        return answered > 0 or known is not None

    def _mark_refused(self, request: SyncRequest, refusal: Refusal) -> None:
        self._marks["stale_report_dropped"] += 1
        former = request.boot_id < refusal.boot_id
        self._marks["zombie_rejected"] += bool(request.results) and former
        self._marks["former_boot_refused"] += former
        self._marks["let_in_again"] += refusal.silent
        self._marks["other_machine_refused"] += refusal.other_machine and not refusal.silent

    def _renew_lease(self, node: NodeRow, request: SyncRequest) -> None:
        if node.boot_id not in ("", request.boot_id):
            node.former_boots = [node.boot_id, *node.former_boots][:FORMER_BOOTS_MAX]
        node.boot_id, node.sequence, node.last_seen_at = request.boot_id, request.sequence, self._db.clock()
        if (node.engine_error is None) != (request.engine_error is None):
            self._db.wake_users_of(node.id)
            if request.engine_error is None:
                self._db.room_made()
        node.engine_error = request.engine_error

    def _refusal(self, node: NodeRow, request: SyncRequest) -> Refusal | None:
        if node.last_seen_at is None:
            return None
        silent = self._db.clock() - node.last_seen_at > self._limits.node_silent_after
        other = is_other_machine(node.boot_id, request.boot_id)
        if request.boot_id == node.boot_id:
            newer = request.sequence > node.sequence
        else:
            newer = request.boot_id > node.boot_id and (silent or not other)
        return None if newer else Refusal(node.boot_id, node.sequence, silent, other)

    def _known(self, request: SyncRequest, report: Report) -> Known:
        db, node_id, now = self._db, request.node_id, self._db.clock()
        told = {line.pod_id for line in report.pods}
        pods = {}
        for pod in db.pods.values():
            here = pod.observed_node_id == node_id and pod.observed is not None
            if pod.id in told or (here and pod.observed and pod.observed.state is not Observed.ABSENT):
                row = db.open.get(pod.id)
                pods[pod.id] = known_row(
                    pod,
                    db.workspaces[pod.workspace_id].placement,
                    open_id=row.action.id if row else None,
                    open_verb=row.verb if row else None,
                    state_for=now - pod.since if pod.since else timedelta(0),
                    stop_taken_back=self._stop_taken_back(pod.id, pod.since),
                )
        volumes = {line.workspace_id for line in report.workspaces}
        workspaces = {}
        for workspace in db.workspaces.values():
            seen = workspace.observed
            here = workspace.observed_node_id == node_id and seen is not None
            if workspace.id in volumes or (here and seen and seen.state is not WorkspaceObserved.ABSENT):
                row = db.open.get(workspace.id)
                workspaces[workspace.id] = known_workspace_row(workspace, row.verb if row else None)
        closed = frozenset(line.action_id for line in request.results if isinstance(line, StepDone))
        return Known(node_id, pods, workspaces, closed, self._limits.healthy_after)

    def _stop_taken_back(self, pod_id: str, since: datetime | None) -> bool:
        return any(
            row.action.pod_id == pod_id
            and row.verb is Verb.STOP_POD
            and row.state is ActionState.SUPERSEDED
            and row.finished_at is not None
            and since is not None
            and row.finished_at >= since
            for row in self._db.actions.values()
        )

    def _write(self, node: NodeRow, comparison: Comparison, known: Known) -> None:
        db, now = self._db, self._db.clock()
        for line in comparison.pods:
            pod = db.pods[line.pod_id]
            before = pod.observed
            self._moved(pod, node.id, line.epoch, line.state)
            same = before and (before.state, pod.observed_node_id, before.epoch) == (
                line.state,
                node.id,
                line.epoch,
            )
            if not same or (before and before.started_at != line.started_at):
                db.policies.look_at(pod.id)
            pod.since = pod.since if same else now
            pod.observed, pod.observed_node_id, pod.due_at = line, node.id, now
        for pod_id in comparison.absent_pods:
            pod = db.pods[pod_id]
            assert pod.observed is not None
            self._moved(pod, node.id, pod.observed.epoch, Observed.ABSENT)
            pod.observed = pod.observed.model_copy(update=_GONE)
            pod.since = pod.due_at = now
            db.policies.look_at(pod_id)
        for pod_id, image_id in comparison.pins.items():
            db.pods[pod_id].image_id = db.pods[pod_id].image_id or image_id
        for volume in comparison.workspaces:
            workspace = db.workspaces[volume.workspace_id]
            workspace.observed, workspace.observed_node_id, workspace.due_at = volume, node.id, now
        for workspace_id in comparison.absent_workspaces:
            workspace = db.workspaces[workspace_id]
            assert workspace.observed is not None
            gone: dict[str, Any] = {"state": WorkspaceObserved.ABSENT, "volume": "", "fingerprint": None}
            workspace.observed = workspace.observed.model_copy(update=gone)
            workspace.due_at = now
        self._marks["stale_kept"] += any(oddity.kind == "stale_container" for oddity in comparison.present)
        self._marks["container_vanished"] += len(comparison.vanished)
        db.watch.vanished(oddity.pod_id for oddity in comparison.vanished)
        for exited in comparison.exits:
            self._fail_exited(known, exited)

    def _moved(self, pod: PodRow, node_id: str, epoch: int, after: Observed) -> None:
        seen = pod.observed
        same = seen is not None and (pod.observed_node_id, seen.epoch) == (node_id, epoch)
        before = seen.state if seen is not None and same else Observed.ABSENT
        if seen is not None and seen.state in _UP and after not in _UP:
            self._db.room_made()
        self._db.watch.moved(pod, node_id, epoch, before, after)

    def _fail_exited(self, known: Known, line: Exit) -> None:
        pod, before = self._db.pods[line.pod.pod_id], known.pods[line.pod.pod_id]["failure"]
        failed = StepFailed(action_id="", code=EXITED, message=exit_message(line))
        pod.failure = None if line.healthy else self._next(before, Verb.START_POD, failed, pod.generation)

    # ---- results -------------------------------------------------------------------------------------------

    def _apply(self, node: NodeRow, result: StepResult) -> bool:
        row = self._db.actions.get(result.action_id)
        if row is None or row.state is not ActionState.OPEN or row.node_id != node.id:
            self._marks["late_result_ignored"] += 1
            self._marks["zombie_rejected"] += row is not None and row.state is ActionState.SUPERSEDED
            return False
        owner = self._owner(row.action)
        owner.due_at = self._db.clock()
        race = isinstance(result, StepFailed) and result.code in {*RACES, CANCELLED}
        if isinstance(result, StepDone):
            self._succeeded(row, result, owner)
        elif result.code == CANCELLED:
            self._marks["take_back_acknowledged"] += 1
            self._db.close(row, ActionState.SUPERSEDED)
        else:
            race |= self._failed(row, result, owner)
        self._db.watch.answered(row, failed=isinstance(result, StepFailed), race=race)
        return True

    def _failed(self, row: ActionRow, result: StepFailed, owner: Any) -> bool:
        """Whether it is to be tried at once, with another archive."""
        self._db.close(row, ActionState.FAILED)
        if result.code == STALE_EPOCH:
            self._marks["gave_way"] += give_way(self._db, row)
        previous = owner.failure
        if row.action.pod_id is None:
            pods = [pod for pod in self._db.pods.values() if pod.workspace_id == row.action.workspace_id]
            wished_at = max((pod.desired_at for pod in pods if pod.desired_at), default=None)
            previous = live_failure(previous, wished_at)
        owner.failure = self._next(previous, row.verb, result, row.action.generation)
        if result.code in DAMAGE_CODES and self._db.note_damage(row, owner):
            self._marks["damaged_archive_left"] += 1
            owner.failure = None
            return True
        return False

    def _succeeded(self, row: ActionRow, result: StepDone, owner: Any) -> None:
        state, step = ActionState.DONE, row.action.step
        if isinstance(step, RestorePod | RestoreWorkspace):
            self._db.read_back_whole(step.archive.manifest_key)
        if row.verb in _ARCHIVING and not self._db.commit_archive(row, self._archive(row, result)):
            state = ActionState.SUPERSEDED
            self._marks["late_archive_superseded"] += 1
        self._db.close(row, state)
        self._marks["restored"] += row.verb in (Verb.RESTORE_POD, Verb.RESTORE_WORKSPACE)
        exited = row.action.pod_id is not None and owner.failure and owner.failure.code == EXITED
        owner.failure = owner.failure if exited else None

    def _archive(self, row: ActionRow, result: StepDone) -> ArchiveRef:
        made, action = result.archive, row.action
        assert made is not None
        return ArchiveRef(
            id="",
            number=action.step.number,  # type: ignore[union-attr]
            epoch=action.epoch,
            manifest_key=made.manifest_key,
            manifest_digest=made.manifest_digest,
            fingerprint=made.fingerprint,
            image_id=made.image_id,
            committed_at=self._db.clock(),
        )

    def _owner(self, action: Action) -> Any:
        return self._db.pods[action.pod_id] if action.pod_id else self._db.workspaces[action.workspace_id]

    def _next(self, previous: Failure | None, verb: Verb, result: StepFailed, generation: int) -> Failure:
        return next_failure(
            previous,
            verb=verb,
            code=result.code,
            message=result.message,
            permanent=result.permanent,
            generation=generation,
            now=self._db.clock(),
            limits=self._limits,
            jitter=self._jitter(),
        )

    # ---- who is there --------------------------------------------------------------------------------------

    def answer(self, request: SyncRequest) -> None:
        """What somebody in an editor has answered to a warning: see `reconciler.gateway`."""
        for pod in request.presence.pods if request.presence else ():
            if pod.keep is not None:
                self._db.policies.answer(pod.pod_id, request.node_id, pod.keep, EXTENSION)

    def looks_asked(self, node_id: str) -> frozenset[str]:
        """The pods that this node is to look at now."""
        seen = self._db.policies.seen
        if all(row.look_asked_at is None for row in seen.values()):
            return frozenset()
        return self._db.policies.looks_asked().get(node_id, frozenset())

    def presence_down(self, node_id: str, look_at: frozenset[str]) -> PresenceDown:
        """What the node is told of its pods' editors."""
        return self._db.policies.for_node(node_id, look_at)

    # ---- chores --------------------------------------------------------------------------------------------

    def chores_in(self, request: SyncRequest) -> tuple[ChoreHandle, ...]:
        """What became of chores, in one transaction."""
        said, late = request.chores, self._db.chores
        for result in said.results:
            self._marks[f"chore:{result.outcome}"] += 1
            self._marks["late_chore_ignored"] += not late.is_given(request.node_id, result.chore)
        return self._db.chores.take_in(request.node_id, said, self._limits, self._applies)

    def chore_news(self, request: SyncRequest, kept: tuple[ChoreHandle, ...]) -> ChoresDown:
        """What the node should do for the store, and what it should drop, in one transaction."""
        return self._db.chores.news(request.node_id, request.chores, kept)

    def has_chores(self, request: SyncRequest) -> bool:
        """Whether one waits for it."""
        return self._db.chores.has_news(request.node_id, request.chores)

    def is_behind(self, request: SyncRequest) -> bool:
        """Whether it has not what it was given, or has what is another's."""
        return self._db.chores.is_behind(request.node_id, request.chores)

    # ---- down ----------------------------------------------------------------------------------------------

    def has_news(self, request: SyncRequest) -> bool:
        """Whether there is something that ends a long poll."""
        rows = [row for row in self._db.open.values() if row.node_id == request.node_id]
        wanted = frozenset(row.action.id for row in rows if not row.taken_back)
        taken_back = frozenset(row.action.id for row in rows if row.taken_back)
        return OpenIds(wanted, taken_back).are_news(request.in_hand, request.ending)

    def news(self, request: SyncRequest, accepted: tuple[str, ...]) -> SyncReply:
        """What the node should do, and what it should leave."""
        in_hand = [action_id for action_id in request.in_hand if action_id not in accepted]
        rows = [row for row in self._db.open.values() if row.node_id == request.node_id]
        wanted = [row for row in rows if not row.taken_back]
        fresh = sorted((row for row in wanted if row.action.id not in in_hand), key=lambda row: row.action.id)
        for row in fresh[:ACTIONS_PER_REPLY_MAX]:
            row.sent = True
            self._db.watch.given(row)
        open_ids = {row.action.id for row in rows}
        over = {action_id for action_id in in_hand if action_id not in open_ids}
        over |= {row.action.id for row in rows if row.taken_back}
        return SyncReply(
            actions=tuple(row.action for row in fresh[:ACTIONS_PER_REPLY_MAX]),
            taken_back=tuple(sorted(over.difference(request.ending))),
            accepted=accepted,
            epochs=self.epochs_ahead(request.node_id, request.report),
        )

    def epochs_ahead(self, node_id: str, report: Report | None) -> dict[str, int]:
        """See state.delivery."""
        reported: dict[str, int] = {}
        for line in report.pods if report else ():
            if line.state in _LIVE:
                reported[line.workspace_id] = min(line.epoch, reported.get(line.workspace_id, line.epoch))
        epochs = {}
        for row in (self._db.workspaces[key] for key in reported if key in self._db.workspaces):
            here = row.placement is not None and row.placement.node_id == node_id
            epochs[row.id] = row.placement.epoch if here and row.placement else row.epoch
        return {key: epoch for key, epoch in epochs.items() if epoch > reported[key]}
