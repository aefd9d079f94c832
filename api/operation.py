"""What an operation is: one value that registers the route and describes it in the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from api.deps import Deps
from api.problems import COMMON_CODES
from api.wire import Query, Reply, Request, Scope

Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=Request | None)

Method = Literal["GET", "POST", "PUT", "DELETE"]

_BODY_CODES = ("malformed_json", "body_too_slow", "body_too_large", "media_type_refused")
_FIELD_CODES = ("unknown_field", "invalid_field")
_TOKEN_CODES = ("token_missing", "token_refused", "scope_refused")


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One authenticated, validated request. `actor` is who asks, for the event history."""

    deps: Deps
    actor: str
    pod_id: str
    query: Q
    body: B


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back."""

    body: Reply
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q, B]):
    """One method of one path. `scopes` names who may call it; empty means anybody, without a token."""

    method: Method
    path: str
    name: str
    summary: str
    scopes: frozenset[Scope]
    query: type[Q]
    body: type[B]
    replies: Mapping[int, type[Reply]]
    handler: Callable[[Call[Q, B]], Awaitable[Answer]]
    own_codes: tuple[str, ...] = ()

    @property
    def takes_body(self) -> bool:
        """A JSON body is expected."""
        return self.body is not type(None)

    @property
    def about_pod(self) -> bool:
        """The path names a pod."""
        return "{pod_id}" in self.path

    @property
    def codes(self) -> tuple[str, ...]:
        """Every problem code this operation may answer with, but for those of routing."""
        return (
            *(_TOKEN_CODES if self.scopes else ()),
            *(_BODY_CODES if self.takes_body else ()),
            *_FIELD_CODES,
            *(("pod_not_found",) if self.about_pod else ()),
            *self.own_codes,
            *COMMON_CODES,
        )


AnyOperation = Operation[Any, Any]
