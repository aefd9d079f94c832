"""What the API says of its callers' tokens. Pure; part of the wire, see `api.wire`."""

from datetime import datetime

from pydantic import Field

from api.values import Limit, TokenId, TokenName
from api.wire import PAGE_SIZE, Query, Reply, Request, Scope


class CreateToken(Request):
    """A token for somebody, or for a program."""

    name: TokenName
    scope: Scope


class ListTokensQuery(Query):
    """Which tokens to list."""

    after: TokenId | None = Field(
        default=None, description="Give the tokens after this id: `next` of the page before."
    )
    limit: Limit = PAGE_SIZE


class Token(Reply):
    """A token, without the token itself: that is not kept."""

    token_id: str
    name: str
    scope: Scope
    created_at: datetime
    revoked_at: datetime | None = Field(description="Since when it opens nothing any more.")


class CreatedToken(Token):
    """A new token."""

    token: str = Field(description="The token itself. It is shown this once: keep it.")


class TokenList(Reply):
    """One page of tokens, in the order of their ids."""

    tokens: list[Token]
    next: str | None = Field(description="`after` of the next page; null on the last one.")
