"""Who is in the pods: taking in what nodes say, asking them to look, and telling them of warnings.

Written to `pod_presence` only, every half a minute for each running pod: no bell rings for that, and `pod` is
not touched. A bell rings when somebody came or left, or when work began or ended.
"""

from collections.abc import Collection
from typing import Any

from psycopg.types.json import Jsonb

from state.database import Connection, Database
from state.lifecycle import Presence, changed_coarsely, merge
from state.presence_wire import PodPresence, PodWarning, PresenceDown, PresenceUp
from state.rows import Row

CHANNEL = "codepods_presence"
# The gateway's own bell: waiting nodes are to be told of something.
ASK_CHANNEL = "codepods_looks"
LOOKS_ASKED_MAX = 1000
WARNINGS_PER_NODE_MAX = 500
_FIELDS = (
    "started_at",
    "seen_at",
    "connections",
    "connected_at",
    "gone_at",
    "heartbeat_at",
    "active_at",
    "busy",
    "busy_at",
    "busy_with",
)

# Only pods that are placed on this node, at this epoch, and run there by its own report (LAW 5).
_BEFORE = """
    SELECT o.pod_id, o.epoch, clock_timestamp() AS now, pp.stops_at, pp.warned_at,
           pr.node_id AS presence_node_id, pr.epoch AS presence_epoch, pr.started_at, pr.seen_at,
           pr.connections, pr.connected_at, pr.gone_at, pr.heartbeat_at, pr.active_at, pr.busy, pr.busy_at,
           pr.busy_with
      FROM pod_observed o
      JOIN pod p ON p.id = o.pod_id
      JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
                       AND pl.node_id = o.node_id AND pl.epoch = o.epoch
      LEFT JOIN pod_presence pr ON pr.pod_id = o.pod_id
      LEFT JOIN pod_policy pp ON pp.pod_id = o.pod_id
     WHERE o.node_id = %(node)s AND o.pod_id = ANY(%(ids)s) AND o.state = 'running'
     ORDER BY o.pod_id
"""
_WRITE = """
    INSERT INTO pod_presence AS pr (pod_id, node_id, epoch, cpu_millis, started_at, seen_at, connections,
                                    connected_at, gone_at, heartbeat_at, active_at, busy, busy_at, busy_with)
    SELECT pod_id, %(node)s, epoch, cpu_millis, started_at, seen_at, connections, connected_at, gone_at,
           heartbeat_at, active_at, busy, busy_at, busy_with
      FROM jsonb_to_recordset(%(rows)s)
        AS t(pod_id text, epoch bigint, cpu_millis int, started_at timestamptz, seen_at timestamptz,
             connections int, connected_at timestamptz, gone_at timestamptz, heartbeat_at timestamptz,
             active_at timestamptz, busy boolean, busy_at timestamptz, busy_with text)
     ORDER BY pod_id
        ON CONFLICT (pod_id) DO UPDATE
       SET node_id = excluded.node_id, epoch = excluded.epoch, cpu_millis = excluded.cpu_millis,
           started_at = excluded.started_at, seen_at = excluded.seen_at, connections = excluded.connections,
           connected_at = excluded.connected_at, gone_at = excluded.gone_at,
           heartbeat_at = excluded.heartbeat_at, active_at = excluded.active_at, busy = excluded.busy,
           busy_at = excluded.busy_at, busy_with = excluded.busy_with,
           look_asked_at = CASE WHEN pr.look_asked_at > excluded.seen_at THEN pr.look_asked_at END
"""
_WAKE = """
    UPDATE pod_policy SET next_look_at = clock_timestamp()
     WHERE pod_id IN (SELECT pod_id FROM pod_policy WHERE pod_id = ANY(%(ids)s) ORDER BY pod_id FOR UPDATE)
"""

# Locked in the order of ids, as they are written when a node tells.
_ASK = """
    UPDATE pod_presence SET look_asked_at = clock_timestamp()
     WHERE pod_id IN (SELECT pod_id FROM pod_presence WHERE pod_id = ANY(%(ids)s)
                       ORDER BY pod_id LIMIT %(limit)s FOR UPDATE)
"""
_ASKED = """
    SELECT node_id, array_agg(pod_id ORDER BY pod_id) AS ids FROM pod_presence
     WHERE look_asked_at IS NOT NULL AND look_asked_at > clock_timestamp() - interval '60 s' GROUP BY node_id
"""
_WARNINGS = """
    SELECT pp.pod_id, pl.epoch, pp.stops_at, pp.reason, pp.can_extend,
           extract(epoch FROM pp.stops_at - clock_timestamp())::float8 AS stops_in_s
      FROM pod_policy pp
      JOIN pod p ON p.id = pp.pod_id AND p.desired_state = 'running'
      JOIN placement pl ON pl.workspace_id = p.workspace_id AND pl.released_at IS NULL
     WHERE pp.warned_at IS NOT NULL AND pp.stops_at IS NOT NULL AND pl.node_id = %(node)s
     ORDER BY pp.stops_at LIMIT %(limit)s
"""


def take_in(conn: Connection, node_id: str, up: PresenceUp) -> None:
    """Write down what a node (whose message is its newest) says of who is there."""
    said = {words.pod_id: words for words in up.pods}
    rows = conn.execute(_BEFORE, {"node": node_id, "ids": sorted(said)}).fetchall()
    written, woken = [], []
    for row in rows:
        words = said[row["pod_id"]]
        if words.epoch != row["epoch"]:
            continue
        before = _presence_of(row, node_id)
        after = merge(before, words, row["now"])
        written.append(_as_row(words, after))
        if changed_coarsely(before, after) or _is_waited_for(row, after):
            woken.append(row["pod_id"])
    if written:
        conn.execute(_WRITE, {"node": node_id, "rows": Jsonb(written)})
    if woken:
        conn.execute(_WAKE, {"ids": woken})
        conn.execute(f"NOTIFY {CHANNEL}")


def _presence_of(row: Row, node_id: str) -> Presence | None:
    if (row["presence_node_id"], row["presence_epoch"]) != (node_id, row["epoch"]):
        return None
    return presence_of(row)


def presence_of(row: Row) -> Presence | None:
    """The look in a row that has the columns of `pod_presence`; None where there is none."""
    return None if row["seen_at"] is None else Presence(**{name: row[name] for name in _FIELDS})


def _is_waited_for(row: Row, after: Presence) -> bool:
    """A deadline has passed, or a warning stands, and this look may be what decides."""
    if row["stops_at"] is not None and after.seen_at >= row["stops_at"]:
        return True
    return row["warned_at"] is not None and row["active_at"] != after.active_at


def _as_row(words: PodPresence, after: Presence) -> dict[str, Any]:
    fields = {name: getattr(after, name) for name in _FIELDS}
    told = {
        name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in fields.items()
    }
    return {**told, "pod_id": words.pod_id, "epoch": words.epoch, "cpu_millis": words.cpu_millis}


def ask_to_look(db: Database, pod_ids: Collection[str]) -> int:
    """Have nodes look at these pods now; of how many that was asked. Only a hint (LAW 1): it may be lost."""
    if not pod_ids:
        return 0
    with db.transaction() as conn:
        asked = conn.execute(_ASK, {"ids": sorted(pod_ids), "limit": LOOKS_ASKED_MAX}).rowcount
        if asked:
            conn.execute(f"NOTIFY {ASK_CHANNEL}")
    return asked


def looks_asked(db: Database) -> dict[str, frozenset[str]]:
    """The pods that nodes have been asked to look at and have not told of since, by node."""
    with db.transaction() as conn:
        return {row["node_id"]: frozenset(row["ids"]) for row in conn.execute(_ASKED)}


def for_node(db: Database, node_id: str, look_at: Collection[str]) -> PresenceDown:
    """What a node is told: what to look at, and the warnings that stand in its pods."""
    with db.transaction() as conn:
        rows = conn.execute(_WARNINGS, {"node": node_id, "limit": WARNINGS_PER_NODE_MAX}).fetchall()
    return PresenceDown(look_at=tuple(sorted(look_at)), warnings=tuple(_warning(row) for row in rows))


def _warning(row: Row) -> PodWarning:
    return PodWarning(
        pod_id=row["pod_id"],
        epoch=row["epoch"],
        id=warning_id(row["stops_at"]),
        stops_in_s=row["stops_in_s"],
        why=row["reason"] or "",
        can_extend=row["can_extend"],
    )


def warning_id(stops_at: Any) -> str:
    """What an answer names: a new deadline is a new warning."""
    return str(stops_at.isoformat())
