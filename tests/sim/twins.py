"""The mirror and PostgreSQL side by side: each transaction is made on both, and both must come to the same.

What the programs are given is PostgreSQL's answer; the oracle reads the mirror, whose rows are PostgreSQL's
after each transaction. So a run on twins has the trace of a run on the mirror alone, or ends as a drift.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Generic, TypeVar, cast

from state import delivery, leader, outbox, reports, silence, snapshot
from state.chore_wire import ChoresDown
from state.generations import ask_restore
from state.leader import Leadership, LeadershipLost
from state.model import Desired, Failover, Limits, What, World
from state.nodes import NodeAlive, declare_lost, register, set_cordoned
from state.outbox import Recorded
from state.plan import Plan
from state.reports import Ingested
from state.wire import SyncReply, SyncRequest
from tests.sim.database import SimDatabase
from tests.sim.ingest import Ingest
from tests.sim.postgres import ClockedDatabase, DrawnIds, SimServer
from tests.sim.readback import apart, difference, mirrored_rows, open_ids_of, real_rows
from tests.sim.restorations import REFUSALS
from tests.sim.tables import Replica
from tests.sim.twin_care import TwinCare
from tests.sim.twin_chores import TwinChores
from tests.sim.twin_policies import TwinPolicies

T = TypeVar("T")
LINES_MAX = 8
_REAL = "in PostgreSQL"
# After these the rows are not compared, nor after what says that it has done nothing; the next change tells.
READS = frozenset(
    {
        "read_world",
        "next_due_in",
        "page_workspaces",
        "read_lives",
        "looks_asked",
        "for_node",
        "assert_leading",
        "due_targets",
        "kept_archives",
        "deleted_pods",
    }
)
IDLE: dict[str, object] = {
    "try_lead": None,
    "claim_due": [],
    "note_silence": {},
    "set_desired": False,
    "set_failover": False,
    "claim_lives": [],
    "ask_to_look": 0,
    "answer": False,
    "take_back_lost": 0,
    "prune": 0,
    "make_tidy": False,
    "make_due_sweeps": 0,
    "make_due_scrubs": 0,
    "make_recoveries": 0,
    "make_checkpoints": 0,
    "make_due_compactions": 0,
    "retire": 0,
    "chore_news": ChoresDown(),
}
_ADD_POD = """
    INSERT INTO pod (id, workspace_id, user_id, name, image, desired_state)
    VALUES (%(pod)s, %(workspace)s, %(user)s, %(name)s, 'image:1', 'stopped')
"""
_ADD_WORKSPACE = "INSERT INTO workspace (id, user_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
_WISH = """
    UPDATE pod SET desired_state = %(wished)s
     WHERE id = %(pod)s AND desired_state NOT IN (%(wished)s, 'deleted')
"""
_FAILOVER = """
    UPDATE pod SET failover = %(wished)s
     WHERE id = %(pod)s AND failover <> %(wished)s AND desired_state <> 'deleted'
"""


class Drift(BaseException):
    """The mirror and PostgreSQL have come to different ends: nothing that production code catches."""


class TwinDatabase(SimDatabase):
    """See SimDatabase; every transaction is made on PostgreSQL too. `compared` counts them by name."""

    def __init__(self, clock: Callable[[], datetime], server: SimServer) -> None:
        super().__init__(clock)
        server.empty()
        self.programs = ClockedDatabase(server.url, "reconciler", clock)
        self.people = ClockedDatabase(server.url, "api", clock)
        self.compared: Counter[str] = Counter()
        self._server = server
        self._ids = DrawnIds()
        self.policies: TwinPolicies = TwinPolicies(self)
        self.chores: TwinChores = TwinChores(self)
        self.care: TwinCare = TwinCare(self)
        self._mirroring = False

    def disconnect(self) -> None:
        """Disconnect."""
        self.programs.close()
        self.people.close()

    def replica(self) -> Replica:
        """See SimTables; with PostgreSQL's rows."""
        return {**super().replica(), _REAL: self._server.rows()}

    def fail_over(self, replica: Replica) -> None:
        """See SimTables."""
        super().fail_over(replica)
        self._server.go_back(cast("dict[str, bytes]", replica[_REAL]))
        self.check("fail_over")

    def both(self, name: str, mirrored: Callable[[], T], real: Callable[[], T]) -> T:
        """The real one's outcome, which must be the mirror's. Raises Drift, and what both have raised.

        What is a part of another transaction is done with that.
        """
        if self._mirroring:
            return mirrored()
        self._mirroring = True
        expected = _outcome(mirrored)
        self._mirroring = False
        with self._ids.instead():
            found = _outcome(real)
        if expected != found:
            raise Drift(f"{name}: " + "; ".join([*apart(expected, found)][:LINES_MAX]))
        self.compared[name] += 1
        if name not in READS and found.value != IDLE.get(name, self):
            self.check(name)
        if found.lost:
            raise LeadershipLost(found.lost)
        return cast("T", found.value)

    def check(self, name: str) -> None:
        """All rows of both are the same."""
        with self.programs.transaction() as connection:
            lines = difference(mirrored_rows(self), real_rows(connection))
        if lines:
            raise Drift(f"after {name}: " + "; ".join(lines[:LINES_MAX]))

    # ---- who there is, and what is wished ------------------------------------------------------------------

    def add_node(self, node_id: str) -> None:
        """See SimDatabase."""
        add = super().add_node
        self.both("add_node", lambda: add(node_id), lambda: register(self.people, node_id, "token"))

    def add_pod(self, pod_id: str, workspace_id: str, user_id: str) -> None:
        """See SimDatabase."""
        add = super().add_pod

        def real() -> None:
            with self.people.transaction() as connection:
                connection.execute(_ADD_WORKSPACE, (workspace_id, user_id))
                row = {"pod": pod_id, "workspace": workspace_id, "user": user_id}
                connection.execute(_ADD_POD, {**row, "name": self.pods[pod_id].name})

        self.both("add_pod", lambda: add(pod_id, workspace_id, user_id), real)

    def set_cordoned(self, node_id: str, cordoned: bool) -> None:
        """See SimDatabase."""
        cordon = super().set_cordoned

        def real() -> None:
            set_cordoned(self.people, node_id, cordoned, actor="test")

        self.both("set_cordoned", lambda: cordon(node_id, cordoned), real)

    def set_desired(self, pod_id: str, desired: Desired) -> bool:
        """See SimDatabase; by hand."""
        wish = super().set_desired

        def real() -> bool:
            with self.people.transaction() as connection:
                return connection.execute(_WISH, {"pod": pod_id, "wished": desired}).rowcount == 1

        return self.both("set_desired", lambda: wish(pod_id, desired), real)

    def declare_lost(self, node_id: str, silent_after: timedelta) -> bool:
        """See SimDatabase; how long counts as silent is the database's own to know."""
        sign = super().declare_lost

        def real() -> bool:
            try:
                return declare_lost(self.people, node_id, "test", actor="test").lost
            except NodeAlive:
                return False

        return self.both("declare_lost", lambda: sign(node_id, silent_after), real)

    def set_failover(self, pod_id: str, failover: Failover) -> bool:
        """See SimDatabase; by hand."""
        wish = super().set_failover

        def real() -> bool:
            with self.people.transaction() as connection:
                return connection.execute(_FAILOVER, {"pod": pod_id, "wished": failover}).rowcount == 1

        return self.both("set_failover", lambda: wish(pod_id, failover), real)

    def ask_restore(self, pod_id: str, number: int, what: What) -> bool:
        """See SimRestorations; by the API."""

        def real() -> bool:
            try:
                ask_restore(self.people, pod_id, number, what, actor="api:test")
            except REFUSALS:
                return False
            return True

        return self.both("ask_restore", lambda: self.restorations.ask(pod_id, number, what), real)

    # ---- the reconciler ------------------------------------------------------------------------------------

    def try_lead(self, holder: str, lease: timedelta) -> Leadership | None:
        """See SimDatabase."""
        lead = super().try_lead
        return self.both(
            "try_lead", lambda: lead(holder, lease), lambda: leader.try_lead(self.programs, holder, lease)
        )

    def renew(self, leadership: Leadership, lease: timedelta) -> bool:
        """See SimDatabase."""
        renew = super().renew
        return self.both(
            "renew", lambda: renew(leadership, lease), lambda: leader.renew(self.programs, leadership, lease)
        )

    def note_silence(
        self, leadership: Leadership, leading_since: datetime, silent_after: timedelta
    ) -> dict[str, bool]:
        """See SimDatabase."""
        note = super().note_silence
        return self.both(
            "note_silence",
            lambda: note(leadership, leading_since, silent_after),
            lambda: silence.note_silence(self.programs, leadership, leading_since, silent_after),
        )

    def claim_due(self, limit: int, redeliver_after: timedelta) -> list[str]:
        """See SimDatabase."""
        claim = super().claim_due
        return self.both(
            "claim_due",
            lambda: claim(limit, redeliver_after),
            lambda: snapshot.claim_due(self.programs, limit, redeliver_after),
        )

    def next_due_in(self) -> timedelta | None:
        """See SimDatabase."""
        due = super().next_due_in
        return self.both("next_due_in", due, lambda: snapshot.next_due_in(self.programs))

    def page_workspaces(self, after: str, limit: int) -> list[str]:
        """See SimDatabase."""
        page = super().page_workspaces
        return self.both(
            "page_workspaces",
            lambda: page(after, limit),
            lambda: snapshot.page_workspaces(self.programs, after, limit),
        )

    def read_world(self, workspace_ids: Sequence[str], leading_since: datetime) -> World:
        """See SimDatabase."""
        read = super().read_world
        return self.both(
            "read_world",
            lambda: read(workspace_ids, leading_since),
            lambda: snapshot.read_world(self.programs, workspace_ids, leading_since),
        )

    def record(self, plan: Plan, leadership: Leadership, now: datetime, examined: Sequence[str]) -> Recorded:
        """See SimDatabase."""
        record = super().record
        return self.both(
            "record",
            lambda: record(plan, leadership, now, examined),
            lambda: outbox.record(self.programs, plan, leadership, now, examined),
        )

    def park(self, workspace_id: str, reason: str, retry_at: datetime, leadership: Leadership) -> None:
        """See SimDatabase."""
        park = super().park
        self.both(
            "park",
            lambda: park(workspace_id, reason, retry_at, leadership),
            lambda: outbox.park(self.programs, workspace_id, reason, retry_at, leadership),
        )


class TwinIngest(Ingest):
    """See Ingest; what the gateway does is done on PostgreSQL too, with the same jitter."""

    def __init__(self, db: TwinDatabase, limits: Limits, seed: int, marks: Counter[str]) -> None:
        super().__init__(db, limits, Random(f"jitter {seed}").random, marks)
        self._twins = db
        self._real_jitter = Random(f"jitter {seed}").random

    def ingest(self, request: SyncRequest) -> Ingested:
        """See Ingest."""
        take_in = super().ingest

        def real() -> Ingested:
            return reports.ingest(
                self._twins.programs, request, limits=self._limits, jitter=self._real_jitter
            )

        return self._twins.both("ingest", lambda: take_in(request), real)

    def news(self, request: SyncRequest, accepted: tuple[str, ...]) -> SyncReply:
        """See Ingest."""
        news, db = super().news, self._twins.programs
        in_hand = [action_id for action_id in request.in_hand if action_id not in accepted]

        def real() -> SyncReply:
            return SyncReply(
                actions=delivery.undelivered(db, request.node_id, in_hand),
                taken_back=delivery.taken_back(db, request.node_id, in_hand, request.ending),
                accepted=accepted,
                epochs=delivery.epochs_ahead(db, request.node_id, request.report),
            )

        open_ids = delivery.open_action_ids(db)
        if open_ids != open_ids_of(self._twins):
            raise Drift(f"open actions: {open_ids_of(self._twins)} in the mirror, {open_ids} in PostgreSQL")
        return self._twins.both("news", lambda: news(request, accepted), real)


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    value: T | None
    lost: str = ""


def _outcome(call: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome(call())
    except LeadershipLost as error:
        return _Outcome(None, str(error))
