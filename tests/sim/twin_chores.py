"""How chores are kept and given out on both databases: see twins.py."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from state import chores
from state.chore_kinds import APPLIES
from state.chore_wire import ChoreHandle, ChoresDown, ChoresUp, Payload
from state.model import Limits
from tests.sim.chore_rows import NOTHING, Applies, SimChores

if TYPE_CHECKING:
    from tests.sim.twins import TwinDatabase

PRUNED_MAX = 1000


class TwinChores(SimChores):
    """See SimChores; each transaction is made on PostgreSQL too."""

    def __init__(self, db: "TwinDatabase") -> None:
        super().__init__(db)
        self._twins = db

    def make(
        self,
        kind: str,
        subject: str,
        request: Payload,
        only_node_id: str | None = None,
        pod_id: str | None = None,
        workspace_id: str | None = None,
    ) -> tuple[str, bool]:
        """See SimChores."""
        make, of_what = super().make, {"pod_id": pod_id, "workspace_id": workspace_id}

        def real() -> tuple[str, bool]:
            with self._twins.programs.transaction() as connection:
                return chores.make_chore(
                    connection,
                    kind,
                    subject,
                    request,
                    made_by="test",
                    only_node_id=only_node_id,
                    **of_what,
                )

        return self._twins.both(
            "make_chore", lambda: make(kind, subject, request, only_node_id, **of_what), real
        )

    def cancel(self, chore_id: str, reason: str) -> bool:
        """See SimChores."""
        cancel, programs = super().cancel, self._twins.programs
        return self._twins.both(
            "cancel_chore",
            lambda: cancel(chore_id, reason),
            lambda: chores.cancel_chore(programs, chore_id, actor="test", reason=reason),
        )

    def take_in(
        self, node_id: str, said: ChoresUp, limits: Limits, applies: Mapping[str, Applies] = NOTHING
    ) -> tuple[ChoreHandle, ...]:
        """See SimChores; what kinds write down of their own is written down if the mirror does."""
        take_in, programs = super().take_in, self._twins.programs
        theirs = {kind: APPLIES[kind] for kind in applies}
        return self._twins.both(
            "take_in_chores",
            lambda: take_in(node_id, said, limits, applies),
            lambda: chores.take_in(programs, node_id, said, theirs, limits),
        )

    def news(self, node_id: str, said: ChoresUp, accepted: Sequence[ChoreHandle] = ()) -> ChoresDown:
        """See SimChores."""
        news, programs = super().news, self._twins.programs
        return self._twins.both(
            "chore_news",
            lambda: news(node_id, said, accepted),
            lambda: chores.news(programs, node_id, said, accepted),
        )

    def take_back_lost(self, leading_since: datetime, silent_after: timedelta, timeout: timedelta) -> int:
        """See SimChores."""
        take_back = super().take_back_lost

        def real() -> int:
            with self._twins.programs.transaction() as connection:
                return chores.take_back_lost(connection, leading_since, silent_after, timeout)

        return self._twins.both(
            "take_back_lost", lambda: take_back(leading_since, silent_after, timeout), real
        )

    def prune(self, kept: timedelta) -> int:
        """See SimChores."""
        prune = super().prune

        def real() -> int:
            with self._twins.programs.transaction() as connection:
                return chores.prune(connection, kept, PRUNED_MAX)

        return self._twins.both("prune_chores", lambda: prune(kept), real)
