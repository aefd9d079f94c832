"""Copies beside the steps: checkpoints of pods that run, recovered copies of placements that are over.

Both are chores, so they wait for users' work and keep to the chores' budget. A running pod is first read as
it runs, which succeeds when nothing changes meanwhile; else once more with the user's pods paused, for
FREEZE_S_MAX at most. What a user keeps changing faster than that is saved when the pod stops.
"""

from collections.abc import Callable, Mapping
from functools import partial
from uuid import UUID

from node_agent.chores import ChoreContext, Handler
from node_agent.errors import StaleEpoch, StepError
from node_agent.freezer import FROZEN, Freezer, FrozenTooLong, Thaw
from node_agent.look import find_containers, find_volume
from node_agent.parts import Parts
from node_agent.runtime import Container, Status
from node_agent.steps import check_epoch
from node_agent.ways import Way
from state.chore_wire import Chore, Payload
from state.copy_wire import (
    CHECKPOINT,
    COPY_ATTEMPTS,
    COPY_ATTEMPTS_FROM,
    RECOVER_COPY,
    CopyMade,
    CopyRequest,
    CopyResult,
    CopySkipped,
    CopyTarget,
)
from state.model import TargetKind
from state.wire import Action, ArchiveMade, ArchivePod, ArchiveWorkspace

SOURCE_CHANGED = "source_changed"


class _Skip(Exception):
    """Not this time; the message says why."""


def copy_handlers(parts: Parts) -> Mapping[str, Handler]:
    """The chores of this module, for this node."""
    return {
        CHECKPOINT: partial(_copy, _Copier(parts, live=True)),
        RECOVER_COPY: partial(_copy, _Copier(parts, live=False)),
    }


def _copy(copier: "_Copier", context: ChoreContext) -> Payload:
    request = CopyRequest.model_validate(context.chore.request)
    made, skipped = [], []
    for number, target in enumerate(request.targets):
        context.check()
        try:
            copy = copier.copy(context, request, target, _attempt(context.chore, number))
        except _Skip as error:
            skipped.append(CopySkipped(target_id=target.target_id, why=str(error)))
        else:
            made += [copy] if copy else []
    return CopyResult(made=tuple(made), skipped=tuple(skipped)).model_dump(mode="json")


def _attempt(chore: Chore, number: int) -> int:
    """One for each target of each giving-out, twice: read as it runs, and paused. Drawn by the chore's id, so
    that none ever meets another's."""
    drawn = UUID(chore.id).int + 1000 * chore.attempt + 2 * number
    return COPY_ATTEMPTS_FROM + drawn % COPY_ATTEMPTS


class _Copier:
    def __init__(self, parts: Parts, *, live: bool) -> None:
        self._parts = parts
        self._live = live
        self._freezer = Freezer(parts.runtime, parts.settings.data_dir / FROZEN)

    def copy(
        self, context: ChoreContext, request: CopyRequest, target: CopyTarget, attempt: int
    ) -> CopyMade | None:
        """One target's copy; None when nothing has changed since its base."""
        action = _action(context.chore, request, target, attempt)
        try:
            made, attempt = self._save(context, action, target)
        except StaleEpoch as error:
            raise _Skip(error.message) from error
        if target.base and self._parts.archives.same_tree(target.base, made):
            return None
        return CopyMade(
            kind=target.kind,
            target_id=target.target_id,
            number=target.number,
            attempt=attempt,
            archive=made,
        )

    def _save(self, context: ChoreContext, action: Action, target: CopyTarget) -> tuple[ArchiveMade, int]:
        try:
            return self._save_once(context, action, target, None), action.attempt
        except StepError as error:
            if not self._live or error.code != SOURCE_CHANGED:
                raise
        again = action.model_copy(update={"attempt": action.attempt + 1})
        running = [container.id for container in self._live_ones(action)]
        if not running:
            raise _Skip("it has stopped meanwhile")
        try:
            with self._freezer.frozen(running) as thaw:
                return self._save_once(context, again, target, thaw), again.attempt
        except FrozenTooLong:
            raise _Skip("it changes all the time, and is too much to hold up for it") from None

    def _save_once(
        self, context: ChoreContext, action: Action, target: CopyTarget, thaw: Thaw | None
    ) -> ArchiveMade:
        note = _noter(context, thaw)
        still = partial(self._still, context, action)
        if target.kind is TargetKind.WORKSPACE:
            volume = find_volume(self._parts, action)
            if volume is None:
                raise _Skip("the volume is not there any more")
            if not self._live and self._live_ones(action):
                raise _Skip("a container still writes to the volume")
            return self._parts.archives.save_workspace(action, volume, target.number, still, note)
        container = self._container(action)
        with self._parts.ways.changes_of(container) as source:
            return self._parts.archives.save_pod(action, container, source, target.number, still, note)

    def _container(self, action: Action) -> Container:
        container, _ = find_containers(self._parts, action)
        if container is None:
            raise _Skip("the container is not there any more")
        if self._live and self._parts.ways.found().way is not Way.FAST:
            raise _Skip("this engine does not show a running pod's changes")
        if not self._live and not container.quiet:
            raise _Skip("the container runs")
        return container

    def _live_ones(self, action: Action) -> list[Container]:
        volume = find_volume(self._parts, action)
        users = self._parts.runtime.users_of(volume.name) if volume else ()
        return [container for container in users if container.status is Status.RUNNING]

    def _still(self, context: ChoreContext, action: Action) -> bool:
        """Right before the manifest: is it wanted, and is the placement still the newest? (LAW 5)"""
        context.check()
        if self._live:
            check_epoch(action, self._parts.journal.highest(action.workspace_id))
        return True


def _action(chore: Chore, request: CopyRequest, target: CopyTarget, attempt: int) -> Action:
    """What a step that saved this would have been asked for as."""
    of_pod = target.kind is TargetKind.POD
    verb = ArchivePod if of_pod else ArchiveWorkspace
    return Action(
        id=chore.id,
        workspace_id=request.workspace_id,
        user_id=request.user_id,
        pod_id=target.target_id if of_pod else None,
        epoch=request.epoch,
        attempt=attempt,
        step=verb(number=target.number, base=target.base),
    )


def _noter(context: ChoreContext, thaw: Thaw | None) -> Callable[[int, int], None]:
    """Tells how far it is; waits for the budget, but not while a user is held up."""
    told = [0]

    def note(done_bytes: int, total_bytes: int) -> None:
        context.check()
        if thaw is None:
            context.spend(max(0, done_bytes - told[0]))
        else:
            thaw.check()
        told[0] = done_bytes
        context.note("saving", done_bytes, total_bytes)

    return note
