"""`python -m tests.mutants.hunting [WORDS]`: deliberate bugs, and how soon the simulation catches each one.

Each hunt ends with the first catch, or with its budget of steps. Prints the table: mutant, caught by, steps
to catch. Exit code 1 if one survived. All of them take two cores that have nothing else to do some minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutants.runner import Mutant, copy_tree, plant
from tests.mutants.sim import SIM_MUTANTS, SOUGHT_BY, STEPS_MAX

# No step budget ends a program that hangs.
BUDGET_S_MAX = 1200


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last line of the hunt, and whether it caught the mutant."""

    mutant: Mutant
    caught: bool
    said: str


def hunt_for(mutant: Mutant) -> Verdict:
    """Plant the mutant in a copy of the tree, and simulate until something breaks."""
    with tempfile.TemporaryDirectory(prefix="codepods-hunt-") as directory:
        tree = Path(directory)
        copy_tree(tree)
        plant(mutant, tree)
        command = [sys.executable, "-m", "tests.sim.hunt", str(STEPS_MAX), SOUGHT_BY.get(mutant.name, "")]
        try:
            ended = subprocess.run(
                command, cwd=tree, capture_output=True, text=True, timeout=BUDGET_S_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            return Verdict(mutant, False, f"no verdict in {BUDGET_S_MAX} s")
        said = (ended.stdout.strip() or ended.stderr.strip()).splitlines()
        return Verdict(mutant, ended.returncode == 0, said[-1] if said else "nothing")


def hunt_all(wanted: str = "", jobs: int | None = None) -> list[Verdict]:
    """Hunt for every mutant whose name has these words in it, so many at a time, and print the table."""
    console = Console(width=150)
    verdicts = []
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        for verdict in pool.map(hunt_for, [mutant for mutant in SIM_MUTANTS if wanted in mutant.name]):
            verdicts.append(verdict)
            console.print(f"{verdict.mutant.law:7} {verdict.mutant.name}: {verdict.said}", highlight=False)
    console.print(_table(verdicts))
    return verdicts


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table("mutant", "breaks", "caught by", "steps to catch")
    for verdict in verdicts:
        _, _, rest = verdict.said.partition("caught by ")
        by, _, steps = rest.rpartition(" after ")
        table.add_row(
            verdict.mutant.name, verdict.mutant.law, by or "[red]survived[/red]", steps.removesuffix(" steps")
        )
    return table


def main() -> int:
    """Hunt for those that are named on the command line, or for all."""
    parser = argparse.ArgumentParser(description="Deliberate bugs, and what in the simulation catches them.")
    parser.add_argument("words", nargs="*", help="of a mutant's name; none: all")
    parser.add_argument("--jobs", type=int, help="hunts at a time; one for each core by default")
    asked = parser.parse_args()
    verdicts = hunt_all(" ".join(asked.words), asked.jobs)
    caught = sum(verdict.caught for verdict in verdicts)
    print(f"{caught} caught, {len(verdicts) - caught} survived; budget {STEPS_MAX:,} steps each")
    return 0 if caught == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
