"""The real node agent, as a process of its own, on the machine's Docker engine."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from tests.support.docker_node import CHECKOUT, DockerNode
from tests.support.patience import PATIENCE_S

KEPT_VARIABLES = ("PATH", "HOME", "DOCKER_HOST")


class AgentProcess:
    """An agent for a node whose settings, containers and clean-up are those of a DockerNode."""

    def __init__(
        self, node: DockerNode, gateway_url: str, token: str, log_file: Path, **environment: str
    ) -> None:
        self.node = node
        self.log_file = log_file
        self._environment = {
            **{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
            "CODEPODS_NODE_ID": node.node_id,
            "CODEPODS_NODE_TOKEN": token,
            "CODEPODS_GATEWAY_URL": gateway_url,
            "CODEPODS_DATA_DIR": str(node.settings.data_dir),
            "CODEPODS_STORE_URL": f"file://{node.store_dir}",
            "CODEPODS_AGENT_ACCEPT_UNSANDBOXED": "true",
            "CODEPODS_AGENT_SYNC_WAIT_S": "5",
            "CODEPODS_AGENT_LOG_FORMAT": "json",
            # The pod image has 1.2 GB: copying it to each test's store would only keep the machine busy.
            "CODEPODS_KEEP_IMAGES": "false",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        # Who starts it again when it has died is another thread than the test's: in turn, or there are two.
        self._turn = threading.RLock()

    def start(self, gateway_url: str | None = None, failpoints: str = "") -> None:
        """Begin, or begin again after `kill` or `stop`; with deeds at node_agent.failpoints for this run."""
        if gateway_url is not None:
            self._environment["CODEPODS_GATEWAY_URL"] = gateway_url
        with self._turn, self.log_file.open("ab") as log:
            self._process = self._begin(log, {**self._environment, "CODEPODS_FAILPOINTS": failpoints})

    def begin_anew(self, gateway_url: str | None = None, failpoints: str = "") -> None:
        """`kill` and `start`, with nobody between them."""
        with self._turn:
            self.kill()
            self.start(gateway_url, failpoints)

    def revive(self) -> bool:
        """Begin again, without failpoints, if it has died by itself; whether it had."""
        with self._turn:
            died = self.has_died()
            if died:
                self.start()
            return died

    def _begin(self, log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "node_agent.main"]
        return subprocess.Popen(argv, cwd=CHECKOUT, env=environment, stderr=log)

    def limit_files(self, open_files_max: int) -> int:
        """How many files it may have open from now on; how many that were before."""
        assert self._process is not None
        before, hard = resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (open_files_max, hard))
        return before

    def open_files(self) -> int:
        """How many it has open now."""
        assert self._process is not None
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def has_died(self) -> bool:
        """It ended by itself: a failpoint, or a bug."""
        return self._process is not None and self._process.poll() is not None

    def is_stopped(self) -> bool:
        """SIGSTOP has reached it, from whomever."""
        if self._process is None:
            return False
        try:
            state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state == "T"

    def kill(self) -> None:
        """kill -9."""
        with self._turn:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None

    def pause(self) -> None:
        """SIGSTOP: alive, and doing nothing, until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT, if it is still there."""
        with self._turn:
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        with self._turn:
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)
            code = self._process.wait(PATIENCE_S)
            self._process = None
            return code

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.log_file.read_text() if self.log_file.exists() else ""
