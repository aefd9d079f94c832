"""Who may do what: each scope against each operation, and nothing without a token."""

import pytest

from api.operation import AnyOperation
from api.operations import OPERATIONS
from state import tokens
from tests.support.api_server import SCOPES, ApiServer

POD = "p-aaaaaaaaaaaa"
WITH_TOKEN = [operation for operation in OPERATIONS if operation.scopes]
REVPRO = {"create_pod", "list_pods", "get_pod", "delete_pod", "set_desired_state", "open_pod"} | {
    "list_ports",
    "set_port",
    "list_pod_events",
    "explain_pod",
    "extend_pod",
    "list_archives",
    "restore_pod_at",
    "recover_pod",
    "download_pod",
    "import_files",
}
READ = {"list_pods", "get_pod", "list_pod_events", "explain_pod", "list_events", "list_nodes"} | {
    "list_archives",
    "list_alarms",
}
MAY = {"revpro": REVPRO, "read": READ, "admin": {operation.name for operation in WITH_TOKEN}}


def path_of(operation: AnyOperation) -> str:
    """The operation's path, for what is not there."""
    return operation.path.format(port=5173, pod_id=POD, node_id="node-none", token_id="t-aaaaaaaaaaaa")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operation", WITH_TOKEN, ids=lambda operation: operation.name)
def test_each_scope_may_do_its_own(api: ApiServer, scope: str, operation: AnyOperation) -> None:
    """`revpro` handles pods, `read` looks, `admin` may do everything; the rest is 403."""
    with api.client(scope) as client:
        response = client.request(operation.method, path_of(operation))

    assert (operation.name in MAY[scope]) == (response.status_code != 403)
    if response.status_code == 403:
        assert response.json()["code"] == "scope_refused"


@pytest.mark.parametrize("operation", WITH_TOKEN, ids=lambda operation: operation.name)
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token_missing"),
        ("", "token_missing"),
        ("Bearer", "token_missing"),
        ("Basic YWRtaW46YWRtaW4=", "token_missing"),
        ("Bearer nonsense", "token_refused"),
        ("Bearer cpt_" + "A" * 43, "token_refused"),
        ("Bearer " + "A" * 5000, "token_refused"),
        ("Bearer caf\xe9", "token_refused"),
    ],
)
def test_nothing_works_without_a_token(
    api: ApiServer, operation: AnyOperation, header: str | None, code: str
) -> None:
    """Without a valid bearer token there is nothing but 401, whatever else is wrong with the request."""
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with api.client(None) as client:
        response = client.request(operation.method, path_of(operation), headers=headers)

    assert (401, code) == (response.status_code, response.json()["code"])
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/api/v1/healthz", "/api/v1/readyz", "/api/v1/openapi.json"]
)
def test_health_and_the_document_need_no_token(api: ApiServer, path: str) -> None:
    """Whoever watches the program, or reads what it offers, needs no token."""
    with api.client(None) as client:
        assert client.get(path).status_code == 200


def test_a_revoked_token_is_refused_at_once(api: ApiServer) -> None:
    """Revoking works on the next request: nothing is cached."""
    token, plaintext = tokens.create_token(api.db, "leaver", "admin")
    headers = {"Authorization": f"Bearer {plaintext}"}
    with api.client(None) as client:
        before = client.get("/api/v1/nodes", headers=headers).status_code
        tokens.revoke(api.db, token.id)
        after = client.get("/api/v1/nodes", headers=headers)

    assert before == 200
    assert (after.status_code, after.json()["code"]) == (401, "token_refused")
