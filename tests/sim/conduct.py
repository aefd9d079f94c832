"""What the programs may do and say, judged by the engines and by what reached whom: I5, I7, I8, I10, I13."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from node_agent.labels import EPOCH, WORKSPACE
from reconciler.lead import LEASE
from state.lifecycle import PodLife, Verdict
from state.model import WITHDRAWING_VERBS, ArchiveRef, Desired, Limits, Observed, Placement, Verb
from state.plan import Abandon, Place, Plan, PlannedStep, Proof, Release
from state.presence_wire import PodPresence
from state.transitions import TRANSITIONS, Cause
from state.wire import SyncRequest
from tests.sim.database import SimDatabase
from tests.sim.machine import at
from tests.sim.rows import ActionRow, PodRow, WorkspaceRow
from tests.sim.truth import Truth, Violation
from tests.sim.watch import Watch

if TYPE_CHECKING:
    from tests.sim.usage import Usage

_UP = (Observed.RUNNING, Observed.STARTING, Observed.FAILED)
_HELD = (*_UP, Observed.STOPPING, Observed.STOPPED, Observed.ARCHIVING)
# The shortest wait after a failure is half of what its back-off says: the rest is jitter.
JITTER_SHARE = 0.5
FIRST_RETRY_S = 1.0
RETRY_S_MAX = 300.0


class Conduct(Watch):
    """The oracle's part at the database and the gateway."""

    def __init__(self, truth: Truth, db: SimDatabase, limits: Limits, marks: Counter[str]) -> None:
        super().__init__()
        self._truth = truth
        self._db = db
        self._limits = limits
        self._marks = marks
        self._heard_s: dict[str, float] = {}
        self._looks: dict[tuple[str, str, int], float] = {}
        # When each message was made, and that which is being taken in.
        self._told_s: dict[tuple[str, str, int], float] = {}
        self._told_now_s = 0.0
        self.usage: Usage | None = None
        self._verbs: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._failed: dict[str, tuple[int, int, float]] = {}
        self._levels: dict[str, tuple[int, int, int]] = {}
        self._boots: dict[str, tuple[str, int]] = {}
        # The agents that each node's present one came after.
        self._superseded: dict[str, set[str]] = defaultdict(set)
        self._believed: dict[str, str] = {}
        # Which archive each pod and workspace comes back from, and which ones it has left.
        self._comes_from: dict[str, int] = {}
        self._left: dict[str, set[int]] = defaultdict(set)
        self._nodes: dict[str, str] = {}
        self._paths: dict[tuple[Observed, frozenset[str]], frozenset[Observed]] = {}
        self._breaker_was_open = False
        self.by_hand: set[str] = set()
        # Pods that lost a container by somebody's hand or with a disk, and those that were told of a loss.
        self.destroyed: set[str] = set()
        self.told_lost: set[str] = set()
        self.must_be_told: set[str] = set()
        self._has_forgotten = False

    def forget(self, pod_ids: Iterable[str]) -> None:
        """The database has gone back: what is monotone begins anew, and states change without a cause."""
        self._has_forgotten = True
        self.by_hand.update(pod_ids)
        self.destroyed.update(pod_ids)
        for memory in (self._levels, self._boots, self._superseded, self._believed, self._failed):
            memory.clear()
        self._comes_from.clear()
        self._left.clear()

    # ---- what was heard of nodes ---------------------------------------------------------------------------

    def looked(self, request: SyncRequest, at_s: float) -> None:
        """This message's report was made of a look at this time."""
        key = (request.node_id, request.boot_id, request.sequence)
        self._looks[key], self._told_s[key] = at_s, self._truth.now_s

    def heard(self, request: SyncRequest) -> None:
        """See Watch."""
        self._check_boot(request)
        self._heard_s[request.node_id] = self._truth.now_s
        self._told_now_s = self._told_s[request.node_id, request.boot_id, request.sequence]
        if request.report is not None:
            self.believed_s[request.node_id] = self._looks[request.node_id, request.boot_id, request.sequence]

    def _check_boot(self, request: SyncRequest) -> None:
        """I5: once another agent of its node was believed, nothing that an agent has said is ever again."""
        node_id, boot_id = request.node_id, request.boot_id
        self._truth.checks["I5"] += 1
        if boot_id in self._superseded[node_id]:
            raise Violation(
                "I5", f"{boot_id} of {node_id} is believed, long after {self._believed[node_id]} was"
            )
        if (before := self._believed.get(node_id, boot_id)) != boot_id:
            if boot_id < before:
                raise Violation("I5", f"{boot_id} of {node_id} is believed after the later {before}")
            self._superseded[node_id].add(before)
        self._believed[node_id] = boot_id

    # ---- policies: see usage.py ----------------------------------------------------------------------------

    def saw(self, pod_id: str, said: PodPresence) -> None:
        """See Watch."""
        if self.usage is not None:
            self.usage.saw(pod_id, said, self._told_now_s)

    def warned(self, life: PodLife, verdict: Verdict) -> None:
        """See Watch."""
        if self.usage is not None:
            self.usage.warned(life)

    def wishes(self, life: PodLife, verdict: Verdict) -> None:
        """See Watch; and I8."""
        placement = self._db.workspaces[self._db.pods[life.pod_id].workspace_id].placement
        if self._is_mostly_silent() or (placement and self.is_long_silent(placement.node_id)):
            raise Violation("I8", f"nodes are silent, and a policy wishes {verdict.move} of {life.pod_id}")
        if self.usage is not None:
            self.usage.wishes(life, verdict)

    def parked(self, workspace_id: str) -> None:
        """See Watch."""
        self._marks["parked"] += 1

    def placed(self, line: Place) -> None:
        """See Watch."""
        before = self._nodes.get(line.workspace_id, line.node_id)
        self._marks["moved"] += before != line.node_id
        self._nodes[line.workspace_id] = line.node_id

    def given(self, row: ActionRow) -> None:
        """See Watch."""
        self._verbs[row.action.target, row.action.epoch].add(row.verb)

    def vanished(self, pod_ids: Iterable[str | None]) -> None:
        """See Watch."""
        for pod_id in filter(None, pod_ids):
            lied = any(docker.lied_s >= 0 for docker in self._truth.dockers.values())
            if pod_id not in self.destroyed and not lied:
                raise Violation("I10", f"{pod_id} is told to have vanished, and nothing of it has")
            self.told_lost.add(pod_id)

    def lost(self, pod: PodRow, node_id: str) -> None:
        """Its container goes with its node's disk, and what was written in it is saved nowhere."""
        placement, row = self._db.workspaces[pod.workspace_id].placement, self._db.open.get(pod.id)
        seen = pod.observed_at(placement)
        if placement is None or placement.node_id != node_id or seen is None or seen.state not in _HELD:
            return
        if row is None or row.verb is not Verb.REMOVE_POD:
            self.told_lost.discard(pod.id)
            self.must_be_told.add(pod.id)

    def check_told(self) -> None:
        """I10: whose files were lost with a disk has been told so."""
        self._truth.checks["I10"] += 1
        if silent := self.must_be_told - self.told_lost:
            raise Violation("I10", f"what {sorted(silent)} held is lost, and nobody was told")

    # ---- I5: nothing goes back, and every change of state has its cause ------------------------------------

    def moved(self, pod: PodRow, node_id: str, epoch: int, before: Observed, after: Observed) -> None:
        """See Watch: the way from one state to the other, by steps that were asked for, or by the pod."""
        lied = self._truth.dockers[node_id].lied_s >= 0 and Observed.ABSENT in (before, after)
        over = self._db.workspaces[pod.workspace_id].placement != Placement(node_id, epoch)
        if before is after or pod.id in self.by_hand or lied or over:
            return
        self._truth.checks["I5"] += 1
        asked = frozenset(self._verbs[pod.id, epoch])
        if after not in self._reach(before, asked):
            raise Violation(
                "I5", f"{pod.id} on {node_id} went from {before} to {after}; asked: {sorted(asked)}"
            )

    def _reach(self, start: Observed, asked: frozenset[str]) -> frozenset[Observed]:
        if (start, asked) not in self._paths:
            seen, found = {start}, [start]
            while found:
                here = found.pop()
                onward = {b for (a, b), cause in TRANSITIONS.items() if a is here and _may(cause, asked)}
                found += sorted(onward - seen)
                seen |= onward
            self._paths[start, asked] = frozenset(seen)
        return self._paths[start, asked]

    def check_monotone(self) -> None:
        """Generations, epochs and the numbers of reports."""
        self._truth.checks["I5"] += 1
        for pod in self._db.pods.values():
            workspace = self._db.workspaces[pod.workspace_id]
            level = (pod.generation, pod.satisfied_generation, workspace.epoch)
            before = self._levels.get(pod.id, (0, 0, 0))
            if any(now < then for now, then in zip(level, before, strict=True)):
                raise Violation("I5", f"{pod.id} went back from {before} to {level}")
            to_come = pod.observed is not None and pod.observed.generation > pod.generation
            if to_come and not self._has_forgotten:
                raise Violation("I5", f"{pod.id} is reported at a generation to come")
            self._levels[pod.id] = level
        for node in self._db.nodes.values():
            boot_id, sequence = self._boots.get(node.id, ("", 0))
            if node.boot_id == boot_id and node.sequence < sequence:
                raise Violation("I5", f"{node.id} was believed at {node.sequence} after {sequence}")
            if node.boot_id != boot_id and boot_id and boot_id not in node.former_boots:
                raise Violation("I5", f"{node.id} has a new boot, and forgot the former {boot_id}")
            self._boots[node.id] = (node.boot_id, node.sequence)
        for owner in (*self._db.pods.values(), *self._db.workspaces.values()):
            self._check_archive(owner)

    def _check_archive(self, owner: PodRow | WorkspaceRow) -> None:
        """Nobody goes back to an archive but from one that was damaged, and never to one that was left."""
        number = owner.archive.number if owner.archive else 0
        before = self._comes_from.get(owner.id, 0)
        if number < before:
            if not self._truth.was_damaged(self._db.archives[owner.id, before]):
                raise Violation("I5", f"{owner.id} went back to archive {number}, and {before} is whole")
            self._left[owner.id].add(before)
        if number in self._left[owner.id]:
            raise Violation("I5", f"{owner.id} is at archive {number} again, which it had left")
        self._comes_from[owner.id] = number

    def goes_back(self, owner: PodRow | WorkspaceRow, archive: ArchiveRef) -> None:
        """See Watch: the one lawful way back from what is whole, and to what was left."""
        self._marks["went_back"] += 1
        self._truth.go_back(owner, archive)
        self._comes_from[owner.id] = archive.number
        self._left[owner.id].discard(archive.number)

    # ---- I7: back-off --------------------------------------------------------------------------------------

    def answered(self, row: ActionRow, *, failed: bool, race: bool) -> None:
        """See Watch."""
        target, generation = row.action.target, row.action.generation
        if not failed or (race and self._has_left(row)):
            self._failed.pop(target, None)
        elif not race:
            count, of_generation, at_s = self._failed.get(target, (0, generation, 0.0))
            goes_on = of_generation == generation and at_s >= self._wished_s(target)
            self._failed[target] = (count + 1 if goes_on else 1, generation, self._truth.now_s)

    def _has_left(self, row: ActionRow) -> bool:
        """The archive that this step has met is not what is used from now on."""
        owner = self._db.pods.get(row.action.target) or self._db.workspaces[row.action.target]
        met = getattr(row.action.step, "archive", None) or getattr(row.action.step, "proof", None)
        met_key = getattr(met, "manifest_key", None)
        return met_key is not None and (owner.archive is None or owner.archive.manifest_key != met_key)

    def enqueued(self, step: PlannedStep) -> None:
        """See Watch."""
        self._truth.checks["I7"] += 1
        count, generation, at_s = self._failed.get(step.target, (0, step.generation, 0.0))
        if count and generation == step.generation and at_s >= self._wished_s(step.target):
            full_s = min(FIRST_RETRY_S * 2 ** min(count - 1, 20), RETRY_S_MAX)
            least_s = full_s * JITTER_SHARE
            waited_s = self._truth.now_s - at_s
            if waited_s < least_s - 1e-6:
                raise Violation(
                    "I7", f"{step.target} failed {count} times, and is tried after {waited_s:.2f} s"
                )

    def _wished_s(self, target: str) -> float:
        """A pod's failure ends with its generation; a workspace's with any wish of its pods."""
        pods = (pod for pod in self._db.pods.values() if pod.workspace_id == target)
        return max((self._truth.wished_s[pod.id] for pod in pods), default=0.0)

    # ---- I13: nothing is left where a placement ends -------------------------------------------------------

    def released(self, line: Release) -> None:
        """See Watch. No VM is ever terminated by this code; giving a node up is the nearest to it."""
        self._truth.checks["I13"] += 1
        if self._truth.settling:  # what was made in the moments that are forgotten is kept there, as a copy
            self.gave_way(line.workspace_id)
            return
        docker = self._truth.dockers[line.node_id]
        things = [found for found in docker.containers.values() if found.whole]
        for thing in (*things, *docker.volumes.values()):
            mine = thing.labels.get(WORKSPACE) == line.workspace_id
            if mine and int(thing.labels[EPOCH]) == line.epoch and thing.tree.data:
                raise Violation("I13", f"{line.node_id} was given up, and {thing.name} is still on it")

    def taken_over(self, workspace_id: str, placement: Placement) -> None:
        """See Watch."""
        self._marks["placement_found"] += 1
        self._truth.go_on_at(workspace_id, placement)

    def gave_way(self, workspace_id: str) -> None:
        """See Watch. Only a database that has forgotten something has to."""
        if not self._has_forgotten:
            raise Violation("I5", f"a node has seen a later placement of {workspace_id} than there was")
        pods = [pod.id for pod in self._db.pods.values() if pod.workspace_id == workspace_id]
        self._truth.go_on_without(workspace_id, pods)

    def read_whole(self, manifest_key: str, asked_at: datetime) -> None:
        """See Watch; I10."""
        self._truth.checks["I10"] += 1
        rotten_s = self._truth.rotten_s.get(manifest_key, self._truth.now_s)
        if at(rotten_s) < asked_at and self._truth.is_rotten(manifest_key):
            raise Violation("I10", f"{manifest_key} was read back and called whole, and is not")

    def given_up(self, line: Abandon) -> None:
        """See Watch. What was nowhere but on that node is lost to its users, and they are told so."""
        self._marks[f"given_up:{line.proof}"] += 1
        pods = [pod.id for pod in self._db.pods.values() if pod.workspace_id == line.workspace_id]
        self.told_lost.update(pods)
        self._truth.go_on_without(line.workspace_id, pods)

    # ---- at each record: I8 and I10 ------------------------------------------------------------------------

    def planned(self, plan: Plan) -> None:
        """See Watch."""
        self._truth.checks["I8"] += 1
        self._marks["breaker_open"] += plan.breaker_open
        self._marks["breaker_closed_again"] += self._breaker_was_open and not plan.breaker_open
        self._breaker_was_open = plan.breaker_open
        silent, everything = self._silent(), self._is_mostly_silent()
        withdrawn = [step for step in plan.steps if Verb(step.step.verb) in WITHDRAWING_VERBS]
        if everything and (withdrawn or plan.releases):
            what = withdrawn[0].step.verb if withdrawn else "a release"
            raise Violation("I8", f"most nodes are silent, and {what} was planned")
        if everything and any(line.proof is Proof.SELF_FENCED for line in plan.abandons):
            raise Violation("I8", "most nodes are silent, and a placement was given up")
        for line in (*plan.steps, *plan.places, *plan.releases):
            if line.node_id in silent:
                raise Violation("I8", f"{line.node_id} is silent, and it is planned for: {line}")
        for decision in plan.decisions:
            pod = self._db.pods[decision.pod_id]
            if decision.satisfied and decision.generation == pod.generation > pod.satisfied_generation:
                self._check_honest(pod)

    def _silent(self) -> set[str]:
        return {node_id for node_id in self._db.nodes if self.is_long_silent(node_id)}

    def _is_mostly_silent(self) -> bool:
        count = len(self._silent())
        return count > 1 and count > self._limits.silent_share_max * len(self._db.nodes)

    def is_long_silent(self, node_id: str) -> bool:
        """Longer than a plan can be under way between being made and being written down."""
        silent_s = (self._limits.node_silent_after + LEASE).total_seconds()
        began_s = self._truth.now_s - (self._db.clock() - self._db.term_began_at).total_seconds()
        return self._truth.now_s - max(self._heard_s.get(node_id, 0.0), began_s) > silent_s

    def _check_honest(self, pod: PodRow) -> None:
        """What is said of a pod was so when its node was looked at for the report it rests on, or since."""
        self._truth.checks["I10"] += 1
        placement = self._db.workspaces[pod.workspace_id].placement
        node_id = placement.node_id if placement else ""
        since_s = self.basis.get(node_id, 0.0) if placement else self._truth.now_s
        truth = self._truth
        if pod.desired is Desired.RUNNING:
            honest = truth.ran_since(pod.id, node_id, since_s)
        elif pod.desired is Desired.STOPPED:
            here = [found for docker, found in truth.containers(pod.id) if docker.node_id == node_id]
            unused = not truth.written[pod.id] and not here
            honest = unused or truth.rested_since(pod.id, node_id, since_s)
        else:
            saved = pod.desired is Desired.DELETED or truth.is_saved_as_of(pod, since_s)
            honest = saved and truth.was_away_since(pod.id, node_id, since_s)
        if not honest:
            said = f"{pod.desired} at generation {pod.generation}"
            raise Violation("I10", f"{pod.id} is called {said}, and was not so since {since_s:.3f}")


def _may(cause: Cause, asked: frozenset[str]) -> bool:
    return cause is Cause.POD or cause.value in asked
