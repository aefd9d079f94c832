"""The handlers about the API's own tokens."""

from api import views, wire, wire_tokens
from api.operation import Answer, Call
from api.problems import ProblemError
from state import tokens


async def create_token(call: Call[wire.NoQuery, wire_tokens.CreateToken]) -> Answer:
    """Make a token, and show it this once."""
    asked = call.body
    status, plaintext = await call.deps.run(
        tokens.create_token, call.deps.db, asked.name, asked.scope.value, actor=call.actor
    )
    return Answer(views.created_token(status, plaintext), 201, {"Cache-Control": "no-store"})


async def list_tokens(call: Call[wire_tokens.ListTokensQuery, None]) -> Answer:
    """One page of tokens, without the tokens themselves."""
    query = call.query
    found = await call.deps.run(tokens.list_tokens, call.deps.db, after=query.after, limit=query.limit)
    following = found[-1].id if len(found) == query.limit else None
    return Answer(wire_tokens.TokenList(tokens=[views.token(status) for status in found], next=following))


async def revoke_token(call: Call[wire.NoQuery, None]) -> Answer:
    """End a token, at once."""
    try:
        status = await call.deps.run(tokens.revoke, call.deps.db, call.target_id, actor=call.actor)
    except tokens.TokenNotFound as error:
        raise ProblemError("token_not_found", str(error)) from error
    return Answer(views.token(status))
