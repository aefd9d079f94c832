"""A machine that lets us down: a full disk, no engine, a store that refuses us. Nothing is lost or stuck."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_gate import EngineGate
from tests.support.local_installation import LocalInstallation, in_pod, local_installation
from tests.support.ports import free_port
from tests.support.s3_servers import BUCKET, CREDENTIALS, rclone_server
from tests.support.small_disk import small_disk

PATIENCE_S = 60
STORE_MIB = 24
TOO_MUCH_MIB = 16


@dataclass
class Machine:
    """An installation with one node, its engine behind a gate, its store on a disk that is soon full."""

    installation: LocalInstallation
    gate: EngineGate
    disk: Path

    def explained(self, pod: str) -> dict[str, Any]:
        """What `podctl explain` says."""
        told: dict[str, Any] = self.installation.json("explain", pod)
        return told

    def until(self, pod: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first explanation for which it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(told := self.explained(pod)):
            assert time.monotonic() < deadline, f"{told}\n{self.installation.last_log_lines()}"
            time.sleep(0.2)
        return told

    def until_is(self, pod: str, state: str) -> dict[str, Any]:
        """Once the pod is in this state, without anybody doing more."""
        return self.until(pod, lambda told: told["pod"]["state"] == state and told["pod"]["settled"])

    def until_failed(self, pod: str, code: str) -> dict[str, Any]:
        """Once a step of the pod has failed like this."""
        return self.until(pod, lambda told: (told["pod"]["failure"] or {}).get("code") == code)

    def log(self) -> list[dict[str, Any]]:
        """What the node's agent has logged."""
        (file,) = (self.installation.home / "log").glob("node-*.log")
        return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]

    def write(self, pod: str, script: str) -> str:
        """Run something in the pod."""
        (container,) = self.installation.containers(pod)
        return in_pod(container["Id"], script)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Where others than root get, for the home directory stays where the disk is mounted."""
    with tempfile.TemporaryDirectory(prefix="codepods-bad-") as directory:
        root = Path(directory)
        root.chmod(0o711)
        (root / "home").mkdir()
        gate = EngineGate(root / "docker.sock")
        with (
            small_disk(root / "home" / "store", STORE_MIB) as disk,
            local_installation(root / "home", nodes=1, DOCKER_HOST=gate.url) as installation,
        ):
            yield Machine(installation, gate, disk)


def test_a_full_store_keeps_the_container_until_there_is_room(machine: Machine) -> None:
    """It says what to make room on; others are archived meanwhile; then it converges by itself."""
    large, small = (machine.installation.open(user, lab=None)["pod_id"] for user in ("large", "small"))
    ballast = machine.disk / "ballast"
    ballast.write_bytes(bytes((STORE_MIB - TOO_MUCH_MIB) << 20))
    digest = machine.write(large, f"head -c {TOO_MUCH_MIB}M /dev/urandom | tee ~/large | sha256sum")

    machine.installation.run("archive", large)
    told = machine.until_failed(large, "store_full")
    machine.installation.run("archive", small, "--wait")

    assert "Make room" in told["waiting_for"]
    assert "nothing was lost" in told["waiting_for"]
    assert "Make room" in machine.installation.run("explain", large).stdout
    assert any(line.get("code") == "store_full" for line in machine.log())
    assert len(machine.installation.containers(large)) == 1
    ballast.unlink()
    machine.until_is(large, "archived")
    assert machine.installation.containers(large) == []
    machine.installation.run("start", large, "--wait")
    assert machine.write(large, "sha256sum < ~/large") == digest


def test_without_its_engine_a_node_waits_and_says_so(machine: Machine) -> None:
    """Pods are not called absent, wishes are kept, newcomers wait; when it is back, all is done."""
    stranded = machine.installation.open("stranded", lab=None)["pod_id"]
    machine.gate.shut()
    try:
        told = machine.until(stranded, lambda told: told["pod"]["condition"] == "engine_away")
        machine.installation.run("stop", stranded)
        machine.installation.run("open", "--user", "newcomer", check=False)
        newcomer = machine.installation.json("list", "--user", "newcomer")[0]["pod_id"]
        waits = machine.until(newcomer, lambda told: told["pod"]["condition"] == "waiting_for_capacity")
        (node,) = machine.installation.json("nodes")
        still = machine.explained(stranded)["pod"]
    finally:
        machine.gate.open()

    assert (told["pod"]["state"], still["state"], still["desired"]) == ("running", "running", "stopped")
    for text in (told["waiting_for"], waits["waiting_for"], node["engine_error"]):
        assert "did not answer" in text
        assert "Check that the engine runs" in text
    assert any(line["event"] == "engine.cannot_be_asked" for line in machine.log())
    assert still["failure"] is None
    machine.until_is(stranded, "stopped")
    machine.until_is(newcomer, "running")


def test_no_engine_at_all_is_said_before_anything_starts(tmp_path: Path) -> None:
    """`up` says in one line that no engine answers, where it asked, and what to do."""
    nowhere = f"unix://{tmp_path}/nowhere.sock"
    refused = LocalInstallation(tmp_path / "home", 1, {"DOCKER_HOST": nowhere}).run("up", check=False)

    assert refused.returncode == 1
    assert "No Docker engine answers" in refused.stderr
    assert nowhere in refused.stderr
    assert "DOCKER_HOST" in refused.stderr.replace(nowhere, "")
    assert len(refused.stderr.strip().splitlines()) == 1


def test_s3_with_a_wrong_key_a_right_one_and_one_that_is_taken_away(machine: Machine, tmp_path: Path) -> None:
    """Refused before anything starts; then the whole cycle; then told, kept, and made up for."""
    installation, port, root = machine.installation, free_port(), tmp_path / "s3"
    installation.run("down")
    url = f"s3://{BUCKET}/cell-1?endpoint=http://127.0.0.1:{port}"
    installation.environment |= {**CREDENTIALS, "CODEPODS_STORE_URL": url}

    with rclone_server(root, tmp_path / "wrong.log", port=port, secret_key="another"):
        refused = installation.run("up", "--detach", check=False)
    assert refused.returncode == 1
    assert "CODEPODS_STORE_URL" in refused.stderr
    assert "access key" in refused.stderr

    with rclone_server(root, tmp_path / "right.log", port=port):
        installation.up()
        pod = installation.open("s3")["pod_id"]
        machine.write(pod, "echo kept > ~/note")
        installation.run("archive", pod, "--wait")
        assert installation.containers(pod) == []
        assert list((root / BUCKET / "cell-1").rglob("manifest.json"))
        assert installation.open("s3")["state"] == "running"
        assert machine.write(pod, "cat ~/note") == "kept\n"

    with rclone_server(root, tmp_path / "revoked.log", port=port, secret_key="another"):
        installation.run("archive", pod)
        told = machine.until_failed(pod, "store_denied")
        assert len(installation.containers(pod)) == 1
    assert "AWS_SECRET_ACCESS_KEY" in told["waiting_for"]
    assert any(line.get("code") == "store_denied" for line in machine.log())

    with rclone_server(root, tmp_path / "again.log", port=port):
        machine.until_is(pod, "archived")
