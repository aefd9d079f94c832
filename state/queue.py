"""Who waits for room or for a turn, and how many have waited for longer."""

from collections.abc import Mapping

from state.database import Database
from state.plan import Condition

# More than this is not counted: start pages ask once a second each.
AHEAD_MAX = 100

# Words, not parameters: the partial indexes pod_waiting_for_room and pod_gap are found by them.
_WAITING: Mapping[str, str] = {
    Condition.WAITING_FOR_CAPACITY: "other.condition = 'waiting_for_capacity'",
    Condition.WAITING_FOR_TURN: (
        "other.condition = 'waiting_for_turn' AND other.generation <> other.satisfied_generation"
    ),
}


def ahead_of(db: Database, pod_id: str, condition: str | None) -> int | None:
    """How many pods wait for what this one waits for, and were wanted before it; `AHEAD_MAX` + 1: more.

    None where it waits for nothing of that kind. Whoever waits longest is not always next: room for a
    large pod may not be there when there is room for a small one.
    """
    waiting = _WAITING.get(condition or "")
    if waiting is None:
        return None
    query = f"""
        SELECT count(*) AS ahead FROM (
            SELECT 1 FROM pod other, pod own
             WHERE own.id = %s AND {waiting} AND other.desired_state = 'running'
               AND (other.desired_at, other.id) < (own.desired_at, own.id) LIMIT {AHEAD_MAX + 1}) AS found
    """  # noqa: S608 - only the constants above are put in
    with db.transaction() as conn:
        row = conn.execute(query, (pod_id,)).fetchone()
        assert row is not None
        return int(row["ahead"])
