"""Try deliberate bugs, and print which were caught. Exits 1 if one survived, or if there was none to try."""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import Mutant, Verdict, try_mutant

SLOW = ("tests/integration", "tests/contract")


def _line(verdict: Verdict) -> str:
    word = "caught  " if verdict.caught else "SURVIVED"
    mutant = verdict.mutant
    return f"{word} {verdict.seconds:5.1f} s  {mutant.law:7} {mutant.name}  ({', '.join(mutant.tests)})"


def sample() -> list[Mutant]:
    """Those that need no engine and no database."""
    return [mutant for mutant in MUTANTS if not any(test.startswith(SLOW) for test in mutant.tests)]


def main() -> int:
    """Try every mutant whose name has the given words in it, or the sample."""
    parser = argparse.ArgumentParser("tests.mutants", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="those that unit and property tests catch")
    parser.add_argument("words", nargs="*", help="a part of a name: only those")
    asked = parser.parse_args()
    wanted = " ".join(asked.words)
    chosen = [mutant for mutant in (sample() if asked.sample else MUTANTS) if wanted in mutant.name]
    if not chosen:
        parser.error(f"no mutant has “{wanted}” in its name")
    verdicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for verdict in pool.map(try_mutant, chosen):
            verdicts.append(verdict)
            print(_line(verdict), flush=True)
    survivors = [verdict for verdict in verdicts if not verdict.caught]
    for verdict in survivors:
        print(f"{verdict.mutant.name}\n{verdict.last_lines}")
    print(f"{len(verdicts) - len(survivors)} caught, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
