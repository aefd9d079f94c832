"""What the API says of revocations. Pure; part of the wire, see `api.wire`."""

from datetime import datetime

from pydantic import Field

from api.wire import Reply, Request
from state.revoked import Kind

SUBJECT_CHARS_MAX = 256
REASON_CHARS_MAX = 500


class Revoke(Request):
    """What lets nobody in any more: all that was issued until now."""

    kind: Kind = Field(description="A key of the ring, a pod's sessions, one session, or a user's sessions.")
    subject: str = Field(
        min_length=1,
        max_length=SUBJECT_CHARS_MAX,
        pattern=r"^[!-~]+$",
        description="Its id, as links, logs and events have it.",
    )
    reason: str | None = Field(
        default=None, min_length=1, max_length=REASON_CHARS_MAX, description="For the event history."
    )


class Revocation(Reply):
    """Something that was revoked."""

    kind: Kind
    subject: str
    revoked_at: datetime = Field(
        description="What was issued up to then is refused, and its sockets are cut."
    )
    expires_at: datetime = Field(description="By then it has expired by itself, and this is forgotten.")
    actor: str
    reason: str | None


class RevocationList(Reply):
    """The revocations that still matter, newest first."""

    revocations: list[Revocation]
