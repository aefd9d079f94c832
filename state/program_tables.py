"""The tables of the programs themselves: who may call, and who leads. The rest of state.tables."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Integer, Text, UniqueConstraint
from sqlmodel import SQLModel

from state import ids
from state.columns import API, DATABASE, IDENTITY, RECONCILER, TIME, of, one_of, shaped
from state.tables import TOKEN_SCOPES


class ApiTokenRow(SQLModel, table=True):
    """A bearer token of the API, as its hash. The token itself is shown once, when it is made."""

    __tablename__ = "api_token"
    __table_args__ = (
        shaped("id", ids.TOKEN_ID_PATTERN, "api_token_id_is_t_dash_12_base32"),
        one_of("scope", TOKEN_SCOPES, "api_token_scope_is_revpro_admin_or_read"),
        UniqueConstraint("hash", name="api_token_hash_is_unique"),
    )

    id: str = of(IDENTITY, Text, primary_key=True)
    name: str = of(IDENTITY, Text)
    scope: str = of(IDENTITY, Text)
    hash: str = of(IDENTITY, Text)  # sha256 of the token, hex
    created_at: datetime = of(DATABASE, TIME, default="now()")
    revoked_at: datetime | None = of(API, TIME, null=True)


class LeaderRow(SQLModel, table=True):
    """Who leads, until when, by the database's clock. `term` grows with each leader and fences the last."""

    __tablename__ = "leader"
    __table_args__ = (CheckConstraint("id = 1", name="leader_is_one_row"),)

    id: int = of(IDENTITY, Integer, primary_key=True, autoincrement=False)
    holder: str = of(RECONCILER, Text)
    term: int = of(RECONCILER, BigInteger)
    expires_at: datetime = of(RECONCILER, TIME)
