"""What a visitor's start page may ask of the API, and that only a visit wakes a pod, once."""

import time
from dataclasses import replace
from itertools import count

import httpx
import pytest

from api.access_token import AccessClaims, Keyring, Use, open_token, seal
from state.model import Observed
from tests.integration.test_api_pods import create, want
from tests.support.api_server import ApiServer
from tests.support.node_hand import SECRET, NodeHand

_USERS = count(1)


def _claims(pod_id: str) -> AccessClaims:
    return AccessClaims(
        pod=pod_id,
        user="alice",
        epoch=1,
        upstream="127.0.0.1:20999",
        secret="0" * 64,
        expires_at=int(time.time()) + 60,
        session_id="session-of-old",
    )


def _visitor(api: ApiServer, pod_id: str, use: Use = "visit", **changes: object) -> httpx.Client:
    """The start page of this pod, as nginx equips it."""
    claims = replace(_claims(pod_id), **changes)  # type: ignore[arg-type]
    token = seal(claims, Keyring.load(api.settings.keyring), use)
    return httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)


@pytest.fixture
def pod_id(api: ApiServer, node: NodeHand) -> str:
    """A placed pod that was put to rest."""
    with api.client("revpro") as client:
        made: str = create(client, f"visitor-{next(_USERS)}")["pod_id"]
        node.place(made)
        node.report(made, Observed.STOPPED)
        want(client, made, "stopped")
    return made


def _wishes(api: ApiServer, pod_id: str) -> list[tuple[str, str, str]]:
    """Who wanted what, and why."""
    with api.client() as client:
        events = client.get(f"/api/v1/pods/{pod_id}/events").json()["events"]
    return [(e["actor"], e["to_value"], e["reason"]) for e in events if e["kind"] == "desired"]


def test_looking_wakes_nothing_however_often(api: ApiServer, pod_id: str) -> None:
    """A thousand looks at a sleeping pod: the same answer, and not one wish more than before."""
    before = _wishes(api, pod_id)

    with _visitor(api, pod_id) as page:
        seen = [page.get(f"/api/v1/pods/{pod_id}:visit").json() for _ in range(1000)]

    assert {visit["stage"] for visit in seen} == {"asleep"}
    assert _wishes(api, pod_id) == before


def test_a_visit_wakes_a_pod_once(api: ApiServer, pod_id: str) -> None:
    """However many pages ask: one wish, with whose visit it was."""
    before = _wishes(api, pod_id)

    with _visitor(api, pod_id) as page:
        answers = [page.post(f"/api/v1/pods/{pod_id}:wake").json() for _ in range(5)]

    assert {visit["stage"] for visit in answers} == {"coming"}
    assert _wishes(api, pod_id)[len(before) :] == [("visit:alice", "running", "visited")]


def test_the_way_in_goes_on_with_the_session(api: ApiServer, node: NodeHand, pod_id: str) -> None:
    """Once it runs: a token to where the pod is now, for nginx, under the session that the browser has."""
    with _visitor(api, pod_id) as page:
        early = page.get(f"/api/v1/pods/{pod_id}:enter")
        node.report(pod_id, Observed.RUNNING)
        ready = page.get(f"/api/v1/pods/{pod_id}:visit").json()
        answer = page.get(f"/api/v1/pods/{pod_id}:enter", params={"to": "proxy/5173/x?a=1"})

    keyring = Keyring.load(api.settings.keyring)
    claims = open_token(answer.headers["Codepods-Token"], keyring, "url", pod_id, int(time.time()))
    assert (early.status_code, early.json()["code"]) == (503, "pod_not_running")
    assert (ready["stage"], answer.status_code) == ("ready", 303)
    assert answer.headers["Location"] == answer.json()["url"] == "../proxy/5173/x?a=1"
    assert (claims.session_id, claims.secret) == ("session-of-old", SECRET)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("to", ["//evil.example/", "/x", "a\\b", "a#b", "a b", "ä", "a\r\nSet-Cookie: x=1"])
def test_the_way_in_leads_nowhere_else(api: ApiServer, pod_id: str, to: str) -> None:
    """What could name another host or end a header is refused."""
    with _visitor(api, pod_id) as page:
        answer = page.get(f"/api/v1/pods/{pod_id}:enter", params={"to": to})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


@pytest.mark.parametrize("call", ["GET visit", "POST wake", "GET enter"])
def test_only_the_token_of_a_visit_to_this_pod_is_taken(api: ApiServer, pod_id: str, call: str) -> None:
    """A link's or a cookie's token, another pod's, an old one, an API token, none: 401, and no wish."""
    method, name = call.split()
    before = _wishes(api, pod_id)
    wrong = [
        _visitor(api, pod_id, use="url"),
        _visitor(api, pod_id, use="cookie"),
        _visitor(api, "p-aaaaaaaaaaaa"),
        _visitor(api, pod_id, expires_at=int(time.time())),
        api.client("admin"),
        api.client(None),
    ]

    for client in wrong:
        with client:
            assert client.request(method, f"/api/v1/pods/{pod_id}:{name}").status_code == 401
    assert _wishes(api, pod_id) == before


def test_a_visit_opens_nothing_else(api: ApiServer, pod_id: str) -> None:
    """The page's token is no API token."""
    with _visitor(api, pod_id) as page:
        assert page.get(f"/api/v1/pods/{pod_id}").status_code == 401
        assert page.post(f"/api/v1/pods/{pod_id}:open").status_code == 401


@pytest.mark.parametrize("condition", ["waiting_for_capacity", "waiting_for_turn"])
def test_who_waits_is_told_of_those_before(
    api: ApiServer, node: NodeHand, pod_id: str, condition: str
) -> None:
    """In words on the page, and as a number; never in a page that waits for nothing."""
    with _visitor(api, pod_id) as page:
        woken = page.post(f"/api/v1/pods/{pod_id}:wake").json()
        with node.db.transaction() as conn:
            conn.execute("UPDATE pod SET condition = %s WHERE id = %s", (condition, pod_id))
        waits = page.get(f"/api/v1/pods/{pod_id}:visit").json()

    assert (woken["stage"], woken["ahead"]) == ("coming", None)
    assert (waits["stage"], waits["ahead"]) == ("coming", 0)
    assert waits["detail"].endswith("It has waited longest.")


def test_a_deleted_pod_is_said_to_be_gone_and_not_woken(api: ApiServer, pod_id: str) -> None:
    """A tombstone stays."""
    with api.client("revpro") as client:
        client.delete(f"/api/v1/pods/{pod_id}")

    with _visitor(api, pod_id) as page:
        woken = page.post(f"/api/v1/pods/{pod_id}:wake", params={"again": "true"})

    assert (woken.status_code, woken.json()["stage"]) == (200, "gone")
    assert _wishes(api, pod_id)[-1][1] == "deleted"


def test_a_failure_is_told_and_tried_again_by_hand_only(api: ApiServer, node: NodeHand, pod_id: str) -> None:
    """A pod that cannot start says so to whoever waits; the button asks anew, the page by itself does not."""
    with _visitor(api, pod_id) as page:
        page.post(f"/api/v1/pods/{pod_id}:wake")
        node.fail(pod_id, permanent=True)
        stuck = page.post(f"/api/v1/pods/{pod_id}:wake").json()
        again = page.post(f"/api/v1/pods/{pod_id}:wake", params={"again": "true"}).json()

    assert (stuck["stage"], "no_such_image" in stuck["detail"]) == ("stuck", True)
    assert again["stage"] == "coming"
