"""The tables, as SQLModel rows, with the one owner of each column beside it (LAW 3).

The database itself is made by migrations/ (tables, triggers, grants, views); a test shows that both describe
the same tables. Hot paths read and write with plain SQL, not with these classes.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import SQLModel

from state import ids
from state.columns import API, DATABASE, DESIRED, IDENTITY, NODE, RECONCILER, TIME, of, one_of, ref, shaped
from state.model import ActionState, Desired, Failover, Observed, TargetKind, Verb, WorkspaceObserved

REPORTED_POD_STATES = tuple(state for state in Observed if state is not Observed.UNKNOWN)
TOKEN_SCOPES = ("revpro", "admin", "read")


class WorkspaceRow(SQLModel, table=True):
    """A user's files, mounted in all of the user's pods. `epoch` counts placements and only grows."""

    __tablename__ = "workspace"
    __table_args__ = (
        shaped("id", ids.WORKSPACE_ID_PATTERN, "workspace_id_is_w_dash_12_base32"),
        shaped("user_id", ids.USER_ID_PATTERN, "workspace_user_id_is_1_to_128_letters_digits_or_dot_at_plus"),
        CheckConstraint("epoch >= 0", name="workspace_epoch_is_not_negative"),
        CheckConstraint(
            "closed_grace_s BETWEEN 0 AND 31536000", name="workspace_closed_grace_s_is_0_to_one_year"
        ),
        CheckConstraint(
            "idle_limit_s BETWEEN 0 AND 31536000", name="workspace_idle_limit_s_is_0_to_one_year"
        ),
        CheckConstraint("lifetime_s BETWEEN 0 AND 31536000", name="workspace_lifetime_s_is_0_to_one_year"),
        CheckConstraint(
            "archive_after_s BETWEEN 0 AND 31536000", name="workspace_archive_after_s_is_0_to_one_year"
        ),
        UniqueConstraint("user_id", name="workspace_one_per_user"),
        Index("workspace_due", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
    )

    id: str = of(IDENTITY, Text, primary_key=True)
    user_id: str = of(IDENTITY, Text)
    epoch: int = of(RECONCILER, BigInteger, default="0")
    archive_id: str | None = of(RECONCILER, Text, ref("archive"), null=True)
    failure: dict[str, Any] | None = of(RECONCILER, JSONB, null=True)
    next_check_at: datetime | None = of(RECONCILER, TIME, null=True)
    created_at: datetime = of(DATABASE, TIME, default="now()")
    # How long the user's pods may go on, where the pod says nothing: docs/presence.md.
    closed_grace_s: int | None = of(DESIRED, Integer, null=True)
    idle_limit_s: int | None = of(DESIRED, Integer, null=True)
    lifetime_s: int | None = of(DESIRED, Integer, null=True)
    archive_after_s: int | None = of(DESIRED, Integer, null=True)


class PlacementRow(SQLModel, table=True):
    """Where a workspace and its pods are, or were. At most one is not released."""

    __tablename__ = "placement"
    __table_args__ = (
        CheckConstraint("epoch > 0", name="placement_epoch_is_positive"),
        Index("placement_current", "workspace_id", unique=True, postgresql_where=text("released_at IS NULL")),
        Index("placement_of_node", "node_id", postgresql_where=text("released_at IS NULL")),
    )

    workspace_id: str = of(IDENTITY, Text, ref("workspace"), primary_key=True)
    epoch: int = of(IDENTITY, BigInteger, primary_key=True, autoincrement=False)
    node_id: str = of(IDENTITY, Text, ref("node"))
    placed_at: datetime = of(DATABASE, TIME, default="now()")
    released_at: datetime | None = of(RECONCILER, TIME, null=True)


class PodRow(SQLModel, table=True):
    """One IDE. A change of a desired column other than the reason makes a new generation (LAW 4)."""

    __tablename__ = "pod"
    __table_args__ = (
        shaped("id", ids.POD_ID_PATTERN, "pod_id_is_p_dash_12_base32"),
        shaped("name", ids.POD_NAME_PATTERN, "pod_name_is_1_to_63_lower_case_letters_digits_and_dashes"),
        shaped("image", ids.IMAGE_PATTERN, "pod_image_is_an_image_reference"),
        CheckConstraint(f"length(image) <= {ids.IMAGE_CHARS_MAX}", name="pod_image_is_at_most_400_chars"),
        shaped("lab", ids.LAB_PATTERN, "pod_lab_is_1_to_63_letters_digits_dot_underscore_and_dash"),
        one_of("desired_state", Desired, "pod_desired_state_is_running_stopped_archived_or_deleted"),
        one_of("failover", Failover, "pod_failover_is_wait_or_from_last_archive"),
        CheckConstraint("cpu_millis BETWEEN 100 AND 64000", name="pod_cpu_millis_is_100_to_64000"),
        CheckConstraint("memory_mib BETWEEN 256 AND 262144", name="pod_memory_mib_is_256_to_262144"),
        CheckConstraint("pids BETWEEN 256 AND 32768", name="pod_pids_is_256_to_32768"),
        CheckConstraint("closed_grace_s BETWEEN 0 AND 31536000", name="pod_closed_grace_s_is_0_to_one_year"),
        CheckConstraint("idle_limit_s BETWEEN 0 AND 31536000", name="pod_idle_limit_s_is_0_to_one_year"),
        CheckConstraint("lifetime_s BETWEEN 0 AND 31536000", name="pod_lifetime_s_is_0_to_one_year"),
        CheckConstraint(
            "archive_after_s BETWEEN 0 AND 31536000", name="pod_archive_after_s_is_0_to_one_year"
        ),
        CheckConstraint("length(desired_reason) <= 500", name="pod_desired_reason_is_at_most_500_characters"),
        CheckConstraint("satisfied_generation BETWEEN 0 AND generation", name="pod_satisfied_is_not_ahead"),
        CheckConstraint(
            "(desired_state = 'deleted') = (deleted_at IS NOT NULL)",
            name="pod_deleted_at_goes_with_the_tombstone",
        ),
        Index(
            "pod_one_per_name",
            "workspace_id",
            "name",
            unique=True,
            postgresql_where=text("desired_state <> 'deleted'"),
        ),
        Index("pod_gap", "id", postgresql_where=text("generation <> satisfied_generation")),
        Index("pod_due", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
        Index(
            "pod_waiting_for_room",
            "next_check_at",
            postgresql_where=text("condition = 'waiting_for_capacity'"),
        ),
        Index("pod_of_workspace", "workspace_id"),
        Index("pod_of_user", "user_id", "id"),
    )

    id: str = of(IDENTITY, Text, primary_key=True)
    workspace_id: str = of(IDENTITY, Text, ref("workspace"))
    user_id: str = of(IDENTITY, Text)  # the workspace's, copied for people in psql
    name: str = of(IDENTITY, Text)
    created_at: datetime = of(DATABASE, TIME, default="now()")

    desired_state: str = of(DESIRED, Text)
    desired_reason: str | None = of(DESIRED, Text, null=True)
    asked_again: int = of(DESIRED, Integer, default="0")  # counts repeated wishes that void a failure
    image: str = of(DESIRED, Text)
    lab: str | None = of(DESIRED, Text, null=True)
    cpu_millis: int = of(DESIRED, Integer, default="1000")
    memory_mib: int = of(DESIRED, Integer, default="2048")
    pids: int = of(DESIRED, Integer, default="512")
    failover: str = of(DESIRED, Text, default="'wait'")

    generation: int = of(DATABASE, BigInteger, default="1")
    desired_at: datetime = of(DATABASE, TIME, default="now()")
    deleted_at: datetime | None = of(DATABASE, TIME, null=True)

    satisfied_generation: int = of(RECONCILER, BigInteger, default="0")
    image_id: str | None = of(RECONCILER, Text, null=True)
    archive_id: str | None = of(RECONCILER, Text, ref("archive"), null=True)
    failure: dict[str, Any] | None = of(RECONCILER, JSONB, null=True)
    condition: str | None = of(RECONCILER, Text, null=True)
    reason: str | None = of(RECONCILER, Text, null=True)
    reason_since: datetime | None = of(RECONCILER, TIME, null=True)
    next_check_at: datetime | None = of(RECONCILER, TIME, null=True)

    # How long it may go on as it is; NULL: as for the user. 0: without a limit. docs/presence.md has them.
    closed_grace_s: int | None = of(DESIRED, Integer, null=True)
    idle_limit_s: int | None = of(DESIRED, Integer, null=True)
    lifetime_s: int | None = of(DESIRED, Integer, null=True)
    archive_after_s: int | None = of(DESIRED, Integer, null=True)
    keep_until: datetime | None = of(DESIRED, TIME, null=True)


class PodObservedRow(SQLModel, table=True):
    """The newest report about a pod. `session_secret` opens the IDE: it is never shown, in no view."""

    __tablename__ = "pod_observed"
    __table_args__ = (
        one_of("state", REPORTED_POD_STATES, "pod_observed_state_is_one_that_a_node_reports"),
        Index("pod_observed_of_node", "node_id"),
        {"postgresql_with": {"fillfactor": 80}},
    )

    pod_id: str = of(IDENTITY, Text, ref("pod"), primary_key=True)
    node_id: str = of(NODE, Text, ref("node"))
    epoch: int = of(NODE, BigInteger)
    generation: int = of(NODE, BigInteger)
    state: str = of(NODE, Text)
    container_id: str | None = of(NODE, Text, null=True)
    image_id: str | None = of(NODE, Text, null=True)
    upstream: str | None = of(NODE, Text, null=True)
    session_secret: str | None = of(NODE, Text, null=True)
    fingerprint: str | None = of(NODE, Text, null=True)
    started_at: datetime | None = of(NODE, TIME, null=True)
    exit_code: int | None = of(NODE, Integer, null=True)
    oom_killed: bool = of(NODE, Boolean, default="false")
    boot_id: str = of(NODE, Text)
    sequence: int = of(NODE, BigInteger)
    since: datetime = of(NODE, TIME, default="now()")  # when `state` last changed
    reported_at: datetime = of(NODE, TIME, default="now()")
    self_fence_s: int | None = of(NODE, Integer, null=True)


class WorkspaceObservedRow(SQLModel, table=True):
    """The newest report about a workspace volume."""

    __tablename__ = "workspace_observed"
    __table_args__ = (
        one_of("state", WorkspaceObserved, "workspace_observed_state_is_one_that_a_node_reports"),
        Index("workspace_observed_of_node", "node_id"),
        {"postgresql_with": {"fillfactor": 80}},
    )

    workspace_id: str = of(IDENTITY, Text, ref("workspace"), primary_key=True)
    node_id: str = of(NODE, Text, ref("node"))
    epoch: int = of(NODE, BigInteger)
    state: str = of(NODE, Text)
    volume: str | None = of(NODE, Text, null=True)
    fingerprint: str | None = of(NODE, Text, null=True)
    boot_id: str = of(NODE, Text)
    sequence: int = of(NODE, BigInteger)
    since: datetime = of(NODE, TIME, default="now()")  # when `state` last changed
    reported_at: datetime = of(NODE, TIME, default="now()")


class NodeRow(SQLModel, table=True):
    """A VM with an agent. What is heard of it every few seconds is in node_lease, not here."""

    __tablename__ = "node"
    __table_args__ = (
        shaped("id", ids.NODE_ID_PATTERN, "node_id_is_1_to_63_lower_case_letters_digits_and_dashes"),
        CheckConstraint("cpu_millis >= 0 AND memory_mib >= 0", name="node_capacity_is_not_negative"),
        CheckConstraint(
            "(lost_at IS NULL) = (lost_reason IS NULL)", name="node_lost_reason_goes_with_lost_at"
        ),
        CheckConstraint("length(lost_reason) <= 500", name="node_lost_reason_is_at_most_500_characters"),
    )

    id: str = of(IDENTITY, Text, primary_key=True)
    token_hash: str = of(API, Text)  # sha256 of the node's token, hex
    cordoned: bool = of(DESIRED, Boolean, default="false")
    address: str | None = of(NODE, Text, null=True)
    cpu_millis: int = of(NODE, Integer, default="0")
    memory_mib: int = of(NODE, Integer, default="0")
    facts: dict[str, Any] = of(NODE, JSONB, default="'{}'")
    silent: bool = of(
        RECONCILER, Boolean, default="false"
    )  # as last acted upon, so that it is acted upon once
    created_at: datetime = of(DATABASE, TIME, default="now()")
    lost_at: datetime | None = of(API, TIME, null=True)  # an admin's word that it will not come back
    lost_reason: str | None = of(API, Text, null=True)


class NodeLeaseRow(SQLModel, table=True):
    """When a node was last heard, by the database's clock. Written at each sync, so without an index."""

    __tablename__ = "node_lease"
    __table_args__ = ({"postgresql_with": {"fillfactor": 80}},)

    node_id: str = of(IDENTITY, Text, ref("node"), primary_key=True)
    boot_id: str = of(NODE, Text)
    sequence: int = of(NODE, BigInteger)
    last_seen_at: datetime = of(NODE, TIME, default="now()")
    engine_error: str | None = of(NODE, Text, null=True)
    former_boots: list[str] = of(NODE, JSONB, default="'[]'")  # newest first; their late reports are dropped


class ReportRow(SQLModel, table=True):
    """A node's newest report, whole, as it came."""

    __tablename__ = "report"

    node_id: str = of(IDENTITY, Text, ref("node"), primary_key=True)
    boot_id: str = of(NODE, Text)
    sequence: int = of(NODE, BigInteger)
    received_at: datetime = of(NODE, TIME, default="now()")
    digest: str = of(
        NODE, Text
    )  # sha256 of the report as it came, hex: an unchanged one is not written again
    payload: dict[str, Any] = of(NODE, JSONB)


class ActionRow(SQLModel, table=True):
    """One convergent step for one target. One open at a time; once closed it stays closed."""

    __tablename__ = "action"
    __table_args__ = (
        one_of("target_kind", TargetKind, "action_target_kind_is_pod_or_workspace"),
        one_of("verb", Verb, "action_verb_is_a_known_verb"),
        one_of("state", ActionState, "action_state_is_open_done_failed_or_superseded"),
        CheckConstraint("(target_kind = 'pod') = (pod_id IS NOT NULL)", name="action_pod_id_is_of_pod_steps"),
        CheckConstraint("target = coalesce(pod_id, workspace_id)", name="action_target_is_pod_or_workspace"),
        CheckConstraint("(state = 'open') = (finished_at IS NULL)", name="action_finished_at_is_its_end"),
        UniqueConstraint("target", "attempt", name="action_attempt_is_used_once"),
        Index("action_one_open_per_target", "target", unique=True, postgresql_where=text("state = 'open'")),
        Index("action_open_of_node", "node_id", postgresql_where=text("state = 'open'")),
    )

    id: UUID = of(IDENTITY, Uuid, primary_key=True)
    target: str = of(IDENTITY, Text)
    target_kind: str = of(IDENTITY, Text)
    verb: str = of(IDENTITY, Text)
    workspace_id: str = of(IDENTITY, Text, ref("workspace"))
    pod_id: str | None = of(IDENTITY, Text, ref("pod"), null=True)
    node_id: str = of(IDENTITY, Text, ref("node"))
    epoch: int = of(IDENTITY, BigInteger)
    generation: int = of(IDENTITY, BigInteger)
    attempt: int = of(IDENTITY, Integer)
    step: dict[str, Any] = of(IDENTITY, JSONB)
    reason: str | None = of(IDENTITY, Text, null=True)
    created_at: datetime = of(DATABASE, TIME, default="now()")
    state: str = of(RECONCILER, Text, default="'open'")
    sent_at: datetime | None = of(RECONCILER, TIME, null=True)
    finished_at: datetime | None = of(RECONCILER, TIME, null=True)
    progress: dict[str, Any] | None = of(NODE, JSONB, null=True)
    error: dict[str, Any] | None = of(NODE, JSONB, null=True)
    taken_back_at: datetime | None = of(RECONCILER, TIME, null=True)


class ArchiveRow(SQLModel, table=True):
    """A complete, verified copy in the store. What it is of never changes; what is known of it may.

    Retired: not needed any more, its blobs may be cleared away. Suspect: what the store gave was not what was
    archived. `whole_at`: when it was last read back and was. Compaction moves it to another manifest.
    """

    __tablename__ = "archive"
    __table_args__ = (
        shaped("id", ids.ARCHIVE_ID_PATTERN, "archive_id_is_a_dash_12_base32"),
        one_of("target_kind", TargetKind, "archive_target_kind_is_pod_or_workspace"),
        CheckConstraint("number > 0", name="archive_number_is_positive"),
        CheckConstraint("size_bytes >= 0", name="archive_size_bytes_is_not_negative"),
        UniqueConstraint("target_kind", "target_id", "number", name="archive_number_is_used_once"),
        UniqueConstraint("manifest_key", name="archive_manifest_key_is_used_once"),
        CheckConstraint(
            "(suspect_at IS NULL) = (suspect_reason IS NULL)",
            name="archive_suspect_reason_goes_with_suspect_at",
        ),
        Index("archive_to_scrub", "whole_at", postgresql_where=text("retired_at IS NULL")),
    )

    id: str = of(IDENTITY, Text, primary_key=True)
    target_kind: str = of(IDENTITY, Text)
    target_id: str = of(IDENTITY, Text)
    number: int = of(IDENTITY, BigInteger)
    epoch: int = of(IDENTITY, BigInteger)
    attempt: int = of(IDENTITY, Integer)
    node_id: str = of(IDENTITY, Text, ref("node"))
    manifest_key: str = of(RECONCILER, Text)
    manifest_digest: str = of(RECONCILER, Text)
    fingerprint: str = of(IDENTITY, Text)
    size_bytes: int = of(RECONCILER, BigInteger)
    image_id: str | None = of(IDENTITY, Text, null=True)
    live: bool = of(IDENTITY, Boolean, default="false")  # taken while the pod ran
    notices: list[str] = of(IDENTITY, JSONB, default="'[]'")
    committed_at: datetime = of(DATABASE, TIME, default="now()")
    retired_at: datetime | None = of(RECONCILER, TIME, null=True)
    suspect_at: datetime | None = of(RECONCILER, TIME, null=True)
    suspect_reason: str | None = of(RECONCILER, Text, null=True)
    whole_at: datetime = of(RECONCILER, TIME, default="now()")
    recovered: bool = of(IDENTITY, Boolean, default="false")  # of a placement that was over: see state.copies


class EventRow(SQLModel, table=True):
    """Append-only history: who or what changed what, from, to, why. No references: history outlives rows."""

    __tablename__ = "event"
    __table_args__ = (
        Index("event_of_pod", "pod_id", "id", postgresql_where=text("pod_id IS NOT NULL")),
        Index("event_of_workspace", "workspace_id", "id", postgresql_where=text("workspace_id IS NOT NULL")),
        Index("event_of_node", "node_id", "id", postgresql_where=text("node_id IS NOT NULL")),
    )

    id: int = of(DATABASE, BigInteger, Identity(always=True), primary_key=True)
    at: datetime = of(DATABASE, TIME, default="clock_timestamp()")
    actor: str = of(IDENTITY, Text)
    kind: str = of(IDENTITY, Text)
    pod_id: str | None = of(IDENTITY, Text, null=True)
    workspace_id: str | None = of(IDENTITY, Text, null=True)
    node_id: str | None = of(IDENTITY, Text, null=True)
    from_value: str | None = of(IDENTITY, Text, null=True)
    to_value: str | None = of(IDENTITY, Text, null=True)
    reason: str | None = of(IDENTITY, Text, null=True)
    detail: dict[str, Any] | None = of(IDENTITY, JSONB, null=True)
