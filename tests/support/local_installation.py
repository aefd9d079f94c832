"""A whole codepods on this machine, for one test module: the same `podctl up` that `make up` runs.

It has a home directory, ports and node ids of its own, so it never meets another installation's.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PODCTL = Path(sys.executable).with_name("podctl")
COMMAND_TIMEOUT_S = 240


@dataclass(slots=True)
class LocalInstallation:
    """Runs podctl and looks at Docker on behalf of a test."""

    home: Path
    nodes: int = 2
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("HTTPS", "HTTP", "API", "GATEWAY", "POSTGRES", "HINTS")
        own = {f"CODEPODS_{name}_PORT": str(free_port()) for name in names}
        # The pod image has 1.2 GB: copying it to each test's store would only keep the machine busy.
        own["CODEPODS_KEEP_IMAGES"] = "false"
        self.environment = {**os.environ, **own, "CODEPODS_HOME": str(self.home), **self.environment}

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """podctl with these arguments; fails the test with what it printed unless it exits 0."""
        result = subprocess.run(
            [str(PODCTL), *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if check and result.returncode != 0:
            shown = f"{result.stdout}\n{result.stderr}\n{self.last_log_lines()}"
            raise AssertionError(f"podctl {' '.join(arguments)} exited {result.returncode}\n{shown}")
        return result

    def json(self, *arguments: str) -> Any:
        """The one JSON value that podctl prints with --json."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def up(self) -> None:
        """Start it and wait until it answers."""
        self.run("up", "--nodes", str(self.nodes), "--detach")

    def open(self, user: str, lab: str | None = "hello", **options: str) -> dict[str, Any]:
        """A running pod of this user, with its link."""
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        lab_words = ["--lab", lab] if lab else []
        opened: dict[str, Any] = self.json("open", "--user", user, *lab_words, *words, "--wait")
        return opened

    def psql(self, sql: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One statement as an admin in psql."""
        return self.run("psql", "-X", "-A", "-t", "-c", sql, check=check)

    def containers(self, pod_id: str) -> list[dict[str, Any]]:
        """Docker's own word on the containers of a pod, running or not, on any node."""
        return _inspect("container", f"codepods.pod={pod_id}")

    def volumes(self, user: str) -> list[dict[str, Any]]:
        """Docker's own word on the volumes of a user."""
        return _inspect("volume", f"codepods.user={user}")

    def last_log_lines(self, lines: int = 25) -> str:
        """The end of every program's log: what a failed test should show."""
        logs = [log for log in sorted((self.home / "log").glob("*.log")) if log.exists()]
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
            for log in logs
        )


def _inspect(kind: str, label: str) -> list[dict[str, Any]]:
    listing = ["docker", kind, "ls", "-q", "--filter", f"label={label}"]
    if kind == "container":
        listing.insert(3, "-a")
    ids = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    if not ids:
        return []
    inspected = subprocess.run(["docker", kind, "inspect", *ids], capture_output=True, text=True, check=False)
    # What went between the two commands is left out of the answer, and makes it an error.
    assert inspected.returncode == 0 or "no such" in inspected.stderr.lower(), inspected.stderr
    found: list[dict[str, Any]] = json.loads(inspected.stdout)
    return found


def in_pod(container_id: str, script: str, *, user: str = "coder") -> str:
    """What a bash script prints inside a container."""
    command = ["docker", "exec", "-i", "-u", user, container_id, "bash", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
    assert result.returncode == 0, f"{script!r} exited {result.returncode}: {result.stdout}{result.stderr}"
    return result.stdout


@contextmanager
def local_installation(home: Path, nodes: int = 2, **environment: str) -> Iterator[LocalInstallation]:
    """An installation that is up, and is removed with all its containers and volumes afterwards."""
    installation = LocalInstallation(home, nodes, environment)
    try:
        installation.up()
        yield installation
    finally:
        keep = os.environ.get("CODEPODS_KEEP_LOGS")
        if keep:
            shutil.copytree(home / "log", Path(keep) / home.name, dirs_exist_ok=True)
        installation.run("clean", "--yes", check=False)
