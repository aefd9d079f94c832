"""`python -m tests.mutants [--sample | PART OF A NAME]`: try mutants, print who was caught.

Exits 1 if one survived. `--sample`: those that unit and property tests catch, for `make test`.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import Mutant, Verdict, try_mutant

SLOW = ("tests/integration", "tests/contract")


def _table(verdicts: list[Verdict]) -> Table:
    table = Table("mutant", "breaks", "caught by", "seconds")
    for verdict in verdicts:
        caught = ", ".join(verdict.mutant.tests) if verdict.caught else "[red]survived[/red]"
        table.add_row(verdict.mutant.name, verdict.mutant.law, caught, f"{verdict.seconds:.1f}")
    return table


def sample() -> list[Mutant]:
    """Those that need no engine and no database."""
    return [mutant for mutant in MUTANTS if not any(test.startswith(SLOW) for test in mutant.tests)]


def main() -> int:
    """Try every mutant whose name has the given words in it, or the sample."""
    wanted = " ".join(sys.argv[1:])
    chosen = sample() if wanted == "--sample" else [mutant for mutant in MUTANTS if wanted in mutant.name]
    console = Console(width=160)
    verdicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for verdict in pool.map(try_mutant, chosen):
            verdicts.append(verdict)
            word = "caught  " if verdict.caught else "SURVIVED"
            console.print(f"{word} {verdict.seconds:5.1f} s  {verdict.mutant.law:7} {verdict.mutant.name}")
    console.print(_table(verdicts))
    survivors = [verdict for verdict in verdicts if not verdict.caught]
    for verdict in survivors:
        console.print(f"[bold]{verdict.mutant.name}[/bold]\n{verdict.last_lines}", markup=True)
    console.print(f"{len(verdicts) - len(survivors)} caught, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
