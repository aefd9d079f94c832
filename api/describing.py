"""How an operation is written down: paths, who may call, and the shorthand that the tables are made with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from api.operation import Answer, AnyOperation, Call, Method, Operation, Stream
from api.wire import Query, Reply, Request, Scope

Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=Request | None)

PREFIX = "/api/v1"
POD = f"{PREFIX}/pods/{{pod_id}}"

ANYBODY: frozenset[Scope] = frozenset()
LOOK = frozenset({Scope.READ, Scope.ADMIN})
LOOK_AT_PODS = LOOK | {Scope.REVPRO}
HANDLE_PODS = frozenset({Scope.REVPRO, Scope.ADMIN})
ADMINISTER = frozenset({Scope.ADMIN})


def operation(
    method: Method,
    path: str,
    handler: Callable[[Call[Q, B]], Awaitable[Answer | Stream]],
    scopes: frozenset[Scope],
    replies: Mapping[int, type[Reply]],
    summary: str,
    *,
    query: type[Q],
    body: type[B],
    codes: tuple[str, ...] = (),
    visitors: bool = False,
    streams: tuple[str, ...] = (),
    takes_stream: str | None = None,
) -> AnyOperation:
    """An operation named after its handler."""
    name = getattr(handler, "__name__", path)
    return Operation(
        method,
        path,
        name,
        summary,
        scopes,
        query,
        body,
        replies,
        handler,
        codes,
        visitors,
        streams,
        takes_stream,
    )


NO_BODY = type(None)
