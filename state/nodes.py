"""Nodes: registering them, knowing them again, and what people see of them."""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from state import events
from state.database import Connection, Database, act_as
from state.model import Resources
from state.silence import wake_users_of
from state.tokens import hash_of

_REGISTER = """
    INSERT INTO node AS n (id, token_hash) VALUES (%(id)s, %(hash)s)
        ON CONFLICT (id) DO UPDATE SET token_hash = excluded.token_hash
     WHERE n.token_hash <> excluded.token_hash
    RETURNING xmax = 0 AS new
"""
_LOST = """
    UPDATE node SET lost_at = clock_timestamp(), lost_reason = %(reason)s, cordoned = true WHERE id = %(id)s
"""
# For the rest of the transaction: when workspaces come due is a column of the reconciler's, whoever wakes it.
_AS_THE_RECONCILER = "SELECT set_config('codepods.program', 'reconciler', true)"
_STATUS = "SELECT s.*, n.facts FROM node_status s JOIN node n USING (id)"
_LIST = f"{_STATUS} ORDER BY s.id"
_GET = f"{_STATUS} WHERE s.id = %s"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as people see it. `reserved` is for pods that run or are about to; never heard is silent."""

    id: str
    address: str | None
    cordoned: bool
    silent: bool
    lost: bool
    last_seen_at: datetime | None
    last_seen_ago: timedelta | None
    engine_error: str | None
    capacity: Resources
    reserved: Resources
    pods: int
    running: int
    facts: dict[str, Any]


class NodeAlive(Exception):
    """The node has been heard of lately: it is not lost."""


class NodeNotFound(Exception):
    """There is no node of this id."""


def register(db: Database, node_id: str, token: str) -> None:
    """Make a node known, or give a known one another token. The token is kept as a hash."""
    with db.transaction() as connection:
        row = connection.execute(_REGISTER, {"id": node_id, "hash": hash_of(token)}).fetchone()
        if row is not None:
            what = "registered" if row["new"] else "new token"
            events.append(connection, actor="admin", kind="node", node_id=node_id, to_value=what)


def authenticate_node(db: Database, node_id: str, token: str) -> bool:
    """Whether the token is the node's."""
    with db.transaction() as connection:
        row = connection.execute("SELECT token_hash FROM node WHERE id = %s", (node_id,)).fetchone()
    return row is not None and hmac.compare_digest(row["token_hash"], hash_of(token))


def list_nodes(db: Database) -> list[NodeStatus]:
    """All nodes, by id."""
    with db.transaction() as connection:
        return [_status(row) for row in connection.execute(_LIST)]


def set_cordoned(db: Database, node_id: str, cordoned: bool, *, actor: str) -> NodeStatus:
    """Keep new placements off a node, or let them come again; repeats safely. Raises `NodeNotFound`."""
    with db.transaction() as connection:
        act_as(connection, actor)
        done = connection.execute("UPDATE node SET cordoned = %s WHERE id = %s", (cordoned, node_id))
        if done.rowcount == 0:
            raise NodeNotFound(f"There is no node {node_id}. `podctl nodes` lists them.")
        row = connection.execute(_GET, (node_id,)).fetchone()
        assert row is not None
        return _status(row)


def declare_lost(db: Database, node_id: str, reason: str, *, actor: str) -> NodeStatus:
    """Sign that a silent node will not come back (LAW 6); it is cordoned, too. Repeats safely.

    Raises `NodeNotFound`, and `NodeAlive` for one that is heard of: its own word is better than a person's.
    """
    with db.transaction() as connection:
        act_as(connection, actor)
        connection.execute("SELECT 1 FROM node WHERE id = %s FOR NO KEY UPDATE", (node_id,))
        before = connection.execute(_GET, (node_id,)).fetchone()
        if before is None:
            raise NodeNotFound(f"There is no node {node_id}. `podctl nodes` lists them.")
        if not before["silent"]:
            raise NodeAlive(
                f"{node_id} was heard of {before['last_seen_ago'].total_seconds():.0f} s ago. A node that"
                " answers is not lost: cordon it, and archive its pods."
            )
        if not before["lost"]:
            _write_loss(connection, node_id, reason, actor)
        return _status(connection.execute(_GET, (node_id,)).fetchone() or before)


def _write_loss(connection: Connection, node_id: str, reason: str, actor: str) -> None:
    connection.execute(_LOST, {"id": node_id, "reason": reason})
    events.append(
        connection,
        actor=actor,
        kind="node",
        node_id=node_id,
        from_value="silent",
        to_value="lost",
        reason=reason,
    )
    connection.execute(_AS_THE_RECONCILER)
    wake_users_of(connection, [node_id])
    connection.execute("NOTIFY codepods_observed")


def _status(row: dict[str, Any]) -> NodeStatus:
    return NodeStatus(
        id=row["id"],
        address=row["address"],
        cordoned=row["cordoned"],
        silent=row["silent"],
        lost=row["lost"],
        last_seen_at=row["last_seen_at"],
        last_seen_ago=row["last_seen_ago"],
        engine_error=row["engine_error"],
        capacity=Resources(row["cpu_millis"], row["memory_mib"], pids=0),
        reserved=Resources(row["reserved_cpu_millis"], row["reserved_memory_mib"], pids=0),
        pods=row["pods"],
        running=row["running"],
        facts=row["facts"],
    )
