"""The API's bearer tokens: shown once when they are made, kept as a hash."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from state import events, ids
from state.database import Database

PREFIX = "cpt_"
Scope = Literal["revpro", "admin", "read"]

_AUTHENTICATE = "SELECT id, name, scope FROM api_token WHERE hash = %s AND revoked_at IS NULL"
_REVOKE = "UPDATE api_token SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL RETURNING name"


@dataclass(frozen=True, slots=True)
class Token:
    """Whom a token stands for, and what it may do."""

    id: str
    name: str
    scope: Scope


def create_token(db: Database, name: str, scope: Scope) -> str:
    """Make a token: `cpt_` and 43 characters. Only its hash is kept: it can be read this once."""
    plaintext = PREFIX + ids.new_secret()
    with db.transaction() as connection:
        connection.execute(
            "INSERT INTO api_token (id, name, scope, hash) VALUES (%s, %s, %s, %s)",
            (ids.new_token_id(), name, scope, hash_of(plaintext)),
        )
        events.append(connection, actor="admin", kind="token", to_value="created", detail={"name": name})
    return plaintext


def authenticate(db: Database, plaintext: str) -> Token | None:
    """Whose token it is; None for one that was never made, or was revoked."""
    with db.transaction() as connection:
        row = connection.execute(_AUTHENTICATE, (hash_of(plaintext),)).fetchone()
    return None if row is None else Token(**row)


def revoke(db: Database, token_id: str) -> bool:
    """End a token, at once. False when there is none of this id, or it was revoked before."""
    with db.transaction() as connection:
        row = connection.execute(_REVOKE, (token_id,)).fetchone()
        if row is not None:
            detail = {"name": row["name"]}
            events.append(connection, actor="admin", kind="token", to_value="revoked", detail=detail)
    return row is not None


def hash_of(plaintext: str) -> str:
    """What is kept of a token. It has 256 random bits, so that a plain, fast hash is enough."""
    return hashlib.sha256(plaintext.encode()).hexdigest()
