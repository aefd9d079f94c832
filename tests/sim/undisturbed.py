"""The simulation's parts outside of it, for suites that do the same to them and to the real ones."""

from collections.abc import Callable
from typing import Any, TypeVar

from tests.sim.scheduler import STEP_S, Scheduler

T = TypeVar("T")


class Undisturbed(Scheduler):
    """No other actor, and no fault: a call is its effect."""

    def call(self, port: str, effect: Callable[[], T], error: object, **_named: Any) -> T:  # type: ignore[override]
        """At once."""
        self.steps, self.now_s = self.steps + 1, self.now_s + STEP_S
        return effect()

    def sleep(self, seconds: float) -> None:
        """Nobody else has anything to do meanwhile."""
        self.now_s += seconds
