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
    """One deliberate bug: in `file`, `old` becomes `new`; the tests that must fail then.

    `also` are further edits (file, old, new), where a second line of defence has to fall with the first.
    """

    name: str
    law: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    also: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the suite noticed a mutant, and what it printed last."""

    mutant: Mutant
    caught: bool
    seconds: float
    last_lines: str


class StaleMutant(Exception):
    """The code a mutant was written against has changed: the mutant has to be written anew."""


def mutated(mutant: Mutant, tree: Path) -> dict[str, str]:
    """The tree's files with the bug in them, by name. Raises StaleMutant unless each text is there once."""
    texts: dict[str, str] = {}
    for file, old, new in ((mutant.file, mutant.old, mutant.new), *mutant.also):
        text = texts.get(file) or (tree / file).read_text()
        if text.count(old) != 1:
            raise StaleMutant(f"{mutant.name}: {file} has its text {text.count(old)} times")
        texts[file] = text.replace(old, new)
    return texts


def plant(mutant: Mutant, tree: Path) -> None:
    """Put the bug into the files of a tree. Raises StaleMutant."""
    for file, text in mutated(mutant, tree).items():
        (tree / file).write_text(text)


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
        plant(mutant, tree)
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
