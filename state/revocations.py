"""Revoked keys, pods, sessions and users: the rows, from which the file beside the key ring is made again."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from state import events
from state.database import Connection, Database
from state.revoked import KEPT_S, Kind, Revoked
from state.rows import Row

# nginx reads them all for each new visit.
IN_FORCE_MAX = 1000

_COLUMNS = "kind, subject, revoked_at, expires_at, actor, reason"
_COUNT = "SELECT count(*) AS count FROM revocation WHERE expires_at > now() AND (kind, subject) <> (%s, %s)"
_REVOKE = f"""
    INSERT INTO revocation ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (kind, subject) DO UPDATE
       SET revoked_at = greatest(revocation.revoked_at, excluded.revoked_at),
           expires_at = excluded.expires_at, actor = excluded.actor, reason = excluded.reason
    RETURNING {_COLUMNS}
"""  # noqa: S608 - only the constant above is put in
_IN_FORCE = f"""
    SELECT {_COLUMNS} FROM revocation WHERE expires_at > now()
     ORDER BY revoked_at DESC, kind, subject LIMIT %s
"""  # noqa: S608 - likewise


@dataclass(frozen=True, slots=True)
class Revocation:
    """What was revoked, when, by whom and why."""

    kind: Kind
    subject: str
    revoked_at: datetime
    expires_at: datetime
    actor: str
    reason: str | None


class TooManyRevocations(Exception):
    """As many are in force as nginx should read."""


def revoke(
    db: Database, kind: Kind, subject: str, *, now: datetime, actor: str, reason: str | None = None
) -> Revocation:
    """Revoke what was issued up to `now`, by the clock of whoever issues. Again counts from then.

    Raises `TooManyRevocations`.
    """
    with db.transaction() as connection:
        count = connection.execute(_COUNT, (kind, subject)).fetchone()
        if count is not None and count["count"] >= IN_FORCE_MAX:
            raise TooManyRevocations(f"{IN_FORCE_MAX} revocations are in force already.")
        row = connection.execute(
            _REVOKE, (kind, subject, now, now + timedelta(seconds=KEPT_S), actor, reason)
        ).fetchone()
        assert row is not None
        pod_id = subject if kind is Kind.POD and _is_pod(connection, subject) else None
        detail = {"kind": kind.value, "subject": subject}
        events.append(
            connection,
            actor=actor,
            kind="access",
            pod_id=pod_id,
            to_value="revoked",
            reason=reason,
            detail=detail,
        )
    return _read(row)


def in_force(db: Database) -> list[Revocation]:
    """Those that still matter, newest first."""
    with db.transaction() as connection:
        return [_read(row) for row in connection.execute(_IN_FORCE, (IN_FORCE_MAX,))]


def revoked(db: Database) -> Revoked:
    """The same as what the gate reads."""
    return Revoked.of((one.kind, one.subject, int(one.revoked_at.timestamp())) for one in in_force(db))


def _is_pod(connection: Connection, subject: str) -> bool:
    return connection.execute("SELECT 1 FROM pod WHERE id = %s", (subject,)).fetchone() is not None


def _read(row: Row) -> Revocation:
    return Revocation(**{**row, "kind": Kind(row["kind"])})
