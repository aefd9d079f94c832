"""Waiting for a pod through the API: answered by the change, not by the clock."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from state.database import Database
from state.model import Observed
from tests.integration.test_api_bad_input import check_problem
from tests.integration.test_api_pods import create, want
from tests.support.api_server import ApiServer
from tests.support.node_hand import NodeHand
from tests.support.ports import free_port

# Far longer than a change takes to be seen, and within what the API allows.
WAIT_S = 25


class Asking:
    """Requests under way in threads."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._pool = ThreadPoolExecutor(8)

    def get(self, pod_id: str, wait_for: str, timeout_s: float = WAIT_S) -> "Future[dict[str, Any]]":
        """Ask for the pod when it is so."""
        return self._pool.submit(self._get, f"/api/v1/pods/{pod_id}", wait_for, timeout_s)

    def _get(self, path: str, wait_for: str, timeout_s: float) -> dict[str, Any]:
        with self._api.client("revpro") as client:
            response = client.get(path, params={"wait_for": wait_for, "timeout_s": timeout_s})
            return response.json()  # type: ignore[no-any-return]

    def open(self, pod_id: str) -> "Future[httpx.Response]":
        """Open the pod, waiting for the link."""
        return self._pool.submit(self._open, pod_id)

    def _open(self, pod_id: str) -> httpx.Response:
        with self._api.client("revpro") as client:
            return client.post(f"/api/v1/pods/{pod_id}:open", params={"wait_s": WAIT_S})


@pytest.fixture
def asking(api: ApiServer) -> Asking:
    """Requests in the background."""
    return Asking(api)


@pytest.fixture
def pod_id(api: ApiServer, node: NodeHand, request: pytest.FixtureRequest) -> str:
    """A placed pod that is wanted running."""
    user = request.node.name.replace("[", "-").replace("]", "")[:100]
    with api.client("revpro") as client:
        made: str = create(client, user)["pod_id"]
    node.place(made)
    return made


def test_an_observed_change_answers(asking: Asking, node: NodeHand, pod_id: str) -> None:
    """Waiting for `running` is answered when the node reports it."""
    waiting = asking.get(pod_id, "running")
    node.report(pod_id, Observed.STARTING)
    node.report(pod_id, Observed.RUNNING)

    assert waiting.result(WAIT_S)["state"] == "running"


def test_what_is_so_already_answers(asking: Asking, node: NodeHand, pod_id: str) -> None:
    """Nobody waits for what is there."""
    node.report(pod_id, Observed.RUNNING)

    assert asking.get(pod_id, "running").result(WAIT_S)["state"] == "running"


def test_a_changed_wish_answers(api: ApiServer, asking: Asking, node: NodeHand, pod_id: str) -> None:
    """Whoever waits for `running` learns that the pod is wanted stopped now."""
    waiting = asking.get(pod_id, "running")
    with api.client("revpro") as client:
        want(client, pod_id, "stopped")

    assert waiting.result(WAIT_S)["desired"] == "stopped"


def test_a_permanent_failure_answers(asking: Asking, node: NodeHand, pod_id: str) -> None:
    """Whoever waits for what cannot come learns why."""
    waiting = asking.get(pod_id, "running")
    node.fail(pod_id, permanent=True)

    assert waiting.result(WAIT_S)["failure"]["permanent"] is True


def test_when_the_time_is_up_the_pod_is_given_as_it_is(asking: Asking, pod_id: str) -> None:
    """Waiting has an end, and is no error."""
    assert asking.get(pod_id, "running", timeout_s=0.2).result(WAIT_S)["state"] != "running"


def test_opening_waits_for_the_link(asking: Asking, node: NodeHand, pod_id: str) -> None:
    """`:open?wait_s=` answers with the link as soon as the pod runs."""
    waiting = asking.open(pod_id)
    node.report(pod_id, Observed.RUNNING)

    assert (waiting.result(WAIT_S).status_code, bool(waiting.result().json()["url"])) == (200, True)


def test_seats_are_bounded(api: ApiServer, tmp_path: Path, pod_id: str) -> None:
    """More waiting requests than allowed are refused with a time to come again."""
    with ApiServer.on(api.database_url, tmp_path, waiting_requests_max=1) as small:
        asking = Asking(small)
        waits = [asking.get(pod_id, "running", timeout_s=2) for _ in range(4)]
        answers = [wait.result(WAIT_S) for wait in waits]
        with small.client("revpro") as client:
            response = client.get(f"/api/v1/pods/{pod_id}", params={"wait_for": "running", "timeout_s": 0})

    refused = [answer for answer in answers if answer.get("code") == "too_many_waiting"]
    assert len(refused) == 3
    assert response.status_code == 200


def test_a_lost_database_is_503_and_health_stays(tmp_path: Path, api: ApiServer) -> None:
    """Without a database everything says so and when to come again; the process says that it lives."""
    url = f"postgresql://nobody:nothing@127.0.0.1:{free_port()}/nowhere?connect_timeout=2"
    lost = ApiServer(url, api.settings, api.tokens)
    with lost, lost.client() as client:
        pods, ready = client.get("/api/v1/pods"), client.get("/readyz")
        alive = client.get("/healthz")

    check_problem(pods, "database_unavailable")
    check_problem(ready, "database_unavailable")
    assert pods.headers["retry-after"] == "2"
    assert alive.status_code == 200
    assert isinstance(lost.db, Database)
