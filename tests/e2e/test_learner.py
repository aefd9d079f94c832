"""The main job, in a real browser: open, work, stop, start, archive, come back on another node."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.support.browser import (
    chromium,
    edit_and_save,
    learner_page,
    open_terminal,
    open_workbench,
    screenshot,
    type_in_terminal,
)
from tests.support.local_installation import LocalInstallation, in_pod
from tests.support.pod_tree import differences, pod_tree
from tests.support.quiet_network import quiet_chromium

PATIENCE_S = 120
SCREENSHOTS = Path(os.environ.get("CODEPODS_SCREENSHOTS", "/tmp/codepods-screenshots"))

# What the learner leaves behind outside the editor: a package, a build, and files of every ordinary kind.
_WORK = r"""
set -e
sudo apt-get update -qq >/dev/null && sudo apt-get install -y -qq tree >/dev/null 2>&1
echo 'from home' > $HOME/notes.txt && chmod 640 $HOME/notes.txt
cd /workspaces/hello && make --silent
sudo mkdir -p /opt/kept && cd /opt/kept
sudo bash -c 'echo root > owned-by-root; chmod 4755 owned-by-root; ln -s owned-by-root link
  ln owned-by-root hard; touch -d 1999-12-31T23:59:59.123456789 old; mkfifo pipe'
sudo python3 -c 'import os; os.setxattr("/opt/kept/old", "user.note", b"kept")'
sudo rm /etc/issue
"""


@contextmanager
def _a_browser(installation: LocalInstallation) -> Iterator[Browser]:
    port = int(installation.environment["CODEPODS_HTTPS_PORT"])
    with quiet_chromium(port) as executable, chromium(executable) as browser:
        yield browser


def _the_container(installation: LocalInstallation, pod_id: str) -> dict[str, Any]:
    (container,) = installation.containers(pod_id)
    return container


def _node_of(installation: LocalInstallation, pod_id: str) -> str:
    node: str = _the_container(installation, pod_id)["Config"]["Labels"]["codepods.node"]
    return node


def _wait_in_pod(container_id: str, path: str, text: str) -> str:
    """The content of a file once it holds what is about to be written there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        content = in_pod(container_id, f"cat {path} 2>/dev/null || true")
        if text in content:
            return content
        time.sleep(0.2)
    raise AssertionError(f"{path} did not hold {text!r} within {PATIENCE_S} s")


def _work_in_editor(page: Page, url: str, container_id: str) -> None:
    open_workbench(page, url)
    open_terminal(page)
    type_in_terminal(page, "clear; id | tee ~/who.txt")
    assert "uid=1000(coder)" in _wait_in_pod(container_id, "/home/coder/who.txt", "uid=")
    edit_and_save(page, "hello.py", "# edited by the learner\n")
    screenshot(page, SCREENSHOTS / "workbench.png")
    edited = _wait_in_pod(container_id, "/workspaces/hello/hello.py", "# edited")
    assert edited.startswith("# edited by the learner\n")


def test_a_learner_comes_back_to_everything(installation: LocalInstallation) -> None:
    """Files, owners, modes, times, links, a package, a build: all survive a stop, and another node."""
    opened = installation.open("walker")
    pod = opened["pod_id"]
    container_id = _the_container(installation, pod)["Id"]
    with _a_browser(installation) as browser, learner_page(browser) as page:
        _work_in_editor(page, opened["url"], container_id)
    in_pod(container_id, _WORK)
    before = pod_tree(container_id)
    assert "/usr/bin/tree" in before
    first_node = _node_of(installation, pod)

    installation.run("stop", pod, "--wait")
    assert _the_container(installation, pod)["State"]["Running"] is False
    installation.run("start", pod, "--wait")
    assert differences(before, pod_tree(_the_container(installation, pod)["Id"])) == {}

    installation.run("archive", pod, "--wait")
    assert installation.containers(pod) == []
    _wait_until_no_volume(installation, "walker")
    installation.psql(f"UPDATE node SET cordoned = true WHERE id = '{first_node}'")
    try:
        back = installation.open("walker")
    finally:
        installation.psql(f"UPDATE node SET cordoned = false WHERE id = '{first_node}'")

    assert back["pod_id"] == pod
    assert _node_of(installation, pod) != first_node
    container_id = _the_container(installation, pod)["Id"]
    assert differences(before, pod_tree(container_id)) == {}
    in_pod(container_id, "cd /workspaces/hello && make --question")  # exits 0 when all is up to date
    assert "tree v" in in_pod(container_id, "tree --version")
    with _a_browser(installation) as browser, learner_page(browser) as page:
        open_workbench(page, back["url"])
        screenshot(page, SCREENSHOTS / "after-restore.png")


def _wait_until_no_volume(installation: LocalInstallation, user: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while installation.volumes(user):
        assert time.monotonic() < deadline, "the workspace volume is still on its node"
        time.sleep(0.2)


def test_two_pods_of_one_user_share_the_workspace(installation: LocalInstallation) -> None:
    """What one pod writes under /workspaces the other one reads; their homes are their own."""
    first = installation.open("sharer", name="one")["pod_id"]
    second = installation.open("sharer", name="two")["pod_id"]
    one, two = (_the_container(installation, pod)["Id"] for pod in (first, second))

    in_pod(one, "echo shared > /workspaces/note; echo mine > ~/mine")

    assert first != second
    assert in_pod(two, "cat /workspaces/note") == "shared\n"
    assert in_pod(two, "ls ~/mine 2>&1 || true").endswith("No such file or directory\n")


def test_pods_reach_neither_each_other_nor_us(installation: LocalInstallation) -> None:
    """LAW 17: from inside a pod, another pod, the control plane and the metadata address do not answer."""
    mine = _the_container(installation, installation.open("alone-a")["pod_id"])
    other = _the_container(installation, installation.open("alone-b")["pod_id"])
    (network,) = other["NetworkSettings"]["Networks"].values()
    targets = [(network["IPAddress"], 8080), (network["Gateway"], 22), ("169.254.169.254", 80)]
    targets += [
        (network["Gateway"], int(installation.environment[f"CODEPODS_{name}_PORT"]))
        for name in ("HTTPS", "API", "GATEWAY", "POSTGRES")
    ]

    for host, port in targets:
        tried = f"timeout 2 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo reached || echo refused"
        assert in_pod(mine["Id"], tried) == "refused\n", f"{host}:{port} is reachable from a pod"
