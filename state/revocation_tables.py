"""The table of revoked sessions: see state.tables for how tables are written down."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Text
from sqlmodel import SQLModel

from state.columns import API, DATABASE, IDENTITY, TIME, of, one_of

KINDS = ("key", "pod", "session", "user")


class RevocationRow(SQLModel, table=True):
    """Of one key, pod, session or user: what was issued up to `revoked_at` lets nobody in any more."""

    __tablename__ = "revocation"
    __table_args__ = (
        one_of("kind", KINDS, "revocation_kind_is_key_pod_session_or_user"),
        CheckConstraint(
            "length(subject) BETWEEN 1 AND 256", name="revocation_subject_is_1_to_256_characters"
        ),
        CheckConstraint("length(reason) <= 500", name="revocation_reason_is_at_most_500_characters"),
        CheckConstraint("expires_at > revoked_at", name="revocation_ends_after_it_began"),
    )

    kind: str = of(IDENTITY, Text, primary_key=True)
    subject: str = of(IDENTITY, Text, primary_key=True)
    revoked_at: datetime = of(DATABASE, TIME, default="now()")
    expires_at: datetime = of(API, TIME)  # by then, whatever was issued before has expired by itself
    actor: str = of(API, Text)
    reason: str | None = of(API, Text, null=True)
