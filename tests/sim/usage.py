"""What policies may do to pods, judged by who was truly there: I14.

A policy knows what its node has looked at, and rests on the newest look that was taken in: what comes later
than that look it cannot know, and what was so at the look it must respect.
"""

from typing import TYPE_CHECKING

from state.lifecycle import LifeLimits, Move, PodLife, Rule, Verdict
from state.model import Desired
from state.policies import limits_of
from state.presence_wire import PodPresence
from tests.sim.actors import PRESENCE_EVERY_S
from tests.sim.desks import BEAT_S, Desk, seconds
from tests.sim.policies import LIMITS
from tests.sim.rows import PodRow
from tests.sim.truth import Violation
from tests.sim.visits import LIFE_LIMITS

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

NAME = "I14"
SLACK_S = 0.1
# What comes and goes between two looks is known by the editor's heartbeat only.
UNSEEN_S = BEAT_S + PRESENCE_EVERY_S + 0.5
# CPU is judged over so long.
WORK_SEEN_AFTER_S = 12.0
FOREVER_S = float("inf")


class Usage:
    """The oracle's part at the policies."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet, self._db, self._truth = fleet, fleet.db, fleet.truth
        # The newest look at each pod that was taken in: at whose desk, when truly, and when by the database.
        self._looks: dict[str, tuple[Desk, float, float]] = {}
        self._warned_s: dict[str, float] = {}

    # ---- what the policies know ----------------------------------------------------------------------------

    def saw(self, pod_id: str, said: PodPresence, told_at_s: float) -> None:
        """A look has been taken in that was told at this time."""
        desk = self._fleet.desks.of(pod_id, said.started_at)
        self._looks[pod_id] = (desk, told_at_s - said.age_s, self._truth.now_s - said.age_s)

    def warned(self, life: PodLife) -> None:
        """A warning begins to stand."""
        self._warned_s[life.pod_id] = self._truth.now_s
        self._fleet.marks["policy:warned"] += 1

    # ---- what they do --------------------------------------------------------------------------------------

    def wishes(self, life: PodLife, verdict: Verdict) -> None:
        """Judge a wish, right before it is written down."""
        self._truth.checks[NAME] += 1
        pod = self._db.pods[life.pod_id]
        if pod.generation != life.generation:
            raise Violation(NAME, f"a policy undoes what was wished of {pod.id} since it looked")
        if not verdict.reason or verdict.rule is None:
            raise Violation(NAME, f"a policy wishes {verdict.move} of {pod.id}, and does not say why")
        if verdict.move is Move.ARCHIVE:
            self._check_archive(pod)
        else:
            self._check_stop(pod, life, verdict.rule)
        self._fleet.marks[f"policy:{verdict.rule}"] += 1
        self._fleet.wishes += 1
        self._truth.wished(pod.id)

    def _check_archive(self, pod: PodRow) -> None:
        now_s, limits = self._truth.now_s, self._limits(pod)
        placement = self._db.workspaces[pod.workspace_id].placement
        node_id = placement.node_id if placement else ""
        if pod.desired is not Desired.STOPPED or limits.archive_after is None:
            raise Violation(NAME, f"{pod.id} is wanted {pod.desired}, and a policy archives it")
        if now_s - self._wished_s(pod) < limits.archive_after.total_seconds() - SLACK_S:
            raise Violation(NAME, f"{pod.id} is archived soon after it was stopped")
        if not self._truth.rested_since(pod.id, node_id, self._truth.conduct.believed_s.get(node_id, 0.0)):
            raise Violation(NAME, f"{pod.id} runs, and a policy archives it")

    def _check_stop(self, pod: PodRow, life: PodLife, rule: Rule) -> None:
        now_s, limits = self._truth.now_s, self._limits(pod)
        if rule in (Rule.IDLE, Rule.BUSY, Rule.LIFETIME) and now_s - self._warned_s.get(pod.id, now_s) <= 0:
            raise Violation(NAME, f"{pod.id} is stopped for {rule}, and nobody was warned")
        if rule is Rule.LIFETIME:
            started_s = seconds(life.started_at) if life.started_at else now_s
            if limits.lifetime is None or now_s - started_s < limits.lifetime.total_seconds() - SLACK_S:
                raise Violation(NAME, f"the lifetime of {pod.id} is not over")
            return
        if pod.keep_until is not None and now_s < seconds(pod.keep_until) - SLACK_S:
            raise Violation(NAME, f"{pod.id} was to be kept, and a policy stops it")
        if pod.id not in self._looks:
            raise Violation(NAME, f"{pod.id} is stopped, and nobody has looked who is there")
        desk, look_s, dated_s = self._looks[pod.id]
        begun_s = max(seconds(life.started_at) if life.started_at else 0.0, self._wished_s(pod))
        ends_s = self._end_of_use(desk, look_s, begun_s, limits)
        if min(now_s, dated_s) < ends_s - SLACK_S:
            raise Violation(
                NAME,
                f"{pod.id} is stopped for {rule} at {now_s:.1f} by a look of {look_s:.1f},"
                f" and may be used until {ends_s:.1f}",
            )

    def _end_of_use(self, desk: Desk, look_s: float, begun_s: float, limits: LifeLimits) -> float:
        """When it may be stopped at the earliest, by what was so when it was looked at."""
        opened_s = desk.open_since(look_s)
        over = [ended_s for _, ended_s in desk.visits if ended_s <= look_s]
        if opened_s is not None and desk.tells:
            last_s, limit = desk.last_touch(look_s), limits.idle_limit
        elif opened_s is not None:
            last_s, limit = opened_s, limits.busy_max
        elif over:
            last_s, limit = max(over) - UNSEEN_S, limits.closed_grace
        else:
            last_s, limit = begun_s, limits.idle_limit
        if limit is None:
            return FOREVER_S
        last_s = max(last_s, begun_s)
        ends_s = last_s + limit.total_seconds()
        if any(began_s + WORK_SEEN_AFTER_S <= look_s < ended_s for began_s, ended_s in desk.works):
            most = limits.busy_max
            ends_s = max(ends_s, last_s + most.total_seconds()) if most else FOREVER_S
        return ends_s

    # ---- at rest -------------------------------------------------------------------------------------------

    def amiss(self) -> str | None:
        """The first pod that nobody is in and that a policy should have put away."""
        for pod in self._db.pods.values():
            limits = self._limits(pod)
            ends = limits.lifetime or (limits.closed_grace and limits.idle_limit)
            if pod.desired is Desired.RUNNING and ends:
                return f"nobody is in {pod.id}, and it is still wanted running"
            if pod.desired is Desired.STOPPED and pod.observed is not None and limits.archive_after:
                placement = self._db.workspaces[pod.workspace_id].placement
                if pod.observed_at(placement) is not None:
                    return f"{pod.id} is stopped, and was never put away"
        return None

    def _limits(self, pod: PodRow) -> LifeLimits:
        workspace = self._db.workspaces[pod.workspace_id]
        own = {name: pod.limits.get(name) for name in LIMITS}
        row = {name: workspace.limits.get(name) if own[name] is None else own[name] for name in LIMITS}
        return limits_of(row, LIFE_LIMITS)

    def _wished_s(self, pod: PodRow) -> float:
        return seconds(pod.desired_at) if pod.desired_at else 0.0
