"""What the API refuses, with which code, and that every refusal says what to do."""

import json
from typing import Any

import pytest

from tests.support.api_server import ApiServer

POD = "p-aaaaaaaaaaaa"
JSON = {"Content-Type": "application/json"}


def body(**fields: Any) -> bytes:
    """A body that creates a pod, with some fields put in."""
    return json.dumps({"user": "alice", **fields}).encode()


CREATE = ("POST", "/api/v1/pods")
DESIRE = ("PUT", f"/api/v1/pods/{POD}/desired-state")
TOKEN = ("POST", "/api/v1/tokens")
CORDON = ("PUT", "/api/v1/nodes/node-1/cordoned")

BODIES = [
    (*CREATE, b"", "malformed_json"),
    (*CREATE, b"{", "malformed_json"),
    (*CREATE, b'{"user": "alice"} {}', "malformed_json"),
    (*CREATE, b'{"user": "\xff"}', "malformed_json"),
    (*CREATE, b'{"user": "\\ud800"}', "malformed_json"),
    (*CREATE, b'{"user": "alice", "cpu_millis": NaN}', "invalid_field"),
    (*CREATE, b"[" * 30_000, "malformed_json"),
    (*CREATE, b"[]", "invalid_field"),
    (*CREATE, b"null", "invalid_field"),
    (*CREATE, b'"alice"', "invalid_field"),
    (*CREATE, b"{}", "invalid_field"),
    (*CREATE, body(user=None), "invalid_field"),
    (*CREATE, body(user=7), "invalid_field"),
    (*CREATE, body(user=["alice"]), "invalid_field"),
    (*CREATE, body(user=""), "invalid_field"),
    (*CREATE, body(user="../../etc"), "invalid_field"),
    (*CREATE, body(user="a/b"), "invalid_field"),
    (*CREATE, body(user="älice"), "invalid_field"),
    (*CREATE, body(user="alice\n"), "invalid_field"),
    (*CREATE, body(user="alice\x00"), "invalid_field"),
    (*CREATE, body(user="a" * 10_240), "invalid_field"),
    (*CREATE, body(user="a" * 70_000), "body_too_large"),
    (*TOKEN, b'{"name": "revpro", "scope": "root"}', "invalid_field"),
    (*TOKEN, b'{"name": "two words", "scope": "read"}', "invalid_field"),
    (*TOKEN, b'{"name": "revpro"}', "invalid_field"),
    (*CORDON, b'{"cordoned": "yes"}', "invalid_field"),
    (*CREATE, body(name="Hello"), "invalid_field"),
    (*CREATE, body(name="-"), "invalid_field"),
    (*CREATE, body(name="a" * 41), "invalid_field"),
    (*CREATE, body(lab="../hello"), "invalid_field"),
    (*CREATE, body(image="--privileged"), "invalid_field"),
    (*CREATE, body(image="a/../b"), "invalid_field"),
    (*CREATE, body(cpu_millis=99), "invalid_field"),
    (*CREATE, body(cpu_millis=64_001), "invalid_field"),
    (*CREATE, body(cpu_millis="1000"), "invalid_field"),
    (*CREATE, body(cpu_millis=True), "invalid_field"),
    (*CREATE, body(cpu_millis=1e99), "invalid_field"),
    (*CREATE, body(memory_mib=255), "invalid_field"),
    (*CREATE, body(pids=10**30), "invalid_field"),
    (*CREATE, body(desired="deleted"), "invalid_field"),
    (*CREATE, body(desired="paused"), "invalid_field"),
    (*CREATE, body(node="node-1"), "unknown_field"),
    (*CREATE, body(User="bob"), "unknown_field"),
    (*DESIRE, b"{}", "invalid_field"),
    (*DESIRE, b'{"state": "unknown"}', "invalid_field"),
    (*DESIRE, b'{"state": null}', "invalid_field"),
    (*DESIRE, b'{"state": "running", "reason": "a\\nb"}', "invalid_field"),
    (*DESIRE, b'{"state": "running", "if_generation": 0}', "invalid_field"),
    (*DESIRE, b'{"state": "running", "if_generation": 99999999999999999999}', "invalid_field"),
    (*DESIRE, b'{"state": "running", "force": true}', "unknown_field"),
    (*DESIRE, b'{"state": "running"}', "pod_not_found"),
]

PATHS = [
    ("GET", "/api/v1/pods?limit=0", "invalid_field"),
    ("GET", "/api/v1/pods?limit=501", "invalid_field"),
    ("GET", "/api/v1/pods?limit=1_0", "invalid_field"),
    ("GET", "/api/v1/pods?limit=", "invalid_field"),
    ("GET", "/api/v1/pods?limit=%EF%BC%95", "invalid_field"),
    ("GET", "/api/v1/pods?user=a%00b", "invalid_field"),
    ("GET", "/api/v1/pods?user=a&user=b", "invalid_field"),
    ("GET", "/api/v1/pods?usr=alice", "unknown_field"),
    ("GET", "/api/v1/pods?after=p-", "invalid_field"),
    ("GET", f"/api/v1/pods/{POD}?wait_for=unknown", "invalid_field"),
    ("GET", f"/api/v1/pods/{POD}?timeout_s=26", "invalid_field"),
    ("GET", f"/api/v1/pods/{POD}?timeout_s=nan", "invalid_field"),
    ("GET", f"/api/v1/pods/{POD}?timeout_s=-1", "invalid_field"),
    ("GET", f"/api/v1/pods/{POD}", "pod_not_found"),
    ("GET", "/api/v1/pods/..%2f..%2fetc", "not_found"),
    ("GET", "/api/v1/pods/%00", "pod_not_found"),
    ("GET", "/api/v1/pods/' OR 1=1 --", "pod_not_found"),
    ("GET", f"/api/v1/pods/{'p' * 4000}", "pod_not_found"),
    ("DELETE", f"/api/v1/pods/{POD}", "pod_not_found"),
    ("POST", f"/api/v1/pods/{POD}:open", "pod_not_found"),
    ("POST", f"/api/v1/pods/{POD}:polish", "not_found"),
    ("GET", f"/api/v1/pods/{POD}/explain", "pod_not_found"),
    ("GET", f"/api/v1/pods/{POD}/events", "pod_not_found"),
    ("GET", f"/api/v1/pods/{POD}/events?after=-1", "invalid_field"),
    ("GET", "/api/v1/events?after=9223372036854775808", "invalid_field"),
    ("GET", "/api/v1/events?node=NODE", "invalid_field"),
    ("GET", "/", "not_found"),
    ("GET", "/api/v1/pods/", "not_found"),
    ("GET", "/api/v2/pods", "not_found"),
    ("PATCH", "/api/v1/pods", "method_not_allowed"),
    ("DELETE", "/api/v1/pods", "method_not_allowed"),
    ("GET", f"/api/v1/pods/{POD}:open", "method_not_allowed"),
    ("POST", "/api/v1/healthz", "method_not_allowed"),
]


def check_problem(response: Any, code: str) -> dict[str, Any]:
    """The answer is a whole problem with this code."""
    problem: dict[str, Any] = response.json()

    assert problem["code"] == code, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["type"] == f"urn:codepods:problem:{code}"
    assert problem["instance"] == f"urn:codepods:request:{response.headers['x-request-id']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    return problem


@pytest.mark.parametrize(("method", "path", "sent", "code"), BODIES)
def test_bad_bodies_are_refused(api: ApiServer, method: str, path: str, sent: bytes, code: str) -> None:
    """A body that is not what the operation takes is refused with the code that says how."""
    with api.client("admin") as client:
        response = client.request(method, path, content=sent, headers=JSON)

    check_problem(response, code)


@pytest.mark.parametrize(("method", "path", "code"), PATHS)
def test_bad_paths_and_queries_are_refused(api: ApiServer, method: str, path: str, code: str) -> None:
    """A path or query that means nothing is refused with the code that says how."""
    with api.client() as client:
        response = client.request(method, path)

    check_problem(response, code)


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"]
)
def test_bodies_must_be_declared_as_json(api: ApiServer, media_type: str | None) -> None:
    """What is not declared as JSON is not read as JSON: forms from a browser cannot reach the API."""
    headers = {"Content-Type": media_type} if media_type else {}
    with api.client("revpro") as client:
        response = client.post("/api/v1/pods", content=body(), headers=headers)

    check_problem(response, "media_type_refused")


def test_every_wrong_field_is_named(api: ApiServer) -> None:
    """`errors` lists each wrong field, so that all can be corrected at once."""
    with api.client("revpro") as client:
        response = client.post("/api/v1/pods", json={"user": "/", "name": "A", "pids": 1})
        unknown = client.post("/api/v1/pods", json={"user": "alice", "colour": "red", "size": 1})

    assert {"user", "name", "pids"} == {
        e["field"] for e in check_problem(response, "invalid_field")["errors"]
    }
    assert {"colour", "size"} == {e["field"] for e in check_problem(unknown, "unknown_field")["errors"]}


def test_endless_bodies_are_cut(api: ApiServer) -> None:
    """A body without a declared length is refused as soon as it is too large."""
    chunks = (b" " * 1024 for _ in range(1024))
    with api.client("revpro") as client:
        response = client.post("/api/v1/pods", content=chunks, headers=JSON)

    check_problem(response, "body_too_large")


def test_methods_that_are_allowed_are_named(api: ApiServer) -> None:
    """A 405 names the methods of the path, all of them."""
    with api.client() as client:
        response = client.request("PATCH", f"/api/v1/pods/{POD}")

    assert {"GET", "HEAD", "DELETE"} == set(response.headers["allow"].split(", "))


def test_refused_input_is_not_repeated_at_length(api: ApiServer) -> None:
    """Answers do not grow with what was sent."""
    with api.client("revpro") as client:
        response = client.post("/api/v1/pods", json={"user": "alice"} | {f"f{i}": i for i in range(4000)})

    check_problem(response, "unknown_field")
    assert len(response.content) < 8192
