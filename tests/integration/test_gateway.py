"""The gateway of a real reconciler process, as nodes meet it over HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import httpx
import pytest

from state import chores, nodes
from state.chore_wire import ChoreDone, ChoresUp
from state.database import Database
from state.model import Desired
from state.presence_wire import PresenceDown
from state.wire import SyncReply
from tests.support.control import is_settled, new_pod, want
from tests.support.postgres import TestServer
from tests.support.reconciler_process import ReconcilerProcess, reconciler_process
from tests.support.scripted_node import HttpNode

TOKEN = "token-of-a-node"
LONG_S = 20
JOIN_S = 30
BOOTS = count(1)
NO_CHORES = ChoresUp()


@dataclass
class Plane:
    """A running control plane."""

    db: Database
    process: ReconcilerProcess

    def node(self, node_id: str) -> HttpNode:
        """A registered node, started anew, that nobody is placed on."""
        nodes.register(self.db, node_id, TOKEN)
        nodes.set_cordoned(self.db, node_id, True, actor="test")
        return HttpNode(node_id, TOKEN, self.process.url, boot_id=f"{next(BOOTS):06}")

    @contextmanager
    def working(self, node_id: str) -> Iterator[HttpNode]:
        """A node on which all new users are placed."""
        node = self.node(node_id)
        node.sync()
        nodes.set_cordoned(self.db, node_id, False, actor="test")
        yield node
        nodes.set_cordoned(self.db, node_id, True, actor="test")


@pytest.fixture(scope="module")
def plane(postgres_server: TestServer) -> Iterator[Plane]:
    """One for all tests here; each uses nodes and users of its own."""
    name = postgres_server.create()
    url = postgres_server.url_of(name)
    db = Database(url, "test")
    with reconciler_process(url) as process:
        yield Plane(db, process)
    db.close()
    postgres_server.drop(name)


@dataclass
class Waiting:
    """A long poll in a thread of its own."""

    node: HttpNode
    chores: ChoresUp = NO_CHORES
    reply: SyncReply | None = None

    def __post_init__(self) -> None:
        self._body = self.node.request(wait_s=LONG_S, chores=self.chores).model_dump_json()
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        self.reply = SyncReply.model_validate_json(self.node.post(self._body).content)

    def end(self) -> SyncReply:
        """Its reply, once it has come."""
        self._thread.join(JOIN_S)
        assert self.reply is not None
        return self.reply


def problem(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of a problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], bool(body["detail"])) == (response.status_code, True)
    return response.status_code, body["code"]


@pytest.mark.parametrize("header", [{}, {"Authorization": "Basic x"}, {"Authorization": "Bearer wrong"}])
def test_only_a_node_with_its_own_token_is_heard(plane: Plane, header: dict[str, str]) -> None:
    """Without one, with a wrong one, or with no scheme: 401, and nothing is written."""
    node = plane.node("refused")
    body = node.request().model_dump_json()

    response = httpx.post(f"{plane.process.url}/v1/sync", content=body, headers=header)

    assert problem(response) == (401, "unauthorized")
    with plane.db.transaction() as conn:
        assert conn.execute("SELECT * FROM node_lease WHERE node_id = 'refused'").fetchall() == []


def test_a_token_of_another_node_is_of_no_use(plane: Plane) -> None:
    """A node can only speak for itself."""
    plane.node("victim")
    nodes.register(plane.db, "thief", "token-of-the-thief")
    thief = HttpNode("victim", "token-of-the-thief", plane.process.url)

    assert problem(thief.post(thief.request().model_dump_json())) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b"", (400, "malformed_json")),
        (b"{not json", (400, "malformed_json")),
        (b"\xff\xfe", (400, "malformed_json")),
        (b"[]", (422, "invalid_message")),
        (b"{}", (422, "invalid_message")),
        (b" " * (8 * 1024 * 1024 + 1), (413, "too_large")),
    ],
)
def test_a_malformed_message_is_refused_with_a_reason(
    plane: Plane, body: bytes, verdict: tuple[int, str]
) -> None:
    """As problem+json, and the gateway goes on."""
    node = plane.node("garbled")

    assert problem(node.post(body)) == verdict
    assert node.sync().accepted == ()


def test_a_refusal_names_the_field_and_repeats_no_value(plane: Plane) -> None:
    """Messages carry secrets, and refusals are logged."""
    node = plane.node("leaky")
    body = node.request().model_dump(mode="json") | {"sequence": "hunter2", "wait_s": 1e9}

    response = node.post(json.dumps(body))

    assert problem(response) == (422, "invalid_message")
    assert "sequence" in response.text
    assert "hunter2" not in response.text


def test_a_report_that_cannot_be_so_is_refused_whole(plane: Plane) -> None:
    """A state that no node reports, or a NUL in a name: the node is told, and its lease is not renewed."""
    node = plane.node("absurd")
    good = node.request().model_dump(mode="json")
    pod = {
        "pod_id": "p-x",
        "workspace_id": "w-x",
        "user_id": "u",
        "epoch": 1,
        "generation": 1,
        "image_id": "i",
    }
    nul = pod | {"state": "running", "container_id": "c\x00"}

    refused = node.post(json.dumps(good | {"report": {"pods": [nul]}}))

    assert problem(refused) == (422, "unusable_report")
    assert node.sync().accepted == ()


def test_fields_of_a_newer_version_are_let_through(plane: Plane) -> None:
    """N and N−1 understand each other."""
    node = plane.node("newer")
    body = node.request().model_dump(mode="json") | {"from_the_future": [1]}

    assert node.post(json.dumps(body)).status_code == 200


def test_a_report_of_the_past_is_refused(plane: Plane) -> None:
    """Its sender learns why: most likely a second agent has the same id."""
    node = plane.node("twice")
    late = node.request().model_dump_json()
    node.sync()

    assert problem(node.post(late)) == (409, "stale_report")


def test_a_node_without_work_is_answered_when_its_patience_ends(plane: Plane) -> None:
    """With nothing, which is a reply too."""
    assert plane.node("idle").sync(wait_s=0.2) == SyncReply(presence=PresenceDown(warnings=()))


def test_a_waiting_node_is_told_as_soon_as_there_is_work(plane: Plane) -> None:
    """The pod is wanted while the node waits; the reply comes with the first step."""
    with plane.working("eager") as node:
        waiting = Waiting(node)
        new_pod(plane.db, "eager-user")
        (action,) = waiting.end().actions

    assert (action.step.verb, action.user_id) == ("create_workspace", "eager-user")


def test_a_waiting_node_is_told_what_is_taken_back(plane: Plane) -> None:
    """While it holds an action that nobody wants any more."""
    with plane.working("undecided") as node:
        pod_id = new_pod(plane.db, "undecided-user")
        node.work_until(lambda: is_settled(plane.db, pod_id))
        want(plane.db, pod_id, Desired.STOPPED)
        node.sync(wait_s=LONG_S)
        (stop_id,) = node.in_hand
        waiting = Waiting(node)
        want(plane.db, pod_id, Desired.RUNNING)

    assert waiting.end().taken_back == (stop_id,)


def test_a_waiting_node_that_would_take_a_chore_is_given_one_as_soon_as_there_is_one(plane: Plane) -> None:
    """And its result is accepted at the next sync, by a gateway that knows nothing of the kind."""
    with plane.working("chores") as node:
        told = ChoresUp(kinds=("sort",), wanted=1)
        waiting = Waiting(node, told)
        with plane.db.transaction() as conn:
            chores.make_chore(conn, "sort", "everything", {}, made_by="test")
        (chore,) = waiting.end().chores.given
        done = ChoresUp(kinds=("sort",), results=(ChoreDone(chore=chore.handle),))
        assert node.sync(chores=done).chores.accepted == (chore.handle,)
        assert node.sync(chores=told).chores.given == ()


def test_a_newer_call_of_a_node_ends_the_older(plane: Plane) -> None:
    """An agent that restarted does not leave its ghost waiting."""
    node = plane.node("restarted")
    ghost = Waiting(node)
    node.sync(wait_s=0.5)

    assert ghost.end().actions == ()


def test_health_is_told_to_anybody(plane: Plane) -> None:
    """For whatever watches the process."""
    assert httpx.get(f"{plane.process.url}/healthz").json()["status"] == "ok"
