"""Random faults on the real parts, round after round: programs killed and paused, whatever else a site has.

In each round every learner writes, is put away and brought back; in each half something is done to the site
at a random moment. A round ends when all have every byte again, once, and nothing is left over.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.support.agent_process import AgentProcess
from tests.support.site import Site, until

FAULT_WITHIN_S = 2.0
# From when a node was given a step until the kill: most steps take less than a second.
STRIKE_WITHIN_S = 0.3
STEPS_PASSED_MAX = 2
LOOK_EVERY_S = 0.01
PAUSE_S_MAX = 3.0

_GIVEN = """
    SELECT id, verb, node_id FROM action
     WHERE target = %s AND state = 'open' AND sent_at IS NOT NULL AND taken_back_at IS NULL
"""


@dataclass
class Tally:
    """What a campaign came to."""

    rounds: int = 0
    cycles: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """All of it, for people."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.rounds} rounds, {self.cycles} cycles, each of which ended with the same tree in one"
            f" container and nothing left over; faults: {faults}"
        )


class Campaign:
    """Rounds on one site. The same seed does the same faults, though real time never runs the same."""

    def __init__(
        self, site: Site, users: int, seed: int, others: Mapping[str, Callable[[], None]] | None = None
    ) -> None:
        """`others` are faults of parts that not every site has, by name."""
        self._site = site
        self._rng = random.Random(seed)
        self._others = dict(others or {})
        self._learners = [Learner(site, f"user-{number}") for number in range(users)]
        self.tally = Tally()

    def begin(self) -> None:
        """Everybody opens a pod."""
        for learner in self._learners:
            learner.open()

    def round(self) -> None:
        """Write, put away, bring back, compare."""
        for learner in self._learners:
            learner.write(self._rng)
        self._wish(Desired.ARCHIVED)
        for learner in self._learners:
            learner.await_archived()
        self._wish(Desired.RUNNING)
        for learner in self._learners:
            learner.check()
        until(lambda: leftovers(self._site, len(self._learners)) == 0)
        self.tally.rounds += 1
        self.tally.cycles += len(self._learners)

    def round_each(self) -> None:
        """As `round`; the faults are a kill -9 in the middle of a step of each learner's own pod, at least
        one in each cycle: of its node's agent, or of the reconciler."""
        for learner in self._learners:
            learner.write(self._rng)
        struck = {learner.user: 0 for learner in self._learners}
        for desired in (Desired.ARCHIVED, Desired.RUNNING):
            for learner in self._learners:
                learner.want(desired)
                # The last chance in a cycle is its first step: later ones may be over too soon.
                sure = desired is Desired.RUNNING and not struck[learner.user]
                passed = 0 if sure else self._rng.randrange(STEPS_PASSED_MAX + 1)
                struck[learner.user] += self._strike(learner, passed)
            for learner in self._learners:
                learner.await_archived() if desired is Desired.ARCHIVED else learner.check()
        until(lambda: leftovers(self._site, len(self._learners)) == 0)
        self.tally.rounds += 1
        self.tally.cycles += sum(strikes > 0 for strikes in struck.values())

    def _strike(self, learner: Learner, passed: int) -> bool:
        """Whether a program was killed while a step of this very pod, after so many others, was under way."""
        step, known = None, set[str]()
        while len(known) <= passed:
            step = self._step_of(learner, known)
            if step is None:
                break
            known.add(step["id"])
        if step is None:
            return False
        time.sleep(self._rng.uniform(0, STRIKE_WITHIN_S))
        agent = next(agent for agent in self._site.agents if agent.node.node_id == step["node_id"])
        victim = self._rng.choice([agent, agent, self._site.reconciler])
        victim.kill()
        with self._site.db.transaction() as conn:
            row = conn.execute("SELECT state FROM action WHERE id = %s", (step["id"],)).fetchone()
        victim.start()
        met = row is not None and row["state"] == "open"
        what = "agent" if victim is agent else "reconciler"
        self.tally.faults[f"kill {what} in {step['verb'] if met else 'between steps'}"] += 1
        return met

    def _step_of(self, learner: Learner, known: set[str]) -> dict[str, Any] | None:
        """The step that the pod's node has been given, but for known ones; None if no more comes."""
        status = self._site.status(learner.pod_id)
        while status.satisfied_generation != status.generation:
            with self._site.db.transaction() as conn:
                row = conn.execute(_GIVEN, (learner.pod_id,)).fetchone()
            if row is not None and row["id"] not in known:
                return row
            time.sleep(LOOK_EVERY_S)
            status = self._site.status(learner.pod_id)
        return None

    def _wish(self, desired: Desired) -> None:
        for learner in self._learners:
            learner.want(desired)
        time.sleep(self._rng.uniform(0, FAULT_WITHIN_S))
        self._kill_one()
        if self._rng.random() < 0.5:
            self._do(self._rng.choice(["pause agent", "kill both agents"]))
        if self._others:
            self._do(self._rng.choice(list(self._others)))

    def _kill_one(self) -> None:
        self._do(self._rng.choice(["kill agent", "kill agent", "kill reconciler"]))

    def _do(self, fault: str) -> None:
        self.tally.faults[fault] += 1
        agents, rng = self._site.agents, self._rng
        match fault:
            case "kill agent":
                self._kill(rng.choice(agents))
            case "kill both agents":
                for agent in agents:
                    self._kill(agent)
            case "kill reconciler":
                self._site.reconciler.kill()
                time.sleep(rng.uniform(0, 1))
                self._site.reconciler.start()
            case "pause agent":
                agent = rng.choice(agents)
                agent.pause()
                threading.Timer(rng.uniform(0, PAUSE_S_MAX), agent.go_on).start()
            case _:
                self._others[fault]()

    def _kill(self, agent: AgentProcess) -> None:
        agent.kill()
        time.sleep(self._rng.uniform(0, 0.5))
        agent.start()
