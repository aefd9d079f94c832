"""Going back to an earlier archive, in the simulated database: a small model of state.generations' wishes."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from state.generations import ArchiveDamaged, ArchiveNotFound, RestoreUnderWay
from state.model import ArchiveRef, Desired, Observed, Restoration, What
from state.plan import GoBack
from state.pods import PodDeleted
from tests.sim.rows import PodRow, WorkspaceRow

if TYPE_CHECKING:
    from tests.sim.tables import SimTables

REFUSALS = (ArchiveDamaged, ArchiveNotFound, RestoreUnderWay, PodDeleted)


@dataclass(eq=False)
class RestorationRow:
    """A row of `restoration`."""

    id: int
    target_kind: str
    target_id: str
    workspace_id: str
    archive_id: str
    asked_at: datetime
    from_archive_id: str | None = None
    finished_at: datetime | None = None


class SimRestorations:
    """The wishes, and how they are met."""

    def __init__(self, db: "SimTables") -> None:
        self._db = db
        self.rows: dict[int, RestorationRow] = {}
        # Also of wishes that were rolled back.
        self._drawn = 0

    def open_of(self, target: str) -> RestorationRow | None:
        """The wish for a pod or for a user's files that is not met yet."""
        mine = (row for row in self.rows.values() if row.target_id == target and row.finished_at is None)
        return next(mine, None)

    def view(self, target: str) -> Restoration | None:
        """As the planner sees it."""
        row = self.open_of(target)
        return None if row is None else Restoration(row.id, row.archive_id, self._ref(row.archive_id).number)

    # ---- wishing -------------------------------------------------------------------------------------------

    def ask(self, pod_id: str, number: int, what: What) -> bool:
        """See state.generations.ask_restore. False when it is refused."""
        pod = self._db.pods[pod_id]
        try:
            if pod.desired is Desired.DELETED:
                raise PodDeleted(pod_id)
            made = [self._row(pod, owner, ref) for owner, ref in self._wishes(pod, number, what)]
        except REFUSALS:
            return False
        new = [row for row in made if row.id not in self.rows]
        self.rows |= {row.id: row for row in new}
        if new:
            files = any(row.target_kind == "workspace" for row in made)
            self._ask_pods(pod, f"going back to archive number {number} ({what})", files=files)
        return True

    def _ask_pods(self, pod: PodRow, reason: str, *, files: bool) -> None:
        for other in self._db.pods_of(pod.workspace_id):
            if other.desired is not Desired.DELETED and (files or other.id == pod.id):
                other.desired_reason = reason
                self._db.wished(other)

    def _wishes(self, pod: PodRow, number: int, what: What) -> list[tuple[PodRow | WorkspaceRow, ArchiveRef]]:
        workspace = self._db.workspaces[pod.workspace_id]
        if what is What.WORKSPACE:
            return [(workspace, self._archive(workspace.id, number))]
        of_pod = self._archive(pod.id, number)
        files = self._matching(workspace.id, of_pod) if what is What.BOTH else None
        return [(pod, of_pod)] + ([(workspace, files)] if files else [])

    def _archive(self, target: str, number: int) -> ArchiveRef:
        kept = self._db.kept.get((target, number))
        if kept is None or kept.retired_at is not None:
            raise ArchiveNotFound(f"{target} {number}")
        if (target, number) in self._db.damaged:
            raise ArchiveDamaged(f"{target} {number}")
        return self._db.archives[target, number]

    def _matching(self, workspace_id: str, of_pod: ArchiveRef) -> ArchiveRef | None:
        """The files as they were when the pod was saved, or nearly then."""

        def far(ref: ArchiveRef) -> tuple[bool, float]:
            after = ref.epoch == of_pod.epoch and ref.committed_at >= of_pod.committed_at
            return not after, abs((ref.committed_at - of_pod.committed_at).total_seconds())

        whole = [
            ref
            for key, ref in self._db.archives.items()
            if key[0] == workspace_id and self._db.is_usable(key)
            if not self._db.kept[key].recovered or ref.epoch == of_pod.epoch
        ]
        return min(whole, key=far, default=None)

    def _row(self, pod: PodRow, owner: PodRow | WorkspaceRow, ref: ArchiveRef) -> RestorationRow:
        there = self.open_of(owner.id)
        if there is not None and there.archive_id != ref.id:
            raise RestoreUnderWay(owner.id)
        if there is not None:
            return there
        self._drawn += 1
        kind = "pod" if isinstance(owner, PodRow) else "workspace"
        return RestorationRow(self._drawn, kind, owner.id, pod.workspace_id, ref.id, self._db.clock())

    # ---- going ---------------------------------------------------------------------------------------------

    def go_back(self, line: GoBack) -> bool:
        """See state.generations.go_back: all that the plan saw is looked at again."""
        db, row = self._db, self.rows.get(line.restoration_id)
        if row is None or row.finished_at is not None:
            return False
        owner: PodRow | WorkspaceRow | None = (
            db.pods.get(row.target_id) if line.pod_id else db.workspaces.get(row.target_id)
        )
        if owner is None:
            return False
        before = owner.archive.id if owner.archive else None
        held = self._pod_is_held(owner) if isinstance(owner, PodRow) else self._is_held(owner)
        if before != line.archive_id_before or held:
            return False
        if self._is_retired(row.archive_id):
            return False
        db.watch.goes_back(owner, self._ref(row.archive_id))
        owner.archive, owner.failure = self._ref(row.archive_id), None
        row.finished_at, row.from_archive_id = db.clock(), before
        return True

    def _pod_is_held(self, pod: PodRow) -> bool:
        seen = pod.observed_at(self._db.workspaces[pod.workspace_id].placement)
        return pod.id in self._db.open or (seen is not None and seen.state is not Observed.ABSENT)

    def _is_held(self, workspace: WorkspaceRow) -> bool:
        busy = any(row.action.workspace_id == workspace.id for row in self._db.open.values())
        return busy or workspace.placement is not None

    def _is_retired(self, archive_id: str) -> bool:
        key = next(key for key, ref in self._db.archives.items() if ref.id == archive_id)
        return self._db.kept[key].retired_at is not None

    def _ref(self, archive_id: str) -> ArchiveRef:
        return next(ref for ref in self._db.archives.values() if ref.id == archive_id)
