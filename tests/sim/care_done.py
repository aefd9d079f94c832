"""What kinds of chores write down when they are done or given up, in the simulated database.

A small model of `state.chore_kinds.APPLIES`.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from state import sweeps
from state.compactions import COMPACT
from state.copy_wire import CHECKPOINT, RECOVER_COPY, CopyMade, CopyRequest, CopyResult
from state.generations import DAMAGE_CODES
from state.model import ArchiveRef, TargetKind
from state.scrubs import SCRUB
from state.sweeps import SWEEP, TIDY
from state.wire import Action, ArchivePod, ArchiveWorkspace
from tests.sim.care import SWEPT_AFTER
from tests.sim.chore_rows import Applies, ChoreRow
from tests.sim.rows import ActionRow, CandidateRow

if TYPE_CHECKING:
    from tests.sim.tables import SimTables


def applies_of(db: "SimTables") -> Mapping[str, Applies]:
    """By kind."""
    done = _Done(db)
    return {
        COMPACT: Applies(done.compacted, done.damaged),
        SCRUB: Applies(done.whole, done.damaged_if_there),
        SWEEP: Applies(done.swept, done.not_swept),
        TIDY: Applies(failed=done.parked),
        CHECKPOINT: Applies(done.checkpointed),
        RECOVER_COPY: Applies(done.recovered),
    }


class _Done:
    def __init__(self, db: "SimTables") -> None:
        self._db = db

    # ---- sweeps --------------------------------------------------------------------------------------------

    def swept(self, row: ChoreRow, result: Mapping[str, Any]) -> None:
        """See state.sweeps."""
        request, now, candidates = row.request, self._db.clock(), self._db.candidates
        kind, target_id = request["kind"], request["target_id"]
        sizes = {line["key"]: line["size_bytes"] for line in result["candidates"]}
        young, deleted = result["young"], result["deleted"]
        for key in [
            key for key, line in candidates.items() if (line.kind, line.target_id) == (kind, target_id)
        ]:
            if key not in sizes:
                del candidates[key]
        for key, size_bytes in sizes.items():
            line = candidates.setdefault(key, CandidateRow(key, kind, target_id, size_bytes, now, now))
            line.last_seen_at, line.size_bytes = now, size_bytes
        again = [request["confirm_after_s"]] * bool(sizes)
        again += [request["min_age_s"]] * bool(young or request["soon_over"])
        if again:
            self._again(row, timedelta(seconds=min(again)))
        self._db.marks["swept_from_store"] += len(deleted)

    def _again(self, row: ChoreRow, after: timedelta) -> None:
        target = self._db.targets[row.request["kind"], row.request["target_id"]]
        at = self._db.clock() + after
        target.sweep_at = min(at, target.sweep_at or at)

    def not_swept(self, row: ChoreRow, detail: Mapping[str, Any]) -> None:
        """See state.sweeps."""
        self._again(row, sweeps.RETRY)
        self.parked(row, detail)

    def parked(self, row: ChoreRow, detail: Mapping[str, Any]) -> None:
        """See state.sweeps."""
        if detail["code"] == "stale":
            return
        self._db.marks[f"parked:{detail['code']}"] += 1
        self._suspect(self._at(detail.get("manifest_key")))

    # ---- reading archives ----------------------------------------------------------------------------------

    def _at(self, manifest_key: str | None) -> tuple[str, int] | None:
        found = (key for key, ref in self._db.archives.items() if ref.manifest_key == manifest_key)
        return next(found, None)

    def _of(self, archive_id: str) -> tuple[str, int] | None:
        return next((key for key, ref in self._db.archives.items() if ref.id == archive_id), None)

    def _suspect(self, key: tuple[str, int] | None) -> bool:
        """See state.generations; whether there is such an archive, and it is not retired."""
        if key is None or self._db.kept[key].retired_at is not None:
            return False
        self._db.damaged.setdefault(key, self._db.clock())
        return True

    def compacted(self, row: ChoreRow, result: Mapping[str, Any]) -> None:
        """See state.compactions: the same archive under another key, if it is still where it was read."""
        if not result["worth"]:
            return
        key, digest = result["manifest_key"], result["manifest_digest"]
        of, read_at = self._of(row.subject), (row.request["manifest_key"], row.request["manifest_digest"])
        ref = self._db.archives[of] if of else None
        if of is None or ref is None or not self._db.is_usable(of):
            return
        if (ref.manifest_key, ref.manifest_digest) != read_at:
            return
        moved = replace(ref, manifest_key=key, manifest_digest=digest)
        self._db.archives[of], self._db.kept[of].whole_at = moved, self._db.clock()
        owner = self._db.owner_of(of[0])
        if owner.archive is not None and owner.archive.id == moved.id:
            owner.archive = moved
        target = self._db.targets["pod" if of[0] in self._db.pods else "workspace", of[0]]
        target.sweep_at = target.sweep_at or self._db.clock() + SWEPT_AFTER
        self._db.marks["compacted"] += 1

    def damaged(self, row: ChoreRow, detail: Mapping[str, Any]) -> None:
        """See state.compactions."""
        if detail["code"] in DAMAGE_CODES:
            self._suspect(self._of(row.subject))

    def damaged_if_there(self, row: ChoreRow, detail: Mapping[str, Any]) -> None:
        """See state.scrubs."""
        key = self._of(row.subject)
        if key is None or self._db.archives[key].manifest_key != row.request["manifest_key"]:
            return
        if detail["code"] in DAMAGE_CODES and key not in self._db.damaged:
            self._db.marks["scrub_found_damage"] += self._suspect(key)

    def whole(self, row: ChoreRow, _result: Mapping[str, Any]) -> None:
        """See state.scrubs."""
        key = row.request["manifest_key"]
        self._db.watch.read_whole(key, row.created_at)
        self._db.marks["scrubbed"] += 1
        before = len(self._db.damaged)
        self._db.read_back_whole(key)
        self._db.marks["scrub_found_it_whole_again"] += len(self._db.damaged) < before

    # ---- copies --------------------------------------------------------------------------------------------

    def checkpointed(self, row: ChoreRow, payload: Mapping[str, Any]) -> None:
        """See state.copies."""
        request, result = CopyRequest.model_validate(row.request), CopyResult.model_validate(payload)
        for copy in result.made:
            if copy.target_id not in self._db.open:
                action = ActionRow(_action(request, copy), row.node_id or "", self._db.clock())
                archive = self._archive(request, copy, copy.number)
                self._db.marks["checkpointed"] += self._db.commit_archive(action, archive, live=True)

    def recovered(self, row: ChoreRow, payload: Mapping[str, Any]) -> None:
        """See state.copies."""
        request, result = CopyRequest.model_validate(row.request), CopyResult.model_validate(payload)
        for copy in result.made:
            number = self._db.archives_made(copy.target_id) + 1
            archive = self._archive(request, copy, number)
            self._db.marks["recovered_copy"] += self._db.keep_aside(copy.target_id, archive)

    def _archive(self, request: CopyRequest, copy: CopyMade, number: int) -> ArchiveRef:
        made = copy.archive
        return ArchiveRef(
            id="",
            number=number,
            epoch=request.epoch,
            manifest_key=made.manifest_key,
            manifest_digest=made.manifest_digest,
            fingerprint=made.fingerprint,
            image_id=made.image_id,
            committed_at=self._db.clock(),
        )


def _action(request: CopyRequest, copy: CopyMade) -> Action:
    of_pod = copy.kind is TargetKind.POD
    return Action(
        id="copy",
        workspace_id=request.workspace_id,
        user_id=request.user_id,
        pod_id=copy.target_id if of_pod else None,
        epoch=request.epoch,
        attempt=copy.attempt,
        step=(ArchivePod if of_pod else ArchiveWorkspace)(number=copy.number),
    )
