"""A kill -9 in the middle of a step of each learner's own pod, in each cycle that counts.

All learners go their ways at the same time: each writes, is put away and brought back, and on the way one of
its steps is waited for, and its node's agent or the reconciler killed while that is under way. What a kill
does to the others' steps is not counted. A cycle whose kills all came too late is compared all the same,
does not count, and is gone again.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from state.model import Desired
from tests.chaos.campaign import SAME, counted
from tests.chaos.learners import Learner, leftovers
from tests.support.site import Site, until

# From when a node was given a step until the kill: most steps take less than a second.
STRIKE_WITHIN_S = 0.3
# The last step in which a cycle may have its kill is not left to chance.
LAST_STRIKE_WITHIN_S = 0.05
STEPS_PASSED_MAX = 2
# Of a learner at one cycle that counts: a kill may come too late.
TRIES_MAX = 20

_GIVEN = """
    SELECT id, verb, node_id FROM action
     WHERE target = %s AND state = 'open' AND sent_at IS NOT NULL AND taken_back_at IS NULL
"""


@dataclass
class Struck:
    """What it came to."""

    rounds: int = 0
    cycles: int = 0
    not_counted: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    late_kills: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """All of it, for people."""
        victims = Counter[str]()
        for name, count in self.kills.items():
            victims[name.partition(" in ")[0]] += count
        return (
            f"{self.rounds} rounds, {self.cycles} cycles, each with a kill -9 in the middle of a step of"
            f" its pod: {SAME}; {self.kills.total()} such kills ({counted(victims)}): {counted(self.kills)};"
            f" {self.late_kills.total()} kills came too late, and {self.not_counted} cycles had no other"
            " (compared, and not counted)"
        )


class Strikes:
    """Rounds on one site, all learners at a time."""

    def __init__(self, site: Site, users: int, seed: int) -> None:
        self._site = site
        self._learners = [Learner(site, f"user-{number}") for number in range(users)]
        self._draws = [random.Random(f"{seed} {number}") for number in range(users)]
        self._striking = threading.Lock()
        self.tally = Struck()

    def begin(self) -> None:
        """Everybody opens a pod."""
        self._all(lambda learner, _: learner.open())

    def round(self) -> None:
        """A cycle that counts, of everybody; and nothing is left over."""
        self._all(self._count_one)
        until(lambda: leftovers(self._site, len(self._learners)) == 0)
        self.tally.rounds += 1

    def _all(self, do: Callable[[Learner, random.Random], None]) -> None:
        """All at a time; the first error is raised, once all have come to an end."""
        with ThreadPoolExecutor(len(self._learners)) as pool:
            ways = [
                pool.submit(do, learner, rng)
                for learner, rng in zip(self._learners, self._draws, strict=True)
            ]
        for way in ways:
            way.result()

    def _count_one(self, learner: Learner, rng: random.Random) -> None:
        for _ in range(TRIES_MAX):
            if self._cycle(learner, rng):
                self.tally.cycles += 1
                return
            self.tally.not_counted += 1
        raise AssertionError(f"no kill came in time in {TRIES_MAX} cycles of {learner.user}")

    def _cycle(self, learner: Learner, rng: random.Random) -> bool:
        """Whether a step of its own was interrupted."""
        learner.write(rng)
        learner.want(Desired.ARCHIVED)
        struck = self._strike(learner, rng, rng.randrange(STEPS_PASSED_MAX + 1), STRIKE_WITHIN_S)
        learner.await_archived()
        learner.want(Desired.RUNNING)
        if struck:
            struck |= self._strike(learner, rng, rng.randrange(STEPS_PASSED_MAX + 1), STRIKE_WITHIN_S)
        else:
            struck = self._strike(learner, rng, 0, LAST_STRIKE_WITHIN_S)
        learner.check()
        return struck

    def _strike(self, learner: Learner, rng: random.Random, passed: int, within_s: float) -> bool:
        """Whether a program was killed while a step of this very pod, after so many others, was under way."""
        step, known = None, set[str]()
        while len(known) <= passed:
            step = self._step_of(learner, known)
            if step is None:
                return False
            known.add(step["id"])
        assert step is not None
        time.sleep(rng.uniform(0, within_s))
        agent = next(agent for agent in self._site.agents if agent.node.node_id == step["node_id"])
        victim = rng.choice([agent, agent, self._site.reconciler])
        with self._striking:
            victim.kill()
            met = self._is_open(step["id"])
            victim.start()
            kind = f"{'agent' if victim is agent else 'reconciler'} in {step['verb']}"
            (self.tally.kills if met else self.tally.late_kills)[kind] += 1
        return met

    def _is_open(self, action_id: str) -> bool:
        with self._site.db.transaction() as conn:
            row = conn.execute("SELECT state FROM action WHERE id = %s", (action_id,)).fetchone()
        return row is not None and row["state"] == "open"

    def _step_of(self, learner: Learner, known: set[str]) -> dict[str, Any] | None:
        """The step that the pod's node has been given, but for known ones; None if no more comes."""
        given = list[dict[str, Any]]()

        def is_given_or_content() -> bool:
            with self._site.db.transaction() as conn:
                row = conn.execute(_GIVEN, (learner.pod_id,)).fetchone()
            if row is not None and row["id"] not in known:
                given.append(row)
                return True
            status = self._site.status(learner.pod_id)
            return status.satisfied_generation == status.generation

        until(is_given_or_content, lambda: self._site.explain(learner.pod_id))
        return given[0] if given else None
