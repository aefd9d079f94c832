"""The API's bearer tokens: shown once when they are made, kept as a hash."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from state import events, ids
from state.database import Connection, Database
from state.rows import Row

PREFIX = "cpt_"
Scope = Literal["revpro", "admin", "read"]

_AUTHENTICATE = "SELECT id, name, scope FROM api_token WHERE hash = %s AND revoked_at IS NULL"
_COLUMNS = "id, name, scope, created_at, revoked_at"
_CREATE = f"INSERT INTO api_token (id, name, scope, hash) VALUES (%s, %s, %s, %s) RETURNING {_COLUMNS}"  # noqa: S608
_REVOKE = f"""
    UPDATE api_token SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL RETURNING {_COLUMNS}
"""  # noqa: S608 - only the constant above is put in
_GET = f"SELECT {_COLUMNS} FROM api_token WHERE id = %s"  # noqa: S608 - likewise
_LIST = f"SELECT {_COLUMNS} FROM api_token WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608 - likewise


@dataclass(frozen=True, slots=True)
class Token:
    """Whom a token stands for, and what it may do."""

    id: str
    name: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """A token as people see it: all but the token itself, of which only a hash is kept."""

    id: str
    name: str
    scope: Scope
    created_at: datetime
    revoked_at: datetime | None


class TokenNotFound(Exception):
    """No token has this id."""


def create_token(db: Database, name: str, scope: Scope, *, actor: str = "admin") -> tuple[TokenStatus, str]:
    """Make a token: `cpt_` and 43 characters. Only its hash is kept: it can be read this once."""
    plaintext = PREFIX + ids.new_secret()
    with db.transaction() as connection:
        row = connection.execute(_CREATE, (ids.new_token_id(), name, scope, hash_of(plaintext))).fetchone()
        assert row is not None
        _tell(connection, actor, "created", row)
    return TokenStatus(**row), plaintext


def list_tokens(db: Database, *, after: str | None = None, limit: int = 100) -> list[TokenStatus]:
    """The tokens with an id above `after`, in the order of ids, also revoked ones; at most `limit`."""
    with db.transaction() as connection:
        return [TokenStatus(**row) for row in connection.execute(_LIST, (after or "", limit))]


def authenticate(db: Database, plaintext: str) -> Token | None:
    """Whose token it is; None for one that was never made, or was revoked."""
    with db.transaction() as connection:
        row = connection.execute(_AUTHENTICATE, (hash_of(plaintext),)).fetchone()
    return None if row is None else Token(**row)


def revoke(db: Database, token_id: str, *, actor: str = "admin") -> TokenStatus:
    """End a token, at once; again changes nothing. Raises `TokenNotFound`."""
    with db.transaction() as connection:
        row = connection.execute(_REVOKE, (token_id,)).fetchone()
        if row is not None:
            _tell(connection, actor, "revoked", row)
        else:
            row = connection.execute(_GET, (token_id,)).fetchone()
    if row is None:
        raise TokenNotFound(f"No token has the id {token_id[:100]}.")
    return TokenStatus(**row)


def _tell(connection: Connection, actor: str, what: str, row: Row) -> None:
    detail = {"token_id": row["id"], "name": row["name"], "scope": row["scope"]}
    events.append(connection, actor=actor, kind="token", to_value=what, detail=detail)


def hash_of(plaintext: str) -> str:
    """What is kept of a token. It has 256 random bits, so that a plain, fast hash is enough."""
    return hashlib.sha256(plaintext.encode()).hexdigest()
