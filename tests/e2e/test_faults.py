"""Programs killed with -9 at any moment: it converges, nothing is lost, nothing is there twice."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.local_installation import LocalInstallation, in_pod

CYCLES = int(os.environ.get("CODEPODS_KILL_CYCLES", "3"))
SEED = int(os.environ.get("CODEPODS_KILL_SEED", "20260301"))
CONVERGE_TIMEOUT_S = "180"


def _victims(installation: LocalInstallation) -> list[Path]:
    """The pid files of the programs that the supervisor runs; not its own."""
    files = sorted((installation.home / "run").glob("*.pid"))
    return [file for file in files if file.stem not in ("supervisor", "postgres")]


def _kill(pid_file: Path) -> None:
    pid = int(pid_file.read_text().split()[0])
    with contextlib.suppress(ProcessLookupError):  # it is being restarted just now
        os.kill(pid, signal.SIGKILL)


def _write_marker(installation: LocalInstallation, pod: str, text: str) -> None:
    (container,) = installation.containers(pod)
    in_pod(container["Id"], f"echo {text} >> ~/marker && echo {text} >> /workspaces/marker")


def _markers(installation: LocalInstallation, pod: str) -> tuple[list[str], list[str]]:
    (container,) = installation.containers(pod)
    home, workspace = (
        in_pod(container["Id"], f"cat {path}").split() for path in ("~/marker", "/workspaces/marker")
    )
    return home, workspace


def _ask_until_done(installation: LocalInstallation, wish: str, pod: str) -> None:
    """Ask and wait; where the API itself was killed, ask again, as a platform that calls us would."""
    deadline = time.monotonic() + float(CONVERGE_TIMEOUT_S)
    while True:
        asked = installation.run(wish, pod, "--wait", "--timeout", CONVERGE_TIMEOUT_S, check=False)
        if asked.returncode == 0:
            return
        assert "Nothing answers" in asked.stderr, asked.stderr + installation.last_log_lines()
        assert time.monotonic() < deadline, asked.stderr
        time.sleep(0.2)


@pytest.mark.timeout(1500)
def test_a_kill_at_any_moment_of_the_cycle_loses_nothing(installation: LocalInstallation) -> None:
    """Open, write, archive, again and again, with a program killed at a random moment in each half."""
    rng = random.Random(SEED)
    pod = installation.open("victim")["pod_id"]
    written: list[str] = []
    for cycle in range(CYCLES):
        written.append(f"cycle-{cycle}")
        _write_marker(installation, pod, written[-1])
        for wish in ("archive", "start"):
            installation.run(wish, pod)
            time.sleep(rng.uniform(0, 1.5))
            _kill(rng.choice(_victims(installation)))
            _ask_until_done(installation, wish, pod)
            expected = 0 if wish == "archive" else 1
            assert len(installation.containers(pod)) == expected, f"seed {SEED}, cycle {cycle}, {wish}"
        assert _markers(installation, pod) == (written, written), f"seed {SEED}, cycle {cycle}"
    assert len(installation.volumes("victim")) == 1


@pytest.mark.timeout(300)
def test_an_open_pod_outlives_the_control_plane(installation: LocalInstallation) -> None:
    """With API, reconciler and agents stopped dead, whoever is in a pod works on through nginx."""
    opened = installation.open("islander")
    stopped = [file for file in _victims(installation) if file.stem != "nginx"]
    pids = [int(file.read_text().split()[0]) for file in stopped]
    with httpx.Client(verify=False, follow_redirects=True, timeout=60) as browser:
        assert browser.get(opened["url"]).status_code == 200
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            page = browser.get(opened["url"].split("?")[0])
            again = browser.get(opened["url"].split("?")[0])
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    assert page.status_code == again.status_code == 200
    assert "workbench" in page.text
