"""Which chores are due, in the simulated database.

A small model of state.retention, sweeps, compactions, scrubs and copies; days are minutes here: see seams.py.
Each method has the name and the arguments of what it stands for, but the connection.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from reconciler.steps import source
from state import compactions, sweeps
from state.chore_wire import Payload
from state.compactions import COMPACT
from state.copy_wire import CHECKPOINT, RECOVER_COPY, CopyRequest, CopyTarget
from state.leader import Leadership
from state.model import ArchiveRef, ChoreState, Desired, Limits, Observed, TargetKind, WorkspaceObserved
from state.retention import KeptRow, Target
from state.scrubs import SCRUB
from state.sweeps import SWEEP, TIDY
from state.wire import PodReport, WorkspaceReport
from tests.sim.chore_rows import ChoreRow
from tests.sim.rows import NodeRow, PodRow, TargetRow, WorkspaceRow

if TYPE_CHECKING:
    from tests.sim.tables import SimTables

STORE_ID = "simulated-installation"
# What the triggers and a compaction say, in place of three days.
SWEPT_AFTER = timedelta(seconds=60)
_SWEEP_IS_STALE = timedelta(minutes=30)
_RECOVERED_PINNED = timedelta(days=90)
_READ = ("archive", "base", "proof")
_BY_COPYING = (CHECKPOINT, RECOVER_COPY)


class SimCare:
    """What the reconciler asks of the database by the clock."""

    def __init__(self, db: "SimTables") -> None:
        self._db = db

    def assert_leading(self, leadership: Leadership) -> None:
        """See state.leader."""
        self._db.assert_leading(leadership)

    def take_back_lost(self, leading_since: datetime, silent_after: timedelta, timeout: timedelta) -> int:
        """See state.chores."""
        lost = self._db.chores.take_back_lost(leading_since, silent_after, timeout)
        self._db.marks["chore_taken_back"] += lost
        return lost

    def prune(self, kept: timedelta, limit: int) -> int:
        """See state.chores."""
        return self._db.chores.prune(kept)

    def _archives(self, target: Target) -> list[tuple[int, ArchiveRef]]:
        return sorted((number, ref) for (of, number), ref in self._db.archives.items() if of == target.id)

    def _owner(self, target: str) -> tuple[str, str | None, str | None]:
        """Its kind; and it, as a chore's pod or workspace."""
        return ("pod", target, None) if target in self._db.pods else ("workspace", None, target)

    # ---- retention -----------------------------------------------------------------------------------------

    def due_targets(self, limit: int) -> list[Target]:
        """See state.retention."""
        now = self._db.clock()
        due = ((row.check_at, *key) for key, row in self._db.targets.items() if row.check_at)
        return [Target(kind, id_) for at, kind, id_ in sorted(due) if at <= now][:limit]

    def kept_archives(self, targets: Sequence[Target]) -> Mapping[Target, list[KeptRow]]:
        """See state.retention."""
        return {target: list(self._kept_of(target)) for target in targets}

    def _kept_of(self, target: Target) -> Iterator[KeptRow]:
        for number, ref in self._archives(target):
            row = self._db.kept[target.id, number]
            if row.retired_at is None:
                yield KeptRow(
                    id=ref.id,
                    number=number,
                    committed_at=ref.committed_at,
                    suspect=(target.id, number) in self._db.damaged,
                    pinned=self._is_pinned(target, ref, recovered=row.recovered),
                    live=row.live,
                    recovered=row.recovered,
                )

    def _is_pinned(self, target: Target, ref: ArchiveRef, *, recovered: bool) -> bool:
        pointed = self._db.owner_of(target.id).archive
        wish = self._db.restorations.open_of(target.id)
        return (
            (pointed is not None and pointed.id == ref.id)
            or (wish is not None and wish.archive_id == ref.id)
            or ref.manifest_key in self._in_use(target.id)
            or (recovered and ref.committed_at > self._db.clock() - _RECOVERED_PINNED)
        )

    def _in_use(self, target: str) -> dict[str, str]:
        """What a step under way reads."""
        row = self._db.open.get(target)
        read = [getattr(row.action.step, name, None) for name in _READ] if row else []
        return {one.manifest_key: one.manifest_digest for one in read if hasattr(one, "manifest_key")}

    def deleted_pods(self, targets: Sequence[Target], kept: timedelta) -> dict[Target, bool]:
        """See state.retention."""
        pods = [self._db.pods[target.id] for target in targets if target.kind == "pod"]
        return {
            Target("pod", pod.id): self._is_long_gone(pod, kept) and pod.id not in self._db.open
            for pod in pods
            if pod.desired is Desired.DELETED
        }

    def _is_long_gone(self, pod: PodRow, kept: timedelta) -> bool:
        """It was deleted, by the last wish that there can be."""
        carried_out = pod.desired is Desired.DELETED and pod.satisfied_generation == pod.generation
        return carried_out and pod.desired_at is not None and pod.desired_at < self._db.clock() - kept

    def retire(self, archive_ids: Collection[str], reason: str) -> int:
        """See state.retention."""
        keys = [key for key, ref in self._db.archives.items() if ref.id in archive_ids]
        fresh = [row for key in keys if (row := self._db.kept[key]).retired_at is None]
        for row in fresh:
            row.retired_at = self._db.clock()
        self._db.marks["retired"] += len(fresh)
        return len(fresh)

    def look_again(self, target: Target, at: datetime | None) -> None:
        """See state.retention."""
        self._db.targets[target.kind, target.id].check_at = at

    # ---- compactions ---------------------------------------------------------------------------------------

    def make_due_compactions(self, targets: Sequence[Target]) -> int:
        """See state.compactions."""
        made = 0
        for target in sorted(set(targets)):
            kept = [
                (n, ref) for n, ref in self._archives(target) if not self._db.kept[target.id, n].retired_at
            ]
            if not kept or kept[-1][0] % compactions.ARCHIVES_PER_LOOK:
                continue
            number, ref = kept[-1]
            if (target.id, number) not in self._db.damaged and not [*self._db.chores.of(COMPACT, ref.id)]:
                self._make_reading(COMPACT, target.id, ref)
                made += 1
        return made

    def _make_reading(self, kind: str, target: str, ref: ArchiveRef) -> None:
        request = {
            "store_id": STORE_ID,
            "manifest_key": ref.manifest_key,
            "manifest_digest": ref.manifest_digest,
        }
        _, pod_id, workspace_id = self._owner(target)
        self._db.chores.make(kind, ref.id, request, None, pod_id, workspace_id)

    # ---- sweeps --------------------------------------------------------------------------------------------

    def will_need_a_sweep(self, target: Target, limits: Limits) -> None:
        """See state.sweeps."""
        row = self._db.targets[target.kind, target.id]
        row.sweep_at = row.sweep_at or self._db.clock() + limits.sweep_age

    def make_due_sweeps(self, limits: Limits, limit: int) -> int:
        """See state.sweeps."""
        now = self._db.clock()
        for row in [row for row in self._db.chores.open_rows() if self._is_stale(row)]:
            self._db.chores.give_up_stale(row)
            self._db.targets[row.request["kind"], row.request["target_id"]].sweep_at = now
        times = ((row.sweep_at, *key) for key, row in self._db.targets.items() if row.sweep_at)
        under_way = {row.subject for row in self._db.chores.open_rows() if row.kind == SWEEP}
        due = [(kind, id_) for at, kind, id_ in sorted(times) if at <= now]
        due = [(kind, id_) for kind, id_ in due if f"{kind} {id_}" not in under_way][:limit]
        for kind, id_ in due:
            request, (_, *of_what) = self._sweep_of(Target(kind, id_), limits), self._owner(id_)
            self._db.chores.make(SWEEP, f"{kind} {id_}", request, None, *of_what)
            self._db.targets[kind, id_].sweep_at = None
        return len(due)

    def _is_stale(self, row: ChoreRow) -> bool:
        waits = row.kind == SWEEP and row.state is ChoreState.WAITING
        return waits and row.created_at < self._db.clock() - _SWEEP_IS_STALE

    def _sweep_of(self, target: Target, limits: Limits) -> Payload:
        now, archives, owner = self._db.clock(), self._archives(target), self._db.owner_of(target.id)
        pointed = owner.archive.id if owner.archive else None
        if isinstance(owner, PodRow) and owner.desired is Desired.DELETED:
            pointed = None
        retired = {ref.id: self._db.kept[target.id, number].retired_at for number, ref in archives}
        lately = {key for key, at in retired.items() if at is not None and at > now - limits.sweep_age}
        named = {
            ref.manifest_key: ref.manifest_digest
            for _, ref in archives
            if retired[ref.id] is None or ref.id in lately or ref.id == pointed
        }
        kept = len(named)
        named |= self._in_use(target.id)
        gone = isinstance(owner, PodRow) and self._is_long_gone(owner, limits.deleted_pods_kept)
        seen_before = now - limits.sweep_confirm_after
        doomed = [
            row.key
            for row in self._db.candidates.values()
            if (row.kind, row.target_id) == (target.kind, target.id) and row.first_seen_at < seen_before
        ]
        return {
            "store_id": STORE_ID,
            "kind": target.kind,
            "target_id": target.id,
            "kept": [{"key": key, "digest": digest} for key, digest in sorted(named.items())],
            "known": [ref.manifest_key for _, ref in archives],
            "newest": max((number for number, _ in archives), default=0),
            "gone": gone and not named,
            "doomed": sorted(doomed),
            "min_age_s": limits.sweep_age.total_seconds(),
            "confirm_after_s": limits.sweep_confirm_after.total_seconds(),
            "share_max": limits.sweep_share_max,
            "soon_over": bool(lately) or len(named) > kept,
        }

    def make_tidy(self, limits: Limits, every: timedelta) -> bool:
        """See state.sweeps."""
        now = self._db.clock()
        if any(row.created_at > now - every for row in self._db.chores.of(TIDY, "store")):
            return False
        lately = now - every - sweeps.BROKEN_MORE
        for row in [row for row in self._db.chores.rows.values() if row.kind in _BY_COPYING]:
            broken = row.state in (ChoreState.FAILED, ChoreState.CANCELLED) or row.attempt > 1
            if broken and row.created_at > lately:
                for kind, id_ in _written_by(row):
                    there = self._db.targets.setdefault((kind, id_), TargetRow(None, None))
                    there.sweep_at = there.sweep_at or now + limits.sweep_age
        request = {"store_id": STORE_ID, "min_age_s": limits.sweep_age.total_seconds()}
        return self._db.chores.make(TIDY, "store", request)[1]

    # ---- scrubs --------------------------------------------------------------------------------------------

    def make_due_scrubs(self, every: timedelta, again: timedelta, limit: int) -> int:
        """See state.scrubs."""
        now, due = self._db.clock(), []
        for (target, number), ref in self._db.archives.items():
            row, suspect_at = self._db.kept[target, number], self._db.damaged.get((target, number))
            is_due = row.whole_at < now - every or (suspect_at is not None and suspect_at < now - again)
            if row.retired_at is None and is_due and not self._is_scrubbed(ref.id, now - again):
                due.append((row.whole_at, ref.id, target, ref))
        waiting = sum(row.kind == SCRUB for row in self._db.chores.open_rows())
        due = sorted(due, key=lambda line: line[:2])[: max(0, limit - waiting)]
        for _, _, target, ref in due:
            self._make_reading(SCRUB, target, ref)
        return len(due)

    def _is_scrubbed(self, archive_id: str, since: datetime) -> bool:
        rows = self._db.chores.of(SCRUB, archive_id)
        return any(row.finished_at is None or row.finished_at > since for row in rows)

    # ---- copies --------------------------------------------------------------------------------------------

    def make_checkpoints(self, every: timedelta, limit: int) -> int:
        """See state.copies."""
        rows = [row for row in self._db.workspaces.values() if self._is_to_be_copied(row, every)]
        rows = sorted(rows, key=lambda row: (row.placed_at, row.id))[:limit]
        return sum([self._checkpoint(row) for row in rows])

    def _is_to_be_copied(self, workspace: WorkspaceRow, every: timedelta) -> bool:
        since, pods = self._db.clock() - every, self._db.pods_of(workspace.id)
        runs = any(pod.desired is Desired.RUNNING and self._ran(pod, workspace, since) for pod in pods)
        busy = any(row.action.workspace_id == workspace.id for row in self._db.open.values())
        rows = self._db.chores.of(CHECKPOINT, workspace.id) if runs and not busy else ()
        lately = any(row.finished_at is None or row.finished_at > since for row in rows)
        return runs and not busy and not lately

    def _ran(self, pod: PodRow, workspace: WorkspaceRow, since: datetime) -> bool:
        seen = pod.observed_at(workspace.placement)
        started_at = pod.observed.started_at if pod.observed else None
        runs = seen is not None and seen.state is Observed.RUNNING
        return runs and started_at is not None and started_at < since

    def _checkpoint(self, workspace: WorkspaceRow) -> int:
        placement = workspace.placement
        assert placement is not None
        owners: list[PodRow | WorkspaceRow] = [
            pod
            for pod in self._db.pods_of(workspace.id)
            if (seen := pod.observed) and (seen.state, seen.epoch) == (Observed.RUNNING, placement.epoch)
        ]
        targets = tuple(map(self._target, (*owners, workspace)))
        request = CopyRequest(
            workspace_id=workspace.id, user_id=workspace.user_id, epoch=placement.epoch, targets=targets
        )
        return self._make_copying(CHECKPOINT, workspace.id, placement.node_id, request)

    def _make_copying(self, kind: str, subject: str, node_id: str, request: CopyRequest) -> int:
        pods = [target.target_id for target in request.targets if target.kind is TargetKind.POD]
        of_pod = pods[0] if len(pods) == 1 else None
        asked = request.model_dump(mode="json")
        return int(self._db.chores.make(kind, subject, asked, node_id, of_pod, request.workspace_id)[1])

    def _target(self, owner: PodRow | WorkspaceRow) -> CopyTarget:
        return CopyTarget(
            kind=TargetKind.POD if isinstance(owner, PodRow) else TargetKind.WORKSPACE,
            target_id=owner.id,
            number=self._db.archives_made(owner.id) + 1,
            base=source(owner.archive) if owner.archive else None,
        )

    def make_recoveries(self, limit: int) -> int:
        """See state.copies."""
        found = [line for node in self._db.nodes.values() for line in self._stale_on(node)]
        made = 0
        for target, node_id, epoch in sorted(found)[:limit]:
            kind, pod_id, _ = self._owner(target)
            workspace = self._db.workspaces[self._db.pods[pod_id].workspace_id if pod_id else target]
            copied = CopyTarget(
                kind=TargetKind(kind), target_id=target, number=self._db.archives_made(target) + 1
            )
            request = CopyRequest(
                workspace_id=workspace.id, user_id=workspace.user_id, epoch=epoch, targets=(copied,)
            )
            made += self._make_copying(RECOVER_COPY, f"{target}@{epoch}", node_id, request)
        return made

    def _stale_on(self, node: NodeRow) -> Iterator[tuple[str, str, int]]:
        report, pods, volumes = node.last_report, self._db.pods, self._db.workspaces
        told: list[tuple[str, PodReport | WorkspaceReport]] = []
        if report is not None and "stale_container" in node.oddities:
            stopped = (line for line in report.pods if line.state is Observed.STOPPED and line.pod_id in pods)
            told += [
                (line.pod_id, line) for line in stopped if pods[line.pod_id].desired is not Desired.DELETED
            ]
        if report is not None and "stale_volume" in node.oddities:
            there = (line for line in report.workspaces if line.state is WorkspaceObserved.PRESENT)
            told += [(line.workspace_id, line) for line in there if line.workspace_id in volumes]
        for target, line in told:
            live = volumes[line.workspace_id].placement
            is_live = live is not None and (live.node_id, live.epoch) == (node.id, line.epoch)
            if not is_live and line.fingerprint is not None and not self._is_saved(target, line.fingerprint):
                yield target, node.id, line.epoch

    def _is_saved(self, target: str, fingerprint: str) -> bool:
        return any(ref.fingerprint == fingerprint for _, ref in self._archives(Target("", target)))


def _written_by(row: ChoreRow) -> Iterable[tuple[str, str]]:
    written = {(one["kind"], one["target_id"]) for one in row.request["targets"]}
    written |= {("pod", row.pod_id)} if row.pod_id else set()
    written |= {("workspace", row.workspace_id)} if row.workspace_id else set()
    return sorted(written)
