"""How values of `state.model` lie in rows: JSON columns and joined columns, read strictly.

A row that does not fit raises `ValueError` (pydantic's is one); the caller parks what it belongs to (LAW 12).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from state.model import (
    ArchiveRef,
    Failure,
    Observed,
    ObservedPod,
    ObservedWorkspace,
    OpenAction,
    Restoration,
    Verb,
    WorkspaceObserved,
)

Row = Mapping[str, Any]

_FAILURE = TypeAdapter(Failure)


def failure_to_json(failure: Failure) -> dict[str, Any]:
    """The `failure` column of a pod or workspace."""
    value: dict[str, Any] = _FAILURE.dump_python(failure, mode="json")
    return value


def failure_from_json(value: Mapping[str, Any] | None) -> Failure | None:
    """The failure in a `failure` column; raises `ValueError` when it is not one."""
    return None if value is None else _FAILURE.validate_python(value)


def archive_of(row: Row) -> ArchiveRef | None:
    """The archive joined to `row` under `archive_…` names, or None when none was."""
    if row["archive_id"] is None:
        return None
    return ArchiveRef(
        id=row["archive_id"],
        number=row["archive_number"],
        epoch=row["archive_epoch"],
        manifest_key=row["archive_manifest_key"],
        manifest_digest=row["archive_manifest_digest"],
        fingerprint=row["archive_fingerprint"],
        image_id=row["archive_image_id"],
        committed_at=row["archive_committed_at"],
    )


def action_of(row: Row) -> OpenAction | None:
    """The open action joined to `row` under `action_…` names, or None when none is open."""
    if row["action_id"] is None:
        return None
    return OpenAction(
        id=str(row["action_id"]),
        verb=Verb(row["action_verb"]),
        node_id=row["action_node_id"],
        epoch=row["action_epoch"],
        generation=row["action_generation"],
        created_at=row["action_created_at"],
        taken_back=row["action_taken_back"],
    )


def restoration_of(row: Row) -> Restoration | None:
    """The open restoration joined to `row` under `restoration_…` names, or None when none is open."""
    if row["restoration_id"] is None:
        return None
    return Restoration(row["restoration_id"], row["restoration_archive_id"], row["restoration_number"] or 0)


def observed_pod_of(row: Row) -> ObservedPod | None:
    """What was observed of the pod at its live placement, joined under `observed_…` names."""
    if row["observed_state"] is None:
        return None
    return ObservedPod(
        state=Observed(row["observed_state"]),
        node_id=row["observed_node_id"],
        epoch=row["observed_epoch"],
        container_id=row["observed_container_id"],
        image_id=row["observed_image_id"],
        fingerprint=row["observed_fingerprint"],
        self_fence_s=row["observed_self_fence_s"],
        since=row["observed_since"],
    )


def observed_workspace_of(row: Row) -> ObservedWorkspace | None:
    """What was observed of the volume at the live placement, joined under `observed_…` names."""
    if row["observed_state"] is None:
        return None
    return ObservedWorkspace(
        state=WorkspaceObserved(row["observed_state"]),
        node_id=row["observed_node_id"],
        epoch=row["observed_epoch"],
        fingerprint=row["observed_fingerprint"],
    )
