"""From an HTTP request to a handler's call and back: token, scope, query, body, answer."""

import asyncio
import time
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import QueryParams
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from api.access_token import PORT_MAX, AccessClaims, TokenRefusedError, key_of, open_token
from api.deps import Deps
from api.links import load_keyring
from api.operation import PATH_IDS, AnyOperation, Call, Stream
from api.problems import ProblemError
from api.wire import BODY_BYTES_MAX, FieldProblem
from state import revocations, tokens
from state.revoked import Visit

BODY_TIMEOUT_S = 10.0
FIELD_PROBLEMS_MAX = 20
# 'cpt_' and 43 characters; anything much longer is no token of ours and is not looked up.
TOKEN_CHARS_MAX = 128
_IDS = {name: TypeAdapter[str](path_id.kind) for name, path_id in PATH_IDS.items()}

M = TypeVar("M", bound=BaseModel)


async def answer(operation: AnyOperation, deps: Deps, request: HttpRequest) -> Response:
    """Carry out one request. Raises `ProblemError` for whatever is refused."""
    actor = await _authorize(operation, deps, request)
    target_id = _target_id(operation.id_name, request) if operation.id_name else ""
    visit = await _visit(deps, target_id, request) if operation.visitors else None
    call = Call(
        deps=deps,
        actor=f"visit:{visit.user}" if visit else actor,
        target_id=target_id,
        query=_read_query(operation.query, request.query_params),
        body=await _read_body(operation.body, request) if operation.takes_body else None,
        visit=visit,
        port=_port(request) if operation.names_port else 0,
        incoming=request.stream() if operation.takes_stream else None,
    )
    given = await operation.handler(call)
    if isinstance(given, Stream):
        return StreamingResponse(given.chunks, headers=dict(given.headers), media_type=given.media_type)
    return Response(
        given.body.model_dump_json(), given.status, dict(given.headers), media_type="application/json"
    )


async def _authorize(operation: AnyOperation, deps: Deps, request: HttpRequest) -> str:
    """The name of whoever asks, when they may."""
    if not operation.scopes:
        return "anybody"
    bearer = _bearer(request)
    # Before the database is asked: what is refused must cost nothing there.
    wait_s = deps.pace.wait_s(bearer, time.monotonic())
    if wait_s > 0:
        detail = f"It may ask {deps.settings.requests_per_s_max} times a second."
        raise ProblemError("too_many_requests", detail)
    token = await deps.run(tokens.authenticate, deps.db, bearer)
    if token is None:
        raise _refused("token_refused", "The token is unknown here, or was revoked.")
    request.state.actor = actor = f"api:{token.name}"
    if token.scope not in operation.scopes:
        allowed = " or ".join(sorted(operation.scopes))
        raise ProblemError("scope_refused", f"The token's scope is {token.scope}; this needs {allowed}.")
    return actor


async def _visit(deps: Deps, pod_id: str, request: HttpRequest) -> AccessClaims:
    """What the visitor was admitted with: sealed by nginx for this pod, and not too old."""
    token = _credentials(request)
    keyring = await deps.run(load_keyring, deps.settings)
    try:
        visit = open_token(token, keyring, "visit", pod_id, int(time.time()))
    except TokenRefusedError as error:
        raise _refused("token_refused", "The page was opened too long ago, or not for this pod.") from error
    revoked = await deps.run(revocations.revoked, deps.db)
    if revoked.stops(Visit(key_of(token), visit.pod, visit.session_id, visit.user, visit.issued_at)):
        raise _refused("token_refused", "The session was revoked.")
    request.state.actor = f"visit:{visit.user}"
    return visit


def _target_id(name: str, request: HttpRequest) -> str:
    try:
        return _IDS[name].validate_python(request.path_params[name])
    except ValidationError as error:
        detail = f"What the path names does not have the shape of a {name.removesuffix('_id')}'s id."
        raise ProblemError(PATH_IDS[name].not_found, detail) from error


def _port(request: HttpRequest) -> int:
    text = request.path_params["port"]
    if not (text.isascii() and text.isdecimal() and text[0] != "0" and int(text[:6]) <= PORT_MAX):
        raise _field_problems([FieldProblem(field="port", problem=f"must be 1 to {PORT_MAX}")])
    return int(text)


def _credentials(request: HttpRequest) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise _refused("token_missing", "The request has no `Authorization: Bearer …` header.")
    return credentials.strip()


def _bearer(request: HttpRequest) -> str:
    token = _credentials(request)
    if len(token) > TOKEN_CHARS_MAX or not token.isascii():
        raise _refused("token_refused", "What was sent does not have the shape of a token.")
    return token


def _refused(code: str, detail: str) -> ProblemError:
    return ProblemError(code, detail, headers={"WWW-Authenticate": "Bearer"})


def _read_query(model: type[M], params: QueryParams) -> M:
    names = [name for name, _ in params.multi_items()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise _field_problems([FieldProblem(field=name, problem="given more than once") for name in repeated])
    return _validated(model, dict(params))


def _validated(model: type[M], raw: dict[str, str] | bytes) -> M:
    try:
        return model.model_validate_json(raw) if isinstance(raw, bytes) else model.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise _as_problem(details) from error


def _as_problem(details: list[ErrorDetails]) -> ProblemError:
    if details[0]["type"] == "json_invalid":
        return ProblemError("malformed_json", f"{details[0]['msg']}.")
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
    problems = [_field_problem(detail) for detail in unknown or details]
    return _field_problems(problems, "unknown_field" if unknown else "invalid_field")


def _field_problem(detail: ErrorDetails) -> FieldProblem:
    place = ".".join(str(part) for part in detail["loc"]) or "(body)"
    return FieldProblem(field=place[:100], problem=detail["msg"])


def _field_problems(problems: list[FieldProblem], code: str = "invalid_field") -> ProblemError:
    told = problems[:FIELD_PROBLEMS_MAX]
    detail = "; ".join(f"{problem.field}: {problem.problem}" for problem in told)
    return ProblemError(code, f"{detail}.", errors=tuple(told))


async def _read_body(model: type[Any], request: HttpRequest) -> Any:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError("media_type_refused", f"The body is declared as {media_type[:100] or 'nothing'}.")
    try:
        return _validated(model, await asyncio.wait_for(_bounded_body(request), BODY_TIMEOUT_S))
    except TimeoutError as error:
        raise ProblemError("body_too_slow", f"It was not whole after {BODY_TIMEOUT_S:g} s.") from error


async def _bounded_body(request: HttpRequest) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise ProblemError("body_too_large", f"It is larger than {BODY_BYTES_MAX} bytes.")
    return bytes(body)
