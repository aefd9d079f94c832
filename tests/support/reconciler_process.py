"""The real reconciler, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tests.support.patience import PATIENCE_S

CHECKOUT = Path(__file__).parents[2]


class ReconcilerProcess:
    """Started with the given settings; its log is read line by line."""

    def __init__(
        self, database_url: str, environment: Mapping[str, str] | None = None, **settings: object
    ) -> None:
        given = {f"CODEPODS_{name.upper()}": str(value) for name, value in settings.items()}
        self._environment = {
            "PATH": os.environ["PATH"],
            "CODEPODS_DATABASE_URL": database_url,
            "CODEPODS_GATEWAY_PORT": "0",
            **given,
            **(environment or {}),
        }
        self.log: list[dict[str, Any]] = []
        self._lines: Queue[dict[str, Any]] = Queue()
        self.start()
        self._port = self.wait_for("gateway_listening")["port"]
        self._environment["CODEPODS_GATEWAY_PORT"] = str(self._port)

    def start(self) -> None:
        """Begin, or begin again after `kill` or `stop`, on the same port."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "reconciler.main"],
            cwd=CHECKOUT,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Where its gateway listens."""
        return f"http://127.0.0.1:{self._port}"

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first log line of this name, once it is there."""
        while True:
            for line in self.log:
                if line.get("event") == event:
                    return line
            try:
                self.log.append(self._lines.get(timeout=PATIENCE_S))
            except Empty:
                raise AssertionError(f"no {event} in the log: {self.log}") from None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process.poll() is None:
            self.kill()
        self._reader.join()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                try:
                    self._lines.put(json.loads(line))
                except ValueError:
                    self._lines.put({"event": "raw", "line": line})


@contextmanager
def reconciler_process(
    database_url: str, environment: Mapping[str, str] | None = None, **settings: object
) -> Iterator[ReconcilerProcess]:
    """A reconciler while the block runs; `environment` is beside its settings."""
    process = ReconcilerProcess(database_url, environment, **settings)
    try:
        yield process
    finally:
        process.close()
