"""The tables of chores, alarms and generations: see state.tables for how they are written down."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Integer, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import SQLModel

from state.columns import API, DATABASE, IDENTITY, NODE, RECONCILER, TIME, of, one_of, ref, shaped
from state.model import ChoreState, TargetKind

CHORE_KIND_PATTERN = r"^[a-z][a-z_]{0,39}$"


class ChoreRow(SQLModel, table=True):
    """Work for any node on the store, tied to no placement. One open at a time per kind and subject."""

    __tablename__ = "chore"
    __table_args__ = (
        shaped("kind", CHORE_KIND_PATTERN, "chore_kind_is_lower_case_letters_and_underscores"),
        one_of("state", ChoreState, "chore_state_is_waiting_given_done_failed_or_cancelled"),
        CheckConstraint("(state = 'given') = (given_at IS NOT NULL)", name="chore_given_at_goes_with_given"),
        CheckConstraint("state <> 'given' OR node_id IS NOT NULL", name="chore_that_is_given_has_a_node"),
        CheckConstraint(
            "(state IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="chore_finished_at_is_its_end",
        ),
        Index(
            "chore_one_open_per_subject",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("state IN ('waiting', 'given')"),
        ),
        Index("chore_of_subject", "kind", "subject"),
        Index("chore_waiting", "not_before", postgresql_where=text("state = 'waiting'")),
        Index("chore_of_node", "node_id", postgresql_where=text("state = 'given'")),
        Index("chore_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("chore_of_pod", "pod_id", "created_at", postgresql_where=text("pod_id IS NOT NULL")),
    )

    id: UUID = of(IDENTITY, Uuid, primary_key=True)
    kind: str = of(IDENTITY, Text)
    subject: str = of(IDENTITY, Text)
    request: dict[str, Any] = of(IDENTITY, JSONB, default="'{}'")
    pod_id: str | None = of(IDENTITY, Text, ref("pod"), null=True)
    workspace_id: str | None = of(IDENTITY, Text, ref("workspace"), null=True)
    only_node_id: str | None = of(IDENTITY, Text, ref("node"), null=True)  # None: any node may do it
    made_by: str = of(IDENTITY, Text)
    created_at: datetime = of(DATABASE, TIME, default="now()")

    state: str = of(RECONCILER, Text, default="'waiting'")
    attempt: int = of(RECONCILER, Integer, default="0")  # counts its givings-out; fences late results
    failures: int = of(RECONCILER, Integer, default="0")
    not_before: datetime = of(RECONCILER, TIME, default="now()")
    node_id: str | None = of(RECONCILER, Text, ref("node"), null=True)
    given_at: datetime | None = of(RECONCILER, TIME, null=True)
    finished_at: datetime | None = of(RECONCILER, TIME, null=True)
    progress: dict[str, Any] | None = of(NODE, JSONB, null=True)
    result: dict[str, Any] | None = of(NODE, JSONB, null=True)
    error: dict[str, Any] | None = of(NODE, JSONB, null=True)


class AlarmRow(SQLModel, table=True):
    """Something that somebody should look at, until it is over. One open per kind and subject."""

    __tablename__ = "alarm"
    __table_args__ = (
        Index(
            "alarm_one_open_per_subject",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("cleared_at IS NULL"),
        ),
        Index("alarm_of_pod", "pod_id", postgresql_where=text("cleared_at IS NULL AND pod_id IS NOT NULL")),
    )

    id: int = of(DATABASE, BigInteger, Identity(always=True), primary_key=True)
    kind: str = of(IDENTITY, Text)
    subject: str = of(IDENTITY, Text)
    pod_id: str | None = of(IDENTITY, Text, ref("pod"), null=True)
    workspace_id: str | None = of(IDENTITY, Text, ref("workspace"), null=True)
    message: str = of(RECONCILER, Text)
    raised_at: datetime = of(DATABASE, TIME, default="now()")
    seen_at: datetime = of(RECONCILER, TIME, default="now()")
    times: int = of(RECONCILER, Integer, default="1")
    cleared_at: datetime | None = of(RECONCILER, TIME, null=True)


class RestorationRow(SQLModel, table=True):
    """A wish to go back to an earlier archive, open until the pointer has moved. The present is saved first.

    Without an archive it is a wish to be made anew: saved, and brought back from just that.
    """

    __tablename__ = "restoration"
    __table_args__ = (
        one_of("target_kind", TargetKind, "restoration_target_kind_is_pod_or_workspace"),
        Index(
            "restoration_one_open_per_target",
            "target_kind",
            "target_id",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index("restoration_of_archive", "archive_id", postgresql_where=text("finished_at IS NULL")),
    )

    id: int = of(DATABASE, BigInteger, Identity(always=True), primary_key=True)
    target_kind: str = of(API, Text)
    target_id: str = of(API, Text)
    workspace_id: str = of(API, Text, ref("workspace"))
    archive_id: str | None = of(API, Text, ref("archive"), null=True)
    asked_by: str = of(API, Text)
    asked_at: datetime = of(DATABASE, TIME, default="now()")
    from_archive_id: str | None = of(RECONCILER, Text, ref("archive"), null=True)  # what it was before
    finished_at: datetime | None = of(RECONCILER, TIME, null=True)


class StoreTargetRow(SQLModel, table=True):
    """A pod or workspace that ever uploaded something: when to see again what of it can go."""

    __tablename__ = "store_target"
    __table_args__ = (
        one_of("kind", TargetKind, "store_target_kind_is_pod_or_workspace"),
        Index("store_target_due", "check_at", postgresql_where=text("check_at IS NOT NULL")),
        Index("store_target_to_sweep", "sweep_at", postgresql_where=text("sweep_at IS NOT NULL")),
    )

    kind: str = of(IDENTITY, Text, primary_key=True)
    id: str = of(IDENTITY, Text, primary_key=True)
    check_at: datetime | None = of(RECONCILER, TIME, null=True)
    sweep_at: datetime | None = of(RECONCILER, TIME, null=True)


class SweepCandidateRow(SQLModel, table=True):
    """An object in the store that a sweep saw unreferenced. It goes if a later sweep sees the same."""

    __tablename__ = "sweep_candidate"
    __table_args__ = (Index("sweep_candidate_of_target", "kind", "target_id"),)

    key: str = of(IDENTITY, Text, primary_key=True)
    kind: str = of(IDENTITY, Text)
    target_id: str = of(IDENTITY, Text)
    size_bytes: int = of(NODE, BigInteger)
    first_seen_at: datetime = of(DATABASE, TIME, default="now()")
    last_seen_at: datetime = of(NODE, TIME, default="now()")


class InstallationRow(SQLModel, table=True):
    """Which store goes with this database."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", name="installation_is_one_row"),)

    id: int = of(IDENTITY, Integer, primary_key=True, autoincrement=False)
    store_id: str = of(IDENTITY, Text, default="gen_random_uuid()")
