"""Who is there, in a real browser: a closed tab, a pulled cable, a build alone, a tab that nobody touches."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import (
    CHROMIUM,
    another_chromium,
    chromium,
    learner_page,
    open_workbench,
    screenshot,
)
from tests.support.learners_network import learners_network
from tests.support.local_installation import LocalInstallation, in_pod, local_installation
from tests.support.quiet_network import quiet_chromium

HOST = "idle.test"
GRACE_S = 15
# A warning stands for long enough to be answered on a slow machine; and for half of the limit at most.
IDLE_S = 90
WARNING_S = 45
BUILD_S = 900
PATIENCE_S = 200
LOOK_EVERY_S = 0.2
SCREENSHOTS = Path(os.environ.get("CODEPODS_SCREENSHOTS", "/tmp/codepods-screenshots"))
BUILD = f"timeout {BUILD_S} sh -c 'while :; do :; done'"


@pytest.fixture(scope="module")
def idle_site() -> Iterator[LocalInstallation]:
    """An installation with short limits."""
    with tempfile.TemporaryDirectory(prefix="codepods-e2e-idle-") as directory:
        home = Path(directory) / "home"
        own = LocalInstallation(home, 1).environment
        settings = {
            **{name: value for name, value in own.items() if name.startswith("CODEPODS_")},
            # A name that is not this machine's own: nginx listens at the end of the cable, too.
            "CODEPODS_BASE_URL": f"https://{HOST}:{own['CODEPODS_HTTPS_PORT']}",
            "CODEPODS_CLOSED_GRACE": str(GRACE_S),
            "CODEPODS_IDLE_LIMIT": str(IDLE_S),
            "CODEPODS_WARNING_BEFORE": str(WARNING_S),
        }
        with local_installation(home, 1, **settings) as running:
            yield running


def found_at(address: str) -> str:
    """Where a browser looks for the installation."""
    return f"--host-resolver-rules=MAP {HOST} {address}"


def events_of(site: LocalInstallation, pod: str) -> list[dict[str, Any]]:
    """The pod's history."""
    found: list[dict[str, Any]] = site.json("events", pod)
    return found


def by_policy(site: LocalInstallation, pod: str, kind: str) -> dict[str, Any] | None:
    """The first event of a kind that is a policy's."""
    of_kind = (event for event in events_of(site, pod) if event["kind"] == kind)
    return next((event for event in of_kind if event["actor"].startswith("policy:")), None)


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """Whatever it is, once it is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < deadline, what
        time.sleep(LOOK_EVERY_S)
    return value


def at(event: dict[str, Any]) -> datetime:
    """When it happened."""
    return datetime.fromisoformat(event["at"])


def is_running(site: LocalInstallation, pod: str) -> bool:
    """Docker's own word."""
    (container,) = site.containers(pod)
    running: bool = container["State"]["Running"]
    return running


def presence_of(site: LocalInstallation, pod: str) -> dict[str, str]:
    """What the database knows of who is there."""
    columns = ("connections", "busy", "active_at", "gone_at")
    shown = site.psql(f"SELECT {', '.join(columns)} FROM pod_presence WHERE pod_id = '{pod}'").stdout
    return dict(zip(columns, shown.strip().split("|"), strict=False))


def work_alone(site: LocalInstallation, page: Page, user: str) -> str:
    """A pod in which a build was started; its page is open."""
    pod = _open(site, page, user)
    (container,) = site.containers(pod)
    in_pod(container["Id"], f"nohup {BUILD} >/dev/null 2>&1 &")
    wait_for("the build is seen", lambda: presence_of(site, pod).get("busy") == "t")
    return pod


@pytest.mark.timeout(900)
def test_pods_that_nobody_uses_are_put_away_and_others_are_not(
    idle_site: LocalInstallation, tmp_path: Path
) -> None:
    """A closed tab stops in its grace, as does one that vanished; a build is kept; an idle tab is warned."""
    site = idle_site
    port = int(site.environment["CODEPODS_HTTPS_PORT"])
    with quiet_chromium(port) as executable, chromium(executable, found_at("127.0.0.1")) as browser:
        with learner_page(browser) as page:
            building = work_alone(site, page, "builder")
        with learner_page(browser) as page:
            closing = _open(site, page, "closer")
        _assert_stopped_in_its_grace(site, closing)
        _assert_kept_alone(site, building)
        with (
            cable_pulled(site, browser, tmp_path) as vanished,
            learner_page(browser) as untouched,
            learner_page(browser) as kept,
        ):
            dreaming = _open(site, untouched, "dreamer")
            _assert_button_keeps(site, kept, _open(site, kept, "keeper"))
            _assert_noticed_and_stopped(site, vanished)
            _assert_warned_and_stopped(site, dreaming)
    (container,) = site.containers(building)
    in_pod(container["Id"], "pkill timeout")
    ended = wait_for("the build's pod is stopped", lambda: by_policy(site, building, "desired"))
    assert ended["actor"] == "policy:closed"
    assert "the work in it" in ended["reason"]


@contextmanager
def cable_pulled(site: LocalInstallation, beside: Browser, directory: Path) -> Iterator[str]:
    """A pod whose one tab is at the other end of a cable from which no packet comes, nor came a farewell."""
    with (
        learners_network(directory, CHROMIUM) as network,
        another_chromium(beside, str(network.browser), found_at(network.here)) as browser,
        learner_page(browser) as page,
    ):
        pod = _open(site, page, "vanisher")
        with network.cut():
            yield pod


def _assert_noticed_and_stopped(site: LocalInstallation, pod: str) -> None:
    """nginx gives the client up, so the pod is seen without connections, well before its idle limit."""
    wait_for("the vanished client is noticed", lambda: presence_of(site, pod)["connections"] == "0")
    stopped = wait_for("the vanished client's pod is wanted stopped", lambda: by_policy(site, pod, "desired"))
    wait_for("the vanished client's pod has stopped", lambda: not is_running(site, pod))

    assert (stopped["actor"], stopped["to_value"]) == ("policy:closed", "stopped")
    gone_at = datetime.fromisoformat(presence_of(site, pod)["gone_at"])
    assert at(stopped) - gone_at >= timedelta(seconds=GRACE_S)


def _assert_stopped_in_its_grace(site: LocalInstallation, pod: str) -> None:
    """Not before its end, and by the rule that says so; how soon after is printed."""
    closed = time.monotonic()
    stopped = wait_for("the closed pod is wanted stopped", lambda: by_policy(site, pod, "desired"))
    wait_for("the closed pod has stopped", lambda: not is_running(site, pod))
    took_s = time.monotonic() - closed
    print(f"closed tab: stopped {took_s:.1f} s after it was closed, grace {GRACE_S} s")
    assert (stopped["actor"], stopped["to_value"]) == ("policy:closed", "stopped")


def _open(site: LocalInstallation, page: Page, user: str) -> str:
    opened = site.open(user)
    open_workbench(page, opened["url"])
    pod: str = opened["pod_id"]
    wait_for("the editor is heard", lambda: presence_of(site, pod).get("active_at"))
    return pod


def _assert_kept_alone(site: LocalInstallation, pod: str) -> None:
    """Its tab was closed before the one whose pod has been stopped meanwhile, and its work goes on."""
    now = presence_of(site, pod)
    assert (now["connections"], now["busy"]) == ("0", "t"), now
    (container,) = site.containers(pod)
    assert container["State"]["Running"]
    assert "while" in in_pod(container["Id"], "ps ax -o args")
    assert by_policy(site, pod, "desired") is None


def _assert_button_keeps(site: LocalInstallation, page: Page, pod: str) -> None:
    """The warning is shown in the editor; its button extends, and the history says from where."""
    button = page.get_by_role("button", name="Keep it running")
    button.wait_for(timeout=PATIENCE_S * 1000)
    screenshot(page, SCREENSHOTS / "warning.png")
    button.click()
    answered = wait_for(
        "the answer has arrived",
        lambda: next((e for e in events_of(site, pod) if e["actor"] == f"editor:{pod}"), None),
    )
    assert "keep_until" in answered["detail"]["changed"]
    assert is_running(site, pod)


def _assert_warned_and_stopped(site: LocalInstallation, pod: str) -> None:
    """First a warning, then, when it has stood for its time, the stop; each with event and reason."""
    warned = wait_for("the untouched pod is warned", lambda: by_policy(site, pod, "warned"))
    stopped = wait_for("the untouched pod is wanted stopped", lambda: by_policy(site, pod, "desired"))
    wait_for("the untouched pod has stopped", lambda: not is_running(site, pod))

    assert (warned["actor"], stopped["actor"]) == ("policy:idle", "policy:idle")
    # Where CPU is short a pod's own processes wait for it, and that is taken for work for a moment.
    reasons = (f"a tab is open, and was not touched for {IDLE_S} s", "the work in it")
    assert stopped["reason"].startswith(reasons), stopped["reason"]
    assert at(stopped) - at(warned) >= timedelta(seconds=WARNING_S)
