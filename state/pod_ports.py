"""Which ports of a pod others may see, as its user says. Nothing here opens anything: api.port_files does."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from state import events
from state.database import Database
from state.model import Visibility
from state.pods import PodAccess

LINK_ID_BYTES = 24
PORTS_OF_POD_MAX = 20
OPEN_PORTS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class PodPort:
    """A port that is open to others. `link_id` lets them in: never log it."""

    pod_id: str
    port: int
    visibility: Visibility
    link_id: str = field(repr=False)


class TooManyPorts(Exception):
    """The pod has as many open ports as it may have."""


_LOCK_POD = "SELECT id FROM pod WHERE id = %s FOR NO KEY UPDATE"
_GET = "SELECT pod_id, port, visibility, link_id FROM pod_port WHERE pod_id = %s AND port = %s"
_LIST = "SELECT pod_id, port, visibility, link_id FROM pod_port WHERE pod_id = %s ORDER BY port"
_OPEN = """
    INSERT INTO pod_port (pod_id, port, visibility, link_id) VALUES (%s, %s, %s, %s)
    ON CONFLICT (pod_id, port) DO UPDATE
       SET visibility = excluded.visibility, link_id = excluded.link_id, changed_at = now()
"""
_CLOSE = "DELETE FROM pod_port WHERE pod_id = %s AND port = %s"
# Only of pods that their nodes see running, at the epoch of their placement, as in state.pods.access_of.
_REACHABLE = """
    SELECT s.pod_id, s.port, s.visibility, s.link_id,
           p.user_id, o.node_id, o.epoch, o.upstream, o.session_secret
      FROM pod_port s
      JOIN pod p ON p.id = s.pod_id AND p.desired_state <> 'deleted'
      JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
      JOIN pod_observed o ON o.pod_id = p.id AND o.node_id = pl.node_id AND o.epoch = pl.epoch
     WHERE o.state = 'running' AND o.upstream IS NOT NULL AND o.session_secret IS NOT NULL
     ORDER BY s.pod_id, s.port LIMIT %s
"""


def set_visibility(db: Database, pod_id: str, port: int, visibility: Visibility, *, actor: str) -> PodPort:
    """Say who may see an application. Saying it again changes nothing; private and open again ends old links.

    Raises `TooManyPorts`. The pod must exist.
    """
    with db.transaction() as connection:
        connection.execute(_LOCK_POD, (pod_id,))
        row = connection.execute(_GET, (pod_id, port)).fetchone()
        before = Visibility(row["visibility"]) if row else Visibility.PRIVATE
        link_id = row["link_id"] if row else secrets.token_urlsafe(LINK_ID_BYTES)
        if visibility is before:
            return PodPort(pod_id, port, visibility, link_id)
        if visibility is Visibility.PRIVATE:
            connection.execute(_CLOSE, (pod_id, port))
        else:
            if row is None and len(connection.execute(_LIST, (pod_id,)).fetchall()) >= PORTS_OF_POD_MAX:
                raise TooManyPorts(f"{PORTS_OF_POD_MAX} ports of pod {pod_id} are open to others already.")
            connection.execute(_OPEN, (pod_id, port, visibility, link_id))
        events.append(
            connection,
            actor=actor,
            kind="port",
            pod_id=pod_id,
            from_value=before,
            to_value=visibility,
            detail={"port": port},
        )
    return PodPort(pod_id, port, visibility, link_id)


def list_ports(db: Database, pod_id: str) -> list[PodPort]:
    """The ports of a pod that are open to others."""
    with db.transaction() as connection:
        return [_port(row) for row in connection.execute(_LIST, (pod_id,))]


def reachable(db: Database) -> list[tuple[PodPort, PodAccess]]:
    """Every open port of a pod that runs, with how to reach it; at most `OPEN_PORTS_MAX`."""
    with db.transaction() as connection:
        rows = connection.execute(_REACHABLE, (OPEN_PORTS_MAX,)).fetchall()
    return [(_port(row), _access(row)) for row in rows]


def _port(row: Any) -> PodPort:
    return PodPort(row["pod_id"], row["port"], Visibility(row["visibility"]), row["link_id"])


def _access(row: Any) -> PodAccess:
    return PodAccess(
        row["pod_id"], row["user_id"], row["node_id"], row["epoch"], row["upstream"], row["session_secret"]
    )
