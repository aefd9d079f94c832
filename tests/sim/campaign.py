"""Many runs, their totals, the marks that must have been reached, and a failure made small."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from tests.sim.directed import directed
from tests.sim.fleet import Outcome, run
from tests.sim.postgres import SimServer
from tests.sim.schedule import Schedule, draw

# A campaign that never saw these has shown nothing about them.
MARKS = (
    "stale_epoch_refused",
    "stale_report_dropped",
    "late_result_ignored",
    "resumed_after_crash",
    "archive_repeated",
    "zombie_rejected",
    "given_up:declared_lost",
    "given_up:self_fenced",
    "fenced",
    "stale_kept",
    "checkpointed",
    "paused",
    "compacted",
    "retired",
    "swept_from_store",
    "chore_taken_back",
    "late_chore_ignored",
    "scrubbed",
    "scrub_found_damage",
    "recovered_copy",
    "stale_copy_is_saved",
    "breaker_open",
    "breaker_closed_again",
    "take_back_acknowledged",
    "proof_void",
    "container_vanished",
    "restored",
    "moved",
    "parked",
    "swept_while_running",
    "damaged_archive_left",
    "rotted",
    "mended_after_it_was_left",
    "former_boot_refused",
    "let_in_again",
    "other_machine_refused",
    "copy_beside",
    "copy_in_place",
    "went_back",
    "reopened",
    "policy:warned",
    "policy:closed",
    "policy:idle",
    "policy:archive",
    "policy:lifetime",
    "commits_lost",
    "archive_forgotten",
    "code:disk_full",
    "code:store_unavailable",
)
STEPS_PER_RUN = 3000


@dataclass
class Totals:
    """What all runs of a campaign came to."""

    seeds: int = 0
    steps: int = 0
    mutations: int = 0
    took_s: float = 0.0
    marks: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    violations: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.seeds += 1
        self.steps += outcome.steps
        self.mutations += outcome.mutations
        self.marks += outcome.marks
        self.faults += outcome.faults
        self.checks += outcome.checks
        if outcome.violation is not None:
            self.violations.append(outcome)

    @property
    def missed(self) -> list[str]:
        """Marks that were never reached."""
        return [mark for mark in MARKS if not self.marks[mark]]

    def lines(self) -> list[str]:
        """For people; the last line has the totals."""
        rate = self.steps / self.took_s if self.took_s else 0.0
        did = (
            f"{self.seeds} seeds, {self.steps} steps, {self.faults.total()} faults, {self.mutations} changes"
        )
        kinds = len(self.checks)
        found = f"{kinds} invariants checked {self.checks.total()} times, {len(self.violations)} violations"
        return [
            f"faults   {_listed(self.faults)}",
            f"checked  {_listed(self.checks)}",
            f"reached  {_listed(Counter({mark: self.marks[mark] for mark in MARKS}))}",
            f"{did}, {found}, {rate:.0f} steps/s",
        ]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def schedule_of(seed: int, steps: int = STEPS_PER_RUN) -> Schedule:
    """The schedule of this seed: most are drawn freely, some go for what is rare."""
    drawn = directed(seed)
    return drawn(seed) if drawn else draw(seed, steps)


def campaign(
    seeds: Iterable[int], steps: int = STEPS_PER_RUN, server: SimServer | None = None
) -> Iterator[tuple[Outcome, Totals]]:
    """Run seed after seed, some with late deliveries or effects; the totals so far with each."""
    totals, began_at = Totals(), time.perf_counter()
    for seed in seeds:
        outcome = run(schedule_of(seed, steps), server=server)
        totals.add(outcome)
        totals.took_s = time.perf_counter() - began_at
        yield outcome, totals


def shrunk(schedule: Schedule, name: str) -> Schedule:
    """The same violation with fewer faults and steps: one fault after the other is left out, if it can be."""
    broken = run(schedule)
    best = replace(schedule, steps=min(schedule.steps, broken.steps + 1))
    smaller = True
    while smaller:
        smaller = False
        for index in reversed(range(len(best.faults))):
            fewer = replace(best, faults=best.faults[:index] + best.faults[index + 1 :])
            found = run(fewer).violation
            if found is not None and found.name == name:
                best, smaller = fewer, True
    return best
