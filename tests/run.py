"""`make test` and `make check`: the stages of the suite in order, with times and totals.

    python -m tests.run            everything, on the real parts
    python -m tests.run --fast     formatting, lint, types, contracts, unit and property tests
    python -m tests.run unit e2e   only these stages

Goes on after a stage that fails, and ends with exit code 1 then. A skipped test counts as failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PACKAGES = ("state", "api", "reconciler", "node_agent", "compose", "tests")
DOCKER_TIMEOUT_S = 20
FAILURE_LINES_MAX = 25


@dataclass(frozen=True, slots=True)
class Stage:
    """One command. `counts` is whether it reports its tests as JUnit XML (pytest)."""

    name: str
    title: str
    command: tuple[str, ...]
    fast: bool = False
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage ended. Tests are counted where it counts them; any other stage is one check."""

    stage: Stage
    passed: int
    failed: int
    skipped: int
    took_s: float
    # Failed before it could count, or failed without a failed test: collection errors, no tests, a crash.
    broke: bool
    why: tuple[str, ...] = ()

    @property
    def green(self) -> bool:
        """Everything ran, and nothing failed."""
        return not self.failed and not self.skipped and not self.broke


def _tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(BIN / name), *arguments)


# What waits more than it works: a file of tests per worker, so that what a file shares is made once.
_SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses=4", "--dist=loadfile")


def _pytest(name: str, title: str, *paths: str, fast: bool = False, alone: bool = True) -> Stage:
    command = (sys.executable, "-m", "pytest", "-q", *(() if alone else _SIDE_BY_SIDE), *paths)
    return Stage(name, title, command, fast=fast, counts=True)


# By name: what Node takes a directory for depends on its version.
_NODE_TESTS = tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/njs/*.test.mjs")))

STAGES = (
    Stage("format", "Formatting", _tool("ruff", "format", "--check", *PACKAGES), fast=True),
    Stage("lint", "Lint", _tool("ruff", "check", *PACKAGES), fast=True),
    Stage("types", "Types, strictly", _tool("mypy"), fast=True),
    Stage("contracts", "Import contracts", _tool("lint-imports", "--no-logo"), fast=True),
    _pytest("tidy", "House rules", "tests/test_tidy.py", fast=True),
    _pytest("unit", "Unit tests", "tests/unit", fast=True),
    _pytest("property", "Property tests", "tests/property", fast=True, alone=False),
    _pytest("sim", "Simulated fleets under faults", "tests/sim", alone=False),
    Stage(
        "node",
        "The gate's functions, under Node",
        ("node", "--test", "--test-reporter=dot", *_NODE_TESTS),
        fast=True,
    ),
    _pytest("njs", "The gate and its Python half agree", "tests/njs", fast=True),
    _pytest("contract", "Contract tests: every implementation of a port", "tests/contract", alone=False),
    _pytest(
        "integration",
        "Integration tests: PostgreSQL, Docker, nginx, S3 servers",
        "tests/integration",
        alone=False,
    ),
    _pytest("chaos", "Chaos: kill -9 at each effect, and random faults", "tests/chaos"),
    _pytest("e2e", "End to end, in Chromium", "tests/e2e"),
    Stage(
        "mutants",
        "Mutants: deliberate bugs are caught (a sample; all of them: python -m tests.mutants)",
        (sys.executable, "-m", "tests.mutants", "--sample"),
    ),
)


def missing_parts() -> list[str]:
    """What this machine lacks for the whole suite, one line each."""
    lines = []
    if os.geteuid() != 0:
        lines.append("not root: Docker's directories and other users' files cannot be tested")
    programs = ("docker", "nginx", "node", "chromium")
    lines += [f"{program} is not on PATH" for program in programs if shutil.which(program) is None]
    if shutil.which("docker") and not _engine_answers():
        lines.append("no Docker engine answers")
    return lines


def _engine_answers() -> bool:
    try:
        asked = ("docker", "version", "--format", "{{.Server.Version}}")
        return (
            subprocess.run(asked, capture_output=True, timeout=DOCKER_TIMEOUT_S, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def run_stage(stage: Stage) -> Outcome:
    """Run one stage with its output on the terminal, and count."""
    with tempfile.TemporaryDirectory(prefix="codepods-tests-") as directory:
        report = Path(directory) / "report.xml"
        command = (*stage.command, f"--junitxml={report}") if stage.counts else stage.command
        began_at = time.monotonic()
        code = _call(command)
        took_s = time.monotonic() - began_at
        if not stage.counts:
            return Outcome(stage, int(code == 0), int(code != 0), 0, took_s, broke=False)
        said = report.read_text() if report.exists() else "<testsuites/>"
        # pytest: 0 all passed, 1 some failed; anything else is no verdict. 5 is "no tests".
        return Outcome(stage, *count(said), took_s, broke=code not in (0, 1), why=tuple(failures(said)))


def _call(command: tuple[str, ...]) -> int:
    try:
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    except FileNotFoundError:
        print(f"{command[0]} is not there", flush=True)
        return 127


def count(report: str) -> tuple[int, int, int]:
    """Passed, failed and skipped tests in a JUnit report."""
    suites = list(ET.fromstring(report).iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(kind, "0")) for suite in suites)
        for kind in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return max(0, tests - failed - skipped), failed, skipped


def failures(report: str) -> list[str]:
    """Each failed test of a JUnit report with its last lines: they stand again where a long output ends."""
    lines = []
    for case in ET.fromstring(report).iter("testcase"):
        for found in (*case.findall("failure"), *case.findall("error")):
            told = [line for line in (found.text or "").splitlines() if line.strip()]
            lines.append(f"FAILED {case.get('classname')}::{case.get('name')}")
            lines += [f"    {line}" for line in told[-FAILURE_LINES_MAX:]]
    return lines


def summary(outcomes: Iterable[Outcome], missing: list[str]) -> list[str]:
    """What failed and how, what ran, what could not run and why, and a last line with the totals."""
    outcomes = tuple(outcomes)
    lines = [line for outcome in outcomes for line in outcome.why]
    lines += [_line(outcome) for outcome in outcomes]
    lines += [f"could not be tested as it should: {part}" for part in missing]
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed + outcome.skipped + outcome.broke for outcome in outcomes)
    return [*lines, f"{passed} passed, {failed} failed"]


def _line(outcome: Outcome) -> str:
    notes = [f"{outcome.passed} passed"] if outcome.stage.counts else []
    notes += [f"{outcome.failed} failed"] if outcome.failed and outcome.stage.counts else []
    notes += [f"{outcome.skipped} skipped, which counts as failed"] if outcome.skipped else []
    notes += ["broke off, or had no tests"] if outcome.broke else []
    mark = "ok    " if outcome.green else "FAILED"
    return f"{mark} {outcome.took_s:7.1f} s  {outcome.stage.title}  {', '.join(notes)}".rstrip()


def _chosen(arguments: argparse.Namespace) -> tuple[Stage, ...]:
    if arguments.stages:
        return tuple(stage for stage in STAGES if stage.name in arguments.stages)
    return tuple(stage for stage in STAGES if stage.fast or not arguments.fast)


def main() -> int:
    """Run the stages asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.run")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(stage.name for stage in STAGES))
    parser.add_argument("--fast", action="store_true", help="the stages that take under a minute together")
    arguments = parser.parse_args()
    unknown = set(arguments.stages) - {stage.name for stage in STAGES}
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    missing = missing_parts()
    for part in missing:
        print(f"missing on this machine: {part}", flush=True)
    outcomes = []
    for stage in _chosen(arguments):
        print(f"\n── {stage.title} ── {' '.join(stage.command[-3:])}", flush=True)
        outcomes.append(run_stage(stage))
    print("\n── Summary", *summary(outcomes, missing), sep="\n", flush=True)
    return 0 if all(outcome.green for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
