"""The OpenAPI 3.1 document, made from the table of operations and the wire's models. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from api.access_token import PORT_MAX
from api.operation import PATH_IDS, AnyOperation
from api.problems import KINDS, MEDIA_TYPE
from api.wire import Problem, Query

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_ABOUT = (
    "Browser IDEs that can be put away and brought back. Errors are RFC 9457 problems with a stable `code`;"
    " each operation lists its own. Replies may grow new fields: ignore those you do not know."
)


def document(operations: Sequence[AnyOperation], version: str) -> Json:
    """The whole document, as JSON values."""
    schemas = _schemas(operations)
    paths: dict[str, Json] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _operation(operation, schemas)
    shown = {name: schema for name, schema in schemas.items() if name not in _query_names(operations)}
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "description": "A token with the scope the operation names.",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "codepods", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {"schemas": shown, "securitySchemes": {"bearer": bearer}},
    }


def _query_names(operations: Iterable[AnyOperation]) -> set[str]:
    return {operation.query.__name__ for operation in operations}


def _schemas(operations: Iterable[AnyOperation]) -> Json:
    taken: set[type[BaseModel]] = set()
    given: set[type[BaseModel]] = {Problem}
    for operation in operations:
        taken.add(operation.query)
        given.update(operation.replies.values())
        if operation.takes_body:
            taken.add(operation.body)
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        *((model, "validation") for model in sorted(taken, key=_name)),
        *((model, "serialization") for model in sorted(given, key=_name)),
    ]
    schemas: Json = models_json_schema(modes, ref_template=_REF)[1]["$defs"]
    return schemas


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(operation: AnyOperation, schemas: Json) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _who_may(operation),
        "security": [{"bearer": []}] if operation.scopes or operation.visitors else [],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation.query, schemas)],
        "responses": {**_replies(operation), **_problems(operation)},
    }
    if operation.takes_body:
        described["requestBody"] = {"required": True, "content": {"application/json": _ref(operation.body)}}
    if operation.takes_stream:
        described["requestBody"] = {"required": True, "content": {operation.takes_stream: {}}}
    return described


def _who_may(operation: AnyOperation) -> str:
    if operation.visitors:
        return "For the start page, with the token that it was given: good for this pod only."
    scopes = ", ".join(f"`{scope}`" for scope in sorted(operation.scopes))
    return f"Scopes: {scopes}." if scopes else "No token needed."


def _path_parameters(operation: AnyOperation) -> list[Json]:
    name = operation.id_name
    if name is None:
        return []
    schema = TypeAdapter(PATH_IDS[name].kind).json_schema()
    port = {"type": "integer", "minimum": 1, "maximum": PORT_MAX}
    named = {name: schema, **({"port": port} if operation.names_port else {})}
    return [{"name": key, "in": "path", "required": True, "schema": kind} for key, kind in named.items()]


def _query_parameters(query: type[Query], schemas: Json) -> list[Json]:
    model = schemas[query.__name__]
    required = model.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(schema)}
        for name, schema in model.get("properties", {}).items()
    ]


def _without_null(schema: Json) -> Json:
    """A query cannot say null: leaving the parameter out is how to give none."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
    if kept.get("default", ...) is None:
        del kept["default"]
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return {**choices[0], **kept} if len(choices) == 1 else kept


def _replies(operation: AnyOperation) -> Json:
    return {
        str(status): {
            "description": (model.__doc__ or "").strip(),
            "content": {"application/json": _ref(model)},
        }
        for status, model in operation.replies.items()
    } | _streams(operation)


def _streams(operation: AnyOperation) -> Json:
    if not operation.streams:
        return {}
    # The content is described by its media type alone.
    content: Json = {media_type: {} for media_type in operation.streams}
    return {
        "200": {
            "description": "The bytes, as they come. Cut short, they are not the whole.",
            "content": content,
        }
    }


def _problems(operation: AnyOperation) -> Json:
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in operation.codes:
        by_status[KINDS[code].status].append(code)
    return {
        str(status): {
            "description": "Problem: " + ", ".join(f"`{code}`" for code in codes),
            "content": {MEDIA_TYPE: _ref(Problem)},
        }
        for status, codes in sorted(by_status.items())
    }


def _ref(model: type[BaseModel]) -> Json:
    return {"schema": {"$ref": _REF.format(model=model.__name__)}}
