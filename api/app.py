"""The ASGI application: routes from the table of operations, errors as problems, one log line a request."""

import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api import problems
from api.deps import Deps
from api.describing import PREFIX
from api.endpoint import answer
from api.openapi import document
from api.operation import AnyOperation
from api.operations import OPERATIONS
from api.problems import ProblemError
from api.waiting import Bell, BellThread

# The two paths that load balancers ask by habit.
HEALTH_ALIASES = {f"{PREFIX}/healthz": "/healthz", f"{PREFIX}/readyz": "/readyz"}
WATCHED_PATHS = frozenset({*HEALTH_ALIASES.keys(), *HEALTH_ALIASES.values()})
CLIENT_CLOSED_REQUEST = 499  # nginx's number for it; only ever seen in the log

log = structlog.get_logger()

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class _Segment(StringConvertor):
    """A path segment up to a colon, so that `/pods/{id}:open` is another path than `/pods/{id}`."""

    regex = "[^/:]+"


register_url_convertor("segment", _Segment())


def create_app(deps: Deps, make_bell: Callable[[], Bell]) -> Starlette:
    """The application. `make_bell` gives the doorbell of `state.database`; it is closed at the end."""
    app = Starlette(
        routes=[*_routes(deps), Route(f"{PREFIX}/openapi.json", _guarded(_openapi()))],
        exception_handlers={HTTPException: _routing_problem},
        lifespan=_lifespan(deps, make_bell),
    )
    app.router.redirect_slashes = False
    return app


def _lifespan(
    deps: Deps, make_bell: Callable[[], Bell]
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        bell = BellThread(make_bell(), deps.waiters)
        bell.start()
        try:
            yield
        finally:
            deps.waiters.close()
            bell.stop()

    return lifespan


def _routes(deps: Deps) -> list[Route]:
    by_path: dict[str, dict[str, AnyOperation]] = defaultdict(dict)
    for operation in OPERATIONS:
        by_path[operation.path][operation.method] = operation
        if operation.path in HEALTH_ALIASES:
            by_path[HEALTH_ALIASES[operation.path]][operation.method] = operation
    return [_route(path, methods, deps) for path, methods in by_path.items()]


def _route(path: str, methods: Mapping[str, AnyOperation], deps: Deps) -> Route:
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await answer(methods[method], deps, request)

    return Route(path.replace("_id}", "_id:segment}"), _guarded(endpoint), methods=list(methods))


def _openapi() -> Endpoint:
    described = document(OPERATIONS, version("codepods"))

    async def openapi(_request: Request) -> Response:
        return JSONResponse(described)

    return openapi


def _guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint with a request id, a log line, and every failure as a problem."""

    async def guarded(request: Request) -> Response:
        request_id, started = uuid.uuid4().hex, time.monotonic()
        try:
            response = await endpoint(request)
        except ProblemError as error:
            response = _problem(error, request_id)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception:  # the outermost edge: told to the log whole, to the caller by id
            log.exception("request failed", request_id=request_id, path=request.url.path)
            response = _problem(
                ProblemError("internal_error", "The request could not be carried out."), request_id
            )
        response.headers["X-Request-Id"] = request_id
        _log(request, response, request_id, started)
        return response

    return guarded


def _log(request: Request, response: Response, request_id: str, started: float) -> None:
    # Who watches asks every few seconds: only bad news is worth a line.
    watched = request.url.path in WATCHED_PATHS and response.status_code < HTTPStatus.BAD_REQUEST
    (log.debug if watched else log.info)(
        "request",
        request_id=request_id,
        method=request.method,
        path=request.url.path[:200],
        status=response.status_code,
        code=response.headers.get("X-Problem-Code"),
        actor=getattr(request.state, "actor", None),
        ms=round((time.monotonic() - started) * 1000, 1),
    )


async def _routing_problem(_request: Request, error: Exception) -> Response:
    """Starlette's own refusals, 404 and 405."""
    assert isinstance(error, HTTPException)
    request_id = uuid.uuid4().hex
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "internal_error")
    allowed = dict(error.headers or {})
    detail = f"It takes {allowed['Allow']}." if "Allow" in allowed else "No operation has this path."
    return _problem(ProblemError(code, detail, headers=allowed), request_id)


def _problem(error: ProblemError, request_id: str) -> Response:
    shown = problems.body(error, f"urn:codepods:request:{request_id}")
    headers = {**problems.headers(error), "X-Problem-Code": error.code, "X-Request-Id": request_id}
    return Response(
        shown.model_dump_json(exclude_none=True), shown.status, headers, media_type=problems.MEDIA_TYPE
    )
