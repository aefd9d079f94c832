"""Going back to an earlier archive: the simulation's mirror of it and PostgreSQL itself keep one contract.

Wishes to go back to archives that there are, or never were, or that are damaged; while others are under way;
and moves that are written down too early, too late, or twice.
"""

import os
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from reconciler.plan import plan
from state.leader import LeadershipLost
from state.model import Desired, TargetKind, Verb, What
from state.plan import Place, Plan, PlannedStep, Release
from state.wire import (
    ArchiveMade,
    ArchivePod,
    ArchiveWorkspace,
    Report,
    StepDone,
    StepFailed,
    StepResult,
    SyncRequest,
)
from tests.contract.database_draws import LIMITS, NODES, PODS, Draws, facts, pods, workspaces
from tests.sim.postgres import SimServer

LONG = os.environ.get("CODEPODS_CHAOS") == "long"
EXAMPLES = 100 if LONG else 10
STEPS = 60 if LONG else 30


class Generations(Draws):
    """Pods and files that are saved again and again, put away, and wanted back as they were."""

    met: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.db.renew(self.terms[-1], timedelta(hours=1))
        self._place_all()
        for target in (*sorted(PODS), *sorted(set(PODS.values()))):
            self._save(target)
            self._save(target)

    def _place_all(self) -> None:
        for workspace_id, node_id in zip(sorted(set(PODS.values())), NODES, strict=True):
            workspace = self.db.workspaces[workspace_id]
            if workspace.placement is None:
                self._record(Plan(places=(Place(workspace_id, node_id, workspace.epoch, "test"),)))

    @rule(seconds=st.sampled_from((0.5, 20.0, 400.0)))
    def time_passes(self, seconds: float) -> None:
        """On the clock of both."""
        self.now += timedelta(seconds=seconds)

    # ---- people --------------------------------------------------------------------------------------------

    @rule(pod_id=pods, desired=st.sampled_from((*[Desired.ARCHIVED] * 4, *Desired)))
    def wish(self, pod_id: str, desired: Desired) -> None:
        """An UPDATE; tombstones stay."""
        self.db.set_desired(pod_id, desired)

    @rule(pod_id=pods, number=st.integers(1, 4), what=st.sampled_from(What))
    def ask(self, pod_id: str, number: int, what: What) -> None:
        """Back to one of its archives, or to one that never was."""
        self.met["asked"] += self.db.ask_restore(pod_id, number, what)

    # ---- nodes ---------------------------------------------------------------------------------------------

    @rule(whose=pods | workspaces)
    def save(self, whose: str) -> None:
        """A new archive, where it is placed."""
        self._save(whose)

    def _save(self, target: str) -> None:
        pod_id = target if target in PODS else None
        number = self.db.archives_made(target) + 1
        step = ArchivePod(number=number) if pod_id else ArchiveWorkspace(number=number)
        made = ArchiveMade(
            manifest_key=f"{target}/{number}", manifest_digest="d", fingerprint="f", size_bytes=1
        )
        self._done(target, step, made)

    @rule(whose=pods | workspaces, corrupt=st.booleans())
    def restore(self, whose: str, corrupt: bool) -> None:
        """What it comes back from is whole, or damaged."""
        owner = self.db.pods.get(whose) or self.db.workspaces[whose]
        if owner.archive is not None:
            verb = Verb.RESTORE_POD if whose in PODS else Verb.RESTORE_WORKSPACE
            self._done(whose, self._restoring(verb, whose), None, "restore_corrupt" if corrupt else "")

    def _restoring(self, verb: Verb, target: str) -> object:
        owner = self.db.pods.get(target) or self.db.workspaces[target]
        assert owner.archive is not None
        return self.restoring_step(verb, target, owner.archive)

    def _done(self, target: str, step: object, made: ArchiveMade | None, code: str = "") -> None:
        """Asked of its node, and answered a moment later; in vain where something is under way."""
        self.now += timedelta(milliseconds=1)
        pod_id = target if target in PODS else None
        workspace = self.db.workspaces[PODS[target] if pod_id else target]
        placement = workspace.placement
        if placement is None:
            return
        line = PlannedStep(
            kind=TargetKind.POD if pod_id else TargetKind.WORKSPACE,
            workspace_id=workspace.id,
            user_id=workspace.user_id,
            pod_id=pod_id,
            node_id=placement.node_id,
            epoch=placement.epoch,
            generation=self.db.pods[pod_id].generation if pod_id else 0,
            step=step,  # type: ignore[arg-type]
            reason="test",
        )
        self._record(Plan(steps=(line,)), (workspace.id,))
        row = self.db.open.get(target)
        if row is not None and row.action.step == step:
            answer: StepResult = StepDone(action_id=row.action.id, archive=made)
            if code:
                answer = StepFailed(action_id=row.action.id, code=code, message="test", permanent=False)
            self._sync(placement.node_id, answer)

    def _sync(self, node_id: str, *results: StepResult) -> None:
        self.sequences[node_id] += 1
        request = SyncRequest(
            node_id=node_id,
            boot_id="b1",
            sequence=self.sequences[node_id],
            facts=facts(8000),
            report=Report(pods=(), workspaces=()),
            results=results,
        )
        self.gateway.ingest(request)

    @rule(workspace_id=workspaces)
    def leave(self, workspace_id: str) -> None:
        """Its placement ends, or begins anew."""
        placement = self.db.workspaces[workspace_id].placement
        if placement is None:
            self._place_all()
        else:
            self._record(Plan(releases=(Release(workspace_id, placement.node_id, placement.epoch, "test"),)))

    # ---- passes --------------------------------------------------------------------------------------------

    @rule(hold=st.booleans())
    def plan_a_pass(self, hold: bool) -> None:
        """By production's planner; written down now, or when it is much too late."""
        examined = sorted(set(PODS.values()))
        made = plan(self.db.read_world(examined, self.since), self.now, LIMITS)
        # Only what this is about: steps and placements are the other suite's.
        made = Plan(go_backs=made.go_backs, decisions=made.decisions)
        if hold:
            self.held.append(made)
        else:
            self._write_down(made, tuple(examined))

    @rule(data=st.data())
    def late_plan(self, data: st.DataObject) -> None:
        """Of a reconciler that slept."""
        if self.held:
            self._write_down(data.draw(st.sampled_from(self.held)), ())

    @rule(data=st.data())
    def any_move(self, data: st.DataObject) -> None:
        """That no planner would make."""
        self._write_down(Plan(go_backs=(self._go_back(data),)), ())

    def _write_down(self, made: Plan, examined: tuple[str, ...]) -> None:
        over = sum(row.finished_at is not None for row in self.db.restorations.rows.values())
        try:
            self.db.record(made, self.terms[-1], self.now, examined)
        except LeadershipLost:
            self._begin("first")
        now_over = sum(row.finished_at is not None for row in self.db.restorations.rows.values())
        self.met["went back"] += now_over - over


@pytest.mark.timeout(1200 if LONG else 300)
def test_the_mirror_and_postgresql_go_back_alike(sim_server: SimServer) -> None:
    """Every wish to go back, and every way of it, in any order: one answer, and one state."""
    Generations.server, Generations.compared, Generations.met = sim_server, Counter(), Counter()
    run_state_machine_as_test(
        Generations,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Generations.compared.total()} transactions compared: {dict(Generations.met)}")
    assert {"asked", "went back"} <= Generations.met.keys()
