"""The OpenAPI document is true: schemathesis sends what it allows and forbids, and checks the answers."""

from importlib.metadata import version

import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator

from api.openapi import document
from api.operations import OPERATIONS
from tests.support.api_server import ApiServer

EXAMPLES_PER_OPERATION = 25


schema = schemathesis.openapi.from_dict(document(OPERATIONS, version("codepods")))


@schemathesis.serializer("application/x-tar")
def _as_they_are(_context: object, value: object) -> bytes:
    """A body that is a stream of bytes is sent as it was drawn."""
    return value if isinstance(value, bytes) else str(value).encode()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_every_answer_is_as_described(case: schemathesis.Case, api: ApiServer) -> None:
    """Status, media type, headers and body of every answer are in the document, whatever is sent."""
    case.call_and_validate(base_url=api.url, headers={"Authorization": f"Bearer {api.tokens['admin']}"})


def test_the_document_is_served_and_has_every_operation(api: ApiServer) -> None:
    """What is served is what was checked above, and has what is registered: both come from one table."""
    with api.client(None) as client:
        served = client.get("/api/v1/openapi.json").json()
    described = {(path, method.upper()) for path, methods in served["paths"].items() for method in methods}

    assert served == document(OPERATIONS, version("codepods"))
    assert described == {(operation.path, operation.method) for operation in OPERATIONS}
    assert served["openapi"] == "3.1.0"
    for model in served["components"]["schemas"].values():
        Draft202012Validator.check_schema(model)
