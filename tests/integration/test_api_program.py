"""`codepods-api` as a program: it serves, stops gracefully, and says which setting is wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.access_token import Keyring
from state import tokens
from state.database import Database
from tests.integration.test_api_pods import create
from tests.support.ports import free_port

TIMEOUT_S = 60
COMMAND = (sys.executable, "-m", "api.main")
CHECKOUT = Path(__file__).parents[2]


@contextmanager
def program(**settings: str) -> Iterator["subprocess.Popen[str]"]:
    """The program with these settings only."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CODEPODS_")}
    with subprocess.Popen(
        COMMAND,
        env=clean | settings,
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(client: httpx.Client, pod_id: str, timeout_s: float) -> httpx.Response:
    """Ask for the pod when it runs."""
    return client.get(f"/api/v1/pods/{pod_id}", params={"wait_for": "running", "timeout_s": timeout_s})


def seated(client: httpx.Client, pod_id: str, timeout_s: float) -> httpx.Response:
    """The answer of the request that got a seat."""
    while (response := ask(client, pod_id, timeout_s)).status_code == httpx.codes.TOO_MANY_REQUESTS:
        pass
    return response


def test_a_stop_lets_waiting_requests_go(database_url: str, tmp_path: Path) -> None:
    """SIGTERM answers those who wait, ends with 0, and leaves JSON lines without any token in the log."""
    keyring, port = tmp_path / "keyring.json", free_port()
    Keyring.new().save(keyring)
    db = Database(database_url, "api")
    _, token = tokens.create_token(db, "stopper", "revpro")
    settings = {
        "CODEPODS_DATABASE_URL": database_url,
        "CODEPODS_KEYRING": str(keyring),
        "CODEPODS_API_PORT": str(port),
        "CODEPODS_WAITING_REQUESTS_MAX": "1",
    }
    headers, transport = {"Authorization": f"Bearer {token}"}, httpx.HTTPTransport(retries=10)
    with (
        program(**settings) as process,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers=headers,
            transport=transport,
            trust_env=False,
            timeout=TIMEOUT_S,
        ) as client,
    ):
        pod_id = create(client, "stopper")["pod_id"]
        waiting = pool.submit(seated, client, pod_id, 25)
        while ask(client, pod_id, 0.05).status_code != httpx.codes.TOO_MANY_REQUESTS:
            pass  # until the other one has taken the only seat
        process.send_signal(signal.SIGTERM)
        answered = waiting.result(TIMEOUT_S)
        _, log = process.communicate(timeout=TIMEOUT_S)
        code = process.returncode
    db.close()

    assert (answered.status_code, code) == (200, 0)
    assert token not in log
    assert {"serving", "request", "stopping"} <= {json.loads(line)["event"] for line in log.splitlines()}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "CODEPODS_DATABASE_URL"),
        ({"CODEPODS_BASE_URL": "codepods.example.org"}, "CODEPODS_BASE_URL"),
        ({"CODEPODS_API_PORT": "http"}, "CODEPODS_API_PORT"),
        ({"CODEPODS_URL_SHAPE": "both"}, "CODEPODS_URL_SHAPE"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], name: str) -> None:
    """A missing or wrong setting ends the program with 2, names the variable, and does not repeat secrets."""
    with program(**settings) as process:
        _, err = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 2
    assert name in err
    assert "Traceback" not in err
