"""Chores in the simulation: production's sweep, compaction and checkpoint, while everything else goes on.

What the database decides about them (state.sweeps, compactions, copies, retention) is modelled here in small,
with ages of minutes for days. How chores travel to a node and back is not simulated.
"""

import threading
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from node_agent.chores import Budget, ChoreContext, ChoreError
from node_agent.compacting import compact_archive
from node_agent.copies import copy_handlers
from node_agent.errors import StepError
from node_agent.store import StoreError
from node_agent.sweep import INSTALLATION_KEY, sweep
from reconciler.retention import Keep, Kept, retained
from reconciler.steps import source
from state.chore_wire import Chore, Payload
from state.compactions import COMPACT
from state.copy_wire import CHECKPOINT, CopyMade, CopyRequest, CopyResult, CopyTarget
from state.model import ArchiveRef, Observed, TargetKind
from state.sweeps import SWEEP
from state.wire import Action, ArchivePod, ArchiveWorkspace
from tests.sim.actors import AgentActor
from tests.sim.machine import at
from tests.sim.rows import ActionRow, PodRow, WorkspaceRow

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

STORE_ID = "simulated-installation"
LOOK_EVERY_S = 2.0
# Longer than any upload takes here, where nobody sleeps for longer than 5 s in the middle of one.
SWEEP_AGE = timedelta(seconds=60)
CONFIRM_S = 20.0
SWEEP_EVERY_S = 25.0
CHECKPOINT_EVERY_S = 15.0
KEEP = Keep(newest=1, days=0)
_IN_USE = ("archive", "base", "proof")


class _Refused(Exception):
    """The database did not answer."""


class Caretakers:
    """One worker on each node, and what the database knows of chores."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet, self._db, self._scheduler = fleet, fleet.db, fleet.scheduler
        self._made = 0
        self._last_s: dict[str, float] = defaultdict(float)
        self._looked_at: set[tuple[str, int, str]] = set()
        self._live: set[tuple[str, int]] = set()
        self._candidates: dict[str, dict[str, float]] = defaultdict(dict)
        fleet.store.objects[INSTALLATION_KEY] = STORE_ID.encode()

    def attend(self, actor: AgentActor) -> None:
        """A worker in this agent's process."""
        name = f"{actor.process.name}/{actor.process.birth}/chores"
        self._scheduler.spawn(actor.process, name, lambda: self._work(actor))

    # ---- on the node ---------------------------------------------------------------------------------------

    def _work(self, actor: AgentActor) -> None:
        while not self._fleet.healing:
            self._scheduler.sleep(LOOK_EVERY_S)
            self._until_joined(actor)
            try:
                chore = self._call("given", lambda: self._give(actor.process.name))
                if chore is None:
                    continue
                result = self._do(actor, chore)
                self._until_joined(actor)
                self._call("answered", lambda c=chore, r=result: self._apply(actor.process.name, c, r))
            except _Refused:
                continue

    def _until_joined(self, actor: AgentActor) -> None:
        self._scheduler.wait_for(lambda: self._scheduler.now_s >= actor.gateway.cut_until_s)

    def _call(self, what: str, effect: Any) -> Any:
        return self._scheduler.call(f"chore.{what}", effect, _Refused)

    def _do(self, actor: AgentActor, chore: Chore) -> Payload | None:
        """By production's handlers; None when it failed."""
        handlers = {SWEEP: sweep, COMPACT: compact_archive, **copy_handlers(actor.parts)}
        budget = Budget(10**9, lambda: self._scheduler.now_s)
        store = actor.parts.archives.store
        context = ChoreContext(store, chore, budget, threading.Event(), lambda *_said: None)
        try:
            return handlers[chore.kind](context)
        except (ChoreError, StepError, StoreError) as error:
            self._fleet.marks[f"chore_failed:{getattr(error, 'code', 'store')}"] += 1
            return None

    # ---- what is due ---------------------------------------------------------------------------------------

    def _give(self, node_id: str) -> Chore | None:
        for owner in (*self._db.pods.values(), *self._db.workspaces.values()):
            self._retire(owner)
            for kind, make in ((SWEEP, self._sweep_of), (COMPACT, self._compaction_of)):
                if (request := make(owner)) is not None:
                    return self._chore(kind, owner.id, request)
        for workspace in self._db.workspaces.values():
            if (request := self._checkpoint_of(workspace, node_id)) is not None:
                return self._chore(CHECKPOINT, workspace.id, request)
        return None

    def _chore(self, kind: str, subject: str, request: Payload) -> Chore:
        self._made += 1
        self._fleet.wishes += 1  # as far as I7 goes
        return Chore(id=str(UUID(int=self._made)), attempt=1, kind=kind, subject=subject, request=request)

    def _is_due(self, what: str, every_s: float) -> bool:
        due = self._scheduler.now_s - self._last_s[what] >= every_s
        if due:
            self._last_s[what] = self._scheduler.now_s
        return due

    def _archives(self, owner: PodRow | WorkspaceRow) -> dict[int, ArchiveRef]:
        return {number: ref for (target, number), ref in self._db.archives.items() if target == owner.id}

    def _retire(self, owner: PodRow | WorkspaceRow) -> None:
        retired, archives = self._fleet.truth.retired_s, self._archives(owner)
        known = [
            Kept(
                id=str(number),
                number=number,
                committed_at=ref.committed_at,
                pinned=owner.archive is not None and owner.archive.number == number,
                live=(owner.id, number) in self._live,
            )
            for number, ref in archives.items()
            if (owner.id, number) not in retired
        ]
        stay = retained(known, self._db.clock(), KEEP)
        for line in known:
            if line.id not in stay:
                retired[owner.id, line.number] = self._scheduler.now_s
                self._fleet.marks["retired"] += 1

    def _sweep_of(self, owner: PodRow | WorkspaceRow) -> Payload | None:
        """See state.sweeps._request."""
        archives = self._archives(owner)
        if not archives or not self._is_due(f"sweep {owner.id}", SWEEP_EVERY_S):
            return None
        retired, now_s = self._fleet.truth.retired_s, self._scheduler.now_s
        age_s = SWEEP_AGE.total_seconds()
        kept = {
            ref.manifest_key: ref.manifest_digest
            for number, ref in archives.items()
            if now_s - retired.get((owner.id, number), now_s) < age_s
        }
        return {
            "store_id": STORE_ID,
            "kind": "pod" if isinstance(owner, PodRow) else "workspace",
            "target_id": owner.id,
            "kept": [
                {"key": key, "digest": digest} for key, digest in (kept | self._in_use(owner.id)).items()
            ],
            "known": [ref.manifest_key for ref in archives.values()],
            "newest": max(archives),
            "doomed": [
                key for key, seen_s in self._candidates[owner.id].items() if now_s - seen_s > CONFIRM_S
            ],
            "min_age_s": age_s,
            "share_max": 1.0,
        }

    def _in_use(self, target: str) -> dict[str, str]:
        """What a step under way reads."""
        row = self._db.open.get(target)
        read = [getattr(row.action.step, name, None) for name in _IN_USE] if row else []
        return {one.manifest_key: one.manifest_digest for one in read if hasattr(one, "manifest_key")}

    def _compaction_of(self, owner: PodRow | WorkspaceRow) -> Payload | None:
        ref = owner.archive
        if ref is None or (owner.id, ref.number, ref.manifest_key) in self._looked_at:
            return None
        if not self._is_due(f"compact {owner.id}", SWEEP_EVERY_S):
            return None
        self._looked_at.add((owner.id, ref.number, ref.manifest_key))
        return {
            "store_id": STORE_ID,
            "manifest_key": ref.manifest_key,
            "manifest_digest": ref.manifest_digest,
        }

    def _checkpoint_of(self, workspace: WorkspaceRow, node_id: str) -> Payload | None:
        placement = workspace.placement
        pods = [pod for pod in self._db.pods.values() if pod.workspace_id == workspace.id]
        seen = {pod.id: pod.observed_at(placement) for pod in pods}
        running = [pod for pod in pods if (now := seen[pod.id]) and now.state is Observed.RUNNING]
        busy = any(row.action.workspace_id == workspace.id for row in self._db.open.values())
        if placement is None or placement.node_id != node_id or busy or not running:
            return None
        if not self._is_due(f"checkpoint {workspace.id}", CHECKPOINT_EVERY_S):
            return None
        request = CopyRequest(
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            epoch=placement.epoch,
            targets=tuple(map(self._target, (*running, workspace))),
        )
        return request.model_dump(mode="json")

    def _target(self, owner: PodRow | WorkspaceRow) -> CopyTarget:
        return CopyTarget(
            kind=TargetKind.POD if isinstance(owner, PodRow) else TargetKind.WORKSPACE,
            target_id=owner.id,
            number=self._db.archives_made(owner.id) + 1,
            base=source(owner.archive) if owner.archive else None,
        )

    # ---- what became of it ---------------------------------------------------------------------------------

    def _apply(self, node_id: str, chore: Chore, result: Payload | None) -> None:
        if result is None:
            return
        if chore.kind == SWEEP:
            self._swept(chore.subject, result)
        elif chore.kind == COMPACT and result["worth"]:
            self._compacted(chore, result)
        elif chore.kind == CHECKPOINT:
            request = CopyRequest.model_validate(chore.request)
            for copy in CopyResult.model_validate(result).made:
                self._checkpointed(node_id, request, copy)

    def _swept(self, target: str, result: Payload) -> None:
        before, now_s = self._candidates[target], self._scheduler.now_s
        self._candidates[target] = {
            line["key"]: before.get(line["key"], now_s) for line in result["candidates"]
        }
        self._fleet.marks["swept_from_store"] += len(result["deleted"])

    def _compacted(self, chore: Chore, result: Payload) -> None:
        """The same archive under another key, if it is still where it was read."""
        read_at = (chore.request["manifest_key"], chore.request["manifest_digest"])
        for (target, number), ref in self._db.archives.items():
            at_ = (ref.manifest_key, ref.manifest_digest)
            if target != chore.subject or at_ != read_at or (target, number) in self._fleet.truth.retired_s:
                continue
            moved = replace(
                ref, manifest_key=result["manifest_key"], manifest_digest=result["manifest_digest"]
            )
            self._db.archives[target, number] = moved
            owner: PodRow | WorkspaceRow | None = self._db.pods.get(target)
            owner = owner or self._db.workspaces[target]
            if owner.archive is not None and owner.archive.number == number:
                owner.archive = moved
            self._fleet.marks["compacted"] += 1
            return

    def _checkpointed(self, node_id: str, request: CopyRequest, copy: CopyMade) -> None:
        """See state.copies._count_checkpoint."""
        if copy.target_id in self._db.open:
            return
        of_pod = copy.kind is TargetKind.POD
        action = Action(
            id="checkpoint",
            workspace_id=request.workspace_id,
            user_id=request.user_id,
            pod_id=copy.target_id if of_pod else None,
            epoch=request.epoch,
            attempt=copy.attempt,
            step=(ArchivePod if of_pod else ArchiveWorkspace)(number=copy.number),
        )
        archive = ArchiveRef(
            id="",
            number=copy.number,
            epoch=request.epoch,
            manifest_key=copy.archive.manifest_key,
            manifest_digest=copy.archive.manifest_digest,
            fingerprint=copy.archive.fingerprint,
            image_id=copy.archive.image_id,
            committed_at=self._db.clock(),
        )
        if self._db.commit_archive(ActionRow(action, node_id, at(0)), archive):
            self._live.add((copy.target_id, copy.number))
            self._fleet.marks["checkpointed"] += 1
