"""Saying what a column is, who may write it, and by which rule: the words that state.tables is written in."""

from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, text
from sqlmodel import Field


class Owner(StrEnum):
    """Who may write a column. The guards in the database say so too (docs/sql.md)."""

    IDENTITY = "identity"  # set when the row is made, and never again
    DATABASE = "database"  # set by triggers
    DESIRED = "desired"  # API, admins, policies
    RECONCILER = "reconciler"
    NODE = "node"  # what a node reported, written by the gateway
    API = "api"


IDENTITY, DATABASE, DESIRED, RECONCILER, NODE, API = Owner

TIME = DateTime(timezone=True)


def of(
    owner: Owner,
    kind: Any,
    *constraints: Any,
    default: str | None = None,
    null: bool = False,
    **options: Any,
) -> Any:
    """A column with its owner. `default` is the server's, as SQL."""
    server_default = None if default is None else text(default)
    info = {"owner": owner}
    column: Column[Any] = Column(
        kind, *constraints, info=info, server_default=server_default, nullable=null, **options
    )
    return Field(sa_column=column)


def ref(table: str) -> ForeignKey:
    """A reference to another table's id."""
    return ForeignKey(f"{table}.id")


def one_of(column: str, values: Any, name: str) -> CheckConstraint:
    """A CHECK whose name says the rule, for the name is what a person in psql is shown."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


def shaped(column: str, pattern: str, name: str) -> CheckConstraint:
    """A CHECK against one of the patterns of state.ids."""
    return CheckConstraint(f"{column} ~ '{pattern}'".replace(":", r"\:"), name=name)
