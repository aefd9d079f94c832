"""How chores are kept and given out: the simulation's mirror of it and PostgreSQL itself keep one contract.

Nodes that ask for some, hold what was taken from them, answer late or twice, fall silent, or take too long.
"""

import os
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from state.chore_wire import ChoreDone, ChoreFailed, ChoreHandle, ChoreProgress, ChoreResult, ChoresUp
from state.wire import Report, SyncRequest
from tests.contract.database_draws import LIMITS, NOBODYS, NODES, Draws, facts, nearby, nodes
from tests.sim.postgres import SimServer

LONG = os.environ.get("CODEPODS_CHAOS") == "long"
EXAMPLES = 100 if LONG else 10
STEPS = 80 if LONG else 40
TIMEOUT = timedelta(seconds=60)
kinds = st.sampled_from(("sweep", "compact", "scrub"))
subjects = st.sampled_from(("a", "b"))


class Chores(Draws):
    """Two nodes and some chores."""

    met: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        for node_id in NODES:
            self.hear(node_id)

    @rule(node_id=nodes)
    def hear(self, node_id: str) -> None:
        """Of a node that has nothing else to say."""
        self.sequences[node_id] += 1
        report = Report(pods=(), workspaces=())
        request = SyncRequest(
            node_id=node_id,
            boot_id="b1",
            sequence=self.sequences[node_id],
            facts=facts(8000),
            report=report,
        )
        self.gateway.ingest(request)

    @rule(seconds=st.sampled_from((0.001, 2.0, 15.0, 50.0)))
    def time_passes(self, seconds: float) -> None:
        """On the clock of both."""
        self.now += timedelta(seconds=seconds)

    # ---- the reconciler, and people ------------------------------------------------------------------------

    @rule(kind=kinds, subject=subjects, only=st.none() | nodes)
    def make(self, kind: str, subject: str, only: str | None) -> None:
        """One open chore of each kind and subject."""
        self.now += timedelta(milliseconds=1)
        _, made = self.db.chores.make(kind, subject, {"of": subject}, only)
        self.met["made" if made else "there already"] += 1

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """By a start, a stop, or somebody's hand."""
        if self.db.chores.rows:
            chore_id = data.draw(st.sampled_from(sorted(self.db.chores.rows)))
            self.met["cancelled"] += self.db.chores.cancel(chore_id, "not wanted")

    @rule()
    def take_back_lost(self) -> None:
        """Of who is silent, or too slow."""
        silent_after = LIMITS.node_silent_after
        self.met["taken back"] += self.db.chores.take_back_lost(self.since, silent_after, TIMEOUT)

    @rule(seconds=st.sampled_from((10.0, 100.0)))
    def prune(self, seconds: float) -> None:
        """What is long over."""
        self.db.chores.prune(timedelta(seconds=seconds))

    # ---- a node --------------------------------------------------------------------------------------------

    @rule(data=st.data(), node_id=nodes, wanted=st.integers(0, 2), known=st.sets(kinds, min_size=1))
    def ask(self, data: st.DataObject, node_id: str, wanted: int, known: set[str]) -> None:
        """For some more; with what it has, or thinks that it has."""
        held = tuple(self._handle(data) for _ in range(data.draw(st.integers(0, 2))))
        said = ChoresUp(kinds=tuple(sorted(known)), wanted=wanted, held=held)
        self.met["given"] += len(self.db.chores.news(node_id, said).given)

    @rule(data=st.data(), by_its_node=st.booleans(), node_id=nodes, failed=st.booleans())
    def answer(self, data: st.DataObject, by_its_node: bool, node_id: str, failed: bool) -> None:
        """Of what it was given, also long before, or of what another was."""
        handle = self._handle(data)
        row = self.db.chores.rows.get(handle.id)
        if by_its_node and row is not None and row.node_id is not None:
            node_id = row.node_id
        progress = ChoreProgress(chore=handle, phase="reading", done_bytes=data.draw(st.integers(0, 9)))
        result: ChoreResult = ChoreDone(chore=handle, result={"found": 1})
        if failed:
            permanent = data.draw(st.booleans())
            result = ChoreFailed(chore=handle, code="store", message="away", permanent=permanent)
        results = (result,) if data.draw(st.integers(0, 3)) else ()
        said = ChoresUp(kinds=("sweep", "compact"), results=results, progress=(progress,))
        accepted = self.db.chores.take_in(node_id, said, LIMITS)
        self.db.chores.news(node_id, said, accepted)

    def _handle(self, data: st.DataObject) -> ChoreHandle:
        rows = sorted(self.db.chores.rows)
        if not rows or data.draw(st.integers(0, 6)) == 0:
            return ChoreHandle(id=NOBODYS, attempt=1)
        row = self.db.chores.rows[data.draw(st.sampled_from(rows))]
        return ChoreHandle(id=row.id, attempt=max(0, row.attempt + data.draw(nearby)))


@pytest.mark.timeout(1200 if LONG else 900)
def test_the_mirror_and_postgresql_keep_chores_alike(sim_server: SimServer) -> None:
    """Every operation on chores, in any order: one answer, and one state."""
    Chores.server, Chores.compared, Chores.met = sim_server, Counter(), Counter()
    run_state_machine_as_test(
        Chores,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Chores.compared.total()} transactions compared: {dict(Chores.compared)}; {dict(Chores.met)}")
    assert {"made", "given", "cancelled"} <= (+Chores.met).keys()
