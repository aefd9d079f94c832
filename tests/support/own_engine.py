"""A second real engine, for tests that stop it, kill it or fill its disk.

It has a bridge, a root and a socket of its own. It leaves the machine's first engine alone: it makes no rules
of iptables, and uses other networks. Ports of its containers are passed on by its own proxies.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FIRST_BRIDGE = "docker0"
BRIDGE = "cpods-own0"
BRIDGE_ADDRESS = "10.213.0.1/24"
NETWORKS = "base=10.214.0.0/16,size=24"
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 60


class OwnEngine:
    """Started, it answers at `url`. What it has survives `stop` and `kill`."""

    def __init__(self, root: Path, folder: Path) -> None:
        """`root` is where its images and containers are, `folder` where its socket is."""
        self.url = f"unix://{folder}/docker.sock"
        self.root = root
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. As a supervisor does: one that gives up is started again."""
        with first_engines_bridge_kept():
            self._start()

    def _start(self) -> None:
        self._process = self._launch()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()[-3000:]
            time.sleep(0.1)
            if self._process.poll() is not None:
                self._process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        pid_file = self._folder / "pid"
        pid_file.unlink(missing_ok=True)
        argv = ["dockerd", f"--bridge={BRIDGE}", "--iptables=false", "--ip6tables=false"]
        argv += [f"--default-address-pool={NETWORKS}", f"--data-root={self.root}", f"--pidfile={pid_file}"]
        argv += [f"--exec-root={self._folder}/exec", f"--host={self.url}", "--storage-driver=overlay2"]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(argv, stderr=log, stdout=log)

    def stop(self) -> None:
        """SIGTERM: its containers are stopped with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, of its containerd too: its containers' processes go on for now."""
        self._end(signal.SIGKILL)
        with suppress(ProcessLookupError):  # it ends with its parent, sooner or later
            os.kill(int((self._folder / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)

    def forget(self, container_id: str) -> None:
        """While it is killed: as if that had been right before it wrote down that the container runs."""
        file = self.root / "containers" / container_id / "config.v2.json"
        config = json.loads(file.read_text())
        config["State"].update(Running=False, Pid=0)
        file.write_text(json.dumps(config))

    def pause(self) -> None:
        """SIGSTOP: it accepts calls, and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def docker(self, *arguments: str) -> str:
        """Its command line; what it printed."""
        argv = ["docker", "--host", self.url, *arguments]
        return subprocess.run(argv, capture_output=True, check=True, timeout=300, text=True).stdout

    def load(self, image: str) -> None:
        """Copy an image from the machine's first engine."""
        first = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE, env=first) as saving:
            argv = ["docker", "--host", self.url, "load"]
            subprocess.run(argv, stdin=saving.stdout, capture_output=True, check=True, timeout=600)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            if not self._answers():
                self.kill()
                self.start()
            for found in self.docker("ps", "-aq").split():
                self.docker("rm", "-f", found)
            self.stop()

    def _answers(self) -> bool:
        argv = ["docker", "--host", self.url, "info"]
        return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(STOP_TIMEOUT_S)


@contextmanager
def first_engines_bridge_kept() -> Iterator[None]:
    """Docker 20.10, started anew on a root that it knows, takes away the bridge of the first engine."""
    found = _shown("address", "show", FIRST_BRIDGE)
    members = _shown("link", "show", "master", FIRST_BRIDGE)
    yield
    if not found or _shown("link", "show", FIRST_BRIDGE):
        return
    _ip("link", "add", FIRST_BRIDGE, "type", "bridge")
    for address in found[0]["addr_info"]:
        if address["family"] == "inet":
            _ip("addr", "add", f"{address['local']}/{address['prefixlen']}", "dev", FIRST_BRIDGE)
    _ip("link", "set", FIRST_BRIDGE, "up")
    for member in members:
        _ip("link", "set", member["ifname"], "master", FIRST_BRIDGE)


def _shown(*words: str) -> list[dict[str, Any]]:
    """What `ip` tells; nothing if it is not there."""
    said = subprocess.run(["ip", "-json", *words], capture_output=True, check=False, timeout=30).stdout
    return json.loads(said) if said.strip() else []


@contextmanager
def own_engine(root: Path, folder: Path) -> Iterator[OwnEngine]:
    """A running engine while the block runs."""
    engine = OwnEngine(root, folder)
    if _shown("link", "show", BRIDGE):  # of a run that was interrupted
        _ip("link", "delete", BRIDGE)
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        engine.start()
        yield engine
    finally:
        engine.close()
        _ip("link", "delete", BRIDGE)


@contextmanager
def small_ext4(folder: Path, size_mib: int) -> Iterator[Path]:
    """A file system of this size, as a disk has one."""
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, timeout=60)
    mounted = folder / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True, timeout=60)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True, timeout=60)
        image.unlink()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)
