"""Who leads: one row with a term, by the database's clock.

Leading saves double work; it is not what keeps things right (LAW 5). Still each plan is recorded in a
transaction that holds the row, so that a leader who was asleep finds out at the moment of its write.
"""

from dataclasses import dataclass
from datetime import timedelta

from state.database import Connection, Database

_TRY = """
    INSERT INTO leader AS l (id, holder, term, expires_at)
    VALUES (1, %(holder)s, 1, clock_timestamp() + %(lease)s)
        ON CONFLICT (id) DO UPDATE
       SET holder = excluded.holder, term = l.term + 1, expires_at = excluded.expires_at
     WHERE l.expires_at <= clock_timestamp() OR l.holder = excluded.holder
    RETURNING term
"""
_RENEW = "UPDATE leader SET expires_at = clock_timestamp() + %s WHERE holder = %s AND term = %s"
_RESIGN = "UPDATE leader SET expires_at = clock_timestamp() WHERE holder = %s AND term = %s"
# Shared with others of the same term, but nobody takes over before this transaction ends.
_HOLD = """
    SELECT 1 FROM leader WHERE holder = %s AND term = %s AND expires_at > clock_timestamp() FOR SHARE
"""


@dataclass(frozen=True, slots=True)
class Leadership:
    """A term of leading. `term` grows with each leader: it tells a former one from the present one."""

    holder: str
    term: int


class LeadershipLost(Exception):
    """Somebody else leads, or our lease has run out: nothing may be recorded under this term."""


def try_lead(db: Database, holder: str, lease: timedelta) -> Leadership | None:
    """Begin a term, when nobody's runs; None when somebody leads.

    A holder of the same name takes over from itself at once: it is the one that was killed and started again.
    So the name must tell apart processes that may run at the same time.
    """
    with db.transaction() as connection:
        row = connection.execute(_TRY, {"holder": holder, "lease": lease}).fetchone()
    return None if row is None else Leadership(holder, row["term"])


def renew(db: Database, leadership: Leadership, lease: timedelta) -> bool:
    """Lead on for `lease` from now. False when somebody else has begun a term since."""
    with db.transaction() as connection:
        return connection.execute(_RENEW, (lease, leadership.holder, leadership.term)).rowcount == 1


def resign(db: Database, leadership: Leadership) -> None:
    """End the term now, so that another can begin at once."""
    with db.transaction() as connection:
        connection.execute(_RESIGN, (leadership.holder, leadership.term))


def assert_leading(connection: Connection, leadership: Leadership) -> None:
    """Make the caller's transaction one of this term: nobody else's begins before it ends.

    Raises `LeadershipLost`.
    """
    if connection.execute(_HOLD, (leadership.holder, leadership.term)).fetchone() is None:
        raise LeadershipLost(f"term {leadership.term} of {leadership.holder} is over")
