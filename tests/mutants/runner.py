"""Break the code on purpose, in a copy of the tree, and see whether the suite notices.

A mutant that survives is a law without a guard. Each mutant names the tests that must catch it, so a run is
short and a survivor points at the test to mend.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET_S_MAX = 240
LAST_CHARACTERS = 600
_COPIED = ("api", "compose", "nginx_njs", "node_agent", "pod_image", "reconciler", "state", "tests")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One deliberate bug: in `file`, `old` becomes `new`; the tests that must fail then."""

    name: str
    law: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the suite noticed a mutant, and what it printed last."""

    mutant: Mutant
    caught: bool
    seconds: float
    last_lines: str


class StaleMutant(Exception):
    """The code a mutant was written against has changed: the mutant has to be written anew."""


def mutated(text: str, mutant: Mutant) -> str:
    """The text with the bug in it. Raises StaleMutant unless `old` is there exactly once."""
    if text.count(mutant.old) != 1:
        raise StaleMutant(f"{mutant.name}: {mutant.file} has its text {text.count(mutant.old)} times")
    return text.replace(mutant.old, mutant.new)


def copy_tree(target: Path) -> None:
    """A copy of the code and tests that a mutant may be planted in, sharing the installation's files."""
    for name in _COPIED:
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    shutil.copy(ROOT / "pyproject.toml", target)
    if (ROOT / ".codepods").exists():
        (target / ".codepods").symlink_to(ROOT / ".codepods")


def try_mutant(mutant: Mutant) -> Verdict:
    """Plant the mutant in a copy of the tree and run the tests that must catch it."""
    with tempfile.TemporaryDirectory(prefix="codepods-mutant-") as directory:
        tree = Path(directory)
        copy_tree(tree)
        victim = tree / mutant.file
        victim.write_text(mutated(victim.read_text(), mutant))
        began = time.monotonic()
        caught, said = _run(mutant.tests, tree)
        return Verdict(mutant, caught, time.monotonic() - began, said)


def _run(tests: Iterable[str], tree: Path) -> tuple[bool, str]:
    """Whether a test failed, and the end of what was printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        result = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, timeout=BUDGET_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no verdict: the tests did not end in {BUDGET_S_MAX} s"
    # pytest's exit code 1 is "tests ran and some failed"; anything else is no verdict on the mutant.
    return result.returncode == 1, result.stdout[-LAST_CHARACTERS:]
