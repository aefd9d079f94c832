"""What codepods adds to Docker: each step of a pod's life beside the same step with the engine alone.

    .venv/bin/python -m bench.walk [ROUNDS]

Needs a local installation that is up (`make up DETACH=1`). Both sides use the same image and limits, in turn,
in one run; ready is the same for both: an authenticated page of the IDE. The ratio of the medians is the
figure to keep; seconds hold for this machine in this hour only.
"""

import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from api.podctl.connection import find

READY_POLL_S = 0.01
TIMEOUT_S = 120
_RESOURCES = ["--cpus", "1", "--memory", "2g", "--memory-swap", "2g", "--pids-limit", "512", "--init"]


class Engine:
    """The baseline: one container, by the docker command alone."""

    def __init__(self, image: str, directory: Path) -> None:
        self._image = image
        self._secret = secrets.token_hex(32)
        (directory / "session").write_text(self._secret)
        self._mount = f"type=bind,src={directory},dst=/run/codepods,readonly"
        self._id = ""

    def open(self) -> None:
        """Create, start, wait until the IDE answers."""
        self._id = _docker(
            "create", *_RESOURCES, "--mount", self._mount, "-p", "127.0.0.1::8080", self._image
        )
        self.start()

    def start(self) -> None:
        """Start what is there, wait until the IDE answers."""
        _docker("start", self._id)
        host = _docker("port", self._id, "8080/tcp")
        deadline = time.monotonic() + TIMEOUT_S
        cookie = {"code-server-session": self._secret}
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://{host}/", cookies=cookie).status_code in (200, 302):
                    return
            except httpx.TransportError:
                time.sleep(READY_POLL_S)
        raise TimeoutError(f"{self._id} did not answer within {TIMEOUT_S} s")

    def stop(self) -> None:
        """Stop, keep the container."""
        _docker("stop", self._id)

    def remove(self) -> None:
        """Leave nothing behind."""
        _docker("rm", "-f", self._id)


class Codepods:
    """The product, through its API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._pod = ""

    def open(self) -> None:
        """A new user's first pod, until there is a link."""
        made = self._client.post("/api/v1/pods", json={"user": f"bench-{secrets.token_hex(4)}"})
        made.raise_for_status()
        self._pod = made.json()["pod_id"]
        self.start()

    def start(self) -> None:
        """Ask for the link until there is one."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            opened = self._client.post(f"/api/v1/pods/{self._pod}:open", params={"wait_s": 20})
            opened.raise_for_status()
            if opened.json()["url"]:
                return
        raise TimeoutError(f"{self._pod} did not open within {TIMEOUT_S} s")

    def want(self, state: str) -> None:
        """Want a state, wait until it is so."""
        path = f"/api/v1/pods/{self._pod}"
        self._client.put(f"{path}/desired-state", json={"state": state}).raise_for_status()
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            seen = self._client.get(path, params={"wait_for": state, "timeout_s": 20}).json()
            if seen["state"] == state:
                return
        raise TimeoutError(f"{self._pod} was not {state} within {TIMEOUT_S} s")

    def remove(self) -> None:
        """Delete the pod for good."""
        self._client.delete(f"/api/v1/pods/{self._pod}").raise_for_status()


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _timed(times: dict[str, list[float]], name: str, step: Callable[[], None]) -> None:
    began = time.monotonic()
    step()
    times[name].append(time.monotonic() - began)


def _round(
    engine: Engine, product: Codepods, ours: dict[str, list[float]], raw: dict[str, list[float]]
) -> None:
    _timed(raw, "first open", engine.open)
    _timed(ours, "first open", product.open)
    _timed(raw, "stop", engine.stop)
    _timed(ours, "stop", lambda: product.want("stopped"))
    _timed(raw, "open a stopped pod", engine.start)
    _timed(ours, "open a stopped pod", product.start)
    _timed(ours, "archive (with its grace)", lambda: product.want("archived"))
    raw["open an archived pod"].append(raw["first open"][-1])
    _timed(ours, "open an archived pod", product.start)
    engine.remove()
    product.remove()


def _table(ours: dict[str, list[float]], raw: dict[str, list[float]]) -> Table:
    table = Table("step", "codepods s (min/med/max)", "engine alone s", "ratio of medians")
    for name, times in ours.items():
        baseline = raw.get(name)
        ratio = f"{statistics.median(times) / statistics.median(baseline):.2f}" if baseline else ""
        table.add_row(name, _spread(times), _spread(baseline) if baseline else "", ratio)
    return table


def _spread(times: list[float]) -> str:
    return f"{min(times):.2f} / {statistics.median(times):.2f} / {max(times):.2f}"


def main() -> None:
    """Run the rounds, print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    here = find()
    image = Path(".codepods/pod_image").read_text().splitlines()[0]
    ours: dict[str, list[float]] = defaultdict(list)
    raw: dict[str, list[float]] = defaultdict(list)
    headers = {"Authorization": f"Bearer {here.token}"}
    with (
        tempfile.TemporaryDirectory() as directory,
        httpx.Client(base_url=here.url, headers=headers, timeout=60) as client,
    ):
        Path(directory).chmod(0o755)
        for _ in range(rounds):
            _round(Engine(image, Path(directory)), Codepods(client), ours, raw)
    Console(width=120).print(_table(ours, raw))
    print(json.dumps({name: statistics.median(times) for name, times in ours.items()}))


if __name__ == "__main__":
    main()
