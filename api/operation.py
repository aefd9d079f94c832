"""What an operation is: one value that registers the route and describes it in the OpenAPI document."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from api.access_token import AccessClaims
from api.deps import Deps
from api.problems import COMMON_CODES
from api.values import NodeId, PodId, TokenId
from api.wire import Query, Reply, Request, Scope

Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=Request | None)

Method = Literal["GET", "POST", "PUT", "DELETE"]

_BODY_CODES = ("malformed_json", "body_too_slow", "body_too_large", "media_type_refused")
_FIELD_CODES = ("unknown_field", "invalid_field")
_TOKEN_CODES = ("token_missing", "token_refused", "scope_refused", "too_many_requests")
_VISIT_CODES = ("token_missing", "token_refused", "keyring_unavailable")


@dataclass(frozen=True, slots=True)
class PathId:
    """An id in a path: the model's type, and the code of what has not its shape or is not there."""

    kind: Any
    not_found: str


PATH_IDS: Mapping[str, PathId] = {
    "pod_id": PathId(PodId, "pod_not_found"),
    "node_id": PathId(NodeId, "node_not_found"),
    "token_id": PathId(TokenId, "token_not_found"),
}


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One authenticated, validated request.

    `actor` is who asks, for the event history; `target_id` is the id in the path, empty where there is none.
    `visit` is what the visitor's browser was admitted with, where visitors may call; `port`: as in the path.
    `incoming` is the body as it comes, where bytes are sent.
    """

    deps: Deps
    actor: str
    target_id: str
    query: Q
    body: B
    visit: AccessClaims | None = None
    port: int = 0
    incoming: AsyncIterator[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back."""

    body: Reply
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """What a handler gives back that is not JSON: bytes as they come, and who they are."""

    chunks: AsyncIterator[bytes]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q, B]):
    """One method of one path. `scopes` names who may call it; empty means anybody, without a token.

    With `visitors`, whoever was admitted to the pod in the path may call, with the token of that visit.
    """

    method: Method
    path: str
    name: str
    summary: str
    scopes: frozenset[Scope]
    query: type[Q]
    body: type[B]
    replies: Mapping[int, type[Reply]]
    handler: Callable[[Call[Q, B]], Awaitable[Answer | Stream]]
    own_codes: tuple[str, ...] = ()
    visitors: bool = False
    # Media types of what is streamed, instead of a JSON reply.
    streams: tuple[str, ...] = ()
    # The body is bytes of this media type, not JSON.
    takes_stream: str | None = None

    @property
    def takes_body(self) -> bool:
        """A JSON body is expected."""
        return self.body is not type(None)

    @property
    def id_name(self) -> str | None:
        """What the id in the path is called, one of `PATH_IDS`; None when there is none."""
        found = re.search(r"\{(\w+)\}", self.path)
        return found[1] if found else None

    @property
    def names_port(self) -> bool:
        """There is a port in the path."""
        return "{port}" in self.path

    @property
    def codes(self) -> tuple[str, ...]:
        """Every problem code this operation may answer with, but for those of routing."""
        return (
            *(_TOKEN_CODES if self.scopes else ()),
            *(_VISIT_CODES if self.visitors else ()),
            *(_BODY_CODES if self.takes_body else ()),
            *_FIELD_CODES,
            *((PATH_IDS[self.id_name].not_found,) if self.id_name else ()),
            *self.own_codes,
            *COMMON_CODES,
        )


AnyOperation = Operation[Any, Any]
