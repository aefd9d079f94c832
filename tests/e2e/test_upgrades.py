"""A rolling restart, as an upgrade is: every program is replaced while pods run and pages load."""

import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from compose.processes import ProcessId, wait_until
from tests.support.local_installation import LocalInstallation

PATIENCE_S = 120.0
LOAD_EVERY_S = 0.05
# These first: agents understand an older control plane less well than it understands older agents.
CONTROL_PLANE = ("reconciler", "api")


class Reader(threading.Thread):
    """Loads a pod's page again and again, through nginx, as somebody who has opened it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._ending = threading.Event()
        self.loaded = 0
        self.failures: list[str] = []
        self.opened = threading.Event()

    def run(self) -> None:
        """Until the end."""
        with httpx.Client(verify=False, follow_redirects=True, timeout=60) as browser:
            target = self._url
            while not self._ending.wait(LOAD_EVERY_S):
                self._load(browser, target)
                target = self._url.split("?")[0]
                self.opened.set()

    def _load(self, browser: httpx.Client, target: str) -> None:
        try:
            page = browser.get(target)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        if page.status_code == 200 and "workbench" in page.text:
            self.loaded += 1
        else:
            self.failures.append(f"{page.status_code}: {page.text[:200]}")

    def end(self) -> None:
        """Load no more."""
        self._ending.set()
        self.join()


def _programs(installation: LocalInstallation) -> list[Path]:
    nodes = [file for file in (installation.home / "run").glob("*.pid") if file.stem.startswith("node")]
    assert len(nodes) == installation.nodes
    return [*(installation.home / "run" / f"{name}.pid" for name in CONTROL_PLANE), *sorted(nodes)]


def _replaced(file: Path, before: ProcessId) -> bool:
    now = ProcessId.read(file)
    return now is not None and now != before and now.is_alive()


def _life(installation: LocalInstallation, pod_id: str) -> tuple[str, str]:
    """Which container the pod has, and since when it runs."""
    (container,) = installation.containers(pod_id)
    return container["Id"], container["State"]["StartedAt"]


@pytest.mark.timeout(300)
def test_a_rolling_restart_touches_no_pod_and_fails_no_page(installation: LocalInstallation) -> None:
    """Reconciler, API and every agent end and begin anew, one after the other: all pages load, the same
    container runs since the same moment, and the new programs go on with it."""
    pod = installation.open("rolling")
    before = _life(installation, pod["pod_id"])
    reader = Reader(pod["url"])
    reader.start()
    try:
        assert reader.opened.wait(PATIENCE_S)
        for file in _programs(installation):
            process, loaded = ProcessId.read(file), reader.loaded
            assert process is not None
            os.kill(process.pid, signal.SIGTERM)
            assert wait_until(lambda file=file, process=process: _replaced(file, process), PATIENCE_S)
            assert wait_until(lambda loaded=loaded: reader.loaded > loaded, PATIENCE_S)
    finally:
        reader.end()
    assert reader.failures == []
    assert _life(installation, pod["pod_id"]) == before
    # On a busy machine an API that has just been replaced takes some seconds until it listens.
    assert wait_until(lambda: installation.run("status", check=False).returncode == 0, PATIENCE_S)
    installation.run("stop", pod["pod_id"], "--wait")
