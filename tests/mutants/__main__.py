"""`python -m tests.mutants [PART OF A NAME]`: try mutants, print who was caught; exit 1 if one survived."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import Verdict, try_mutant


def _table(verdicts: list[Verdict]) -> Table:
    table = Table("mutant", "breaks", "caught by", "seconds")
    for verdict in verdicts:
        caught = ", ".join(verdict.mutant.tests) if verdict.caught else "[red]survived[/red]"
        table.add_row(verdict.mutant.name, verdict.mutant.law, caught, f"{verdict.seconds:.1f}")
    return table


def main() -> int:
    """Try every mutant whose name has the given words in it."""
    wanted = " ".join(sys.argv[1:])
    console = Console(width=160)
    verdicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for verdict in pool.map(try_mutant, [mutant for mutant in MUTANTS if wanted in mutant.name]):
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
