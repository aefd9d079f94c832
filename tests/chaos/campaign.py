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

from state.model import Desired
from tests.chaos.learners import Learner, leftovers
from tests.support.agent_process import AgentProcess
from tests.support.site import Site, until

FAULT_WITHIN_S = 2.0
PAUSE_S_MAX = 3.0


@dataclass
class Tally:
    """What a campaign came to."""

    rounds: int = 0
    cycles: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """All of it, for people."""
        return f"{self.rounds} rounds, {self.cycles} cycles: {SAME}; faults: {counted(self.faults)}"


# Each cycle that is counted was compared, and each round looked for what is left: else it is broken off.
SAME = "as many identical trees, 0 orphans, 0 duplicates"


def counted(of: Counter[str]) -> str:
    """For people."""
    return ", ".join(f"{name} {count}" for name, count in sorted(of.items()))


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
