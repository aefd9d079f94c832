"""Pods through the API: create or open, list, want, delete, and the link."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from api.access_token import Keyring, open_token
from state.model import Observed
from tests.integration.test_api_bad_input import check_problem
from tests.support.api_server import ApiServer
from tests.support.node_hand import SECRET, UPSTREAM, NodeHand


@pytest.fixture
def revpro(api: ApiServer):  # type: ignore[no-untyped-def]
    """revpro's client."""
    with api.client("revpro") as client:
        yield client


def create(client: httpx.Client, user: str, **fields: Any) -> dict[str, Any]:
    """Create a pod, and give it as the API shows it."""
    response = client.post("/api/v1/pods", json={"user": user, **fields})

    assert response.status_code in (200, 201), response.text
    return response.json()


def want(client: httpx.Client, pod_id: str, state: str, **fields: Any) -> httpx.Response:
    """Say what is wanted."""
    return client.put(f"/api/v1/pods/{pod_id}/desired-state", json={"state": state, **fields})


def test_a_pod_is_created_once(revpro: httpx.Client) -> None:
    """The first call creates (201, with its address), the second finds the same pod unchanged (200)."""
    first = revpro.post("/api/v1/pods", json={"user": "alice", "lab": "hello"})
    second = revpro.post("/api/v1/pods", json={"user": "alice", "lab": "hello"})

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["location"] == f"/api/v1/pods/{first.json()['pod_id']}"
    assert first.json() == second.json()
    assert first.json()["name"] == "hello"
    assert first.json()["generation"] == 1
    assert revpro.get(first.headers["location"]).json() == first.json()


def test_many_at_once_create_one_pod(api: ApiServer) -> None:
    """A learner who clicks ten times, through several web servers, has one pod."""

    def click(_: int) -> httpx.Response:
        with api.client("revpro") as client:
            return client.post("/api/v1/pods", json={"user": "quinn", "lab": "hello"})

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(click, range(10)))

    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["pod_id"] for answer in answers}) == 1


def test_each_name_is_a_pod_of_its_own(revpro: httpx.Client) -> None:
    """A user may have several pods, told apart by name; another user's are others."""
    made = [create(revpro, "bob"), create(revpro, "bob", name="two"), create(revpro, "bob2")]

    assert len({pod["pod_id"] for pod in made}) == 3


def test_what_was_not_named_is_left_as_it_is(revpro: httpx.Client) -> None:
    """Opening a pod by its name alone keeps its image, lab and limits."""
    made = create(revpro, "carol", name="big", image="debian:12", lab="go", cpu_millis=4000)
    opened = create(revpro, "carol", name="big")

    assert made == opened


@pytest.mark.parametrize(
    ("field", "value"), [("image", "debian:13"), ("lab", "rust"), ("cpu_millis", 2000), ("memory_mib", 512)]
)
def test_another_make_of_the_same_name_is_refused(revpro: httpx.Client, field: str, value: Any) -> None:
    """A pod is never silently given, or changed to, something else than was asked: 409 tells what differs."""
    create(revpro, "dave", name="mine", image="debian:12", lab="go", cpu_millis=4000)

    problem = check_problem(
        revpro.post("/api/v1/pods", json={"user": "dave", "name": "mine", field: value}), "pod_differs"
    )

    assert field in problem["detail"]


def test_creating_again_wants_it_running_again(revpro: httpx.Client) -> None:
    """Create-or-open of a stopped pod wants it running, in a new generation."""
    made = create(revpro, "erin")
    want(revpro, made["pod_id"], "stopped")
    opened = create(revpro, "erin")

    assert (opened["desired"], opened["generation"]) == ("running", 3)


def test_lists_are_pages_of_one_user_or_all(api: ApiServer, revpro: httpx.Client) -> None:
    """Following `next` gives every pod of the user once, and nobody else's."""
    made = {create(revpro, "frank", name=f"n{i}")["pod_id"] for i in range(5)}
    create(revpro, "frankly")
    found: list[str] = []
    after = None
    while True:
        params = {"user": "frank", "limit": 2} | ({"after": after} if after else {})
        page = revpro.get("/api/v1/pods", params=params).json()
        found += [pod["pod_id"] for pod in page["pods"]]
        after = page["next"]
        if after is None:
            break

    assert sorted(made) == sorted(found)


def test_wishes_are_guarded_by_generation(revpro: httpx.Client) -> None:
    """With `if_generation` a decision made on an older state is refused, and changes nothing."""
    pod_id = create(revpro, "grace")["pod_id"]
    stopped = want(revpro, pod_id, "stopped", if_generation=1, reason="class is over")
    late = want(revpro, pod_id, "archived", if_generation=1)

    assert (stopped.status_code, stopped.json()["generation"]) == (200, 2)
    check_problem(late, "generation_conflict")
    assert revpro.get(f"/api/v1/pods/{pod_id}").json()["desired"] == "stopped"


def test_wishing_the_same_again_changes_nothing(revpro: httpx.Client) -> None:
    """A repeated wish is not a new generation."""
    pod_id = create(revpro, "heidi")["pod_id"]

    assert want(revpro, pod_id, "running").json()["generation"] == 1


def test_a_tombstone_is_for_good(revpro: httpx.Client) -> None:
    """Delete repeats safely; nothing brings the pod back; its name is free for another."""
    made = create(revpro, "ivan")
    pod_id = made["pod_id"]
    path = f"/api/v1/pods/{pod_id}"

    assert (revpro.delete(path).status_code, revpro.delete(path).status_code) == (200, 200)
    assert revpro.get(path).json()["desired"] == "deleted"
    check_problem(want(revpro, pod_id, "running"), "pod_deleted")
    check_problem(revpro.post(f"{path}:open"), "pod_deleted")
    assert create(revpro, "ivan")["pod_id"] != pod_id


def test_the_history_says_who_and_why(api: ApiServer, revpro: httpx.Client) -> None:
    """Every wish is an event with the token's name and the reason."""
    pod_id = create(revpro, "judy")["pod_id"]
    want(revpro, pod_id, "stopped", reason="class is over")
    page = revpro.get(f"/api/v1/pods/{pod_id}/events").json()

    last = page["events"][-1]
    assert (last["from_value"], last["to_value"]) == ("running", "stopped")
    assert (last["actor"], last["reason"]) == ("api:test-revpro", "class is over")
    with api.client("read") as reader:
        params = {"user": "judy", "after": last["event_id"] - 1}
        assert [last] == reader.get("/api/v1/events", params=params).json()["events"]


def test_a_link_is_given_when_the_pod_runs(api: ApiServer, node: NodeHand, revpro: httpx.Client) -> None:
    """202 without a link until it runs, then 200 with one that opens this pod and expires soon."""
    pod_id = create(revpro, "kim", lab="hello")["pod_id"]
    early = revpro.post(f"/api/v1/pods/{pod_id}:open")
    node.place(pod_id)
    node.report(pod_id, Observed.RUNNING)
    opened = revpro.post(f"/api/v1/pods/{pod_id}:open")

    assert (early.status_code, early.json()["url"]) == (202, None)
    assert (opened.status_code, opened.json()["state"]) == (200, "running")
    assert opened.headers["cache-control"] == "no-store"
    url = urlsplit(opened.json()["url"])
    query = parse_qs(url.query)
    assert f"/pods/{pod_id}/" == url.path
    assert query["folder"] == ["/workspaces/hello"]
    action = f"https://localhost:8443/pods/{pod_id}/_start/open?folder=/workspaces/hello"
    assert opened.json()["post"] == {"action": action, "fields": {"tkn": query["tkn"][0]}}
    assert early.json()["post"] is None
    now = int(time.time())
    claims = open_token(query["tkn"][0], Keyring.load(api.settings.keyring), "url", pod_id, now)
    assert (claims.user, claims.epoch, claims.upstream, claims.secret) == ("kim", 1, UPSTREAM, SECRET)
    assert now < claims.expires_at <= now + api.settings.link_lifetime_s


def test_each_opening_is_a_session_of_its_own(api: ApiServer, node: NodeHand, revpro: httpx.Client) -> None:
    """No two links are of the same session, so that one can be spent or revoked without the other."""
    pod_id = create(revpro, "kate")["pod_id"]
    node.place(pod_id)
    node.report(pod_id, Observed.RUNNING)
    urls = [revpro.post(f"/api/v1/pods/{pod_id}:open").json()["url"] for _ in range(3)]
    keyring = Keyring.load(api.settings.keyring)
    tokens = [parse_qs(urlsplit(url).query)["tkn"][0] for url in urls]

    assert len({open_token(token, keyring, "url", pod_id, 0).session_id for token in tokens}) == 3


def test_opening_a_stopped_pod_wants_it_running(node: NodeHand, revpro: httpx.Client) -> None:
    """Opening is a wish: a stopped or archived pod is wanted running again."""
    pod_id = create(revpro, "leo", desired="stopped")["pod_id"]

    assert revpro.post(f"/api/v1/pods/{pod_id}:open").json()["pod"]["desired"] == "running"


def test_secrets_stay_inside(node: NodeHand, api: ApiServer, revpro: httpx.Client) -> None:
    """No answer but the sealed link has anything of the pod's session secret or address."""
    pod_id = create(revpro, "mia")["pod_id"]
    node.place(pod_id)
    node.report(pod_id, Observed.RUNNING)
    with api.client() as admin:
        paths = [
            f"pods/{pod_id}",
            "pods",
            f"pods/{pod_id}/events",
            f"pods/{pod_id}/explain",
            "events",
            "nodes",
        ]
        answers = [admin.get(f"/api/v1/{path}").text for path in paths]
        answers.append(admin.post(f"/api/v1/pods/{pod_id}:open").text)

    assert not [text for text in answers if SECRET in text or UPSTREAM in text]


def test_an_address_that_no_link_may_name_is_told(node: NodeHand, revpro: httpx.Client) -> None:
    """A node that reports a strange upstream gets no link made to it."""
    pod_id = create(revpro, "nora")["pod_id"]
    node.place(pod_id)
    node.report(pod_id, Observed.RUNNING, upstream="unix:/run/docker.sock")

    check_problem(revpro.post(f"/api/v1/pods/{pod_id}:open"), "pod_unreachable")


def test_explain_says_what_is_waited_for(node: NodeHand, revpro: httpx.Client) -> None:
    """A parked pod's explanation has its failure and the history; a settled one waits for nothing."""
    pod_id = create(revpro, "oscar")["pod_id"]
    fresh = revpro.get(f"/api/v1/pods/{pod_id}/explain").json()
    node.fail(pod_id, permanent=True)
    parked = revpro.get(f"/api/v1/pods/{pod_id}/explain").json()

    assert "reconciler" in fresh["waiting_for"]
    assert parked["pod"]["failure"]["code"] == "no_such_image"
    assert "no image named" in parked["waiting_for"]
    assert parked["events"][0]["kind"] == "desired"


def test_a_failure_of_the_past_is_not_shown(node: NodeHand, revpro: httpx.Client) -> None:
    """Once something else is wanted, the old failure says nothing any more."""
    pod_id = create(revpro, "peggy")["pod_id"]
    node.fail(pod_id, permanent=True)

    assert want(revpro, pod_id, "stopped").json()["failure"] is None


@pytest.mark.parametrize("ask", ["create", "open", "want"])
def test_asking_again_starts_anew(node: NodeHand, revpro: httpx.Client, ask: str) -> None:
    """Whichever call repeats the wish: what was parked is no failure any more; once more changes nothing."""
    pod_id = create(revpro, f"quentin-{ask}")["pod_id"]
    node.fail(pod_id, permanent=True)
    for _ in range(2):
        match ask:
            case "create":
                create(revpro, f"quentin-{ask}")
            case "open":
                revpro.post(f"/api/v1/pods/{pod_id}:open")
            case _:
                want(revpro, pod_id, "running")
    asked = revpro.get(f"/api/v1/pods/{pod_id}").json()

    assert (asked["generation"], asked["failure"], asked["desired"]) == (2, None, "running")


def test_nodes_are_shown(node: NodeHand, api: ApiServer) -> None:
    """A node that was just heard from is alive, with what it has."""
    with api.client("read") as reader:
        shown = {one["node_id"]: one for one in reader.get("/api/v1/nodes").json()["nodes"]}[node.node_id]

    assert (
        shown["alive"], shown["cpu_millis"], shown["memory_mib"], shown["cordoned"]
    ) == (True, 4000, 8192, False)  # fmt: skip


def test_every_answer_has_a_request_id(api: ApiServer) -> None:
    """Good or bad, an answer can be found in the log."""
    with api.client(None) as client:
        ids = [client.get(path).headers["x-request-id"] for path in ("/healthz", "/nothing", "/api/v1/pods")]

    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)
    assert len(set(ids)) == 3
