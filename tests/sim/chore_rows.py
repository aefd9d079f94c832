"""How chores are kept and given out: a small model of state.chores, which PostgreSQL is compared with.

What a kind writes down when it is done or given up is in care_done.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from state.backoff import delay
from state.chore_wire import (
    Chore,
    ChoreFailed,
    ChoreHandle,
    ChoreResult,
    ChoresDown,
    ChoresUp,
    Payload,
)
from state.chores import FAILURES_MAX
from state.model import ChoreState, Limits
from tests.sim.rows import action_id

if TYPE_CHECKING:
    from tests.sim.tables import SimTables

_OPEN = (ChoreState.WAITING, ChoreState.GIVEN)


@dataclass(eq=False)
class ChoreRow:
    """A row of `chore`."""

    id: str
    kind: str
    subject: str
    request: Payload
    created_at: datetime
    not_before: datetime
    only_node_id: str | None = None
    pod_id: str | None = None
    workspace_id: str | None = None
    state: ChoreState = ChoreState.WAITING
    attempt: int = 0
    failures: int = 0
    node_id: str | None = None
    given_at: datetime | None = None
    finished_at: datetime | None = None
    progress: dict[str, Any] | None = None
    result: Payload | None = None
    error: dict[str, Any] | None = None


# What a kind writes down of its own: of one that is done its result, of one that is given up the detail.
Apply = Callable[[ChoreRow, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Applies:
    """See state.chores."""

    done: Apply | None = None
    failed: Apply | None = None


NOTHING: Mapping[str, Applies] = {}


class SimChores:
    """Waiting, given to one node at a time, and over."""

    def __init__(self, db: "SimTables") -> None:
        self._db = db
        self.rows: dict[str, ChoreRow] = {}
        self._open: dict[tuple[str, str], ChoreRow] = {}
        self.given_out = 0

    def make(
        self,
        kind: str,
        subject: str,
        request: Payload,
        only_node_id: str | None = None,
        pod_id: str | None = None,
        workspace_id: str | None = None,
    ) -> tuple[str, bool]:
        """See state.chores: one open chore of each kind and subject."""
        now, drawn = self._db.clock(), action_id(self._db.draw())
        if (there := self._open.get((kind, subject))) is not None:
            return there.id, False
        row = ChoreRow(drawn, kind, subject, request, now, now, only_node_id, pod_id, workspace_id)
        self.rows[drawn] = self._open[kind, subject] = row
        return drawn, True

    def open_rows(self) -> Iterable[ChoreRow]:
        """Those that wait, or are given to somebody."""
        return self._open.values()

    def of(self, kind: str, subject: str) -> Iterable[ChoreRow]:
        """All that are kept, also those that are over."""
        return (row for row in self.rows.values() if (row.kind, row.subject) == (kind, subject))

    def cancel(self, chore_id: str, reason: str) -> bool:
        """See state.chores."""
        row = self.rows[chore_id]
        if row.state not in _OPEN:
            return False
        self._finish(row, ChoreState.CANCELLED, row.result, {"code": "cancelled", "message": reason})
        return True

    def give_up_stale(self, row: ChoreRow) -> None:
        """See state.sweeps: no node took it in time."""
        message = "no node took it in time; a new one is made"
        self._finish(row, ChoreState.CANCELLED, row.result, {"code": "stale", "message": message})

    def _finish(
        self, row: ChoreRow, state: ChoreState, result: Payload | None, error: dict[str, Any] | None
    ) -> None:
        row.state, row.finished_at, row.given_at = state, self._db.clock(), None
        row.result, row.error = result, error
        del self._open[row.kind, row.subject]

    # ---- what the gateway asks -----------------------------------------------------------------------------

    def take_in(
        self, node_id: str, said: ChoresUp, limits: Limits, applies: Mapping[str, Applies] = NOTHING
    ) -> tuple[ChoreHandle, ...]:
        """See state.chores: what became of chores; of an earlier giving-out nothing counts."""
        for line in said.progress:
            if (row := self._given(node_id, line.chore)) is not None:
                row.progress = line.model_dump(mode="json", exclude={"chore"})
        for result in said.results:
            if (row := self._given(node_id, result.chore)) is not None:
                self._take_result(row, result, limits, applies.get(row.kind, Applies()))
        return tuple(result.chore for result in said.results)

    def is_given(self, node_id: str, handle: ChoreHandle) -> bool:
        """Whether it is this node's, and by this giving-out."""
        return self._given(node_id, handle) is not None

    def _given(self, node_id: str, handle: ChoreHandle) -> ChoreRow | None:
        row = self.rows.get(handle.id)
        if row is None or row.state is not ChoreState.GIVEN:
            return None
        return row if (row.node_id, row.attempt) == (node_id, handle.attempt) else None

    def _take_result(self, row: ChoreRow, result: ChoreResult, limits: Limits, kind: Applies) -> None:
        if isinstance(result, ChoreFailed):
            self._failed(row, result, limits, kind)
            return
        try:
            if kind.done is not None:
                kind.done(row, result.result)
        except (ValueError, KeyError, TypeError) as error:
            message = f"What the node said cannot be read ({type(error).__name__}: {error})."[:500]
            unreadable = ChoreFailed(chore=result.chore, code="unreadable", message=message)
            self._failed(row, unreadable, limits, kind)
        else:
            self._finish(row, ChoreState.DONE, result.result, None)

    def _failed(self, row: ChoreRow, result: ChoreFailed, limits: Limits, kind: Applies) -> None:
        error, failures = {"code": result.code, "message": result.message}, row.failures + 1
        if not result.permanent and failures < FAILURES_MAX:
            row.state, row.given_at, row.failures, row.error = ChoreState.WAITING, None, failures, error
            row.not_before = self._db.clock() + delay(failures, limits, 0.0)
            return
        self._finish(row, ChoreState.FAILED, result.detail, error)
        if kind.failed is not None:
            kind.failed(row, {**result.detail, **error})

    def has_news(self, node_id: str, said: ChoresUp) -> bool:
        """Whether one waits that this node would take, and may have."""
        if not said.wanted or not self._open:
            return False
        return bool(self._waiting_for(node_id, said))

    def is_behind(self, node_id: str, said: ChoresUp) -> bool:
        """Whether it has not what it was given, or has what is not its own."""
        given = {(row.id, row.attempt) for row in self._open.values() if self._is_with(row, node_id)}
        known = {key for key in given if self.rows[key[0]].kind in said.kinds}
        held = {(handle.id, handle.attempt) for handle in said.held}
        return bool(known - held or held - given)

    def _is_with(self, row: ChoreRow, node_id: str) -> bool:
        return row.state is ChoreState.GIVEN and row.node_id == node_id

    def _waiting_for(self, node_id: str, said: ChoresUp) -> list[ChoreRow]:
        now = self._db.clock()
        return [
            row
            for row in self._open.values()
            if row.state is ChoreState.WAITING
            and row.not_before <= now
            and row.kind in said.kinds
            and row.only_node_id in (None, node_id)
        ]

    def news(self, node_id: str, said: ChoresUp, accepted: Sequence[ChoreHandle] = ()) -> ChoresDown:
        """See state.chores: some for it, and which of its own it should drop."""
        if not said.kinds:
            return ChoresDown(accepted=tuple(accepted))
        held = [handle for handle in said.held if handle not in accepted]
        self._give(node_id, said)
        mine = [row for row in self._open.values() if self._is_with(row, node_id)]
        still = {(row.id, row.attempt) for row in mine}
        known = sorted(
            (row for row in mine if row.kind in said.kinds), key=lambda row: (row.given_at, row.id)
        )
        given = [self._chore(row) for row in known]
        return ChoresDown(
            given=tuple(chore for chore in given if chore.handle not in held),
            dropped=tuple(handle for handle in held if (handle.id, handle.attempt) not in still),
            accepted=tuple(accepted),
        )

    def _give(self, node_id: str, said: ChoresUp) -> None:
        waiting = sorted(
            self._waiting_for(node_id, said), key=lambda row: (row.not_before, row.created_at, row.id)
        )
        for row in waiting[: said.wanted]:
            row.state, row.node_id, row.given_at = ChoreState.GIVEN, node_id, self._db.clock()
            row.attempt, row.progress = row.attempt + 1, None
            self.given_out += 1

    def _chore(self, row: ChoreRow) -> Chore:
        age_s = (self._db.clock() - row.created_at).total_seconds()
        return Chore(
            id=row.id,
            attempt=row.attempt,
            kind=row.kind,
            subject=row.subject,
            request=row.request,
            age_s=age_s,
        )

    # ---- by the clock --------------------------------------------------------------------------------------

    def take_back_lost(self, leading_since: datetime, silent_after: timedelta, timeout: timedelta) -> int:
        """See state.chores: of nodes that are silent, or that take too long."""
        now, lost = self._db.clock(), 0
        for row in self._open.values():
            if row.state is not ChoreState.GIVEN or row.given_at is None or row.node_id is None:
                continue
            seen_at = self._db.nodes[row.node_id].last_seen_at
            heard = leading_since if seen_at is None else max(seen_at, leading_since)
            silent = heard < now - silent_after and row.given_at < now - silent_after
            if silent or row.given_at < now - timeout:
                row.state, row.given_at, row.not_before = ChoreState.WAITING, None, now
                lost += 1
        return lost

    def prune(self, kept: timedelta) -> int:
        """See state.chores: what was over long ago is forgotten."""
        before = self._db.clock() - kept
        old = [key for key, row in self.rows.items() if row.finished_at and row.finished_at < before]
        for key in old:
            del self.rows[key]
        return len(old)
