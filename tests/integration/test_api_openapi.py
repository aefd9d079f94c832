"""The OpenAPI document is true: schemathesis sends what it allows and forbids, and checks the answers."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from schemathesis.openapi.checks import UnsupportedMethodResponse  # noqa: F401 - the check is on

from api.operations import OPERATIONS
from tests.support.api_server import ApiServer

EXAMPLES_PER_OPERATION = 25


@pytest.fixture
def api_schema(api: ApiServer) -> schemathesis.BaseSchema:
    """The document as it is served."""
    return schemathesis.openapi.from_url(f"{api.url}/api/v1/openapi.json")


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_every_answer_is_as_described(case: schemathesis.Case, api: ApiServer) -> None:
    """Status, media type, headers and body of every answer are in the document, whatever is sent."""
    case.call_and_validate(headers={"Authorization": f"Bearer {api.tokens['admin']}"})


def test_the_document_has_every_operation(api: ApiServer) -> None:
    """What is served is what is described: both come from one table."""
    with api.client(None) as client:
        document = client.get("/api/v1/openapi.json").json()
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}

    assert {(operation.path, operation.method) for operation in OPERATIONS} == described
    assert document["openapi"] == "3.1.0"
    for model in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(model)
